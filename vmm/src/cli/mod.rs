//! The command line of runq-vmm: from arguments to an exit code.

mod machine;
mod options;
mod start;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use clap::error::{Error, ErrorKind};
use tracing_subscriber::EnvFilter;
use vmm::control::{Progress, progress};
use vmm::exit::Exit;
use vmm::session::Outcome;
use vmm::stats::{Stats, rss_beside};
use vmm::terminal::Raw;
use vmm::vm::Ended;

use options::{Cli, Options};

/// Wrong usage: what the command line alone shows to be wrong.
const USAGE: u8 = 2;
/// The VM could not be built or run.
const FAILURE: u8 = 1;

/// Parses the arguments, runs the VM, prints at most one line about what went wrong.
pub(crate) fn main() -> ExitCode {
    let begun = Instant::now();
    let options = match parse(std::env::args_os()) {
        Ok(options) => options,
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => return complain(&anyhow!(one_line(&error)), USAGE),
    };
    let options = match options {
        Ok(options) => options,
        Err(error) => return complain(&error, USAGE),
    };
    match run(&options, begun) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(&error, FAILURE),
    }
}

/// The options, or what clap or we ourselves find wrong with them.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Result<Options>, Error> {
    let cli = Cli::try_parse_from(args)?;
    start_log(cli.debug);
    Ok(complete(cli))
}

fn complete(cli: Cli) -> Result<Options> {
    let options = match &cli.config {
        Some(path) => cli
            .options
            .or(Options::from_file(path).context("--config")?),
        None => cli.options,
    };
    options.check()?;
    Ok(options)
}

fn start_log(debug: bool) {
    let filter = match std::env::var("RUNQ_LOG") {
        Ok(filter) => EnvFilter::new(filter),
        Err(_) if debug => EnvFilter::new("debug"),
        Err(_) => EnvFilter::new("error"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
}

/// Clap's message without its usage summary: what is wrong, and with which value.
fn one_line(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    match error.kind() {
        ErrorKind::InvalidValue => text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("[possible values"))
            .map_or(line.to_owned(), |values| format!("{line} {values}")),
        _ => line.to_owned(),
    }
}

/// One line on stderr: the chain of causes, the outermost first.
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    let text = format!("{error:#}").replace(['\n', '\r'], " ");
    eprintln!("runq-vmm: {text}");
    ExitCode::from(code)
}

fn run(options: &Options, begun: Instant) -> Result<u8> {
    let (vm, shared) = machine::build(options, begun)?;
    let raw = Raw::enter().context("terminal")?;
    let ended = vm.run();
    drop(raw);
    let ended = ended?;
    let progress = progress(&shared);
    if options.stats {
        eprintln!("{}", stats(&ended, &progress)?);
    }
    Ok(verdict(ended.exit, &progress, options.runs_command()))
}

fn stats(ended: &Ended, progress: &Progress) -> Result<Stats> {
    Ok(Stats {
        init_ready: progress.init_ready,
        exits: ended.exits,
        kvm: ended.kvm.clone(),
        rss_beside_guest: Some(rss_beside(&ended.guest_memory).context("/proc/self/smaps")?),
    })
}

/// The exit code, told on one line where it is not the command's own.
fn verdict(exit: Exit, progress: &Progress, command: bool) -> u8 {
    match (&progress.outcome, progress.ended_by) {
        (Some(Outcome::Exited(code)), _) => return *code,
        (Some(Outcome::Failed { code, message }), _) => {
            eprintln!("runq-vmm: {message}");
            return *code;
        }
        (None, Some(signal)) => return u8::try_from(128 + signal).unwrap_or(FAILURE),
        (None, None) => {}
    }
    let code = match exit {
        Exit::PowerOff | Exit::Stopped if command => FAILURE,
        Exit::PowerOff | Exit::Stopped => return 0,
        Exit::Reset => 3,
        Exit::TripleFault => 4,
        Exit::Panic => 5,
    };
    let when = if command {
        " before the command ended"
    } else {
        ""
    };
    eprintln!("runq-vmm: {exit}{when}: --console serial shows the kernel's messages");
    code
}
