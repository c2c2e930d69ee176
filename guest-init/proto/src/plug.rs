//! What becomes of a container's network while it runs: from who watches its namespace to the monitor.
//!
//! One message a datagram of a SOCK_SEQPACKET socket, in a frame ([`crate::encode`]).

use serde::{Deserialize, Serialize};

use crate::{Interface, MacAddress, Message, Route};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plug {
    /// The guest gets an interface. With the message come the descriptors of its tap's queues, and
    /// then as many of /dev/vhost-net, or none.
    Add(Interface),
    /// The interface with this address is gone.
    Remove(MacAddress),
    /// Routes of this interface come and go.
    Routes {
        /// The interface.
        mac: MacAddress,
        /// Those that are new.
        added: Vec<Route>,
        /// Those that are gone.
        removed: Vec<Route>,
    },
}

impl Message for Plug {
    const VERSION: Option<u32> = None;
}
