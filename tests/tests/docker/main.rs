//! Tests of `docker run --runtime runq` with a real Docker.
//!
//! They need root, Docker with an image `busybox`, a KVM that runs Linux and the files of the payload
//! ([`tests::guest`]), so that `cargo test` names them as ignored; `make test` runs them all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "they fail the test")]

mod attached;
mod breakdowns;
mod chain;
mod detached;
mod disks;
mod exec;
mod failures;
mod files;
mod hung;
mod limits;
mod locks;
mod many_files;
mod modules;
mod network;
mod options;
mod packages;
mod postgres;
mod process;
mod refusals;
mod root_disk;
mod several;
mod shares_9p;
mod volumes;
mod watches;

use tests::docker::script;
use tests::guest::Finished;

/// Asserts the exit code, and shows everything if it is another.
#[track_caller]
fn assert_code(done: &Finished, code: i32) {
    assert_eq!(done.code(), Some(code), "{done:?}");
}

/// Asserts success with just this output.
#[track_caller]
fn assert_output(done: &Finished, stdout: &str) {
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert_eq!(done.stdout(), stdout);
    assert_eq!(done.stderr(), "");
}

/// Runs `body` while `path` is somewhere else.
fn without(path: &str, body: impl FnOnce()) {
    struct Back<'a>(&'a str);
    impl Drop for Back<'_> {
        fn drop(&mut self) {
            script(&format!("rm -rf {0}; mv {0}.away {0}", self.0)).unwrap();
        }
    }
    script(&format!("mv {path} {path}.away")).unwrap();
    let _back = Back(path);
    body();
}
