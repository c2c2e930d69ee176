//! How far a copy is, for people who wait for it.

use std::fmt::{Display, Formatter};
use std::time::{Duration, Instant};

use crate::{caches, console};

/// How often it is told.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many files of the image are known at once: fewer than the host lets any guest know.
const KNOWN: u64 = 4096;

/// What has been copied.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    id: &'a str,
    /// Files, links, devices and directories.
    files: u64,
    bytes: u64,
    told: Instant,
}

impl<'a> Progress<'a> {
    /// Nothing of the root disk with this ID.
    pub(super) fn new(id: &'a str) -> Self {
        Self {
            id,
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

    /// One line on the log.
    pub(super) fn tell(&mut self, what: &str) {
        console::debug(format_args!("root disk {}: {what} {self} copied", self.id));
        self.told = Instant::now();
    }

    fn tell_at_times(&mut self) {
        if self.told.elapsed() >= INTERVAL {
            self.tell("so far");
        }
    }
}

impl Display for Progress<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files and {} MiB", self.files, self.bytes >> 20)
    }
}
