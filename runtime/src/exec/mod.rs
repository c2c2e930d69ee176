//! Commands in a container's VM: from this process to the agent there, which runs them.
//!
//! ```text
//! stdin, stdout, stderr, signals ◀──▶ relay ◀── TLS over vsock ──▶ agent ◀──▶ the command
//! ```
//!
//! [`connect()`] finds the agent, [`start`] has it run a command, [`relay::Relay`] carries the bytes,
//! with no more rights than that takes ([`confine`]). Two programs do that: `runq exec`, which
//! containerd calls for `docker exec` ([`detach`], [`console`], [`cgroup`], [`oci`] are for it alone),
//! and `runq-exec`. [`list`] has the agent tell what runs in the guest, for `runq ps`, and [`limit`] set limits there, for
//! `runq update`.

mod age;
pub mod ask;
pub mod cgroup;
pub mod confine;
pub mod connect;
pub mod console;
pub mod detach;
mod input;
pub mod oci;
mod output;
pub mod relay;
mod socket;
pub mod start;

pub use ask::{limit, list};
pub use connect::{Agent, Container, connect, connect_soon};
pub use start::{Refused, start};

#[cfg(test)]
pub(crate) mod played;
