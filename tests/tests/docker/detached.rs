//! Containers in the background, from start to removal.

use tests::docker::{Container, docker, script};

use crate::assert_code;

/// Tells which signals it gets, until SIGTERM.
const SIGNALLED: &str = "
trap 'echo usr1' USR1; trap 'echo winch' WINCH; trap 'echo rt' 35; trap 'echo terminated; exit 42' TERM
echo out; echo error >&2; echo ready; while :; do sleep 1000 & wait $!; done";

#[test]
#[ignore = "needs Docker: make test"]
fn logs_signals_states_and_stop() {
    let container = Container::new().unwrap();
    container.detach(&[], SIGNALLED).unwrap();
    let mut logs = container.follow().unwrap();
    logs.wait_for("ready\n").unwrap();
    assert_eq!(container.inspect("{{.State.Status}}").unwrap(), "running");
    for (signal, answer) in [("USR1", "usr1\n"), ("WINCH", "winch\n"), ("35", "rt\n")] {
        container.docker(&["kill", "-s", signal]).unwrap();
        logs.wait_for(answer).unwrap();
    }
    container.docker(&["stop", "-t", "100"]).unwrap();
    let followed = logs.wait().unwrap();
    assert_eq!(
        followed.stdout(),
        "out\nready\nusr1\nwinch\nrt\nterminated\n"
    );
    assert_eq!(followed.stderr(), "error\n");
    let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";
    assert_eq!(container.inspect(state).unwrap(), "exited 42 false");

    // The same container once more, as a new virtual machine.
    let since = script("date +%s.%N").unwrap();
    container.docker(&["start"]).unwrap();
    let mut logs = docker()
        .args(["logs", "-f", "--since", since.trim(), container.name()])
        .launch()
        .unwrap();
    logs.wait_for("ready\n").unwrap();
    container.docker(&["kill"]).unwrap();
    assert_eq!(container.wait().unwrap(), "137");
}

/// What systemd does: it powers off on a signal of its own, by reboot(2).
#[test]
#[ignore = "needs Docker: make test"]
fn systemd_is_stopped_by_its_own_signal() {
    let container = Container::new().unwrap();
    let script =
        "trap 'echo stopping; poweroff -f' 38; echo ready; while :; do sleep 1000 & wait $!; done";
    let options = ["-e", "RUNQ_SYSTEMD=1", "--cap-add", "SYS_BOOT"];
    container.detach(&options, script).unwrap();
    let mut logs = container.follow().unwrap();
    logs.wait_for("ready\n").unwrap();
    container.docker(&["stop", "-t", "100"]).unwrap();
    logs.wait_for("stopping\n").unwrap();
    assert_eq!(container.inspect("{{.State.ExitCode}}").unwrap(), "0");
}

/// Counts: in a frozen machine the count stands still.
#[test]
#[ignore = "needs Docker: make test"]
fn pause_stops_the_machine_and_stats_sees_its_memory() {
    let container = Container::new().unwrap();
    let pages = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; echo ready";
    container
        .detach(&[], &format!("{pages}; while :; do :; done"))
        .unwrap();
    container.follow().unwrap().wait_for("ready\n").unwrap();
    let pid = container.pid().unwrap();
    let ticks = || {
        let stat = script(&format!("cut -d ' ' -f 14,15 /proc/{pid}/stat")).unwrap();
        stat.split(' ')
            .map(|n| n.parse::<u64>().unwrap())
            .sum::<u64>()
    };
    container.docker(&["pause"]).unwrap();
    assert_eq!(container.inspect("{{.State.Status}}").unwrap(), "paused");
    let frozen = ticks();
    // Some hundred ticks' work for the other processor.
    script("timeout 3 sh -c 'while :; do :; done' || test $? = 124").unwrap();
    assert_eq!(ticks(), frozen);
    container.docker(&["unpause"]).unwrap();
    assert_eq!(container.inspect("{{.State.Status}}").unwrap(), "running");

    let used = container
        .docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}"])
        .unwrap();
    let (number, _) = used.split_once("MiB").unwrap_or_else(|| panic!("{used}"));
    let mebibytes: f64 = number.parse().unwrap();
    assert!((60.0..400.0).contains(&mebibytes), "{used}");
    container.docker(&["kill"]).unwrap();
}

/// What a container may leave on the host: processes, mounts (those of network namespaces, too), network interfaces,
/// files, cgroups.
fn traces() -> String {
    script(
        "ps -eo args= | grep -E '[/]proxy|[c]ontainerd-shim|[r]unc' || true
         grep -E 'overlay|runq|containerd|netns' /proc/self/mounts | grep -v /opt/runq || true
         ls /sys/class/net /run/containerd/io.containerd.runtime.v2.task/moby \
            /run/docker/runtime-*/moby /run/docker/containerd 2>/dev/null || true
         find /var/lib/runq -maxdepth 3 | sort; find /sys/fs/cgroup -type d -path '*docker*' | sort",
    )
    .unwrap()
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_removed_container_leaves_nothing_behind() {
    // The first container of a Docker leaves folders of Docker's own.
    let first = Container::new().unwrap();
    assert_code(&first.shell(&["--rm"], "true").unwrap(), 0);
    let before = traces();
    let container = Container::new().unwrap();
    container
        .detach(&["-v", "/var/tmp:/data"], "echo ready; sleep 1000")
        .unwrap();
    container.follow().unwrap().wait_for("ready\n").unwrap();
    assert_ne!(traces(), before);
    container.docker(&["rm", "-f"]).unwrap();
    assert_eq!(traces(), before);
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_container_that_fails_is_started_again() {
    let container = Container::new().unwrap();
    let mut events = docker()
        .args([
            "events",
            "--filter",
            "event=die",
            "--format",
            "{{.Actor.Attributes.exitCode}}",
        ])
        .args(["--filter", &format!("container={}", container.name())])
        .launch()
        .unwrap();
    container
        .detach(&["--restart", "on-failure:1"], "exit 9")
        .unwrap();
    events.wait_for("9\n").unwrap();
    events.wait_for("9\n").unwrap();
    assert_eq!(container.wait().unwrap(), "9");
    assert_eq!(container.inspect("{{.RestartCount}}").unwrap(), "1");
}
