//! The host's runc: where it is, and handing over to it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::args::CommandLine;

/// Where programs are if nothing says so.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a user can do about a runc that is not found.
const HINT: &str = "install runc, or name it with --runc PATH or the variable RUNQ_RUNC";

/// A runc that can be executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Runc {
    path: PathBuf,
}

/// What we want to know of `runc state`.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    /// Folder of its configuration.
    pub(crate) bundle: PathBuf,
    /// `created`, `running`, `paused`, `stopped`.
    #[serde(default)]
    pub(crate) status: String,
    /// Its first process; 0 if it has none.
    #[serde(default)]
    pub(crate) pid: i32,
}

impl Runc {
    /// What `--runc` names, else RUNQ_RUNC, else the first `runc` of PATH that is not this program.
    ///
    /// # Errors
    /// When there is none; the message says how to name one.
    pub(crate) fn find(line: &CommandLine) -> Result<Self> {
        let given = line.ours.get("runc").map(OsString::from);
        let name = given.or_else(|| env::var_os("RUNQ_RUNC"));
        let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        find_in(name.as_deref(), &path, Path::new("/proc/self/exe"))
    }

    /// Where it is; absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Becomes runc, with the command line as it was except for our own options. Returns only if
    /// that fails.
    pub(crate) fn exec(&self, line: &CommandLine) -> anyhow::Error {
        let error = self.command(line).args(&line.command).exec();
        anyhow!(error).context(format!("cannot execute {}: {HINT}", self.path.display()))
    }

    /// Calls runc with the command line as it was except for our own options; its exit code.
    ///
    /// # Errors
    /// When runc cannot be called.
    pub(crate) fn run(&self, line: &CommandLine) -> Result<ExitCode> {
        let status = self.command(line).args(&line.command).status();
        // runc has said why.
        let status =
            status.with_context(|| format!("cannot execute {}: {HINT}", self.path.display()))?;
        Ok(exit_code(status))
    }

    /// What `runc state` says of a container.
    ///
    /// # Errors
    /// What runc says, for example that there is no such container.
    pub(crate) fn state(&self, line: &CommandLine, id: &OsStr) -> Result<State> {
        let mut command = self.command(line);
        let output = command
            .arg("state")
            .arg(id)
            .output()
            .with_context(|| format!("cannot execute {}: {HINT}", self.path.display()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("runc state {}: {}", id.display(), text.trim());
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("runc state {}", id.display()))
    }

    /// Calls `runc update` for a container, with these limits.
    ///
    /// # Errors
    /// When runc cannot be called.
    pub(crate) fn update(&self, line: &CommandLine, id: &str, limits: &Value) -> Result<ExitCode> {
        let mut command = self.command(line);
        let mut child = command
            .args(["update", "--resources", "-", id])
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot execute {}: {HINT}", self.path.display()))?;
        if let Some(stdin) = child.stdin.take() {
            serde_json::to_writer(stdin, limits).context("runc update")?;
        }
        let status = child.wait().context("runc update")?;
        Ok(exit_code(status))
    }

    fn command(&self, line: &CommandLine) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&line.globals);
        command
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn find_in(name: Option<&OsStr>, path: &OsStr, ourselves: &Path) -> Result<Runc> {
    let ours = fs::metadata(ourselves).with_context(|| ourselves.display().to_string())?;
    let is_other = |candidate: &PathBuf| {
        fs::metadata(candidate).is_ok_and(|file| {
            let executable = file.is_file() && file.permissions().mode() & 0o111 != 0;
            executable && (file.dev(), file.ino()) != (ours.dev(), ours.ino())
        })
    };
    let name = name.unwrap_or(OsStr::new("runc"));
    if name.as_encoded_bytes().contains(&b'/') {
        let path = std::path::absolute(name).context("runc")?;
        ensure!(
            is_other(&path),
            "{}: not a program other than runq: {HINT}",
            path.display()
        );
        return Ok(Runc { path });
    }
    let found = env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(is_other);
    let path = found.with_context(|| format!("{}: not found in PATH: {HINT}", name.display()))?;
    Ok(Runc { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, name: &str, mode: u32) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn path_is_searched_past_ourselves_and_what_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| folder.path().join(name));
        let ourselves = program(&a, "runq", 0o755);
        std::os::unix::fs::symlink(&ourselves, a.join("runc")).unwrap();
        program(&b, "runc", 0o644);
        fs::create_dir_all(c.join("runc")).unwrap();
        let path = env::join_paths([&a, &b, &c, &d]).unwrap();
        let error = find_in(None, &path, &ourselves).unwrap_err();
        assert_eq!(
            error.to_string(),
            "runc: not found in PATH: install runc, or name it with --runc PATH or the variable \
             RUNQ_RUNC"
        );
        let expected = program(&d, "runc", 0o755);
        let found = find_in(None, &path, &ourselves).unwrap();
        assert_eq!(found, Runc { path: expected });
    }

    #[test]
    fn a_named_one_is_used_and_must_not_be_ourselves() {
        let folder = tempfile::tempdir().unwrap();
        let ourselves = program(folder.path(), "runq", 0o755);
        let other = program(folder.path(), "crun", 0o755);
        let path = folder.path().as_os_str();
        for name in [other.as_os_str(), OsStr::new("crun")] {
            let found = find_in(Some(name), path, &ourselves).unwrap();
            assert_eq!(found.path, other);
        }
        let error = find_in(Some(ourselves.as_os_str()), path, &ourselves).unwrap_err();
        assert!(error.to_string().contains("not a program other than runq"));
    }
}
