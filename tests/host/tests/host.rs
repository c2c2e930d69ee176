//! Tests of the emulated test host itself. They restore hosts (and build the image and the saved state first, if
//! need be), so that they run only when asked for: `cargo test -p testhost --test host -- --ignored`.
#![allow(clippy::unwrap_used)] // in what the tests call, too

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Command as Process, Stdio};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testhost::client::TimedOut;
use testhost::winsize::Size;
use testhost::{Command, Host, Options, Output, Variant};

fn start() -> Host {
    Host::start(&Options::default()).unwrap()
}

fn shell(host: &Host, script: &str) -> Output {
    host.output(Command::shell(script)).unwrap()
}

/// The output of a script that must succeed, without the last line's end.
fn text(host: &Host, script: &str) -> String {
    let output = shell(host, script);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.code, 0, "{script}: {stderr}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Bytes of all values in no short period.
fn noise(length: usize) -> Vec<u8> {
    let next = |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    std::iter::successors(Some(7u64), next)
        .map(|x| x.to_le_bytes()[7])
        .take(length)
        .collect()
}

#[test]
#[ignore = "restores the emulated test host"]
fn exit_codes_and_streams_are_the_commands() {
    let host = start();
    let output = shell(&host, "echo out; echo err >&2; exit 7");
    assert_eq!(
        output,
        Output {
            code: 7,
            stdout: b"out\n".to_vec(),
            stderr: b"err\n".to_vec()
        }
    );
    assert_eq!(shell(&host, "kill -9 $$").code, 137);
    let missing = host.output(Command::new(["/nonexistent"])).unwrap_err();
    assert!(
        format!("{missing:#}").contains("start /nonexistent"),
        "{missing:#}"
    );
}

#[test]
#[ignore = "restores the emulated test host"]
fn five_megabytes_go_in_and_come_out_unchanged() {
    let host = start();
    let bytes = noise(5 << 20);
    let output = host
        .output(Command::shell("tee /dev/stderr").stdin(io::Cursor::new(bytes.clone())))
        .unwrap();
    assert_eq!(output.code, 0);
    assert!(
        output.stdout == bytes,
        "{} bytes came out",
        output.stdout.len()
    );
    assert!(
        output.stderr == bytes,
        "{} bytes came out",
        output.stderr.len()
    );
}

#[test]
#[ignore = "restores the emulated test host"]
fn a_command_that_times_out_is_killed() {
    let host = start();
    // The child's child holds the lock: the whole group must go. Input that it never reads must not delay that.
    let command = Command::new(["flock", "/tmp/lock", "sh", "-c", "sleep 1000; true"])
        .stdin(io::repeat(0).take(2 << 20))
        .timeout(Some(Duration::from_secs(3)));
    let error = host.output(command).unwrap_err();
    assert!(error.is::<TimedOut>(), "{error:#}");
    let free = Command::new(["flock", "/tmp/lock", "true"]).timeout(Some(Duration::from_secs(60)));
    assert_eq!(host.output(free).unwrap().code, 0);
}

#[test]
#[ignore = "restores the emulated test host"]
fn hosts_are_apart_and_restores_forget() {
    let (one, two) = (start(), start());
    assert_eq!(
        text(&one, "echo 1 | tee /root/mark /dev/shm/mark; sync"),
        "1"
    );
    assert_eq!(text(&two, "ls /root /dev/shm"), "/dev/shm:\n\n/root:");
    one.stop().unwrap();
    assert_eq!(text(&two, "echo alive"), "alive");
    assert_eq!(text(&start(), "ls /root /dev/shm"), "/dev/shm:\n\n/root:");
}

#[test]
#[ignore = "restores the emulated test host"]
fn kvm_runs_in_it() {
    let host = start();
    // KVM_GET_API_VERSION, _IO(0xae, 0)
    let version = r#"perl -e 'open(K, "+<", "/dev/kvm") or die $!; print ioctl(K, 0xae00, 0)'"#;
    assert_eq!(text(&host, version), "12");
    assert_eq!(
        text(&host, "cat /sys/module/kvm_amd/parameters/nested"),
        "1"
    );
    assert_eq!(text(&host, "cat /sys/module/kvm_amd/parameters/npt"), "Y");
    assert_eq!(text(&host, "getconf _NPROCESSORS_ONLN; nproc"), "2\n1");
    assert_eq!(text(&host, "cat /sys/kernel/debug/kvm/exits"), "0");
    assert_eq!(
        text(
            &host,
            "ls /dev/vhost-net /dev/vhost-vsock /dev/net/tun | wc -l"
        ),
        "3"
    );
}

#[test]
#[ignore = "restores the emulated test host"]
fn docker_runs_containers_in_it() {
    let host = start();
    let versions: HashMap<_, _> = host.versions().iter().cloned().collect();
    let server = text(
        &host,
        "docker info --format '{{.ServerVersion}} {{.DefaultRuntime}}'",
    );
    let packaged = versions["docker.io"].split('+').next().unwrap().to_owned();
    assert_eq!(server, format!("{packaged}+dfsg1 runc"));
    let run = shell(
        &host,
        "docker run --rm busybox sh -c 'hostname; cat /proc/1/comm; exit 7'",
    );
    assert_eq!(run.code, 7, "{}", String::from_utf8_lossy(&run.stderr));
    let stdout = String::from_utf8(run.stdout).unwrap();
    let [hostname, init] = stdout.lines().collect::<Vec<_>>()[..] else {
        panic!("{stdout:?}");
    };
    assert_eq!(
        (hostname.len(), init),
        (12, "sh"),
        "a container's name, and its first process"
    );
}

#[test]
#[ignore = "restores the emulated test host"]
fn versions_are_the_hosts() {
    let host = start();
    let versions: HashMap<_, _> = host.versions().iter().cloned().collect();
    let kernel = versions["kernel"].split(' ').next().unwrap();
    assert_eq!(text(&host, "uname -r"), kernel);
    assert_eq!(text(&host, "cat /etc/debian_version"), versions["debian"]);
    let inside = text(&host, "qemu-system-x86_64 --version | head -n 1");
    let packaged = versions["qemu-system-x86"].trim_start_matches("1:");
    let upstream = packaged.split('+').next().unwrap();
    assert!(
        inside.contains(&format!(" {upstream} ")),
        "{inside} is not {packaged}"
    );
}

#[test]
#[ignore = "restores the emulated test host"]
fn the_clock_is_ours_after_a_restore() {
    let seconds = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    let host = start();
    let before = seconds();
    let inside: u64 = text(&host, "date +%s").parse().unwrap();
    let after = seconds();
    // Emulated time may lag a little behind on a busy machine.
    assert!(
        (before - 2..=after + 1).contains(&inside),
        "{before} <= {inside} <= {after}"
    );
}

#[test]
#[ignore = "restores the emulated test host"]
fn a_payload_appears_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(3 << 20);
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/noise"), &bytes).unwrap();
    fs::copy("/bin/busybox", dir.path().join("busybox")).unwrap();
    symlink("busybox", dir.path().join("echo")).unwrap();
    let host = Host::start(&Options {
        payload: Some(dir.path().to_owned()),
        ..Options::default()
    })
    .unwrap();
    assert_eq!(text(&host, "/opt/runq/echo runs"), "runs");
    let copy = shell(&host, "cat /opt/runq/sub/noise");
    assert!(copy.stdout == bytes, "{} bytes came out", copy.stdout.len());
    let write = shell(&host, "touch /opt/runq/new");
    assert!(String::from_utf8_lossy(&write.stderr).contains("Read-only file system"));
    assert_ne!(write.code, 0);
}

/// Sends a size as soon as the command has said that it is ready.
struct ResizeWhenReady {
    output: Vec<u8>,
    sizes: Option<Sender<Size>>,
}

impl Write for ResizeWhenReady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        if self.output.windows(5).any(|window| window == b"ready")
            && let Some(sizes) = self.sizes.take()
        {
            sizes
                .send(Size {
                    rows: 50,
                    cols: 132,
                })
                .unwrap();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
#[ignore = "restores the emulated test host"]
fn a_terminal_has_a_size_that_changes() {
    let host = start();
    let (sizes, receiver) = mpsc::channel();
    let mut stdout = ResizeWhenReady {
        output: Vec::new(),
        sizes: Some(sizes),
    };
    let script = "stty size; trap 'stty size; exit 3' WINCH; sleep 1000 & echo ready; wait";
    let command = Command::shell(script)
        .terminal(Size { rows: 25, cols: 80 }, receiver)
        .timeout(Some(Duration::from_secs(60)));
    let code = host.run(command, &mut stdout, &mut io::sink()).unwrap();
    let output = String::from_utf8(stdout.output).unwrap();
    assert_eq!(output, "25 80\r\nready\r\n50 132\r\n");
    assert_eq!(code, 3);
}

#[test]
#[ignore = "restores the emulated test host"]
fn time_is_instructions_with_icount() {
    let host = Host::start(&Options {
        variant: Variant::Icount,
        ..Options::default()
    })
    .unwrap();
    assert_eq!(text(&host, "nproc"), "1");
    let count = r#"bash -c 'a=$(date +%s%N); for ((i = 0; i < 2000; i++)); do :; done; echo $(($(date +%s%N) - a))'"#;
    text(&host, count); // reads and faults in what the others find
    let mut counts: Vec<i64> = (0..5)
        .map(|_| text(&host, count).parse().unwrap())
        .collect();
    counts.sort_unstable();
    // A tick of the timer or another process makes some greater, none less.
    let [least, second, ..] = counts[..] else {
        unreachable!("five counts")
    };
    assert!(
        least > 1_000_000,
        "{counts:?}: fewer instructions than the loop has"
    );
    assert!(
        (second - least) * 100 <= least,
        "{counts:?}: the least two are more than 1 % apart"
    );
}

fn testhost(args: &[&str]) -> Process {
    let mut process = Process::new(env!("CARGO_BIN_EXE_testhost"));
    process.args(args).stdin(Stdio::null());
    process
}

#[test]
#[ignore = "restores the emulated test host"]
fn the_command_line_passes_streams_and_codes() {
    let run = testhost(&["run", "--env", "A=b c", "--", "sh", "-c", "echo $A; exit 3"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    assert_eq!(run.stdout, b"b c\n");
    let slow = testhost(&["run", "--timeout", "1", "--", "sleep", "1000"])
        .output()
        .unwrap();
    assert_eq!(slow.status.code(), Some(124), "{slow:?}");
    let name = format!("test-{}", std::process::id());
    let exec = ["exec", "--name", &name, "--", "cat", "/dev/shm/mark"];
    let absent = testhost(&exec).output().unwrap();
    assert_eq!(absent.status.code(), Some(125));
    let message = String::from_utf8(absent.stderr).unwrap();
    assert!(
        message.contains(&format!("`testhost up --name {name}`")),
        "{message}"
    );

    assert!(
        testhost(&["up", "--name", &name])
            .status()
            .unwrap()
            .success()
    );
    let twice = testhost(&["up", "--name", &name]).output().unwrap();
    assert_eq!(twice.status.code(), Some(125));
    let mark = [
        "exec",
        "--name",
        &name,
        "--",
        "sh",
        "-c",
        "echo here > /dev/shm/mark",
    ];
    assert!(testhost(&mark).status().unwrap().success());
    let found = testhost(&exec).output().unwrap();
    assert!(
        testhost(&["down", "--name", &name])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(found.stdout, b"here\n");
    assert_eq!(testhost(&exec).output().unwrap().status.code(), Some(125));
}
