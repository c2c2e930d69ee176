//! Commands beside the container's: `docker exec`, health checks, `docker top`, `runq-exec`.

mod agent;
mod commands;
mod disabled;
mod health;
mod runq_exec;
mod streams;

use tests::docker::{Container, ROOT, docker};
use tests::guest::{Finished, Guest};

/// A container that waits for its end by `docker stop`; its exit code is 7 then.
fn waiting(options: &[&str]) -> Container {
    let container = Container::new().unwrap();
    let wait = "trap 'exit 7' TERM; sleep 100000 & wait";
    container.detach(options, wait).unwrap();
    container
}

/// `docker exec` with options, to be completed by streams.
fn call(container: &Container, options: &[&str], command: &[&str]) -> Guest {
    let call = docker().args(["exec"]).args(options);
    call.args([container.name()]).args(command)
}

fn exec(container: &Container, options: &[&str], command: &[&str]) -> Finished {
    let call = call(container, options, command);
    call.launch().unwrap().wait().unwrap()
}

/// A shell script, by `docker exec`.
fn shell(container: &Container, options: &[&str], script: &str) -> Finished {
    exec(container, options, &["sh", "-c", script])
}

/// `runq-exec` with all of its arguments.
fn runq_exec(arguments: &[&str]) -> Finished {
    let call = Guest::program(format!("{ROOT}/runq-exec")).args(arguments);
    call.launch().unwrap().wait().unwrap()
}

/// Asserts that `runq-exec` has failed itself, with one line that has these words.
#[track_caller]
fn assert_own_failure(done: &Finished, words: &str) {
    assert_eq!(done.code(), Some(1), "{done:?}");
    let line = done.stderr();
    assert!(
        line.starts_with("runq-exec: ") && line.lines().count() == 1 && line.contains(words),
        "{words:?}: {done:?}"
    );
}
