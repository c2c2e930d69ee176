//! Roots on a disk: RUNQ_ROOTDISK.

use std::fs;

use tests::docker::{Container, docker, script};
use tests::guest::Finished;

use crate::disks::{Images, assert_clean};
use crate::refusals::refused;
use crate::{assert_code, assert_output};

/// An image of busybox's files and others that not every program can copy; its name.
fn image() -> &'static str {
    let make = r#"
        root=$(mktemp -d -p /var/tmp)
        from=$(docker create busybox)
        docker export $from | tar -x -C $root
        docker rm $from >/dev/null
        cd $root
        mkdir -p a/b etc usr/lib/modules/0 srv/left dev proc sys tmp
        chmod 1777 tmp
        printf 'linked' >a/one
        ln a/one a/b/two
        ln -s ../../a/one a/b/symbolic
        cp bin/busybox a/set-id && chown 12:34 a/set-id && chmod 6711 a/set-id
        setfattr -n user.color -v blue a/one
        setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 a/set-id
        printf 'left out' >srv/left/file
        printf 'of the image' >usr/lib/modules/0/file
        mkfifo a/fifo && mknod a/null c 1 3
        touch -h -d '2001-02-03 04:05:06.789 UTC' a/one a/b/symbolic a/b
        tar -c --xattrs --xattrs-include='*' --format=posix -C $root . | docker import - rooted >/dev/null
        cd /; rm -r $root"#;
    script(make).unwrap();
    "rooted"
}

/// Where the disk is given to a container.
fn volume(path: &str) -> String {
    format!("{path}:/dev/runq/root/writeback")
}

/// Runs a script in a container of this image with its root on a disk.
fn run(container: &Container, image: &str, options: &[&str], text: &str) -> Finished {
    let call = container.docker_run().args(["-e", "RUNQ_ROOTDISK=root"]);
    let call = call.args(options).args([image, "sh", "-c", text]);
    call.launch().unwrap().wait().unwrap()
}

/// One line for each thing that a copy could lose.
const LOOK: &str = r#"
awk '$2 == "/" { split($4, o, ","); print $1, $3, o[1] }' /proc/mounts | tail -n 1
cd /a
stat -c '%n %a %u:%g %h' one set-id
[ one -ef b/two ] && echo 'one file'
readlink b/symbolic
stat -c '%n %y' one b/symbolic b
stat -c '%n %F %t,%T' fifo null
ls -A /srv /srv/left
ls /usr/lib/modules
readlink /dev/disk/by-runq-id/root
"#;

/// Without the progress of a copy that takes more than a second.
const QUIET: &str = "RUNQ_LOG=error";

const LOOKS: &str = "/dev/vda ext4 rw\n\
    one 644 0:0 2\nset-id 6711 12:34 1\none file\n../../a/one\n\
    one 2001-02-03 04:05:06.789000000 +0000\nb/symbolic 2001-02-03 04:05:06.789000000 +0000\n\
    b 2001-02-03 04:05:06.789000000 +0000\n\
    fifo fifo 0,0\nnull character special file 1,3\n\
    /srv:\nleft\n\n/srv/left:\n../../vda\n";

#[test]
#[ignore = "needs Docker: make test"]
fn the_image_is_copied_with_all_that_its_files_have() {
    let image = image();
    let images = Images::new();
    for mkfs in ["mke2fs -q -F -t ext4", "mke2fs -q -F -t ext2"] {
        let disk = images.formatted("root.img", 128, mkfs);
        let exclude = "RUNQ_ROOTDISK_EXCLUDE=/srv/left,/usr/lib/modules";
        let options = ["--rm", "-v", &volume(&disk), "-e", exclude, "-e", QUIET];
        let done = run(&Container::new().unwrap(), image, &options, LOOK);
        assert_output(&done, LOOKS);
        assert_clean(&disk);
        let attributes = |path| {
            let list = format!("debugfs -R 'ea_list {path}' {disk} 2>/dev/null");
            script(&list).unwrap()
        };
        assert!(attributes("/a/one").contains("user.color (4) = \"blue\""));
        assert!(attributes("/a/set-id").contains("security.capability (20)"));
    }
}

/// What is written stays, through `docker stop` and in another container; the files that Docker mounts are this one's.
#[test]
#[ignore = "needs Docker: make test"]
fn what_is_written_to_the_root_stays() {
    let images = Images::new();
    let disk = images.formatted("root.img", 64, "mke2fs -q -F -t ext4");
    let volume = volume(&disk);
    let options = ["-d", "-v", &volume, "--add-host", "first:10.1.1.1"];
    let serve = "trap 'exit 0' TERM; echo ready; cat /kept; while :; do sleep 1000 & wait $!; done";
    let container = Container::new().unwrap();
    assert_code(&run(&container, "busybox", &options, serve), 0);
    container.follow().unwrap().wait_for("ready\n").unwrap();
    let exec = |text: &str| {
        let call = docker().args(["exec", container.name(), "sh", "-c", text]);
        call.launch().unwrap().wait().unwrap()
    };
    assert_output(&exec("echo by exec >/kept; rm /bin/vi; sync"), "");
    container.docker(&["stop", "-t", "100"]).unwrap();
    assert_clean(&disk);

    container.docker(&["start"]).unwrap();
    container.follow().unwrap().wait_for("by exec\n").unwrap();
    let look = "ls /bin/vi 2>/dev/null; grep -c first /etc/hosts; cat /etc/hostname; grep -c . /etc/resolv.conf >/dev/null \
                && echo servers";
    let id = container.inspect("{{.Config.Hostname}}").unwrap();
    assert_output(&exec(look), &format!("1\n{id}\nservers\n"));
    container.docker(&["rm", "-f"]).unwrap();

    let options = ["--rm", "-v", &volume, "--add-host", "second:10.1.1.2"];
    let look = "cat /kept; grep -c first /etc/hosts; grep -c second /etc/hosts";
    let done = run(&Container::new().unwrap(), "busybox", &options, look);
    assert_output(&done, "by exec\n0\n1\n");

    let options = ["--rm", "-v", &volume, "--read-only", "--network", "none"];
    let write = "(echo x >/kept) 2>/dev/null || cat /kept";
    let done = run(&Container::new().unwrap(), "busybox", &options, write);
    assert_output(&done, "by exec\n");
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_copy_that_was_interrupted_starts_over() {
    let images = Images::new();
    let disk = images.formatted("root.img", 64, "mke2fs -q -F -t ext4");
    let volume = volume(&disk);
    let options = ["--rm", "--network", "none", "-v", &volume, "-e", QUIET];
    let change = "rm /bin/vi; mkdir -p /x/y; echo half >/x/y/file";
    let first = run(&Container::new().unwrap(), "busybox", &options, change);
    assert_output(&first, "");
    // As it is until all is there.
    let begun = images.path("begun");
    fs::write(&begun, "runq root disk 1: copying\n").unwrap();
    let set = format!(
        "debugfs -w -R 'rm .runq-rootdisk' {disk} 2>/dev/null
         debugfs -w -R 'write {begun} .runq-rootdisk' {disk} 2>/dev/null"
    );
    script(&set).unwrap();
    let look = "ls -d /x /bin/vi 2>/dev/null";
    let again = run(&Container::new().unwrap(), "busybox", &options, look);
    assert_eq!(again.stdout(), "/bin/vi\n", "{again:?}");
    assert_clean(&disk);
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_disk_that_cannot_be_the_root_is_named() {
    let images = Images::new();
    let fails = |disk: &str, expected: &str| {
        let options = ["--rm", "--network", "none", "-v", &volume(disk)];
        let done = run(&Container::new().unwrap(), "busybox", &options, "true");
        assert_code(&done, 125);
        assert_eq!(done.stderr().matches(expected).count(), 1, "{done:?}");
    };
    let blank = images.blank("blank.img", 16);
    fails(
        &blank,
        "root disk root: there is no ext2 or ext4 file system",
    );
    let small = images.formatted("small.img", 1, "mke2fs -q -F -t ext2");
    fails(&small, "root disk root: too small for the image");
    assert_clean(&small);
    let other = images.formatted("other.img", 16, "mke2fs -q -F -t ext4");
    script(&format!(
        "debugfs -w -R 'write /etc/hostname data' {other} 2>/dev/null"
    ))
    .unwrap();
    fails(&other, "root disk root: there are files on it");

    let refused = |volume: &str, expected: &str| {
        let options = ["--network", "none", "-e", "RUNQ_ROOTDISK=root"];
        refused(
            &[&options[..], &["-v", volume]].concat(),
            &["RUNQ_ROOTDISK=root", expected],
        );
    };
    refused(
        &format!("{blank}:/dev/runq/other/none"),
        "no disk with this ID",
    );
    refused(&format!("{}:ro", volume(&blank)), "read-only");
    let mounted = format!("{blank}:/dev/runq/root/none/ext4/data");
    refused(&mounted, "mounted on /data");
}
