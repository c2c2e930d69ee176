//! A process that goes on when its parent ends.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::path::Path;
use std::process::exit;

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal, setsid};

/// What the child tells when it goes on.
const GOES_ON: &[u8] = b"+";

/// Longest error that the parent passes on, in bytes.
const MAX_ERROR: u64 = 16 << 10;

/// The child's word to its parent.
pub struct Parent(PipeWriter);

impl Parent {
    /// Lets the parent go: it says that all is well.
    ///
    /// # Errors
    /// When it is gone: nobody knows of this process.
    pub fn release(mut self) -> Result<()> {
        set_parent_process_death_signal(None)?;
        self.0
            .write_all(GOES_ON)
            .context("the parent does not wait")
    }
}

/// Runs `child` in a process and session of its own. It ends with the code that `child` gives, and
/// until it says that it goes on, with its parent. To be called before there is another thread.
///
/// # Errors
/// What `child` fails with, before it goes on.
pub fn detach(child: impl FnOnce(&mut Option<Parent>) -> Result<u8>) -> Result<i32> {
    let (told, tell) = pipe().context("pipe")?;
    match system::fork().context("fork")? {
        0 => {
            drop(told);
            exit(run(tell, child).into())
        }
        pid => {
            drop(tell);
            listen(told)?;
            Ok(pid)
        }
    }
}

fn run(tell: PipeWriter, child: impl FnOnce(&mut Option<Parent>) -> Result<u8>) -> u8 {
    let mut parent = Some(Parent(tell));
    let result = set_parent_process_death_signal(Some(Signal::KILL))
        .context("end with the parent")
        .and_then(|()| setsid().context("leave the session"))
        .and_then(|_| child(&mut parent));
    result.unwrap_or_else(|error| {
        if let Some(Parent(mut tell)) = parent {
            // A parent that is gone has nobody to tell either.
            let _ = tell.write_all(format!("{error:#}").as_bytes());
        }
        1
    })
}

fn listen(told: PipeReader) -> Result<()> {
    let mut text = Vec::new();
    told.take(MAX_ERROR).read_to_end(&mut text)?;
    match &text[..] {
        GOES_ON => Ok(()),
        [] => bail!("the process that carries the command's bytes has ended"),
        error => bail!("{}", String::from_utf8_lossy(error)),
    }
}

/// Writes a process number to a file that is there completely, or not at all.
///
/// # Errors
/// Names the file.
pub fn write_pid(file: &Path, pid: i32) -> Result<()> {
    let name = file
        .file_name()
        .with_context(|| format!("--pid-file {file:?}: not a file"))?;
    // As runc calls it.
    let next = file.with_file_name(format!(".{}", name.display()));
    fs::write(&next, pid.to_string())
        .and_then(|()| fs::rename(&next, file))
        .with_context(|| format!("--pid-file {}", file.display()))
}

#[allow(unsafe_code)] // A system call that has no safe form.
mod system {
    use std::io;

    /// 0 in the child, the child's number in its parent.
    pub(super) fn fork() -> io::Result<i32> {
        // SAFETY: the process has no other thread yet, which could hold a lock that the child needs.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_listens_to_its_child() {
        let said = |text: &[u8]| {
            let (told, mut tell) = pipe().unwrap();
            tell.write_all(text).unwrap();
            drop(tell);
            listen(told).map_err(|error| error.to_string())
        };
        assert_eq!(said(GOES_ON), Ok(()));
        assert_eq!(said(b"no such thing"), Err("no such thing".into()));
        assert!(said(b"").unwrap_err().ends_with("has ended"));
    }

    #[test]
    fn a_file_with_the_process_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pid");
        write_pid(&file, 4711).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "4711");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = write_pid(&folder.path().join("no/x.pid"), 1).unwrap_err();
        assert!(error.to_string().starts_with("--pid-file "), "{error}");
        assert!(write_pid(Path::new("/"), 1).is_err());
    }
}
