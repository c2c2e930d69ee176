use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use devices::event_loop::EventLoop;
use proto::{Plug, Start, ToGuest, ToHost};

use super::super::signals::Forwarded;
use super::*;
use crate::plug;

/// Long enough for anything that happens at all, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

/// Runs an event loop with a session until that ends it. After `patience` without a Hello it calls
/// `tell`. `guest` gets the other end of the session before. On a thread of its own, as it blocks
/// signals.
fn run(
    patience: Duration,
    tell: impl FnOnce() + Send + 'static,
    guest: impl FnOnce(UnixStream) + Send + 'static,
) -> Progress {
    run_with(patience, tell, |guest_end, _, _| guest(guest_end))
}

/// The same; `guest` gets the watcher's end of the network's changes, too, and who reminds the guest of files.
fn run_with(
    patience: Duration,
    tell: impl FnOnce() + Send + 'static,
    guest: impl FnOnce(UnixStream, OwnedFd, Arc<Reminder>) + Send + 'static,
) -> Progress {
    let monitor = thread::spawn(move || {
        let mut event_loop = EventLoop::new().unwrap();
        let (session, port) = Session::new(Start::default(), false).unwrap();
        let mut timer = TimerFd::new().unwrap();
        timer.reset(patience, None).unwrap();
        let expire = Box::new(tell);
        let hello = HelloTimer { timer, expire };
        let signals = Signals::take(Forwarded::Usual).unwrap();
        let stopper = event_loop.stopper();
        let (watcher, plugs, _) = plug::tests::plugs(event_loop.stopper());
        let mut control = Control::new(Some(session), Some(hello), signals, None, stopper);
        control.set_plugs(plugs);
        let reminder = Arc::new(Reminder::new().unwrap());
        control.set_reminder(Arc::clone(&reminder));
        let progress = control.progress();
        event_loop.add_subscriber(control);
        guest(port, watcher, reminder);
        event_loop.run().unwrap();
        progress.lock().unwrap().clone()
    });
    monitor.join().unwrap()
}

#[test]
fn a_guest_that_is_silent_is_told_of_once_and_goes_on() {
    let (tell, told) = mpsc::channel();
    let (port, its_port) = mpsc::channel();
    let tell = move || {
        tell.send(()).unwrap();
        let mut guest: UnixStream = its_port.recv().unwrap();
        proto::send(&mut guest, &ToHost::hello()).unwrap();
        proto::send(&mut guest, &ToHost::Exited { code: 3 }).unwrap();
        // Until the end, the port is open.
        std::mem::forget(guest);
    };
    let progress = run(Duration::from_millis(1), tell, move |guest| {
        port.send(guest).unwrap();
    });
    assert_eq!(progress.outcome, Some(Outcome::Exited(3)));
    assert!(progress.init_ready.is_some());
    assert_eq!(told.iter().count(), 1);
}

#[test]
fn nothing_is_waited_for_after_hello() {
    let (tell, told) = mpsc::channel();
    let tell = move || tell.send(()).unwrap();
    let progress = run(LONG * 60, tell, move |mut guest| {
        thread::spawn(move || {
            proto::send(&mut guest, &ToHost::hello()).unwrap();
            // It is gone, with the timer that it belongs to.
            let gone = told.recv_timeout(LONG) == Err(RecvTimeoutError::Disconnected);
            let code = if gone { 0 } else { 1 };
            proto::send(&mut guest, &ToHost::Exited { code }).unwrap();
            // Until the end, the port is open.
            std::mem::forget(guest);
        });
    });
    assert_eq!(progress.outcome, Some(Outcome::Exited(0)));
}

#[test]
fn changes_of_the_network_come_after_the_orders_and_one_after_the_other() {
    let routes = Plug::Routes {
        mac: plug::tests::MAC,
        added: Vec::new(),
        removed: Vec::new(),
    };
    let (tell, told) = mpsc::channel();
    let progress = run_with(
        LONG * 60,
        || (),
        move |mut guest, watcher, _| {
            let remove = Plug::Remove(plug::tests::MAC);
            for plug in [&routes, &remove, &routes, &remove] {
                let frame = proto::encode(plug).unwrap();
                plug::tests::send(&watcher, &frame, &[] as &[File]);
            }
            // The end of the watcher is not the guest's.
            drop(watcher);
            thread::spawn(move || {
                proto::send(&mut guest, &ToHost::hello()).unwrap();
                let mut next = || proto::recv::<ToGuest>(&mut guest).unwrap();
                let got = [next(), next(), next()];
                guest.set_nonblocking(true).unwrap();
                let more = proto::recv::<ToGuest>(&mut guest).is_ok();
                guest.set_nonblocking(false).unwrap();
                tell.send((got, more)).unwrap();
                proto::send(&mut guest, &ToHost::Unplugged(plug::tests::MAC)).unwrap();
                proto::send(&mut guest, &ToHost::Exited { code: 0 }).unwrap();
                // Until the end, the port is open.
                std::mem::forget(guest);
            });
        },
    );
    assert_eq!(progress.outcome, Some(Outcome::Exited(0)));
    let ([start, first, second], more) = told.recv().unwrap();
    assert!(matches!(start, ToGuest::Start { .. }), "{start:?}");
    assert!(matches!(first, ToGuest::Plug(Plug::Routes { .. })));
    assert!(matches!(second, ToGuest::Plug(Plug::Remove(_))));
    assert!(!more, "the interface has not left yet");
}

#[test]
fn a_guest_is_asked_to_let_go_of_files_when_it_can_and_once_until_it_has() {
    let (tell, told) = mpsc::channel();
    let progress = run_with(
        LONG * 60,
        || (),
        move |mut guest, _, reminder| {
            thread::spawn(move || {
                // It has no orders yet, so that this is answered for it.
                reminder.remind();
                reminder.wait(LONG, || false);
                proto::send(&mut guest, &ToHost::hello()).unwrap();
                let next = || proto::recv::<ToGuest>(&mut &guest).unwrap();
                let start = next();
                for _ in 0..2 {
                    reminder.remind();
                    reminder.remind();
                    tell.send(next()).unwrap();
                    proto::send(&mut &guest, &ToHost::CachesDropped).unwrap();
                    reminder.wait(LONG, || false);
                }
                assert!(matches!(start, ToGuest::Start { .. }), "{start:?}");
                proto::send(&mut guest, &ToHost::Exited { code: 0 }).unwrap();
                // Until the end, the port is open.
                std::mem::forget(guest);
            });
        },
    );
    assert_eq!(progress.outcome, Some(Outcome::Exited(0)));
    let asked: Vec<_> = told.iter().collect();
    assert_eq!(asked, [ToGuest::DropCaches, ToGuest::DropCaches]);
}

#[test]
fn what_breaks_down_ends_the_wait_too() {
    let progress = run(LONG * 60, || (), drop);
    assert!(
        matches!(progress.outcome, Some(Outcome::Broken(_))),
        "{progress:?}"
    );
    assert_eq!(progress.init_ready, None);
}
