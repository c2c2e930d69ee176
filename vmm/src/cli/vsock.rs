//! The option `--vsock`: stream connections between programs of the host and of the guest.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use vmm::DeviceSpec;
use vmm::vsock::vsock::FIRST_CID;
use vmm::vsock::{self, VHOST_VSOCK};

/// `sun_path` of linux/un.h has 108 bytes, the last of them zero.
const MAX_PATH: usize = 107;

/// A socket device, written `cid=N` or `socket=PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Vsock {
    /// The kernel serves it, and the guest has this address among those of the host's guests.
    Cid(u32),
    /// The monitor serves it at a Unix socket that it makes here.
    Socket(PathBuf),
}

/// A Unix socket in the file system, which goes with this.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

impl Vsock {
    /// The device, and the file that it needs as long as it is used.
    ///
    /// # Errors
    /// Names the address or path, and says what to do.
    pub(super) fn device(&self) -> Result<(DeviceSpec, Option<SocketFile>)> {
        match self {
            Self::Cid(cid) => {
                let file = vsock::open_vhost().with_context(|| {
                    format!(
                        "--vsock cid={cid}: {VHOST_VSOCK}: load the module vhost_vsock, run as root, or use socket=PATH"
                    )
                })?;
                let config = vsock::kernel(file, [*cid].into_iter())?;
                Ok((DeviceSpec::Vsock(config), None))
            }
            Self::Socket(path) => {
                let socket = listen(path)?;
                let config = vsock::user(FIRST_CID, socket);
                let file = SocketFile(path.clone());
                Ok((DeviceSpec::Vsock(config), Some(file)))
            }
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).map_err(|error| {
        let path = path.display();
        if error.kind() == io::ErrorKind::AddrInUse {
            anyhow!("--vsock socket={path}: the file exists: remove it, or use another path")
        } else {
            anyhow!("--vsock socket={path}: {error}")
        }
    })
}

impl FromStr for Vsock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("cid", number)) => {
                let cid = number.parse().ok();
                let cid = cid.filter(|cid| (FIRST_CID..u32::MAX).contains(cid));
                let wrong = || format!("{number:?} is no address of a guest: 3 to 4294967294 are");
                cid.map(Self::Cid).ok_or_else(wrong)
            }
            Some(("socket", path)) if !path.is_empty() => {
                let path = PathBuf::from(path);
                let length = path.as_os_str().as_bytes().len();
                if length > MAX_PATH {
                    return Err(format!(
                        "a path of {length} bytes is too long for a socket: {MAX_PATH} at most"
                    ));
                }
                Ok(Self::Socket(path))
            }
            _ => Err(format!("{text:?} is not of the form cid=N or socket=PATH")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_an_address_or_a_path() {
        assert_eq!("cid=3".parse(), Ok(Vsock::Cid(3)));
        assert_eq!("cid=4294967294".parse(), Ok(Vsock::Cid(u32::MAX - 1)));
        assert_eq!(
            "socket=/run/a=b".parse(),
            Ok(Vsock::Socket("/run/a=b".into()))
        );
        let long = format!("socket=/{}", "x".repeat(107));
        assert!(long[..long.len() - 1].parse::<Vsock>().is_ok());
        for (wrong, expected) in [
            ("", "cid=N or socket=PATH"),
            ("cid", "cid=N or socket=PATH"),
            ("socket=", "cid=N or socket=PATH"),
            ("port=3", "cid=N or socket=PATH"),
            ("cid=0", "3 to 4294967294"),
            ("cid=2", "3 to 4294967294"),
            ("cid=4294967295", "3 to 4294967294"),
            ("cid=x", "\"x\" is no address"),
            (&long, "108 bytes is too long"),
        ] {
            let error = wrong.parse::<Vsock>().unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_socket_goes_with_the_device() {
        let folder = std::env::temp_dir().join(format!("runq-vsock-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let vsock = Vsock::Socket(path.clone());
        let (device, file) = vsock.device().unwrap();
        assert!(path.exists());
        let error = vsock.device().err().unwrap().to_string();
        assert!(error.contains("the file exists: remove it"), "{error}");
        drop((device, file));
        assert!(!path.exists());
        fs::remove_dir(&folder).unwrap();
        let error = vsock.device().err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("--vsock socket={}: No such", path.display())),
            "{error}"
        );
    }
}
