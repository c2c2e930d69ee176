use std::cell::Cell;
use std::io::ErrorKind;
use std::process::{Child, Command};
use std::thread;

use proto::exec::{Exec, ToAgent};

use super::super::played::{Played, certificates, client, ends};
use super::super::start::{Refused, start};
use super::*;
use crate::certs::Certificates;

const SHORT: Duration = Duration::from_millis(100);
const SHORT_PATIENCE: Patience = Patience {
    way: SHORT,
    agent: SHORT,
    ..PATIENT
};

/// A container whose process is `sleep`.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> (Self, Container) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let container = Container::new("c1", child.id().cast_signed()).unwrap();
        (Self(child), container)
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// What an agent does, on a thread of its own, and the client's end.
fn agent(set: &Certificates, play: impl FnOnce(Played) + Send + 'static) -> File {
    let (file, played) = ends(set);
    thread::spawn(move || play(played));
    file
}

fn greeting(id: &'static str) -> impl FnOnce(Played) + Send {
    move |mut played| {
        let _ = played.say(&FromAgent::hello(id));
        // Until the client leaves.
        while played.hear().is_ok() {}
    }
}

/// Searches on a way for each attempt that is listed, patient for 100 milliseconds.
fn search(set: &Certificates, attempts: Vec<io::Result<File>>) -> Result<Agent> {
    let (_sleeper, container) = Sleeper::new();
    let attempts: Vec<_> = attempts.into_iter().map(|it| Cell::new(Some(it))).collect();
    let search = Search {
        container: &container,
        config: &client(&set.client()),
        patience: SHORT_PATIENCE,
    };
    let nobody = || Err(ErrorKind::ConnectionReset.into());
    search.run(&attempts, |attempt| attempt.take().unwrap_or_else(nobody))
}

fn failure(set: &Certificates, attempts: Vec<io::Result<File>>) -> String {
    match search(set, attempts) {
        Ok(_) => panic!("found"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn the_right_one_of_several_is_found() {
    let set = certificates(2100);
    let other = certificates(2100);
    let attempts = vec![
        Err(ErrorKind::ConnectionRefused.into()),
        Ok(agent(&set, greeting("c2"))),
        Ok(agent(&other, greeting("c1"))),
        Ok(agent(&set, drop)),
        Ok(agent(&set, greeting("c1"))),
    ];
    search(&set, attempts).unwrap();
}

#[test]
fn an_agent_that_begins_late_is_found() {
    let set = certificates(2100);
    let (_sleeper, container) = Sleeper::new();
    let search = Search {
        container: &container,
        config: &client(&set.client()),
        patience: PATIENT,
    };
    let rounds = Cell::new(0);
    let found = search.run(&[()], |()| {
        rounds.set(rounds.get() + 1);
        match rounds.get() {
            1 => Err(io::Error::from_raw_os_error(libc::ENODEV)),
            2 => Err(ErrorKind::TimedOut.into()),
            3 => Ok(agent(&set, drop)),
            _ => Ok(agent(&set, greeting("c1"))),
        }
    });
    assert!(found.is_ok() && rounds.get() == 4);
}

#[test]
fn nobody_is_told_apart_from_no_way() {
    let set = certificates(2100);
    let error = failure(&set, vec![Ok(agent(&set, greeting("c2")))]);
    assert!(
        error.starts_with("container c1: the exec agent does not answer ("),
        "{error}"
    );
    let (_sleeper, container) = Sleeper::new();
    let search = Search {
        container: &container,
        config: &client(&set.client()),
        patience: Patience {
            way: SHORT,
            ..PATIENT
        },
    };
    let absent = || Err(io::Error::from_raw_os_error(libc::ENODEV));
    let error = search.run(&[()], |()| absent()).err().unwrap().to_string();
    assert!(
        error.starts_with("container c1: no way to its agent (") && error.contains("modprobe"),
        "{error}"
    );
}

/// How a search ends that finds these, one a round, the last for ever, in a container of this age.
fn of_age(age: Option<Duration>, answers: &[ErrorKind]) -> String {
    let set = certificates(2100);
    let (_sleeper, mut container) = Sleeper::new();
    container.age = age;
    let search = Search {
        container: &container,
        config: &client(&set.client()),
        patience: Patience {
            agent: SHORT * 5,
            refused: SHORT,
            ..PATIENT
        },
    };
    let rounds = Cell::new(0);
    let found = search.run(&[()], |()| {
        let round = rounds.replace(rounds.get() + 1);
        let answer = answers.get(round).or(answers.last());
        Err((*answer.unwrap()).into())
    });
    found.err().unwrap().to_string()
}

#[test]
fn one_that_has_booted_and_refuses_has_no_agent_any_more() {
    use ErrorKind::{ConnectionReset, TimedOut};

    let error = of_age(Some(BOOT), &[ConnectionReset]);
    assert_eq!(
        error,
        "container c1: the exec agent does not run any more (connection reset): start the \
         container anew"
    );
    for (age, answers) in [
        (Some(SHORT), &[ConnectionReset][..]),
        (None, &[ConnectionReset]),
        // It is there, but has much to do.
        (Some(BOOT), &[ConnectionReset, TimedOut]),
    ] {
        let error = of_age(age, answers);
        assert!(error.contains("does not answer"), "{error}");
    }
}

#[test]
fn a_container_that_ends_is_not_waited_for() {
    let set = certificates(2100);
    let (mut sleeper, container) = Sleeper::new();
    let search = Search {
        container: &container,
        config: &client(&set.client()),
        patience: PATIENT,
    };
    sleeper.end();
    let found = search.run(&[()], |()| Err(ErrorKind::TimedOut.into()));
    let error = found.err().unwrap().to_string();
    assert_eq!(error, "container c1 has ended");
}

#[test]
fn certificates_that_do_not_fit_are_told() {
    let (ours, theirs) = (certificates(2100), certificates(2100));
    let error = failure(&ours, vec![Ok(agent(&theirs, greeting("c1")))]);
    assert!(
        error.contains("do not fit (invalid peer certificate: "),
        "{error}"
    );
    assert!(error.contains("start it anew"), "{error}");
    // The agent refuses ours.
    let mut wrong = ours.client();
    wrong.certificate.clone_from(&theirs.client.certificate);
    wrong.key.clone_from(&theirs.client.key);
    let (_sleeper, container) = Sleeper::new();
    let search = Search {
        container: &container,
        config: &client(&wrong),
        patience: PATIENT,
    };
    let refuses = agent(&ours, greeting("c1"));
    let attempt = Cell::new(Some(refuses));
    let found = search.run(&[()], |()| Ok(attempt.take().unwrap()));
    let error = found.err().unwrap().to_string();
    assert!(
        error.contains("do not fit (received fatal alert: "),
        "{error}"
    );
    let old = certificates(2001);
    let error = failure(&old, vec![Ok(agent(&old, greeting("c1")))]);
    assert!(error.contains("xpired"), "{error}");
}

#[test]
fn another_version_is_told() {
    let set = certificates(2100);
    let old = agent(&set, |mut played| {
        let hello = FromAgent::Hello {
            version: EXEC_VERSION + 1,
            container: "c1".into(),
        };
        let _ = played.say(&hello);
        while played.hear().is_ok() {}
    });
    let error = failure(&set, vec![Ok(old)]);
    let expected = "container c1 was started by another version of runq (messages 2, here 1): \
                    start it anew";
    assert_eq!(error, expected);
}

/// How the start of a command ends if the agent answers so.
fn started(answer: Option<FromAgent>) -> Result<()> {
    let set = certificates(2100);
    let file = agent(&set, |mut played| {
        played.say(&FromAgent::hello("c1")).unwrap();
        let exec = played.hear().unwrap();
        assert!(matches!(exec, ToAgent::Exec(exec) if exec.args == ["id"]));
        if let Some(answer) = answer {
            played.say(&answer).unwrap();
            while played.hear().is_ok() {}
        }
    });
    let mut agent = search(&set, vec![Ok(file)])?;
    let (_sleeper, container) = Sleeper::new();
    let exec = Exec {
        args: vec!["id".into()],
        ..Exec::default()
    };
    start(&mut agent, &container, exec)
}

#[test]
fn a_command_starts_or_the_reason_is_told() {
    started(Some(FromAgent::Started { pid: 7 })).unwrap();
    let failed = FromAgent::Failed {
        code: 126,
        message: "id: permission denied".into(),
    };
    let error = started(Some(failed)).unwrap_err();
    let refused = error.downcast_ref::<Refused>().unwrap();
    assert_eq!(refused.code, 126);
    assert_eq!(refused.message, "exec: \"id\": permission denied");
    for (answer, expected) in [
        (None, "does not run any more (the connection is closed)"),
        (Some(FromAgent::Exited { code: 0 }), "does not answer"),
    ] {
        let error = started(answer).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_command_that_is_too_long_is_told() {
    let set = certificates(2100);
    let (_sleeper, container) = Sleeper::new();
    let mut agent = search(&set, vec![Ok(agent(&set, greeting("c1")))]).unwrap();
    let exec = Exec {
        args: vec!["x".repeat(2 << 20)],
        ..Exec::default()
    };
    let error = start(&mut agent, &container, exec).unwrap_err().to_string();
    assert!(
        error.starts_with("the command and its environment: "),
        "{error}"
    );
}

#[test]
fn a_process_that_is_not_there_is_told() {
    for pid in [0, -1, i32::MAX] {
        let error = Container::new("c1", pid).unwrap_err().to_string();
        assert_eq!(error, format!("container c1 is not running: process {pid}"));
    }
}
