//! `vsockcheck`: stream connections between the host and a guest by its socket device, checked at both ends.
//!
//! A connection begins with two lengths; then both sides send at once, close their direction, and compare what they got.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, Subcommand};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, listen, socket,
};
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
    /// Answer at a port, for ever; says `ready`
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
    /// Exchange 4 MiB while two other connections are stuck: one never reads, and one is killed
    Stuck { to: String, port: u32 },
}

const CLIENT: u64 = 1;
const SERVER: u64 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Serve { port } => serve(port),
        Verb::Exchange {
            to,
            port,
            connections,
            at_once,
            send,
            receive,
        } => exchanges(
            &(to, port),
            connections,
            at_once,
            (send << 10, receive << 10),
        ),
        Verb::Stuck { to, port } => stuck(&(to, port)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vsockcheck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u32) -> Result<()> {
    let socket = vsock()?;
    bind(socket.as_raw_fd(), &VsockAddr::new(ANY, port)).context("bind")?;
    listen(&socket, Backlog::new(128)?).context("listen")?;
    println!("ready");
    loop {
        let connection = rustix::net::accept(&socket).context("accept")?;
        thread::spawn(move || answer(UnixStream::from(connection)));
    }
}

/// `VMADDR_CID_ANY` of linux/vm_sockets.h.
const ANY: u32 = u32::MAX;

fn vsock() -> Result<std::os::fd::OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Vsock, SockType::Stream, flags, None).context("AF_VSOCK")
}

fn open((to, port): &(String, u32)) -> Result<UnixStream> {
    let Ok(cid) = to.parse() else {
        let mut stream = UnixStream::connect(to).with_context(|| to.clone())?;
        writeln!(stream, "CONNECT {port}")?;
        let mut line = String::new();
        // The server says nothing before it has the lengths: nothing is read beyond the line.
        BufReader::new(&stream).read_line(&mut line)?;
        ensure!(line.starts_with("OK "), "refused: {line:?}");
        return Ok(stream);
    };
    let socket = vsock()?;
    connect(socket.as_raw_fd(), &VsockAddr::new(cid, *port)).context("connect")?;
    Ok(UnixStream::from(socket))
}

fn answer(mut connection: UnixStream) -> Result<()> {
    let mut lengths = [[0; 8]; 2];
    for length in &mut lengths {
        connection.read_exact(length)?;
    }
    let [theirs, ours] = lengths.map(u64::from_le_bytes);
    exchange(connection, (SERVER, ours), (CLIENT, theirs))
}

/// Sends so many bytes of a seed, and closes that direction, while it receives so many of another to their end.
fn exchange(connection: UnixStream, send: (u64, u64), receive: (u64, u64)) -> Result<()> {
    let mut out = connection.try_clone()?;
    let sender = thread::spawn(move || -> Result<()> {
        std::io::copy(&mut Pattern::new(send.0).take(send.1), &mut out)?;
        Ok(out.shutdown(Shutdown::Write)?)
    });
    let got = Digest::of(&connection)?;
    sender.join().map_err(|_| anyhow!("panicked"))??;
    let expected = Digest::of(Pattern::new(receive.0).take(receive.1))?;
    ensure!(got == expected, "received {got}, not {expected}");
    Ok(())
}

fn exchange_once(to: &(String, u32), (send, receive): (u64, u64)) -> Result<()> {
    let mut connection = open(to)?;
    connection.write_all(&[send.to_le_bytes(), receive.to_le_bytes()].concat())?;
    exchange(connection, (CLIENT, send), (SERVER, receive))
}

fn exchanges(
    to: &(String, u32),
    connections: usize,
    at_once: usize,
    lengths: (u64, u64),
) -> Result<()> {
    thread::scope(|scope| {
        let work = || (0..connections / at_once).try_for_each(|_| exchange_once(to, lengths));
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    })?;
    println!("ok");
    Ok(())
}

fn stuck(to: &(String, u32)) -> Result<()> {
    let lengths = [(16_u64 << 20).to_le_bytes(), (16_u64 << 20).to_le_bytes()].concat();
    let mut silent = open(to)?;
    silent.write_all(&lengths)?;
    let mut killed = open(to)?;
    killed.write_all(&lengths)?;
    drop(killed);
    exchanges(to, 1, 1, (4 << 20, 4 << 20))
}
