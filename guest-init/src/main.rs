//! What runs first in the guest.
fn main() {}
