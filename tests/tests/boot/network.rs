//! Network interfaces of `runq-vmm --net`.

use std::process::Command;

use tests::guest::{Guest, Rootfs, payload};

use crate::{assert_code, assert_silent};

/// Runs a shell script on the host.
#[track_caller]
fn host(script: &str) -> String {
    let done = Command::new("bash")
        .args(["-euc", script])
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Interfaces of the host, removed when this is dropped.
struct Interface(&'static str);

impl Drop for Interface {
    fn drop(&mut self) {
        host(&format!("ip link del {}", self.0));
    }
}

/// A guest with two processors that has `netcheck`, and the server on the host.
fn netcheck() -> (Rootfs, Guest, tests::guest::Running) {
    let rootfs = Rootfs::new().unwrap();
    let program = payload("netcheck").unwrap();
    std::fs::copy(&program, rootfs.join("bin/netcheck")).unwrap();
    let guest = Guest::of(&rootfs).unwrap().args(["--cpus", "2"]);
    let mut server = Guest::program(program)
        .args(["serve", "5000"])
        .launch()
        .unwrap();
    server.wait_for("ready\n").unwrap();
    (rootfs, guest, server)
}

/// Sets the interface up, and uses it. All queue pairs carry packets: connections are spread over them.
const USE: &str = r#"
set -e
ip addr add 10.98.0.2/24 dev eth0
ip link set eth0 up
cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu
ls -d /sys/class/net/eth0/queues/rx-* | wc -l
netcheck udp 10.98.0.1:5000 | cut -d ' ' -f 1
for i in 1 2 3 4; do netcheck tcp 10.98.0.1:5000 4 4 & pids="$pids $!"; done | cut -d ' ' -f 1
wait
# Down and up again: the driver resets nothing, and the queues go on.
ip link set eth0 down
ip link set eth0 up
netcheck tcp 10.98.0.1:5000 1 1 | cut -d ' ' -f 1
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn a_tap_with_two_pairs_of_queues() {
    host(
        "ip tuntap add tap98 mode tap multi_queue vnet_hdr; ip addr add 10.98.0.1/24 dev tap98; ip link set tap98 up mtu 1400",
    );
    let _tap = Interface("tap98");
    let (_rootfs, guest, _server) = netcheck();
    let done = guest
        .option("--net", "tap=tap98,mac=02:00:00:00:00:98,queues=2")
        .shell(USE)
        .unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    let expected = format!("02:00:00:00:00:98\n1400\n2\n{}", "ok\n".repeat(6));
    assert_eq!(done.stdout(), expected);
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_macvtap_with_its_own_address() {
    host(
        "ip link add near98 type veth peer name far98; ip addr add 10.98.0.1/24 dev near98
         ip link add link far98 name mv98 address 02:00:00:00:00:99 type macvtap mode bridge
         for i in near98 far98 mv98; do ip link set $i up; done",
    );
    let _veth = Interface("near98");
    let (_rootfs, guest, _server) = netcheck();
    let done = guest
        .option("--net", "macvtap=mv98,queues=2")
        .shell(USE)
        .unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    let expected = format!("02:00:00:00:00:99\n1500\n2\n{}", "ok\n".repeat(6));
    assert_eq!(done.stdout(), expected);
}

#[test]
#[ignore = "boots a guest: make test"]
fn an_interface_that_is_not_there_is_named() {
    let (_rootfs, guest) = crate::busybox();
    let done = guest
        .option("--net", "macvtap=nosuch0")
        .run(["/bin/true"])
        .unwrap();
    assert_code(&done, 1);
    assert_eq!(
        done.stderr(),
        "runq-vmm: network interface nosuch0: there is none\n"
    );
}
