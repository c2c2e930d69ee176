//! What runq's own options add to a container, said in the container's own terms: mounts, and files
//! that they show.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{BundleFile, clean};
use crate::host::Host;
use crate::options::Options;
use oci_spec::runtime::{Process, Spec};

/// The options that Docker gives a tmpfs which has none.
const TMPFS_OPTIONS: [&str; 3] = ["noexec", "nosuid", "nodev"];
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where a container finds its environment.
const ENVIRONMENT: &str = "/.runqenv";

/// A configuration with more mounts, and the files for them.
pub(super) struct Added {
    pub(super) config: Value,
    pub(super) files: Vec<BundleFile>,
}

/// Adds what `options` ask for.
pub(super) fn add(config: &Value, spec: &Spec, options: &Options, host: &Host) -> Added {
    let mut config = config.clone();
    let mut mounts = match config["mounts"].take() {
        Value::Array(mounts) => mounts,
        _ => Vec::new(),
    };
    let mut files = Vec::new();
    for path in &options.tmpfs {
        add_tmpfs(&mut mounts, path);
    }
    if options.dns.is_some() {
        // Init makes another one.
        mounts.retain(|mount| destination(mount) != RESOLV_CONF);
    }
    if let Some(process) = spec.process().as_ref().filter(|_| options.environment_file) {
        let file = environment(process);
        mounts.retain(|mount| destination(mount) != ENVIRONMENT);
        mounts.push(bind(&file, ENVIRONMENT, host));
        files.push(file);
    }
    config["mounts"] = Value::Array(mounts);
    Added { config, files }
}

fn destination(mount: &Value) -> String {
    clean(mount["destination"].as_str().unwrap_or_default())
}

/// Before the first mount that is below it: the tmpfs would hide that one.
fn add_tmpfs(mounts: &mut Vec<Value>, path: &str) {
    if mounts.iter().any(|mount| destination(mount) == path) {
        return;
    }
    let inside = format!("{path}/");
    let below = mounts
        .iter()
        .position(|mount| destination(mount).starts_with(&inside));
    let mount = json!({
        "destination": path,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": TMPFS_OPTIONS,
    });
    mounts.insert(below.unwrap_or(mounts.len()), mount);
}

fn bind(file: &BundleFile, destination: &str, host: &Host) -> Value {
    json!({
        "destination": destination,
        "type": "bind",
        "source": host.resolve(file.name),
        "options": ["bind", "ro"],
    })
}

/// The container's environment for a shell to read. Variables whose names no shell knows are left
/// out: the file could not be read with them.
fn environment(process: &Process) -> BundleFile {
    let mut contents = String::new();
    for (name, value) in process
        .env()
        .iter()
        .flatten()
        .filter_map(|entry| entry.split_once('='))
    {
        if !is_shell_name(name) {
            continue;
        }
        let _ = write!(contents, "{name}=\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '$' | '`') {
                contents.push('\\');
            }
            contents.push(character);
        }
        contents.push_str("\"\n");
    }
    BundleFile {
        name: "runqenv",
        contents,
        mode: 0o400,
        owner: (process.user().uid(), process.user().gid()),
    }
}

/// A name as POSIX.1-2017, 3.235 has it.
fn is_shell_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
