//! Having the agent run a command.

use anyhow::{Result, anyhow, bail};
use proto::exec::{Exec, FromAgent, ToAgent};

use super::connect::{Agent, Container, Silence, explain, receive};

/// How init says that no file of the PATH is the command (`guest-init/src/lookup.rs`).
const NOT_FOUND: &str = "executable file not found in ";
/// How it begins to say that a command cannot be where it should (`guest-init/src/rights.rs`).
const DIRECTORY: &str = "working directory ";

/// A command that could not be started: the code that a shell would give, and one line.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// 127: it is not there; 126: it cannot be executed; 1: all else.
    pub code: u8,
    /// What is wrong. Docker looks for parts of it to find the exit code (`setExitCodeFromError` of
    /// dockerd's daemon/errors.go): they are the words of runc.
    pub message: String,
}

/// Has the command started.
///
/// # Errors
/// A [`Refused`] if it is the command's fault, else one line that says what to do.
pub fn start(agent: &mut Agent, container: &Container, exec: Exec) -> Result<()> {
    let lost = |error| explain(&container.id, error);
    let command = exec.args.first().cloned().unwrap_or_default();
    // No message is as long as the longest command line that Linux takes.
    agent
        .send(&ToAgent::Exec(Box::new(exec)))
        .map_err(|error| match error {
            channel::Error::Message(error) => anyhow!("the command and its environment: {error}"),
            error => lost(error),
        })?;
    match receive(agent, container, None) {
        Ok(FromAgent::Started { .. }) => Ok(()),
        Ok(FromAgent::Failed { code, message }) => Err(refused(code, &message, &command).into()),
        Ok(_) => bail!("container {}: the exec agent does not answer", container.id),
        Err(Silence::Channel(error)) => Err(lost(error)),
        Err(Silence::Ended | Silence::Late) => bail!("container {} has ended", container.id),
    }
}

/// In the words of runc, which has what Go says of the command.
pub(crate) fn refused(code: u8, message: &str, command: &str) -> Refused {
    let reason = message.strip_prefix(&format!("{command}: "));
    let not_found = message.split_once(NOT_FOUND).filter(|_| code == 127);
    let message = if let Some((name, _)) = not_found {
        format!("exec: {name}{NOT_FOUND}$PATH")
    } else if let Some((directory, reason)) = message
        .strip_prefix(DIRECTORY)
        .and_then(|rest| rest.rsplit_once(": "))
    {
        format!("chdir to cwd ({directory:?}) set in config.json failed: {reason}")
    } else if let (127, Some(reason)) = (code, reason) {
        format!("exec: {command:?}: stat {command}: {reason}")
    } else if let (126, Some(reason)) = (code, reason) {
        format!("exec: {command:?}: {reason}")
    } else if matches!(code, 126 | 127) {
        format!("exec: {message}")
    } else {
        message.to_owned()
    };
    Refused { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_says_becomes_what_docker_looks_for() {
        let init = "\"sh\": executable file not found in the PATH /bin";
        let not_found = refused(127, init, "sh");
        assert_eq!(
            not_found.to_string(),
            "exec: \"sh\": executable file not found in $PATH"
        );
        assert_eq!(
            refused(126, "/etc: permission denied", "/etc").message,
            "exec: \"/etc\": permission denied"
        );
        assert_eq!(
            refused(127, "/no: no such file or directory", "/no").message,
            "exec: \"/no\": stat /no: no such file or directory"
        );
        let loader = "/x: its interpreter or dynamic loader: no such file or directory";
        assert_eq!(refused(127, loader, "x").message, format!("exec: {loader}"));
        let nowhere = "working directory /no: where: no such file or directory";
        assert_eq!(
            refused(127, nowhere, "sh").message,
            "chdir to cwd (\"/no: where\") set in config.json failed: no such file or directory"
        );
        let other = refused(1, "no memory", "sh");
        assert_eq!((other.code, other.message.as_str()), (1, "no memory"));
    }
}
