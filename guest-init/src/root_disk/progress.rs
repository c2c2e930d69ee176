//! How far a copy is, for people who wait for it.

use std::fmt::{Display, Formatter};
use std::time::{Duration, Instant};

use crate::{caches, console};

/// How often it is told.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many files of the image are known at once: fewer than the host lets any guest know.
const KNOWN: u64 = 4096;

/// What has been copied.
pub(super) struct Progress<'a> {
    /// Hears of the files and bytes.
    listener: &'a mut dyn FnMut(u64, u64),
    /// Files, links, devices and directories.
    files: u64,
    bytes: u64,
    told: Instant,
}

impl<'a> Progress<'a> {
    /// Nothing yet.
    pub(super) fn new(listener: &'a mut dyn FnMut(u64, u64)) -> Self {
        Self {
            listener,
            files: 0,
            bytes: 0,
            told: Instant::now(),
        }
    }

    /// One file more.
    pub(super) fn file(&mut self) {
        self.files += 1;
        if self.files.is_multiple_of(KNOWN) {
            // Nobody listens yet when the host asks for it.
            if let Err(error) = caches::forget_files() {
                console::debug(format_args!("{error:#}"));
            }
        }
        self.tell_at_times();
    }

    /// So many bytes more.
    pub(super) fn bytes(&mut self, count: usize) {
        self.bytes += count as u64;
        self.tell_at_times();
    }

    fn tell_at_times(&mut self) {
        if self.told.elapsed() >= INTERVAL {
            (self.listener)(self.files, self.bytes);
            self.told = Instant::now();
        }
    }
}

impl Display for Progress<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files and {} MiB", self.files, self.bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_times() {
        let mut told = Vec::new();
        let mut listener = |files, bytes| told.push((files, bytes));
        let mut progress = Progress::new(&mut listener);
        progress.file();
        progress.told -= INTERVAL;
        progress.bytes(7);
        progress.file();
        assert_eq!(told, [(1, 7)]);
    }
}
