//! Structures and numbers, as linux/kvm.h has them, and asm/kvm.h those whose names begin with `kvm_s390`.
#![allow(missing_docs, non_camel_case_types, unreachable_pub)] // as the headers have them

use std::mem::offset_of;

pub const KVM_MEM_READONLY: u32 = 1 << 1;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_userspace_memory_region {
    pub slot: u32,
    pub flags: u32,
    pub guest_phys_addr: u64,
    pub memory_size: u64,
    pub userspace_addr: u64,
}

/// The beginning of the page that a vCPU shares with us; more registers follow.
#[repr(C)]
pub struct kvm_run {
    pub request_interrupt_window: u8,
    pub immediate_exit: u8,
    pub padding1: [u8; 6],
    pub exit_reason: u32,
    pub ready_for_interrupt_injection: u8,
    pub if_flag: u8,
    pub flags: u16,
    pub cr8: u64,
    pub apic_base: u64,
    pub psw_mask: u64,
    pub psw_addr: u64,
    pub exit: kvm_run_exit,
    pub kvm_valid_regs: u64,
    pub kvm_dirty_regs: u64,
    pub regs: kvm_sync_regs,
}

/// The one that is meant is told by the reason; any bits are a value of each.
#[repr(C)]
#[derive(Clone, Copy)]
pub union kvm_run_exit {
    pub fail_entry: kvm_fail_entry,
    pub s390_sieic: kvm_s390_sieic,
    pub s390_tsch: kvm_s390_tsch,
    pub padding: [u8; 256],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_fail_entry {
    pub hardware_entry_failure_reason: u64,
    pub cpu: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_s390_sieic {
    pub icptcode: u8,
    pub ipa: u16,
    pub ipb: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_s390_tsch {
    pub subchannel_id: u16,
    pub subchannel_nr: u16,
    pub io_int_parm: u32,
    pub io_int_word: u32,
    pub ipb: u32,
    pub dequeued: u8,
}

/// As far as we use it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_sync_regs {
    pub prefix: u64,
    pub gprs: [u64; 16],
}

pub(super) const KVM_SYNC_GPRS: u64 = 1 << 1;

const _: () = {
    assert!(offset_of!(kvm_run, exit_reason) == 8 && offset_of!(kvm_run, psw_mask) == 32);
    assert!(offset_of!(kvm_run, exit) == 48 && offset_of!(kvm_run, kvm_valid_regs) == 304);
    assert!(offset_of!(kvm_run, regs) == 320 && offset_of!(kvm_s390_sieic, ipb) == 4);
};

/// Of `kvm_run::exit_reason`.
pub(super) mod exit {
    pub(in super::super) const FAIL_ENTRY: u32 = 9;
    pub(in super::super) const INTR: u32 = 10;
    pub(in super::super) const SHUTDOWN: u32 = 8;
    pub(in super::super) const S390_SIEIC: u32 = 13;
    pub(in super::super) const S390_RESET: u32 = 14;
    pub(in super::super) const INTERNAL_ERROR: u32 = 17;
    pub(in super::super) const S390_TSCH: u32 = 22;
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_enable_cap {
    pub cap: u32,
    pub flags: u32,
    pub args: [u64; 4],
    pub pad: [u8; 64],
}

impl Default for kvm_enable_cap {
    fn default() -> Self {
        Self {
            cap: 0,
            flags: 0,
            args: [0; 4],
            pad: [0; 64],
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_s390_interrupt {
    /// `type` in C.
    pub kind: u32,
    pub parm: u32,
    pub parm64: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_s390_mem_op {
    pub gaddr: u64,
    pub flags: u64,
    pub size: u32,
    pub op: u32,
    pub buf: u64,
    /// An access register, which is 0 where there is none, and what else the operation may take.
    pub reserved: [u8; 32],
}

pub(super) const KVM_S390_MEMOP_LOGICAL_READ: u32 = 0;
pub(super) const KVM_S390_MEMOP_LOGICAL_WRITE: u32 = 1;
pub(super) const KVM_S390_MEMOP_F_INJECT_EXCEPTION: u64 = 1 << 1;

/// Of `kvm_s390_interrupt::type`; the numbers below are those of I/O.
pub mod interrupt {
    pub const SIGP_STOP: u32 = 0xfffe_0000;
    pub const PROGRAM: u32 = 0xfffe_0001;
    pub const SIGP_SET_PREFIX: u32 = 0xfffe_0002;
    pub const RESTART: u32 = 0xfffe_0003;
    pub const MACHINE_CHECK: u32 = 0xfffe_1000;
    pub const SERVICE: u32 = 0xffff_2401;
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_mp_state {
    pub mp_state: u32,
}

pub(super) const KVM_MP_STATE_STOPPED: u32 = 5;
pub(super) const KVM_MP_STATE_OPERATING: u32 = 7;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_create_device {
    /// `type` in C.
    pub kind: u32,
    pub fd: u32,
    pub flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_device_attr {
    pub flags: u32,
    pub group: u32,
    pub attr: u64,
    pub addr: u64,
}

/// The floating interrupt controller.
pub mod flic {
    /// `KVM_DEV_TYPE_FLIC`.
    pub const DEVICE: u32 = 6;
    /// `KVM_DEV_FLIC_ADAPTER_REGISTER`.
    pub const ADAPTER_REGISTER: u32 = 6;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_s390_io_adapter {
    pub id: u32,
    pub isc: u8,
    pub maskable: u8,
    pub swap: u8,
    pub flags: u8,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct kvm_irqfd {
    pub fd: u32,
    pub gsi: u32,
    pub flags: u32,
    pub resamplefd: u32,
    pub pad: [u8; 16],
}

pub(super) const KVM_IRQFD_FLAG_DEASSIGN: u32 = 1 << 0;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_ioeventfd {
    pub datamatch: u64,
    pub addr: u64,
    pub len: u32,
    pub fd: i32,
    pub flags: u32,
    pub pad: [u8; 36],
}

/// Of `kvm_ioeventfd::flags`.
pub(super) mod ioeventfd {
    pub(in super::super) const DATAMATCH: u32 = 1 << 0;
    pub(in super::super) const DEASSIGN: u32 = 1 << 2;
    pub(in super::super) const VIRTIO_CCW_NOTIFY: u32 = 1 << 3;
}

/// The beginning of a routing table; as many entries follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct kvm_irq_routing {
    pub nr: u32,
    pub flags: u32,
}

/// `kvm_irq_routing_entry` with a `kvm_irq_routing_s390_adapter`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdapterRoute {
    pub gsi: u32,
    pub ind_addr: u64,
    pub summary_addr: u64,
    pub ind_offset: u64,
    pub summary_offset: u32,
    pub adapter_id: u32,
}

impl AdapterRoute {
    /// As the kernel has it, with `type`, `flags` and padding.
    pub(super) fn words(&self) -> [u64; 6] {
        const KVM_IRQ_ROUTING_S390_ADAPTER: u32 = 3;
        [
            pair(self.gsi, KVM_IRQ_ROUTING_S390_ADAPTER),
            pair(0, 0),
            self.ind_addr,
            self.summary_addr,
            self.ind_offset,
            pair(self.summary_offset, self.adapter_id),
        ]
    }
}

/// Two fields behind one another, on a big-endian processor.
pub(super) fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) << 32 | u64::from(second)
}

const _: () = {
    assert!(cfg!(target_endian = "big") && size_of::<kvm_irq_routing>() == 8);
    assert!(size_of::<kvm_enable_cap>() == 104 && size_of::<kvm_ioeventfd>() == 64);
    assert!(size_of::<kvm_s390_mem_op>() == 64 && size_of::<kvm_userspace_memory_region>() == 32);
    assert!(size_of::<kvm_irqfd>() == 32 && size_of::<kvm_s390_io_adapter>() == 8);
};

/// Requests to ioctl(2).
pub(super) mod request {
    use super::*;
    use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr, ioctl_iowr_nr};

    const KVMIO: u32 = 0xae;

    ioctl_io_nr!(KVM_GET_API_VERSION, KVMIO, 0x00);
    ioctl_io_nr!(KVM_CREATE_VM, KVMIO, 0x01);
    ioctl_io_nr!(KVM_CHECK_EXTENSION, KVMIO, 0x03);
    ioctl_io_nr!(KVM_GET_VCPU_MMAP_SIZE, KVMIO, 0x04);
    ioctl_io_nr!(KVM_CREATE_VCPU, KVMIO, 0x41);
    ioctl_iow_nr!(
        KVM_SET_USER_MEMORY_REGION,
        KVMIO,
        0x46,
        kvm_userspace_memory_region
    );
    ioctl_io_nr!(KVM_CREATE_IRQCHIP, KVMIO, 0x60);
    ioctl_iow_nr!(KVM_SET_GSI_ROUTING, KVMIO, 0x6a, kvm_irq_routing);
    ioctl_iow_nr!(KVM_IRQFD, KVMIO, 0x76, kvm_irqfd);
    ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);
    ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);
    ioctl_iow_nr!(KVM_S390_INTERRUPT, KVMIO, 0x94, kvm_s390_interrupt);
    ioctl_io_nr!(KVM_S390_INITIAL_RESET, KVMIO, 0x97);
    ioctl_iow_nr!(KVM_SET_MP_STATE, KVMIO, 0x99, kvm_mp_state);
    ioctl_iow_nr!(KVM_ENABLE_CAP, KVMIO, 0xa3, kvm_enable_cap);
    ioctl_iow_nr!(KVM_S390_MEM_OP, KVMIO, 0xb1, kvm_s390_mem_op);
    ioctl_io_nr!(KVM_S390_NORMAL_RESET, KVMIO, 0xc3);
    ioctl_iowr_nr!(KVM_CREATE_DEVICE, KVMIO, 0xe0, kvm_create_device);
    ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
}
