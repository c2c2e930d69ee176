//! A terminal for the monitor, and us in front of it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize,
};

/// A shell script that tells its window's size and what is typed, and lives through Ctrl-C; `quit` ends it with the exit
/// code 5. Signals find the shell in `wait`: `read` would miss one that comes just before it sleeps.
pub const SCRIPT: &str = r#"
trap 'echo "now $(stty size)"' WINCH
trap 'echo interrupted' INT
exec 3<&0
while read line; do
    echo "<$line>"
    [ "$line" != quit ] || exit 5
done <&3 &
echo "size $(stty size)"
tty
echo "term $TERM"
echo warning >&2
echo ready
while :; do
    wait $!
    code=$?
    [ $code -gt 128 ] || exit $code
done
"#;

/// A pseudo-terminal.
pub struct Terminal {
    /// Our end: keys go in, and what is shown comes out.
    master: File,
    /// The end that programs have. We keep it, so that the modes stay there to be looked at.
    slave: OwnedFd,
}

/// The modes that tell a terminal for people from one in raw mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    input: InputModes,
    output: OutputModes,
    control: ControlModes,
    local: LocalModes,
}

impl Mode {
    /// Whether keys go to the program at once, unseen, and none has a meaning to the terminal.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        !self
            .local
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
            && !self.input.intersects(InputModes::ICRNL | InputModes::IXON)
            && !self.output.contains(OutputModes::OPOST)
    }
}

impl Terminal {
    /// A terminal with a window of this size, in the mode for people.
    ///
    /// # Errors
    /// When the machine has no pseudo-terminals.
    pub fn open(rows: u16, columns: u16) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).context("open a pseudo-terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        let terminal = Self {
            master: master.into(),
            slave,
        };
        terminal.resize(rows, columns)?;
        Ok(terminal)
    }

    /// Changes the window's size. Nobody hears of it: a process has to be sent SIGWINCH by us, since it does not
    /// control the process by being its controlling terminal.
    ///
    /// # Errors
    /// Those of the ioctl.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.master, size)?)
    }

    /// The modes now.
    ///
    /// # Errors
    /// Those of tcgetattr(3).
    pub fn mode(&self) -> Result<Mode> {
        let now = tcgetattr(&self.slave)?;
        Ok(Mode {
            input: now.input_modes,
            output: now.output_modes,
            control: now.control_modes,
            local: now.local_modes,
        })
    }

    /// The programs' end, for one of their streams.
    pub(super) fn stdio(&self) -> Result<Stdio> {
        Ok(self.slave.try_clone()?.into())
    }

    /// Our end.
    pub(super) fn master(&self) -> Result<File> {
        Ok(self.master.try_clone()?)
    }
}
