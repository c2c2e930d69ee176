//! The topology that the guest sees: one package with a core for each vCPU, one thread each, the
//! last-level cache shared. APIC IDs are the vCPU's numbers.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::{entry, is_amd, set};

/// Leaves of the x2APIC topology (SDM volume 3A, 10.9): the first two levels.
const X2APIC_LEAVES: [u32; 2] = [0xb, 0x1f];
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;
/// Leaf 1 EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX of AMD: these are cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;

/// Describes `count` vCPUs, the same for each of them.
pub(super) fn describe(entries: &mut Vec<kvm_cpuid_entry2>, count: u32) {
    let many = count > 1;
    if let Some(leaf) = entry(entries, 1, 0) {
        leaf.edx = with_bits(leaf.edx, HTT, many);
        leaf.ebx = leaf.ebx & !0x00ff_0000 | apic_ids(count).min(0xff) << 16;
    }
    caches(entries, count);
    let levels = entry(entries, 0, 0).map_or(0, |leaf| leaf.eax);
    for leaf in X2APIC_LEAVES.into_iter().filter(|leaf| *leaf <= levels) {
        x2apic(entries, leaf, count);
    }
    if is_amd(entries) {
        if let Some(leaf) = entry(entries, 0x8000_0001, 0) {
            leaf.ecx = with_bits(leaf.ecx, CMP_LEGACY, many);
        }
        // ECX 7:0 cores less one, 15:12 width of the core number in the APIC ID (APM volume 3,
        // CPUID Fn8000_0008_ECX).
        if let Some(leaf) = entry(entries, 0x8000_0008, 0) {
            leaf.ecx = apic_id_bits(count) << 12 | (count.max(1) - 1).min(0xff);
        }
    }
}

/// Fills in which vCPU this is.
pub(super) fn identify(entries: &mut [kvm_cpuid_entry2], index: u32) {
    let amd = is_amd(entries);
    for entry in entries {
        match entry.function {
            // EBX 31:24: the initial APIC ID, as far as it fits.
            1 => entry.ebx = entry.ebx & 0x00ff_ffff | (index & 0xff) << 24,
            function if X2APIC_LEAVES.contains(&function) => entry.edx = index,
            // EAX: the extended APIC ID; EBX: core number, one thread; ECX: node 0 of 1.
            0x8000_001e if amd => {
                entry.eax = index;
                entry.ebx = index & 0xff;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
}

/// Leaf 4 (Intel) and 0x8000_001d (AMD): who shares a cache. EAX 25:14 is the number of APIC IDs
/// that share it less one, 31:26 (Intel) that of cores in the package less one.
fn caches(entries: &mut [kvm_cpuid_entry2], count: u32) {
    const LAST_LEVEL: u32 = 3;
    let ids = apic_ids(count) - 1;
    let leaves = entries
        .iter_mut()
        .filter(|entry| matches!(entry.function, 4 | 0x8000_001d));
    // EAX 4:0 is the type of cache, 0 for no more.
    for leaf in leaves.filter(|leaf| leaf.eax & 0x1f != 0) {
        let shared = if leaf.eax >> 5 & 7 >= LAST_LEVEL {
            ids.min(0xfff)
        } else {
            0
        };
        leaf.eax = leaf.eax & 0x3fff | shared << 14;
        if leaf.function == 4 {
            leaf.eax |= ids.min(0x3f) << 26;
        }
    }
}

/// Leaves 0xb and 0x1f. EAX: how far to shift the APIC ID for the next level; EBX: logical
/// processors at this level; ECX: level type and number; EDX: the x2APIC ID.
fn x2apic(entries: &mut Vec<kvm_cpuid_entry2>, function: u32, count: u32) {
    entries.retain(|entry| entry.function != function);
    let levels = [
        (0, 1, LEVEL_THREAD),
        (apic_id_bits(count), count.max(1), LEVEL_CORE),
        (0, 0, 0),
    ];
    for (index, (shift, processors, level)) in (0..).zip(levels) {
        set(
            entries,
            kvm_cpuid_entry2 {
                function,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax: shift,
                ebx: processors & 0xffff,
                ecx: level << 8 | index,
                ..Default::default()
            },
        );
    }
}

/// Width in bits of the largest APIC ID.
fn apic_id_bits(count: u32) -> u32 {
    u32::BITS - count.max(1).saturating_sub(1).leading_zeros()
}

/// APIC IDs of the package: the number of vCPUs, rounded up to a power of two.
fn apic_ids(count: u32) -> u32 {
    1 << apic_id_bits(count).min(16)
}

fn with_bits(value: u32, bits: u32, on: bool) -> u32 {
    if on { value | bits } else { value & !bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apic_id_widths() {
        let widths = [
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (255, 8),
            (256, 8),
            (257, 9),
        ];
        for (count, bits) in widths {
            assert_eq!(apic_id_bits(count), bits, "{count}");
        }
        assert_eq!(apic_ids(1), 1);
        assert_eq!(apic_ids(3), 4);
    }
}
