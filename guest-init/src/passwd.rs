//! The home folder, from a passwd(5) file that the container's image may have filled with anything.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of the file that are looked at.
const MAX_FILE: u64 = 1 << 20;

/// The home folder of a user according to this file.
pub(crate) fn home(file: &Path, uid: u32) -> Option<Vec<u8>> {
    home_in(&read(file)?, uid).map(<[u8]>::to_vec)
}

/// The contents of such a file, or as much of it as is looked at; none if it is no regular one.
pub(crate) fn read(file: &Path) -> Option<Vec<u8>> {
    // So as not to wait for the writer of a FIFO.
    let passwd = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file)
        .ok()?;
    if !passwd.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    passwd.take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The home folder of the first line for this user: `name:password:uid:gid:comment:home:shell`.
fn home_in(text: &[u8], uid: u32) -> Option<&[u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let its_uid: u32 = str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
        let home = fields.nth(2)?;
        (its_uid == uid && !home.is_empty() && !home.contains(&0)).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        short:x:7\n\
        \xff\xfe:x:1000:1000:\xff:/home/\xff:/bin/sh\n\
        second:x:0:0::/other:\n\
        nohome:x:8:8:::\n\
        last:x:9:9::/last";

    #[test]
    fn the_first_line_of_the_user_counts() {
        assert_eq!(home_in(PASSWD, 0), Some(b"/root".as_slice()));
        assert_eq!(home_in(PASSWD, 1000), Some(b"/home/\xff".as_slice()));
        assert_eq!(home_in(PASSWD, 9), Some(b"/last".as_slice()));
    }

    #[test]
    fn without_a_home_there_is_none() {
        for uid in [7, 8, 10, u32::MAX] {
            assert_eq!(home_in(PASSWD, uid), None);
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        assert_eq!(home(Path::new("/dev/zero"), 0), None);
        assert_eq!(home(Path::new("/nonexistent"), 0), None);
        assert_eq!(home(Path::new("/etc/passwd"), 0), Some(b"/root".to_vec()));
    }

    proptest! {
        #[test]
        fn any_bytes_give_at_most_one_field(text in proptest::collection::vec(any::<u8>(), 0..400), uid: u32) {
            if let Some(home) = home_in(&text, uid) {
                prop_assert!(!home.iter().any(|byte| b":\n\0".contains(byte)));
            }
        }

        #[test]
        fn the_user_is_found_after_any_lines(lines in "([^0-9]*\n)*", home in "/[a-z/]{0,20}") {
            let text = format!("{lines}u:x:4711:1::{home}:/bin/sh\n");
            prop_assert_eq!(home_in(text.as_bytes(), 4711), Some(home.as_bytes()));
        }
    }
}
