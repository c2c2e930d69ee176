//! Who runs the commands: the agent, which is found, and which nobody keeps from its work.

use proto::exec::{AGENT_PORT, addresses};
use tests::docker::{Container, docker};
use tests::guest::{Guest, Rootfs, Running, payload};

use super::{exec, runq_exec, shell};
use crate::assert_output;

#[test]
#[ignore = "needs Docker: make test"]
fn the_agent_is_found_at_its_second_address_and_serves_on() {
    let container = Container::new().unwrap();
    let id = create(&container);
    let mut addresses = addresses(&id);
    let other = Other::at(addresses.next().unwrap());
    container.docker(&["start"]).unwrap();
    assert_output(&exec(&container, &[], &["echo", "found"]), "found\n");
    assert_output(&runq_exec(&[container.name(), "echo", "found"]), "found\n");
    other.end();
    root_cannot_reach_it(&container);
    nobody_is_locked_out(&container, addresses.next().unwrap());
}

/// A container whose root may do all that there is in the machine; it does not run yet. Its ID.
fn create(container: &Container) -> String {
    let rights = ["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"];
    let create = docker().args(["create", "--runtime", "runq", "--name", container.name()]);
    let create = create.args(rights).args(["busybox", "sleep", "100000"]);
    let done = create.launch().unwrap().wait().unwrap();
    assert_eq!(done.code(), Some(0), "{done:?}");
    done.stdout().trim().to_owned()
}

/// Another guest of this host.
struct Other {
    _rootfs: Rootfs,
    running: Running,
}

impl Other {
    fn at(address: u32) -> Self {
        let rootfs = Rootfs::new().unwrap();
        let guest = Guest::of(&rootfs).unwrap();
        let guest = guest.option("--vsock", format!("cid={address}"));
        let mut running = guest
            .open_stdin()
            .start(["/bin/sh", "-c", "echo here; read word"])
            .unwrap();
        running.wait_for("here\n").unwrap();
        Self {
            _rootfs: rootfs,
            running,
        }
    }

    /// It has had its address all the time.
    fn end(mut self) {
        self.running.write("end\n").unwrap();
        let done = self.running.wait().unwrap();
        assert_eq!(done.code(), Some(0), "{done:?}");
    }
}

/// The agent is no process of the container's, whatever its root mounts, and whomever it kills.
fn root_cannot_reach_it(container: &Container) {
    let processes = "
        mkdir -p /tmp/proc
        mount -t proc proc /tmp/proc
        for process in /proc/[0-9]* /tmp/proc/[0-9]*; do
            read name <$process/comm
            echo $name
        done
        umount /tmp/proc";
    let done = shell(container, &["--privileged"], processes);
    assert_output(&done, "sleep\nsh\nsleep\nsh\n");
    // All but the container's first process, and the one that asks.
    let kill = "exec 2>/dev/null; sleep 1000 & kill -9 -1; wait $!; echo $?";
    assert_output(&shell(container, &["--privileged"], kill), "137\n");
    assert_output(&exec(container, &[], &["echo", "served"]), "served\n");
}

/// A crowd that only connects may come from anybody on the host.
fn nobody_is_locked_out(container: &Container, address: u32) {
    let program = payload("vsockcheck").unwrap();
    let crowd = format!(
        "ulimit -n 20000; exec {} crowd {address} {AGENT_PORT} 10000",
        program.display()
    );
    let mut crowd = Guest::program("bash")
        .args(["-c", &crowd])
        .launch()
        .unwrap();
    crowd.wait_for("half\n").unwrap();
    assert_output(&exec(container, &[], &["echo", "during"]), "during\n");
    crowd.wait_for("all\n").unwrap();
    assert_output(&exec(container, &[], &["echo", "beside"]), "beside\n");
    drop(crowd);
    assert_output(&exec(container, &[], &["echo", "after"]), "after\n");
}
