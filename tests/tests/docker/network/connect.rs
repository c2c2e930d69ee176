//! `docker network connect` and `disconnect` while a container runs.

use tests::docker::{Container, docker, script};

use super::{Network, netcheck, serve};
use crate::assert_code;

/// Interfaces come and go with addresses, routes and names, and the default route moves.
#[test]
#[ignore = "needs Docker: make test"]
fn interfaces_come_and_go_while_a_container_runs() {
    let first = Network::new("--subnet 10.91.0.0/24");
    let second = Network::new("--ipv6 --subnet 10.92.0.0/24 --subnet fd92::/64");
    let [server, container] = [(); 2].map(|()| Container::new().unwrap());
    serve(&server, "runc", &["--network", second.name()]);
    let call = docker().args(["run", "-i", "--runtime", "runq", "--name", container.name()]);
    let call = call.args(netcheck()).args(["--network", first.name()]);
    let mut shell = call.args(["busybox", "sh"]).open_stdin().launch().unwrap();
    let name = server.name();
    let network = |verb: &str, network: &Network| {
        script(&format!(
            "docker network {verb} {} {}",
            network.name(),
            container.name()
        ))
        .unwrap();
    };
    // Nothing tells a process in the guest but the kernel, which busybox does not listen to.
    let mut look = |until: &str, what: &str, end: &str| {
        shell
            .write(&format!(
                "until {until}; do usleep 50000; done; {what}; echo {end}\n"
            ))
            .unwrap();
        shell.wait_for(&format!("{end}\n")).unwrap();
    };
    let reach = format!(
        "netcheck tcp {name}:5000 2 2 | cut -d ' ' -f 1; ping6 -c 1 -W 60 {name} >/dev/null && echo six"
    );
    look("ip route | grep -q default", "ip route", "started");

    network("connect --ip 10.92.0.9 --ip6 fd92::9", &second);
    look(
        "ip addr show eth1 2>/dev/null | grep -q 10.92.0.9",
        &reach,
        "connected",
    );
    network("disconnect", &first);
    look(
        "ip route | grep -q 'default via 10.92.0.1'",
        &format!("{reach}; ip -o link | wc -l"),
        "moved",
    );
    network("connect", &first);
    look(
        "ip route | grep -q '^10.91.0.0/24'",
        "ip -o link | wc -l",
        "back",
    );
    network("disconnect", &second);
    let gone = "! ip route | grep -q '10.92.0'";
    look(
        gone,
        "ip route | grep -o 'default via 10.91.0.1'; ip -o link | wc -l",
        "gone",
    );

    shell.write("exit\n").unwrap();
    let done = shell.wait().unwrap();
    assert_code(&done, 0);
    let seen = done.stdout();
    let (_, seen) = seen.split_once("started\n").unwrap();
    assert_eq!(
        seen,
        "ok\nsix\nconnected\nok\nsix\n2\nmoved\n3\nback\ndefault via 10.91.0.1\n2\ngone\n"
    );
}
