//! Data between containers, and between them and the host.

use tests::docker::{Container, script};
use tests::guest::payload;

use super::{Network, run, serve, serve_on_host};
use crate::without;

/// What a container can reach: its neighbours by name, and the host.
const REACH: &str = r#"
for peer in $PEERS; do
    ping -c 1 -W 60 $peer >/dev/null
    ping6 -c 1 -W 60 $peer >/dev/null
    netcheck tcp $peer:5000 4 4 | cut -d ' ' -f 1
    netcheck udp $peer:5000 | cut -d ' ' -f 1
    netcheck udp $peer:5000 9000 | cut -d ' ' -f 1
done
netcheck tcp 10.77.0.1:5000 64 0 | cut -d ' ' -f 1
netcheck tcp 10.77.0.1:5000 0 64 | cut -d ' ' -f 1
netcheck udp [fd77::1]:5000 | cut -d ' ' -f 1
"#;

/// Between containers of runq and of runc and the host, by TCP and UDP, IPv4 and IPv6, in each
/// direction; and published ports.
fn all_reach_each_other() {
    let network = Network::new("--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64");
    let ports = ["-p", "127.0.0.1:18080:5000", "-p", "18080:5000/udp"];
    let options = [&["--network", network.name()], &ports[..]].concat();
    let [ours, theirs, client] = [(); 3].map(|()| Container::new().unwrap());
    serve(&ours, "runq", &options);
    serve(&theirs, "runc", &["--network", network.name()]);
    let _host = serve_on_host();

    let peers = |peers: &[&Container]| {
        let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
        format!("PEERS={}", names.join(" "))
    };
    for (runtime, peers) in [
        ("runq", peers(&[&ours, &theirs])),
        ("runc", peers(&[&ours])),
    ] {
        let count = 3 * peers.split(' ').count() + 3;
        let done = run(
            &client,
            runtime,
            &["--network", network.name(), "-e", &peers],
            REACH,
        );
        assert_eq!(done, "ok\n".repeat(count), "{runtime} {peers}");
    }
    let netcheck = payload("netcheck").unwrap();
    let published = format!(
        "{0} tcp 127.0.0.1:18080 64 64; {0} udp 127.0.0.1:18080; busybox ping -c 1 {1} >/dev/null",
        netcheck.display(),
        ours.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
            .unwrap()
    );
    let done = script(&published).unwrap();
    assert_eq!(done.matches("ok 127.0.0.1:18080").count(), 2, "{done}");
}

#[test]
#[ignore = "needs Docker: make test"]
fn all_reach_each_other_by_the_kernels_backend() {
    all_reach_each_other();
}

#[test]
#[ignore = "needs Docker: make test"]
fn all_reach_each_other_by_the_monitors_backend() {
    without("/dev/vhost-net", all_reach_each_other);
}
