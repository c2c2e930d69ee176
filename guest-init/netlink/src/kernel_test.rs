//! Against the kernel, each test in a network namespace of its own.

use std::net::IpAddr;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::*;

const MAC: MacAddress = MacAddress([2, 0x42, 0xac, 0x11, 0, 2]);

/// Runs `test` in a new network namespace, or says why not.
fn in_namespace(test: impl FnOnce(Netlink) + Send + 'static) {
    let run = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => test(Netlink::open().unwrap()),
        Err(error) => eprintln!("skipped: no network namespace: {error}"),
    };
    thread::spawn(run).join().unwrap();
}

/// As [`in_namespace`], with an interface eth0 that is up and has a carrier; `test` gets its index.
fn with_eth0(test: impl FnOnce(Netlink, u32) + Send + 'static) {
    in_namespace(|mut netlink| {
        if let Err(error) = netlink.add_veth("eth0", MAC, "peer0") {
            return eprintln!("skipped: {error}");
        }
        for name in ["peer0", "eth0"] {
            let index = link(&mut netlink, name).index;
            netlink.set_link(index, &up()).unwrap();
        }
        let index = link(&mut netlink, "eth0").index;
        test(netlink, index);
    });
}

fn link(netlink: &mut Netlink, name: &str) -> Link {
    let mut links = netlink.links().unwrap().into_iter();
    links.find(|link| link.name == name).unwrap()
}

fn up() -> LinkChange {
    LinkChange {
        up: Some(true),
        ..LinkChange::default()
    }
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
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

fn route(destination: &str, gateway: Option<&str>) -> Route {
    let Address {
        address, prefix, ..
    } = address(destination);
    Route {
        destination: (address, prefix),
        gateway: gateway.map(|text| text.parse().unwrap()),
        source: None,
        metric: 0,
        table: 254,
        scope: 0,
        protocol: 4,
        kind: 1,
        on_link: false,
        mtu: 0,
    }
}

#[test]
fn a_new_namespace_has_a_loopback_interface_that_is_down() {
    in_namespace(|mut netlink| {
        let lo = link(&mut netlink, "lo");
        assert_eq!((lo.index, lo.up, lo.loopback), (1, false, true));
        netlink.set_link(1, &up()).unwrap();
        assert!(link(&mut netlink, "lo").up);
        let addresses = netlink.addresses().unwrap();
        let lo: IpAddr = [127, 0, 0, 1].into();
        let is_lo = |(index, address): &(u32, Address)| *index == 1 && address.address == lo;
        assert!(addresses.iter().any(is_lo));
    });
}

#[test]
fn an_interface_changes_as_told() {
    with_eth0(|mut netlink, index| {
        let eth0 = link(&mut netlink, "eth0");
        assert_eq!(
            (eth0.kind.as_deref(), eth0.mac, eth0.up),
            (Some("veth"), Some(MAC), true)
        );
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        let change = LinkChange {
            no_ipv6_address: true,
            mac: Some(mac),
            mtu: Some(1400),
            name: None,
            all_multicast: None,
            up: Some(false),
        };
        netlink.set_link(index, &change).unwrap();
        let rename = LinkChange {
            name: Some("net7".to_owned()),
            ..LinkChange::default()
        };
        netlink.set_link(index, &rename).unwrap();
        let net7 = link(&mut netlink, "net7");
        assert_eq!(
            (net7.index, net7.mac, net7.mtu, net7.up),
            (index, Some(mac), 1400, false)
        );
        netlink.set_link(index, &up()).unwrap();
        let addresses = netlink.addresses().unwrap();
        assert!(
            addresses.iter().all(|(of, _)| *of != index),
            "{addresses:?}"
        );
        netlink.delete_link(index).unwrap();
        let error = netlink.delete_link(index).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("delete network interface {index}: No such device")),
            "{text}"
        );
    });
}

#[test]
fn a_macvtap_is_made_over_an_interface() {
    with_eth0(|mut netlink, index| {
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        match netlink.add_macvtap(index, "tap0", mac, 1400) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                return eprintln!("skipped: {error}");
            }
            result => result.unwrap(),
        }
        let tap = link(&mut netlink, "tap0");
        assert_eq!(
            (tap.kind.as_deref(), tap.mac, tap.mtu),
            (Some("macvtap"), Some(mac), 1400)
        );
        let error = netlink.add_macvtap(index, "tap0", mac, 1400).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST), "{error}");
    });
}

#[test]
fn addresses_come_and_go() {
    with_eth0(|mut netlink, index| {
        let mut addresses = vec![
            Address {
                broadcast: Some([10, 1, 255, 255].into()),
                ..address("10.1.0.2/16")
            },
            Address {
                peer: Some([10, 9, 0, 9].into()),
                ..address("10.9.0.1/32")
            },
            Address {
                scope: 253,
                ..address("10.8.0.3/16")
            },
        ];
        if has_ipv6() {
            addresses.push(address("fd00::2/64"));
        }
        for address in &addresses {
            netlink.add_address(index, address).unwrap();
            netlink.add_address(index, address).unwrap();
        }
        let all = netlink.addresses().unwrap();
        for address in &addresses {
            let matching = all
                .iter()
                .filter(|(of, other)| *of == index && other == address);
            assert_eq!(matching.count(), 1, "{address:?} in {all:?}");
        }
        // In an order that has the kernel remove no other one with it.
        for address in addresses.iter().rev() {
            netlink.delete_address(index, address).unwrap();
            let all = netlink.addresses().unwrap();
            assert!(!all.contains(&(index, address.clone())), "{address:?}");
        }
        let error = netlink.delete_address(index, &addresses[0]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EADDRNOTAVAIL), "{error}");
        let error = netlink.add_address(77, &addresses[0]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV), "{error}");
        assert!(
            error.to_string().starts_with("add address 10.1.0.2/16: "),
            "{error}"
        );
    });
}

#[test]
fn routes_are_listed_as_they_were_added() {
    with_eth0(|mut netlink, index| {
        netlink.add_address(index, &address("10.1.0.2/16")).unwrap();
        let error = netlink.add_route(index, &route("0.0.0.0/0", Some("10.2.0.1")));
        let error = error.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
        assert!(
            error
                .to_string()
                .starts_with("add route default via 10.2.0.1: Network is"),
            "{error}"
        );
        let mut routes = vec![
            (
                index,
                Route {
                    scope: 253,
                    ..route("192.0.2.1/32", None)
                },
            ),
            (
                0,
                Route {
                    kind: 6,
                    ..route("10.66.0.0/16", None)
                },
            ),
            (
                0,
                Route {
                    kind: 7,
                    ..route("10.67.0.0/16", None)
                },
            ),
            (
                0,
                Route {
                    kind: 8,
                    ..route("10.68.0.0/16", None)
                },
            ),
            (index, route("0.0.0.0/0", Some("10.1.0.1"))),
            (index, route("10.3.0.0/16", Some("192.0.2.1"))),
            (
                index,
                Route {
                    on_link: true,
                    ..route("10.4.0.0/16", Some("198.51.100.1"))
                },
            ),
            (
                index,
                Route {
                    metric: 7,
                    mtu: 1300,
                    table: 1000,
                    ..route("10.5.0.0/16", Some("10.1.0.1"))
                },
            ),
            (
                index,
                Route {
                    source: Some([10, 1, 0, 2].into()),
                    ..route("10.6.0.0/16", Some("10.1.0.1"))
                },
            ),
        ];
        if has_ipv6() {
            netlink.add_address(index, &address("fd00::2/64")).unwrap();
            let ipv6 = |route: Route| Route {
                metric: 1024,
                ..route
            };
            routes.push((index, route("10.7.0.0/16", Some("fe80::1"))));
            routes.push((index, ipv6(route("fd01::/64", None))));
            routes.push((index, ipv6(route("::/0", Some("fd00::1")))));
            routes.push((index, ipv6(route("fd02::/64", Some("fe80::1")))));
            // IPv6 gives it to the loopback interface.
            routes.push((
                1,
                ipv6(Route {
                    kind: 7,
                    ..route("fd03::/64", None)
                }),
            ));
        }
        for (index, route) in &routes {
            netlink.add_route(*index, route).unwrap();
            let error = netlink.add_route(*index, route).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EEXIST), "{error}");
        }
        let all = netlink.routes().unwrap();
        for route in &routes {
            assert!(all.contains(route), "{route:?} in {all:#?}");
        }
        assert!(all.is_sorted_by_key(|(_, route)| route.gateway.is_some()));
        let connected = |(of, route): &&(u32, Route)| {
            *of == index && route.protocol == 2 && route.destination.0.is_ipv4()
        };
        let connected: Vec<_> = all.iter().filter(connected).collect();
        assert_eq!(connected.len(), 1, "{connected:?}");
        assert_eq!(connected[0].1.destination, ([10, 1, 0, 0].into(), 16));
        for (index, route) in &routes {
            netlink.delete_route(*index, route).unwrap();
            let error = netlink.delete_route(*index, route).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ESRCH), "{error}");
        }
        let left = netlink.routes().unwrap();
        assert!(routes.iter().all(|route| !left.contains(route)), "{left:?}");
    });
}

#[test]
fn a_list_is_longer_than_a_buffer() {
    with_eth0(|mut netlink, index| {
        let many = 2000_u32;
        for number in 0..many {
            let address = Address {
                address: std::net::Ipv4Addr::from(0x0a00_0001 + number).into(),
                ..address("10.0.0.0/32")
            };
            netlink.add_address(index, &address).unwrap();
        }
        let addresses = netlink.addresses().unwrap();
        let ours = addresses
            .iter()
            .filter(|(of, address)| *of == index && address.address.is_ipv4());
        assert_eq!(ours.count(), many as usize);
    });
}

#[test]
fn routes_are_deleted_without_who_made_them() {
    with_eth0(|mut netlink, index| {
        netlink.add_address(index, &address("10.1.0.2/16")).unwrap();
        let mut default = route("0.0.0.0/0", Some("10.1.0.1"));
        netlink.add_route(index, &default).unwrap();
        // As dockerd asks for it.
        default.protocol = 0;
        netlink.delete_route(index, &default).unwrap();
        let routes = netlink.routes().unwrap();
        assert!(routes.iter().all(|(_, route)| route.destination.1 != 0));
        let error = netlink.delete_route(index, &default).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ESRCH));
        let text = error.to_string();
        let expected = "delete route default via 10.1.0.1: No such process";
        assert!(text.starts_with(expected), "{text}");
    });
}

#[test]
fn a_port_of_others_is_blocked() {
    with_eth0(|mut netlink, index| {
        netlink.set_link(1, &up()).unwrap();
        netlink.add_address(index, &address("10.1.0.2/16")).unwrap();
        let connect = |to: &str| {
            let local = if to.starts_with('[') {
                "[::]:0"
            } else {
                "0.0.0.0:0"
            };
            let socket = std::net::UdpSocket::bind(local)?;
            socket.connect(to)
        };
        let mut others = vec!["10.1.0.1:53"];
        if has_ipv6() {
            netlink.add_address(index, &address("fd00::2/64")).unwrap();
            others.push("[fd00::1]:53");
        }
        others.iter().for_each(|to| connect(to).unwrap());
        netlink.block_port(1, 53).unwrap();
        for to in others {
            let error = connect(to).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{to}");
            let error = std::net::TcpStream::connect(to).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{to}");
        }
        for to in ["10.1.0.1:54", "10.1.0.2:53", "127.0.0.11:53"] {
            connect(to).unwrap();
        }
        let error = netlink.block_port(1, 53).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST));
    });
}

#[test]
fn events_wake_whoever_waits() {
    with_eth0(|mut netlink, index| {
        let mut events = Events::open().unwrap();
        netlink.add_address(index, &address("10.1.0.2/16")).unwrap();
        events.wait().unwrap();
        // More than the socket has room for.
        for number in 0..20_000_u32 {
            let route = Route {
                destination: (std::net::Ipv4Addr::from(0x0b00_0000 + number).into(), 32),
                ..route("11.0.0.0/32", Some("10.1.0.1"))
            };
            netlink.add_route(index, &route).unwrap();
        }
        events.wait().unwrap();
        netlink
            .set_link(
                index,
                &LinkChange {
                    up: Some(false),
                    ..LinkChange::default()
                },
            )
            .unwrap();
        events.wait().unwrap();
    });
}
