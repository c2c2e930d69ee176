//! `runq exec` with a runc that only tells a container's state, and an agent as tests play it, in a
//! network namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it fails the test")]

#[path = "../src/exec/played.rs"]
#[allow(dead_code, reason = "the units' tests need more of it")]
mod played;

/// What [`played`] has of the crate.
mod certs {
    pub(crate) use runtime::certs::*;
}

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use proto::exec::{Agent, Exec, ExecUser, FromAgent, ToAgent, USER_SOCKET};
use proto::{Process, Start};
use runtime::vmspec::{VERSION, VmSpec};

use played::Played;

/// A container in which only an agent is played; and what it was told to run.
struct Place {
    folder: tempfile::TempDir,
    process: Child,
    told: Receiver<Exec>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Place {
    /// None where there can be no such namespace. `play` is what the agent does with each command.
    fn new(play: fn(&mut Played) -> Result<(), ::channel::Error>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let set = played::certificates(2100);
        fs::create_dir_all(folder.path().join("root/vm/empty")).unwrap();
        fs::create_dir(folder.path().join("bundle")).unwrap();
        let client = serde_json::to_string(&set.client()).unwrap();
        fs::write(folder.path().join("bundle/exec.json"), client).unwrap();
        spec()
            .save(&folder.path().join("bundle/vmspec.json"))
            .unwrap();

        let (tell, told) = channel();
        let (ready, started) = channel();
        thread::spawn(move || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: no network namespace: {error}");
                return;
            }
            let address = SocketAddr::from_abstract_name(USER_SOCKET).unwrap();
            let listener = UnixListener::bind_addr(&address).unwrap();
            let process = Command::new("sleep").arg("1000").spawn().unwrap();
            ready.send(process).unwrap();
            for socket in listener.incoming() {
                let mut agent = Played::new(accept(socket.unwrap()), &set);
                if agent.say(&FromAgent::hello("ID")).is_ok()
                    && let Ok(ToAgent::Exec(exec)) = agent.hear()
                    && tell.send(*exec).is_ok()
                {
                    let _ = play(&mut agent);
                }
            }
        });
        let process = started.recv().ok()?;
        let place = Self {
            folder,
            process,
            told,
        };
        let state = format!(
            "#!/bin/sh\nprintf '{{\"bundle\": \"{}\", \"pid\": {}, \"status\": \"running\"}}'\n",
            place.path("bundle").display(),
            place.process.id()
        );
        fs::write(place.path("runc"), state).unwrap();
        fs::set_permissions(place.path("runc"), PermissionsExt::from_mode(0o755)).unwrap();
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runq"));
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env("RUNQ_RUNC", self.path("runc"))
            .env("RUNQ_ROOT", self.path("root"));
        command
    }
}

/// As the monitor does.
fn accept(mut socket: UnixStream) -> UnixStream {
    let mut line = [0; 10];
    socket.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"CONNECT 1\n");
    socket.write_all(b"OK 1\n").unwrap();
    socket
}

fn spec() -> VmSpec {
    VmSpec {
        version: VERSION,
        cpus: 1,
        memory_mib: 64,
        cpu_features: String::new(),
        systemd: false,
        dns: None,
        start: Start {
            agent: Some(Agent {
                container: "ID".into(),
                authority: String::new(),
                certificate: String::new(),
                key: String::new(),
            }),
            process: Process::default(),
            ..Start::default()
        },
    }
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Says what it hears, and ends with 7.
fn echo(agent: &mut Played) -> Result<(), ::channel::Error> {
    agent.say(&FromAgent::Started { pid: 2 })?;
    agent.say(&FromAgent::Stderr(b"err".to_vec()))?;
    while let ToAgent::Stdin(bytes) = agent.hear()? {
        agent.say(&FromAgent::Stdout(bytes))?;
    }
    agent.say(&FromAgent::Exited { code: 7 })
}

#[test]
fn a_command_of_the_command_line() {
    let Some(place) = Place::new(echo) else {
        return;
    };
    let mut command = place.command("exec -e A=b --user 5:6 --cwd /tmp --pid-file pid ID cat -n");
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
    let mut command = place.command(line);
    let command_status = command.stdin(stdin).stdout(theirs).status().unwrap();
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
        let output = place.command(&line).output().unwrap();
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
    let output = place.command("exec ID true").output().unwrap();
    let text = stderr(&output);
    assert!(
        text.starts_with("runq: container ID has no exec agent"),
        "{text}"
    );
    let output = place.command("exec --detach -t ID true").output().unwrap();
    assert!(!output.status.success());
}
