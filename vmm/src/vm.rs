//! A virtual machine from its configuration to its end.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use arch::CpuFeatures;
use devices::dev::DeviceSpec;
use devices::dev::console::Streams;
use devices::event_loop::{EventLoop, add_device};
use devices::seccomp::{ANY_THREAD, Allowed};
use kvm_ioctls::{Kvm, VcpuFd};
use tracing::{debug, info};
use vm_memory::{GuestMemory, GuestMemoryRegion};

use crate::board::{Board, Boot, HostBoard};
use crate::exit::Exit;
use crate::kick;
use crate::kvm_stats::KvmStats;
use crate::stats::ExitCounts;
use crate::vcpu::Vcpu;

/// What a virtual machine is made of.
pub struct Config {
    /// Number of vCPUs.
    pub cpus: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Switches on top of the host's processor features.
    pub features: CpuFeatures,
    /// Kernel, initrd, command line.
    pub boot: Boot,
    /// The machine's simple console, if it shall have one.
    pub console: Option<Streams>,
    /// Virtio devices, in the order of their slots.
    pub devices: Vec<DeviceSpec>,
    /// Print each exit to stderr.
    pub trace: bool,
}

/// A virtual machine that is ready to run.
pub struct Vm<B = HostBoard> {
    board: Arc<B>,
    event_loop: EventLoop,
    vcpus: Vec<VcpuFd>,
    trace: bool,
}

/// How a virtual machine ended, and what it cost.
#[derive(Debug)]
pub struct Ended {
    /// Why the guest runs no more.
    pub exit: Exit,
    /// Exits that reached the monitor.
    pub exits: ExitCounts,
    /// KVM's counters, where the host has them.
    pub kvm: BTreeMap<String, u64>,
    /// Where guest memory is in this process.
    pub guest_memory: Vec<Range<u64>>,
}

type VcpuThread = JoinHandle<(Result<Exit>, ExitCounts)>;

impl<B: Board> Vm<B> {
    /// Builds the machine: memory, board, devices, kernel, vCPUs. Nothing runs yet. The devices go
    /// to `event_loop`, which may have subscribers of the caller's already.
    ///
    /// # Errors
    /// One chain of causes that names the object and what was attempted.
    pub fn new(kvm: &Kvm, config: Config, mut event_loop: EventLoop) -> Result<Self> {
        let most = u32::try_from(kvm.get_nr_vcpus()).unwrap_or(u32::MAX);
        if config.cpus > most {
            bail!(
                "{} vCPUs: this host's KVM recommends {most} at most",
                config.cpus
            );
        }
        check_memory(config.memory)?;
        let mut board = B::new(kvm, config.cpus, config.memory, &config.features)?;
        if let Some(streams) = config.console {
            board
                .attach_console(streams, &mut event_loop)
                .context("console")?;
        }
        for spec in config.devices {
            let device = add_device(&mut event_loop, spec.build()?).context("eventfd")?;
            let kind = device.traits().kind;
            board
                .attach(device)
                .with_context(|| format!("virtio {kind}"))?;
        }
        board.load(&config.boot)?;
        let vcpus = (0..config.cpus)
            .map(|index| board.vcpu(index).with_context(|| format!("vcpu {index}")))
            .collect::<Result<_>>()?;
        debug!(
            cpus = config.cpus,
            mib = config.memory >> 20,
            "machine built"
        );
        Ok(Self {
            board: Arc::new(board),
            event_loop,
            vcpus,
            trace: config.trace,
        })
    }

    /// Runs the guest until it ends, or the event loop's stopper is used. Devices are served on the
    /// calling thread; each vCPU has a thread of its own. Returns when all output is handed on.
    ///
    /// # Errors
    /// When the host fails the guest.
    pub fn run(self) -> Result<Ended> {
        let Self {
            board,
            mut event_loop,
            vcpus,
            trace,
        } = self;
        kick::install_handler().context("signal handler of the vCPU kick")?;
        let counters: Vec<_> = vcpus
            .iter()
            .filter_map(|vcpu| KvmStats::of(vcpu).ok())
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(vcpus.len());
        for (index, fd) in (0..).zip(vcpus) {
            let vcpu = Vcpu {
                index,
                fd,
                board: Arc::clone(&board),
                stop: Arc::clone(&stop),
                trace,
            };
            threads.push(spawn(vcpu, &event_loop).context("vCPU thread")?);
        }
        let served = event_loop.run();

        stop.store(true, Ordering::SeqCst);
        for thread in &threads {
            kick::kick(thread).context("kick of a vCPU")?;
        }
        let (exit, exits) = join(threads)?;
        info!("{exit}");
        served.map_err(|e| anyhow!("event loop: {e:?}"))?;
        event_loop
            .drain()
            .map_err(|e| anyhow!("event loop: {e:?}"))?;

        let mut kvm = BTreeMap::new();
        for counter in counters {
            counter.add_to(&mut kvm).context("KVM's statistics")?;
        }
        Ok(Ended {
            exit,
            exits,
            kvm,
            guest_memory: host_ranges(&*board),
        })
    }
}

/// Memory that the host does not have could never be used up, but the guest would be killed on
/// the way.
fn check_memory(bytes: u64) -> Result<()> {
    let host = nix::sys::sysinfo::sysinfo()
        .context("memory of the host")?
        .ram_total();
    if bytes > host {
        bail!(
            "{} MiB of guest memory: this host has {} MiB",
            bytes >> 20,
            host >> 20
        );
    }
    Ok(())
}

fn spawn<B: Board>(vcpu: Vcpu<B>, event_loop: &EventLoop) -> io::Result<VcpuThread> {
    let stopper = event_loop.stopper();
    thread::Builder::new()
        .name(format!("vcpu{}", vcpu.index))
        .spawn(move || {
            let mut counts = ExitCounts::default();
            let result = restrict_vcpu_thread().and_then(|()| vcpu.run(&mut counts));
            stopper.stop();
            (result, counts)
        })
}

/// A vCPU thread runs the guest, decodes registers, makes and binds the eventfds of queues and
/// interrupts, and wakes others.
fn restrict_vcpu_thread() -> Result<()> {
    Allowed::calls(ANY_THREAD.into_iter().chain([libc::SYS_eventfd2]))
        .with_kvm(&[])
        .and_then(Allowed::restrict_thread)
        .context("system call filter of a vCPU thread")
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
