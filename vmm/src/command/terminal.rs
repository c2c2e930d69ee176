//! The user's terminal: its size, raw mode, and its state put back whatever happens.

use std::cell::Cell;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::WindowSize;
use rustix::termios::{self, OptionalActions, Termios};

/// What a thread that uses the terminal asks of ioctl(2).
pub const REQUESTS: [u64; 3] = [libc::TIOCGWINSZ, libc::TCGETS2, RESTORE];
/// What a thread asks that may have to restore it.
pub(crate) const RESTORE: u64 = libc::TCSETS2;

/// The mode from before, while the terminal is in raw mode. A process has one standard input.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

thread_local! {
    static MAY_RESTORE: Cell<bool> = const { Cell::new(false) };
}

/// A terminal in raw mode: keys reach the guest as they are, Ctrl-C too. Dropping it restores the
/// mode from before.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Puts standard input into raw mode, if it is a terminal.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !termios::isatty(&stdin) {
            return Ok(None);
        }
        let mut mode = termios::tcgetattr(&stdin)?;
        *before() = Some(mode.clone());
        let guard = Self(());
        mode.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &mode)?;
        allow_restore();
        Ok(Some(guard))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// The calling thread may make the request [`RESTORE`], so that it can restore the terminal if it
/// panics. That of a thread whose filter forbids it stays as it is.
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
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &mode);
    }
}

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The size of the terminal on standard input, if it is one and knows.
pub fn window_size() -> Option<WindowSize> {
    let size = termios::tcgetwinsize(io::stdin()).ok()?;
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
    use rustix::termios::LocalModes;

    use super::*;
    use crate::log::exit_on_panic;
    use crate::program::CONTAINER;

    /// Set for the copy of this test program that is to panic.
    const PANICS: &str = "RUNQ_TEST_PANICS";

    fn panic_in_raw_mode() {
        exit_on_panic(&CONTAINER);
        let _raw = Raw::enter().unwrap();
        let mode = termios::tcgetattr(io::stdin()).unwrap();
        assert!(!mode.local_modes.contains(LocalModes::ICANON) && is_raw());
        let confined = thread::spawn(|| {
            allow_restore();
            let calls = Allowed::calls(ANY_THREAD).with_kvm(&[RESTORE]);
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
        let modes = || {
            let mode = termios::tcgetattr(&pty.slave).unwrap();
            (mode.input_modes, mode.output_modes, mode.local_modes)
        };
        let before = modes();
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
        assert_eq!(modes(), before);
    }
}
