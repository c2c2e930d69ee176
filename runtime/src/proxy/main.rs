//! The first process of a container: runs its virtual machine.
//!
//! `runc` starts it in the container's namespaces and cgroup, with the few files of the vm volume as
//! its root and the container's own files below /run/share. Its standard streams and signals are the
//! container's; its exit code is that of the container's process in the guest.

mod confinement;
mod dns;
mod machine;
mod network;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use runtime::vmspec::{self, VmSpec};
use vmm::command::Outcome;
use vmm::command::starter::Starter;
use vmm::log;
use vmm::program::CONTAINER;
use vmm::stats::milestone;
use vmm::verdict::Verdict;
use vmm::vm::{Ended, Vm};

fn main() -> ExitCode {
    CONTAINER.main(run)
}

/// Runs the machine. Who waits for its start is told what keeps the process from it; else that goes to stderr.
fn run() -> Result<Verdict> {
    let starter = Starter::open(Path::new(vmspec::STARTED));
    let ended = run_machine(&starter);
    let failed = |code, message: &str| {
        Ok(if starter.failed(code, message) {
            Verdict {
                code: dockerds_code(code, message),
                message: None,
            }
        } else {
            Verdict::new(code, message)
        })
    };
    match ended {
        Err(error) => failed(CONTAINER.codes.failure, &format!("{error:#}")),
        Ok(ended) => match &ended.progress.outcome {
            Some(Outcome::Failed { code, message }) => failed(*code, message),
            _ => Ok(Verdict::of(&ended)),
        },
    }
}

/// The code that dockerd gives a container that runc cannot create for such a reason (`setExitCodeFromError` of its
/// daemon/errors.go): to dockerd, this process has not been started either, but its end comes last.
fn dockerds_code(code: u8, message: &str) -> u8 {
    match code {
        126 | 127 => code,
        _ if message.contains("no such file or directory") => 127,
        _ if message.contains("permission denied") => 126,
        _ => 128,
    }
}

fn run_machine(starter: &Starter) -> Result<Ended> {
    // To stderr, which is the container's: nothing but errors, unless RUNQ_LOG asks for more.
    log::start(log::Level::ERROR);
    let mut spec = VmSpec::load(Path::new(vmspec::PATH))?;
    // What runc took, which this process was before.
    milestone("monitor started");
    let (relay, port) = dns::prepare(&mut spec)?.unzip();
    let network = network::take(spec.cpus)?;
    let plugs = watch::start(&network, spec.cpus).context("watch the network")?;
    let vsock = machine::vsock(&mut spec);
    let mut config = machine::config(spec, network, vsock, port, plugs)?;
    if let Some(command) = &mut config.command {
        command.starter = starter.clone();
    }
    let vm = Vm::new(config)?;
    relay
        .map_or(Ok(()), dns::Relay::start)
        .context("DNS relay")?;
    confinement::enter(&vm)?;
    vm.run()
}

#[cfg(test)]
mod tests {
    use super::dockerds_code;

    #[test]
    fn a_failure_has_the_code_that_dockerd_expects() {
        for (code, message, expected) in [
            (
                127,
                "\"sh\": executable file not found in the PATH /bin",
                127,
            ),
            (126, "/etc: is a directory", 126),
            (1, "open /proc/sys/x: no such file or directory", 127),
            (1, "write /proc/sys/x: permission denied", 126),
            (1, "write /proc/sys/x: invalid argument", 128),
            (125, "no network", 128),
        ] {
            assert_eq!(dockerds_code(code, message), expected, "{message}");
        }
    }
}
