//! Capabilities by name and number.

use anyhow::{Context, Result};
use proto::Capabilities;

use crate::spec;

/// Names in the order of their numbers, linux/capability.h of Linux 5.9 and later.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The sets as bits. A process whose configuration names no sets has no capability.
///
/// # Errors
/// When a name is unknown.
pub(super) fn sets(named: Option<&spec::Capabilities>) -> Result<Capabilities> {
    let Some(named) = named else {
        return Ok(Capabilities::default());
    };
    Ok(Capabilities {
        bounding: bits(&named.bounding)?,
        effective: bits(&named.effective)?,
        inheritable: bits(&named.inheritable)?,
        permitted: bits(&named.permitted)?,
        ambient: bits(&named.ambient)?,
    })
}

fn bits(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |bits, name| {
        let number = NAMES.iter().position(|known| known == name);
        let number = number.with_context(|| format!("capability {name:?} is unknown"))?;
        Ok(bits | 1 << number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        // linux/capability.h, here and there.
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_SETPCAP", 8),
            ("CAP_SYS_CHROOT", 18),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_MKNOD", 27),
            ("CAP_SETFCAP", 31),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(bits(&[name.into()]).unwrap(), 1 << number);
        }
    }

    #[test]
    fn each_set_is_translated_by_itself() {
        let named = spec::Capabilities {
            bounding: vec!["CAP_CHOWN".into(), "CAP_KILL".into()],
            effective: vec!["CAP_KILL".into()],
            ..Default::default()
        };
        let expected = Capabilities {
            bounding: 0x21,
            effective: 0x20,
            ..Default::default()
        };
        assert_eq!(sets(Some(&named)).unwrap(), expected);
        assert_eq!(sets(None).unwrap(), Capabilities::default());
    }

    #[test]
    fn an_unknown_name_is_told() {
        for name in ["CAP_FLY", "cap_chown", "CHOWN"] {
            let error = bits(&[name.into()]).unwrap_err();
            assert_eq!(error.to_string(), format!("capability {name:?} is unknown"));
        }
    }
}
