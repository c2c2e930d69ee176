//! HEALTHCHECK, whose commands Docker runs by itself.

use std::fs;

use tests::docker::{Container, install, script};

use super::shell;
use crate::assert_output;

/// Waits for Docker to say so. Who listens to it goes on for a while, without a stream of ours.
pub(super) fn await_health(container: &Container, health: &str) {
    let events = format!(
        "grep -q -m 1 'health_status: {health}' < <(timeout 250 docker events --since 24h \
         --filter container={} --filter event=health_status 2>/dev/null)",
        container.name()
    );
    script(&events).unwrap();
    assert_eq!(
        container.inspect("{{.State.Health.Status}}").unwrap(),
        health
    );
}

fn checked(command: &str, options: &[&str]) -> Container {
    let container = Container::new().unwrap();
    let all = [
        "--health-cmd",
        command,
        "--health-interval",
        "1s",
        "--health-retries",
        "2",
    ];
    container
        .detach(&[&all[..], options].concat(), "sleep 100000")
        .unwrap();
    container
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_container_is_starting_unhealthy_and_healthy() {
    let container = checked("echo looked; test -e /fine", &[]);
    assert_eq!(
        container.inspect("{{.State.Health.Status}}").unwrap(),
        "starting"
    );
    await_health(&container, "unhealthy");
    assert_output(&shell(&container, &[], "touch /fine"), "");
    await_health(&container, "healthy");
    let output = container
        .inspect("{{(index .State.Health.Log 0).Output}}")
        .unwrap();
    assert_eq!(output, "looked");
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_check_that_takes_too_long_is_killed() {
    let container = checked("sleep 7777", &["--health-timeout", "1s"]);
    await_health(&container, "unhealthy");
    let log = container
        .inspect("{{(index .State.Health.Log 0).Output}}")
        .unwrap();
    assert!(log.contains("exceeded timeout"), "{log}");
    // One may be there, of the check that runs now.
    let gone = "[ $(ps | grep -c '[s]leep 7777') -le 1 ]";
    assert_output(&shell(&container, &[], gone), "");
}

const FILE: &str = r#"
services:
  server:
    image: busybox
    runtime: runq
    command: sh -c "trap exit TERM; touch /up; sleep 100000 & wait"
    healthcheck: {test: ["CMD", "test", "-e", "/up"], interval: 1s}
  client:
    image: busybox
    runtime: runq
    command: echo the server is up
    depends_on: {server: {condition: service_healthy}}
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn compose_waits_for_a_healthy_service() {
    install().unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = folder.path().join("compose.yaml");
    fs::write(&file, FILE).unwrap();
    let compose = format!("docker-compose -p health -f {}", file.display());
    let logs = script(&format!(
        "trap '{compose} down -t 1 -v 2>/dev/null' EXIT
         {compose} up -d 2>&1
         docker inspect --format '{{{{.State.Health.Status}}}}' health-server-1
         docker wait health-client-1"
    ))
    .unwrap();
    assert!(logs.ends_with("\nhealthy\n0"), "{logs}");
}
