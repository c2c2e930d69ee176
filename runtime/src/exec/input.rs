//! Standard input, on its way to the command.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use proto::exec::{FULL_DATA, STDIN_WINDOW, ToAgent};
use rustix::fs::{FileType, OFlags, fstat};

/// Where input comes from, and how much of it the agent holds.
pub(super) struct Input {
    /// Unset when it has ended.
    file: Option<File>,
    outstanding: usize,
    buffer: Vec<u8>,
}

impl Input {
    /// Input from a file of this process.
    pub(super) fn new(file: OwnedFd) -> Self {
        let own = reopen(file.as_fd(), OFlags::RDONLY);
        Self {
            file: Some(own.unwrap_or_else(|| file.into())),
            outstanding: 0,
            buffer: Vec::new(),
        }
    }

    /// What to wait for, when there is room for what comes of it.
    pub(super) fn wanted(&self) -> Option<BorrowedFd<'_>> {
        let file = self.file.as_ref().filter(|_| self.room() > 0);
        file.map(File::as_fd)
    }

    /// Reads once, when it can be read. An input that fails has ended.
    pub(super) fn read(&mut self) -> Option<ToAgent> {
        let room = self.room();
        let file = self.file.as_mut()?;
        self.buffer.resize(room, 0);
        let count = match file.read(&mut self.buffer) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return None;
            }
            result => result.unwrap_or_default(),
        };
        self.outstanding += count;
        match self.buffer.get(..count) {
            Some(bytes) if !bytes.is_empty() => Some(ToAgent::Stdin(bytes.to_vec())),
            _ => {
                self.file = None;
                Some(ToAgent::StdinEnd)
            }
        }
    }

    /// The agent has taken so many bytes, as it says.
    pub(super) fn taken(&mut self, count: u32) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.outstanding = self.outstanding.saturating_sub(count);
    }

    fn room(&self) -> usize {
        STDIN_WINDOW.saturating_sub(self.outstanding).min(FULL_DATA)
    }
}

/// The same pipe or terminal, opened anew: others share the file that this process was given, and
/// would be surprised if it did not block any more. Unset for other files, and where that cannot be.
pub(super) fn reopen(file: BorrowedFd<'_>, access: OFlags) -> Option<File> {
    let kind = FileType::from_raw_mode(fstat(file).ok()?.st_mode);
    if kind != FileType::Fifo && !rustix::termios::isatty(file) {
        return None;
    }
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
    // No more than these two bits differ.
    OpenOptions::new()
        .read(access == OFlags::RDONLY)
        .write(access == OFlags::WRONLY)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::fcntl_getfl;

    use super::*;

    #[test]
    fn no_more_is_read_than_the_window() {
        let zero = File::open("/dev/zero").unwrap();
        let mut input = Input::new(zero.into());
        let mut left = STDIN_WINDOW;
        while input.wanted().is_some() {
            let part = vec![0; left.min(FULL_DATA)];
            left -= part.len();
            assert_eq!(input.read(), Some(ToAgent::Stdin(part)));
        }
        assert_eq!(left, 0);
        input.taken(5);
        assert_eq!(input.read(), Some(ToAgent::Stdin(vec![0; 5])));
        // An agent that lies gets no more than the window.
        input.taken(u32::MAX);
        assert_eq!(input.room(), FULL_DATA);
    }

    #[test]
    fn the_end_is_told_once() {
        let (reader, mut writer) = io::pipe().unwrap();
        let shared = reader.try_clone().unwrap();
        let mut input = Input::new(reader.into());
        assert_eq!(input.read(), None);
        assert!(!fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK));
        writer.write_all(b"x").unwrap();
        drop(writer);
        assert_eq!(input.read(), Some(ToAgent::Stdin(b"x".to_vec())));
        assert_eq!(input.read(), Some(ToAgent::StdinEnd));
        assert!(input.wanted().is_none() && input.read().is_none());
    }
}
