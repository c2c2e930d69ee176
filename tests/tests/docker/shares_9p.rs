//! Root and volumes by 9P.

use std::fs;

use tests::docker::{Container, script};

use crate::refusals::refused;
use crate::{assert_code, assert_output};

const USE: &str = r#"
set -e
cat /dir/from-host
echo guest >/dir/from-guest
chown 55:66 /dir/from-guest
cat /file; echo appended >>/file
(touch /ro/x) 2>&1 || true
ls /ro
mkdir -p /made/by/me && ln -s by /made/link && echo x >/made/link/me/file
mv /made/by/me/file /made/moved && cat /made/moved
stat -c %a:%u /bin/busybox
for path in / /dir /ro /file; do grep " $path 9p " /proc/mounts; done | wc -l
exit 7
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn root_and_volumes_are_used_as_ever() {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    for name in ["dir", "ro"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("dir/from-host"), "host\n").unwrap();
    fs::write(path("ro/listed"), "").unwrap();
    fs::write(path("file"), "a file\n").unwrap();
    let bind = |from: &str, to: &str| format!("{}:{to}", path(from));
    let container = Container::new().unwrap();
    let volumes = ["-v", &bind("dir", "/dir"), "-v", &bind("file", "/file")];
    let read_only = ["-v", &bind("ro", "/ro:ro")];
    let options = [&["-e", "RUNQ_9PCACHE=none"][..], &volumes, &read_only].concat();
    let done = container.shell(&options, USE).unwrap();
    let stdout = "host\na file\ntouch: /ro/x: Read-only file system\nlisted\nx\n755:0\n4\n";
    assert_eq!((&*done.stdout(), &*done.stderr()), (stdout, ""), "{done:?}");
    assert_code(&done, 7);
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    assert_eq!(read("dir/from-guest"), "guest\n");
    assert_eq!(read("file"), "a file\nappended\n");
    let owner = script(&format!("stat -c %u:%g {}", path("dir/from-guest"))).unwrap();
    assert_eq!(owner, "55:66");
    assert_eq!(
        container
            .docker(&["diff"])
            .unwrap()
            .matches("/made")
            .count(),
        5
    );
}

#[test]
#[ignore = "needs Docker: make test"]
fn the_cache_is_the_one_that_was_asked_for() {
    for (mode, shown) in [
        ("loose", ["loose", "0xf"]),
        ("mmap", ["mmap", "0x5"]),
        ("fscache", ["fscache", "0x8f"]),
    ] {
        let container = Container::new().unwrap();
        let variable = format!("RUNQ_9PCACHE={mode}");
        let look = "sed -n '/ 9p /s/.*[ ,]cache=\\([a-z0-9]*\\).*/\\1/p' /proc/mounts | sort -u";
        let done = container.shell(&["--rm", "-e", &variable], look).unwrap();
        let found = done.stdout();
        assert_output(&done, &found);
        assert!(shown.contains(&found.trim_end()), "{mode}: {found}");
    }
    refused(
        &["-e", "RUNQ_9PCACHE=writeback"],
        &[
            "RUNQ_9PCACHE=writeback",
            "none, loose, fscache, mmap are allowed",
        ],
    );
}
