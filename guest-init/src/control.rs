//! The conversation with the host.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use proto::{CONTROL_PORT, Error, Plug, Start, ToGuest, ToHost};

use crate::mounts::SYSFS;
use crate::reap::Command;
use crate::stdio::spawn_thread;
use crate::{caches, console, oom, plug, ports, syscalls};

/// The control port.
pub(crate) struct Control {
    port: File,
}

impl Control {
    /// Opens the port.
    pub(crate) fn open() -> Result<Self> {
        let port = ports::open(CONTROL_PORT, File::options().read(true).write(true))?;
        Ok(Self { port })
    }

    /// Sends a message; waits until the host has opened its end of the port.
    pub(crate) fn send(&mut self, message: &ToHost) -> Result<()> {
        proto::send(&mut self.port, message).context("send a message to the host")
    }

    /// Receives the orders.
    pub(crate) fn start(&mut self) -> Result<Start> {
        match proto::recv(&mut self.port).context("receive the host's orders")? {
            ToGuest::Start { start, .. } => Ok(*start),
            other => bail!("the host's first message must be Start, but it is {other:?}"),
        }
    }

    /// Tells how far a copy is, of which nobody needs to know.
    pub(crate) fn copied(&mut self, files: u64, bytes: u64) {
        if let Err(error) = self.send(&ToHost::Copied { files, bytes }) {
            console::debug(format_args!("{error:#}"));
        }
    }

    /// Tells the host of processes that are killed for want of memory.
    pub(crate) fn watch_memory(&self) -> Result<oom::Watch> {
        oom::Watch::start(self.port.try_clone()?)
    }

    /// Obeys the host while the command runs, on a thread of its own.
    pub(crate) fn listen(&self, command: Arc<Command>, terminal: Option<OwnedFd>) -> Result<()> {
        let mut port = self.port.try_clone()?;
        spawn_thread("control", move || {
            loop {
                match proto::recv(&mut port) {
                    Ok(ToGuest::Plug(change)) => answer(&mut port, change),
                    Ok(ToGuest::DropCaches) => drop_caches(&port),
                    Ok(message) => obey(&message, &command, terminal.as_ref()),
                    Err(error @ Error::Malformed) => console::line(format_args!("{error}")),
                    Err(error) => {
                        return console::line(format_args!("control port: {error}"));
                    }
                }
            }
        })?;
        Ok(())
    }
}

/// Changes the network; the host waits for the answer, whatever came of it.
fn answer(port: &mut File, change: Plug) {
    console::debug(format_args!("{change:?}"));
    if let Err(error) = plug::change(&change, Path::new(SYSFS)) {
        console::line(format_args!("{error:#}"));
    }
    if let Plug::Remove(mac) = change
        && let Err(error) = proto::send(port, &ToHost::Unplugged(mac))
    {
        console::line(format_args!("control port: {error}"));
    }
}

/// Lets go of files; the host waits for the answer, whatever came of it. Signals do not wait for the kernel meanwhile.
fn drop_caches(port: &File) {
    let forget = |mut port: File| {
        if let Err(error) = caches::forget_files() {
            console::line(format_args!("{error:#}"));
        }
        if let Err(error) = proto::send(&mut port, &ToHost::CachesDropped) {
            console::line(format_args!("control port: {error}"));
        }
    };
    let port = port.try_clone().map_err(anyhow::Error::from);
    if let Err(error) = port.and_then(|port| spawn_thread("caches", move || forget(port))) {
        console::line(format_args!("caches: {error:#}"));
    }
}

/// Does what one message says.
fn obey(message: &ToGuest, command: &Command, terminal: Option<&OwnedFd>) {
    console::debug(format_args!("{message:?}"));
    let done = match (message, terminal) {
        (ToGuest::Signal { number }, _) => command.signal(*number),
        (ToGuest::Resize(size), Some(terminal)) => syscalls::set_window_size(terminal, *size),
        (ToGuest::Resize(_), None)
        | (ToGuest::Start { .. } | ToGuest::Plug(_) | ToGuest::DropCaches, _) => Ok(()),
    };
    if let Err(error) = done {
        console::line(format_args!("{message:?}: {error}"));
    }
}
