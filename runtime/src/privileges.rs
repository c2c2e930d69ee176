//! Giving up capabilities (capabilities(7)), of the calling thread and for good. Unlike libcap-ng's, it takes no /proc, which is
//! out of reach by then.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Gives up all but these, and what programs could get.
///
/// # Errors
/// The system calls'.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    empty_bounding_set()?;
    clear_ambient_capability_set()?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// That goes only with CAP_SETPCAP. Without it there are no new privileges for us (`no_new_privs`), and the set means nothing.
///
/// # Errors
/// The system calls'.
pub fn empty_bounding_set() -> io::Result<()> {
    if !capabilities(None)?
        .effective
        .contains(CapabilitySet::SETPCAP)
    {
        return Ok(());
    }
    let each = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for capability in each {
        match remove_capability_from_bounding_set(capability) {
            // Behind the last that this kernel knows.
            Err(Errno::INVAL) => break,
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::process::geteuid;
    use rustix::thread::capability_is_in_bounding_set;

    use super::*;

    #[test]
    fn what_is_kept_is_all_that_is_left() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root has what is given up here");
            return;
        }
        let kept = CapabilitySet::NET_ADMIN | CapabilitySet::MKNOD;
        let left = thread::spawn(move || {
            keep(kept).unwrap();
            // Once more, with nothing to give it up by.
            keep(kept).unwrap();
            assert_eq!(
                capability_is_in_bounding_set(CapabilitySet::MKNOD),
                Ok(false)
            );
            capabilities(None).unwrap()
        });
        let left = left.join().unwrap();
        assert_eq!((left.effective, left.permitted), (kept, kept));
        assert_eq!(left.inheritable, CapabilitySet::empty());
    }
}
