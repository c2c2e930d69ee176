//! Containers that nobody may run further commands in.

use tests::docker::Container;

use super::health::await_health;
use super::{assert_own_failure, exec, runq_exec};

#[test]
#[ignore = "needs Docker: make test"]
fn without_an_agent_each_way_says_so() {
    let container = Container::new().unwrap();
    // Virtio's number for a socket device is 19.
    let look = "cat /sys/bus/virtio/devices/*/device; echo looked; sleep 100000";
    let check = [
        "--health-cmd",
        "true",
        "--health-interval",
        "1s",
        "--health-retries",
        "1",
    ];
    container
        .detach(&[&["-e", "RUNQ_NOEXEC=1"], &check[..]].concat(), look)
        .unwrap();
    let mut logs = container.follow().unwrap();
    logs.wait_for("looked\n").unwrap();
    let devices = container.docker(&["logs"]).unwrap();
    assert!(
        devices.contains("0x001a") && !devices.contains("0x0013"),
        "{devices}"
    );

    let line = "RUNQ_NOEXEC";
    let done = exec(&container, &[], &["true"]);
    assert_eq!(done.code(), Some(126), "{done:?}");
    assert!(done.stdout().contains(line), "{done:?}");
    assert_own_failure(&runq_exec(&[container.name(), "true"]), line);
    await_health(&container, "unhealthy");
    let log = container
        .inspect("{{(index .State.Health.Log 0).Output}}")
        .unwrap();
    assert!(log.contains(line), "{log}");
}
