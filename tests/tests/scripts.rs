//! The Makefile, and what scripts share.

#![allow(clippy::unwrap_used, clippy::panic, reason = "they fail the test")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn output(command: &mut Command) -> String {
    let output = command
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `make run` with these further words gives to the container's shell.
fn command_of(words: &[&str]) -> String {
    let print = r#"print: ; @printf %s "$$CMD""#;
    output(
        Command::new("make")
            .args(["--eval", print, "print"])
            .args(words)
            .env_remove("CMD"),
    )
}

#[test]
fn the_command_reaches_the_container_as_it_was_typed() {
    for typed in [
        r"sh -c 'echo $((6*7))'",
        r#"echo "$(uname -r)" $HOME $$ ${x:-#y} `id`"#,
        r"$(shell exit 1)",
        "a\nb",
    ] {
        assert_eq!(command_of(&[&format!("CMD={typed}")]), typed);
    }
    assert!(command_of(&[]).contains("$(uname -r)"));
}

/// Runs a script that has sourced tests/env.sh.
fn script(text: &str, args: &[&Path]) -> String {
    let script = format!("set -euo pipefail; . tests/env.sh; {text}");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script, "test"]).args(args);
    output(&mut bash)
}

#[test]
fn the_target_is_cargos() {
    let debug = script("echo \"${testhost%/*}\"", &[]);
    let program = std::env::current_exe().unwrap();
    assert_eq!(
        Path::new(debug.trim_end()),
        program.parent().unwrap().parent().unwrap()
    );
}

#[test]
fn machines_that_are_not_known_are_refused() {
    let refused = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(root());
        let output = command.env("ARCH", "vax").output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for script in ["programs", "install", "release", "deb"] {
        let script = format!("packaging/{script}");
        let said = format!("{script}: ARCH=vax: unknown; x86_64 and s390x are known\n");
        assert_eq!(refused(&[&script]), said);
    }
    let kernel = "kernel-config/build: --machine vax: unknown; x86_64 and s390x are known\n";
    assert_eq!(
        refused(&["kernel-config/build", "--machine", "vax"]),
        kernel
    );
}

#[test]
fn the_last_used_kernels_stay_and_what_may_be_in_use() {
    const DAY: u64 = 24 * 3600;
    let dir = tempfile::tempdir().unwrap();
    let entry = |name: &str, unused: u64| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        let used = SystemTime::now() - Duration::from_secs(unused);
        File::open(path).unwrap().set_modified(used).unwrap();
    };
    for (name, unused) in [
        ("lean-a", 60),
        ("lean-b", 120),
        ("lean-c", 180),
        ("lean-d", 4 * DAY),
        ("lean-e", 40 * DAY),
        ("bench-a", 10 * DAY),
    ] {
        entry(name, unused);
    }
    script("evict 2 \"$1\" 'lean-*'", &[dir.path()]);
    script("evict 2 \"$1\" 'bench-*'", &[dir.path()]);
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["bench-a", "lean-a", "lean-b", "lean-c"]);
}

#[test]
fn what_fails_shows_its_end_and_where_the_rest_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("new/log");
    let said = script(
        "noisy() { seq 100; return 3; }; logged \"$1\" noisy 2>&1 || echo \"code $?\"",
        &[&log],
    );
    let lines: Vec<&str> = said.lines().collect();
    let [first, .., last, named, code] = lines[..] else {
        panic!("{said}");
    };
    assert_eq!((first, last, code), ("81", "100", "code 3"));
    assert!(named.contains(&*log.to_string_lossy()), "{named}");
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 100);
}
