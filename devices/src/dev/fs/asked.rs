//! What the guest asks for, read before the library reads it. The guest may change it until then: nothing that has to
//! hold depends on it.

use virtiofsd::descriptor_utils::Reader;
use virtiofsd::fuse::{InHeader, InitInCompat, InitInExt, Opcode, ReleaseIn};

use crate::dev::share::{EVENTS, OPEN_CHECKED, Pace, WATCH};
use crate::queue::Chain;

/// Flags of our guest's kernel (kernel-config/patches), which the library does not know.
/// Of `fuse_init_in`, in `flags2`: a file is flushed once it is locked, even if the server declined to hear of it.
const FLUSH_LOCKS: u32 = 1 << (62 - 32);
/// Of `fuse_release_in`: nobody waits for the answer.
const RELEASE_LAZY: u32 = 1 << 31;

/// The beginning of a request.
pub(super) struct Asked<'a> {
    /// `None` if it is unknown.
    pub(super) opcode: Option<Opcode>,
    number: u32,
    body: Reader<'a>,
}

impl<'a> Asked<'a> {
    /// `None` if there is less than a header.
    pub(super) fn of(chain: &'a Chain) -> Option<Self> {
        let mut body = Reader::new(chain.memory(), chain.clone()).ok()?;
        let header = body.read_obj::<InHeader>().ok()?;
        Some(Self {
            opcode: Opcode::try_from(header.opcode).ok(),
            number: header.opcode,
            body,
        })
    }

    /// Whether it is for us: the library has neither locks nor watches, nor what only our guest's kernel asks.
    pub(super) fn is_ours(&self) -> bool {
        use Opcode::{Getlk, Interrupt, Setlk, Setlkw};
        matches!(self.opcode, Some(Getlk | Setlk | Setlkw | Interrupt))
            || matches!(self.number, WATCH | EVENTS | OPEN_CHECKED)
    }
}

impl Asked<'_> {
    /// When the guest has to have the answer.
    pub(super) fn pace(&mut self) -> Pace {
        match self.opcode {
            Some(Opcode::Forget | Opcode::BatchForget) => Pace::Lazy,
            Some(Opcode::Release | Opcode::Releasedir) => match self.body.read_obj::<ReleaseIn>() {
                Ok(release) if release.release_flags & RELEASE_LAZY != 0 => Pace::Lazy,
                _ => Pace::Prompt,
            },
            Some(Opcode::Setlkw) => Pace::Unbounded,
            None if self.number == EVENTS => Pace::Unbounded,
            _ => Pace::Prompt,
        }
    }

    /// Of INIT: whether the guest flushes the files that it has locked in any case. `None` for other requests.
    pub(super) fn flushes_locked(&mut self) -> Option<bool> {
        let Some(Opcode::Init) = self.opcode else {
            return None;
        };
        let flags = self.body.read_obj::<InitInCompat>();
        let more = flags.and_then(|_| self.body.read_obj::<InitInExt>());
        Some(more.is_ok_and(|more| more.flags2 & FLUSH_LOCKS != 0))
    }
}

/// Its name, as in the log.
impl std::fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.opcode, self.number) {
            (Some(opcode), _) => write!(f, "{opcode:?}"),
            (None, WATCH) => f.write_str("Watch"),
            (None, EVENTS) => f.write_str("Events"),
            (None, OPEN_CHECKED) => f.write_str("OpenChecked"),
            (None, number) => write!(f, "{number}"),
        }
    }
}
