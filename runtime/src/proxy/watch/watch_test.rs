//! In a namespace of the kernel's, in which the tests do what dockerd does.

use std::fs;
use std::io::IoSliceMut;
use std::thread;

use netlink::LinkChange;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proto::{Address, Decoder, MacAddress, Route};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::network::{KEPT, block_dns};

const MAC: MacAddress = MacAddress([2, 0x42, 10, 0, 0, 2]);
const OTHER: MacAddress = MacAddress([2, 0x42, 10, 1, 0, 2]);
const CPUS: u32 = 2;

/// What dockerd, the watching process and the monitor have.
struct Setting {
    docker: Netlink,
    events: Events,
    watch: Watch<'static>,
    monitor: OwnedFd,
}

impl Setting {
    /// `docker network connect`: the addresses first.
    fn connect(&mut self, name: &str, mac: MacAddress, network: &str) -> u32 {
        let peer = format!("peer-{name}");
        self.docker.add_veth(name, mac, &peer).unwrap();
        let (index, peer) = (self.index(name), self.index(&peer));
        self.watch.known.insert(peer, None);
        let address = |address: &str, prefix| Address {
            address: address.parse().unwrap(),
            peer: None,
            prefix,
            broadcast: None,
            scope: 0,
        };
        let v4 = address(&format!("10.{network}.0.2"), 16);
        self.docker.add_address(index, &v4).unwrap();
        let v6 = address(&format!("fd00:{network}::2"), 64);
        let v6 = self.docker.add_address(index, &v6);
        v6.unwrap_or_else(|error| eprintln!("no IPv6: {error}"));
        for index in [peer, index] {
            let up = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            self.docker.set_link(index, &up).unwrap();
        }
        index
    }

    fn index(&mut self, name: &str) -> u32 {
        let mut links = self.docker.links().unwrap().into_iter();
        links.find(|link| link.name == name).unwrap().index
    }

    /// Waits for an event, and has it told.
    fn follow(&mut self) -> Vec<(Plug, usize)> {
        let Self { events, watch, .. } = self;
        // A call that the filter forbids ends the tests.
        let confined = || {
            process::restrict_calls().unwrap();
            events.wait().unwrap();
            watch.compare().unwrap();
        };
        thread::scope(|scope| scope.spawn(confined).join().unwrap());
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// A message, and with how many descriptors it came.
    fn receive(&self) -> Option<(Plug, usize)> {
        let mut bytes = vec![0; 1 << 16];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(
            &self.monitor,
            &mut buffers,
            &mut control,
            RecvFlags::DONTWAIT,
        );
        let count = received.ok()?.bytes;
        let descriptors = control.drain().map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
            _ => 0,
        });
        let descriptors = descriptors.sum();
        let mut decoder = Decoder::new();
        decoder.push(&bytes[..count]);
        Some((decoder.next().unwrap().unwrap(), descriptors))
    }
}

/// Runs `test` on a thread with a network and a sysfs of its own.
fn in_namespace(test: impl FnOnce(Setting) + Send + 'static) {
    let prepare = || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none)?;
        fs::create_dir(runtime::vmspec::SYS)?;
        let sysfs = Some("sysfs");
        mount(none, runtime::vmspec::SYS, sysfs, MsFlags::empty(), none)?;
        let mut netlink = Netlink::open()?;
        netlink.add_veth("try", MAC, "peer")?;
        let index = netlink.links()?.iter().map(|link| link.index).max();
        netlink.add_macvtap(index.unwrap_or_default(), "tap", OTHER, 1500)?;
        netlink.delete_link(index.unwrap_or_default())?;
        Ok(())
    };
    let run = move || {
        if let Err(error) = prepare() {
            return eprintln!("skipped: no network namespace with macvtaps: {error:#}");
        }
        let (ours, monitor) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let ours: &'static OwnedFd = Box::leak(Box::new(ours));
        test(Setting {
            docker: Netlink::open().unwrap(),
            events: Events::open().unwrap(),
            watch: Watch {
                netlink: Netlink::open().unwrap(),
                known: Known::new(),
                monitor: ours.as_fd(),
                cpus: CPUS,
            },
            monitor,
        });
    };
    thread::spawn(run).join().unwrap();
}

/// As dockerd makes it (RTPROT_BOOT).
fn default(gateway: &str) -> Route {
    let gateway = gateway.parse().unwrap();
    let unspecified = match gateway {
        std::net::IpAddr::V4(_) => "0.0.0.0",
        std::net::IpAddr::V6(_) => "::",
    };
    Route {
        destination: (unspecified.parse().unwrap(), 0),
        gateway: Some(gateway),
        source: None,
        metric: 0,
        table: 254,
        scope: 0,
        protocol: 3,
        kind: 1,
        on_link: false,
        mtu: 0,
    }
}

#[test]
fn an_interface_that_docker_connects_is_taken_and_keeps_its_routes() {
    in_namespace(|mut setting| {
        let index = setting.connect("eth0", MAC, "1");
        let told = setting.follow();
        let [(Plug::Add(interface), descriptors)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((interface.mac, &*interface.name), (MAC, "eth0"));
        let vhost = vmm::network::open_vhost(CPUS as usize).len();
        assert_eq!(*descriptors, CPUS as usize + vhost);
        // Nothing is left that could answer in the guest's place.
        let addresses = setting.docker.addresses().unwrap();
        let addresses = addresses.iter().filter(|(of, _)| *of == index);
        let addresses: Vec<_> = addresses.map(|(_, address)| address.address).collect();
        assert!(
            addresses.iter().all(|address| address.is_loopback()),
            "{addresses:?}"
        );
        // All ways are there without them.
        let routes = setting.docker.routes().unwrap();
        for told in &interface.routes {
            let kept = routes.iter().find(|(of, route)| {
                (*of, route.destination, route.protocol) == (index, told.destination, KEPT)
            });
            assert!(kept.is_some(), "{told:?} in {routes:?}");
        }
        assert!(!interface.routes.is_empty());
        // Taking it was an event, too.
        assert_eq!(setting.follow(), []);
        let has_ipv6 = |address: &Address| address.address.is_ipv6();
        let v6 = interface.addresses.iter().any(has_ipv6);
        for gateway in ["10.1.0.1"].into_iter().chain(v6.then_some("fd00:1::1")) {
            setting.docker.add_route(index, &default(gateway)).unwrap();
        }
    });
}

#[test]
fn dockers_default_route_moves_and_interfaces_go() {
    in_namespace(|mut setting| {
        let first = setting.connect("eth0", MAC, "1");
        let route = default("10.1.0.1");
        setting.docker.add_route(first, &route).unwrap();
        let told = setting.follow();
        assert!(
            matches!(&told[..], [(Plug::Add(new), _)] if new.routes.contains(&route)),
            "{told:?}"
        );
        block_dns(&mut setting.docker);

        let second = setting.connect("eth1", OTHER, "2");
        let told = setting.follow();
        assert!(
            matches!(&told[..], [(Plug::Add(new), _)] if new.mac == OTHER),
            "{told:?}"
        );
        // As programGateway does it.
        let any = Route {
            protocol: 0,
            ..route.clone()
        };
        setting.docker.delete_route(first, &any).unwrap();
        let other = default("10.2.0.1");
        setting.docker.add_route(second, &other).unwrap();
        let routes = |mac, added: &[&Route], removed: &[&Route]| {
            let list = |routes: &[&Route]| routes.iter().copied().cloned().collect();
            let plug = Plug::Routes {
                mac,
                added: list(added),
                removed: list(removed),
            };
            (plug, 0)
        };
        let told = setting.follow();
        assert_eq!(
            told,
            [routes(MAC, &[], &[&route]), routes(OTHER, &[&other], &[])]
        );

        setting.docker.delete_link(first).unwrap();
        assert_eq!(setting.follow(), [(Plug::Remove(MAC), 0)]);
        setting.docker.delete_link(second).unwrap();
        assert_eq!(setting.follow(), [(Plug::Remove(OTHER), 0)]);
    });
}

#[test]
fn an_interface_that_cannot_be_taken_is_left_alone() {
    in_namespace(|mut setting| {
        fs::remove_dir(runtime::vmspec::SYS).unwrap_err();
        nix::mount::umount(runtime::vmspec::SYS).unwrap();
        let index = setting.connect("eth0", MAC, "1");
        assert_eq!(setting.follow(), []);
        assert_eq!(setting.watch.known[&index], None);
        assert_eq!(setting.follow(), []);
        setting.docker.delete_link(index).unwrap();
        assert_eq!(setting.follow(), []);
        assert!(!setting.watch.known.contains_key(&index));
    });
}

#[test]
fn a_monitor_that_is_gone_ends_it() {
    let (ours, monitor) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    drop(monitor);
    let watch = Watch {
        netlink: Netlink::open().unwrap(),
        known: Known::new(),
        monitor: ours.as_fd(),
        cpus: CPUS,
    };
    let error = watch.send(&Plug::Remove(MAC), None).unwrap_err();
    assert!(is_closed(&error), "{error:#}");
}
