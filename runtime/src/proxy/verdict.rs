//! How the container ended, in a number and perhaps a line.

use vmm::control::Progress;
use vmm::exit::Exit;
use vmm::session::Outcome;

use crate::FAILURE;

/// 128 + N stands for signal N.
const SIGNALS: u8 = 128;

/// The container's exit code, and a line for its standard error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: u8,
    pub(crate) message: Option<String>,
}

/// What the end of the VM means for the container.
///
/// A guest that breaks down ends like a process that does: a panic like abort(3) (134), a triple
/// fault like a segmentation fault (139), a reset like a container that is rebooted (SIGHUP, 129:
/// reboot(2), in a PID namespace).
///
/// `systemd` ends by reboot(2), for which the kernel ends it by a signal: SIGINT if it powered off,
/// SIGHUP if it is to be started again (pid_namespaces(7)).
pub(crate) fn of(exit: Exit, progress: &Progress, systemd: bool) -> Verdict {
    let told = |code, message: String| Verdict {
        code,
        message: Some(message),
    };
    match (&progress.outcome, progress.ended_by) {
        (Some(Outcome::Exited(code)), _) => Verdict {
            code: match i32::from(*code) - i32::from(SIGNALS) {
                libc::SIGINT if systemd => 0,
                libc::SIGHUP if systemd => 1,
                _ => *code,
            },
            message: None,
        },
        (Some(Outcome::Failed { code, message }), _) => told(*code, message.clone()),
        (None, Some(signal)) => Verdict {
            code: by_signal(signal),
            message: None,
        },
        (None, None) => {
            let code = match exit {
                Exit::Panic => by_signal(libc::SIGABRT),
                Exit::TripleFault => by_signal(libc::SIGSEGV),
                Exit::Reset => by_signal(libc::SIGHUP),
                Exit::PowerOff | Exit::Stopped => FAILURE,
            };
            let hint = "RUNQ_LOG=debug in the container's environment shows the kernel's messages";
            told(code, format!("{exit} before the process ended: {hint}"))
        }
    }
}

fn by_signal(number: i32) -> u8 {
    u8::try_from(number).map_or(FAILURE, |number| SIGNALS.saturating_add(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(exit: Exit, progress: &Progress) -> u8 {
        of(exit, progress, false).code
    }

    #[test]
    fn the_process_counts_whatever_became_of_the_machine() {
        let progress = Progress {
            outcome: Some(Outcome::Exited(7)),
            ..Default::default()
        };
        let silent = Verdict {
            code: 7,
            message: None,
        };
        assert_eq!(of(Exit::PowerOff, &progress, false), silent);
        assert_eq!(of(Exit::Panic, &progress, false), silent);
    }

    #[test]
    fn systemd_that_powers_off_has_succeeded() {
        for (code, verdict) in [(130, 0), (129, 1), (7, 7), (143, 143)] {
            let progress = Progress {
                outcome: Some(Outcome::Exited(code)),
                ..Default::default()
            };
            assert_eq!(of(Exit::PowerOff, &progress, true).code, verdict);
            assert_eq!(of(Exit::PowerOff, &progress, false).code, code);
        }
    }

    #[test]
    fn a_process_that_does_not_start_says_why() {
        let progress = Progress {
            outcome: Some(Outcome::Failed {
                code: 127,
                message: "no such thing".into(),
            }),
            ..Default::default()
        };
        let verdict = of(Exit::Stopped, &progress, false);
        assert_eq!(verdict.code, 127);
        assert_eq!(verdict.message.as_deref(), Some("no such thing"));
    }

    #[test]
    fn each_break_down_has_a_code_and_a_line() {
        let progress = Progress::default();
        assert_eq!(code(Exit::Panic, &progress), 134);
        assert_eq!(code(Exit::TripleFault, &progress), 139);
        assert_eq!(code(Exit::Reset, &progress), 129);
        assert_eq!(code(Exit::PowerOff, &progress), 125);
        for exit in [Exit::Panic, Exit::TripleFault, Exit::Reset, Exit::PowerOff] {
            assert!(of(exit, &progress, false).message.is_some());
        }
    }

    #[test]
    fn a_signal_before_the_process_ran_ends_us_as_it_would_it() {
        let progress = Progress {
            ended_by: Some(15),
            ..Default::default()
        };
        assert_eq!(code(Exit::Stopped, &progress), 143);
    }
}
