//! The relay: takes the guest's queries from its port, asks the resolver, and gives the answers back.
//!
//! The guest says what is asked, never whom. Whatever it sends or does not read, the relay holds a
//! bounded number of queries and bytes, and goes on reading: the console, whose port this is, can
//! always hand on what the guest wrote.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use proto::dns::{self, DnsAnswer, DnsQuery, MAX_MESSAGE, MAX_QUERIES};
use proto::{Decoder, Error, MAX_FRAME, encode};
use runtime::privileges;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use tracing::debug;
use vmm::seccomp::{ANY_THREAD, Allowed};

use super::asked::{Asked, unless_blocked};

/// What the thread asks of the kernel beside [`ANY_THREAD`]'s.
const CALLS: [libc::c_long; 3] = [libc::SYS_connect, libc::SYS_ppoll, libc::SYS_socket];
/// Most bytes that are read from the port at once: what is behind a frame is moved when it is decoded.
const READ: usize = 8 << 10;

/// Between the guest's port and one resolver.
pub(crate) struct Relay {
    port: File,
    resolver: SocketAddr,
    patience: Duration,
    decoder: Decoder<DnsQuery>,
    asked: Vec<Asked>,
    /// Answers that the guest has not read yet.
    backlog: Vec<u8>,
    /// For what is read.
    buffer: Vec<u8>,
}

impl Relay {
    /// A relay that asks `resolver`, with its end of the guest's port.
    ///
    /// # Errors
    /// When the port does not work.
    pub(crate) fn new(port: UnixStream, resolver: SocketAddr) -> io::Result<Self> {
        port.set_nonblocking(true)?;
        Ok(Self {
            port: OwnedFd::from(port).into(),
            resolver,
            patience: dns::PATIENCE,
            decoder: Decoder::new(),
            asked: Vec::new(),
            backlog: Vec::new(),
            buffer: vec![0; MAX_MESSAGE],
        })
    }

    /// Serves the guest until it closes its port, on a thread of its own, which is confined when this
    /// returns. To be called when the signals are taken, and before the calling thread confines
    /// itself: this thread's system calls are others.
    ///
    /// # Errors
    /// When the thread cannot be started or confined.
    pub(crate) fn start(mut self) -> Result<()> {
        let (tell, told) = mpsc::channel();
        thread::Builder::new()
            .name("dns".into())
            .spawn(move || {
                let confined =
                    privileges::keep(CapabilitySet::empty()).and_then(|()| restrict_calls());
                let goes_on = confined.is_ok();
                // Whoever started it waits.
                let _ = tell.send(confined);
                if goes_on {
                    let Err(error) = self.run();
                    debug!("DNS port: {error}");
                }
            })
            .context("start the thread")?;
        let confined = told.recv().context("the thread has ended")?;
        confined.context("confine the thread")
    }

    /// Serves the guest until its port ends.
    fn run(&mut self) -> Result<Infallible, Error> {
        loop {
            let ready = self.wait()?;
            self.take_answers(ready.get(1..).unwrap_or_default())?;
            if ready.first() == Some(&true) {
                self.write()?;
                self.read()?;
            }
        }
    }

    /// Waits until something happens: for the port, and for each query, whether it is ready.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let interest = if self.backlog.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        };
        let queries = self
            .asked
            .iter()
            .map(|asked| PollFd::new(&asked.socket, asked.interest()));
        let port = PollFd::new(&self.port, interest);
        let mut polled: Vec<_> = [port].into_iter().chain(queries).collect();
        match poll(&mut polled, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    /// The time to the first deadline; none if nothing is under way.
    fn timeout(&self) -> Option<Timespec> {
        let first = self.asked.iter().map(|asked| asked.deadline).min()?;
        let left = first.saturating_duration_since(Instant::now());
        // A duration of seconds fits.
        Timespec::try_from(left).ok()
    }

    /// Goes on with the queries that are ready, and gives up those whose time is over.
    fn take_answers(&mut self, ready: &[bool]) -> Result<(), Error> {
        let (now, mut ready) = (Instant::now(), ready.iter());
        let mut answers = Vec::new();
        let buffer = &mut self.buffer;
        self.asked.retain_mut(|asked| {
            let answer = match ready.next() {
                Some(true) => asked.proceed(buffer),
                _ => Ok(None),
            };
            let message = match answer {
                Ok(None) if now < asked.deadline => return true,
                answer => answer.ok().flatten().unwrap_or_default(),
            };
            answers.push((asked.id(), message));
            false
        });
        answers
            .into_iter()
            .try_for_each(|(id, message)| self.answer(id, message))
    }

    fn read(&mut self) -> Result<(), Error> {
        let buffer = self.buffer.get_mut(..READ).unwrap_or_default();
        match unless_blocked(self.port.read(buffer))? {
            None => return Ok(()),
            Some(0) => return Err(Error::Closed),
            Some(count) => self.decoder.push(buffer.get(..count).unwrap_or_default()),
        }
        loop {
            match self.decoder.next() {
                Ok(Some(query)) => self.ask(query)?,
                Ok(None) => return Ok(()),
                Err(error @ Error::Malformed) => debug!("DNS port: {error}"),
                Err(error) => return Err(error),
            }
        }
    }

    /// More queries than there may be at once have no answer.
    fn ask(&mut self, query: DnsQuery) -> Result<(), Error> {
        let id = query.id;
        if self.asked.len() >= MAX_QUERIES || !dns::is_query(&query.message) {
            return self.answer(id, Vec::new());
        }
        match Asked::new(query, self.resolver, Instant::now() + self.patience) {
            Ok(asked) => self.asked.push(asked),
            Err(error) => {
                debug!("ask {}: {error}", self.resolver);
                self.answer(id, Vec::new())?;
            }
        }
        Ok(())
    }

    /// Drops the answer if the guest does not read.
    fn answer(&mut self, id: u32, message: Vec<u8>) -> Result<(), Error> {
        let frame = encode(&DnsAnswer { id, message })?;
        if self.backlog.len() + frame.len() <= MAX_FRAME {
            self.backlog.extend(frame);
        }
        self.write()
    }

    /// Writes as much of the backlog as the port takes.
    fn write(&mut self) -> Result<(), Error> {
        while !self.backlog.is_empty() {
            match unless_blocked(self.port.write(&self.backlog))? {
                Some(count) => drop(self.backlog.drain(..count)),
                None => break,
            }
        }
        Ok(())
    }
}

/// Leaves the thread that calls it only the system calls that the relay needs.
fn restrict_calls() -> io::Result<()> {
    Allowed::calls(ANY_THREAD.into_iter().chain(CALLS)).restrict_thread()
}

#[cfg(test)]
#[path = "relay_test.rs"]
mod tests;
