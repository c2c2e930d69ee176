//! The relay: between this process's standard streams and signals, and the agent.
//!
//! One thread, one poll(2), no time limit. The agent is read when there is room for what it says;
//! input is read when the agent has room for it, and signals when the connection has. So nothing
//! grows, and signals pass both a command that does not read, and a reader of ours that does not.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use channel::{Channel, Error, READ_SIZE};
use proto::exec::{FromAgent, ToAgent};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vmm::command::terminal::window_size;
use vmm::command::{Received, Signals};

use super::input::Input;
use super::output::{Output, Written};

/// The code of a command whose container has ended: as if by SIGKILL.
const CONTAINER_ENDED: u8 = 128 + 9;

/// What may still come when the other end has closed the connection, however it fills what it left
/// behind: more than the sockets hold.
const MAX_LEFT: usize = 4 << 20;

/// The streams of a command.
pub struct Streams {
    /// Standard input; unset: there is none.
    pub stdin: Option<OwnedFd>,
    /// Standard output, or the terminal.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// The command is on a terminal.
    pub terminal: bool,
}

/// Between a command that runs and this process.
pub struct Relay<S> {
    agent: Channel<S, FromAgent>,
    signals: Signals,
    input: Option<Input>,
    outputs: [Output; 2],
    terminal: bool,
    /// For what is read from the agent.
    buffer: Vec<u8>,
    /// The code of the command that has ended.
    exited: Option<u8>,
    /// A signal that ends a process could not be passed on.
    interrupted: bool,
    /// The command is to hear that nobody reads what it writes.
    unread: bool,
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Who {
    Signals,
    Agent,
    Input,
    Output(usize),
}

impl<S: Read + Write + AsFd> Relay<S> {
    /// A relay for a command that the agent has started.
    pub fn new(agent: Channel<S, FromAgent>, signals: Signals, streams: Streams) -> Self {
        Self {
            agent,
            signals,
            input: streams.stdin.map(Input::new),
            outputs: [streams.stdout, streams.stderr].map(Output::new),
            terminal: streams.terminal,
            buffer: vec![0; READ_SIZE],
            exited: None,
            interrupted: false,
            unread: false,
        }
    }

    /// Relays until the command has ended and all that it wrote is written; its exit code.
    pub fn run(mut self) -> u8 {
        let mut result = self.begin().and_then(|()| self.relay());
        if matches!(result, Err(Error::Closed)) {
            result = self.finish();
        }
        result.unwrap_or_else(|_| {
            for output in &mut self.outputs {
                last(output);
            }
            CONTAINER_ENDED
        })
    }

    fn begin(&mut self) -> Result<(), Error> {
        // Messages may have come with that which told of the start; even the last, and then nobody listens any more.
        self.take_messages()?;
        if self.exited.is_none() && self.input.is_none() && !self.terminal {
            self.agent.send(&ToAgent::StdinEnd)?;
        }
        Ok(())
    }

    /// When the connection has ended: the command's end is in what it has left behind, or there was
    /// none.
    fn finish(&mut self) -> Result<u8, Error> {
        let mut left = 0;
        while self.exited.is_none() && left < MAX_LEFT {
            self.agent.fill(&mut self.buffer)?;
            left += 1 + self.take_messages()?;
        }
        match self.exited {
            None => Err(Error::Closed),
            Some(code) if self.interrupted => Ok(code),
            Some(_) => self.relay(),
        }
    }

    /// # Errors
    /// When the connection ends before the command.
    fn relay(&mut self) -> Result<u8, Error> {
        loop {
            if let Some(code) = self.exited
                && self.outputs.iter().all(|output| output.wanted().is_none())
            {
                return Ok(code);
            }
            for (who, events) in self.wait()? {
                match who {
                    Who::Signals => {
                        if let Some(code) = self.take_signal()? {
                            return Ok(code);
                        }
                    }
                    Who::Agent => self.talk(events)?,
                    Who::Input => self.take_input()?,
                    Who::Output(at) => self.write(at)?,
                }
            }
        }
    }

    /// Waits for what is worth doing; what can be done.
    fn wait(&self) -> Result<Vec<(Who, PollFlags)>, Error> {
        let wanted = self.wanted();
        let polled = wanted
            .iter()
            .map(|(_, file, flags)| PollFd::from_borrowed_fd(*file, *flags));
        let mut polled: Vec<_> = polled.collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Io(error.into())),
        }
        let events = polled.iter().map(PollFd::revents);
        let all = wanted.iter().map(|(who, ..)| *who).zip(events);
        Ok(all.filter(|(_, events)| !events.is_empty()).collect())
    }

    fn wanted(&self) -> Vec<(Who, BorrowedFd<'_>, PollFlags)> {
        let mut wanted = Vec::with_capacity(5);
        let is_over = self.exited.is_some();
        let is_idle = self.agent.is_idle();
        if is_over || is_idle {
            wanted.push((Who::Signals, self.signals.as_fd(), PollFlags::IN));
        }
        if !is_over {
            let mut flags = PollFlags::RDHUP;
            flags.set(PollFlags::IN, self.has_room());
            flags.set(PollFlags::OUT, !is_idle);
            wanted.push((Who::Agent, self.agent.socket().as_fd(), flags));
        }
        let input = self.input.as_ref().filter(|_| is_idle && !is_over);
        if let Some(file) = input.and_then(Input::wanted) {
            wanted.push((Who::Input, file, PollFlags::IN));
        }
        for (at, output) in self.outputs.iter().enumerate() {
            if let Some(file) = output.wanted() {
                wanted.push((Who::Output(at), file, PollFlags::OUT));
            }
        }
        wanted
    }

    fn has_room(&self) -> bool {
        self.outputs.iter().all(Output::has_room)
    }

    /// Passes on a signal. One that ends a process does so if only our reader is waited for: its
    /// exit code then.
    fn take_signal(&mut self) -> Result<Option<u8>, Error> {
        match self.signals.next() {
            Some(Received::ForGuest { ends: true, .. }) if self.exited.is_some() => {
                return Ok(self.exited);
            }
            _ if self.exited.is_some() => {}
            Some(Received::ForGuest { number, ends }) => {
                let sent = self.agent.send(&ToAgent::Signal(number));
                self.interrupted = ends && sent.is_err();
                sent?;
            }
            Some(Received::WindowChanged) if self.terminal => {
                if let Some(size) = window_size() {
                    self.agent.send(&ToAgent::Resize(size))?;
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn take_input(&mut self) -> Result<(), Error> {
        match self.input.as_mut().and_then(Input::read) {
            Some(message) => self.agent.send(&message),
            None => Ok(()),
        }
    }

    /// Writes to an output.
    fn write(&mut self, at: usize) -> Result<(), Error> {
        let closed = self.outputs.get_mut(at).map(Output::write);
        self.unread |= closed == Some(Written::Closed);
        self.tell_unread()
    }

    /// What happens to a command's write to a pipe that nobody reads happens to this one: SIGPIPE. Once
    /// the connection has room for it, so that an agent that only talks does not fill our memory.
    fn tell_unread(&mut self) -> Result<(), Error> {
        if self.unread && self.exited.is_none() && self.agent.is_idle() {
            self.unread = false;
            self.agent.send(&ToAgent::Signal(libc::SIGPIPE))?;
        }
        Ok(())
    }

    /// Does what the connection is ready for.
    fn talk(&mut self, ready: PollFlags) -> Result<(), Error> {
        if ready.contains(PollFlags::OUT) {
            self.agent.flush()?;
            self.tell_unread()?;
        }
        if ready.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return Err(Error::Closed);
        }
        if ready.contains(PollFlags::IN) {
            self.agent.fill(&mut self.buffer)?;
            self.take_messages()?;
        }
        Ok(())
    }

    /// Takes what the agent has said; how many bytes of output, and one a message.
    fn take_messages(&mut self) -> Result<usize, Error> {
        let mut taken = 0;
        while self.exited.is_none()
            && let Some(message) = self.agent.next()?
        {
            taken += 1;
            match message {
                FromAgent::Stdout(bytes) => taken += self.print(0, &bytes)?,
                FromAgent::Stderr(bytes) => taken += self.print(1, &bytes)?,
                FromAgent::Taken(count) => {
                    if let Some(input) = &mut self.input {
                        input.taken(count);
                    }
                }
                FromAgent::Exited { code } => self.exited = Some(code),
                // No agent of ours says that now.
                FromAgent::Hello { .. }
                | FromAgent::Started { .. }
                | FromAgent::Failed { .. }
                | FromAgent::Processes(_)
                | FromAgent::Limited => return Err(proto::Error::Malformed.into()),
            }
        }
        Ok(taken)
    }

    fn print(&mut self, at: usize, bytes: &[u8]) -> Result<usize, Error> {
        let output = self.outputs.get_mut(at);
        self.unread |= output.is_some_and(|output| !output.push(bytes));
        self.tell_unread()?;
        Ok(bytes.len())
    }
}

/// Writes what can be written now.
fn last(output: &mut Output) {
    let now = rustix::event::Timespec::default();
    while let Some(file) = output.wanted() {
        let mut polled = [PollFd::from_borrowed_fd(file, PollFlags::OUT)];
        if poll(&mut polled, Some(&now)).unwrap_or_default() == 0 {
            return;
        }
        output.write();
    }
}

#[cfg(test)]
#[path = "relay_test.rs"]
mod tests;
