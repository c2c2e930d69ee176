//! The command line and the file that says the same.

use std::fs;

use tempfile::TempDir;
use tests::guest::{Guest, Kernel, Rootfs};

use crate::{assert_code, assert_silent};

const FACTS: &str = "nproc; sed -n 1p /proc/meminfo; cat /proc/cmdline; mount -t virtiofs data /mnt && cat /mnt/file";

#[test]
#[ignore = "boots a guest: make test"]
fn a_file_says_the_same_as_the_command_line() {
    let rootfs = Rootfs::new().unwrap();
    fs::create_dir(rootfs.join("mnt")).unwrap();
    let data = TempDir::new().unwrap();
    fs::write(data.path().join("file"), "shared\n").unwrap();
    let share = format!("data={}:ro", data.path().display());

    let by_line = Guest::of(&rootfs)
        .unwrap()
        .option("--share", &share)
        .args(["--cpus", "2", "--mem", "200M", "--cmdline", "some.option=1"])
        .shell(FACTS)
        .unwrap();
    assert_code(&by_line, 0);
    assert_silent(&by_line);

    let (kernel, initrd) = Kernel::Lean.files().unwrap();
    let options = serde_json::json!({
        "kernel": kernel, "initrd": initrd, "rootfs": rootfs.path(), "share": [share],
        "cpus": 2, "mem": 200, "cmdline": "some.option=1", "command": ["/bin/sh", "-c", FACTS],
    });
    let file = data.path().join("config.json");
    fs::write(&file, options.to_string()).unwrap();
    let by_file = Guest::bare()
        .unwrap()
        .option("--config", &file)
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_code(&by_file, 0);
    assert_silent(&by_file);

    assert_eq!(by_file.stdout(), by_line.stdout());
    let facts = by_line.stdout();
    let lines: Vec<&str> = facts.lines().collect();
    assert_eq!(lines[0], "2");
    assert!(lines[2].ends_with("some.option=1"), "{facts}");
    assert_eq!(lines[3], "shared");
}
