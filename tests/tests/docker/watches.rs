//! What others change in a volume while a container watches it.

use std::fs;
use std::path::Path;

use tests::docker::{Container, docker};
use tests::guest::Running;

use crate::locks::{LOADER, PROGRAMS};

/// Watches the volume and a file in it, and tells of each event with a letter for its kind.
const WATCHER: &str = "
import ctypes, os, struct
libc = ctypes.CDLL(None)
events = libc.inotify_init()
KINDS = {2: 'c', 4: 'e', 8: 'w', 0x40: 'm', 0x80: 'y', 0x100: 'n', 0x200: 'd', 0x400: 'D', 0x800: 'M'}
paths = {libc.inotify_add_watch(events, path.encode(), sum(KINDS)): path for path in ['/v', '/v/file']}
print('begun', flush=True)
while True:
    data = os.read(events, 65536)
    while data:
        watch, mask, _, length = struct.unpack('iIII', data[:16])
        name = data[16:16 + length].rstrip(b'\\0').decode()
        data = data[16 + length:]
        for kind, letter in KINDS.items():
            if mask & kind:
                print(letter, paths[watch], name, flush=True)
";

fn container(volume: &Path, runtime: &str) -> Container {
    fs::write(volume.join("watcher"), WATCHER).unwrap();
    let container = Container::new().unwrap();
    let bind = format!("{}:/v", volume.display());
    let call = docker().args([
        "run",
        "-d",
        "--runtime",
        runtime,
        "--name",
        container.name(),
    ]);
    let done = call
        .args(PROGRAMS)
        .args(["-v", &bind, "busybox", "sleep", "1000"])
        .launch();
    let done = done.unwrap().wait().unwrap();
    assert_eq!(done.code(), Some(0), "{done:?}");
    container
}

fn sh(container: &Container, text: &str) -> String {
    let call = docker().args(["exec", container.name(), "sh", "-ec", text]);
    let done = call.launch().unwrap().wait().unwrap();
    assert_eq!(done.code(), Some(0), "{done:?}");
    done.stdout().into_owned()
}

/// Starts to watch.
fn watch(container: &Container) -> Running {
    let call = docker().args(["exec", container.name()]).args(LOADER);
    let mut watcher = call
        .args(["/host/bin/python3", "/v/watcher"])
        .launch()
        .unwrap();
    watcher.wait_for("begun\n").unwrap();
    watcher
}

/// Events as the watcher tells of them.
fn told(kinds: &str, name: &str) -> String {
    let lines = kinds.chars().map(|kind| format!("{kind} /v {name}\n"));
    lines.collect()
}

#[test]
#[ignore = "needs Docker: make test"]
fn who_watches_a_volume_hears_of_what_the_host_and_other_containers_change() {
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| volume.path().join(name);
    fs::write(path("file"), "one").unwrap();
    let machine = container(volume.path(), "runq");
    let others = ["runq", "runc"].map(|runtime| container(volume.path(), runtime));
    let mut watcher = watch(&machine);

    // The host, whose file has the same size and, maybe, time.
    assert_eq!(sh(&machine, "cat /v/file"), "one");
    fs::write(path("file"), "two").unwrap();
    watcher.wait_for("w /v/file \n").unwrap();
    assert_eq!(sh(&machine, "cat /v/file"), "two");
    fs::write(path("host"), "").unwrap();
    watcher.wait_for(&told("nw", "host")).unwrap();
    fs::rename(path("host"), path("moved")).unwrap();
    watcher
        .wait_for(&(told("m", "host") + &told("y", "moved")))
        .unwrap();
    fs::remove_file(path("moved")).unwrap();
    watcher.wait_for(&told("d", "moved")).unwrap();
    assert_eq!(sh(&machine, "ls /v"), "file\nwatcher\n");

    // Its own, once each, and those of others.
    sh(
        &machine,
        "echo text >/v/own; chmod 600 /v/own; mv /v/own /v/named; rm /v/named",
    );
    for other in &others {
        sh(other, "echo text >/v/other; rm /v/other");
    }
    let own = told("ncwem", "own") + &told("yd", "named");
    let other = told("ncwd", "other");
    watcher.wait_for(&(own + &other + &other)).unwrap();

    // An end, and nothing after it.
    fs::remove_file(path("file")).unwrap();
    watcher.wait_for("D /v/file \n").unwrap();
    sh(&machine, "killall ld-linux-x86-64.so.2 || killall python3");
    fs::write(path("late"), "").unwrap();
    let done = watcher.wait().unwrap();
    assert!(!done.stdout().contains("late"), "{done:?}");
    assert_eq!(done.stdout().matches(" other\n").count(), 8, "{done:?}");
}

/// Nobody watches. What the machine knows of the file it believes for a second, but not of one that it opens.
#[test]
#[ignore = "needs Docker: make test"]
fn who_opens_a_file_sees_what_the_host_has_changed_before() {
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| volume.path().join(name);
    fs::write(path("file"), "begun\n").unwrap();
    let machine = container(volume.path(), "runq");
    let call = docker().args(["exec", "-i", machine.name(), "sh", "-c"]);
    let call = call.args(["while read line; do cat /v/file; done"]);
    let mut reader = call.open_stdin().launch().unwrap();
    let mut sees = |text: &str| {
        reader.write("again\n").unwrap();
        reader.wait_for(text).unwrap();
    };
    sees("begun\n");
    for turn in 0..5 {
        let (longer, other) = (format!("longer by {turn}\n"), format!("other {turn}\n"));
        fs::write(path("file"), &longer).unwrap();
        sees(&longer);
        fs::write(path("new"), &other).unwrap();
        fs::rename(path("new"), path("file")).unwrap();
        sees(&other);
    }
    // Here, too, names move while they are opened.
    let moves = "cd /v; for n in 0 1 2 3 4 5 6 7 8 9; do for m in 0 1 2 3 4 5 6 7 8 9; do
        echo $m >new; mv new file; done; done & while kill -0 $! 2>/dev/null; do cat file >/dev/null || exit 9; done";
    sh(&machine, moves);
}
