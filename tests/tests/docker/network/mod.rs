//! Containers on Docker's networks.

mod addresses;
mod both_ways;
mod compose;
mod connect;
mod left_behind;
mod macvlan;
mod names;
mod podman;
mod swarm;

use std::sync::atomic::{AtomicU32, Ordering};

use tests::docker::{Container, docker, script};
use tests::guest::{Guest, Running, payload};

/// A network of Docker's. It is removed when this is dropped, after its containers.
struct Network(String);

impl Network {
    fn new(options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("net{}", NEXT.fetch_add(1, Ordering::Relaxed));
        script(&format!("docker network create {options} {name}")).unwrap();
        Self(name)
    }

    fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = script(&format!("docker network rm {}", self.0));
    }
}

/// The option that gives a container the program `netcheck`.
fn netcheck() -> [String; 2] {
    let program = payload("netcheck").unwrap();
    [
        "-v".into(),
        format!("{}:/bin/netcheck:ro", program.display()),
    ]
}

/// Runs a shell script in a container of this runtime to its end; its output.
#[track_caller]
fn run(container: &Container, runtime: &str, options: &[&str], text: &str) -> String {
    let call = docker().args([
        "run",
        "--rm",
        "--runtime",
        runtime,
        "--name",
        container.name(),
    ]);
    let call = call.args(netcheck()).args(options);
    let done = call
        .args(["busybox", "sh", "-euc", text])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    crate::assert_code(&done, 0);
    done.stdout().into_owned()
}

/// Starts `netcheck serve 5000` in a container of this runtime, and returns when it is ready.
#[track_caller]
fn serve(container: &Container, runtime: &str, options: &[&str]) {
    let call = docker().args([
        "run",
        "-d",
        "--runtime",
        runtime,
        "--name",
        container.name(),
    ]);
    let call = call.args(netcheck()).args(options);
    let done = call
        .args(["busybox", "netcheck", "serve", "5000"])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    crate::assert_code(&done, 0);
    container.follow().unwrap().wait_for("ready\n").unwrap();
}

/// The same on the host. It ends when this is dropped.
fn serve_on_host() -> Running {
    let call = Guest::program(payload("netcheck").unwrap()).args(["serve", "5000"]);
    let mut server = call.launch().unwrap();
    server.wait_for("ready\n").unwrap();
    server
}
