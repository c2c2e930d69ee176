//! What others change in a volume while a container watches it.

use std::fs;
use std::path::Path;

use tests::docker::{Container, docker};
use tests::guest::Running;

/// busybox' names of the events: changed, metadata, closed, moved from and to, made, deleted, itself deleted and moved.
const KINDS: &str = "cewmyndDM";

fn container(volume: &Path, runtime: &str) -> Container {
    let container = Container::new().unwrap();
    let volume = format!("{}:/v", volume.display());
    let call = docker().args([
        "run",
        "-d",
        "--runtime",
        runtime,
        "--name",
        container.name(),
    ]);
    let done = call
        .args(["-v", &volume, "busybox", "sleep", "1000"])
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

/// Starts to watch the volume and a file in it.
fn watch(container: &Container) -> Running {
    let call = docker().args(["exec", container.name(), "sh", "-c"]);
    let watch = format!("echo begun; exec inotifyd - /v:{KINDS} /v/file:{KINDS}");
    let mut watcher = call.args([watch]).launch().unwrap();
    watcher.wait_for("begun\n").unwrap();
    // It waits in poll(2) once it watches.
    let waits = "until grep -q '^7 ' /proc/$(pidof inotifyd)/syscall; do :; done";
    sh(container, waits);
    watcher
}

/// Events as inotifyd tells of them.
fn told(kinds: &str, name: &str) -> String {
    let lines = kinds.chars().map(|kind| format!("{kind}\t/v\t{name}\n"));
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
    watcher.wait_for("w\t/v/file\n").unwrap();
    assert_eq!(sh(&machine, "cat /v/file"), "two");
    fs::write(path("host"), "").unwrap();
    watcher.wait_for(&told("nw", "host")).unwrap();
    fs::rename(path("host"), path("moved")).unwrap();
    watcher
        .wait_for(&(told("m", "host") + &told("y", "moved")))
        .unwrap();
    fs::remove_file(path("moved")).unwrap();
    watcher.wait_for(&told("d", "moved")).unwrap();
    assert_eq!(sh(&machine, "ls /v"), "file\n");

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
    watcher.wait_for("D\t/v/file\n").unwrap();
    sh(&machine, "killall inotifyd");
    fs::write(path("late"), "").unwrap();
    let done = watcher.wait().unwrap();
    assert!(!done.stdout().contains("late"), "{done:?}");
    assert_eq!(done.stdout().matches("\tother\n").count(), 8, "{done:?}");
}
