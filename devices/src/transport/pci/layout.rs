//! Where the structures of a function are in its BAR 0.

use std::ops::Range;

/// Size and alignment of the BAR, bytes.
pub(super) const BAR_SIZE: u64 = 0x4000;

/// Common configuration up to queue_device; later fields belong to features that are not offered.
pub(super) const COMMON: Range<u64> = 0..0x38;
pub(super) const ISR: Range<u64> = 0x100..0x101;
pub(super) const DEVICE: Range<u64> = 0x200..0x1000;
/// MSI-X table and pending bits.
pub(super) const TABLE: Range<u64> = 0x1000..0x2000;
pub(super) const PENDING: Range<u64> = 0x2000..0x2020;
pub(super) const NOTIFY: Range<u64> = 0x3000..BAR_SIZE;

/// Bytes between the notification addresses of two queues (section 4.1.4.4).
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;
