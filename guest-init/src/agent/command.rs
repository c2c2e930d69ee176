//! Starting a command beside the container's: what it joins, and what it takes on.

use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};
use libc::pid_t;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::SigSet;
use nix::unistd::{Uid, pipe2};
use proto::Start;
use proto::exec::Exec;

use super::child::{Child, descriptor};
use super::streams::{CommandEnd, Streams};
use super::{merge, processes, user};
use crate::failure::Failure;
use crate::process::{MAX_MESSAGE, finish, tell, told};
use crate::{cgroup, limits, syscalls};

/// The container, for those that join it.
pub(crate) struct Container {
    pub(super) start: Start,
    /// The process of its command, whose number is its own as long as the container lives.
    command: pid_t,
    pidfd: OwnedFd,
}

/// A command that was forked: it executes its program next.
pub(super) struct Starting {
    pub(super) child: Child,
    /// Its process number in the container.
    pub(super) number: u32,
    pub(super) streams: Streams,
    pub(super) report: Report,
}

/// What the child tells until it executes its program.
pub(super) struct Report {
    pub(super) pipe: File,
    text: Vec<u8>,
}

/// Whether the child has become its command.
pub(super) enum Outcome {
    /// Not yet.
    Open,
    /// It has.
    Started,
    /// It is not able to.
    Failed(Failure),
}

impl Container {
    /// The one whose command is this process.
    pub(super) fn new(start: Start, command: pid_t) -> Result<Self> {
        Ok(Self {
            start,
            command,
            pidfd: descriptor(command)?,
        })
    }

    /// Its ID.
    pub(super) fn name(&self) -> &str {
        let agent = self.start.agent.as_ref();
        agent.map_or("", |agent| &agent.container)
    }

    /// Has the children of this process be in the container's PID namespace, for ever.
    pub(super) fn adopt_children(&self) -> Result<()> {
        setns(&self.pidfd, CloneFlags::CLONE_NEWPID).context("join the container's PID namespace")
    }

    /// Starts a command in it.
    pub(super) fn start(&self, exec: &Exec) -> Result<Starting, Failure> {
        let (streams, end) = Streams::open(exec.terminal)?;
        let (result, report) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context("make a pipe")?;
        let Some(pid) = syscalls::fork().context("fork (the container may have ended)")? else {
            let Err(failure) = self.become_command(exec, end);
            tell(report.into(), &failure);
            std::process::exit(1);
        };
        let child = Child::new(pid)?;
        Ok(Starting {
            child,
            number: processes::number(pid).unwrap_or_default(),
            streams,
            report: Report {
                pipe: result.into(),
                text: Vec::new(),
            },
        })
    }

    /// In the child: joins the container, takes on what the command has, and executes it.
    fn become_command(&self, exec: &Exec, end: CommandEnd) -> Result<Infallible, Failure> {
        SigSet::empty()
            .thread_set_mask()
            .context("unblock signals")?;
        let own = &self.start.process;
        limits::set_oom_score_adj(own.oom_score_adj.unwrap_or_default())?;
        self.join()?;
        let user = user::find(exec.user.as_ref(), &own.user)?;
        let process = merge::process(exec, own, user);
        end.attach(Uid::from_raw(process.user.uid))?;
        finish(&process)
    }

    /// In the child: joins the namespaces that the container's command has left init for, and its
    /// control group. What comes of the files there is the container's choice from then on.
    fn join(&self) -> Result<()> {
        let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        if self.start.cgroup.is_some() {
            cgroup::join(self.command)?;
            namespaces |= CloneFlags::CLONE_NEWCGROUP;
        }
        setns(&self.pidfd, namespaces)
            .map_err(|errno| anyhow!(errno).context("join the container's namespaces"))
    }
}

impl Report {
    /// What the child has told so far.
    pub(super) fn hear(&mut self) -> Outcome {
        let room = MAX_MESSAGE.saturating_sub(self.text.len() as u64);
        let mut pipe = (&self.pipe).take(room);
        match pipe.read_to_end(&mut self.text) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Outcome::Open,
            Err(error) => Outcome::Failed(anyhow!(error).context("hear of the start").into()),
            Ok(_) => told(&self.text).map_or(Outcome::Started, Outcome::Failed),
        }
    }
}
