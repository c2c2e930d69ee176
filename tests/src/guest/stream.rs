//! What a process writes, collected as it comes.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};

/// Most bytes of a stream that a failure shows.
const SHOWN: usize = 4096;

/// A stream that a thread reads to its end.
pub(super) struct Stream {
    name: &'static str,
    shared: Arc<Shared>,
    /// Up to where [`Stream::wait_for`] has looked.
    seen: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
    /// Whether the reader is to leave before the end.
    unwanted: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Starts reading.
    pub(super) fn collect(name: &'static str, mut source: impl Read + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            // A terminal that nobody has open any more gives an error in place of the end.
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let mut state = writer.lock();
                if state.unwanted {
                    break;
                }
                state.bytes.extend_from_slice(&buffer[..count]);
                drop(state);
                writer.changed.notify_all();
            }
            drop(source);
            writer.lock().ended = true;
            writer.changed.notify_all();
        });
        Self {
            name,
            shared,
            seen: 0,
        }
    }

    /// Waits until `text` comes, behind what was waited for before.
    pub(super) fn wait_for(&mut self, text: &str, deadline: Instant) -> Result<()> {
        let mut found = None;
        let from = self.seen;
        self.wait_until(deadline, |state| {
            let new = &state.bytes[from..];
            found = new
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            found.is_some() || state.ended
        })?;
        match found {
            Some(at) => {
                self.seen += at + text.len();
                Ok(())
            }
            None => bail!("{} ended without {text:?}: {}", self.name, self.text()),
        }
    }

    /// Waits for the end; all that came.
    pub(super) fn finish(&self, deadline: Instant) -> Result<Vec<u8>> {
        self.wait_until(deadline, |state| state.ended)?;
        Ok(self.shared.lock().bytes.clone())
    }

    /// Reads no more: with the next bytes that come, the stream is closed.
    pub(super) fn leave(&self) {
        self.shared.lock().unwanted = true;
    }

    /// The end of what has come so far, for people.
    pub(super) fn text(&self) -> String {
        end_of(&self.shared.lock().bytes)
    }

    fn wait_until(&self, deadline: Instant, mut done: impl FnMut(&State) -> bool) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.shared.lock();
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, left, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        if timeout.timed_out() {
            bail!("{}: waited too long, so far: {}", self.name, self.text());
        }
        Ok(())
    }
}

/// The last bytes, for people.
pub(super) fn end_of(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(SHOWN);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}
