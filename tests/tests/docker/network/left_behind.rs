//! What containers with networks leave on the host: nothing.

use tests::docker::{Container, script};

use super::Network;
use crate::assert_code;

/// Interfaces, routes, neighbours and nodes of macvtaps. Names of namespaces Docker removes when it has time, and when the
/// kernel calls a bridge without ports down is its own business.
fn traces() -> String {
    script(
        "ip -o link | sed 's/^[0-9]*: //; s/ state [A-Z]*//; s/<[^>]*>//'; (ip route; ip -6 route) | sed 's/ expires [0-9]*sec//; s/ linkdown//'; ip neigh | grep -v FAILED | cut -d ' ' -f 1-5
         ls /dev/tap* /run/netns 2>/dev/null || true",
    )
    .unwrap()
}

/// After the monitor was killed, after a start that failed, and after twenty containers.
#[test]
#[ignore = "needs Docker: make test"]
fn nothing_is_left_of_a_network() {
    let network = Network::new("--ipv6 --subnet 10.81.0.0/24 --subnet fd81::/64");
    let options = ["--network", network.name(), "-e", "RUNQ_MEM=128"];
    // The first containers of a Docker leave what it keeps.
    let first = Container::new().unwrap();
    assert_code(&first.shell(&options, "true").unwrap(), 0);
    let before = traces();

    let killed = Container::new().unwrap();
    killed.detach(&options, "echo ready; sleep 1000").unwrap();
    killed.follow().unwrap().wait_for("ready\n").unwrap();
    assert_ne!(traces(), before);
    script(&format!("kill -9 {}", killed.pid().unwrap())).unwrap();
    assert_eq!(killed.wait().unwrap(), "137");

    let failed = Container::new().unwrap();
    let call = failed
        .docker_run()
        .args(options)
        .args(["busybox", "/bin/nothing"]);
    assert_code(&call.launch().unwrap().wait().unwrap(), 127);
    assert_eq!(traces(), before);

    let run = format!(
        "docker run --rm --runtime runq {} busybox ip addr show eth0",
        options.join(" ")
    );
    let seen = script(&format!("seq 20 | xargs -P 4 -I _ {run}")).unwrap();
    assert_eq!(seen.matches("inet 10.81.0.").count(), 20, "{seen}");
    assert_eq!(traces(), before);
}
