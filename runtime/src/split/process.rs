//! The container's process, as init runs it.

use anyhow::{Context, Result, ensure};
use proto::{Process, Resource, Rlimit, User, WindowSize};

use super::capabilities;
use crate::spec;

/// No limit, `RLIM_INFINITY` of setrlimit(2).
const UNLIMITED: u64 = u64::MAX;

/// Limits of a process for which the configuration has none.
const DEFAULT_RLIMITS: [Rlimit; 3] = [
    both(Resource::Nofile, 65536),
    both(Resource::Nproc, UNLIMITED),
    both(Resource::Sigpending, 65536),
];

const fn both(resource: Resource, limit: u64) -> Rlimit {
    Rlimit {
        resource,
        soft: limit,
        hard: limit,
    }
}

/// Names of `process.rlimits`.
const RESOURCES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// Translates all but the system call filter.
///
/// # Errors
/// Names the field that is wrong.
pub(super) fn translate(process: &spec::Process) -> Result<Process> {
    ensure!(!process.args.is_empty(), "process.args is empty");
    ensure!(
        process.cwd.starts_with('/'),
        "process.cwd {:?}: an absolute path is needed",
        process.cwd
    );
    if let Some(score) = process.oom_score_adj {
        ensure!(
            (-1000..=1000).contains(&score),
            "process.oomScoreAdj {score}: -1000 to 1000 are allowed"
        );
    }
    let capabilities = capabilities::sets(process.capabilities.as_ref());
    Ok(Process {
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        user: User {
            uid: process.user.uid,
            gid: process.user.gid,
            additional_gids: process.user.additional_gids.clone(),
        },
        rlimits: rlimits(&process.rlimits).context("process.rlimits")?,
        capabilities: Some(capabilities.context("process.capabilities")?),
        no_new_privileges: process.no_new_privileges,
        seccomp: Vec::new(),
        umask: process.user.umask,
        oom_score_adj: process.oom_score_adj,
        terminal: process.terminal.then(|| window_size(process)),
    })
}

/// The size that the terminal has at first; zeros, as the kernel has them, if nobody knows it.
fn window_size(process: &spec::Process) -> WindowSize {
    let characters = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
    let size = process.console_size.as_ref();
    WindowSize {
        rows: size.map_or(0, |size| characters(size.height)),
        cols: size.map_or(0, |size| characters(size.width)),
    }
}

/// The limits of the configuration, and the defaults of those that it does not name.
fn rlimits(limits: &[spec::Rlimit]) -> Result<Vec<Rlimit>> {
    let mut all = Vec::with_capacity(limits.len() + DEFAULT_RLIMITS.len());
    for limit in limits {
        let known = RESOURCES.iter().find(|(name, _)| *name == limit.kind);
        let (_, resource) = known.with_context(|| format!("{:?} is unknown", limit.kind))?;
        ensure!(
            all.iter().all(|other: &Rlimit| other.resource != *resource),
            "{} is there twice",
            limit.kind
        );
        ensure!(
            limit.soft <= limit.hard,
            "{}: the soft limit {} is above the hard limit {}",
            limit.kind,
            limit.soft,
            limit.hard
        );
        all.push(Rlimit {
            resource: *resource,
            soft: limit.soft,
            hard: limit.hard,
        });
    }
    let missing = DEFAULT_RLIMITS
        .into_iter()
        .filter(|default| all.iter().all(|limit| limit.resource != default.resource));
    let missing: Vec<_> = missing.collect();
    all.extend(missing);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn process(more: Value) -> spec::Process {
        let mut process = json!({"cwd": "/", "args": ["true"]});
        for (name, value) in more.as_object().unwrap() {
            process[name] = value.clone();
        }
        serde_json::from_value(process).unwrap()
    }

    fn error(more: Value) -> String {
        format!("{:#}", translate(&process(more)).unwrap_err())
    }

    #[test]
    fn limits_that_are_not_named_have_defaults() {
        let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]);
        let translated = translate(&process(json!({"rlimits": limits}))).unwrap();
        let nofile = Rlimit {
            resource: Resource::Nofile,
            soft: 10,
            hard: 20,
        };
        assert_eq!(
            translated.rlimits,
            [
                nofile,
                both(Resource::Nproc, u64::MAX),
                both(Resource::Sigpending, 65536),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error(json!({"args": []})), "process.args is empty");
        assert_eq!(
            error(json!({"cwd": "data"})),
            "process.cwd \"data\": an absolute path is needed"
        );
        assert_eq!(
            error(json!({"oomScoreAdj": 1001})),
            "process.oomScoreAdj 1001: -1000 to 1000 are allowed"
        );
        assert_eq!(
            error(json!({"rlimits": [{"type": "NOFILE", "soft": 1, "hard": 1}]})),
            "process.rlimits: \"NOFILE\" is unknown"
        );
        assert_eq!(
            error(json!({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]})),
            "process.rlimits: RLIMIT_CPU: the soft limit 2 is above the hard limit 1"
        );
        let twice = json!({"type": "RLIMIT_CPU", "soft": 1, "hard": 1});
        assert_eq!(
            error(json!({"rlimits": [twice, twice]})),
            "process.rlimits: RLIMIT_CPU is there twice"
        );
        assert_eq!(
            error(json!({"capabilities": {"ambient": ["CAP_X"]}})),
            "process.capabilities: capability \"CAP_X\" is unknown"
        );
    }

    #[test]
    fn a_terminal_has_the_size_that_is_known() {
        let size = |more| translate(&process(more)).unwrap().terminal;
        assert_eq!(
            size(json!({"consoleSize": {"height": 5, "width": 6}})),
            None
        );
        let unknown = Some(WindowSize { rows: 0, cols: 0 });
        assert_eq!(size(json!({"terminal": true})), unknown);
        assert_eq!(
            size(json!({"terminal": true, "consoleSize": {"height": 24, "width": 100_000}})),
            Some(WindowSize {
                rows: 24,
                cols: u16::MAX
            })
        );
    }
}
