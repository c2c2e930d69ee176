//! The program runq-exec, with a Docker and an agent as tests play them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it fails the test")]

#[allow(dead_code, reason = "other tests need more of it")]
mod container;
/// What the played agent has of the crate.
mod certs {
    pub(crate) use runtime::certs::*;
}

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::thread;

use proto::exec::FromAgent;
use serde_json::json;

use container::{Place, echo};

fn command(place: &Place, line: &str) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_runq-exec"), line);
    let socket = place.path("docker.sock").display().to_string();
    command.env("DOCKER_HOST", format!("unix://{socket}"));
    command
}

/// Knows one container, `web`.
fn play_docker(place: &Place) {
    let listener = UnixListener::bind(place.path("docker.sock")).unwrap();
    let body = json!({
        "Id": "ID",
        "State": {"Running": true, "Pid": place.process.id()},
        "HostConfig": {"Runtime": "runq"},
        "Config": {"Env": []},
    });
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = BufReader::new(socket.unwrap());
            let mut line = String::new();
            socket.read_line(&mut line).unwrap();
            let answer = match line.as_str() {
                "GET /containers/web/json HTTP/1.0\r\n" => format!("200 OK\r\n\r\n{body}"),
                _ => "404 Not Found\r\n\r\n{}".to_owned(),
            };
            // The rest of the request, which ends with an empty line.
            while line != "\r\n" {
                line.clear();
                socket.read_line(&mut line).unwrap();
            }
            write!(socket.get_mut(), "HTTP/1.0 {answer}").unwrap();
        }
    });
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_command_runs_with_the_options_that_are_given() {
    let Some(place) = Place::new(echo) else {
        return;
    };
    play_docker(&place);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"in").unwrap();
    drop(writer);
    let mut with_input = command(&place, "-i -e A=b web cat -n");
    let output = with_input.stdin(reader).output().unwrap();
    assert_eq!(stderr(&output), "err");
    assert_eq!(output.stdout, b"in");
    assert_eq!(output.status.code(), Some(7));
    let exec = place.told.recv().unwrap();
    assert_eq!((exec.args.len(), exec.more_env.len()), (2, 1));
    assert!(exec.env.is_none() && exec.user.is_none());
    // Without -i, there is no input.
    let output = command(&place, "web true").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn errors_of_its_own_have_code_1() {
    let Some(place) = Place::new(echo) else {
        return;
    };
    let error = |line: &str| {
        let output = command(&place, line).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output).to_owned()
    };
    assert!(error("web true").starts_with("runq-exec: Docker's socket "));
    play_docker(&place);
    assert_eq!(error("db true"), "runq-exec: no such container: db\n");
    assert_eq!(
        error("-it web sh"),
        "runq-exec: -t: standard input is not a terminal\n"
    );
    assert!(error("-c no.pem web true").starts_with("runq-exec: no.pem: cannot be read: "));
    assert!(error("web").contains("Usage: runq-exec"));
}

#[test]
fn a_command_that_is_not_there_has_code_127() {
    let Some(place) = Place::new(|agent| {
        agent.say(&FromAgent::Failed {
            code: 127,
            message: "/no: no such file or directory".into(),
        })
    }) else {
        return;
    };
    play_docker(&place);
    let output = command(&place, "web /no").output().unwrap();
    let expected = "runq-exec: exec: /no: no such file or directory\n";
    assert_eq!(
        (stderr(&output), output.status.code()),
        (expected, Some(127))
    );
}
