//! Who has started the guest and waits until the command is started, or hears why it is not.
//!
//! One message in a FIFO: a byte that is the exit code of what failed, 0 if the command is started, and then one line that
//! says why. It fits into what a pipe takes at once (PIPE_BUF, pipe(7)), so that no part of it is ever seen alone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest message in bytes.
const MAX_MESSAGE: usize = libc::PIPE_BUF;

/// The one who waits, who is told once. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Starter(Arc<Mutex<Option<File>>>);

impl Starter {
    /// The reader of this FIFO.
    pub fn new(fifo: File) -> Self {
        Self(Arc::new(Mutex::new(Some(fifo))))
    }

    /// The reader of the FIFO with this path, if it has one.
    pub fn open(path: &Path) -> Self {
        // Without a reader it cannot be opened so (fifo(7)).
        let fifo = File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        fifo.map(Self::new).unwrap_or_default()
    }

    /// Tells that the command is started.
    pub fn started(&self) {
        self.tell(0, "");
    }

    /// Tells why the command is not started; whether there was anybody who has been told nothing else.
    #[must_use = "else somebody else has to be told"]
    pub fn failed(&self, code: u8, message: &str) -> bool {
        self.tell(code.max(1), message)
    }

    fn tell(&self, code: u8, message: &str) -> bool {
        let fifo = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut bytes = vec![code];
        bytes.extend_from_slice(message.as_bytes());
        bytes.truncate(MAX_MESSAGE);
        // It fails if the reader is gone.
        fifo.is_some_and(|mut fifo| fifo.write_all(&bytes).is_ok())
    }
}

/// What the one who waits is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// The command is started.
    Started,
    /// It is not.
    Failed {
        /// The exit code.
        code: u8,
        /// One line that says why.
        message: String,
    },
}

impl Word {
    /// Takes it from a FIFO that is ready; unset if all who could tell are gone.
    ///
    /// # Errors
    /// When the FIFO cannot be read.
    pub fn read(mut fifo: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; MAX_MESSAGE];
        let count = fifo.read(&mut bytes)?;
        let told = bytes.get(..count).unwrap_or_default();
        Ok(told.split_first().map(|(&code, message)| match code {
            0 => Self::Started,
            code => Self::Failed {
                code,
                message: String::from_utf8_lossy(message).into_owned(),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, Starter) {
        let (reader, writer) = io::pipe().unwrap();
        let [reader, writer] = [OwnedFd::from(reader), writer.into()].map(File::from);
        (reader, Starter::new(writer))
    }

    #[test]
    fn one_word_is_told() {
        let (fifo, starter) = pipe();
        starter.clone().started();
        assert!(!starter.failed(125, "late"), "it is told to somebody else");
        assert_eq!(Word::read(&fifo).unwrap(), Some(Word::Started));
        assert_eq!(Word::read(&fifo).unwrap(), None, "nobody can tell more");
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let (fifo, starter) = pipe();
        assert!(starter.failed(127, "not found"));
        let (code, message) = (127, "not found".to_owned());
        let expected = Word::Failed { code, message };
        assert_eq!(Word::read(&fifo).unwrap(), Some(expected));
        let (fifo, starter) = pipe();
        assert!(starter.failed(0, &"x".repeat(2 * MAX_MESSAGE)), "it is cut");
        let (code, message) = (1, "x".repeat(MAX_MESSAGE - 1));
        let expected = Word::Failed { code, message };
        assert_eq!(Word::read(&fifo).unwrap(), Some(expected));
    }

    #[test]
    fn where_nobody_waits_nobody_is_told() {
        assert!(!Starter::default().failed(1, "x"));
        let (fifo, starter) = pipe();
        drop(fifo);
        assert!(!starter.failed(1, "x"));
    }
}
