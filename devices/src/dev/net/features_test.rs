//! The features, against a second telling of section 5.1.3.1.

use proptest::prelude::*;

use super::*;

fn has(features: u64, bit: u32) -> bool {
    features & 1 << bit != 0
}

/// The flags of TUNSETOFFLOAD, feature by feature.
fn expected(features: u64) -> u32 {
    if !has(features, VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let tso4 = has(features, VIRTIO_NET_F_GUEST_TSO4);
    let tso6 = has(features, VIRTIO_NET_F_GUEST_TSO6);
    let ecn = has(features, VIRTIO_NET_F_GUEST_ECN) && (tso4 || tso6);
    let ufo = has(features, VIRTIO_NET_F_GUEST_UFO);
    let uso = has(features, VIRTIO_NET_F_GUEST_USO4) && has(features, VIRTIO_NET_F_GUEST_USO6);
    // linux/if_tun.h
    1 | u32::from(tso4) << 1
        | u32::from(tso6) << 2
        | u32::from(ecn) << 3
        | u32::from(ufo) << 4
        | if uso { 0x60 } else { 0 }
}

/// Whether Linux' `set_offload` of drivers/net/tun.c takes the flags.
fn taken(mut flags: u32) -> bool {
    if flags & 1 != 0 {
        flags &= !1;
        if flags & 6 != 0 {
            flags &= !0xe;
        }
        flags &= !0x10;
        if flags & 0x60 == 0x60 {
            flags &= !0x60;
        }
    }
    flags == 0
}

#[test]
fn every_combination_of_offloads_is_one_that_a_tap_takes() {
    let bits: Vec<u64> = (0..64)
        .map(|bit| 1 << bit)
        .filter(|bit| GUEST_OFFLOADS & bit != 0)
        .collect();
    assert_eq!(bits.len(), 7);
    for combination in 0..1 << bits.len() {
        let chosen = bits.iter().enumerate();
        let features = chosen
            .filter(|(i, _)| combination & 1 << i != 0)
            .fold(0, |features, (_, bit)| features | bit);
        let flags = tap_offloads(features);
        assert_eq!(flags, expected(features), "{features:#x}");
        assert!(taken(flags), "{features:#x}");
    }
}

#[test]
fn a_tap_that_can_do_nothing_leaves_the_rest() {
    let all = offered(ANY_TAP | TUN_F_UFO | USO, 2);
    assert_eq!(all, usable(!0) & all);
    let poor = offered(0, 1);
    assert_eq!(poor & (GUEST_OFFLOADS | CSUM | HOST_TSO | MQ), 0);
    // MAC, MTU, STATUS, MRG_RXBUF, CTRL_VQ, GUEST_ANNOUNCE, CTRL_GUEST_OFFLOADS.
    assert_eq!(poor, 0x23_802c);
    assert_eq!(all & !poor, 0x1c0_0000_0040_7f83);
    assert_eq!(
        offered(ANY_TAP, 1) & (GUEST_USO | 1 << VIRTIO_NET_F_GUEST_UFO),
        0
    );
}

proptest! {
    /// What may be used has its dependencies, and nothing else falls.
    #[test]
    fn features_are_used_with_what_they_need(features in any::<u64>()) {
        let usable = usable(features);
        prop_assert_eq!(usable & !features, 0);
        prop_assert_eq!(super::usable(usable), usable);
        let needs = |bit, needed: &[u32]| {
            let met = needed.iter().any(|&needed| has(usable, needed));
            has(usable, bit) == (has(features, bit) && met)
        };
        let guest = [VIRTIO_NET_F_GUEST_CSUM];
        let host = [VIRTIO_NET_F_CSUM];
        let control = [VIRTIO_NET_F_CTRL_VQ];
        prop_assert!(needs(VIRTIO_NET_F_GUEST_TSO4, &guest));
        prop_assert!(needs(VIRTIO_NET_F_GUEST_TSO6, &guest));
        prop_assert!(needs(VIRTIO_NET_F_GUEST_ECN, &[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6]));
        prop_assert!(needs(VIRTIO_NET_F_GUEST_UFO, &guest));
        prop_assert!(needs(VIRTIO_NET_F_GUEST_USO4, &guest));
        prop_assert!(needs(VIRTIO_NET_F_GUEST_USO6, &guest));
        prop_assert!(needs(VIRTIO_NET_F_HOST_TSO4, &host));
        prop_assert!(needs(VIRTIO_NET_F_HOST_TSO6, &host));
        prop_assert!(needs(VIRTIO_NET_F_HOST_ECN, &[VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6]));
        prop_assert!(needs(VIRTIO_NET_F_HOST_UFO, &host));
        prop_assert!(needs(VIRTIO_NET_F_HOST_USO, &host));
        prop_assert!(needs(VIRTIO_NET_F_MQ, &control));
        prop_assert!(needs(VIRTIO_NET_F_GUEST_ANNOUNCE, &control));
        prop_assert_eq!(tap_offloads(features), expected(features));
    }
}
