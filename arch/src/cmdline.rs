//! The kernel command line.

use crate::layout::COMMAND_LINE_MAX;

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
    /// Anything else would be read differently by different readers.
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

/// Where the kernel's messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// The machine's simple console, from early on.
    Serial,
    /// The virtio console, once the kernel has found it.
    Virtio,
    /// Nowhere.
    None,
}

/// A checked kernel command line: printable ASCII, at most [`COMMAND_LINE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(String);

impl CommandLine {
    /// Checks `text`; an empty one is fine.
    ///
    /// # Errors
    /// When it is too long or has a character that is not printable ASCII.
    pub fn new(text: &str) -> Result<Self, Error> {
        let line = Self(text.to_owned());
        line.fits(COMMAND_LINE_MAX)?;
        let printable = |c: char| c == ' ' || c.is_ascii_graphic();
        match text.char_indices().find(|(_, c)| !printable(*c)) {
            Some((position, character)) => Err(Error::NotPrintable {
                character,
                position,
            }),
            None => Ok(line),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a kernel takes it that allows `max` bytes.
    pub(crate) fn fits(&self, max: usize) -> Result<(), Error> {
        let length = self.0.len();
        if length > max {
            return Err(Error::TooLong { length, max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn longest_line() {
        assert!(CommandLine::new(&"x".repeat(COMMAND_LINE_MAX)).is_ok());
        let error = CommandLine::new(&"x".repeat(COMMAND_LINE_MAX + 1)).unwrap_err();
        let message = format!(
            "the kernel command line has {} bytes, at most {COMMAND_LINE_MAX} are allowed",
            COMMAND_LINE_MAX + 1
        );
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn only_printable_ascii() {
        let error = CommandLine::new("quiet\npanic=-1").unwrap_err();
        let expected = Error::NotPrintable {
            character: '\n',
            position: 5,
        };
        assert_eq!(error, expected);
        assert!(CommandLine::new("a=\0").is_err());
        assert!(CommandLine::new("a=é").is_err());
        assert_eq!(CommandLine::new("").unwrap().as_str(), "");
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_kept(text in "\\PC{0,100}") {
            match CommandLine::new(&text) {
                Ok(line) => prop_assert_eq!(line.as_str(), &text),
                Err(_) => prop_assert!(text.bytes().any(|b| !(0x20..0x7f).contains(&b))),
            }
        }
    }
}
