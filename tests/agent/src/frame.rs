//! The frames between the agent and its client: one connection is one command.
//!
//! The agent says [`Reply::Hello`]. The client may send [`Request::SetClock`], then sends [`Request::Exec`],
//! input and sizes; the agent answers with output and, as its last frame, [`Reply::Exit`] or
//! [`Reply::Failed`]. A client that hangs up before that has its command killed.
//!
//! A frame is a kind (1 byte), the length of its body (4 bytes, little endian), and the body.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::winsize::Size;

/// Both sides refuse another version; counted up with each change of this module.
pub const VERSION: u8 = 1;

/// The longest body, in bytes. Streams are cut into frames of at most [`CHUNK`].
pub const MAX_BODY: usize = 1 << 20;

/// How many bytes of a stream go into one frame.
pub const CHUNK: usize = 64 << 10;

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program, looked up in the agent's PATH, and its arguments.
    pub argv: Vec<String>,
    /// Set in its environment, besides what the agent has.
    pub env: Vec<(String, String)>,
    /// Run it on a terminal of this size; its standard error is then part of its standard output.
    pub terminal: Option<Size>,
}

/// From the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Set the wall clock: nanoseconds since 1970. A restored host still has the time of its saving.
    SetClock(u64),
    /// Run this command.
    Exec(Exec),
    /// Bytes for its standard input.
    Stdin(Vec<u8>),
    /// The end of its standard input.
    StdinEnd,
    /// Its terminal has another size now.
    Resize(Size),
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The first frame: the agent's [`VERSION`].
    Hello(u8),
    /// Bytes of the command's standard output.
    Stdout(Vec<u8>),
    /// Bytes of the command's standard error.
    Stderr(Vec<u8>),
    /// Its exit code, or 128 + the signal that ended it.
    Exit(u8),
    /// It could not be started, and why.
    Failed(String),
}

/// A kind of frame: how it is written as a kind byte and a body.
pub trait Frame: Sized {
    /// The kind byte, and the body.
    fn encode(&self) -> (u8, Vec<u8>);

    /// The reverse of [`Frame::encode`]; `None` for a body that no `encode` makes.
    fn decode(kind: u8, body: Vec<u8>) -> Option<Self>;
}

impl Frame for Request {
    fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::SetClock(nanos) => (0, nanos.to_le_bytes().to_vec()),
            // To a Vec it cannot fail: every type in Exec has a postcard form.
            Self::Exec(exec) => (1, postcard::to_stdvec(exec).unwrap_or_default()),
            Self::Stdin(bytes) => (2, bytes.clone()),
            Self::StdinEnd => (3, Vec::new()),
            Self::Resize(size) => (4, postcard::to_stdvec(size).unwrap_or_default()),
        }
    }

    fn decode(kind: u8, body: Vec<u8>) -> Option<Self> {
        Some(match kind {
            0 => Self::SetClock(u64::from_le_bytes(body.try_into().ok()?)),
            1 => Self::Exec(postcard::from_bytes(&body).ok()?),
            2 => Self::Stdin(body),
            3 if body.is_empty() => Self::StdinEnd,
            4 => Self::Resize(postcard::from_bytes(&body).ok()?),
            _ => return None,
        })
    }
}

impl Frame for Reply {
    fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Hello(version) => (0, vec![*version]),
            Self::Stdout(bytes) => (1, bytes.clone()),
            Self::Stderr(bytes) => (2, bytes.clone()),
            Self::Exit(code) => (3, vec![*code]),
            Self::Failed(reason) => (4, reason.clone().into_bytes()),
        }
    }

    fn decode(kind: u8, body: Vec<u8>) -> Option<Self> {
        Some(match (kind, body.as_slice()) {
            (0, [version]) => Self::Hello(*version),
            (1, _) => Self::Stdout(body),
            (2, _) => Self::Stderr(body),
            (3, [code]) => Self::Exit(*code),
            (4, _) => Self::Failed(String::from_utf8(body).ok()?),
            _ => return None,
        })
    }
}

/// Writes one frame in one go.
///
/// # Errors
/// The stream's, or a body above [`MAX_BODY`].
pub fn write(stream: &mut impl Write, frame: &impl Frame) -> io::Result<()> {
    let (kind, body) = frame.encode();
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame too long"))?;
    let mut bytes = Vec::with_capacity(5 + body.len());
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes)
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// The stream's, its end inside a frame, or bytes that are no frame.
pub fn read<F: Frame>(stream: &mut impl Read) -> io::Result<Option<F>> {
    let mut kind = [0];
    if stream.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if length > MAX_BODY {
        return Err(invalid("frame too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let [kind] = kind;
    F::decode(kind, body)
        .map(Some)
        .ok_or_else(|| invalid("not a frame of this protocol"))
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;
