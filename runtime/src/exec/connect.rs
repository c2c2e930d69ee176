//! Finding the agent of a container.
//!
//! AF_VSOCK tells nobody when somebody begins to listen. While the VM boots, all ways are tried
//! again and again, as long as the container lives.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use channel::{Channel, ClientConfig};
use proto::exec::{EXEC_VERSION, FromAgent, addresses};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::socket::{Way, is_absent};

/// The device by which monitors get a vsock. It is there where the kernel can have one.
const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// How long the VM may boot.
const BOOT: Duration = Duration::from_secs(60);
/// How long the monitor may take until there is any way.
const START: Duration = Duration::from_secs(5);
/// How long an agent that has accepted may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
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
        Ok(Self { id, pid, process })
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
    let search = Search {
        container,
        config,
        patience: [START, BOOT],
    };
    search.run(&container.ways(), Way::connect)
}

/// What came of trying all ways.
enum Round {
    Found(Box<Agent>),
    /// Nobody is there. For now perhaps; absent: there is not even a way.
    Nobody {
        absent: bool,
        reason: Error,
    },
}

struct Search<'a> {
    container: &'a Container,
    config: &'a Arc<ClientConfig>,
    /// How long to wait for a way, and for an agent.
    patience: [Duration; 2],
}

impl Search<'_> {
    fn run<W>(&self, ways: &[W], connect: impl Fn(&W) -> io::Result<File>) -> Result<Agent> {
        let begin = Instant::now();
        let [mut pause, longest] = PAUSES;
        loop {
            let (absent, reason) = match self.round(ways, &connect)? {
                Round::Found(agent) => return Ok(*agent),
                Round::Nobody { absent, reason } => (absent, reason),
            };
            let id = &self.container.id;
            let [start, boot] = self.patience;
            ensure!(
                !absent || begin.elapsed() < start,
                "container {id}: no way to its agent ({reason:#}): without {VHOST_VSOCK} (modprobe \
                 vhost_vsock) only root can go through the monitor"
            );
            ensure!(
                begin.elapsed() < boot,
                "container {id}: the exec agent does not answer ({reason:#}): it does not run any \
                 more, or is busy: start the container anew"
            );
            self.container.pause(pause)?;
            pause = (pause * 2).min(longest);
        }
    }

    /// Tries all ways; an error if somebody is there, and cannot be talked to.
    fn round<W>(&self, ways: &[W], connect: impl Fn(&W) -> io::Result<File>) -> Result<Round> {
        let mut absent = true;
        let mut reason = anyhow!("no address");
        let mut stranger = None;
        for way in ways {
            let socket = match connect(way) {
                Ok(socket) => socket,
                Err(error) => {
                    absent &= is_absent(&error);
                    reason = error.into();
                    continue;
                }
            };
            absent = false;
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
        stranger.map_or(Ok(Round::Nobody { absent, reason }), Err)
    }

    /// The agent, if it is that of our container.
    fn greet(&self, socket: File) -> Result<Option<Agent>, Silence> {
        let mut agent = Channel::connect(socket, self.config).map_err(Silence::Channel)?;
        let deadline = Instant::now() + HELLO;
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
                .and_then(|()| agent.fill())
                .map_err(Silence::Channel)?;
        } else if ended {
            return Err(Silence::Ended);
        }
    }
}

/// Whether the connection is ready, and whether the container has ended.
fn wait(agent: &Agent, container: &Container, time: Option<Duration>) -> io::Result<(bool, bool)> {
    let mut wanted = PollFlags::IN;
    wanted.set(PollFlags::OUT, agent.wants().1);
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
