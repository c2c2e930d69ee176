//! What the guest itself is changing. It knows of that, and is told only what others do.
//!
//! Events do not say who caused them. But a change of the guest's is a request, and its events come
//! while that is executed: events that it would cause, on what it is about, are taken for its. If another one does the same to
//! the same at that moment, the guest's programs still hear of it by their kernel, when the request is over.

use std::ffi::CStr;

use nix::sys::inotify::AddWatchFlags;

use super::request::Event;
use crate::dev::share::nodes::Nodes;

/// A request of the guest's that changes something.
#[derive(Debug)]
pub(in crate::dev::share) struct Change {
    kinds: AddWatchFlags,
    nodes: Vec<u64>,
    names: Vec<(u64, Vec<u8>)>,
}

impl Change {
    fn new(kinds: AddWatchFlags) -> Self {
        let (nodes, names) = Default::default();
        Self {
            kinds,
            nodes,
            names,
        }
    }

    /// Of a file's data, which may clear its set-user-id bit.
    pub(in crate::dev::share) fn of_data(node: u64) -> Self {
        let mut change = Self::new(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB);
        change.nodes.push(node);
        change
    }

    /// An open file ends.
    pub(in crate::dev::share) fn of_opened(node: u64) -> Self {
        let mut change = Self::new(AddWatchFlags::IN_CLOSE_WRITE);
        change.nodes.push(node);
        change
    }

    /// A name is made, for a file that there may have been.
    pub(in crate::dev::share) fn of_new_name(directory: u64, name: &CStr) -> Self {
        let kinds = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MODIFY;
        let mut change = Self::new(kinds);
        change.names.push((directory, name.to_bytes().to_vec()));
        change
    }

    pub(in crate::dev::share) fn of_link(node: u64, directory: u64, name: &CStr) -> Self {
        let mut change = Self::of_new_name(directory, name);
        change.nodes.push(node);
        change
    }

    /// A name goes, and maybe what had it.
    pub(in crate::dev::share) fn of_old_name(
        nodes: &impl Nodes,
        directory: u64,
        name: &CStr,
    ) -> Self {
        let kinds =
            AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_ATTRIB;
        let mut change = Self::new(kinds);
        change.add_name(nodes, directory, name);
        change
    }

    /// Names move, or change places.
    pub(in crate::dev::share) fn of_move(
        nodes: &impl Nodes,
        (old_directory, old_name): (u64, &CStr),
        (new_directory, new_name): (u64, &CStr),
    ) -> Self {
        let kinds = AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CREATE;
        let mut change = Self::new(kinds);
        change.add_name(nodes, old_directory, old_name);
        change.add_name(nodes, new_directory, new_name);
        change
    }

    fn add_name(&mut self, nodes: &impl Nodes, directory: u64, name: &CStr) {
        let name = name.to_bytes().to_vec();
        self.nodes.extend(nodes.child(directory, &name));
        self.names.push((directory, name));
    }

    fn causes(&self, event: &Event, nodes: &impl Nodes) -> bool {
        if !event.mask.intersects(self.kinds) {
            return false;
        }
        if event.name.is_empty() {
            return self.nodes.contains(&event.node);
        }
        let is_event =
            |(directory, name): &(u64, Vec<u8>)| *directory == event.node && *name == event.name;
        // What is written through a descriptor has a name, too.
        self.names.iter().any(is_event)
            || (!self.nodes.is_empty()
                && nodes
                    .child(event.node, &event.name)
                    .is_some_and(|child| self.nodes.contains(&child)))
    }
}

/// Those that are being executed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    next: u64,
    under_way: Vec<(u64, Change)>,
}

impl Changes {
    /// One more, by its number.
    pub(super) fn begin(&mut self, change: Change) -> u64 {
        let number = self.next;
        self.next += 1;
        self.under_way.push((number, change));
        number
    }

    pub(super) fn end(&mut self, number: u64) {
        self.under_way.retain(|(begun, _)| *begun != number);
    }

    /// Whether one of them has caused `event`.
    pub(super) fn cause(&self, event: &Event, nodes: &impl Nodes) -> bool {
        let mut changes = self.under_way.iter();
        changes.any(|(_, change)| change.causes(event, nodes))
    }
}
