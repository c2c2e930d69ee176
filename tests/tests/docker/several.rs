//! Containers side by side, and what goes on around them.

use tests::docker::{Container, docker, script};

#[test]
#[ignore = "needs Docker: make test"]
fn ten_containers_at_once() {
    let containers: Vec<Container> = (0..10).map(|_| Container::new().unwrap()).collect();
    let runs: Vec<_> = containers
        .iter()
        .map(|container| {
            container
                .docker_run()
                .args(["--rm", "-e", "RUNQ_MEM=128", "busybox", "sh", "-c"])
                .args([format!("echo {}; hostname >&2", container.name())])
                .launch()
                .unwrap()
        })
        .collect();
    for (container, run) in containers.iter().zip(runs) {
        let done = run.wait().unwrap();
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert_eq!(done.stdout(), format!("{}\n", container.name()));
    }
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_container_outlives_containerd_and_ends_with_its_shim() {
    let containers: [Container; 2] = [(); 2].map(|()| Container::new().unwrap());
    for container in &containers {
        container
            .detach(
                &[],
                "trap 'exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done",
            )
            .unwrap();
        container.follow().unwrap().wait_for("ready\n").unwrap();
    }
    let [survivor, orphan] = &containers;
    restart_containerd();
    // Nothing tells when Docker has its connection again: a call that needs it does.
    let top = format!("docker top {}", survivor.name());
    script(&format!(
        "timeout 60 sh -c 'until {top} >/dev/null 2>&1; do :; done'"
    ))
    .unwrap();
    survivor.docker(&["stop", "-t", "100"]).unwrap();
    assert_eq!(survivor.inspect("{{.State.ExitCode}}").unwrap(), "3");

    let id = orphan.inspect("{{.Id}}").unwrap();
    let process = orphan.process().unwrap();
    script(&format!("pkill -9 -f 'containerd-shim-runc-v2 .*{id}'")).unwrap();
    assert_ne!(orphan.wait().unwrap(), "0");
    orphan.docker(&["rm", "-f"]).unwrap();
    process.wait().unwrap();
    let healthy = docker().args(["run", "--rm", "busybox", "true"]).launch();
    assert_eq!(healthy.unwrap().wait().unwrap().code(), Some(0));
}

/// Both ways return when it serves again.
fn restart_containerd() {
    script(
        "if command -v hostagent >/dev/null; then
             pkill -9 -x containerd
             hostagent start /var/log/containerd.log containerd
         else
             systemctl kill -s KILL containerd && systemctl restart containerd
         fi",
    )
    .unwrap();
}
