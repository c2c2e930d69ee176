//! Requests about watches, which only our guest's kernel sends (kernel-config/patches, fuse-watches), and the
//! events that answer them.

use nix::sys::inotify::AddWatchFlags;
use virtiofsd::descriptor_utils::Reader;
use virtiofsd::fuse::InHeader;

use crate::dev::share::answer::driver;
use crate::device::DeviceError;
use crate::queue::Chain;

/// Above all opcodes of FUSE.
pub(super) const WATCH: u32 = 8193;
pub(super) const EVENTS: u32 = 8194;

/// What the guest can ask for: what others do to its files when they change them.
pub(super) const CHANGES: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// A request, read once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// By which the guest knows it.
    pub(super) unique: u64,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Tell of these from now on, and of no others that happen to the node.
    Watch { node: u64, mask: AddWatchFlags },
    /// What has happened?
    Events,
}

impl Request {
    /// The request in `chain`; `None` if it is another one.
    ///
    /// # Errors
    /// When there is less of it than it should have.
    pub(super) fn read(chain: &Chain) -> Result<Option<Self>, DeviceError> {
        let mut reader = Reader::new(chain.memory(), chain.clone()).map_err(|e| driver(&e))?;
        let Ok(header) = reader.read_obj::<InHeader>() else {
            return Ok(None);
        };
        let what = match header.opcode {
            WATCH => {
                // `struct fuse_watch_in`: the mask, and padding.
                let [mask, _] = reader.read_obj::<[u32; 2]>().map_err(|e| driver(&e))?;
                What::Watch {
                    node: header.nodeid,
                    mask: AddWatchFlags::from_bits_retain(mask) & CHANGES,
                }
            }
            EVENTS => What::Events,
            _ => return Ok(None),
        };
        let unique = header.unique;
        Ok(Some(Self { unique, what }))
    }
}

/// What has happened to a node, or to one of the names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) node: u64,
    pub(super) mask: AddWatchFlags,
    /// The same for both sides of a move.
    pub(super) cookie: u32,
    /// Empty if it is the node itself.
    pub(super) name: Vec<u8>,
}

impl Event {
    /// What [`Self::write`] adds.
    pub(super) fn size(&self) -> usize {
        24 + self.name.len().next_multiple_of(8)
    }

    /// Adds it as the guest expects it (`struct fuse_event`).
    pub(super) fn write(&self, answer: &mut Vec<u8>) {
        let end = answer.len() + self.size();
        answer.extend(self.node.to_ne_bytes());
        // A name has 255 bytes at most.
        let words = [self.mask.bits(), self.cookie, self.name.len() as u32, 0];
        answer.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        answer.extend(&self.name);
        answer.resize(end, 0);
    }
}
