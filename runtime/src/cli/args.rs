//! The command line, taken apart: our options, runc's global options, the command.
//!
//! Our options come among runc's, before the command; what is not ours is runc's, and goes to it as
//! it is. A parser that knows all options cannot do that: runc may have options that we do not
//! know.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::options::{Given, NAMES, Takes};

/// runc's global options that are followed by a value.
const RUNC_VALUES: [&str; 5] = ["criu", "log", "log-format", "root", "rootless"];

/// The commands, runc's and ours. They tell where the command is after an option that we do not
/// know, which may be followed by a value.
const COMMANDS: [&str; 23] = [
    "certs",
    "check",
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "features",
    "help",
    "init",
    "kill",
    "list",
    "pause",
    "ps",
    "register",
    "restore",
    "resume",
    "run",
    "spec",
    "start",
    "state",
    "unregister",
    "update",
];

/// A command line in its parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Our own options.
    pub(crate) ours: Given,
    /// runc's global options, as they are.
    pub(crate) globals: Vec<OsString>,
    /// The command and its arguments, as they are; may be empty.
    pub(crate) command: Vec<OsString>,
}

impl CommandLine {
    /// Takes the arguments apart, without the program's name.
    ///
    /// # Errors
    /// When an option of ours has no value, or none that is text.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut arguments = arguments.into_iter().peekable();
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next_if(is_option) {
            if argument == "--" {
                parsed.globals.push(argument);
                break;
            }
            let (name, value) = split(&argument);
            if let Some((name, takes)) = ours(&argument, &name) {
                let value = match (value, takes) {
                    (Some(value), _) => Some(value),
                    (None, Takes::Nothing) => Some("true".into()),
                    (None, Takes::Value) => arguments.next(),
                };
                let value = value.with_context(|| format!("--{name}: a value has to follow"))?;
                let value = value.into_string();
                let value =
                    value.map_err(|value| anyhow::anyhow!("--{name} {value:?}: not text"))?;
                parsed.ours.insert(name, value);
                continue;
            }
            parsed.globals.push(argument);
            if value.is_some() {
                continue;
            }
            let is_value = |next: &OsString| match runc_takes(&name) {
                Some(takes) => takes == Takes::Value,
                None => !is_option(next) && !COMMANDS.iter().any(|command| next == *command),
            };
            parsed.globals.extend(arguments.next_if(is_value));
        }
        parsed.command = arguments.collect();
        Ok(parsed)
    }

    /// The command's name; empty without one.
    pub(crate) fn name(&self) -> &str {
        let name = self.command.first();
        name.and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Whether one of runc's global options, which has no value, is there.
    pub(crate) fn has(&self, names: &[&str]) -> bool {
        let mut globals = self.globals.iter();
        globals.any(|word| {
            names
                .iter()
                .any(|name| split(word).0 == *name && is_option(word))
        })
    }

    /// The value of one of runc's global options, the last if there are several.
    pub(crate) fn global(&self, name: &str) -> Option<PathBuf> {
        last_value(&self.globals, &[name], &RUNC_VALUES)
    }

    /// The value of one of the command's own options, which has the names `names`. `values` are
    /// all names of options that are followed by a value.
    pub(crate) fn option(&self, names: &[&str], values: &[&str]) -> Option<PathBuf> {
        last_value(self.command.get(1..)?, names, values)
    }

    /// The command's first argument that is no option.
    pub(crate) fn operand(&self, values: &[&str]) -> Option<&OsStr> {
        let mut words = self.command.iter().skip(1);
        while let Some(word) = words.next() {
            if word == "--" {
                return words.next().map(OsString::as_os_str);
            }
            if !is_option(word) {
                return Some(word);
            }
            let (name, value) = split(word);
            if value.is_none() && values.contains(&name.as_str()) {
                words.next();
            }
        }
        None
    }
}

fn last_value(words: &[OsString], names: &[&str], values: &[&str]) -> Option<PathBuf> {
    let mut found = None;
    let mut words = words.iter();
    while let Some(word) = words.next().filter(|word| *word != "--") {
        let (name, value) = split(word);
        let value = match value {
            None if is_option(word) && values.contains(&name.as_str()) => words.next().cloned(),
            value => value,
        };
        if is_option(word) && names.contains(&name.as_str()) {
            found = value.map(PathBuf::from);
        }
    }
    found
}

pub(crate) fn is_option(word: &OsString) -> bool {
    word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")
}

/// An option's name, without its dashes, of which runc's parser takes one or two, and the value
/// behind `=`. A name that is not text is none that we know.
pub(crate) fn split(word: &OsStr) -> (String, Option<OsString>) {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    let bytes = word.as_bytes();
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (
            &bytes[..at],
            Some(OsString::from_vec(bytes[at + 1..].to_vec())),
        ),
        None => (bytes, None),
    };
    (String::from_utf8_lossy(name).into_owned(), value)
}

/// Whether runc has a global option of this name.
pub(crate) fn is_runcs(name: &str) -> bool {
    runc_takes(name).is_some()
}

/// Which option of ours it is. They all begin with two dashes.
fn ours(word: &OsStr, name: &str) -> Option<(&'static str, Takes)> {
    let known = NAMES.iter().find(|(known, _)| *known == name).copied();
    known.filter(|_| word.as_encoded_bytes().starts_with(b"--"))
}

/// Whether a global option of runc's takes a value; unset if we do not know it.
fn runc_takes(name: &str) -> Option<Takes> {
    match name {
        "debug" | "systemd-cgroup" | "help" | "h" | "version" | "v" | "" => Some(Takes::Nothing),
        name => RUNC_VALUES.contains(&name).then_some(Takes::Value),
    }
}

#[cfg(test)]
#[path = "args_test.rs"]
mod tests;
