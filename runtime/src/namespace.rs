//! A network namespace that a container is given by its path: whose is it?
//!
//! Podman and CNI make one for the container and fill it before there is any process; `--network
//! container:ID` names that of another container, in which processes run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Refuses a container in a network namespace that has processes already: the VM would take its
/// interfaces away from them.
///
/// # Errors
/// When there are such processes, or the namespace cannot be looked at.
pub(crate) fn check(config: &Value) -> Result<()> {
    let namespaces = config["linux"]["namespaces"].as_array();
    let mut namespaces = namespaces.into_iter().flatten();
    let network = namespaces.find(|namespace| namespace["type"] == "network");
    let path = network.and_then(|network| network["path"].as_str());
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    if let Some(process) = inhabitant(Path::new(path), Path::new("/proc"))
        .with_context(|| format!("network namespace {path}"))?
    {
        bail!(
            "network namespace {path}: process {process} is in it: --network container:ID is not \
             supported: put both containers on one network, where they know each other by name"
        );
    }
    Ok(())
}

/// A process in the namespace, if there is one.
fn inhabitant(namespace: &Path, proc: &Path) -> std::io::Result<Option<u32>> {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let wanted = identity(namespace)?;
    let processes = fs::read_dir(proc)?.flatten().filter_map(|entry| {
        let process = entry.file_name().to_str()?.parse::<u32>().ok()?;
        Some((process, entry.path().join("ns/net")))
    });
    // One that has ended meanwhile has left it.
    let mut inside = processes.filter(|(_, path)| identity(path).is_ok_and(|own| own == wanted));
    Ok(inside.next().map(|(process, _)| process))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn config(path: &str) -> Value {
        json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": path}]}})
    }

    #[test]
    fn a_namespace_with_processes_is_refused() {
        let error = check(&config("/proc/self/ns/net")).unwrap_err().to_string();
        assert!(
            error.starts_with("network namespace /proc/self/ns/net: process "),
            "{error}"
        );
        assert!(
            error.contains("put both containers on one network"),
            "{error}"
        );
        let error = check(&config("/nonexistent")).unwrap_err();
        assert!(format!("{error:#}").starts_with("network namespace /nonexistent: No such file"));
    }

    #[test]
    fn a_namespace_of_its_own_will_do() {
        check(&json!({"linux": {"namespaces": [{"type": "network"}]}})).unwrap();
        check(&config("")).unwrap();
        check(&json!({})).unwrap();
    }

    #[test]
    fn a_namespace_without_processes_will_do() {
        let proc = tempfile::tempdir().unwrap();
        let namespace = |name: &str| {
            let path = proc.path().join(name);
            fs::write(&path, "").unwrap();
            path
        };
        let (alone, taken) = (namespace("alone"), namespace("taken"));
        let process = proc.path().join("17/ns");
        fs::create_dir_all(&process).unwrap();
        symlink(&taken, process.join("net")).unwrap();
        assert_eq!(inhabitant(&alone, proc.path()).unwrap(), None);
        assert_eq!(inhabitant(&taken, proc.path()).unwrap(), Some(17));
    }
}
