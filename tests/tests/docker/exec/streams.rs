//! What commands read and write.

use rustix::process::Signal;
use tests::docker::{Container, script};
use tests::guest::terminal::{self, Terminal};

use super::{call, waiting};
use crate::{assert_code, assert_output, without};

#[test]
#[ignore = "needs Docker: make test"]
fn streams_are_those_of_the_client() {
    let container = waiting(&[]);
    check(&container, 200);
    on_a_terminal(&container);
}

/// The monitor's own device, where the host's kernel has none.
#[test]
#[ignore = "needs Docker: make test"]
fn streams_are_the_same_without_the_kernels_vsock() {
    without("/dev/vhost-vsock", || {
        let container = waiting(&[]);
        check(&container, 20);
        let done =
            super::runq_exec(&["-e", "A=b", container.name(), "sh", "-c", "echo $A; exit 4"]);
        assert_code(&done, 4);
        assert_eq!((&*done.stdout(), &*done.stderr()), ("b\n", ""));
    });
}

/// With so many MiB both ways.
fn check(container: &Container, mib: u32) {
    let echo = call(container, &["-i"], &["sh", "-c", "cat; echo end"]).stdin("some\0bytes\n");
    assert_output(
        &echo.launch().unwrap().wait().unwrap(),
        "some\0bytes\nend\n",
    );
    // Nobody reads all that is written.
    let head = "head -c 10M /dev/zero | docker exec -i NAME head -c 3 | wc -c";
    assert_eq!(
        script(&head.replace("NAME", container.name())).unwrap(),
        "3"
    );
    let both_ways = "
        head -c MIBM /dev/urandom >/dev/shm/bytes
        trap 'rm /dev/shm/bytes' EXIT
        docker exec -i NAME cat </dev/shm/bytes | cmp - /dev/shm/bytes && echo same";
    let both_ways = both_ways.replace("NAME", container.name());
    let both_ways = both_ways.replace("MIB", &mib.to_string());
    assert_eq!(script(&both_ways).unwrap(), "same");
}

fn on_a_terminal(container: &Container) {
    let mut run = call(container, &["-t", "-i"], &["sh", "-c", terminal::SCRIPT])
        .terminal(Terminal::open(33, 101).unwrap())
        .env("TERM", "vt220")
        .launch()
        .unwrap();
    run.wait_for("size 33 101\r\n").unwrap();
    run.wait_for("warning\r\nready\r\n").unwrap();
    run.write("hello\r").unwrap();
    run.wait_for("<hello>\r\n").unwrap();
    run.terminal().unwrap().resize(50, 132).unwrap();
    run.signal(Signal::WINCH).unwrap();
    run.wait_for("now 50 132\r\n").unwrap();
    run.write("\x03").unwrap();
    run.wait_for("interrupted\r\n").unwrap();
    run.write("quit\r").unwrap();
    assert_code(&run.wait().unwrap(), 5);
}
