//! What a container may use: as with runc, inside as well, and when it is changed.

use tests::docker::{Container, docker, script};
use tests::guest::{Finished, payload};

use crate::refusals::refused;

/// Files of the control group, each with its name.
const FILES: &str =
    "cd /sys/fs/cgroup; grep . memory.max memory.high memory.low memory.swap.max cpu.max pids.max";

/// A loop that would use 128 MiB.
const GREED: &str =
    "awk 'BEGIN { s = \"x\"; while (length(s) < 100000000) s = s s; print \"fits\" }'";

/// Runs a shell script by a runtime, with both runtimes' own options left out.
fn run(container: &Container, runtime: &str, options: &[&str], text: &str) -> Finished {
    let call = docker().args(["run", "--runtime", runtime, "--name", container.name()]);
    let call = call.args(options).args(["busybox", "sh", "-c", text]);
    call.launch().unwrap().wait().unwrap()
}

/// What `docker exec` prints of a shell script.
fn exec(container: &Container, text: &str) -> Finished {
    let call = docker().args(["exec", container.name(), "sh", "-c", text]);
    call.launch().unwrap().wait().unwrap()
}

#[test]
#[ignore = "needs Docker: make test"]
fn limits_hold_inside_as_with_runc() {
    // Without pids there is no other process to tell what the first one still can.
    let text = format!(
        "{FILES} cpuset.cpus.effective
         {GREED}; echo \"a child: $?\"
         (i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i + 1)); done) 2>/dev/null
         read -r processes <pids.current; echo \"after a fork bomb: $processes\"
         exec {GREED}"
    );
    let limits = [
        "--memory",
        "64m",
        "--memory-swap",
        "64m",
        "--memory-reservation",
        "32m",
    ];
    let limits = [&limits[..], &["--cpus", "1", "--pids-limit", "50"]].concat();
    let [expected, found] = ["runc", "runq"].map(|runtime| {
        let container = Container::new().unwrap();
        let mut events = docker()
            .args(["events", "--filter", "event=oom", "--format", "{{.Action}}"])
            .args(["--filter", &format!("container={}", container.name())])
            .launch()
            .unwrap();
        let done = run(&container, runtime, &limits, &text);
        assert_eq!(done.code(), Some(137), "{done:?}");
        events.wait_for("oom\n").unwrap();
        assert_eq!(container.inspect("{{.State.OOMKilled}}").unwrap(), "true");
        done
    });
    assert!(
        expected.stdout().contains("memory.max:67108864\n"),
        "{expected:?}"
    );
    assert!(
        expected
            .stdout()
            .contains("a child: 137\nafter a fork bomb: "),
        "{expected:?}"
    );
    assert_eq!(found.stdout(), expected.stdout());
    let stderr = found.stderr();
    let named = stderr
        .lines()
        .filter(|line| line.contains("has killed \"awk\""));
    assert_eq!(named.count(), 2, "{found:?}");
}

#[test]
#[ignore = "needs Docker: make test"]
fn more_than_the_host_has() {
    let online: u32 = script("getconf _NPROCESSORS_ONLN")
        .unwrap()
        .parse()
        .unwrap();
    let processors = (online + 1).to_string();
    let variable = format!("RUNQ_CPU={processors}");
    let container = Container::new().unwrap();
    let options = ["--rm", "--memory", "1000g", "-e", &variable];
    let done = container
        .shell(&options, "nproc; cat /sys/fs/cgroup/memory.max")
        .unwrap();
    assert_eq!(
        done.stdout(),
        format!("{processors}\n{}\n", 1000_u64 << 30),
        "{done:?}"
    );
    assert_eq!((done.code(), &*done.stderr()), (Some(0), ""));
    refused(
        &["-e", "RUNQ_MEM=1000000"],
        &["1000000 MiB of memory", "this host has"],
    );
}

/// Takes out of Docker's configuration what the test has put there.
struct Bounded;

impl Bounded {
    fn new(arguments: &str) -> Self {
        let entry = format!("{{\"path\": \"/var/lib/runq/runq\", \"runtimeArgs\": {arguments}}}");
        change(&format!(".runtimes.bounded = {entry}"));
        Self
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        change("del(.runtimes.bounded)");
    }
}

fn change(filter: &str) {
    let reload = payload("reload-docker").unwrap();
    script(&format!(
        "f=/etc/docker/daemon.json; jq '{filter}' $f >$f.new; mv $f.new $f; {}",
        reload.display()
    ))
    .unwrap();
}

#[test]
#[ignore = "needs Docker: make test"]
fn the_operator_bounds_what_others_ask_for() {
    tests::docker::install().unwrap();
    let check = || script("/var/lib/runq/runq check | grep 'runtimeArgs of bounded'");
    {
        let _bounded = Bounded::new(r#"["--max-mem", "128", "--max-cpu", "1", "--mem", "96"]"#);
        assert!(check().unwrap().contains("ok"));
        for (variable, told) in [
            (
                "RUNQ_MEM=129",
                "RUNQ_MEM=129: this host allows 128 MiB at most (--max-mem)",
            ),
            (
                "RUNQ_CPU=2",
                "RUNQ_CPU=2: this host allows 1 vCPUs at most (--max-cpu)",
            ),
        ] {
            let container = Container::new().unwrap();
            let done = run(&container, "bounded", &["-e", variable], "true");
            assert_eq!(done.code(), Some(125), "{done:?}");
            assert!(done.stderr().contains(told), "{done:?}");
        }
        let container = Container::new().unwrap();
        let done = run(&container, "bounded", &["-e", "RUNQ_MEM=128"], "nproc");
        assert_eq!(done.stdout(), "1\n", "{done:?}");
    }
    let _bounded = Bounded::new(r#"["--memory", "512"]"#);
    let row = script("/var/lib/runq/runq check || true").unwrap();
    let row = row
        .lines()
        .find(|row| row.starts_with("runtimeArgs of bounded"));
    let row = row.unwrap();
    assert!(
        row.contains("UNFIT") && row.contains("--memory: neither runq nor runc"),
        "{row}"
    );
}

/// The host's control group of a container.
fn host_group(container: &Container, file: &str) -> String {
    let pid = container.pid().unwrap();
    script(&format!(
        "cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup)/{file}"
    ))
    .unwrap()
}

#[test]
#[ignore = "needs Docker: make test"]
fn limits_change_while_the_container_runs() {
    let start = [
        "-d",
        "--memory",
        "64m",
        "--memory-swap",
        "64m",
        "--pids-limit",
        "100",
    ];
    let update = [
        "update",
        "--memory",
        "80m",
        "--memory-swap",
        "96m",
        "--cpus",
        "0.5",
    ];
    let update = [&update[..], &["--cpu-shares", "512", "--pids-limit", "20"]].concat();
    let [expected, found] = ["runc", "runq"].map(|runtime| {
        let container = Container::new().unwrap();
        let done = run(&container, runtime, &start, "sleep 100000");
        assert_eq!(done.code(), Some(0), "{done:?}");
        let weight = host_group(&container, "cpu.weight");
        container.docker(&update).unwrap();
        container.docker(&["update", "--restart", "no"]).unwrap();
        assert_ne!(host_group(&container, "cpu.weight"), weight);
        assert_eq!(host_group(&container, "cpu.max"), "50000 100000");
        let files = exec(&container, FILES);
        assert_eq!(files.code(), Some(0), "{files:?}");
        (container, files.stdout().into_owned())
    });
    assert!(
        expected.1.contains("memory.max:83886080\n"),
        "{}",
        expected.1
    );
    assert!(
        expected.1.contains("memory.swap.max:16777216\n"),
        "{}",
        expected.1
    );
    assert_eq!(found.1, expected.1);
    drop(expected);

    let (container, _) = found;
    // The guest's memory, which was 256 and 64 MiB at the start, and what the monitor needs: 64 MiB, and 3 KiB for each
    // file that the guest may know.
    let whole = ((256 + 64 + 64_u64) << 20) + (16_384 + 32 * (256 + 64)) * 3072;
    assert_eq!(host_group(&container, "memory.max"), whole.to_string());
    assert_eq!(host_group(&container, "pids.max"), "max");
    container
        .docker(&["update", "--memory", "16m", "--memory-swap", "16m"])
        .unwrap();
    assert_eq!(host_group(&container, "memory.max"), whole.to_string());
    let greedy = exec(&container, GREED);
    assert_eq!(greedy.code(), Some(137), "{greedy:?}");
    assert_eq!(
        exec(&container, "cat /sys/fs/cgroup/memory.max").stdout(),
        "16777216\n"
    );

    let refusal = |update: &[&str], told: &str| {
        let call = docker().args(update).args([container.name()]);
        let done = call.launch().unwrap().wait().unwrap();
        assert_eq!(done.code(), Some(1), "{done:?}");
        assert!(done.stderr().contains(told), "{done:?}");
    };
    let more = ["update", "--memory", "2g", "--memory-swap", "2g"];
    refusal(
        &more,
        "was started with 320 MiB, which do not grow to 2048 MiB",
    );
    container.docker(&["pause"]).unwrap();
    refusal(&["update", "--pids-limit", "30"], "is paused");
    container.docker(&["update", "--cpus", "0.25"]).unwrap();
    assert_eq!(host_group(&container, "cpu.max"), "25000 100000");
    container.docker(&["unpause"]).unwrap();
}

/// What the host alone holds can be changed, the rest cannot.
#[test]
#[ignore = "needs Docker: make test"]
fn without_an_agent_only_processors_change() {
    let container = Container::new().unwrap();
    container
        .detach(&["-e", "RUNQ_NOEXEC=1", "--memory", "64m"], "sleep 100000")
        .unwrap();
    container.docker(&["update", "--cpus", "0.5"]).unwrap();
    assert_eq!(host_group(&container, "cpu.max"), "50000 100000");
    let before = host_group(&container, "memory.max");
    let call = docker().args(["update", "--memory", "32m", container.name()]);
    let done = call.launch().unwrap().wait().unwrap();
    assert_eq!(done.code(), Some(1), "{done:?}");
    assert!(
        done.stderr().contains("limited inside the virtual machine"),
        "{done:?}"
    );
    assert!(done.stderr().contains("RUNQ_NOEXEC"), "{done:?}");
    assert_eq!(host_group(&container, "memory.max"), before);
}

/// What systemd does: it moves into a group of its own making, and has the limits of all others in its hands.
const OWN_GROUPS: &str = "
mkdir /groups; mount -t cgroup2 cgroup2 /groups; mkdir /groups/init.scope
echo 1 >/groups/init.scope/cgroup.procs; echo +memory >/groups/cgroup.subtree_control
echo ready; sleep 100000";

#[test]
#[ignore = "needs Docker: make test"]
fn a_container_with_groups_of_its_own_can_be_entered() {
    let container = Container::new().unwrap();
    let options = ["-e", "RUNQ_SYSTEMD=1", "--cap-add", "SYS_ADMIN"];
    container.detach(&options, OWN_GROUPS).unwrap();
    container.follow().unwrap().wait_for("ready\n").unwrap();
    let done = exec(
        &container,
        "cat /proc/self/cgroup /groups/cgroup.subtree_control",
    );
    assert_eq!(done.stdout(), "0::/init.scope\nmemory\n", "{done:?}");
}
