//! `runq-exec`, which needs no Docker daemon to carry the bytes, and its certificates.

use rustix::process::Signal;
use tests::docker::{Container, ROOT, docker, script};
use tests::guest::Guest;
use tests::guest::terminal::{self, Terminal};

use super::{assert_own_failure, runq_exec, shell, waiting};
use crate::{assert_code, assert_output};

#[test]
#[ignore = "needs Docker: make test"]
fn runq_exec_runs_commands() {
    let container = waiting(&["-e", "A=1", "-w", "/var", "-u", "7:8"]);
    let name = container.name();
    // The image has none.
    let users =
        "mkdir -p /etc; echo nobody:x:65534:65534::/: >/etc/passwd; echo x:x:1: >/etc/group";
    assert_output(&shell(&container, &["-u", "0"], users), "");
    let tell = "echo $A $B $(pwd) $(id -u) $(id -g); echo error >&2; exit 9";
    let done = runq_exec(&["-e", "B=2", name, "sh", "-c", tell]);
    assert_code(&done, 9);
    assert_eq!(
        (&*done.stdout(), &*done.stderr()),
        ("1 2 /var 7 8\n", "error\n")
    );
    // It has the rights of the container's process.
    let of =
        |process: &str| format!("grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/{process}/status");
    let same = format!("[ \"$({})\" = \"$({})\" ]", of("1"), of("self"));
    assert_output(&runq_exec(&[name, "sh", "-c", &same]), "");
    let id = container.inspect("{{.Id}}").unwrap();
    for name in [&id[..], &id[..12]] {
        let done = runq_exec(&[
            "-u",
            "nobody",
            "-w",
            "/etc",
            name,
            "sh",
            "-c",
            "id -un; pwd",
        ]);
        assert_output(&done, "nobody\n/etc\n");
    }
    assert_code(&runq_exec(&[name, "no-such-command"]), 127);
    assert_code(&runq_exec(&[name, "/etc/passwd"]), 126);
    assert_code(&runq_exec(&[name, "sh", "-c", "kill -15 $$"]), 143);
    let program = format!("{ROOT}/runq-exec");
    let cat = Guest::program(&program)
        .args(["-i", name, "cat"])
        .stdin("bytes\0");
    assert_output(&cat.launch().unwrap().wait().unwrap(), "bytes\0");
    on_a_terminal(&program, name);
    leaves_nothing(&program, &container);
    refusals(name);
    certificates(name);
}

fn on_a_terminal(program: &str, name: &str) {
    let mut run = Guest::program(program)
        .args(["-t", "-i", name, "sh", "-c", terminal::SCRIPT])
        .terminal(Terminal::open(33, 101).unwrap())
        .env("TERM", "vt220")
        .launch()
        .unwrap();
    run.wait_for("size 33 101\r\n").unwrap();
    run.wait_for("term vt220\r\n").unwrap();
    run.wait_for("ready\r\n").unwrap();
    assert!(run.terminal().unwrap().mode().unwrap().is_raw());
    run.terminal().unwrap().resize(50, 132).unwrap();
    run.signal(Signal::WINCH).unwrap();
    run.wait_for("now 50 132\r\n").unwrap();
    run.write("quit\r").unwrap();
    let done = run.wait().unwrap();
    assert_code(&done, 5);
    assert!(!done.mode.unwrap().is_raw(), "{done:?}");
}

/// Of a client that is killed: neither a command that ends with its terminal, nor one that does not.
fn leaves_nothing(program: &str, container: &Container) {
    for (number, trap) in [("6161", ""), ("6262", "trap '' HUP; ")] {
        let command = format!("{trap}echo here; exec sleep {number}");
        let client = Guest::program(program).args([container.name(), "sh", "-c", &command]);
        let mut client = client.launch().unwrap();
        client.wait_for("here\n").unwrap();
        let table = container.docker(&["top"]).unwrap();
        assert!(table.contains(&format!("sleep {number}")), "{table}");
        client.signal(Signal::KILL).unwrap();
        assert_eq!(client.wait().unwrap().signal(), Some(9));
        let gone = format!("while ps | grep -q '[s]leep {number}'; do :; done");
        assert_output(&shell(container, &["-u", "0"], &gone), "");
    }
    let table = container.docker(&["top"]).unwrap();
    assert!(!table.contains("sleep 6"), "{table}");
}

fn refusals(name: &str) {
    assert_own_failure(
        &runq_exec(&["no-such-container", "true"]),
        "no-such-container",
    );
    let other = docker().args(["run", "-d", "--name", "other", "busybox", "sleep", "100000"]);
    assert_code(&other.launch().unwrap().wait().unwrap(), 0);
    assert_own_failure(&runq_exec(&["other", "true"]), "runq");
    script("docker kill other").unwrap();
    assert_own_failure(&runq_exec(&["other", "true"]), "run");
    script("docker rm -f other").unwrap();
    assert_own_failure(
        &runq_exec(&["-c", "/nowhere/cert.pem", name, "true"]),
        "/nowhere/cert.pem",
    );
    let done = Guest::program(format!("{ROOT}/runq-exec"))
        .env("DOCKER_HOST", "unix:///nowhere.sock")
        .args([name, "true"]);
    assert_own_failure(&done.launch().unwrap().wait().unwrap(), "/nowhere.sock");
}

/// `runq certs` makes a new set: this container keeps the old one.
fn certificates(name: &str) {
    let server = ["-c", "vm/certs/cert.pem", "-k", "vm/certs/key.pem"].map(|word| match word {
        "-c" | "-k" => word.to_owned(),
        file => format!("{ROOT}/{file}"),
    });
    let authority = format!("{ROOT}/vm/certs/ca.pem");
    let wrong: Vec<_> = server.iter().map(String::as_str).collect();
    let done = runq_exec(&[&wrong[..], &["--ca", &authority, name, "true"]].concat());
    assert_own_failure(&done, "certificate");
    script(&format!(
        "cp -a {ROOT}/cert.pem {ROOT}/key.pem /tmp/; {ROOT}/vm/mkcerts.sh"
    ))
    .unwrap();
    assert_own_failure(&runq_exec(&[name, "true"]), "certificate");
    let old = [
        "-c",
        "/tmp/cert.pem",
        "-k",
        "/tmp/key.pem",
        name,
        "echo",
        "old",
    ];
    assert_output(&runq_exec(&old), "old\n");
    let exec = docker().args(["exec", name, "echo", "docker"]);
    assert_output(&exec.launch().unwrap().wait().unwrap(), "docker\n");
    let newer = waiting(&[]);
    assert_output(&runq_exec(&[newer.name(), "echo", "new"]), "new\n");
    assert_output(&shell(&newer, &[], "echo new"), "new\n");
}
