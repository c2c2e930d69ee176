//! The guest's init: the kernel's first process, from the initrd.
//!
//! It tells the host that it is there, receives its orders, runs one command in a container of the
//! guest's own kernel, reports how it ended, and powers off. It never exits: that would be a kernel
//! panic. The order of things is [`life`]'s, one module for each.
#![cfg_attr(not(test), no_main)]

mod agent;
mod caches;
mod cgroup;
mod console;
mod control;
mod crypto;
mod devices;
mod disks;
mod dns;
mod failure;
mod hide;
mod limits;
mod lookup;
mod modules;
mod mounts;
mod network;
mod oom;
mod passwd;
mod plug;
mod ports;
mod process;
mod reap;
mod rights;
mod root;
mod root_disk;
mod stdio;
mod syscalls;
mod sysctl;
mod tree;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use nix::sys::reboot::{RebootMode, reboot};
use proto::{Start, ToHost};

use control::Control;
use dns::Dns;
use failure::Failure;
use reap::Command;
use stdio::Stdio;

/// The exit code of a command that SIGKILL has ended.
const KILLED: u8 = 128 + 9;

/// The C runtime's entry: Rust's own start code would abort without /dev/null when the kernel has
/// no console to open for us, and would ignore SIGPIPE, which the command would inherit.
#[cfg(not(test))]
#[allow(unsafe_code)]
// SAFETY: the C runtime calls the one function of this name, and its arguments are not used.
#[unsafe(no_mangle)]
extern "C" fn main() -> libc::c_int {
    life()
}

/// From the kernel's hand-over to power-off.
#[cfg_attr(test, expect(dead_code, reason = "the tests have a main of their own"))]
fn life() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        console::line(format_args!("{panic}"));
        nix::unistd::sync();
        power_off();
    }));
    if let Err(error) = boot().and_then(converse) {
        console::line(format_args!("{error:#}"));
    }
    power_off()
}

/// Does what it takes for the host to talk to us, and no more.
fn boot() -> Result<Control> {
    mounts::early()?;
    console::open();
    modules::load(Path::new("/modules"));
    let mut control = Control::open()?;
    control.send(&ToHost::hello())?;
    console::debug(format_args!("ready"));
    Ok(control)
}

/// Runs the command that the host names, and tells it the result.
fn converse(mut control: Control) -> Result<()> {
    let last = match run(&mut control) {
        Ok(code) => ToHost::Exited { code },
        Err(Failure { code, message }) => {
            console::line(format_args!("{message}"));
            ToHost::Failed { code, message }
        }
    };
    console::debug(format_args!("{last:?}"));
    control.send(&last)
}

/// Does what the host orders; the command's exit code.
fn run(control: &mut Control) -> Result<u8, Failure> {
    let start = control.start()?;
    let ended = run_command(&start, control);
    if keeps_writes(&start) {
        nix::unistd::sync();
    }
    ended
}

/// Whether what is written stays in the guest for a while, as with disks and with 9P. By virtio-fs the host has it when
/// the file is closed or mapped no more; sync(2) would wait there for volumes that do not answer any more.
fn keeps_writes(start: &Start) -> bool {
    !start.disks.is_empty() || start.root.file_system.fstype != "virtiofs"
}

/// Runs the command; its exit code.
fn run_command(start: &Start, control: &mut Control) -> Result<u8, Failure> {
    console::debug(format_args!("{start:?}"));
    mounts::devpts()?;
    let (stdio, command_end) = Stdio::open(&start.process)?;
    if start.cgroup.is_some() {
        cgroup::mount()?;
    }
    network::set_up(&start.interfaces)?;
    let filtered = network::filter(&start.packet_rules);
    let resolver = start.resolver.as_ref();
    let dns = resolver
        .map(|resolver| Dns::open(resolver, filtered))
        .transpose()?;
    // Command and agent are forked before there is a second thread.
    let listener = agent::listen(start);
    let pid = process::start(start, command_end, control)?;
    // The agent is no reason for the command, or for those who wait for it, to wait: its clients can come already.
    control.send(&ToHost::Started {
        pid: pid.cast_unsigned(),
    })?;
    if let Some(listener) = listener
        && let Some(container) = agent::fork(start, pid)
    {
        // The agent may not keep open what init closes.
        drop((stdio, dns));
        agent::serve(listener, container);
    }
    let command = Arc::new(Command::new(pid));
    dns.map_or(Ok(()), Dns::serve)?;
    let out_of_memory = control.watch_memory()?;
    let terminal = stdio.terminal()?;
    let output = stdio.pump()?;
    control.listen(Arc::clone(&command), terminal)?;
    let code = command.wait()?;
    if code == KILLED {
        out_of_memory.finish();
    }
    // With the command all others in its PID namespace have ended, and so has their output; with
    // the last of them went their mounts, so that the file systems of disks are unmounted: neither init
    // nor the agent has been in that mount namespace.
    output.drain();
    Ok(code)
}

/// Ends the guest.
fn power_off() -> ! {
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    console::line(format_args!("power off: {error}"));
    loop {
        std::thread::park();
    }
}
