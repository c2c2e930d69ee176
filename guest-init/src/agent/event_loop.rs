//! The loop that serves all clients on one thread, and sleeps when there is nothing to do.
//!
//! Each file is watched once, for changes (EPOLLET), under its client's number: on any change the
//! client does all that it can.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use channel::{Identity, READ_SIZE, ServerConfig};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::child::Orphan;
use super::client::{Client, Progress, Surroundings};
use super::command::Container;
use super::listener::{Accepted, Listener};
use super::socket::Socket;
use crate::console;
use crate::failure::Failure;

/// Most clients that have not shown a certificate, and most that have and not said what they want. With
/// one more, the oldest of its kind is dropped, so that those who say nothing do not lock out the others,
/// and strangers nobody who was greeted.
const MAX_SILENT: usize = 64;
/// Most commands, and clients that do not take the end of theirs. Each has up to six descriptors,
/// of which a process has 1024 (INR_OPEN_CUR of the kernel).
const MAX_COMMANDS: usize = 128;
/// Clients that are accepted before all others have their turn.
const MAX_ACCEPTED: usize = 16;
/// Events that are taken at once.
const MAX_EVENTS: usize = 32;

/// The number of the listener. Clients have those that follow, each its own for ever.
const LISTENER: u64 = 0;

/// All that the agent serves.
pub(super) struct EventLoop {
    epoll: Epoll,
    listener: Listener,
    container: Container,
    /// Made when the first client comes.
    config: Option<Arc<ServerConfig>>,
    /// In the order in which they came.
    clients: BTreeMap<u64, Client>,
    /// Processes whose clients have left, by the number of these.
    orphans: BTreeMap<u64, Orphan>,
    /// What has more to do.
    again: BTreeSet<u64>,
    /// The number that was given last.
    last: u64,
    buffer: Vec<u8>,
    full: Failure,
}

/// Has the loop wake up for each change of a file.
pub(super) fn watch(epoll: &Epoll, id: u64, file: impl AsFd) -> Result<()> {
    let changes =
        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    epoll
        .add(file, EpollEvent::new(changes, id))
        .context("watch a file")
}

impl EventLoop {
    /// Serves those who come in by `listener`.
    pub(super) fn new(listener: Listener, container: Container) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?;
        watch(&epoll, LISTENER, &listener)?;
        Ok(Self {
            epoll,
            listener,
            container,
            config: None,
            clients: BTreeMap::new(),
            orphans: BTreeMap::new(),
            again: BTreeSet::new(),
            last: LISTENER,
            buffer: vec![0; READ_SIZE],
            full: Failure {
                code: 1,
                message: format!("{MAX_COMMANDS} commands run beside the container's: end some"),
            },
        })
    }

    /// Serves for ever.
    pub(super) fn run(mut self) -> Result<Infallible> {
        loop {
            self.turn()?;
        }
    }

    /// Waits for something to do, and does it.
    fn turn(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); MAX_EVENTS];
        let count = match self.epoll.wait(&mut events, self.timeout()) {
            Err(Errno::EINTR) => 0,
            count => count.context("wait for clients")?,
        };
        let mut due = std::mem::take(&mut self.again);
        due.extend(events.iter().take(count).map(EpollEvent::data));
        for id in due {
            match id {
                LISTENER => self.accept(),
                id => self.serve(id),
            }
        }
        self.expire(Instant::now());
        Ok(())
    }

    /// How long to wait.
    fn timeout(&self) -> EpollTimeout {
        if !self.again.is_empty() {
            return EpollTimeout::ZERO;
        }
        let clients = self.clients.values().filter_map(Client::deadline);
        let orphans = self.orphans.values().filter_map(Orphan::deadline);
        let Some(first) = clients.chain(orphans).min() else {
            return EpollTimeout::NONE;
        };
        // Rounded up, so as not to come too early.
        let wait = first.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        wait.try_into().unwrap_or(EpollTimeout::MAX)
    }

    fn accept(&mut self) {
        for _ in 0..MAX_ACCEPTED {
            match self.listener.accept() {
                Ok(Accepted::Client(socket)) => {
                    if let Err(error) = self.add(socket.into()) {
                        console::line(format_args!("agent: {error:#}"));
                    }
                }
                Ok(Accepted::Stranger) => {}
                Ok(Accepted::Nobody) => return,
                Err(error) => return console::line(format_args!("agent: {error:#}")),
            }
        }
        self.again.insert(LISTENER);
    }

    /// Serves one more.
    pub(super) fn add(&mut self, socket: Socket) -> Result<()> {
        let config = self.config()?;
        let client = Client::new(socket, &config, Instant::now())?;
        let id = self.last + 1;
        watch(&self.epoll, id, client.socket())?;
        self.last = id;
        self.clients.insert(id, client);
        self.limit(Client::is_stranger);
        self.limit(|client| client.is_open() && !client.is_stranger());
        Ok(())
    }

    /// Drops the oldest client of a kind of which there are too many.
    fn limit(&mut self, is_of_kind: impl Fn(&Client) -> bool) {
        let kind = self.clients.iter();
        let mut kind = kind.filter_map(|(&id, client)| is_of_kind(client).then_some(id));
        let oldest = kind.next();
        if let (Some(oldest), true) = (oldest, kind.count() >= MAX_SILENT) {
            self.drop_client(oldest);
        }
    }

    fn config(&mut self) -> Result<Arc<ServerConfig>> {
        if let Some(config) = &self.config {
            return Ok(Arc::clone(config));
        }
        let agent = self.container.start.agent.as_ref();
        let agent = agent.context("no certificates")?;
        let identity = Identity {
            authority: agent.authority.as_bytes(),
            certificate: agent.certificate.as_bytes(),
            key: agent.key.as_bytes(),
        };
        Ok(Arc::clone(self.config.insert(identity.server()?)))
    }

    /// Gives a client, or what is left of it, its turn.
    fn serve(&mut self, id: u64) {
        if self.orphans.get(&id).is_some_and(Orphan::has_ended) {
            return self.bury(id);
        }
        let is_full = self.commands() >= MAX_COMMANDS;
        // Events may come for those that are gone.
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let mut surroundings = Surroundings {
            container: &mut self.container,
            epoll: &self.epoll,
            id,
            full: is_full.then_some(&self.full),
            buffer: &mut self.buffer,
        };
        match client.advance(&mut surroundings) {
            Ok(Progress::Waits) => {}
            Ok(Progress::Again) => {
                self.again.insert(id);
            }
            Ok(Progress::Over) => self.drop_client(id),
            Err(error) => {
                console::debug(format_args!("agent: client {id}: {error:#}"));
                self.drop_client(id);
            }
        }
    }

    fn commands(&self) -> usize {
        let clients = self.clients.values().filter(|client| !client.is_open());
        clients.count() + self.orphans.len()
    }

    /// Lets a client go; its process goes, too.
    fn drop_client(&mut self, id: u64) {
        let child = self.clients.remove(&id).and_then(Client::into_child);
        if let Some(child) = child {
            self.orphans.insert(id, Orphan::new(child, Instant::now()));
        }
        if self.orphans.get(&id).is_some_and(Orphan::has_ended) {
            self.bury(id);
        }
    }

    fn bury(&mut self, id: u64) {
        if let Some(orphan) = self.orphans.remove(&id)
            && let Err(error) = orphan.reap()
        {
            console::line(format_args!("agent: reap a command: {error}"));
        }
    }

    /// Lets those go whose time is over.
    fn expire(&mut self, now: Instant) {
        let late = |(&id, client): (&u64, &Client)| {
            let deadline = client.deadline()?;
            (deadline <= now).then_some(id)
        };
        let late: Vec<_> = self.clients.iter().filter_map(late).collect();
        for id in late {
            self.drop_client(id);
        }
        for orphan in self.orphans.values_mut() {
            orphan.expire(now);
        }
    }
}
