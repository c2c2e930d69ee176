use std::sync::mpsc::channel;
use std::thread;

use proptest::prelude::*;

use super::*;

/// Long enough for anything that happens at all, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

fn room(most: usize) -> (Room, Arc<Reminder>) {
    let reminder = Arc::new(Reminder::new().unwrap());
    let mut room = Room::new("t", most, Some(Arc::clone(&reminder)));
    room.patience = LONG;
    (room, reminder)
}

fn errno(result: io::Result<()>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn the_guest_is_reminded_once_until_it_answers_and_again_half_of_the_way() {
    let (room, reminder) = room(1000);
    let mut reminded_at = Vec::new();
    for inode in 1..=1000 {
        assert!(room.look_up(inode));
        if reminder.take() {
            reminded_at.push(inode);
            reminder.answered();
        }
    }
    assert_eq!(reminded_at[..4], [750, 875, 937, 968], "{reminded_at:?}");
    assert!(reminded_at.len() < 10, "{reminded_at:?}");

    room.forget(&(1..=251).map(|inode| (inode, 1)).collect::<Vec<_>>());
    room.opened();
    assert!(reminder.take());
    // As long as it has not answered, nothing comes.
    room.closed();
    room.forget(&[(252, 1)]);
    room.opened();
    assert!(!reminder.take());
}

#[test]
fn without_room_what_is_known_is_still_found() {
    let (room, _) = room(2);
    assert!(room.look_up(1) && room.look_up(2) && room.look_up(1));
    assert!(!room.look_up(3));
    room.forget(&[(1, 1)]);
    assert!(!room.look_up(3));
    room.forget(&[(1, 1)]);
    assert!(room.look_up(3));
}

#[test]
fn a_request_waits_until_the_guest_lets_go() {
    let (room, reminder) = room(4);
    (1..=4).for_each(|inode| assert!(room.look_up(inode)));
    assert!(reminder.take());
    reminder.answered();
    let (done, is_done) = channel();
    thread::scope(|scope| {
        scope.spawn(|| done.send(errno(room.wait())).unwrap());
        // It is asked again by the one that waits.
        while !reminder.take() {
            thread::yield_now();
        }
        assert!(is_done.try_recv().is_err());
        room.forget(&[(4, 1)]);
        reminder.answered();
        assert_eq!(is_done.recv_timeout(LONG).unwrap(), None);
    });
}

#[test]
fn in_vain_it_fails_and_so_do_those_that_follow_at_once() {
    let (room, reminder) = room(1);
    assert!(room.look_up(1));
    thread::scope(|scope| {
        let waits = scope.spawn(|| errno(room.wait()));
        while !waits.is_finished() {
            if reminder.take() {
                reminder.answered();
            }
            thread::yield_now();
        }
        assert_eq!(waits.join().unwrap(), Some(libc::ENFILE));
    });
    assert_eq!(errno(room.wait()), Some(libc::ENFILE));
    assert!(!reminder.take(), "the second one has asked");
    room.forget(&[(1, 1)]);
    assert_eq!(errno(room.wait()), None);
}

#[test]
fn nobody_waits_for_a_guest_that_is_over_or_never_asked() {
    let (bounded, reminder) = room(0);
    bounded.end();
    assert_eq!(errno(bounded.wait()), Some(libc::ENFILE));
    assert!(reminder.take());
    bounded.restart();
    assert!(!bounded.is_over());

    let room = Room::new("t", 0, None);
    assert_eq!(errno(room.wait()), Some(libc::ENFILE));
}

#[test]
fn those_that_wait_leave_threads_for_others() {
    let (room, reminder) = room(0);
    thread::scope(|scope| {
        let waits: Vec<_> = (0..MAX_WAITS)
            .map(|_| scope.spawn(|| errno(room.wait())))
            .collect();
        while room.lock().waiting < MAX_WAITS {
            thread::yield_now();
        }
        assert_eq!(errno(room.wait()), Some(libc::ENFILE));
        room.end();
        reminder.wake();
        for wait in waits {
            assert_eq!(wait.join().unwrap(), Some(libc::ENFILE));
        }
    });
}

proptest! {
    /// What a guest may say that takes back more than it has.
    #[test]
    fn no_order_of_requests_leaves_less_than_the_library_has(
        requests in proptest::collection::vec((0..6_u64, 0..4_u64), 0..60)
    ) {
        let (room, _) = room(4);
        let mut library = HashMap::<u64, u64>::new();
        for (inode, count) in requests {
            if count == 0 {
                let known = library.contains_key(&inode);
                let has_room = library.len() < 4;
                prop_assert_eq!(room.look_up(inode), known || has_room);
                if known || has_room {
                    *library.entry(inode).or_default() += 1;
                }
            } else {
                if let Some(lookups) = library.get_mut(&inode) {
                    *lookups = lookups.saturating_sub(count);
                }
                library.retain(|_, lookups| *lookups > 0);
                room.forget(&[(inode, count)]);
            }
            prop_assert_eq!(room.lock().count(), library.len());
        }
    }
}
