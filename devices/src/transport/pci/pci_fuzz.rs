//! Any sequence of register accesses, of any width at any place, in any state of the device.

use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use crate::testing::guest::{AGREED, BAR, Guest, HELLO, RUNNING, VERSION_1};
use crate::testing::probe::Probe;
use crate::transport::status;

/// Something that happens to the function.
#[derive(Clone, Debug)]
enum Event {
    ConfigRead(u64, usize),
    ConfigWrite(u64, Vec<u8>),
    BarRead(u64, usize),
    BarWrite(u64, Vec<u8>),
    /// A step of a driver's, with arguments that are right as a rule.
    SetUpQueue(u16, u16),
    SetVector(u64),
    BringUp,
    SetStatus(u8),
    Notify(u64),
    /// The device's side.
    Serve,
    HostSignal,
    Refuse(bool),
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let small = prop::sample::select(vec![0, 1, 2, 4, 8, 0xff, 0xffff_ffff_ffff_ffff_u64]);
    let value = prop_oneof![small, any::<u64>()];
    let width = prop_oneof![8 => prop::sample::select(vec![1, 2, 4, 8]), 1 => 0_usize..20];
    (value, width).prop_map(|(value, width)| {
        let mut data = value.to_le_bytes().to_vec();
        data.resize(width, 0xa5);
        data
    })
}

/// Places in the BAR: mostly where registers are.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0_u64..0x40).prop_map(|o| o & !1),
        4 => 0x1000_u64..0x1040,
        1 => 0x2000_u64..0x2010,
        1 => 0x3000_u64..0x3010,
        2 => 0_u64..0x4010,
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let width = || 0_usize..20;
    let status = prop_oneof![
        prop::sample::select(vec![0, HELLO, AGREED, RUNNING]),
        any::<u8>()
    ];
    prop_oneof![
        2 => (0_u64..0x1010, width()).prop_map(|(o, w)| Event::ConfigRead(o, w)),
        4 => (0_u64..0x120, data()).prop_map(|(o, d)| Event::ConfigWrite(o, d)),
        2 => (place(), width()).prop_map(|(o, w)| Event::BarRead(o, w)),
        8 => (place(), data()).prop_map(|(o, d)| Event::BarWrite(o, d)),
        2 => (0_u16..2, 0_u16..5).prop_map(|(q, v)| Event::SetUpQueue(q, v)),
        1 => (0_u64..4).prop_map(Event::SetVector),
        2 => Just(Event::BringUp),
        3 => status.prop_map(Event::SetStatus),
        2 => (0_u64..3).prop_map(Event::Notify),
        3 => Just(Event::Serve),
        1 => Just(Event::HostSignal),
        1 => any::<bool>().prop_map(Event::Refuse),
    ]
}

fn play(guest: &mut Guest, host: &EventFd, event: Event) {
    let mut buffer = [0; 32];
    match event {
        Event::ConfigRead(offset, width) => {
            guest
                .root
                .ecam_read((1 << 15) + offset, &mut buffer[..width]);
        }
        Event::ConfigWrite(offset, data) => guest.root.ecam_write((1 << 15) + offset, &data),
        Event::BarRead(offset, width) => guest.root.mmio_read(BAR + offset, &mut buffer[..width]),
        Event::BarWrite(offset, data) => {
            if !guest.fabric.guest_writes(BAR + offset) {
                guest.root.mmio_write(BAR + offset, &data);
            }
        }
        Event::SetUpQueue(queue, vector) => {
            guest.set_queue(queue, vector);
        }
        Event::SetVector(vector) => guest.set_vector(vector),
        Event::BringUp => {
            // As far as it goes: a reset may have been left half-way.
            guest.set_status(0);
            guest.serve();
            guest.config_write(0x04, 2, 0b110);
            guest.negotiate(VERSION_1);
            guest.set_queue(0, 1);
            guest.set_status(RUNNING);
        }
        Event::SetStatus(status) => guest.set_status(status),
        Event::Notify(queue) => guest.write(BAR + 0x3000 + 4 * queue, 2, queue),
        Event::Serve => {
            guest.serve();
        }
        Event::HostSignal => host.write(1).unwrap(),
        Event::Refuse(refuse) => guest.fabric.refuse(refuse),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nothing panics and nothing waits, the hypervisor's bindings balance (the fake one checks
    /// each), they exist only while a driver is there, and a reset always works.
    #[test]
    fn any_accesses_leave_a_function_that_can_be_reset(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let probe = Probe::new();
        let host = probe.host.try_clone().unwrap();
        let mut guest = Guest::new(probe);
        guest.enumerate();
        for event in events {
            play(&mut guest, &host, event);

            // With decoding on, so that the registers can be seen.
            let command = guest.config_read(0x04, 2);
            guest.config_write(0x04, 2, 0b110);
            let now = guest.status();
            let (kicks, calls) = guest.fabric.bound();
            if now & status::DRIVER_OK == 0 {
                prop_assert_eq!((kicks, calls), (0, 0));
            } else {
                prop_assert!(now & status::FEATURES_OK != 0);
            }
            prop_assert!(kicks <= 2 && calls <= 3);
            guest.config_write(0x04, 2, command);
        }
        guest.config_write(0x04, 2, 0b110);
        guest.set_status(0);
        prop_assert_eq!(guest.fabric.bound(), (0, 0));
        guest.serve();
        prop_assert_eq!(guest.status(), 0);

        guest.fabric.refuse(false);
        guest.bring_up(VERSION_1);
        prop_assert_eq!(guest.status(), RUNNING);
    }

    /// Whatever a driver is at, its function can be taken from it.
    #[test]
    fn any_accesses_leave_a_function_that_can_be_removed(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let probe = Probe::new();
        let host = probe.host.try_clone().unwrap();
        let mut guest = Guest::new(probe);
        guest.enumerate();
        for event in events {
            play(&mut guest, &host, event);
        }
        guest.root.remove(1);
        prop_assert_eq!((guest.fabric.bound(), guest.fabric.routes()), ((0, 0), 0));
        prop_assert_eq!(guest.config_read(0, 4), u32::MAX);
        // Told all that came before: nothing is left to serve.
        guest.serve();
        host.write(1).unwrap();
        prop_assert_eq!(guest.serve(), []);
    }
}
