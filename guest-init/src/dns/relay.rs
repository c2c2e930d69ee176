//! Queries to the host, and its answers.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::dns::{self, DnsAnswer, DnsQuery};
use proto::{Error, recv, send};

use crate::console;
use crate::ports::OutputPort;

/// The way to Docker's resolver.
pub(super) struct Relay {
    to_host: Mutex<OutputPort>,
    next: AtomicU32,
    waiting: Mutex<Waiting>,
    patience: Duration,
}

/// Whoever waits for an answer; none once there will be none.
type Waiting = Option<BTreeMap<u32, SyncSender<Vec<u8>>>>;

impl Relay {
    /// A relay that waits so long for each answer.
    pub(super) fn new(to_host: OutputPort, patience: Duration) -> Self {
        Self {
            to_host: Mutex::new(to_host),
            next: AtomicU32::new(0),
            waiting: Mutex::new(Some(BTreeMap::new())),
            patience,
        }
    }

    /// Docker's answer, if there is one in time.
    pub(super) fn ask(&self, query: &[u8], stream: bool) -> Option<Vec<u8>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        lock(&self.waiting).as_mut()?.insert(id, sender);
        let message = DnsQuery {
            id,
            stream,
            message: query.to_vec(),
        };
        // A statement of its own: others may send while this one waits.
        let sent = send(&mut *lock(&self.to_host), &message);
        let answer = sent
            .ok()
            .and_then(|()| receiver.recv_timeout(self.patience).ok());
        if let Some(waiting) = &mut *lock(&self.waiting) {
            waiting.remove(&id);
        }
        answer.filter(|answer| dns::answers(query, answer))
    }

    /// Takes the host's answers until the port ends.
    pub(super) fn listen(&self, mut from_host: impl Read) {
        loop {
            match recv::<DnsAnswer>(&mut from_host) {
                Ok(DnsAnswer { id, message }) => {
                    let waiting = lock(&self.waiting).as_mut().and_then(|all| all.remove(&id));
                    if let Some(sender) = waiting {
                        // It may have given up at this moment.
                        let _ = sender.try_send(message);
                    }
                }
                Err(error @ Error::Malformed) => console::line(format_args!("DNS port: {error}")),
                Err(error) => {
                    console::line(format_args!("DNS port: {error}"));
                    *lock(&self.waiting) = None;
                    return;
                }
            }
        }
    }
}

/// No thread leaves what it locks in disorder: a panic ends the guest.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
