//! How much each side may send (virtio 1.3, section 5.10.6.3). All counts go around at 2^32.

/// What a connection keeps for a program of the host that does not read: as much as Linux sends in
/// two packets, so that it sends one while the other is handed on.
pub(super) const BUFFER: u32 = 128 << 10;

/// The counts of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    /// From the guest, and of that what the host's program has got.
    received: u32,
    forwarded: u32,
    /// How much of the latter the guest has heard of.
    told: u32,
    /// To the guest, and what it said of its side.
    sent: u32,
    guest_room: u32,
    guest_forwarded: u32,
}

impl Credit {
    /// How many bytes the guest may still send.
    pub(super) fn room(&self) -> u32 {
        BUFFER.saturating_sub(self.received.wrapping_sub(self.forwarded))
    }

    /// The guest has sent so many, at most [`Self::room`].
    pub(super) fn receive(&mut self, count: u32) {
        self.received = self.received.wrapping_add(count);
    }

    /// So many of them have left our buffer.
    pub(super) fn forward(&mut self, count: u32) {
        self.forwarded = self.forwarded.wrapping_add(count);
    }

    /// Whether the guest should hear of what has left: it knows of half the room only.
    pub(super) fn has_news(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= BUFFER / 2
    }

    /// The fields `buf_alloc` and `fwd_cnt` of a packet that is sent now.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (BUFFER, self.forwarded)
    }

    /// The guest's packet said this of its side. It need not be true: what it says too much it has
    /// to find room for itself.
    pub(super) fn hear(&mut self, (buf_alloc, fwd_cnt): (u32, u32)) {
        self.guest_room = buf_alloc;
        self.guest_forwarded = fwd_cnt;
    }

    /// How many bytes may be sent to the guest.
    pub(super) fn guest_room(&self) -> u32 {
        let waiting = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_room.saturating_sub(waiting)
    }

    /// So many were sent.
    pub(super) fn send(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_has_not_been_forwarded_around_the_end_of_the_counts() {
        let mut credit = Credit::default();
        // 5 GiB.
        for _ in 0..5 << 14 {
            assert_eq!(credit.room(), BUFFER);
            credit.receive(BUFFER / 2);
            assert_eq!(credit.room(), BUFFER / 2);
            assert!(!credit.has_news());
            credit.forward(BUFFER / 2);
            assert!(credit.has_news());
            assert_eq!(credit.tell().0, BUFFER);
        }
        credit.receive(BUFFER);
        assert_eq!(credit.room(), 0);
    }

    #[test]
    fn a_guest_that_has_no_room_or_lies_gets_nothing() {
        let mut credit = Credit::default();
        assert_eq!(credit.guest_room(), 0);
        credit.hear((100, 0));
        credit.send(60);
        assert_eq!(credit.guest_room(), 40);
        credit.hear((100, 60));
        assert_eq!(credit.guest_room(), 100);
        // Less room than it has bytes; more forwarded than it has got.
        credit.hear((30, 20));
        assert_eq!(credit.guest_room(), 0);
        credit.hear((100, 61));
        assert_eq!(credit.guest_room(), 0);
    }
}
