use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn container() -> Value {
    json!({
        "Id": "c1",
        "Name": "/web",
        "State": {"Running": true, "Paused": false, "Pid": 7},
        "HostConfig": {"Runtime": "runq"},
        "Config": {"Env": ["A=b", "RUNQ_NOEXEC=0"]},
    })
}

fn answer(status: &str, body: &Value) -> Vec<u8> {
    format!("HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{body}").into_bytes()
}

fn error(status: &str, body: &Value) -> String {
    format!("{:#}", judge("web", &answer(status, body)).unwrap_err())
}

#[test]
fn a_container_that_runs_is_found() {
    let found = judge("web", &answer("200 OK", &container())).unwrap();
    let expected = Found {
        id: "c1".into(),
        pid: 7,
    };
    assert_eq!(found, expected);
    let mut other = container();
    other["Config"]["Env"] = Value::Null;
    judge("web", &answer("200 OK", &other)).unwrap();
}

#[test]
fn what_is_none_for_us_is_told() {
    let with = |path: &str, value: Value| {
        let mut body = container();
        *body.pointer_mut(path).unwrap() = value;
        error("200 OK", &body)
    };
    assert_eq!(
        with("/HostConfig/Runtime", "runc".into()),
        "container web runs under runtime runc, not runq: use docker exec"
    );
    assert_eq!(
        with("/State/Running", false.into()),
        "container web is not running"
    );
    assert_eq!(
        with("/State/Paused", true.into()),
        "container web is paused"
    );
    assert_eq!(
        with("/Config/Env", json!(["RUNQ_NOEXEC=0", "RUNQ_NOEXEC=1"])),
        "container web: exec is disabled by its variable RUNQ_NOEXEC"
    );
    assert!(with("/Id", Value::Null).starts_with("container web: Docker's answer: "));
    let none = json!({"message": "No such container: web"});
    assert_eq!(error("404 Not Found", &none), "no such container: web");
    assert_eq!(
        error("500 Internal Server Error", &json!({"message": "no"})),
        "container web: Docker answers 500 no"
    );
    let error = judge("web", b"SSH-2.0\r\n").unwrap_err().to_string();
    assert_eq!(error, "Docker's answer is not HTTP");
}

#[test]
fn the_socket_is_one_of_this_host() {
    assert_eq!(socket(None).unwrap(), Path::new(SOCKET));
    let host = "unix:///run/x.sock".to_owned();
    assert_eq!(socket(Some(host)).unwrap(), Path::new("/run/x.sock"));
    let error = socket(Some("tcp://h:1".into())).unwrap_err().to_string();
    assert!(error.starts_with("DOCKER_HOST=tcp://h:1: "), "{error}");
}

#[test]
fn a_name_is_no_path() {
    for name in ["", "a/b", "../x", "a b", "-a", "a\r\n"] {
        let error = find(name).unwrap_err().to_string();
        assert!(error.contains("names have letters"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_answer_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200), body in "\\PC{0,100}") {
        prop_assert!(judge("web", &bytes).is_err());
        let text = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
        let (status, rest) = parse(text.as_bytes()).unwrap();
        prop_assert_eq!((status, rest), (200, body.as_bytes()));
        prop_assert!(judge("web", text.as_bytes()).is_err());
    }
}
