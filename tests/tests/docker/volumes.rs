//! Volumes of all kinds.

use std::fs;

use tests::docker::{Container, docker, script};

use crate::{assert_code, assert_output};

const USE: &str = r#"
set -e
cat /dir/from-host
echo guest >/dir/from-guest
chown 55:66 /dir/from-guest
cat /file; echo appended >>/file
cat /ro-file
(echo x >>/ro-file) 2>&1 || true
(touch /ro/x) 2>&1 || true
ls /ro
echo named >/named/x
awk '$5 == "/dir" || $5 == "/named"' /proc/self/mountinfo | wc -l
cat /tmp/below/x
grep -c ' /tmp tmpfs ' /proc/mounts
cat /link/target/x
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn directories_files_and_named_volumes() {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    for name in ["dir", "ro", "below"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("dir/from-host"), "host\n").unwrap();
    fs::write(path("ro/listed"), "").unwrap();
    fs::write(path("below/x"), "below a tmpfs\n").unwrap();
    fs::write(path("file"), "a file\n").unwrap();
    fs::write(path("ro-file"), "a read-only file\n").unwrap();

    let volume = format!("volume-{}", std::process::id());
    let container = Container::new().unwrap();
    let bind = |from: &str, to: &str| format!("{}:{to}", path(from));
    let done = container
        .docker_run()
        .args(["-v", &bind("dir", "/dir"), "-v", &bind("file", "/file")])
        .args([
            "-v",
            &bind("ro", "/ro:ro"),
            "-v",
            &bind("ro-file", "/ro-file:ro"),
        ])
        .args(["-v", &format!("{volume}:/named"), "--tmpfs", "/tmp"])
        .args([
            "--mount",
            &format!("type=bind,src={},dst=/tmp/below,readonly", path("below")),
        ])
        .args([
            "--mount",
            &format!("type=bind,src={},dst=/link/target", path("below")),
        ])
        .args(["busybox", "sh", "-c", USE])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_output(
        &done,
        "host\na file\na read-only file\nsh: can't create /ro-file: Read-only file system\n\
         touch: /ro/x: Read-only file system\nlisted\n2\nbelow a tmpfs\n1\nbelow a tmpfs\n",
    );
    assert_eq!(
        fs::read_to_string(path("dir/from-guest")).unwrap(),
        "guest\n"
    );
    let owner = script(&format!("stat -c %u:%g {}", path("dir/from-guest"))).unwrap();
    assert_eq!(owner, "55:66");
    assert_eq!(
        fs::read_to_string(path("file")).unwrap(),
        "a file\nappended\n"
    );

    let second = Container::new().unwrap();
    let done = second
        .docker_run()
        .args([
            "--rm",
            "--volumes-from",
            container.name(),
            "busybox",
            "cat",
            "/named/x",
            "/dir/from-guest",
        ])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_output(&done, "named\nguest\n");
    drop(container);
    let removed = docker()
        .args(["volume", "rm", &volume])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_code(&removed, 0);
}

/// What one side writes the other sees, while both have it open.
#[test]
#[ignore = "needs Docker: make test"]
fn a_volume_is_shared_with_the_host_and_another_machine() {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let volume = format!("{}:/data", scratch.path().display());
    let [one, two] = [(); 2].map(|()| Container::new().unwrap());
    let mut first = one
        .docker_run()
        .args([
            "--rm",
            "-i",
            "-v",
            &volume,
            "busybox",
            "sh",
            "-c",
            "read line; cat /data/*; echo one >/data/one",
        ])
        .open_stdin()
        .launch()
        .unwrap();
    fs::write(scratch.path().join("host"), "host\n").unwrap();
    let done = two
        .shell(&["--rm", "-v", &volume], "cat /data/*; echo two >/data/two")
        .unwrap();
    assert_output(&done, "host\n");
    first.write("\n").unwrap();
    first.wait_for("host\ntwo\n").unwrap();
    assert_code(&first.wait().unwrap(), 0);
    assert_eq!(
        fs::read_to_string(scratch.path().join("one")).unwrap(),
        "one\n"
    );
}
