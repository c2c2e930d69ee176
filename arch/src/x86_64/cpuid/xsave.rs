//! Leaf 0xd: the extended state that XSAVE keeps, in step with the features that have it.

use kvm_bindings::kvm_cpuid_entry2;

use super::{entry, feature_table, features::is_set};

const LEAF: u32 = 0xd;

/// State components and the feature that they belong to (SDM volume 1, 13.1).
const COMPONENTS: &[(&str, u32)] = &[
    ("avx", 1 << 2),
    ("mpx", 1 << 3 | 1 << 4),
    ("avx512f", 1 << 5 | 1 << 6 | 1 << 7),
    ("pku", 1 << 9),
    ("shstk", 1 << 11 | 1 << 12),
    ("amx_tile", 1 << 17 | 1 << 18),
];

/// Size of the x87 and SSE state with the XSAVE header, which is always there.
const LEGACY_SIZE: u32 = 576;

/// Removes the state of features that are not there, and all of it without XSAVE.
pub(super) fn shrink(entries: &mut Vec<kvm_cpuid_entry2>) {
    if !has(entries, "xsave") {
        entries.retain(|entry| entry.function != LEAF);
        return;
    }
    let mut gone = 0;
    for (feature, components) in COMPONENTS {
        if !has(entries, feature) {
            gone |= components;
        }
    }
    entries.retain(|entry| {
        entry.function != LEAF || entry.index >= 32 || 1 << entry.index & gone == 0
    });
    // Subleaf 1 ECX: components of the supervisor (IA32_XSS).
    if let Some(supervisor) = entry(entries, LEAF, 1) {
        supervisor.ecx &= !gone;
    }
    let size = user_state_size(entries);
    // Subleaf 0 EAX: components of the user (XCR0); ECX: bytes for all of them, EBX: for those
    // that are enabled, which KVM keeps up to date.
    if let Some(user) = entry(entries, LEAF, 0) {
        user.eax &= !gone;
        user.ecx = user.ecx.min(size);
        user.ebx = user.ebx.min(size);
    }
}

/// Bytes up to the end of the last user component, in the standard format.
fn user_state_size(entries: &[kvm_cpuid_entry2]) -> u32 {
    let components = entries.iter().filter(|entry| {
        // ECX bit 0: a component of the supervisor, which has no place in the standard format.
        entry.function == LEAF && entry.index >= 2 && entry.ecx & 1 == 0
    });
    let ends = components.map(|entry| entry.ebx.saturating_add(entry.eax));
    ends.max().unwrap_or(0).max(LEGACY_SIZE)
}

fn has(entries: &mut [kvm_cpuid_entry2], name: &str) -> bool {
    feature_table::by_name(name).is_some_and(|feature| is_set(entries, &feature))
}
