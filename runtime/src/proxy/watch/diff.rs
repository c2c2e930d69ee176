//! What has changed: from how the namespace is, and what the monitor was told of it.

use std::collections::BTreeMap;

use netlink::{Link, Netlink, Result};
use proto::{Address, Interface, Plug, Route};

use crate::network::{self, KEPT};

/// Routes of these need no telling: the guest gets them itself, from ICMP's redirects, from its
/// addresses, and from router advertisements (linux/rtnetlink.h).
const RTPROT_REDIRECT: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
const RTPROT_RA: u8 = 9;

/// The interfaces by their numbers in the namespace, as the monitor was told; none for one that could
/// not be taken.
pub(super) type Known = BTreeMap<u32, Option<Interface>>;

/// A network namespace at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<(u32, Address)>,
    pub(super) routes: Vec<(u32, Route)>,
}

impl Namespace {
    /// How it is now.
    pub(super) fn look(netlink: &mut Netlink) -> Result<Self> {
        Ok(Self {
            links: netlink.links()?,
            addresses: netlink.addresses()?,
            routes: netlink.routes()?,
        })
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }
}

/// What is to be told, each with the interface's number, in an order in which it can be done: what
/// goes makes room for what comes.
pub(super) fn diff(known: &Known, now: &Namespace) -> Vec<(u32, Plug)> {
    let (mut gone, mut removed, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for (&index, interface) in known {
        let Some(interface) = interface else { continue };
        match now.link(index) {
            None => gone.push((index, Plug::Remove(interface.mac))),
            // It has lost its routes for now. Docker does that to one that is about to go.
            Some(link) if !link.up => {}
            Some(_) => {
                let (new, old) = routes(index, interface, now);
                let mac = interface.mac;
                let plug = |added, removed| {
                    let plug = Plug::Routes {
                        mac,
                        added,
                        removed,
                    };
                    (index, plug)
                };
                removed.extend((!old.is_empty()).then(|| plug(Vec::new(), old)));
                added.extend((!new.is_empty()).then(|| plug(new, Vec::new())));
            }
        }
    }
    let new = now.links.iter().filter(|link| is_new(known, link));
    let new = new.map(|link| {
        let interface = network::describe(link, &now.addresses, &now.routes);
        (link.index, Plug::Add(interface))
    });
    gone.into_iter()
        .chain(removed)
        .chain(new)
        .chain(added)
        .collect()
}

/// Those macvtaps are ours.
fn is_new(known: &Known, link: &Link) -> bool {
    network::is_containers(link)
        && !known.contains_key(&link.index)
        && link.kind.as_deref() != Some("macvtap")
}

/// The routes over an interface that are new, and those that are gone.
fn routes(index: u32, interface: &Interface, now: &Namespace) -> (Vec<Route>, Vec<Route>) {
    let here = now.routes.iter().filter(|(of, _)| *of == index);
    let here: Vec<_> = here.map(|(_, route)| route).collect();
    let told = |route: &Route| interface.routes.iter().any(|other| same(route, other));
    let is_others = |route: &Route| {
        !matches!(
            route.protocol,
            KEPT | RTPROT_REDIRECT | RTPROT_KERNEL | RTPROT_RA
        )
    };
    let new = here
        .iter()
        .filter(|route| is_others(route) && !told(route))
        .map(|route| Route::clone(route))
        .collect();
    let is_here = |route: &Route| here.iter().any(|other| same(route, other));
    let old = interface.routes.iter().filter(|route| !is_here(route));
    (new, old.cloned().collect())
}

/// Whether two routes over one interface lead to the same place. A substitute differs from what it
/// stands for in the rest.
fn same(one: &Route, other: &Route) -> bool {
    (one.destination, one.gateway, one.table) == (other.destination, other.gateway, other.table)
}

/// Notes what was told.
pub(super) fn note(known: &mut Known, index: u32, plug: &Plug) {
    match plug {
        Plug::Add(interface) => drop(known.insert(index, Some(interface.clone()))),
        Plug::Remove(_) => drop(known.remove(&index)),
        Plug::Routes { added, removed, .. } => {
            if let Some(Some(interface)) = known.get_mut(&index) {
                let routes = &mut interface.routes;
                routes.retain(|route| !removed.contains(route));
                routes.extend(added.iter().cloned());
            }
        }
    }
}

#[cfg(test)]
#[path = "diff_test.rs"]
mod tests;
