//! `runq check`: is this host fit for runq, and if not, what is to be done?

mod arguments;
mod installed;
mod probes;
mod table;

use std::path::Path;

use anyhow::Result;

use crate::register::DAEMON_JSON;

pub use table::table;

/// Whether a part of the host is fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Fit,
    /// Missing, and runq works without it.
    Optional,
    /// Missing, and no container runs without it.
    Unfit,
}

/// What was found out about one part of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The part.
    pub part: String,
    /// Whether it is fit.
    pub state: State,
    /// What it is, or what to do about it.
    pub detail: String,
}

impl Finding {
    fn fit(part: &str, detail: impl Into<String>) -> Self {
        Self::new(part, State::Fit, detail)
    }

    fn optional(part: &str, detail: impl Into<String>) -> Self {
        Self::new(part, State::Optional, detail)
    }

    fn unfit(part: &str, detail: impl Into<String>) -> Self {
        Self::new(part, State::Unfit, detail)
    }

    fn new(part: &str, state: State, detail: impl Into<String>) -> Self {
        Self {
            part: part.to_owned(),
            state,
            detail: detail.into(),
        }
    }
}

/// Looks at all parts. `root` is where runq is installed, `runc` the runc that it would execute.
pub fn findings(root: &Path, runc: Result<&Path>) -> Vec<Finding> {
    let mut findings = vec![
        probes::linux(Path::new("/proc/sys/kernel/osrelease")),
        probes::kvm(),
        probes::control_groups(Path::new("/sys/fs/cgroup")),
        probes::runc(runc),
    ];
    findings.extend(probes::devices());
    findings.extend(probes::docker(Path::new(DAEMON_JSON)));
    findings.extend(arguments::check(Path::new(DAEMON_JSON)));
    findings.extend(installed::files(root));
    findings.push(installed::certificates(root));
    findings
}

/// Whether containers run on a host with these findings.
pub fn is_fit(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Unfit)
}
