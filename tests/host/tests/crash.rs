//! The whole host crashes while a guest in it writes to its disks: QEMU is killed, as by a power cut. What the guest was
//! told to be safe is there afterwards.
//!
//! What the host has in its page cache dies with it, and so does what it wrote to new places of its disk and has not flushed
//! ([`Options::disk`]): a disk survives only if the monitor asks the host for stable storage when the guest does. A disk in
//! the mode `unsafe`, which does not, shows that the test can tell.
//!
//! RUNQ_PAYLOAD names the payload that `tests/payload` makes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "they fail the test")]

use std::collections::BTreeMap;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use testhost::{Command, Host, Options};

/// How often the host is killed, each time with all disks.
const KILLS: usize = 6;

/// Hosts that may end by themselves on the way: emulation fails now and then, which is one more crash.
const SPARE: usize = 2;

/// Names of the disks, which are those of their files, and their cache modes. The names of qcow2 images begin with that.
const DISKS: [(&str, &str); 6] = [
    ("none", "none"),
    ("writeback", "writeback"),
    ("writethrough", "writethrough"),
    ("qcow2-none", "none"),
    ("qcow2-writeback", "writeback"),
    (UNSAFE, "unsafe"),
];

const UNSAFE: &str = "unsafe";

/// The longest time from the first record on all disks to the kill.
const LONGEST: Duration = Duration::from_secs(4);

/// Longer than anything takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Files with holes on a new file system: the host's own metadata have to be safe, too.
const PREPARE: &str = r#"
set -e
mke2fs -q -t ext4 /dev/vdc
mount -t ext4 /dev/vdc /srv
for name; do
    truncate -s 128M /srv/$name
    mke2fs -q -t ext4 -b 4096 /srv/$name
    case $name in
    qcow2*)
        qemu-img convert -f raw -O qcow2 /srv/$name /srv/image
        mv /srv/image /srv/$name
        ;;
    esac
done
sync
"#;

/// CHECK ROUNDS NAME...: mounts the disk, asserts that file systems and images are sound, and says of each disk and round how
/// many records are there. The disk without a promise may be broken, and begins anew each time.
const CHECK: &str = r#"
set -e
rounds=$1
shift
count() {
    mount -o loop,ro $2 /mnt
    for round in $(seq $rounds); do
        echo "$1 $round $(/opt/runq/diskcheck count $round /mnt)"
    done
    umount /mnt
}
# Replays the journal, and finds nothing else to do.
check() {
    e2fsck -p $1 || [ $? = 1 ]
    e2fsck -f -n $1
} >&2
modprobe loop
mount -t ext4 /dev/vdc /srv
for name; do
    case $name in
    qcow2*)
        # Clusters that are used by nobody are code 3, and what is broken is 2.
        qemu-img check -f qcow2 /srv/$name >&2 || [ $? = 3 ]
        qemu-img convert -f qcow2 -O raw /srv/$name /srv/raw
        check /srv/raw
        count $name /srv/raw
        ;;
    unsafe)
        if (check /srv/$name && count $name /srv/$name >/tmp/counted) 2>/dev/null; then cat /tmp/counted; fi
        rm /srv/$name
        truncate -s 128M /srv/$name
        mke2fs -q -t ext4 -b 4096 /srv/$name
        ;;
    *)
        check /srv/$name
        count $name /srv/$name
        ;;
    esac
done
sync
"#;

/// In the guest, with the number of the round.
const LOAD: &str = r#"
for disk in /sys/block/vd*; do
    name=$(cat $disk/serial)
    mkdir -p /mnt/$name
    mount -t ext4 /dev/${disk##*/} /mnt/$name
done
exec /opt/runq/diskcheck write $1 /mnt/*
"#;

/// The last record of each disk that was acknowledged, or is there.
type Records = BTreeMap<String, u32>;

/// Lines of a name and a number, as they come.
struct Lines {
    part: Vec<u8>,
    sender: Sender<(String, u32)>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        while let Some(end) = self.part.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            let (name, number) = line.trim_end().rsplit_once(' ').unwrap();
            let _ = self.sender.send((name.to_owned(), number.parse().unwrap()));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn names() -> impl Iterator<Item = String> {
    DISKS.iter().map(|(name, _)| (*name).to_owned())
}

/// A call of a script, with arguments and the names of all disks.
fn script(text: &str, args: &[String]) -> Command {
    let shell = ["sh", "-c", text, "sh"].map(str::to_owned);
    let argv = shell.into_iter().chain(args.iter().cloned());
    Command::new(argv.chain(names())).timeout(Some(TIMEOUT))
}

fn start(disk: PathBuf) -> Host {
    let payload = std::env::var_os("RUNQ_PAYLOAD").unwrap();
    let options = Options {
        payload: Some(PathBuf::from(payload)),
        disk: Some(disk),
        ..Options::default()
    };
    Host::start(&options).unwrap()
}

/// A disk for the host, or what it writes on top of one: all of its data are in new places.
fn create(disk: &Path, on: Option<PathBuf>) {
    let mut create = Process::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]);
    match on {
        Some(on) => create.args(["-F", "qcow2", "-b"]).arg(on).arg(disk),
        None => create.arg(disk).arg("4G"),
    };
    assert!(create.status().unwrap().success(), "{create:?}");
}

/// Runs a guest that writes records, and kills the host this long after there is one on each disk; what was acknowledged.
fn load(host: &Host, round: usize, moment: Duration) -> Records {
    let mut monitor = String::from(
        "exec /opt/runq/runq-vmm --kernel /opt/runq/kernel --initrd /opt/runq/initrd --rootfs /",
    );
    for (name, mode) in DISKS {
        monitor += &format!(" --disk /srv/{name},cache={mode},id={name}");
    }
    monitor += " -- /bin/sh -ec \"$1\" sh \"$2\"";
    let monitor = script(&monitor, &[LOAD.to_owned(), round.to_string()]);
    let (sender, acknowledged) = mpsc::channel();
    let process = host.process();
    let wait_and_kill = move || {
        let mut last = Records::new();
        while last.len() < DISKS.len()
            && let Ok((name, number)) = acknowledged.recv()
        {
            last.insert(name, number);
        }
        thread::sleep(moment);
        // It fails if the host has ended by itself.
        let _ = kill(process, Signal::SIGKILL);
        last.extend(acknowledged);
        last
    };
    let mut stderr = Vec::new();
    let (last, end) = thread::scope(|scope| {
        let killer = scope.spawn(wait_and_kill);
        let mut lines = Lines {
            part: Vec::new(),
            sender,
        };
        let end = host.run(monitor, &mut lines, &mut stderr);
        drop(lines); // the killer's last
        (killer.join().unwrap(), end)
    });
    if let Ok(code) = end {
        let stderr = String::from_utf8_lossy(&stderr);
        panic!("the monitor ended with the code {code}: {stderr}");
    }
    last
}

/// What is there of each round so far; nothing if the host ended by itself.
fn check(host: &Host, rounds: usize) -> Option<Vec<Records>> {
    let done = host.output(script(CHECK, &[rounds.to_string()])).ok()?;
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.code, 0, "{stderr}");
    let mut found = vec![Records::new(); rounds];
    for line in String::from_utf8(done.stdout).unwrap().lines() {
        let [name, round, count] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?}");
        };
        let round = &mut found[round.parse::<usize>().unwrap() - 1];
        round.insert(name.to_owned(), count.parse().unwrap());
    }
    Some(found)
}

/// Asserts that all acknowledged records are there; how many are lost of the disk for which that is allowed, in the last
/// round, which it has seen alone.
fn compare(acknowledged: &[Records], found: &[Records]) -> u32 {
    for (round, (acknowledged, found)) in acknowledged.iter().zip(found).enumerate() {
        for (name, last) in acknowledged.iter().filter(|(name, _)| *name != UNSAFE) {
            let count = found.get(name).copied().unwrap_or_default();
            assert!(
                count >= *last,
                "{name}: {last} records were acknowledged in round {}, and {count} are there",
                round + 1
            );
        }
    }
    let (Some(acknowledged), Some(found)) = (acknowledged.last(), found.last()) else {
        return 0;
    };
    let of = |records: &Records| records.get(UNSAFE).copied().unwrap_or_default();
    of(acknowledged).saturating_sub(of(found))
}

/// When to kill: the same moments for the same seed, which a failure shows.
struct Moments {
    seed: u64,
}

impl Moments {
    fn new() -> Self {
        let seed = match std::env::var("RUNQ_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("RUNQ_TEST_SEED={seed}");
        Self { seed }
    }

    fn of(&self, round: usize) -> Duration {
        let mut hasher = DefaultHasher::new();
        (self.seed, round).hash(&mut hasher);
        LONGEST * (hasher.finish() % 1000) as u32 / 1000
    }
}

#[test]
#[ignore = "restores the emulated test host, and kills it"]
fn what_was_flushed_is_there_after_the_host_crashed() {
    let moments = Moments::new();
    let folder = tempfile::tempdir().unwrap();
    let disk = |number: usize| folder.path().join(number.to_string());
    let mut acknowledged: Vec<Records> = Vec::new();
    let (mut kills, mut lost) = (0, 0);
    for number in 0..=KILLS + SPARE {
        create(&disk(number), number.checked_sub(1).map(disk));
        let host = start(disk(number));
        if number == 0 {
            let done = host.output(script(PREPARE, &[])).unwrap();
            assert_eq!(done.code, 0, "{}", String::from_utf8_lossy(&done.stderr));
        } else if let Some(found) = check(&host, acknowledged.len()) {
            lost += compare(&acknowledged, &found);
        } else {
            continue;
        }
        if kills == KILLS {
            break;
        }
        let round = acknowledged.len() + 1;
        let moment = moments.of(round);
        let last = load(&host, round, moment);
        println!("round {round}: killed after {moment:?}: {last:?}");
        if last.len() == DISKS.len() {
            kills += 1;
        }
        acknowledged.push(last);
    }
    assert_eq!(kills, KILLS, "the host ended by itself too often");
    println!("{lost} records of the disk without a promise were lost");
    assert!(
        lost > 0,
        "nothing is lost even where it may be: no loss can be seen"
    );
}
