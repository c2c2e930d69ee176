//! What a kernel is told about its console, and about the rest of a PC.

use crate::cmdline::Console;

impl Console {
    /// What every kernel of ours is told, with its console.
    ///
    /// `panic=-1`: a kernel that panics resets at once, which ends the VM. `nr_uarts`: no probing of
    /// serial ports that a PC might have. `tsc=reliable`: no checks of the TSC, twice a second,
    /// against the kvm-clock, which the kernel prefers unless KVM vouches for the TSC. `reboot=a`:
    /// by ACPI's reset register; a kernel with EFI takes ACPI's reduced hardware for a sign of EFI,
    /// and without it jumps to a BIOS.
    pub fn parameters(self) -> &'static str {
        match self {
            Self::Serial => "console=ttyS0 8250.nr_uarts=1 tsc=reliable panic=-1 reboot=a",
            Self::Virtio => "console=hvc0 8250.nr_uarts=0 tsc=reliable panic=-1 reboot=a",
            Self::None => "quiet 8250.nr_uarts=0 tsc=reliable panic=-1 reboot=a",
        }
    }
}
