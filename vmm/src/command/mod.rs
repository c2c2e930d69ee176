//! The guest's command: what init is to run, and how it is connected to this process.
//!
//! ```text
//! stdin, stdout, stderr ◀──────── ports ────────▶ console device ◀──▶ init
//! signalfd, timerfd ──▶ Control ──▶ Session ◀─── control port ───────┘
//! ```

mod control;
mod ports;
mod session;
mod signals;
pub mod starter;
mod systemd;
pub mod terminal;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use devices::dev::DeviceSpec;
use devices::event_loop::Stopper;
use proto::Start;
use vmm_sys_util::timerfd::TimerFd;

pub use control::Progress;
use control::{Control, HelloTimer};
pub(crate) use ports::kernel_console;
pub use session::Outcome;
pub(crate) use session::SYSTEM_CALLS;
use session::Session;
pub use signals::{Forwarded, Received, Signals};
use starter::Starter;

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
    /// Becomes longer when the guest's kernel has killed a process for want of memory.
    pub kills: Option<File>,
    /// Is told when the command is started.
    pub starter: Starter,
    /// Further ports by name, both ways; the other ends are the caller's.
    pub ports: Vec<(String, UnixStream)>,
}

impl Command {
    /// A command other than systemd, with 30 seconds for init's first word.
    pub fn new(start: Start, signals: Forwarded) -> Self {
        Self {
            start,
            signals,
            systemd: false,
            patience: PATIENCE,
            kills: None,
            starter: Starter::default(),
            ports: Vec::new(),
        }
    }

    fn signals(&self) -> Result<Signals> {
        let signals = Signals::take(self.signals).context("signals")?;
        Ok(if self.systemd {
            signals.replace(libc::SIGTERM, systemd::power_off_signal())
        } else {
            signals
        })
    }

    fn hello_timer(&self, program: &'static Program) -> io::Result<HelloTimer> {
        let mut timer = TimerFd::new()?;
        timer.reset(self.patience, None)?;
        let seconds = self.patience.as_secs();
        let expire = Box::new(move || {
            let hint = program.hint;
            program.tell(format_args!(
                "the guest's init has not answered for {seconds} s: {hint}"
            ));
        });
        Ok(HelloTimer { timer, expire })
    }
}

/// Connects a guest and its command, if it has one, to this process: takes the signals, which has to
/// be done before any thread is started, and makes the ends of all streams. The control is for the
/// event loop, and ends the VM by `stopper`; the device is the console, if it has any use.
///
/// # Errors
/// Names what does not work.
pub(crate) fn connect(config: &Config, stopper: Stopper) -> Result<(Control, Option<DeviceSpec>)> {
    let Some(command) = &config.command else {
        let signals = Signals::take(Forwarded::Usual).context("signals")?;
        let (device, size) = ports::console(config, Vec::new())?.unzip();
        return Ok((Control::new(None, None, signals, size, stopper), device));
    };
    let signals = command.signals()?;
    let (mut session, port) =
        Session::new(command.start.clone(), command.systemd).context("control port")?;
    let kills = command.kills.as_ref().map(File::try_clone).transpose();
    session.record_kills(kills.context("control port")?);
    session.tell_start(command.starter.clone());
    let ports = ports::command_ports(port, &command.ports, &command.start.process)?;
    let (device, size) = ports::console(config, ports)?.unzip();
    let timer = command.hello_timer(config.program).context("timer")?;
    let control = Control::new(Some(session), Some(timer), signals, size, stopper);
    Ok((control, device))
}
