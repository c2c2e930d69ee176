//! The file system itself: the virtiofsd library, configured for containers.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::{
    CachePolicy, Config as PassthroughConfig, InodeFileHandlesMode, NegotiationMode, PassthroughFs,
};

use super::Config;
use super::checked::Checked;
use super::confinement::{Outside, confine};
use super::locks::{self, Locks};
use super::watches::Watches;

/// How long the guest may believe names and attributes that it has seen. One second, as NFS and
/// SSHFS users are used to: what changes on the host is seen in the guest soon after, while the
/// dozens of lookups of one path by a program that starts, or a compiler, cost one request. Who opens
/// a file, gets a lock or watches sees it at once (opens.rs, locks/, watches/; close-to-open consistency).
const VALIDITY: Duration = Duration::from_secs(1);

/// Descriptors that are not for the guest's files: the monitor's own.
const RESERVED_FDS: u64 = 256;

/// The files of a share.
pub(in crate::dev) enum Files {
    /// The guest may change them.
    Writable(Checked<PassthroughFs>),
    /// It may not.
    ReadOnly(Checked<PassthroughFsRo>),
}

impl Files {
    /// Shares the directory from this thread, which can reach nothing else afterwards.
    ///
    /// # Errors
    /// When that is not possible; names the directory.
    pub(in crate::dev) fn open(config: &Config) -> io::Result<Self> {
        let open = || {
            let outside = confine(&config.directory)?;
            let (open_files, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
            let descriptors = outside.descriptors.try_clone()?;
            let locks = Locks::new(&config.tag, descriptors, open_files)?;
            let watches = Watches::new(&config.tag, outside.descriptors.try_clone()?)?;
            let passthrough = configuration(outside)?;
            Ok(if config.read_only {
                Self::ReadOnly(Checked::new(
                    PassthroughFsRo::new(passthrough)?,
                    locks,
                    watches,
                ))
            } else {
                Self::Writable(Checked::new(
                    PassthroughFs::new(passthrough)?,
                    locks,
                    watches,
                ))
            })
        };
        open().map_err(|source: io::Error| {
            let directory = config.directory.display();
            io::Error::new(
                source.kind(),
                format!("share directory {directory}: {source}"),
            )
        })
    }
}

fn configuration(outside: Outside) -> io::Result<PassthroughConfig> {
    Ok(PassthroughConfig {
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
        guest_fd_limit: open_files_limit()?,
        ..PassthroughConfig::default()
    })
}

/// How many files the guest may have open at once, or know of.
///
/// # Errors
/// When the limit cannot be asked for.
pub(in crate::dev) fn open_files_limit() -> io::Result<u64> {
    let (open_files, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let reserved = RESERVED_FDS + locks::descriptors(open_files);
    Ok(open_files.saturating_sub(reserved))
}

/// Lets this process open as many files as it may. Shared directories need up to two descriptors
/// for each file that the guest has open. Before devices are built; any thread.
///
/// # Errors
/// When the limit cannot be changed.
pub fn raise_open_files_limit() -> io::Result<u64> {
    virtiofsd::limits::setup_rlimit_nofile(None).map_err(io::Error::other)
}
