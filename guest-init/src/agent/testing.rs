//! A container in namespaces of its own, its agent, and clients, for tests.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use channel::{Channel, Error, Identity, READ_SIZE};
use libc::pid_t;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Uid, pipe2};
use proto::exec::{AGENT_NAME, Agent, Exec, FromAgent, MAX_DATA, STDIN_WINDOW, ToAgent};
use proto::{Process, Start};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ED25519,
};

use crate::reap::{self, CHILDREN};
use crate::{limits, process, syscalls};

/// Names the test that a child is to run.
const TEST: &str = "RUNQ_TEST_AGENT";
/// How long something may take that is sure to come.
const LONG: Duration = Duration::from_secs(20);

/// A certificate with its key, PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// An authority's certificate, the agent's pair and a client's.
pub(super) fn pairs() -> (String, Pair, Pair) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let pair = |usage: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new([AGENT_NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        Pair {
            certificate: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    };
    (
        authority.pem(),
        pair(ExtendedKeyUsagePurpose::ServerAuth),
        pair(ExtendedKeyUsagePurpose::ClientAuth),
    )
}

/// A container whose command sleeps, and its agent, as processes of their own.
pub(super) struct Guest {
    /// Who does what init does: starts both, and waits for the command.
    init: pid_t,
    pub(super) command: pid_t,
    pub(super) agent: pid_t,
    pub(super) socket: PathBuf,
    authority: String,
    client: Pair,
}

/// Runs the test of this name (its path in the crate) with a container, in a process of its own that
/// has no other threads than this one and the test runner's.
pub(super) fn with_guest(name: &str, process: Process, test: impl FnOnce(&Guest)) {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: namespaces need root");
    }
    if std::env::var(TEST).as_deref() == Ok(name) {
        return test(&Guest::start(process));
    }
    let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--nocapture", name]);
    let output = child.env(TEST, name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// What the container's command would be, but that it sleeps.
pub(super) fn sleeper() -> Process {
    Process {
        args: ["sleep", "1000"].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".into(), "OWN=1".into()],
        cwd: "/".into(),
        ..Process::default()
    }
}

impl Guest {
    fn start(process: Process) -> Self {
        let socket = std::env::temp_dir().join(format!("runq-agent-{}.socket", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (authority, server, client) = pairs();
        let agent = Agent {
            container: "the container".into(),
            authority: authority.clone(),
            certificate: server.certificate,
            key: server.key,
        };
        let start = Start {
            agent: Some(agent),
            process,
            ..Start::default()
        };
        let (result, report) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let Some(init) = syscalls::fork_a_test() else {
            drop(result);
            be_init(&start, listener, report.into());
        };
        drop((report, listener));
        let mut text = String::new();
        fs::File::from(result).read_to_string(&mut text).unwrap();
        let (command, agent) = text.split_once(' ').unwrap();
        until("the command sleeps", || {
            let stat = fs::read_to_string(format!("/proc/{command}/stat")).unwrap();
            stat.contains("(sleep) S")
        });
        Self {
            init,
            command: command.parse().unwrap(),
            agent: agent.parse().unwrap(),
            socket,
            authority,
            client,
        }
    }

    /// A connection, and nothing on it yet.
    pub(super) fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    }

    /// A client that has been greeted.
    pub(super) fn client(&self) -> Client {
        self.greeted(&self.client).unwrap()
    }

    /// A client that has been greeted, and comes again as long as it is dropped before that, as
    /// runq's do.
    pub(super) fn persistent_client(&self) -> Client {
        let deadline = Instant::now() + LONG;
        loop {
            match self.greeted(&self.client) {
                Ok(client) => return client,
                Err(error @ (Error::Closed | Error::Io(_))) => {
                    assert!(
                        Instant::now() < deadline,
                        "dropped again and again: {error}"
                    );
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn greeted(&self, pair: &Pair) -> Result<Client, Error> {
        let mut client = Client(self.connected(pair));
        client.0.flush()?;
        let hello = loop {
            match client.0.next()? {
                Some(message) => break message,
                None => client.0.fill(&mut [0; READ_SIZE])?,
            }
        };
        assert_eq!(hello, FromAgent::hello("the container"));
        Ok(client)
    }

    /// A client that has connected, and shows this certificate.
    pub(super) fn stranger(&self, pair: &Pair) -> Client {
        let mut channel = self.connected(pair);
        channel.flush().unwrap();
        Client(channel)
    }

    fn connected(&self, pair: &Pair) -> Channel<UnixStream, FromAgent> {
        let identity = Identity {
            authority: self.authority.as_bytes(),
            certificate: pair.certificate.as_bytes(),
            key: pair.key.as_bytes(),
        };
        let config = identity.client().unwrap();
        Channel::connect(self.connect(), &config).unwrap()
    }

    /// A client whose command runs.
    pub(super) fn started(&self, exec: Exec) -> Client {
        self.client().started(exec)
    }

    /// What comes of a shell's script.
    pub(super) fn shell(&self, script: &str) -> Ended {
        self.run(shell(script))
    }

    /// What comes of a command.
    pub(super) fn run(&self, exec: Exec) -> Ended {
        self.started(exec).end()
    }

    /// Why a command does not start.
    pub(super) fn failure(&self, exec: Exec) -> (u8, String) {
        let mut client = self.client();
        client.send(&ToAgent::Exec(Box::new(exec)));
        let Some(FromAgent::Failed { code, message }) = client.next() else {
            panic!("no failure")
        };
        assert_eq!(client.next(), None);
        (code, message)
    }

    /// The numbers of the agent's children, those included that nobody has reaped.
    pub(super) fn children(&self) -> Vec<pid_t> {
        let path = format!("/proc/{0}/task/{0}/children", self.agent);
        let text = fs::read_to_string(path).unwrap();
        let numbers = text.split_whitespace().map(|pid| pid.parse().unwrap());
        numbers.collect()
    }

    /// How many descriptors the agent has when nobody is there.
    pub(super) fn idle_descriptors(&self) -> usize {
        // The certificates have been read then.
        assert_eq!(self.shell("true").code, 0);
        // A client's socket is the last that is closed; the listener stays.
        let path = format!("/proc/{}/fd", self.agent);
        until("only the listener is open", || {
            let links = fs::read_dir(&path).unwrap().flatten();
            let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
            let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:"));
            sockets.count() == 1
        });
        self.descriptors()
    }

    /// How many descriptors the agent has.
    pub(super) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.agent);
        fs::read_dir(path).unwrap().count()
    }

    /// Kibibytes of memory that the agent has.
    pub(super) fn memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.agent)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
        number.parse().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // What the agent has not reaped would hold up the command's end.
        for pid in [self.agent, self.command] {
            let _ = syscalls::kill(pid, libc::SIGKILL);
        }
        let _ = syscalls::reap(self.init);
        let _ = fs::remove_file(&self.socket);
    }
}

pub(super) fn shell(script: &str) -> Exec {
    command(&["sh", "-c", script])
}

pub(super) fn command(args: &[&str]) -> Exec {
    Exec {
        args: args.iter().map(ToString::to_string).collect(),
        ..Exec::default()
    }
}

/// Waits until something is so that nothing tells of.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// In a process of its own: starts a command in namespaces, and an agent; tells their numbers.
fn be_init(start: &Start, listener: UnixListener, mut report: fs::File) -> ! {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let Some(command) = process::fork_in_pid_namespace().unwrap() else {
        // A test that fails leaves nothing behind, which would hold its output open.
        set_pdeathsig(Signal::SIGKILL).unwrap();
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).unwrap();
        limits::set_oom_score_adj(start.process.oom_score_adj.unwrap_or_default()).unwrap();
        let Err(failure) = process::finish(&start.process);
        panic!("{failure}");
    };
    write!(report, "{command} ").unwrap();
    if let Some(container) = super::fork(start, command) {
        set_pdeathsig(Signal::SIGKILL).unwrap();
        write!(report, "{}", std::process::id()).unwrap();
        drop(report);
        let listener = std::os::fd::OwnedFd::from(listener);
        super::serve(listener.into(), container);
    }
    drop((listener, report));
    let _ = reap::Command::new(command).wait();
    while let Ok(ended) = syscalls::wait_for_child() {
        let _ = syscalls::reap(ended.pid);
    }
    std::process::exit(0);
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: u8,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A client, which waits for what it wants.
pub(super) struct Client(pub(super) Channel<UnixStream, FromAgent>);

impl Client {
    pub(super) fn send(&mut self, message: &ToAgent) {
        self.0.send(message).unwrap();
    }

    /// The same, once its command runs.
    pub(super) fn started(mut self, exec: Exec) -> Self {
        self.send(&ToAgent::Exec(Box::new(exec)));
        let started = self.next();
        assert!(
            matches!(started, Some(FromAgent::Started { .. })),
            "{started:?}"
        );
        self
    }

    /// The next message; none if the agent has ended the connection.
    pub(super) fn next(&mut self) -> Option<FromAgent> {
        loop {
            if let Some(message) = self.0.next().unwrap() {
                return Some(message);
            }
            match self.0.fill(&mut [0; READ_SIZE]) {
                Ok(()) => {}
                Err(Error::Closed) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Sends as much input as may be.
    pub(super) fn input(&mut self, mut bytes: &[u8]) -> usize {
        let mut credit = STDIN_WINDOW;
        let mut received = 0;
        while !bytes.is_empty() {
            let size = bytes.len().min(credit).min(MAX_DATA);
            let (part, rest) = bytes.split_at(size);
            bytes = rest;
            credit -= size;
            self.send(&ToAgent::Stdin(part.to_vec()));
            while credit == 0 {
                match self.next() {
                    Some(FromAgent::Taken(count)) => credit += count as usize,
                    Some(FromAgent::Stdout(bytes)) => received += bytes.len(),
                    other => panic!("{other:?}"),
                }
            }
        }
        received
    }

    /// The rest of the output, and the end.
    pub(super) fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = loop {
            match self.next() {
                Some(FromAgent::Stdout(bytes)) => stdout.extend(bytes),
                Some(FromAgent::Stderr(bytes)) => stderr.extend(bytes),
                Some(FromAgent::Taken(_)) => {}
                Some(FromAgent::Exited { code }) => break code,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(self.next(), None);
        Ended {
            code,
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Waits for this text in the output.
    pub(super) fn expect(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.next() {
                Some(FromAgent::Stdout(bytes)) => seen += &String::from_utf8_lossy(&bytes),
                Some(FromAgent::Taken(_)) => {}
                other => panic!("{other:?} after {seen:?}"),
            }
        }
    }
}
