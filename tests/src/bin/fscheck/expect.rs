//! What a call should have come to.

use std::fmt::Debug;
use std::io;

use anyhow::{Result, bail, ensure};
use rustix::io::Errno;

/// That a call was refused with this error, and `what` was tried.
pub(crate) fn refused<T, E: Into<io::Error>>(
    what: &str,
    result: Result<T, E>,
    expected: Errno,
) -> Result<()> {
    match result {
        Ok(_) => bail!("{what} was allowed, but should be refused: {expected}"),
        Err(error) => {
            let error = error.into();
            let same = error.raw_os_error() == Some(expected.raw_os_error());
            ensure!(same, "{what} failed with {error}, not with: {expected}");
            Ok(())
        }
    }
}

/// That two values are the same; `what` they are.
pub(crate) fn equal<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<()> {
    ensure!(
        found == expected,
        "{what}: found {found:?}, expected {expected:?}"
    );
    Ok(())
}

/// As [`equal`], for what is too long to be printed.
pub(crate) fn same_bytes(what: &str, found: &[u8], expected: &[u8]) -> Result<()> {
    let first = found.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(
        first.is_none(),
        "{what}: differs at byte {}",
        first.unwrap_or_default()
    );
    equal(what, found.len(), expected.len())
}
