//! The container's configuration as the split reads it: config.json of the OCI runtime
//! specification 1.0 to 1.2, and only the fields that decide something.
//!
//! What the host gets is not made from these types but from the JSON itself: fields that nobody
//! here knows stay in it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The whole, `config.md` of the specification.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification.
    pub oci_version: String,
    /// Absent in a container without a command.
    pub process: Option<Process>,
    /// The image's root.
    pub root: Option<Root>,
    /// Name of the host.
    pub hostname: Option<String>,
    /// Name of the NIS domain.
    pub domainname: Option<String>,
    /// What to mount, in this order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Notes of whoever made this.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(default)]
    pub linux: Linux,
}

/// `root`.
#[derive(Debug, Deserialize)]
pub struct Root {
    /// Relative to the bundle, if it is not absolute.
    pub path: String,
    /// Nothing can be written.
    #[serde(default)]
    pub readonly: bool,
}

/// One of `mounts`.
#[derive(Debug, Deserialize)]
pub struct Mount {
    /// Where.
    pub destination: String,
    /// File system; absent for a bind mount that its options show.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Options as of mount(8), and those of the specification.
    #[serde(default)]
    pub options: Vec<String>,
}

impl Mount {
    /// Whether it shows a file or directory of the host.
    pub fn is_bind(&self) -> bool {
        let mut options = self.options.iter();
        self.kind == "bind" || options.any(|option| option == "bind" || option == "rbind")
    }
}

/// `process`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "named and described in config.md, Process")]
pub struct Process {
    #[serde(default)]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    pub cwd: String,
    #[serde(default)]
    pub env: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    pub capabilities: Option<Capabilities>,
    #[serde(default)]
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    #[serde(default)]
    pub user: User,
}

/// `process.consoleSize`, in characters.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "named and described in config.md, Process")]
pub struct ConsoleSize {
    pub height: u64,
    pub width: u64,
}

/// One of `process.rlimits`.
#[derive(Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "named and described in config.md, POSIX process"
)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// `process.capabilities`: names of capabilities(7).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named and described in capabilities(7)")]
pub struct Capabilities {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

/// `process.user`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "named and described in config.md, User")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
}

/// `linux`, config-linux.md of the specification.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "named and described in config-linux.md")]
pub struct Linux {
    pub namespaces: Vec<Namespace>,
    pub devices: Vec<Device>,
    pub resources: Resources,
    pub sysctl: BTreeMap<String, String>,
    pub seccomp: Option<Seccomp>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
}

/// One of `linux.namespaces`.
#[derive(Debug, Deserialize)]
pub struct Namespace {
    /// Type: `pid`, `network`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// One that is there already; empty: a new one.
    #[serde(default)]
    pub path: String,
}

/// One of `linux.devices`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "named and described in config-linux.md, Devices"
)]
pub struct Device {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    pub file_mode: Option<u32>,
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
}

/// `linux.resources`: what a VM is made from, or limits inside of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "named and described in config-linux.md, Control groups"
)]
pub struct Resources {
    pub devices: Vec<DeviceRule>,
    pub memory: Memory,
    pub cpu: Cpu,
    pub pids: Pids,
}

/// One of `linux.resources.devices`.
#[derive(Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "named and described in config-linux.md, Allowed Device list"
)]
pub struct DeviceRule {
    pub allow: bool,
    #[serde(default, rename = "type")]
    pub kind: String,
    pub major: Option<i64>,
    pub minor: Option<i64>,
}

/// `linux.resources.memory`, in bytes; -1 or absent: no limit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "named and described in config-linux.md, Memory"
)]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
}

/// `linux.resources.cpu`, in microseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named and described in config-linux.md, CPU")]
pub struct Cpu {
    pub quota: Option<i64>,
    pub period: Option<u64>,
}

/// `linux.resources.pids`; 0, -1 or absent: no limit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named and described in config-linux.md, PIDs")]
pub struct Pids {
    pub limit: Option<i64>,
}

/// `linux.seccomp`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "named and described in config-linux.md, Seccomp"
)]
pub struct Seccomp {
    pub default_action: String,
    pub default_errno_ret: Option<u32>,
    #[serde(default)]
    pub architectures: Vec<String>,
    #[serde(default)]
    pub syscalls: Vec<SyscallRule>,
}

/// One of `linux.seccomp.syscalls`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "named and described in config-linux.md, Seccomp"
)]
pub struct SyscallRule {
    #[serde(default)]
    pub names: Vec<String>,
    pub action: String,
    pub errno_ret: Option<u32>,
    #[serde(default)]
    pub args: Vec<SyscallArg>,
}

/// One of `linux.seccomp.syscalls[].args`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "named and described in config-linux.md, Seccomp"
)]
pub struct SyscallArg {
    pub index: u32,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: String,
}

impl Spec {
    /// Reads the fields above.
    ///
    /// # Errors
    /// Names the field that is missing or of another type, or a version that is not 1.
    pub fn read(config: &Value) -> Result<Self> {
        // A list of values would do for serde's derived types.
        ensure!(config.is_object(), "not an object");
        let mounts = config["mounts"].as_array();
        let mut mounts = mounts.into_iter().flatten();
        ensure!(mounts.all(Value::is_object), "mounts: not objects");
        let spec: Self = typed(without_nulls(config))?;
        let mut numbers = spec
            .oci_version
            .split(['-', '+'])
            .next()
            .unwrap_or_default()
            .split('.');
        let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
        if numbers.next() != Some("1") || !is_number(numbers.next()) || !is_number(numbers.next()) {
            bail!(
                "ociVersion {:?}: only versions 1.x.y are known",
                spec.oci_version
            );
        }
        Ok(spec)
    }

    /// The process, which a VM cannot be without.
    ///
    /// # Errors
    /// When there is none.
    pub fn process(&self) -> Result<&Process> {
        self.process
            .as_ref()
            .context("process is missing: there is nothing to run")
    }

    /// The image's root, which a VM cannot be without.
    ///
    /// # Errors
    /// When there is none.
    pub fn root(&self) -> Result<&Root> {
        self.root.as_ref().context("root is missing")
    }
}

/// Reads a type, with the path of what is wrong with it.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string() {
        path if path == "." => anyhow!("{}", error.inner()),
        path => anyhow!("{path}: {}", error.inner()),
    })
}

/// To the program that writes the file, null is the same as absent.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(config: &Value) -> String {
        Spec::read(config).unwrap_err().to_string()
    }

    #[test]
    fn versions_of_the_specification() {
        for version in ["1.0.0", "1.0.2-dev", "1.2.0", "1.3.7-rc.1+build"] {
            Spec::read(&json!({"ociVersion": version})).unwrap();
        }
        for version in ["0.9.0", "2.0.0", "1", "1.x.0", "", "10.0.0"] {
            let text = error(&json!({"ociVersion": version}));
            assert_eq!(
                text,
                format!("ociVersion {version:?}: only versions 1.x.y are known")
            );
        }
        assert_eq!(error(&json!({})), "missing field `ociVersion`");
    }

    #[test]
    fn a_field_of_another_type_is_named() {
        let config =
            json!({"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": "root"}}});
        assert_eq!(
            error(&config),
            "process.user.uid: invalid type: string \"root\", expected u32"
        );
    }

    #[test]
    fn null_is_absent() {
        let spec = Spec::read(&json!({
            "ociVersion": "1.0.0",
            "process": {"cwd": "/", "args": null, "env": null, "capabilities": null},
            "mounts": null,
            "linux": {"resources": null, "namespaces": [{"type": "pid", "path": null}]},
        }));
        let spec = spec.unwrap();
        assert!(spec.process().unwrap().args.is_empty());
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.linux.namespaces[0].path, "");
        assert_eq!(spec.root().unwrap_err().to_string(), "root is missing");
    }

    #[test]
    fn bind_mounts_are_told_by_type_or_option() {
        let mount = |kind: &str, options: &[&str]| Mount {
            destination: "/x".into(),
            kind: kind.into(),
            options: options.iter().map(ToString::to_string).collect(),
        };
        assert!(mount("bind", &[]).is_bind());
        assert!(mount("", &["ro", "rbind"]).is_bind());
        assert!(mount("none", &["bind"]).is_bind());
        assert!(!mount("tmpfs", &["rw"]).is_bind());
    }
}
