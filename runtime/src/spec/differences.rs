//! Where a config.json of Docker, containerd or Podman differs from what the oci-spec crate reads.
//!
//! Those programs are written in Go: there, a field that is absent, null or empty is the same, and a
//! name is any string. The crate requires some fields, and knows all names.

use std::str::FromStr;

use anyhow::{Result, ensure};
use oci_spec::runtime::{Arch, Capability};
use serde_json::{Map, Value, json};

/// The members that are read of the objects at each path. runc judges all others, by a version of
/// the specification that may be newer than the crate's. A filter's flags and listener have no
/// effect: init installs it without.
#[rustfmt::skip] // one path a line
const READ: [(&str, &str); 11] = [
    ("", "ociVersion process root hostname domainname mounts annotations linux"),
    ("process", "terminal consoleSize user args env cwd capabilities rlimits noNewPrivileges oomScoreAdj"),
    ("root", "path readonly"),
    ("mounts.*", "destination type source options"),
    ("linux", "namespaces devices resources sysctl seccomp maskedPaths readonlyPaths"),
    ("linux.resources", "devices memory cpu pids"),
    ("linux.resources.devices.*", "allow type major minor access"),
    ("linux.resources.memory", "limit reservation swap"),
    ("linux.resources.cpu", "quota period"),
    ("linux.seccomp", "defaultAction defaultErrnoRet architectures syscalls"),
    ("linux.seccomp.syscalls.*", "names action errnoRet args"),
];

/// A copy of the configuration that the crate reads as Go programs would.
///
/// # Errors
/// Names a capability that is unknown.
pub(super) fn adapt(config: &Value) -> Result<Value> {
    let mut config = without_nulls(config);
    for (path, names) in READ {
        for object in objects(&mut config, path) {
            object.retain(|name, _| names.split(' ').any(|read| read == name));
        }
    }
    add_missing(&mut config);
    remove_empty_types(&mut config);
    remove_unknown_architectures(&mut config);
    check_capabilities(&mut config)?;
    Ok(config)
}

/// A nil slice, map or pointer is written as null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(Map::from_iter(
            members
                .iter()
                .filter(|(_, member)| !member.is_null())
                .map(|(name, member)| (name.clone(), without_nulls(member))),
        )),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Adds fields that the crate requires and others do not: without a user, the process is root's, and
/// a rule may be of no system call.
fn add_missing(config: &mut Value) {
    for (path, name, value) in [
        ("process", "user", json!({})),
        ("linux.seccomp.syscalls.*", "names", json!([])),
    ] {
        for object in objects(config, path) {
            object.entry(name).or_insert_with(|| value.clone());
        }
    }
}

/// A rule without a type is one of all devices.
fn remove_empty_types(config: &mut Value) {
    for rule in objects(config, "linux.resources.devices.*") {
        if rule.get("type").is_some_and(|kind| kind == "") {
            rule.shift_remove("type");
        }
    }
}

/// No guest has an architecture that even the crate does not know.
fn remove_unknown_architectures(config: &mut Value) {
    for list in all(config, "linux.seccomp.architectures") {
        if let Some(names) = list.as_array_mut() {
            names.retain(|name| {
                name.as_str()
                    .is_none_or(|name| Arch::from_str(name).is_ok())
            });
        }
    }
}

/// The crate would take `chown` for `CAP_CHOWN`, which runc does not.
fn check_capabilities(config: &mut Value) -> Result<()> {
    for name in all(config, "process.capabilities.*.*") {
        let Some(name) = name.as_str() else { continue };
        let known = name.strip_prefix("CAP_").map(Capability::from_str);
        ensure!(
            matches!(known, Some(Ok(_))),
            "process.capabilities: capability {name:?} is unknown"
        );
    }
    Ok(())
}

/// The objects at a path.
fn objects<'a>(value: &'a mut Value, path: &str) -> Vec<&'a mut Map<String, Value>> {
    let values = all(value, path).into_iter();
    values.filter_map(Value::as_object_mut).collect()
}

/// The values at a path, where `*` stands for any member or item.
fn all<'a>(value: &'a mut Value, path: &str) -> Vec<&'a mut Value> {
    let names = path.split('.').filter(|name| !name.is_empty());
    names.fold(vec![value], |values, name| {
        let children = values.into_iter().flat_map(|value| match (name, value) {
            ("*", Value::Array(items)) => items.iter_mut().collect(),
            ("*", Value::Object(members)) => members.values_mut().collect(),
            (name, value) => Vec::from_iter(value.get_mut(name)),
        });
        children.collect()
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process, Spec};

    use super::super::read;
    use super::*;

    /// A configuration with these fields.
    fn spec(fields: Value) -> Spec {
        try_spec(fields).unwrap()
    }

    fn try_spec(mut fields: Value) -> Result<Spec> {
        fields["ociVersion"] = "1.0.0".into();
        read(&fields)
    }

    fn process(mut fields: Value) -> Process {
        fields["cwd"] = "/".into();
        spec(json!({"process": fields})).process().clone().unwrap()
    }

    fn resources(resources: Value) -> LinuxResources {
        let spec = spec(json!({"linux": {"resources": resources}}));
        let linux = spec.linux().as_ref().unwrap();
        linux.resources().clone().unwrap()
    }

    fn seccomp(mut profile: Value) -> LinuxSeccomp {
        profile["defaultAction"] = "SCMP_ACT_ERRNO".into();
        let spec = spec(json!({"linux": {"seccomp": profile}}));
        spec.linux().as_ref().unwrap().seccomp().clone().unwrap()
    }

    #[test]
    fn null_is_absent() {
        let spec = spec(json!({
            "process": {"cwd": "/", "args": null, "env": null, "capabilities": null},
            "mounts": null,
            "linux": {"resources": null, "namespaces": [{"type": "pid", "path": null}]},
        }));
        assert_eq!(*spec.process().as_ref().unwrap().args(), None);
        assert_eq!(*spec.mounts(), None);
        let namespaces = spec.linux().as_ref().unwrap().namespaces();
        assert_eq!(*namespaces.as_ref().unwrap()[0].path(), None);
    }

    #[test]
    fn root_is_the_user_unless_there_is_one() {
        assert_eq!(process(json!({})).user().uid(), 0);
        assert_eq!(process(json!({"user": {"uid": 5}})).user().uid(), 5);
    }

    #[test]
    fn what_is_runcs_to_judge_has_any_value() {
        process(json!({
            "ioPriority": {"class": "IOPRIO_CLASS_NEW"},
            "scheduler": {"policy": "SCHED_NEW", "flags": ["SCHED_FLAG_NEW"]},
            "execCPUAffinity": {"initial": "all"},
            "apparmorProfile": 7,
        }));
        resources(json!({
            "hugepageLimits": [{"pageSize": "2MB", "limit": u64::MAX}],
            "blockIO": {"weight": -1},
            "network": {"classID": -1},
            "rdma": {"mlx5": 1},
            "unified": {"memory.high": 1},
            "memory": {"kernel": "none", "swappiness": -1},
            "cpu": {"shares": -1, "cpus": 3},
            "devices": [{"allow": false, "mode": 7}],
        }));
        spec(json!({
            "hooks": {"prestart": [{"path": 1}]},
            "mounts": [{"destination": "/a", "uidMappings": [{"hostID": -1}]}],
            "linux": {
                "personality": {"domain": "LINUX64"},
                "intelRdt": 1,
                "timeOffsets": 1,
                "memoryPolicy": {"mode": "MPOL_NEW"},
                "netDevices": 1,
                "uidMappings": [{"size": -1}],
            },
            "windows": 1, "vm": 1, "solaris": 1, "zos": 1, "freebsd": 1,
        }));
    }

    #[test]
    fn a_rule_without_a_type_is_one_of_all_devices() {
        let rules = json!([{"allow": true, "type": ""}, {"allow": true, "type": "c", "major": -1}]);
        let resources = resources(json!({"devices": rules}));
        let rules = resources.devices().as_ref().unwrap();
        assert_eq!(rules[0].typ(), None);
        assert_eq!(rules[1].typ().unwrap().as_str(), "c");
        assert_eq!(rules[1].major(), Some(-1));
    }

    #[test]
    fn a_limit_may_be_negative() {
        let resources = resources(json!({
            "memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1},
        }));
        assert_eq!(resources.memory().unwrap().limit(), Some(-1));
        assert_eq!(resources.pids().unwrap().limit(), -1);
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(-1));
    }

    #[test]
    fn capabilities_are_named_as_runc_has_them() {
        let named = process(json!({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_CHOWN"]}}));
        let named = named.capabilities().as_ref().unwrap();
        assert_eq!(*named.bounding(), Some([Capability::Chown].into()));
        for name in [
            "CAP_FLY",
            "cap_chown",
            "CHOWN",
            "CAP_CAP_CHOWN",
            "CAP_chown",
        ] {
            let process = json!({"cwd": "/", "capabilities": {"ambient": [name]}});
            let error = try_spec(json!({"process": process})).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("process.capabilities: capability {name:?} is unknown")
            );
        }
    }

    #[test]
    fn an_architecture_that_is_unknown_is_none_of_the_guest() {
        let names = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_NEW", "SCMP_ARCH_X86"]);
        assert_eq!(
            *seccomp(json!({"architectures": names})).architectures(),
            Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86])
        );
    }

    #[test]
    fn flags_and_listeners_of_a_filter_are_passed_over() {
        let profile = seccomp(json!({
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_NEW"],
            "listenerPath": "/run/x", "listenerMetadata": 7,
            "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": null, "comment": "x"}],
        }));
        assert_eq!((profile.flags(), profile.listener_path()), (&None, &None));
        assert!(profile.syscalls().as_ref().unwrap()[0].names().is_empty());
    }
}
