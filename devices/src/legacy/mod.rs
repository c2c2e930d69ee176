//! The ports of a PC that a kernel probes or needs: serial line, clock, reset, power and panic; and the host's side of
//! any machine's simple console.

mod cmos;
mod i8042;
mod line;
mod ports;
mod power;
mod serial;

pub use cmos::Cmos;
pub use i8042::I8042;
pub use line::{Line, LineSubscriber, Outbox};
pub use ports::{MachineEvent, PortBus, PortDevice};
pub use power::{Panic, Power};
pub use serial::Serial;
