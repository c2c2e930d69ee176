//! Capabilities by name and number.

use anyhow::{Context, Result};
use oci_spec::runtime::{Capability, LinuxCapabilities};
use proto::Capabilities;
use rustix::thread::CapabilitySet;

/// The sets as bits. A process whose configuration names no sets has no capability.
///
/// # Errors
/// When the number of a capability is unknown.
pub(super) fn sets(named: Option<&LinuxCapabilities>) -> Result<Capabilities> {
    let Some(named) = named else {
        return Ok(Capabilities::default());
    };
    Ok(Capabilities {
        bounding: bits(named.bounding().iter().flatten())?,
        effective: bits(named.effective().iter().flatten())?,
        inheritable: bits(named.inheritable().iter().flatten())?,
        permitted: bits(named.permitted().iter().flatten())?,
        ambient: bits(named.ambient().iter().flatten())?,
    })
}

fn bits<'a>(mut capabilities: impl Iterator<Item = &'a Capability>) -> Result<u64> {
    capabilities.try_fold(0, |bits, capability| {
        let set = CapabilitySet::from_name(&capability.to_string());
        let set = set.with_context(|| format!("CAP_{capability} has no number"))?;
        Ok(bits | set.bits())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Names in the order of their numbers, linux/capability.h of Linux 5.9 and later.
    const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP \
        LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER \
        SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE \
        SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP \
        MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
        CHECKPOINT_RESTORE";

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let mut numbers = 0..;
        for (name, number) in NAMES.split_whitespace().zip(&mut numbers) {
            let capability: Capability = serde_json::from_value(name.into()).unwrap();
            assert_eq!(bits([capability].iter()).unwrap(), 1 << number, "{name}");
        }
        assert_eq!(numbers.next(), Some(41));
    }

    #[test]
    fn each_set_is_translated_by_itself() {
        let named = json!({"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"]});
        let expected = Capabilities {
            bounding: 0x21,
            effective: 0x20,
            ..Default::default()
        };
        let named = serde_json::from_value(named).unwrap();
        assert_eq!(sets(Some(&named)).unwrap(), expected);
        assert_eq!(sets(None).unwrap(), Capabilities::default());
    }
}
