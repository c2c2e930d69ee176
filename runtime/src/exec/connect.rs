//! Finding the agent of a container.
//!
//! AF_VSOCK tells nobody when somebody begins to listen. While the VM boots, all ways are tried
//! again and again, as long as the container lives.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use channel::{Channel, ClientConfig, READ_SIZE};
use proto::exec::{EXEC_VERSION, FromAgent, addresses};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::age;
use super::socket::{Way, is_absent};

/// The device by which monitors get a vsock. It is there where the kernel can have one.
const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// How long the VM may boot.
const BOOT: Duration = Duration::from_secs(60);
/// How long who wants a command run waits.
const PATIENT: Patience = Patience {
    way: Duration::from_secs(5),
    agent: BOOT,
    hello: Duration::from_secs(10),
    refused: Duration::from_secs(2),
};
/// How long who only looks waits.
const HURRIED: Patience = Patience {
    agent: Duration::from_secs(5),
    hello: Duration::from_secs(5),
    ..PATIENT
};
/// Between two rounds, at first and at last.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// A connection to an agent that has said who it is.
pub type Agent = Channel<File, FromAgent>;

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    /// Its ID.
    pub id: String,
    /// Its first process, the monitor.
    pub pid: i32,
    process: OwnedFd,
    /// How old it was when it was looked at; none if /proc does not tell (mount option hidepid).
    age: Option<Duration>,
}

impl Container {
    /// The container with this ID, whose first process is `pid`.
    ///
    /// # Errors
    /// When that process is not there.
    pub fn new(id: impl Into<String>, pid: i32) -> Result<Self> {
        let id = id.into();
        let number = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        let process = number
            .context("no process")
            .and_then(|number| Ok(pidfd_open(number, PidfdFlags::empty())?))
            .with_context(|| format!("container {id} is not running: process {pid}"))?;
        Ok(Self {
            id,
            pid,
            process,
            age: age::of(pid),
        })
    }

    /// Waits so long; an error if the container ends meanwhile.
    fn pause(&self, time: Duration) -> Result<()> {
        let time = Timespec::try_from(time)?;
        let mut polled = [PollFd::new(&self.process, PollFlags::IN)];
        match poll(&mut polled, Some(&time)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => bail!("container {} has ended", self.id),
            Err(error) => Err(error.into()),
        }
    }

    fn ways(&self) -> Vec<Way> {
        let has_vsock = Path::new(VHOST_VSOCK).exists();
        let guests = addresses(&self.id).filter(|_| has_vsock).map(Way::Vsock);
        std::iter::once(Way::Monitor(self.pid))
            .chain(guests)
            .collect()
    }
}

/// Connects to the container's agent, as soon as it is there.
///
/// # Errors
/// One line that says why there is no such agent, and what to do.
pub fn connect(container: &Container, config: &Arc<ClientConfig>) -> Result<Agent> {
    search(container, config, PATIENT)
}

/// As [`connect`], for who does not want to wait for more than a few seconds.
///
/// # Errors
/// One line that says why there is no such agent, and what to do.
pub fn connect_soon(container: &Container, config: &Arc<ClientConfig>) -> Result<Agent> {
    search(container, config, HURRIED)
}

fn search(container: &Container, config: &Arc<ClientConfig>, patience: Patience) -> Result<Agent> {
    let search = Search {
        container,
        config,
        patience,
    };
    search.run(&container.ways(), Way::connect)
}

/// How long to wait for what may still come.
#[derive(Clone, Copy)]
struct Patience {
    /// For the monitor to make any way.
    way: Duration,
    /// For an agent.
    agent: Duration,
    /// For an agent that has accepted to say who it is.
    hello: Duration,
    /// For a guest that has booted, and refuses: for moments, one does whose agent is busy, too.
    refused: Duration,
}

/// What came of trying all ways.
enum Round {
    Found(Box<Agent>),
    /// For now perhaps.
    Nobody(Absence, Error),
}

/// What the best of all ways has come to, in the order of the hope that it leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Absence {
    /// There is not even a way.
    NoWay,
    /// The guest's kernel says that nobody listens.
    Refused,
    /// There is no answer, or none of an agent.
    Silent,
}

impl Absence {
    /// What an error of [`Way::connect`] means.
    fn of(error: &io::Error) -> Self {
        if is_absent(error) {
            Self::NoWay
        } else if error.kind() == ErrorKind::ConnectionReset {
            Self::Refused
        } else {
            Self::Silent
        }
    }
}

struct Search<'a> {
    container: &'a Container,
    config: &'a Arc<ClientConfig>,
    patience: Patience,
}

impl Search<'_> {
    fn run<W>(&self, ways: &[W], connect: impl Fn(&W) -> io::Result<File>) -> Result<Agent> {
        let begin = Instant::now();
        let mut refused_since = None;
        let [mut pause, longest] = PAUSES;
        loop {
            let (absence, reason) = match self.round(ways, &connect)? {
                Round::Found(agent) => return Ok(*agent),
                Round::Nobody(absence, reason) => (absence, reason),
            };
            let waited = begin.elapsed();
            refused_since = (absence == Absence::Refused).then(|| refused_since.unwrap_or(waited));
            let refused = refused_since.map(|since| waited.saturating_sub(since));
            self.check(waited, refused, absence, &reason)?;
            self.container.pause(pause)?;
            pause = (pause * 2).min(longest);
        }
    }

    /// An error if there is nothing to wait for any more, after so long, and after only refusals for
    /// so long.
    fn check(
        &self,
        waited: Duration,
        refused: Option<Duration>,
        absence: Absence,
        reason: &Error,
    ) -> Result<()> {
        let id = &self.container.id;
        ensure!(
            absence != Absence::NoWay || waited < self.patience.way,
            "container {id}: no way to its agent ({reason:#}): without {VHOST_VSOCK} (modprobe \
             vhost_vsock) only root can go through the monitor"
        );
        let age = self.container.age.map(|age| age + waited);
        let has_booted = age.is_some_and(|age| age >= BOOT);
        ensure!(
            !has_booted || refused.is_none_or(|refused| refused < self.patience.refused),
            "container {id}: the exec agent does not run any more ({reason:#}): start the container \
             anew"
        );
        ensure!(
            waited < self.patience.agent,
            "container {id}: the exec agent does not answer ({reason:#}): the VM still boots, or the \
             agent is busy, or does not run any more: start the container anew then"
        );
        Ok(())
    }

    /// Tries all ways; an error if somebody is there, and cannot be talked to.
    fn round<W>(&self, ways: &[W], connect: impl Fn(&W) -> io::Result<File>) -> Result<Round> {
        let mut absence = Absence::NoWay;
        let mut reason = anyhow!("no address");
        let mut stranger = None;
        for way in ways {
            let socket = match connect(way) {
                Ok(socket) => socket,
                Err(error) => {
                    let this = Absence::of(&error);
                    if this >= absence {
                        (absence, reason) = (this, error.into());
                    }
                    continue;
                }
            };
            absence = Absence::Silent;
            match self.greet(socket) {
                Ok(Some(agent)) => return Ok(Round::Found(Box::new(agent))),
                Ok(None) => reason = anyhow!("another container's agent is there"),
                Err(Silence::Ended) => bail!("container {} has ended", self.container.id),
                Err(Silence::Channel(
                    error @ (channel::Error::Tls(_) | channel::Error::Message(_)),
                )) => stranger = Some(explain(&self.container.id, error)),
                Err(Silence::Channel(error)) => reason = error.into(),
                Err(Silence::Late) => reason = anyhow!("no greeting"),
            }
        }
        // It may be another container's agent, with whom ours shares a part of its ID.
        stranger.map_or(Ok(Round::Nobody(absence, reason)), Err)
    }

    /// The agent, if it is that of our container.
    fn greet(&self, socket: File) -> Result<Option<Agent>, Silence> {
        let mut agent = Channel::connect(socket, self.config).map_err(Silence::Channel)?;
        let deadline = Instant::now() + self.patience.hello;
        match receive(&mut agent, self.container, Some(deadline))? {
            FromAgent::Hello { container, .. } if container == self.container.id => Ok(Some(agent)),
            _ => Ok(None),
        }
    }
}

/// Why there is no message.
#[derive(Debug)]
pub(super) enum Silence {
    /// The container has ended.
    Ended,
    /// It did not come in time.
    Late,
    /// The connection does not go on.
    Channel(channel::Error),
}

/// The next message, waited for until `deadline` if there is one.
pub(super) fn receive(
    agent: &mut Agent,
    container: &Container,
    deadline: Option<Instant>,
) -> Result<FromAgent, Silence> {
    agent.flush().map_err(Silence::Channel)?;
    let mut buffer = vec![0; READ_SIZE];
    loop {
        if let Some(message) = agent.next().map_err(Silence::Channel)? {
            return Ok(message);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(Silence::Late);
        }
        let (ready, ended) = wait(agent, container, left)
            .map_err(|error| Silence::Channel(channel::Error::Io(error)))?;
        if ready {
            agent
                .flush()
                .and_then(|()| agent.fill(&mut buffer))
                .map_err(Silence::Channel)?;
        } else if ended {
            return Err(Silence::Ended);
        }
    }
}

/// Whether the connection is ready, and whether the container has ended.
fn wait(agent: &Agent, container: &Container, time: Option<Duration>) -> io::Result<(bool, bool)> {
    let mut wanted = PollFlags::IN;
    wanted.set(PollFlags::OUT, !agent.is_idle());
    let mut polled = [
        PollFd::new(agent.socket(), wanted),
        PollFd::new(&container.process, PollFlags::IN),
    ];
    let time = time.map(Timespec::try_from).transpose();
    match poll(&mut polled, time.map_err(io::Error::other)?.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok((false, false)),
        Err(error) => return Err(error.into()),
    }
    let [ready, ended] = polled.map(|polled| !polled.revents().is_empty());
    Ok((ready, ended))
}

/// Why an agent cannot be talked to, and what to do.
pub(super) fn explain(container: &str, error: channel::Error) -> Error {
    use channel::Error::{Message, Tls};

    match error {
        Tls(error) => anyhow!(
            "container {container}: its agent and this certificate do not fit ({error}): it was \
             started with other certificates, or they have expired: start it anew"
        ),
        Message(proto::Error::Version(version)) => anyhow!(
            "container {container} was started by another version of runq (messages {version}, \
             here {EXEC_VERSION}): start it anew"
        ),
        error => anyhow!(
            "container {container}: the exec agent does not run any more ({error}): start the \
             container anew"
        ),
    }
}

#[cfg(test)]
#[path = "connect_test.rs"]
mod tests;
