//! Wrong usage of runq-vmm: what the command line, or the file of its options, shows by itself.
//!
//! Exit code 2, and one line on standard error that names the thing. No KVM is needed: the options
//! are checked before it is opened.

#![allow(clippy::unwrap_used, reason = "it fails the test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn runq_vmm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runq-vmm"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Asserts that these options are refused, in one line that has all these words.
#[track_caller]
fn assert_wrong(args: &[&str], words: &[&str]) {
    let done = runq_vmm(args);
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{args:?}: {text}");
    assert_eq!(done.stdout, b"", "{args:?}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    assert!(
        text.starts_with("runq-vmm: ") && text.ends_with('\n'),
        "{text}"
    );
    for word in words {
        assert!(text.contains(word), "{args:?}: {word:?} is not in {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// A file of options with these contents.
fn config(name: &str, json: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, json).unwrap();
    path
}

#[test]
fn memory_below_64_mib() {
    assert_wrong(&["--mem", "63"], &["--mem", "63", "64 MiB"]);
    assert_wrong(&["--mem", "0"], &["--mem"]);
    assert_wrong(&["--mem", "1k"], &["--mem"]);
}

#[test]
fn memory_that_is_no_size() {
    for size in ["", "much", "-1", "1.5G", "99999999999999999999"] {
        assert_wrong(&[&format!("--mem={size}")], &["--mem", size]);
    }
}

#[test]
fn no_processors() {
    assert_wrong(&["--cpus", "0"], &["--cpus 0"]);
    assert_wrong(&["--cpus", "two"], &["--cpus", "two"]);
    assert_wrong(&["--cpus", "4294967296"], &["--cpus", "4294967296"]);
}

#[test]
fn a_processor_feature_that_is_not_known() {
    assert_wrong(&["--cpu", "host,-no-such-feature"], &["no-such-feature"]);
    assert_wrong(&["--cpu", "no-such-model"], &["no-such-model"]);
}

#[test]
fn crypto_adapters_on_a_machine_that_has_none_or_without_a_name() {
    let words: &[&str] = match vmm::ap::uuid("00000000-0000-0000-0000-00000000000a") {
        Ok(_) => &["--ap 1: ", "no UUID"],
        Err(_) => &["--ap 1: ", "of s390x"],
    };
    assert_wrong(&["--ap", "1"], words);
}

#[test]
fn a_kernel_command_line_that_is_too_long() {
    let long = "a=b ".repeat(2000);
    assert_wrong(&["--cmdline", &long], &["--cmdline"]);
}

#[test]
fn a_kernel_command_line_that_is_no_text() {
    assert_wrong(&["--cmdline", "two\nlines"], &["--cmdline"]);
}

#[test]
fn tags_that_are_used_twice() {
    let args = ["--share", "data=/a", "--share", "data=/b"];
    assert_wrong(&args, &["data", "twice"]);
    let args = ["--rootfs", "/", "--share", "root=/b", "--", "/bin/true"];
    assert_wrong(&args, &["root"]);
}

#[test]
fn a_share_without_tag_or_directory() {
    for share in ["data", "=/a", "data=", "data=:ro"] {
        assert_wrong(&["--share", share], &["--share", share]);
    }
}

#[test]
fn a_command_without_a_root_and_a_root_without_a_command() {
    assert_wrong(&["--", "/bin/true"], &["/bin/true", "--rootfs"]);
    assert_wrong(&["--rootfs", "/"], &["--rootfs", "command"]);
}

#[test]
fn a_console_that_is_not_known() {
    assert_wrong(&["--console", "vga"], &["vga", "serial", "virtio", "none"]);
}

#[test]
fn options_that_are_not_known() {
    assert_wrong(&["--no-such-option"], &["--no-such-option"]);
    assert_wrong(&["stray"], &["stray"]);
    assert_wrong(&["--mem"], &["--mem"]);
}

#[test]
fn a_file_of_options_that_is_missing() {
    assert_wrong(
        &["--config", "/no/such/file"],
        &["--config", "/no/such/file"],
    );
}

#[test]
fn a_file_of_options_with_an_unknown_field() {
    let path = config("unknown-field.json", r#"{ "memory": 64 }"#);
    let path = path.to_str().unwrap();
    assert_wrong(&["--config", path], &[path, "memory"]);
}

#[test]
fn a_file_of_options_that_is_no_json() {
    for (name, text) in [
        ("cut-off.json", r#"{ "mem": 64, "#),
        ("empty.json", ""),
        ("list.json", "[]"),
        ("type.json", r#"{ "cpus": "two" }"#),
        ("negative.json", r#"{ "mem": -1 }"#),
        ("after.json", "{} {}"),
        ("lines.json", "{\n\n\"share\":\n[\"data\"] }"),
    ] {
        let path = config(name, text);
        assert_wrong(&["--config", path.to_str().unwrap()], &[name]);
    }
}

#[test]
fn a_file_of_options_is_checked_as_the_command_line_is() {
    let path = config("no-cpus.json", r#"{ "cpus": 0 }"#);
    assert_wrong(&["--config", path.to_str().unwrap()], &["--cpus 0"]);
    let path = config("small.json", r#"{ "mem": "63M" }"#);
    assert_wrong(&["--config", path.to_str().unwrap()], &["--mem"]);
}

#[test]
fn help_and_version_are_no_errors() {
    let help = runq_vmm(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert_eq!(help.stderr, b"");
    for word in ["--rootfs", "--share", "--console", "Examples:", "Exit code"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let version = runq_vmm(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let expected = format!("runq-vmm {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}
