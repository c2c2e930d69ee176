//! Asking the agent for what one message answers.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use proto::exec::{FromAgent, ProcessInfo, ToAgent};

use super::connect::{Agent, Container, Silence, explain, receive};

/// How long the agent may look for processes.
const TO_LOOK: Duration = Duration::from_secs(5);
/// How long it may take until the kernel has limits: longer than the agent itself is patient.
const TO_LIMIT: Duration = Duration::from_secs(15);

/// The container's processes, in the order of their numbers there. All that they say of themselves is
/// a hostile guest's choice.
///
/// # Errors
/// One line that says what to do.
pub fn list(agent: &mut Agent, container: &Container) -> Result<Vec<ProcessInfo>> {
    match ask(agent, container, &ToAgent::List, TO_LOOK)? {
        Some(FromAgent::Processes(list)) => Ok(list),
        _ => bail!(
            "container {}: the exec agent does not tell which processes there are: try again",
            container.id
        ),
    }
}

/// Sets limits of the container in its guest.
///
/// # Errors
/// One line that says what to do.
pub fn limit(
    agent: &mut Agent,
    container: &Container,
    limits: Vec<(String, String)>,
) -> Result<()> {
    match ask(agent, container, &ToAgent::Limit(limits), TO_LIMIT)? {
        Some(FromAgent::Limited) => Ok(()),
        _ => bail!(
            "container {}: the exec agent does not tell whether the limits are set: try again",
            container.id
        ),
    }
}

/// The answer, if there is one in time.
fn ask(
    agent: &mut Agent,
    container: &Container,
    message: &ToAgent,
    patience: Duration,
) -> Result<Option<FromAgent>> {
    let id = &container.id;
    agent.send(message).map_err(|error| explain(id, error))?;
    match receive(agent, container, Some(Instant::now() + patience)) {
        Ok(FromAgent::Failed { message, .. }) => bail!("container {id}: {message}"),
        Ok(answer) => Ok(Some(answer)),
        Err(Silence::Late) => Ok(None),
        Err(Silence::Channel(error)) => Err(explain(id, error)),
        Err(Silence::Ended) => bail!("container {id} has ended"),
    }
}
