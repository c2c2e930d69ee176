//! The terminal of this process, for a shell in the host.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, SetArg, Termios};

use crate::winsize::{self, Size};

/// The terminal on standard input in raw mode; dropping this restores it.
pub struct Raw(Termios);

impl Raw {
    /// Puts it in raw mode.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn new() -> Result<Self> {
        let before = termios::tcgetattr(io::stdin()).context("standard input is not a terminal")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Its size now, and its sizes to come. To be called before other threads are started: all must block the signal.
///
/// # Errors
/// Standard input is no terminal.
pub fn sizes() -> Result<(Size, Receiver<Size>)> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGWINCH);
    signals.thread_block()?;
    let now = winsize::get(io::stdin()).context("standard input is not a terminal")?;
    let (sender, sizes) = mpsc::channel();
    thread::spawn(move || {
        while signals.wait().is_ok() {
            let Ok(size) = winsize::get(io::stdin()) else {
                return;
            };
            if sender.send(size).is_err() {
                return;
            }
        }
    });
    Ok((now, sizes))
}
