//! The guest's command: what init is to run, and how it is connected to this process.
//!
//! ```text
//! stdin, stdout, stderr ◀──────── ports ────────▶ console device ◀──▶ init
//! signalfd, timerfd ──▶ Control ──▶ Session ◀─── control port ───────┘
//! ```

mod control;
mod hello;
mod ports;
mod session;
mod signals;
mod systemd;
pub mod terminal;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use devices::dev::DeviceSpec;
use devices::event_loop::Stopper;
use proto::Start;

use control::Control;
pub use control::Progress;
use hello::HelloTimer;
pub(crate) use ports::kernel_console;
pub use session::Outcome;
pub(crate) use session::SYSTEM_CALLS;
use session::Session;
pub use signals::Forwarded;
use signals::Signals;

use crate::config::Config;
use crate::program::Program;

/// How long a guest may boot before that is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// What init is to run.
#[derive(Debug)]
pub struct Command {
    /// What init is told.
    pub start: Start,
    /// The signals of this process that are the command's.
    pub signals: Forwarded,
    /// Whether it is systemd, which is stopped by another signal and has other exit codes.
    pub systemd: bool,
    /// How long init may stay silent before one line on standard error tells of it.
    pub patience: Duration,
}

impl Command {
    /// A command other than systemd, with 30 seconds for init's first word.
    pub fn new(start: Start, signals: Forwarded) -> Self {
        Self {
            start,
            signals,
            systemd: false,
            patience: PATIENCE,
        }
    }

    fn signals(&self) -> Result<Signals> {
        let signals = Signals::take(self.signals).context("signals")?;
        Ok(match self.systemd {
            true => signals.replace(libc::SIGTERM, systemd::power_off_signal()),
            false => signals,
        })
    }
}

/// The connection of a guest and its command, if it has one, to this process.
pub(crate) struct Connection {
    /// For the event loop.
    pub(crate) control: Control,
    /// How the command is doing.
    pub(crate) progress: Arc<Mutex<Progress>>,
    /// The console device, if it has any use.
    pub(crate) console: Option<DeviceSpec>,
}

impl Connection {
    /// Takes the signals, which has to be done before any thread is started, and makes the ends of
    /// all streams. `stopper` ends the VM.
    ///
    /// # Errors
    /// Names the stream that does not work.
    pub(crate) fn new(config: &Config, stopper: Stopper) -> Result<Self> {
        let (signals, session, ports) = match &config.command {
            None => {
                let signals = Signals::take(Forwarded::Usual).context("signals")?;
                (signals, None, Vec::new())
            }
            Some(command) => {
                let start = command.start.clone();
                let terminal = start.process.terminal.is_some();
                let (session, port) =
                    Session::new(start, command.systemd).context("control port")?;
                let ports = ports::command_ports(port, terminal)?;
                (command.signals()?, Some(session), ports)
            }
        };
        let (console, size) = ports::console(config, ports)?.unzip();
        let hello = match &config.command {
            Some(command) => Some(hello_timer(command, config.program)?),
            None => None,
        };
        let (control, progress) = Control::new(session, hello, signals, size, stopper);
        Ok(Self {
            control,
            progress,
            console,
        })
    }
}

fn hello_timer(command: &Command, program: &'static Program) -> Result<HelloTimer> {
    let seconds = command.patience.as_secs();
    let tell = move || {
        let hint = program.hint;
        program.tell(format_args!(
            "the guest's init has not answered for {seconds} s: {hint}"
        ));
    };
    HelloTimer::start(command.patience, tell).context("timer")
}

/// What is shared, whoever panicked while holding it.
pub(crate) fn progress(shared: &Mutex<Progress>) -> Progress {
    shared
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}
