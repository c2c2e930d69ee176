//! What containers see of their networks: the same as with runc.

use tests::docker::{Container, script};

use super::{Network, run};

/// Interfaces, addresses and routes, without what differs from one container of runc's to the next: the numbers of interfaces.
const SEEN: &str = r#"
ip -o addr | sed -E 's/^[0-9]+: //; s/@[^ ]*//; s/ (tentative|flags [0-9]+) / /' | sort
for i in /sys/class/net/*; do
    echo ${i##*/} $(cat $i/mtu $i/address) $(cat /proc/sys/net/ipv6/conf/${i##*/}/disable_ipv6)
done
ip route | sort
ip -6 route | grep -v '^ff00' | sort
hostname
cat /etc/hosts /etc/resolv.conf
cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ip_forward
"#;

/// Asserts that a container of runq sees just what one of runc does.
#[track_caller]
fn as_with_runc(options: &[&str]) -> String {
    let container = Container::new().unwrap();
    let options = [options, &["--hostname", "here"]].concat();
    let expected = run(&container, "runc", &options, SEEN);
    let found = run(&container, "runq", &options, SEEN);
    assert_eq!(expected, found, "{options:?}");
    found
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_bridge_is_seen_as_with_runc() {
    let options = [
        "--mac-address",
        "02:42:0a:01:02:03",
        "--add-host",
        "other:10.9.8.7",
        "--sysctl",
        "net.ipv4.ip_forward=0",
    ];
    let seen = as_with_runc(&options);
    assert!(seen.contains("default via 172.17.0.1 dev eth0"), "{seen}");
    assert!(seen.contains("eth0 1500 02:42:0a:01:02:03 1"), "{seen}");
}

#[test]
#[ignore = "needs Docker: make test"]
fn no_network_is_a_loopback() {
    let seen = as_with_runc(&["--network", "none"]);
    assert!(
        seen.contains("inet 127.0.0.1/8") && seen.contains("inet6 ::1/128"),
        "{seen}"
    );
    assert!(!seen.contains("eth0"), "{seen}");
}

/// Fixed addresses, another MTU, IPv6, and three networks of which one has the default route.
#[test]
#[ignore = "needs Docker: make test"]
fn several_networks_are_seen_as_with_runc() {
    let [first, second, third] = [
        "--ipv6 --subnet 10.61.0.0/24 --subnet fd61::/64 -o com.docker.network.driver.mtu=9000",
        "--subnet 10.62.0.0/24 -o com.docker.network.driver.mtu=1400",
        "--subnet 10.63.0.0/24 --internal",
    ]
    .map(Network::new);
    let container = Container::new().unwrap();
    let seen = |runtime: &str| {
        let create = format!(
            "docker create --runtime {runtime} --name {0} --hostname here --network {1} --ip 10.61.0.9 --ip6 fd61::9 \
                 --mac-address 02:42:0a:3d:00:09 busybox sh -euc '{2}'
             docker network connect --ip 10.62.0.9 {3} {0}
             docker network connect --ip 10.63.0.9 {4} {0}
             docker start -a {0}
             docker rm {0} >/dev/null",
            container.name(),
            first.name(),
            SEEN.replace('\'', r"'\''"),
            second.name(),
            third.name(),
        );
        let text = script(&create).unwrap();
        // The first line is the container's id. The MACs of the others are Docker's choice, by the address.
        let (_, seen) = text.split_once('\n').unwrap();
        seen.to_owned()
    };
    let expected = seen("runc");
    let found = seen("runq");
    assert_eq!(expected, found);
    assert!(found.contains("eth0 9000 02:42:0a:3d:00:09 0"), "{found}");
    assert!(found.contains("inet6 fd61::9/64"), "{found}");
    assert!(found.contains("eth1 1400"), "{found}");
    assert_eq!(found.matches("default via").count(), 2, "{found}");
}
