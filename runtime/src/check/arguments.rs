//! What Docker's configuration gives runq on its command line: `runtimeArgs` of daemon.json, without which a container
//! is the first to learn of a mistake there.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Finding;
use super::probes::is_runq;
use crate::cli::args::{self, CommandLine};
use crate::options::Options;

/// One finding for each entry of runq with arguments; none without a configuration that can be read, which is said
/// elsewhere.
pub(super) fn check(config: &Path) -> Vec<Finding> {
    let text = fs::read(config).unwrap_or_default();
    let config: Value = serde_json::from_slice(&text).unwrap_or_default();
    let runtimes = config["runtimes"].as_object();
    let ours = runtimes
        .into_iter()
        .flatten()
        .filter(|(_, entry)| is_runq(entry) && !entry["runtimeArgs"].is_null());
    ours.map(|(name, entry)| finding(name, &entry["runtimeArgs"]))
        .collect()
}

fn finding(name: &str, arguments: &Value) -> Finding {
    let part = format!("runtimeArgs of {name}");
    match try_arguments(arguments) {
        Ok(count) => Finding::fit(&part, format!("{count} words")),
        Err(error) => Finding::unfit(&part, format!("{error:#}")),
    }
}

/// Reads the arguments as `runq create` would; how many there are.
fn try_arguments(arguments: &Value) -> Result<usize> {
    let words: Vec<String> =
        serde_json::from_value(arguments.clone()).context("a list of strings is needed")?;
    let count = words.len();
    let line = CommandLine::parse(words.into_iter().map(OsString::from))?;
    let mut options = line.globals.iter().filter(|word| args::is_option(word));
    if let Some(word) = options.find(|word| !args::is_runcs(&args::split(word).0)) {
        bail!("{}: neither runq nor runc has this option", word.display());
    }
    if let Some(word) = line.command.first() {
        bail!("{}: only options can be here", word.display());
    }
    Options::read(&line.ours, &[])?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::State;
    use super::*;

    fn one(arguments: Value) -> Finding {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        let config = json!({"runtimes": {
            "other": {"path": "/usr/bin/crun", "runtimeArgs": ["--what"]},
            "plain": {"path": "/var/lib/runq/runq"},
            "vm": {"path": "/var/lib/runq/runq", "runtimeArgs": arguments},
        }});
        fs::write(&path, config.to_string()).unwrap();
        let mut findings = check(&path);
        assert_eq!(findings.len(), 1);
        findings.remove(0)
    }

    #[test]
    fn what_runq_and_runc_take_is_fit() {
        let upstream = json!([
            "--cpu",
            "1",
            "--mem",
            "256",
            "--dns",
            "8.8.8.8,8.8.4.4",
            "--tmpfs",
            "/tmp",
            "--nestedvm"
        ]);
        let found = one(upstream);
        assert_eq!(found.part, "runtimeArgs of vm");
        assert_eq!(
            (found.state, found.detail.as_str()),
            (State::Fit, "9 words")
        );
        for fit in [
            json!([]),
            json!(["--debug", "--max-mem=1024", "--log", "/tmp/x"]),
        ] {
            assert_eq!(one(fit).state, State::Fit);
        }
    }

    #[test]
    fn what_neither_takes_is_named() {
        for (arguments, complaint) in [
            (
                json!(["--memory", "512"]),
                "--memory: neither runq nor runc has this option",
            ),
            (json!(["--mem"]), "--mem: a value has to follow"),
            (json!(["--mem", "much"]), "--mem much: whole numbers of MiB"),
            (json!(["--noexec", "512"]), "512: only options can be here"),
            (
                json!(["--max-cpu", "0"]),
                "--max-cpu 0: whole numbers of vCPUs",
            ),
            (json!("--mem 512"), "a list of strings is needed"),
        ] {
            let found = one(arguments);
            assert_eq!(found.state, State::Unfit);
            assert!(found.detail.starts_with(complaint), "{}", found.detail);
        }
    }

    #[test]
    fn without_a_configuration_there_is_nothing_to_say() {
        assert_eq!(check(Path::new("/nonexistent/daemon.json")), []);
    }
}
