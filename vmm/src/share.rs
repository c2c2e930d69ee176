//! Directories of the host that the guest mounts: the device, and what init is told of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use devices::dev::{DeviceSpec, p9, share};
use proto::FileSystem;
use serde::{Deserialize, Serialize};

pub use devices::dev::share::CAPABILITIES;

/// How many files a guest with so many bytes of memory may know, or have open, at once in each of its shares. It cannot
/// know many more: its own kernel needs a kilobyte and more for each.
pub fn most_files(memory: u64) -> u64 {
    LEAST_FILES + (memory >> 20) * FILES_PER_MIB
}

/// What a small guest may know, too.
const LEAST_FILES: u64 = 16 << 10;
const FILES_PER_MIB: u64 = 32;

/// Bytes of the host's memory that a file takes that a guest knows: of the kernel for its names and inodes (overlayfs
/// has its own beside those of the file system below) and its descriptor, and the library's.
pub const FILE: u64 = 3 << 10;

/// What Linux' 9P client keeps of the files that it has seen (its documentation: filesystems/9p).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum P9Cache {
    /// Nothing: each look at a file is a request. Files cannot be mapped into memory to be written.
    None,
    /// All, and it never looks whether the host has changed it.
    Loose,
    /// The same, on a disk as well if the guest has FS-Cache's daemon.
    Fscache,
    /// Only what is mapped into memory.
    Mmap,
}

impl P9Cache {
    /// All modes, in the order in which they are listed to users.
    pub const ALL: [Self; 4] = [Self::None, Self::Loose, Self::Fscache, Self::Mmap];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Loose => "loose",
            Self::Fscache => "fscache",
            Self::Mmap => "mmap",
        }
    }
}

impl fmt::Display for P9Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for P9Cache {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{names} are allowed")
        })
    }
}

/// A shared directory.
#[derive(Clone, Debug)]
pub struct Share {
    /// By which the guest mounts it.
    pub tag: String,
    /// The directory. Mounts below it are visible too.
    pub directory: PathBuf,
    /// Whether the guest can change nothing.
    pub read_only: bool,
    /// Which of [`CAPABILITIES`] nobody in the guest has, of those that only what needs them is done with.
    pub without: Vec<&'static str>,
    /// By 9P with this cache; unset: by virtio-fs.
    pub p9: Option<P9Cache>,
}

impl Share {
    /// The device.
    pub fn device(self) -> DeviceSpec {
        let share = share::Config {
            without: self.without,
            ..share::Config::new(self.tag, self.directory, self.read_only)
        };
        match self.p9 {
            None => DeviceSpec::Fs(share),
            Some(cache) => DeviceSpec::P9(p9::Config {
                share,
                append_at_end: cache == P9Cache::None,
            }),
        }
    }
}

/// How init mounts the share with this tag, so that it can be written to.
pub fn file_system(tag: &str, p9: Option<P9Cache>) -> FileSystem {
    match p9 {
        None => FileSystem::virtiofs(tag, false),
        Some(cache) => FileSystem::p9(tag, cache.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_read_by_its_name() {
        for cache in P9Cache::ALL {
            assert_eq!(cache.to_string().parse(), Ok(cache));
        }
        let error = "Loose".parse::<P9Cache>().unwrap_err();
        assert_eq!(error, "none, loose, fscache, mmap are allowed");
    }

    #[test]
    fn appends_go_to_the_end_where_no_page_is_written_back() {
        let appends = |cache| {
            let share = Share {
                tag: "t".to_owned(),
                directory: "/d".into(),
                read_only: false,
                without: Vec::new(),
                p9: Some(cache),
            };
            match share.device() {
                DeviceSpec::P9(config) => config.append_at_end,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(P9Cache::ALL.map(appends), [true, false, false, false]);
    }

    #[test]
    fn the_guest_checks_who_may_do_what() {
        let mounted = file_system("runq", Some(P9Cache::Mmap));
        assert_eq!(
            (mounted.fstype.as_str(), mounted.source.as_str()),
            ("9p", "runq")
        );
        for option in ["access=client", "posixacl", "cache=mmap"] {
            assert!(
                mounted.data.split(',').any(|found| found == option),
                "{option}"
            );
        }
        assert_eq!(file_system("runq", None).fstype, "virtiofs");
    }
}
