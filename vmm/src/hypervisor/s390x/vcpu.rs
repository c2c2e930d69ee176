//! A virtual processor, and why it has left the guest.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use arch::regs::Psw;
use vmm_sys_util::errno::{Error, Result};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_ref};

use super::bindings::{
    KVM_MP_STATE_OPERATING, KVM_MP_STATE_STOPPED, KVM_S390_MEMOP_F_INJECT_EXCEPTION,
    KVM_S390_MEMOP_LOGICAL_READ, KVM_S390_MEMOP_LOGICAL_WRITE, KVM_SYNC_GPRS, exit, interrupt,
    kvm_mp_state, kvm_run, kvm_s390_mem_op, kvm_s390_tsch, request,
};
use super::system::Cap;
use super::{checked, write};

/// A vCPU of KVM's, for the thread that runs it.
#[derive(Debug)]
pub struct VcpuFd {
    id: u16,
    processor: Processor,
    run: Run,
}

/// The same for other threads.
#[derive(Clone, Debug)]
pub struct Processor(Arc<File>);

/// Why a vCPU has left the guest.
#[derive(Debug)]
pub enum VcpuExit<'a> {
    /// An interception (`KVM_EXIT_S390_SIEIC`).
    S390Sieic(Cpu<'a>, Intercept),
    /// TEST SUBCHANNEL, for which KVM has taken an interrupt back.
    S390Tsch(Cpu<'a>, kvm_s390_tsch),
    /// DIAGNOSE 308: the machine shall be reset.
    S390Reset,
    /// A reason of the hardware's, and the host's CPU.
    FailEntry(u64, u32),
    /// A signal.
    Intr,
    /// The guest's processor has given up.
    Shutdown,
    /// KVM cannot go on.
    InternalError,
    /// Another reason of linux/kvm.h.
    Unsupported(u32),
}

/// What the guest was intercepted for: a code, and the instruction if that is it, 16 bits and 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as the header has them
pub struct Intercept {
    pub code: u8,
    pub ipa: u16,
    pub ipb: u32,
}

/// The vCPU of an exit: what its handler sees and changes of it.
pub struct Cpu<'a> {
    /// Its address.
    pub id: u16,
    processor: &'a Processor,
    run: &'a mut kvm_run,
}

impl VcpuFd {
    pub(super) fn new(file: File, id: u64, run_size: usize) -> Result<Self> {
        let run = Run::map(&file, run_size)?;
        Ok(Self {
            // KVM has made it.
            id: id as u16,
            processor: Processor(Arc::new(file)),
            run,
        })
    }

    /// Runs the guest until it needs us.
    ///
    /// # Errors
    /// EINTR for a signal, or when KVM cannot run it.
    pub fn run(&mut self) -> Result<VcpuExit<'_>> {
        // SAFETY: the request has no argument. It changes the page that is shared, of which there is no reference now.
        checked(unsafe { ioctl(&*self.processor.0, request::KVM_RUN()) })?;
        let run = self.run.get_mut();
        let (reason, shown) = (run.exit_reason, &run.exit);
        // SAFETY: whatever the bits are, they are a value of each.
        let (sieic, tsch, entry) = unsafe { (shown.s390_sieic, shown.s390_tsch, shown.fail_entry) };
        let cpu = Cpu {
            id: self.id,
            processor: &self.processor,
            run,
        };
        Ok(match reason {
            exit::S390_SIEIC => {
                let (code, ipa, ipb) = (sieic.icptcode, sieic.ipa, sieic.ipb);
                VcpuExit::S390Sieic(cpu, Intercept { code, ipa, ipb })
            }
            exit::S390_TSCH => VcpuExit::S390Tsch(cpu, tsch),
            exit::S390_RESET => VcpuExit::S390Reset,
            exit::FAIL_ENTRY => VcpuExit::FailEntry(entry.hardware_entry_failure_reason, entry.cpu),
            exit::INTR => VcpuExit::Intr,
            exit::SHUTDOWN => VcpuExit::Shutdown,
            exit::INTERNAL_ERROR => VcpuExit::InternalError,
            other => VcpuExit::Unsupported(other),
        })
    }

    /// The page that is shared with KVM.
    pub fn get_kvm_run(&mut self) -> &mut kvm_run {
        self.run.get_mut()
    }

    /// Has [`Self::run`] return at once, or not.
    pub fn set_kvm_immediate_exit(&mut self, immediate: u8) {
        self.run.get_mut().immediate_exit = immediate;
    }

    /// Where the guest is.
    pub fn psw(&self) -> Psw {
        let run = self.run.get();
        Psw {
            mask: run.psw_mask,
            address: run.psw_addr,
        }
    }

    /// Sets where it goes on.
    pub fn set_psw(&mut self, psw: Psw) {
        self.run.get_mut().set_psw(psw);
    }

    /// Switches something on.
    ///
    /// # Errors
    /// When KVM does not have it.
    pub fn enable_cap(&self, cap: Cap) -> Result<()> {
        super::enable_cap(&*self.processor.0, cap)
    }

    /// This vCPU for other threads.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }
}

impl AsRawFd for VcpuFd {
    fn as_raw_fd(&self) -> RawFd {
        self.processor.0.as_raw_fd()
    }
}

impl kvm_run {
    fn set_psw(&mut self, psw: Psw) {
        self.psw_mask = psw.mask;
        self.psw_addr = psw.address;
    }
}

impl Processor {
    /// Interrupts it, of [`interrupt`]'s kinds; whether it runs or not.
    ///
    /// # Errors
    /// EBUSY if its state does not allow that.
    pub fn interrupt(&self, kind: u32, parameter: u32) -> Result<()> {
        super::interrupt(&*self.0, kind, parameter, 0)
    }

    /// Starts or stops it, which is ours to do from the first time on. Waits for it to leave the guest.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn set_operating(&self, operating: bool) -> Result<()> {
        let state = kvm_mp_state {
            mp_state: if operating {
                KVM_MP_STATE_OPERATING
            } else {
                KVM_MP_STATE_STOPPED
            },
        };
        // SAFETY: the request reads this structure.
        unsafe { write(&*self.0, request::KVM_SET_MP_STATE(), &state) }
    }

    /// Sets all registers back. Waits for it to leave the guest.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn initial_reset(&self) -> Result<()> {
        // SAFETY: the request has no argument.
        checked(unsafe { ioctl(&*self.0, request::KVM_S390_INITIAL_RESET()) })?;
        Ok(())
    }

    /// Takes its interrupts back. Waits for it to leave the guest.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn normal_reset(&self) -> Result<()> {
        // SAFETY: the request has no argument.
        checked(unsafe { ioctl(&*self.0, request::KVM_S390_NORMAL_RESET()) })?;
        Ok(())
    }
}

impl Cpu<'_> {
    /// Its general registers.
    pub fn registers(&self) -> &[u64; 16] {
        &self.run.regs.gprs
    }

    /// Sets a general register, 0 to 15.
    pub fn set_register(&mut self, number: u8, value: u64) {
        self.run.regs.gprs[usize::from(number & 15)] = value;
        self.run.kvm_dirty_regs |= KVM_SYNC_GPRS;
    }

    /// Where the guest is: behind the instruction that it was intercepted for.
    pub fn psw(&self) -> Psw {
        Psw {
            mask: self.run.psw_mask,
            address: self.run.psw_addr,
        }
    }

    /// Sets the condition code, as the instruction does.
    pub fn set_condition_code(&mut self, code: u8) {
        self.run.set_psw(self.psw().with_condition_code(code));
    }

    /// Reads the program's memory, at its own addresses. Returns whether that may be: the program is interrupted otherwise.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<bool> {
        let buffer = bytes.as_mut_ptr() as u64;
        // SAFETY: the kernel writes what is borrowed mutably.
        unsafe { self.access(KVM_S390_MEMOP_LOGICAL_READ, address, buffer, bytes.len()) }
    }

    /// Writes there as well.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<bool> {
        let buffer = bytes.as_ptr() as u64;
        // SAFETY: the kernel reads what is borrowed.
        unsafe { self.access(KVM_S390_MEMOP_LOGICAL_WRITE, address, buffer, bytes.len()) }
    }

    /// # Safety
    /// The buffer is as long, and for the operation.
    unsafe fn access(&self, op: u32, address: u64, buffer: u64, length: usize) -> Result<bool> {
        let access = kvm_s390_mem_op {
            gaddr: address,
            flags: KVM_S390_MEMOP_F_INJECT_EXCEPTION,
            size: u32::try_from(length).map_err(|_| Error::new(libc::E2BIG))?,
            op,
            buf: buffer,
            reserved: [0; 32],
        };
        // SAFETY: the request reads this structure, and does to the buffer what the caller says.
        let result =
            unsafe { ioctl_with_ref(&*self.processor.0, request::KVM_S390_MEM_OP(), &access) };
        // More than 0 is the program interruption.
        Ok(checked(result)? == 0)
    }

    /// Interrupts the program, for the instruction.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn interrupt_program(&self, code: u16) -> Result<()> {
        self.processor.interrupt(interrupt::PROGRAM, code.into())
    }
}

impl fmt::Debug for Cpu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {} at {:#x}", self.id, self.run.psw_addr)
    }
}

/// What a vCPU and KVM share.
#[derive(Debug)]
struct Run {
    page: NonNull<kvm_run>,
    size: usize,
}

// SAFETY: the mapping belongs to no thread, and to nobody but this.
unsafe impl Send for Run {}

impl Run {
    fn map(vcpu: &File, size: usize) -> Result<Self> {
        if size < size_of::<kvm_run>() {
            return Err(Error::new(libc::EINVAL));
        }
        let fd = vcpu.as_raw_fd();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
        let page = unsafe { libc::mmap(null_mut(), size, access, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(page) {
            Some(page) if page.as_ptr() != libc::MAP_FAILED => Ok(Self {
                page: page.cast(),
                size,
            }),
            _ => Err(Error::last()),
        }
    }

    fn get(&self) -> &kvm_run {
        // SAFETY: it is mapped and large enough, and KVM writes there in KVM_RUN alone, which takes us mutably.
        unsafe { self.page.as_ref() }
    }

    fn get_mut(&mut self) -> &mut kvm_run {
        // SAFETY: as above, and the reference is the only one.
        unsafe { self.page.as_mut() }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // SAFETY: it was mapped by us, and no reference outlives us.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.size) };
    }
}
