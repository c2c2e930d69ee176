//! Lines for people: failures on the console, and with `runq.debug` on the kernel's command line
//! the whole story in the kernel's log.

use std::fmt::Arguments;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

/// The kernel's log, if the story is wanted.
static STORY: OnceLock<File> = OnceLock::new();

/// Finds out what to write where. Needs /proc and /dev.
///
/// The kernel opens /dev/console as descriptors 0 to 2 if it has a console; otherwise they become
/// /dev/null here: what is opened next must not be mistaken for them.
pub(crate) fn open() {
    while let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        if null.as_raw_fd() > 2 {
            break;
        }
        std::mem::forget(null);
    }
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if cmdline.split_ascii_whitespace().any(|w| w == "runq.debug")
        && let Ok(log) = File::options().write(true).open("/dev/kmsg")
    {
        // Otherwise the kernel keeps only the first few lines of a burst.
        let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
        let _ = STORY.set(log);
    }
}

/// One line on the console. If it cannot be written, there is nowhere to say so.
pub(crate) fn line(text: Arguments) {
    let _ = writeln!(io::stderr(), "init: {text}");
}

/// A step of the story, if it is wanted.
pub(crate) fn debug(text: Arguments) {
    if let Some(mut log) = STORY.get() {
        // One write is one record there.
        let _ = log.write_all(format!("init: {text}\n").as_bytes());
    }
}
