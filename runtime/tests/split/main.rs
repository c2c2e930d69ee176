//! Configurations that Docker wrote, split: compared with what is checked in, and rule by rule.
#![allow(clippy::unwrap_used, reason = "it fails the test")]

mod chain;
mod disks;
mod limits;
mod properties;
mod root_disk;
mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use runtime::host::{Device, Host};
use runtime::options::Given;
use runtime::split::{Split, split};
use serde_json::{Value, json};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

fn config(name: &str) -> Value {
    let text = fs::read(testdata(&format!("config.{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn host() -> Host {
    let device = |path: &str, minor| Device {
        path: path.into(),
        major: 10,
        minor,
    };
    Host {
        vm_folder: "/var/lib/runq/vm".into(),
        modules: true,
        commit: Some("0123abc".into()),
        bundle: "/run/bundle".into(),
        container: "c0ffee".into(),
        certificates: Err("no certificates".into()),
        devices: vec![device("/dev/kvm", 232), device("/dev/vhost-net", 238)],
        macvtap_major: Some(237),
        cpus: 8,
        max_vcpus: 16,
        memory_mib: 4096,
        open_files: 1_048_576,
        files: BTreeMap::new(),
    }
}

fn given(options: &[(&'static str, &str)]) -> Given {
    let options = options
        .iter()
        .map(|(name, value)| (*name, value.to_string()));
    options.collect()
}

fn split_with(config: &Value, options: &[(&'static str, &str)]) -> Split {
    split(config, &given(options), &host()).unwrap()
}

fn refusal(config: &Value) -> String {
    let error = split(config, &Given::new(), &host()).unwrap_err();
    format!("{error:#}")
}

/// The configuration `run`, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut config = config("run");
    change(&mut config);
    config
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(item);
}

fn destinations(mounts: &Value) -> Vec<&str> {
    let mounts = mounts.as_array().unwrap().iter();
    mounts
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect()
}

/// Where init mounts something, and the shared path of a bind mount.
fn targets(split: &Split) -> Vec<(&str, &str)> {
    let mounts = split.vm.start.mounts.iter();
    let shown = mounts.map(|mount| match &mount.what {
        proto::Mountable::Bind { path, .. } => (mount.target.as_str(), path.as_str()),
        _ => (mount.target.as_str(), ""),
    });
    shown.collect()
}

/// Both parts as text. The filter is told by whether it is there, and versions are left out.
fn text_of(split: &Split) -> String {
    let mut vm = serde_json::to_value(&split.vm).unwrap();
    let filter = &mut vm["start"]["process"]["seccomp"];
    *filter = json!(!filter.as_array().unwrap().is_empty());
    vm.as_object_mut().unwrap().remove("version");
    let mut runc = split.runc.clone();
    runc["annotations"]["org.runq.version"] = "VERSION".into();
    let files: Vec<_> = split.files.iter().map(|file| format!("{file:?}")).collect();
    let whole = json!({"host": runc, "vm": vm, "files": files});
    format!("{}\n", serde_json::to_string_pretty(&whole).unwrap())
}

/// Each of Docker's configurations becomes what is in testdata/split.NAME.json. After a change that
/// is meant, renew those files: UPDATE_GOLDEN=1 cargo test -p runtime --test split
#[test]
fn docker_configurations_become_what_is_checked_in() {
    let options = [("dns", "8.8.8.8"), ("tmpfs", "/tmp"), ("runqenv", "1")];
    for (name, options) in [
        ("run", &[][..]),
        ("run-i", &[][..]),
        ("run-ti", &[][..]),
        ("badcmd", &[][..]),
        ("init", &[][..]),
        ("detach", &options),
    ] {
        let path = testdata(&format!("split.{name}.json"));
        let text = text_of(&split_with(&config(name), options));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, text).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert!(
            text == expected,
            "config.{name}.json becomes something else than {}; UPDATE_GOLDEN=1 shows what",
            path.display()
        );
    }
}
