//! What the monitor tells about a run: --stats, --trace, its log.

use crate::{assert_code, busybox};

#[test]
#[ignore = "boots a guest: make test"]
fn stats_tell_what_the_run_cost() {
    let (_rootfs, guest) = busybox();
    let done = guest
        .args(["--stats", "--mem", "128"])
        .run(["/bin/true"])
        .unwrap();
    assert_code(&done, 0);
    assert_eq!(done.stdout(), "");
    let text = done.stderr();

    let ready: f64 = number_between(&text, "init ready after ", " ms");
    assert!(ready > 1.0 && ready < 60_000.0, "{text}");
    for kind in [
        "port reads",
        "port writes",
        "mmio reads",
        "mmio writes",
        "interrupted",
        "other",
    ] {
        assert!(text.contains(kind), "{kind}: {text}");
    }
    let exits: u64 = number_between(&text, "exits to the monitor: ", " port reads");
    assert!(exits < 100_000, "{text}");
    let resident: u64 = number_between(&text, "resident beside guest memory: ", " KiB");
    // A monitor that counted its guest's memory would be beyond that.
    assert!((500..40_000).contains(&resident), "{text}");
}

fn number_between<T: std::str::FromStr>(text: &str, before: &str, after: &str) -> T {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after))
        .and_then(|(number, _)| number.parse().ok());
    found.unwrap_or_else(|| panic!("no number between {before:?} and {after:?}: {text}"))
}

#[test]
#[ignore = "boots a guest: make test"]
fn trace_shows_each_exit() {
    let (_rootfs, guest) = busybox();
    let done = guest
        .args(["--trace", "--stats"])
        .run(["/bin/true"])
        .unwrap();
    assert_code(&done, 0);
    let text = done.stderr();
    let (trace, stats) = text.split_once("init ready").unwrap();
    let reads: usize = number_between(stats, "exits to the monitor: ", " port reads");
    assert!(
        trace.lines().count() >= reads && reads > 0,
        "{reads} reads; {text}"
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_log_tells_the_story_of_a_boot() {
    let (_rootfs, guest) = busybox();
    let done = guest
        .env("RUNQ_LOG", "info")
        .run(["/bin/sh", "-c", "exit 3"])
        .unwrap();
    assert_code(&done, 3);
    let text = done.stderr();
    let mut rest = &*text;
    for part in ["init is ready", "command started", "command exited code=3"] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
        rest = &rest[at..];
    }
    assert!(!text.contains('\x1b'), "no colours: {text}");
}
