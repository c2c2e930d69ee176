//! From a [`VmSpec`] to a machine.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::makedev;
use proto::Start;
use proto::dns::DNS_PORT;
use runtime::vmspec::{self, VmSpec};
use tracing::error;
use vmm::ap::Matrix;
use vmm::command::{Command, Forwarded, terminal};
use vmm::config::Config;
use vmm::disk::Disk;
use vmm::program::CONTAINER;
use vmm::share::Share;
use vmm::vsock::vsock;
use vmm::{Console, DeviceSpec, log};

use crate::network::Taken;

/// What guests boot: files of the vm volume, which is our root.
const KERNEL: &str = "/kernel";
const INITRD: &str = "/initrd";

/// Numbers of capabilities (linux/capability.h).
const CAP_MKNOD: u32 = 27;
const CAP_SETFCAP: u32 = 31;

/// The way to the agent, if there is to be one. A container whose agent nobody can reach runs without.
pub(crate) fn vsock(spec: &mut VmSpec) -> Option<vsock::Config> {
    let agent = spec.start.agent.as_ref()?;
    match vmm::vsock::container(&agent.container) {
        Ok(device) => Some(device),
        Err(error) => {
            error!("no docker exec: {error:#}");
            spec.start.agent = None;
            None
        }
    }
}

/// The machine that runs a container's process, with its network and the way to its agent, and
/// perhaps with a port for its DNS queries, and with what comes of its network while it runs.
///
/// # Errors
/// Names the disk that cannot be opened, or says what the crypto adapters lack.
pub(crate) fn config(
    mut spec: VmSpec,
    network: Taken,
    vsock: Option<vsock::Config>,
    dns: Option<UnixStream>,
    plugs: Option<OwnedFd>,
) -> Result<Config> {
    let disks = disks(&spec)?;
    let crypto = crypto(&spec)?;
    spec.start.interfaces = network.interfaces;
    spec.start.packet_rules = network.packet_rules;
    // Before the container's own.
    spec.start.sysctls.splice(0..0, network.settings);
    let files = Share {
        tag: spec.start.root.file_system.source.clone(),
        directory: PathBuf::from(vmspec::SHARE),
        read_only: false,
        without: without(&spec.start),
        p9: spec.p9_cache,
    };
    Ok(Config {
        program: &CONTAINER,
        cpus: spec.cpus,
        memory: spec.memory_mib << 20,
        cpu_features: spec.cpu_features.clone(),
        kernel: KERNEL.into(),
        initrd: Some(INITRD.into()),
        cmdline: String::new(),
        // The kernel's messages are part of the story that the log tells.
        console: if log::is_debug() {
            Console::Serial
        } else {
            Console::None
        },
        devices: std::iter::once(files.device())
            .chain(network.devices.into_iter().map(DeviceSpec::Net))
            .chain(vsock.map(DeviceSpec::Vsock))
            .chain(disks)
            .collect(),
        crypto,
        command: Some(command(spec, dns)?),
        plugs,
        trace: false,
    })
}

/// What the container lacks, and init does not need, the share's threads do not have. The others they need whatever the
/// container has: its users change what is theirs, and init makes mount points anywhere.
fn without(start: &Start) -> Vec<&'static str> {
    let Some(capabilities) = start.process.capabilities else {
        return Vec::new();
    };
    // Init makes devices in the image if they are not in /dev, which is a file system of the guest's.
    let makes_devices = start
        .devices
        .iter()
        .any(|device| !device.path.starts_with("/dev/"));
    let lacks = |number: u32| capabilities.bounding & (1 << number) == 0;
    let mknod = lacks(CAP_MKNOD) && !makes_devices;
    let setfcap = lacks(CAP_SETFCAP);
    let lacking = [(mknod, "MKNOD"), (setfcap, "SETFCAP")];
    lacking
        .into_iter()
        .filter_map(|(lacks, name)| lacks.then_some(name))
        .collect()
}

/// Opened while this process has the rights for it: the files may be anybody's.
fn disks(spec: &VmSpec) -> Result<Vec<DeviceSpec>> {
    let disks = spec.disks.iter().map(|disk| {
        let disk = Disk {
            // The path is one that only this process knows.
            name: disk.name.clone(),
            path: disk.path.clone(),
            serial: disk.serial.clone(),
            cache: disk.cache,
            read_only: disk.read_only,
            format: None,
        };
        disk.open(spec.cpus)
    });
    disks.collect()
}

/// Where the monitor finds the crypto adapters, of which `runq` has seen that they are there.
fn crypto(spec: &VmSpec) -> Result<Option<Matrix>> {
    let uuid = spec.crypto.as_deref();
    let matrix = uuid.map(|uuid| Matrix::find(Path::new(vmspec::SYS), uuid));
    matrix.transpose().context("crypto adapters")
}

/// Whether it is /dev/null, whose numbers are 1 and 3 (Linux' admin-guide/devices.txt): that of a container without
/// `-i`, which is to find its own there.
fn is_null(file: impl AsFd) -> io::Result<bool> {
    let file = File::from(file.as_fd().try_clone_to_owned()?).metadata()?;
    Ok(file.file_type().is_char_device() && file.rdev() == makedev(1, 3))
}

/// Every signal is the container's. The size that its terminal has by now counts, not the one in
/// the configuration.
fn command(spec: VmSpec, dns: Option<UnixStream>) -> Result<Command> {
    let mut start = spec.start;
    let size = &mut start.process.terminal;
    *size = size.map(|configured| terminal::window_size().unwrap_or(configured));
    start.process.null_input = is_null(io::stdin()).unwrap_or_default();
    let kills = File::options().write(true).open(vmspec::KILLS);
    Ok(Command {
        systemd: spec.systemd,
        kills: Some(kills.context(vmspec::KILLS)?),
        ports: dns
            .map(|port| (DNS_PORT.to_owned(), port))
            .into_iter()
            .collect(),
        ..Command::new(start, Forwarded::All)
    })
}

#[cfg(test)]
mod tests {
    use proto::{Capabilities, Device};

    use super::*;

    #[test]
    fn the_share_can_do_no_more_than_the_container_and_init() {
        let with = |bounding| {
            let mut start = Start::default();
            start.process.capabilities = Some(Capabilities {
                bounding,
                ..Capabilities::default()
            });
            start
        };
        assert_eq!(without(&with(0)), ["MKNOD", "SETFCAP"]);
        assert_eq!(without(&with(1 << CAP_MKNOD)), ["SETFCAP"]);
        assert_eq!(without(&with(1 << CAP_SETFCAP)), ["MKNOD"]);
        assert!(without(&with(u64::MAX)).is_empty());
        assert!(without(&Start::default()).is_empty());
        let mut start = with(0);
        for (path, expected) in [("/dev/a", &["MKNOD", "SETFCAP"][..]), ("/a", &["SETFCAP"])] {
            start.devices = vec![Device {
                path: path.to_owned(),
                block: false,
                major: 1,
                minor: 3,
                mode: 0o600,
                uid: 0,
                gid: 0,
            }];
            assert_eq!(without(&start), expected, "{path}");
        }
    }
}
