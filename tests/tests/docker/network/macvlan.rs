//! Docker's macvlan networks, on interfaces of the host.

use tests::docker::{Container, script};

use super::{Network, run, serve};

/// A parent interface for networks, removed when this is dropped.
struct Parent;

impl Parent {
    fn new() -> Self {
        script("ip link add parent0 type dummy; ip link set parent0 up").unwrap();
        Self
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        script("ip link del parent0").unwrap();
    }
}

/// Two networks, one of them of an 802.1Q VLAN, in one container.
#[test]
#[ignore = "needs Docker: make test"]
fn two_macvlan_networks_reach_their_neighbours() {
    let _parent = Parent::new();
    let plain = Network::new("-d macvlan --subnet 10.51.0.0/24 -o parent=parent0");
    let vlan = Network::new("-d macvlan --subnet 10.52.0.0/24 -o parent=parent0.50");
    let [server, client] = [(); 2].map(|()| Container::new().unwrap());
    serve(
        &server,
        "runc",
        &["--network", plain.name(), "--ip", "10.51.0.7"],
    );
    script(&format!(
        "docker network connect --ip 10.52.0.7 {} {}",
        vlan.name(),
        server.name()
    ))
    .unwrap();
    let networks = [
        format!("name={},ip=10.51.0.8", plain.name()),
        format!("name={},ip=10.52.0.8", vlan.name()),
    ];
    let options = ["--network", &networks[0], "--network", &networks[1]];
    let text = "netcheck tcp 10.51.0.7:5000 4 4; netcheck udp 10.51.0.7:5000; netcheck tcp 10.52.0.7:5000 4 4";
    let done = run(&client, "runq", &options, text);
    assert_eq!(done.matches("ok ").count(), 3, "{done}");
    // The other way, to what names find.
    serve(&client, "runq", &["--network", plain.name()]);
    let text = format!("netcheck tcp {}:5000 4 4", client.name());
    let asking = Container::new().unwrap();
    let done = run(&asking, "runc", &["--network", plain.name()], &text);
    assert!(done.starts_with("ok 10.51.0."), "{done}");
}

/// What has no Ethernet is refused by its name.
#[test]
#[ignore = "needs Docker: make test"]
fn ipvlan_is_refused() {
    let _parent = Parent::new();
    let network = Network::new("-d ipvlan --subnet 10.53.0.0/24 -o parent=parent0");
    let container = Container::new().unwrap();
    let done = container
        .shell(&["--network", network.name()], "true")
        .unwrap();
    crate::assert_code(&done, 125);
    assert!(
        done.stderr()
            .contains("network interface eth0: of kind \"ipvlan\", which is not supported"),
        "{done:?}"
    );
}
