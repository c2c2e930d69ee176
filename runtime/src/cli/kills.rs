//! Telling containerd that a container's process was killed for want of memory, for `OOMKilled` of `docker inspect`.
//!
//! containerd's shim watches the container's control group on the host, in which nobody was killed: that happened in
//! the guest. So `runq delete`, which the shim calls after the container's end, publishes the event of which the shim
//! does not know, in the way that containerd has for other programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::args::CommandLine;
use super::report::Report;
use crate::split::{KILLS, VMSPEC};

/// The topic and the type of the event, `TaskOOM` of containerd's api/events/task.proto.
const TOPIC: &str = "/tasks/oom";
const TYPE: &str = "containerd.events.TaskOOM";

/// Publishes the event if there was such a kill, and this was called by a shim of containerd. That it could not
/// be told keeps nobody from deleting the container.
pub(super) fn tell(line: &CommandLine) {
    // The shim works in the bundle.
    let Some(id) = line.operand(&[]).filter(|id| has_kills(Path::new("."), id)) else {
        return;
    };
    let [Some(address), Some(namespace)] = ["GRPC_ADDRESS", "NAMESPACE"].map(env::var_os) else {
        return;
    };
    if let Err(error) = publish(&address, &namespace, &event(id)) {
        Report::new(line).warning(&format!("containerd is not told of a kill: {error}"));
    }
}

/// Whether this is the bundle of this container, which is ours, and its monitor has told of a kill.
fn has_kills(bundle: &Path, id: &OsStr) -> bool {
    let is_its = bundle.canonicalize().is_ok_and(|path| path.ends_with(id));
    let kills = bundle.join(KILLS).metadata();
    is_its && bundle.join(VMSPEC).exists() && kills.is_ok_and(|file| file.len() > 0)
}

fn publish(address: &OsString, namespace: &OsString, event: &[u8]) -> io::Result<()> {
    let mut publisher = Command::new("containerd")
        .arg("--address")
        .arg(address)
        .args(["publish", "--topic", TOPIC, "--namespace"])
        .arg(namespace)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = publisher.stdin.take() {
        stdin.write_all(event)?;
    }
    let status = publisher.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("containerd publish: {status}")));
    }
    Ok(())
}

/// The event in a `google.protobuf.Any`: the type's name is field 1, the event itself, whose field 1 is the ID, field 2.
fn event(id: &OsStr) -> Vec<u8> {
    let event = field(1, id.as_encoded_bytes());
    [field(1, TYPE.as_bytes()), field(2, &event)].concat()
}

/// A field that has a length (type 2 of Protocol Buffers' encoding).
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        field.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend(bytes);
    field
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_event_is_as_protobuf_encodes_it() {
        let expected = [b"\x0a\x19", TYPE.as_bytes(), b"\x12\x06\x0a\x04c0de"].concat();
        assert_eq!(event(OsStr::new("c0de")), expected);
        // 300 is 0b10_0101100.
        let long = [b"\x0a\xac\x02".to_vec(), vec![b'x'; 300]].concat();
        assert_eq!(field(1, &[b'x'; 300]), long);
    }

    #[test]
    fn only_the_containers_own_bundle_counts() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ab");
        fs::create_dir(&bundle).unwrap();
        let has = |id| has_kills(&bundle, OsStr::new(id));
        assert!(!has("ab"));
        fs::write(bundle.join(KILLS), "").unwrap();
        fs::write(bundle.join(VMSPEC), "").unwrap();
        assert!(!has("ab"), "nobody was killed");
        fs::write(bundle.join(KILLS), "1").unwrap();
        assert!(has("ab") && !has("b") && !has("ac"));
        fs::remove_file(bundle.join(VMSPEC)).unwrap();
        assert!(!has("ab"), "it is runc's");
    }
}
