//! Making runq known to Docker: an entry of `runtimes` in its daemon.json.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

/// Where Docker's daemon looks for its configuration.
pub const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// The runtime's name: `docker run --runtime runq`.
pub const NAME: &str = "runq";

/// The key of the runtime for containers that name none.
const DEFAULT: &str = "default-runtime";

type Object = Map<String, Value>;

/// Adds the runtime with this program to Docker's configuration file, which is created if it is
/// missing; all else in it stays. Returns whether anything changed.
///
/// # Errors
/// When the file is not what Docker takes, or cannot be written; then it is as it was.
pub fn register(file: &Path, program: &Path) -> Result<bool> {
    let program = program
        .to_str()
        .with_context(|| format!("{}: the name has to be UTF-8", program.display()))?;
    change(file, |config| add(config, program))
}

/// Takes the runtime out again, as the default runtime, too, without which Docker would not start;
/// and the file away if nothing is left in it. Returns whether anything changed.
///
/// # Errors
/// As [`register`].
pub fn unregister(file: &Path) -> Result<bool> {
    change(file, remove)
}

fn add(config: &mut Object, program: &str) -> Result<()> {
    let runtimes = object_in(config, "runtimes")?;
    let entry = object_in(runtimes, NAME)?;
    entry.insert("path".to_owned(), json!(program));
    Ok(())
}

fn remove(config: &mut Object) -> Result<()> {
    if config.get(DEFAULT).is_some_and(|name| name == NAME) {
        config.shift_remove(DEFAULT);
    }
    if !config.contains_key("runtimes") {
        return Ok(());
    }
    let runtimes = object_in(config, "runtimes")?;
    runtimes.shift_remove(NAME);
    if runtimes.is_empty() {
        config.shift_remove("runtimes");
    }
    Ok(())
}

/// The object of this name, which may be created.
fn object_in<'a>(parent: &'a mut Object, name: &str) -> Result<&'a mut Object> {
    parent
        .entry(name)
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| anyhow!("{name:?} is not a JSON object: correct it first"))
}

fn change(file: &Path, how: impl FnOnce(&mut Object) -> Result<()>) -> Result<bool> {
    // A link is followed, so that it stays one.
    let path = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let before = read(&path).with_context(|| path.display().to_string())?;
    let mut after = before.clone();
    how(&mut after).with_context(|| path.display().to_string())?;
    if before == after {
        return Ok(false);
    }
    let written = if after.is_empty() && !file.is_symlink() {
        fs::remove_file(&path).map_err(Into::into)
    } else {
        write(&path, &after)
    };
    written.with_context(|| format!("cannot change {}", path.display()))?;
    Ok(true)
}

/// A file that is missing or empty reads as an empty object, as for Docker.
fn read(path: &Path) -> Result<Object> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text?,
    };
    if text.trim().is_empty() {
        return Ok(Object::new());
    }
    serde_json::from_str(&text).context("not a JSON object: correct it first")
}

/// Replaces the file at once, so that it is there as a whole at any time.
fn write(path: &Path, config: &Object) -> Result<()> {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    fs::create_dir_all(&folder)?;
    let mut new = NamedTempFile::new_in(&folder)?;
    serde_json::to_writer_pretty(&mut new, config)?;
    new.write_all(b"\n")?;
    match fs::metadata(path) {
        Ok(old) => {
            new.as_file().set_permissions(old.permissions())?;
            fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        Err(_) => new
            .as_file()
            .set_permissions(Permissions::from_mode(0o644))?,
    }
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn register_runq(path: &Path) -> Result<bool> {
        register(path, Path::new("/var/lib/runq/runq"))
    }

    #[test]
    fn what_was_there_stays_in_its_order() {
        let before = r#"{"z": 1, "runtimes": {"kata": {"path": "/k"}}, "a": [2.50]}"#;
        let (_folder, path) = file(before);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(register_runq(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        let position = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(position("\"z\"") < position("kata") && position("kata") < position("runq"));
        assert!(position("runq") < position("\"a\""));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!register_runq(&path).unwrap(), "once is enough");

        assert!(unregister(&path).unwrap());
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(before).unwrap());
        assert!(!unregister(&path).unwrap());
    }

    #[test]
    fn the_users_arguments_survive_an_update() {
        let old = r#"{"runtimes": {"runq": {"path": "/old", "runtimeArgs": ["--cpu", "2"]}}}"#;
        let (_folder, path) = file(old);
        register_runq(&path).unwrap();
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let entry = &value["runtimes"]["runq"];
        assert_eq!(entry["path"], "/var/lib/runq/runq");
        assert_eq!(entry["runtimeArgs"], json!(["--cpu", "2"]));
    }

    #[test]
    fn a_file_that_only_has_runq_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker/daemon.json");
        assert!(!unregister(&path).unwrap());
        assert!(register_runq(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert!(unregister(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn docker_is_not_left_with_a_default_runtime_that_is_gone() {
        let text = r#"{"default-runtime": "runq", "runtimes": {"runq": {"path": "/r"}}, "a": 1}"#;
        let (_folder, path) = file(text);
        assert!(unregister(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"a\": 1\n}\n");
        fs::write(&path, r#"{"default-runtime": "runc"}"#).unwrap();
        assert!(!unregister(&path).unwrap(), "another stays");
    }

    #[test]
    fn a_link_stays_one() {
        let (folder, path) = file("{}");
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(register_runq(&link).unwrap());
        assert!(fs::read_to_string(&path).unwrap().contains("runq"));
        assert!(unregister(&link).unwrap());
        assert_eq!(fs::read_to_string(&link).unwrap(), "{}\n");
        assert!(link.is_symlink());
    }

    #[test]
    fn a_broken_file_is_left_alone_and_named() {
        for (text, complaint) in [
            ("{\"a\": 1,}", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"{"runtimes": 7}"#, "\"runtimes\" is not a JSON object"),
            (
                r#"{"runtimes": {"runq": "x"}}"#,
                "\"runq\" is not a JSON object",
            ),
        ] {
            let (_folder, path) = file(text);
            let error = format!("{:#}", register_runq(&path).unwrap_err());
            assert!(
                error.contains(complaint) && error.contains("daemon.json"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
