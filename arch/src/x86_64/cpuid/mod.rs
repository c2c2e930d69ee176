//! The CPU that the guest sees: what KVM supports on this host, less what the user switched off,
//! with a topology of our own.

mod feature_table;
mod features;
mod topology;
mod xsave;

use std::ops::RangeInclusive;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

pub use features::{CpuFeatures, ParseError};

/// Leaf 1 ECX: a hypervisor is present, look at leaf 0x4000_0000.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 ECX: the local APIC's timer takes a deadline in TSC ticks.
const TSC_DEADLINE_TIMER: u32 = 1 << 24;
/// Leaf 6 EAX: the local APIC's timer always runs.
const ARAT: u32 = 1 << 2;
/// KVM's signature, and EAX: its last leaf (Linux `virt/kvm/x86/cpuid.rst`).
const KVM_SIGNATURE: u32 = 0x4000_0000;
/// KVM's features.
const KVM_FEATURES: u32 = 0x4000_0001;
/// Frequencies of TSC and APIC bus in kHz, a convention that hypervisors share.
const TIMING_LEAF: u32 = 0x4000_0010;
/// KVM's local APIC counts nanoseconds.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// EAX: the last extended leaf.
pub const EXTENDED: u32 = 0x8000_0000;
/// The leaves of the processor's name, its brand string.
pub const NAME: RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;

/// What the host's timers are like, beside its CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// `KVM_GET_TSC_KHZ` of a vCPU; 0 if unknown.
    pub tsc_khz: u32,
    /// `KVM_CAP_TSC_DEADLINE_TIMER`. `KVM_GET_SUPPORTED_CPUID` does not tell, as the timer is part
    /// of the in-kernel local APIC.
    pub tsc_deadline_timer: bool,
}

/// Why the CPU cannot be as asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A feature was asked for that KVM on this host does not have.
    #[error("CPU feature '{0}' is switched on, but this host does not support it")]
    NotSupported(&'static str),
    /// A feature was asked for that cannot do without one that is switched off.
    #[error("CPU feature '{feature}' is switched on, but needs '{needed}', which is switched off")]
    Conflict {
        /// The feature that is switched on.
        feature: &'static str,
        /// The one that is switched off.
        needed: &'static str,
    },
}

/// The CPU model that all vCPUs of a VM share.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    entries: Vec<kvm_cpuid_entry2>,
}

impl Model {
    /// Makes a model for `count` vCPUs from what `KVM_GET_SUPPORTED_CPUID` returned.
    ///
    /// Beyond KVM's answer the guest sees: the hypervisor bit, the TSC deadline timer if the host
    /// has it, the always running APIC timer, the timing leaf 0x4000_0010, and the topology bits
    /// (HTT, AMD's CMP_LEGACY). With these Linux calibrates nothing at boot: it takes the TSC's
    /// frequency from kvm-clock, needs none for a deadline timer, and asks for a PIT only without
    /// an always running one (`apic_needs_pit` in its `apic.c`). A guest without kvm-clock has
    /// nothing to calibrate by, as there is no PIT, and does not boot.
    ///
    /// # Errors
    /// When a feature is switched on that the host lacks, or that needs one switched off.
    pub fn new(
        supported: &[kvm_cpuid_entry2],
        features: &CpuFeatures,
        timers: Timers,
        count: u32,
    ) -> Result<Self, Error> {
        let mut entries = supported.to_vec();
        add_timers(&mut entries, timers);
        features.apply(&mut entries)?;
        xsave::shrink(&mut entries);
        topology::describe(&mut entries, count);
        Ok(Self { entries })
    }

    /// The same with this name: the registers EAX, EBX, ECX and EDX of the leaves [`NAME`], of which
    /// `KVM_GET_SUPPORTED_CPUID` says nothing.
    #[must_use]
    pub fn named(mut self, name: [[u32; 4]; 3]) -> Self {
        // A processor without extended leaves has no name either.
        let Some(extended) = entry(&mut self.entries, EXTENDED, 0) else {
            return self;
        };
        extended.eax = extended.eax.max(*NAME.end());
        for (function, [eax, ebx, ecx, edx]) in NAME.zip(name) {
            let leaf = kvm_cpuid_entry2 {
                function,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            };
            set(&mut self.entries, leaf);
        }
        self
    }

    /// CPUID of vCPU `index` (`KVM_SET_CPUID2`), which has that number as its APIC ID.
    pub fn vcpu(&self, index: u32) -> Vec<kvm_cpuid_entry2> {
        let mut entries = self.entries.clone();
        topology::identify(&mut entries, index);
        entries
    }
}

fn add_timers(entries: &mut Vec<kvm_cpuid_entry2>, timers: Timers) {
    if let Some(leaf) = entry(entries, 1, 0) {
        leaf.ecx |= HYPERVISOR;
        leaf.ecx &= !TSC_DEADLINE_TIMER;
        if timers.tsc_deadline_timer {
            leaf.ecx |= TSC_DEADLINE_TIMER;
        }
    }
    if let Some(leaf) = entry(entries, 6, 0) {
        leaf.eax |= ARAT;
    }
    let Some(signature) = entry(entries, KVM_SIGNATURE, 0) else {
        return;
    };
    if timers.tsc_khz != 0 {
        // EAX: the last leaf of the hypervisor; old KVMs say 0 and mean KVM_FEATURES.
        signature.eax = signature.eax.max(KVM_FEATURES).max(TIMING_LEAF);
        let timing = kvm_cpuid_entry2 {
            function: TIMING_LEAF,
            eax: timers.tsc_khz,
            ebx: APIC_BUS_KHZ,
            ..Default::default()
        };
        set(entries, timing);
    }
}

/// The entry of a leaf and subleaf.
fn entry(
    entries: &mut [kvm_cpuid_entry2],
    function: u32,
    index: u32,
) -> Option<&mut kvm_cpuid_entry2> {
    entries.iter_mut().find(|entry| {
        let any_index = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX == 0;
        entry.function == function && (any_index || entry.index == index)
    })
}

/// Replaces the entry of the same leaf and subleaf, or adds it.
fn set(entries: &mut Vec<kvm_cpuid_entry2>, new: kvm_cpuid_entry2) {
    match entry(entries, new.function, new.index) {
        Some(old) => *old = new,
        None => entries.push(new),
    }
}

/// Whether the vendor is AMD, or Hygon, which follows AMD's manual.
fn is_amd(entries: &mut [kvm_cpuid_entry2]) -> bool {
    entry(entries, 0, 0).is_some_and(|leaf| {
        let mut vendor = [0; 12];
        for (bytes, register) in vendor
            .chunks_exact_mut(4)
            .zip([leaf.ebx, leaf.edx, leaf.ecx])
        {
            bytes.copy_from_slice(&register.to_le_bytes());
        }
        matches!(&vendor, b"AuthenticAMD" | b"HygonGenuine")
    })
}

#[cfg(test)]
mod tests;
