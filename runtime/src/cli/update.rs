//! `runq update`: other limits for a container that runs, for `docker update`.
//!
//! runc sets those of the host's control group, in which the monitor is; the agent sets those of the guest's, in which
//! the container's processes are.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::args::{self, CommandLine};
use super::guest::Guest;
use super::runc::{Runc, State};
use crate::create::{self, MAX_SIZE};
use crate::exec::{connect_soon, limit};
use crate::spec;
use crate::split::{VMSPEC, limits, resources};
use crate::vmspec::VmSpec;

/// The option that names the file with the limits. It is followed by a value.
const RESOURCES: [&str; 2] = ["resources", "r"];

/// runc's options that are followed by a value, beside those.
const OTHERS: [&str; 17] = [
    "blkio-weight",
    "cpu-burst",
    "cpu-idle",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-share",
    "cpuset-cpus",
    "cpuset-mems",
    "kernel-memory",
    "kernel-memory-tcp",
    "memory",
    "memory-reservation",
    "memory-swap",
    "pids-limit",
    "l3-cache-schema",
];

/// The file of the guest's group that may stay as it is: the host limits the processors of the whole machine.
const HELD_BY_HOST: &str = "cpu.max";

/// Changes a container's limits. Those of one that is not ours, runc does.
pub(super) fn update(line: &CommandLine) -> Result<ExitCode> {
    let runc = Runc::find(line)?;
    let values = [&RESOURCES[..], &OTHERS].concat();
    let id = line
        .operand(&values)
        .context("update: the container's ID is missing")?;
    let state = runc.state(line, id)?;
    if !create::is_ours(&state.bundle).with_context(|| state.bundle.display().to_string())? {
        return Err(runc.exec(line));
    }
    let id = id
        .to_str()
        .context("update: the container's ID is not text")?;
    let mut options = line.command.iter().filter(|word| args::is_option(word));
    let only = options.all(|word| RESOURCES.contains(&&*args::split(word).0));
    let path = line.option(&RESOURCES, &values).filter(|_| only);
    let path = path.with_context(|| {
        format!("update: container {id} is a virtual machine: give its limits by --resources FILE")
    })?;
    let mut wanted = read(&path)?;
    change(id, &state, &mut wanted)?;
    runc.update(line, id, &wanted)
}

/// The limits, as containerd has them: `linux.resources` of a configuration.
fn read(path: &Path) -> Result<Value> {
    let name = || format!("update --resources {}", path.display());
    let source: Box<dyn Read> = if path == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(name)?)
    };
    let mut text = Vec::new();
    source
        .take(MAX_SIZE)
        .read_to_end(&mut text)
        .with_context(name)?;
    serde_json::from_slice(&text).with_context(name)
}

/// Sets what the guest has to hold, and makes of `wanted` what the host has to.
fn change(id: &str, state: &State, wanted: &mut Value) -> Result<()> {
    let vm = VmSpec::load(&state.bundle.join(VMSPEC))
        .with_context(|| format!("container {id}: start it anew"))?;
    let resources = typed(wanted)?;
    let limit = memory_limit(&resources);
    if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) {
        ensure!(
            limit >> 20 <= vm.memory_mib,
            "container {id}: its virtual machine was started with {} MiB, which do not grow to {} MiB of memory: stop it, \
             update it, and start it again",
            vm.memory_mib,
            limit.div_ceil(1 << 20)
        );
    }
    limit_guest(id, state, &vm, limits::of(Some(&resources)))?;
    let limit = match limit {
        Some(limit) => limit,
        None => original_limit(&state.bundle)?,
    };
    let wanted = wanted.as_object_mut().context("update: not an object")?;
    resources::update(wanted, vm.memory_mib, limit);
    Ok(())
}

fn typed(wanted: &Value) -> Result<LinuxResources> {
    let config = json!({"ociVersion": "1.0.0", "linux": {"resources": wanted}});
    let spec = spec::read(&config).context("update")?;
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().clone());
    Ok(resources.unwrap_or_default())
}

fn memory_limit(resources: &LinuxResources) -> Option<i64> {
    let memory = resources.memory().as_ref()?;
    memory.limit().filter(|limit| *limit != 0)
}

/// The limit that the container was created with, which is 0 if it had none.
fn original_limit(bundle: &Path) -> Result<i64> {
    let config = create::read_original(bundle)?;
    let limit = &config["linux"]["resources"]["memory"]["limit"];
    Ok(limit.as_i64().unwrap_or_default())
}

fn limit_guest(id: &str, state: &State, vm: &VmSpec, files: Vec<(String, String)>) -> Result<()> {
    let is_needed = files.iter().any(|(name, _)| name != HELD_BY_HOST);
    let is_reached = state.status != "paused" && vm.start.agent.is_some();
    if files.is_empty() || !is_needed && !is_reached {
        return Ok(());
    }
    if state.status == "paused" {
        bail!(
            "container {id} is paused: its memory and its processes can be limited when it goes on"
        );
    }
    let guest = Guest::open(id, state)
        .context("update: memory and processes are limited inside the virtual machine")?;
    let mut agent = connect_soon(&guest.container, &guest.config)?;
    limit(&mut agent, &guest.container, files)
}
