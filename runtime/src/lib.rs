//! What runs between `docker run` and a virtual machine.
//!
//! ```text
//! config.json ──▶ runq: config.json ──▶ runc ──▶ proxy ──▶ the VM
//!                       vmspec.json ───────────────┘
//! ```
//!
//! `runq` is called by containerd instead of runc. It splits the container's configuration into
//! what happens on the host, which is runc's, and what happens in the VM ([`vmspec::VmSpec`]).
//! runc then starts `proxy` as the container's first process, which runs the VM.

pub mod certs;
pub mod chain;
pub mod check;
pub mod cli;
pub mod create;
pub mod disk;
pub mod exec;
pub mod host;
mod lookup;
mod mount_points;
mod namespace;
pub mod options;
pub mod privileges;
pub mod register;
pub mod resolv_conf;
pub mod seccomp;
pub mod shadow;
pub mod spec;
pub mod split;
pub mod vmspec;
