//! More files than a guest may know at once.

use tests::docker::{Container, script};

/// Files on the host.
struct Files {
    directory: &'static str,
}

impl Files {
    /// `count` files in directories of a thousand, and one that fills the guest's page cache.
    fn make(directory: &'static str, count: u32) -> Self {
        script(&format!(
            "mkdir {directory}; cd {directory}; truncate -s 200M large
             seq {count} | awk '{{ d = int($1 / 1000); print d \"/\" $1 > \"names\" }}'
             seq 0 $(({count} / 1000)) | xargs mkdir; xargs touch <names; rm names; sync
             echo 2 >/proc/sys/vm/drop_caches"
        ))
        .unwrap();
        Self { directory }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        script(&format!("rm -rf {}", self.directory)).unwrap();
    }
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_guest_finds_more_files_than_it_may_know() {
    // Twice as many as a guest of 128 MiB may know: vmm/src/share.rs.
    let files = Files::make("/var/lib/many-files", 42_000);
    let volume = format!("{}:/files", files.directory);
    let container = Container::new().unwrap();
    let options = ["--memory", "64m", "-e", "RUNQ_MEM=64", "-v", &volume];
    let text = "cat /files/large >/dev/null; find /files -type f | wc -l; tar c /files/1 | tar t | wc -l; \
                find /files/41 -type f | wc -l; echo done; sleep 100000";
    container.detach(&options, text).unwrap();
    container.follow().unwrap().wait_for("done\n").unwrap();
    let logs = container.docker(&["logs"]).unwrap();
    assert_eq!(logs, "42001\n1001\n1000\ndone");

    let pid = container.pid().unwrap();
    let open = script(&format!("ls /proc/{pid}/fd | wc -l")).unwrap();
    let open: u32 = open.parse().unwrap();
    assert!(open < 21_000, "the monitor holds {open} files open");
    let group = format!("/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup)");
    // The host's page cache may fill it; what the kernel cannot take back may not.
    let events = script(&format!("cat {group}/memory.events")).unwrap();
    assert!(events.contains("\noom 0\n"), "{events}");
}
