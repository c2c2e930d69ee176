//! A container whose process cannot be started: Docker has to see what it sees with runc.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tests::docker::{Container, docker};

/// How it failed: the exit code of `docker run` and what it said, and what `docker inspect` says.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: Option<i32>,
    stderr: String,
    state: String,
    error: String,
}

/// Has `docker run` fail with these arguments.
fn fail(runtime: &str, arguments: &[&str]) -> Failure {
    let container = Container::new().unwrap();
    let call = docker().args(["run", "--runtime", runtime, "--name", container.name()]);
    // Without a network, whose making is most of the time.
    let call = call.args(["--network", "none"]).args(arguments);
    let done = call.launch().unwrap().wait().unwrap();
    assert!(done.stdout().len() <= 65, "more than the ID: {done:?}");
    Failure {
        code: done.code(),
        stderr: in_common(&done.stderr()),
        state: container
            .inspect("{{.State.Status}} {{.State.ExitCode}}")
            .unwrap(),
        error: in_common(&container.inspect("{{.State.Error}}").unwrap()),
    }
}

/// Without what differs: which step of the runtime's it was, and who says so.
fn in_common(text: &str) -> String {
    let steps = [
        "failed to create task for container: ",
        "failed to create shim task: ",
        "failed to start task: ",
        "OCI runtime create failed: ",
        "OCI runtime start failed: ",
        "runc create failed: ",
        "error during container init: ",
    ];
    steps
        .iter()
        .fold(text.to_owned(), |text, step| text.replace(step, ""))
}

/// A restart policy makes no difference, as nothing has begun.
#[test]
#[ignore = "needs Docker: make test"]
fn what_the_host_can_tell_is_all_as_with_runc() {
    for arguments in [
        &["-d", "--restart", "always", "busybox", "nothing"][..],
        &["busybox", "/bin/nothing", "at all"],
        &["-d", "busybox", "/etc/passwd"],
        &["-d", "busybox", "/etc"],
    ] {
        let (expected, found) = (fail("runc", arguments), fail("runq", arguments));
        assert!(expected.state.starts_with("created "), "{expected:?}");
        assert_eq!(expected, found);
    }
}

#[test]
#[ignore = "needs Docker: make test"]
fn what_only_the_machine_can_tell_has_runcs_code_and_words() {
    for (arguments, reason) in [
        (
            &["-d", "--sysctl", "net.ipv4.nothing=1", "busybox", "true"][..],
            "open /proc/sys/net/ipv4/nothing: no such file or directory",
        ),
        (
            &["-d", "--sysctl", "net.ipv4.ip_forward=x", "busybox", "true"],
            "invalid argument",
        ),
        (
            &["-v", "/var/tmp:/data", "busybox", "/data/nothing"],
            "exec: \"/data/nothing\": stat /data/nothing: no such file or directory",
        ),
    ] {
        let (expected, found) = (fail("runc", arguments), fail("runq", arguments));
        let codes = |failure: &Failure| (failure.code, failure.state.clone());
        assert_eq!(codes(&expected), codes(&found), "{expected:?}, {found:?}");
        for text in [
            &expected.stderr,
            &expected.error,
            &found.stderr,
            &found.error,
        ] {
            assert!(text.contains(reason), "{expected:?}, {found:?}");
        }
        assert_eq!(
            expected.stderr.lines().count(),
            found.stderr.lines().count()
        );
    }
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_container_that_failed_can_be_started_again() {
    let ends = |runtime: &str| {
        let container = Container::new().unwrap();
        let data = tempfile::tempdir_in("/var/tmp").unwrap();
        let program = data.path().join("program");
        let volume = format!("{}:/data", data.path().display());
        let call = docker().args(["create", "--runtime", runtime, "--name", container.name()]);
        let call = call.args([
            "--network",
            "none",
            "-v",
            &volume,
            "busybox",
            "/data/program",
        ]);
        assert_eq!(call.launch().unwrap().wait().unwrap().code(), Some(0));
        let start = || {
            let call = docker().args(["start", "-a", container.name()]);
            let done = call.launch().unwrap().wait().unwrap();
            (done.code(), in_common(&done.stderr()))
        };
        let missing = start();
        fs::write(&program, "#!/bin/sh\necho output >&2; exit 3\n").unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        (missing, start())
    };
    assert_eq!(ends("runc"), ends("runq"));
}
