use proptest::prelude::*;

use super::*;

/// Our ends, and the command's.
fn pipes() -> (Streams, [File; 3]) {
    let (streams, end) = Streams::open(None).unwrap();
    let CommandEnd::Pipes(pipes) = end else {
        panic!("no pipes")
    };
    (streams, pipes.map(File::from))
}

fn told(streams: &mut Streams) -> u32 {
    match streams.taken() {
        Some(FromAgent::Taken(count)) => count,
        _ => 0,
    }
}

#[test]
fn input_arrives_and_ends() {
    let (mut streams, [mut stdin, ..]) = pipes();
    streams.hold(b"some ").unwrap();
    streams.feed();
    streams.hold(b"input").unwrap();
    streams.end_input();
    streams.feed();
    assert_eq!((told(&mut streams), told(&mut streams)), (10, 0));
    assert!(streams.hold(b"more").is_err());
    let mut text = String::new();
    stdin.read_to_string(&mut text).unwrap();
    assert_eq!(text, "some input");
}

#[test]
fn no_more_than_the_window_is_held() {
    let (mut streams, _stdin) = pipes();
    let part = [0; MAX_DATA];
    assert!(streams.hold(&[0; MAX_DATA + 1]).is_err());
    for _ in 0..STDIN_WINDOW / MAX_DATA {
        streams.hold(&part).unwrap();
        // What the client was not told of counts as well.
        streams.feed();
    }
    assert!(streams.hold(b"x").is_err());
    let taken = told(&mut streams) as usize;
    assert!(taken > 0 && taken < STDIN_WINDOW, "{taken}");
    streams.hold(&vec![0; taken.min(MAX_DATA)]).unwrap();
}

#[test]
fn what_nobody_reads_is_taken_nevertheless() {
    let (mut streams, [stdin, ..]) = pipes();
    drop(stdin);
    nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGPIPE)
        .thread_block()
        .unwrap();
    for _ in 0..2 {
        streams.hold(b"nobody").unwrap();
        streams.feed();
        assert_eq!(told(&mut streams), 6);
    }
}

#[test]
fn output_comes_by_its_stream_until_each_ends() {
    let (mut streams, [_stdin, mut stdout, mut stderr]) = pipes();
    let mut buffer = [0; 4];
    assert_eq!(streams.read(0, &mut buffer), None);
    stdout.write_all(b"output").unwrap();
    stderr.write_all(b"e").unwrap();
    for text in ["outp", "ut"] {
        let expected = FromAgent::Stdout(text.into());
        assert_eq!(streams.read(0, &mut buffer), Some(expected));
    }
    drop(stdout);
    assert_eq!(streams.read(0, &mut buffer), None);
    assert!(!streams.close_ended());
    assert_eq!(streams.outputs(), 1);
    let expected = FromAgent::Stderr(b"e".to_vec());
    assert_eq!(streams.read(0, &mut buffer), Some(expected));
}

#[test]
fn what_others_write_after_the_end_is_not_waited_for() {
    let (mut streams, [_stdin, mut stdout, stderr]) = pipes();
    stdout.write_all(b"last").unwrap();
    streams.finish();
    let mut buffer = vec![0; MAX_DATA];
    let mut received = 0;
    // Somebody else writes as fast as it is read; another only has it open.
    while let Some(FromAgent::Stdout(bytes)) = streams.read(0, &mut buffer) {
        received += bytes.len();
        stdout.write_all(&vec![1; 30_000]).unwrap();
    }
    assert!((4..400_000).contains(&received), "{received}");
    assert!(!streams.close_ended());
    assert_eq!(streams.read(0, &mut buffer), None);
    assert!(streams.close_ended());
    drop(stderr);
}

#[test]
fn a_terminal_is_one_stream_with_a_size_and_no_end() {
    let size = WindowSize { rows: 3, cols: 4 };
    let (mut streams, end) = Streams::open(Some(size)).unwrap();
    let CommandEnd::Terminal(master) = end else {
        panic!("no terminal")
    };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let mut terminal = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
    streams.resize(WindowSize { rows: 5, ..size }).unwrap();
    let window = rustix::termios::tcgetwinsize(&terminal).unwrap();
    assert_eq!((window.ws_row, window.ws_col), (5, 4));
    streams.end_input();
    streams.hold(b"line\n").unwrap();
    streams.feed();
    let mut line = [0; 5];
    terminal.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"line\n");
    terminal.write_all(b"bye").unwrap();
    drop(terminal);
    let mut buffer = [0; 100];
    let mut output = Vec::new();
    while let Some(FromAgent::Stdout(bytes)) = streams.read(0, &mut buffer) {
        output.extend(bytes);
    }
    // The echo comes first.
    assert_eq!(output, b"line\r\nbye");
    assert!(!streams.close_ended(), "it may be opened again");
    streams.finish();
    assert_eq!(streams.read(0, &mut buffer), None);
    assert!(streams.close_ended());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any client, and any command: every byte is told once, and no more are held than the window.
    #[test]
    fn the_account_is_right(steps in proptest::collection::vec((0..4u8, 0..MAX_DATA), 1..40)) {
        let (mut streams, [mut stdin, ..]) = pipes();
        let (mut sent, mut acknowledged) = (0, 0);
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    let may = sent - acknowledged + size <= STDIN_WINDOW;
                    prop_assert_eq!(streams.hold(&vec![0; size]).is_ok(), may);
                    sent += if may { size } else { 0 };
                }
                2 if sent > 0 => {
                    streams.feed();
                    let waiting = streams.held.len() + streams.taken + acknowledged < sent;
                    prop_assert!(!waiting);
                }
                _ => acknowledged += told(&mut streams) as usize,
            }
            prop_assert_eq!(streams.held.len() + streams.taken + acknowledged, sent);
        }
        let mut read = 0;
        while acknowledged < sent {
            streams.feed();
            acknowledged += told(&mut streams) as usize;
            let mut buffer = vec![0; acknowledged - read];
            stdin.read_exact(&mut buffer).unwrap();
            read = acknowledged;
        }
        prop_assert!(streams.held.is_empty());
    }
}
