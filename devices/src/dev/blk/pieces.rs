//! The memory of one transfer, as system calls and io_uring take it.

// Guest memory is reached through pointers only: no reference to it may exist, as the guest
// changes it at any time.
#![allow(unsafe_code)]

use std::sync::Arc;

use vm_memory::Bytes;

use crate::Memory;
use crate::queue::buffers::Slice;

/// What zeroes are written from, where the file system has no quicker way. Aligned for O_DIRECT.
static ZEROES: Page = Page([0; ZEROES_LENGTH]);
const ZEROES_LENGTH: usize = 1 << 16;
/// How often it is written in one call.
const MAX_ZEROES: u64 = 16 * ZEROES_LENGTH as u64;

#[repr(align(4096))]
struct Page([u8; ZEROES_LENGTH]);

/// How much of a transfer [`Pieces::with_own_start`] copies: as much as O_DIRECT takes everywhere.
const START_LENGTH: usize = 4096;

#[repr(align(4096))]
struct Start([u8; START_LENGTH]);

/// Pieces of memory that stay where they are, until they are dropped or used up from the front.
pub(super) struct Pieces {
    vectors: Vec<libc::iovec>,
    /// How many are used up.
    used: usize,
    /// A copy of the first bytes, which the guest cannot change.
    start: Option<Box<Start>>,
    /// Keeps the memory mapped.
    _memory: Option<Arc<Memory>>,
}

// SAFETY: the pointers are not tied to a thread: they are to guest memory, which is mapped as long
// as `_memory` is there, to `start`, which moves with them, or to a static.
unsafe impl Send for Pieces {}

impl Pieces {
    /// No memory, for calls that move nothing.
    pub(super) fn none() -> Self {
        Self {
            vectors: Vec::new(),
            used: 0,
            start: None,
            _memory: None,
        }
    }

    /// `slices`, which are of `memory`.
    pub(super) fn new(slices: &[Slice<'_>], memory: &Arc<Memory>) -> Self {
        let vectors = slices.iter().map(|slice| libc::iovec {
            // Guest memory is mapped as long as `memory` lives, so the guard has nothing to hold.
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        });
        Self {
            vectors: vectors.collect(),
            used: 0,
            start: None,
            _memory: Some(Arc::clone(memory)),
        }
    }

    /// The same, but with the first bytes as they are now: what [`Self::start`] shows is written.
    pub(super) fn with_own_start(slices: &[Slice<'_>], memory: &Arc<Memory>) -> Self {
        let mut start = Box::new(Start([0; START_LENGTH]));
        let mut copied = 0;
        for slice in slices {
            let room = start.0.get_mut(copied..).unwrap_or_default();
            // It fails only if there is no room, or nothing.
            copied += slice.read(room, 0).unwrap_or_default();
        }
        let mut pieces = Self::new(slices, memory);
        pieces.advance(copied);
        pieces.vectors.drain(..pieces.used);
        pieces.used = 0;
        let own = libc::iovec {
            iov_base: start.0.as_mut_ptr().cast(),
            iov_len: copied,
        };
        pieces.vectors.insert(0, own);
        pieces.start = Some(start);
        pieces
    }

    /// The first bytes, if they are our own.
    pub(super) fn start(&self) -> &[u8] {
        self.start.as_ref().map_or(&[], |start| &start.0)
    }

    /// At most the first `length` of that many zero bytes, to be written.
    pub(super) fn zeroes(length: u64) -> Self {
        let mut left = length.min(MAX_ZEROES) as usize;
        let mut vectors = Vec::new();
        while left > 0 {
            let iov_len = left.min(ZEROES_LENGTH);
            vectors.push(libc::iovec {
                iov_base: (&raw const ZEROES.0).cast_mut().cast(),
                iov_len,
            });
            left -= iov_len;
        }
        Self {
            vectors,
            used: 0,
            start: None,
            _memory: None,
        }
    }

    /// Zero bytes, for who copies them.
    pub(super) fn zero_bytes() -> &'static [u8] {
        &ZEROES.0
    }

    /// What is left, for one call; it stays at its address until the next [`Self::advance`].
    pub(super) fn left(&self) -> &[libc::iovec] {
        self.vectors.get(self.used..).unwrap_or_default()
    }

    /// How many bytes are left.
    pub(super) fn length(&self) -> usize {
        self.left().iter().map(|piece| piece.iov_len).sum()
    }

    /// Leaves out the next `count` bytes.
    pub(super) fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.vectors.get_mut(self.used) {
            let step = count.min(first.iov_len);
            // Within the piece, or at its end.
            first.iov_base = first.iov_base.wrapping_byte_add(step);
            first.iov_len -= step;
            count -= step;
            if first.iov_len > 0 {
                return;
            }
            self.used += 1;
        }
    }
}
