//! What the agent in the test host and its client outside share: the frames on their connection, and the
//! size of a terminal.
//!
//! A crate of its own, with few dependencies, because the saved state of the test host contains the agent:
//! it is built again only when these sources change.

pub mod frame;
pub mod winsize;
