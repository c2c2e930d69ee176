//! What the machine has: memory and CPUs.

use super::response::{READ, TOO_SHORT};
use super::{HEADER, put};
use crate::s390x::Machine;

/// Most increments that memory is told in.
const MOST_INCREMENTS: u64 = 1020;
/// Where the CPUs are in the answer to READ SCP INFO, where no longer blocks are agreed on.
const SCP_CPUS: usize = 128;
/// And to READ CPU INFO.
const CPU_INFO_CPUS: usize = 24;
/// Bytes of a CPU: its address, features, and its type, 0 for a general one.
const CPU: usize = 16;
/// `SCLP_HAS_CPU_INFO`: READ CPU INFO is there.
const HAS_CPU_INFO: u64 = 0x0800_0000_0000_0000;

/// READ SCP INFO (`struct read_info_sccb`).
pub(super) fn read_scp_info(block: &mut [u8], machine: &Machine) -> u16 {
    let Some(cpus) = put_cpus(block, SCP_CPUS, machine) else {
        return TOO_SHORT;
    };
    let increment = increment(machine.memory);
    let count = machine.memory >> increment;
    let mib = 1_u64 << (increment - 20);
    // Each is told in a short field if it fits, else that is 0 and a longer one counts.
    let short_count = u16::try_from(count).unwrap_or(0);
    let short_mib = u8::try_from(mib).unwrap_or(0);
    put(block, 8, short_count.to_be_bytes());
    put(block, 10, [short_mib]);
    put(block, 16, cpus.to_be_bytes());
    put(block, 18, (SCP_CPUS as u16).to_be_bytes());
    // No choice of what is loaded: blanks of EBCDIC.
    put(block, 24, [0x40; 8]);
    put(block, 48, HAS_CPU_INFO.to_be_bytes());
    put(block, 100, (mib as u32).to_be_bytes());
    put(block, 104, count.to_be_bytes());
    put(block, 120, cpus.saturating_sub(1).to_be_bytes());
    READ
}

/// READ CPU INFO (`struct read_cpu_info_sccb`): all of them are configured, none stands by.
pub(super) fn read_cpu_info(block: &mut [u8], machine: &Machine) -> u16 {
    let Some(cpus) = put_cpus(block, CPU_INFO_CPUS, machine) else {
        return TOO_SHORT;
    };
    let behind = CPU_INFO_CPUS as u16 + CPU as u16 * cpus;
    put(block, 8, cpus.to_be_bytes());
    put(block, 10, (CPU_INFO_CPUS as u16).to_be_bytes());
    put(block, 14, behind.to_be_bytes());
    READ
}

/// Clears the block behind its header, and puts the CPUs at `offset`. Returns how many; unset if there is no room.
fn put_cpus(block: &mut [u8], offset: usize, machine: &Machine) -> Option<u16> {
    // What has room in a page is below 256.
    let count = u8::try_from(machine.cpus).ok()?;
    block.get(..offset + CPU * usize::from(count))?;
    block.get_mut(HEADER..)?.fill(0);
    for address in 0..count {
        put(block, offset + CPU * usize::from(address), [address]);
    }
    Some(count.into())
}

/// Binary logarithm of the unit that memory is told in: at least 1 MiB.
fn increment(memory: u64) -> u32 {
    let mut increment = 20;
    while memory >> increment > MOST_INCREMENTS {
        increment += 1;
    }
    increment
}
