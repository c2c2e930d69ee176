//! Containers in the foreground: exit codes, streams, terminals.

use std::thread;

use tests::docker::{Container, docker};
use tests::guest::terminal::{self, Terminal};
use tests::pattern::{Digest, Pattern};

use crate::assert_code;

#[test]
#[ignore = "needs Docker: make test"]
fn exit_codes_are_the_processes() {
    // Side by side, as each takes its time.
    let code = |command: &'static [&'static str]| {
        thread::spawn(move || {
            let container = Container::new().unwrap();
            let call = container.docker_run().args(["--rm", "busybox"]);
            call.args(command).launch().unwrap().wait().unwrap()
        })
    };
    let [zero, seven, killed] = [
        &["true"][..],
        &["sh", "-c", "exit 7"],
        &[
            "sh",
            "-c",
            "kill -9 $$ 2>/dev/null; (kill -9 $(sh -c 'echo $PPID')); exit 137",
        ],
    ]
    .map(code);
    let [missing, directory] = [&["nonexistent"][..], &["/etc"]].map(code);
    assert_code(&zero.join().unwrap(), 0);
    assert_code(&seven.join().unwrap(), 7);
    assert_code(&killed.join().unwrap(), 137);
    let missing = missing.join().unwrap();
    assert_code(&missing, 127);
    assert!(missing.stderr().contains("nonexistent"), "{missing:?}");
    let directory = directory.join().unwrap();
    assert_code(&directory, 126);
    assert!(directory.stderr().contains("/etc"), "{directory:?}");
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_mebibyte_goes_in_and_comes_out_and_the_streams_are_apart() {
    const SIZE: u64 = 1 << 20;
    let mut bytes = Vec::new();
    std::io::copy(&mut std::io::Read::take(Pattern::new(3), SIZE), &mut bytes).unwrap();
    let container = Container::new().unwrap();
    let done = container
        .docker_run()
        .args([
            "--rm",
            "-i",
            "busybox",
            "sh",
            "-c",
            "cat; echo error >&2; exit 4",
        ])
        .stdin(bytes)
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_code(&done, 4);
    assert_eq!(done.stderr(), "error\n");
    let expected = Digest::of(std::io::Read::take(Pattern::new(3), SIZE)).unwrap();
    assert_eq!(Digest::of(done.stdout_bytes()).unwrap(), expected);
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_terminal_has_its_size_from_the_start_and_follows_it() {
    let container = Container::new().unwrap();
    let mut run = container
        .docker_run()
        .args(["--rm", "-t", "-i", "busybox", "sh", "-c", terminal::SCRIPT])
        .terminal(Terminal::open(33, 101).unwrap())
        .env("TERM", "vt220")
        .launch()
        .unwrap();
    run.wait_for("size 33 101\r\n").unwrap();
    run.wait_for("/dev/pts/0\r\n").unwrap();
    run.wait_for("warning\r\nready\r\n").unwrap();
    run.write("hello\r").unwrap();
    run.wait_for("<hello>\r\n").unwrap();
    run.terminal().unwrap().resize(50, 132).unwrap();
    run.signal(rustix::process::Signal::WINCH).unwrap();
    run.wait_for("now 50 132\r\n").unwrap();
    run.write("quit\r").unwrap();
    assert_code(&run.wait().unwrap(), 5);
}

/// Without `-i` nothing can be typed, but it is a terminal all the same.
#[test]
#[ignore = "needs Docker: make test"]
fn a_terminal_that_is_only_watched() {
    let container = Container::new().unwrap();
    let done = container
        .shell(&["--rm", "-t"], "tty; test -t 0 && test -t 1 && test -t 2")
        .unwrap();
    assert_code(&done, 0);
    assert_eq!(done.stdout(), "/dev/pts/0\r\n");
}

#[test]
#[ignore = "needs Docker: make test"]
fn attach_is_there_from_then_on() {
    const ECHO: &str =
        "echo before; while read line; do echo \"<$line>\"; [ $line != quit ] || exit 6; done";
    let container = Container::new().unwrap();
    container.detach(&["-i"], ECHO).unwrap();
    let mut attached = docker()
        .args(["attach", container.name()])
        .open_stdin()
        .launch()
        .unwrap();
    attached.write("hello\n").unwrap();
    attached.wait_for("<hello>\n").unwrap();
    attached.write("quit\n").unwrap();
    assert_code(&attached.wait().unwrap(), 6);
    let logs = container.docker(&["logs"]).unwrap();
    assert_eq!(logs, "before\n<hello>\n<quit>");
}
