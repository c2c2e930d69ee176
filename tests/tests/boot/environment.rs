//! What a command finds in its guest.

use std::collections::HashMap;

use crate::{assert_code, assert_silent, busybox};

/// Prints each part behind a line `== NAME`.
const SCRIPT: &str = r#"
part() { echo "== $1"; }
part environment; env | grep -v -e ^PWD= -e ^SHLVL= -e ^OLDPWD= | sort
part status; grep -E '^(Pid|NSpid|Uid|Gid|Groups|SigBlk|SigIgn|CapEff|NoNewPrivs|Seccomp):' /proc/self/status
part pid; echo $$
part descriptors; ls /proc/$$/fd
part directory; pwd
part hostname; hostname
part mounts; awk '{ print $2, $3, $4 }' /proc/mounts
part devices; cd /dev; stat -c '%N %A %t:%T %u:%g' *; cd /
part virtio; cat /sys/bus/virtio/devices/*/device | sort
mknod /dev/hwrng c 10 183
part random; cat /sys/class/misc/hw_random/rng_current; head -c 16 /dev/hwrng | wc -c
part entropy; a=$(head -c 16 /dev/hwrng | md5sum); b=$(head -c 16 /dev/hwrng | md5sum); [ "$a" != "$b" ]; echo $?
part processes; ls -d /proc/[0-9]* | wc -l
part writable; echo x >/etc/new && cat /etc/new
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn a_command_finds_what_a_container_would() {
    let (rootfs, guest) = busybox();
    let done = guest.shell(SCRIPT).unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    let text = done.stdout();
    let parts = parts(&text);
    assert_eq!(
        parts["environment"],
        [
            "HOME=/root",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ]
    );
    process(&parts);
    file_systems(&parts);
    devices(&parts);
    assert_eq!(parts["writable"], ["x"]);
    assert_eq!(
        std::fs::read_to_string(rootfs.join("etc/new")).unwrap(),
        "x\n"
    );
}

/// All that is in /dev: name, kind and permissions, numbers in hexadecimal, owner.
const DEVICES: [&str; 14] = [
    "'fd' -> '/proc/self/fd' lrwxrwxrwx 0:0 0:0",
    "full crw-rw-rw- 1:7 0:0",
    "mqueue drwxrwxrwt 0:0 0:0",
    "null crw-rw-rw- 1:3 0:0",
    "'ptmx' -> 'pts/ptmx' lrwxrwxrwx 0:0 0:0",
    "pts drwxr-xr-x 0:0 0:0",
    "random crw-rw-rw- 1:8 0:0",
    "shm drwxrwxrwt 0:0 0:0",
    "'stderr' -> '/proc/self/fd/2' lrwxrwxrwx 0:0 0:0",
    "'stdin' -> '/proc/self/fd/0' lrwxrwxrwx 0:0 0:0",
    "'stdout' -> '/proc/self/fd/1' lrwxrwxrwx 0:0 0:0",
    "tty crw-rw-rw- 5:0 0:0",
    "urandom crw-rw-rw- 1:9 0:0",
    "zero crw-rw-rw- 1:5 0:0",
];

type Parts<'a> = HashMap<&'a str, Vec<&'a str>>;

fn parts(text: &str) -> Parts<'_> {
    text.split("== ")
        .filter_map(|part| part.split_once('\n'))
        .map(|(name, lines)| (name, lines.lines().collect()))
        .collect()
}

fn process(parts: &Parts<'_>) {
    let status: HashMap<&str, Vec<&str>> = parts["status"]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.split_whitespace().collect()))
        .collect();
    assert_eq!(status["Uid"], ["0"; 4]);
    assert_eq!(status["Gid"], ["0"; 4]);
    assert_eq!(
        status["NSpid"].len(),
        1,
        "the namespace that /proc is of is its own"
    );
    assert_eq!(status["SigBlk"], ["0000000000000000"]);
    assert_eq!(status["SigIgn"], ["0000000000000000"]);
    let capabilities = u64::from_str_radix(status["CapEff"][0], 16).unwrap();
    assert_eq!(
        capabilities & 0x1f_ffff_ffff,
        0x1f_ffff_ffff,
        "all up to CAP_AUDIT_READ"
    );
    assert_eq!(status["NoNewPrivs"], ["0"]);
    assert_eq!(parts["pid"], ["1"]);
    // 3 or more may be the shell's own.
    assert_eq!(parts["descriptors"][..3], ["0", "1", "2"]);
    assert_eq!(parts["directory"], ["/"]);
    assert_eq!(parts["hostname"], ["runq"]);
    // The command, and what it runs just then; nothing of init's.
    let processes: u32 = parts["processes"][0].parse().unwrap();
    assert!(processes <= 4, "{processes} processes");
}

fn file_systems(parts: &Parts<'_>) {
    let mounts: HashMap<&str, (&str, Vec<&str>)> = parts["mounts"]
        .iter()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|fields| (fields[0], (fields[1], fields[2].split(',').collect())))
        .collect();
    for (place, kind) in [
        ("/", "virtiofs"),
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        assert_eq!(
            mounts.get(place).map(|(kind, _)| *kind),
            Some(kind),
            "{place}: {mounts:?}"
        );
    }
    assert!(mounts["/dev/shm"].1.contains(&"size=65536k"), "{mounts:?}");
    assert!(mounts["/proc"].1.contains(&"nosuid"), "{mounts:?}");
}

fn devices(parts: &Parts<'_>) {
    assert_eq!(parts["devices"], DEVICES);
    // Virtio 1.3, section 5: 3 console, 4 entropy, 26 file system. Nothing that was not asked for.
    assert_eq!(parts["virtio"], ["0x0003", "0x0004", "0x001a"]);
    assert_eq!(parts["random"], ["virtio_rng.0", "16"]);
    assert_eq!(parts["entropy"], ["0"]);
}
