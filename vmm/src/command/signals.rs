//! The signals that the monitor takes on behalf of its guest.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that a user's program commonly takes.
const USUAL: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
];

/// Those whose default is not to end a process: signal(7).
const HARMLESS: [i32; 7] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// Which signals are the guest's command's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Those that a user's program commonly takes. The others act on this process as ever.
    Usual,
    /// Every one that can be caught, but SIGPIPE: that is about what this process writes. A fault of
    /// this process itself still ends it: the kernel does not hold back its signal.
    All,
    /// As [`Self::All`], without those by which a terminal and its shell stop this process.
    AllButStops,
}

/// The signals as a file descriptor, for the event loop.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    /// Whether a changed window is our terminal's, not a signal like others.
    terminal: bool,
    /// A signal, and the one that the guest's command gets in its stead.
    replaced: Option<(i32, i32)>,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The terminal's window has another size.
    WindowChanged,
    /// Meant for the guest's command.
    ForGuest {
        /// Its number.
        number: i32,
        /// Whether its default is to end a process.
        ends: bool,
    },
}

impl Signals {
    /// Blocks the signals in the calling thread and those that it starts from now on, and takes
    /// them as events. To be called before any thread is started.
    ///
    /// # Errors
    /// As signalfd(2).
    pub fn take(forwarded: Forwarded) -> io::Result<Self> {
        let mut set = match forwarded {
            Forwarded::Usual => USUAL.into_iter().collect(),
            Forwarded::All | Forwarded::AllButStops => SigSet::all(),
        };
        set.add(Signal::SIGWINCH);
        if forwarded == Forwarded::AllButStops {
            for stop in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
                set.remove(stop);
            }
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            descriptor: SignalFd::with_flags(&set, flags)?,
            terminal: forwarded == Forwarded::Usual || io::stdin().is_terminal(),
            replaced: None,
        })
    }

    /// Lets the guest's command get the signal `to` whenever `from` comes.
    #[must_use]
    pub(crate) fn replace(mut self, from: i32, to: i32) -> Self {
        self.replaced = Some((from, to));
        self
    }

    /// The next signal that came, if any.
    pub fn next(&self) -> Option<Received> {
        let number = loop {
            let signal = self.descriptor.read_signal().ok()??;
            let number = signal.ssi_signo as i32;
            let is_ours = match number {
                // Of a write of ours that nobody reads: Rust programs ignore it, but as it is blocked
                // the kernel has kept it.
                libc::SIGPIPE => signal.ssi_pid == process::id(),
                // Of a child of ours: then the kernel says what became of it (`CLD_EXITED` and on).
                libc::SIGCHLD => signal.ssi_code > libc::SI_USER,
                _ => false,
            };
            if !is_ours {
                break number;
            }
        };
        Some(match number {
            libc::SIGWINCH if self.terminal => Received::WindowChanged,
            number => Received::ForGuest {
                number: match self.replaced {
                    Some((from, to)) if from == number => to,
                    _ => number,
                },
                ends: !HARMLESS.contains(&number),
            },
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::thread;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{kill, raise};
    use nix::unistd::Pid;

    use super::*;

    /// On a thread of its own, whose signals are blocked from then on.
    #[test]
    fn a_write_to_a_closed_pipe_is_no_signal_for_the_guest() {
        let test = thread::spawn(|| {
            let signals = Signals::take(Forwarded::All).unwrap();
            let (reader, mut writer) = io::pipe().unwrap();
            drop(reader);
            let error = writer.write(b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(signals.next(), None);
            raise(Signal::SIGTERM).unwrap();
            let ended = Received::ForGuest {
                number: libc::SIGTERM,
                ends: true,
            };
            assert_eq!(signals.next(), Some(ended));
        });
        test.join().unwrap();
    }

    /// Set for the copy of this test program that takes its signals.
    const TAKER: &str = "RUNQ_TEST_TAKER";

    #[test]
    fn sigpipe_of_somebody_else_is_for_the_guest() {
        if env::var_os(TAKER).is_some() {
            let signals = Signals::take(Forwarded::All).unwrap();
            // The end of a child of ours is nothing to the guest.
            assert!(Command::new("true").status().unwrap().success());
            assert_eq!(signals.next(), None);
            eprintln!("ready");
            let mut polled = [PollFd::new(signals.descriptor.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::NONE).unwrap();
            let taken = signals.next();
            let expected = Received::ForGuest {
                number: libc::SIGPIPE,
                ends: true,
            };
            process::exit(i32::from(taken != Some(expected)));
        }
        // The copy inherits it: no thread of the test harness in it shall take the signals.
        let signals: SigSet = [Signal::SIGPIPE, Signal::SIGCHLD].into_iter().collect();
        signals.thread_block().unwrap();
        let test = "command::signals::tests::sigpipe_of_somebody_else_is_for_the_guest";
        let mut copy = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(TAKER, "")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(copy.stderr.take().unwrap());
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill(Pid::from_raw(copy.id() as i32), Signal::SIGPIPE).unwrap();
        assert!(copy.wait().unwrap().success());
    }

    #[test]
    fn a_terminal_can_stop_who_leaves_it_that() {
        let test = thread::spawn(|| {
            let held = || SigSet::thread_get_mask().unwrap();
            let _ = Signals::take(Forwarded::AllButStops).unwrap();
            assert!(held().contains(Signal::SIGTERM) && !held().contains(Signal::SIGTSTP));
            let _ = Signals::take(Forwarded::All).unwrap();
            assert!(held().contains(Signal::SIGTSTP));
        });
        test.join().unwrap();
    }

    #[test]
    fn a_signal_can_come_as_another() {
        let test = thread::spawn(|| {
            let signals = Signals::take(Forwarded::All).unwrap();
            let signals = signals.replace(libc::SIGTERM, libc::SIGRTMIN() + 4);
            raise(Signal::SIGTERM).unwrap();
            let powers_off = Received::ForGuest {
                number: libc::SIGRTMIN() + 4,
                ends: true,
            };
            assert_eq!(signals.next(), Some(powers_off));
        });
        test.join().unwrap();
    }
}
