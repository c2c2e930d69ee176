//! A mainframe without firmware: a service call with a console, and a channel subsystem. Chapters are those of the
//! Principles of Operation (SA22-7832).

pub(crate) mod exits;
mod fabric;
mod instructions;
mod io;
pub(crate) mod kvm;
mod processors;
mod sclp;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use arch::kernel::Entry;
use arch::{CpuFeatures, Machine, layout};
use devices::Memory;
use devices::css::{ChannelSubsystem, SignalSubscriber};
use devices::dev::console::Streams;
use devices::event_loop::{DeviceHandle, EventLoop};
use devices::fabric::Fabric;
use devices::legacy::LineSubscriber;
use devices::transport::ccw::VirtioCcw;

use super::{Board, Boot, Bus};
use crate::ap::{self, Matrix};
use crate::exit::Exit;
use crate::hypervisor::{Cap, Cpu, Intercept, Kvm, VcpuExit, VcpuFd, VmFd};
use crate::memory;
use fabric::KvmFabric;
use processors::Processors;
use sclp::Sclp;

/// The s390x machine.
pub struct Mainframe {
    vm: Arc<VmFd>,
    memory: Arc<Memory>,
    fabric: Arc<KvmFabric>,
    css: Arc<ChannelSubsystem>,
    sclp: Arc<Mutex<Sclp>>,
    machine: Machine,
    processors: Processors,
    entry: Option<Entry>,
    /// The guest has them as long as this is here.
    crypto: Option<ap::Attached>,
}

/// Why the guest is intercepted (Linux, arch/s390/include/asm/kvm_host.h, `ICPT_*`).
mod interception {
    pub(super) const INSTRUCTION: u8 = 0x04;
    pub(super) const PROGRAM_LOOP: u8 = 0x08;
    pub(super) const EXTERNAL_LOOP: u8 = 0x14;
    pub(super) const WAIT: u8 = 0x1c;
    pub(super) const STOP: u8 = 0x28;
}

impl Board for Mainframe {
    fn new(kvm: &Kvm, cpus: u32, memory: u64, _: &CpuFeatures) -> Result<Self> {
        let vm = Arc::new(kvm.create_vm().context("KVM_CREATE_VM")?);
        vm.enable_cap(Cap::S390UserSigp)
            .context("signals between vCPUs")?;
        for cap in [Cap::S390VectorRegisters, Cap::S390Gs] {
            if kvm.check_extension(cap) {
                vm.enable_cap(cap).with_context(|| format!("{cap:?}"))?;
            }
        }
        vm.enable_cap(Cap::S390Irqchip)
            .and_then(|()| vm.create_irq_chip())
            .context("interrupts of adapters")?;
        vm.register_adapters(fabric::adapters())
            .context("KVM's floating interrupt controller")?;
        let machine = Machine { cpus, memory };
        let mib = memory >> 20;
        let memory = memory::allocate(&layout::ram_ranges(memory))
            .with_context(|| format!("{mib} MiB of guest memory"))?;
        memory::register(&vm, &memory).context("guest memory in KVM")?;
        if !kvm.check_extension(Cap::S390Cow) {
            // The guest would be told of what this host's kernel does with write-protected pages, as the one of zeros.
            memory::populate(&memory)
                .with_context(|| format!("{mib} MiB of guest memory at once"))?;
        }
        let memory = Arc::new(memory);
        let interrupts = Box::new(io::Interrupts(Arc::clone(&vm)));
        let css = ChannelSubsystem::new(Arc::clone(&memory), interrupts);
        Ok(Self {
            css: Arc::new(css.context("channel subsystem")?),
            fabric: Arc::new(KvmFabric::new(Arc::clone(&vm))),
            sclp: Arc::new(Mutex::new(Sclp::new(Arc::clone(&vm)).context("console")?)),
            vm,
            memory,
            machine,
            processors: Processors::new(cpus, machine.memory),
            entry: None,
            crypto: None,
        })
    }

    fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn attach_console(&mut self, streams: Streams, event_loop: &mut EventLoop) -> Result<()> {
        self.sclp().hear();
        let Streams { input, output } = streams;
        event_loop.add_subscriber(LineSubscriber::new(self.sclp.clone(), input, output));
        Ok(())
    }

    fn attach_crypto(&mut self, matrix: &Matrix) -> Result<()> {
        self.crypto = Some(ap::attach(self.vm.file(), &self.memory, matrix)?);
        Ok(())
    }

    fn serve(&self, event_loop: &mut EventLoop) {
        event_loop.add_subscriber(SignalSubscriber::new(Arc::clone(&self.css)));
    }

    fn load(&mut self, boot: &Boot) -> Result<()> {
        self.entry = Some(super::images::load(&self.memory, boot, &self.machine)?);
        Ok(())
    }

    fn vcpu(&self, index: u32) -> Result<VcpuFd> {
        let mut vcpu = self
            .vm
            .create_vcpu(index.into())
            .context("KVM_CREATE_VCPU")?;
        vcpu.enable_cap(Cap::S390CssSupport)
            .context("channel I/O")?;
        let processor = vcpu.processor();
        processor
            .initial_reset()
            .context("KVM_S390_INITIAL_RESET")?;
        self.processors.add(index, processor.clone())?;
        if index == 0 {
            let entry = self.entry.context("no kernel is loaded")?;
            vcpu.set_psw(arch::regs::entry(entry));
            self.processors.start(index)?;
        }
        Ok(vcpu)
    }

    fn may_run(&self, index: u32, stop: &AtomicBool) -> bool {
        self.processors.may_run(index, stop)
    }

    fn where_is(vcpu: &VcpuFd) -> String {
        format!("guest instruction {:#x}", vcpu.psw().address)
    }

    fn run(&self, exit: VcpuExit<'_>) -> Result<Option<Exit>> {
        match exit {
            VcpuExit::S390Sieic(mut cpu, intercept) => self.intercepted(&mut cpu, intercept),
            VcpuExit::S390Tsch(mut cpu, test) => {
                let done = self.test_subchannel(&cpu, test)?;
                instructions::finish(&mut cpu, done)
            }
            VcpuExit::S390Reset => Ok(Some(Exit::Reset)),
            other => bail!("the guest's processor stopped for {other:?}, which no mainframe does"),
        }
    }
}

impl Bus for Mainframe {
    fn attach(&self, device: DeviceHandle) -> Result<u8> {
        let fabric: Arc<dyn Fabric> = self.fabric.clone();
        let place = self.css.free_place()?;
        let device = VirtioCcw::new(device, Arc::clone(&self.memory), fabric, place)?;
        Ok(self.css.add(Box::new(device))?)
    }

    fn detach(&self, slot: u8) {
        self.css.remove(slot);
    }
}

impl Mainframe {
    fn intercepted(&self, cpu: &mut Cpu<'_>, intercept: Intercept) -> Result<Option<Exit>> {
        let Intercept { code, ipa, ipb } = intercept;
        match code {
            interception::INSTRUCTION => self.execute(cpu, ipa, ipb),
            // Whoever waits for nothing has panicked; and who interrupts its program without end, for its lowcore is
            // overwritten, cannot even do that.
            interception::WAIT | interception::PROGRAM_LOOP | interception::EXTERNAL_LOOP => {
                Ok(Some(Exit::Panic))
            }
            interception::STOP => {
                let last = self.processors.stopped(cpu.id)?;
                Ok(last.then_some(Exit::PowerOff))
            }
            _ => bail!("{cpu:?} was intercepted for {code:#x}, which no mainframe does"),
        }
    }

    fn sclp(&self) -> MutexGuard<'_, Sclp> {
        self.sclp.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
