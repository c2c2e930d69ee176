//! The option `--disk`: a disk of the guest's.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use serde::Deserialize;
use vmm::DeviceSpec;
use vmm::disk::{Cache, Disk, Format, MAX_SERIAL};

/// A disk, written `PATH`, then perhaps `,cache=MODE`, `,ro`, `,id=NAME`, `,format=FORMAT`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct DiskOption {
    path: PathBuf,
    cache: Cache,
    read_only: bool,
    /// The serial number in the guest; unset, there is none.
    id: String,
    format: Option<Format>,
}

impl DiskOption {
    /// The device, for a guest that has `cpus` vCPUs; opens the image.
    ///
    /// # Errors
    /// Names the path and what is wrong with it.
    pub(super) fn device(&self, cpus: u32) -> Result<DeviceSpec> {
        let disk = Disk {
            name: self.path.display().to_string(),
            path: self.path.clone(),
            serial: self.id.clone(),
            cache: self.cache,
            read_only: self.read_only,
            format: self.format,
        };
        disk.open(cpus)
    }
}

impl FromStr for DiskOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "{text:?} is not of the form PATH, with ,cache=MODE, ,ro, ,id=NAME and ,format=FORMAT"
            )
        };
        let mut parts = text.split(',');
        let path = parts.next().filter(|path| !path.is_empty());
        let mut disk = Self {
            path: path.ok_or_else(form)?.into(),
            cache: Cache::default(),
            read_only: false,
            id: String::new(),
            format: None,
        };
        for part in parts {
            match part.split_once('=') {
                None if part == "ro" => disk.read_only = true,
                Some(("cache", mode)) => disk.cache = mode.parse()?,
                Some(("id", id)) if (1..=MAX_SERIAL).contains(&id.len()) => disk.id = id.to_owned(),
                Some(("id", _)) => return Err(format!("id: 1 to {MAX_SERIAL} bytes are allowed")),
                Some(("format", "raw")) => disk.format = Some(Format::Raw),
                Some(("format", "qcow2")) => disk.format = Some(Format::Qcow2),
                Some(("format", _)) => return Err("format: raw, qcow2 are allowed".to_owned()),
                _ => return Err(form()),
            }
        }
        Ok(disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_a_path_and_perhaps_more() {
        let disk: DiskOption = "/srv/a.img".parse().unwrap();
        assert_eq!(disk.path, PathBuf::from("/srv/a.img"));
        assert_eq!((disk.cache, disk.read_only), (Cache::Writeback, false));
        let disk: DiskOption = "a,ro,id=data,cache=none,format=raw".parse().unwrap();
        assert_eq!((disk.cache, disk.read_only), (Cache::None, true));
        assert_eq!(disk.id, "data");
        assert_eq!(disk.format, Some(Format::Raw));
    }

    #[test]
    fn what_is_no_disk_is_told() {
        for (wrong, expected) in [
            ("", "of the form PATH"),
            (",ro", "of the form PATH"),
            ("a,rw", "of the form PATH"),
            ("a,size=5", "of the form PATH"),
            (
                "a,cache=directsync",
                "writeback, writethrough, none, unsafe are allowed",
            ),
            ("a,format=vmdk", "raw, qcow2 are allowed"),
            ("a,id=", "1 to 20 bytes"),
            ("a,id=123456789012345678901", "1 to 20 bytes"),
        ] {
            let error = wrong.parse::<DiskOption>().unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }
}
