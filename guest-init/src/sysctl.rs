//! Kernel settings, sysctl(8).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;

const SETTINGS: &str = "/proc/sys";
/// Only a kernel with IPv6 has these. A container that switches IPv6 off is content without it, too.
const IPV6: &str = "/proc/sys/net/ipv6";

/// Writes the settings. Those of a namespace are the calling process's.
pub(crate) fn write(settings: &[(String, String)]) -> Result<()> {
    settings.iter().try_for_each(|(name, value)| {
        write_one(name, value)
            .with_context(|| format!("set the kernel parameter {name} to {value:?}"))
    })
}

fn write_one(name: &str, value: &str) -> Result<()> {
    let path = path(name)?;
    if path.starts_with(IPV6) && !fs::exists(IPV6)? {
        return Ok(());
    }
    let failed = |verb: &str, error: io::Error| {
        // As runc tells it: docker makes exit codes of these words.
        let reason = Errno::from_raw(error.raw_os_error().unwrap_or_default()).desc();
        anyhow!("{verb} {}: {}", path.display(), reason.to_lowercase())
    };
    let mut file = File::options()
        .write(true)
        .open(&path)
        .map_err(|error| failed("open", error))?;
    // One write is one value there.
    file.write_all(format!("{value}\n").as_bytes())
        .map_err(|error| failed("write", error))
}

/// The file of a setting. As in sysctl(8), the first dot or slash of a name tells which of the two
/// is the separator; the other one stands for a dot in a part, as in eth0.100.
fn path(name: &str) -> Result<PathBuf> {
    let relative = match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name.to_owned(),
        _ => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
    };
    let relative = Path::new(&relative);
    let is_part = |part| matches!(part, Component::Normal(_));
    if name.is_empty() || !relative.components().all(is_part) {
        bail!("it is not a name");
    }
    Ok(Path::new(SETTINGS).join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_dots_or_slashes() {
        for (name, file) in [
            ("kernel.shmmax", "/proc/sys/kernel/shmmax"),
            ("net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/100.mtu",
                "/proc/sys/net/ipv4/conf/eth0.100/mtu",
            ),
            (
                "net/ipv4/conf/eth0.100/mtu",
                "/proc/sys/net/ipv4/conf/eth0.100/mtu",
            ),
            ("single", "/proc/sys/single"),
        ] {
            assert_eq!(path(name).unwrap(), Path::new(file), "{name}");
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        for name in [
            "",
            "/etc/passwd",
            "kernel/../../1/oom_adj",
            "..",
            ".hidden",
            "a.//.b",
        ] {
            assert!(path(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_setting_that_does_not_exist_is_named() {
        let error = write(&[("kernel.no_such".to_owned(), "1".to_owned())]).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "set the kernel parameter kernel.no_such to \"1\": open /proc/sys/kernel/no_such: no such file or directory"
        );
    }
}
