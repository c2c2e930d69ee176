//! How many files the guest may know, or have open, at once.
//!
//! Each takes a descriptor, and with it memory of the host's kernel that is the container's. Linux keeps what it has seen
//! until it wants the memory for something else; its own, not the host's. So it is reminded (reminder.rs) before there
//! are too many. When there are, requests for more wait until it has let go of some, and fail if it has not.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::reminder::Reminder;
use crate::log_limit::LogLimit;

/// Requests that wait at once. Others are for the threads that are left, such as those that let go of files.
const MAX_WAITS: usize = 48;
/// How long the guest may take to answer: it looks at all that it knows.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long that of which it has let go may be under way, in another queue than the answer.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// How often the guest is asked for one request: the answer may be one to an earlier question.
const TRIES: u32 = 2;
/// How long nobody waits after that was in vain: all files are in use.
const FULL: Duration = Duration::from_secs(5);

/// The files that the guest knows or has open.
pub(in crate::dev) struct Room {
    most: usize,
    reminder: Option<Arc<Reminder>>,
    files: Mutex<Files>,
    /// There are fewer.
    left: Condvar,
    over: AtomicBool,
    patience: Duration,
    share: String,
    complaints: LogLimit,
}

#[derive(Default)]
struct Files {
    /// How many lookups the guest has not taken back, by the library's number for the file. Never less than the
    /// library counts: it is told first of what comes, and of what goes.
    known: HashMap<u64, u64>,
    open: usize,
    /// With so many the guest is reminded next.
    remind_at: usize,
    waiting: usize,
    full_since: Option<Instant>,
}

impl Files {
    fn count(&self) -> usize {
        self.known.len() + self.open
    }
}

impl Room {
    /// For so many files of a share. Without a reminder nobody waits.
    pub(super) fn new(share: &str, most: usize, reminder: Option<Arc<Reminder>>) -> Self {
        let room = Self {
            most,
            reminder,
            files: Mutex::default(),
            left: Condvar::new(),
            over: AtomicBool::new(false),
            patience: PATIENCE,
            share: share.to_owned(),
            complaints: LogLimit::default(),
        };
        room.lock().remind_at = room.threshold();
        room
    }

    /// The guest knows this file by one lookup more, unless it did not know it and there is no room for it.
    #[must_use]
    pub(super) fn look_up(&self, inode: u64) -> bool {
        let mut files = self.lock();
        let full = files.count() >= self.most;
        if full && !files.known.contains_key(&inode) {
            return false;
        }
        self.add(&mut files, inode);
        true
    }

    /// The guest knows this file, which was made for it, by one lookup more.
    pub(super) fn made(&self, inode: u64) {
        self.add(&mut self.lock(), inode);
    }

    fn add(&self, files: &mut Files, inode: u64) {
        let lookups = files.known.entry(inode).or_default();
        *lookups = lookups.saturating_add(1);
        self.grown(files);
    }

    /// The guest has opened a file.
    pub(super) fn opened(&self) {
        let mut files = self.lock();
        files.open += 1;
        self.grown(&mut files);
    }

    /// There may be one more: reminds the guest when it is time, and again half of the way from there.
    fn grown(&self, files: &mut Files) {
        let count = files.count();
        if count < files.remind_at {
            return;
        }
        let step = (self.most.saturating_sub(count) / 2).max(self.most / 64 + 1);
        files.remind_at = count.saturating_add(step);
        if let Some(reminder) = &self.reminder {
            debug!(
                "share {}: the guest knows {count} files: reminds it",
                self.share
            );
            reminder.remind();
        }
    }

    /// Whether there are so many that the guest has been reminded.
    pub(super) fn is_narrow(&self) -> bool {
        self.lock().count() >= self.threshold()
    }

    /// The guest takes back lookups of files.
    pub(super) fn forget(&self, requests: &[(u64, u64)]) {
        let mut files = self.lock();
        for (inode, count) in requests {
            if let Some(lookups) = files.known.get_mut(inode) {
                *lookups = lookups.saturating_sub(*count);
                if *lookups == 0 {
                    files.known.remove(inode);
                }
            }
        }
        self.shrunk(&mut files);
    }

    /// The guest has closed a file.
    pub(super) fn closed(&self) {
        let mut files = self.lock();
        files.open = files.open.saturating_sub(1);
        self.shrunk(&mut files);
    }

    fn shrunk(&self, files: &mut Files) {
        let count = files.count();
        if count < self.threshold() {
            files.remind_at = self.threshold();
        }
        if count < self.most {
            files.full_since = None;
            if files.waiting > 0 {
                self.left.notify_all();
            }
        }
    }

    /// Waits until there is room for one more file.
    ///
    /// # Errors
    /// ENFILE when the guest makes none.
    pub(super) fn wait(&self) -> io::Result<()> {
        let mut files = self.lock();
        if files.count() < self.most {
            return Ok(());
        }
        let full = files.full_since.is_some_and(|at| at.elapsed() < FULL);
        if let Some(reminder) = &self.reminder
            && !full
            && files.waiting < MAX_WAITS
        {
            files.waiting += 1;
            drop(files);
            let has_room = self.wait_for(reminder);
            files = self.lock();
            files.waiting -= 1;
            if has_room {
                return Ok(());
            }
            files.full_since = Some(Instant::now());
        }
        drop(files);
        if self.complaints.allows() {
            warn!(
                "share {}: the guest uses {} files, which is the limit: a program got ENFILE; a guest with more memory \
                 may use more",
                self.share, self.most
            );
        }
        Err(io::Error::from_raw_os_error(libc::ENFILE))
    }

    fn wait_for(&self, reminder: &Reminder) -> bool {
        for _ in 0..TRIES {
            reminder.remind();
            reminder.wait(self.patience, || self.is_over());
            let is_full = |files: &mut Files| files.count() >= self.most && !self.is_over();
            let waited = self
                .left
                .wait_timeout_while(self.lock(), UNDER_WAY, is_full);
            let (files, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if files.count() < self.most {
                return true;
            }
        }
        false
    }

    /// No request comes any more: those that wait return.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        let files = self.lock();
        self.left.notify_all();
        drop(files);
        if let Some(reminder) = &self.reminder {
            reminder.wake();
        }
    }

    /// There is another guest.
    pub(super) fn restart(&self) {
        self.clear();
        self.over.store(false, Ordering::Release);
    }

    /// The guest knows nothing any more.
    pub(super) fn clear(&self) {
        let mut files = self.lock();
        *files = Files {
            waiting: files.waiting,
            remind_at: self.threshold(),
            ..Files::default()
        };
        self.left.notify_all();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn threshold(&self) -> usize {
        self.most - self.most / 4
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        // A panic leaves nothing half done.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "room_test.rs"]
mod tests;
