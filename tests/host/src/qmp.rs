//! A client for QEMU's machine protocol (QMP): JSON, one object a line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection. All waiting ends at its deadline, and when QEMU ends.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
    events: VecDeque<Value>,
    deadline: Instant,
}

impl Qmp {
    /// Takes the greeting and leaves the negotiation of capabilities.
    ///
    /// # Errors
    /// QEMU ended (its own message is in its log), or the deadline passed.
    pub(crate) fn new(stream: UnixStream, deadline: Instant) -> Result<Self> {
        let mut qmp = Self {
            stream: BufReader::new(stream),
            events: VecDeque::new(),
            deadline,
        };
        qmp.receive()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes `command` and gives what it returns.
    ///
    /// # Errors
    /// QEMU's answer is an error, or as for [`Qmp::new`].
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .with_context(|| format!("send {command} to QEMU"))?;
        loop {
            let mut message = self.receive()?;
            if let Some(error) = message.get("error") {
                bail!("QEMU refused {command}: {}", error["desc"]);
            }
            match message.get_mut("return") {
                Some(result) => return Ok(result.take()),
                None => self.events.push_back(message),
            }
        }
    }

    /// Executes a command of the human monitor and gives its output.
    ///
    /// # Errors
    /// As for [`Qmp::execute`].
    pub(crate) fn human(&mut self, command: &str) -> Result<String> {
        let arguments = json!({"command-line": command});
        let output = self.execute("human-monitor-command", arguments)?;
        Ok(output.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a migration, in or out, is over.
    ///
    /// # Errors
    /// It failed, or as for [`Qmp::new`].
    pub(crate) fn migrated(&mut self) -> Result<()> {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.receive()?,
            };
            if event["event"] != "MIGRATION" {
                continue;
            }
            match event["data"]["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed") => bail!("QEMU could not save or restore the machine"),
                _ => {}
            }
        }
    }

    /// Why QEMU ends or has ended, in its own words: `guest-reset`, `host-signal`... Empty if it did not say.
    pub(crate) fn end_reason(&mut self) -> String {
        let mut reason = String::new();
        while let Some(event) = self.events.pop_front().or_else(|| self.receive().ok()) {
            if event["event"] == "SHUTDOWN" {
                reason = event["data"]["reason"].to_string();
            }
        }
        reason
    }

    fn receive(&mut self) -> Result<Value> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("QEMU did not answer in time");
        }
        self.stream.get_ref().set_read_timeout(Some(left))?;
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => bail!("QEMU ended"),
            Ok(_) => serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}")),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("QEMU did not answer in time")
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => bail!("QEMU ended"),
            Err(error) => Err(error).context("read from QEMU"),
        }
    }
}
