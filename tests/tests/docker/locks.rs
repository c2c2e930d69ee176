//! Locks on volumes, between machines, other containers and the host.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tests::docker::{Container, docker, script};
use tests::guest::{Guest, Running};

/// The host's programs, where they hide none of busybox's, and how they are called there.
pub(crate) const PROGRAMS: [&str; 4] = ["-v", "/usr:/host:ro", "-e", "PYTHONHOME=/host"];
pub(crate) const LOADER: [&str; 3] = [
    "/host/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "--library-path",
    "/host/lib/x86_64-linux-gnu",
];

/// Takes a lock of each kind, says how that went, and keeps them until its standard input ends.
const LOCKER: &str = "
import fcntl, sys
directory, how = sys.argv[1:]
wait = 0 if how == 'wait' else fcntl.LOCK_NB
def take(what, lock):
    try:
        lock(fcntl.LOCK_EX | wait)
        print(what, 'locked', flush=True)
    except BlockingIOError:
        print(what, 'refused', flush=True)
one, two = (open(f'{directory}/{name}', 'r+b') for name in ['one', 'two'])
take('flock', lambda kind: fcntl.flock(one, kind))
take('fcntl', lambda kind: fcntl.lockf(two, kind, 5, 10))
print('done', flush=True)
sys.stdin.read()
";

const LOCKED: &str = "flock locked\nfcntl locked\ndone\n";
const REFUSED: &str = "flock refused\nfcntl refused\ndone\n";

/// Counts in a file under a lock of each kind, and in a database, whose journal is made and deleted with each transaction.
const COUNTER: &str = "
import fcntl, sqlite3, sys
directory = sys.argv[1]
def count(name, lock):
    with open(f'{directory}/{name}', 'r+') as file:
        for _ in range(25):
            lock(file, fcntl.LOCK_EX)
            file.seek(0)
            number = int(file.read()) + 1
            file.seek(0)
            file.write(str(number))
            file.flush()
            lock(file, fcntl.LOCK_UN)
count('one', fcntl.flock)
count('two', fcntl.lockf)
base = sqlite3.connect(f'{directory}/base', timeout=200, isolation_level=None)
for _ in range(15):
    base.execute('begin immediate')
    (number,) = base.execute('select number from counter').fetchone()
    base.execute('update counter set number = ?', (number + 1,))
    base.execute('insert into log values (?)', (number,))
    base.execute('commit')
";

const MAKE: &str = "
import sqlite3, sys
base = sqlite3.connect(sys.argv[1] + '/base')
base.executescript('create table counter(number); insert into counter values (0); create table log(number unique)')
";

/// Writes to the database what it does not commit, and says so.
const BREAKER: &str = "
import sqlite3, sys
base = sqlite3.connect(sys.argv[1] + '/base', isolation_level=None)
base.execute('pragma cache_size=1')
base.execute('begin exclusive')
base.execute('update counter set number = -1')
base.executemany('insert into log values (?)', ((f'{number:3000}',) for number in range(40)))
print('within', flush=True)
sys.stdin.read()
";

const LOOK: &str = "
import sqlite3, sys
base = sqlite3.connect(sys.argv[1] + '/base', timeout=200)
print(*base.execute('pragma integrity_check').fetchone(), *base.execute('select number from counter').fetchone())
";

/// A volume, and programs in it.
struct Volume {
    directory: TempDir,
}

impl Volume {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let volume = Self { directory };
        for name in ["one", "two"] {
            fs::write(volume.path(name), "0").unwrap();
        }
        let programs = [
            ("locker", LOCKER),
            ("counter", COUNTER),
            ("breaker", BREAKER),
            ("look", LOOK),
        ];
        for (name, text) in programs {
            fs::write(volume.path(name), text).unwrap();
        }
        volume
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A container of `runtime` that has the volume at /v.
    fn container(&self, runtime: &str) -> Container {
        let container = Container::new().unwrap();
        let volume = format!("{}:/v", self.directory.path().display());
        let call = docker().args([
            "run",
            "-d",
            "--runtime",
            runtime,
            "--name",
            container.name(),
        ]);
        let call = call
            .args(PROGRAMS)
            .args(["-v", &volume, "busybox", "sh", "-c"]);
        let done = call
            .args(["trap 'exit 3' TERM; while :; do sleep 1000 & wait $!; done"])
            .launch();
        let done = done.unwrap().wait().unwrap();
        assert_eq!(done.code(), Some(0), "{done:?}");
        container
    }

    /// Runs one of the programs here.
    fn run(&self, place: &Place, program: &str, args: &[&str]) -> Running {
        let host = self.directory.path().display().to_string();
        let (call, directory) = match place {
            Place::Host => (Guest::program("python3"), host.as_str()),
            Place::In(container) => {
                let call = docker().args(["exec", "-i", container.name()]);
                (call.args(LOADER).args(["/host/bin/python3"]), "/v")
            }
        };
        let call = call.args([format!("{directory}/{program}").as_str(), directory]);
        call.args(args).open_stdin().launch().unwrap()
    }
}

enum Place {
    Host,
    In(Container),
}

#[test]
#[ignore = "needs Docker: make test"]
fn locks_hold_between_machines_containers_and_the_host() {
    let volume = Volume::new();
    let places = ["runq", "runq", "runc"].map(|runtime| Place::In(volume.container(runtime)));
    let [machine, other, container] = &places;
    let pairs = [
        (machine, other),
        (machine, container),
        (container, machine),
        (machine, &Place::Host),
        (&Place::Host, machine),
    ];
    for (turn, (holder, follower)) in pairs.into_iter().enumerate() {
        println!("pair {turn}");
        let mut holds = volume.run(holder, "locker", &["try"]);
        holds.wait_for(LOCKED).unwrap();
        let mut tries = volume.run(follower, "locker", &["try"]);
        tries.wait_for(REFUSED).unwrap();
        tries.close_stdin();
        tries.wait().unwrap();
        let mut waits = volume.run(follower, "locker", &["wait"]);
        holds.close_stdin();
        holds.wait().unwrap();
        waits.wait_for(LOCKED).unwrap();
        waits.close_stdin();
        assert_eq!(waits.wait().unwrap().code(), Some(0));
    }
    // Who is killed lets go.
    let mut holds = volume.run(machine, "locker", &["try"]);
    holds.wait_for(LOCKED).unwrap();
    let mut waits = volume.run(other, "locker", &["wait"]);
    let Place::In(killed) = machine else {
        unreachable!()
    };
    killed.docker(&["kill"]).unwrap();
    waits.wait_for(LOCKED).unwrap();
}

#[test]
#[ignore = "needs Docker: make test"]
fn what_is_written_under_a_lock_is_seen_under_the_next() {
    let volume = Volume::new();
    let on_host = |program: &str| {
        let call = Guest::program("python3").args(["-c", program]);
        let done = call.args([volume.directory.path()]).launch().unwrap();
        done.wait().unwrap().stdout().into_owned()
    };
    on_host(MAKE);
    let places = [
        Place::In(volume.container("runq")),
        Place::In(volume.container("runq")),
        Place::In(volume.container("runc")),
        Place::Host,
    ];
    let counters: Vec<Running> = places
        .iter()
        .map(|place| volume.run(place, "counter", &[]))
        .collect();
    for counter in counters {
        let done = counter.wait().unwrap();
        assert_eq!(done.code(), Some(0), "{done:?}");
    }
    for name in ["one", "two"] {
        assert_eq!(fs::read_to_string(volume.path(name)).unwrap(), "100");
    }
    assert_eq!(on_host(LOOK), "ok 60\n");

    // What a machine was about to write when it was killed, another one takes back.
    let [Place::In(killed), machine, ..] = &places else {
        unreachable!()
    };
    let [base, journal] = ["base", "base-journal"].map(|name| volume.path(name));
    let before = fs::metadata(&base).unwrap().len();
    let mut broken = volume.run(&places[0], "breaker", &[]);
    broken.wait_for("within\n").unwrap();
    assert!(journal.exists() && fs::metadata(&base).unwrap().len() > before);
    killed.docker(&["kill"]).unwrap();
    let look = volume.run(machine, "look", &[]).wait().unwrap();
    assert_eq!(look.stdout(), "ok 60\n", "{look:?}");
    assert!(!journal.exists());
}

#[test]
#[ignore = "needs Docker: make test"]
fn who_waits_for_a_lock_can_be_ended_and_delays_nobody() {
    let volume = Volume::new();
    let mut holds = volume.run(&Place::Host, "locker", &["try"]);
    holds.wait_for(LOCKED).unwrap();
    let container = volume.container("runq");
    let flock = [&LOADER[..], &["/host/bin/flock"]].concat().join(" ");
    let exec = |text: &str| {
        let text = text.replace("FLOCK", &flock);
        let call = docker().args(["exec", container.name(), "sh", "-c", &text]);
        call.launch().unwrap().wait().unwrap()
    };
    // flock(1) ends its wait by a signal.
    assert_eq!(exec("FLOCK -w 1 /v/one true").code(), Some(1));
    let many = "for _ in 1 2 3 4 5 6; do FLOCK /v/one true & done; cat /v/two; kill -9 $!; wait $!";
    let done = exec(&format!("{many}; echo \" $?\""));
    assert_eq!(done.stdout(), "0 137\n", "{done:?}");
    // Those that wait end with the container's command.
    container.docker(&["stop", "-t", "100"]).unwrap();
    assert_eq!(container.inspect("{{.State.ExitCode}}").unwrap(), "3");
    holds.close_stdin();
    holds.wait().unwrap();
    script(&format!("flock -n {} true", volume.path("one").display())).unwrap();
}
