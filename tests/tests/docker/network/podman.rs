//! Podman, which makes the network namespace itself and names it by its path.

use tests::docker::{ROOT, docker, install, script};
use tests::guest::payload;

/// A container with a published port, from start to removal; and one in the namespace of another, which is refused.
const CONTAINERS: &str = r#"
options=(--cgroup-manager cgroupfs --events-backend none)
podman() { command podman "${options[@]}" "$@"; }
podman load -q -i /tmp/busybox.tar
before=$(ip -o link | sed 's/^[0-9]*: //')
run() { podman --runtime ROOT/runq run -v NETCHECK:/bin/netcheck:ro "$@"; }
run -d --name ours -p 18090:5000 busybox netcheck serve 5000 >/dev/null
exec 3< <(exec podman "${options[@]}" logs -f ours)
grep -q -m 1 ready <&3
kill $!
NETCHECK tcp 127.0.0.1:18090 4 4
run --rm busybox sh -c 'ping -c 1 10.88.0.1 >/dev/null; echo pinged'
run --rm --network container:ours busybox true 2>&1 | sed 's/^Error: //'
podman rm -f -t 0 ours >/dev/null
podman network reload -a
diff <(echo "$before") <(ip -o link | sed 's/^[0-9]*: //' | grep -v podman0) && echo clean
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn podman_runs_containers_in_namespaces_of_its_own() {
    install().unwrap();
    let save = docker().args(["save", "-o", "/tmp/busybox.tar", "busybox"]);
    crate::assert_code(&save.launch().unwrap().wait().unwrap(), 0);
    let netcheck = payload("netcheck").unwrap().display().to_string();
    let text = CONTAINERS
        .replace("ROOT", ROOT)
        .replace("NETCHECK", &netcheck);
    let done = script(&text).unwrap();
    assert!(done.contains("ok 127.0.0.1:18090"), "{done}");
    assert!(done.contains("\npinged\n"), "{done}");
    assert!(
        done.contains("is in it: --network container:ID is not supported"),
        "{done}"
    );
    assert!(done.ends_with("\nclean"), "{done}");
}
