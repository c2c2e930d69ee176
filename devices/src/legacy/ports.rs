//! Port I/O: which device is behind which port (x86 `in` and `out`).

use std::sync::{Arc, Mutex, PoisonError};

/// What a write to a port does to the whole machine. An exit is a value: the vCPU thread that gets
/// one decides what becomes of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// The guest turned itself off.
    PowerOff,
    /// The guest asked to be started anew.
    Reset,
    /// The guest's kernel panicked.
    GuestPanic,
}

/// A device behind byte-wide registers at consecutive ports. Called from vCPU threads.
pub trait PortDevice: Send {
    /// The guest reads the register at `offset` from the device's first port.
    fn read(&mut self, offset: u16) -> u8;

    /// The guest writes `value` to the register at `offset` from the device's first port.
    fn write(&mut self, offset: u16, value: u8) -> Option<MachineEvent>;
}

/// The ports and the devices behind them. Built by the monitor, then shared by all vCPU threads.
#[derive(Default)]
pub struct PortBus {
    ranges: Vec<Range>,
}

struct Range {
    first: u16,
    count: u16,
    device: Arc<Mutex<dyn PortDevice>>,
}

impl PortBus {
    /// Nothing behind any port.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` behind `count` ports from `first` on. Ranges must not overlap: the one that
    /// was added first wins.
    pub fn add(&mut self, first: u16, count: u16, device: Arc<Mutex<dyn PortDevice>>) {
        self.ranges.push(Range {
            first,
            count,
            device,
        });
    }

    /// The guest reads `data.len()` (1, 2 or 4) bytes at `port`: as on the ISA bus one from each
    /// of consecutive ports. Ports without a device read as ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        for (byte, port) in data.iter_mut().zip(port..=u16::MAX) {
            *byte = self
                .with(port, |device, offset| device.read(offset))
                .unwrap_or(0xff);
        }
    }

    /// The guest writes `data` (1, 2 or 4 bytes) at `port`, one byte to each of consecutive ports.
    /// Ports without a device ignore it: port 0x80, to which Linux writes for the delay, among
    /// them.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<MachineEvent> {
        let mut event = None;
        for (byte, port) in data.iter().zip(port..=u16::MAX) {
            let written = self.with(port, |device, offset| device.write(offset, *byte));
            event = event.or(written.flatten());
        }
        event
    }

    fn with<R>(&self, port: u16, access: impl FnOnce(&mut dyn PortDevice, u16) -> R) -> Option<R> {
        let range = self.ranges.iter().find(|range| {
            port.checked_sub(range.first)
                .is_some_and(|o| o < range.count)
        })?;
        // A panic elsewhere leaves registers that are still good to read and write.
        let mut device = range.device.lock().unwrap_or_else(PoisonError::into_inner);
        Some(access(&mut *device, port - range.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Register(u8);

    impl PortDevice for Register {
        fn read(&mut self, offset: u16) -> u8 {
            self.0 + offset as u8
        }

        fn write(&mut self, offset: u16, value: u8) -> Option<MachineEvent> {
            self.0 = value;
            (offset == 1).then_some(MachineEvent::Reset)
        }
    }

    #[test]
    fn accesses_reach_their_ports_and_others_float() {
        let mut bus = PortBus::new();
        bus.add(0x70, 2, Arc::new(Mutex::new(Register(5))));
        let mut data = [0; 4];
        bus.read(0x6f, &mut data);
        assert_eq!(data, [0xff, 5, 6, 0xff]);
        assert_eq!(bus.write(0x70, &[9]), None);
        assert_eq!(bus.write(0x71, &[8]), Some(MachineEvent::Reset));
        assert_eq!(bus.write(0x80, &[1, 2, 3, 4]), None);
        bus.read(0x70, &mut data[..1]);
        assert_eq!(data[0], 8);
        bus.read(0xffff, &mut data);
        assert_eq!(data[0], 0xff);
        assert_eq!(bus.write(0xffff, &[0; 4]), None);
    }
}
