//! runq-exec: runs a command in a container's virtual machine, for whoever has a certificate.
//!
//! Docker says which container it is; nothing else goes through Docker.

mod docker;
mod identity;
mod options;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use proto::WindowSize;
use runtime::exec::relay::{Relay, Streams};
use runtime::exec::{Container, Refused, confine, connect, start};
use vmm::command::terminal::{Raw, window_size};
use vmm::command::{Forwarded, Signals};
use vmm::program::{Codes, Program};
use vmm::verdict::Verdict;

use options::Cli;

/// All errors of its own have code 1.
static PROGRAM: Program = Program {
    name: "runq-exec",
    command: "command",
    hint: "runq-exec --help",
    codes: Codes {
        failure: 1,
        reset: 1,
        triple_fault: 1,
        panic: 1,
    },
};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => PROGRAM.main(|| verdict(cli)),
        Err(error) => {
            // A closed stdout or stderr is no reason to fail otherwise.
            let _ = error.print();
            u8::from(error.use_stderr()).into()
        }
    }
}

fn verdict(cli: Cli) -> Result<Verdict> {
    match run(cli) {
        Ok(code) => Ok(Verdict {
            code,
            message: None,
        }),
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) => Ok(Verdict::new(refused.code, refused.message)),
            Err(error) => Err(error),
        },
    }
}

/// Runs the command; its exit code.
fn run(cli: Cli) -> Result<u8> {
    ensure!(
        !(cli.tty && cli.interactive) || io::stdin().is_terminal(),
        "-t: standard input is not a terminal"
    );
    let (tty, interactive) = (cli.tty, cli.interactive);
    let config = identity::read(&cli)?;
    let found = docker::find(&cli.container)?;
    let container = Container::new(found.id, found.pid)?;
    let terminal = cli
        .tty
        .then(|| window_size().unwrap_or(WindowSize { rows: 0, cols: 0 }));
    let mut agent = connect(&container, &config)?;
    start(&mut agent, &container, cli.exec(terminal))?;
    let signals = Signals::take(Forwarded::AllButStops).context("signals")?;
    // Without -i, the keys that send signals do so here.
    let raw = (tty && interactive)
        .then(Raw::enter)
        .transpose()
        .context("terminal")?;
    let stdin = interactive.then(|| io::stdin().as_fd().try_clone_to_owned());
    let streams = Streams {
        stdin: stdin.transpose()?,
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
        terminal: tty,
    };
    let relay = Relay::new(agent, signals, streams);
    confine::enter(&options::root())?;
    let code = relay.run();
    drop(raw);
    Ok(code)
}
