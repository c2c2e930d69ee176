//! What becomes of a container whose machine breaks down.

use std::thread;

use tests::docker::{Container, docker, script};

use crate::assert_code;

#[test]
#[ignore = "needs Docker: make test"]
fn each_break_down_has_its_code_and_docker_stays_well() {
    let panic = thread::spawn(|| {
        let container = Container::new().unwrap();
        let options = ["--rm", "-i", "--security-opt", "systempaths=unconfined"];
        let script = "echo before; read line; echo c >/proc/sysrq-trigger";
        let call = container.docker_run().args(options).open_stdin();
        let mut run = call.args(["busybox", "sh", "-c", script]).launch().unwrap();
        // What is under way in a guest that panics is lost.
        run.wait_for("before\n").unwrap();
        run.write("\n").unwrap();
        run.wait().unwrap()
    });
    let memory = thread::spawn(|| {
        let container = Container::new().unwrap();
        let script = "tail /dev/zero; echo \"code $?\"; exec tail /dev/zero";
        container.shell(&["--rm"], script).unwrap()
    });
    let panic = panic.join().unwrap();
    assert_code(&panic, 134);
    assert!(panic.stderr().contains("panic"), "{panic:?}");
    let memory = memory.join().unwrap();
    assert_code(&memory, 137);
    assert!(memory.stdout().contains("code 137"), "{memory:?}");

    let container = Container::new().unwrap();
    container.detach(&[], "echo ready; sleep 1000").unwrap();
    container.follow().unwrap().wait_for("ready\n").unwrap();
    script(&format!("kill -9 {}", container.pid().unwrap())).unwrap();
    assert_eq!(container.wait().unwrap(), "137");
    let all = docker()
        .args(["ps", "-q"])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(all.stdout(), "", "no container runs");
}
