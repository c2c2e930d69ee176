//! One client: what it may say when, and what it is told.
//!
//! Handshake, then its order, then its command or an answer, and the end. Messages are sent only when
//! the last one is in the socket, except the last of all: so a client that does not read costs no
//! memory, and its command waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use channel::{Channel, ServerConfig};
use nix::sys::epoll::Epoll;
use proto::exec::{Exec, FromAgent, ToAgent};

use super::child::Child;
use super::command::{Container, Outcome, Report};
use super::errand::{self, Errand};
use super::event_loop::watch;
use super::socket::Socket;
use super::streams::Streams;
use crate::console;
use crate::failure::Failure;

/// How long a client may take for its order, and to take an answer; and how long an errand may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a client has its turn before all others have theirs.
const ROUNDS: usize = 16;

/// What a client's turn needs of the agent.
pub(super) struct Surroundings<'a> {
    pub(super) container: &'a mut Container,
    pub(super) epoll: &'a Epoll,
    /// The client's number, by which the events of its files are known.
    pub(super) id: u64,
    /// Why there can be no command more.
    pub(super) full: Option<&'a Failure>,
    pub(super) buffer: &'a mut [u8],
}

/// A connection, and its command.
pub(super) struct Client {
    channel: Channel<Socket, ToAgent>,
    stage: Stage,
    /// When it is dropped, if nothing comes before.
    deadline: Option<Instant>,
    /// The command's process, until it is reaped.
    child: Option<Child>,
}

enum Stage {
    /// It has not shown its certificate.
    Handshake,
    /// It has not said what it wants.
    Order,
    /// Its command is there.
    Running(Running),
    /// A child finds out, or does, what it asks for.
    Errand(Errand),
    /// It was told all, and has to take it.
    End,
}

struct Running {
    streams: Streams,
    /// The command's number in the container, and what its start comes to; none once it is told.
    starting: Option<(u32, Report)>,
    /// The exit code.
    code: Option<u8>,
}

/// What a client's turn has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for its files.
    Waits,
    /// There is more to do.
    Again,
    /// It has been told all.
    Over,
}

impl Client {
    /// A client that has connected.
    pub(super) fn new(socket: Socket, config: &Arc<ServerConfig>, now: Instant) -> Result<Self> {
        Ok(Self {
            channel: Channel::accept(socket, config)?,
            stage: Stage::Handshake,
            deadline: Some(now + PATIENCE),
            child: None,
        })
    }

    /// Its socket, to wait for it.
    pub(super) fn socket(&self) -> &Socket {
        self.channel.socket()
    }

    /// When it is dropped, if nothing comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it has not said what it wants.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Handshake | Stage::Order)
    }

    /// Whether it has not even shown a certificate.
    pub(super) fn is_stranger(&self) -> bool {
        matches!(self.stage, Stage::Handshake)
    }

    /// The process that is left when it goes.
    pub(super) fn into_child(self) -> Option<Child> {
        self.child
    }

    /// Does what can be done without waiting, so that the kernel tells when there is more.
    ///
    /// # Errors
    /// When it has left, or broken the rules.
    pub(super) fn advance(&mut self, at: &mut Surroundings) -> Result<Progress> {
        let mut readable = true;
        for _ in 0..ROUNDS {
            self.channel.flush()?;
            if readable {
                readable = self.receive(at)?;
            }
            let more = self.work(at)? || readable;
            if matches!(self.stage, Stage::End) && self.channel.is_idle() {
                return Ok(Progress::Over);
            }
            if !more {
                return Ok(Progress::Waits);
            }
        }
        Ok(Progress::Again)
    }

    /// Reads once, and does what the messages say. Whether there may be more.
    fn receive(&mut self, at: &mut Surroundings) -> Result<bool> {
        self.channel.fill(at.buffer)?;
        if matches!(self.stage, Stage::Handshake) && !self.channel.is_handshaking() {
            self.stage = Stage::Order;
            let container = at.container.name();
            self.channel.send(&FromAgent::hello(container))?;
        }
        while let Some(message) = self.channel.next()? {
            self.obey(message, at)?;
        }
        Ok(!self.channel.socket().is_dry())
    }

    fn obey(&mut self, message: ToAgent, at: &mut Surroundings) -> Result<()> {
        match (&mut self.stage, message) {
            (Stage::Order, ToAgent::Exec(exec)) => return self.start(&exec, at),
            (Stage::Order, ToAgent::List) => return self.send_child(errand::list, at),
            (Stage::Order, ToAgent::Limit(limits)) => {
                return self.send_child(|| errand::limit(&limits), at);
            }
            (Stage::Running(running), ToAgent::Stdin(bytes)) => running.streams.hold(&bytes)?,
            (Stage::Running(running), ToAgent::StdinEnd) => running.streams.end_input(),
            (Stage::Running(running), ToAgent::Resize(size)) => running.streams.resize(size)?,
            (Stage::Running(_), ToAgent::Signal(number @ 1..=64)) => {
                if let Some(child) = &self.child {
                    child.signal(number)?;
                }
            }
            // It cannot know yet.
            (Stage::End, _) => {}
            _ => bail!("a message that is not allowed here"),
        }
        Ok(())
    }

    fn start(&mut self, exec: &Exec, at: &mut Surroundings) -> Result<()> {
        let started = match at.full {
            Some(full) => Err(full.clone()),
            None => at.container.start(exec),
        };
        let starting = match started {
            Ok(starting) => starting,
            Err(failure) => return self.fail(failure),
        };
        // From here on it is reaped, whatever comes.
        let child = self.child.insert(starting.child);
        watch(at.epoll, at.id, child)?;
        watch(at.epoll, at.id, &starting.report.pipe)?;
        for file in starting.streams.files() {
            watch(at.epoll, at.id, file)?;
        }
        self.deadline = None;
        self.stage = Stage::Running(Running {
            streams: starting.streams,
            starting: Some((starting.number, starting.report)),
            code: None,
        });
        Ok(())
    }

    fn send_child(
        &mut self,
        work: impl FnOnce() -> FromAgent,
        at: &mut Surroundings,
    ) -> Result<()> {
        let started = match at.full {
            Some(full) => Err(full.clone()),
            None => Errand::start(work).map_err(Failure::from),
        };
        let (errand, child) = match started {
            Ok(started) => started,
            Err(failure) => return self.fail(failure),
        };
        let child = self.child.insert(child);
        watch(at.epoll, at.id, child)?;
        watch(at.epoll, at.id, &errand.pipe)?;
        self.deadline = Some(Instant::now() + PATIENCE);
        self.stage = Stage::Errand(errand);
        Ok(())
    }

    fn fail(&mut self, Failure { code, message }: Failure) -> Result<()> {
        self.end(&FromAgent::Failed { code, message }, Some(PATIENCE))
    }

    /// Sends the last message.
    fn end(&mut self, last: &FromAgent, patience: Option<Duration>) -> Result<()> {
        self.stage = Stage::End;
        self.deadline = patience.map(|patience| Instant::now() + patience);
        self.channel.send(last)?;
        Ok(self.channel.close()?)
    }

    /// Moves what can be moved between the command and the channel. Whether there may be more.
    fn work(&mut self, at: &mut Surroundings) -> Result<bool> {
        let code = self.child.as_ref().and_then(Child::ended);
        let more = self.carry(code, at);
        // What has ended holds up the end of the container until it is reaped. What was sent before
        // has the better chance to arrive then.
        if code.is_some()
            && let Some(child) = self.child.take()
            && let Err(error) = child.reap()
        {
            console::line(format_args!("reap a command: {error}"));
        }
        more
    }

    fn carry(&mut self, code: Option<u8>, at: &mut Surroundings) -> Result<bool> {
        let running = match &mut self.stage {
            Stage::Running(running) => running,
            Stage::Errand(errand) => {
                return match errand.hear() {
                    Ok(None) => Ok(false),
                    Ok(Some(answer)) => self.end(&answer, Some(PATIENCE)).map(|()| false),
                    Err(error) => self.fail(error.into()).map(|()| false),
                };
            }
            _ => return Ok(false),
        };
        match running.hear() {
            Outcome::Open => return Ok(false),
            Outcome::Failed(failure) => return self.fail(failure).map(|()| false),
            Outcome::Started => {}
        }
        if let Some((pid, _)) = running.starting.take() {
            self.channel.send(&FromAgent::Started { pid })?;
        }
        if code.is_some() && running.code.is_none() {
            running.code = code;
            running.streams.finish();
        }
        let more = running.exchange(&mut self.channel, at.buffer)?;
        if let Some(code) = running.code
            && running.streams.close_ended()
        {
            return self.end(&FromAgent::Exited { code }, None).map(|()| false);
        }
        Ok(more)
    }
}

impl Running {
    /// Whether it has become its command.
    fn hear(&mut self) -> Outcome {
        match &mut self.starting {
            Some((_, report)) => report.hear(),
            None => Outcome::Started,
        }
    }

    /// Input to the command, output to the client, once each. Whether there was any output.
    fn exchange(
        &mut self,
        channel: &mut Channel<Socket, ToAgent>,
        buffer: &mut [u8],
    ) -> Result<bool> {
        self.streams.feed();
        if channel.is_idle()
            && let Some(taken) = self.streams.taken()
        {
            channel.send(&taken)?;
        }
        let mut more = false;
        for index in 0..self.streams.outputs() {
            if !channel.is_idle() {
                break;
            }
            if let Some(output) = self.streams.read(index, buffer) {
                channel.send(&output)?;
                more = true;
            }
        }
        Ok(more)
    }
}
