//! What the container's process finds: its rights, its machine, its names.

use tests::docker::{Container, ROOT, script};

use crate::{assert_code, assert_output};

/// Facts of which each is a line.
const FACTS: &str = r#"
echo "pid $$"
echo "cpus $(nproc)"
echo "host $(hostname) $(cat /etc/hostname)"
echo "ids $(id -u):$(id -g) $(id -G)"
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
echo "cwd $(pwd)"
echo "home $HOME"
echo "var $VAR"
echo "files $(ulimit -n)"
echo "umask $(umask)"
echo "rmid $(cat /proc/sys/kernel/shm_rmid_forced)"
ls /dev | grep -v core | sort | tr '\n' ' '
echo
df -k /dev/shm | awk 'NR == 2 { print "shm", $2 }'
cat /proc/kcore | head -c 1 | wc -c
echo x >/proc/sysrq-trigger || echo "sysrq refused"
echo "input $(readlink /proc/self/fd/0) $(cat) $(test -t 0 || echo "no terminal")"
grep -m 1 '^model name' /proc/cpuinfo
# Docker mounts them in any order.
awk '$2 ~ "^/tmpfs" {
    line = $2
    count = split($4, options, ",")
    for (i = 1; i <= count; i++) if (options[i] ~ /^(r[ow]|.*atime|[ug]id=.*|mode=.*)$/) line = line " " options[i]
    print line
}' /proc/mounts | sort
stat -c '%n %u:%g %a' /tmpfs* 2>/dev/null || true
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn rights_names_and_limits_are_those_of_docker() {
    let facts = |runtime: &str, options: &[&str]| {
        let container = Container::new().unwrap();
        let done = tests::docker::docker()
            .args([
                "run",
                "--rm",
                "--name",
                container.name(),
                "--runtime",
                runtime,
            ])
            .args(options)
            .args(["busybox", "sh", "-c", FACTS])
            .launch()
            .unwrap()
            .wait()
            .unwrap();
        assert_code(&done, 0);
        done.stdout().into_owned()
    };
    // What runc gives is what a user of Docker expects.
    for options in [
        &[
            "--hostname",
            "box",
            "--cpus",
            "1",
            "-e",
            "VAR=a b",
            "-w",
            "/new/folder",
        ][..],
        &[
            "--hostname",
            "box",
            "--user",
            "1000:100",
            "--group-add",
            "7",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CHOWN",
            "--security-opt",
            "no-new-privileges",
            "--ulimit",
            "nofile=100:200",
            "--shm-size",
            "8m",
            "--sysctl",
            "kernel.shm_rmid_forced=1",
            "--tmpfs",
            "/tmpfs-a:noatime,uid=1000,gid=100,mode=750",
            "--tmpfs",
            "/tmpfs-b:strictatime,nodiratime",
            "--tmpfs",
            "/tmpfs-c:ro,relatime",
        ],
    ] {
        let expected = facts("runc", options);
        let mut options = options.to_vec();
        // One of its own, and one for each of --cpus.
        options.extend(["-e", "RUNQ_CPU=1"]);
        let found = facts("runq", &options);
        let differs =
            |line: &&str| !line.starts_with("cpus ") && !line.starts_with("files 1048576");
        let lines = |text: &str| {
            text.lines()
                .filter(differs)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        similar(&lines(&expected), &lines(&found));
    }
}

#[track_caller]
fn similar(expected: &[String], found: &[String]) {
    assert_eq!(expected.join("\n"), found.join("\n"));
}

#[test]
#[ignore = "needs Docker: make test"]
fn the_machine_is_as_large_as_was_asked_for() {
    let container = Container::new().unwrap();
    let facts = "nproc; awk '/MemTotal/ { print ($2 > 300000 && $2 < 400000) }' /proc/meminfo; uname -r; echo \"$RUNQ_COMMIT\"";
    let options = [
        "--rm",
        "--cpus",
        "1",
        "--memory",
        "128m",
        "-e",
        "RUNQ_CPU=1",
        "-e",
        "RUNQ_MEM=256",
    ];
    let done = container.shell(&options, facts).unwrap();
    let version = std::fs::read_dir(format!("{ROOT}/vm/lib/modules"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .next()
        .unwrap();
    let commit = script(&format!("cat {ROOT}/vm/commit")).unwrap();
    assert_output(&done, &format!("2\n1\n{version}\n{commit}\n"));
}

/// The monitor's threads, each with what it may do: its capabilities, system call filters and root.
#[test]
#[ignore = "needs Docker: make test"]
fn the_monitor_has_given_up_what_it_does_not_need() {
    let container = Container::new().unwrap();
    container.detach(&[], "echo ready; sleep 1000").unwrap();
    container.follow().unwrap().wait_for("ready\n").unwrap();
    let pid = container.pid().unwrap();
    let threads = script(&format!(
        "for task in /proc/{pid}/task/*; do
             echo $(cat $task/comm) \
                 $(awk '/^(CapPrm|CapEff|NoNewPrivs|Seccomp):/ {{ print $2 }}' $task/status) \
                 $(ls -A $task/root/ | tr '\\n' ' ')
         done | sort"
    ))
    .unwrap();
    // CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD, SETFCAP: bits 0, 1, 3, 4, 6, 7, 27, 31.
    let files = "00000000880000db";
    let none = "0000000000000000";
    let lines = threads.lines().filter(|line| !line.starts_with("kvm-"));
    // The kernel's threads that serve network and vsock are named by the one that asked for them.
    let lines = lines.map(|line| match line.split_once(' ') {
        Some((name, rest)) if name.starts_with("vhost-") => format!("vhost {rest}"),
        _ => line.to_owned(),
    });
    let mut lines: Vec<_> = lines.collect();
    // There are more of the share's when files take long.
    lines.dedup();
    let expected = [
        format!("fs-runq {files} {files} 1 2 modules root volumes"),
        format!("net {none} {none} 1 2"),
        format!("proxy {none} {none} 1 2"),
        format!("vcpu0 {none} {none} 1 2"),
        format!("vhost {none} {none} 1 2"),
    ];
    assert_eq!(lines, expected);

    // The process that watches the network namespace: CAP_NET_ADMIN and MKNOD, bits 12 and 27.
    let watch = script(&format!(
        "pid=$(pgrep -P {pid}); cat /proc/$pid/comm
         awk '/^(CapPrm|CapEff|NoNewPrivs|Seccomp):/ {{ print $2 }}' /proc/$pid/status"
    ));
    let network = "0000000008001000";
    assert_eq!(
        watch.unwrap(),
        format!("network\n{network}\n{network}\n1\n2")
    );
}

/// Docker's init is the first process, ours its child.
#[test]
#[ignore = "needs Docker: make test"]
fn dockers_init_is_the_first_process() {
    script("command -v docker-init").unwrap();
    let container = Container::new().unwrap();
    let done = container
        .shell(
            &["--rm", "--init"],
            "tr '\\0' ' ' </proc/1/cmdline; test $$ != 1",
        )
        .unwrap();
    assert_code(&done, 0);
    assert!(
        done.stdout().starts_with("/sbin/docker-init -- sh"),
        "{done:?}"
    );
}
