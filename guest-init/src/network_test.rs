use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use proto::{MacAddress, Plug};

use super::*;
use crate::plug;

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0x42, 0xac, 0x11, 0, last])
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: Some(mac(index as u8)),
        loopback: name == "lo",
        ..Link::default()
    }
}

fn interface(last: u8, name: &str) -> Interface {
    Interface {
        mac: mac(last),
        name: name.to_owned(),
        ..Interface::default()
    }
}

/// What becomes of the names of `links` with indexes 2, 3 and so on, which `interfaces` are to have.
fn plan(links: &[&str], interfaces: &[(u8, &str)]) -> Vec<(u32, String)> {
    let links: Vec<Link> = (2..)
        .zip(links)
        .map(|(index, name)| link(index, name))
        .collect();
    let interfaces: Vec<Interface> = interfaces
        .iter()
        .map(|&(last, name)| interface(last, name))
        .collect();
    let devices = devices(&links, &interfaces).unwrap();
    let plan = renamings(&links, &devices);
    plan.iter()
        .map(|(link, name)| (link.index, (*name).to_owned()))
        .collect()
}

fn steps(steps: &[(u32, &str)]) -> Vec<(u32, String)> {
    steps
        .iter()
        .map(|&(index, name)| (index, name.to_owned()))
        .collect()
}

#[test]
fn only_names_that_differ_are_given() {
    assert_eq!(plan(&["eth0", "eth1"], &[(2, "eth0"), (3, "eth1")]), []);
    assert_eq!(plan(&["enp0s2"], &[(2, "eth0")]), steps(&[(2, "eth0")]));
}

#[test]
fn a_name_is_free_before_it_is_given() {
    assert_eq!(
        plan(&["eth0", "eth1"], &[(3, "eth0"), (2, "eth1")]),
        steps(&[
            (2, TEMPORARY_NAME),
            (3, TEMPORARY_NAME),
            (3, "eth0"),
            (2, "eth1")
        ])
    );
    // Also if it is that of a device that is none of the interfaces.
    assert_eq!(
        plan(&["eth0", "eth1"], &[(3, "eth0")]),
        steps(&[(2, TEMPORARY_NAME), (3, "eth0")])
    );
    // The kernel refuses a name that two have.
    assert_eq!(
        plan(&["eth0", "eth1"], &[(2, "eth0"), (3, "eth0")]),
        steps(&[(3, "eth0")])
    );
}

#[test]
fn devices_are_found_by_their_address() {
    let links = [
        link(1, "lo"),
        link(2, "eth0"),
        Link {
            mac: Some(mac(2)),
            ..link(3, "eth1")
        },
    ];
    let twice = [interface(2, "a"), interface(2, "b")];
    let found = devices(&links, &twice).unwrap();
    let indexes: Vec<u32> = found.iter().map(|(link, _)| link.index).collect();
    assert_eq!(indexes, [2, 3]);
    for missing in [9, 1] {
        let missing = [interface(missing, "eth0")];
        let error = devices(&links, &missing).unwrap_err().to_string();
        let address = missing[0].mac.to_string();
        assert!(
            error.contains("eth0") && error.contains(&address),
            "{error}"
        );
    }
}

#[test]
fn ipv6_is_on_where_there_is_such_an_address() {
    let with = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| address(text)).collect();
        settings(&Interface {
            addresses,
            ..interface(2, "eth0.1")
        })
    };
    let disabled = |value: &str| {
        (
            "net/ipv6/conf/eth0.1/disable_ipv6".to_owned(),
            value.to_owned(),
        )
    };
    assert_eq!(with(&[])[0], disabled("1"));
    assert_eq!(with(&["10.0.0.2/24"])[0], disabled("1"));
    assert_eq!(with(&["10.0.0.2/24", "fd00::2/64"])[0], disabled("0"));
}

fn address(text: &str) -> Address {
    let (address, prefix) = text.split_once('/').unwrap();
    Address {
        address: address.parse().unwrap(),
        peer: None,
        prefix: prefix.parse().unwrap(),
        broadcast: None,
        scope: 0,
    }
}

/// A route as the kernel lists it.
fn route(destination: &str, gateway: Option<&str>) -> Route {
    let Address {
        address, prefix, ..
    } = address(destination);
    let gateway: Option<IpAddr> = gateway.map(|text| text.parse().unwrap());
    let is_ipv4 = address.is_ipv4();
    Route {
        destination: (address, prefix),
        gateway,
        source: None,
        metric: if is_ipv4 { 0 } else { 1024 },
        table: 254,
        scope: if is_ipv4 && gateway.is_none() { 253 } else { 0 },
        protocol: 3,
        kind: 1,
        on_link: false,
        mtu: 0,
    }
}

/// Runs `test` in a new network namespace with two devices, eth0 with the address of number 3 and
/// eth1 with that of number 2; says so if that cannot be.
fn with_devices(test: impl FnOnce(&mut Netlink) + Send + 'static) {
    let run = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return eprintln!("skipped: no network namespace: {error}");
        }
        let mut netlink = Netlink::open().unwrap();
        for (number, name, peer) in [(3, "eth0", "peer0"), (2, "eth1", "peer1")] {
            if let Err(error) = netlink.add_veth(name, mac(number), peer) {
                return eprintln!("skipped: {error}");
            }
        }
        // So that the other end has a carrier, too.
        for link in netlink
            .links()
            .unwrap()
            .iter()
            .filter(|link| link.name.starts_with("peer"))
        {
            netlink.set_link(link.index, &switched(true)).unwrap();
        }
        test(&mut netlink);
    };
    thread::spawn(run).join().unwrap();
}

/// An interface as it is now.
fn read(netlink: &mut Netlink, name: &str) -> Interface {
    let links = netlink.links().unwrap();
    let link = links.iter().find(|link| link.name == name).unwrap();
    assert!(link.up, "{name}");
    let addresses = netlink.addresses().unwrap().into_iter();
    let routes = netlink.routes().unwrap().into_iter();
    let is_ours = |index: u32| index == link.index;
    Interface {
        mac: link.mac.unwrap(),
        name: name.to_owned(),
        mtu: link.mtu,
        addresses: addresses
            .filter_map(|(index, address)| is_ours(index).then_some(address))
            .collect(),
        routes: routes
            .filter_map(|(index, route)| is_ours(index).then_some(route))
            .collect(),
    }
}

/// Two interfaces such as Docker makes them, and more.
fn container() -> [Interface; 2] {
    let broadcast = |text: &str| Some(text.parse().unwrap());
    let kernels = |route: Route| Route {
        protocol: 2,
        ..route
    };
    let ipv4 = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    [
        Interface {
            mtu: 1400,
            addresses: vec![
                Address {
                    broadcast: broadcast("172.17.255.255"),
                    ..address("172.17.0.2/16")
                },
                address("172.17.0.7/16"),
                address("fd00:17::2/64"),
                address("fd00:17::1/64"),
                // The kernel's own, of the MAC address (RFC 4291, appendix A).
                Address {
                    scope: 253,
                    ..address("fe80::42:acff:fe11:2/64")
                },
            ],
            routes: vec![
                Route {
                    mtu: 1300,
                    ..route("169.254.1.1/32", None)
                },
                kernels(Route {
                    source: ipv4("172.17.0.2"),
                    ..route("172.17.0.0/16", None)
                }),
                kernels(Route {
                    metric: 256,
                    ..route("fd00:17::/64", None)
                }),
                kernels(Route {
                    metric: 256,
                    ..route("fe80::/64", None)
                }),
                route("0.0.0.0/0", Some("172.17.0.1")),
                Route {
                    metric: 50,
                    ..route("10.0.0.0/8", Some("169.254.1.1"))
                },
                Route {
                    on_link: true,
                    ..route("10.1.0.0/16", Some("192.0.2.1"))
                },
                route("::/0", Some("fd00:17::99")),
            ],
            ..interface(2, "eth0")
        },
        Interface {
            mtu: 1500,
            addresses: vec![address("172.18.0.2/16")],
            routes: vec![
                kernels(Route {
                    source: ipv4("172.18.0.2"),
                    ..route("172.18.0.0/16", None)
                }),
                Route {
                    table: 1000,
                    ..route("10.2.0.0/16", Some("172.18.0.1"))
                },
            ],
            ..interface(3, "eth1")
        },
    ]
}

#[test]
fn interfaces_become_what_they_were_in_the_container() {
    with_devices(|netlink| {
        let container = container();
        set_up(&container).unwrap();
        let lo = netlink
            .links()
            .unwrap()
            .into_iter()
            .find(|link| link.loopback)
            .unwrap();
        assert!(lo.up);
        for interface in &container {
            assert_eq!(read(netlink, &interface.name), *interface);
        }
    });
}

#[test]
fn routes_come_and_go() {
    with_devices(|netlink| {
        let [first, _] = container();
        set_up(std::slice::from_ref(&first)).unwrap();
        let (gone, new) = (
            route("0.0.0.0/0", Some("172.17.0.1")),
            route("0.0.0.0/0", Some("172.17.0.9")),
        );
        let change = Plug::Routes {
            mac: first.mac,
            added: vec![new.clone()],
            removed: vec![gone.clone(), route("10.99.0.0/16", Some("172.17.0.1"))],
        };
        // What is there, or is not, is as it should be.
        for _ in 0..2 {
            plug::change(&change, Path::new("/no/sysfs")).unwrap();
            let routes = read(netlink, "eth0").routes;
            assert!(
                routes.contains(&new) && !routes.contains(&gone),
                "{routes:?}"
            );
        }
    });
}

/// A directory in place of sysfs: the machine's own would remove the machine's devices.
#[test]
fn only_what_is_a_device_is_removed() {
    with_devices(|_| {
        let sysfs = std::env::temp_dir().join(format!("runq-sysfs-{}", std::process::id()));
        let function = sysfs.join("class/net/eth0");
        fs::create_dir_all(function.join("device")).unwrap();
        let remove = |number| plug::change(&Plug::Remove(mac(number)), &sysfs);
        let error = remove(3).unwrap_err().to_string();
        assert!(error.contains("02:42:ac:11:00:03"), "{error}");
        fs::write(function.join("remove"), "").unwrap();
        remove(3).unwrap();
        assert_eq!(fs::read(function.join("remove")).unwrap(), b"1");
        assert!(remove(9).is_err());
        fs::remove_dir_all(&sysfs).unwrap();
    });
}

#[test]
fn a_failure_names_the_interface_and_what_was_tried() {
    with_devices(|_| {
        let interface = Interface {
            routes: vec![route("0.0.0.0/0", Some("10.0.0.1"))],
            ..interface(2, "eth0")
        };
        let error = format!("{:#}", set_up(&[interface]).unwrap_err());
        assert!(
            error.contains("eth0: add route default via 10.0.0.1: Network is unreachable"),
            "{error}"
        );
    });
}

#[test]
fn a_kernel_may_refuse_packet_rules() {
    assert!(!filter(&[]));
    // NFT_MSG_NEWTABLE without a name, which none accepts.
    let nameless = PacketRule {
        message: 0,
        family: 2,
        attributes: Vec::new(),
    };
    assert!(!filter(&[nameless]));
}
