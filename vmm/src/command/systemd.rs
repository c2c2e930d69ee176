//! What systemd does in another way than other commands do.

/// The signal that powers it off (systemd(1), SIGRTMIN+4); SIGTERM, which `docker stop` sends, does not.
pub(super) fn power_off_signal() -> i32 {
    libc::SIGRTMIN() + 4
}

/// It ends by reboot(2), for which the kernel ends it by a signal: SIGINT if it powered off, SIGHUP
/// if it is to be started again (pid_namespaces(7)).
pub(super) fn exit_code(code: u8) -> u8 {
    match i32::from(code) - 128 {
        libc::SIGINT => 0,
        libc::SIGHUP => 1,
        _ => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_off_is_a_success_and_a_reboot_is_not() {
        for (code, expected) in [(130, 0), (129, 1), (7, 7), (143, 143)] {
            assert_eq!(exit_code(code), expected);
        }
    }
}
