//! What the guest's packets do to a connection.

use super::{Connection, Fate, State};
use crate::Memory;
use crate::dev::vsock::packet::{NO_RECEIVE, NO_SEND, Packet, operation};
use crate::device::DeviceError;
use crate::queue::buffers::Buffers;

impl Connection {
    /// A packet of the guest, whose data are in `data`.
    ///
    /// # Errors
    /// When the driver named memory that does not exist.
    pub(in crate::dev::vsock) fn receive(
        &mut self,
        packet: &Packet,
        data: Buffers,
        memory: &Memory,
    ) -> Result<Fate, DeviceError> {
        self.credit.hear((packet.buf_alloc, packet.fwd_cnt));
        let is_open = matches!(self.state, State::Open);
        self.ask_for_credit &= self.credit.guest_room() == 0;
        self.notice_shortage();
        match packet.operation {
            operation::RST => return Ok(Fate::Ends),
            operation::CREDIT_UPDATE => {}
            operation::CREDIT_REQUEST => self.asked_for_credit = true,
            operation::RESPONSE if !is_open => return Ok(self.open()),
            operation::RW if is_open => return self.take(packet.length, data, memory),
            operation::SHUTDOWN if is_open => return Ok(self.close(packet.flags)),
            _ => return Ok(Fate::Resets),
        }
        Ok(Fate::Stays)
    }

    /// The guest has accepted. Nothing was written before, so that the line is taken at once.
    fn open(&mut self) -> Fate {
        self.state = State::Open;
        let line = format!("OK {}\n", self.host_port);
        if self.program.greet(&line) {
            Fate::Stays
        } else {
            Fate::Resets
        }
    }

    /// Takes `length` bytes, which are in `data`, for the program. A guest that sends more than it
    /// may, or than there are, loses the connection.
    fn take(
        &mut self,
        length: u32,
        mut data: Buffers,
        memory: &Memory,
    ) -> Result<Fate, DeviceError> {
        if length > self.credit.room() || self.guest_shutdown & NO_SEND != 0 {
            return Ok(Fate::Resets);
        }
        self.credit.receive(length);
        let mut left = length as usize;
        while left > 0 {
            let slices = data.slices(memory, left)?;
            if slices.is_empty() {
                return Ok(Fate::Resets);
            }
            for slice in slices {
                let gone = self.program.put(&slice);
                self.forward(gone);
                data.advance(slice.len());
                left -= slice.len();
            }
        }
        Ok(Fate::Stays)
    }

    /// The guest closes one direction, or both (section 5.10.6.5).
    fn close(&mut self, flags: u32) -> Fate {
        self.guest_shutdown |= flags & (NO_RECEIVE | NO_SEND);
        if self.guest_shutdown & NO_RECEIVE != 0 && !self.ended {
            self.ended = true;
            self.readable = false;
            self.program.ignore();
        }
        if self.guest_shutdown & NO_SEND != 0 {
            self.program.close();
        }
        self.flush();
        if self.guest_shutdown != NO_RECEIVE | NO_SEND {
            return Fate::Stays;
        }
        if self.program.has_all() {
            return Fate::Resets;
        }
        Fate::Leaves
    }
}
