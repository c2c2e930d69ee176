//! What a command is given, and how its end is told.

use tests::docker::{Container, script};

use super::{call, exec, shell, waiting};
use crate::{assert_code, assert_output};

#[test]
#[ignore = "needs Docker: make test"]
fn a_command_has_what_the_container_has() {
    let options = [
        "-e",
        "A=1",
        "--hostname",
        "here",
        "-w",
        "/var",
        "--ulimit",
        "nofile=777",
    ];
    let options = [&options[..], &["--pids-limit", "200"]].concat();
    let container = waiting(&options);
    // At once: the machine still boots.
    let done = shell(
        &container,
        &["-e", "B=2"],
        "echo $A $B $HOME; hostname; pwd; ulimit -n; cat /proc/1/comm /proc/self/cgroup",
    );
    assert_output(&done, "1 2 /\nhere\n/var\n777\nsh\n0::/\n");
    let passwd =
        "mkdir -p /etc; printf 'root:x:0:0::/root:\nnobody:x:65534:65534::/:\n' >/etc/passwd";
    assert_output(&shell(&container, &[], passwd), "");
    assert_output(&shell(&container, &[], "echo $HOME"), "/root\n");
    end_codes(&container);
    says_what_runc_says(&container);
    rights(&container);
    users(&container);
    assert_output(&exec(&container, &["-w", "/etc"], &["pwd"]), "/etc\n");
    assert_code(&exec(&container, &["-d"], &["touch", "/done"]), 0);
    assert_output(
        &shell(&container, &[], "until [ -e /done ]; do :; done"),
        "",
    );
    leaves_with_its_client(&container);
    let many = "for n in $(seq 50); do
            { code=0; docker exec NAME sh -c \"exit $n\" || code=$?; echo $code; } &
        done; wait";
    let codes = script(&many.replace("NAME", container.name())).unwrap();
    let mut codes: Vec<u8> = codes.lines().map(|code| code.parse().unwrap()).collect();
    codes.sort_unstable();
    assert_eq!(codes, (1..=50).collect::<Vec<_>>());
    ends_with_the_container(&container);
}

fn end_codes(container: &Container) {
    for code in ["0", "3", "255"] {
        let done = shell(
            container,
            &[],
            &format!("echo out; echo error >&2; exit {code}"),
        );
        assert_code(&done, code.parse().unwrap());
        assert_eq!((&*done.stdout(), &*done.stderr()), ("out\n", "error\n"));
    }
    assert_code(&shell(container, &[], "kill -9 $$"), 137);
    let failures = [
        ("no-such-command", "executable file not found in $PATH"),
        ("/no/such/command", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ];
    for (command, words) in failures {
        let done = exec(container, &[], &[command]);
        // Docker's own code, which is 127 for some of them from Docker 27 on, and its own message.
        assert!(matches!(done.code(), Some(126 | 127)), "{done:?}");
        let text = [done.stdout(), done.stderr()].concat();
        assert!(
            text.starts_with("OCI runtime exec failed: exec failed: ") && text.contains(words),
            "{done:?}"
        );
    }
}

/// What a user of Docker sees of a command that cannot be where it should is the same in both runtimes.
fn says_what_runc_says(container: &Container) {
    let beside = format!("{}-runc", container.name());
    let run = format!("docker run -d --name {beside} busybox sleep 100000");
    script(&run).unwrap();
    for directory in ["/nowhere", "/bin/sh"] {
        let told = |name: &str| {
            let exec = format!("docker exec -w {directory} {name} true 2>&1 || echo $?");
            script(&exec).unwrap()
        };
        let ours = told(container.name());
        assert!(ours.contains(directory), "{ours}");
        assert_eq!(ours, told(&beside));
    }
    script(&format!("docker rm -f {beside}")).unwrap();
}

/// Of the container's process, and of a command beside it.
fn rights(container: &Container) {
    let of = |process: &str| {
        format!("grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/{process}/status")
    };
    let same = format!("[ \"$({})\" = \"$({})\" ]", of("1"), of("self"));
    assert_output(&shell(container, &[], &same), "");
    let sets = "sed -nE 's/^(CapEff|Seccomp):\\s*//p' /proc/self/status";
    assert_output(
        &shell(container, &["--privileged"], sets),
        "000001ffffffffff\n0\n",
    );
}

fn users(container: &Container) {
    for (user, expected) in [("1000:1001", "1000 1001\n"), ("nobody", "65534 65534\n")] {
        let done = shell(container, &["-u", user], "echo $(id -u) $(id -g)");
        assert_output(&done, expected);
    }
    let done = exec(container, &["-u", "nobody"], &["cat", "/proc/self/status"]);
    assert!(
        done.stdout().contains("CapEff:\t0000000000000000\n"),
        "{done:?}"
    );
}

/// Of a relay that is killed no command is left, as of one whose health check takes too long.
fn leaves_with_its_client(container: &Container) {
    let mut left = call(container, &[], &["sh", "-c", "echo here; exec sleep 4242"])
        .launch()
        .unwrap();
    left.wait_for("here\n").unwrap();
    let id = container.inspect("{{.Id}}").unwrap();
    let folder = format!("/run/containerd/io.containerd.runtime.v2.task/moby/{id}");
    let relay = script(&format!("ls {folder}/*.pid | grep -v init.pid | xargs cat")).unwrap();
    script(&format!("kill -9 {relay}")).unwrap();
    assert_code(&left.wait().unwrap(), 137);
    let gone = "while ps | grep -q '[s]leep 4242'; do :; done";
    assert_output(&shell(container, &[], gone), "");
}

/// `docker stop` while commands run.
fn ends_with_the_container(container: &Container) {
    let mut running = call(container, &[], &["sh", "-c", "echo here; exec sleep 5151"])
        .launch()
        .unwrap();
    running.wait_for("here\n").unwrap();
    container.docker(&["stop", "-t", "100"]).unwrap();
    assert_code(&running.wait().unwrap(), 137);
    assert_eq!(container.inspect("{{.State.ExitCode}}").unwrap(), "7");
}

#[test]
#[ignore = "needs Docker: make test"]
fn docker_top_shows_what_runs_in_the_machine() {
    let container = waiting(&[]);
    assert_output(
        &exec(&container, &["-d", "-u", "65534"], &["sleep", "4343"]),
        "",
    );
    let table = container.docker(&["top"]).unwrap();
    assert!(
        table.contains("[1] sh -c ")
            && table.contains("] sleep 100000")
            && table.contains("] sleep 4343"),
        "{table}"
    );
    assert!(
        !table.contains("proxy") && !table.contains("runq"),
        "{table}"
    );
    // Docker itself wants the numbers. The user is called as on the host.
    let top = format!("docker top {} -o pid,user,args", container.name());
    let columns = script(&top).unwrap();
    let line = columns.lines().find(|line| line.contains("sleep 4343"));
    let words: Vec<_> = line.unwrap().split_whitespace().skip(1).collect();
    assert!(
        matches!(words[..], ["nobody", _, "sleep", "4343"]),
        "{columns}"
    );
}
