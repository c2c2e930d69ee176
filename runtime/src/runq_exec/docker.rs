//! Asking Docker which container is meant: one request over its socket.

use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

const SOCKET: &str = "/var/run/docker.sock";
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// How long Docker may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Values of a variable that mean no.
const NO: [&str; 6] = ["0", "f", "F", "false", "FALSE", "False"];

/// A container that runs, and in which commands may be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: String,
    /// Its first process.
    pub(crate) pid: i32,
}

/// Finds a container by its name, its ID, or the beginning of that.
///
/// # Errors
/// One line: Docker cannot be asked, there is none, or it is none for us.
pub(crate) fn find(name: &str) -> Result<Found> {
    // It becomes a part of a path: these are Docker's names (`RestrictedNameChars`).
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    ensure!(
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits),
        "container {name:?}: names have letters, digits and _.- only"
    );
    let socket = socket(env::var_os("DOCKER_HOST").and_then(|host| host.into_string().ok()))?;
    let answer = ask(&socket, name)
        .with_context(|| format!("Docker's socket {}: DOCKER_HOST names it", socket.display()))?;
    judge(name, &answer)
}

fn socket(host: Option<String>) -> Result<PathBuf> {
    match host.as_deref() {
        None | Some("") => Ok(SOCKET.into()),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            None => bail!("DOCKER_HOST={host}: only unix:// is possible: the VM is on this host"),
        },
    }
}

/// HTTP/1.0: the answer comes in one piece, and the connection ends behind it.
fn ask(socket: &Path, name: &str) -> std::io::Result<Vec<u8>> {
    let mut socket = UnixStream::connect(socket)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(format!("GET /containers/{name}/json HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The parts of Docker's answer that decide something.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    state: State,
    host_config: HostConfig,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    pid: i32,
    #[serde(default)]
    paused: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    runtime: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    env: Option<Vec<String>>,
}

/// Docker's error.
#[derive(Deserialize)]
struct Trouble {
    message: String,
}

/// What the answer means.
fn judge(name: &str, answer: &[u8]) -> Result<Found> {
    let (status, body) = parse(answer).context("Docker's answer is not HTTP")?;
    if status == 404 {
        bail!("no such container: {name}");
    }
    if status != 200 {
        let trouble: Option<Trouble> = serde_json::from_slice(body).ok();
        let text = trouble.map(|trouble| trouble.message).unwrap_or_default();
        bail!("container {name}: Docker answers {status} {text}");
    }
    let found: Container = serde_json::from_slice(body)
        .with_context(|| format!("container {name}: Docker's answer"))?;
    let runtime = &found.host_config.runtime;
    ensure!(
        runtime.contains("runq"),
        "container {name} runs under runtime {runtime}, not runq: use docker exec"
    );
    ensure!(found.state.running, "container {name} is not running");
    ensure!(!found.state.paused, "container {name} is paused");
    let env = found.config.env.unwrap_or_default();
    let noexec = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("RUNQ_NOEXEC="));
    ensure!(
        noexec.is_none_or(|value| NO.contains(&value)),
        "container {name}: exec is disabled by its variable RUNQ_NOEXEC"
    );
    Ok(Found {
        id: found.id,
        pid: found.state.pid,
    })
}

/// Status and body of an answer.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|bytes| bytes == END)?;
    let head = str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    let status = status.trim_end().get(..3)?.parse().ok()?;
    Some((status, answer.get(end + END.len()..)?))
}

#[cfg(test)]
#[path = "docker_test.rs"]
mod tests;
