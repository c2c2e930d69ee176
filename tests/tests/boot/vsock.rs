//! Connections to the guest of `runq-vmm --vsock`, by either backend.

use tests::guest::{Guest, Rootfs, payload};

use crate::assert_code;

/// Exchanges with a server in the guest that is reached at `to`: so many KiB both ways at once, and less.
fn check(option: &str, to: &str, much: &'static str) {
    let rootfs = Rootfs::new().unwrap();
    let program = payload("vsockcheck").unwrap();
    std::fs::copy(&program, rootfs.join("bin/vsockcheck")).unwrap();
    let guest = Guest::of(&rootfs).unwrap().option("--vsock", option);
    let mut server = guest
        .args(["--", "/bin/vsockcheck", "serve", "5000"])
        .launch()
        .unwrap();
    server.wait_for("ready\n").unwrap();
    let exchange = |numbers: &[&'static str]| [&["exchange", to, "5000"], numbers].concat();
    for call in [
        // One after another; many at once; much at once.
        exchange(&["1000", "1", "1", "1"]),
        exchange(&["100", "100", "100", "100"]),
        exchange(&["1", "1", much, much]),
        vec!["halves", to, "5000"],
        vec!["stuck", to, "5000"],
        vec!["kill", to, "5000"],
    ] {
        let done = Guest::program(&program).args(call.clone());
        let done = done.launch().unwrap().wait().unwrap();
        assert_code(&done, 0);
        assert_eq!(done.stdout(), "ok\n", "{call:?}");
    }
    // The stuck connection, and the one whose process was killed on the host; the other's end was seen there.
    server.wait_for("lost\n").unwrap();
    server.wait_for("lost\n").unwrap();
}

#[test]
#[ignore = "boots a guest: make test"]
fn vsock_by_the_kernel() {
    check("cid=98", "98", "262144");
}

#[test]
#[ignore = "boots a guest: make test"]
fn vsock_by_a_unix_socket() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("vsock");
    let path = path.to_str().unwrap();
    // An emulated host takes its time for what the kernel does not do.
    check(&format!("socket={path}"), path, "65536");
}
