//! Running test hosts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Command, Output};
use crate::qemu::{self, Machine, Qemu, Variant};
use crate::qmp::Qmp;
use crate::{cache, image, payload, state, watch};

/// A restore takes a second or two on an idle machine.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(120);

/// In the folder of a running host.
const RECORD: &str = "host.json";

/// How long a host lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// As long as its [`Host`], and never longer than this process, however that ends.
    OfProcess,
    /// Until [`Host::stop`]; [`Host::find`] finds it again by its name.
    UntilStopped,
}

/// Which host to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name; `None` for one of its own.
    pub name: Option<String>,
    /// A directory that it sees as `/opt/runq`. Copied: later changes do not show.
    pub payload: Option<PathBuf>,
    /// A qcow2 image that it sees as `/dev/vdc`, and writes. QEMU keeps the places of new data in its own memory until the
    /// host flushes them, so that a host that is killed loses what it did not flush.
    pub disk: Option<PathBuf>,
    /// The kind of host.
    pub variant: Variant,
    /// How long it lives.
    pub lifetime: Lifetime,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            payload: None,
            disk: None,
            variant: Variant::Docker,
            lifetime: Lifetime::OfProcess,
        }
    }
}

/// A running host.
pub struct Host {
    dir: PathBuf,
    record: Record,
    /// Present if it is ours to end.
    qemu: Option<Qemu>,
}

/// What is known about a running host, in its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    pid: i32,
    port: u16,
    variant: Variant,
    versions: Vec<(String, String)>,
}

impl Host {
    /// Restores a host from the saved state, which is made first if need be, and waits until its agent answers.
    ///
    /// # Errors
    /// A host of this name runs already; or it did not come up: the message names the log.
    pub fn start(options: &Options) -> Result<Self> {
        let state = state::get(options.variant)?;
        let dir = create_dir(options)?;
        Self::start_in(&dir, &state, options)
            .with_context(|| format!("start a test host (logs in {})", dir.display()))
    }

    fn start_in(dir: &Path, state: &Path, options: &Options) -> Result<Self> {
        let deadline = Instant::now() + RESTORE_TIMEOUT;
        let disk = dir.join("payload");
        payload::make(options.payload.as_deref(), &disk)?;
        let machine = Machine {
            variant: options.variant,
            image: state,
            initrd: &state.join(state::files::INITRD),
            memory: &state.join(state::files::MEMORY),
            disk: &state.join(state::files::DISK),
            payload: &disk,
            boots: false,
            dir,
            lifetime: options.lifetime,
        };
        let (qemu, mut qmp) = machine.start(deadline)?;
        state::set_capabilities(&mut qmp)?;
        let devices = state::uri("cat", &state.join(state::files::DEVICES));
        qmp.execute("migrate-incoming", json!({"uri": devices}))?;
        qmp.migrated()?;
        qmp.execute("cont", json!({}))?;
        let record = Record {
            pid: qemu.pid.as_raw(),
            port: qemu::agent_port(&mut qmp)?,
            variant: options.variant,
            versions: versions(state)?,
        };
        fs::write(dir.join(RECORD), serde_json::to_vec(&record)?)?;
        if let Some(disk) = &options.disk {
            plug(&mut qmp, disk)?;
        }
        greet(record.port, options, deadline)?;
        if options.lifetime == Lifetime::OfProcess {
            watch::end_when_stuck(qemu.pid, &dir.join("console.log"));
        }
        Ok(Self {
            dir: dir.to_owned(),
            record,
            qemu: Some(qemu),
        })
    }

    /// The running host `name`.
    ///
    /// # Errors
    /// None of this name runs.
    pub fn find(name: &str) -> Result<Self> {
        match load(&instances().join(name)) {
            Some(host) => Ok(host),
            None => bail!("no test host `{name}` is up: `testhost up --name {name}` starts one"),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// What it is made of, as names and versions.
    #[must_use]
    pub fn versions(&self) -> &[(String, String)] {
        &self.record.versions
    }

    /// The kind of host, and how it is reached: one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let Record {
            pid, port, variant, ..
        } = &self.record;
        format!(
            "{}: {variant:?}, process {pid}, agent at 127.0.0.1:{port}",
            self.name()
        )
    }

    /// Runs a command, its output to `stdout` and `stderr` as it comes. Returns its exit code, or 128 + the signal
    /// that ended it, when nothing holds its output open any more.
    ///
    /// # Errors
    /// The host is gone, the command could not be started, [`crate::client::TimedOut`], or the output could not be
    /// written.
    pub fn run(
        &self,
        command: Command,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<u8> {
        command.run(self.record.port, stdout, stderr)
    }

    /// Runs a command and collects its output.
    ///
    /// # Errors
    /// As for [`Host::run`].
    pub fn output(&self, command: Command) -> Result<Output> {
        command.output(self.record.port)
    }

    /// Lets it run on when this process ends; for [`Lifetime::UntilStopped`].
    pub fn leave(mut self) {
        if let Some(qemu) = self.qemu.take() {
            qemu.leave();
        }
    }

    /// The process that it is: to kill that is to it as a power cut.
    #[must_use]
    pub fn process(&self) -> Pid {
        Pid::from_raw(self.record.pid)
    }

    /// Ends it, and removes its folder.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn stop(mut self) -> Result<()> {
        match self.qemu.take() {
            Some(qemu) => drop(qemu),
            None => kill(self.process(), Signal::SIGKILL)
                .with_context(|| format!("kill process {}", self.process()))?,
        }
        cache::remove(&self.dir)
    }
}

impl Drop for Host {
    /// Ends it if it is ours: a host that was found stays.
    fn drop(&mut self) {
        if let Some(qemu) = self.qemu.take() {
            drop(qemu);
            let _ = cache::remove(&self.dir);
        }
    }
}

/// Adds a disk to a machine that runs.
fn plug(qmp: &mut Qmp, disk: &Path) -> Result<()> {
    let disk = disk
        .canonicalize()
        .with_context(|| disk.display().to_string())?;
    let node = json!({
        "driver": "qcow2",
        "node-name": "extra",
        "file": {"driver": "file", "filename": disk.to_string_lossy()},
    });
    qmp.execute("blockdev-add", node)?;
    let device = json!({"driver": "virtio-blk-pci", "id": "extra", "drive": "extra"});
    qmp.execute("device_add", device)?;
    Ok(())
}

/// The first command sets the clock, which still shows the time of the saving, mounts the payload, and waits for the disk,
/// whose driver runs beside it.
fn greet(port: u16, options: &Options, deadline: Instant) -> Result<()> {
    let mut script = String::from("set -e\n");
    if options.payload.is_some() {
        script += &format!(
            "mount -t ext4 -o ro,noload /dev/vdb {}\n",
            payload::MOUNT_POINT
        );
    }
    if options.disk.is_some() {
        script += "until [ -b /dev/vdc ]; do sleep 0.1; done\n";
    }
    let mut command = Command::shell(&script);
    command.set_clock = true;
    let left = deadline.saturating_duration_since(Instant::now());
    let output = command.timeout(Some(left)).output(port)?;
    ensure!(
        output.code == 0,
        "mount the payload: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// All running hosts.
///
/// # Errors
/// Their folder cannot be read.
pub fn list() -> Result<Vec<Host>> {
    let dirs = cache::entries(&instances(), "")?;
    Ok(dirs.iter().filter_map(|dir| load(dir)).collect())
}

/// The folder of this clone's hosts: `target/testhost`.
fn instances() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    // What is below appears in messages: without `tests/..`.
    target.canonicalize().unwrap_or(target).join("testhost")
}

/// The host in `dir`, if it runs.
fn load(dir: &Path) -> Option<Host> {
    let record: Record = serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()?;
    // The number may be another process's by now; only ours has this folder in its command line.
    let cmdline = fs::read(format!("/proc/{}/cmdline", record.pid)).ok()?;
    let payload = dir.join("payload");
    String::from_utf8_lossy(&cmdline)
        .contains(&*payload.to_string_lossy())
        .then(|| Host {
            dir: dir.to_owned(),
            record,
            qemu: None,
        })
}

/// A new folder for a host, after removing those of processes that ended without doing so.
fn create_dir(options: &Options) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let root = instances();
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    for old in cache::entries(&root, "run-")? {
        let name = old.file_name().unwrap_or_default().to_string_lossy();
        let owner = name.split('-').nth(1).unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            cache::remove(&old)?;
        }
    }
    let name = options.name.clone().unwrap_or_else(|| {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("run-{}-{count}", std::process::id())
    });
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "name `{name}`: use letters, digits, - and _"
    );
    let dir = root.join(&name);
    if load(&dir).is_some() {
        bail!("test host `{name}` is up already: `testhost down --name {name}` ends it");
    }
    cache::remove(&dir)?;
    fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// The image's versions.
fn versions(state: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(state.join(image::files::VERSIONS))?;
    let versions = text.lines().filter_map(|line| line.split_once(' '));
    Ok(versions
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect())
}
