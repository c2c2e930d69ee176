//! Virtio over channel I/O (virtio 1.3, section 4.3): revisions 1 and 2, which are those of virtio 1.
//!
//! A queue's kick is bound to the hypercall that notifies it. Its call is bound to an adapter interrupt; for a driver that
//! wants an interruption of the subchannel (classic indicators), and for configuration changes, the monitor sets the
//! indicator itself (see [`crate::css::SignalSubscriber`]).

mod commands;
mod indicators;

use std::io;
use std::sync::Arc;

use tracing::warn;
use vmm_sys_util::eventfd::EventFd;

use super::kick::Kick;
use super::{QueueEvents, QueueSizeError, StatusChange, Transport};
use crate::Memory;
use crate::css::{ChannelDevice, Data, Place, Progress, Reaction, Refusal, SenseId};
use crate::event_loop::DeviceHandle;
use crate::fabric::{Doorbell, Fabric, Gsi, Interrupt};
use crate::log_limit::LogLimit;
use indicators::{Indicators, set_classic};

/// Names of signals beside those of queues, which are their indexes.
const CONFIG: u32 = 1 << 16;
const STOPPED: u32 = CONFIG + 1;

/// A virtio device on a subchannel.
pub struct VirtioCcw {
    core: Transport,
    /// As the driver has set it since it enabled the subchannel.
    revision: Option<u16>,
    indicators: Indicators,
    /// Guest address of the indicators of configuration changes, of which there is one.
    config_indicators: Option<u64>,
    /// Queues in use, from DRIVER_OK to reset.
    connected: Vec<Connected>,
    /// Interrupt routes, one for each queue, from the first use of adapter interrupts on.
    routes: Vec<Gsi>,
    place: Place,
    memory: Arc<Memory>,
    fabric: Arc<dyn Fabric>,
    config_call: EventFd,
    /// Signalled when a reset is complete.
    stopped: EventFd,
    limit: LogLimit,
}

struct Connected {
    index: u16,
    kick: Kick,
    call: EventFd,
    wired: Wired,
}

/// What a queue's call is bound to.
enum Wired {
    Nowhere,
    Route(Gsi),
    Signal,
}

/// Why a device cannot be on a subchannel.
#[derive(Debug, thiserror::Error)]
pub enum VirtioCcwError {
    /// Its queues are impossible.
    #[error(transparent)]
    QueueSize(#[from] QueueSizeError),
    /// Its ID is none that SENSE ID could tell.
    #[error("virtio device {0} has an ID of more than a byte")]
    Id(u16),
    /// A descriptor could not be made, or watched.
    #[error("eventfds of a virtio device on a subchannel: {0}")]
    EventFd(#[from] io::Error),
}

impl VirtioCcw {
    /// `device` in a place that is free. To be added to the channel subsystem next.
    ///
    /// # Errors
    /// When the device does not fit, or out of file descriptors.
    pub fn new(
        device: DeviceHandle,
        memory: Arc<Memory>,
        fabric: Arc<dyn Fabric>,
        place: Place,
    ) -> Result<Self, VirtioCcwError> {
        let stopped = device.stopped()?;
        let core = Transport::new(device, Arc::clone(&memory))?;
        let id = core.kind().id;
        if id > 0xff {
            return Err(VirtioCcwError::Id(id));
        }
        let config_call = core.config().call().try_clone()?;
        place.listen(&config_call, CONFIG)?;
        place.listen(&stopped, STOPPED)?;
        Ok(Self {
            core,
            revision: None,
            indicators: Indicators::None,
            config_indicators: None,
            connected: Vec::new(),
            routes: Vec::new(),
            place,
            memory,
            fabric,
            config_call,
            stopped,
            limit: LogLimit::default(),
        })
    }

    fn status_changed(&mut self, change: StatusChange) {
        match change {
            StatusChange::None => {}
            StatusChange::Ready(mut prepared) => {
                self.connect(std::mem::take(&mut prepared.events));
                self.core.start(prepared);
                self.tell_config();
            }
            StatusChange::Reset => self.disconnect(),
        }
    }

    fn connect(&mut self, queues: Vec<QueueEvents>) {
        for QueueEvents { index, kick, call } in queues {
            let doorbell = Doorbell::Subchannel {
                id: self.place.word(),
                queue: index,
            };
            let device = self.core.kind();
            self.connected.push(Connected {
                index,
                kick: Kick::bind(kick, doorbell, &*self.fabric, device, &self.limit),
                call,
                wired: Wired::Nowhere,
            });
        }
        self.wire();
    }

    fn disconnect(&mut self) {
        self.unwire();
        self.indicators = Indicators::None;
        self.config_indicators = None;
        for queue in std::mem::take(&mut self.connected) {
            queue.kick.unbind(&*self.fabric, &self.limit);
        }
    }

    /// Replaces the indicators, with all calls bound anew.
    fn set_indicators(&mut self, indicators: Indicators) {
        self.unwire();
        self.indicators = indicators;
        self.wire();
    }

    /// Binds the calls of the queues in use to what the driver wants to hear of them by.
    fn wire(&mut self) {
        for queue in &mut self.connected {
            let index = queue.index;
            let (wired, bound) = match &self.indicators {
                Indicators::None => continue,
                Indicators::Classic(_) => {
                    let listened = self.place.listen(&queue.call, index.into());
                    (Wired::Signal, listened)
                }
                Indicators::Adapter(adapter) => {
                    let Some(&route) = self.routes.get(usize::from(index)) else {
                        continue;
                    };
                    let interrupt = Interrupt::Adapter(adapter.of_queue(index));
                    let bound = self.fabric.bind_call(route, interrupt, &queue.call);
                    (Wired::Route(route), bound)
                }
            };
            match bound {
                Ok(()) => queue.wired = wired,
                Err(error) if self.limit.allows() => {
                    let device = self.core.kind();
                    warn!("virtio {device}: no interrupts of queue {index}: {error}");
                }
                Err(_) => {}
            }
        }
    }

    fn unwire(&mut self) {
        for queue in &mut self.connected {
            match std::mem::replace(&mut queue.wired, Wired::Nowhere) {
                Wired::Nowhere => {}
                Wired::Signal => self.place.ignore(&queue.call),
                Wired::Route(route) => {
                    if let Err(error) = self.fabric.unbind_call(route, &queue.call)
                        && self.limit.allows()
                    {
                        warn!("cannot unbind interrupt {}: {error}", route.0);
                    }
                }
            }
        }
    }

    /// Reserves a route for each queue; says whether there are enough of them.
    fn reserve_routes(&mut self) -> bool {
        while self.routes.len() < usize::from(self.core.queues().count()) {
            match self.fabric.allocate_route() {
                Ok(route) => self.routes.push(route),
                Err(error) => {
                    if self.limit.allows() {
                        let device = self.core.kind();
                        warn!("virtio {device}: cannot reserve an interrupt: {error}");
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Sets the indicator of a configuration change, if there was one and the driver wants to hear of it. Returns whether
    /// it is to be interrupted for that.
    fn tell_config(&self) -> bool {
        let Some(indicators) = self.config_indicators.filter(|_| self.core.is_live()) else {
            return false;
        };
        self.config_call.read().is_ok() && set_classic(&self.memory, indicators, 0)
    }

    /// The same for a queue with a classic indicator.
    fn tell_queue(&self, index: u32) -> bool {
        let Indicators::Classic(indicators) = self.indicators else {
            return false;
        };
        let mut queues = self.connected.iter();
        queues
            .find(|queue| u32::from(queue.index) == index)
            .is_some_and(|queue| queue.call.read().is_ok())
            && set_classic(&self.memory, indicators, index)
    }
}

impl ChannelDevice for VirtioCcw {
    fn sense_id(&self) -> SenseId {
        // No more than a byte.
        SenseId::virtio(self.core.kind().id as u8)
    }

    fn command(&mut self, command: u8, data: &Data<'_>) -> Result<Progress, Refusal> {
        if !self.core.is_writable() {
            return Ok(Progress::Later);
        }
        self.execute(command, data)
    }

    fn signalled(&mut self, name: u32) -> Reaction {
        let told = match name {
            STOPPED => {
                let _ = self.stopped.read();
                return if self.core.is_writable() {
                    Reaction::Ready
                } else {
                    Reaction::None
                };
            }
            CONFIG => self.tell_config(),
            queue => self.tell_queue(queue),
        };
        if told {
            Reaction::Attention
        } else {
            Reaction::None
        }
    }

    fn notified(&mut self, queue: u16) -> bool {
        if let Some(queue) = self.connected.iter().find(|known| known.index == queue) {
            queue.kick.signal();
        }
        queue < self.core.queues().count()
    }

    fn disabled(&mut self) {
        // Section 4.3.2.1: a revision is for as long as the subchannel is enabled.
        self.revision = None;
    }

    /// As if the driver had reset it, but for the routes, which the next device gets.
    fn removed(&mut self) {
        let reset = self.core.write_status(0);
        self.status_changed(reset);
        self.place.ignore(&self.config_call);
        self.place.ignore(&self.stopped);
        let routes = self.routes.drain(..);
        routes.for_each(|route| self.fabric.free_route(route));
    }
}

#[cfg(test)]
#[path = "ccw_fuzz.rs"]
mod fuzz;
#[cfg(test)]
#[path = "replay_test.rs"]
mod replay;
#[cfg(test)]
#[path = "ccw_test.rs"]
mod tests;
