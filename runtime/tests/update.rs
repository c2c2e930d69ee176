//! `runq update` with a runc that only tells what it is given, and an agent as tests play it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it fails the test")]

#[allow(dead_code, reason = "other tests need more of it")]
mod container;
/// What the played agent has of the crate.
mod certs {
    pub(crate) use runtime::certs::*;
}

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use proto::exec::FromAgent;
use serde_json::{Value, json};

use container::played::Played;
use container::{Place, spec};

const MIB: i64 = 1 << 20;
/// What the monitor needs beside a guest of 64 MiB: 64 MiB, and 3 KiB for each file that the guest may know.
const MONITOR: i64 = 64 * MIB + (16_384 + 32 * 64) * 3072;

/// A container of 64 MiB whose agent does this.
fn place(play: fn(&mut Played) -> Result<(), channel::Error>) -> Option<Place> {
    let place = Place::new(play)?;
    with_state(&place, "running");
    let config = json!({"linux": {"resources": {"memory": {"limit": 16 * MIB}}}});
    fs::write(place.path("bundle/config.json"), config.to_string()).unwrap();
    Some(place)
}

/// A runc that has this container in this state, and tells its arguments and its input.
fn with_state(place: &Place, status: &str) {
    let bundle = place.path("bundle");
    let text = format!(
        r#"#!/bin/sh
case "$*" in
*"state "*) printf '{{"bundle": "{}", "pid": {}, "status": "{status}"}}' ;;
*) echo "$*"; cat ;;
esac
"#,
        bundle.display(),
        place.process.id()
    );
    fs::write(place.path("runc"), text).unwrap();
}

fn update(place: &Place, line: &str, resources: &Value) -> Output {
    let mut command = place.command(env!("CARGO_BIN_EXE_runq"), line);
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = streams.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Who refuses may not read it.
    let _ = stdin.write_all(resources.to_string().as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// What runc is given as limits.
fn of_host(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let (arguments, limits) = text.split_once('\n').unwrap();
    assert_eq!(arguments, "--log /x update --resources - ID");
    serde_json::from_str(limits).unwrap()
}

fn error(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    std::str::from_utf8(&output.stderr).unwrap()
}

fn limits(agent: &mut Played) -> Result<(), channel::Error> {
    agent.say(&FromAgent::Limited)
}

const CALL: &str = "--mem 512 --log /x update --resources=- ID";

#[test]
fn each_side_gets_its_limits() {
    let Some(place) = place(limits) else { return };
    let wanted = json!({
        "memory": {"limit": 32 * MIB, "swap": 48 * MIB}, "pids": {"limit": 9},
        "cpu": {"shares": 7, "quota": 5000, "period": 10_000}, "blockIO": {"weight": 10},
    });
    let raise = 64 * MIB + MONITOR - 32 * MIB;
    let mut expected = wanted.clone();
    expected["memory"] = json!({"limit": 32 * MIB + raise, "swap": 48 * MIB + raise});
    expected.as_object_mut().unwrap().remove("pids");
    assert_eq!(of_host(&update(&place, CALL, &wanted)), expected);
    let files = [
        ("memory.swap.max", "16777216"),
        ("memory.max", "33554432"),
        ("cpu.max", "5000 10000"),
        ("pids.max", "9"),
    ];
    let files = files.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(place.limits.try_recv().unwrap(), files);
    // Beside the limit from the start.
    let reserved = json!({"memory": {"reservation": 8 * MIB}});
    let expected = json!({"memory": {"reservation": (8 + 64 - 16) * MIB + MONITOR}});
    assert_eq!(of_host(&update(&place, CALL, &reserved)), expected);
}

#[test]
fn what_the_guest_cannot_have_leaves_all_as_it_is() {
    let refuse = |agent: &mut Played| {
        let message = "write \"9\" to pids.max: no".to_owned();
        agent.say(&FromAgent::Failed { code: 1, message })
    };
    let Some(place) = place(refuse) else { return };
    let pids = json!({"pids": {"limit": 9}});
    let more = json!({"memory": {"limit": 65 * MIB}});
    for (wanted, told) in [
        (&pids, "runq: container ID: write \"9\" to pids.max: no"),
        (&more, "started with 64 MiB, which do not grow to 65 MiB"),
        (
            &json!({"pids": {"limit": "9"}}),
            "linux.resources.pids.limit",
        ),
        (&json!([]), "update: not an object"),
    ] {
        let output = update(&place, CALL, wanted);
        assert!(error(&output).contains(told), "{output:?}");
        assert_eq!(output.stdout, b"");
    }
    let output = update(&place, "update --memory 7 ID", &pids);
    assert!(
        error(&output).contains("give its limits by --resources"),
        "{output:?}"
    );
    with_state(&place, "paused");
    let output = update(&place, CALL, &pids);
    assert!(
        error(&output).contains("container ID is paused"),
        "{output:?}"
    );
}

#[test]
fn without_an_agent_the_host_holds_the_processors() {
    let Some(place) = place(limits) else { return };
    let mut vm = spec();
    vm.start.agent = None;
    let path = place.path("bundle/vmspec.json");
    fs::remove_file(&path).unwrap();
    vm.save(&path).unwrap();
    let cpu = json!({"cpu": {"quota": 5000}});
    assert_eq!(of_host(&update(&place, CALL, &cpu)), cpu);
    assert!(place.limits.try_recv().is_err());
    let output = update(&place, CALL, &json!({"pids": {"limit": 9}}));
    let told = "limited inside the virtual machine: container ID has no exec agent";
    assert!(error(&output).contains(told), "{output:?}");
}
