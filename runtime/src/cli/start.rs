//! `runq start`: as runc's, except that it ends when the container's process is started in the guest, and fails as
//! runc's `create` does when that cannot be.
//!
//! The monitor tells in a FIFO of the bundle. A monitor that ends without a word, or takes very long, is no failure
//! of the start: what becomes of it is the container's end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vmm::command::starter::Word;
use vmm::program::CONTAINER;

use super::args::CommandLine;
use super::runc::Runc;
use crate::exec::start::refused;
use crate::split::{STARTED, VMSPEC};
use crate::vmspec::VmSpec;

/// How long the start may take before it is left alone: Docker can neither stop nor kill a container that is being started.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file in the bundle in which containerd has runc write the number of the container's process.
const PID_FILE: &str = "init.pid";

/// Has runc start a container. In one of ours, this waits for its process.
pub(super) fn start(line: &CommandLine) -> Result<ExitCode> {
    let runc = Runc::find(line)?;
    let Some(starting) = Starting::find(&runc, line) else {
        return Err(runc.exec(line));
    };
    let code = runc.run(line)?;
    if code == ExitCode::SUCCESS {
        starting.wait(PATIENCE)?;
    }
    Ok(code)
}

/// A container whose process is about to start.
struct Starting {
    monitor: OwnedFd,
    fifo: File,
    bundle: PathBuf,
}

impl Starting {
    /// The container of this command line; none if it is not ours, or not one that can be started, which runc tells best.
    fn find(runc: &Runc, line: &CommandLine) -> Option<Self> {
        let id = line.operand(&[])?;
        // The shim of containerd works in the bundle; to ask runc takes longer.
        let (bundle, pid) = known(Path::new("."), id).or_else(|| {
            let state = runc.state(line, id).ok()?;
            Some((state.bundle, state.pid))
        })?;
        Self::open(bundle, pid)
    }

    fn open(bundle: PathBuf, pid: i32) -> Option<Self> {
        // Not to wait for the monitor here: when it looks, it finds the FIFO open.
        let fifo = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(bundle.join(STARTED));
        let pid = Pid::from_raw(pid).filter(|_| pid > 0)?;
        Some(Self {
            monitor: pidfd_open(pid, PidfdFlags::empty()).ok()?,
            fifo: fifo.ok()?,
            bundle,
        })
    }

    /// Waits until the process is started; or why it is not.
    fn wait(&self, patience: Duration) -> Result<()> {
        if !self.is_heard(Instant::now() + patience)? {
            return Ok(());
        }
        match Word::read(&self.fifo) {
            Ok(Some(Word::Failed { code, message })) => Err(self.failed(code, &message)),
            // Without a word the monitor has ended.
            Ok(Some(Word::Started) | None) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context(STARTED),
        }
    }

    /// Waits for a word, or the monitor's end; whether there was either in time.
    fn is_heard(&self, deadline: Instant) -> Result<bool> {
        loop {
            let time = deadline.saturating_duration_since(Instant::now());
            let mut polled = [self.fifo.as_fd(), self.monitor.as_fd()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut polled, Some(&Timespec::try_from(time)?)) {
                Err(Errno::INTR) => {}
                events => return Ok(events? > 0),
            }
        }
    }

    /// In the words of runc, from which dockerd and docker make exit codes.
    fn failed(&self, code: u8, message: &str) -> Error {
        if code == CONTAINER.codes.failure {
            return anyhow!("{message}");
        }
        let vm = VmSpec::load(&self.bundle.join(VMSPEC));
        let args = vm.map(|vm| vm.start.process.args).unwrap_or_default();
        let command = args.first().map(String::as_str).unwrap_or_default();
        Error::from(refused(code, message, command)).context("unable to start container process")
    }
}

/// The bundle of the container with this ID and its process, if this folder is it.
fn known(folder: &Path, id: &OsStr) -> Option<(PathBuf, i32)> {
    let bundle = folder.canonicalize().ok()?;
    let pid = fs::read_to_string(bundle.join(PID_FILE)).ok()?;
    bundle
        .ends_with(id)
        .then_some((bundle, pid.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;
    use vmm::command::starter::Starter;

    use super::*;

    /// A monitor that ends when its standard input does, and its bundle.
    fn starting() -> (Child, Starting, TempDir) {
        let bundle = tempfile::tempdir().unwrap();
        mkfifo(&bundle.path().join(STARTED), Mode::S_IRWXU).unwrap();
        let monitor = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(monitor.id()).unwrap();
        let starting = Starting::open(bundle.path().to_owned(), pid).unwrap();
        (monitor, starting, bundle)
    }

    fn starter(bundle: &TempDir) -> Starter {
        Starter::open(&bundle.path().join(STARTED))
    }

    fn end(mut monitor: Child) {
        drop(monitor.stdin.take());
        monitor.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_started_is_waited_for() {
        let (monitor, starting, bundle) = starting();
        let starter = starter(&bundle);
        let teller = std::thread::spawn(move || starter.started());
        starting.wait(Duration::MAX / 4).unwrap();
        teller.join().unwrap();
        end(monitor);
    }

    #[test]
    fn a_failure_is_told_in_runcs_words_also_by_a_monitor_that_has_ended() {
        for (code, message, expected) in [
            (
                127,
                "\"sh\": executable file not found in the PATH /bin",
                "unable to start container process: exec: \"sh\": executable file not found in $PATH",
            ),
            (
                1,
                "no memory",
                "unable to start container process: no memory",
            ),
            (125, "no network", "no network"),
        ] {
            let (monitor, starting, bundle) = starting();
            assert!(starter(&bundle).failed(code, message));
            end(monitor);
            let error = starting.wait(Duration::ZERO).unwrap_err();
            assert_eq!(format!("{error:#}"), expected);
        }
    }

    #[test]
    fn a_monitor_that_tells_nothing_is_not_waited_for() {
        let (monitor, starting, bundle) = starting();
        starting.wait(Duration::ZERO).unwrap();
        // Another process of the monitor's may still have it.
        let _open = starter(&bundle);
        end(monitor);
        starting.wait(Duration::MAX / 4).unwrap();
    }

    #[test]
    fn only_the_containers_own_bundle_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ab");
        fs::create_dir(&bundle).unwrap();
        let known = |id| known(&bundle, OsStr::new(id)).map(|(_, pid)| pid);
        assert_eq!(known("ab"), None, "nobody has written the number");
        fs::write(bundle.join(PID_FILE), "4711").unwrap();
        assert_eq!((known("ab"), known("b")), (Some(4711), None));
    }
}
