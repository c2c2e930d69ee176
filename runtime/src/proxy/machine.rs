//! From a [`VmSpec`] to a machine that is ready to run.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use arch::CpuFeatures;
use arch::cmdline::{CommandLine, Console};
use devices::dev::console::{ConsoleHandle, Streams};
use devices::dev::{DeviceSpec, fs, rng};
use devices::event_loop::EventLoop;
use proto::WindowSize;
use runtime::vmspec::{self, VmSpec};
use tracing::{Level, enabled};
use vmm::board::Boot;
use vmm::control::{Control, Progress};
use vmm::session::Session;
use vmm::signals::{Forwarded, Signals};
use vmm::vm::{Config, Vm};
use vmm::{kvm, stdio, terminal};

/// What guests boot: files of the vm volume, which is our root.
const KERNEL: &str = "/kernel";
const INITRD: &str = "/initrd";

/// Builds the machine. How the container's process is doing can be seen in what comes back with it.
pub(crate) fn build(mut spec: VmSpec, begun: Instant) -> Result<(Vm, Arc<Mutex<Progress>>)> {
    let signals = signals(spec.systemd)?;
    fs::raise_open_files_limit().context("limit of open files")?;
    let kvm = kvm::open()?;
    kvm::check_runs_linux()?;
    let mut event_loop = EventLoop::new().map_err(|e| anyhow!("event loop: {e:?}"))?;

    let debug = enabled!(Level::DEBUG);
    fit_terminal(&mut spec);
    let (session, devices, size) = devices(&spec, begun)?;
    let stopper = event_loop.stopper();
    let (control, progress) = Control::new(Some(session), signals, Some(size), stopper);
    event_loop.add_subscriber(control);
    let config = Config {
        cpus: spec.cpus,
        memory: spec.memory_mib << 20,
        features: features(&spec)?,
        boot: boot(debug)?,
        console: console(debug)?,
        devices,
        trace: false,
    };
    Ok((Vm::new(&kvm, config, event_loop)?, progress))
}

/// Every signal is the container's. systemd as its first process powers off on another signal than
/// the one that `docker stop` sends (systemd(1), SIGRTMIN+4).
fn signals(systemd: bool) -> Result<Signals> {
    let signals = Signals::take(Forwarded::All).context("signals")?;
    Ok(match systemd {
        true => signals.replace(libc::SIGTERM, libc::SIGRTMIN() + 4),
        false => signals,
    })
}

/// The size that the container's terminal has by now counts, not the one in the configuration.
fn fit_terminal(spec: &mut VmSpec) {
    let size = &mut spec.start.process.terminal;
    if let (Some(size), Some((rows, cols))) = (size, terminal::size(io::stdin())) {
        *size = WindowSize { rows, cols };
    }
}

fn devices(spec: &VmSpec, begun: Instant) -> Result<(Session, Vec<DeviceSpec>, ConsoleHandle)> {
    let start = &spec.start;
    let (session, control) = Session::new(start.clone(), begun).context("control port")?;
    let ports = stdio::command_ports(control, start.process.terminal.is_some())?;
    let (console, size) = stdio::console(Streams::default(), ports)?;
    let files = fs::Config {
        tag: start.root.file_system.source.clone(),
        directory: PathBuf::from(vmspec::SHARE),
        read_only: false,
    };
    let random = rng::Config::default();
    let devices = vec![DeviceSpec::Fs(files), console, DeviceSpec::Rng(random)];
    Ok((session, devices, size))
}

fn features(spec: &VmSpec) -> Result<CpuFeatures> {
    let text = &spec.cpu_features;
    CpuFeatures::parse(text).map_err(|e| anyhow!("--cpuargs {text}: {e}"))
}

fn boot(debug: bool) -> Result<Boot> {
    let console = if debug {
        Console::Serial
    } else {
        Console::None
    };
    Ok(Boot {
        kernel: KERNEL.into(),
        initrd: Some(INITRD.into()),
        cmdline: CommandLine::new(console.parameters()).context("kernel command line")?,
    })
}

/// The kernel's messages are part of the story that the log tells.
fn console(debug: bool) -> Result<Option<Streams>> {
    Ok(match debug {
        true => Some(Streams {
            input: None,
            output: Some(stdio::stderr()?),
        }),
        false => None,
    })
}
