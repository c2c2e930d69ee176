//! Docker with runq, as a user has it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::guest::{Finished, Guest, Running, TIMEOUT, payload};

/// Where runq is, for Docker.
pub const ROOT: &str = "/var/lib/runq";

/// Makes the payload's runq the one of this machine, and known to Docker; once.
///
/// # Errors
/// When Docker does not know it afterwards.
pub fn install() -> Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let done = INSTALLED.get_or_init(|| lay_out().map_err(|error| format!("{error:#}")));
    done.clone().map_err(anyhow::Error::msg)
}

fn lay_out() -> Result<()> {
    let with_runq = payload("with-runq")?;
    let list = "docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}'";
    let runtimes = script(&format!("{} {list}", with_runq.display()))?;
    ensure!(
        runtimes.split(' ').any(|name| name == "runq"),
        "Docker's runtimes: {runtimes}"
    );
    Ok(())
}

/// The output of a shell script on the host, without the last line's end.
///
/// # Errors
/// When it fails, or what it started has not closed its output in ten minutes; then what it wrote is part of the error.
pub fn script(text: &str) -> Result<String> {
    let bash = Guest::program("bash").args(["-euc", text]);
    let bash = bash.env("HOME", "/root").timeout(2 * TIMEOUT);
    let done = bash.launch()?.wait().with_context(|| text.to_owned())?;
    ensure!(done.code() == Some(0), "{text}: {done:?}");
    Ok(done.stdout().trim_end().to_owned())
}

/// A root directory for programs of the host's, which come with the volume `/usr`: the links into that, and its users.
const DEBIAN: &str = r#"
root=$(mktemp -d)
mkdir -p $root/{usr,etc,tmp,proc,sys,dev,data}
for link in bin sbin lib lib64; do ln -s usr/$link $root/$link; done
cp /etc/passwd /etc/group $root/etc/
tar -c -C $root . | docker import - debian >/dev/null
rm -r $root
"#;

/// Makes an image of the host's Debian; its name.
///
/// # Errors
/// When Docker does not take it.
pub fn debian() -> Result<&'static str> {
    script(DEBIAN)?;
    Ok("debian")
}

/// A call of `docker`, to be completed by arguments and streams.
pub fn docker() -> Guest {
    Guest::program("docker").env("HOME", "/root")
}

/// A container of runq's. It is removed when this is dropped.
pub struct Container {
    name: String,
}

impl Container {
    /// A name for a container that is to be.
    ///
    /// # Errors
    /// When runq cannot be installed.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        install()?;
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `docker run` with this name, to be given options, the image, and the command.
    pub fn docker_run(&self) -> Guest {
        docker().args(["run", "--runtime", "runq", "--name", &self.name])
    }

    /// Runs a shell script in a container of busybox to its end.
    ///
    /// # Errors
    /// When Docker cannot be called, or takes too long.
    pub fn shell(&self, options: &[&str], text: &str) -> Result<Finished> {
        let call = self.docker_run().args(options);
        call.args(["busybox", "sh", "-c", text]).launch()?.wait()
    }

    /// Starts the same in the background.
    ///
    /// # Errors
    /// When Docker cannot be called, takes too long or fails.
    pub fn detach(&self, options: &[&str], text: &str) -> Result<()> {
        let options = [&["-d"], options].concat();
        let done = self.shell(&options, text)?;
        ensure!(done.code() == Some(0), "{done:?}");
        Ok(())
    }

    /// Starts `docker logs -f`.
    ///
    /// # Errors
    /// When Docker cannot be called.
    pub fn follow(&self) -> Result<Running> {
        docker().args(["logs", "-f", self.name()]).launch()
    }

    /// Calls `docker VERB... NAME`, which must succeed; what it prints.
    ///
    /// # Errors
    /// When it does not.
    pub fn docker(&self, verb: &[&str]) -> Result<String> {
        let call = docker().args(verb).args([OsString::from(&self.name)]);
        let done = call.launch()?.wait()?;
        ensure!(done.code() == Some(0), "docker {verb:?}: {done:?}");
        Ok(done.stdout().trim_end().to_owned())
    }

    /// What `docker inspect` says by this template.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn inspect(&self, template: &str) -> Result<String> {
        self.docker(&["inspect", "--format", template])
    }

    /// Waits for its end; its exit code.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn wait(&self) -> Result<String> {
        self.docker(&["wait"])
    }

    /// The process that runs the virtual machine, to wait for its end.
    ///
    /// # Errors
    /// When the container does not run.
    pub fn process(&self) -> Result<Process> {
        let pid: i32 = self.pid()?.parse().context("Docker's pid")?;
        let pid = Pid::from_raw(pid).context("Docker's pid is 0")?;
        Ok(Process(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Number of the process that runs the virtual machine.
    ///
    /// # Errors
    /// When the container does not run.
    pub fn pid(&self) -> Result<String> {
        let pid = self.inspect("{{.State.Pid}}")?;
        ensure!(Path::new("/proc").join(&pid).exists(), "{pid}: no process");
        Ok(pid)
    }
}

/// A process of the host.
pub struct Process(OwnedFd);

impl Process {
    /// Waits for its end.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait(&self) -> Result<()> {
        let mut readable = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec::try_from(TIMEOUT)?;
        ensure!(poll(&mut readable, Some(&timeout))? == 1, "it did not end");
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have been removed already, or never been.
        let _ = docker()
            .args(["rm", "-f", "-v", &self.name])
            .launch()
            .and_then(Running::wait);
    }
}
