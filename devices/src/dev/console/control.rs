//! Control messages (virtio 1.3, section 5.3.6.2).

use super::size::size_bytes;

const VIRTIO_CONSOLE_DEVICE_READY: u16 = 0;
const VIRTIO_CONSOLE_PORT_ADD: u16 = 1;
const VIRTIO_CONSOLE_PORT_READY: u16 = 3;
const VIRTIO_CONSOLE_CONSOLE_PORT: u16 = 4;
const VIRTIO_CONSOLE_RESIZE: u16 = 5;
const VIRTIO_CONSOLE_PORT_OPEN: u16 = 6;
const VIRTIO_CONSOLE_PORT_NAME: u16 = 7;

/// `struct virtio_console_control`: id (32 bits), event, value (16 bits each).
pub(super) const HEADER: usize = 8;

/// What a driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromDriver {
    /// It wants to hear of the ports, or could not set itself up.
    DeviceReady(bool),
    /// It has set up the port, or could not.
    PortReady(u32, bool),
    /// A process opened or closed the port.
    PortOpen(u32, bool),
}

impl FromDriver {
    /// `None` for what a device does not have to know.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = *message.first_chunk()?;
        let port = u32::from_le_bytes([i0, i1, i2, i3]);
        let value = u16::from_le_bytes([v0, v1]) != 0;
        match u16::from_le_bytes([e0, e1]) {
            VIRTIO_CONSOLE_DEVICE_READY => Some(Self::DeviceReady(value)),
            VIRTIO_CONSOLE_PORT_READY => Some(Self::PortReady(port, value)),
            VIRTIO_CONSOLE_PORT_OPEN => Some(Self::PortOpen(port, value)),
            _ => None,
        }
    }
}

/// What the device says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToDriver<'a> {
    /// There is the port.
    Add,
    /// The host's side is open, or closed.
    Open(bool),
    /// It is a console.
    Console,
    /// It has a name.
    Name(&'a str),
    /// The console has so many columns and rows.
    Resize((u16, u16)),
}

impl ToDriver<'_> {
    pub(super) fn encode(self, port: u32) -> Vec<u8> {
        let (event, value, tail): (u16, u16, &[u8]) = match self {
            Self::Add => (VIRTIO_CONSOLE_PORT_ADD, 1, &[]),
            Self::Open(open) => (VIRTIO_CONSOLE_PORT_OPEN, u16::from(open), &[]),
            Self::Console => (VIRTIO_CONSOLE_CONSOLE_PORT, 1, &[]),
            Self::Name(name) => (VIRTIO_CONSOLE_PORT_NAME, 1, name.as_bytes()),
            Self::Resize(size) => (VIRTIO_CONSOLE_RESIZE, 0, &size_bytes(size)),
        };
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(tail);
        message
    }
}

/// What the driver still has to be told of a port. Not a list of messages: so it stays small
/// however slow the driver is, and it hears the last state of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notices {
    pub(super) add: bool,
    pub(super) open: Option<bool>,
    pub(super) identity: bool,
    pub(super) resize: bool,
}

impl Notices {
    /// Takes the first notice. That the port is open comes before its name: who waits for the name
    /// and then reads would otherwise find the port closed, which Linux reads as an end.
    pub(super) fn take<'a>(
        &mut self,
        identity: ToDriver<'a>,
        size: (u16, u16),
    ) -> Option<ToDriver<'a>> {
        if std::mem::take(&mut self.add) {
            Some(ToDriver::Add)
        } else if let Some(open) = self.open.take() {
            Some(ToDriver::Open(open))
        } else if std::mem::take(&mut self.identity) {
            Some(identity)
        } else if std::mem::take(&mut self.resize) {
            Some(ToDriver::Resize(size))
        } else {
            None
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}
