//! What cannot be run says so on one line, with an exit code of Docker's, and leaves nothing behind.

use tests::docker::{Container, ROOT, docker, script};

use crate::without;

/// Runs `docker run OPTIONS busybox true`, which runq must refuse with a line that has all of `expected`.
#[track_caller]
pub(crate) fn refused(options: &[&str], expected: &[&str]) {
    let container = Container::new().unwrap();
    let call = container
        .docker_run()
        .args(options)
        .args(["busybox", "true"]);
    let done = call.launch().unwrap().wait().unwrap();
    let code = done.code().unwrap();
    assert!((125..=127).contains(&code), "{done:?}");
    let stderr = done.stderr();
    let line = stderr
        .lines()
        .find(|line| line.contains("Error response from daemon"));
    let line = line.unwrap_or_else(|| panic!("{options:?}: {done:?}"));
    for text in expected {
        assert!(
            line.contains(text),
            "{options:?}: {text:?} is not in {line}"
        );
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    let left = script(
        "ls /run/containerd/io.containerd.runtime.v2.task/moby; ls /run/docker/runtime-*/moby 2>/dev/null || true",
    );
    assert_eq!(left.unwrap(), "", "{options:?}: nothing is left behind");
    container.docker(&["rm"]).unwrap();
}

/// Each of the others is tried in the runtime's own tests.
#[test]
#[ignore = "needs Docker: make test"]
fn wrong_values_and_what_a_machine_cannot_do_are_named() {
    refused(&["-e", "RUNQ_CPU=many"], &["RUNQ_CPU", "many", "1"]);
    refused(&["-e", "RUNQ_MEM=63"], &["RUNQ_MEM", "63", "64"]);
    refused(&["-e", "RUNQ_LOG=loud"], &["RUNQ_LOG=loud", "debug"]);
    refused(&["--privileged"], &["--privileged"]);
    refused(&["--network", "host"], &["--network host"]);
}

#[test]
#[ignore = "needs Docker: make test"]
fn what_is_missing_on_the_host_is_named() {
    tests::docker::install().unwrap();
    // Without a network, whose making is most of the time.
    let refused = |expected: &[&str]| refused(&["--network", "none"], expected);
    without("/dev/kvm", || refused(&["/dev/kvm", "not found"]));
    let kernel = format!("{ROOT}/vm/kernel");
    without(&kernel, || refused(&[&kernel]));
    let version = format!("{ROOT}/vm/version");
    without(&version, || {
        script(&format!("echo 0.0.0 >{version}")).unwrap();
        refused(&["0.0.0", "version"]);
    });
    let runc = script("command -v runc").unwrap();
    without(&runc, || refused(&["runc", "RUNQ_RUNC"]));
    let healthy = Container::new().unwrap().shell(&["--rm"], "true").unwrap();
    assert_eq!(healthy.code(), Some(0), "{healthy:?}");
}

/// What a container's network is made of.
#[test]
#[ignore = "needs Docker: make test"]
fn a_kernel_without_macvtap_is_told_what_to_do() {
    tests::docker::install().unwrap();
    let module = script("modinfo -n macvtap").unwrap();
    without(&module, || {
        script("rmmod macvtap").unwrap();
        let told = "network interface eth0: the kernel makes no macvtap on it (try `modprobe macvtap` on the host)";
        let done = Container::new().unwrap().shell(&["--rm"], "true").unwrap();
        assert_eq!(done.code(), Some(125), "{done:?}");
        assert!(done.stderr().contains(told), "{done:?}");
        assert_eq!(done.stderr().lines().count(), 1, "{done:?}");
        let check = script(&format!("{ROOT}/runq check")).unwrap();
        let row = check.lines().find(|row| row.starts_with("macvtap"));
        assert!(row.unwrap().contains("missing"), "{check}");
        let offline = Container::new().unwrap();
        let done = offline.shell(&["--rm", "--network", "none"], "true");
        assert_eq!(done.unwrap().code(), Some(0));
    });
    // The runtime loads it itself.
    let healthy = Container::new().unwrap();
    let done = healthy.shell(&["--rm"], "ip addr show eth0").unwrap();
    assert_eq!(done.code(), Some(0), "{done:?}");
}

#[test]
#[ignore = "needs Docker: make test"]
fn an_image_without_the_command_says_which() {
    let container = Container::new().unwrap();
    let done = container
        .docker_run()
        .args(["--rm", "busybox", "/bin/nothing", "at all"])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(done.code(), Some(127), "{done:?}");
    assert!(done.stderr().contains("/bin/nothing"), "{done:?}");
    assert_eq!(done.stderr().lines().count(), 1, "{done:?}");
    let ps = docker()
        .args(["ps", "-aq"])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(ps.stdout(), "");
}
