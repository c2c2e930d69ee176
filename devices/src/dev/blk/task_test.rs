//! Which calls a request takes.

use super::*;

const RANGE: Range = Range {
    offset: 4096,
    length: 3 << 20,
};

fn error(errno: i32) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(errno))
}

fn is_ok(next: &Next) -> bool {
    matches!(next, Next::Done(Status::Ok, None))
}

#[test]
fn a_call_that_did_only_a_part_is_followed_by_one_for_the_rest() {
    let pieces = Pieces::zeroes(1 << 20);
    let range = Range {
        offset: 0,
        length: 1 << 20,
    };
    let mut task = Task::write(range, pieces, true);
    assert!(matches!(task.returned(Ok(70_000)), Next::Call));
    assert_eq!(task.range().offset, 70_000);
    let left: usize = task.pieces().left().iter().map(|piece| piece.iov_len).sum();
    assert_eq!(left, (1 << 20) - 70_000);
    assert!(matches!(task.returned(error(libc::EINTR)), Next::Call));
    assert_eq!(task.call(), Call::Write { stable: true });
    assert!(is_ok(&task.returned(Ok((1 << 20) - 70_000))));
}

#[test]
fn what_can_not_be_read_or_written_is_an_error() {
    let read = || Task::read(RANGE, Pieces::zeroes(1 << 20));
    for result in [Ok(0), error(libc::EIO), error(libc::ENOSPC)] {
        let next = read().returned(result);
        assert!(
            matches!(next, Next::Done(Status::IoError, Some(_))),
            "{next:?}"
        );
    }
}

#[test]
fn a_change_that_is_to_be_stable_is_synced() {
    for mut task in [Task::discard(RANGE, true), Task::zero(RANGE, false, true)] {
        assert!(matches!(task.call(), Call::Allocate(_)));
        assert!(matches!(task.returned(Ok(0)), Next::Call));
        assert_eq!(task.call(), Call::Sync);
        assert!(is_ok(&task.returned(Ok(0))));
    }
    assert!(is_ok(&Task::zero(RANGE, false, false).returned(Ok(0))));
}

#[test]
fn a_file_system_without_holes_discards_nothing() {
    let mut task = Task::discard(RANGE, true);
    assert!(is_ok(&task.returned(error(libc::EOPNOTSUPP))));
    let next = Task::discard(RANGE, true).returned(error(libc::EIO));
    assert!(matches!(next, Next::Done(Status::IoError, Some(_))));
}

#[test]
fn a_file_system_that_clears_nothing_gets_zeroes() {
    let mut task = Task::zero(RANGE, true, true);
    let mut next = task.returned(error(libc::EOPNOTSUPP));
    let mut written = 0;
    while let Next::Call = next {
        assert_eq!(task.call(), Call::Write { stable: true });
        assert_eq!(task.range().offset, RANGE.offset + written);
        let left = task.pieces().left().iter();
        let count: usize = left.map(|piece| piece.iov_len).sum();
        assert!(count > 0 && count <= 1 << 20);
        written += count as u64;
        next = task.returned(Ok(count));
    }
    assert!(is_ok(&next));
    assert_eq!(written, RANGE.length);
}
