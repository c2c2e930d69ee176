//! `runq ps` with a runc that only tells a container's state, and an agent as tests play it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it fails the test")]

#[allow(dead_code, reason = "other tests need more of it")]
mod container;
/// What the played agent has of the crate.
mod certs {
    pub(crate) use runtime::certs::*;
}

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use proto::exec::{FromAgent, ProcessInfo};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use container::played::Played;
use container::{Place, spec};

fn ps(place: &Place, line: &str) -> Output {
    let mut command: Command = place.command(env!("CARGO_BIN_EXE_runq"), line);
    command.output().unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn process(pid: u32, uid: u32, name: &str, args: &[&str]) -> ProcessInfo {
    ProcessInfo {
        pid,
        parent: 0,
        uid,
        gid: uid,
        name: name.into(),
        args: args.iter().map(ToString::to_string).collect(),
    }
}

fn tells_three(agent: &mut Played) -> Result<(), channel::Error> {
    agent.say(&FromAgent::Processes(vec![
        process(1, 0, "sh", &["sh", "-c", "sleep 1\n"]),
        process(7, 4711, "sleep 7", &["sleep", "", "--help"]),
        process(9, u32::MAX, "gone", &[]),
    ]))
}

/// The value of a line of a process's status.
fn value(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    value.unwrap().to_owned()
}

/// What a process that stands for one of the guest looks like, and what it may do.
fn assert_shadow(pid: u32, cmdline: &str, name: &str, uid: u32) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    assert_eq!(read("cmdline"), cmdline);
    assert_eq!(read("comm"), format!("{name}\n"));
    let folder = fs::metadata(format!("/proc/{pid}")).unwrap();
    assert_eq!((folder.uid(), folder.gid()), (uid, uid));
    let same = [uid; 4].map(|uid| uid.to_string()).join("\t");
    for (name, expected) in [
        ("Uid", &*same),
        ("Gid", &same),
        ("Groups", " "),
        ("CapPrm", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("NSsid", &pid.to_string()),
    ] {
        assert_eq!(value(pid, name), expected, "{name}");
    }
    // Of a process that is not dumpable, these are root's.
    let environment = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(environment.uid(), 0);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        // Standard input still is, if it has not yet heard that its number is told.
        let file = fs::read_link(entry.path()).unwrap_or_default();
        let file = file.to_str().unwrap();
        assert!(
            file == "/dev/null" || (entry.file_name() == "0" && file.starts_with("pipe:")),
            "{file}"
        );
    }
}

#[test]
fn shadows_stand_for_the_processes_of_the_guest() {
    let Some(place) = Place::new(tells_three) else {
        return;
    };
    let output = ps(&place, "--log log ps --format json ID");
    assert_eq!(output.stderr, b"");
    let pids: Vec<u32> = serde_json::from_str(stdout(&output)).unwrap();
    let shadows: [u32; 3] = pids.try_into().unwrap();
    let number = |pid: u32| Pid::from_raw(pid.cast_signed()).unwrap();
    let files = shadows.map(|pid| pidfd_open(number(pid), PidfdFlags::empty()).unwrap());
    let signal = |signal| files.each_ref().map(|file| pidfd_send_signal(file, signal));
    // So that this test can take its time.
    assert_eq!(signal(Signal::STOP), [Ok(()); 3]);
    assert_shadow(shadows[0], "[1] sh\0-c\0sleep 1?\0", "sh", 0);
    assert_shadow(shadows[1], "[7] sleep\0\0--help\0", "sleep 7", 4711);
    assert_shadow(shadows[2], "[9] [gone]\0", "gone", 65534);
    // They end by themselves.
    assert_eq!(signal(Signal::CONT), [Ok(()); 3]);
    for file in &files {
        poll(&mut [PollFd::new(file, PollFlags::IN)], None).unwrap();
    }
}

#[test]
fn people_see_the_numbers_of_the_guest() {
    let Some(place) = Place::new(tells_three) else {
        return;
    };
    let expected = "    PID       USER COMMAND
      1          0 sh -c sleep 1?
      7       4711 sleep  --help
      9 4294967295 [gone]
";
    assert_eq!(stdout(&ps(&place, "ps ID")), expected);
    let output = ps(&place, "ps ID -o pid");
    assert!(!output.status.success() && output.stdout.is_empty());
}

#[test]
fn as_many_as_a_guest_may_have() {
    let Some(place) = Place::new(|agent| {
        let list = (1..=1200).map(|pid| process(pid, 4712, "many", &["many"]));
        agent.say(&FromAgent::Processes(list.collect()))
    }) else {
        return;
    };
    let output = ps(&place, "ps -f=json ID");
    let pids: Vec<u32> = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(pids.len(), 1000);
}

#[test]
fn who_cannot_be_asked_is_told() {
    let Some(place) = Place::new(|agent| {
        agent.say(&FromAgent::Failed {
            code: 1,
            message: "busy".into(),
        })
    }) else {
        return;
    };
    let error = |line: &str| {
        let output = ps(&place, line);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(error("ps ID"), "runq: container ID: busy\n");
    assert!(error("ps --format xml ID").starts_with("runq: ps --format: "));
    let mut spec = spec();
    spec.start.agent = None;
    let file = place.path("bundle/vmspec.json");
    fs::remove_file(&file).unwrap();
    spec.save(&file).unwrap();
    let none = error("ps --format json ID");
    assert!(
        none.starts_with("runq: container ID has no exec agent"),
        "{none}"
    );
}
