//! Any sequence of commands with any data, in any state of the device.

use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::tests::{Driver, INDICATORS};
use crate::css::Instruction;
use crate::fabric::Doorbell;
use crate::testing::channel::{ChannelGuest, DATA, FIRST};
use crate::testing::probe::Probe;
use crate::transport::status;

/// Something that happens to the device.
#[derive(Clone, Debug)]
enum Event {
    Command(u8, Vec<u8>),
    Revision(u8),
    /// A step of a driver's, with arguments that are right as a rule.
    SetQueue(u8),
    SetIndicators(u8, u64),
    BringUp,
    Kick(u16),
    Disable,
    Clear,
    /// The device's side.
    Serve,
    HostSignal,
    Refuse(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let command = prop::sample::select(vec![
        0x11, 0x12, 0x13, 0x21, 0x22, 0x31, 0x32, 0x33, 0x43, 0x53, 0x72, 0x73, 0x83, 0x04, 0xe4,
    ]);
    let address = prop_oneof![Just(INDICATORS), Just(0), 0..0x10_0008_u64, any::<u64>()];
    let indicators = prop::sample::select(vec![0x43, 0x53, 0x73]);
    let status = prop::sample::select(vec![0, 3, 11, 15]);
    prop_oneof![
        4 => (command, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(command, data)| Event::Command(command, data)),
        3 => status.prop_map(|status| Event::Command(0x31, vec![status])),
        1 => (0..4_u8).prop_map(Event::Revision),
        2 => (0..3_u8).prop_map(Event::SetQueue),
        3 => (indicators, address).prop_map(|(command, at)| Event::SetIndicators(command, at)),
        3 => Just(Event::BringUp),
        2 => (0..3_u16).prop_map(Event::Kick),
        1 => Just(Event::Disable),
        1 => Just(Event::Clear),
        3 => Just(Event::Serve),
        1 => Just(Event::HostSignal),
        1 => any::<bool>().prop_map(Event::Refuse),
    ]
}

/// Starts a command, and fetches whatever status comes.
fn command(guest: &ChannelGuest, command: u8, data: &[u8]) {
    guest.write(DATA.into(), data);
    guest.start(&[ChannelGuest::ccw(command, data.len())]);
    guest.first(Instruction::TestSubchannel);
}

fn set_queue(driver: &Driver, index: u8) {
    let base = 0x1_0000 * (u64::from(index) + 1);
    let mut block = [0; 32];
    block[..8].copy_from_slice(&base.to_be_bytes());
    block[13] = index;
    block[15] = 8;
    block[16..24].copy_from_slice(&(base + 0x1000).to_be_bytes());
    block[24..].copy_from_slice(&(base + 0x2000).to_be_bytes());
    command(&driver.guest, 0x13, &block);
}

fn set_indicators(driver: &Driver, code: u8, at: u64) {
    let mut area = at.to_be_bytes().to_vec();
    if code == 0x73 {
        area.extend(at.to_be_bytes());
        area.extend((at >> 3).to_be_bytes());
        area.push((at % 9) as u8);
    }
    command(&driver.guest, code, &area);
}

/// As far as it goes: a reset may have been left half-way.
fn bring_up(driver: &mut Driver) {
    driver.guest.enable_again();
    for (code, data) in [(0x83, &[0, 2, 0, 0][..]), (0x33, &[])] {
        command(&driver.guest, code, data);
    }
    driver.serve();
    driver.guest.first(Instruction::TestSubchannel);
    for (code, data) in [
        (0x31, &[3][..]),
        (0x11, &[0, 0, 0, 0, 0]),
        (0x11, &[1, 0, 0, 0, 1]),
        (0x31, &[11]),
    ] {
        command(&driver.guest, code, data);
    }
    set_queue(driver, 0);
    command(&driver.guest, 0x31, &[15]);
}

fn play(driver: &mut Driver, host: &EventFd, event: Event) {
    match event {
        Event::Command(code, data) => command(&driver.guest, code, &data),
        Event::Revision(revision) => command(&driver.guest, 0x83, &[0, revision, 0, 0]),
        Event::SetQueue(index) => set_queue(driver, index),
        Event::SetIndicators(code, at) => set_indicators(driver, code, at),
        Event::BringUp => bring_up(driver),
        Event::Kick(queue) => {
            let doorbell = Doorbell::Subchannel { id: FIRST, queue };
            if !driver.fabric.guest_rings(doorbell) {
                driver.guest.css.notified(FIRST, queue);
            }
        }
        Event::Disable => {
            driver.guest.set_up(|pmcw| pmcw.flags = 0);
        }
        Event::Clear => {
            driver.guest.first(Instruction::ClearSubchannel);
        }
        Event::Serve => {
            driver.serve();
        }
        Event::HostSignal => host.write(1).unwrap(),
        Event::Refuse(refuse) => driver.fabric.refuse(refuse),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Nothing panics and nothing waits, the hypervisor's bindings balance (the fake one checks each), the device can be
    /// used again after a reset, and be removed.
    #[test]
    fn any_commands_leave_a_device_that_can_be_used_and_removed(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let probe = Probe::new();
        let host = probe.host.try_clone().unwrap();
        let mut driver = Driver::probe(probe);
        bring_up(&mut driver);
        for event in events {
            play(&mut driver, &host, event);
            let (kicks, calls) = driver.fabric.bound();
            prop_assert!(kicks <= 2 && calls <= 2);
        }
        driver.fabric.refuse(false);
        driver.guest.enable_again();
        driver.guest.first(Instruction::ClearSubchannel);
        // A reset that was given up ends all the same.
        driver.serve();
        driver.guest.first(Instruction::TestSubchannel);
        driver.guest.set_up(|pmcw| pmcw.flags = 0);
        bring_up(&mut driver);
        driver.guest.interrupts();
        let now = driver.status();
        prop_assert!(now & status::DRIVER_OK != 0);
        driver.guest.css.remove(0);
        prop_assert_eq!((driver.fabric.bound(), driver.fabric.routes()), ((0, 0), 0));
        // Told all that came before: nothing is left to serve.
        driver.serve();
        host.write(1).unwrap();
        prop_assert_eq!(driver.serve(), []);
    }
}
