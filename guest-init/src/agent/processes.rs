//! The container's processes, from init's /proc: what they say of themselves is checked and bounded.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use libc::pid_t;
use proto::exec::ProcessInfo;

/// Most processes that are told.
const MAX_PROCESSES: usize = 4096;
/// Bytes of a process's arguments that are told.
const MAX_ARGS: u64 = 4096;
/// Bytes of arguments that are told together: half of a message, whose other half is the rest.
const MAX_ALL_ARGS: usize = proto::MAX_FRAME / 2;
/// Bytes of a status file that are looked at. A process may be in many groups, which come first.
const MAX_STATUS: u64 = 64 << 10;

/// What a status file says.
#[derive(Debug, PartialEq, Eq)]
struct Status<'a> {
    name: &'a str,
    /// The parent's number, as the agent sees it.
    parent: u32,
    uid: u32,
    gid: u32,
    /// The number in the container.
    pid: u32,
}

/// The container's processes without this one, in the order of their numbers. Their arguments may make
/// it wait.
pub(super) fn list(proc: &Path) -> Vec<ProcessInfo> {
    // By their numbers as the agent sees them.
    let mut all: BTreeMap<u32, (ProcessInfo, u32)> = BTreeMap::new();
    let mut room = MAX_ALL_ARGS;
    for number in others(proc) {
        let process = proc.join(number.to_string());
        let text = read(&process.join("status"), MAX_STATUS);
        let Some(status) = parse(&text) else {
            continue;
        };
        let args = arguments(&process, &mut room);
        let info = ProcessInfo {
            pid: status.pid,
            parent: 0,
            uid: status.uid,
            gid: status.gid,
            name: status.name.chars().take(15).collect(),
            args,
        };
        all.insert(number, (info, status.parent));
        if all.len() == MAX_PROCESSES {
            break;
        }
    }
    let numbers: BTreeMap<_, _> = all.iter().map(|(&n, (info, _))| (n, info.pid)).collect();
    let parents = all.into_values().map(|(info, parent)| ProcessInfo {
        parent: numbers.get(&parent).copied().unwrap_or_default(),
        ..info
    });
    let mut list: Vec<_> = parents.collect();
    list.sort_by_key(|info| info.pid);
    list
}

/// The numbers of all processes but this one.
fn others(proc: &Path) -> impl Iterator<Item = u32> {
    let number = |name: &OsStr| name.to_str()?.parse().ok();
    // In the container's PID namespace, this one has another number than here.
    let link = fs::read_link(proc.join("self")).ok();
    let own: Option<u32> = link.and_then(|link| number(link.as_os_str()));
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(move |entry| number(&entry.file_name()))
        .filter(move |number| own != Some(*number))
}

/// The number in the container of a process.
pub(super) fn number(pid: pid_t) -> Option<u32> {
    let path = format!("/proc/{pid}/status");
    Some(parse(&read(Path::new(&path), MAX_STATUS))?.pid)
}

/// None for a process that is not the container's: it has one number only.
fn parse(text: &[u8]) -> Option<Status<'_>> {
    let line = |name: &[u8]| {
        let mut lines = text.split(|&byte| byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(b":\t"))?;
        // The kernel shows what is no text in a name as it is.
        Some(value)
    };
    let field = |name: &[u8], index| -> Option<u32> {
        let value = str::from_utf8(line(name)?).ok()?;
        value.split('\t').nth(index)?.trim().parse().ok()
    };
    Some(Status {
        // What it was given is not always text.
        name: str::from_utf8(line(b"Name")?).unwrap_or("?"),
        parent: field(b"PPid", 0)?,
        // Real, then effective.
        uid: field(b"Uid", 1)?,
        gid: field(b"Gid", 1)?,
        // In the agent's PID namespace, then in the container's.
        pid: field(b"NSpid", 1)?,
    })
}

fn arguments(process: &Path, room: &mut usize) -> Vec<String> {
    let text = read(&process.join("cmdline"), MAX_ARGS);
    let text = String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(&text));
    if text.is_empty() || text.len() > *room {
        return Vec::new();
    }
    *room -= text.len();
    text.split('\0').map(str::to_owned).collect()
}

fn read(path: &Path, max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The process may have ended.
    if let Ok(file) = File::open(path) {
        let _ = file.take(max).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::exec::FromAgent;

    fn status(name: &str, parent: u32, numbers: &str) -> String {
        format!(
            "Name:\t{name}\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t{parent}\n\
             TracerPid:\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t1 2 \nNSpid:\t{numbers}\n"
        )
    }

    /// A /proc with these processes: number, status, arguments.
    fn proc(processes: &[(u32, String, Vec<u8>)]) -> Folder {
        let folder = Folder::new();
        for (number, status, args) in processes {
            let path = folder.0.join(number.to_string());
            fs::create_dir(&path).unwrap();
            fs::write(path.join("status"), status).unwrap();
            fs::write(path.join("cmdline"), args).unwrap();
        }
        folder
    }

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new() -> Self {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("runq-processes-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_the_containers_are_told_with_their_numbers_there() {
        let proc = proc(&[
            (1, status("init", 0, "1"), b"/init\0".to_vec()),
            (50, status("sh", 1, "50\t1"), b"sh\0-c\0\0x\0".to_vec()),
            (70, status("inner", 50, "70\t9\t1"), b"".to_vec()),
            (60, status("exec", 1, "60\t11"), b"a\xff".to_vec()),
            (80, status("init", 1, "80\t12"), b"/init\0".to_vec()),
        ]);
        fs::create_dir(proc.0.join("sys")).unwrap();
        std::os::unix::fs::symlink("80", proc.0.join("self")).unwrap();
        let told: Vec<_> = list(&proc.0)
            .into_iter()
            .map(|info| {
                assert_eq!((info.uid, info.gid), (2, 6));
                (info.pid, info.parent, info.name, info.args)
            })
            .collect();
        let strings = |args: &[&str]| args.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = [
            (1, 0, "sh".to_owned(), strings(&["sh", "-c", "", "x"])),
            (9, 1, "inner".to_owned(), strings(&[])),
            (11, 0, "exec".to_owned(), strings(&["a\u{fffd}"])),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_longest_list_is_a_message() {
        let processes: Vec<_> = (2..MAX_PROCESSES as u32 + 100)
            .map(|number| {
                let status = status("\u{ff}xxxxxxxxxxxxxxx", 1, &format!("{number}\t{number}"));
                (number, status, vec![0xff; 5000])
            })
            .collect();
        let told = list(&proc(&processes).0);
        assert_eq!(told.len(), MAX_PROCESSES);
        assert!(told.iter().any(|info| !info.args.is_empty()));
        proto::encode(&FromAgent::Processes(told)).unwrap();
    }

    proptest! {
        #[test]
        fn any_name_leaves_the_rest(name in "[^\n]{0,20}") {
            let text = status(&name, 3, "8\t4");
            let expected = Status { name: &name, parent: 3, uid: 2, gid: 6, pid: 4 };
            prop_assert_eq!(parse(text.as_bytes()), Some(expected));
        }

        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(status) = parse(&text) {
                prop_assert!(text.windows(5).any(|part| part == b"NSpid"), "{:?}", status);
            }
        }
    }
}
