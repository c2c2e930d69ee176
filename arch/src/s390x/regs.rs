//! The program status word (PSW; Principles of Operation, chapter 4), whose bits count from the left.

use super::kernel::Entry;

/// The CPU waits for interrupts.
const WAIT: u64 = bit(14);
/// The program may not execute privileged instructions.
const PROBLEM_STATE: u64 = bit(15);
/// Interrupts that it takes: from I/O, external ones, machine checks.
const INTERRUPTS: u64 = bit(6) | bit(7) | bit(13);
/// Addresses have 64 bits.
const ADDRESSES_64: u64 = bit(31) | bit(32);
/// Place of the condition code, bits 18 and 19.
const CONDITION_CODE: u32 = 63 - 19;

const fn bit(number: u32) -> u64 {
    1 << (63 - number)
}

/// Where a CPU is, and in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Psw {
    /// State, condition code and interrupts.
    pub mask: u64,
    /// The next instruction.
    pub address: u64,
}

/// The PSW of vCPU 0 when it enters the kernel; all other registers are as the reset leaves them.
pub fn entry(entry: Entry) -> Psw {
    Psw {
        mask: ADDRESSES_64,
        address: entry.0.0,
    }
}

impl Psw {
    /// Whether privileged instructions are not to be executed.
    pub fn is_problem_state(self) -> bool {
        self.mask & PROBLEM_STATE != 0
    }

    /// Whether the CPU waits for nothing: so a kernel ends that has panicked.
    pub fn is_disabled_wait(self) -> bool {
        self.mask & (WAIT | INTERRUPTS) == WAIT
    }

    /// The same with the condition code that an instruction sets, 0 to 3.
    #[must_use]
    pub fn with_condition_code(self, code: u8) -> Self {
        let cleared = self.mask & !(3 << CONDITION_CODE);
        Self {
            mask: cleared | u64::from(code & 3) << CONDITION_CODE,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    #[test]
    fn the_kernel_is_entered_in_64_bits_without_interrupts() {
        let psw = entry(Entry(GuestAddress(0x1_0000)));
        assert_eq!((psw.mask, psw.address), (0x1_8000_0000, 0x1_0000));
        assert!(!psw.is_disabled_wait());
    }

    #[test]
    fn a_wait_that_nothing_ends() {
        // As Linux ends (arch/s390/kernel/head64.S), and as it idles.
        let wait = |mask| Psw { mask, address: 0 }.is_disabled_wait();
        assert!(wait(0x0002_0001_8000_0000));
        assert!(!wait(0x0706_c001_8000_0000));
    }

    #[test]
    fn a_program_of_the_users() {
        let user = |mask| Psw { mask, address: 0 }.is_problem_state();
        // PSW_USER_BITS and PSW_KERNEL_BITS of Linux.
        assert!(user(0x0705_c001_8000_0000) && !user(0x0704_c001_8000_0000));
    }

    #[test]
    fn the_condition_code_replaces_the_one_before() {
        let psw = Psw {
            mask: 0x0000_3001_8000_0000,
            address: 8,
        };
        let mask = |code| psw.with_condition_code(code).mask;
        assert_eq!(mask(0), 0x1_8000_0000);
        assert_eq!(mask(2), 0x2001_8000_0000);
    }
}
