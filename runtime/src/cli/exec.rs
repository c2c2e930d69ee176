//! `runq exec`: a command in a container's VM, as runc has it run beside the container's process.
//!
//! With `--detach`, as containerd wants it, a process of its own carries the command's bytes. It is
//! the command to all others: it takes its signals, and ends with its code.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use channel::ClientConfig;
use proto::WindowSize;
use proto::exec::Exec;
use rustix::process::getpid;
use vmm::command::terminal::{Raw, window_size};
use vmm::command::{Forwarded, Signals};

use super::args::CommandLine;
use super::exec_options::{ExecOptions, VALUES};
use super::guest::Guest;
use super::root;
use super::runc::{Runc, State};
use crate::create;
use crate::exec::detach::{Parent, detach, write_pid};
use crate::exec::relay::{Relay, Streams};
use crate::exec::{Container, Refused, cgroup, confine, connect, console, oci, start};
use crate::vmspec::VmSpec;

/// Size of a terminal of which nobody knows more.
const UNKNOWN: WindowSize = WindowSize { rows: 0, cols: 0 };

/// Runs a command in a container. In one that is not ours, runc does.
pub(super) fn exec(line: &CommandLine) -> Result<ExitCode> {
    let runc = Runc::find(line)?;
    let id = line
        .operand(&VALUES)
        .context("exec: the container's ID is missing")?;
    let state = runc.state(line, id)?;
    let bundle = &state.bundle;
    if !create::is_ours(bundle).with_context(|| bundle.display().to_string())? {
        return Err(runc.exec(line));
    }
    let options = ExecOptions::parse(line.command.get(1..).unwrap_or_default())?;
    let job = Job::new(&options, &state)?;
    let pid_file = options.pid_file.as_deref();
    if !options.detach {
        return Ok(job.run(Started::Stay(pid_file))?.into());
    }
    let pid = detach(|parent| job.run(Started::Release(parent)))?;
    pid_file.map_or(Ok(()), |file| write_pid(file, pid))?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be done when the command has started.
enum Started<'a> {
    /// This process is the command from now on: its number is written to a file.
    Stay(Option<&'a Path>),
    /// The parent goes.
    Release(&'a mut Option<Parent>),
}

/// A command to run.
struct Job {
    container: Container,
    config: Arc<ClientConfig>,
    exec: Exec,
    console: Option<PathBuf>,
    root: PathBuf,
}

impl Job {
    fn new(options: &ExecOptions, state: &State) -> Result<Self> {
        let id = &options.id;
        if state.status == "paused" && !options.ignore_paused {
            bail!("container {id} is paused (--ignore-paused lets the command wait)");
        }
        let guest = Guest::open(id, state)?;
        let exec = described(options, &guest.spec)?;
        check_terminal(options, exec.terminal.is_some())?;
        Ok(Self {
            container: guest.container,
            config: guest.config,
            exec,
            console: options.console_socket.clone(),
            root: root(),
        })
    }

    /// Starts the command, and carries its bytes; its exit code.
    fn run(self, started: Started<'_>) -> Result<u8> {
        cgroup::join(self.container.pid)?;
        let size = self.exec.terminal;
        if let Some(socket) = &self.console {
            console::open(socket, size.unwrap_or(UNKNOWN))?;
        }
        let mut agent = connect(&self.container, &self.config)?;
        start(&mut agent, &self.container, self.exec).map_err(in_runcs_words)?;
        let signals = Signals::take(Forwarded::All).context("signals")?;
        let raw = size.map(|_| Raw::enter()).transpose().context("terminal")?;
        let streams = Streams {
            stdin: Some(io::stdin().as_fd().try_clone_to_owned()?),
            stdout: io::stdout().as_fd().try_clone_to_owned()?,
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
            terminal: size.is_some(),
        };
        let relay = Relay::new(agent, signals, streams);
        if let Started::Stay(Some(file)) = started {
            write_pid(file, getpid().as_raw_pid())?;
        }
        confine::enter(&self.root)?;
        if let Started::Release(parent) = started {
            parent.take().map_or(Ok(()), Parent::release)?;
        }
        let code = relay.run();
        drop(raw);
        Ok(code)
    }
}

/// What `--process` says, or the command line.
fn described(options: &ExecOptions, spec: &VmSpec) -> Result<Exec> {
    let container = &spec.start.process;
    if let Some(file) = &options.process {
        return oci::read(file, container);
    }
    ensure!(
        !options.args.is_empty(),
        "exec: the command is missing: exec {} COMMAND",
        options.id
    );
    let user = options.user.as_deref();
    Ok(Exec {
        args: options.args.clone(),
        more_env: options.env.clone(),
        cwd: options.cwd.clone(),
        user: oci::user(user, &options.additional_gids, container)?,
        capabilities: oci::add_capabilities(&options.capabilities, container)?,
        no_new_privileges: options.no_new_privileges.then_some(true),
        terminal: options.tty.then(|| window_size().unwrap_or(UNKNOWN)),
        ..Exec::default()
    })
}

/// As runc: who lets the command go has to say where its terminal is.
fn check_terminal(options: &ExecOptions, terminal: bool) -> Result<()> {
    let console = options.console_socket.is_some();
    ensure!(
        !(terminal && options.detach && !console),
        "exec: with --detach, a terminal needs --console-socket"
    );
    ensure!(
        !console || (terminal && options.detach),
        "exec: --console-socket needs --detach and a terminal"
    );
    Ok(())
}

/// What dockerd shows to users.
fn in_runcs_words(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Refused>() {
        error.context("exec failed: unable to start container process")
    } else {
        error
    }
}
