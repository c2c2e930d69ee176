use crate::testing::guest::{AGREED, BAR, EVENT_IDX, Guest, HELLO, RUNNING, VERSION_1};
use crate::testing::probe::{Probe, Told};
use crate::transport::status;

const FEATURES: u64 = VERSION_1 | EVENT_IDX | 1;

fn running() -> (Guest, Vec<u64>) {
    let mut guest = Guest::new(Probe::new());
    let notify = guest.bring_up(FEATURES);
    (guest, notify)
}

#[test]
fn the_function_says_what_it_is() {
    let mut guest = Guest::new(Probe::new());
    assert_eq!(guest.config_read(0x00, 4), 0x1044_1af4);
    assert_eq!(guest.config_read(0x08, 4), 0xff00_0001);
    assert_eq!(guest.config_read(0x2c, 4), 0x0044_1af4);
    assert_eq!(guest.config_read(0x3d, 1), 0, "no INTx");
    assert_eq!(guest.config_read(0x0e, 1), 0, "one function, type 0");
    guest.enumerate();
    let capabilities = guest.capabilities();
    let kinds: Vec<_> = capabilities
        .iter()
        .map(|&(offset, id)| (id, guest.config_read(offset + 3, 1)))
        .collect();
    // MSI-X has no type there, but the upper byte of its control: enabled.
    assert_eq!(
        kinds,
        [
            (9, 1),
            (9, 3),
            (9, 2),
            (9, 4),
            (9, 5),
            (0x11, 0x80),
            (0x14, 0)
        ]
    );
    assert_eq!(guest.config_read(guest.msix() + 2, 2) & 0x7ff, 2);
    assert_eq!(guest.read(guest.common(0x12), 2), 2, "queues");
    assert_eq!(guest.read(BAR + 0x200, 4), 0x0403_0201);
    let device = capabilities[3].0;
    assert_eq!(guest.config_read(device + 12, 4), 4);
}

#[test]
fn a_driver_brings_the_device_up_and_exchanges_buffers() {
    let (mut guest, notify) = running();
    assert_eq!(guest.status(), RUNNING);
    assert_eq!(guest.serve(), [Told::Started { features: FEATURES }]);
    assert_eq!(guest.fabric.bound(), (2, 3));

    let head = guest.queues[1].receive(100);
    guest.write(notify[1], 2, 1);
    assert_eq!(guest.serve(), [Told::Kicked(1)]);
    assert_eq!(guest.queues[1].used(), Some((head.into(), 100)));
    assert_eq!(guest.fabric.interrupts(), [Guest::message(2)]);

    guest.config.update(1, &[0x77]).unwrap();
    assert_eq!(guest.fabric.interrupts(), [Guest::message(0)]);
    assert_eq!(guest.read(guest.common(0x15), 1), 1, "generation");
    assert_eq!(guest.read(BAR + 0x201, 1), 0x77);
    guest.write(BAR + 0x202, 2, 0x0605);
    assert_eq!(guest.serve(), [Told::ConfigWritten(2, vec![5, 6])]);
}

#[test]
fn a_reset_is_complete_when_the_device_has_stopped() {
    let (mut guest, notify) = running();
    guest.serve();
    guest.set_status(0);
    assert_ne!(guest.status(), 0, "the device is not stopped yet");
    assert_eq!(guest.fabric.bound(), (0, 0));
    guest.set_status(status::ACKNOWLEDGE);
    guest.write(notify[0], 2, 0);
    assert_eq!(guest.serve(), [Told::Stopped]);
    assert_eq!(guest.status(), 0, "writes during the reset are ignored");
    for register in [0x00, 0x08, 0x0c, 0x20, 0x28, 0x30] {
        assert_eq!(guest.read(guest.common(register), 4), 0, "{register:#x}");
    }
    assert_eq!(guest.read(guest.common(0x10), 2), 0xffff);
    assert_eq!(guest.read(guest.common(0x18), 2), 256);
    assert_eq!(guest.read(guest.common(0x1a), 2), 0xffff);
    assert_eq!(guest.read(guest.common(0x1c), 2), 0);

    guest.bring_up(VERSION_1);
    let told = guest.serve();
    assert_eq!(
        told,
        [Told::Started {
            features: VERSION_1
        }]
    );
    assert_eq!(guest.fabric.interrupts(), [], "of the time before");
}

#[test]
fn a_function_that_is_removed_stops_its_device_and_leaves_nothing_bound() {
    for resetting in [false, true] {
        let (mut guest, notify) = running();
        guest.serve();
        assert_ne!(guest.fabric.routes(), 0);
        if resetting {
            guest.set_status(0);
        }
        guest.root.remove(1);
        assert_eq!(guest.fabric.bound(), (0, 0));
        assert_eq!(guest.fabric.routes(), 0);
        guest.write(notify[0], 2, 0);
        assert_eq!(guest.serve(), [Told::Stopped]);
        assert_eq!(guest.config_read(0, 4), u32::MAX);
    }
}

#[test]
fn a_reset_of_a_device_that_was_not_started_is_complete_at_once() {
    let mut guest = Guest::new(Probe::new());
    guest.enumerate();
    guest.negotiate(FEATURES);
    guest.set_queue(0, 1);
    guest.set_status(0);
    assert_eq!(guest.status(), 0);
    assert_eq!(guest.serve(), []);
}

#[test]
fn features_must_be_offered_and_modern() {
    let mut guest = Guest::new(Probe::new());
    guest.enumerate();
    // What the device offers beyond the bits of its type is not passed on.
    assert_eq!(guest.offered(), VERSION_1 | EVENT_IDX | 1 << 28 | 1);
    for refused in [0, 1, VERSION_1 | 2, VERSION_1 | 1 << 40, u64::MAX] {
        assert_eq!(guest.negotiate(refused), HELLO, "{refused:#x}");
        guest.set_status(RUNNING);
        assert_eq!(guest.status(), HELLO, "no DRIVER_OK without FEATURES_OK");
    }
    assert_eq!(guest.negotiate(VERSION_1), AGREED);
    guest.write(guest.common(0x08), 4, 0);
    guest.write(guest.common(0x0c), 4, 1);
    assert_eq!(guest.read(guest.common(0x0c), 4), 0, "too late");
    assert_eq!(guest.serve(), []);
}

#[test]
fn queue_registers_take_only_what_a_queue_can_be() {
    let mut guest = Guest::new(Probe::new());
    guest.enumerate();
    guest.negotiate(FEATURES);
    let size = |guest: &Guest| guest.read(guest.common(0x18), 2);
    for invalid in [0, 3, 512, 0x8001, 0xffff] {
        guest.write(guest.common(0x18), 2, invalid);
        assert_eq!(size(&guest), 256);
    }
    guest.write(guest.common(0x18), 2, 16);
    assert_eq!(size(&guest), 16);
    // Alignment: 16, 2, 4 (section 2.7).
    for (register, misaligned) in [(0x20, 0x1008), (0x28, 0x1001), (0x30, 0x1002)] {
        guest.write(guest.common(register), 4, misaligned);
        assert_eq!(guest.read(guest.common(register), 4), 0);
    }
    guest.write(guest.common(0x20), 8, 0x1_0000_2000);
    assert_eq!(guest.read(guest.common(0x24), 4), 1);
    guest.write(guest.common(0x1c), 2, 1);
    guest.write(guest.common(0x18), 2, 32);
    guest.write(guest.common(0x20), 4, 0);
    guest.write(guest.common(0x1c), 2, 0);
    assert_eq!(size(&guest), 16, "fixed once the queue is enabled");
    assert_eq!(guest.read(guest.common(0x20), 8), 0x1_0000_2000);
    assert_eq!(guest.read(guest.common(0x1c), 2), 1);

    guest.write(guest.common(0x16), 2, 2);
    assert_eq!(size(&guest), 0, "no such queue");
    guest.write(guest.common(0x1c), 2, 1);
    assert_eq!(guest.read(guest.common(0x1c), 2), 0);
}

#[test]
fn rings_outside_of_memory_make_the_device_need_a_reset() {
    let end = 1 << 20;
    // The descriptor table of 256 entries has 4096 bytes: the first one just fits.
    for (table, status) in [
        (end - 4096, RUNNING),
        (end - 4080, RUNNING | status::NEEDS_RESET),
        (end, RUNNING | status::NEEDS_RESET),
        (!0xf, RUNNING | status::NEEDS_RESET),
    ] {
        let mut guest = Guest::new(Probe::new());
        guest.enumerate();
        guest.negotiate(FEATURES);
        guest.set_vector(0);
        guest.write(guest.common(0x10), 2, 0);
        for (register, address) in [(0x20, table), (0x28, 0x1000), (0x30, 0x2000)] {
            guest.write(guest.common(register), 8, address);
        }
        guest.write(guest.common(0x1c), 2, 1);
        guest.set_status(RUNNING);
        assert_eq!(guest.status(), status, "{table:#x}");
        let broken = status != RUNNING;
        let raised = if broken {
            vec![Guest::message(0)]
        } else {
            vec![]
        };
        assert_eq!(guest.fabric.interrupts(), raised);
        assert_eq!(guest.serve().is_empty(), broken);
        guest.set_status(0);
        guest.serve();
        assert_eq!((guest.status(), guest.fabric.bound()), (0, (0, 0)));
    }
}

#[test]
fn a_device_that_fails_needs_a_reset_and_can_be_used_after_it() {
    let mut guest = Guest::new(Probe {
        fail_kick: true,
        ..Probe::new()
    });
    let notify = guest.bring_up(FEATURES);
    guest.write(notify[0], 2, 0);
    guest.serve();
    assert_eq!(guest.status(), RUNNING | status::NEEDS_RESET);
    assert_eq!(guest.fabric.interrupts(), [Guest::message(0)]);
    guest.set_status(0);
    assert_eq!(guest.status(), 0, "nothing to wait for");
    guest.bring_up(FEATURES);
    assert_eq!(guest.serve(), [Told::Started { features: FEATURES }]);
    assert_eq!(guest.status(), RUNNING);
}

#[test]
fn an_interrupt_of_a_masked_vector_is_pending_and_delivered_later() {
    let (mut guest, notify) = running();
    let masks: [fn(&Guest, bool); 2] = [
        |guest, mask| guest.mask_vector(2, mask),
        |guest, mask| {
            let control = if mask { 0xc000 } else { 0x8000 };
            guest.config_write(guest.msix() + 2, 2, control);
        },
    ];
    for (turn, mask) in (0..).zip(masks) {
        mask(&guest, true);
        guest.queues[1].set_used_event(turn);
        guest.queues[1].receive(1);
        guest.write(notify[1], 2, 1);
        guest.serve();
        assert_eq!(guest.fabric.interrupts(), []);
        assert_eq!((guest.pending(), guest.pending()), (0b100, 0b100));
        mask(&guest, false);
        assert_eq!(guest.fabric.interrupts(), [Guest::message(2)]);
        assert_eq!(guest.pending(), 0);
    }
}

#[test]
fn a_message_can_change_and_a_vector_can_be_shared_moved_and_given_up() {
    let (mut guest, _) = running();
    guest.serve();
    // Unmasked, as no driver should, but a guest can.
    guest.write(BAR + 0x1000 + 8, 4, 0x99);
    guest.config.interrupt().unwrap();
    assert_eq!(guest.fabric.interrupts()[0].data, 0x99);
    // All on vector 0.
    for queue in 0..2 {
        guest.write(guest.common(0x16), 2, queue);
        guest.write(guest.common(0x1a), 2, 0);
        assert_eq!(guest.read(guest.common(0x1a), 2), 0);
    }
    assert_eq!(guest.fabric.bound(), (2, 3));
    guest.write(guest.common(0x1a), 2, 0xffff);
    assert_eq!(guest.fabric.bound(), (2, 2));
    guest.write(guest.common(0x1a), 2, 3);
    assert_eq!(
        guest.read(guest.common(0x1a), 2),
        0xffff,
        "there is no vector 3"
    );
    guest.config_write(guest.msix() + 2, 2, 0);
    assert_eq!(guest.fabric.bound(), (2, 0), "MSI-X is off");
}

#[test]
fn a_device_works_when_the_hypervisor_binds_no_kick_and_no_vector() {
    let mut guest = Guest::new(Probe::new());
    guest.fabric.refuse(true);
    let notify = guest.bring_up(FEATURES);
    guest.write(guest.common(0x16), 2, 0);
    assert_eq!(guest.read(guest.common(0x1a), 2), 0xffff);
    guest.serve();
    guest.queues[0].send(b"x");
    guest.write(notify[0], 2, 0);
    assert_eq!(guest.serve(), [Told::Kicked(0)]);
    assert!(guest.queues[0].used().is_some());
}

#[test]
fn the_window_in_configuration_space_reaches_all_registers() {
    let (mut guest, _) = running();
    guest.serve();
    // Memory decoding need not be on for it (section 4.1.4.9).
    guest.config_write(0x04, 2, 0);
    let window = guest.capabilities()[4].0;
    let aim = |guest: &Guest, offset: u32, length: u32| {
        guest.config_write(window + 4, 1, 0);
        guest.config_write(window + 8, 4, offset);
        guest.config_write(window + 12, 4, length);
    };
    aim(&guest, 0x14, 1);
    assert_eq!(guest.config_read(window + 16, 1), u32::from(RUNNING));
    aim(&guest, 0x3004, 2);
    guest.config_write(window + 16, 2, 1);
    assert_eq!(guest.serve(), [Told::Kicked(1)]);
    for (offset, length) in [(0x14, 0), (0x14, 3), (0x15, 2), (0x3ffe, 4), (u32::MAX, 1)] {
        aim(&guest, offset, length);
        guest.config_write(window + 16, 4, 0);
        guest.config_read(window + 16, 4);
    }
    aim(&guest, 0x14, 1);
    guest.config_write(window + 4, 1, 1);
    guest.config_write(window + 16, 1, 0);
    guest.config_write(window + 4, 1, 0);
    assert_eq!(
        guest.config_read(window + 16, 1),
        u32::from(RUNNING),
        "there is no BAR 1"
    );
    guest.config_write(window + 16, 1, 0);
    assert_eq!(guest.serve(), [Told::Stopped]);
    assert_eq!(guest.config_read(window + 16, 1), 0);
}
