//! The CPU that the guest sees: what KVM supports, less what is switched off, with our topology.

use kvm_bindings::kvm_cpuid_entry2;

pub use features::{CpuFeatures, ParseError};

mod features {
    /// Switches for CPU features, as the user wrote them.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct CpuFeatures;

    /// Why a list of CPU features cannot be used.
    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    pub enum ParseError {
        /// No feature has this name.
        #[error("unknown CPU feature '{name}'{hint}")]
        Unknown {
            /// The name.
            name: String,
            /// Near names, for the message.
            hint: String,
        },
        /// Neither `host`, nor a switch.
        #[error("CPU feature '{0}': expected host, +feature, -feature, feature=on or feature=off")]
        Syntax(String),
    }

    impl CpuFeatures {
        /// Parses a list such as `host,-avx512f,pcid=off,+x2apic`. Later items win. An empty list
        /// means `host`: all that KVM supports.
        ///
        /// # Errors
        /// When an item is not a switch, or names an unknown feature.
        pub fn parse(list: &str) -> Result<Self, ParseError> {
            let _ = list;
            todo!()
        }
    }
}

/// What of the host matters beside its CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `KVM_GET_TSC_KHZ` of a vCPU; 0 if unknown.
    pub tsc_khz: u32,
    /// `KVM_CAP_TSC_DEADLINE_TIMER`.
    pub tsc_deadline_timer: bool,
}

/// Why the CPU cannot be as asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A feature was asked for that KVM on this host does not have.
    #[error("CPU feature '{0}' is switched on, but this host does not support it")]
    NotSupported(&'static str),
}

/// The CPU model that all vCPUs of a VM share.
#[derive(Clone, Debug)]
pub struct Model {
    entries: Vec<kvm_cpuid_entry2>,
    count: u32,
}

impl Model {
    /// Makes a model for `count` vCPUs from `KVM_GET_SUPPORTED_CPUID`.
    ///
    /// # Errors
    /// When a feature is switched on that is not supported.
    pub fn new(
        supported: &[kvm_cpuid_entry2],
        features: &CpuFeatures,
        host: Host,
        count: u32,
    ) -> Result<Self, Error> {
        let _ = (supported, features, host, count);
        todo!()
    }

    /// CPUID of vCPU `index` (for `KVM_SET_CPUID2`), which has that number as its APIC ID.
    pub fn vcpu(&self, index: u32) -> Vec<kvm_cpuid_entry2> {
        let _ = (index, self.count);
        self.entries.clone()
    }
}
