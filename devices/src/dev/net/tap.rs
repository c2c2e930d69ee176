//! The host's end of a network interface: a queue of a tap or macvtap device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
#[cfg(any(test, feature = "testing"))]
use std::sync::{Arc, Mutex};

use libc::{
    IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, c_int,
    c_short, c_uint,
};

use vmm_sys_util::ioctl::{_IOC_WRITE, ioctl_expr};

use super::HEADER;
use super::features::{ANY_TAP, USO};

/// Requests of linux/if_tun.h: of a device that is in use, and before.
pub(super) const SET_OFFLOAD: u64 = request(208);
pub(super) const SET_QUEUE: u64 = request(217);
const SET_INTERFACE: u64 = request(202);
const SET_HEADER_SIZE: u64 = request(216);
const SET_LITTLE_ENDIAN: u64 = request(220);

/// What opening a tap takes, for whoever has a filter.
pub const OPEN_REQUESTS: &[u64] = &[
    SET_INTERFACE,
    SET_HEADER_SIZE,
    SET_LITTLE_ENDIAN,
    SET_OFFLOAD,
    SET_QUEUE,
];

/// All of them claim to read an `int`, whatever they read. Those of libc have a type that differs
/// between C libraries.
const fn request(number: c_uint) -> u64 {
    ioctl_expr(
        _IOC_WRITE,
        b'T' as c_uint,
        number,
        size_of::<c_int>() as c_uint,
    )
}

const TUN: &str = "/dev/net/tun";

/// A non-blocking descriptor through which packets go, each with the header of virtio
/// (`struct virtio_net_hdr_v1`) in front of it. Nothing is offloaded to its reader at first.
#[derive(Debug)]
pub struct Tap {
    file: File,
    /// The interface puts packets into this queue.
    attached: bool,
    /// Taps of tests are sockets, whose requests are noted only.
    #[cfg(any(test, feature = "testing"))]
    requests: Option<Requests>,
}

/// The requests that a tap got, with their values.
#[cfg(any(test, feature = "testing"))]
pub type Requests = Arc<Mutex<Vec<(u64, u64)>>>;

/// `struct ifreq` of netdevice(7), with the flags of its union.
#[derive(Debug)]
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: c_short,
    rest: [u8; 22],
}

impl Tap {
    /// The queues of the tap device `name`, which is made if it is not there. Those beyond the first
    /// are detached until the driver wants them.
    ///
    /// # Errors
    /// When the name is no interface's, or the kernel refuses, for example as the device was made
    /// for another number of queues; names the device.
    pub fn tun(name: &str, queues: u16) -> io::Result<Vec<Self>> {
        // The last byte is a NUL.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            let error = format!("{name:?} cannot be the name of a network interface");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        Self::open(Path::new(TUN), name, queues)
    }

    /// The queues of the macvtap device whose character device is `path`, in the same way.
    ///
    /// # Errors
    /// When the kernel refuses; names the device.
    pub fn macvtap(path: &Path, queues: u16) -> io::Result<Vec<Self>> {
        Self::open(path, "", queues)
    }

    /// The queues of a device that another process has opened and set up as these functions do.
    pub fn adopt(queues: Vec<OwnedFd>) -> Vec<Self> {
        let adopt = |(index, queue)| Self {
            file: File::from(queue),
            attached: index == 0,
            #[cfg(any(test, feature = "testing"))]
            requests: None,
        };
        queues.into_iter().enumerate().map(adopt).collect()
    }

    /// The end of a socket that keeps packets apart, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn fake(file: impl Into<OwnedFd>) -> (Self, Requests) {
        let requests = Requests::default();
        let tap = Self {
            file: File::from(file.into()),
            attached: true,
            requests: Some(Arc::clone(&requests)),
        };
        (tap, requests)
    }

    fn open(path: &Path, name: &str, queues: u16) -> io::Result<Vec<Self>> {
        let open = |_| Self::open_queue(path, name, queues > 1);
        (0..queues)
            .map(open)
            .collect::<io::Result<Vec<_>>>()
            .and_then(|mut taps| {
                for tap in taps.iter_mut().skip(1) {
                    tap.attach(false)?;
                }
                Ok(taps)
            })
            .map_err(|error| {
                let context = format!("network device {} {name}: {error}", path.display());
                io::Error::new(error.kind(), context)
            })
    }

    fn open_queue(path: &Path, name: &str, multi_queue: bool) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK) // The library adds O_CLOEXEC.
            .open(path)?;
        let mut flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        if multi_queue {
            flags |= IFF_MULTI_QUEUE;
        }
        let mut request = InterfaceRequest {
            name: [0; libc::IFNAMSIZ],
            flags: flags as c_short,
            rest: [0; 22],
        };
        for (to, from) in request.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        ioctl::set(&file, SET_INTERFACE, &request)?;
        ioctl::set(&file, SET_HEADER_SIZE, &(HEADER as c_int))?;
        // What headers are from virtio 1.0 on, whatever the host's byte order is.
        ioctl::set(&file, SET_LITTLE_ENDIAN, &1)?;
        let tap = Self {
            file,
            attached: true,
            #[cfg(any(test, feature = "testing"))]
            requests: None,
        };
        tap.set_offloads(0)?;
        Ok(tap)
    }

    /// Which flags of TUNSETOFFLOAD the interface takes. Leaves it without any.
    pub(super) fn probe_offloads(&self) -> io::Result<c_uint> {
        let additions = [ANY_TAP, libc::TUN_F_UFO, USO];
        let taken = additions.iter().fold(0, |taken, addition| {
            match self.set_offloads(taken | addition) {
                Ok(()) => taken | addition,
                Err(_) => taken,
            }
        });
        self.set_offloads(0)?;
        Ok(taken)
    }

    /// What need not be done to packets before they are read. For all queues of the interface; to be
    /// asked of one that is attached.
    pub(super) fn set_offloads(&self, flags: c_uint) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        if self.note(SET_OFFLOAD, flags.into()) {
            return Ok(());
        }
        ioctl::set_value(&self.file, SET_OFFLOAD, flags)
    }

    /// Whether the interface puts packets into this queue. It has to have several for that.
    pub(super) fn attach(&mut self, attach: bool) -> io::Result<()> {
        if attach == self.attached {
            return Ok(());
        }
        let flag = if attach {
            IFF_ATTACH_QUEUE
        } else {
            IFF_DETACH_QUEUE
        };
        self.set_queue(flag)?;
        self.attached = attach;
        Ok(())
    }

    fn set_queue(&self, flag: c_int) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        if self.note(SET_QUEUE, u64::from(flag.cast_unsigned())) {
            return Ok(());
        }
        let request = InterfaceRequest {
            name: [0; libc::IFNAMSIZ],
            flags: flag as c_short,
            rest: [0; 22],
        };
        ioctl::set(&self.file, SET_QUEUE, &request)
    }

    #[cfg(any(test, feature = "testing"))]
    fn note(&self, request: u64, value: u64) -> bool {
        let noted = self.requests.as_ref().and_then(|noted| noted.lock().ok());
        noted
            .map(|mut noted| noted.push((request, value)))
            .is_some()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.file.into()
    }
}

#[allow(unsafe_code)] // The requests to the kernel.
mod ioctl {
    use std::fs::File;
    use std::io;

    use libc::c_uint;
    use vmm_sys_util::ioctl::{ioctl_with_ref, ioctl_with_val};

    /// A request that reads a `T`: TUNSETIFF and TUNSETQUEUE an `ifreq`, TUNSETVNETHDRSZ and
    /// TUNSETVNETLE an `int`.
    pub(super) fn set<T>(file: &File, request: u64, value: &T) -> io::Result<()> {
        // SAFETY: the callers give what the request reads, which lives through the call. TUNSETIFF
        // alone writes, the name of an `ifreq` that is not looked at afterwards.
        check(unsafe { ioctl_with_ref(file, request, value) })
    }

    /// A request that takes a number, TUNSETOFFLOAD.
    pub(super) fn set_value(file: &File, request: u64, value: c_uint) -> io::Result<()> {
        // SAFETY: no memory is involved.
        check(unsafe { ioctl_with_val(file, request, value.into()) })
    }

    fn check(result: i32) -> io::Result<()> {
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
