use std::fs::File;
use std::io::{PipeReader, PipeWriter, pipe};
use std::thread::{self, JoinHandle};

use nix::sys::pthread::{Pthread, pthread_kill};
use nix::sys::signal::Signal;
use proto::exec::{MAX_DATA, STDIN_WINDOW};
use vmm::command::Forwarded;

use super::super::played::{Played, certificates, client, ends};
use super::*;

/// A relay on a thread of its own, which has its signals, and what is around it.
struct Around {
    stdin: Option<PipeWriter>,
    stdout: PipeReader,
    stderr: PipeReader,
    agent: Played,
    relay: JoinHandle<u8>,
    thread: Pthread,
}

impl Around {
    fn new(has_stdin: bool) -> Self {
        let set = certificates(2100);
        let (file, agent) = ends(&set);
        let (stdin, their_stdin) = pipe().map(|(reader, writer)| (writer, reader)).unwrap();
        let (stdout, their_stdout) = pipe().unwrap();
        let (stderr, their_stderr) = pipe().unwrap();
        let config = client(&set.client());
        let (tell, told) = std::sync::mpsc::channel();
        let relay = thread::spawn(move || {
            let signals = Signals::take(Forwarded::All).unwrap();
            tell.send(nix::sys::pthread::pthread_self()).unwrap();
            let streams = Streams {
                stdin: has_stdin.then(|| their_stdin.into()),
                stdout: their_stdout.into(),
                stderr: their_stderr.into(),
                terminal: false,
            };
            let agent: Channel<File, FromAgent> = Channel::connect(file, &config).unwrap();
            Relay::new(agent, signals, streams).run()
        });
        Self {
            stdin: has_stdin.then_some(stdin),
            stdout,
            stderr,
            agent,
            relay,
            thread: told.recv().unwrap(),
        }
    }

    fn say(&mut self, message: FromAgent) {
        self.agent.say(&message).unwrap();
    }

    fn hear(&mut self) -> ToAgent {
        self.agent.hear().unwrap()
    }

    fn signal(&self, signal: Signal) {
        pthread_kill(self.thread, signal).unwrap();
    }
}

#[test]
fn streams_and_the_code_come_through() {
    let mut around = Around::new(true);
    let bytes: Vec<u8> = (0..=255).collect();
    around.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    assert_eq!(around.hear(), ToAgent::Stdin(bytes.clone()));
    around.stdin = None;
    assert_eq!(around.hear(), ToAgent::StdinEnd);
    around.say(FromAgent::Stdout(bytes.clone()));
    around.say(FromAgent::Stderr(b"bad".to_vec()));
    around.say(FromAgent::Exited { code: 42 });
    assert_eq!(around.relay.join().unwrap(), 42);
    let mut text = Vec::new();
    around.stdout.read_to_end(&mut text).unwrap();
    assert_eq!(text, bytes);
    text.clear();
    around.stderr.read_to_end(&mut text).unwrap();
    assert_eq!(text, b"bad");
}

#[test]
fn no_input_ends_at_once() {
    let mut around = Around::new(false);
    assert_eq!(around.hear(), ToAgent::StdinEnd);
    around.say(FromAgent::Exited { code: 0 });
    assert_eq!(around.relay.join().unwrap(), 0);
}

#[test]
fn all_may_be_said_before_the_relay_begins() {
    let set = certificates(2100);
    let (file, mut agent) = ends(&set);
    let mut channel: Channel<File, FromAgent> =
        Channel::connect(file, &client(&set.client())).unwrap();
    let agent = thread::spawn(move || {
        agent.say(&FromAgent::Stdout(b"said".to_vec())).unwrap();
        agent.say(&FromAgent::Exited { code: 5 }).unwrap();
    });
    let mut buffer = [0; READ_SIZE];
    while channel.is_handshaking() {
        channel.flush().unwrap();
        poll(&mut [PollFd::new(channel.socket(), PollFlags::IN)], None).unwrap();
        channel.fill(&mut buffer).unwrap();
    }
    channel.flush().unwrap();
    agent.join().unwrap();
    while channel.fill(&mut buffer).is_ok() {}

    let (mut stdout, their_stdout) = pipe().unwrap();
    let relay = thread::spawn(move || {
        let streams = Streams {
            stdin: None,
            stdout: their_stdout.into(),
            stderr: File::create("/dev/null").unwrap().into(),
            terminal: false,
        };
        Relay::new(channel, Signals::take(Forwarded::All).unwrap(), streams).run()
    });
    assert_eq!(relay.join().unwrap(), 5);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "said");
}

#[test]
fn signals_pass_a_command_that_does_not_read() {
    let mut around = Around::new(true);
    let mut stdin = around.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&vec![1; 2 * STDIN_WINDOW]));
    let mut held = 0;
    while held < STDIN_WINDOW {
        match around.hear() {
            ToAgent::Stdin(bytes) if bytes.len() <= MAX_DATA => held += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(held, STDIN_WINDOW);
    around.signal(Signal::SIGUSR1);
    assert_eq!(around.hear(), ToAgent::Signal(libc::SIGUSR1));
    around.say(FromAgent::Taken(10));
    assert_eq!(around.hear(), ToAgent::Stdin(vec![1; 10]));
    around.say(FromAgent::Exited { code: 1 });
    assert_eq!(around.relay.join().unwrap(), 1);
    assert!(writer.join().unwrap().is_err());
}

#[test]
fn signals_pass_a_reader_that_does_not_read() {
    let mut around = Around::new(false);
    assert_eq!(around.hear(), ToAgent::StdinEnd);
    // More than the pipe holds.
    for _ in 0..3 {
        around.say(FromAgent::Stdout(vec![2; MAX_DATA]));
    }
    around.signal(Signal::SIGTERM);
    assert_eq!(around.hear(), ToAgent::Signal(libc::SIGTERM));
    around.say(FromAgent::Exited { code: 3 });
    let mut text = Vec::new();
    around.stdout.read_to_end(&mut text).unwrap();
    assert_eq!(text, vec![2; 3 * MAX_DATA]);
    assert_eq!(around.relay.join().unwrap(), 3);
}

#[test]
fn a_signal_ends_the_wait_for_a_reader() {
    let mut around = Around::new(false);
    for _ in 0..2 {
        around.say(FromAgent::Stdout(vec![2; MAX_DATA]));
    }
    around.say(FromAgent::Exited { code: 3 });
    // The agent leaves: the relay sees that only after it has seen the end.
    drop(around.agent);
    pthread_kill(around.thread, Signal::SIGTERM).unwrap();
    assert_eq!(around.relay.join().unwrap(), 3);
}

#[test]
fn a_container_that_ends_is_not_waited_for() {
    let mut around = Around::new(true);
    around.say(FromAgent::Stdout(b"last".to_vec()));
    // More than anybody reads.
    for _ in 0..3 {
        around.say(FromAgent::Stderr(vec![3; MAX_DATA]));
    }
    drop(around.agent);
    assert_eq!(around.relay.join().unwrap(), CONTAINER_ENDED);
    let mut text = Vec::new();
    around.stdout.read_to_end(&mut text).unwrap();
    assert_eq!(text, b"last");
}

#[test]
fn a_pipe_that_nobody_reads_is_the_commands() {
    let mut around = Around::new(false);
    assert_eq!(around.hear(), ToAgent::StdinEnd);
    drop(around.stdout);
    around
        .agent
        .say(&FromAgent::Stdout(b"y\n".to_vec()))
        .unwrap();
    assert_eq!(around.agent.hear().unwrap(), ToAgent::Signal(libc::SIGPIPE));
    around.agent.say(&FromAgent::Exited { code: 141 }).unwrap();
    assert_eq!(around.relay.join().unwrap(), 141);
}

#[test]
fn an_agent_that_only_talks_is_not_answered_without_end() {
    let mut around = Around::new(false);
    assert_eq!(around.hear(), ToAgent::StdinEnd);
    drop(around.stdout);
    // The socket takes answers to a few hundred.
    let count = 5000;
    for _ in 0..count {
        let output = FromAgent::Stdout(b"y\n".to_vec());
        around.agent.only_say(&output).unwrap();
    }
    pthread_kill(around.thread, Signal::SIGUSR1).unwrap();
    let mut answers = 0;
    while around.agent.hear().unwrap() == ToAgent::Signal(libc::SIGPIPE) {
        answers += 1;
    }
    assert!((1..count / 2).contains(&answers), "{answers}");
    let end = FromAgent::Exited { code: 141 };
    around.agent.say(&end).unwrap();
    assert_eq!(around.relay.join().unwrap(), 141);
}

#[test]
fn an_agent_that_talks_nonsense_is_left() {
    let mut around = Around::new(false);
    around.say(FromAgent::hello("again"));
    assert_eq!(around.relay.join().unwrap(), CONTAINER_ENDED);
}
