//! The kernel command line.

/// Longest command line in bytes: `COMMAND_LINE_SIZE` of x86 Linux (2048) without the final zero.
pub const MAX_LENGTH: usize = 2047;

/// Why a text cannot be a kernel command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Linux would cut it off silently.
    #[error("the kernel command line has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The longest that the kernel takes.
        max: usize,
    },
    /// Only printable ASCII is safe from being misread.
    #[error(
        "the kernel command line has {character:?} at byte {position}, only printable ASCII is allowed"
    )]
    NotPrintable {
        /// The offending character.
        character: char,
        /// Its offset in bytes.
        position: usize,
    },
}

/// A checked kernel command line: printable ASCII, at most [`MAX_LENGTH`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(String);

impl CommandLine {
    /// Checks `text`; an empty one is fine.
    ///
    /// # Errors
    /// When it is too long or has a character that is not printable ASCII.
    pub fn new(text: &str) -> Result<Self, Error> {
        let _ = text;
        todo!()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
