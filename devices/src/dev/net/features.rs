//! Feature bits of a network device (virtio 1.3, section 5.1.3), and what they ask of a tap.

use libc::{
    TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_UFO, TUN_F_USO4, TUN_F_USO6, c_uint,
};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO,
    VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS,
};

pub(super) const GUEST_CSUM: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;
pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
pub(super) const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
pub(super) const CTRL_VQ: u64 = 1 << VIRTIO_NET_F_CTRL_VQ;
pub(super) const GUEST_ANNOUNCE: u64 = 1 << VIRTIO_NET_F_GUEST_ANNOUNCE;
pub(super) const MQ: u64 = 1 << VIRTIO_NET_F_MQ;

const CSUM: u64 = 1 << VIRTIO_NET_F_CSUM;
const GUEST_TSO: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4 | 1 << VIRTIO_NET_F_GUEST_TSO6;
const HOST_TSO: u64 = 1 << VIRTIO_NET_F_HOST_TSO4 | 1 << VIRTIO_NET_F_HOST_TSO6;
const GUEST_USO: u64 = 1 << VIRTIO_NET_F_GUEST_USO4 | 1 << VIRTIO_NET_F_GUEST_USO6;

/// What the driver may be spared (section 5.1.6.5.6.1): it chooses among those by a command, too.
pub(super) const GUEST_OFFLOADS: u64 =
    GUEST_CSUM | GUEST_TSO | GUEST_USO | 1 << VIRTIO_NET_F_GUEST_ECN | 1 << VIRTIO_NET_F_GUEST_UFO;

/// What every tap of Linux can do; the rest it is asked for.
pub(super) const ANY_TAP: c_uint = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
/// A tap takes both or none.
pub(super) const USO: c_uint = TUN_F_USO4 | TUN_F_USO6;

/// Section 5.1.3.1: a feature, and those of which it needs one. A feature that others need comes
/// before them.
const DEPENDENCIES: [(u32, u64); 14] = [
    (VIRTIO_NET_F_GUEST_TSO4, GUEST_CSUM),
    (VIRTIO_NET_F_GUEST_TSO6, GUEST_CSUM),
    (VIRTIO_NET_F_GUEST_ECN, GUEST_TSO),
    (VIRTIO_NET_F_GUEST_UFO, GUEST_CSUM),
    (VIRTIO_NET_F_GUEST_USO4, GUEST_CSUM),
    (VIRTIO_NET_F_GUEST_USO6, GUEST_CSUM),
    (VIRTIO_NET_F_HOST_TSO4, CSUM),
    (VIRTIO_NET_F_HOST_TSO6, CSUM),
    (VIRTIO_NET_F_HOST_ECN, HOST_TSO),
    (VIRTIO_NET_F_HOST_UFO, CSUM),
    (VIRTIO_NET_F_HOST_USO, CSUM),
    (VIRTIO_NET_F_GUEST_ANNOUNCE, CTRL_VQ),
    (VIRTIO_NET_F_MQ, CTRL_VQ),
    // Not in that list, but its command has no other way.
    (VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, CTRL_VQ),
];

/// The features of a device with `pairs` queue pairs, whose tap takes `offloads`, flags of
/// TUNSETOFFLOAD.
pub(super) fn offered(offloads: c_uint, pairs: usize) -> u64 {
    let mut features = CTRL_VQ
        | CTRL_GUEST_OFFLOADS
        | GUEST_ANNOUNCE
        | MRG_RXBUF
        | 1 << VIRTIO_NET_F_MAC
        | 1 << VIRTIO_NET_F_MTU
        | 1 << VIRTIO_NET_F_STATUS;
    if pairs > 1 {
        features |= MQ;
    }
    if offloads & ANY_TAP == ANY_TAP {
        let ecn = 1 << VIRTIO_NET_F_GUEST_ECN | 1 << VIRTIO_NET_F_HOST_ECN;
        features |= CSUM | GUEST_CSUM | GUEST_TSO | HOST_TSO | ecn;
    }
    if offloads & TUN_F_UFO != 0 {
        features |= 1 << VIRTIO_NET_F_GUEST_UFO | 1 << VIRTIO_NET_F_HOST_UFO;
    }
    if offloads & USO == USO {
        features |= GUEST_USO | 1 << VIRTIO_NET_F_HOST_USO;
    }
    usable(features)
}

/// Those of `features` whose dependencies are there.
pub(super) fn usable(features: u64) -> u64 {
    DEPENDENCIES.iter().fold(features, |usable, &(bit, needs)| {
        if usable & needs == 0 {
            usable & !(1 << bit)
        } else {
            usable
        }
    })
}

/// The flags of TUNSETOFFLOAD for a driver that is spared what `features` say.
pub(super) fn tap_offloads(features: u64) -> c_uint {
    let usable = usable(features);
    let flags = [
        (GUEST_CSUM, TUN_F_CSUM),
        (1 << VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4),
        (1 << VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6),
        (1 << VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN),
        (1 << VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO),
        (GUEST_USO, USO),
    ];
    let wanted = flags.iter().filter(|(all, _)| usable & all == *all);
    wanted.fold(0, |flags, (_, flag)| flags | flag)
}

#[cfg(test)]
#[path = "features_test.rs"]
mod tests;
