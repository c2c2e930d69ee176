//! `runq exec` with a runc that only tells a container's state, and an agent as tests play it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it fails the test")]

#[allow(dead_code, reason = "other tests need more of it")]
mod container;
/// What the played agent has of the crate.
mod certs {
    pub(crate) use runtime::certs::*;
}

use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use proto::WindowSize;
use proto::exec::{ExecUser, FromAgent, ToAgent};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

use container::played::Played;
use container::{Place, echo, spec};

fn command(place: &Place, line: &str) -> Command {
    place.command(env!("CARGO_BIN_EXE_runq"), line)
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_command_of_the_command_line() {
    let Some(place) = Place::new(echo) else {
        return;
    };
    let mut command = command(
        &place,
        "exec -e A=b --user 5:6 --cwd /tmp --pid-file pid ID cat -n",
    );
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"in\0put").unwrap();
    drop(writer);
    let output = command.stdin(reader).output().unwrap();
    assert_eq!(stderr(&output), "err");
    assert_eq!(output.stdout, b"in\0put");
    assert_eq!(output.status.code(), Some(7));
    let exec = place.told.recv().unwrap();
    assert_eq!(exec.args, ["cat", "-n"]);
    assert_eq!(exec.more_env, ["A=b"]);
    assert_eq!(exec.cwd.as_deref(), Some("/tmp"));
    assert!(matches!(exec.user, Some(ExecUser::Known(user)) if (user.uid, user.gid) == (5, 6)));
    assert!(place.path("pid").exists());
}

#[test]
fn a_command_that_is_let_go_carries_on_by_itself() {
    let Some(place) = Place::new(echo) else {
        return;
    };
    let process = r#"{"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["A=b"]}"#;
    fs::write(place.path("process"), process).unwrap();
    let line = "--log log exec --process process --detach --pid-file pid ID";
    let (stdin, mut ours) = std::io::pipe().unwrap();
    let (mut stdout, theirs) = std::io::pipe().unwrap();
    let mut command = command(&place, line);
    let command_status = command
        .stdin(stdin)
        .stdout(theirs)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    drop(command);
    let log = fs::read_to_string(place.path("log")).unwrap_or_default();
    assert!(command_status.success(), "{log}");
    let pid = fs::read_to_string(place.path("pid")).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |name: &str| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().to_owned()
    };
    for (name, confined) in [
        ("CapEff:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ] {
        assert_eq!(value(name), confined, "{name}");
    }
    ours.write_all(b"on").unwrap();
    drop(ours);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "on");
    assert_eq!(place.told.recv().unwrap().env.unwrap(), ["A=b"]);
}

/// The file that the next who connects sends.
fn receive(listener: &UnixListener) -> File {
    let (socket, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 100];
    let mut parts = [IoSliceMut::new(&mut name)];
    recvmsg(&socket, &mut parts, &mut control, RecvFlags::empty()).unwrap();
    match control.drain().next() {
        Some(RecvAncillaryMessage::ScmRights(mut files)) => files.next().unwrap().into(),
        _ => panic!("no file"),
    }
}

/// Takes a key and a size, and says so.
fn on_a_terminal(agent: &mut Played) -> Result<(), channel::Error> {
    agent.say(&FromAgent::Started { pid: 2 })?;
    // Ctrl-C is a key like others.
    assert_eq!(agent.hear()?, ToAgent::Stdin(vec![3]));
    agent.say(&FromAgent::Stdout(b"key\n".to_vec()))?;
    let size = WindowSize { rows: 9, cols: 8 };
    assert_eq!(agent.hear()?, ToAgent::Resize(size));
    agent.say(&FromAgent::Stdout(b"size\n".to_vec()))?;
    agent.say(&FromAgent::Exited { code: 0 })
}

#[test]
fn a_terminal_is_given_to_containerd() {
    let Some(place) = Place::new(on_a_terminal) else {
        return;
    };
    let process = r#"{"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "terminal": true,
        "consoleSize": {"height": 5, "width": 6}}"#;
    fs::write(place.path("process"), process).unwrap();
    let listener = UnixListener::bind(place.path("pty.sock")).unwrap();
    let line = "exec --process process --console-socket pty.sock --detach --pid-file pid ID";
    let output = command(&place, line).output().unwrap();
    assert_eq!(stderr(&output), "");
    assert!(output.status.success());
    let mut master = receive(&listener);
    let size = place.told.recv().unwrap().terminal;
    assert_eq!(size, Some(WindowSize { rows: 5, cols: 6 }));
    master.write_all(&[3]).unwrap();
    let mut text = [0; 4];
    master.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"key\n");
    let mut size = tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (5, 6));
    (size.ws_row, size.ws_col) = (9, 8);
    tcsetwinsize(&master, size).unwrap();
    let mut rest = Vec::new();
    // A pseudoterminal ends with an error.
    let _ = master.read_to_end(&mut rest);
    assert_eq!(rest, b"size\n");
}

#[test]
fn a_command_that_is_not_there_is_told_in_the_words_of_runc() {
    let Some(place) = Place::new(|agent| {
        agent.say(&FromAgent::Failed {
            code: 127,
            message: "\"nosuch\": executable file not found in the PATH /bin".into(),
        })
    }) else {
        return;
    };
    for option in ["", "--detach"] {
        let line = format!("exec {option} --pid-file pid ID nosuch");
        let output = command(&place, &line).output().unwrap();
        assert_eq!(
            stderr(&output),
            "runq: exec failed: unable to start container process: exec: \"nosuch\": executable \
             file not found in $PATH\n"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_container_without_agent_is_told() {
    let Some(place) = Place::new(echo) else {
        return;
    };
    let mut spec = spec();
    spec.start.agent = None;
    let file = place.path("bundle/vmspec.json");
    fs::remove_file(&file).unwrap();
    spec.save(&file).unwrap();
    let output = command(&place, "exec ID true").output().unwrap();
    let text = stderr(&output);
    assert!(
        text.starts_with("runq: container ID has no exec agent"),
        "{text}"
    );
    let output = command(&place, "exec --detach -t ID true")
        .output()
        .unwrap();
    assert!(!output.status.success());
}
