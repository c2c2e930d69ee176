//! How an error reaches the user: in the log that containerd reads, as runc writes it, and on
//! stderr.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde_json::json;

use super::args::CommandLine;

/// Where to tell what went wrong.
pub(super) struct Report {
    log: Option<PathBuf>,
    json: bool,
}

impl Report {
    /// As runc's global options have it.
    pub(super) fn new(line: &CommandLine) -> Self {
        Self {
            log: line
                .global("log")
                .filter(|path| !path.as_os_str().is_empty()),
            json: line
                .global("log-format")
                .is_some_and(|format| format.as_os_str() == "json"),
        }
    }

    /// Tells one error, its causes behind it, on one line each. The exit code is runc's for errors
    /// of its own.
    pub(super) fn error(&self, error: &anyhow::Error) -> ExitCode {
        let message = format!("{error:#}").replace(['\n', '\r'], " ");
        eprintln!("runq: {message}");
        if let Some(path) = &self.log {
            self.append(path, "error", &message);
        }
        ExitCode::FAILURE
    }

    /// Tells the user something, on one line. It goes to the log alone if there is one: when a
    /// container is created, stderr is the container's.
    pub(super) fn warning(&self, message: &str) {
        match &self.log {
            Some(path) => self.append(path, "warning", message),
            None => eprintln!("runq: {message}"),
        }
    }

    fn append(&self, path: &Path, level: &str, message: &str) {
        let line = entry(level, message, SystemTime::now(), self.json);
        let file = OpenOptions::new().append(true).create(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("runq: --log {}: {error}", path.display());
        }
    }
}

/// A line of the log, in one of the two formats of runc's logger.
fn entry(level: &str, message: &str, time: SystemTime, in_json: bool) -> String {
    let time = format_rfc3339_seconds(time).to_string();
    if in_json {
        let entry = json!({"level": level, "msg": message, "time": time});
        format!("{entry}\n")
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_look_like_those_of_runc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(
            entry("error", "no \"x\"", time, true),
            "{\"level\":\"error\",\"msg\":\"no \\\"x\\\"\",\"time\":\"2023-11-14T22:13:20Z\"}\n"
        );
        assert_eq!(
            entry("error", "no \"x\"", time, false),
            "time=\"2023-11-14T22:13:20Z\" level=error msg=\"no \\\"x\\\"\"\n"
        );
    }
}
