//! `runq ps`: what runs in a container's VM, for `docker top` and for people.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use proto::exec::ProcessInfo;

use super::args::CommandLine;
use super::guest::Guest;
use super::print;
use super::runc::{Runc, State};
use crate::create;
use crate::exec::{connect_soon, list};
use crate::shadow::{self, words};

/// Options that are followed by a value.
const VALUES: [&str; 2] = ["format", "f"];

/// Shows a container's processes. Those of one that is not ours, runc does.
pub(super) fn ps(line: &CommandLine) -> Result<ExitCode> {
    let runc = Runc::find(line)?;
    let id = line
        .operand(&VALUES)
        .context("ps: the container's ID is missing")?;
    let state = runc.state(line, id)?;
    if !create::is_ours(&state.bundle).with_context(|| state.bundle.display().to_string())? {
        return Err(runc.exec(line));
    }
    let id = id.to_str().context("ps: the container's ID is not text")?;
    let format = line.option(&VALUES, &VALUES);
    let show = match format.as_deref().unwrap_or(Path::new("table")).to_str() {
        Some("table") => table,
        Some("json") => pids,
        _ => bail!("ps --format: table and json are allowed"),
    };
    ensure!(
        line.command.last().is_some_and(|last| last == id),
        "ps: container {id} is a virtual machine, for which there are no options of ps(1): leave \
         them out"
    );
    print(&show(&processes(id, &state)?)?)
}

fn processes(id: &str, state: &State) -> Result<Vec<ProcessInfo>> {
    ensure!(
        state.status != "paused",
        "container {id} is paused: its processes cannot be asked for"
    );
    let guest = Guest::open(id, state)?;
    let mut agent = connect_soon(&guest.container, &guest.config)?;
    list(&mut agent, &guest.container)
}

/// As the guest has them.
#[expect(clippy::unnecessary_wraps, reason = "one of two")]
fn table(processes: &[ProcessInfo]) -> Result<String> {
    let mut text = format!("{:>7} {:>10} COMMAND\n", "PID", "USER");
    for process in processes {
        let command = words(process).join(" ");
        text += &format!("{:>7} {:>10} {command}\n", process.pid, process.uid);
    }
    Ok(text)
}

/// The numbers of their shadows on the host.
fn pids(processes: &[ProcessInfo]) -> Result<String> {
    Ok(serde_json::to_string(&shadow::cast(processes)?)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each() {
        let process = |pid, uid, args: &[&str]| ProcessInfo {
            pid,
            parent: 0,
            uid,
            gid: 0,
            name: "name".into(),
            args: args.iter().map(ToString::to_string).collect(),
        };
        let processes = [
            process(1, 0, &["sh", "-c", "a\nb"]),
            process(4_194_304, u32::MAX, &[]),
        ];
        let expected = "    PID       USER COMMAND
      1          0 sh -c a?b
4194304 4294967295 [name]
";
        assert_eq!(table(&processes).unwrap(), expected);
    }
}
