//! Console device with multiple ports (virtio 1.3, section 5.3).
//!
//! Port 0 is the guest's console (Linux: hvc0). The others are named streams, in Linux
//! /dev/vportNpM with the name in sysfs. A port's two directions are two virtqueues; a pair of
//! queues for all of them carries control messages.
//!
//! Data is never buffered here, but for the console's output (see [`crate::stream::Spool`]): input
//! is read when the guest has room for it, output that its reader does not take stays in the guest.

#[cfg(test)]
mod console_test;
mod control;
#[cfg(test)]
mod flow_test;
mod port;
mod queues;
mod readiness;
mod sink;
mod size;
mod source;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use tracing::{debug, warn};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::QueueT;
use vmm_sys_util::epoll::EventSet;

use crate::config_space::ConfigSpace;
use crate::device::{Activation, DeviceError, DeviceKind, Token, Traits, VirtioDevice, Watch};
use crate::queue::VirtQueue;
use crate::queue::buffers::Buffers;
use crate::queue::turn::{Served, take_turn};
use crate::stream::{self, Input, Output};
use control::{FromDriver, HEADER};
use port::{Kind, Port};
use queues::{CONTROL_RECEIVE, CONTROL_TRANSMIT, Direction, port_queue, queue_port};
use size::{config_bytes, size_bytes};

pub use size::ConsoleHandle;

/// The device's kind.
pub const KIND: DeviceKind = DeviceKind {
    name: "console",
    id: VIRTIO_ID_CONSOLE as u16,
    system_calls: &stream::SYSTEM_CALLS,
    requests: &[],
};

/// The configuration has the console's size.
const VIRTIO_CONSOLE_F_SIZE: u64 = 0;
/// There are ports, and the control queues.
const VIRTIO_CONSOLE_F_MULTIPORT: u64 = 1;

/// More than anybody needs; each port costs the guest two queues.
const MAX_PORTS: u32 = 64;
/// A file name in the guest.
const MAX_NAME: usize = 255;

/// What the console is connected to.
#[derive(Debug)]
pub struct Config {
    /// Port 0, the guest's console. What its output's reader does not take in time is dropped.
    pub console: Streams,
    /// Ports 1 and up, in this order.
    pub ports: Vec<NamedPort>,
    /// The console's size; keep a clone of it to change it.
    pub size: ConsoleHandle,
}

/// The host's side of a port.
#[derive(Debug, Default)]
pub struct Streams {
    /// What the guest reads. Without one nothing ever comes, not even an end. At its end the port
    /// is closed from the host's side: the guest reads the end, and cannot write any more.
    pub input: Option<Input>,
    /// Where what the guest writes goes; without one it is discarded. When its reader has left, the
    /// port is closed from the host's side, too.
    pub output: Option<Output>,
}

/// A port with a name. It is not fed before the guest has opened it; once the guest has closed it,
/// and what it wrote is out, the output is closed.
#[derive(Debug)]
pub struct NamedPort {
    /// By which the guest finds it; 1 to 255 bytes.
    pub name: String,
    /// The host's side.
    pub streams: Streams,
}

/// The device.
#[derive(Debug)]
pub struct Console {
    config: Arc<ConfigSpace>,
    size: ConsoleHandle,
    ports: Vec<Port>,
    /// The driver knows of the ports.
    announced: bool,
}

/// The console's size changed; the tokens below are those of the ports.
const SIZE_TOKEN: Token = Token(u16::MAX);

impl Console {
    /// A console that is connected as `config` says.
    ///
    /// # Errors
    /// When a port's name does not fit, there are too many ports, or no eventfd can be made.
    pub fn new(config: Config) -> io::Result<Self> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidInput, message);
        let mut ports = vec![Port::new(Kind::Console, config.console)];
        for NamedPort { name, streams } in config.ports {
            if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
                return Err(invalid(format!(
                    "console port name {name:?} has to have 1 to {MAX_NAME} bytes without NUL"
                )));
            }
            ports.push(Port::new(Kind::Named(name), streams));
        }
        let count = u32::try_from(ports.len()).unwrap_or(u32::MAX);
        if count > MAX_PORTS {
            return Err(invalid(format!(
                "a console has at most {MAX_PORTS} ports, not {count}"
            )));
        }
        Ok(Self {
            config: Arc::new(ConfigSpace::new(config_bytes(config.size.get(), count))?),
            size: config.size,
            ports,
            announced: false,
        })
    }
}

impl VirtioDevice for Console {
    fn traits(&self) -> Traits {
        Traits {
            kind: &KIND,
            features: 1 << VIRTIO_CONSOLE_F_SIZE | 1 << VIRTIO_CONSOLE_F_MULTIPORT,
            queue_sizes: queues::queue_sizes(self.ports.len()),
            config: Arc::clone(&self.config),
            own_loop: false,
        }
    }

    fn start(
        &mut self,
        activation: &mut Activation,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let multiport = activation.features & 1 << VIRTIO_CONSOLE_F_MULTIPORT != 0;
        if !multiport && let Some(console) = self.ports.first_mut() {
            // There is no message that would say it.
            console.open();
        }
        let changed = self.size.changed().as_raw_fd();
        watch
            .watch(changed, SIZE_TOKEN, EventSet::IN)
            .map_err(|source| host("watch the console's size", source))
    }

    fn kicked(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        match index {
            CONTROL_RECEIVE => {}
            CONTROL_TRANSMIT => self.take_messages(queues, watch)?,
            _ => _ = self.serve(index, queues, watch)?,
        }
        self.send_notices(queues)
    }

    fn ready(
        &mut self,
        token: Token,
        _events: EventSet,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        if token == SIZE_TOKEN {
            self.resize()?;
        } else {
            self.serve(usize::from(token.0), queues, watch)?;
        }
        self.send_notices(queues)
    }

    fn drained(&mut self, queues: &mut [VirtQueue], watch: &mut dyn Watch) -> bool {
        let mut drained = true;
        for port in 0..self.ports.len() {
            let index = port_queue(port, Direction::Transmit);
            drained &= self.serve(index, queues, watch).unwrap_or_else(|error| {
                warn!("the end of a console port's output is lost: {error}");
                true
            });
        }
        drained
    }

    fn stop(&mut self) {
        self.announced = false;
        for port in &mut self.ports {
            port.reset();
        }
    }
}

impl Console {
    /// Moves what there is between queue `index` and the stream of its port, whose token is that
    /// index. Returns whether all that the guest wrote is out.
    fn serve(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<bool, DeviceError> {
        let (port, direction) = queue_port(index);
        let (Some(port), Some(queue)) = (self.ports.get_mut(port), queues.get_mut(index)) else {
            return Ok(true);
        };
        let token = Token(index as u16);
        match direction {
            Direction::Receive => port.receive(queue, token, watch).map(|()| true),
            Direction::Transmit => port.transmit(queue, token, watch),
        }
    }

    /// Takes the driver's control messages.
    fn take_messages(
        &mut self,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let Some(queue) = queues.get_mut(CONTROL_TRANSMIT) else {
            return Ok(());
        };
        let (memory, queue_size) = (Arc::clone(queue.memory()), queue.ring().size());
        let mut messages = Vec::new();
        take_turn(queue, |chain| {
            let mut message = Vec::with_capacity(HEADER);
            for slice in Buffers::readable(chain, queue_size)?.slices(&memory, HEADER)? {
                let start = message.len();
                message.resize(start + slice.len(), 0);
                slice.copy_to(message.get_mut(start..).unwrap_or_default());
            }
            // Bounded, as one turn takes a bounded number of chains.
            messages.extend(FromDriver::parse(&message));
            Ok(Served::Used(0))
        })?;
        for message in messages {
            self.follow(message, queues, watch)?;
        }
        Ok(())
    }

    /// Does what a control message asks for.
    fn follow(
        &mut self,
        message: FromDriver,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        match message {
            FromDriver::DeviceReady(true) => {
                if !std::mem::replace(&mut self.announced, true) {
                    self.ports
                        .iter_mut()
                        .for_each(|port| port.notices.add = true);
                }
            }
            FromDriver::DeviceReady(false) => debug!("the driver could not set up the console"),
            FromDriver::PortReady(id, true) => {
                if let Some(port) = self.ports.get_mut(id as usize) {
                    port.announce();
                }
            }
            FromDriver::PortReady(id, false) => debug!("the driver could not set up port {id}"),
            FromDriver::PortOpen(id, open) => {
                let index = id as usize;
                let Some(port) = self.ports.get_mut(index) else {
                    return Ok(());
                };
                let direction = if open {
                    port.open();
                    Direction::Receive
                } else {
                    port.close(watch);
                    Direction::Transmit
                };
                self.serve(port_queue(index, direction), queues, watch)?;
            }
        }
        Ok(())
    }

    fn resize(&mut self) -> Result<(), DeviceError> {
        // Read before the size is looked at; it fails only if it was read already.
        let _ = self.size.changed().read();
        self.config
            .update(0, &size_bytes(self.size.get()))
            .map_err(|source| host("tell the driver of the console's size", source))?;
        // With ports the driver looks at messages only.
        if let Some(console) = self.ports.first_mut()
            && self.announced
        {
            console.notices.resize = true;
        }
        Ok(())
    }

    /// Sends the driver what it does not know yet, as far as it has room for it.
    fn send_notices(&mut self, queues: &mut [VirtQueue]) -> Result<(), DeviceError> {
        let Some(queue) = queues.get_mut(CONTROL_RECEIVE) else {
            return Ok(());
        };
        if self.ports.iter().all(|port| port.notices.is_empty()) {
            return Ok(());
        }
        let (memory, queue_size) = (Arc::clone(queue.memory()), queue.ring().size());
        let size = self.size.get();
        take_turn(queue, |chain| {
            let Some(message) = self.next_message(size) else {
                return Ok(Served::Refused);
            };
            let mut rest = message.as_slice();
            for slice in Buffers::writable(chain, queue_size)?.slices(&memory, message.len())? {
                slice.copy_from(rest);
                rest = rest.get(slice.len()..).unwrap_or_default();
            }
            if !rest.is_empty() {
                let error = "buffer is too small for a control message";
                return Err(DeviceError::Driver(error.to_owned()));
            }
            // A name has at most 255 bytes.
            Ok(Served::Used(message.len() as u32))
        })?;
        Ok(())
    }

    fn next_message(&mut self, size: (u16, u16)) -> Option<Vec<u8>> {
        (0..).zip(&mut self.ports).find_map(|(id, port)| {
            let mut notices = port.notices;
            let message = notices.take(port.identity(), size)?.encode(id);
            port.notices = notices;
            Some(message)
        })
    }
}

fn host(what: &str, source: io::Error) -> DeviceError {
    DeviceError::Host {
        what: what.to_owned(),
        source,
    }
}
