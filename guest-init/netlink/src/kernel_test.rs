//! Against the kernel, each test in a network namespace of its own.

use std::net::IpAddr;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::*;

const MAC: MacAddress = MacAddress([2, 0x42, 0xac, 0x11, 0, 2]);

/// Runs `test` in a new network namespace, in as many threads as it likes to ask for; says so if
/// the caller may not have one.
fn in_namespace<T: Send + 'static>(test: impl FnOnce(Netlink) -> T + Send + 'static) -> Option<T> {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace: {error}");
            return None;
        }
        Some(test(Netlink::open().unwrap()))
    };
    thread::spawn(run).join().unwrap()
}

fn named<'a>(links: &'a [Link], name: &str) -> &'a Link {
    links.iter().find(|link| link.name == name).unwrap()
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

fn address(text: &str) -> Address {
    let (address, prefix) = text.split_once('/').unwrap();
    let address: IpAddr = address.parse().unwrap();
    Address {
        address,
        peer: None,
        prefix: prefix.parse().unwrap(),
        broadcast: None,
        scope: 0,
    }
}

#[test]
fn a_new_namespace_has_a_loopback_interface_that_is_down() {
    in_namespace(|mut netlink| {
        let links = netlink.links().unwrap();
        let lo = named(&links, "lo");
        assert_eq!((lo.index, lo.up, lo.loopback), (1, false, true));
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.set_link(1, &up).unwrap();
        assert!(named(&netlink.links().unwrap(), "lo").up);
        let addresses = netlink.addresses().unwrap();
        let lo: IpAddr = [127, 0, 0, 1].into();
        assert!(
            addresses
                .iter()
                .any(|(index, a)| *index == 1 && a.address == lo)
        );
        let error = netlink.add_address(77, &address("10.0.0.1/8")).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV), "{error}");
        assert!(
            error.to_string().starts_with("add address 10.0.0.1/8: "),
            "{error}"
        );
        let _ = (MAC, has_ipv6());
    });
}
