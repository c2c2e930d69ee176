//! Answers to requests that the library does not know.

use std::io::Write;

use nix::errno::Errno;
use virtiofsd::descriptor_utils::Writer;
use virtiofsd::fuse::OutHeader;
use vm_memory::ByteValued;

use crate::device::DeviceError;
use crate::queue::Chain;

/// How long what follows the header can be in the answer to `chain`.
///
/// # Errors
/// When there is no room for the header.
pub(super) fn room(chain: &Chain) -> Result<usize, DeviceError> {
    let writer = Writer::new(chain.memory(), chain.clone());
    let available = writer.map_err(|e| driver(&e))?.available_bytes();
    let room = available.checked_sub(size_of::<OutHeader>());
    room.ok_or_else(|| driver(&"a request has no room for its answer"))
}

/// Answers the request in `chain`, and returns the length of the answer.
///
/// # Errors
/// When there is no room for it.
pub(super) fn answer(
    chain: Chain,
    unique: u64,
    result: Result<&[u8], Errno>,
) -> Result<u32, DeviceError> {
    let (error, body) = match result {
        Ok(body) => (0, body),
        Err(errno) => (-(errno as i32), &[][..]),
    };
    if room(&chain)? < body.len() {
        return Err(driver(&"a request has no room for its answer"));
    }
    let length = size_of::<OutHeader>() + body.len();
    let header = OutHeader {
        len: u32::try_from(length).map_err(|e| driver(&e))?,
        error,
        unique,
    };
    let memory = chain.clone();
    let mut writer = Writer::new(memory.memory(), chain).map_err(|e| driver(&e))?;
    let written = writer.write_all(header.as_slice());
    written
        .and_then(|()| writer.write_all(body))
        .map_err(|e| driver(&e))?;
    Ok(header.len)
}

pub(super) fn driver(error: &dyn std::fmt::Display) -> DeviceError {
    DeviceError::Driver(error.to_string())
}
