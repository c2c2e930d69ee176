//! What VFIO and KVM are asked for; tests have a kernel of their own. Numbers and structures are those of linux/vfio.h,
//! linux/kvm.h and s390x' asm/kvm.h.
#![allow(unsafe_code)] // requests to ioctl(2)

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

use libc::{c_int, c_ulong};
use vmm_sys_util::ioctl::ioctl_with_val;

/// A request to ioctl(2). Where it is one about an attribute, its bytes are the value; files are named by their descriptors.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    // To VFIO's container, a group, and a device.
    SetIommu,
    MapDma,
    SetContainer,
    GetDeviceFd,
    Reset,
    // To a VM, and to KVM's device for VFIO.
    EnableApie,
    GetMachine,
    GetProcessor,
    SetProcessor,
    CreateDevice,
    AddGroup,
}

/// The kernel, as far as it is needed here.
pub(super) trait Kernel {
    /// Opens a device node.
    fn open(&self, path: &str) -> io::Result<File>;

    /// Makes a request with these bytes, which may come back changed; some have none.
    fn ask(&self, file: &File, request: Request, bytes: &mut [u8]) -> io::Result<()>;

    /// One that opens a file.
    fn make(&self, file: &File, request: Request, bytes: &mut [u8]) -> io::Result<File>;
}

/// Lengths of a UUID with the byte 0 behind it, of `kvm_s390_vm_cpu_processor`, and of `kvm_s390_vm_cpu_machine`.
const NAME: usize = 37;
pub(super) const PROCESSOR: usize = 2064;
pub(super) const MACHINE: usize = 4112;

/// What the argument is.
enum Argument {
    Number(c_ulong),
    Bytes,
    /// A `kvm_device_attr` with this group and number, which says where the bytes are.
    Attribute(u32, u64),
}

impl Request {
    /// Its number, its argument, and how many bytes it has.
    fn parts(self) -> (c_ulong, Argument, usize) {
        const VFIO: c_ulong = (b';' as c_ulong) << 8 | 100;
        const GET: c_ulong = 0x4018_aee2;
        const SET: c_ulong = 0x4018_aee1;
        match self {
            // VFIO_TYPE1v2_IOMMU, which any device has but those of POWER.
            Self::SetIommu => (VFIO + 2, Argument::Number(3), 0),
            Self::MapDma => (VFIO + 13, Argument::Bytes, 32),
            Self::SetContainer => (VFIO + 4, Argument::Bytes, 4),
            Self::GetDeviceFd => (VFIO + 6, Argument::Bytes, NAME),
            Self::Reset => (VFIO + 11, Argument::Number(0), 0),
            Self::EnableApie => (SET, Argument::Attribute(2, 4), 0),
            Self::GetMachine => (GET, Argument::Attribute(3, 1), MACHINE),
            Self::GetProcessor => (GET, Argument::Attribute(3, 0), PROCESSOR),
            Self::SetProcessor => (SET, Argument::Attribute(3, 0), PROCESSOR),
            Self::CreateDevice => (0xc00c_aee0, Argument::Bytes, 12),
            Self::AddGroup => (SET, Argument::Attribute(1, 1), 4),
        }
    }
}

#[repr(C)]
struct DeviceAttribute {
    flags: u32,
    group: u32,
    number: u64,
    address: u64,
}

/// The kernel that we run on.
pub(super) struct Host;

impl Host {
    fn call(file: &File, request: Request, bytes: &mut [u8]) -> io::Result<c_int> {
        let (number, argument, length) = request.parts();
        if bytes.len() != length || length == NAME && bytes.last() != Some(&0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attribute = DeviceAttribute {
            flags: 0,
            group: 0,
            number: 0,
            address: bytes.as_mut_ptr() as u64,
        };
        let argument = match argument {
            Argument::Number(number) => number,
            Argument::Bytes => attribute.address,
            Argument::Attribute(group, number) => {
                (attribute.group, attribute.number) = (group, number);
                &raw const attribute as u64
            }
        };
        // SAFETY: the request reads and writes as many bytes as are borrowed mutably, and before that the attribute if it
        // is about one. What it may name is guest memory, which is never unmapped, and may change at any time.
        let returned = unsafe { ioctl_with_val(file, number, argument) };
        if returned < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(returned)
    }
}

impl Kernel for Host {
    fn open(&self, path: &str) -> io::Result<File> {
        File::options().read(true).write(true).open(path)
    }

    fn ask(&self, file: &File, request: Request, bytes: &mut [u8]) -> io::Result<()> {
        Self::call(file, request, bytes).map(drop)
    }

    fn make(&self, file: &File, request: Request, bytes: &mut [u8]) -> io::Result<File> {
        let returned = Self::call(file, request, bytes)?;
        let fd = match (request, &*bytes) {
            (Request::GetDeviceFd, _) => returned,
            (Request::CreateDevice, &[_, _, _, _, a, b, c, d, ..]) => {
                c_int::from_ne_bytes([a, b, c, d])
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { File::from_raw_fd(fd) })
    }
}
