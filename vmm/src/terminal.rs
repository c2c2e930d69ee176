//! The user's terminal: its size, raw mode, and its state put back whatever happens.
#![allow(unsafe_code)] // one ioctl without a safe wrapper in nix

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd};
use std::panic;

use nix::sys::termios::{self, SetArg, Termios};

/// A terminal in raw mode: keys reach the guest as they are, Ctrl-C too. Dropping it restores the
/// mode from before; a panic does so, too, before it ends the process.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts standard input into raw mode, if it is a terminal.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let (mut raw, for_hook) = (before.clone(), libc::termios::from(before.clone()));
        termios::cfmakeraw(&mut raw);
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore(&Termios::from(for_hook));
            print(info);
        }));
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // The terminal may be gone (hang-up): then there is nothing to restore.
    let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, before);
}

#[allow(missing_docs)] // what the macro makes is a function without a place for them
mod request {
    nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);
}

/// Rows and columns of the terminal behind `fd`, if it is one and knows.
pub fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request fills a winsize, which lives as long as the call.
    unsafe { request::get_window_size(fd.as_fd().as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
