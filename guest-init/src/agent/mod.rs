//! Who runs further commands in the container, for `docker exec` and `runq-exec`.
//!
//! It is a process of its own, forked from init before that has any thread, because only a process
//! with a single thread can fork safely; and so its end is not the container's. It has one thread
//! ([`event_loop`]), which never waits for a client ([`client`]) or a command ([`command`]).

mod child;
mod client;
mod command;
mod errand;
mod event_loop;
mod listener;
mod merge;
mod processes;
mod socket;
mod streams;
mod user;

use anyhow::{Context, Result};
use libc::pid_t;
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, Signal};
use proto::Start;

use crate::{console, limits, syscalls};
use command::Container;
use event_loop::EventLoop;
use listener::Listener;

/// The kernel's out-of-memory killer passes over such a process (proc_pid_oom_score_adj(5)).
const NEVER_KILLED: i32 = -1000;

/// Listens for clients, if there is to be an agent. Without vsock there is none.
pub(crate) fn listen(start: &Start) -> Option<Listener> {
    start.agent.as_ref()?;
    Listener::open()
        .inspect_err(|error| console::line(format_args!("no agent: {error:#}")))
        .ok()
}

/// Forks the agent: in init, none; in the agent, what it serves. `command` is the container's process,
/// not reaped yet. If there can be no agent, the container lives without.
pub(crate) fn fork(start: &Start, command: pid_t) -> Option<Container> {
    try_fork(start, command).unwrap_or_else(|error| {
        console::line(format_args!("no agent: {error:#}"));
        None
    })
}

fn try_fork(start: &Start, command: pid_t) -> Result<Option<Container>> {
    // Before the fork: as long as it is not reaped, its number is its own.
    let container = Container::new(start.clone(), command)?;
    Ok(match syscalls::fork().context("fork")? {
        None => Some(container),
        Some(pid) => {
            console::debug(format_args!("the agent is process {pid}"));
            None
        }
    })
}

/// In the agent: serves clients as long as the guest runs.
pub(crate) fn serve(listener: Listener, container: Container) -> ! {
    std::panic::set_hook(Box::new(|panic| {
        console::line(format_args!("agent: {panic}"));
        std::process::exit(1);
    }));
    let Err(error) = prepare(&container)
        .and_then(|()| EventLoop::new(listener, container))
        .and_then(EventLoop::run);
    console::line(format_args!("agent: {error:#}"));
    std::process::exit(1)
}

fn prepare(container: &Container) -> Result<()> {
    // Its children have its memory, with its key, until they execute their commands: nobody in the
    // container may look into them, not even those who have the same rights.
    set_dumpable(false).context("keep others out of the agent's memory")?;
    if let Err(error) = limits::set_oom_score_adj(NEVER_KILLED) {
        // It serves as well, only not as surely.
        console::debug(format_args!("agent: {error:#}"));
    }
    // Init may ignore it, being the first process. Blocked, it comes to nothing, and a child, which
    // has no signals pending, can unblock it.
    SigSet::from(Signal::SIGPIPE)
        .thread_block()
        .context("block SIGPIPE")?;
    container.adopt_children()
}

#[cfg(test)]
mod testing;

#[cfg(test)]
#[path = "agent_test.rs"]
mod tests;

#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile;
