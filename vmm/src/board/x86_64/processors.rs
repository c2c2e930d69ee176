//! The vCPUs' CPUID, MSRs and first registers.

use std::arch::x86_64::{__cpuid, CpuidResult};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use arch::cpuid::{EXTENDED, Model, NAME, Timers};
use arch::kernel::Entry;
use arch::{CpuFeatures, cpuid};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

/// What all vCPUs have in common. The model is made when the first of them tells the TSC's
/// frequency.
pub(super) struct Processors {
    count: u32,
    supported: CpuId,
    features: CpuFeatures,
    tsc_deadline_timer: bool,
    model: OnceLock<Model>,
}

impl Processors {
    pub(super) fn new(kvm: &Kvm, count: u32, features: &CpuFeatures) -> Result<Self> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        Ok(Self {
            count,
            supported,
            features: features.clone(),
            tsc_deadline_timer: kvm.check_extension(Cap::TscDeadlineTimer),
            model: OnceLock::new(),
        })
    }

    /// Gives vCPU `index` its CPUID and MSRs.
    pub(super) fn set_up(&self, vcpu: &VcpuFd, index: u32) -> Result<()> {
        let cpuid = CpuId::from_entries(&self.model(vcpu)?.vcpu(index)).context("CPUID")?;
        vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        set_msrs(vcpu)
    }

    fn model(&self, first: &VcpuFd) -> Result<&Model, cpuid::Error> {
        if let Some(model) = self.model.get() {
            return Ok(model);
        }
        let timers = Timers {
            tsc_khz: first.get_tsc_khz().unwrap_or(0),
            tsc_deadline_timer: self.tsc_deadline_timer,
        };
        let model = Model::new(
            self.supported.as_slice(),
            &self.features,
            timers,
            self.count,
        )?;
        Ok(self.model.get_or_init(|| model.named(name())))
    }
}

/// The name of this host's processors; none if they have none.
fn name() -> [[u32; 4]; 3] {
    let last = __cpuid(EXTENDED).eax;
    let mut leaves = NAME.map(|leaf| {
        let CpuidResult { eax, ebx, ecx, edx } = __cpuid(leaf);
        [eax, ebx, ecx, edx]
    });
    let mut name = [[0; 4]; 3];
    if last >= *NAME.end() {
        name.fill_with(|| leaves.next().unwrap_or_default());
    }
    name
}

/// The registers of the vCPU that boots the kernel.
pub(super) fn enter(vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let initial = vcpu.get_sregs().context("KVM_GET_SREGS")?;
    vcpu.set_sregs(&arch::regs::special(entry, &initial))
        .context("KVM_SET_SREGS")?;
    vcpu.set_regs(&arch::regs::general(entry))
        .context("KVM_SET_REGS")?;
    vcpu.set_fpu(&arch::regs::fpu()).context("KVM_SET_FPU")
}

fn set_msrs(vcpu: &VcpuFd) -> Result<()> {
    let entries = arch::msrs::boot();
    let msrs = Msrs::from_entries(&entries).context("MSRs")?;
    let set = vcpu.set_msrs(&msrs).context("KVM_SET_MSRS")?;
    match entries.get(set) {
        Some(refused) => bail!("KVM_SET_MSRS: MSR {:#x} refused", refused.index),
        None => Ok(()),
    }
}
