//! The standard streams and the control connection of a guest's command: the console device's ports.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use devices::dev::DeviceSpec;
use devices::dev::console::{self, ConsoleHandle, NamedPort, Streams};
use devices::stream::{Input, Output};

use crate::terminal;

/// The ports that init knows by name: `control`, and this process's standard streams. A terminal
/// has no standard error of its own.
///
/// # Errors
/// When a stream cannot be duplicated, or is of a kind that cannot be waited for.
pub fn command_ports(control: UnixStream, terminal: bool) -> Result<Vec<NamedPort>> {
    let named = |name: &str, input, output| NamedPort {
        name: name.to_owned(),
        streams: Streams { input, output },
    };
    let control_out = control.try_clone().context("control port")?;
    let mut ports = vec![
        named(
            proto::CONTROL_PORT,
            Some(Input::new(OwnedFd::from(control))?),
            Some(Output::new(OwnedFd::from(control_out))?),
        ),
        named(proto::STDIN_PORT, Some(stdin()?), None),
        named(proto::STDOUT_PORT, None, Some(stdout()?)),
    ];
    if !terminal {
        ports.push(named(proto::STDERR_PORT, None, Some(stderr()?)));
    }
    Ok(ports)
}

/// The console device: `streams` for the console itself, and named ports. The handle changes the
/// console's size, which starts out as our terminal's.
///
/// # Errors
/// When there is no event to be had.
pub fn console(streams: Streams, ports: Vec<NamedPort>) -> Result<(DeviceSpec, ConsoleHandle)> {
    let (rows, columns) = terminal::size(io::stdin()).unwrap_or_default();
    let size = ConsoleHandle::new(columns, rows).context("console")?;
    let config = console::Config {
        console: streams,
        ports,
        size: size.clone(),
    };
    Ok((DeviceSpec::Console(config), size))
}

/// This process's standard input, as a device reads it.
///
/// # Errors
/// When it cannot be duplicated, or waited for.
pub fn stdin() -> Result<Input> {
    let fd = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("standard input")?;
    Input::new(fd).context("standard input")
}

/// This process's standard output, as a device writes it.
///
/// # Errors
/// When it cannot be duplicated, or waited for.
pub fn stdout() -> Result<Output> {
    output(io::stdout()).context("standard output")
}

/// This process's standard error, as a device writes it.
///
/// # Errors
/// When it cannot be duplicated, or waited for.
pub fn stderr() -> Result<Output> {
    output(io::stderr()).context("standard error")
}

fn output(stream: impl AsFd) -> io::Result<Output> {
    Output::new(stream.as_fd().try_clone_to_owned()?)
}
