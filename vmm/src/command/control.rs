//! What the event loop does for the guest's command: the conversation with init, and signals.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devices::dev::console::ConsoleHandle;
use devices::dev::share::Reminder;
use devices::event_loop::{EventOps, EventSet, Events, MutEventSubscriber, Stopper, Subscriber};
use tracing::{debug, error};
use vmm_sys_util::timerfd::TimerFd;

use super::session::{Outcome, Session};
use super::signals::{Received, Signals};
use super::terminal;
use crate::plug::Plugs;

/// How the command is doing.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// Time from the monitor's start to init's first word, once it came.
    pub init_ready: Option<Duration>,
    /// The signal that ended us while there was no command to take it.
    pub ended_by: Option<i32>,
}

/// Readable when init's Hello is overdue, with what is done then; closed when it has come.
pub(super) struct HelloTimer {
    pub(super) timer: TimerFd,
    pub(super) expire: Box<dyn FnOnce() + Send>,
}

/// The event loop's subscriber for signals and, if there is one, the session.
pub(crate) struct Control {
    session: Option<Session>,
    hello: Option<HelloTimer>,
    signals: Signals,
    console: Option<ConsoleHandle>,
    plugs: Option<Plugs>,
    reminder: Option<Arc<Reminder>>,
    stopper: Stopper,
    progress: Arc<Mutex<Progress>>,
    writable_wanted: bool,
    plugs_wanted: bool,
}

impl Control {
    /// Ends the VM by `stopper` when the session has its outcome, or a signal comes for which there
    /// is no command. Sizes of the terminal go to the session and to `console`.
    pub(super) fn new(
        session: Option<Session>,
        hello: Option<HelloTimer>,
        signals: Signals,
        console: Option<ConsoleHandle>,
        stopper: Stopper,
    ) -> Self {
        Self {
            session,
            hello,
            signals,
            console,
            plugs: None,
            reminder: None,
            stopper,
            progress: Arc::default(),
            writable_wanted: false,
            plugs_wanted: false,
        }
    }

    /// Has the guest's network change while the command runs.
    pub(crate) fn set_plugs(&mut self, plugs: Plugs) {
        self.plugs = Some(plugs);
    }

    /// Has the guest let go of files, when it is asked for, that it knows but does not use.
    pub(crate) fn set_reminder(&mut self, reminder: Arc<Reminder>) {
        self.reminder = Some(reminder);
    }

    /// How the command is doing, from now on.
    pub(crate) fn progress(&self) -> Arc<Mutex<Progress>> {
        Arc::clone(&self.progress)
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
        let Some(size) = terminal::window_size() else {
            return;
        };
        if let Some(session) = &mut self.session {
            session.resize(size);
        }
        if let Some(console) = &self.console {
            console.resize(size.cols, size.rows);
        }
    }

    /// A signal is the command's. While there is none, and again when it has ended and its output
    /// waits for a reader that does not come, it ends us.
    fn take_signal(&mut self, number: i32, ends: bool) {
        match &mut self.session {
            Some(session) if session.has_begun() => {
                debug!(number, "signal to the guest");
                session.signal(number);
            }
            _ if ends => {
                self.publish(|progress| progress.ended_by = Some(number));
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
        if let (Some(mac), Some(plugs)) = (session.take_unplugged(), &mut self.plugs) {
            plugs.unplugged(mac);
        }
        if let (true, Some(reminder)) = (session.take_dropped(), &self.reminder) {
            reminder.answered();
        }
    }

    /// The guest knows many files.
    fn remind(&mut self) {
        let Some(reminder) = self.reminder.as_ref().filter(|reminder| reminder.take()) else {
            return;
        };
        match &mut self.session {
            Some(session) if session.has_begun() => session.drop_caches(),
            _ => reminder.answered(),
        }
    }

    fn plug(&mut self, ops: &mut EventOps<'_>) {
        let (Some(plugs), Some(session)) = (&mut self.plugs, &mut self.session) else {
            return;
        };
        match plugs.receive() {
            Ok(Some(plug)) => session.plug(plug),
            Ok(None) => {}
            Err(error) => {
                debug!("the network changes no more: {error}");
                self.close_plugs(ops);
            }
        }
    }

    /// Publishes what the session knows by now, and waits for what it needs next.
    fn update(&mut self, ops: &mut EventOps<'_>) {
        let Some(session) = &self.session else { return };
        let (init_ready, outcome) = (session.init_ready(), session.outcome().cloned());
        let ended = outcome.is_some();
        self.publish(|progress| {
            progress.init_ready = init_ready;
            progress.outcome = outcome;
        });
        if ended || init_ready.is_some() {
            self.close_timer(ops);
        }
        match &self.session {
            Some(session) if ended => {
                let _ = ops.remove(Events::empty(session));
                self.session = None;
                self.close_plugs(ops);
                self.stopper.stop();
            }
            _ => {
                self.watch_session(ops);
                self.watch_plugs(ops);
            }
        }
    }

    /// Changes of the network wait in their socket while the guest has no orders, or is at one.
    fn watch_plugs(&mut self, ops: &mut EventOps<'_>) {
        let (Some(plugs), Some(session)) = (&self.plugs, &self.session) else {
            return;
        };
        let wanted = session.has_begun() && plugs.is_ready();
        if wanted == self.plugs_wanted {
            return;
        }
        self.plugs_wanted = wanted;
        let events = Events::new(plugs, EventSet::IN);
        let changed = if wanted {
            ops.add(events)
        } else {
            ops.remove(events)
        };
        if let Err(e) = changed {
            error!("changes of the network: {e:?}");
            self.stopper.stop();
        }
    }

    fn close_plugs(&mut self, ops: &mut EventOps<'_>) {
        if let Some(plugs) = self.plugs.take().filter(|_| self.plugs_wanted) {
            let _ = ops.remove(Events::empty(&plugs));
        }
    }

    fn watch_session(&mut self, ops: &mut EventOps<'_>) {
        let Some(session) = &self.session else { return };
        if session.has_waiting() != self.writable_wanted {
            self.writable_wanted = session.has_waiting();
            let interest = if self.writable_wanted {
                EventSet::IN | EventSet::OUT
            } else {
                EventSet::IN
            };
            if let Err(e) = ops.modify(Events::new(session, interest)) {
                error!("control port: {e:?}");
                self.stopper.stop();
            }
        }
    }

    fn close_timer(&mut self, ops: &mut EventOps<'_>) -> Option<Box<dyn FnOnce() + Send>> {
        let HelloTimer { timer, expire } = self.hello.take()?;
        let _ = ops.remove(Events::empty(&timer));
        Some(expire)
    }

    fn publish(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Subscriber for Control {}

impl MutEventSubscriber for Control {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let timer = self.hello.as_ref().map(|hello| hello.timer.as_raw_fd());
        let plugs: Option<RawFd> = self.plugs.as_ref().map(AsRawFd::as_raw_fd);
        let reminder = self.reminder.as_ref().map(|reminder| reminder.as_raw_fd());
        if events.fd() == self.signals.as_raw_fd() {
            self.take_signals();
        } else if Some(events.fd()) == timer {
            if let Some(expire) = self.close_timer(ops) {
                expire();
            }
        } else if Some(events.fd()) == plugs {
            self.plug(ops);
        } else if Some(events.fd()) == reminder {
            self.remind();
        } else {
            self.converse(events.event_set());
        }
        self.update(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let session = self.session.as_ref().map(AsRawFd::as_raw_fd);
        let timer = self.hello.as_ref().map(|hello| hello.timer.as_raw_fd());
        let signals = Some(self.signals.as_raw_fd());
        let reminder = self.reminder.as_ref().map(|reminder| reminder.as_raw_fd());
        for fd in [session, timer, signals, reminder].into_iter().flatten() {
            if let Err(e) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                error!("event loop: {e:?}");
                self.stopper.stop();
            }
        }
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
