use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

const BAR: u64 = 0xc000_0000;
const SIZE: u64 = 0x4000;

/// With this interrupt line a fake function has to be asked.
const ASKS: u8 = 0xa5;

/// A function that remembers one access to its BAR.
struct Fake {
    header: ConfigHeader,
    bar: u64,
    removed: Arc<AtomicBool>,
    written: Vec<(u64, Vec<u8>)>,
}

impl Fake {
    fn new(address: u64) -> Self {
        let mut header = ConfigHeader::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 9,
            class: 0xff00,
            subsystem_vendor: 0x1234,
            subsystem: 1,
        });
        header.add_memory(address as u32, SIZE as u32).unwrap();
        Self {
            header,
            bar: address,
            removed: Arc::default(),
            written: Vec::new(),
        }
    }
}

impl PciFunction for Fake {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        self.header.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.header.write(offset, data);
    }

    fn config(&self) -> Option<&[u8]> {
        (self.header.bytes()[0x3c] != ASKS).then(|| self.header.bytes())
    }

    fn bar(&self) -> Option<Range<u64>> {
        Some(self.bar..self.bar + SIZE)
    }

    fn removed(&mut self) {
        self.removed.store(true, Ordering::SeqCst);
    }

    fn decodes_memory(&self) -> bool {
        self.header.decodes_memory()
    }

    fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        assert!(offset + data.len() as u64 <= SIZE);
        let written = self.written.iter().find(|(o, _)| *o == offset);
        match written {
            Some((_, bytes)) if bytes.len() == data.len() => data.copy_from_slice(bytes),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= SIZE);
        self.written.push((offset, data.to_vec()));
    }
}

fn root() -> PciRoot {
    let root = PciRoot::new();
    root.add(Box::new(Fake::new(BAR))).unwrap();
    root
}

fn ecam(slot: u64, register: u64) -> u64 {
    slot << 15 | register
}

fn ecam_read(root: &PciRoot, offset: u64) -> u32 {
    let mut data = [0; 4];
    root.ecam_read(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn functions_are_found_by_ecam_and_by_ports() {
    let root = root();
    assert_eq!(ecam_read(&root, ecam(0, 0)), 0x0008_1b36);
    assert_eq!(ecam_read(&root, ecam(0, 8)), 0x0600_0000, "a host bridge");
    assert_eq!(ecam_read(&root, ecam(1, 0)), 0x5678_1234);
    // Absent: a slot, another function, another bus, the extended space.
    for absent in [
        ecam(2, 0),
        ecam(31, 0),
        ecam(1, 0) + 0x1000,
        ecam(33, 0),
        ecam(1, 0x100),
        u64::MAX,
    ] {
        assert_eq!(ecam_read(&root, absent), u32::MAX, "{absent:#x}");
    }
}

#[test]
fn a_function_has_no_bar_but_an_entry_that_says_where_it_is() {
    let root = root();
    for absent in [0x10, 0x14, 0x18, 0x24, 0x30] {
        root.ecam_write(ecam(1, absent), &[0xff; 4]);
        assert_eq!(ecam_read(&root, ecam(1, absent)), 0);
    }
    // As Linux reads it (pci_ea_init): one entry of 16 bytes, enabled, for BAR 0, memory.
    let entry = [0x0001_0014, 0x80ff_0002, BAR as u32, SIZE as u32 - 4];
    for (offset, value) in (0x40..).step_by(4).zip(entry) {
        root.ecam_write(ecam(1, offset), &[0xa5; 4]);
        assert_eq!(ecam_read(&root, ecam(1, offset)), value, "{offset:#x}");
    }
}

#[test]
fn a_bar_is_there_while_memory_decoding_is_on() {
    let root = root();
    let read = |address: u64| {
        let mut data = [0; 4];
        root.mmio_read(address, &mut data);
        u32::from_le_bytes(data)
    };
    root.mmio_write(BAR + 8, &[1, 0, 0, 0]);
    assert_eq!(read(BAR + 8), u32::MAX);
    root.ecam_write(ecam(1, 4), &[0b10, 0]);
    assert_eq!(read(BAR + 8), 0, "the write was lost");
    root.mmio_write(BAR + 8, &[1, 0, 0, 0]);
    assert_eq!(read(BAR + 8), 1);
    for outside in [BAR - 4, BAR - 2, BAR + SIZE - 2, BAR + SIZE, 0, u64::MAX] {
        assert_eq!(read(outside), u32::MAX, "{outside:#x}");
    }
}

#[test]
fn the_bus_takes_31_functions() {
    let root = PciRoot::new();
    for slot in 1..32 {
        let function = Box::new(Fake::new(BAR + u64::from(slot) * SIZE));
        assert_eq!(root.add(function).unwrap(), slot);
    }
    assert!(root.add(Box::new(Fake::new(0))).is_err());
    assert!(root.free_slot().is_err());
    assert_eq!(ecam_read(&root, ecam(31, 0)), 0x5678_1234);
}

#[test]
fn the_slot_of_a_function_that_is_gone_is_empty_and_can_be_had_again() {
    let root = root();
    let second = Fake::new(BAR + SIZE);
    let removed = Arc::clone(&second.removed);
    assert_eq!(root.add(Box::new(second)).unwrap(), 2);
    root.ecam_write(ecam(2, 4), &[0b10, 0]);
    root.remove(1);
    assert!(!removed.load(Ordering::SeqCst));
    root.remove(2);
    assert!(removed.load(Ordering::SeqCst));
    for gone in [1, 2, 99] {
        root.remove(gone);
        assert_eq!(ecam_read(&root, ecam(gone.into(), 0)), u32::MAX);
    }
    let mut data = [0; 4];
    root.mmio_read(BAR + SIZE, &mut data);
    assert_eq!(data, [0xff; 4]);
    assert!(!root.has_functions());
    assert_eq!(root.free_slot().unwrap(), 1);
    assert_eq!(root.add(Box::new(Fake::new(BAR))).unwrap(), 1);
    assert!(root.has_functions());
}

#[test]
fn functions_come_and_go_while_vcpus_look_for_them() {
    let root = root();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let found = ecam_read(&root, ecam(2, 0));
                    assert!(matches!(found, 0x5678_1234 | u32::MAX), "{found:#x}");
                    root.ecam_write(ecam(2, 4), &[0b10, 0]);
                    root.mmio_write(BAR + SIZE, &[1]);
                    assert_eq!(ecam_read(&root, ecam(1, 0)), 0x5678_1234);
                }
            });
        }
        for _ in 0..1000 {
            assert_eq!(root.add(Box::new(Fake::new(BAR + SIZE))).unwrap(), 2);
            root.remove(2);
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn capabilities_form_a_list_and_need_room() {
    let mut header = ConfigHeader::new(HOST_BRIDGE);
    assert_eq!(
        header.add_capability(9, &[1, 2, 3], &[0, 0xf0]).unwrap(),
        0x40
    );
    assert_eq!(header.add_capability(5, &[7; 14], &[]).unwrap(), 0x48);
    let mut bytes = [0; 12];
    header.read(0x40, &mut bytes);
    assert_eq!(bytes, [9, 0x48, 1, 2, 3, 0, 0, 0, 5, 0, 7, 7]);
    header.write(0x40, &[0xff; 4]);
    header.read(0x40, &mut bytes);
    assert_eq!(bytes[..4], [9, 0x48, 1, 0xf2]);
    header.read(0x34, &mut bytes[..1]);
    assert_eq!(bytes[0], 0x40);
    assert!(header.add_capability(9, &[0; 255], &[]).is_err());
    let mut count = 0;
    while header.add_capability(9, &[0; 14], &[]).is_ok() {
        count += 1;
    }
    assert_eq!(count, (256 - 0x58) / 16);
}

proptest! {
    /// No access panics, and none changes what a function is.
    #[test]
    fn any_access_is_survived(
        accesses in prop::collection::vec(
            (0_u8..4, prop_oneof![0_u64..0x1_1000, BAR..BAR + SIZE, any::<u64>()],
             prop::collection::vec(any::<u8>(), 0..20)), 1..100)
    ) {
        let root = root();
        for (kind, at, mut data) in accesses {
            match kind {
                0 => root.ecam_read(at, &mut data),
                1 => root.ecam_write(at, &data),
                2 => root.mmio_read(at, &mut data),
                _ => root.mmio_write(at, &data),
            }
        }
        prop_assert_eq!(ecam_read(&root, ecam(1, 0)), 0x5678_1234);
        prop_assert_eq!(ecam_read(&root, ecam(1, 8)), 0xff00_0009);
        prop_assert_eq!(ecam_read(&root, ecam(1, 0x2c)), 0x0001_1234);
        prop_assert_eq!(ecam_read(&root, ecam(2, 0)), u32::MAX);
    }
}

/// What the guest sees, for so many slots; none once it was given up.
#[derive(Clone)]
struct Shown(Arc<Mutex<Option<Vec<u8>>>>);

impl Shown {
    fn of(root: &PciRoot) -> Self {
        let size = usize::try_from(root.used_size()).unwrap();
        let shown = Self(Arc::new(Mutex::new(Some(vec![0; size]))));
        root.show_in(Box::new(shown.clone()));
        shown
    }

    /// Each register of each slot in it, as a read finds it there and by an exit.
    fn assert_true(&self, root: &PciRoot) {
        let memory = self.0.lock().unwrap();
        let Some(memory) = memory.as_ref() else {
            return;
        };
        for (slot, shown) in memory.chunks(1 << 15).enumerate() {
            for (register, shown) in shown[..4096].chunks(4).enumerate() {
                let mut asked = [0; 4];
                root.ecam_read(((slot << 15) + 4 * register) as u64, &mut asked);
                assert_eq!(shown, asked, "slot {slot}, register {register}");
            }
        }
    }
}

impl ConfigMemory for Shown {
    fn show(&self, offset: u64, bytes: &[u8]) {
        let mut memory = self.0.lock().unwrap();
        let memory = memory.as_mut().expect("it was given up");
        if let Some(place) = memory.get_mut(offset as usize..offset as usize + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn give_up(&self) {
        self.0.lock().unwrap().take().expect("once");
    }
}

#[test]
fn what_is_read_in_memory_is_what_is_read_by_an_exit() {
    let root = root();
    root.add(Box::new(Fake::new(BAR + SIZE))).unwrap();
    let shown = Shown::of(&root);
    shown.assert_true(&root);
    root.ecam_write((1 << 15) + 4, &[0xff, 0xff]);
    shown.assert_true(&root);
    root.remove(1);
    shown.assert_true(&root);
    root.add(Box::new(Fake::new(BAR))).unwrap();
    // One more than there is memory for.
    assert_eq!(root.add(Box::new(Fake::new(BAR + 2 * SIZE))).unwrap(), 3);
    shown.assert_true(&root);
    root.ecam_write((2 << 15) + 0x3c, &[ASKS]);
    assert!(shown.0.lock().unwrap().is_none(), "a read does something");
    root.ecam_write((1 << 15) + 4, &[0]);
}
