//! What a kernel is told about its console.

use crate::cmdline::Console;

impl Console {
    /// What every kernel of ours is told, with its console.
    ///
    /// `panic=-1`: a kernel that panics resets at once, which ends the VM. `ttysclp0` is the SCLP's VT220 (Linux,
    /// drivers/s390/char/sclp_vt220.c). `rcu_expedited`: who waits for all readers interrupts the few processors,
    /// and does not wait for their next ticks.
    pub fn parameters(self) -> &'static str {
        match self {
            Self::Serial => "console=ttysclp0 panic=-1 rcupdate.rcu_expedited=1",
            Self::Virtio => "console=hvc0 panic=-1 rcupdate.rcu_expedited=1",
            Self::None => "quiet panic=-1 rcupdate.rcu_expedited=1",
        }
    }
}
