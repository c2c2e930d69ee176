//! The host's side of a guest's network interfaces.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

pub use devices::dev::net::{self, Tap};
use tracing::debug;

/// Most pairs of queues of an interface.
pub const MAX_QUEUE_PAIRS: u16 = 8;

/// What the kernel gives a tap interface (`ETH_DATA_LEN` of linux/if_ether.h).
pub const DEFAULT_MTU: u16 = 1500;

/// Where the kernel serves queues.
const VHOST_NET: &str = "/dev/vhost-net";

/// Has the kernel serve `pairs` pairs of queues, if it can: a descriptor for each; else none, and the
/// monitor serves them.
pub fn open_vhost(pairs: usize) -> Vec<File> {
    let open = |_| {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true);
        options.custom_flags(libc::O_NONBLOCK).open(VHOST_NET)
    };
    let opened: io::Result<Vec<_>> = (0..pairs).map(open).collect();
    opened.unwrap_or_else(|error| {
        debug!("{VHOST_NET}: {error}: the monitor serves the network itself");
        Vec::new()
    })
}
