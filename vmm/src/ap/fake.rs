//! A kernel with VFIO, vfio_ap and KVM, as far as [`crate::ap::kernel`] asks it: it has the rules of Linux 6.12
//! (drivers/vfio, drivers/s390/crypto/vfio_ap_ops.c, virt/kvm/vfio.c, arch/s390/kvm/kvm-s390.c), and their errors.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use libc::c_int;

use crate::ap::kernel::{Kernel, Request};

const PAGE: u64 = 4096;
/// What identifies a processor, which nobody is to change.
const CPU: &[u8; 16] = b"type and version";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Container,
    Group,
    Device,
    Vm,
    Assignment,
}

/// What is wrong with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// Its processor has no AP instructions.
    NoInstructions,
    VcpusAreThere,
    /// Without vfio and without vfio_iommu_type1.
    NoVfio,
    NoType1,
    /// Someone else has opened the group, or a driver has a device in it.
    GroupInUse,
    NotViable,
    NoKvmVfio,
    DeviceIsGone,
    QueueDoesNotAnswer,
}

/// A host, and what has become of it.
pub(super) struct State {
    flaw: Flaw,
    /// What KVM knows, what the host has, and what guests have.
    pub(super) facilities: [[u8; 2048]; 3],
    pub(super) interpreted: bool,
    container_set: bool,
    iommu: bool,
    /// Where guest memory is in our process, where it is for the device, and how much of it.
    pub(super) maps: Vec<[u64; 3]>,
    assigned: bool,
    /// The VM has the device's queues.
    pub(super) has_queues: bool,
    pub(super) resets: u32,
    objects: BTreeMap<RawFd, Object>,
}

pub(super) struct Fake(pub(super) RefCell<State>);

fn error<T>(errno: c_int) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

impl Fake {
    pub(super) fn new(flaw: Flaw) -> Self {
        Self(RefCell::new(State {
            flaw,
            facilities: [[0; 2048]; 3],
            interpreted: false,
            container_set: false,
            iommu: false,
            maps: Vec::new(),
            assigned: false,
            has_queues: false,
            resets: 0,
            objects: BTreeMap::new(),
        }))
    }

    /// A VM of its KVM.
    pub(super) fn vm(&self) -> File {
        self.0.borrow_mut().make(Object::Vm).unwrap()
    }
}

impl State {
    fn make(&mut self, object: Object) -> io::Result<File> {
        let file = File::open("/dev/null")?;
        self.objects.insert(file.as_raw_fd(), object);
        Ok(file)
    }

    fn object(&self, file: &File) -> Object {
        self.objects[&file.as_raw_fd()]
    }

    /// The object whose descriptor these bytes are.
    fn named(&self, bytes: &[u8]) -> Option<Object> {
        let fd = RawFd::from_ne_bytes(bytes.try_into().unwrap());
        self.objects.get(&fd).copied()
    }

    /// `vfio_group_ioctl_set_container`.
    fn set_container(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.named(bytes) {
            None => error(libc::EBADF),
            _ if self.container_set => error(libc::EINVAL),
            _ if self.flaw == Flaw::NotViable => error(libc::EBUSY),
            Some(Object::Container) => {
                self.container_set = true;
                Ok(())
            }
            Some(_) => error(libc::EBADFD),
        }
    }

    /// `vfio_ioctl_set_iommu`.
    fn set_iommu(&mut self) -> io::Result<()> {
        if !self.container_set || self.iommu {
            return error(libc::EINVAL);
        }
        if self.flaw == Flaw::NoType1 {
            return error(libc::ENODEV);
        }
        self.iommu = true;
        Ok(())
    }

    /// `vfio_iommu_type1_map_dma`.
    fn map(&mut self, bytes: &[u8]) -> io::Result<()> {
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let whole = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let (argsz, flags) = (half(0), half(4));
        let [vaddr, iova, size] = [8, 16, 24].map(whole);
        let wraps = |start: u64| start.checked_add(size.wrapping_sub(1)).is_none();
        if !self.iommu
            || argsz < 32
            // To name a page for interrupts, a device has to read and to write there (vfio_ap_irq_enable).
            || flags != 3
            || size == 0
            || (vaddr | iova | size) % PAGE != 0
            || wraps(iova)
            || wraps(vaddr)
        {
            return error(libc::EINVAL);
        }
        let meets = |[_, start, length]: &[u64; 3]| iova < start + length && *start < iova + size;
        if self.maps.iter().any(meets) {
            return error(libc::EEXIST);
        }
        self.maps.push([vaddr, iova, size]);
        Ok(())
    }

    /// `kvm_vfio_file_add`.
    fn add_group(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.named(bytes) {
            None => error(libc::EBADF),
            Some(Object::Group) if self.assigned => error(libc::EEXIST),
            Some(Object::Group) => {
                self.assigned = true;
                Ok(())
            }
            Some(_) => error(libc::EINVAL),
        }
    }

    /// `kvm_s390_get_machine` and the like, for those of the lists.
    fn tell(&self, lists: std::ops::Range<usize>, bytes: &mut [u8]) {
        let lists = self.facilities[lists].concat();
        bytes.copy_from_slice(&[&CPU[..], &lists].concat());
    }

    /// `kvm_s390_set_processor`.
    fn set_processor(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.flaw == Flaw::VcpusAreThere {
            return error(libc::EBUSY);
        }
        let (cpu, list) = bytes.split_at(16);
        assert_eq!(cpu, CPU);
        self.facilities[2].copy_from_slice(list);
        Ok(())
    }
}

impl Kernel for Fake {
    fn open(&self, path: &str) -> io::Result<File> {
        let mut state = self.0.borrow_mut();
        match path {
            "/dev/vfio/vfio" if state.flaw != Flaw::NoVfio => state.make(Object::Container),
            "/dev/vfio/7" if state.flaw == Flaw::GroupInUse => error(libc::EBUSY),
            "/dev/vfio/7" => state.make(Object::Group),
            _ => error(libc::ENOENT),
        }
    }

    fn ask(&self, file: &File, request: Request, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        match (state.object(file), request) {
            (Object::Group, Request::SetContainer) => state.set_container(bytes),
            (Object::Container, Request::SetIommu) => state.set_iommu(),
            (Object::Container, Request::MapDma) => state.map(bytes),
            (Object::Device, Request::Reset) => {
                state.resets += 1;
                match state.flaw {
                    Flaw::QueueDoesNotAnswer => error(libc::EIO),
                    _ => Ok(()),
                }
            }
            (Object::Assignment, Request::AddGroup) => state.add_group(bytes),
            (Object::Vm, Request::EnableApie) => {
                if state.flaw == Flaw::NoInstructions {
                    return error(libc::EOPNOTSUPP);
                }
                state.interpreted = true;
                Ok(())
            }
            (Object::Vm, Request::GetMachine) => {
                state.tell(0..2, bytes);
                Ok(())
            }
            (Object::Vm, Request::GetProcessor) => {
                state.tell(2..3, bytes);
                Ok(())
            }
            (Object::Vm, Request::SetProcessor) => state.set_processor(bytes),
            _ => error(libc::ENOTTY),
        }
    }

    fn make(&self, file: &File, request: Request, bytes: &mut [u8]) -> io::Result<File> {
        let mut state = self.0.borrow_mut();
        match (state.object(file), request) {
            (Object::Group, Request::GetDeviceFd) => {
                let name = b"62177883-f1bb-47f0-914d-32a22e3a8804\0";
                if state.flaw == Flaw::DeviceIsGone || bytes != name {
                    return error(libc::ENODEV);
                }
                // vfio_df_group_open, then vfio_ap_mdev_open_device.
                if !state.container_set || !state.iommu || !state.assigned {
                    return error(libc::EINVAL);
                }
                state.has_queues = true;
                state.make(Object::Device)
            }
            (Object::Vm, Request::CreateDevice) => {
                if state.flaw == Flaw::NoKvmVfio || bytes[..4] != 4u32.to_ne_bytes() {
                    return error(libc::ENODEV);
                }
                state.make(Object::Assignment)
            }
            _ => error(libc::ENOTTY),
        }
    }
}
