//! How the guest resolves names: by Docker's resolver, which listens in the network namespace that this
//! process is in, and which the guest cannot reach.

mod asked;
mod listener;
mod lookup;
mod relay;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use proto::{Mountable, Start};
use runtime::resolv_conf::{self, RESOLVER};
use runtime::vmspec::{SHARE, VmSpec};
use tracing::debug;

pub(crate) use relay::Relay;

/// Where Docker's resolver listens, over UDP and TCP.
const DOCKER: SocketAddr = SocketAddr::new(RESOLVER, 53);
/// Where a container finds its name servers.
const TARGET: &str = "/etc/resolv.conf";
/// Most bytes of that file that are read.
const MAX_SIZE: u64 = 64 << 10;

/// Finds out what the container's resolv.conf says, and tells init. If it names Docker's resolver: the
/// relay of the guest's queries, which is still to be started, and the other end of its port.
///
/// # Errors
/// When a name server is named that Docker's resolver does not know.
pub(crate) fn prepare(spec: &mut VmSpec) -> Result<Option<(Relay, UnixStream)>> {
    let start = &mut spec.start;
    let text = if let Some(dns) = &spec.dns {
        let servers = lookup::addresses(&dns.servers, DOCKER, proto::dns::PATIENCE)?;
        start.resolv_conf.insert(dns.resolv_conf(&servers)).clone()
    } else {
        docker_file(start, Path::new(SHARE))
    };
    start.resolver = resolv_conf::resolver(&text);
    let Some(resolver) = &mut start.resolver else {
        return Ok(None);
    };
    resolver.ports = listener::ports(resolver.address);
    let (ours, port) = UnixStream::pair().context("DNS port")?;
    Ok(Some((Relay::new(ours, DOCKER)?, port)))
}

/// The file that Docker made, empty if there is none: the container can do without.
fn docker_file(start: &Start, share: &Path) -> String {
    let file = start
        .mounts
        .iter()
        .rev()
        .find(|mount| mount.target == TARGET);
    let Some(Mountable::Bind { path, .. }) = file.map(|mount| &mount.what) else {
        return String::new();
    };
    read(&share.join(path)).unwrap_or_else(|error| {
        debug!("{TARGET} ({path}): {error}");
        String::new()
    })
}

/// A user may have mounted anything there, a pipe for one, which would have no end.
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = Vec::new();
    if path.metadata()?.is_file() {
        File::open(path)?.take(MAX_SIZE).read_to_end(&mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use proto::{Mount, MountFlags};

    use super::*;

    fn start(path: &str) -> Start {
        let what = Mountable::Bind {
            path: path.into(),
            flags: MountFlags::default(),
        };
        Start {
            mounts: vec![Mount {
                target: TARGET.into(),
                what,
            }],
            ..Default::default()
        }
    }

    #[test]
    fn dockers_file_is_read_in_the_share_if_it_is_one() {
        let share = tempfile::tempdir().unwrap();
        fs::create_dir(share.path().join("volumes")).unwrap();
        fs::write(share.path().join("volumes/0"), "nameserver 127.0.0.11\n").unwrap();
        mkfifo(&share.path().join("volumes/1"), Mode::S_IRUSR).unwrap();
        fs::write(share.path().join("volumes/2"), vec![b'#'; 100_000]).unwrap();
        let text = |path| docker_file(&start(path), share.path());
        assert_eq!(text("volumes/0"), "nameserver 127.0.0.11\n");
        assert_eq!(text("volumes/1"), "");
        assert_eq!(text("volumes/2").len(), 64 << 10);
        assert_eq!(text("volumes/3"), "");
        assert_eq!(docker_file(&Start::default(), share.path()), "");
    }
}
