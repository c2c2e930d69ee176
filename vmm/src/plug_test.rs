use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;

use devices::event_loop::{DeviceHandle, EventLoop};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};

use super::*;
use crate::network::Tap;

pub(crate) const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

/// A bus without a guest.
#[derive(Default)]
pub(crate) struct FakeBus {
    attached: Mutex<BTreeMap<u8, DeviceHandle>>,
}

impl FakeBus {
    pub(crate) fn slots(&self) -> Vec<u8> {
        self.attached.lock().unwrap().keys().copied().collect()
    }
}

impl Bus for FakeBus {
    fn attach(&self, device: DeviceHandle) -> Result<u8> {
        let mut attached = self.attached.lock().unwrap();
        let slot = attached.len() as u8 + 10;
        attached.insert(slot, device);
        Ok(slot)
    }

    fn detach(&self, slot: u8) {
        self.attached.lock().unwrap().remove(&slot);
    }
}

/// The watcher's end of the socket, and changes for a guest that has the interface [`MAC`] in slot 3.
pub(crate) fn plugs(vm: Stopper) -> (OwnedFd, Plugs, Arc<FakeBus>) {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
    let bus = Arc::<FakeBus>::default();
    let slots = BTreeMap::from([(MAC, 3)]);
    let plugs = Plugs::new(theirs, bus.clone(), DeviceThreads::default(), slots, vm);
    (ours, plugs, bus)
}

fn new() -> (OwnedFd, Plugs, Arc<FakeBus>) {
    plugs(EventLoop::new().unwrap().stopper())
}

pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[impl AsFd]) {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    let bytes = [IoSlice::new(bytes)];
    sendmsg(socket, &bytes, &mut control, SendFlags::empty()).unwrap();
}

fn frame(plug: &Plug) -> Vec<u8> {
    proto::encode(plug).unwrap()
}

fn interface(mac: MacAddress) -> Interface {
    Interface {
        mac,
        name: "eth1".to_owned(),
        ..Interface::default()
    }
}

/// Sends descriptors with a message that is refused; they are all closed then.
fn refused(bytes: &[u8], count: usize) {
    let (socket, mut plugs, bus) = new();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    send(&socket, bytes, &vec![theirs.as_fd(); count]);
    drop(theirs);
    assert_eq!(plugs.receive().unwrap(), None);
    assert!(plugs.is_ready() && bus.slots().is_empty());
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "{count} left open");
}

const NONE: &[File] = &[];

#[test]
fn what_makes_no_sense_is_refused_and_its_descriptors_are_closed() {
    let add = frame(&Plug::Add(interface(OTHER)));
    for bytes in [&b"nonsense"[..], &[9, 0, 0, 0], &[1, 0, 0, 0, 99]] {
        refused(bytes, 1);
    }
    refused(&add[..add.len() - 1], 1);
    refused(&[&add[..], &[0]].concat(), 1);
    // No tap, no taps, and more than there may be.
    for count in [0, 1, 3, 16, 17, 30] {
        refused(&add, count);
    }
    refused(&frame(&Plug::Add(interface(MAC))), 1);
    let group = MacAddress([1, 0, 0, 0, 0, 1]);
    refused(&frame(&Plug::Add(interface(group))), 1);
    refused(&frame(&Plug::Remove(MAC)), 1);
    refused(&frame(&Plug::Remove(OTHER)), 0);
    let routes = Plug::Routes {
        mac: OTHER,
        added: Vec::new(),
        removed: Vec::new(),
    };
    refused(&frame(&routes), 0);
}

#[test]
fn an_interface_leaves_when_the_guest_has_let_go_of_it() {
    let (socket, mut plugs, bus) = new();
    assert_eq!(plugs.receive().unwrap(), None, "nothing was sent");
    let remove = Plug::Remove(MAC);
    // Not before it is told to.
    plugs.unplugged(MAC);
    send(&socket, &frame(&remove), NONE);
    assert_eq!(plugs.receive().unwrap(), Some(remove.clone()));
    for mac in [OTHER, MAC, MAC] {
        assert_eq!(plugs.is_ready(), plugs.slots.is_empty());
        plugs.unplugged(mac);
    }
    assert!(plugs.is_ready() && bus.slots().is_empty());
    send(&socket, &frame(&remove), NONE);
    assert_eq!(plugs.receive().unwrap(), None, "it is gone");
}

#[test]
fn the_end_of_the_socket_is_the_end_of_changes() {
    let (socket, mut plugs, _) = new();
    send(&socket, &frame(&Plug::Remove(MAC)), NONE);
    drop(socket);
    assert!(plugs.receive().unwrap().is_some());
    let error = plugs.receive().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn an_interface_with_a_tap_comes_and_goes_and_comes_again() {
    let test = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return eprintln!("left out: no network namespace: {error}");
        }
        let (socket, mut plugs, bus) = new();
        for _ in 0..2 {
            let taps = match Tap::tun("tst0", 2) {
                Ok(taps) => taps,
                Err(error) => return eprintln!("left out: {error}"),
            };
            let add = Plug::Add(interface(OTHER));
            let taps: Vec<_> = taps.into_iter().map(OwnedFd::from).collect();
            send(&socket, &frame(&add), &taps);
            drop(taps);
            assert_eq!(plugs.receive().unwrap(), Some(add));
            assert_eq!(bus.slots(), [10]);
            send(&socket, &frame(&Plug::Remove(OTHER)), NONE);
            assert!(plugs.receive().unwrap().is_some());
            plugs.unplugged(OTHER);
            assert_eq!(bus.slots(), []);
            // The last descriptor is closed.
            let mut netlink = std::process::Command::new("ip");
            let found = netlink.args(["link", "show", "tst0"]).output();
            assert!(found.is_ok_and(|found| !found.status.success()));
        }
    };
    thread::spawn(test).join().unwrap();
}

proptest! {
    #[test]
    fn any_message_is_survived(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        let (socket, mut plugs, bus) = new();
        send(&socket, &bytes, NONE);
        plugs.receive().unwrap();
        prop_assert!(bus.slots().is_empty());
    }
}
