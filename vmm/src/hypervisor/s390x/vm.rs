//! A virtual machine.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use libc::c_ulong;
use vmm_sys_util::errno::{Error, Result};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_val};

use super::bindings::{
    AdapterRoute, KVM_IRQFD_FLAG_DEASSIGN, flic, interrupt, ioeventfd, kvm_create_device,
    kvm_device_attr, kvm_ioeventfd, kvm_irqfd, kvm_s390_io_adapter, kvm_userspace_memory_region,
    pair, request,
};
use super::system::Cap;
use super::vcpu::VcpuFd;
use super::{checked, write};

/// A VM of KVM's.
#[derive(Debug)]
pub struct VmFd {
    file: File,
    /// Bytes that a vCPU shares with us.
    run_size: usize,
}

impl VmFd {
    pub(super) fn new(file: File, run_size: usize) -> Self {
        Self { file, run_size }
    }

    /// Its descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the guest memory of this process, or takes it back.
    ///
    /// # Safety
    /// The memory is mapped for as long as the guest has it, and the guest may change it.
    ///
    /// # Errors
    /// When the slot is another one's, or the memory is not in whole mebibytes.
    pub unsafe fn set_user_memory_region(&self, region: kvm_userspace_memory_region) -> Result<()> {
        // SAFETY: the request reads this structure; what it names is as the caller says.
        unsafe { write(&self.file, request::KVM_SET_USER_MEMORY_REGION(), &region) }
    }

    /// Makes a vCPU.
    ///
    /// # Errors
    /// When there is one of this number, or KVM has no more of them.
    pub fn create_vcpu(&self, id: u64) -> Result<VcpuFd> {
        // SAFETY: the argument of the request is a number.
        let fd = unsafe { ioctl_with_val(&self.file, request::KVM_CREATE_VCPU(), id as c_ulong) };
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(checked(fd)?) };
        VcpuFd::new(file, id, self.run_size)
    }

    /// Switches something on.
    ///
    /// # Errors
    /// When KVM does not have it.
    pub fn enable_cap(&self, cap: Cap) -> Result<()> {
        super::enable_cap(&self.file, cap)
    }

    /// Has KVM deliver interrupts of adapters, after [`Cap::S390Irqchip`].
    ///
    /// # Errors
    /// When that is not switched on.
    pub fn create_irq_chip(&self) -> Result<()> {
        // SAFETY: the request has no argument.
        checked(unsafe { ioctl(&self.file, request::KVM_CREATE_IRQCHIP()) })?;
        Ok(())
    }

    /// Registers adapters with the floating interrupt controller, which is made by this.
    ///
    /// # Errors
    /// When there is one already, or an adapter of the same number.
    pub fn register_adapters(
        &self,
        adapters: impl Iterator<Item = kvm_s390_io_adapter>,
    ) -> Result<()> {
        let mut device = kvm_create_device {
            kind: flic::DEVICE,
            ..Default::default()
        };
        // SAFETY: the request reads this structure and writes its descriptor.
        checked(unsafe {
            ioctl_with_mut_ref(&self.file, request::KVM_CREATE_DEVICE(), &mut device)
        })?;
        // SAFETY: the descriptor is new and nobody else's. The device lives as long as the VM.
        let device = unsafe { File::from_raw_fd(device.fd as i32) };
        for adapter in adapters {
            let attribute = kvm_device_attr {
                group: flic::ADAPTER_REGISTER,
                addr: &raw const adapter as u64,
                ..Default::default()
            };
            // SAFETY: the request reads both structures, which live until it is over.
            unsafe { write(&device, request::KVM_SET_DEVICE_ATTR(), &attribute) }?;
        }
        Ok(())
    }

    /// How much KVM has of something.
    pub fn check_extension_int(&self, cap: Cap) -> i32 {
        // SAFETY: the argument of the request is a number.
        unsafe { ioctl_with_val(&self.file, request::KVM_CHECK_EXTENSION(), cap as c_ulong) }
    }

    /// Sets all interrupt routes at once.
    ///
    /// # Errors
    /// When an indicator is not in guest memory, or there are too many.
    pub fn set_gsi_routing(&self, routes: &[AdapterRoute]) -> Result<()> {
        let count = u32::try_from(routes.len()).map_err(|_| Error::new(libc::EINVAL))?;
        let entries = routes.iter().flat_map(AdapterRoute::words);
        let table: Vec<u64> = [pair(count, 0)].into_iter().chain(entries).collect();
        // SAFETY: the request reads the header, and so many entries as that says, which are behind it.
        checked(unsafe {
            ioctl_with_ptr(&self.file, request::KVM_SET_GSI_ROUTING(), table.as_ptr())
        })?;
        Ok(())
    }

    /// Has an eventfd raise the interrupt of a route.
    ///
    /// # Errors
    /// When it does so already.
    pub fn register_irqfd(&self, fd: &EventFd, gsi: u32) -> Result<()> {
        self.irqfd(fd, gsi, 0)
    }

    /// Undoes [`Self::register_irqfd`].
    ///
    /// # Errors
    /// When it does not do so.
    pub fn unregister_irqfd(&self, fd: &EventFd, gsi: u32) -> Result<()> {
        self.irqfd(fd, gsi, KVM_IRQFD_FLAG_DEASSIGN)
    }

    fn irqfd(&self, fd: &EventFd, gsi: u32, flags: u32) -> Result<()> {
        let irqfd = kvm_irqfd {
            // It is not negative.
            fd: fd.as_raw_fd() as u32,
            gsi,
            flags,
            ..Default::default()
        };
        // SAFETY: the request reads this structure.
        unsafe { write(&self.file, request::KVM_IRQFD(), &irqfd) }
    }

    /// Has a notification of this queue of virtio-ccw signal an eventfd. The subchannel is named by its
    /// subsystem-identification word.
    ///
    /// # Errors
    /// When another eventfd is signalled already.
    pub fn register_ccw_notify(&self, fd: &EventFd, subchannel: u32, queue: u16) -> Result<()> {
        self.ccw_notify(fd, subchannel, queue, 0)
    }

    /// Undoes [`Self::register_ccw_notify`].
    ///
    /// # Errors
    /// When it is not signalled.
    pub fn unregister_ccw_notify(&self, fd: &EventFd, subchannel: u32, queue: u16) -> Result<()> {
        self.ccw_notify(fd, subchannel, queue, ioeventfd::DEASSIGN)
    }

    fn ccw_notify(&self, fd: &EventFd, subchannel: u32, queue: u16, flags: u32) -> Result<()> {
        let notify = kvm_ioeventfd {
            datamatch: queue.into(),
            addr: subchannel.into(),
            len: 8,
            fd: fd.as_raw_fd(),
            flags: flags | ioeventfd::VIRTIO_CCW_NOTIFY | ioeventfd::DATAMATCH,
            pad: [0; 36],
        };
        // SAFETY: the request reads this structure.
        unsafe { write(&self.file, request::KVM_IOEVENTFD(), &notify) }
    }

    /// Interrupts whichever vCPU takes it: from the service call.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn service_interrupt(&self, parameter: u32) -> Result<()> {
        super::interrupt(&self.file, interrupt::SERVICE, parameter, 0)
    }

    /// The same by a machine check, of this subclass (of control register 14), and with this code.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn machine_check(&self, subclass: u32, code: u64) -> Result<()> {
        super::interrupt(&self.file, interrupt::MACHINE_CHECK, subclass, code)
    }

    /// The same from I/O: the upper and the lower half of the subchannel's word, the guest's own parameter, and the word
    /// with the interruption class.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn io_interrupt(&self, id: u16, number: u16, parameter: u32, word: u32) -> Result<()> {
        // KVM_S390_INT_IO: the number and, from bit 16 on, the set; more than these KVM looks for in the subchannel's word.
        let kind = u32::from(id >> 1 & 3) << 16 | u32::from(number);
        let subchannel = u32::from(id) << 16 | u32::from(number);
        super::interrupt(&self.file, kind, subchannel, pair(parameter, word))
    }
}
