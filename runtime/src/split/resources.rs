//! How large the VM is, and the limits of the host's control group around it.

use anyhow::{Result, ensure};
use oci_spec::runtime::{LinuxCpu, Spec};
use serde_json::{Map, Value, json};
use vmm::share::{FILE, most_files};

use super::disks::{self, Disk};
use super::limits::DEFAULT_PERIOD;
use crate::host::Host;
use crate::options::Options;

const MIB: u64 = 1 << 20;
/// What the monitor needs beside the guest's memory and the files that the guest knows, in MiB: itself, page tables, and
/// the host's caches, which it does better with.
const MONITOR: u64 = 64;

/// Devices that any container may use: null, zero, full, random, urandom, tty, console, ptmx,
/// and all pts (Documentation/admin-guide/devices.txt).
const USUAL: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Sizes of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Virtual CPUs.
    pub(super) cpus: u32,
    /// Guest memory in MiB.
    pub(super) memory_mib: u64,
    /// Bytes that the host's memory limits are above the container's.
    raise: i64,
}

impl Sizes {
    /// The options' sizes plus the container's limits: what the guest's system needs comes on top
    /// of what the container may use. For the limits there is only as much as the host has.
    ///
    /// # Errors
    /// When the options ask for what this host cannot give.
    pub(super) fn of(spec: &Spec, options: &Options, host: &Host) -> Result<Self> {
        let resources = spec.linux().as_ref();
        let resources = resources.and_then(|linux| linux.resources().as_ref());
        let memory = resources.and_then(|resources| *resources.memory());
        let limit = memory.and_then(|memory| memory.limit());
        let limit = limit.filter(|limit| *limit > 0);
        let limit = limit.map_or(0, i64::unsigned_abs);
        ensure!(
            options.memory_mib <= host.memory_mib,
            "{} MiB of memory (RUNQ_MEM, --mem): this host has {} MiB",
            options.memory_mib,
            host.memory_mib
        );
        ensure!(
            options.cpus <= host.max_vcpus,
            "{} vCPUs (RUNQ_CPU, --cpu): this host's KVM gives a machine {} at most",
            options.cpus,
            host.max_vcpus
        );
        let memory_mib = (options.memory_mib + limit.div_ceil(MIB)).min(host.memory_mib);
        let cpu = resources.and_then(|resources| resources.cpu().as_ref());
        let quota = u32::try_from(cpu.map_or(0, cpus)).unwrap_or(u32::MAX);
        let room = host.cpus.saturating_sub(options.cpus);
        Ok(Self {
            cpus: options.cpus + quota.min(room),
            memory_mib,
            raise: raise(memory_mib, limit),
        })
    }
}

/// Bytes that a limit of the container's has to be raised by to be one of the monitor with its guest.
fn raise(memory_mib: u64, limit: u64) -> i64 {
    let files = most_files(memory_mib.saturating_mul(MIB)).saturating_mul(FILE);
    let whole = (memory_mib + MONITOR).saturating_mul(MIB);
    let whole = whole.saturating_add(files);
    i64::try_from(whole.saturating_sub(limit)).unwrap_or(i64::MAX)
}

/// The processors that `--cpus` asks for: quota over period, rounded up.
fn cpus(cpu: &LinuxCpu) -> u64 {
    let quota = cpu.quota().filter(|quota| *quota > 0).unwrap_or(0);
    let period = cpu.period().filter(|period| *period > 0);
    quota
        .unsigned_abs()
        .div_ceil(period.unwrap_or(DEFAULT_PERIOD))
}

/// `linux.resources` for runc.
pub(super) fn rewrite(
    resources: &mut Map<String, Value>,
    sizes: &Sizes,
    host: &Host,
    disks: &[Disk],
) {
    let mut rules = device_rules(host);
    rules.extend(disks::device_rules(disks));
    resources.insert("devices".into(), Value::Array(rules));
    // The guest enforces this limit: its processes are not the host's.
    resources.shift_remove("pids");
    raise_memory(resources, sizes.raise);
}

/// `linux.resources` of an update, for runc: the machine keeps the memory that it was started with, whatever the
/// container's limit is now.
pub(crate) fn update(resources: &mut Map<String, Value>, memory_mib: u64, limit: i64) {
    resources.shift_remove("pids");
    let limit = u64::try_from(limit).unwrap_or_default();
    raise_memory(resources, raise(memory_mib, limit));
}

fn raise_memory(resources: &mut Map<String, Value>, raise: i64) {
    let Some(memory) = resources.get_mut("memory").and_then(Value::as_object_mut) else {
        return;
    };
    for name in ["limit", "swap", "reservation"] {
        let Some(limit) = memory.get_mut(name) else {
            continue;
        };
        if let Some(bytes) = limit.as_i64().filter(|bytes| *bytes > 0) {
            *limit = json!(bytes.saturating_add(raise));
        }
    }
}

/// Everything is denied but what the monitor uses.
fn device_rules(host: &Host) -> Vec<Value> {
    let allow = |major: u32, minor: Option<u32>| {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rule
    };
    let usual = USUAL.into_iter();
    let ours = host
        .devices
        .iter()
        .map(|device| (device.major, Some(device.minor)));
    let macvtap = host.macvtap_major.map(|major| (major, None));
    let allowed = usual.chain(ours).chain(macvtap);
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend(allowed.map(|(major, minor)| allow(major, minor)));
    rules
}
