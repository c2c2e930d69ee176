//! One message a frame: its length as u32, little-endian, then so many bytes of postcard.

use std::io::{self, ErrorKind, Read, Write};
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ToGuest, ToHost, VERSION};

/// Most bytes of a message. Room for the largest environment and argument list worth sending, and
/// the bound of what a peer can make the other side hold in memory.
pub const MAX_FRAME: usize = 1 << 20;

/// Bytes of the length before each message.
const HEADER: usize = 4;

/// Why no message could be sent or received. Only after [`Error::Malformed`] can the connection
/// still be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer closed the connection between two messages.
    #[error("the connection is closed")]
    Closed,
    /// The peer announced a message beyond [`MAX_FRAME`], or the message to send is.
    #[error("a message of {0} bytes is longer than the {MAX_FRAME} that are allowed")]
    TooLong(usize),
    /// The bytes of a frame are no message.
    #[error("a message cannot be decoded")]
    Malformed,
    /// The peer's opening message has another version.
    #[error(
        "host and guest speak different versions: {VERSION} here, {0} there; \
         use the initrd that was built together with the monitor"
    )]
    Version(u32),
    /// Reading or writing failed; `UnexpectedEof`: the connection ended within a message.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What may be sent: [`ToGuest`] and [`ToHost`], and the messages of others who talk in such frames.
pub trait Message: Serialize + DeserializeOwned {
    /// The version that the first variant begins with, a u32; unset if it begins with none.
    const VERSION: Option<u32>;
}

impl Message for ToGuest {
    const VERSION: Option<u32> = Some(VERSION);
}

impl Message for ToHost {
    const VERSION: Option<u32> = Some(VERSION);
}

/// Sends one message, in a single `write_all`.
///
/// # Errors
/// [`Error::TooLong`] (nothing was written), [`Error::Io`].
pub fn send<M: Message>(to: &mut impl Write, message: &M) -> Result<(), Error> {
    Ok(to.write_all(&encode(message)?)?)
}

/// The frame of one message, for a sender that must not block.
///
/// # Errors
/// [`Error::TooLong`].
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Error> {
    // Serializing derived types into a growing vector cannot fail.
    let mut frame = postcard::to_extend(message, vec![0; HEADER]).map_err(|_| Error::Malformed)?;
    let length = frame.len() - HEADER;
    match u32::try_from(length) {
        Ok(header) if length <= MAX_FRAME => {
            frame[..HEADER].copy_from_slice(&header.to_le_bytes());
            Ok(frame)
        }
        _ => Err(Error::TooLong(length)),
    }
}

/// Receives one message; blocks until it is complete.
///
/// # Errors
/// All of [`Error`]'s.
pub fn recv<M: Message>(from: &mut impl Read) -> Result<M, Error> {
    let mut header = [0; HEADER];
    if !read_or_end(from, &mut header)? {
        return Err(Error::Closed);
    }
    let mut body = vec![0; length(header)?];
    from.read_exact(&mut body)?;
    decode(&body)
}

/// Fills `buffer`; false if there is not even a first byte.
fn read_or_end(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The checked length of a frame's body.
fn length(header: [u8; HEADER]) -> Result<usize, Error> {
    // A usize has at least 32 bits on every target that runs Linux guests.
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME {
        return Err(Error::TooLong(length));
    }
    Ok(length)
}

/// Decodes a frame's body. The version of an opening message is looked at first: what follows it
/// may have another layout there.
fn decode<M: Message>(body: &[u8]) -> Result<M, Error> {
    if let Some(ours) = M::VERSION
        && let Ok(((0u32, version), _)) = postcard::take_from_bytes::<(u32, u32)>(body)
        && version != ours
    {
        return Err(Error::Version(version));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(Error::Malformed),
    }
}

/// Puts messages together from bytes as they arrive, for an event loop: never blocks.
///
/// Call [`Decoder::push`] with what was read, then [`Decoder::next`] until it gives none. Done so,
/// it holds less than one frame between two reads.
#[derive(Debug)]
pub struct Decoder<M> {
    buffer: Vec<u8>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Decoder<M> {
    /// An empty decoder.
    pub fn new() -> Self {
        Self {
            buffer: Vec::new(),
            message: PhantomData,
        }
    }

    /// Adds bytes, any number of them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, if there is one.
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::Version`]: this frame is skipped, the next one follows.
    /// [`Error::TooLong`]: for ever, as the end of that frame cannot be known.
    #[expect(clippy::should_implement_trait, reason = "more may come after None")]
    pub fn next(&mut self) -> Result<Option<M>, Error> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = length(*header)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = decode(body);
        self.buffer.drain(..HEADER + length);
        message.map(Some)
    }

    /// Whether the bytes so far end between two messages: then an end of the connection is clean.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

impl<M: Message> Default for Decoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;

#[cfg(test)]
#[path = "frame_fuzz.rs"]
mod fuzz;
