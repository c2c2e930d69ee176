//! A container of ours whose agent is to be asked for something, by what its bundle says of it.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use channel::{ClientConfig, Identity};

use super::runc::State;
use crate::certs::Client;
use crate::exec::Container;
use crate::split::VMSPEC;
use crate::vmspec::VmSpec;

/// What is known of it.
pub(super) struct Guest {
    pub(super) container: Container,
    pub(super) config: Arc<ClientConfig>,
    pub(super) spec: VmSpec,
}

impl Guest {
    /// The one with this ID, in this state.
    ///
    /// # Errors
    /// When it does not run, or has no agent.
    pub(super) fn open(id: &str, state: &State) -> Result<Self> {
        match state.status.as_str() {
            "running" | "paused" => {}
            status => bail!("container {id} is not running: it is {status}"),
        }
        let spec = VmSpec::load(&state.bundle.join(VMSPEC))
            .with_context(|| format!("container {id}: start it anew"))?;
        ensure!(
            spec.start.agent.is_some(),
            "container {id} has no exec agent: it was started with --noexec or RUNQ_NOEXEC, or \
             without certificates (`runq certs` makes them)"
        );
        let client = Client::load(&state.bundle)?;
        let identity = Identity {
            authority: client.authority.as_bytes(),
            certificate: client.certificate.as_bytes(),
            key: client.key.as_bytes(),
        };
        Ok(Self {
            container: Container::new(id, state.pid)?,
            config: identity
                .client()
                .with_context(|| format!("container {id}: its certificates"))?,
            spec,
        })
    }
}
