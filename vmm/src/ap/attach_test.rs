use super::*;

use vm_memory::GuestAddress;

use fake::{Fake, Flaw};

#[path = "fake.rs"]
mod fake;

/// Gives a VM with memory in two pieces the device.
fn attach_on(fake: &Fake) -> (Memory, Result<Attached>) {
    let ranges = [(GuestAddress(0), 3 << 20), (GuestAddress(4 << 20), 1 << 20)];
    let memory = crate::memory::allocate(&ranges).unwrap();
    let matrix = Matrix {
        uuid: "62177883-f1bb-47f0-914d-32a22e3a8804".to_owned(),
        group: 7,
    };
    let vm = fake.vm();
    let attached = attach_by(fake, &vm, &memory, &matrix);
    (memory, attached)
}

#[test]
fn the_guest_has_the_queues_and_the_device_its_memory() {
    let fake = Fake::new(Flaw::None);
    let (memory, attached) = attach_on(&fake);
    attached.unwrap();
    let state = fake.0.borrow();
    assert!(state.interpreted && state.has_queues);
    assert_eq!(state.resets, 1);
    let regions = memory.iter().map(|region| {
        let start = region.start_addr().raw_value();
        [region.as_ptr() as u64, start, region.len()]
    });
    assert_eq!(state.maps, regions.collect::<Vec<_>>());
}

#[test]
fn the_guest_has_those_facilities_that_host_and_kvm_have() {
    // Others stay as they are, whoever has them.
    let (all, other) = ([12, 15, 65], [7, 138, 160]);
    let list = |facilities: &[usize]| {
        let mut list = [0u8; 2048];
        facilities
            .iter()
            .for_each(|facility| list[facility / 8] |= 0x80 >> (facility % 8));
        list
    };
    for (known, host, expected) in [
        (&all[..], &all[..], &all[..]),
        (&[12, 15], &all, &[12, 15]),
        (&all, &[12], &[12]),
        (&[65], &[15], &[]),
    ] {
        let fake = Fake::new(Flaw::None);
        fake.0.borrow_mut().facilities = [
            list(&[known, &[8, 138]].concat()),
            list(&[host, &[8, 138]].concat()),
            list(&other),
        ];
        attach_on(&fake).1.unwrap();
        let expected = list(&[expected, &other].concat());
        assert!(
            fake.0.borrow().facilities[2] == expected,
            "{known:?} {host:?}"
        );
    }
}

#[test]
fn what_fails_is_named_with_what_to_do() {
    for (flaw, expected) in [
        (
            Flaw::NoInstructions,
            "AP instructions for the guest: Operation not supported (os error 95): the host itself needs crypto \
             adapters, and a kernel with the driver vfio_ap",
        ),
        (
            Flaw::VcpusAreThere,
            "AP facilities for the guest: Device or resource busy (os error 16): see the log of the host's kernel",
        ),
        (
            Flaw::NoVfio,
            "/dev/vfio/vfio: No such file or directory (os error 2): load the modules vfio and vfio_iommu_type1 on \
             the host",
        ),
        (
            Flaw::GroupInUse,
            "/dev/vfio/7: Device or resource busy (os error 16): another machine may have the device: end that one, \
             or name another device",
        ),
        (
            Flaw::NotViable,
            "container for /dev/vfio/7: Device or resource busy (os error 16): see the log of the host's kernel",
        ),
        (
            Flaw::NoType1,
            "VFIO's IOMMU of type 1: No such device (os error 19): load the modules vfio and vfio_iommu_type1 on the \
             host",
        ),
        (
            Flaw::NoKvmVfio,
            "KVM's device for VFIO: No such device (os error 19): load the modules vfio and vfio_iommu_type1 on the \
             host",
        ),
        (
            Flaw::DeviceIsGone,
            "open the device: No such device (os error 19): see whether it is still in /sys/bus/mdev/devices",
        ),
        (
            Flaw::QueueDoesNotAnswer,
            "reset of its queues: Input/output error (os error 5): see the state of the adapters by `lszcrypt -V` on \
             the host",
        ),
    ] {
        let fake = Fake::new(flaw);
        assert_eq!(attach_on(&fake).1.unwrap_err().to_string(), expected);
    }
}

#[test]
fn the_fake_insists_on_what_the_kernel_insists_on() {
    let fake = Fake::new(Flaw::None);
    let vm = fake.vm();
    let [container, group] = ["/dev/vfio/vfio", "/dev/vfio/7"].map(|path| fake.open(path).unwrap());
    let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    let name = b"62177883-f1bb-47f0-914d-32a22e3a8804\0";
    let open = || {
        let opened = fake.make(&group, Request::GetDeviceFd, &mut name.to_owned());
        opened.map(drop)
    };
    let map = |argsz: u32, iova: u64| {
        let flags = [argsz, READ_WRITE].map(u32::to_ne_bytes).concat();
        let places = [1 << 20, iova, 1 << 20].map(u64::to_ne_bytes).concat();
        let mut map = [flags, places].concat();
        fake.ask(&container, Request::MapDma, &mut map)
    };
    let set_iommu = || fake.ask(&container, Request::SetIommu, &mut []);
    let name_file = |to: &File, request, file: &File| {
        fake.ask(to, request, &mut file.as_raw_fd().to_ne_bytes())
    };
    let set_container = |file| name_file(&group, Request::SetContainer, file);
    assert_eq!(errno(set_iommu()), libc::EINVAL);
    assert_eq!(errno(set_container(&group)), libc::EBADFD);
    set_container(&container).unwrap();
    assert_eq!(errno(map(32, 0)), libc::EINVAL);
    set_iommu().unwrap();
    assert_eq!(errno(map(24, 0)), libc::EINVAL);
    assert_eq!(errno(map(32, 1)), libc::EINVAL);
    map(32, 0).unwrap();
    assert_eq!(errno(map(32, 4096)), libc::EEXIST);
    assert_eq!(errno(open()), libc::EINVAL);
    let mut device = [KVM_DEVICE, 0, 0].map(u32::to_ne_bytes).concat();
    let assignment = fake.make(&vm, Request::CreateDevice, &mut device).unwrap();
    let add = |file| name_file(&assignment, Request::AddGroup, file);
    assert_eq!(errno(add(&container)), libc::EINVAL);
    add(&group).unwrap();
    assert_eq!(errno(add(&group)), libc::EEXIST);
    open().unwrap();
}

#[test]
fn requests_have_the_bytes_that_they_take() {
    // A file that knows none of them: what is no argument of theirs does not get there.
    let null = Host.open("/dev/null").unwrap();
    let asked = |request, bytes: &mut [u8]| Host.ask(&null, request, bytes).unwrap_err();
    assert_eq!(
        asked(Request::SetIommu, &mut []).raw_os_error(),
        Some(libc::ENOTTY)
    );
    assert_eq!(
        asked(Request::MapDma, &mut [0; 32]).raw_os_error(),
        Some(libc::ENOTTY)
    );
    for (request, length) in [
        (Request::MapDma, 31),
        (Request::Reset, 1),
        (Request::GetMachine, PROCESSOR),
    ] {
        let error = asked(request, &mut vec![0; length]);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{request:?}");
    }
    let mut name = *b"62177883-f1bb-47f0-914d-32a22e3a88040";
    let error = Host
        .make(&null, Request::GetDeviceFd, &mut name)
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
