//! From the options of the command line to a machine that is ready to run.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use arch::CpuFeatures;
use arch::cmdline::{CommandLine, Console};
use devices::dev::console::{ConsoleHandle, NamedPort, Streams};
use devices::dev::{DeviceSpec, fs, rng};
use devices::event_loop::EventLoop;
use vmm::board::Boot;
use vmm::control::{Control, Progress};
use vmm::kvm;
use vmm::session::Session;
use vmm::signals::{Forwarded, Signals};
use vmm::stdio;
use vmm::vm::{Config, Vm};

use super::options::{ConsoleKind, Options, ROOT_TAG};

/// Where an installed runq keeps what its guests boot.
const INSTALLED_KERNEL: &str = "/var/lib/runq/vm/kernel";
const INSTALLED_INITRD: &str = "/var/lib/runq/vm/initrd";
const DEFAULT_MEMORY: u64 = 256 << 20;

impl Options {
    /// Where the kernel's messages go.
    fn console(&self) -> ConsoleKind {
        match self.console {
            Some(kind) => kind,
            None if self.runs_command() => ConsoleKind::None,
            None => ConsoleKind::Serial,
        }
    }

    /// Whether the guest has virtio devices, which are on the PCI bus.
    fn has_bus(&self) -> bool {
        let shares = self.rootfs.is_some() || !self.shares.is_empty();
        shares || self.runs_command() || self.console() == ConsoleKind::Virtio
    }

    /// The whole kernel command line.
    ///
    /// # Errors
    /// When it is too long, or not plain text.
    pub(super) fn kernel_command_line(&self) -> Result<CommandLine> {
        let base = match self.console() {
            ConsoleKind::Serial => Console::Serial,
            ConsoleKind::Virtio => Console::Virtio,
            ConsoleKind::None => Console::None,
        };
        // Else Linux on a processor of AMD's looks for host bridges, 230 exits.
        let no_bus = (!self.has_bus()).then_some("pci=off");
        let parts = [base.parameters()].into_iter().chain(no_bus);
        let line = parts
            .chain(self.cmdline.as_deref())
            .collect::<Vec<_>>()
            .join(" ");
        CommandLine::new(&line).context("--cmdline")
    }

    fn boot(&self) -> Result<Boot> {
        let installed = self.runs_command().then(|| PathBuf::from(INSTALLED_INITRD));
        Ok(Boot {
            kernel: self
                .kernel
                .clone()
                .unwrap_or_else(|| INSTALLED_KERNEL.into()),
            initrd: self.initrd.clone().or(installed),
            cmdline: self.kernel_command_line()?,
        })
    }

    /// The switches of --cpu.
    ///
    /// # Errors
    /// Names the feature that is not known.
    pub(super) fn features(&self) -> Result<CpuFeatures> {
        let text = self.cpu.as_deref().unwrap_or("host");
        CpuFeatures::parse(text).map_err(|e| anyhow!("--cpu {text}: {e}"))
    }
}

/// Builds the machine. How the command is doing can be seen in what comes back with it.
pub(super) fn build(options: &Options, begun: Instant) -> Result<(Vm, Arc<Mutex<Progress>>)> {
    let signals = Signals::take(Forwarded::Usual).context("signals")?;
    fs::raise_open_files_limit().context("limit of open files")?;
    let kvm = kvm::open()?;
    kvm::check_runs_linux()?;
    let mut event_loop = EventLoop::new().map_err(|e| anyhow!("event loop: {e:?}"))?;

    let (session, ports) = match options.start() {
        None => (None, Vec::new()),
        Some(start) => {
            let terminal = start.process.terminal.is_some();
            let (session, control) = Session::new(start, begun).context("control port")?;
            (Some(session), stdio::command_ports(control, terminal)?)
        }
    };
    let (console, size) = virtio_console(options, ports)?.unzip();
    let mut devices = shares(options);
    devices.extend(console);
    // With the others only: for this one alone the guest would search a bus, 400 exits.
    if options.has_bus() {
        devices.push(DeviceSpec::Rng(rng::Config::default()));
    }
    let simple = simple_console(options)?;

    let stopper = event_loop.stopper();
    let (control, progress) = Control::new(session, signals, size, stopper);
    event_loop.add_subscriber(control);
    let config = Config {
        cpus: options.cpus.unwrap_or(1),
        memory: options.mem.map_or(DEFAULT_MEMORY, |size| size.0),
        features: options.features()?,
        boot: options.boot()?,
        console: simple,
        devices,
        trace: options.trace,
    };
    Ok((Vm::new(&kvm, config, event_loop)?, progress))
}

/// The console device, if it has any use.
fn virtio_console(
    options: &Options,
    ports: Vec<NamedPort>,
) -> Result<Option<(DeviceSpec, ConsoleHandle)>> {
    let console = match options.console() {
        ConsoleKind::Virtio => console_streams(options)?,
        ConsoleKind::Serial | ConsoleKind::None if ports.is_empty() => return Ok(None),
        ConsoleKind::Serial | ConsoleKind::None => Streams::default(),
    };
    stdio::console(console, ports).map(Some)
}

fn simple_console(options: &Options) -> Result<Option<Streams>> {
    if options.console() != ConsoleKind::Serial {
        return Ok(None);
    }
    console_streams(options).map(Some)
}

/// The kernel's console is ours, unless a command has stdin and stdout.
fn console_streams(options: &Options) -> Result<Streams> {
    Ok(match options.runs_command() {
        false => Streams {
            input: Some(stdio::stdin()?),
            output: Some(stdio::stdout()?),
        },
        true => Streams {
            input: None,
            output: Some(stdio::stderr()?),
        },
    })
}

fn shares(options: &Options) -> Vec<DeviceSpec> {
    let root = options
        .rootfs
        .iter()
        .map(|directory| (ROOT_TAG, directory, false));
    let more = options
        .shares
        .iter()
        .map(|s| (s.tag.as_str(), &s.directory, s.read_only));
    root.chain(more)
        .map(|(tag, directory, read_only)| {
            DeviceSpec::Fs(fs::Config {
                tag: tag.to_owned(),
                directory: directory.clone(),
                read_only,
            })
        })
        .collect()
}
