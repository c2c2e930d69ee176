//! All connections of a device. Their number is bounded, and so is all that they hold.

use super::connection::Connection;
use super::packet::Packet;
use std::os::unix::net::UnixStream;

/// How many there may be. A connection's place is the lower part of its port on the host, and its
/// token: so that no port is in use twice.
pub(super) const PLACES: u16 = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 10;
/// The upper part of a port counts all connections. It begins with 1: ports below 1024 are
/// privileged, and it ends before the last, which means any port.
const LAST_NUMBER: u32 = (u32::MAX >> PLACE_BITS) - 1;

/// The connections by their places.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<Option<Connection>>,
    /// The number of the connection that came last.
    last: u32,
    count: u16,
}

impl Table {
    /// Adds a connection for a program that has just come. Returns its place; `None` if there is none.
    pub(super) fn insert(&mut self, stream: UnixStream) -> Option<u16> {
        if self.is_full() {
            return None;
        }
        let free = self.places.iter().position(Option::is_none);
        let place = free.unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.last = if self.last < LAST_NUMBER {
            self.last + 1
        } else {
            1
        };
        // Places are less than PLACES.
        let port = self.last << PLACE_BITS | place as u32;
        *self.places.get_mut(place)? = Some(Connection::new(stream, port));
        self.count += 1;
        Some(place as u16)
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == PLACES
    }

    pub(super) fn get_mut(&mut self, place: u16) -> Option<&mut Connection> {
        self.places.get_mut(usize::from(place))?.as_mut()
    }

    /// The place of the connection that the guest means by a packet, if it may know of it.
    pub(super) fn find(&self, packet: &Packet) -> Option<u16> {
        let port = packet.destination.port;
        let place = port & (u32::from(PLACES) - 1);
        let connection = self.places.get(place as usize)?.as_ref()?;
        let known = connection.known_ports() == Some((port, packet.source.port));
        known.then_some(place as u16)
    }

    pub(super) fn remove(&mut self, place: u16) -> Option<Connection> {
        let connection = self.places.get_mut(usize::from(place))?.take()?;
        self.count -= 1;
        Some(connection)
    }

    /// The place of the oldest connection that may go for a new one.
    pub(super) fn oldest_idle(&self) -> Option<u16> {
        let connections = (0..).zip(&self.places);
        let idle = connections.filter_map(|(place, connection)| {
            let connection = connection.as_ref().filter(|c| c.is_idle())?;
            let number = connection.host_port() >> PLACE_BITS;
            // Those with higher numbers than the last one are from before the count went around.
            Some((number.wrapping_sub(self.last + 1), place))
        });
        idle.min().map(|(_, place)| place)
    }

    /// Ends all connections. Their ports are not the next ones'.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use vmm_sys_util::epoll::EventSet;

    use super::*;

    fn stream() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn ports_are_unique_and_none_that_means_something_else() {
        let mut table = Table::default();
        let mut ports = BTreeSet::new();
        for last in [0, LAST_NUMBER - 5] {
            table.last = last;
            for round in 0..10 {
                let place = table.insert(stream().0).unwrap();
                let port = table.get_mut(place).unwrap().host_port();
                assert!((1024..u32::MAX).contains(&port));
                // The second count goes around, and meets ports of the first.
                assert!(ports.insert(port) || last > 0);
                if round % 3 == 0 {
                    table.remove(place);
                }
            }
        }
    }

    #[test]
    fn places_are_bounded_and_the_oldest_silent_one_goes_first() {
        let mut table = Table::default();
        let (_, mut speaker) = {
            let (ours, theirs) = stream();
            (table.insert(ours).unwrap(), theirs)
        };
        table.last = LAST_NUMBER - 100;
        let mut kept = Vec::new();
        while let Some(place) = table.insert(stream().0) {
            kept.push(place);
        }
        assert_eq!(kept.len(), usize::from(PLACES) - 1);
        assert!(table.is_full());
        speaker.write_all(b"CONNECT 5\n").unwrap();
        table.get_mut(0).unwrap().ready(EventSet::IN);
        for place in &kept[..200] {
            assert_eq!(table.oldest_idle(), Some(*place));
            table.remove(*place).unwrap();
        }
        assert!(!table.is_full());
        assert!(table.remove(kept[0]).is_none());
        table.clear();
        assert_eq!(table.oldest_idle(), None);
    }
}
