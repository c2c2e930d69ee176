//! The configuration for runc, in which the monitor is the command.

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};
use vmm::share::CAPABILITIES;

use super::disks::{self, Disk};
use super::resources::{self, Sizes};
use super::{ANNOTATION, runc_mounts};
use crate::host::Host;
use crate::options::Options;

/// Rewrites `config`, which reads as `spec`. What is not named here stays as it is.
///
/// # Errors
/// When a limit becomes more than there can be, or a part is no object.
pub(super) fn rewrite(
    config: &Value,
    spec: &Spec,
    options: &Options,
    sizes: &Sizes,
    host: &Host,
    disks: &[Disk],
) -> Result<Value> {
    let mut config = config.clone();
    let whole = config.as_object_mut().context("config.json: no object")?;
    let mut mounts = match whole.get("mounts") {
        Some(Value::Array(mounts)) => runc_mounts::mounts(mounts, spec, host),
        _ => runc_mounts::mounts(&[], spec, host),
    };
    mounts.extend(disks::mounts(disks));
    whole.insert("mounts".into(), Value::Array(mounts));
    whole.insert(
        "root".into(),
        json!({"path": host.vm_folder, "readonly": true}),
    );
    process(member(whole, "process")?, options, host);
    member(whole, "annotations")?.insert(ANNOTATION.into(), env!("CARGO_PKG_VERSION").into());
    let linux = member(whole, "linux")?;
    linux.insert("devices".into(), devices(host, disks));
    // Both move to the guest. The monitor has a filter of its own.
    linux.shift_remove("seccomp");
    linux.shift_remove("sysctl");
    resources::rewrite(member(linux, "resources")?, sizes, host, disks);
    Ok(config)
}

/// A part of the configuration, which is made if it is not there.
fn member<'a>(of: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>> {
    let member = of.entry(name).or_insert(Value::Null);
    if member.is_null() {
        *member = json!({});
    }
    member
        .as_object_mut()
        .with_context(|| format!("config.json: {name} is no object"))
}

/// The monitor as the process. Terminal, labels and the score for the host's lack of memory stay.
fn process(process: &mut Map<String, Value>, options: &Options, host: &Host) {
    let log = options.log.iter();
    let env: Vec<_> = log.map(|filter| format!("RUNQ_LOG={filter}")).collect();
    // What a share needs, and what the monitor needs before it confines itself: to take the
    // container's interfaces, and to leave all files.
    let capabilities = CAPABILITIES.iter().chain(&["NET_ADMIN", "SYS_CHROOT"]);
    let capabilities: Vec<_> = capabilities.map(|name| format!("CAP_{name}")).collect();
    let limit = |name: &str, limit: u64| json!({"type": name, "soft": limit, "hard": limit});
    for (name, value) in [
        ("args", json!(["/proxy"])),
        ("env", json!(env)),
        ("cwd", json!("/")),
        ("user", json!({"uid": 0, "gid": 0})),
        (
            "capabilities",
            json!({
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            }),
        ),
        ("noNewPrivileges", json!(true)),
        (
            "rlimits",
            // One descriptor for each file that the guest knows; no core dump with a guest's memory.
            json!([
                limit("RLIMIT_NOFILE", host.open_files),
                limit("RLIMIT_CORE", 0)
            ]),
        ),
    ] {
        process.insert(name.into(), value);
    }
}

fn devices(host: &Host, disks: &[Disk]) -> Value {
    let devices = host.devices.iter().map(|device| {
        json!({
            "path": device.path,
            "type": "c",
            "major": device.major,
            "minor": device.minor,
            "fileMode": 0o600,
            "uid": 0,
            "gid": 0,
        })
    });
    Value::Array(devices.chain(disks::nodes(disks)).collect())
}
