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
use runtime::vmspec::{self, VmSpec};
use tracing::info;
use tracing_subscriber::EnvFilter;
use vmm::control::progress;
use vmm::stats::processor_time;
use vmm::terminal::Raw;

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
    start_log();
    let spec = VmSpec::load(Path::new(vmspec::PATH))?;
    // The time of runc, which this process was before.
    info!(cpu = ?processor_time(), after = ?begun.elapsed(), "monitor started");
    let systemd = spec.systemd;
    let (vm, shared) = machine::build(spec, begun)?;
    info!(cpu = ?processor_time(), after = ?begun.elapsed(), "machine built");
    let raw = Raw::enter().context("terminal")?;
    confinement::enter()?;
    let ended = vm.run();
    drop(raw);
    info!(cpu = ?processor_time(), after = ?begun.elapsed(), "machine ended");
    let exit = ended?.exit;
    let verdict = verdict::of(exit, &progress(&shared), systemd);
    if let Some(message) = verdict.message {
        eprintln!("runq: {message}");
    }
    Ok(verdict.code)
}

/// To stderr, which is the container's: nothing but errors, unless RUNQ_LOG asks for more.
fn start_log() {
    let filter = std::env::var("RUNQ_LOG").unwrap_or_else(|_| "error".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
}
