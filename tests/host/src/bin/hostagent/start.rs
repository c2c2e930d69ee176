//! Starting a daemon and waiting until it is ready, by the protocol of sd_notify(3).

use std::env;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

/// Starts `command` with its output in `log`, and returns at its `READY=1`.
///
/// # Errors
/// It could not be started, or ended before it was ready.
pub(crate) fn start(log: &Path, command: &[String]) -> Result<()> {
    let [program, args @ ..] = command else {
        bail!("no command to start");
    };
    let path = format!("/run/notify.{}", std::process::id());
    let socket = UnixDatagram::bind(&path).with_context(|| format!("bind {path}"))?;
    let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut child = Command::new(program)
        .args(args)
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("start {program}"))?;

    // The end of the daemon arrives on the same socket, so that one receive waits for both.
    let death = UnixDatagram::unbound()?;
    death.connect(&path)?;
    thread::spawn(move || {
        let end = match child.wait() {
            Ok(status) => format!("EXITED={status}"),
            Err(error) => format!("EXITED={error}"),
        };
        death.send(end.as_bytes())
    });

    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer)?;
        let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        for line in message.lines() {
            if line == "READY=1" {
                fs::remove_file(&path)?;
                return Ok(());
            }
            if let Some(status) = line.strip_prefix("EXITED=") {
                bail!(
                    "{program} ended before it was ready ({status}); see {}",
                    log.display()
                );
            }
        }
    }
}

/// Says that we are ready, to who has started us with [`start`].
///
/// # Errors
/// Nobody listens on `NOTIFY_SOCKET`.
pub(crate) fn tell_ready() -> Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    UnixDatagram::unbound()?
        .send_to(b"READY=1", &path)
        .with_context(|| format!("send to {}", path.display()))?;
    Ok(())
}
