//! A virtual machine from its configuration to its end.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use arch::cmdline::Console;
use devices::dev::share::{self, Reminder};
use devices::dev::{DeviceSpec, net, rng};
use devices::device::Traits;
use devices::event_loop::{EventLoop, Stopper, add_device};
use devices::stream;
use proto::MacAddress;
use tracing::{debug, info};
use vm_memory::{GuestMemory, GuestMemoryRegion};

use crate::board::{Board, HostBoard};
use crate::command::terminal::{self, Raw};
use crate::command::{self, Progress};
use crate::config::Config;
use crate::descriptors;
use crate::device_loop::{DeviceLoop, DeviceThreads};
use crate::exit::Exit;
use crate::filters::{self, DeviceCalls};
use crate::heap;
use crate::hypervisor::{Kvm, VcpuFd};
use crate::immediate_exit;
use crate::kvm;
use crate::kvm_stats::KvmStats;
use crate::plug::{self, Plugs};
use crate::program::Program;
use crate::share::most_files;
use crate::stats::{ExitCounts, milestone};
use crate::vcpu::Vcpu;

/// A virtual machine that is ready to run.
pub struct Vm<B = HostBoard> {
    board: Arc<B>,
    event_loop: EventLoop,
    /// Those of busy devices, and what becomes of them, by slot.
    device_loops: Vec<(u8, DeviceLoop)>,
    device_threads: DeviceThreads,
    vcpus: Vec<VcpuFd>,
    device_calls: DeviceCalls,
    progress: Arc<Mutex<Progress>>,
    config: Config,
}

/// How a virtual machine ended, and what it cost.
#[derive(Debug)]
pub struct Ended {
    /// Who ran it.
    pub program: &'static Program,
    /// Why the guest runs no more.
    pub exit: Exit,
    /// Whether it was to run a command.
    pub has_command: bool,
    /// How that went.
    pub progress: Progress,
    /// Exits that reached the monitor.
    pub exits: ExitCounts,
    /// KVM's counters, where the host has them.
    pub kvm: BTreeMap<String, u64>,
    /// Where guest memory is in this process.
    pub guest_memory: Vec<Range<u64>>,
}

type VcpuThread = JoinHandle<(Result<Exit>, ExitCounts)>;

impl Vm {
    /// Builds a machine for Linux with this host's KVM. Nothing of the guest runs yet; the threads
    /// of its shares, which are confined, wait for it. To be called before any other thread is
    /// started, as these take the signals.
    ///
    /// # Errors
    /// One chain of causes that names the object and what was attempted.
    pub fn new(config: Config) -> Result<Self> {
        let kvm = kvm::open()?;
        kvm::check_runs_linux()?;
        Self::on(&kvm, config)
    }
}

impl<B: Board> Vm<B> {
    /// As [`Vm::new`], for any guest and any KVM.
    ///
    /// # Errors
    /// One chain of causes that names the object and what was attempted.
    pub fn on(kvm: &Kvm, mut config: Config) -> Result<Self> {
        heap::share();
        let mut event_loop = EventLoop::new().map_err(|e| anyhow!("event loop: {e:?}"))?;
        let reminder = bound_files(&mut config).context("eventfd")?;
        let (mut control, console) = command::connect(&config, event_loop.stopper())?;
        let progress = control.progress();
        share::raise_open_files_limit().context("limit of open files")?;
        descriptors::make_room();
        check_size(kvm, &config)?;
        add_own_devices(&mut config, console);

        let mut board = B::new(kvm, config.cpus, config.memory, &config.cpu_features()?)?;
        let boot = config.boot()?;
        let attached = attach(&mut board, &mut event_loop, &mut config)?;
        board.serve(&mut event_loop);
        board.load(&boot)?;
        let vcpus = (0..config.cpus)
            .map(|index| board.vcpu(index).with_context(|| format!("vcpu {index}")))
            .collect::<Result<_>>()?;
        let (board, device_threads) = (Arc::new(board), DeviceThreads::default());
        if let Some(socket) = config.plugs.take() {
            let (bus, threads) = (Arc::clone(&board), device_threads.clone());
            let interfaces = attached.interfaces;
            control.set_plugs(Plugs::new(
                socket,
                bus,
                threads,
                interfaces,
                event_loop.stopper(),
            ));
        }
        control.set_reminder(reminder);
        event_loop.add_subscriber(control);
        milestone("machine built");
        Ok(Self {
            board,
            event_loop,
            device_loops: attached.loops,
            device_threads,
            vcpus,
            device_calls: attached.calls,
            progress,
            config,
        })
    }

    /// A handle that ends [`Self::run`], from any thread.
    pub fn stopper(&self) -> Stopper {
        self.event_loop.stopper()
    }

    /// Leaves the calling thread, which is to run this VM and nothing else, only the system calls
    /// that this takes.
    ///
    /// # Errors
    /// When the kernel has no filters.
    pub fn restrict_thread(&self) -> Result<()> {
        filters::restrict_main_thread(&self.device_calls)
    }

    /// Runs the guest until it ends, or a stopper is used. Devices are served on the calling thread;
    /// each vCPU has a thread of its own. Returns when all output is handed on.
    ///
    /// # Errors
    /// When the host fails the guest.
    pub fn run(mut self) -> Result<Ended> {
        let _raw = if self.config.has_stdin() {
            Raw::enter().context("terminal")?
        } else {
            None
        };
        immediate_exit::install_handler().context("signal handler of the vCPUs")?;
        let counters: Vec<_> = self
            .vcpus
            .iter()
            .filter_map(|vcpu| KvmStats::of(vcpu).ok())
            .collect();
        let (exit, exits) = self.run_threads()?;
        info!("{exit}");
        self.event_loop
            .drain()
            .map_err(|e| anyhow!("event loop: {e:?}"))?;
        milestone("machine ended");

        let mut kvm = BTreeMap::new();
        for counter in counters {
            counter.add_to(&mut kvm).context("KVM's statistics")?;
        }
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Ended {
            program: self.config.program,
            exit,
            has_command: self.config.command.is_some(),
            progress: progress.clone(),
            exits,
            kvm,
            guest_memory: host_ranges(&*self.board),
        })
    }

    /// Runs the vCPUs and serves the devices; those with threads of their own until all is handed on.
    fn run_threads(&mut self) -> Result<(Exit, ExitCounts)> {
        for (slot, device_loop) in self.device_loops.drain(..) {
            self.device_threads
                .start(slot, device_loop, self.event_loop.stopper())
                .context("a device's thread")?;
        }
        let ended = self.run_vcpus();
        self.device_threads.finish_all()?;
        ended
    }

    /// Serves the event loop while the vCPUs run.
    fn run_vcpus(&mut self) -> Result<(Exit, ExitCounts)> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(self.vcpus.len());
        for (index, fd) in (0..).zip(self.vcpus.drain(..)) {
            let vcpu = Vcpu {
                index,
                fd,
                board: Arc::clone(&self.board),
                stop: Arc::clone(&stop),
                trace: self.config.trace,
            };
            threads.push(spawn(vcpu, self.event_loop.stopper()).context("vCPU thread")?);
        }
        let served = self.event_loop.run();
        stop.store(true, Ordering::SeqCst);
        for thread in &threads {
            immediate_exit::interrupt(thread).context("interrupt a vCPU")?;
        }
        let end = join(threads)?;
        served.map_err(|e| anyhow!("event loop: {e:?}"))?;
        Ok(end)
    }
}

/// Has the guest know no more files of its shares than fit its memory, and reminds it before there are so many.
fn bound_files(config: &mut Config) -> io::Result<Arc<Reminder>> {
    let reminder = Arc::new(Reminder::new()?);
    let most_files = most_files(config.memory);
    for share in config.devices.iter_mut().filter_map(DeviceSpec::share_mut) {
        share.most_files = most_files;
        share.reminder = Some(Arc::clone(&reminder));
    }
    Ok(reminder)
}

/// The devices that the guest has unasked.
fn add_own_devices(config: &mut Config, console: Option<DeviceSpec>) {
    config.devices.extend(console);
    if config.has_bus() {
        // With others only: for this one alone the guest would search a bus, 400 exits.
        config.devices.push(DeviceSpec::Rng(rng::Config::default()));
    }
}

/// What is known of the devices that are plugged in.
#[derive(Default)]
struct Attached {
    /// The loops of those that have one for themselves, by slot.
    loops: Vec<(u8, DeviceLoop)>,
    /// The slots of the network interfaces.
    interfaces: BTreeMap<MacAddress, u8>,
    /// What all of them ask of the kernel.
    calls: DeviceCalls,
}

/// Plugs in the devices, which it takes out of `config`. Each network interface that may be unplugged
/// has a loop for itself, which ends with it.
fn attach<B: Board>(
    board: &mut B,
    event_loop: &mut EventLoop,
    config: &mut Config,
) -> Result<Attached> {
    let mut attached = Attached::default();
    let calls = &mut attached.calls;
    let pluggable = config.plugs.is_some();
    if pluggable {
        calls.calls.extend(plug::SYSTEM_CALLS);
        calls.add(&net::KIND);
    }
    if config.console == Console::Serial {
        calls.calls.extend(stream::SYSTEM_CALLS);
        board
            .attach_console(command::kernel_console(config)?, event_loop)
            .context("console")?;
    }
    if let Some(matrix) = &config.crypto {
        board.attach_crypto(matrix)?;
    }
    for spec in config.devices.drain(..) {
        let mac = match &spec {
            DeviceSpec::Net(interface) => Some(MacAddress(interface.mac)),
            _ => None,
        };
        let device = spec.build()?;
        let Traits { kind, own_loop, .. } = device.traits();
        calls.add(kind);
        let (own, handle) = if own_loop || pluggable && mac.is_some() {
            let (own, handle) = DeviceLoop::new(device)?;
            (Some(own), handle)
        } else {
            (None, add_device(event_loop, device).context("eventfd")?)
        };
        let slot = board
            .attach(handle)
            .with_context(|| format!("virtio {kind}"))?;
        attached.loops.extend(own.map(|own| (slot, own)));
        attached.interfaces.extend(mac.map(|mac| (mac, slot)));
    }
    Ok(attached)
}

/// More vCPUs than KVM takes are refused; memory that the host does not have could never be used up,
/// but the guest would be killed on the way.
fn check_size(kvm: &Kvm, config: &Config) -> Result<()> {
    let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
    let (cpus, most) = (config.cpus, number(kvm.get_max_vcpus()));
    if cpus > most {
        bail!("{cpus} vCPUs: this host's KVM gives a machine {most} at most");
    }
    // More of them than the host has processors wait for one another.
    let recommended = number(kvm.get_nr_vcpus());
    if cpus > recommended {
        debug!("{cpus} vCPUs: this host's KVM recommends {recommended} at most");
    }
    let host = nix::sys::sysinfo::sysinfo()
        .context("memory of the host")?
        .ram_total();
    if config.memory > host {
        bail!(
            "{} MiB of guest memory: this host has {} MiB",
            config.memory >> 20,
            host >> 20
        );
    }
    Ok(())
}

fn spawn<B: Board>(vcpu: Vcpu<B>, stopper: Stopper) -> io::Result<VcpuThread> {
    thread::Builder::new()
        .name(format!("vcpu{}", vcpu.index))
        .spawn(move || {
            terminal::allow_restore();
            let mut counts = ExitCounts::default();
            let result = filters::restrict_vcpu_thread().and_then(|()| vcpu.run(&mut counts));
            stopper.stop();
            (result, counts)
        })
}

/// The end that the guest itself came to, if any vCPU did, else that we stopped them all.
fn join(threads: Vec<VcpuThread>) -> Result<(Exit, ExitCounts)> {
    let mut sum = ExitCounts::default();
    let mut end = Ok(Exit::Stopped);
    for thread in threads {
        let (result, counts) = thread
            .join()
            .map_err(|_| anyhow!("a vCPU thread panicked: this is a bug"))?;
        sum.add(&counts);
        if matches!(end, Ok(Exit::Stopped)) {
            end = result;
        }
    }
    Ok((end?, sum))
}

fn host_ranges<B: Board>(board: &B) -> Vec<Range<u64>> {
    let range = |start: u64, length: u64| start..start + length;
    board
        .memory()
        .iter()
        .map(|region| range(region.as_ptr() as u64, region.len()))
        .collect()
}
