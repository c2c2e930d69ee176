//! What the monitor tells on standard error, beside the one line of [`Program::tell`]: its log, and
//! that it failed.

use std::io;
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub use tracing::Level;
use tracing::{enabled, error};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::prelude::*;

use crate::command::terminal;
use crate::program::Program;

/// The target of lines for people who wait for something: shown unless RUNQ_LOG says otherwise.
pub(crate) const PROGRESS: &str = "progress";

/// Starts the log. What it tells is up to RUNQ_LOG, a level or a list of `target=level`, and to
/// `default` and [`PROGRESS`] without one.
pub fn start(default: Level) {
    let wanted = std::env::var("RUNQ_LOG").unwrap_or_default();
    let parsed = filter(&wanted, default);
    let filter = parsed
        .clone()
        .unwrap_or_else(|_| Targets::new().with_default(default));
    tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(io::stderr)
        .with_ansi(false)
        .finish()
        .with(filter)
        .init();
    if let Err(error) = parsed {
        error!(
            "RUNQ_LOG={wanted}: {error} (try error, warn, info, debug, trace or target=level,...)"
        );
    }
}

fn filter(wanted: &str, default: Level) -> Result<Targets, String> {
    if wanted.is_empty() {
        let all = Targets::new().with_default(default);
        return Ok(all.with_target(PROGRESS, default.max(Level::INFO)));
    }
    wanted
        .parse()
        .map_err(|error: ParseError| error.to_string())
}

/// Whether the log tells the whole story.
pub fn is_debug() -> bool {
    enabled!(Level::DEBUG)
}

/// What ends up on a terminal: no second line, no control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// From now on a panic, of any thread, is told on one line and ends the process with the code of
/// the program's failures. It must not come to abort(3): the first process of a PID namespace
/// ignores SIGABRT, and abort(3) then ends it by a fault, which is the code of a guest's.
pub fn exit_on_panic(program: &'static Program) {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    panic::set_hook(Box::new(move |info| {
        while PANICKED.swap(true, Ordering::SeqCst) {
            // Another thread is about to end the process.
            thread::park();
        }
        terminal::restore_after_panic();
        program.tell(describe(info));
        process::exit(program.codes.failure.into());
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info
        .location()
        .map(|place| format!(" at {}:{}", place.file(), place.line()))
        .unwrap_or_default();
    format!("the monitor failed: {message}{place}: this is a bug")
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::{Command, Output};
    use std::thread;

    use devices::seccomp::{ANY_THREAD, Allowed};

    use super::*;
    use crate::program::{CONTAINER, RUNQ_VMM};

    /// Set for the copy of this test program that is to panic: the program that it is.
    const PANICS: &str = "RUNQ_TEST_PANICS";

    /// What becomes of a program with the hook, of which a confined thread panics.
    fn panic_as(test: &str, program: &'static Program) -> Output {
        if env::var_os(PANICS).is_some() {
            exit_on_panic(program);
            let thread = thread::spawn(|| {
                Allowed::calls(ANY_THREAD).restrict_thread().unwrap();
                panic!("a line\nand \x1b[2Janother");
            });
            // Never comes to an end, as the process does.
            let _ = thread.join();
            process::exit(0);
        }
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(PANICS, "")
            .output()
            .unwrap()
    }

    #[track_caller]
    fn assert_failed(output: &Output, code: i32, name: &str) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}: {text}",
            output.status
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        let start = format!("{name}: the monitor failed: a line and  [2Janother at ");
        let rest = text
            .strip_prefix(&start)
            .unwrap_or_else(|| panic!("{text}"));
        let (file, rest) = rest.split_once(':').unwrap();
        assert!(file.ends_with("log.rs"), "{text}");
        let (line, rest) = rest.split_once(':').unwrap();
        assert!(line.parse::<u32>().is_ok(), "{text}");
        assert_eq!(rest, " this is a bug\n");
    }

    #[test]
    fn a_level_or_levels_of_targets_say_what_is_told() {
        let tells = |wanted, target, level| {
            let filter = filter(wanted, Level::ERROR).unwrap();
            filter.would_enable(target, &level)
        };
        assert!(tells("", "vmm::vm", Level::ERROR));
        assert!(!tells("", "vmm::vm", Level::WARN));
        assert!(tells("debug", "devices::event_loop", Level::DEBUG));
        assert!(!tells("debug", "devices::event_loop", Level::TRACE));
        assert!(tells("error,vmm=info", "vmm::command", Level::INFO));
        assert!(!tells("error,vmm=info", "devices", Level::INFO));
        assert!(filter("vmm=loud", Level::ERROR).is_err());
    }

    #[test]
    fn a_panic_in_a_container_is_one_line_and_125() {
        let test = "log::tests::a_panic_in_a_container_is_one_line_and_125";
        assert_failed(&panic_as(test, &CONTAINER), 125, "runq");
    }

    #[test]
    fn a_panic_of_runq_vmm_is_one_line_and_1() {
        let test = "log::tests::a_panic_of_runq_vmm_is_one_line_and_1";
        assert_failed(&panic_as(test, &RUNQ_VMM), 1, "runq-vmm");
    }
}
