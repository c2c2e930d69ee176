//! Having the agent tell which processes there are.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use proto::exec::{FromAgent, ProcessInfo, ToAgent};

use super::connect::{Agent, Container, Silence, explain, receive};

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The container's processes, in the order of their numbers there. All that they say of themselves is
/// a hostile guest's choice.
///
/// # Errors
/// One line that says what to do.
pub fn list(agent: &mut Agent, container: &Container) -> Result<Vec<ProcessInfo>> {
    let id = &container.id;
    agent
        .send(&ToAgent::List)
        .map_err(|error| explain(id, error))?;
    match receive(agent, container, Some(Instant::now() + PATIENCE)) {
        Ok(FromAgent::Processes(list)) => Ok(list),
        Ok(FromAgent::Failed { message, .. }) => bail!("container {id}: {message}"),
        Ok(_) | Err(Silence::Late) => bail!(
            "container {id}: the exec agent does not tell which processes there are: try again"
        ),
        Err(Silence::Channel(error)) => Err(explain(id, error)),
        Err(Silence::Ended) => bail!("container {id} has ended"),
    }
}
