//! What runc mounts for the monitor.

use oci_spec::runtime::{Process, Root, Spec};
use serde_json::{Value, json};

use super::guest_mounts::{Part, part};
use super::{KILLS, STARTED, VMSPEC, clean};
use crate::host::{Host, MODULES};
use crate::vmspec::{self, SHARE, SHARED_MODULES};

/// To the host, what a guest wrote is neither a program nor a device.
const HARMLESS: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// The same, for what is mounted below, too. runc knows them from 1.1 on, and Linux from 5.12 on;
/// an older runc passes them over.
const HARMLESS_BELOW: [&str; 3] = ["rnosuid", "rnodev", "rnoexec"];

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

/// The mounts for runc, in order. `mounts` are the container's, as `spec` has them.
pub(super) fn mounts(mounts: &[Value], spec: &Spec, host: &Host) -> Vec<Value> {
    let pairs = || spec.mounts().iter().flatten().zip(mounts);
    let own = own();
    let terminal = spec.process().as_ref().and_then(Process::terminal);
    let terminal = terminal.unwrap_or_default();
    let needed = own.into_iter().filter(|(path, _)| terminal || *path != PTS);
    let mut all: Vec<_> = needed
        .map(|(path, default)| {
            let mut both = pairs().filter(|(mount, _)| part(mount) == Part::Both);
            let given = both.find(|(mount, _)| clean(mount.destination()) == path);
            given.map_or(default, |(_, value)| value.clone())
        })
        .collect();
    let told = [(vmspec::KILLS, KILLS), (vmspec::STARTED, STARTED)];
    all.extend([run(), vm_spec(host)]);
    all.extend(told.map(|(path, name)| writable(path, &host.resolve(name))));
    all.extend([sys(), root(spec, host)]);
    all.extend(host.modules.then(|| modules(host)));
    let volumes = pairs().filter(|(mount, _)| part(mount) == Part::Volume);
    let volumes = volumes.map(|(_, value)| value).enumerate();
    all.extend(volumes.map(|(number, value)| volume(number, value, host)));
    all
}

/// Where runc opens the terminal.
const PTS: &str = "/dev/pts";

/// What is mounted on both sides, as it is if the container does not say so.
fn own() -> [(&'static str, Value); 3] {
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let pts = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ];
    [
        ("/proc", mount("/proc", "proc", "proc", &HARMLESS)),
        ("/dev", mount("/dev", "tmpfs", "tmpfs", &dev)),
        (PTS, mount(PTS, "devpts", "devpts", &pts)),
    ]
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// Holds the mount points of what follows. runc makes a tmpfs read-only after all mounts.
fn run() -> Value {
    let options = ["ro", "nosuid", "nodev", "noexec", "mode=0755", "size=64k"];
    mount("/run", "tmpfs", "tmpfs", &options)
}

/// Something of ours, which nobody changes.
fn bind(destination: &str, source: &str) -> Value {
    let options = ["bind", "ro", "rprivate", "nosuid", "nodev", "noexec"];
    mount(destination, "bind", source, &options)
}

fn vm_spec(host: &Host) -> Value {
    bind(vmspec::PATH, &host.resolve(VMSPEC))
}

/// What the guest's kernel can load.
fn modules(host: &Host) -> Value {
    let source = format!("{}/{MODULES}", host.vm_folder);
    bind(&format!("{SHARE}/{SHARED_MODULES}"), &source)
}

/// By which the monitor tells something to the host.
fn writable(destination: &str, source: &str) -> Value {
    let options = ["bind", "rprivate", "nosuid", "nodev", "noexec"];
    mount(destination, "bind", source, &options)
}

/// The devices of the container's network namespace: a macvtap's numbers are told nowhere else.
fn sys() -> Value {
    let options = ["ro", "nosuid", "nodev", "noexec"];
    mount(vmspec::SYS, "sysfs", "sysfs", &options)
}

/// What [`root`] mounts can only be read.
pub(super) fn make_root_read_only(config: &mut Value) {
    let mounts = config["mounts"].as_array_mut().into_iter().flatten();
    let place = format!("{SHARE}/root");
    for mount in mounts.filter(|mount| mount["destination"] == *place) {
        if let Some(options) = mount["options"].as_array_mut() {
            options.push("ro".into());
        }
    }
}

/// The image's root, in which init makes the mount points that are missing, as runc does.
fn root(spec: &Spec, host: &Host) -> Value {
    let path = spec.root().as_ref().map(Root::path);
    let source = host.resolve(&path.map(|path| path.to_string_lossy()).unwrap_or_default());
    let options = ["rbind", "rprivate"].into_iter();
    let options: Vec<_> = options.chain(HARMLESS).chain(HARMLESS_BELOW).collect();
    mount(&format!("{SHARE}/root"), "bind", &source, &options)
}

/// A volume with all that its mount says, at another place and with fewer rights. Whether it is
/// read-only, with or without what is mounted below, stays as it is.
fn volume(number: usize, mount: &Value, host: &Host) -> Value {
    let mut mount = mount.clone();
    mount["destination"] = format!("{SHARE}/volumes/{number}").into();
    if let Some(source) = mount["source"].as_str() {
        mount["source"] = host.resolve(source).into();
    }
    let given = mount["options"].as_array();
    let given = given.into_iter().flatten().filter_map(Value::as_str);
    let ours = || HARMLESS.into_iter().chain(HARMLESS_BELOW);
    let kept = given.filter(|option| !CONTRARY.contains(option) && !ours().any(|o| o == *option));
    let options: Vec<_> = kept.chain(["rprivate"]).chain(ours()).collect();
    mount["options"] = options.into();
    mount
}
