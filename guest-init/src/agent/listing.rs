//! Looking at the container's processes, in a child.
//!
//! Who reads a process's arguments takes the lock of its memory (mmap_lock of the kernel), which the
//! process may keep busy: that may take any time, and there may be thousands. The agent only waits for
//! its clients, so a child looks, and ends with the client that wants to know.

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
use crate::syscalls;

/// Most bytes that a child may tell: a frame.
const MAX: usize = MAX_FRAME + size_of::<u32>();

/// A list that a child makes.
pub(super) struct Listing {
    pub(super) pipe: File,
    bytes: Vec<u8>,
}

impl Listing {
    /// Starts a child that looks.
    pub(super) fn start() -> Result<(Self, Child)> {
        let (result, report) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let pipe = non_blocking(result)?;
        let Some(pid) = syscalls::fork().context("fork (the container may have ended)")? else {
            let told = look(report.into());
            std::process::exit(i32::from(told.is_err()));
        };
        let listing = Self {
            pipe,
            bytes: Vec::new(),
        };
        Ok((listing, Child::new(pid)?))
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
            Err(error) => return Err(anyhow!(error).context("hear of the processes")),
            Ok(_) => {}
        }
        let mut decoder = Decoder::new();
        decoder.push(&self.bytes);
        match decoder.next() {
            Ok(Some(list @ FromAgent::Processes(_))) if decoder.is_empty() => Ok(Some(list)),
            _ => bail!("the list of the processes is not complete"),
        }
    }
}

/// In the child: tells which processes there are, except itself.
fn look(mut report: File) -> Result<()> {
    SigSet::empty().thread_set_mask()?;
    let list = processes::list(Path::new("/proc"));
    let frame = proto::encode(&FromAgent::Processes(list))?;
    Ok(report.write_all(&frame)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a listing hears of these bytes, and of an end behind them.
    fn heard(bytes: &[u8]) -> Result<Option<FromAgent>> {
        let (result, report) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut listing = Listing {
            pipe: non_blocking(result).unwrap(),
            bytes: Vec::new(),
        };
        let mut report = File::from(report);
        for part in bytes.chunks(4096) {
            // A reader that has enough has closed nothing, but takes no more.
            report.write_all(part).unwrap();
            if let Some(answer) = listing.hear()? {
                return Ok(Some(answer));
            }
        }
        drop(report);
        listing.hear()
    }

    #[test]
    fn only_a_whole_list_is_an_answer() {
        let list = FromAgent::Processes(Vec::new());
        let frame = proto::encode(&list).unwrap();
        assert_eq!(heard(&frame).unwrap(), Some(list));
        let other = proto::encode(&FromAgent::Taken(1)).unwrap();
        let twice = [&frame[..], &frame].concat();
        for wrong in [&b""[..], &frame[..4], &other, &twice, &vec![0xff; MAX * 2]] {
            assert!(heard(wrong).is_err());
        }
    }
}
