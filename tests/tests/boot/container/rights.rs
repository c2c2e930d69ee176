//! Users, capabilities, filters.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use proto::{Capabilities, Process, Resource, Rlimit, WindowSize};
use tests::guest::{Kernel, Terminal};

use super::{Container, DOCKERS, alice, no_mkdir, only};
use crate::{assert_code, assert_silent};

/// Prints a process's rights, as lines of a name and words.
const STATUS: &str = "grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap[A-Z][a-z]+|Umask):' /proc/self/status | \
    sed 's/[[:space:]][[:space:]]*/ /g'; ";
/// A bit that no kernel has a capability for.
const UNKNOWN: u64 = 1 << 63;
const CHOWN: u64 = 1;
const NET_BIND_SERVICE: u64 = 1 << 10;

const AS_USER: &str = r"
ulimit -n; ulimit -H -n
cat /proc/self/oom_score_adj
pwd; stat -c '%u %a' .
umask; >/tmp/new; stat -c '%u:%g %a' /tmp/new
/bin/privileged users
mkdir /tmp/refused 2>&1
";

#[test]
#[ignore = "boots a guest: make test"]
fn a_user_with_chosen_capabilities_who_can_gain_none() {
    let mut container = Container::new(&format!("{STATUS}{AS_USER}"));
    add_privileged(&container);
    restrict(&mut container.start.process);
    let done = container.run(Kernel::Lean);
    assert_code(&done, 1);
    assert_silent(&done);
    let text = done.stdout();
    let lines: Vec<&str> = text.lines().collect();
    // After execve(2), by the rules of capabilities(7): without rights of the file, the ambient
    // ones are what is left.
    assert_eq!(
        lines[..12],
        [
            "Umask: 0027",
            "Uid: 1000 1000 1000 1000",
            "Gid: 1000 1000 1000 1000",
            "Groups: 7 4711 ",
            "CapInh: 0000000000000401",
            "CapPrm: 0000000000000400",
            "CapEff: 0000000000000400",
            "CapBnd: 00000000a80425fb",
            "CapAmb: 0000000000000400",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "100",
        ]
    );
    assert_eq!(
        lines[12..],
        [
            "3000",
            "-200",
            "/made/for/it",
            "0 755",
            "0027",
            "1000:1000 640",
            "1000 1000",
            "mkdir: can't create directory '/tmp/refused': Protocol error",
        ]
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_root_with_dockers_capabilities_and_a_filter() {
    let mut container = Container::new(&format!(
        "{STATUS} mkdir /tmp/refused 2>&1; mount -t tmpfs x /tmp 2>&1"
    ));
    container.start.process.capabilities = Some(Capabilities {
        bounding: DOCKERS,
        effective: DOCKERS,
        permitted: DOCKERS,
        inheritable: CHOWN,
        ambient: 0,
    });
    container.start.process.seccomp = no_mkdir();
    let done = container.run(Kernel::StockCloud);
    assert_silent(&done);
    assert_eq!(
        done.stdout().lines().collect::<Vec<_>>(),
        [
            "Umask: 0022",
            "Uid: 0 0 0 0",
            "Gid: 0 0 0 0",
            "Groups: ",
            "CapInh: 0000000000000001",
            "CapPrm: 00000000a80425fb",
            "CapEff: 00000000a80425fb",
            "CapBnd: 00000000a80425fb",
            "CapAmb: 0000000000000000",
            "NoNewPrivs: 0",
            "Seccomp: 2",
            "mkdir: can't create directory '/tmp/refused': Protocol error",
            "mount: permission denied (are you root?)",
        ]
    );
}

/// What init does itself, such as to look the command up with its user's rights, the filter need not
/// allow. (Without statx(2), as in the profiles of older Dockers.)
#[test]
#[ignore = "boots a guest: make test"]
fn a_filter_with_no_more_than_the_command_needs() {
    // What busybox's true calls: x86_64's numbers of mprotect, brk, execve, readlink, getuid, prctl,
    // arch_prctl, set_tid_address, exit_group. Other calls of its C library may fail.
    const CALLS: [u8; 9] = [10, 12, 59, 89, 102, 157, 158, 218, 231];
    for no_new_privileges in [false, true] {
        let mut container = Container::new("");
        let process = &mut container.start.process;
        process.args = vec!["true".to_owned()];
        process.user = alice();
        process.capabilities = Some(Capabilities {
            bounding: DOCKERS,
            effective: DOCKERS,
            permitted: DOCKERS,
            ..Capabilities::default()
        });
        process.no_new_privileges = no_new_privileges;
        process.seccomp = only(&CALLS);
        let done = container.run(Kernel::Lean);
        assert_code(&done, 0);
        assert_silent(&done);
    }
}

/// A user with few rights, a filter, and limits.
fn restrict(process: &mut Process) {
    process.user = alice();
    process.capabilities = Some(Capabilities {
        bounding: DOCKERS | UNKNOWN,
        effective: CHOWN | NET_BIND_SERVICE | UNKNOWN,
        permitted: CHOWN | NET_BIND_SERVICE | UNKNOWN,
        inheritable: CHOWN | NET_BIND_SERVICE | UNKNOWN,
        ambient: NET_BIND_SERVICE,
    });
    process.no_new_privileges = true;
    process.seccomp = no_mkdir();
    process.umask = Some(0o027);
    process.oom_score_adj = Some(-200);
    process.cwd = "/made/for/it".to_owned();
    process.rlimits = vec![Rlimit {
        resource: Resource::Nofile,
        soft: 100,
        hard: 3000,
    }];
}

/// A copy of fscheck that runs as root whoever starts it.
fn add_privileged(container: &Container) {
    let path = container.rootfs.join("bin/privileged");
    fs::copy(container.rootfs.join("bin/fscheck"), &path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o4755)).unwrap();
}

/// As `docker run --user` starts it, in a working directory that is the user's only.
#[test]
#[ignore = "boots a guest: make test"]
fn a_user_without_capabilities_can_gain_those_of_a_program() {
    let mut container = Container::new("pwd; grep CapEff /proc/self/status; privileged users");
    add_privileged(&container);
    let home = container.rootfs.join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
    let process = &mut container.start.process;
    process.user = alice();
    process.cwd = "/home".to_owned();
    process.capabilities = Some(Capabilities {
        bounding: DOCKERS,
        effective: DOCKERS,
        permitted: DOCKERS,
        ..Capabilities::default()
    });
    let done = container.run(Kernel::Lean);
    assert_code(&done, 0);
    assert_silent(&done);
    assert_eq!(done.stdout(), "/home\nCapEff:\t0000000000000000\n1000 0\n");
}

/// The size is the one that the monitor has been told, whatever its own terminal's is.
#[test]
#[ignore = "boots a guest: make test"]
fn a_users_terminal_is_the_console() {
    const SCRIPT: &str = "tty; stat -c '%n %A %t:%T %U' /dev/console $(tty); stty size; \
        echo to the console >/dev/console";
    let mut container = Container::new(SCRIPT);
    container.start.process.user = alice();
    container.start.process.terminal = Some(WindowSize { rows: 7, cols: 77 });
    let guest = container.guest(Kernel::Lean);
    let terminal = Terminal::open(24, 80).unwrap();
    let done = guest.terminal(terminal).launch().unwrap().wait().unwrap();
    assert_code(&done, 0);
    assert_eq!(
        done.stdout().lines().collect::<Vec<_>>(),
        [
            "/dev/pts/0",
            "/dev/console crw--w---- 88:0 alice",
            "/dev/pts/0 crw--w---- 88:0 alice",
            "7 77",
            "to the console",
        ]
    );
}
