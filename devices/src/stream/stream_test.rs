//! Streams of each kind.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read as _, Seek, SeekFrom, Write as _, pipe};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use proptest::prelude::*;

use super::*;

fn read(input: &Input) -> Result<Vec<u8>, Read> {
    let mut bytes = vec![0; 100];
    match input.read_bytes(&mut bytes) {
        Read::Data(count) => Ok(bytes[..count].to_vec()),
        other => Err(other),
    }
}

fn is_nonblocking(fd: &impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap();
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

/// Both ways to use a pipe.
fn pipe_inputs() -> [(Input, PipeWriter, PipeReader); 2] {
    [false, true].map(|polled| {
        let (reader, writer) = pipe().unwrap();
        let inherited = reader.try_clone().unwrap();
        let input = if polled {
            Input(Stream::with(reader.into(), Access::Polled(10)))
        } else {
            Input::new(reader).unwrap()
        };
        (input, writer, inherited)
    })
}

#[test]
fn a_pipe_is_read_to_its_end_and_stays_blocking_for_others() {
    for (input, mut writer, inherited) in pipe_inputs() {
        assert_eq!(read(&input), Err(Read::WouldBlock));
        writer.write_all(b"hello").unwrap();
        assert_eq!(read(&input), Ok(b"hello".to_vec()));
        assert_eq!(read(&input), Err(Read::WouldBlock));
        writer.write_all(b"bye").unwrap();
        drop(writer);
        assert_eq!(read(&input), Ok(b"bye".to_vec()));
        assert_eq!(read(&input), Err(Read::End));
        assert!(!is_nonblocking(&inherited));
    }
}

#[test]
fn pipes_are_opened_anew() {
    let (reader, writer) = pipe().unwrap();
    assert_eq!(Input::new(reader).unwrap().0.access, Access::Direct);
    let output = Output::new(writer).unwrap();
    assert_eq!(output.0.access, Access::Direct);
    assert_eq!(output.write_bytes(b"x"), Written::Gone);
}

#[test]
fn a_full_pipe_does_not_block_and_one_without_reader_is_gone() {
    for polled in [false, true] {
        let (mut reader, writer) = pipe().unwrap();
        let output = if polled {
            Output(Stream::with(writer.into(), Access::Polled(libc::PIPE_BUF)))
        } else {
            Output::new(writer).unwrap()
        };
        let mut total = 0;
        let block = [7; 10_000];
        while let Written::Bytes(count) = output.write_bytes(&block) {
            total += count;
        }
        assert_eq!(output.write_bytes(&block), Written::WouldBlock);
        assert!(total > 60_000, "{total}: a pipe holds 16 pages");
        reader.read_exact(&mut vec![0; 8192]).unwrap();
        assert!(matches!(output.write_bytes(&block), Written::Bytes(1..)));
        drop(reader);
        assert_eq!(output.write_bytes(&block), Written::Gone);
    }
}

#[test]
fn a_file_keeps_its_position_and_its_append() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "0123456789").unwrap();

    let mut file = File::open(&path).unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let input = Input::new(file).unwrap();
    assert_eq!(read(&input), Ok(b"456789".to_vec()));
    assert_eq!(read(&input), Err(Read::End));

    let file = File::options().append(true).open(&path).unwrap();
    let output = Output::new(file).unwrap();
    fs::write(&path, "new").unwrap();
    assert_eq!(output.write_bytes(b"er"), Written::Bytes(2));
    assert_eq!(fs::read(&path).unwrap(), b"newer");
}

#[test]
fn a_socket_closes_one_direction_for_all_who_hold_it() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let other_holder = ours.try_clone().unwrap();
    let input = Input::new(ours.try_clone().unwrap()).unwrap();
    let output = Output::new(ours).unwrap();
    assert_eq!(read(&input), Err(Read::WouldBlock));
    assert!(!is_nonblocking(&other_holder));
    assert_eq!(output.write_bytes(b"out"), Written::Bytes(3));
    output.close();
    let mut all = String::new();
    theirs.read_to_string(&mut all).unwrap();
    assert_eq!(all, "out");
    theirs.write_all(b"in").unwrap();
    assert_eq!(read(&input), Ok(b"in".to_vec()));
    drop(theirs);
    assert_eq!(read(&input), Err(Read::End));
}

#[test]
fn both_ends_of_a_terminal_work_and_a_hang_up_ends_it() {
    let pty = openpty(None, None).unwrap();
    let slave_input = Input::new(pty.slave.try_clone().unwrap()).unwrap();
    let slave_output = Output::new(pty.slave).unwrap();
    assert_eq!(slave_input.0.access, Access::Direct);
    let master_input = Input::new(pty.master.try_clone().unwrap()).unwrap();
    let master_output = Output::new(pty.master).unwrap();
    assert_eq!(master_input.0.access, Access::Polled(1), "not a new one");

    assert_eq!(read(&slave_input), Err(Read::WouldBlock));
    for byte in b"hi\n" {
        let written = master_output.write_bytes(std::slice::from_ref(byte));
        assert_eq!(written, Written::Bytes(1));
    }
    assert_eq!(read(&slave_input), Ok(b"hi\n".to_vec()));
    assert_eq!(slave_output.write_bytes(b"yo"), Written::Bytes(2));
    let mut seen = Vec::new();
    while let Ok(bytes) = read(&master_input) {
        seen.extend(bytes);
    }
    assert_eq!(seen, b"hi\r\nyo", "with its echo");
    drop((master_input, master_output));
    assert_eq!(read(&slave_input), Err(Read::End));
    assert_eq!(slave_output.write_bytes(b"x"), Written::Gone);
}

#[test]
fn devices_that_take_all_and_give_nothing() {
    let null = || File::options().read(true).write(true).open("/dev/null");
    assert_eq!(read(&Input::new(null().unwrap()).unwrap()), Err(Read::End));
    let output = Output::new(null().unwrap()).unwrap();
    assert_eq!(output.write_bytes(&[0; 100_000]), Written::Bytes(100_000));
}

#[test]
fn a_spool_takes_what_its_reader_does_not_and_drops_what_is_too_much() {
    let (mut reader, writer) = pipe().unwrap();
    let mut spool = Spool::new(Some(Output::new(writer).unwrap()));
    let sent: Vec<u8> = (0..400_000u32).map(|i| (i / 7) as u8).collect();
    spool.take_bytes(&sent);
    assert!(spool.blocked_on().is_some());
    let mut got = vec![0; 65_536 + (256 << 10)];
    let mut half = got.len() / 2;
    let (first, second) = got.split_at_mut(half);
    for part in [first, second] {
        let mut rest = part;
        while !rest.is_empty() {
            let count = rest.len().min(65_536);
            reader.read_exact(&mut rest[..count]).unwrap();
            rest = &mut rest[count..];
            spool.flush();
        }
    }
    half = got.len();
    assert_eq!(got, sent[..half]);
    assert_eq!(spool.blocked_on(), None);
    spool.take_bytes(b"again");
    let mut again = [0; 5];
    reader.read_exact(&mut again).unwrap();
    assert_eq!(&again, b"again");
    drop(reader);
    spool.take_bytes(&sent);
    assert_eq!(spool.blocked_on(), None, "nobody will read it");
}

proptest! {
    /// Whatever the sizes of writes and reads, a spool changes nothing as long as it has room.
    #[test]
    fn a_spool_keeps_the_order(
        writes in prop::collection::vec(0usize..30_000, 1..10),
        reads in prop::collection::vec(1usize..50_000, 0..10),
    ) {
        let (mut reader, writer) = pipe().unwrap();
        let mut spool = Spool::new(Some(Output::new(writer).unwrap()));
        let mut sent = Vec::<u8>::new();
        let mut got = Vec::<u8>::new();
        let mut reads = reads.into_iter();
        for (i, length) in writes.into_iter().enumerate() {
            let mut data: Vec<u8> = (0..length).map(|j| (i + j) as u8).collect();
            sent.extend(&data);
            if i % 2 == 0 {
                spool.take_bytes(&data);
            } else {
                spool.take_slices(&[VolatileSlice::from(data.as_mut_slice())]);
            }
            if let Some(most) = reads.next() && got.len() < sent.len() {
                let mut part = vec![0; most];
                let count = reader.read(&mut part).unwrap();
                got.extend(&part[..count]);
                spool.flush();
            }
        }
        while got.len() < sent.len() {
            let mut part = vec![0; 65_536];
            let count = reader.read(&mut part).unwrap();
            got.extend(&part[..count]);
            spool.flush();
        }
        prop_assert_eq!(got, sent);
    }
}
