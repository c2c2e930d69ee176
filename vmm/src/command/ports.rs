//! The standard streams and the control connection of a guest's command: the console device's ports.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use arch::cmdline::Console;
use devices::dev::DeviceSpec;
use devices::dev::console::{self, ConsoleHandle, NamedPort, Streams};
use devices::stream::{Input, Output};
use proto::Process;

use super::terminal;
use crate::config::Config;

/// The ports that init knows by name: `control`, this process's standard streams as far as `process` has them, and `others`. A
/// terminal has no standard error of its own.
///
/// # Errors
/// When a stream cannot be duplicated, or is of a kind that cannot be waited for.
pub(super) fn command_ports(
    control: UnixStream,
    others: &[(String, UnixStream)],
    process: &Process,
) -> Result<Vec<NamedPort>> {
    let named = |name: &str, input, output| NamedPort {
        name: name.to_owned(),
        streams: Streams { input, output },
    };
    let both_ways = |name: &str, stream: &UnixStream| -> Result<_> {
        let (input, output) = (stream.try_clone()?, stream.try_clone()?);
        let input = Input::new(OwnedFd::from(input))?;
        let output = Output::new(OwnedFd::from(output))?;
        Ok(named(name, Some(input), Some(output)))
    };
    let mut ports = vec![
        both_ways(proto::CONTROL_PORT, &control).context("control port")?,
        named(proto::STDOUT_PORT, None, Some(stdout()?)),
    ];
    if process.terminal.is_some() || !process.null_input {
        ports.push(named(proto::STDIN_PORT, Some(stdin()?), None));
    }
    if process.terminal.is_none() {
        ports.push(named(proto::STDERR_PORT, None, Some(stderr()?)));
    }
    for (name, stream) in others {
        ports.push(both_ways(name, stream).with_context(|| format!("port {name}"))?);
    }
    Ok(ports)
}

/// The console device, if it has any use: the kernel's console, or `ports`. The handle changes the
/// console's size, which starts out as our terminal's.
///
/// # Errors
/// When there is no event to be had, or a stream does not work.
pub(super) fn console(
    config: &Config,
    ports: Vec<NamedPort>,
) -> Result<Option<(DeviceSpec, ConsoleHandle)>> {
    let console = match config.console {
        Console::Virtio => kernel_console(config)?,
        Console::Serial | Console::None if ports.is_empty() => return Ok(None),
        Console::Serial | Console::None => Streams::default(),
    };
    let (columns, rows) = terminal::window_size().map_or((0, 0), |size| (size.cols, size.rows));
    let size = ConsoleHandle::new(columns, rows).context("console")?;
    let device = console::Config {
        console,
        ports,
        size: size.clone(),
    };
    Ok(Some((DeviceSpec::Console(device), size)))
}

/// The kernel's console is ours, unless a command has standard input and output.
///
/// # Errors
/// When a stream cannot be duplicated, or waited for.
pub(crate) fn kernel_console(config: &Config) -> Result<Streams> {
    Ok(match config.command {
        None => Streams {
            input: Some(stdin()?),
            output: Some(stdout()?),
        },
        Some(_) => Streams {
            input: None,
            output: Some(stderr()?),
        },
    })
}

fn stdin() -> Result<Input> {
    let duplicate = || Input::new(io::stdin().as_fd().try_clone_to_owned()?);
    duplicate().context("standard input")
}

fn stdout() -> Result<Output> {
    output(io::stdout()).context("standard output")
}

fn stderr() -> Result<Output> {
    output(io::stderr()).context("standard error")
}

fn output(stream: impl AsFd) -> io::Result<Output> {
    Output::new(stream.as_fd().try_clone_to_owned()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_ports_go_both_ways() {
        let (control, other) = UnixStream::pair().unwrap();
        let process = Process {
            null_input: true,
            ..Process::default()
        };
        let ports = command_ports(control, &[("other".into(), other)], &process).unwrap();
        let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
        let [control, stdout, stderr] =
            [proto::CONTROL_PORT, proto::STDOUT_PORT, proto::STDERR_PORT];
        assert_eq!(names, [control, stdout, stderr, "other"]);
        let streams = &ports[3].streams;
        assert!(streams.input.is_some() && streams.output.is_some());
    }
}
