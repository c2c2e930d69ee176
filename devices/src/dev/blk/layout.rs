//! Feature bits and the configuration space (virtio 1.3, sections 5.2.3 and 5.2.4).

use std::ops::Range;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::{Cache, Config};

/// The unit of all positions and lengths that driver and device tell each other, in bytes.
pub(super) const SECTOR: u64 = 512;

/// Of each queue: Linux has 32 requests of an fio at once in one, and a few segments for each.
pub(super) const QUEUE_SIZE: u16 = 256;

/// Whether the driver flushes.
pub(super) const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

/// Most pieces of one request: a chain as long as the queue, without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// The longest piece: what Linux moves in one system call (MAX_RW_COUNT of linux/fs.h).
const SIZE_MAX: u32 = 0x7fff_f000;

/// Most sectors of one request to discard or to write zeroes: 1 GiB. It is work of the host's file
/// system alone, unless that cannot do it: then zeroes are written, a little at a time.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// The longest configuration space: up to write_zeroes_may_unmap and what follows it.
const LENGTH: usize = 60;
/// Where the driver says whether writes are cached.
const WRITEBACK: usize = 32;

/// The byte that is the driver's.
pub(super) const WRITABLE: Range<usize> = WRITEBACK..WRITEBACK + 1;

/// What the device offers.
pub(super) fn features(config: &Config) -> u64 {
    let mut features = FLUSH
        | 1 << VIRTIO_BLK_F_SEG_MAX
        | 1 << VIRTIO_BLK_F_SIZE_MAX
        | 1 << VIRTIO_BLK_F_BLK_SIZE
        | 1 << VIRTIO_BLK_F_TOPOLOGY
        | 1 << VIRTIO_BLK_F_CONFIG_WCE;
    if config.queues > 1 {
        features |= 1 << VIRTIO_BLK_F_MQ;
    }
    features
        | if config.read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        }
}

/// The configuration space as the driver finds it; `capacity` in sectors.
pub(super) fn config_space(config: &Config, capacity: u64) -> Vec<u8> {
    let mut space = vec![0; LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| {
        let fields = space.get_mut(offset..).unwrap_or_default();
        for (field, byte) in fields.iter_mut().zip(bytes) {
            *field = *byte;
        }
    };
    let blocks = &config.blocks;
    let sectors = (blocks.logical / SECTOR as u32).max(1);
    put(0, &capacity.to_le_bytes());
    put(8, &SIZE_MAX.to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &blocks.logical.to_le_bytes());
    let exponent = (blocks.physical / blocks.logical.max(1)).max(1).ilog2();
    put(24, &[exponent as u8]);
    put(WRITEBACK, &[writeback(config.cache)]);
    put(34, &config.queues.to_le_bytes());
    // Discarding and writing zeroes: how many sectors, in how many ranges, and that zeroes may be a hole.
    put(36, &MAX_RANGE_SECTORS.to_le_bytes());
    put(40, &1u32.to_le_bytes());
    put(44, &sectors.to_le_bytes());
    put(48, &MAX_RANGE_SECTORS.to_le_bytes());
    put(52, &1u32.to_le_bytes());
    put(56, &[1]);
    space
}

/// The driver's byte as it is at the beginning: whether it has to flush.
pub(super) fn writeback(cache: Cache) -> u8 {
    u8::from(cache != Cache::Writethrough)
}
