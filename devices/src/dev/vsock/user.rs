//! The socket device served in user space: programs of the host come by a Unix socket.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tracing::warn;
use vmm_sys_util::epoll::EventSet;

use super::exchange::Exchange;
use super::listener::{Accepted, Listener};
use super::table::PLACES;
use super::{EVENT, RX, TX};
use crate::config_space::ConfigSpace;
use crate::device::{Activation, DeviceError, Token, Traits, VirtioDevice, Watch};
use crate::log_limit::LogLimit;
use crate::queue::VirtQueue;
use crate::queue::turn::Turn;

/// Connections have their places for tokens.
const LISTENER: Token = Token(PLACES);
/// How many programs are let in before it is others' turn.
const ACCEPTS: usize = 16;

/// The device.
pub(super) struct UserVsock {
    config: Arc<ConfigSpace>,
    listener: Listener,
    /// It is watched.
    listening: bool,
    exchange: Exchange,
    limit: LogLimit,
}

impl UserVsock {
    pub(super) fn new(cid: u32, socket: UnixListener) -> io::Result<Self> {
        Ok(Self {
            config: super::config_space(cid)?,
            listener: Listener::new(socket)?,
            listening: false,
            exchange: Exchange::new(cid),
            limit: LogLimit::default(),
        })
    }

    /// Lets programs in. When that fails, they wait until something else happens.
    fn accept(&mut self, watch: &mut dyn Watch) {
        for _ in 0..ACCEPTS {
            let accepted = if self.exchange.has_place() {
                self.listener.accept()
            } else {
                Err(io::Error::other("there are too many connections"))
            };
            match accepted {
                Ok(Accepted::Program(stream)) => self.exchange.admit(stream),
                Ok(Accepted::Stranger) => {}
                Ok(Accepted::Nobody) => return,
                Err(error) => {
                    if self.limit.allows() {
                        warn!("vsock: a connection to the guest has to wait: {error}");
                    }
                    watch.unwatch(self.listener.as_raw_fd());
                    self.listening = false;
                    return;
                }
            }
        }
    }

    fn listen(&mut self, watch: &mut dyn Watch) -> Result<(), DeviceError> {
        if self.listening || !self.exchange.has_place() {
            return Ok(());
        }
        self.listening = true;
        watch
            .watch(self.listener.as_raw_fd(), LISTENER, EventSet::IN)
            .map_err(host)
    }

    /// Gives the guest what there is for it, and has the event loop tell of what is waited for.
    fn serve(
        &mut self,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        if let Some(rx) = queues.get_mut(RX) {
            self.exchange.give_packets(rx)?;
        }
        if self.exchange.resumes()
            && let Some(tx) = queues.get_mut(TX)
        {
            tx.reschedule();
        }
        while let Some(connection) = self.exchange.next_removed() {
            watch.unwatch(connection.as_raw_fd());
        }
        while let Some((place, connection)) = self.exchange.next_touched() {
            let (fd, wanted) = (connection.as_raw_fd(), connection.wanted());
            connection.watched = wanted;
            match wanted {
                Some(events) => watch.watch(fd, Token(place), events).map_err(host)?,
                None => watch.unwatch(fd),
            }
        }
        Ok(())
    }
}

impl VirtioDevice for UserVsock {
    fn traits(&self) -> Traits {
        super::traits(&self.config, true)
    }

    fn start(
        &mut self,
        _activation: &mut Activation,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        self.listen(watch)
    }

    fn kicked(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        match index {
            // Buffers for events, of which there are none (section 5.10.6.7).
            EVENT => return Ok(()),
            TX => {
                if let Some(tx) = queues.get_mut(TX) {
                    self.exchange.take_packets(tx)?;
                }
            }
            _ => {}
        }
        self.serve(queues, watch)?;
        self.listen(watch)
    }

    fn ready(
        &mut self,
        token: Token,
        events: EventSet,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        if token == LISTENER {
            self.accept(watch);
            return self.serve(queues, watch);
        }
        self.exchange.ready(token.0, events);
        self.serve(queues, watch)?;
        self.listen(watch)
    }

    /// What a program does not take at once is lost with the guest: it may never read.
    fn drained(&mut self, queues: &mut [VirtQueue], _watch: &mut dyn Watch) -> bool {
        let Some(tx) = queues.get_mut(TX) else {
            return true;
        };
        // A broken queue holds nothing.
        let turn = self.exchange.take_packets(tx);
        turn.map_or(true, |turn| turn != Turn::Yielded)
    }

    fn stop(&mut self) {
        self.exchange.clear();
        self.listening = false;
    }
}

fn host(source: io::Error) -> DeviceError {
    DeviceError::Host {
        what: "watch a socket of vsock".to_owned(),
        source,
    }
}
