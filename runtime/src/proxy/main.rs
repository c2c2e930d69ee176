//! The first process of a container: runs its virtual machine.
//!
//! `runc` starts it in the container's namespaces and cgroup, with the few files of the vm volume as
//! its root and the container's own files below /run/share. Its standard streams and signals are the
//! container's; its exit code is that of the container's process in the guest.

mod confinement;
mod machine;
mod verdict;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use runtime::vmspec::VmSpec;
use tracing::info;
use tracing_subscriber::EnvFilter;
use vmm::control::progress;
use vmm::stats::processor_time;
use vmm::terminal::Raw;

/// Where `runq` has put what we are to do.
const VMSPEC: &str = "/run/vmspec.json";

/// Could not do its own work: as `docker run` has it.
const FAILURE: u8 = 125;

fn main() -> ExitCode {
    let begun = Instant::now();
    let code = run(begun).unwrap_or_else(|error| {
        let text = format!("{error:#}").replace(['\n', '\r'], " ");
        eprintln!("runq: {text}");
        FAILURE
    });
    ExitCode::from(code)
}

fn run(begun: Instant) -> Result<u8> {
    let spec = VmSpec::load(Path::new(VMSPEC))?;
    start_log(spec.debug);
    let (vm, shared) = machine::build(spec, begun)?;
    info!(cpu = ?processor_time(), after = ?begun.elapsed(), "machine built");
    let raw = Raw::enter().context("terminal")?;
    confinement::enter()?;
    let ended = vm.run();
    drop(raw);
    info!(cpu = ?processor_time(), after = ?begun.elapsed(), "machine ended");
    let exit = ended?.exit;
    let verdict = verdict::of(exit, &progress(&shared));
    if let Some(message) = verdict.message {
        eprintln!("runq: {message}");
    }
    Ok(verdict.code)
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
