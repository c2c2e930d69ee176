//! The command line of runq-vmm: from arguments to an exit code.

mod disk;
mod machine;
mod network;
mod options;
mod start;
mod vsock;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use clap::error::{Error, ErrorKind};
use vmm::ap::Matrix;
use vmm::log::{self, Level};
use vmm::program::RUNQ_VMM;
use vmm::stats::{Stats, rss_beside};
use vmm::verdict::Verdict;
use vmm::vm::{Ended, Vm};

use options::{Cli, Options};

/// Wrong usage: what the command line alone shows to be wrong.
const USAGE: u8 = 2;

/// Parses the arguments, runs the VM, prints at most one line about what went wrong.
pub(crate) fn main() -> ExitCode {
    RUNQ_VMM.main(|| match parse(std::env::args_os()) {
        Ok(Ok(options)) => run(&options),
        Ok(Err(wrong)) => Ok(Verdict::new(USAGE, format!("{wrong:#}"))),
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => Ok(Verdict::new(USAGE, what_is_wrong(&error))),
    })
}

/// The options, or what clap or we ourselves find wrong with them.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Result<Options>, Error> {
    let cli = Cli::try_parse_from(args)?;
    log::start(if cli.debug {
        Level::DEBUG
    } else {
        Level::ERROR
    });
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

/// Clap's message without its usage summary: what is wrong, and with which value.
fn what_is_wrong(error: &Error) -> String {
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

fn run(options: &Options) -> Result<Verdict> {
    let mut config = options.config();
    for disk in &options.disks {
        let device = disk.device(config.cpus)?;
        config.devices.push(device);
    }
    for (number, network) in (0..).zip(&options.networks) {
        config.devices.push(network.device(number)?);
    }
    let mut _socket = None;
    if let Some(vsock) = &options.vsock {
        let (device, file) = vsock.device()?;
        config.devices.push(device);
        _socket = file;
    }
    if let Some(uuid) = &options.ap {
        let matrix = Matrix::find(Path::new("/sys"), uuid);
        config.crypto = Some(matrix.with_context(|| format!("--ap {uuid}"))?);
    }
    let ended = Vm::new(config)?.run()?;
    if options.stats {
        eprintln!("{}", stats(&ended)?);
    }
    Ok(Verdict::of(&ended))
}

fn stats(ended: &Ended) -> Result<Stats> {
    Ok(Stats {
        init_ready: ended.progress.init_ready,
        exits: ended.exits,
        kvm: ended.kvm.clone(),
        rss_beside_guest: Some(rss_beside(&ended.guest_memory).context("/proc/self/smaps")?),
    })
}
