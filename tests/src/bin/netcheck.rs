//! `netcheck`: data both ways over TCP and UDP, checked at both ends, in containers and on the host.
//!
//! A connection begins with the two lengths; then both sides send at once, and each tells the other the digest of what it got.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use tests::pattern::{Digest, Pattern};

/// Sends and receives over a network, and checks what arrives.
#[derive(Parser)]
#[command(name = "netcheck")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer at a TCP and a UDP port, for ever; says `ready`
    Serve { port: u16 },
    /// Send and receive so many MiB by TCP at once; says how it went and who answered
    Tcp {
        address: String,
        #[arg(default_value_t = 0)]
        send: u64,
        #[arg(default_value_t = 0)]
        receive: u64,
    },
    /// Send datagrams by UDP until one of them comes back; says who answered
    Udp {
        address: String,
        #[arg(default_value_t = 1000)]
        bytes: usize,
    },
    /// Answer each DNS query at this address with 192.0.2.7, for ever; says `ready`
    NameServer { address: String },
    /// Count requests and answers of one byte by TCP, for so many milliseconds
    Ping { address: String, milliseconds: u64 },
    /// Send or receive so many MiB by TCP, unchecked, again and again; says the microseconds of each
    Stream {
        address: String,
        #[arg(value_enum)]
        way: Way,
        mib: u64,
        times: u32,
    },
}

/// From the client's side.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Send,
    Receive,
}

/// Seeds of what the client sends, and of what the server does.
const CLIENT: u64 = 1;
const SERVER: u64 = 2;
/// First length of a connection that counts requests, and of those whose bytes nobody checks: the second one is how many.
const PING: u64 = u64::MAX;
const SEND: u64 = u64::MAX - 1;
const RECEIVE: u64 = u64::MAX - 2;
/// A lost datagram is sent again after this time, so often.
const RETRY: Duration = Duration::from_secs(2);
const TRIES: u32 = 30;

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Serve { port } => serve(port),
        Verb::Tcp {
            address,
            send,
            receive,
        } => tcp(&address, send << 20, receive << 20),
        Verb::Udp { address, bytes } => udp(&address, bytes),
        Verb::NameServer { address } => name_server(&address),
        Verb::Ping {
            address,
            milliseconds,
        } => ping(&address, Duration::from_millis(milliseconds)),
        Verb::Stream {
            address,
            way,
            mib,
            times,
        } => (0..times).try_for_each(|_| stream(&address, way, mib << 20)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netcheck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16) -> Result<()> {
    // For IPv4, too; a kernel without IPv6 has that one only.
    let both =
        TcpListener::bind(("::", port)).and_then(|tcp| Ok((tcp, UdpSocket::bind(("::", port))?)));
    let (tcp, udp) = match both {
        Ok(both) => both,
        Err(_) => (
            TcpListener::bind(("0.0.0.0", port)).context("TCP port")?,
            UdpSocket::bind(("0.0.0.0", port)).context("UDP port")?,
        ),
    };
    thread::spawn(move || echo(&udp));
    println!("ready");
    for connection in tcp.incoming() {
        let connection = connection.context("accept")?;
        thread::spawn(move || answer(connection));
    }
    Ok(())
}

fn echo(socket: &UdpSocket) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // Who has gone already misses nothing.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

/// The server's side of a connection.
fn answer(mut connection: TcpStream) -> Result<()> {
    let mut lengths = [[0; 8]; 2];
    for length in &mut lengths {
        connection.read_exact(length)?;
    }
    let [theirs, ours] = lengths.map(u64::from_le_bytes);
    match theirs {
        PING => pong(connection),
        SEND => take(&mut connection, ours),
        RECEIVE => give(&mut connection, ours),
        _ => exchange(connection, (SERVER, ours), (CLIENT, theirs)),
    }
}

fn pong(mut connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut byte = [0];
    while connection.read(&mut byte)? == 1 {
        connection.write_all(&byte)?;
    }
    Ok(())
}

/// Sends so many bytes of a seed while it receives so many of another; then both sides compare.
fn exchange(mut connection: TcpStream, send: (u64, u64), receive: (u64, u64)) -> Result<()> {
    let mut out = connection.try_clone()?;
    let sender = thread::spawn(move || {
        // Whole groups of eight at a time.
        std::io::copy(&mut Pattern::new(send.0).take(send.1), &mut out)
    });
    let got = Digest::of((&mut connection).take(receive.1))?.to_string();
    let sent = sender.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(sent == send.1, "{sent} bytes sent of {}", send.1);
    let digest = |seed, length| -> Result<String> {
        Ok(Digest::of(Pattern::new(seed).take(length))?.to_string())
    };
    connection.write_all(&[u8::from(got == digest(receive.0, receive.1)?)])?;
    let mut theirs = [0];
    connection
        .read_exact(&mut theirs)
        .context("the other side's verdict")?;
    ensure!(
        got == digest(receive.0, receive.1)?,
        "received {got}: not what was sent"
    );
    ensure!(theirs == [1], "what was sent did not arrive");
    Ok(())
}

fn tcp(address: &str, send: u64, receive: u64) -> Result<()> {
    let (mut connection, peer) = connect(address)?;
    let begun = Instant::now();
    connection.write_all(&[send.to_le_bytes(), receive.to_le_bytes()].concat())?;
    exchange(connection, (CLIENT, send), (SERVER, receive))?;
    println!("ok {peer} after {} ms", begun.elapsed().as_millis());
    Ok(())
}

fn ping(address: &str, time: Duration) -> Result<()> {
    let (mut connection, _) = connect(address)?;
    connection.set_nodelay(true)?;
    connection.write_all(&[PING.to_le_bytes(), [0; 8]].concat())?;
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        connection.write_all(&[7])?;
        connection.read_exact(&mut [0])?;
        count += 1;
    }
    println!("{}", count * 1000 / time.as_millis().max(1) as u64);
    Ok(())
}

fn stream(address: &str, way: Way, bytes: u64) -> Result<()> {
    let (mut connection, _) = connect(address)?;
    let begun = Instant::now();
    let kind = if way == Way::Send { SEND } else { RECEIVE };
    connection.write_all(&[kind.to_le_bytes(), bytes.to_le_bytes()].concat())?;
    match way {
        Way::Send => give(&mut connection, bytes)?,
        Way::Receive => take(&mut connection, bytes)?,
    }
    println!("{}", begun.elapsed().as_micros());
    Ok(())
}

/// Sends so many bytes, and waits until the other side has them all.
fn give(connection: &mut TcpStream, bytes: u64) -> Result<()> {
    let zeros = [0; 1 << 16];
    for _ in 0..bytes / zeros.len() as u64 {
        connection.write_all(&zeros)?;
    }
    connection.read_exact(&mut [0]).context("the other side")
}

fn take(connection: &mut TcpStream, bytes: u64) -> Result<()> {
    let mut buffer = [0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let read = connection.read(&mut buffer)?;
        ensure!(read > 0, "{left} bytes are missing");
        left = left.saturating_sub(read as u64);
    }
    Ok(connection.write_all(&[1])?)
}

fn connect(address: &str) -> Result<(TcpStream, SocketAddr)> {
    let connection =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    let peer = connection.peer_addr()?;
    Ok((connection, peer))
}

/// An answer is the query, with an answer behind the question (RFC 1035, 4.1).
fn name_server(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| address.to_owned())?;
    println!("ready");
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let Some(query) = buffer.get(..length).filter(|query| query.len() > 16) else {
            continue;
        };
        // The question is a name, which ends with an empty label, a type and a class.
        let name = query[12..].iter().position(|&byte| byte == 0).unwrap_or(0);
        let end = (12 + name + 5).min(length);
        let is_a = query.get(end - 4..end) == Some(&[0, 1, 0, 1]);
        let mut answer = query[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            // The name of the question, A, IN, for no time, 4 bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 7]);
        }
        socket.send_to(&answer, from)?;
    }
}

fn udp(address: &str, bytes: usize) -> Result<()> {
    let peer = address.to_socket_addrs()?.next().context("no address")?;
    let any = if peer.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(RETRY))?;
    let sent = Pattern::bytes(CLIENT, bytes);
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..TRIES {
        socket
            .send(&sent)
            .with_context(|| format!("send to {peer}"))?;
        if let Ok(length) = socket.recv(&mut buffer) {
            ensure!(buffer[..length] == sent, "another datagram came back");
            println!("ok {peer}");
            return Ok(());
        }
    }
    anyhow::bail!("{peer}: no answer")
}
