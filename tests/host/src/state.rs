//! The saved host: booted once, stopped, and its devices and memory saved.
//!
//! The memory is a file that QEMU maps. While booting the mapping is shared, so that the file is the memory; hosts
//! restored from it map it privately, copy on write: a restore copies nothing, and hosts share what they only read.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::qemu::{Machine, Variant};
use crate::qmp::Qmp;
use crate::{Lifetime, cache, image, payload};

const BOOT: &str = include_str!("../scripts/boot.sh");
const INITTAB: &str = include_str!("../scripts/inittab");
const OVERLAY: &str = include_str!("../scripts/overlay.sh");

/// What a state is made from beside the image: the machine, its boot and the agent. Sources stand for programs, so that
/// the agent need not be built to know whether there is a state with it.
const SOURCES: [&str; 14] = [
    BOOT,
    INITTAB,
    OVERLAY,
    include_str!("payload.rs"),
    include_str!("qemu.rs"),
    include_str!("state.rs"),
    include_str!("../Cargo.toml"),
    include_str!("protocol.rs"),
    include_str!("winsize.rs"),
    include_str!("bin/hostagent/main.rs"),
    include_str!("bin/hostagent/serve.rs"),
    include_str!("bin/hostagent/start.rs"),
    include_str!("../../../guest-init/proto/Cargo.toml"),
    include_str!("../../../guest-init/proto/src/frame.rs"),
];

/// The agent's program.
const AGENT: &str = "hostagent";

/// An idle machine boots it in half a minute, two cores with ten other jobs in five.
const BOOT_TIMEOUT: Duration = Duration::from_secs(1200);

/// The names of the files in a state.
pub(crate) mod files {
    /// The image's initrd with our files.
    pub(crate) const INITRD: &str = "initrd";
    /// What the boot wrote to the disk, on top of the image's.
    pub(crate) const DISK: &str = "disk.qcow2";
    /// All memory.
    pub(crate) const MEMORY: &str = "memory";
    /// CPUs and devices.
    pub(crate) const DEVICES: &str = "devices";
}

/// What names the state of a variant.
#[must_use]
pub fn key(variant: Variant) -> String {
    let image = image::key();
    let mut inputs = vec![image.as_str(), variant.name()];
    inputs.extend(SOURCES);
    cache::key(&inputs)
}

/// The folder of the state, built if need be.
///
/// # Errors
/// The host did not boot: the message names the log.
pub fn get(variant: Variant) -> Result<PathBuf> {
    let key = key(variant);
    if let Some(found) = cache::find(variant.name(), &key)? {
        return Ok(found);
    }
    let image = image::get()?;
    cache::get(variant.name(), &key, |dir| build(variant, &image, dir))
}

fn build(variant: Variant, image: &Path, dir: &Path) -> Result<()> {
    eprintln!("testhost: booting the host, to save it ({variant:?})");
    link_image(image, dir)?;
    make_initrd(image, dir)?;
    let disk = dir.join(files::DISK);
    make_disk(&disk)?;
    let empty = dir.join("payload");
    payload::make(None, &empty)?;
    let deadline = Instant::now() + BOOT_TIMEOUT;
    let machine = Machine {
        variant,
        image: dir,
        initrd: &dir.join(files::INITRD),
        memory: &dir.join(files::MEMORY),
        disk: &disk,
        payload: &empty,
        boots: true,
        dir,
        lifetime: Lifetime::OfProcess,
    };
    let (mut qemu, mut qmp) = machine.start(deadline)?;
    let console = qemu.console.take().context("QEMU has no console")?;
    let log = dir.join("console.log");
    let lines = tee(console, File::create(&log)?);
    if let Err(error) = await_ready(&lines, deadline) {
        // The first is why the machine stopped, the second why QEMU did: a crash or a kill has only that.
        let reason = qmp.end_reason();
        let end = qemu.wait(deadline);
        let end = end.map_or_else(|error| error.to_string(), |status| status.to_string());
        // CI keeps no files: the console goes to its log.
        eprint!("{}", fs::read_to_string(&log).unwrap_or_default());
        let context = format!("QEMU: {end} {reason}; see {}", log.display());
        return Err(error.context(context));
    }
    save(&mut qmp, &dir.join(files::DEVICES))?;
    qemu.wait(deadline)?;
    fs::remove_file(empty)?;
    Ok(())
}

/// The image's initrd and our own files.
fn make_initrd(image: &Path, dir: &Path) -> Result<()> {
    let overlay = dir.join("overlay");
    for folder in ["usr/sbin", "etc"] {
        fs::create_dir_all(overlay.join(folder))?;
    }
    fs::copy(build_agent()?, overlay.join("usr/sbin").join(AGENT)).context("copy the agent")?;
    fs::write(overlay.join("usr/sbin/testhost-boot"), BOOT)?;
    fs::write(overlay.join("etc/inittab"), INITTAB)?;
    let [dir_arg, from, to] = [
        dir,
        &image.join(image::files::INITRD),
        &dir.join(files::INITRD),
    ]
    .map(|path| path.to_string_lossy().into_owned());
    image::script(dir, "overlay", OVERLAY, &[&dir_arg, &from, &to])?;
    Ok(fs::remove_dir_all(overlay)?)
}

/// Has cargo build the agent, so that it is what the key says, and finds it: beside this program, or beside the folder of
/// this test.
fn build_agent() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME")])
        .args(["--bin", AGENT])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "cargo could not build {AGENT}");
    let program = std::env::current_exe()?;
    let folders = program.ancestors().skip(1).take(2);
    let mut agents = folders.map(|folder| folder.join(AGENT));
    agents
        .find(|agent| agent.is_file())
        .with_context(|| format!("{AGENT}: not found beside {}", program.display()))
}

/// Links what hosts need of the image: built again, it may have other packages, which saved memory and devices do not
/// fit.
fn link_image(image: &Path, dir: &Path) -> Result<()> {
    let link = |name: &Path| {
        fs::hard_link(image.join(name), dir.join(name))
            .with_context(|| format!("link {}", name.display()))
    };
    for name in [
        image::files::KERNEL,
        image::files::DISK,
        image::files::VERSIONS,
    ] {
        link(name.as_ref())?;
    }
    let qemu = Path::new(image::files::QEMU);
    fs::create_dir(dir.join(qemu))?;
    for file in fs::read_dir(image.join(qemu))? {
        link(&qemu.join(file?.file_name()))?;
    }
    Ok(())
}

/// An overlay of the disk that is next to it: the whole folder may be moved.
fn make_disk(disk: &Path) -> Result<()> {
    let status = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(image::files::DISK)
        .arg(disk)
        .status()
        .context("start qemu-img (package qemu-utils)")?;
    ensure!(
        status.success(),
        "qemu-img could not create {}",
        disk.display()
    );
    Ok(())
}

/// Copies the console to its log, and gives its lines.
fn tee(console: ChildStdout, mut log: File) -> Receiver<String> {
    let (lines, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while let Ok(1..) = console.read_until(b'\n', &mut line) {
            let _ = log.write_all(&line);
            let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
    receiver
}

/// Waits for boot.sh's last word.
fn await_ready(lines: &Receiver<String>, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.contains("testhost: ready") => {
                eprintln!("{line}");
                return Ok(());
            }
            Ok(line) if line.contains("testhost: boot failed") => bail!("{line}"),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                bail!("the test host was not ready within {BOOT_TIMEOUT:?}")
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the test host ended while booting"),
        }
    }
}

/// Both sides of a saved state need the same capabilities. x-ignore-shared leaves out the memory: it is the file.
pub(crate) fn set_capabilities(qmp: &mut Qmp) -> Result<()> {
    let capabilities =
        ["events", "x-ignore-shared"].map(|name| json!({"capability": name, "state": true}));
    qmp.execute(
        "migrate-set-capabilities",
        json!({"capabilities": capabilities}),
    )?;
    Ok(())
}

/// A migration URI for a file: `exec` works with every QEMU, and the quotes with every path without one.
pub(crate) fn uri(command: &str, file: &Path) -> String {
    format!("exec:{command} '{}'", file.display())
}

fn save(qmp: &mut Qmp, devices: &Path) -> Result<()> {
    qmp.execute("stop", json!({}))?;
    set_capabilities(qmp)?;
    qmp.execute("migrate", json!({"uri": uri("cat >", devices)}))?;
    qmp.migrated()?;
    // An orderly end writes the disk's metadata.
    qmp.execute("quit", json!({}))?;
    Ok(())
}
