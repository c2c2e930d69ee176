//! The program runq with a runc that only tells how it was called.
#![allow(clippy::unwrap_used, reason = "it fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

/// Tells its arguments, and the state of any container whose bundle is `./bundle`.
const RUNC: &str = r#"#!/bin/sh
for last; do :; done
case "$* " in
*"state nothing "*) echo "container does not exist" >&2; exit 1 ;;
*"state "*) printf '{"id": "%s", "bundle": "%s/bundle", "status": "created"}' "$last" "${0%/*}" ;;
*) echo "runc: $*"; exit 7 ;;
esac
"#;

/// A folder with a runc, an installed runq and a bundle.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        place.program("runc", RUNC);
        fs::create_dir_all(place.path("root/vm/certs")).unwrap();
        for file in [
            "vm/certs/ca.pem",
            "vm/certs/cert.pem",
            "vm/certs/key.pem",
            "cert.pem",
            "key.pem",
        ] {
            fs::write(place.path("root").join(file), file).unwrap();
        }
        for part in ["proxy", "kernel", "initrd"] {
            fs::write(place.path("root/vm").join(part), "").unwrap();
        }
        fs::write(place.path("root/vm/version"), env!("CARGO_PKG_VERSION")).unwrap();
        fs::create_dir(place.path("bundle")).unwrap();
        let config = include_bytes!("../testdata/config.run.json");
        fs::write(place.path("bundle/config.json"), config).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn runq(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_runq"))
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env("RUNQ_RUNC", self.path("runc"))
            .env("RUNQ_ROOT", self.path("root"))
            .output()
            .unwrap()
    }

    fn bundle(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("bundle")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn has_kvm() -> bool {
    Path::new("/dev/kvm").exists()
}

#[test]
fn what_is_not_ours_passes() {
    let place = Place::new();
    for command in [
        "features",
        "list --format json",
        "update --resources - ID",
        "kill ID 9",
        "start ID",
        "ps --format json ID",
        "create --help",
    ] {
        let output = place.runq(&format!("--cpu 1 --root /r --debug {command}"));
        assert_eq!(
            stdout(&output),
            format!("runc: --root /r --debug {command}\n")
        );
        assert_eq!(output.status.code(), Some(7));
    }
}

#[test]
fn help_and_versions() {
    let place = Place::new();
    for line in ["--help", "-h", "help", ""] {
        let output = place.runq(line);
        assert!(stdout(&output).contains("All other commands and all other options are runc's"));
        assert!(output.status.success());
    }
    let output = place.runq("--version");
    let ours = format!("runq version {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&output), format!("{ours}runc: --version\n"));
}

#[test]
fn create_splits_and_hands_over() {
    let place = Place::new();
    let line = "--mem 512 --root /r create --bundle bundle --pid-file p ID";
    let output = place.runq(line);
    if !has_kvm() {
        assert!(stderr(&output).contains("/dev/kvm: not found"));
        return;
    }
    assert_eq!(stderr(&output), "");
    assert_eq!(
        stdout(&output),
        "runc: --root /r create --bundle bundle --pid-file p ID\n"
    );
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        place.bundle(),
        [
            "config.json",
            "config.json.orig",
            "exec.json",
            "kills",
            "started",
            "vmspec.json"
        ]
    );
    let vm = runtime::vmspec::VmSpec::load(&place.path("bundle/vmspec.json")).unwrap();
    assert_eq!(vm.memory_mib, 512);
    assert_eq!(vm.start.agent.unwrap().container, "ID");
}

#[test]
fn an_option_without_effect_is_told_in_the_log_and_not_to_the_container() {
    let place = Place::new();
    let text = "--nestedvm is accepted for compatibility: nothing needs to be set";
    let output = place.runq("--nestedvm --log log create --bundle bundle ID");
    assert!(!stderr(&output).contains("--nestedvm"));
    let log = fs::read_to_string(place.path("log")).unwrap();
    let warning = format!("level=warning msg={text:?}\n");
    assert!(log.contains(&warning), "{log}");
    let output = place.runq("--nestedvm create --bundle bundle ID");
    assert!(stderr(&output).starts_with(&format!("runq: {text}\n")));
}

#[test]
fn a_refusal_is_told_in_the_log_and_leaves_nothing_behind() {
    let place = Place::new();
    let output = place.runq("--log log.json --log-format json --mem 1 create -b bundle ID");
    let message = if has_kvm() {
        "--mem 1: whole numbers of MiB from 64 to 67108864 are allowed"
    } else {
        "/dev/kvm: not found: `runq check` tells what this host needs"
    };
    assert_eq!(stderr(&output), format!("runq: {message}\n"));
    assert_eq!(output.status.code(), Some(1));
    let log = fs::read_to_string(place.path("log.json")).unwrap();
    let entry: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(entry["level"], "error");
    assert_eq!(entry["msg"], message);
    assert!(entry["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(place.bundle(), ["config.json"]);
}

#[test]
fn a_runc_that_cannot_be_executed_leaves_nothing_behind() {
    let place = Place::new();
    place.program("runc", "#!/nonexistent/interpreter\n");
    let output = place.runq("create -b bundle ID");
    assert_eq!(output.status.code(), Some(1));
    if has_kvm() {
        assert!(
            stderr(&output).contains("cannot execute"),
            "{}",
            stderr(&output)
        );
    }
    assert_eq!(place.bundle(), ["config.json"]);
}

#[test]
fn a_runc_that_is_missing_is_told() {
    let place = Place::new();
    fs::remove_file(place.path("runc")).unwrap();
    let output = place.runq("--log=log list");
    let message = format!(
        "{}: not a program other than runq: install runc, or name it with --runc PATH or the \
         variable RUNQ_RUNC",
        place.path("runc").display()
    );
    assert_eq!(stderr(&output), format!("runq: {message}\n"));
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert!(
        log.contains(&format!("level=error msg={message:?}")),
        "{log}"
    );
}

#[test]
fn exec_in_other_containers_is_runcs() {
    let place = Place::new();
    let line = "--root /r exec --process /tmp/p --detach --pid-file /b/ID.pid ID";
    let output = place.runq(line);
    assert_eq!(stdout(&output), format!("runc: {line}\n"));
    fs::write(place.path("bundle/vmspec.json"), "").unwrap();
    let output = place.runq(line);
    assert_eq!(
        stderr(&output),
        "runq: container ID is not running: it is created\n"
    );
    assert_eq!(stdout(&output), "");
    assert_eq!(output.status.code(), Some(1));
    let output = place.runq("exec nothing sh");
    assert_eq!(
        stderr(&output),
        "runq: runc state nothing: container does not exist\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

/// A runc whose container is in the process that calls it, and has just started.
const STARTING: &str = r#"#!/bin/sh
case "$*" in
*state*) printf '{"bundle": "%s/bundle", "status": "created", "pid": %s}' "${0%/*}" $PPID ;;
*start*) printf '\177"sh": executable file not found in the PATH /bin' >"${0%/*}/bundle/started" ;;
esac
"#;

#[test]
fn a_start_fails_if_the_process_cannot_be_started_in_the_guest() {
    let place = Place::new();
    place.program("runc", STARTING);
    mkfifo(&place.path("bundle/started"), Mode::S_IRWXU).unwrap();
    let output = place.runq("--log log.json --log-format json start ID");
    let message =
        "unable to start container process: exec: \"sh\": executable file not found in $PATH";
    assert_eq!(stderr(&output), format!("runq: {message}\n"));
    assert_eq!(output.status.code(), Some(1));
    let log = fs::read_to_string(place.path("log.json")).unwrap();
    let entry: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(
        (&entry["level"], &entry["msg"]),
        (&"error".into(), &message.into())
    );
}

#[test]
fn check_tells_what_is_missing_and_fails_for_what_is_needed() {
    let place = Place::new();
    place.program("runc", "#!/bin/sh\necho runc version 9\n");
    let output = place.runq("check");
    let text = stdout(&output);
    let line = |part: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(part));
        lines
            .next()
            .unwrap()
            .split_once(' ')
            .unwrap()
            .1
            .trim_start()
            .to_owned()
    };
    assert!(line("runc ").starts_with("ok       "), "{text}");
    assert!(line("runc ").ends_with("runc: runc version 9"), "{text}");
    let folder = place.path("root/vm/run").display().to_string();
    assert!(line(&folder).starts_with("UNFIT"), "{text}");
    assert_eq!(output.status.code(), Some(1));
    let output = place.runq("check now");
    assert_eq!(stderr(&output), "runq: check now: it takes no arguments\n");
}

#[test]
fn what_is_not_installed_is_not_registered() {
    let place = Place::new();
    let output = place.runq("register daemon.json");
    let program = place.path("root/runq").display().to_string();
    let expected = format!(
        "runq: {program}: not found: install runq there, or name its folder by RUNQ_ROOT\n"
    );
    assert_eq!(stderr(&output), expected);
    assert_eq!(output.status.code(), Some(1));
    assert!(!place.path("daemon.json").exists());
    place.program("root/runq", "");
    let output = place.runq("register daemon.json");
    assert!(output.status.success(), "{output:?}");
    let config: Value =
        serde_json::from_slice(&fs::read(place.path("daemon.json")).unwrap()).unwrap();
    assert_eq!(config["runtimes"]["runq"]["path"], program);
}
