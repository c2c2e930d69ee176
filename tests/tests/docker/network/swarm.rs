//! Services of Docker Swarm, on a swarm of this one machine; and Docker's packet rules in general.

use tests::docker::{Container, docker, install, script};
use tests::guest::payload;

use super::{Network, run};

/// Makes runq the runtime of what names none: a service cannot name one. A machine that is emulated and
/// busy may be silent for longer than a swarm's nodes usually may.
const SET_UP: &str = r#"
json=$(jq '. + {"default-runtime": "runq"}' /etc/docker/daemon.json)
echo "$json" >/etc/docker/daemon.json
$RELOAD
docker swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377 --dispatcher-heartbeat 60s >/dev/null
docker network create -d overlay --attachable mesh >/dev/null
"#;
const TEAR_DOWN: &str = r#"
docker swarm leave --force
docker network rm docker_gwbridge
json=$(jq 'del(."default-runtime")' /etc/docker/daemon.json)
echo "$json" >/etc/docker/daemon.json
$RELOAD
"#;
/// Three servers that the host reaches at port 18090. An image that has no name is not asked for at a
/// registry.
const SERVICE: &str = "docker service create -q --name web --replicas 3 --network mesh -p 18090:5000 \
                       --stop-grace-period 1s --update-monitor 1s --update-order start-first \
                       --mount type=bind,src=$NETCHECK,dst=/bin/netcheck,readonly \
                       $(docker image inspect -f '{{.Id}}' busybox) netcheck serve 5000";
/// How many replicas there are, by their own names; each of them answers, and so does the service.
const COUNT: &str = r#"
replicas() { nslookup tasks.web | sed -n 's/^Address: *\(10[0-9.]*\)$/\1/p'; }
until [ $(replicas | wc -l) = $COUNT ]; do sleep 0.2; done
for at in web $(replicas); do netcheck tcp $at:5000 1 1 | cut -d ' ' -f 1; done
nslookup web | sed -n 's/^Address: *10[0-9.]*$/one/p'
"#;

/// The swarm ends when this is dropped, with all that is in it.
struct Swarm;

impl Swarm {
    fn new() -> Self {
        install().unwrap();
        let swarm = Self;
        swarm.script(SET_UP);
        swarm
    }

    #[track_caller]
    fn script(&self, text: &str) -> String {
        script(&with_programs(text)).unwrap()
    }

    /// Waits until all servers are ready: to Docker a container runs before its guest does.
    fn wait(&self) {
        for server in self.script("docker ps -q --filter name=web").lines() {
            let call = docker().args(["logs", "-f", server]);
            call.launch().unwrap().wait_for("ready\n").unwrap();
        }
    }

    /// Reaches the published port of the host, and all replicas from another container.
    #[track_caller]
    fn check(&self, replicas: usize) {
        let mesh =
            "for _ in $(seq 6); do $NETCHECK tcp 127.0.0.1:18090 1 1; done | cut -d ' ' -f 1";
        assert_eq!(self.script(mesh), ["ok"; 6].join("\n"));
        let (client, count) = (Container::new().unwrap(), format!("COUNT={replicas}"));
        let options = ["--network", "mesh", "-e", &count];
        let seen = run(&client, "runq", &options, COUNT);
        assert_eq!(seen, "ok\n".repeat(1 + replicas) + "one\n");
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for line in TEAR_DOWN.trim().lines() {
            let _ = script(&with_programs(line));
        }
    }
}

fn with_programs(text: &str) -> String {
    let path = |name| payload(name).unwrap().display().to_string();
    let text = text.replace("$NETCHECK", &path("netcheck"));
    text.replace("$RELOAD", &path("reload-docker"))
}

#[test]
#[ignore = "needs Docker: make test"]
fn a_service_is_reached_by_its_names_and_port_while_it_changes() {
    let swarm = Swarm::new();
    swarm.script(SERVICE);
    swarm.wait();
    swarm.check(3);
    let runtimes = "docker inspect -f '{{.HostConfig.Runtime}}' $(docker ps -q) | sort -u";
    assert_eq!(swarm.script(runtimes), "runq");

    // One is drained, the other two are replaced, each when its successor runs.
    swarm.script("docker service scale web=2");
    swarm.script("docker service update -q --env-add VERSION=2 web");
    swarm.wait();
    let state = "docker service inspect -f '{{.UpdateStatus.State}}' web";
    assert_eq!(swarm.script(state), "completed");
    swarm.check(2);
}

/// A name server for one: only Docker's packet rules tell it from Docker's own.
#[test]
#[ignore = "needs Docker: make test"]
fn port_53_is_free_while_names_resolve() {
    let network = Network::new("");
    let container = Container::new().unwrap();
    let text = "nc -l -p 53 -e cat & until netstat -ltn | grep -q ':53 '; do :; done; \
                echo answer | nc 127.0.0.1 53; ping -c 1 itself | grep -c '1 packets received'; \
                netstat -lnu | grep -c ':53 ' || cat /proc/sys/net/netfilter/nf_conntrack_max";
    let options = ["--network", network.name(), "--network-alias", "itself"];
    assert_eq!(
        run(&container, "runq", &options, text),
        "answer\n1\n0\n262144\n"
    );
}
