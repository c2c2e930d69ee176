//! The registers of vCPU 0 when it enters the kernel. The other vCPUs wait for the guest to start
//! them, in the state that KVM gave them.

use kvm_bindings::{kvm_dtable, kvm_fpu, kvm_regs, kvm_sregs};

use super::{descriptors, layout};
use crate::kernel::Entry;

/// Bit 1 of RFLAGS is always set (SDM volume 1, 3.4.3).
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Control register bits (SDM volume 3A, 2.5; EFER: 2.2.1).
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// General registers (`KVM_SET_REGS`).
pub fn general(entry: Entry) -> kvm_regs {
    match entry {
        // EBX: the start info.
        Entry::Pvh(address) => kvm_regs {
            rflags: RFLAGS_RESERVED,
            rip: address.0,
            rbx: layout::PVH_START_INFO.0,
            ..Default::default()
        },
        // RSI: the zero page.
        Entry::Linux64(address) => kvm_regs {
            rflags: RFLAGS_RESERVED,
            rip: address.0,
            rsi: layout::ZERO_PAGE.0,
            ..Default::default()
        },
    }
}

/// Segments, control registers and descriptor tables (`KVM_SET_SREGS`), made from what
/// `KVM_GET_SREGS` returned: that of the local APIC is kept. CD and NW of CR0, which are set after
/// a reset, are cleared, so that the caches are on.
pub fn special(entry: Entry, initial: &kvm_sregs) -> kvm_sregs {
    let long = matches!(entry, Entry::Linux64(_));
    let data = descriptors::data();
    let flat = kvm_sregs {
        cs: descriptors::code(long),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: descriptors::task(),
        idt: kvm_dtable::default(),
        ..*initial
    };
    match entry {
        Entry::Pvh(_) => kvm_sregs {
            gdt: kvm_dtable::default(),
            cr0: CR0_PE | CR0_ET,
            cr4: 0,
            efer: 0,
            ..flat
        },
        Entry::Linux64(_) => kvm_sregs {
            gdt: kvm_dtable {
                base: layout::GDT.0,
                limit: descriptors::GDT_SIZE - 1,
                ..Default::default()
            },
            cr0: CR0_PE | CR0_ET | CR0_PG,
            cr3: layout::PAGE_TABLES.0,
            cr4: CR4_PAE,
            efer: EFER_LME | EFER_LMA,
            ..flat
        },
    }
}

/// The floating-point unit after FNINIT, MXCSR as after a reset (`KVM_SET_FPU`; SDM volume 3A,
/// table 10-1).
pub fn fpu() -> kvm_fpu {
    kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    const ADDRESS: GuestAddress = GuestAddress(0x100_0200);

    /// As KVM gives it after a reset.
    fn reset() -> kvm_sregs {
        kvm_sregs {
            cr0: 0x6000_0010,
            apic_base: 0xfee0_0900,
            cr8: 0,
            ..Default::default()
        }
    }

    #[test]
    fn pvh_starts_in_protected_mode_without_paging() {
        let entry = Entry::Pvh(ADDRESS);
        let sregs = special(entry, &reset());
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
        assert_eq!(
            (sregs.cs.db, sregs.cs.l, sregs.cs.limit),
            (1, 0, 0xffff_ffff)
        );
        assert_eq!(
            (sregs.tr.limit, sregs.tr.type_, sregs.tr.present),
            (0x67, 0xb, 1)
        );
        assert_eq!(sregs.apic_base, 0xfee0_0900);
        let regs = general(entry);
        assert_eq!((regs.rip, regs.rbx, regs.rflags), (ADDRESS.0, 0x6000, 2));
    }

    #[test]
    fn linux_starts_in_long_mode() {
        let entry = Entry::Linux64(ADDRESS);
        let sregs = special(entry, &reset());
        assert_eq!((sregs.cr0, sregs.cr4), (0x8000_0011, 0x20));
        assert_eq!((sregs.cr3, sregs.efer), (0x9000, 0x500));
        assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.selector), (0, 1, 0x10));
        assert_eq!((sregs.gdt.base, sregs.gdt.limit), (0x500, 47));
        assert_eq!(sregs.ss.selector, 0x18);
        let regs = general(entry);
        assert_eq!((regs.rip, regs.rsi), (ADDRESS.0, 0x7000));
    }
}
