//! The header of a packet (virtio 1.3, section 5.10.6).
//!
//! It is decoded here and not by a library: those that are published take a chain to be a header and
//! at most one buffer, but Linux sends what it need not copy in as many as there are pages.

use std::io::Write;

use crate::Memory;
use crate::device::DeviceError;
use crate::queue::buffers::Buffers;

/// The length of `struct virtio_vsock_hdr`.
pub(super) const HEADER: usize = 44;
/// Section 5.10.4: the host's address.
pub(super) const HOST: u64 = 2;
/// The type of stream sockets' packets.
pub(super) const STREAM: u16 = 1;

/// What a packet is for: `VIRTIO_VSOCK_OP_...`.
pub(super) mod operation {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// Section 5.10.6.5: flags of `SHUTDOWN`. The sender will receive, or send, no more.
pub(super) const NO_RECEIVE: u32 = 1;
pub(super) const NO_SEND: u32 = 2;

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) cid: u64,
    pub(super) port: u32,
}

/// A packet's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source: Address,
    pub(super) destination: Address,
    /// Bytes that follow.
    pub(super) length: u32,
    /// The type.
    pub(super) kind: u16,
    pub(super) operation: u16,
    pub(super) flags: u32,
    /// What the sender has room for, and how much of what it received has left that room.
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

/// What is left of a header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}

impl Packet {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let mut fields = Fields(bytes);
        let cids = [(); 2].map(|()| u64::from_le_bytes(fields.next()));
        let ports = [(); 2].map(|()| u32::from_le_bytes(fields.next()));
        let [source, destination] = [0, 1].map(|end: usize| Address {
            cid: cids[end],
            port: ports[end],
        });
        Self {
            source,
            destination,
            length: u32::from_le_bytes(fields.next()),
            kind: u16::from_le_bytes(fields.next()),
            operation: u16::from_le_bytes(fields.next()),
            flags: u32::from_le_bytes(fields.next()),
            buf_alloc: u32::from_le_bytes(fields.next()),
            fwd_cnt: u32::from_le_bytes(fields.next()),
        }
    }

    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut rest = &mut bytes[..];
        let fields: [&[u8]; 10] = [
            &self.source.cid.to_le_bytes(),
            &self.destination.cid.to_le_bytes(),
            &self.source.port.to_le_bytes(),
            &self.destination.port.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.operation.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        for field in fields {
            // They are as long as the header.
            let _ = rest.write_all(field);
        }
        bytes
    }

    /// Takes the header from the front of `buffers`, which are in `memory`. `None` if they are
    /// shorter.
    ///
    /// # Errors
    /// When the driver named memory that does not exist.
    pub(super) fn take(
        buffers: &mut Buffers,
        memory: &Memory,
    ) -> Result<Option<Self>, DeviceError> {
        let mut bytes = [0; HEADER];
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let slices = buffers.slices(memory, rest.len())?;
            if slices.is_empty() {
                return Ok(None);
            }
            for slice in slices {
                let copied = slice.copy_to(rest);
                buffers.advance(copied);
                rest = rest.split_at_mut(copied).1;
            }
        }
        Ok(Some(Self::parse(&bytes)))
    }

    /// The answer to this packet that says that there is no such connection.
    pub(super) fn refusal(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            kind: self.kind,
            operation: operation::RST,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let mut bytes = [0; HEADER];
        for (at, value) in [
            (0, 1_u8),
            (8, 2),
            (16, 3),
            (20, 4),
            (24, 5),
            (28, 6),
            (30, 7),
            (32, 8),
            (36, 9),
            (40, 10),
        ] {
            bytes[at] = value;
        }
        let packet = Packet {
            source: Address { cid: 1, port: 3 },
            destination: Address { cid: 2, port: 4 },
            length: 5,
            kind: 6,
            operation: 7,
            flags: 8,
            buf_alloc: 9,
            fwd_cnt: 10,
        };
        assert_eq!(Packet::parse(&bytes), packet);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header(bytes in prop::collection::vec(any::<u8>(), HEADER)) {
            let bytes: [u8; HEADER] = bytes.try_into().unwrap();
            prop_assert_eq!(Packet::parse(&bytes).bytes(), bytes);
        }
    }
}
