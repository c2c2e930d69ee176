//! Messages over TLS, between the agent in the guest and its clients on the host.
//!
//! Both ends show a certificate of one authority ([`identity`]). A [`Channel`] never waits: who uses
//! it does, in poll(2) or epoll(7): always until the socket can be read, and until it can be written
//! unless it [`Channel::is_idle`].
#![forbid(unsafe_code)]

mod identity;

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::sync::Arc;

use proto::{Decoder, Message};
pub use rustls::{ClientConfig, ServerConfig};
use rustls::{ClientConnection, Connection, ServerConnection};

pub use identity::{Identity, IdentityError};

/// What a read from the socket should ask for: a message that is full, with what TLS adds.
pub const READ_SIZE: usize = 64 << 10;

/// Why a connection does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other end has ended it.
    #[error("the connection is closed")]
    Closed,
    /// The other end does not speak TLS as we do, or its certificate is not right.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// It sends messages that are none.
    #[error(transparent)]
    Message(#[from] proto::Error),
    /// The socket fails.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One end of a connection over `S`, a socket that does not block, and which messages `M` come in by.
pub struct Channel<S, M> {
    tls: Connection,
    socket: S,
    decoder: Decoder<M>,
}

impl<S: Read + Write, M: Message> Channel<S, M> {
    /// The agent's end.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn accept(socket: S, config: &Arc<ServerConfig>) -> Result<Self, Error> {
        let tls = ServerConnection::new(Arc::clone(config))?;
        Ok(Self::new(socket, tls.into()))
    }

    /// A client's end.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn connect(socket: S, config: &Arc<ClientConfig>) -> Result<Self, Error> {
        let name = identity::agent_name();
        let tls = ClientConnection::new(Arc::clone(config), name)?;
        Ok(Self::new(socket, tls.into()))
    }

    fn new(socket: S, mut tls: Connection) -> Self {
        // Who sends looks at `is_idle`.
        tls.set_buffer_limit(None);
        Self {
            tls,
            socket,
            decoder: Decoder::new(),
        }
    }

    /// The socket, to wait for it.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Whether the other end has not shown its certificate yet.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether all that was sent is in the socket: time to send more. Until then the socket is to be
    /// written to, too.
    pub fn is_idle(&self) -> bool {
        !self.tls.wants_write()
    }

    /// Queues a message, and writes what the socket takes.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn send<T: Message>(&mut self, message: &T) -> Result<(), Error> {
        let frame = proto::encode(message)?;
        self.tls.writer().write_all(&frame)?;
        self.flush()
    }

    /// Says that no more is to come, and writes what the socket takes.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn close(&mut self) -> Result<(), Error> {
        self.tls.send_close_notify();
        self.flush()
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn flush(&mut self) -> Result<(), Error> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(Error::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(closed_or(error)),
            }
        }
        Ok(())
    }

    /// Reads once from the socket, into `buffer`, and what comes of it by [`Self::next`]; answers as TLS has it.
    /// To be called when the socket can be read, and messages to be taken before it is called again.
    /// The buffer is the caller's: a connection that is idle holds no more than it has to.
    ///
    /// # Errors
    /// When the connection cannot go on; [`Error::Closed`] also when the other end has ended it, with
    /// all its messages taken by then. The other end is told why.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        match self.socket.read(buffer) {
            Ok(0) => Err(Error::Closed),
            Ok(count) => self.take(buffer.get(..count).unwrap_or_default()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(closed_or(error)),
        }
    }

    /// Decrypts `bytes` into the decoder.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            // There is always room, because what comes of it is taken out at once. Nothing is taken only
            // behind the other end's last word: that is ignored (RFC 8446, section 6.1).
            if self.tls.read_tls(&mut bytes)? == 0 {
                break;
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert that says why.
                    let _ = self.flush();
                    return Err(error.into());
                }
            };
            self.decode(state.plaintext_bytes_to_read())?;
        }
        match self.flush() {
            // Who has left may have left more to read: its end is the end.
            Err(Error::Closed) => Ok(()),
            result => result,
        }
    }

    /// Gives the decoder so many bytes that TLS holds.
    fn decode(&mut self, mut count: usize) -> Result<(), Error> {
        let mut reader = self.tls.reader();
        while count > 0 {
            let record = reader.fill_buf()?;
            let length = record.len();
            self.decoder.push(record);
            reader.consume(length);
            count = count.saturating_sub(length.max(1));
        }
        Ok(())
    }

    /// The next message that has come.
    ///
    /// # Errors
    /// When it is none, or was made by another version.
    #[expect(clippy::should_implement_trait, reason = "more may come after None")]
    pub fn next(&mut self) -> Result<Option<M>, Error> {
        Ok(self.decoder.next()?)
    }
}

/// A peer that is gone has ended the connection.
fn closed_or(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Error::Closed,
        _ => Error::Io(error),
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod tests;

#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile;
