//! `vsockcheck`: stream connections between the host and a guest by its socket device, checked at both ends.
//!
//! A connection begins with a request: who sends when, and two lengths. Each side closes its direction when it has sent
//! all, and compares what it got.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Parser, Subcommand};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, listen, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::{setsockopt_impl, sockopt_impl};
use rustix::net::{SocketFlags, accept_with};
use tests::pattern::{Digest, Pattern};

/// Connects programs of the host with those of a guest, and checks what arrives.
#[derive(Parser)]
#[command(name = "vsockcheck")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer at a port, for ever; says `ready`, and `lost` for each connection that ends too early
    Serve { port: u32 },
    /// Connect so many times, so many at once, and exchange so many KiB each; TO is a CID, or the path of a socket
    Exchange {
        to: String,
        port: u32,
        connections: usize,
        at_once: usize,
        send: u64,
        receive: u64,
    },
    /// Exchange 1 MiB each way, but one side begins when the other has closed its direction: first ours, then theirs
    Halves { to: String, port: u32 },
    /// Exchange 4 MiB while another connection is stuck, whose program never reads
    Stuck { to: String, port: u32 },
    /// Kill a process that has a connection: one here in the middle of an exchange, then one there
    Kill { to: String, port: u32 },
    /// Connect so many times, say nothing, and stay until killed; says `half`, and then `all`
    Crowd {
        to: String,
        port: u32,
        connections: usize,
    },
    /// Keep the standard input, until killed; says `held`
    Hold,
}

const CLIENT: u64 = 1;
const SERVER: u64 = 2;

/// Who sends when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    AtOnce,
    ClientFirst,
    ServerFirst,
    /// Nobody: the server gives the connection to a process that it kills.
    Killed,
}

const ORDERS: [Order; 4] = [
    Order::AtOnce,
    Order::ClientFirst,
    Order::ServerFirst,
    Order::Killed,
];

/// What a client wants of the server: so many bytes go to it, so many come.
struct Request {
    order: Order,
    send: u64,
    receive: u64,
}

/// A CID or a path, and a port of the guest.
type Server = (String, u32);

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vsockcheck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Serve { port } => return serve(port),
        Verb::Exchange {
            to,
            port,
            connections,
            at_once,
            send,
            receive,
        } => exchanges(
            &(to, port),
            (connections, at_once),
            &Request::both(send << 10, receive << 10),
        )?,
        Verb::Halves { to, port } => halves(&(to, port))?,
        Verb::Stuck { to, port } => stuck(&(to, port))?,
        Verb::Kill { to, port } => kill(&(to, port))?,
        Verb::Crowd {
            to,
            port,
            connections,
        } => {
            let _crowd = crowd(&(to, port), connections)?;
            stay("all");
        }
        Verb::Hold => stay("held"),
    }
    println!("ok");
    Ok(())
}

impl Request {
    fn both(send: u64, receive: u64) -> Self {
        Self {
            order: Order::AtOnce,
            send,
            receive,
        }
    }

    /// Connects, and asks for this.
    fn open(&self, to: &Server) -> Result<UnixStream> {
        let mut connection = open(to)?;
        let words = [self.order as u64, self.send, self.receive];
        connection.write_all(&words.map(u64::to_le_bytes).concat())?;
        Ok(connection)
    }

    fn read(mut connection: &UnixStream) -> Result<Self> {
        let mut words = [[0; 8]; 3];
        for word in &mut words {
            connection.read_exact(word)?;
        }
        let [order, send, receive] = words.map(u64::from_le_bytes);
        let order = ORDERS.get(order as usize).context("no such order")?;
        Ok(Self {
            order: *order,
            send,
            receive,
        })
    }

    /// Does it, as the client.
    fn make(&self, to: &Server) -> Result<()> {
        let connection = self.open(to)?;
        match self.order {
            Order::ClientFirst => {
                send(&connection, CLIENT, self.send)?;
                receive(&connection, SERVER, self.receive)
            }
            Order::ServerFirst => {
                receive(&connection, SERVER, self.receive)?;
                send(&connection, CLIENT, self.send)
            }
            _ => at_once(&connection, (CLIENT, self.send), (SERVER, self.receive)),
        }
    }

    /// Does it, as the server.
    fn answer(&self, connection: UnixStream) -> Result<()> {
        match self.order {
            Order::AtOnce => at_once(&connection, (SERVER, self.receive), (CLIENT, self.send)),
            Order::ClientFirst => {
                receive(&connection, CLIENT, self.send)?;
                send(&connection, SERVER, self.receive)
            }
            Order::ServerFirst => {
                send(&connection, SERVER, self.receive)?;
                receive(&connection, CLIENT, self.send)
            }
            Order::Killed => {
                (&connection).write_all(b"!")?;
                kill_holder(connection)
            }
        }
    }
}

/// `VMADDR_CID_ANY` of linux/vm_sockets.h.
const ANY: u32 = u32::MAX;
/// `SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD` of linux/vm_sockets.h.
const CONNECT_TIMEOUT: libc::c_int = 6;

sockopt_impl!(
    /// How long connect(2) waits for the guest: 2 s else, in which an emulated one may not come to it.
    ConnectTimeout, SetOnly, libc::AF_VSOCK, CONNECT_TIMEOUT, TimeVal
);

fn serve(port: u32) -> Result<()> {
    let socket = vsock()?;
    bind(socket.as_raw_fd(), &VsockAddr::new(ANY, port)).context("bind")?;
    listen(&socket, Backlog::new(128)?).context("listen")?;
    println!("ready");
    loop {
        let connection = accept_with(&socket, SocketFlags::CLOEXEC).context("accept")?;
        let connection = UnixStream::from(connection);
        thread::spawn(move || {
            let done = Request::read(&connection).and_then(|request| request.answer(connection));
            if let Err(error) = done {
                println!("lost");
                eprintln!("vsockcheck: {error:#}");
            }
        });
    }
}

fn vsock() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Vsock, SockType::Stream, flags, None).context("AF_VSOCK")
}

fn open((to, port): &Server) -> Result<UnixStream> {
    let Ok(cid) = to.parse() else {
        let mut stream = UnixStream::connect(to).with_context(|| to.clone())?;
        writeln!(stream, "CONNECT {port}")?;
        let mut line = String::new();
        // The server says nothing before it has the request: nothing is read beyond the line.
        BufReader::new(&stream).read_line(&mut line)?;
        ensure!(line.starts_with("OK "), "refused: {line:?}");
        return Ok(stream);
    };
    let socket = vsock()?;
    setsockopt(&socket, ConnectTimeout, &TimeVal::seconds(60)).context("connect timeout")?;
    connect(socket.as_raw_fd(), &VsockAddr::new(cid, *port)).context("connect")?;
    Ok(UnixStream::from(socket))
}

/// Sends so many bytes of a seed, and closes that direction.
fn send(mut connection: &UnixStream, seed: u64, length: u64) -> Result<()> {
    std::io::copy(&mut Pattern::new(seed).take(length), &mut connection).context("send")?;
    connection.shutdown(Shutdown::Write).context("close")
}

/// Receives to the end, which has to be so many bytes of a seed.
fn receive(connection: &UnixStream, seed: u64, length: u64) -> Result<()> {
    let got = Digest::of(connection).context("receive")?;
    let expected = Digest::of(Pattern::new(seed).take(length))?;
    ensure!(got == expected, "received {got}, not {expected}");
    Ok(())
}

/// Sends and receives at once: so many bytes of a seed each.
fn at_once(connection: &UnixStream, ours: (u64, u64), theirs: (u64, u64)) -> Result<()> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(connection, ours.0, ours.1));
        receive(connection, theirs.0, theirs.1)?;
        sender.join().map_err(|_| anyhow!("panicked"))?
    })
}

fn exchanges(to: &Server, (connections, at_once): (usize, usize), request: &Request) -> Result<()> {
    thread::scope(|scope| {
        let work = || (0..connections / at_once).try_for_each(|_| request.make(to));
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    })
}

fn halves(to: &Server) -> Result<()> {
    [Order::ClientFirst, Order::ServerFirst]
        .into_iter()
        .try_for_each(|order| {
            let request = Request {
                order,
                ..Request::both(1 << 20, 1 << 20)
            };
            request.make(to)
        })
}

fn stuck(to: &Server) -> Result<()> {
    let _silent = Request::both(0, 64 << 20).open(to)?;
    Request::both(4 << 20, 4 << 20).make(to)
}

fn kill(to: &Server) -> Result<()> {
    let ours = Request::both(64 << 20, 64 << 20).open(to)?;
    // Both have something to send.
    (&ours).write_all(&[0; 1000])?;
    (&ours).read_exact(&mut [0; 1000])?;
    kill_holder(ours)?;
    let theirs = Request {
        order: Order::Killed,
        ..Request::both(0, 0)
    };
    let theirs = theirs.open(to)?;
    (&theirs).read_exact(&mut [0])?;
    match (&theirs).read(&mut [0]) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => bail!("after the end: {other:?}"),
    }
}

/// Connections that say nothing. A guest that is not as fast refuses some: they are made again.
fn crowd(to: &Server, connections: usize) -> Result<Vec<UnixStream>> {
    let mut refused = 0;
    let mut crowd = Vec::new();
    while crowd.len() < connections {
        match open(to) {
            Ok(connection) => crowd.push(connection),
            Err(_) if refused < connections => {
                refused += 1;
                continue;
            }
            Err(error) => return Err(error),
        }
        if crowd.len() == connections / 2 {
            println!("half");
        }
    }
    eprintln!("vsockcheck: {refused} connections were refused");
    Ok(crowd)
}

fn stay(word: &str) -> ! {
    println!("{word}");
    loop {
        thread::park();
    }
}

/// Gives a connection to a process, and kills that.
fn kill_holder(connection: UnixStream) -> Result<()> {
    let mut holder = Command::new(std::env::current_exe()?);
    holder.arg("hold").stdin(OwnedFd::from(connection));
    let mut child = holder.stdout(Stdio::piped()).spawn()?;
    // It is the only one that has the connection.
    drop(holder);
    let mut line = String::new();
    let output = child.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line == "held\n", "the holder said {line:?}");
    child.kill()?;
    child.wait()?;
    Ok(())
}
