//! A bound on how many do something at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many places are free.
pub(super) struct Room(Arc<AtomicUsize>);

/// A place that is taken; dropped, it is free.
pub(super) struct Place(Arc<AtomicUsize>);

impl Room {
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(places)))
    }

    /// Takes a place, if one is free.
    pub(super) fn enter(&self) -> Option<Place> {
        // The number is all that is shared.
        let one_less = |free: usize| free.checked_sub(1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .ok()
            .map(|_| Place(Arc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_left_is_free() {
        let room = Room::new(2);
        let places = [room.enter(), room.enter()];
        assert!(places.iter().all(Option::is_some) && room.enter().is_none());
        drop(places);
        assert!(room.enter().is_some());
    }
}
