//! Power fails, or the monitor dies, at any moment: the image is sound, and has what was flushed.

use std::collections::BTreeSet;
use std::sync::Arc;

use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder};
use proptest::prelude::*;

use super::*;

const SECTOR: usize = 512;
/// As small as a cluster can be: then there are more tables than the crate keeps in memory.
const CLUSTER: usize = 512;
const SIZE: usize = 10 << 20;

/// What became of a storage.
#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    Sync,
}

/// A storage in memory that knows what was written since its beginning.
#[derive(Clone, Debug, Default)]
struct Journal {
    contents: Arc<Mutex<Vec<u8>>>,
    events: Arc<Mutex<Vec<Event>>>,
    helper: Arc<CommonStorageHelper>,
}

impl Journal {
    fn of(contents: Vec<u8>) -> Self {
        Self {
            contents: Arc::new(Mutex::new(contents)),
            ..Self::default()
        }
    }

    /// How much has happened.
    fn now(&self) -> usize {
        self.events.lock().unwrap().len()
    }
}

fn put(contents: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let at = offset as usize;
    contents.resize(contents.len().max(at + data.len()), 0);
    contents[at..at + data.len()].copy_from_slice(data);
}

impl Storage for Journal {
    fn size(&self) -> io::Result<u64> {
        Ok(self.contents.lock().unwrap().len() as u64)
    }

    unsafe fn pure_readv(&self, mut data: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let contents = self.contents.lock().unwrap();
        let mut bytes = vec![0; data.len() as usize];
        let there = contents.get(offset as usize..).unwrap_or_default();
        let length = there.len().min(bytes.len());
        bytes[..length].copy_from_slice(&there[..length]);
        data.copy_from_slice(&bytes);
        Ok(())
    }

    unsafe fn pure_writev(&self, data: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut bytes = vec![0; data.len() as usize];
        data.copy_into_slice(&mut bytes);
        put(&mut self.contents.lock().unwrap(), offset, &bytes);
        let event = Event::Write(offset, bytes);
        self.events.lock().unwrap().push(event);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.events.lock().unwrap().push(Event::Sync);
        Ok(())
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }
}

impl Display for Journal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("journal")
    }
}

/// What a guest does; a place and a length are in sectors.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Clear(usize, usize),
    Discard(usize, usize),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..SIZE / SECTOR - 96, 1usize..96);
    prop_oneof![
        8 => place().prop_map(|(at, length)| Step::Write(at, length)),
        1 => place().prop_map(|(at, length)| Step::Clear(at, length)),
        2 => place().prop_map(|(at, length)| Step::Discard(at, length)),
        1 => Just(Step::Flush),
    ]
}

/// A step, and when it began and ended; what it wrote is its number in each sector, or nothing.
struct Done {
    step: Step,
    time: Range<usize>,
}

fn open(journal: Journal, durable: bool) -> FormatAccess<Ordered<Journal>> {
    let ordered = Ordered::new(journal, durable).unwrap();
    let image = Qcow2::<Ordered<Journal>>::builder(ordered).write(true);
    FormatAccess::new(image.open(DenyImplicitOpenGate::default()).unwrap())
}

fn contents(number: usize, sectors: usize) -> Vec<u8> {
    (number as u32 + 1)
        .to_le_bytes()
        .repeat(sectors * SECTOR / 4)
}

/// Does all steps with a new image; returns how it was, what was done, and what became of the storage.
fn run(steps: &[Step], durable: bool) -> (Vec<u8>, Vec<Done>, Vec<Event>) {
    let journal = Journal::default();
    let made = Qcow2::<Journal>::create_builder(journal.clone());
    made.size(SIZE as u64)
        .cluster_size(CLUSTER)
        .create()
        .unwrap();
    let new = journal.contents.lock().unwrap().clone();
    journal.events.lock().unwrap().clear();
    let mut image = open(journal.clone(), durable);
    let mut done = Vec::new();
    for (number, step) in steps.iter().cloned().enumerate() {
        let begun = journal.now();
        let bytes = |sectors: usize| (sectors * SECTOR) as u64;
        match step {
            Step::Write(at, length) => image.write(&contents(number, length)[..], bytes(at)),
            Step::Clear(at, length) => image.write_zeroes(bytes(at), bytes(length)),
            Step::Discard(at, length) => image.discard_to_zero(bytes(at), bytes(length)),
            Step::Flush => image.flush().and_then(|()| image.sync()),
        }
        .unwrap();
        let time = begun..journal.now();
        done.push(Done { step, time });
    }
    image.flush().unwrap();
    let events = journal.events.lock().unwrap().clone();
    (new, done, events)
}

/// Nothing in the image leads to a cluster that is not counted, or to one twice.
fn check_sound(image: &[u8]) {
    let number = |at: usize, size: usize| {
        let bytes = image
            .iter()
            .skip(at)
            .chain(std::iter::repeat(&0))
            .take(size);
        bytes.fold(0usize, |number, &byte| number << 8 | usize::from(byte))
    };
    let count = |offset: usize| {
        let (block, rest) = (
            offset / CLUSTER / (CLUSTER / 2),
            offset / CLUSTER % (CLUSTER / 2),
        );
        match number(number(48, 8) + block * 8, 8) {
            0 => 0,
            block => number(block + rest * 2, 2),
        }
    };
    let mut seen = BTreeSet::new();
    let mut visit = |entry: usize| {
        let offset = entry & OFFSET as usize;
        if offset > 0 {
            assert!(count(offset) > 0, "cluster {offset:#x} is not counted");
            assert!(seen.insert(offset), "cluster {offset:#x} is used twice");
        }
        offset
    };
    let first = number(40, 8);
    for at in 0..number(36, 4) {
        let second = visit(number(first + at * 8, 8));
        for at in 0..CLUSTER / 8 * usize::from(second > 0) {
            visit(number(second + at * 8, 8));
        }
    }
}

/// Each sector of the image has what was in it at the last flush that ended before `cut`, or came later.
fn check_contents(image: Vec<u8>, done: &[Done], cut: usize) {
    let mut allowed = vec![vec![0; 1]; SIZE / SECTOR];
    for (number, Done { step, time }) in done.iter().enumerate() {
        let (at, length, value) = match *step {
            Step::Write(at, length) => (at, length, number as u32 + 1),
            Step::Clear(at, length) | Step::Discard(at, length) => (at, length, 0),
            Step::Flush if time.end <= cut => {
                let all = allowed.iter_mut();
                all.for_each(|values| drop(values.drain(..values.len() - 1)));
                continue;
            }
            Step::Flush => continue,
        };
        if time.start < cut {
            allowed[at..at + length]
                .iter_mut()
                .for_each(|values| values.push(value));
        }
    }
    let image = open(Journal::of(image), false);
    let mut data = vec![0; SIZE];
    image.read(&mut data[..], 0).unwrap();
    for (number, sector) in data.chunks(SECTOR).enumerate() {
        let value = u32::from_le_bytes(sector[..4].try_into().unwrap());
        assert!(
            allowed[number].contains(&value),
            "sector {number} has {value}, not of {:?}",
            allowed[number]
        );
    }
}

/// What is in the storage when power fails after so many events: of each sector what was stable, or any of what was
/// written to it since.
fn after_power_cut(
    mut image: Vec<u8>,
    events: &[Event],
    mut choose: impl FnMut() -> bool,
) -> Vec<u8> {
    let last = events
        .iter()
        .rposition(|event| matches!(event, Event::Sync));
    let stable = last.map_or(0, |last| last + 1);
    for (number, event) in events.iter().enumerate() {
        let Event::Write(offset, data) = event else {
            continue;
        };
        for (sector, data) in data.chunks(SECTOR).enumerate() {
            if number < stable || choose() {
                put(&mut image, offset + (sector * SECTOR) as u64, data);
            }
        }
    }
    image
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn power_may_fail_at_any_moment(steps in proptest::collection::vec(step(), 500..700), seed in any::<u64>()) {
        // So much that the table of counts grows.
        let all = [Step::Write(0, SIZE / SECTOR)];
        let steps = [&steps[..200], &all, &steps[200..]].concat();
        let (new, done, events) = run(&steps, true);
        let grown = |event: &Event| matches!(event, Event::Write(at, _) if *at < CLUSTER as u64);
        let grown = events.iter().position(grown).unwrap();
        let mut random = seed | 1;
        let mut next = || {
            // Marsaglia's xorshift.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let after = (1..6).map(|n| (grown + n).min(events.len()));
        let cuts: Vec<_> = (0..20).map(|_| next() as usize % events.len()).chain(after).collect();
        for cut in cuts {
            let image = after_power_cut(new.clone(), &events[..cut], || next() % 2 == 0);
            check_sound(&image);
            check_contents(image, &done, cut);
        }
    }

    #[test]
    fn the_monitor_may_die_at_any_moment(steps in proptest::collection::vec(step(), 500..700)) {
        let (new, done, events) = run(&steps, false);
        let count = |events: &[bool]| events.iter().filter(|is| **is).count();
        let syncs: Vec<_> = events.iter().map(|event| matches!(event, Event::Sync)).collect();
        let flushes: Vec<_> = steps.iter().map(|step| matches!(step, Step::Flush)).collect();
        prop_assert_eq!(count(&syncs), count(&flushes));
        for cut in (0..events.len()).step_by(events.len() / 25 + 1) {
            let image = after_power_cut(new.clone(), &events[..cut], || true);
            check_sound(&image);
            check_contents(image, &done, cut);
        }
    }
}
