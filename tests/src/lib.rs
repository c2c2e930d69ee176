//! Tests that need more than one crate, and the machine that they run on.

pub mod docker;
pub mod guest;
pub mod host;
pub mod pattern;
