//! Opening files by what the guest knows of them, which only our guest's kernel does (kernel-config/patches,
//! fuse-opens-are-fresh).
//!
//! The guest believes names and attributes for a while. When it opens a file by a name, it learns here whether that is another
//! file's by now, and gets the file's attributes with the answer: one request does for three.

use std::io::Read;

use nix::errno::Errno;
use virtiofsd::descriptor_utils::Reader;
use virtiofsd::filesystem::{Context, FileSystem};
use virtiofsd::fuse::{AttrOut, InHeader, OPEN_KILL_SUIDGID, OpenIn, OpenOut};
use vm_memory::ByteValued;

use super::answer::{answer, driver};
use super::nodes::{Nodes, errno};
use crate::device::DeviceError;
use crate::queue::Chain;

/// Above all opcodes of FUSE.
pub(super) const OPEN_CHECKED: u32 = 8195;

/// With NUL.
const MAX_NAME: u64 = 256;

/// A request, read once.
struct Request {
    header: InHeader,
    open: OpenIn,
    /// Where the file has to have the name; 0: anywhere.
    directory: u64,
    name: Vec<u8>,
}

impl Request {
    /// The request in `chain`; `None` if it is another one.
    fn read(chain: &Chain) -> Result<Option<Self>, DeviceError> {
        let mut reader = Reader::new(chain.memory(), chain.clone()).map_err(|e| driver(&e))?;
        let Ok(header) = reader.read_obj::<InHeader>() else {
            return Ok(None);
        };
        if header.opcode != OPEN_CHECKED {
            return Ok(None);
        }
        let open = reader.read_obj().map_err(|e| driver(&e))?;
        let directory = reader.read_obj().map_err(|e| driver(&e))?;
        let mut name = Vec::new();
        let read = reader.take(MAX_NAME).read_to_end(&mut name);
        read.map_err(|e| driver(&e))?;
        name.pop();
        Ok(Some(Self {
            header,
            open,
            directory,
            name,
        }))
    }

    /// Opens the file, and returns the body of the answer.
    fn execute(
        &self,
        files: &impl FileSystem<Inode = u64, Handle = u64>,
    ) -> Result<Vec<u8>, Errno> {
        let node = self.header.nodeid;
        if self.directory != 0 && files.child(self.directory, &self.name) != Some(node) {
            return Err(Errno::ESTALE);
        }
        let context = || Context::from(self.header);
        let OpenIn { flags, open_flags } = self.open;
        let kill_priv = open_flags & OPEN_KILL_SUIDGID != 0;
        let opened = files.open(context(), node, kill_priv, flags);
        let (handle, options) = opened.map_err(|error| errno(&error))?;
        let attributes = files.getattr(context(), node, handle);
        let (attr, valid) = attributes.map_err(|error| errno(&error))?;
        let opened = OpenOut {
            fh: handle.unwrap_or(0),
            open_flags: options.bits(),
            padding: 0,
        };
        let attributes = AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr,
        };
        Ok([opened.as_slice(), attributes.as_slice()].concat())
    }
}

/// Executes the request in `chain`, if it is such a one, and returns the length of the answer.
///
/// # Errors
/// When it is incomplete, or there is no room for its answer.
pub(super) fn handle(
    chain: &Chain,
    files: &impl FileSystem<Inode = u64, Handle = u64>,
) -> Result<Option<u32>, DeviceError> {
    let Some(request) = Request::read(chain)? else {
        return Ok(None);
    };
    let result = request.execute(files);
    let body = result.as_deref().map_err(|errno| *errno);
    answer(chain.clone(), request.header.unique, body).map(Some)
}
