//! Which file a command's name means.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat};

use crate::failure::Failure;

/// Where commands are searched if the environment has no PATH: Docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The executable file of a command, with the rights and from the folder that it will run with.
///
/// As in Docker, a file in the PATH that cannot be executed is passed over, so that the command is
/// not found (127); a path with a slash is told apart (126).
pub(crate) fn executable(name: &str, env: &[String]) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match check(&path) {
            Ok(()) => Ok(path),
            Err(errno) => Err(Failure::of_command(name, errno)),
        };
    }
    let path = variable("PATH", env).unwrap_or(DEFAULT_PATH);
    candidates(name, path)
        .find(|candidate| check(candidate).is_ok())
        .ok_or_else(|| Failure {
            code: 127,
            message: format!("{name:?}: executable file not found in the PATH {path}"),
        })
}

/// The value of a variable; the last one counts.
pub(crate) fn variable<'a>(name: &str, env: &'a [String]) -> Option<&'a str> {
    env.iter()
        .rev()
        .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// The files that a name without a slash may mean; an empty part of the path is the working folder.
fn candidates(name: &str, path: &str) -> impl Iterator<Item = PathBuf> {
    path.split(':')
        .filter(move |_| !name.is_empty())
        .map(move |folder| match folder {
            "" => Path::new(".").join(name),
            folder => Path::new(folder).join(name),
        })
}

/// Whether this process may execute the file.
fn check(path: &Path) -> Result<(), Errno> {
    if fs::metadata(path).map_err(errno)?.is_dir() {
        return Err(Errno::EISDIR);
    }
    faccessat(
        nix::fcntl::AT_FDCWD,
        path,
        AccessFlags::X_OK,
        AtFlags::AT_EACCESS,
    )
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(entries: &[&str]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_of_two_variables_counts() {
        let env = env(&["PATH=/a", "PATHS=/x", "PATH=/b=c", "HOME"]);
        assert_eq!(variable("PATH", &env), Some("/b=c"));
        assert_eq!(variable("HOME", &env), None);
        assert_eq!(variable("NONE", &env), None);
    }

    #[test]
    fn the_path_is_searched_in_order() {
        let all: Vec<_> = candidates("ls", "/x/bin::bin").collect();
        assert_eq!(all, ["/x/bin/ls", "./ls", "bin/ls"].map(PathBuf::from));
        assert_eq!(candidates("", "/bin").count(), 0);
    }

    #[test]
    fn commands_are_found() {
        let found = |name, entries: &[&str]| executable(name, &env(entries)).unwrap();
        assert!(found("sh", &[]).ends_with("bin/sh"));
        assert_eq!(found("sh", &["PATH=/etc:/bin"]), Path::new("/bin/sh"));
        assert_eq!(found("/bin/sh", &["PATH="]), Path::new("/bin/sh"));
    }

    #[test]
    fn missing_and_not_executable_are_told_apart() {
        let code = |name, path: &str| {
            let failure = executable(name, &env(&[path])).unwrap_err();
            assert!(failure.message.contains(name), "{failure}");
            failure.code
        };
        assert_eq!(code("no-such-command", "PATH=/bin"), 127);
        assert_eq!(code("passwd", "PATH=/etc"), 127);
        assert_eq!(code("/etc/nothing", "PATH=/bin"), 127);
        assert_eq!(code("/etc/passwd", "PATH=/bin"), 126);
        assert_eq!(code("/etc/passwd/x", "PATH=/bin"), 126);
        assert_eq!(code("/etc", "PATH=/bin"), 126);
        assert_eq!(code("", "PATH=/bin"), 127);
    }
}
