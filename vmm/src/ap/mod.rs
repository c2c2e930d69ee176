//! Crypto adapters of a mainframe for a guest: adjunct processors (AP), of which the host's driver vfio_ap makes mediated
//! devices (Linux' Documentation/arch/s390/vfio-ap.rst). A device has a matrix: all queues of these adapters and these
//! domains. The processor executes the guest's AP instructions on them, so that none of it is ours to emulate.
//!
//! [`Matrix::find`] looks for a device in sysfs, [`attach`] gives it to a VM.

mod attach;
mod kernel;

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::board::kvm::CRYPTO_ADAPTERS;
pub use attach::{Attached, attach};

/// What has its device nodes.
const FOLDER: &str = "/dev/vfio";
/// Where vfio_ap has its mediated devices made.
const MAKE: &str = "/sys/devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create";

/// A mediated device of vfio_ap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its name.
    uuid: String,
    /// The number of its IOMMU group, in which it is alone.
    group: u32,
}

/// Reads the UUID that a user gives, as sysfs has it.
///
/// # Errors
/// When it is none, or this machine cannot have such a device.
pub fn uuid(text: &str) -> Result<String> {
    ensure!(
        CRYPTO_ADAPTERS,
        "crypto adapters are of s390x: leave them out on this machine"
    );
    parse(text)
}

/// A UUID as Linux' uuid_is_valid() has it, in lower case as in sysfs.
fn parse(text: &str) -> Result<String> {
    let is_valid = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    ensure!(
        text.len() == 36 && text.bytes().enumerate().all(is_valid),
        "this is no UUID: name a mediated device, as /sys/bus/mdev/devices has them"
    );
    Ok(text.to_ascii_lowercase())
}

impl Matrix {
    /// Looks for the mediated device with this UUID where sysfs is mounted.
    ///
    /// # Errors
    /// One line about what it lacks.
    pub fn find(sysfs: &Path, uuid: &str) -> Result<Self> {
        let uuid = parse(uuid)?;
        let device = sysfs.join("bus/mdev/devices").join(&uuid);
        ensure!(
            device.try_exists()?,
            "there is no such mediated device: load the module vfio_ap, and write the UUID to {MAKE}"
        );
        let kind = read(&device, "mdev_type/device_api")?.unwrap_or_default();
        ensure!(
            kind.trim_end() == "vfio-ap",
            "the mediated device is of the type {kind:?}, not vfio-ap: name one that was made by {MAKE}"
        );
        let queues = read(&device, "matrix")?.unwrap_or_default();
        ensure!(
            has_queue(&queues),
            "the matrix of the mediated device is empty: write numbers to assign_adapter and assign_domain beside it"
        );
        // What the guest gets of it; older kernels do not tell.
        if let Some(queues) = read(&device, "guest_matrix")? {
            ensure!(
                has_queue(&queues),
                "no queue of the mediated device is the driver vfio_ap's: take them from other drivers \
                 (/sys/bus/ap/apmask and aqmask), and see whether the adapters are online"
            );
        }
        let group = fs::read_link(device.join("iommu_group")).ok();
        let group = group.as_deref().and_then(Path::file_name);
        let Some(group) = group.and_then(|name| name.to_str()?.parse().ok()) else {
            bail!("the mediated device has no group: the host's kernel needs CONFIG_VFIO_GROUP");
        };
        Ok(Self { uuid, group })
    }

    /// The device nodes that [`attach`] opens: VFIO's own, and that of the device's group.
    pub fn nodes(&self) -> [String; 2] {
        [format!("{FOLDER}/vfio"), format!("{FOLDER}/{}", self.group)]
    }
}

/// An attribute of a device, if it has that.
fn read(device: &Path, name: &str) -> Result<Option<String>> {
    let path = device.join(name);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(read.with_context(|| path.display().to_string())?)),
    }
}

/// Whether a matrix has any: "ADAPTER.DOMAIN" a line. One with adapters alone, or domains, has "ADAPTER." and ".DOMAIN".
fn has_queue(matrix: &str) -> bool {
    let mut lines = matrix.lines().map(|line| line.trim().split_once('.'));
    lines.any(|parts| parts.is_some_and(|(card, domain)| !card.is_empty() && !domain.is_empty()))
}

#[cfg(test)]
#[path = "matrix_test.rs"]
mod tests;
