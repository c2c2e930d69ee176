//! The emulated test host: a Debian with KVM, Docker, vhost and macvtap inside QEMU's TCG, which emulates
//! AMD's SVM. It is where tests run that boot guests, on machines without usable hardware KVM.
//!
//! From packages to a running command:
//!
//! 1. [`image`]: a Debian root file system, its kernel and a small initrd; cached.
//! 2. [`state`]: the image booted once until Docker answers, then saved with all its memory; cached.
//! 3. [`Host`]: a machine restored from that state in a second or two, with a disk that is thrown away. Any
//!    number of them at a time.
//! 4. [`client`]: commands in it, through the agent (program `hostagent`), which speaks [`protocol`].
//!
//! A payload, a directory of ours, appears in the host as `/opt/runq`, read-only.

pub mod cache;
pub mod client;
pub mod image;
pub mod kvm;
pub mod protocol;
pub mod qemu;
pub mod state;
pub mod terminal;
pub mod winsize;

mod instance;
mod payload;
mod qmp;
mod watch;

pub use client::{Command, Output};
pub use instance::{Host, Lifetime, Options, list};
pub use qemu::Variant;
