//! What is handed to users, the Debian package and the archive, and what `runq check` tells them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::docker::{ROOT, docker, script};
use tests::guest::{Finished, Guest, payload};

use crate::{assert_code, assert_output, without};

const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// A machine without runq, until this is dropped: then what other tests use is back.
struct Clean;

impl Clean {
    fn new() -> Self {
        let clean = Self;
        for path in [ROOT, DAEMON_JSON] {
            script(&format!("[ ! -e {path} ] || mv {path} {path}.aside")).unwrap();
        }
        clean
    }
}

impl Drop for Clean {
    fn drop(&mut self) {
        script("dpkg-query -s runq >/dev/null 2>&1 && dpkg --purge runq || true").unwrap();
        for path in [ROOT, DAEMON_JSON] {
            let back = format!("rm -rf {path}; [ ! -e {path}.aside ] || mv {path}.aside {path}");
            script(&back).unwrap();
        }
        reload();
    }
}

/// Lets Docker read its configuration.
fn reload() {
    let program = payload("reload-docker").unwrap();
    script(&program.display().to_string()).unwrap();
}

fn dpkg(action: &str, what: &str) -> Finished {
    let call = Guest::program("dpkg").args([action, what]);
    call.launch().unwrap().wait().unwrap()
}

fn check() -> Finished {
    let call = Guest::program(format!("{ROOT}/runq")).args(["check"]);
    call.launch().unwrap().wait().unwrap()
}

/// Asserts that the row of this part begins like that.
#[track_caller]
fn assert_row(done: &Finished, part: &str, expected: &str) {
    let table = done.stdout();
    let rows = table.lines().filter_map(|row| row.strip_prefix(part));
    let mut rows = rows.map(str::trim_start);
    assert!(
        rows.any(|row| row.starts_with(expected)),
        "{part} {expected}: {table}"
    );
}

fn configuration() -> Value {
    serde_json::from_slice(&fs::read(DAEMON_JSON).unwrap()).unwrap()
}

#[test]
#[ignore = "needs Docker: make test"]
fn the_debian_package_comes_and_goes() {
    let deb = payload("runq.deb").unwrap().display().to_string();
    let _clean = Clean::new();
    let before = json!({
        "labels": ["place=here"],
        "runtimes": {"other": {"path": "/usr/sbin/runc", "runtimeArgs": ["--debug"]}},
        "max-concurrent-downloads": 2,
    });
    script("mkdir -p /etc/docker").unwrap();
    fs::write(DAEMON_JSON, before.to_string()).unwrap();
    reload();

    let done = dpkg("-i", &deb);
    assert_code(&done, 0);
    let mut registered = before.clone();
    registered["runtimes"]["runq"] = json!({"path": format!("{ROOT}/runq")});
    assert_eq!(configuration(), registered);
    // Else the package has told Docker.
    if !Path::new("/run/systemd/system").exists() {
        assert!(done.stdout().contains("now tell Docker: "), "{done:?}");
        assert_row(
            &check(),
            "Docker's runtime",
            "missing  /etc/docker/daemon.json: runq is in it",
        );
        reload();
    }
    let done = check();
    assert_code(&done, 0);
    for part in [
        "KVM",
        "runc",
        "Docker",
        "Docker's runtime",
        ROOT,
        "certificates",
    ] {
        assert_row(&done, part, "ok ");
    }
    assert_output(&run(&["--rm", "busybox", "echo", "hello"]), "hello\n");

    while_a_container_runs(&deb, &registered);

    let certificates = format!("md5sum {ROOT}/*.pem {ROOT}/vm/certs/*.pem");
    let made = script(&certificates).unwrap();
    assert_eq!(made.lines().count(), 5);
    assert_code(&dpkg("-r", "runq"), 0);
    assert_eq!(configuration(), before);
    assert_eq!(script(&certificates).unwrap(), made);
    assert_code(&dpkg("-P", "runq"), 0);
    assert_eq!(configuration(), before);
    let left = format!(
        "ls -d {ROOT} /usr/bin/runq-exec /usr/bin/runq-vmm /usr/share/doc/runq 2>/dev/null || true"
    );
    assert_eq!(script(&left).unwrap(), "");
    assert_eq!(
        script("dpkg-query -W runq 2>/dev/null || true").unwrap(),
        ""
    );
}

fn run(args: &[&str]) -> Finished {
    let call = docker().args(["run", "--runtime", "runq"]).args(args);
    call.launch().unwrap().wait().unwrap()
}

/// An upgrade leaves it alone; a removal is refused, because Docker could not end it without a runtime.
fn while_a_container_runs(deb: &str, registered: &Value) {
    let wait = "trap 'exit 7' TERM; echo ready; while :; do sleep 1; done";
    let started = run(&["-d", "--name", "upgraded", "busybox", "sh", "-c", wait]);
    assert_code(&started, 0);
    let mut logs = docker().args(["logs", "-f", "upgraded"]).launch().unwrap();
    logs.wait_for("ready\n").unwrap();

    assert_code(&dpkg("-i", deb), 0);
    assert_eq!(&configuration(), registered);
    let refused = dpkg("-r", "runq");
    assert_code(&refused, 1);
    assert!(refused.stderr().contains("stop them first"), "{refused:?}");
    assert_eq!(&configuration(), registered);

    let stopped = docker().args(["stop", "-t", "60", "upgraded"]);
    assert_output(&stopped.launch().unwrap().wait().unwrap(), "upgraded\n");
    assert_code(&logs.wait().unwrap(), 0);
    let code = "docker inspect --format '{{.State.ExitCode}}' upgraded; docker rm upgraded";
    assert_eq!(script(code).unwrap(), "7\nupgraded");
}

#[test]
#[ignore = "needs Docker: make test"]
fn the_archive_is_what_is_installed_and_check_misses_what_is_not() {
    let archive = payload("runq.tar.gz").unwrap();
    let installed = payload("installed").unwrap();
    let _clean = Clean::new();
    script(&format!("tar -C / -xf {}", archive.display())).unwrap();
    let files = |folder: &Path| {
        let list = "find . -printf '%y %m %P\\n' | sort; find . -type f -exec md5sum {} + | sort";
        script(&format!("cd {}; {list}", folder.display())).unwrap()
    };
    assert_eq!(files(Path::new(ROOT)), files(&installed));
    assert_row(
        &check(),
        "certificates",
        &format!("missing  {ROOT}/vm/certs/ca.pem: "),
    );
    script(&format!("{ROOT}/vm/mkcerts.sh")).unwrap();
    assert_row(&check(), "certificates", "ok ");
    let others = format!("find {ROOT} ! '(' -user root -group root ')'");
    assert_eq!(script(&others).unwrap(), "");
    assert_code(&check(), 0);

    for path in [
        "vm/proxy",
        "vm/kernel",
        "vm/initrd",
        "vm/version",
        "vm/empty",
    ] {
        let path = format!("{ROOT}/{path}");
        without(&path, || {
            let done = check();
            assert_code(&done, 1);
            assert_row(&done, &path, "UNFIT    not found: install runq");
        });
    }
    without("/dev/kvm", || {
        let done = check();
        assert_code(&done, 1);
        assert_row(
            &done,
            "KVM",
            "UNFIT    /dev/kvm: not found: load the module",
        );
    });
    let runc = script("command -v runc").unwrap();
    without(&runc, || {
        let done = check();
        assert_code(&done, 1);
        assert_row(
            &done,
            "runc",
            "UNFIT    runc: not found in PATH: install runc",
        );
    });
    assert_code(&check(), 0);
}
