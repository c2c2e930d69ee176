//! What runc mounts for the monitor.

use serde_json::{Value, json};

use super::guest_mounts::{Part, part};
use super::{Host, VMSPEC, clean};
use crate::spec::Spec;
use crate::vmspec::{self, SHARE};

/// What a guest wrote is to the host neither a program nor a device.
const HARMLESS: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// Options that contradict those of the monitor's own mounts.
const CONTRARY: [&str; 15] = [
    "dev",
    "exec",
    "private",
    "rdev",
    "rexec",
    "rprivate",
    "rshared",
    "rslave",
    "rsuid",
    "runbindable",
    "shared",
    "slave",
    "suid",
    "unbindable",
    "defaults",
];

/// The mounts of the host, in order. `mounts` are the container's, as `spec` has them.
pub(super) fn mounts(mounts: &[Value], spec: &Spec, host: &Host) -> Vec<Value> {
    let pairs = || spec.mounts.iter().zip(mounts);
    let given = |path: &str, default: Value| {
        let mut both = pairs().filter(|(mount, _)| part(mount) == Part::Both);
        let found = both.find(|(mount, _)| clean(&mount.destination) == path);
        found.map_or(default, |(_, value)| value.clone())
    };
    let terminal = spec
        .process
        .as_ref()
        .is_some_and(|process| process.terminal);
    let mut all = vec![
        given(
            "/proc",
            json!({"destination": "/proc", "type": "proc", "source": "proc",
            "options": HARMLESS}),
        ),
        given(
            "/dev",
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        ),
    ];
    if terminal {
        all.push(given(
            "/dev/pts",
            json!({"destination": "/dev/pts", "type": "devpts",
            "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666",
            "mode=0620", "gid=5"]}),
        ));
    }
    all.push(run());
    all.push(json!({"destination": vmspec::PATH, "type": "bind",
        "source": host.resolve(VMSPEC),
        "options": ["bind", "ro", "rprivate", "nosuid", "nodev", "noexec"]}));
    all.push(root(spec, host));
    let volumes = pairs().filter(|(mount, _)| part(mount) == Part::Volume);
    all.extend(
        volumes
            .enumerate()
            .map(|(number, (_, value))| volume(number, value, host)),
    );
    all
}

/// Holds the mount points of what follows. runc makes a tmpfs read-only after all mounts.
fn run() -> Value {
    json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs",
        "options": ["ro", "nosuid", "nodev", "noexec", "mode=0755", "size=64k"]})
}

fn root(spec: &Spec, host: &Host) -> Value {
    let root = spec.root.as_ref();
    let path = root.map_or("", |root| root.path.as_str());
    let mut options = vec!["rbind", "rprivate"];
    options.extend(HARMLESS);
    if root.is_some_and(|root| root.readonly) {
        options.push("ro");
    }
    json!({"destination": format!("{SHARE}/root"), "type": "bind",
        "source": host.resolve(path), "options": options})
}

/// A volume with all that its mount says, at another place and with fewer rights.
fn volume(number: usize, mount: &Value, host: &Host) -> Value {
    let mut mount = mount.clone();
    mount["destination"] = format!("{SHARE}/volumes/{number}").into();
    if let Some(source) = mount["source"].as_str() {
        mount["source"] = host.resolve(source).into();
    }
    let given = mount["options"].as_array();
    let given = given.into_iter().flatten().filter_map(Value::as_str);
    let kept = given.filter(|option| !CONTRARY.contains(option) && !HARMLESS.contains(option));
    let options: Vec<_> = kept
        .chain(["rprivate"])
        .chain(HARMLESS)
        .map(Value::from)
        .collect();
    mount["options"] = Value::Array(options);
    mount
}
