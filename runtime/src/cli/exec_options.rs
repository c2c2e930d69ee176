//! The options of `runc exec`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::args::{is_option, split};

/// Those that are followed by a value.
pub(super) const VALUES: [&str; 18] = [
    "additional-gids",
    "apparmor",
    "c",
    "cap",
    "cgroup",
    "console-socket",
    "cwd",
    "e",
    "env",
    "g",
    "p",
    "pid-file",
    "pidfd-socket",
    "preserve-fds",
    "process",
    "process-label",
    "u",
    "user",
];

/// What a command line of `exec` says.
///
/// Without effect in a VM: `--process-label` and `--apparmor` (the guest has neither), `--cgroup`
/// (commands are in the container's), `--pidfd-socket` (there is a process of the host, but it is not
/// the command).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExecOptions {
    pub(super) process: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) console_socket: Option<PathBuf>,
    pub(super) detach: bool,
    pub(super) tty: bool,
    pub(super) env: Vec<String>,
    pub(super) cwd: Option<String>,
    pub(super) user: Option<String>,
    pub(super) additional_gids: Vec<String>,
    pub(super) capabilities: Vec<String>,
    pub(super) no_new_privileges: bool,
    pub(super) ignore_paused: bool,
    pub(super) id: String,
    pub(super) args: Vec<String>,
}

impl ExecOptions {
    /// Reads what follows `exec`: options, the container's ID, the command.
    ///
    /// # Errors
    /// Names the option that is unknown or wrong.
    pub(super) fn parse(words: &[OsString]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next_if(|word| is_option(word)) {
            if word == "--" {
                break;
            }
            let (name, value) = split(word);
            if VALUES.contains(&name.as_str()) {
                let value = value.or_else(|| words.next().cloned());
                let value =
                    value.with_context(|| format!("exec --{name}: a value has to follow"))?;
                options.set(&name, value)?;
            } else {
                options.switch(&name, value)?;
            }
        }
        let words = words.map(|word| text("a word", word.clone()));
        let mut words = words.collect::<Result<Vec<_>>>()?.into_iter();
        options.id = words
            .next()
            .context("exec: the container's ID is missing")?;
        options.args = words.collect();
        Ok(options)
    }

    fn set(&mut self, name: &str, value: OsString) -> Result<()> {
        match name {
            "process" | "p" => self.process = Some(value.into()),
            "pid-file" => self.pid_file = Some(value.into()),
            "console-socket" => self.console_socket = Some(value.into()),
            "env" | "e" => self.env.push(text(name, value)?),
            "cwd" => self.cwd = Some(text(name, value)?),
            "user" | "u" => self.user = Some(text(name, value)?),
            "additional-gids" | "g" => self.additional_gids.push(text(name, value)?),
            "cap" | "c" => self.capabilities.push(text(name, value)?),
            "preserve-fds" => ensure!(
                value == "0",
                "exec --preserve-fds {}: files of the host cannot be given to a VM",
                value.display()
            ),
            _ => {}
        }
        Ok(())
    }

    fn switch(&mut self, name: &str, value: Option<OsString>) -> Result<()> {
        let on = match value.as_ref().map(|value| value.to_string_lossy()) {
            None => true,
            Some(value) => match &*value {
                "true" | "1" => true,
                "false" | "0" => false,
                value => bail!("exec --{name}={value}: true and false are allowed"),
            },
        };
        match name {
            "detach" | "d" => self.detach = on,
            "tty" | "t" => self.tty = on,
            "no-new-privs" => self.no_new_privileges = on,
            "ignore-paused" => self.ignore_paused = on,
            _ => bail!("exec --{name}: no such option: runc exec --help shows them"),
        }
        Ok(())
    }
}

fn text(name: &str, value: OsString) -> Result<String> {
    let value = value.into_string();
    value.map_err(|value| anyhow!("exec: {name} {value:?}: not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ExecOptions> {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        ExecOptions::parse(&words)
    }

    #[test]
    fn what_containerd_says() {
        let options = parse("--process /p --console-socket /s --detach --pid-file /f ID");
        let expected = ExecOptions {
            process: Some("/p".into()),
            console_socket: Some("/s".into()),
            detach: true,
            pid_file: Some("/f".into()),
            id: "ID".into(),
            ..Default::default()
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn what_people_say() {
        let options = parse(
            "-t -e A=b --env C=d -u 1:2 -g 3 --additional-gids=4 -c CAP_KILL --cwd / \
             --no-new-privs --ignore-paused=true --apparmor x --preserve-fds 0 -d=false ID ls -l --tty",
        );
        let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let expected = ExecOptions {
            tty: true,
            env: words("A=b C=d"),
            cwd: Some("/".into()),
            user: Some("1:2".into()),
            additional_gids: words("3 4"),
            capabilities: words("CAP_KILL"),
            no_new_privileges: true,
            ignore_paused: true,
            id: "ID".into(),
            args: words("ls -l --tty"),
            ..Default::default()
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, error) in [
            ("", "exec: the container's ID is missing"),
            ("--env", "exec --env: a value has to follow"),
            (
                "--new ID",
                "exec --new: no such option: runc exec --help shows them",
            ),
            (
                "-d=perhaps ID",
                "exec --d=perhaps: true and false are allowed",
            ),
            (
                "--preserve-fds 2 ID",
                "exec --preserve-fds 2: files of the host cannot be given to a VM",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), error);
        }
    }
}
