//! What the agent in the host and its client outside say to each other: one connection is one command.
//!
//! The agent says [`Reply::Hello`]. The client may send [`Request::SetClock`], then sends [`Request::Exec`],
//! input and sizes; the agent answers with output and, as its last message, [`Reply::Exit`] or
//! [`Reply::Failed`]. A client that hangs up before that has its command killed.
//!
//! The frames are those of [`proto`].

use proto::Message;
use serde::{Deserialize, Serialize};

use crate::winsize::Size;

/// Both sides refuse another version; counted up with each change of the messages.
pub const VERSION: u32 = 2;

/// How many bytes of a stream go into one message.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The first message.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
    },
    /// Bytes of the command's standard output.
    Stdout(Vec<u8>),
    /// Bytes of the command's standard error.
    Stderr(Vec<u8>),
    /// Its exit code, or 128 + the signal that ended it.
    Exit(u8),
    /// It could not be started, and why.
    Failed(String),
}

/// The agent speaks first: the client hangs up if it is another version's.
impl Message for Request {
    const VERSION: Option<u32> = None;
}

impl Message for Reply {
    const VERSION: Option<u32> = Some(VERSION);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the time is, it is not taken for another version.
        #[test]
        fn the_clock_has_no_version(nanos: u64) {
            let frame = proto::encode(&Request::SetClock(nanos)).unwrap();
            let back: Request = proto::recv(&mut frame.as_slice()).unwrap();
            prop_assert_eq!(back, Request::SetClock(nanos));
        }
    }

    #[test]
    fn a_chunk_of_any_bytes_fits_into_a_frame() {
        let reply = Reply::Stdout(vec![0xff; CHUNK]);
        let frame = proto::encode(&reply).unwrap();
        assert_eq!(proto::recv::<Reply>(&mut frame.as_slice()).unwrap(), reply);
    }

    #[test]
    fn an_agent_of_another_version_is_refused() {
        let version = VERSION + 1;
        let frame = proto::encode(&Reply::Hello { version }).unwrap();
        let refused = proto::recv::<Reply>(&mut frame.as_slice());
        assert!(matches!(refused, Err(proto::Error::Version(theirs)) if theirs == version));
    }
}
