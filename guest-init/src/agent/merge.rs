//! What a command beside the container's is made of: the order, and the container's own for the rest.

use std::collections::BTreeSet;

use proto::exec::Exec;
use proto::{Capabilities, Process, User};

/// The process that an order means, run by `user`.
pub(super) fn process(exec: &Exec, container: &Process, user: User) -> Process {
    let or = |ours: &Option<Vec<_>>, theirs: &Vec<_>| ours.as_ref().unwrap_or(theirs).clone();
    Process {
        args: exec.args.clone(),
        env: with_more(
            exec.env.as_ref().unwrap_or(&container.env).clone(),
            &exec.more_env,
        ),
        cwd: exec.cwd.as_ref().unwrap_or(&container.cwd).clone(),
        capabilities: exec
            .capabilities
            .or_else(|| capabilities(container, user.uid)),
        user,
        rlimits: or(&exec.rlimits, &container.rlimits),
        no_new_privileges: exec
            .no_new_privileges
            .unwrap_or(container.no_new_privileges),
        seccomp: if exec.unfiltered {
            Vec::new()
        } else {
            container.seccomp.clone()
        },
        umask: exec.umask.or(container.umask),
        oom_score_adj: container.oom_score_adj,
        terminal: exec.terminal,
        null_input: false,
    }
}

/// The environment with these variables; one without a value is taken out, as docker has it.
fn with_more(mut env: Vec<String>, more: &[String]) -> Vec<String> {
    let names: BTreeSet<&str> = more.iter().map(|entry| name(entry)).collect();
    env.retain(|entry| !names.contains(name(entry)));
    env.extend(more.iter().filter(|entry| entry.contains('=')).cloned());
    env
}

fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// The container's capabilities, as a user of it has them that may be another one than its command's.
fn capabilities(container: &Process, uid: u32) -> Option<Capabilities> {
    let theirs = container.capabilities?;
    if uid == container.user.uid {
        return Some(theirs);
    }
    let own = if uid == 0 { theirs.bounding } else { 0 };
    Some(Capabilities {
        effective: own,
        permitted: own,
        ambient: 0,
        ..theirs
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::{FilterInstruction, Resource, Rlimit, WindowSize};

    fn strings(strings: &[&str]) -> Vec<String> {
        strings.iter().map(ToString::to_string).collect()
    }

    fn user(uid: u32) -> User {
        User {
            uid,
            ..User::default()
        }
    }

    const CONTAINERS: Capabilities = Capabilities {
        bounding: 0b1111,
        effective: 0b0001,
        inheritable: 0b0010,
        permitted: 0b0011,
        ambient: 0b0010,
    };

    fn limit(soft: u64) -> Vec<Rlimit> {
        vec![Rlimit {
            resource: Resource::Nofile,
            soft,
            hard: 9,
        }]
    }

    fn container(uid: u32) -> Process {
        Process {
            args: strings(&["own"]),
            env: strings(&["A=1", "B=2", "PATH=/bin"]),
            cwd: "/own".into(),
            user: user(uid),
            rlimits: limit(1),
            capabilities: Some(CONTAINERS),
            no_new_privileges: true,
            seccomp: vec![FilterInstruction {
                code: 6,
                jt: 0,
                jf: 0,
                k: 1,
            }],
            umask: Some(0o77),
            oom_score_adj: Some(5),
            terminal: Some(WindowSize { rows: 1, cols: 2 }),
            null_input: false,
        }
    }

    #[test]
    fn what_is_unset_is_the_containers() {
        let exec = Exec {
            args: strings(&["sh"]),
            ..Exec::default()
        };
        let expected = Process {
            args: strings(&["sh"]),
            terminal: None,
            ..container(7)
        };
        assert_eq!(process(&exec, &container(7), user(7)), expected);
    }

    #[test]
    fn what_is_set_counts() {
        let terminal = Some(WindowSize { rows: 3, cols: 4 });
        let given = Capabilities {
            bounding: 1,
            ..Capabilities::default()
        };
        let exec = Exec {
            args: strings(&["sh"]),
            env: Some(strings(&["C=3"])),
            more_env: strings(&["D=4"]),
            cwd: Some("/".into()),
            user: None,
            capabilities: Some(given),
            no_new_privileges: Some(false),
            rlimits: Some(limit(2)),
            umask: Some(0),
            unfiltered: true,
            terminal,
        };
        let expected = Process {
            args: strings(&["sh"]),
            env: strings(&["C=3", "D=4"]),
            cwd: "/".into(),
            user: user(8),
            rlimits: limit(2),
            capabilities: Some(given),
            no_new_privileges: false,
            seccomp: Vec::new(),
            umask: Some(0),
            oom_score_adj: Some(5),
            terminal,
            null_input: false,
        };
        assert_eq!(process(&exec, &container(7), user(8)), expected);
    }

    #[test]
    fn variables_take_the_place_of_others_with_their_names() {
        let env = with_more(
            strings(&["A=1", "AB=2", "C=3"]),
            &strings(&["A=x=y", "C", "D="]),
        );
        assert_eq!(env, strings(&["AB=2", "A=x=y", "D="]));
    }

    #[test]
    fn other_users_have_other_capabilities() {
        let of_root = capabilities(&container(7), 0).unwrap();
        assert_eq!((of_root.effective, of_root.permitted), (0b1111, 0b1111));
        for (uid, container) in [(8, container(7)), (7, container(0))] {
            let sets = capabilities(&container, uid).unwrap();
            let expected = Capabilities {
                effective: 0,
                permitted: 0,
                ambient: 0,
                ..CONTAINERS
            };
            assert_eq!(sets, expected);
        }
        let free = Process {
            capabilities: None,
            ..container(0)
        };
        assert_eq!(capabilities(&free, 7), None);
    }

    proptest! {
        #[test]
        fn each_name_is_there_once_and_as_it_was_given(
            env in proptest::collection::btree_map("[A-C]{1,2}", "[a-z=]{0,3}", 0..8),
            more in proptest::collection::btree_map("[A-C]{1,2}", "[a-z=]{0,3}", 0..8),
        ) {
            let list = |map: &std::collections::BTreeMap<String, String>| -> Vec<String> {
                map.iter().map(|(name, value)| format!("{name}={value}")).collect()
            };
            let mut expected = env.clone();
            expected.extend(more.clone());
            let mut merged = with_more(list(&env), &list(&more));
            merged.sort();
            let mut expected = list(&expected);
            expected.sort();
            prop_assert_eq!(merged, expected);
        }
    }
}
