//! The size of the guest's console, which changes with the window that shows it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Tells a console of its size; clones are for the same console. Any thread.
#[derive(Clone, Debug)]
pub struct ConsoleHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Columns in the upper half, rows in the lower, so that the two change together.
    size: AtomicU32,
    changed: EventFd,
}

impl ConsoleHandle {
    /// A console with so many character cells; 0 by 0 if nobody knows.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new(columns: u16, rows: u16) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            size: AtomicU32::new(pack(columns, rows)),
            changed: EventFd::new(EFD_NONBLOCK)?,
        })))
    }

    /// The console has so many character cells from now on. The guest hears of it when the event
    /// loop comes to it; of several changes until then it hears the last.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.0.size.store(pack(columns, rows), Ordering::Release);
        // A full counter tells of the change as well.
        let _ = self.0.changed.write(1);
    }

    /// Columns and rows.
    pub(super) fn get(&self) -> (u16, u16) {
        let size = self.0.size.load(Ordering::Acquire);
        ((size >> 16) as u16, size as u16)
    }

    /// Readable after a change.
    pub(super) fn changed(&self) -> &EventFd {
        &self.0.changed
    }
}

fn pack(columns: u16, rows: u16) -> u32 {
    u32::from(columns) << 16 | u32::from(rows)
}

/// `struct virtio_console_config` (section 5.3.4): columns, rows, max_nr_ports, emerg_wr.
pub(super) fn config_bytes(size: (u16, u16), ports: u32) -> Vec<u8> {
    let mut bytes = size_bytes(size).to_vec();
    bytes.extend(ports.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes
}

/// The first two fields of the configuration, which are also `struct virtio_console_resize`.
pub(super) fn size_bytes((columns, rows): (u16, u16)) -> [u8; 4] {
    let ([c0, c1], [r0, r1]) = (columns.to_le_bytes(), rows.to_le_bytes());
    [c0, c1, r0, r1]
}
