//! What options of `docker run` do, with runc and with runq, side by side.
//!
//! One container of each has many options at once; a script in it prints what came of them, under a heading each. The table of
//! both goes to the test's output. What differs has to be in the list of what is known to, with the reason.

use std::collections::BTreeMap;
use std::io::{self, Write};

use tests::docker::{Container, docker, script};

/// What a group of options is compared by, each line a heading and a command.
type Facts = &'static [(&'static str, &'static str)];

/// A heading whose facts differ, and why: the limits that the README names, or what a machine is.
type Known = &'static [(&'static str, &'static str)];

/// Of a container with a user, rights, limits and settings of its own.
const PROCESS: Facts = &[
    ("--user, --group-add", "id"),
    ("--env, --env-file", "env | grep -v ^RUNQ_ | sort"),
    ("--workdir", "pwd"),
    (
        "--hostname",
        "hostname; cat /etc/hostname; grep box /etc/hosts | cut -f 2",
    ),
    ("--domainname", "cat /proc/sys/kernel/domainname"),
    ("--add-host", "grep other /etc/hosts"),
    (
        "--dns, --dns-search, --dns-option",
        "grep -v '^#' /etc/resolv.conf",
    ),
    ("--cap-add, --cap-drop", "grep ^Cap /proc/self/status"),
    (
        "--security-opt no-new-privileges",
        "grep NoNewPrivs /proc/self/status",
    ),
    (
        "the default seccomp profile",
        "grep ^Seccomp: /proc/self/status; unshare -U true; keyctl 2>&1 | head -1",
    ),
    (
        "--ulimit",
        "ulimit -n; ulimit -u; ulimit -c; ulimit -Hn; ulimit -s; ulimit -l",
    ),
    (
        "--sysctl",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn",
    ),
    ("--oom-score-adj", "cat /proc/self/oom_score_adj"),
    ("umask", "umask"),
    ("standard input", "readlink /proc/self/fd/0; cat"),
    (
        "masked paths",
        "for f in keys timer_list acpi scsi; do stat -c '%n %F' /proc/$f; cat /proc/$f 2>&1 | wc -c; done",
    ),
    (
        "read-only paths",
        "grep -E ' /proc/(bus|fs|irq|sys|sysrq-trigger) ' /proc/mounts | cut -d ' ' -f 2,4",
    ),
    ("the audit login user", "cat /proc/self/loginuid"),
    ("the kernel", "uname -r"),
    (
        "its memory",
        "stat -c '%n %F' /proc/kcore; readlink /dev/core",
    ),
    ("process number", "echo $$"),
];

const PROCESS_KNOWN: Known = &[
    ("the audit login user", "the machine's kernel has no audit"),
    ("the kernel", "the machine has its own"),
    ("its memory", "the machine's kernel has no /proc/kcore"),
];

const PROCESS_OPTIONS: &str = "\
    --user 1000:100 --group-add 7 --group-add 4711 --env EMPTY= --workdir /new/folder --hostname box \
    --domainname example.org --add-host other:10.1.2.3 --dns 10.1.2.4 --dns-search example.com \
    --dns-option ndots:3 --cap-drop ALL --cap-add CHOWN --cap-add NET_BIND_SERVICE \
    --security-opt no-new-privileges --ulimit nofile=100:200 --ulimit nproc=50 --ulimit core=0 \
    --ulimit stack=1048576 --ulimit memlock=65536 --sysctl net.ipv4.ip_forward=1 \
    --sysctl kernel.msgmax=4096 --sysctl net.core.somaxconn=77 --oom-score-adj 500";

/// Of a container with files, devices and limits of its own, whose process is root.
const FILES: Facts = &[
    ("--init", "cat /proc/1/comm"),
    (
        "--read-only",
        "touch /file 2>&1; mkdir /data/ro/x 2>&1; grep ' / ' /proc/mounts | grep -o ' r[ow],'",
    ),
    (
        "--volume",
        "ls /data/rw; grep ' /data/' /proc/mounts | cut -d ' ' -f 2,4 | sed 's/,noinit_itable//' | sort",
    ),
    (
        "the file system of volumes",
        "grep -E ' /(data/.*)? ' /proc/mounts | cut -d ' ' -f 2,3 | sort",
    ),
    (
        "--tmpfs",
        "grep ' /tmpfs' /proc/mounts | cut -d ' ' -f 2- | sed 's/,inode64//; s/,huge=[a-z]*//; s/,mode=1777//' | sort; stat -c '%u:%g %a' /tmpfs*",
    ),
    (
        "--shm-size",
        "df -k /dev/shm | awk 'NR == 2 { print $2 }'; grep ' /dev/shm ' /proc/mounts | cut -d ' ' -f 3,4 | sed 's/,inode64//'",
    ),
    (
        "other mounts",
        "grep -vE ' /(data|tmpfs|etc|dev/shm|sbin|lib/modules)?[^ ]* (overlay|virtiofs|ext4|xfs|tmpfs)? ?' /proc/mounts | cut -d ' ' -f 2- | sed 's/,inode64//'",
    ),
    (
        "/dev",
        "ls -l /dev | awk '/^[bc]/ { print $1, $3, $4, $5, $6, $10 } /^[ld]/ { print $1, $9, $11 }' | grep -v kcore | sort",
    ),
    ("--device", "ls -l /dev/fuse | awk '{ print $1, $5, $6 }'"),
    (
        "--memory, --memory-swap",
        "cd /sys/fs/cgroup && head memory.max memory.swap.max memory.low",
    ),
    ("--cpus", "cat /sys/fs/cgroup/cpu.max"),
    ("--pids-limit", "cat /sys/fs/cgroup/pids.max"),
    (
        "the control group",
        "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*/ 2>/dev/null; grep cgroup /proc/mounts | cut -d ' ' -f 2-",
    ),
    ("the default capabilities", "grep ^Cap /proc/self/status"),
    (
        "the default limits",
        "ulimit -n; ulimit -u; ulimit -c; ulimit -s; ulimit -l",
    ),
    ("--cpuset-cpus", "grep Cpus_allowed_list /proc/self/status"),
    ("the processor", "grep -m 1 'model name' /proc/cpuinfo"),
    (
        "--network none",
        "ls /sys/class/net; cat /proc/net/route | wc -l",
    ),
    (
        "writing to /proc/sys and /sys",
        "echo 1 2>&1 >/proc/sys/net/ipv4/ip_forward; mkdir /sys/fs/cgroup/x 2>&1; ls -ld /sys/firmware | cut -c 1-10",
    ),
];

const FILES_KNOWN: Known = &[
    (
        "the file system of volumes",
        "they are shared with the host by virtio-fs",
    ),
    (
        "the default limits",
        "they are runq's own, not those of dockerd",
    ),
    (
        "--cpuset-cpus",
        "it is that of the whole machine, on the host",
    ),
];

const FILES_OPTIONS: &str = "\
    --init --read-only --network none --tmpfs /tmpfs-a:noatime,uid=7,gid=8,mode=750,size=1m \
    --tmpfs /tmpfs-b:strictatime,exec --tmpfs /tmpfs-c:ro --shm-size 8m --device /dev/fuse:/dev/fuse:r \
    --memory 96m --memory-swap 96m --cpus 0.5 --pids-limit 77 --cpuset-cpus 0";

/// What a container with these options prints, by heading.
fn found(runtime: &str, options: &[&str], facts: Facts) -> BTreeMap<&'static str, String> {
    let container = Container::new().unwrap();
    let lines: String = facts
        .iter()
        .map(|(name, command)| format!("echo '== {name}'\n( {command} ) 2>&1\n"))
        .collect();
    let call = docker().args(["run", "--runtime", runtime, "--name", container.name()]);
    let call = call.args(options).args(["busybox", "sh", "-c", &lines]);
    let done = call.launch().unwrap().wait().unwrap();
    let stdout = done.stdout();
    let printed: BTreeMap<_, _> = stdout
        .split("== ")
        .filter_map(|part| part.split_once('\n'))
        .collect();
    let fact = |(name, _): &(&'static str, _)| {
        let text = printed.get(name);
        let text = text.unwrap_or_else(|| panic!("{name}: {done:?}"));
        (*name, text.trim_end().to_owned())
    };
    facts.iter().map(fact).collect()
}

/// Prints the table; fails for what differs and is not known to, and for what is known to and does not.
fn compare(options: &[&str], facts: Facts, known: Known) {
    let [runc, runq] = ["runc", "runq"].map(|runtime| found(runtime, options, facts));
    let known: BTreeMap<_, _> = known.iter().copied().collect();
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for (name, _) in facts {
        let (runc, runq, reason) = (&runc[name], &runq[name], known.get(name));
        let verdict = match (runc == runq, reason) {
            (true, _) => "same",
            (false, None) => "DIFFERS",
            (false, Some(reason)) => reason,
        };
        table += &format!("{name} | {runc:?} | {runq:?} | {verdict}\n");
        if (runc == runq) == reason.is_some() {
            wrong.push(name);
        }
    }
    show(&table);
    assert!(wrong.is_empty(), "not as it is known: {wrong:?}");
}

/// Prints past the harness, which keeps what a test that passes prints. It has begun a line with the test's name, and ends that
/// with the result.
fn show(text: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let mut log = io::stdout();
    write!(log, "\n{text}test {name} ... ").unwrap();
    log.flush().unwrap();
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_process_finds_what_it_finds_with_runc() {
    let environment = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    std::fs::write(&environment, "FROM_FILE=1\n").unwrap();
    let file = environment.path().to_str().unwrap();
    let options = ["--env", "A=a b", "--env-file", file];
    let all: Vec<_> = PROCESS_OPTIONS.split_whitespace().chain(options).collect();
    compare(&all, PROCESS, PROCESS_KNOWN);
}

#[test]
#[ignore = "needs Docker: make test"]
fn files_devices_and_limits_are_what_they_are_with_runc() {
    let data = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(data.path().join("file"), "").unwrap();
    script("modprobe fuse").unwrap();
    let volumes = ["rw", "ro"].map(|mode| format!("{}:/data/{mode}:{mode}", data.path().display()));
    let options = ["--volume", &volumes[0], "--volume", &volumes[1]];
    let all: Vec<_> = FILES_OPTIONS.split_whitespace().chain(options).collect();
    compare(&all, FILES, FILES_KNOWN);
}
