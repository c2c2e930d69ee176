//! Switches for the processor's features.

use crate::{assert_code, busybox};

const FLAGS: &str = "grep -m1 '^flags' /proc/cpuinfo | cut -d: -f2";

fn flags(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_guest_has_the_hosts_features_without_those_switched_off() {
    let (rootfs, guest) = busybox();
    let all = guest.args(["--cpu", "host"]).shell(FLAGS).unwrap();
    assert_code(&all, 0);
    let all = all.stdout();
    let all = flags(&all);
    for needed in ["lm", "aes", "rdrand", "hypervisor", "x2apic"] {
        assert!(all.contains(&needed), "{needed}: {all:?}");
    }

    let guest = tests::guest::Guest::of(&rootfs).unwrap();
    let fewer = guest
        .args(["--cpu", "host,-aes,rdrand=off"])
        .shell(FLAGS)
        .unwrap();
    assert_code(&fewer, 0);
    let fewer = fewer.stdout();
    let expected: Vec<&str> = all
        .iter()
        .copied()
        .filter(|flag| !["aes", "rdrand"].contains(flag))
        .collect();
    assert_eq!(flags(&fewer), expected);
}
