//! Right clients, and real commands in namespaces.

use std::time::{Duration, Instant};

use proto::exec::{ExecUser, FromAgent, MAX_DATA, ProcessInfo, STDIN_WINDOW, ToAgent};
use proto::{Capabilities, Process, Resource, Rlimit, User, WindowSize};

use super::testing::{Ended, command, shell, sleeper, until, with_guest};
use crate::syscalls;

/// The test's name in the crate.
macro_rules! guest {
    ($name:ident, $guest:ident, $body:block) => {
        guest!($name, sleeper(), $guest, $body);
    };
    ($name:ident, $process:expr, $guest:ident, $body:block) => {
        #[test]
        fn $name() {
            let name = concat!("agent::tests::", stringify!($name));
            with_guest(name, $process, |$guest| $body);
        }
    };
}

fn ended(code: u8, stdout: &str, stderr: &str) -> Ended {
    Ended {
        code,
        stdout: stdout.into(),
        stderr: stderr.into(),
    }
}

guest!(commands_end_with_their_codes_and_output, guest, {
    assert_eq!(guest.shell("exit 0"), ended(0, "", ""));
    assert_eq!(
        guest.shell("echo out; echo err >&2; exit 255"),
        ended(255, "out\n", "err\n")
    );
    assert_eq!(guest.shell("kill -TERM $$"), ended(143, "", ""));
    assert_eq!(guest.shell("kill -64 $$"), ended(192, "", ""));
    until("all are reaped", || guest.children().is_empty());
});

guest!(they_are_in_the_containers_namespaces, guest, {
    let of = |pid, kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in ["pid", "mnt", "ipc"] {
        // There is no /proc of the container in this test: the child is looked at from here.
        let mut client = guest.started(shell("echo here; read line; exit 3"));
        client.expect("here");
        let [child] = guest.children()[..] else {
            panic!("one child")
        };
        assert_eq!(of(child, kind), of(guest.command, kind));
        assert_ne!(of(child, kind), of(std::process::id() as i32, kind));
        client.send(&ToAgent::StdinEnd);
        assert_eq!(client.end().code, 3);
    }
    let mut client = guest.client();
    client.send(&ToAgent::Exec(Box::new(shell("echo $$"))));
    let Some(FromAgent::Started { pid }) = client.next() else {
        panic!("not started")
    };
    assert_eq!(client.end().stdout, format!("{pid}\n"));
    assert!((2..20).contains(&pid), "{pid}");
});

guest!(what_is_ordered_is_what_they_get, guest, {
    let mut exec = shell("echo $OWN $NEW $HOME; pwd; umask; ulimit -n; id -u; id -g; id -G");
    assert_eq!(
        guest.run(exec.clone()).stdout.lines().collect::<Vec<_>>()[..3],
        ["1 /root", "/", "0022"]
    );
    exec.more_env = vec!["NEW=2".into()];
    exec.cwd = Some("/usr".into());
    exec.umask = Some(0o77);
    exec.rlimits = Some(vec![Rlimit {
        resource: Resource::Nofile,
        soft: 77,
        hard: 77,
    }]);
    exec.user = Some(ExecUser::Known(User {
        uid: 12,
        gid: 34,
        additional_gids: vec![56],
    }));
    let lines = "1 2 /\n/usr\n0077\n77\n12\n34\n34 56\n";
    // HOME is the user's, if there is one of that number.
    let stdout = guest.run(exec.clone()).stdout;
    assert_eq!(
        stdout.split_once('\n').unwrap().1,
        lines.split_once('\n').unwrap().1
    );
    exec.user = Some(ExecUser::Named("daemon".into()));
    exec.env = Some(vec!["PATH=/bin:/usr/bin".into()]);
    let stdout = guest.run(exec).stdout;
    assert!(stdout.starts_with("2 /usr/sbin\n/usr\n"), "{stdout}");
    assert!(stdout.ends_with("1\n1\n1\n"), "{stdout}");
});

guest!(what_cannot_be_started_is_named, guest, {
    let failure = |args: &[&str]| guest.failure(command(args));
    let (code, message) = failure(&["no-such-command"]);
    assert_eq!(code, 127);
    assert!(message.contains("no-such-command"), "{message}");
    assert_eq!(failure(&["/etc/passwd"]).0, 126);
    assert_eq!(failure(&[]), (1, "no command is given".into()));
    let mut exec = shell("true");
    exec.cwd = Some("/no/such".into());
    let (code, message) = guest.failure(exec.clone());
    assert_eq!(code, 127);
    assert!(message.contains("/no/such"), "{message}");
    exec.user = Some(ExecUser::Named("nobody-has-this".into()));
    let expected = "no user nobody-has-this in /etc/passwd";
    assert_eq!(guest.failure(exec), (126, expected.into()));
    until("all are reaped", || guest.children().is_empty());
});

/// A container whose command may do little.
fn bounded() -> Process {
    Process {
        capabilities: Some(Capabilities {
            bounding: 3,
            effective: 1,
            inheritable: 0,
            permitted: 1,
            ambient: 0,
        }),
        no_new_privileges: true,
        oom_score_adj: Some(77),
        ..sleeper()
    }
}

guest!(they_have_the_containers_rights, bounded(), guest, {
    // The numbers in /proc are the host's in this test: the processes are looked at from here.
    let of = |pid| {
        let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = entries.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap());
        let status = read("status");
        let field = |name| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            value.unwrap().to_owned()
        };
        let names = [
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "SigBlk",
            "SigIgn",
        ];
        let files: Vec<_> = links.skip(3).collect();
        (read("oom_score_adj"), names.map(field), files)
    };
    let looked_at = |exec| {
        let mut client = guest.started(exec);
        client.send(&ToAgent::Stdin(b"here".to_vec()));
        client.expect("here");
        let seen = of(guest.children()[0]);
        client.send(&ToAgent::StdinEnd);
        client.end();
        seen
    };
    // Some shells change what signals do.
    let mut exec = command(&["cat"]);
    let (adj, mut fields, files) = of(guest.command);
    assert_eq!((adj.as_str(), &*fields[1]), ("77\n", "0000000000000001"));
    assert_eq!(
        looked_at(exec.clone()),
        (adj.clone(), fields.clone(), files.clone())
    );
    exec.user = Some(ExecUser::Known(User {
        uid: 1000,
        ..User::default()
    }));
    for set in [1, 2] {
        fields[set] = "0000000000000000".into();
    }
    assert_eq!(looked_at(exec), (adj, fields, files));
});

guest!(input_of_any_size_comes_back, guest, {
    let mut client = guest.started(command(&["cat"]));
    let sent = vec![b'x'; 3 * STDIN_WINDOW + 1];
    let received = client.input(&sent);
    client.send(&ToAgent::StdinEnd);
    let ended = client.end();
    assert_eq!((ended.code, received + ended.stdout.len()), (0, sent.len()));
});

guest!(input_that_nobody_reads_is_taken, guest, {
    let mut client = guest.started(shell("exec <&-; echo closed; sleep 1000"));
    client.expect("closed");
    client.input(&vec![0; 2 * STDIN_WINDOW]);
    client.send(&ToAgent::Signal(libc::SIGTERM));
    assert_eq!(client.end().code, 143);
});

guest!(a_signal_passes_a_command_that_does_not_read, guest, {
    let mut client = guest.started(shell("trap 'exit 9' USR1; echo ready; while :; do :; done"));
    client.expect("ready");
    for _ in 0..STDIN_WINDOW / MAX_DATA {
        client.send(&ToAgent::Stdin(vec![0; MAX_DATA]));
    }
    client.send(&ToAgent::Signal(libc::SIGUSR1));
    assert_eq!(client.end().code, 9);
});

guest!(output_waits_for_its_client, guest, {
    let mut client = guest.started(shell("head -c 30000000 /dev/zero; echo end >&2"));
    let other = guest.shell("echo the others do not wait");
    assert_eq!(other.code, 0);
    assert!(guest.memory() < 4096, "{}", guest.memory());
    let (mut received, mut errors) = (0, Vec::new());
    while received < 30_000_000 || errors.is_empty() {
        match client.next() {
            Some(FromAgent::Stdout(bytes)) => received += bytes.len(),
            Some(FromAgent::Stderr(bytes)) => errors = bytes,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(errors, b"end\n");
    assert_eq!(client.end(), ended(0, "", ""));
    assert!(guest.memory() < 4096, "{}", guest.memory());
});

guest!(those_that_are_left_over_are_not_waited_for, guest, {
    let before = Instant::now();
    assert_eq!(guest.shell("sleep 1000 & echo x"), ended(0, "x\n", ""));
    assert!(before.elapsed() < Duration::from_secs(500));
    // It has lost its parent, and is the container's.
    assert_eq!(guest.children(), []);
});

guest!(a_terminal_is_the_commands, guest, {
    let mut exec = shell(
        "stty size; tty; trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.1; done",
    );
    exec.terminal = Some(WindowSize { rows: 11, cols: 22 });
    let mut client = guest.started(exec);
    client.expect("ready");
    client.send(&ToAgent::Resize(WindowSize { rows: 33, cols: 44 }));
    let ended = client.end();
    assert_eq!(ended.code, 4);
    assert!(ended.stdout.contains("33 44"), "{ended:?}");

    let mut exec = shell("tty; exec cat");
    exec.terminal = Some(WindowSize { rows: 11, cols: 22 });
    exec.user = Some(ExecUser::Named("daemon".into()));
    let mut client = guest.started(exec);
    client.expect("/dev/pts/");
    client.send(&ToAgent::Stdin(b"word\n".to_vec()));
    // The echo, and what came of it: no shell is there any more, which might catch the signal.
    client.expect("word\r\nword");
    // The line discipline makes a signal of it, for it is the session's terminal.
    client.send(&ToAgent::Stdin(vec![3]));
    assert_eq!(client.end().code, 130);
    assert_eq!(guest.children(), []);
});

guest!(who_leaves_takes_the_command_along, guest, {
    let before = guest.idle_descriptors();
    for script in [
        "echo ready; sleep 1000",
        // It gets SIGHUP, and ignores it.
        "trap '' HUP; echo ready; while :; do sleep 1000; done",
    ] {
        let mut client = guest.started(shell(script));
        client.expect("ready");
        drop(client);
        until("it is gone", || guest.children().is_empty());
    }
    until("nothing is left open", || guest.descriptors() == before);
});

guest!(the_containers_end_ends_all, guest, {
    let mut client = guest.started(shell("echo ready; sleep 1000"));
    client.expect("ready");
    syscalls::kill(guest.command, libc::SIGKILL).unwrap();
    assert_eq!(client.end().code, 137);
    // Init has reaped it only after the agent has reaped all of its own.
    until("the command is reaped", || {
        !std::fs::exists(format!("/proc/{}", guest.command)).unwrap()
    });
    let (code, message) = guest.failure(shell("true"));
    assert_eq!(code, 1);
    assert!(message.contains("may have ended"), "{message}");
});

guest!(a_limit_that_is_none_is_refused, guest, {
    let mut client = guest.client();
    let limit = |name: &str| (name.to_owned(), "1".to_owned());
    client.send(&ToAgent::Limit(vec![limit("cgroup.procs")]));
    let Some(FromAgent::Failed { code, message }) = client.next() else {
        panic!("not refused")
    };
    assert_eq!(
        (code, &*message),
        (1, "cgroup.procs: no limit of a control group")
    );
    assert_eq!(client.next(), None);
    let mut client = guest.client();
    client.send(&ToAgent::Limit(Vec::new()));
    assert_eq!(client.next(), Some(FromAgent::Limited));
    assert_eq!(client.next(), None);
});

guest!(the_processes_are_told, guest, {
    let mut running = guest.started(shell("echo ready; sleep 1000; true"));
    running.expect("ready");
    until("the shell has a child", || {
        let child = guest.children()[0];
        let path = format!("/proc/{child}/task/{child}/children");
        !std::fs::read_to_string(path).unwrap().is_empty()
    });
    let mut client = guest.client();
    client.send(&ToAgent::List);
    let Some(FromAgent::Processes(list)) = client.next() else {
        panic!("no list")
    };
    assert_eq!(client.next(), None);
    // In this test /proc shows the host's processes, too, which may be in PID namespaces as well.
    let there = |parent, name, args| {
        let is_it = |info: &&ProcessInfo| {
            (info.parent, info.name.as_str(), info.args.len()) == (parent, name, args)
        };
        let found = list.iter().find(is_it);
        found
            .map(|info| info.pid)
            .unwrap_or_else(|| panic!("{name} is not in {list:?}"))
    };
    assert_eq!(there(0, "sleep", 2), 1);
    let shell = there(0, "sh", 3);
    assert!(there(shell, "sleep", 2) > shell);
});
