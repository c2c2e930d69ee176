//! The size of a terminal: the one thing about terminals that `nix` has no safe call for.
#![allow(unsafe_code)] // two ioctls, see the SAFETY comments

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

impl From<Size> for libc::winsize {
    fn from(size: Size) -> Self {
        Self {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }
    }
}

/// The size of the terminal `fd`.
///
/// # Errors
/// `ENOTTY` for anything else than a terminal.
pub fn get(fd: impl AsFd) -> nix::Result<Size> {
    let mut size = libc::winsize::from(Size { rows: 0, cols: 0 });
    // SAFETY: TIOCGWINSZ writes a struct winsize, and `size` is one; `fd` is open while it is borrowed.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(result)?;
    Ok(Size {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

/// Sets the size of the terminal `fd`, of either side of a pair; its processes get `SIGWINCH`.
///
/// # Errors
/// `ENOTTY` for anything else than a terminal.
pub fn set(fd: impl AsFd, size: Size) -> nix::Result<()> {
    let size = libc::winsize::from(size);
    // SAFETY: TIOCSWINSZ reads a struct winsize, and `size` is one; `fd` is open while it is borrowed.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(result).map(drop)
}
