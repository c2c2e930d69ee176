//! The file system itself: the virtiofsd library, configured for containers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::{
    CachePolicy, Config as PassthroughConfig, InodeFileHandlesMode, NegotiationMode, PassthroughFs,
};
use virtiofsd::server::Server;

use super::Config;
use super::checked::Checked;
use super::confinement::{Outside, confine};
use super::locks::{self, Answer, Locks};
use super::sink::{HEADER, Sink};
use super::threads::Serve;
use crate::device::DeviceError;
use crate::queue::Chain;

/// How long the guest may believe names and attributes that it has seen. One second, as NFS and
/// SSHFS users are used to: what changes on the host is seen in the guest soon after, while the
/// dozens of lookups of one path by a program that starts, or a compiler, cost one request. File
/// contents are compared by modification time and size at each open (close-to-open consistency).
const VALIDITY: Duration = Duration::from_secs(1);

/// Descriptors that are not for the guest's files: the monitor's own.
const RESERVED_FDS: u64 = 256;

/// One shared directory with the state of the guest's session.
pub(super) struct Share {
    server: AnyServer,
    locks: Arc<Locks>,
    sink: Sink,
}

enum AnyServer {
    Writable(Server<Checked<PassthroughFs>>, Arc<PassthroughFs>),
    ReadOnly(Server<Checked<PassthroughFsRo>>, Arc<PassthroughFsRo>),
}

impl Share {
    /// Shares the directory from this thread, which can reach nothing else afterwards.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let name = |source: io::Error| {
            let directory = config.directory.display();
            io::Error::new(
                source.kind(),
                format!("share directory {directory}: {source}"),
            )
        };
        let outside = confine(&config.directory).map_err(name)?;
        let (open_files, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let descriptors = outside.descriptors.try_clone()?;
        let locks = Arc::new(Locks::new(&config.tag, descriptors, open_files)?);
        let passthrough = configuration(outside, open_files);
        let server = if config.read_only {
            let fs = Arc::new(PassthroughFsRo::new(passthrough).map_err(name)?);
            let checked = Checked(Arc::clone(&fs), Arc::clone(&locks));
            AnyServer::ReadOnly(Server::new(checked), fs)
        } else {
            let fs = Arc::new(PassthroughFs::new(passthrough).map_err(name)?);
            let checked = Checked(Arc::clone(&fs), Arc::clone(&locks));
            AnyServer::Writable(Server::new(checked), fs)
        };
        let sink = Sink::new()?;
        Ok(Self {
            server,
            locks,
            sink,
        })
    }

    /// Asks the library to execute the request in `chain`, and returns the length of the answer.
    fn ask_library(&self, chain: Chain) -> Result<u32, DeviceError> {
        let driver = |error: &dyn std::fmt::Display| DeviceError::Driver(error.to_string());
        let memory = chain.clone();
        let memory = memory.memory();
        let reader = Reader::new(memory, chain.clone()).map_err(|e| driver(&e))?;
        let mut writer = Writer::new(memory, chain).map_err(|e| driver(&e))?;
        let has_room = writer.available_bytes() >= HEADER;
        if !has_room {
            // As it should be for a FORGET, which is not answered.
            writer = self.sink.writer().map_err(|e| driver(&e))?;
        }
        let length = match &self.server {
            AnyServer::Writable(server, _) => server.handle_message::<()>(reader, writer, None),
            AnyServer::ReadOnly(server, _) => server.handle_message::<()>(reader, writer, None),
        };
        let length = length.map_err(|e| driver(&e))?;
        if length > 0 && !has_room {
            return Err(driver(&"a request has no room for its answer"));
        }
        u32::try_from(length).map_err(|e| driver(&e))
    }

    /// Closes all that the guest has open.
    pub(super) fn forget(&self) {
        self.locks.clear();
        match &self.server {
            AnyServer::Writable(server, _) => server.destroy(),
            AnyServer::ReadOnly(server, _) => server.destroy(),
        };
    }
}

impl Serve for Share {
    fn handle(&self, chain: Chain) -> Result<Answer, DeviceError> {
        let answer = match &self.server {
            AnyServer::Writable(_, fs) => self.locks.handle(&chain, &**fs)?,
            AnyServer::ReadOnly(_, fs) => self.locks.handle(&chain, &**fs)?,
        };
        match answer {
            Some(answer) => Ok(answer),
            None => self.ask_library(chain).map(Answer::Length),
        }
    }

    fn end(&self) {
        self.locks.end();
    }
}

fn configuration(outside: Outside, open_files: u64) -> PassthroughConfig {
    PassthroughConfig {
        root_dir: "/".to_owned(),
        proc_sfd_rawfd: Some(outside.descriptors),
        proc_mountinfo_rawfd: Some(outside.mounts),
        mountinfo_prefix: Some(outside.path),
        entry_timeout: VALIDITY,
        attr_timeout: VALIDITY,
        cache_policy: CachePolicy::Auto,
        // Host processes see what the guest writes when it has written it.
        writeback: false,
        xattr: true,
        posix_acl: NegotiationMode::Auto,
        killpriv_v2: true,
        announce_submounts: true,
        // A descriptor for each file that the guest knows: who may open files by their handles may open
        // any file of the file system, beside the share, too.
        inode_file_handles: InodeFileHandlesMode::Never,
        readdirplus: true,
        allow_direct_io: true,
        guest_fd_limit: open_files
            .saturating_sub(RESERVED_FDS)
            .saturating_sub(locks::descriptors(open_files)),
        ..PassthroughConfig::default()
    }
}

/// Lets this process open as many files as it may. Shared directories need up to two descriptors
/// for each file that the guest has open. Before devices are built; any thread.
///
/// # Errors
/// When the limit cannot be changed.
pub fn raise_open_files_limit() -> io::Result<u64> {
    virtiofsd::limits::setup_rlimit_nofile(None).map_err(io::Error::other)
}
