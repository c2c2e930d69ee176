//! How many requests a guest makes of a share for what programs do.

use std::collections::BTreeMap;
use std::fs;

use tests::guest::{Finished, Guest, Kernel, Rootfs};

use crate::assert_code;

/// What each operation takes, with the lean kernel. Nobody waits for RELEASE and FORGET.
const EXPECTED: &[(&str, &[&str])] = &[
    ("append", &["OpenChecked", "Write"]),
    ("chmod", &["Setattr"]),
    ("create", &["Create", "Write"]),
    ("list", &["Opendir", "Opendir", "Readdirplus", "Readdir"]),
    ("lock", &["OpenChecked", "Setlk", "Flush"]),
    ("missing", &["Lookup"]),
    ("mkdir", &["Mkdir"]),
    ("mkdir-again", &["Lookup"]),
    ("open", &["OpenChecked"]),
    ("overwrite", &["OpenChecked", "Write"]),
    ("read", &["OpenChecked", "Read"]),
    ("rename", &["Lookup", "Rename"]),
    ("rmdir", &["Rmdir"]),
    ("stat", &[]),
    ("symlink", &["Symlink"]),
    ("truncate", &["OpenChecked", "Setattr"]),
    ("unlink", &["Unlink"]),
    ("write", &["Create", "Write"]),
];

type Requests = BTreeMap<String, Vec<String>>;

/// The requests of each operation, the fewest that it took. Those for which nobody waits come whenever they like.
fn requests(kernel: Kernel) -> Requests {
    let rootfs = Rootfs::new().unwrap().with_fscheck().unwrap();
    fs::create_dir(rootfs.join("check")).unwrap();
    let guest = Guest::with(kernel, &rootfs).unwrap();
    let done = guest
        .env("RUNQ_LOG", "devices::dev::fs=trace")
        .run(["/bin/fscheck", "one-by-one", "/check"])
        .unwrap();
    assert_code(&done, 0);
    by_operation(&done)
}

fn by_operation(done: &Finished) -> Requests {
    let stderr = done.stderr();
    let asked: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.rsplit_once(": "))
        .map(|(_, name)| name)
        .filter(|name| !["Release", "Releasedir", "Forget"].contains(name))
        .collect();
    // Before an operation and after it there is one; between two operations what the next one needs is prepared.
    let between: Vec<&[&str]> = asked
        .split(|&name| name == "Statfs")
        .skip(1)
        .step_by(2)
        .collect();
    let stdout = done.stdout();
    let names: Vec<&str> = stdout.lines().collect();
    assert_eq!(between.len(), names.len(), "{stderr}");
    let mut fewest = Requests::new();
    for (name, asked) in names.into_iter().zip(between) {
        let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
        let known = fewest
            .entry(name.to_owned())
            .or_insert_with(|| asked.clone());
        if asked.len() < known.len() {
            *known = asked;
        }
    }
    fewest
}

#[test]
#[ignore = "boots a guest: make test"]
fn what_programs_do_takes_no_more_requests_than_it_has_to() {
    let expected: Requests = EXPECTED
        .iter()
        .map(|&(name, asked)| {
            let asked = asked.iter().map(|&name| name.to_owned()).collect();
            (name.to_owned(), asked)
        })
        .collect();
    assert_eq!(requests(Kernel::Lean), expected);
}

/// Which has none of our patches.
#[test]
#[ignore = "boots a guest: make test"]
fn a_kernel_of_debian_makes_the_requests_that_it_always_made() {
    let asked = requests(Kernel::StockCloud);
    let create = ["Lookup", "Create", "Getxattr", "Write", "Flush"];
    assert_eq!(asked["create"], create, "{asked:#?}");
}
