//! A compose file as users have it: a web server, a database and a client, all of them Debian's.

use std::fs;

use tests::docker::{debian, install, script};

const FILE: &str = r#"
x-all: &all
  image: debian
  runtime: runq
services:
  web:
    <<: *all
    command: lighttpd -D -f /www/lighttpd.conf
    volumes: ["/usr:/usr:ro", "./www:/www:ro"]
    ports: ["127.0.0.1:18081:80"]
  database:
    <<: *all
    command: redis-server --protected-mode no --save "" --dir /data --loglevel warning
    volumes: ["/usr:/usr:ro"]
    networks: [inner]
  client:
    <<: *all
    depends_on: [web, database]
    volumes: ["/usr:/usr:ro"]
    networks: [default, inner]
    command:
      - sh
      - -euc
      - |
        until busybox wget -q -O - http://web/; do sleep 0.2; done
        until redis-cli -h database ping | grep -q PONG; do sleep 0.2; done
        redis-cli -h database set key value
        redis-cli -h database get key
networks:
  inner:
    internal: true
"#;

const LIGHTTPD: &str =
    "server.document-root = \"/www\"\nserver.port = 80\nindex-file.names = ( \"index.html\" )\n";

/// Brings the services down when this is dropped.
struct Project(String);

impl Drop for Project {
    fn drop(&mut self) {
        let _ = script(&format!("{} down -t 1 -v", self.0));
    }
}

#[test]
#[ignore = "needs Docker: make test"]
fn three_services_of_a_compose_file_find_each_other() {
    install().unwrap();
    debian().unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("www")).unwrap();
    fs::write(path("www/lighttpd.conf"), LIGHTTPD).unwrap();
    fs::write(path("www/index.html"), "a page\n").unwrap();
    fs::write(path("compose.yaml"), FILE).unwrap();
    let project = Project(format!(
        "docker-compose -p shop -f {}",
        path("compose.yaml").display()
    ));
    let compose = |verb: &str| script(&format!("{} {verb}", project.0)).unwrap();

    compose("up -d 2>&1");
    assert_eq!(
        script("docker wait shop-client-1").unwrap(),
        "0",
        "{}",
        compose("logs")
    );
    // Compose erases lines even where there are none.
    let logs = compose("logs --no-log-prefix client").replace("\u{1b}[2K", "");
    assert_eq!(logs, "a page\nOK\nvalue");
    let page = script("busybox wget -q -O - http://127.0.0.1:18081/").unwrap();
    assert_eq!(page, "a page");
}
