//! Tests that boot guests with `runq-vmm`.
//!
//! They need a KVM that runs Linux and the files of the payload ([`tests::guest`]), so that `cargo test` names them as
//! ignored; `make test` runs them all, directly on hardware KVM, else in the emulated host.
#![allow(clippy::unwrap_used, clippy::panic, reason = "they fail the test")]

mod command_line;
mod console;
mod container;
mod disks;
mod endings;
mod environment;
mod images;
mod kernels;
mod network;
mod observation;
mod processor;
mod refusals;
mod requests;
mod shares;
mod shares_9p;
mod signals;
mod streams;
mod terminal;
mod vsock;

use tests::guest::{Finished, Guest, Rootfs};

/// A guest of its own busybox.
fn busybox() -> (Rootfs, Guest) {
    let rootfs = Rootfs::new().unwrap();
    let guest = Guest::of(&rootfs).unwrap();
    (rootfs, guest)
}

/// Asserts the exit code, and shows everything if it is another.
#[track_caller]
fn assert_code(done: &Finished, code: i32) {
    assert_eq!(done.code(), Some(code), "{done:?}");
}

/// Asserts that the monitor wrote nothing about the run.
#[track_caller]
fn assert_silent(done: &Finished) {
    assert_eq!(done.stderr(), "", "nothing on standard error");
}
