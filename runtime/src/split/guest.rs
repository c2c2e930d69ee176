//! The VM: its sizes, and what init mounts and runs in it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, Spec};
use proto::exec::Agent;
use proto::{Device, MountFlags, Mountable, Root, Start, ToGuest};
use vmm::share;

use super::disks::{self, Disk};
use super::resources::Sizes;
use super::{clean, guest_mounts, limits, process};
use crate::host::Host;
use crate::options::Options;
use crate::seccomp;
use crate::spec;
use crate::vmspec::{SHARE_TAG, SHARED_MODULES, VERSION, VmSpec};

/// Kernel settings of every guest; those of the container come after them. kernel.kexec_load_disabled
/// is not among them: our kernel has no kexec, and thus no such setting.
const SYSCTLS: [(&str, &str); 4] = [
    ("fs.file-max", "9223372036854775807"),
    ("kernel.panic_on_oops", "1"),
    ("vm.overcommit_memory", "0"),
    ("vm.panic_on_oom", "0"),
];

/// Device nodes that every /dev has (config-linux.md, Default Devices).
const DEFAULT_DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
];

/// The machine for this container.
///
/// # Errors
/// Names the field that is wrong or that a VM cannot have.
pub(super) fn vm_spec(
    spec: &Spec,
    options: &Options,
    sizes: &Sizes,
    host: &Host,
    disks: &[Disk],
) -> Result<VmSpec> {
    let mut start = start(spec, options, host).context("config.json")?;
    start.disks = disks::of_guest(disks);
    let commit = host
        .commit
        .iter()
        .map(|commit| format!("RUNQ_COMMIT={commit}"));
    start.process.env.extend(commit);
    check_length(&start).context("config.json: arguments, environment and mounts")?;
    Ok(VmSpec {
        version: VERSION,
        cpus: sizes.cpus,
        memory_mib: sizes.memory_mib,
        cpu_features: options.cpu_features.clone(),
        systemd: options.systemd,
        dns: options.dns.clone(),
        p9_cache: options.p9_cache,
        disks: disks::of_monitor(disks),
        crypto: options.crypto.clone(),
        start,
    })
}

/// Who runs further commands, if that is wanted and certificates are there.
fn agent(options: &Options, host: &Host) -> Option<Agent> {
    let certificates = host.certificates.as_ref().ok();
    let certificates = certificates.filter(|_| options.exec)?;
    Some(Agent {
        container: host.container.clone(),
        authority: certificates.authority.clone(),
        certificate: certificates.agent.certificate.clone(),
        key: certificates.agent.key.clone(),
    })
}

/// Refuses here, where the user learns of it, what one message cannot carry.
fn check_length(start: &Start) -> Result<()> {
    let message = ToGuest::Start {
        version: proto::VERSION,
        start: Box::new(start.clone()),
    };
    proto::encode(&message)?;
    Ok(())
}

fn start(spec: &Spec, options: &Options, host: &Host) -> Result<Start> {
    let linux = spec::linux(spec)?;
    let mut process = process::translate(spec::process(spec)?)?;
    if let Some(profile) = linux.seccomp() {
        process.seccomp = seccomp::compile(profile).context("linux.seccomp")?;
    }
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    Ok(Start {
        root: Root {
            file_system: share::file_system(SHARE_TAG, options.p9_cache),
            path: "root".into(),
            read_only: spec::root(spec)?.readonly().unwrap_or_default(),
        },
        mounts: guest_mounts::translate(mounts, options.systemd)?,
        modules: host.modules.then(modules),
        devices: devices(linux).context("linux.devices")?,
        disks: Vec::new(),
        root_disk: options.root_disk.clone(),
        crypto_adapters: options.crypto.is_some(),
        // The monitor finds them in its namespace.
        interfaces: Vec::new(),
        packet_rules: Vec::new(),
        resolver: None,
        resolv_conf: None,
        agent: agent(options, host),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        sysctls: sysctls(spec, linux),
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        read_only_paths: linux.readonly_paths().clone().unwrap_or_default(),
        cgroup: Some(limits::of(linux.resources().as_ref())),
        process,
    })
}

/// What the guest's kernel can load, as the host shares it.
fn modules() -> Mountable {
    Mountable::Bind {
        path: SHARED_MODULES.into(),
        flags: MountFlags::ALL,
    }
}

fn sysctls(spec: &Spec, linux: &Linux) -> Vec<(String, String)> {
    let defaults = SYSCTLS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let domain = spec.domainname().iter().filter(|name| !name.is_empty());
    let domain = domain.map(|name| ("kernel.domainname".to_owned(), name.clone()));
    let own: BTreeMap<_, _> = linux.sysctl().clone().into_iter().flatten().collect();
    defaults.into_iter().chain(domain).chain(own).collect()
}

fn devices(linux: &Linux) -> Result<Vec<Device>> {
    let devices = linux.devices().iter().flatten();
    let own = devices.filter(|device| {
        let path = clean(device.path());
        !DEFAULT_DEVICES.contains(&path.as_str())
    });
    own.map(|device| node(device).with_context(|| clean(device.path())))
        .collect()
}

fn node(device: &LinuxDevice) -> Result<Device> {
    let path = clean(device.path());
    ensure!(path != "/", "this is no path for a device");
    let block = match device.typ() {
        LinuxDeviceType::B => true,
        LinuxDeviceType::C | LinuxDeviceType::U => false,
        other => bail!(
            "type {:?}: only block and character devices are supported",
            other.as_str()
        ),
    };
    Ok(Device {
        path,
        block,
        major: u32::try_from(device.major()).context("major")?,
        minor: u32::try_from(device.minor()).context("minor")?,
        // runc's default; the bits of a file's type are no permissions.
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or_default(),
        gid: device.gid().unwrap_or_default(),
    })
}
