//! What is watched on the host, by inotify(7).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::unistd::fchdir;

use super::request::{CHANGES, Event};

/// More are refused. The host has limits of its own, for all containers.
const MAX_WATCHES: usize = 1 << 14;

pub(super) struct Watched {
    inotify: Inotify,
    /// Two nodes may be one file.
    nodes: HashMap<WatchDescriptor, Vec<u64>>,
    watches: HashMap<u64, Watch>,
}

#[derive(Clone, Copy)]
struct Watch {
    descriptor: WatchDescriptor,
    /// What the guest asked for. The host may tell of more.
    mask: AddWatchFlags,
}

impl Watched {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        Ok(Self {
            inotify: Inotify::init(flags)?,
            nodes: HashMap::new(),
            watches: HashMap::new(),
        })
    }

    pub(super) fn inotify(&self) -> &Inotify {
        &self.inotify
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    pub(super) fn has(&self, node: u64) -> bool {
        self.watches.contains_key(&node)
    }

    /// What the guest wants to know of a node.
    pub(super) fn mask(&self, node: u64) -> AddWatchFlags {
        let watch = self.watches.get(&node);
        watch.map_or(AddWatchFlags::empty(), |watch| watch.mask)
    }

    /// Watches a node, whose file is `file`, for these events, and no others. `descriptors` is /proc/self/fd,
    /// and `root` where this thread comes back to from there.
    pub(super) fn watch(
        &mut self,
        node: u64,
        file: &File,
        mask: AddWatchFlags,
        (descriptors, root): (&File, &File),
    ) -> Result<(), Errno> {
        if !self.has(node) && self.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        // inotify_add_watch(2) takes a path only, and this thread has no other to a descriptor.
        fchdir(descriptors)?;
        let name = file.as_raw_fd().to_string();
        // Which may be watched as another node. An end is seen by its attributes.
        let mut wanted = mask | AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);
        if mask.contains(AddWatchFlags::IN_DELETE_SELF) {
            wanted |= AddWatchFlags::IN_ATTRIB;
        }
        let added = self.inotify.add_watch(&*name, wanted);
        fchdir(root)?;
        let descriptor = added?;
        let nodes = self.nodes.entry(descriptor).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
        self.watches.insert(node, Watch { descriptor, mask });
        Ok(())
    }

    pub(super) fn forget(&mut self, node: u64) {
        let Some(watch) = self.watches.remove(&node) else {
            return;
        };
        let Some(nodes) = self.nodes.get_mut(&watch.descriptor) else {
            return;
        };
        nodes.retain(|&other| other != node);
        if nodes.is_empty() {
            self.nodes.remove(&watch.descriptor);
            // Fails if the file is gone.
            let _ = self.inotify.rm_watch(watch.descriptor);
        }
    }

    /// What has happened since; `None` when that is all. Whether some were lost.
    pub(super) fn events(&mut self) -> Option<(Vec<Event>, bool)> {
        let mut lost = false;
        let mut events = Vec::new();
        for event in self.inotify.read_events().ok()? {
            lost |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                for node in self.nodes.remove(&event.wd).into_iter().flatten() {
                    self.watches.remove(&node);
                }
            }
            let mask = event.mask & (CHANGES | AddWatchFlags::IN_ISDIR);
            if !mask.intersects(CHANGES) {
                continue;
            }
            let name = event.name.unwrap_or_default();
            for &node in self.nodes.get(&event.wd).into_iter().flatten() {
                events.push(Event {
                    node,
                    mask,
                    cookie: event.cookie,
                    name: name.as_encoded_bytes().to_vec(),
                });
            }
        }
        Some((events, lost))
    }
}
