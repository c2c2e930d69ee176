//! The QEMU process of a test host.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::qmp::Qmp;
use crate::{Lifetime, image};

/// In the image's folder of QEMU. It execs, so that the process is QEMU's.
const PROGRAM: &str = "run";

/// The memory of a host, in MiB; what a guest in it does not touch takes none.
const MEMORY_MIB: u32 = 6144;

/// Its processor. Not with AVX: QEMU's translated code leaves the upper halves of this machine's registers in use when a guest has used 256 bits
/// (glibc's memset does), and then each of QEMU's helpers, which are compiled for SSE, waits for them: AES takes 15 times as long, until something
/// happens to clear them.
const PROCESSOR: &str = "EPYC,+svm,+npt,-avx,-avx2,-f16c,-fma";

/// The agent's port inside.
const AGENT_PORT: u16 = 7000;

/// The kinds of host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Variant {
    /// Docker running, and two CPUs, of which the second idles: KVM recommends no more vCPUs than there are CPUs, but what
    /// runs on two at once is not emulated well.
    Docker,
    /// One CPU whose clock counts instructions (a nanosecond each), for measurements that do not depend on the
    /// load of the machine outside. Without Docker: idle time passes in no time, so that daemons never rest.
    Icount,
}

impl Variant {
    /// Its name in the cache.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "state",
            Self::Icount => "icount",
        }
    }

    /// The options that make the machine what it is: a saved state fits only the same ones.
    fn machine(self) -> Vec<String> {
        let accel: &[&str] = match self {
            Self::Docker => &["-accel", "tcg,thread=multi,tb-size=1024", "-smp", "2"],
            Self::Icount => &[
                "-accel",
                "tcg,thread=single,tb-size=1024",
                "-smp",
                "1",
                "-icount",
                "shift=0,sleep=off",
            ],
        };
        let memory = MEMORY_MIB.to_string();
        let rest = [
            "-machine",
            "pc,memory-backend=ram",
            "-cpu",
            PROCESSOR,
            "-m",
            &memory,
        ];
        let mut options: Vec<String> = accel.iter().map(|&option| option.to_owned()).collect();
        options.extend(rest.map(str::to_owned));
        options
    }

    /// The kernel's command line. `apparmor=0`: without its tools in the image Docker could run nothing.
    fn cmdline(self) -> String {
        let docker = match self {
            // Nothing runs on the second CPU that does not ask for it.
            Self::Docker => " isolcpus=1",
            Self::Icount => " testhost.docker=0",
        };
        format!("console=ttyS0 panic=-1 quiet apparmor=0 mitigations=off{docker}")
    }
}

/// What QEMU is started with.
pub(crate) struct Machine<'a> {
    pub(crate) variant: Variant,
    /// The folder of QEMU and the kernel.
    pub(crate) image: &'a Path,
    pub(crate) initrd: &'a Path,
    /// The file of its memory.
    pub(crate) memory: &'a Path,
    /// Its disk, an overlay in qcow2.
    pub(crate) disk: &'a Path,
    pub(crate) payload: &'a Path,
    /// Whether this is the boot that will be saved: then memory and disk are written. Else neither is.
    pub(crate) boots: bool,
    /// A folder for its logs and temporary files.
    pub(crate) dir: &'a Path,
    pub(crate) lifetime: Lifetime,
}

/// A running QEMU. Dropping it kills it, unless it is [`Qemu::leave`]d.
pub(crate) struct Qemu {
    pub(crate) pid: Pid,
    /// The host's console, for a machine that boots.
    pub(crate) console: Option<ChildStdout>,
    ended: Option<mpsc::Receiver<ExitStatus>>,
}

impl Machine<'_> {
    /// Starts it and connects to its QMP, which is its standard input: no name, and the end of either is seen.
    ///
    /// # Errors
    /// It cannot be started, or ends at once.
    pub(crate) fn start(&self, deadline: Instant) -> Result<(Qemu, Qmp)> {
        let (ours, theirs) = UnixStream::pair()?;
        let log = self.dir.join("qemu.log");
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = self.command();
        command.stdin(OwnedFd::from(theirs)).stderr(output);
        if self.boots {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(File::create(self.dir.join("console.log"))?);
        }
        let qemu = Qemu::spawn(command)?;
        let qmp = Qmp::new(ours, deadline).with_context(|| format!("see {}", log.display()))?;
        Ok((qemu, qmp))
    }

    fn command(&self) -> Command {
        // Both tools exec, too.
        let mut command = match self.lifetime {
            Lifetime::OfProcess => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL"]);
                command
            }
            Lifetime::UntilStopped => Command::new("setsid"),
        };
        command.arg(self.image.join(image::files::QEMU).join(PROGRAM));
        command.env("TMPDIR", self.dir); // where snapshot=on writes
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ]);
        command.args(self.variant.machine());
        let share = if self.boots { "on" } else { "off" };
        let ram = format!("memory-backend-file,id=ram,size={MEMORY_MIB}M,share={share}");
        command
            .arg("-object")
            .arg(option(&ram, "mem-path", self.memory));
        command
            .arg("-kernel")
            .arg(self.image.join(image::files::KERNEL));
        command.arg("-initrd").arg(self.initrd);
        command.args(["-append", &self.variant.cmdline()]);
        let snapshot = if self.boots { "off" } else { "on" };
        let disk = format!("if=virtio,format=qcow2,cache=unsafe,snapshot={snapshot}");
        command.arg("-drive").arg(option(&disk, "file", self.disk));
        let payload = "if=virtio,format=raw,readonly=on";
        command
            .arg("-drive")
            .arg(option(payload, "file", self.payload));
        // Port 0: the system chooses one, `agent_port` asks which.
        let net = format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:{AGENT_PORT}");
        command.args([
            "-netdev",
            &net,
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ]);
        command.args([
            "-chardev",
            "file,id=console,path=/dev/stdout",
            "-serial",
            "chardev:console",
        ]);
        command.args([
            "-chardev",
            "socket,id=qmp,fd=0",
            "-mon",
            "chardev=qmp,mode=control",
        ]);
        if !self.boots {
            command.args(["-incoming", "defer"]);
        }
        command
    }
}

/// `BASE,NAME=PATH`, with the path's commas doubled as QEMU wants it.
fn option(base: &str, name: &str, path: &Path) -> OsString {
    format!(
        "{base},{name}={}",
        path.display().to_string().replace(',', ",,")
    )
    .into()
}

impl Qemu {
    /// Starts `command` on a thread that waits for its end: what `--pdeathsig` ties it to is the thread that
    /// started it.
    fn spawn(mut command: Command) -> Result<Self> {
        let (started, start) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        thread::spawn(move || match command.spawn() {
            Ok(mut child) => {
                drop(command); // with our copy of its end of QMP
                let _ = started.send(Ok((child.id(), child.stdout.take())));
                if let Ok(status) = child.wait() {
                    let _ = ending.send(status);
                }
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        });
        let (pid, console) = start.recv()?.context("start QEMU")?;
        Ok(Self {
            pid: Pid::from_raw(pid.cast_signed()),
            console,
            ended: Some(ended),
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs at the deadline, and is killed.
    pub(crate) fn wait(mut self, deadline: Instant) -> Result<ExitStatus> {
        let ended = self.ended.as_ref().context("QEMU was left alone")?;
        let status = ended
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .context("QEMU did not end in time")?;
        self.ended = None;
        Ok(status)
    }

    /// Lets it run on when this is dropped.
    pub(crate) fn leave(mut self) {
        self.ended = None;
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = ended.recv();
        }
    }
}

/// The port outside that leads to the agent.
///
/// # Errors
/// QEMU's list of forwarded ports has none.
pub(crate) fn agent_port(qmp: &mut Qmp) -> Result<u16> {
    let table = qmp.human("info usernet")?;
    table
        .lines()
        .filter(|line| line.contains("HOST_FORWARD"))
        // Protocol[State] FD source port destination port ...
        .find_map(|line| line.split_whitespace().nth(3)?.parse().ok())
        .with_context(|| format!("no forwarded port in QEMU's list: {table}"))
}
