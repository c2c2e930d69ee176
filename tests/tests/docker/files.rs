//! The container's own files: Docker's image, layer and tools on them.

use std::fs;

use tests::docker::{Container, docker, script};

use crate::{assert_code, assert_output};

const MAKE: &str = r#"
set -e
mkdir /made
echo content >/made/file
chown 1234:567 /made/file
chmod 6751 /made/file
ln -s file /made/link
ln /made/file /made/hard
mkfifo /made/fifo
mknod /made/null c 1 3
rm /bin/yes
chmod 711 /bin/busybox
echo new >>/etc/group
stat -c '%n %u:%g %a %F %h' /made/*
echo ready
read line
cat /made/copied
echo more >>/made/copied
read line
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn what_is_made_is_seen_by_cp_diff_and_commit() {
    let container = Container::new().unwrap();
    let mut run = container
        .docker_run()
        .args(["-i", "busybox", "sh", "-c", MAKE])
        .open_stdin()
        .launch()
        .unwrap();
    run.wait_for("ready\n").unwrap();

    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("copied"), "from the host\n").unwrap();
    let name = container.name();
    let cp = |from: String, to: String| {
        let done = docker()
            .args(["cp", "-a", &from, &to])
            .launch()
            .unwrap()
            .wait()
            .unwrap();
        assert_code(&done, 0);
    };
    cp(path("copied"), format!("{name}:/made/copied"));
    run.write("\n").unwrap();
    run.wait_for("from the host\n").unwrap();
    cp(format!("{name}:/made"), path("made"));
    run.write("\n").unwrap();
    let done = run.wait().unwrap();
    assert_code(&done, 0);
    let expected = "/made/fifo 0:0 644 fifo 1\n/made/file 1234:567 6751 regular file 2\n\
        /made/hard 1234:567 6751 regular file 2\n/made/link 0:0 777 symbolic link 1\n\
        /made/null 0:0 644 character special file 1\nready\nfrom the host\n";
    assert_eq!(done.stdout(), expected);

    // On its way out of a container, `docker cp` gives a file to who called it.
    let seen = script(&format!(
        "cd {} && stat -c '%n %u:%g %a %h' file link && cat hard",
        path("made")
    ))
    .unwrap();
    assert_eq!(seen, "file 0:0 6751 2\nlink 0:0 777 1\ncontent");
    let mut diff: Vec<String> = container
        .docker(&["diff"])
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    diff.sort();
    let expected = [
        "A /etc/group",
        // Where the kernel's modules are mounted.
        "A /lib",
        "A /lib/modules",
        "A /made",
        "A /made/copied",
        "A /made/fifo",
        "A /made/file",
        "A /made/hard",
        "A /made/link",
        "A /made/null",
        "C /bin",
        "C /bin/busybox",
        "C /etc",
        "D /bin/yes",
    ];
    assert_eq!(diff, expected);

    let image = format!("committed-{name}");
    let commit = docker()
        .args(["commit", name, &image])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_code(&commit, 0);
    let again = Container::new().unwrap();
    let call = again.docker_run().args([
        "--rm",
        &image,
        "sh",
        "-c",
        "tail -1 /made/copied; test ! -e /bin/yes",
    ]);
    assert_output(&call.launch().unwrap().wait().unwrap(), "more\n");
    script(&format!("docker rmi -f {image}")).unwrap();
}

/// Programs of the host, as the image's busybox gives up the rights of its set-user-id bit by itself.
const RIGHTS: &str = r#"
set -e
export PATH=/bin
ln -s usr/lib64 /lib64
cp /usr/bin/id /bin/id-of-root
chmod 4755 /bin/id-of-root
echo mine >/private; chmod 600 /private
as_user() { /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
as_user /bin/id-of-root -u
as_user /usr/bin/id -u
as_user cat /private 2>/dev/null || echo refused
as_user sh -c 'echo x >/tmp-of-user' 2>/dev/null || echo refused
mkdir -m 1777 /shared; as_user touch /shared/x; stat -c %u:%g /shared/x
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn set_user_id_programs_and_permissions_work() {
    let container = Container::new().unwrap();
    let call = container.docker_run().args(["--rm", "-v", "/usr:/usr:ro"]);
    let call = call.args(["busybox", "/bin/sh", "-c", RIGHTS]);
    let done = call.launch().unwrap().wait().unwrap();
    assert_output(&done, "0\n1000\nrefused\nrefused\n1000:1000\n");
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_read_only_root_is_read_only_but_for_its_mounts() {
    let container = Container::new().unwrap();
    let text = "touch /x 2>&1; touch /bin/busybox 2>&1; mkdir /d 2>&1; touch /tmp/a /run/b /dev/shm/c; \
        ls /tmp /run; grep -c ' /tmp tmpfs .*size=1024k' /proc/mounts; df -k /tmp | tail -1 | awk '{ print $2 }'";
    let options = [
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp:size=1m,mode=1777",
        "--mount",
        "type=tmpfs,dst=/run",
    ];
    let done = container.shell(&options, text).unwrap();
    assert_output(
        &done,
        "touch: /x: Read-only file system\ntouch: /bin/busybox: Read-only file system\n\
         mkdir: can't create directory '/d': Read-only file system\n/run:\nb\n\n/tmp:\na\n1\n1024\n",
    );
}

/// What the guest's kernel forbids its processes, the host forbids a guest that has another kernel.
#[test]
#[ignore = "needs Docker: make test"]
fn what_the_container_may_not_do_the_share_cannot() {
    let container = Container::new().unwrap();
    let options = [
        "--read-only",
        "--cap-drop",
        "MKNOD",
        "-v",
        "/usr/share:/not/there:ro",
        "-v",
        "/etc/hostname:/nor/this:ro",
        "-v",
        "/proc:/host/proc:ro",
    ];
    let text = "ls -d /not/there /nor/this; head -c 13 /host/proc/version; echo; cat /host/proc/version | wc -l; \
                grep -c processor /host/proc/cpuinfo >/dev/null && echo processors; echo ready; sleep 100000";
    container.detach(&options, text).unwrap();
    container.follow().unwrap().wait_for("ready\n").unwrap();
    let logs = container.docker(&["logs"]).unwrap();
    assert_eq!(
        logs,
        "/nor/this\n/not/there\nLinux version\n1\nprocessors\nready"
    );

    let process = format!("/proc/{}", container.pid().unwrap());
    // Their root is the share.
    let mounts = script(&format!(
        "thread=$(grep -l '^fs-' {process}/task/*/comm | head -n 1)
         awk '$5 ~ \"^/(root|volumes/[0-9]+)$\" {{ print substr($6, 1, 3) }}' ${{thread%comm}}mountinfo | sort -u"
    ));
    assert_eq!(mounts.unwrap(), "ro,");
    let capabilities = script(&format!(
        "for thread in {process}/task/*; do
             ! grep -q '^fs-' $thread/comm || sed -n 's/^CapPrm:\\t//p' $thread/status
         done | sort -u"
    ));
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, SETFCAP.
    assert_eq!(capabilities.unwrap(), "00000000800000db");
}
