//! A container in which only an agent is played, in a network namespace of its own.

#[path = "../../src/exec/played.rs"]
#[allow(dead_code, reason = "the units' tests need more of it")]
pub(crate) mod played;

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use proto::exec::{Agent, Exec, FromAgent, ToAgent, USER_SOCKET};
use proto::{Process, Start};
use runtime::vmspec::{VERSION, VmSpec};

use played::Played;

/// A container in which only an agent is played; and what it was told to run.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) process: Child,
    pub(crate) told: Receiver<Exec>,
    /// The limits that it was told to set.
    #[allow(dead_code, reason = "one program of tests looks at them")]
    pub(crate) limits: Receiver<Vec<(String, String)>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Place {
    /// None where there can be no such namespace. `play` is what the agent does with each command, or
    /// who wants a list.
    pub(crate) fn new(play: fn(&mut Played) -> Result<(), ::channel::Error>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let set = played::certificates(2100);
        fs::create_dir_all(folder.path().join("root/vm/empty")).unwrap();
        fs::create_dir(folder.path().join("bundle")).unwrap();
        fs::write(
            folder.path().join("root/cert.pem"),
            set.client.certificate.clone() + &set.authority,
        )
        .unwrap();
        fs::write(folder.path().join("root/key.pem"), &set.client.key).unwrap();
        let client = serde_json::to_string(&set.client()).unwrap();
        fs::write(folder.path().join("bundle/exec.json"), client).unwrap();
        spec()
            .save(&folder.path().join("bundle/vmspec.json"))
            .unwrap();

        let (tell, told) = channel();
        let (set_limits, limits) = channel();
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
                if agent.say(&FromAgent::hello("ID")).is_err() {
                    continue;
                }
                match agent.hear() {
                    Ok(ToAgent::Exec(exec)) => tell.send(*exec).unwrap(),
                    Ok(ToAgent::List) => {}
                    Ok(ToAgent::Limit(limits)) => set_limits.send(limits).unwrap(),
                    _ => continue,
                }
                let _ = play(&mut agent);
            }
        });
        let process = started.recv().ok()?;
        let place = Self {
            folder,
            process,
            told,
            limits,
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of ours here.
    pub(crate) fn command(&self, program: &str, line: &str) -> Command {
        let mut command = Command::new(program);
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

pub(crate) fn spec() -> VmSpec {
    VmSpec {
        version: VERSION,
        cpus: 1,
        memory_mib: 64,
        cpu_features: String::new(),
        systemd: false,
        dns: None,
        p9_cache: None,
        disks: Vec::new(),
        crypto: None,
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

/// What an agent does: says what it hears, and ends with 7.
pub(crate) fn echo(agent: &mut Played) -> Result<(), ::channel::Error> {
    agent.say(&FromAgent::Started { pid: 2 })?;
    agent.say(&FromAgent::Stderr(b"err".to_vec()))?;
    while let ToAgent::Stdin(bytes) = agent.hear()? {
        agent.say(&FromAgent::Stdout(bytes))?;
    }
    agent.say(&FromAgent::Exited { code: 7 })
}
