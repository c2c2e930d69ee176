//! What both boot protocols pass on to the kernel.

use super::memory_map::Range;
use crate::initrd::Initrd;

/// Beside what is always at the same place: the command line at [`super::layout::COMMAND_LINE`],
/// the ACPI tables at [`super::layout::ACPI_START`].
pub(super) struct Parameters<'a> {
    pub(super) initrd: Option<&'a Initrd>,
    /// Length of the command line in bytes.
    pub(super) command_line_size: usize,
    pub(super) memory_map: Vec<Range>,
}
