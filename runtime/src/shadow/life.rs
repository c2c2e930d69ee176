//! In a shadow: taking on its looks, giving up all else, and waiting for the end.

use std::env;
use std::ffi::CString;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::prctl::{set_dumpable, set_name, set_no_new_privs};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use proto::exec::ProcessInfo;
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::CapabilitySet;

use super::words::name;
use crate::privileges;

/// Makes a process of this program a shadow, and tells its [`Looks`]. Arguments cannot: they are the
/// guest's.
pub(super) const VARIABLE: &str = "RUNQ_SHADOW";

/// How long a shadow is there once its number is told.
const TIME: Duration = Duration::from_secs(3);

/// Who has no number that could be taken on (/proc/sys/kernel/overflowuid has the same).
const NOBODY: u32 = 65534;

/// What a shadow looks like, beside its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Looks {
    uid: u32,
    gid: u32,
    name: String,
}

impl Looks {
    pub(super) fn of(process: &ProcessInfo) -> Self {
        // To setresuid(2), the greatest number means no change.
        let known = |number| if number == u32::MAX { NOBODY } else { number };
        Self {
            uid: known(process.uid),
            gid: known(process.gid),
            name: name(process),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        Some(Self {
            uid: parts.next()?.parse().ok()?,
            gid: parts.next()?.parse().ok()?,
            name: parts.next()?.to_owned(),
        })
    }
}

impl fmt::Display for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.uid, self.gid, self.name)
    }
}

/// If this process is a shadow, its whole life. To be called first of all, as the only thread.
pub fn main() -> Option<ExitCode> {
    let text = env::var(VARIABLE).ok()?;
    Some(match Looks::parse(&text).map(live) {
        Some(Ok(())) => ExitCode::SUCCESS,
        // Nobody listens: a shadow that ends is not told.
        _ => ExitCode::FAILURE,
    })
}

/// The end of standard output says that the looks are taken on, the end of standard input that the
/// number is told.
fn live(looks: Looks) -> Result<()> {
    system::close_all_but_standard()?;
    setsid().context("leave the session")?;
    set_name(&CString::new(looks.name)?)?;
    give_up_rights(Uid::from_raw(looks.uid), Gid::from_raw(looks.gid))?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stderr(&null)?;
    dup2_stdout(&null)?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    dup2_stdin(&null)?;
    drop(null);
    sleep(TIME);
    Ok(())
}

fn give_up_rights(uid: Uid, gid: Gid) -> Result<()> {
    set_no_new_privs().context("no_new_privs")?;
    // The bounding set goes with a capability, as do user and groups.
    privileges::empty_bounding_set().context("give up all capabilities")?;
    setgroups(&[]).context("leave all groups")?;
    setresgid(gid, gid, gid).context("change the group")?;
    setresuid(uid, uid, uid).context("change the user")?;
    privileges::keep(CapabilitySet::empty()).context("give up all capabilities")?;
    // At last, because the steps before reset it. A user of the host may have the same number.
    set_dumpable(false).context("keep others out of the memory")
}

#[allow(unsafe_code)] // A system call that has no safe form.
mod system {
    use std::io;

    /// Closes what was inherited from who called the runtime.
    pub(super) fn close_all_but_standard() -> io::Result<()> {
        // SAFETY: nothing has opened a file in this process yet.
        match unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_pass_through_the_environment() {
        let looks = |uid, gid| {
            Looks::of(&ProcessInfo {
                pid: 7,
                parent: 1,
                uid,
                gid,
                name: "a name \n".into(),
                args: Vec::new(),
            })
        };
        let own = looks(3, 4);
        assert_eq!(own.to_string(), "3 4 a name ?");
        assert_eq!(Looks::parse(&own.to_string()), Some(own));
        // Not root's.
        assert_eq!(
            looks(u32::MAX, u32::MAX).to_string(),
            "65534 65534 a name ?"
        );
        for text in ["", "3", "3 4", "x 4 a", "-1 4 a"] {
            assert_eq!(Looks::parse(text), None, "{text}");
        }
    }
}
