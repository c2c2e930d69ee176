//! Standard streams and the exit code of the command.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tests::guest::{Guest, Rootfs};
use tests::pattern::Pattern;

use crate::{assert_code, assert_silent, busybox};

const MIB: usize = 1 << 20;

#[test]
#[ignore = "boots a guest: make test"]
fn stdout_and_stderr_are_apart_and_each_byte_is_kept_and_the_exit_code_is_the_commands() {
    let (rootfs, guest) = busybox();
    let (out, err) = (Pattern::bytes(1, MIB + 3), Pattern::bytes(2, MIB / 2 + 1));
    fs::write(rootfs.join("out"), &out).unwrap();
    fs::write(rootfs.join("err"), &err).unwrap();
    let done = guest.shell("cat /out; cat /err >&2; exit 7").unwrap();
    assert_eq!(done.code(), Some(7));
    assert!(
        done.stdout_bytes() == out,
        "stdout: {} bytes",
        done.stdout_bytes().len()
    );
    assert!(
        done.stderr_bytes() == err,
        "stderr: {} bytes",
        done.stderr_bytes().len()
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn stdin_goes_through_cat_and_its_end_ends_it() {
    let (_rootfs, guest) = busybox();
    let bytes = Pattern::bytes(3, MIB);
    let done = guest.stdin(bytes.clone()).run(["/bin/cat"]).unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    assert!(
        done.stdout_bytes() == bytes,
        "{} bytes came back",
        done.stdout_bytes().len()
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_conversation_is_not_held_up() {
    let (_rootfs, guest) = busybox();
    let mut guest = guest
        .open_stdin()
        .start([
            "/bin/sh",
            "-c",
            "echo ready; while read line; do echo \"<$line>\"; done; exit 9",
        ])
        .unwrap();
    guest.wait_for("ready\n").unwrap();
    for word in ["one", "two", "three"] {
        guest.write(&format!("{word}\n")).unwrap();
        guest.wait_for(&format!("<{word}>\n")).unwrap();
    }
    guest.close_stdin();
    assert_code(&guest.wait().unwrap(), 9);
}

/// `head` leaves, and `yes` is to end by that, as on a host.
#[test]
#[ignore = "boots a guest: make test"]
fn a_reader_that_leaves_ends_the_command() {
    let (_rootfs, guest) = busybox();
    let mut guest = guest.start(["/bin/yes"]).unwrap();
    guest.wait_for("y\ny\n").unwrap();
    guest.leave_stdout();
    let done = guest.wait().unwrap();
    // yes reports the broken pipe, or is ended by the signal that tells of it.
    assert!([Some(1), Some(128 + 13)].contains(&done.code()), "{done:?}");
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_command_that_is_not_there_is_127() {
    let (_rootfs, guest) = busybox();
    let done = guest.run(["no-such-command"]).unwrap();
    assert_code(&done, 127);
    one_line_about(&done.stderr(), "no-such-command");
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_command_that_cannot_be_executed_is_126() {
    let (rootfs, guest) = busybox();
    fs::write(rootfs.join("data"), "no program").unwrap();
    fs::set_permissions(rootfs.join("data"), PermissionsExt::from_mode(0o644)).unwrap();
    let done = guest.run(["/data"]).unwrap();
    assert_code(&done, 126);
    one_line_about(&done.stderr(), "/data");
}

/// The kernel kills who takes more memory than there is, with SIGKILL, and the user is told.
#[test]
#[ignore = "boots a guest: make test"]
fn a_command_that_is_killed_is_137() {
    let rootfs = Rootfs::new().unwrap();
    let guest = Guest::of(&rootfs).unwrap().args(["--mem", "64"]);
    let done = guest.run(["/bin/tail", "/dev/zero"]).unwrap();
    assert_code(&done, 137);
    let stderr = done.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let killed = "out of memory: the guest's kernel has killed \"tail\"";
    assert!(stderr.contains(killed), "{stderr}");
}

fn one_line_about(stderr: &str, name: &str) {
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("runq-vmm: ") && stderr.contains(name),
        "{stderr}"
    );
}
