//! What a disk does with writes before they are on stable storage: QEMU's modes, by QEMU's names.

use std::fmt;
use std::str::FromStr;

/// How writes are cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Past the host's page cache (O_DIRECT); flushes are honoured.
    None,
    /// Through the host's page cache; flushes are honoured.
    #[default]
    Writeback,
    /// Through the page cache, each write on stable storage before it is answered.
    Writethrough,
    /// Through the page cache; flushes are ignored: what the host has not written when it fails is lost.
    Unsafe,
}

impl Cache {
    /// All modes, in the order in which they are listed to users.
    pub const ALL: [Self; 4] = [
        Self::Writeback,
        Self::Writethrough,
        Self::None,
        Self::Unsafe,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Writeback => "writeback",
            Self::Writethrough => "writethrough",
            Self::Unsafe => "unsafe",
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cache {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("cache mode {text:?}: {names} are allowed")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_by_its_name() {
        for mode in Cache::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let error = "directsync".parse::<Cache>().unwrap_err();
        assert_eq!(
            error,
            "cache mode \"directsync\": writeback, writethrough, none, unsafe are allowed"
        );
    }
}
