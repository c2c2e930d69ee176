//! What a kernel is told about its console, and about the rest of a PC.

use crate::cmdline::Console;

impl Console {
    /// What every kernel of ours is told, with its console.
    ///
    /// `panic=-1`: a kernel that panics resets at once, which ends the VM. `nr_uarts`: no probing of
    /// serial ports that a PC might have. `tsc=reliable`: no checks of the TSC, twice a second,
    /// against the kvm-clock, which the kernel prefers unless KVM vouches for the TSC. `reboot=a`:
    /// by ACPI's reset register; a kernel with EFI takes ACPI's reduced hardware for a sign of EFI,
    /// and without it jumps to a BIOS. `rcu_expedited`: who waits for all readers (a control group that
    /// gets a process, an interface that comes up) interrupts the few processors, and does not wait for
    /// their next ticks, which are 4 ms apart.
    pub fn parameters(self) -> &'static str {
        macro_rules! with {
            ($console:literal) => {
                concat!(
                    $console,
                    " tsc=reliable panic=-1 reboot=a rcupdate.rcu_expedited=1"
                )
            };
        }
        match self {
            Self::Serial => with!("console=ttyS0 8250.nr_uarts=1"),
            Self::Virtio => with!("console=hvc0 8250.nr_uarts=0"),
            Self::None => with!("quiet 8250.nr_uarts=0"),
        }
    }
}
