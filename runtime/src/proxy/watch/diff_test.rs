use std::collections::BTreeSet;

use proptest::prelude::*;
use proto::MacAddress;

use super::*;

fn link(index: u32) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        kind: Some("veth".into()),
        mac: Some(mac(index)),
        mtu: 1500,
        up: true,
        loopback: false,
    }
}

fn mac(index: u32) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, index as u8])
}

/// In ip-route(8)'s words; `proto` 3 is dockerd.
fn route(destination: &str, gateway: Option<&str>, protocol: u8) -> Route {
    let (address, prefix) = destination.split_once('/').unwrap();
    Route {
        destination: (address.parse().unwrap(), prefix.parse().unwrap()),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        source: None,
        metric: 0,
        table: 254,
        scope: 0,
        protocol,
        kind: 1,
        on_link: false,
        mtu: 0,
    }
}

fn default(network: u32) -> Route {
    route("0.0.0.0/0", Some(&format!("10.0.{network}.1")), 3)
}

/// Interfaces as dockerd sets them up, and the one of `gateway` with the default route.
fn namespace(indexes: &[u32], gateway: Option<u32>) -> Namespace {
    let mut now = Namespace::default();
    for &index in indexes {
        now.links.push(link(index));
        let mut connected = route(&format!("10.0.{index}.0/24"), None, 2);
        connected.source = Some([10, 0, index as u8, 2].into());
        now.routes.push((index, connected));
    }
    now.routes
        .extend(gateway.map(|index| (index, default(index))));
    now
}

/// As the namespace is when `index` is taken: its addresses are gone, and substitutes are there.
fn take(now: &mut Namespace, index: u32) {
    let mut macvtap = link(100 + index);
    macvtap.kind = Some("macvtap".into());
    now.links.push(macvtap);
    for (of, route) in &mut now.routes {
        if *of == index && route.protocol == 2 {
            (route.protocol, route.source) = (KEPT, None);
        }
    }
}

/// Does what `diff` tells, and says what that is.
fn follow(known: &mut Known, now: &mut Namespace) -> Vec<Plug> {
    let told = diff(known, now);
    for (index, plug) in &told {
        note(known, *index, plug);
        if let Plug::Add(_) = plug {
            take(now, *index);
        }
    }
    told.into_iter().map(|(_, plug)| plug).collect()
}

fn added(index: u32, route: Route) -> Plug {
    Plug::Routes {
        mac: mac(index),
        added: vec![route],
        removed: Vec::new(),
    }
}

fn removed(index: u32, route: Route) -> Plug {
    Plug::Routes {
        mac: mac(index),
        added: Vec::new(),
        removed: vec![route],
    }
}

#[test]
fn taking_an_interface_changes_nothing_that_is_told() {
    let (mut known, mut now) = (Known::new(), namespace(&[2], Some(2)));
    let told = follow(&mut known, &mut now);
    let [Plug::Add(interface)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((interface.mac, &*interface.name), (mac(2), "eth2"));
    assert_eq!(interface.routes.len(), 2);
    assert_eq!(follow(&mut known, &mut now), []);
}

#[test]
fn the_default_route_moves() {
    let (mut known, mut now) = (Known::new(), namespace(&[2, 3], Some(2)));
    follow(&mut known, &mut now);
    now.routes.retain(|(_, route)| *route != default(2));
    now.routes.push((3, default(3)));
    let told = follow(&mut known, &mut now);
    assert_eq!(told, [removed(2, default(2)), added(3, default(3))]);
    assert_eq!(follow(&mut known, &mut now), []);
}

#[test]
fn what_goes_is_told_before_what_comes() {
    let (mut known, mut now) = (Known::new(), namespace(&[2, 3], Some(2)));
    follow(&mut known, &mut now);
    now.links.retain(|link| link.index != 2);
    now.routes.retain(|(of, _)| *of != 2);
    now.routes.push((3, default(3)));
    let new = namespace(&[4], None);
    now.links.extend(new.links);
    now.routes.extend(new.routes);
    let told = follow(&mut known, &mut now);
    assert_eq!(told[0], Plug::Remove(mac(2)));
    assert!(matches!(&told[1], Plug::Add(new) if new.mac == mac(4)));
    assert_eq!(told[2..], [added(3, default(3))]);
    // Its macvtap goes later, if the host deletes it.
    assert_eq!(follow(&mut known, &mut now), []);
}

#[test]
fn an_interface_is_told_of_when_it_is_up_and_has_routes_as_long_as_it_is() {
    let (mut known, mut now) = (Known::new(), namespace(&[2], Some(2)));
    now.links[0].up = false;
    assert_eq!(follow(&mut known, &mut now), []);
    now.links[0].up = true;
    assert_eq!(follow(&mut known, &mut now).len(), 1);
    now.links[0].up = false;
    now.routes.clear();
    assert_eq!(follow(&mut known, &mut now), []);
}

#[test]
fn what_is_not_the_containers_is_not_told() {
    let mut now = namespace(&[1, 2], None);
    now.links[0].loopback = true;
    now.links[1].kind = Some("macvtap".into());
    assert_eq!(diff(&Known::new(), &now), []);
    // One that could not be taken, with whatever becomes of it.
    let known = Known::from([(3, None), (4, None)]);
    assert_eq!(diff(&known, &namespace(&[3], Some(3))), []);
}

#[test]
fn routes_that_the_guest_makes_itself_are_not_told() {
    let (mut known, mut now) = (Known::new(), namespace(&[2], None));
    follow(&mut known, &mut now);
    for protocol in [1, 2, 9, KEPT] {
        let route = route("fd00::/64", Some("fe80::1"), protocol);
        now.routes.push((2, route));
    }
    assert_eq!(follow(&mut known, &mut now), []);
    let others = route("fd00:1::/64", Some("fe80::1"), 16);
    now.routes.push((2, others.clone()));
    assert_eq!(follow(&mut known, &mut now), [added(2, others)]);
}

proptest! {
    #[test]
    fn whatever_becomes_of_the_namespace_is_told_once(
        states in prop::collection::vec(
            (prop::collection::btree_set(2_u32..6, 0..4), prop::option::of(2_u32..6)),
            1..8,
        ),
    ) {
        let mut known = Known::new();
        let mut told_of = BTreeSet::new();
        for (indexes, gateway) in states {
            let indexes: Vec<_> = indexes.into_iter().collect();
            let gateway = gateway.filter(|index| indexes.contains(index));
            let mut now = namespace(&indexes, gateway);
            for &index in indexes.iter().filter(|index| known.contains_key(index)) {
                take(&mut now, index);
            }
            for plug in follow(&mut known, &mut now) {
                match plug {
                    Plug::Add(new) => prop_assert!(told_of.insert(new.mac)),
                    Plug::Remove(mac) => prop_assert!(told_of.remove(&mac)),
                    Plug::Routes { mac, .. } => prop_assert!(told_of.contains(&mac)),
                }
            }
            let expected: BTreeSet<_> = indexes.iter().map(|&index| mac(index)).collect();
            prop_assert_eq!(&told_of, &expected);
            for &index in &indexes {
                let routes = &known[&index].as_ref().unwrap().routes;
                let has_default = routes.iter().any(|route| route.destination.1 == 0);
                prop_assert_eq!(has_default, gateway == Some(index));
                prop_assert!(routes.iter().any(|route| route.destination.1 == 24));
            }
            prop_assert_eq!(follow(&mut known, &mut now), []);
        }
    }
}
