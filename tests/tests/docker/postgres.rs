//! A database on a disk, whose machine is killed while it commits.

use tests::docker::{Container, debian, docker, script};
use tests::guest::Running;

use crate::assert_code;
use crate::disks::{Images, assert_clean};

/// A cluster on the disk, with two tables. The host makes it: that takes a guest in the emulated host minutes.
const PREPARE: &str = r#"
as() { runuser -u postgres -- "$@"; }
bin=$(echo /usr/lib/postgresql/*/bin)
chown postgres .
as $bin/initdb -D data --auth trust --no-locale --encoding UTF8 --data-checksums --wal-segsize 1 --no-sync >/dev/null
as $bin/postgres --single -F -j -D data postgres >/dev/null <<'END'
create table entry (number int primary key, body text not null);

create table latest (number int not null);

insert into latest values (0);

create extension amcheck;

END
"#;

/// Starts the database, says how many entries there are if all are as they were committed, then commits more, and says
/// each one's number afterwards.
const SERVE: &str = r#"
export PATH=$(echo /usr/lib/postgresql/*/bin):$PATH PGHOST=/var/lib/postgresql
postgres -D $PGHOST/data -c listen_addresses= -c unix_socket_directories=$PGHOST -c shared_buffers=16MB &
server=$!
trap 'kill -INT $server; wait $server; exit 0' TERM
until pg_isready -q; do kill -0 $server; sleep 0.2; done
found=$(psql -AqtX -v ON_ERROR_STOP=1 -c "select bt_index_check('entry_pkey', true)" -c "
    select count(*) from entry, latest
    having count(*) = coalesce(max(entry.number), 0) and count(*) = coalesce(max(latest.number), 0)
        and count(*) = count(*) filter (where body = repeat(md5(entry.number::text), 1 + entry.number % 100))
        and not exists (select from verify_heapam('entry')) and not exists (select from verify_heapam('latest'))" | tail -n 1)
echo found $found
mawk -v number=$found 'BEGIN {
    while (++number) {
        printf "with new as (insert into entry values (%d, repeat(md5(%d::text), %d)) returning number) ", number, number, 1 + number % 100
        printf "update latest set number = new.number from new;\n\\echo %d\n", number
    }
}' | stdbuf -oL psql -qX -v ON_ERROR_STOP=1 &
wait $!
"#;

/// Runs a script of the host's with the file system of an image at /mnt.
fn mounted(image: &str, text: &str) {
    let mount = format!(
        "modprobe loop; mount -o loop {image} /mnt; trap 'cd /; umount /mnt' EXIT; cd /mnt"
    );
    script(&format!("{mount}\n{text}")).unwrap();
}

/// Ends the container in a way of Docker's once this entry is committed; how many entries there were in the beginning, and
/// which the last was that was told.
#[track_caller]
fn commit(container: &Container, mut run: Running, until: u32, end: &[&str]) -> (u32, u32) {
    run.wait_for(&format!("\n{until}\n")).unwrap();
    container.docker(end).unwrap();
    let done = run.wait().unwrap();
    assert_code(&done, if end == KILL { 137 } else { 0 });
    let text = done.stdout();
    // The last line may be cut.
    let lines: Vec<&str> = text.split('\n').collect();
    let [first, .., last, _] = lines[..] else {
        panic!("{done:?}");
    };
    let found = first.strip_prefix("found ").map(str::parse);
    let (Some(Ok(found)), Ok(last)) = (found, last.parse()) else {
        panic!("{done:?}");
    };
    (found, last)
}

const KILL: &[&str] = &["kill"];

#[test]
#[ignore = "needs Docker: make test"]
fn a_database_loses_no_commit_when_its_machine_is_killed() {
    let images = Images::new();
    let image = images.formatted("postgres.img", 256, "mke2fs -q -F -t ext4");
    mounted(&image, PREPARE);
    let volume = format!("{image}:/dev/runq/data/none/ext4/var/lib/postgresql");
    let container = Container::new().unwrap();
    let call = container.docker_run().args(["--network", "none"]);
    let call = call.args(["-u", "postgres", "-v", "/usr:/usr:ro", "-v", &volume]);
    let call = call.args([debian().unwrap(), "sh", "-euc", SERVE]);
    let again = || docker().args(["start", "-a", container.name()]).launch();

    // Not always the same moment, and not a different one each time that the tests run.
    let (found, first) = commit(&container, call.launch().unwrap(), 21, KILL);
    assert_eq!(found, 0);
    let (found, second) = commit(&container, again().unwrap(), first + 35, KILL);
    assert!(found >= first, "{found} of {first}");
    let stop = ["stop", "-t", "100"];
    let (found, _) = commit(&container, again().unwrap(), second + 10, &stop);
    assert!(found >= second, "{found} of {second}");
    assert_clean(&image);
    mounted(
        &image,
        "/usr/lib/postgresql/*/bin/pg_checksums --check -D data",
    );
}
