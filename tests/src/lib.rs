//! What tests that need more than one crate share.

pub mod docker;
pub mod guest;
pub mod pattern;
