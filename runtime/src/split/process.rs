//! The container's process, as init runs it.

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{self as oci, PosixRlimit, PosixRlimitType};
use proto::{Process, Resource, Rlimit, User, WindowSize};

use super::capabilities;

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

/// Translates all but the system call filter.
///
/// # Errors
/// Names the field that is wrong.
pub(crate) fn translate(process: &oci::Process) -> Result<Process> {
    let args = process.args().clone().unwrap_or_default();
    ensure!(!args.is_empty(), "process.args is empty");
    let cwd = process.cwd();
    ensure!(
        cwd.is_absolute(),
        "process.cwd {cwd:?}: an absolute path is needed"
    );
    if let Some(score) = process.oom_score_adj() {
        ensure!(
            (-1000..=1000).contains(&score),
            "process.oomScoreAdj {score}: -1000 to 1000 are allowed"
        );
    }
    let user = process.user();
    let rlimits = rlimits(process.rlimits().as_deref().unwrap_or_default());
    let capabilities = capabilities::sets(process.capabilities().as_ref());
    let terminal = process.terminal().unwrap_or_default();
    Ok(Process {
        args,
        env: process.env().clone().unwrap_or_default(),
        cwd: cwd.display().to_string(),
        user: User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
        },
        rlimits: rlimits.context("process.rlimits")?,
        capabilities: Some(capabilities.context("process.capabilities")?),
        no_new_privileges: process.no_new_privileges().unwrap_or_default(),
        seccomp: Vec::new(),
        umask: user.umask(),
        oom_score_adj: process.oom_score_adj(),
        terminal: terminal.then(|| window_size(process)),
        // The monitor sees what it has itself.
        null_input: false,
    })
}

/// The size that the terminal has at first; zeros, as the kernel has them, if nobody knows it.
fn window_size(process: &oci::Process) -> WindowSize {
    let characters = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
    let size = process.console_size().unwrap_or_default();
    WindowSize {
        rows: characters(size.height()),
        cols: characters(size.width()),
    }
}

/// The limits of the configuration, and the defaults of those that it does not name.
fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<Rlimit>> {
    let mut all: Vec<Rlimit> = Vec::with_capacity(limits.len() + DEFAULT_RLIMITS.len());
    for limit in limits {
        let (name, soft, hard) = (limit.typ(), limit.soft(), limit.hard());
        let resource = resource(name);
        ensure!(
            all.iter().all(|other| other.resource != resource),
            "{name} is there twice"
        );
        ensure!(
            soft <= hard,
            "{name}: the soft limit {soft} is above the hard limit {hard}"
        );
        all.push(Rlimit {
            resource,
            soft,
            hard,
        });
    }
    let missing = DEFAULT_RLIMITS
        .into_iter()
        .filter(|default| all.iter().all(|limit| limit.resource != default.resource));
    let missing: Vec<_> = missing.collect();
    all.extend(missing);
    Ok(all)
}

fn resource(name: PosixRlimitType) -> Resource {
    use PosixRlimitType as Name;

    match name {
        Name::RlimitAs => Resource::As,
        Name::RlimitCore => Resource::Core,
        Name::RlimitCpu => Resource::Cpu,
        Name::RlimitData => Resource::Data,
        Name::RlimitFsize => Resource::Fsize,
        Name::RlimitLocks => Resource::Locks,
        Name::RlimitMemlock => Resource::Memlock,
        Name::RlimitMsgqueue => Resource::Msgqueue,
        Name::RlimitNice => Resource::Nice,
        Name::RlimitNofile => Resource::Nofile,
        Name::RlimitNproc => Resource::Nproc,
        Name::RlimitRss => Resource::Rss,
        Name::RlimitRtprio => Resource::Rtprio,
        Name::RlimitRttime => Resource::Rttime,
        Name::RlimitSigpending => Resource::Sigpending,
        Name::RlimitStack => Resource::Stack,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn process(more: Value) -> oci::Process {
        let mut process = json!({"cwd": "/", "args": ["true"], "user": {}});
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
            error(json!({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]})),
            "process.rlimits: RLIMIT_CPU: the soft limit 2 is above the hard limit 1"
        );
        let twice = json!({"type": "RLIMIT_CPU", "soft": 1, "hard": 1});
        assert_eq!(
            error(json!({"rlimits": [twice, twice]})),
            "process.rlimits: RLIMIT_CPU is there twice"
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
