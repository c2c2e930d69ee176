//! What the user says about the CPU.

/// Switches for CPU features: on s390x there are none, a guest has what its host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures(());

/// Why a list of CPU features cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Anything but `host`.
    #[error("CPU feature '{0}': s390x has no switches, only host")]
    Unknown(String),
}

impl CpuFeatures {
    /// Parses a list; an empty one means `host`: all that KVM supports.
    ///
    /// # Errors
    /// Names the first item that is not `host`.
    pub fn parse(list: &str) -> Result<Self, ParseError> {
        let mut items = list.split(',').map(str::trim);
        match items.find(|item| !matches!(*item, "" | "host")) {
            Some(item) => Err(ParseError::Unknown(item.to_owned())),
            None => Ok(Self(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_own() {
        assert!(CpuFeatures::parse("").is_ok() && CpuFeatures::parse("host, ").is_ok());
        let error = CpuFeatures::parse("host,-vx").unwrap_err().to_string();
        assert_eq!(error, "CPU feature '-vx': s390x has no switches, only host");
    }
}
