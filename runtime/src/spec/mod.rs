//! The container's configuration as the split reads it: config.json of the OCI runtime
//! specification 1.x in the types of the oci-spec crate, and only the fields that decide something.
//!
//! What runc gets is not made from these types but from the JSON itself: fields that nobody here
//! knows stay in it.

mod differences;

use anyhow::{Context, Result, anyhow, ensure};
use oci_spec::runtime::{Linux, Mount, Process, Root, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads the fields that decide something; all others are unset in what is returned.
///
/// # Errors
/// Names the field that is missing or that has a wrong value, or a version that is not 1.
pub fn read(config: &Value) -> Result<Spec> {
    // A list of values would do for serde's derived types.
    ensure!(config.is_object(), "not an object");
    let mounts = config["mounts"].as_array();
    let mut mounts = mounts.into_iter().flatten();
    ensure!(mounts.all(Value::is_object), "mounts: not objects");
    let spec: Spec = typed(differences::adapt(config)?)?;
    ensure!(
        is_known(spec.version()),
        "ociVersion {:?}: only versions 1.x.y are known",
        spec.version()
    );
    Ok(spec)
}

/// Whether this is a version 1.x.y, perhaps with more behind `-` or `+`.
fn is_known(version: &str) -> bool {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = numbers.split('.');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    numbers.next() == Some("1") && is_number(numbers.next()) && is_number(numbers.next())
}

/// Reads a type, with the path of what is wrong with it.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string() {
        path if path == "." => anyhow!("{}", error.inner()),
        path => anyhow!("{path}: {}", error.inner()),
    })
}

/// The process, which a VM cannot be without.
///
/// # Errors
/// When there is none.
pub fn process(spec: &Spec) -> Result<&Process> {
    let process = spec.process().as_ref();
    process.context("process is missing: there is nothing to run")
}

/// The image's root, which a VM cannot be without.
///
/// # Errors
/// When there is none.
pub fn root(spec: &Spec) -> Result<&Root> {
    let root = spec.root().as_ref().context("root is missing")?;
    // The crate has a value for it, runc takes the bundle.
    ensure!(root.path() != "", "root.path is missing");
    Ok(root)
}

/// What only Linux has, which a VM cannot be without.
///
/// # Errors
/// When it is missing.
pub fn linux(spec: &Spec) -> Result<&Linux> {
    spec.linux().as_ref().context("linux is missing")
}

/// Whether a mount shows a file or directory of the host.
pub fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind")
        || options.any(|option| option == "bind" || option == "rbind")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(config: &Value) -> String {
        read(config).unwrap_err().to_string()
    }

    #[test]
    fn versions_of_the_specification() {
        for version in ["1.0.0", "1.0.2-dev", "1.2.0", "1.3.7-rc.1+build"] {
            read(&json!({"ociVersion": version})).unwrap();
        }
        for version in ["0.9.0", "2.0.0", "1", "1.x.0", "", "10.0.0"] {
            let text = error(&json!({"ociVersion": version}));
            assert_eq!(
                text,
                format!("ociVersion {version:?}: only versions 1.x.y are known")
            );
        }
        assert_eq!(error(&json!({})), error(&json!({"ociVersion": ""})));
    }

    #[test]
    fn a_field_of_another_type_is_named() {
        let config =
            json!({"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": "root"}}});
        assert_eq!(
            error(&config),
            "process.user.uid: invalid type: string \"root\", expected u32"
        );
        let config = json!({"ociVersion": "1.0.0", "linux": {"namespaces": [{"type": "moon"}]}});
        let text = error(&config);
        let begin = "linux.namespaces[0].type: unknown variant `moon`, expected one of `mount`";
        assert!(text.starts_with(begin), "{text}");
    }

    #[test]
    fn what_a_vm_cannot_be_without_is_told() {
        let spec = read(&json!({"ociVersion": "1.0.0", "root": {}})).unwrap();
        assert_eq!(root(&spec).unwrap_err().to_string(), "root.path is missing");
        assert_eq!(linux(&spec).unwrap_err().to_string(), "linux is missing");
        assert!(process(&spec).is_err());
    }

    #[test]
    fn bind_mounts_are_told_by_type_or_option() {
        let is_bind = |mount| is_bind(&serde_json::from_value(mount).unwrap());
        assert!(is_bind(json!({"destination": "/x", "type": "bind"})));
        assert!(is_bind(
            json!({"destination": "/x", "options": ["ro", "rbind"]})
        ));
        assert!(is_bind(
            json!({"destination": "/x", "type": "none", "options": ["bind"]})
        ));
        assert!(!is_bind(
            json!({"destination": "/x", "type": "tmpfs", "options": ["rw"]})
        ));
    }
}
