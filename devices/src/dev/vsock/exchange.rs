//! Packets between the guest and the connections: who is meant, who comes next, who is refused.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tracing::debug;
use virtio_queue::QueueT;
use vmm_sys_util::epoll::EventSet;

use super::connection::{Connection, Fate};
use super::packet::{HOST, Packet, STREAM, operation};
use super::room::Room;
use super::table::Table;
use crate::Memory;
use crate::device::DeviceError;
use crate::log_limit::LogLimit;
use crate::queue::buffers::Buffers;
use crate::queue::turn::{Served, Turn, take_turn};
use crate::queue::{Chain, VirtQueue};

/// So many refusals wait for buffers of the guest; then its packets wait, too (section 5.10.6.1).
/// One more for each connection may come of the host's side.
const MAX_REFUSALS: usize = 256;

/// The connections and what they exchange with the guest.
pub(super) struct Exchange {
    cid: u64,
    table: Table,
    /// Packets that say that there is no such connection (any more).
    refusals: VecDeque<Packet>,
    /// The connections that have packets for the guest: one of each in turn.
    row: VecDeque<u16>,
    /// The guest's packets wait until refusals are gone.
    held: bool,
    /// Those whose watch may have to change, and those that were removed and are watched still.
    touched: Vec<u16>,
    removed: Vec<Connection>,
    limit: LogLimit,
}

impl Exchange {
    pub(super) fn new(cid: u32) -> Self {
        Self {
            cid: cid.into(),
            table: Table::default(),
            refusals: VecDeque::new(),
            row: VecDeque::new(),
            held: false,
            touched: Vec::new(),
            removed: Vec::new(),
            limit: LogLimit::default(),
        }
    }

    /// Whether [`Self::admit`] has a place.
    pub(super) fn has_place(&self) -> bool {
        !self.table.is_full() || self.table.oldest_idle().is_some()
    }

    /// A program has come; the oldest silent one goes for it if all places are taken.
    pub(super) fn admit(&mut self, stream: UnixStream) {
        if self.table.is_full()
            && let Some(place) = self.table.oldest_idle()
        {
            self.settle(place, Fate::Resets);
        }
        if let Some(place) = self.table.insert(stream) {
            self.touched.push(place);
        }
    }

    /// Something happened to the socket of a connection.
    pub(super) fn ready(&mut self, place: u16, events: EventSet) {
        if let Some(connection) = self.table.get_mut(place) {
            let fate = connection.ready(events);
            self.settle(place, fate);
        }
    }

    /// Takes the guest's packets, as many as are one turn's. Those that make no sense are dropped.
    pub(super) fn take_packets(&mut self, queue: &mut VirtQueue) -> Result<Turn, DeviceError> {
        let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
        take_turn(queue, |chain| {
            self.held = self.refusals.len() >= MAX_REFUSALS;
            if self.held {
                return Ok(Served::Refused);
            }
            let mut buffers = Buffers::readable(chain, size)?;
            if let Some(packet) = Packet::take(&mut buffers, &memory)? {
                self.take_packet(&packet, buffers, &memory)?;
            }
            Ok(Served::Used(0))
        })
    }

    fn take_packet(
        &mut self,
        packet: &Packet,
        data: Buffers,
        memory: &Memory,
    ) -> Result<(), DeviceError> {
        if packet.source.cid != self.cid || packet.destination.cid != HOST {
            // Section 5.10.6.4.1: from nobody else, to nobody else.
            if self.limit.allows() {
                debug!("virtio vsock: dropped {packet:?}");
            }
            return Ok(());
        }
        let found = self.table.find(packet).filter(|_| packet.kind == STREAM);
        let place = found.and_then(|place| Some((place, self.table.get_mut(place)?)));
        match place {
            Some((place, connection)) => {
                let fate = connection.receive(packet, data, memory)?;
                self.settle(place, fate);
            }
            // A connection that the guest wants; one that is gone; another type of socket.
            None if packet.operation != operation::RST => {
                self.refusals.push_back(packet.refusal());
            }
            None => {}
        }
        Ok(())
    }

    /// Puts packets into the guest's buffers, as many as are one turn's.
    pub(super) fn give_packets(&mut self, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        if self.refusals.is_empty() && self.row.is_empty() {
            return Ok(());
        }
        let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
        take_turn(queue, |chain| self.give_packet(chain, size, &memory))?;
        Ok(())
    }

    fn give_packet(
        &mut self,
        chain: Chain,
        size: u16,
        memory: &Memory,
    ) -> Result<Served, DeviceError> {
        let buffers = Buffers::writable(chain, size)?;
        let Some(mut room) = Room::new(buffers, memory)? else {
            return Ok(Served::Used(0));
        };
        let Some(mut packet) = self.next_packet(&mut room) else {
            return Ok(Served::Refused);
        };
        packet.source.cid = HOST;
        packet.destination.cid = self.cid;
        Ok(Served::Used(room.finish(&packet)))
    }

    /// The packet that comes next, with its data in `room`.
    fn next_packet(&mut self, room: &mut Room<'_>) -> Option<Packet> {
        loop {
            if let Some(refusal) = self.refusals.pop_front() {
                return Some(refusal);
            }
            let place = self.row.pop_front()?;
            let Some(connection) = self.table.get_mut(place) else {
                continue;
            };
            connection.queued = false;
            match connection.send(room) {
                Ok(packet) => {
                    self.settle(place, Fate::Stays);
                    if packet.is_some() {
                        return packet;
                    }
                }
                Err(error) => {
                    debug!("virtio vsock: a program's socket: {error}");
                    self.settle(place, Fate::Resets);
                }
            }
        }
    }

    /// Does what has become of a connection.
    fn settle(&mut self, place: u16, fate: Fate) {
        let Some(connection) = self.table.get_mut(place) else {
            return;
        };
        if fate == Fate::Stays {
            self.touched.push(place);
            if connection.has_packets() && !connection.queued {
                connection.queued = true;
                self.row.push_back(place);
            }
            return;
        }
        if fate != Fate::Ends {
            self.refusals.extend(connection.reset());
        }
        self.row.retain(|&queued| queued != place);
        connection.queued = false;
        if fate == Fate::Leaves {
            connection.linger();
            self.touched.push(place);
        } else {
            self.removed.extend(self.table.remove(place));
        }
    }

    /// Whether the guest's packets, which were held, can be taken again.
    pub(super) fn resumes(&mut self) -> bool {
        let resumes = self.held && self.refusals.len() < MAX_REFUSALS;
        self.held &= !resumes;
        resumes
    }

    /// Who is to be watched otherwise than before: a connection that changed, and its place.
    pub(super) fn next_touched(&mut self) -> Option<(u16, &mut Connection)> {
        loop {
            let place = self.touched.pop()?;
            if self
                .table
                .get_mut(place)
                .is_some_and(|connection| connection.wanted() != connection.watched)
            {
                return Some((place, self.table.get_mut(place)?));
            }
        }
    }

    /// A connection that is to be watched no more, before it is closed.
    pub(super) fn next_removed(&mut self) -> Option<Connection> {
        self.removed.pop()
    }

    /// The guest's driver is gone, and all connections with it.
    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.refusals.clear();
        self.row.clear();
        self.touched.clear();
        self.removed.clear();
        self.held = false;
    }
}
