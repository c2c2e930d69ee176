//! Guests for tests: `runq-vmm` as a user calls it, and what it answers.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use tests::guest::{Guest, Rootfs};
//! let done = Guest::of(&Rootfs::new()?)?.args(["--cpus", "2"]).run(["/bin/nproc"])?;
//! assert_eq!((done.code(), done.stdout()), (Some(0), "2\n".into()));
//! # Ok(())
//! # }
//! ```
//!
//! The files that guests boot are beside the test program, or where `RUNQ_PAYLOAD` says: `runq-vmm`, `kernel`,
//! `initrd`, `modules/`, `stock-cloud/` and `stock/` with a `vmlinuz` and an `initrd` each, `diskcheck`, `fscheck`, `netcheck`,
//! `vsockcheck`.

mod initrd;
mod rootfs;
mod running;
mod stream;
pub mod terminal;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use initrd::shell_initrd;
pub use rootfs::Rootfs;
pub use running::{Finished, Running};
pub use terminal::{Mode, Terminal};

/// Time for a guest from start to end, unless a test says otherwise: what hangs is ended, and its output shown. A boot
/// takes a second or two, but an emulated host on a busy machine may be thirty times as slow.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(300);

/// The file of the payload with this name.
///
/// # Errors
/// When it is not there.
pub fn payload(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("RUNQ_PAYLOAD") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let test = std::env::current_exe().context("the path of the test program")?;
            test.parent().context("its directory")?.to_owned()
        }
    };
    let path = dir.join(name);
    ensure!(
        path.exists(),
        "{}: missing: build the payload with `tests/all boot`, and set RUNQ_PAYLOAD",
        path.display()
    );
    Ok(path)
}

/// A guest kernel of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Our own, an ELF file with all drivers built in.
    Lean,
    /// Debian's for virtual machines, a bzImage with modules in its initrd.
    StockCloud,
    /// Debian's for all machines.
    Stock,
}

impl Kernel {
    /// The kernel's file and that of its initrd.
    ///
    /// # Errors
    /// When the payload has none.
    pub fn files(self) -> Result<(PathBuf, PathBuf)> {
        let (kernel, initrd) = match self {
            Self::Lean => ("kernel", "initrd"),
            Self::StockCloud => ("stock-cloud/vmlinuz", "stock-cloud/initrd"),
            Self::Stock => ("stock/vmlinuz", "stock/initrd"),
        };
        Ok((payload(kernel)?, payload(initrd)?))
    }
}

/// What the monitor's standard input is.
enum Input {
    Empty,
    Bytes(Vec<u8>),
    Pipe,
    Terminal(Terminal),
}

/// One call of `runq-vmm`.
pub struct Guest {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    input: Input,
    timeout: Duration,
}

impl Guest {
    /// The monitor without any option.
    ///
    /// # Errors
    /// When the payload has none.
    pub fn bare() -> Result<Self> {
        Ok(Self::program(payload("runq-vmm")?))
    }

    /// Any other program that has to do with guests.
    pub fn program(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            input: Input::Empty,
            timeout: TIMEOUT,
        }
    }

    /// A guest with the lean kernel that runs a command from this root.
    ///
    /// # Errors
    /// When the payload is not complete.
    pub fn of(rootfs: &Rootfs) -> Result<Self> {
        Self::with(Kernel::Lean, rootfs)
    }

    /// A guest with this kernel that runs a command from this root.
    ///
    /// # Errors
    /// When the payload is not complete.
    pub fn with(kernel: Kernel, rootfs: &Rootfs) -> Result<Self> {
        let (kernel, initrd) = kernel.files()?;
        Ok(Self::bare()?
            .option("--kernel", kernel)
            .option("--initrd", initrd)
            .option("--rootfs", rootfs.path()))
    }

    /// Adds an option and its value.
    #[must_use]
    pub fn option(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.args([OsStr::new(name), value.as_ref()])
    }

    /// Adds options.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the monitor's environment. It has no others but PATH.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the monitor in a mount namespace of its own, where this shell script has run before.
    #[must_use]
    pub fn after(mut self, script: &str) -> Self {
        let script = format!("set -e; {script}; exec \"$0\" \"$@\"");
        let mut args: Vec<OsString> = ["-m", "sh", "-c", &script]
            .into_iter()
            .map(OsString::from)
            .collect();
        args.push(std::mem::replace(&mut self.program, "unshare".into()));
        args.append(&mut self.args);
        self.args = args;
        self
    }

    /// Gives the monitor these bytes, and then the end, as its standard input; else it is empty.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Keeps the standard input open, for [`Running::write`].
    #[must_use]
    pub fn open_stdin(mut self) -> Self {
        self.input = Input::Pipe;
        self
    }

    /// Makes standard input and output a terminal; standard error stays apart.
    #[must_use]
    pub fn terminal(mut self, terminal: Terminal) -> Self {
        self.input = Input::Terminal(terminal);
        self
    }

    /// Allows more or less time than five minutes.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts it, with a command for the guest.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(
        self,
        guest_command: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Running> {
        self.args(["--"]).args(guest_command).launch()
    }

    /// Starts it with the options alone.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch(self) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let stdin = match &self.input {
            Input::Empty => Stdio::null(),
            Input::Bytes(_) | Input::Pipe => Stdio::piped(),
            Input::Terminal(terminal) => terminal.stdio()?,
        };
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (bytes, terminal) = match self.input {
            Input::Bytes(bytes) => (Some(bytes), None),
            Input::Terminal(terminal) => {
                command.stdout(terminal.stdio()?);
                (None, Some(terminal))
            }
            Input::Empty | Input::Pipe => (None, None),
        };
        Running::start(command, terminal, bytes, self.timeout)
    }

    /// Runs a command in the guest to its end.
    ///
    /// # Errors
    /// When the program cannot be started, or takes too long.
    pub fn run(
        self,
        guest_command: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Finished> {
        self.start(guest_command)?.wait()
    }

    /// Runs a shell script in the guest to its end.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn shell(self, script: &str) -> Result<Finished> {
        self.run(["/bin/sh", "-c", script])
    }
}

/// Where scratch files go: on a disk, not in memory, as the roots of containers.
pub(crate) fn scratch() -> &'static Path {
    Path::new("/var/tmp")
}
