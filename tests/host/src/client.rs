//! Commands in a test host.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::protocol::{CHUNK, Exec, Reply, Request, VERSION};
use crate::winsize::Size;

/// A command to run in a host.
#[derive(Default)]
pub struct Command {
    exec: Exec,
    stdin: Option<Box<dyn Read + Send>>,
    timeout: Option<Duration>,
    resizes: Option<Receiver<Size>>,
    pub(crate) set_clock: bool,
}

/// How a command ended, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: u8,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// A command ran into its timeout; it was killed.
#[derive(Debug, thiserror::Error)]
#[error("timed out after {0:?}: {1}")]
pub struct TimedOut(Duration, String);

impl Command {
    /// `argv` is the program, looked up in PATH, and its arguments. Its input is empty.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self {
            exec: Exec {
                argv,
                ..Exec::default()
            },
            ..Self::default()
        }
    }

    /// A script for `sh -c`.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        Self::new(["sh", "-c", script])
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.exec.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Feeds it `stdin`, from a thread of its own.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Read + Send + 'static) -> Self {
        self.stdin = Some(Box::new(stdin));
        self
    }

    /// Kills it when it has not ended after this time: [`TimedOut`].
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it on a terminal of this size, which then follows `resizes`.
    #[must_use]
    pub fn terminal(mut self, size: Size, resizes: Receiver<Size>) -> Self {
        self.exec.terminal = Some(size);
        self.resizes = Some(resizes);
        self
    }

    /// Runs it by the agent behind `port`, its output to `stdout` and `stderr` as it comes. Returns its exit
    /// code when it has ended and nothing holds its output open any more.
    ///
    /// # Errors
    /// The host is gone, the command could not be started, [`TimedOut`], or the output could not be written.
    pub(crate) fn run(
        self,
        port: u16,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<u8> {
        let end = self.timeout.map(|timeout| Instant::now() + timeout);
        let name = self.exec.argv.join(" ");
        let mut stream = connect(port, end).context("the test host does not answer")?;
        let requests = Requests(Arc::new(Mutex::new(stream.try_clone()?)));
        if self.set_clock {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
            requests.send(&Request::SetClock(u64::try_from(now)?))?;
        }
        requests.send(&Request::Exec(self.exec))?;
        let (input, sizes) = (requests.clone(), requests);
        match self.stdin {
            Some(stdin) => drop(thread::spawn(move || feed(stdin, &input))),
            None => input.send(&Request::StdinEnd)?,
        }
        if let Some(resizes) = self.resizes {
            thread::spawn(move || {
                resizes
                    .into_iter()
                    .try_for_each(|size| sizes.send(&Request::Resize(size)))
            });
        }
        let result = receive(&mut stream, end, stdout, stderr);
        // Ends the command, if it still runs, and our threads' sending.
        let _ = stream.shutdown(Shutdown::Both);
        match (result, self.timeout) {
            (Err(error), Some(timeout)) if is_timeout(&error) => {
                Err(TimedOut(timeout, name).into())
            }
            (result, _) => result,
        }
    }

    /// Runs it and collects its output.
    ///
    /// # Errors
    /// As for [`Command::run`].
    pub(crate) fn output(self, port: u16) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = self.run(port, &mut stdout, &mut stderr)?;
        Ok(Output {
            code,
            stdout,
            stderr,
        })
    }
}

/// The sending half: messages are written whole, from several threads.
#[derive(Clone)]
struct Requests(Arc<Mutex<TcpStream>>);

impl Requests {
    fn send(&self, request: &Request) -> Result<(), proto::Error> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proto::send(&mut *stream, request)
    }
}

fn connect(port: u16, end: Option<Instant>) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    limit(&stream, end)?;
    match proto::recv(&mut stream) {
        Ok(Reply::Hello { .. }) => Ok(stream),
        Ok(other) => bail!("its agent said {other:?}"),
        Err(proto::Error::Version(other)) => {
            bail!(
                "its agent speaks version {other}, we speak {VERSION}: `testhost down`, then `up`"
            )
        }
        Err(error) => Err(error).context("its agent hung up"),
    }
}

/// Lets the next read wait until `end` at most.
fn limit(stream: &TcpStream, end: Option<Instant>) -> io::Result<()> {
    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(left)
}

fn is_timeout(error: &anyhow::Error) -> bool {
    let of_frames = error.downcast_ref().and_then(|error| match error {
        proto::Error::Io(error) => Some(error),
        _ => None,
    });
    of_frames
        .or_else(|| error.downcast_ref())
        .is_some_and(|error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            )
        })
}

/// Sends the input in chunks as it comes, and its end.
fn feed(mut stdin: impl Read, requests: &Requests) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let bytes = match stdin.read(&mut buffer) {
            Ok(0) => return Ok(requests.send(&Request::StdinEnd)?),
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        requests.send(&Request::Stdin(bytes.to_vec()))?;
    }
}

/// Takes the agent's messages up to the last one.
fn receive(
    stream: &mut TcpStream,
    end: Option<Instant>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<u8> {
    loop {
        limit(stream, end)?;
        match proto::recv(stream) {
            Ok(Reply::Stdout(bytes)) => {
                stdout
                    .write_all(&bytes)
                    .and_then(|()| stdout.flush())
                    .context("write to stdout")?;
            }
            Ok(Reply::Stderr(bytes)) => {
                stderr
                    .write_all(&bytes)
                    .and_then(|()| stderr.flush())
                    .context("write to stderr")?;
            }
            Ok(Reply::Exit(code)) => return Ok(code),
            Ok(Reply::Failed(reason)) => bail!("in the test host: {reason}"),
            Ok(Reply::Hello { .. }) => bail!("the test host's agent said hello twice"),
            Err(proto::Error::Closed) => bail!("the test host ended while the command ran"),
            Err(error) => return Err(error.into()),
        }
        ensure!(
            end.is_none_or(|end| Instant::now() < end),
            io::Error::from(io::ErrorKind::TimedOut)
        );
    }
}
