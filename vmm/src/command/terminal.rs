//! The user's terminal: its size, raw mode, and its state put back whatever happens.
#![allow(unsafe_code)] // one ioctl without a safe wrapper in nix

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::termios::{self, SetArg, Termios};
use proto::WindowSize;

/// What a thread that uses the terminal asks of ioctl(2).
pub(crate) const REQUESTS: [u64; 3] = [libc::TIOCGWINSZ, libc::TCGETS, libc::TCSETS];
/// What a thread that may have to restore it asks: tcsetattr(3) looks at the mode, too.
pub(crate) const RESTORE: [u64; 2] = [libc::TCGETS, libc::TCSETS];

/// The mode from before, while the terminal is in raw mode. A process has one standard input.
static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

thread_local! {
    static MAY_RESTORE: Cell<bool> = const { Cell::new(false) };
}

/// A terminal in raw mode: keys reach the guest as they are, Ctrl-C too. Dropping it restores the
/// mode from before.
pub(crate) struct Raw(());

impl Raw {
    /// Puts standard input into raw mode, if it is a terminal.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let mut raw = termios::tcgetattr(&stdin)?;
        *before() = Some(raw.clone().into());
        let guard = Self(());
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        allow_restore();
        Ok(Some(guard))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// The calling thread may make the requests of [`RESTORE`], so that it can restore the terminal if it
/// panics. That of a thread whose filter forbids them stays as it is.
pub(crate) fn allow_restore() {
    MAY_RESTORE.set(true);
}

/// Restores the terminal, for a panic's hook.
pub(crate) fn restore_after_panic() {
    if MAY_RESTORE.get() {
        restore();
    }
}

/// Whether the terminal is in raw mode.
pub(crate) fn is_raw() -> bool {
    before().is_some()
}

fn restore() {
    let mode = before().take();
    if let Some(mode) = mode {
        // The terminal may be gone (hang-up): then there is nothing to restore.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &Termios::from(mode));
    }
}

fn before() -> MutexGuard<'static, Option<libc::termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(missing_docs)] // what the macro makes is a function without a place for them
mod request {
    nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);
}

/// The size of the terminal on standard input, if it is one and knows.
pub fn window_size() -> Option<WindowSize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request fills a winsize, which lives as long as the call.
    unsafe { request::get_window_size(io::stdin().as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;
    use std::thread;

    use devices::seccomp::{ANY_THREAD, Allowed};
    use nix::pty::openpty;
    use nix::sys::termios::LocalFlags;

    use super::*;
    use crate::log::exit_on_panic;
    use crate::program::CONTAINER;

    /// Set for the copy of this test program that is to panic.
    const PANICS: &str = "RUNQ_TEST_PANICS";

    fn panic_in_raw_mode() {
        exit_on_panic(&CONTAINER);
        let _raw = Raw::enter().unwrap();
        let mode = termios::tcgetattr(io::stdin()).unwrap();
        assert!(!mode.local_flags.contains(LocalFlags::ICANON) && is_raw());
        let confined = thread::spawn(|| {
            allow_restore();
            let calls = Allowed::calls(ANY_THREAD).with_kvm(&RESTORE).unwrap();
            calls.restrict_thread().unwrap();
            panic!("in raw mode");
        });
        let _ = confined.join();
    }

    #[test]
    fn a_panic_of_a_confined_thread_restores_the_terminal() {
        if env::var_os(PANICS).is_some() {
            return panic_in_raw_mode();
        }
        let pty = openpty(None, None).unwrap();
        let before = libc::termios::from(termios::tcgetattr(&pty.slave).unwrap());
        let test = "command::terminal::tests::a_panic_of_a_confined_thread_restores_the_terminal";
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(PANICS, "")
            .stdin(pty.slave.try_clone().unwrap())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(
            text.contains("in raw mode") && text.ends_with("bug\n"),
            "{text}"
        );
        let after = libc::termios::from(termios::tcgetattr(&pty.slave).unwrap());
        assert_eq!(before, after);
    }
}
