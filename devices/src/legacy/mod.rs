//! The ports of a PC that a kernel probes or needs: serial line, clock, reset, power and panic.

mod cmos;
mod i8042;
mod ports;
mod power;
mod serial;

pub use cmos::Cmos;
pub use i8042::I8042;
pub use ports::{MachineEvent, PortBus, PortDevice};
pub use power::{Panic, Power};
pub use serial::{Serial, SerialSubscriber};
