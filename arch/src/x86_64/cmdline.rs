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

impl Console {
    /// What every kernel of ours is told, with its console.
    ///
    /// `panic=-1`: a kernel that panics resets at once, which ends the VM. `nr_uarts`: no probing of
    /// serial ports that a PC might have. `tsc=reliable`: no checks of the TSC, twice a second,
    /// against the kvm-clock, which the kernel prefers unless KVM vouches for the TSC. `reboot=a`:
    /// by ACPI's reset register; a kernel with EFI takes ACPI's reduced hardware for a sign of EFI,
    /// and without it jumps to a BIOS.
    pub fn parameters(self) -> &'static str {
        match self {
            Self::Serial => "console=ttyS0 8250.nr_uarts=1 tsc=reliable panic=-1 reboot=a",
            Self::Virtio => "console=hvc0 8250.nr_uarts=0 tsc=reliable panic=-1 reboot=a",
            Self::None => "quiet 8250.nr_uarts=0 tsc=reliable panic=-1 reboot=a",
        }
    }
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
        let line = Self(text.to_owned());
        line.fits(MAX_LENGTH)?;
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
        assert!(CommandLine::new(&"x".repeat(MAX_LENGTH)).is_ok());
        let error = CommandLine::new(&"x".repeat(MAX_LENGTH + 1)).unwrap_err();
        let message = "the kernel command line has 2048 bytes, at most 2047 are allowed";
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
