//! `bench`: what it costs until the guest's init runs, for runq-vmm and for QEMU's microvm, side by side.
//!
//! Runs where the guests run: in the emulated host, whose clock counts instructions, or directly on hardware.
//! `tests/bench/run` puts together the directory that it expects around itself.

mod clock;
mod exit_names;
mod kvm_counters;
mod memory_map;
mod monitor;
mod run;
mod table;
mod tracing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use clock::Clock;
use monitor::Monitor;
use run::Run;

/// Boots the same guest under runq-vmm and under QEMU, and prints what that cost.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    /// What the host's clock counts
    #[arg(long, value_enum, default_value = "wall")]
    clock: Clock,
    /// How often each guest is booted and counted, after a first time that is not
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the kernels and initrds are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Additional options for runq-vmm in the comparison, to try something
    #[arg(last = true)]
    extra: Vec<String>,
}

fn main() -> ExitCode {
    match bench(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether each goal is reached that can be judged by this clock.
fn bench(cli: &Cli) -> Result<bool> {
    let files = match &cli.files {
        Some(directory) => directory.clone(),
        None => beside_us()?,
    };
    // In memory: a disk would be measured, too.
    let copy = tempfile::tempdir_in("/dev/shm").context("directory in /dev/shm")?;
    let files = copy_files(&files, copy.path())?;
    let mut columns = Vec::new();
    for monitor in [
        Monitor::runq(&files, &cli.extra)?,
        Monitor::qemu(&files)?,
        Monitor::container(&files)?,
    ] {
        if !monitor.is_installed() {
            println!("{}: not installed, left out", monitor.name);
            continue;
        }
        columns.push(measure(monitor, cli)?);
    }
    print!("{}", table::comparison(&columns, cli.clock));
    print!("{}", table::exits(&columns));
    let reached = columns
        .first()
        .is_some_and(|ours| table::goals_reached(ours, cli.clock));
    Ok(reached)
}

/// Everything that is known about a monitor's boots.
struct Column {
    monitor: Monitor,
    runs: Vec<Run>,
    traced: Option<tracing::Trace>,
}

fn measure(monitor: Monitor, cli: &Cli) -> Result<Column> {
    let name = monitor.name;
    let once = || boot(&monitor, cli.clock).with_context(|| name.to_owned());
    once()?; // brings files into the page cache
    let runs = (0..cli.rounds).map(|_| once()).collect::<Result<_>>()?;
    // Tracing costs instructions: a run for itself.
    let traced = match tracing::Tracing::start() {
        Ok(tracing) => {
            once()?;
            Some(tracing.finish()?)
        }
        Err(error) => {
            eprintln!("bench: no exits by reason: {error:#}");
            None
        }
    };
    Ok(Column {
        monitor,
        runs,
        traced,
    })
}

fn boot(monitor: &Monitor, clock: Clock) -> Result<Run> {
    for _ in 1..monitor.tries {
        match Run::of(monitor, clock) {
            Err(error) => eprintln!("bench: {}: {error:#}: once more", monitor.name),
            booted => return booted,
        }
    }
    Run::of(monitor, clock)
}

fn beside_us() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program's path")?;
    Ok(program
        .parent()
        .context("this program's directory")?
        .to_owned())
}

/// Copies the files that monitors read; the container's root directory is shared from where it is.
fn copy_files(from: &Path, to: &Path) -> Result<monitor::Files> {
    let copy = |name: &str| -> Result<PathBuf> {
        let (from, to) = (from.join(name), to.join(name));
        fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        Ok(to)
    };
    Ok(monitor::Files {
        runq: copy("runq-vmm")?,
        bench_kernel: copy("bench-kernel")?,
        bench_initrd: copy("bench-initrd")?,
        lean_kernel: copy("kernel")?,
        lean_initrd: copy("initrd")?,
        rootfs: from.join("rootfs"),
    })
}
