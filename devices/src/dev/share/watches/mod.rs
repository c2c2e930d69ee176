//! Events for the guest's programs that watch files of the share: what others change there.
//!
//! The guest's kernel says what is watched, and the same is watched on the host. It has one request under way that
//! is answered when something has happened.

mod changes;
mod host;
mod request;
#[cfg(test)]
mod watches_test;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::inotify::AddWatchFlags;
use tracing::warn;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::answer::{answer, room};
use super::nodes::Nodes;
use crate::device::DeviceError;
use crate::log_limit::LogLimit;
use crate::queue::Chain;

use changes::Changes;
use host::Watched;
use request::{CHANGES, Event, Request, What};

pub(super) use changes::Change;

/// As many wait for the guest to ask for them; what happens then is lost, as it is when a program does not
/// read its events.
const MAX_EVENTS: usize = 1 << 12;

/// What a share's guest watches.
pub(in crate::dev) struct Watches {
    state: Mutex<State>,
    /// Whether it watches anything: most guests do not, and need not be asked what they change.
    any: AtomicBool,
    /// Who waits for events waits for this: they are there, or `wake` is readable.
    events: Epoll,
    wake: EventFd,
    /// /proc/self/fd
    descriptors: File,
    root: File,
    share: String,
    complaints: LogLimit,
}

#[derive(Default)]
struct State {
    watched: Option<Watched>,
    changes: Changes,
    events: VecDeque<Event>,
    /// The guest has asked for events, and has no answer yet.
    asked: bool,
    /// It gets one all the same: it watches nothing any more.
    no_more: bool,
    /// So it does, as it will not take any.
    over: bool,
}

impl Watches {
    /// On a thread of `share` that can reach nothing else.
    pub(super) fn new(share: &str, proc_self_fd: File) -> io::Result<Self> {
        let (events, wake) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        let interest = EpollEvent::new(EventSet::IN, 0);
        events.ctl(ControlOperation::Add, wake.as_raw_fd(), interest)?;
        let mut root = File::options();
        root.read(true).custom_flags(libc::O_PATH);
        Ok(Self {
            state: Mutex::default(),
            any: AtomicBool::new(false),
            events,
            wake,
            descriptors: proc_self_fd,
            root: root.open("/")?,
            share: share.to_owned(),
            complaints: LogLimit::default(),
        })
    }

    /// Executes the request in `chain`, if it is about watches, and returns the length of the answer. It may wait
    /// for something to happen.
    ///
    /// # Errors
    /// When it is incomplete, or there is no room for its answer.
    pub(in crate::dev) fn handle(
        &self,
        chain: &Chain,
        nodes: &impl Nodes,
    ) -> Result<Option<u32>, DeviceError> {
        let Some(Request { unique, what }) = Request::read(chain)? else {
            return Ok(None);
        };
        let result = match what {
            What::Watch { node, mask } => self.watch(node, mask, nodes).map(|()| Vec::new()),
            What::Events => self.wait(room(chain)?, nodes),
        };
        let body = result.as_deref().map_err(|errno| *errno);
        answer(chain.clone(), unique, body).map(Some)
    }

    fn watch(&self, node: u64, mask: AddWatchFlags, nodes: &impl Nodes) -> Result<(), Errno> {
        let result = if mask.is_empty() {
            Ok(())
        } else {
            nodes.open_node(node).and_then(|file| {
                let mut state = self.state();
                let places = (&self.descriptors, &self.root);
                self.provide(&mut state)?.watch(node, &file, mask, places)
            })
        };
        let mut state = self.state();
        if let Some(watched) = &mut state.watched {
            if mask.is_empty() || result.is_err() {
                watched.forget(node);
            }
            let any = !watched.is_empty();
            self.set_any(&mut state, any);
        }
        result.map_err(|errno| self.complain(errno))
    }

    /// The host's watches, which most guests need not have.
    fn provide<'a>(&self, state: &'a mut State) -> Result<&'a mut Watched, Errno> {
        if state.watched.is_none() {
            let watched = Watched::new()?;
            let fd = watched.inotify().as_fd().as_raw_fd();
            let interest = EpollEvent::new(EventSet::IN, 0);
            let added = self.events.ctl(ControlOperation::Add, fd, interest);
            added.map_err(|_| Errno::ENOMEM)?;
            state.watched = Some(watched);
        }
        state.watched.as_mut().ok_or(Errno::ENOMEM)
    }

    fn set_any(&self, state: &mut State, any: bool) {
        if self.any.swap(any, Ordering::Relaxed) && !any {
            state.no_more = true;
            self.wake();
        } else if any {
            state.no_more = false;
        }
    }

    /// Waits for events, and returns as many as there is room for.
    fn wait(&self, room: usize, nodes: &impl Nodes) -> Result<Vec<u8>, Errno> {
        if std::mem::replace(&mut self.state().asked, true) {
            return Err(Errno::EBUSY);
        }
        loop {
            let mut state = self.state();
            self.look(&mut state, nodes);
            if state.over || state.no_more || !state.events.is_empty() {
                state.asked = false;
                state.no_more = false;
                return Ok(state.take(room));
            }
            drop(state);
            // Interrupted, it looks again.
            let _ = self.events.wait(-1, &mut [EpollEvent::default()]);
            let _ = self.wake.read();
        }
    }

    /// Takes what has happened since. What the guest has done itself goes.
    fn look(&self, state: &mut State, nodes: &impl Nodes) {
        let State {
            watched: Some(watched),
            changes,
            events,
            ..
        } = state
        else {
            return;
        };
        while let Some((happened, mut lost)) = watched.events() {
            for mut event in happened {
                if changes.cause(&event, nodes) {
                    continue;
                }
                event.tell_of_end(nodes);
                event.mask &= watched.mask(event.node) | AddWatchFlags::IN_ISDIR;
                if !event.mask.intersects(CHANGES) {
                    continue;
                }
                if events.len() < MAX_EVENTS {
                    events.push_back(event);
                } else {
                    lost = true;
                }
            }
            if lost && self.complaints.allows() {
                warn!("share {}: too much happens: events are lost", self.share);
            }
        }
    }

    /// Executes a request that is a change by the guest. Any thread.
    pub(super) fn change<N: Nodes, T>(
        &self,
        nodes: &N,
        change: impl FnOnce(&N) -> Change,
        execute: impl FnOnce() -> T,
    ) -> T {
        if !self.any.load(Ordering::Relaxed) {
            return execute();
        }
        let change = change(nodes);
        let number = {
            let mut state = self.state();
            // What has happened before is others'.
            self.look(&mut state, nodes);
            self.tell(&state);
            state.changes.begin(change)
        };
        let result = execute();
        let mut state = self.state();
        self.look(&mut state, nodes);
        self.tell(&state);
        state.changes.end(number);
        result
    }

    /// Has who waits see events that others have found.
    fn tell(&self, state: &State) {
        if state.asked && !state.events.is_empty() {
            self.wake();
        }
    }

    /// The guest needs a node less.
    pub(super) fn forgotten(&self, node: u64, nodes: &impl Nodes) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        let Some(watched) = &mut state.watched else {
            return;
        };
        if watched.has(node) && nodes.names(node).is_none() {
            watched.forget(node);
            let any = !watched.is_empty();
            self.set_any(&mut state, any);
        }
    }

    /// Tells the user why programs do not hear of what others change.
    fn complain(&self, errno: Errno) -> Errno {
        if matches!(errno, Errno::ENOSPC | Errno::EMFILE | Errno::ENFILE)
            && self.complaints.allows()
        {
            warn!(
                "share {}: cannot watch files for the guest ({errno}): raise fs.inotify.max_user_instances and max_user_watches",
                self.share
            );
        }
        errno
    }

    /// Ends the wait: nobody takes the answer.
    pub(in crate::dev) fn end(&self) {
        self.state().over = true;
        self.wake();
    }

    /// Watches nothing any more, for another guest. When nobody waits.
    pub(in crate::dev) fn clear(&self) {
        *self.state() = State::default();
        self.any.store(false, Ordering::Relaxed);
        let _ = self.wake.read();
    }

    fn wake(&self) {
        // A full counter is readable as well.
        let _ = self.wake.write(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first events, as the guest expects them.
    fn take(&mut self, room: usize) -> Vec<u8> {
        let mut answer = Vec::new();
        while let Some(event) = self.events.front()
            && answer.len() + event.size() <= room
        {
            event.write(&mut answer);
            self.events.pop_front();
        }
        answer
    }
}

impl Event {
    /// A file whose last name is gone is not gone for the host, as the guest has it: the host does not tell.
    fn tell_of_end(&mut self, nodes: &impl Nodes) {
        let may_be_gone = self.name.is_empty() && self.mask.contains(AddWatchFlags::IN_ATTRIB);
        if may_be_gone && nodes.names(self.node) == Some(0) {
            self.mask |= AddWatchFlags::IN_DELETE_SELF;
        }
    }
}
