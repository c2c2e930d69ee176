//! Running commands for clients: one connection, one command, a thread for each direction of each stream.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::Pid;
use testhost::protocol::{CHUNK, Exec, Reply, Request, VERSION};
use testhost::winsize;

use crate::start;

/// What clients' commands find; init gives its children hardly any environment.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("TERM", "linux"),
];

/// Serves clients for ever.
///
/// # Errors
/// The port cannot be listened on.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .with_context(|| format!("listen on port {port}"))?;
    start::tell_ready()?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = session(&stream) {
                eprintln!("hostagent: {error:#}");
            }
        });
    }
    Ok(())
}

/// The client's side of a session; messages are written whole, from several threads.
#[derive(Clone)]
struct Client(Arc<Mutex<TcpStream>>);

impl Client {
    fn send(&self, reply: &Reply) -> Result<(), proto::Error> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proto::send(&mut *stream, reply)
    }
}

fn session(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let client = Client(Arc::new(Mutex::new(stream.try_clone()?)));
    client.send(&Reply::Hello { version: VERSION })?;
    let mut requests = stream.try_clone()?;
    loop {
        match proto::recv(&mut requests) {
            Err(proto::Error::Closed) => return Ok(()),
            Ok(Request::SetClock(nanos)) => {
                let now = TimeSpec::from_duration(Duration::from_nanos(nanos));
                clock_settime(ClockId::CLOCK_REALTIME, now).context("set the clock")?;
            }
            Ok(Request::Exec(exec)) => {
                let last = match run(&exec, &client, requests) {
                    Ok(code) => Reply::Exit(code),
                    Err(error) => Reply::Failed(format!("{error:#}")),
                };
                client.send(&last)?;
                return Ok(stream.shutdown(std::net::Shutdown::Both)?);
            }
            Ok(other) => bail!("no command yet, but {other:?}"),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A started command and its streams.
struct Running {
    child: Child,
    input: Option<Box<dyn Write + Send>>,
    outputs: Vec<JoinHandle<()>>,
    terminal: Option<File>,
}

/// Runs `exec` to its end, and to the end of its output; gives its exit code.
fn run(exec: &Exec, client: &Client, requests: TcpStream) -> Result<u8> {
    let Running {
        mut child,
        input,
        outputs,
        terminal,
    } = match exec.terminal {
        Some(size) => start_on_terminal(exec, size, client)?,
        None => start_on_pipes(exec, client)?,
    };
    let group = Arc::new(Mutex::new(Some(Pid::from_raw(child.id().cast_signed()))));
    let (bytes, queue) = mpsc::channel();
    thread::spawn(move || feed(input, &queue));
    let killed = Arc::clone(&group);
    thread::spawn(move || obey(requests, bytes, terminal, &killed));

    let status = child.wait().context("wait for the command")?;
    for output in outputs {
        let _ = output.join();
    }
    // From here on a client that hangs up kills nothing: the number may be another process's.
    *group.lock().unwrap_or_else(PoisonError::into_inner) = None;
    Ok(code_of(status))
}

fn command(argv: &[String], exec: &Exec) -> Result<Command> {
    let [program, args @ ..] = argv else {
        bail!("no command");
    };
    let mut command = Command::new(program);
    command.args(args).current_dir("/");
    command.envs(ENVIRONMENT);
    command.envs(exec.env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_os_string();
    command
        .spawn()
        .with_context(|| format!("start {}", program.display()))
}

fn start_on_pipes(exec: &Exec, client: &Client) -> Result<Running> {
    let mut child = spawn(
        command(&exec.argv, exec)?
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    let mut outputs = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        outputs.push(pump(stdout, client, Reply::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        outputs.push(pump(stderr, client, Reply::Stderr));
    }
    let input = child.stdin.take().map(|stdin| Box::new(stdin) as _);
    Ok(Running {
        child,
        input,
        outputs,
        terminal: None,
    })
}

/// setsid(1) makes the terminal the controlling one: in between fork and exec, without unsafe code of ours.
/// It execs the command in its own process, which then leads a session and so a process group.
fn start_on_terminal(exec: &Exec, size: winsize::Size, client: &Client) -> Result<Running> {
    let (master, slave) = open_terminal(size).context("open a terminal")?;
    let mut argv = vec!["setsid".to_owned(), "--ctty".to_owned(), "--".to_owned()];
    argv.extend(exec.argv.iter().cloned());
    let child = spawn(
        command(&argv, exec)?
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave),
    )?;
    let output = master.try_clone()?;
    let input = master.try_clone()?;
    Ok(Running {
        child,
        input: Some(Box::new(input)),
        outputs: vec![pump(output, client, Reply::Stdout)],
        terminal: Some(master),
    })
}

/// Both sides of a new terminal. Close-on-exec from the start: a command that inherited a side of another's
/// terminal would keep it open.
fn open_terminal(size: winsize::Size) -> Result<(File, File)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master)?)?;
    winsize::set(&slave, size)?;
    Ok((File::from(OwnedFd::from(master)), slave))
}

/// Sends what comes out of `from`. It ends at the end of the stream, which a terminal reports as EIO.
fn pump(
    mut from: impl Read + Send + 'static,
    client: &Client,
    reply: fn(Vec<u8>) -> Reply,
) -> JoinHandle<()> {
    let client = client.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            if client.send(&reply(bytes)).is_err() {
                return; // gone; `obey` sees it too and kills
            }
        }
    })
}

/// Writes what is queued to the command's input. A command that no longer reads is no error, as for a shell.
fn feed(input: Option<Box<dyn Write + Send>>, queue: &Receiver<Vec<u8>>) {
    let Some(mut input) = input else { return };
    while let Ok(bytes) = queue.recv() {
        if input.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Takes the client's messages until it hangs up, then kills the command's process group.
///
/// Input is queued without bound, so that a command that does not read cannot hide the hang-up.
fn obey(
    mut requests: TcpStream,
    bytes: Sender<Vec<u8>>,
    terminal: Option<File>,
    group: &Mutex<Option<Pid>>,
) {
    let mut bytes = Some(bytes);
    while let Ok(request) = proto::recv(&mut requests) {
        match request {
            Request::Stdin(chunk) => {
                if let Some(queue) = &bytes {
                    let _ = queue.send(chunk);
                }
            }
            Request::StdinEnd => bytes = None,
            Request::Resize(size) => {
                if let Some(terminal) = &terminal {
                    let _ = winsize::set(terminal, size);
                }
            }
            Request::SetClock(_) | Request::Exec(_) => break,
        }
    }
    if let Some(group) = *group.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// The shell's convention: 128 + the signal for a killed command.
fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}
