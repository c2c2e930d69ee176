//! The guest's socket device: its address, and who of the host serves it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result, bail};
pub use devices::dev::vsock;
use devices::dev::vsock::{Backend, Config, FIRST_CID, set_guest_cid};
use tracing::debug;

/// Where the kernel serves the device, and gives each guest an address of its own.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// A container's device: see [`open`], with the addresses and the socket that programs on the host
/// know of. To be called in the container's network namespace.
///
/// # Errors
/// As [`open`].
pub fn container(id: &str) -> Result<Config> {
    open(proto::exec::addresses(id), || {
        let address = SocketAddr::from_abstract_name(proto::exec::USER_SOCKET)?;
        UnixListener::bind_addr(&address)
    })
}

/// A device that the kernel serves, if it can, at the first of `addresses` that is free; else one that
/// the monitor serves itself, for those who come to what `listener` opens.
///
/// # Errors
/// When all addresses are taken, or there are none, or the listener cannot be opened.
pub fn open(
    mut addresses: impl Iterator<Item = u32>,
    listener: impl FnOnce() -> io::Result<UnixListener>,
) -> Result<Config> {
    match open_vhost() {
        Ok(file) => kernel(file, addresses),
        Err(error) => {
            debug!("{VHOST_VSOCK}: {error}: the monitor serves the socket device itself");
            let socket = listener().context("socket of the vsock device")?;
            Ok(user(addresses.next().unwrap_or(FIRST_CID), socket))
        }
    }
}

/// Has the kernel serve a device, if it can.
///
/// # Errors
/// When it cannot.
pub fn open_vhost() -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK).open(VHOST_VSOCK)
}

/// A device that the kernel serves by `file`, at the first of `addresses` that is free.
///
/// # Errors
/// When there is none.
pub fn kernel(file: File, addresses: impl Iterator<Item = u32>) -> Result<Config> {
    let cid = claim(addresses, |cid| set_guest_cid(&file, cid))?;
    Ok(Config {
        cid,
        backend: Backend::Kernel(file),
    })
}

/// A device that the monitor serves, for those who come to `socket`.
pub fn user(cid: u32, socket: UnixListener) -> Config {
    Config {
        cid,
        backend: Backend::User(socket),
    }
}

/// The first address that nobody else has.
fn claim(
    addresses: impl Iterator<Item = u32>,
    claim: impl Fn(u32) -> io::Result<()>,
) -> Result<u32> {
    let mut taken = Vec::new();
    for cid in addresses {
        match claim(cid) {
            Ok(()) => return Ok(cid),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken.push(cid.to_string()),
            Err(error) => return Err(error).context(format!("{VHOST_VSOCK}: address {cid}")),
        }
    }
    if taken.is_empty() {
        bail!("vsock: the guest has no address (CID): its ID has no eight hexadecimal digits");
    }
    let taken = taken.join(", ");
    bail!(
        "vsock: address (CID) {taken}: other guests of this host have it: end them, or use another one"
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What becomes of addresses of which these are taken, and which were tried.
    fn try_all(addresses: &[u32], taken: &[u32]) -> (Result<u32, String>, Vec<u32>) {
        let tried = RefCell::new(Vec::new());
        let claimed = claim(addresses.iter().copied(), |cid| {
            tried.borrow_mut().push(cid);
            match taken.contains(&cid) {
                true => Err(io::ErrorKind::AddrInUse.into()),
                false => Ok(()),
            }
        });
        (
            claimed.map_err(|error| error.to_string()),
            tried.into_inner(),
        )
    }

    #[test]
    fn the_first_free_address_is_the_guests() {
        assert_eq!(try_all(&[5, 6, 7], &[]), (Ok(5), vec![5]));
        assert_eq!(try_all(&[5, 6, 7], &[5, 6]), (Ok(7), vec![5, 6, 7]));
    }

    #[test]
    fn no_address_is_an_error_that_says_why() {
        let error = try_all(&[5, 6], &[5, 6]).0.unwrap_err();
        assert!(error.starts_with("vsock: address (CID) 5, 6: "), "{error}");
        let error = try_all(&[], &[]).0.unwrap_err();
        assert!(error.contains("no address"), "{error}");
        let error = claim([3].into_iter(), |_| {
            Err(io::Error::from_raw_os_error(libc::EPERM))
        });
        let error = format!("{:#}", error.unwrap_err());
        assert!(
            error.starts_with("/dev/vhost-vsock: address 3: "),
            "{error}"
        );
    }

    /// Where there is no vhost-vsock; elsewhere addresses are the whole host's, and not for tests.
    #[test]
    fn without_vhost_the_monitor_serves_the_device() {
        if open_vhost().is_ok() {
            return eprintln!("left out: there is {VHOST_VSOCK}");
        }
        let name = format!("runq-test-{}", std::process::id());
        let listener = || {
            let address = SocketAddr::from_abstract_name(&name)?;
            UnixListener::bind_addr(&address)
        };
        let config = open([9, 10].into_iter(), listener).unwrap();
        assert_eq!(config.cid, 9);
        assert!(matches!(config.backend, Backend::User(_)));
        // The name is taken.
        let error = open([9].into_iter(), listener).unwrap_err();
        assert_eq!(error.to_string(), "socket of the vsock device");
        drop(config);
        assert_eq!(open([].into_iter(), listener).unwrap().cid, 3);
    }
}
