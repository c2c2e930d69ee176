//! Kernel settings and the limit of processes.

use tests::guest::Kernel;

use super::{Container, READ_ONLY};
use crate::{assert_code, assert_silent};

/// Starts more processes than it may, ends them, and tells what came of it.
const SCRIPT: &str = r#"
cat /proc/self/cgroup
( i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i + 1)); done; echo all ) >/tmp/forks 2>&1
kill -KILL -1
wait
cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/cgroup.controllers
mkdir /sys/fs/cgroup/new 2>&1
cat /tmp/forks
cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax /proc/sys/kernel/domainname
cat /proc/sys/net/ipv6/conf/lo/disable_ipv6
hostname
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn processes_are_limited_and_the_kernel_is_set_up() {
    let mut container = Container::new(SCRIPT);
    container.mount_file_system("/sys", "sysfs", READ_ONLY);
    container.mount_file_system("/sys/fs/cgroup", "cgroup2", READ_ONLY);
    let start = &mut container.start;
    start.cgroup = Some(vec![("pids.max".to_owned(), "20".to_owned())]);
    start.hostname = Some("host".to_owned());
    start.sysctls = [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("kernel.shmmax", "12345"),
        ("kernel.domainname", "a domain"),
        ("net/ipv6/conf/lo/disable_ipv6", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let done = container.run(Kernel::Lean);
    assert_code(&done, 0);
    assert_silent(&done);
    assert_eq!(
        done.stdout().lines().collect::<Vec<_>>(),
        [
            "0::/",
            "20",
            "cpuset cpu io memory hugetlb pids",
            "mkdir: can't create directory '/sys/fs/cgroup/new': Read-only file system",
            "/bin/sh: can't fork: Resource temporarily unavailable",
            "0",
            "12345",
            "a domain",
            "1",
            "host",
        ]
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_setting_that_the_kernel_does_not_have_is_named() {
    let mut container = Container::new("echo never");
    container.start.sysctls = vec![("kernel.no_such".to_owned(), "1".to_owned())];
    let done = container.run(Kernel::Lean);
    assert_code(&done, 1);
    assert_eq!(
        done.stderr(),
        "runq-vmm: set the kernel parameter kernel.no_such to \"1\": open /proc/sys/kernel/no_such: no such file or directory\n"
    );
}
