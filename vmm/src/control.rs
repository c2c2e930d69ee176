//! What the event loop does for the guest's command: the conversation with init, and signals.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devices::dev::console::ConsoleHandle;
use devices::event_loop::{EventOps, EventSet, Events, MutEventSubscriber, Stopper, Subscriber};
use tracing::{debug, error};

use crate::session::{Outcome, Session};
use crate::signals::{Received, Signals};
use crate::terminal;

/// How things stand; shared with who waits for the end.
#[derive(Default)]
pub struct Progress {
    /// How the command ended, once it has.
    pub outcome: Option<Outcome>,
    /// Time from the monitor's start to init's first word, once it came.
    pub init_ready: Option<Duration>,
    /// The signal that ended us before there was a command to take it.
    pub ended_by: Option<i32>,
}

/// The event loop's subscriber for signals and, if there is one, the session.
pub struct Control {
    session: Option<Session>,
    signals: Signals,
    console: Option<ConsoleHandle>,
    stopper: Stopper,
    progress: Arc<Mutex<Progress>>,
    writable_wanted: bool,
}

impl Control {
    /// Ends the VM by `stopper` when the session has its outcome, or a signal comes for which there
    /// is no command. Sizes of the terminal go to the session and to `console`.
    pub fn new(
        session: Option<Session>,
        signals: Signals,
        console: Option<ConsoleHandle>,
        stopper: Stopper,
    ) -> (Self, Arc<Mutex<Progress>>) {
        let progress = Arc::default();
        let control = Self {
            session,
            signals,
            console,
            stopper,
            progress: Arc::clone(&progress),
            writable_wanted: false,
        };
        (control, progress)
    }

    fn take_signals(&mut self) {
        while let Some(received) = self.signals.next() {
            match received {
                Received::WindowChanged => self.resize(),
                Received::ForGuest { number, ends } => self.take_signal(number, ends),
            }
        }
    }

    fn resize(&mut self) {
        let Some((rows, cols)) = terminal::size(std::io::stdin()) else {
            return;
        };
        if let Some(session) = &mut self.session {
            session.resize(rows, cols);
        }
        if let Some(console) = &self.console {
            console.resize(cols, rows);
        }
    }

    /// A signal is the command's. While there is none, and again when it has ended and its output
    /// waits for a reader that does not come, it ends us.
    fn take_signal(&mut self, number: i32, ends: bool) {
        match &mut self.session {
            Some(session) if session.has_begun() && session.outcome().is_none() => {
                debug!(number, "signal to the guest");
                session.signal(number);
            }
            _ if ends => {
                progress(&self.progress).ended_by = Some(number);
                self.stopper.stop();
            }
            _ => {}
        }
    }

    fn converse(&mut self, events: EventSet) {
        let Some(session) = &mut self.session else {
            return;
        };
        if events.contains(EventSet::OUT) {
            session.writable();
        }
        if events.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) {
            session.readable();
        }
    }

    /// Publishes what the session knows, and asks for the events that it needs next.
    fn settle(&mut self, ops: &mut EventOps<'_>) {
        let Some(session) = &self.session else { return };
        let mut now = progress(&self.progress);
        now.init_ready = session.init_ready();
        if session.outcome().is_some() {
            if now.outcome.is_none() {
                now.outcome = session.outcome().cloned();
                let _ = ops.remove(Events::empty(session));
                self.stopper.stop();
            }
            return;
        }
        if session.has_waiting() != self.writable_wanted {
            self.writable_wanted = session.has_waiting();
            let interest = session_events(self.writable_wanted);
            if let Err(e) = ops.modify(Events::new(session, interest)) {
                error!("control port: {e:?}");
                self.stopper.stop();
            }
        }
    }
}

impl Subscriber for Control {}

impl MutEventSubscriber for Control {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.signals.as_raw_fd() {
            self.take_signals();
        } else {
            self.converse(events.event_set());
        }
        self.settle(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let session = self
            .session
            .as_ref()
            .map(|s| (s.as_raw_fd(), session_events(false)));
        let signals = (self.signals.as_raw_fd(), EventSet::IN);
        for (fd, interest) in session.into_iter().chain([signals]) {
            if let Err(e) = watch(ops, fd, interest) {
                error!("event loop: {e:?}");
                self.stopper.stop();
            }
        }
    }
}

fn session_events(writable: bool) -> EventSet {
    if writable {
        EventSet::IN | EventSet::OUT
    } else {
        EventSet::IN
    }
}

fn watch(
    ops: &mut EventOps<'_>,
    fd: RawFd,
    interest: EventSet,
) -> Result<(), devices::event_loop::Error> {
    ops.add(Events::new_raw(fd, interest))
}

/// The progress, whoever panicked while holding it.
pub fn progress(shared: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
