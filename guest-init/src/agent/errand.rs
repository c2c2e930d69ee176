//! What may take any time, in a child: the agent only waits for its clients. The child ends with the client
//! that wants to know.
//!
//! Who reads a process's arguments takes the lock of its memory (mmap_lock of the kernel), which the
//! process may keep busy, and there may be thousands. Who lowers the limit of a group's memory waits until the kernel has
//! taken from it what is above.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::unistd::pipe2;
use proto::exec::FromAgent;
use proto::{Decoder, MAX_FRAME};

use super::child::Child;
use super::processes;
use super::streams::non_blocking;
use crate::failure::Failure;
use crate::{cgroup, syscalls};

/// Most bytes that a child may tell: a frame.
const MAX: usize = MAX_FRAME + size_of::<u32>();

/// What a child does, and tells in one message.
pub(super) struct Errand {
    pub(super) pipe: File,
    bytes: Vec<u8>,
}

impl Errand {
    /// Starts a child that does this.
    pub(super) fn start(work: impl FnOnce() -> FromAgent) -> Result<(Self, Child)> {
        let (result, report) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let pipe = non_blocking(result)?;
        let Some(pid) = syscalls::fork().context("fork (the container may have ended)")? else {
            let told = run(work, report.into());
            std::process::exit(i32::from(told.is_err()));
        };
        let errand = Self {
            pipe,
            bytes: Vec::new(),
        };
        Ok((errand, Child::new(pid)?))
    }

    /// The answer, once the child has told all of it.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn hear(&mut self) -> Result<Option<FromAgent>> {
        // One more shows that there are too many.
        let room = (MAX + 1).saturating_sub(self.bytes.len()) as u64;
        match (&self.pipe).take(room).read_to_end(&mut self.bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(anyhow!(error).context("hear of a child")),
            Ok(_) => {}
        }
        let mut decoder = Decoder::new();
        decoder.push(&self.bytes);
        match decoder.next() {
            Ok(Some(
                answer @ (FromAgent::Processes(_) | FromAgent::Limited | FromAgent::Failed { .. }),
            )) if decoder.is_empty() => Ok(Some(answer)),
            _ => bail!("the answer is not complete"),
        }
    }
}

/// In the child.
fn run(work: impl FnOnce() -> FromAgent, mut report: File) -> Result<()> {
    SigSet::empty().thread_set_mask()?;
    let frame = proto::encode(&work())?;
    Ok(report.write_all(&frame)?)
}

/// In the child: which processes there are, except itself.
pub(super) fn list() -> FromAgent {
    FromAgent::Processes(processes::list(Path::new("/proc")))
}

/// In the child: sets limits of the container.
pub(super) fn limit(limits: &[(String, String)]) -> FromAgent {
    match cgroup::set(limits).map_err(Failure::from) {
        Ok(()) => FromAgent::Limited,
        Err(Failure { code, message }) => FromAgent::Failed { code, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a listing hears of these bytes, and of an end behind them.
    fn heard(bytes: &[u8]) -> Result<Option<FromAgent>> {
        let (result, report) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut errand = Errand {
            pipe: non_blocking(result).unwrap(),
            bytes: Vec::new(),
        };
        let mut report = File::from(report);
        for part in bytes.chunks(4096) {
            // A reader that has enough has closed nothing, but takes no more.
            report.write_all(part).unwrap();
            if let Some(answer) = errand.hear()? {
                return Ok(Some(answer));
            }
        }
        drop(report);
        errand.hear()
    }

    #[test]
    fn only_a_whole_message_is_an_answer() {
        let list = FromAgent::Processes(Vec::new());
        let frame = proto::encode(&list).unwrap();
        assert_eq!(heard(&frame).unwrap(), Some(list));
        let limited = proto::encode(&FromAgent::Limited).unwrap();
        assert_eq!(heard(&limited).unwrap(), Some(FromAgent::Limited));
        let other = proto::encode(&FromAgent::Taken(1)).unwrap();
        let twice = [&frame[..], &frame].concat();
        for wrong in [&b""[..], &frame[..4], &other, &twice, &vec![0xff; MAX * 2]] {
            assert!(heard(wrong).is_err());
        }
    }
}
