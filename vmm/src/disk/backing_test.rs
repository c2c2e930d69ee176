use std::cell::RefCell;

use proptest::prelude::*;

use super::*;

/// A file in memory, and what was read of it: offsets and lengths.
struct Memory {
    bytes: Vec<u8>,
    reads: RefCell<Vec<(u64, usize)>>,
}

impl FileExt for Memory {
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.borrow_mut().push((offset, to.len()));
        // As pread(2) does.
        i64::try_from(offset).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        let rest = usize::try_from(offset).ok();
        let rest = rest.and_then(|offset| self.bytes.get(offset..));
        let rest = rest.unwrap_or_default();
        let length = rest.len().min(to.len());
        to[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        panic!("nothing is written")
    }
}

/// A header that has a name of this size at this offset, and what follows.
fn image(offset: u64, size: u32, behind: &[u8]) -> Memory {
    let header = [
        &QCOW2_MAGIC[..],
        &[0, 0, 0, 3],
        &offset.to_be_bytes(),
        &size.to_be_bytes(),
        behind,
    ];
    Memory {
        bytes: header.concat(),
        reads: RefCell::default(),
    }
}

fn error(image: &Memory) -> String {
    format!("{:#}", backing_file(image).unwrap_err())
}

#[test]
fn an_image_names_what_it_stands_on() {
    let name = backing_file(&image(24, 8, b"....base.imgmore")).unwrap();
    assert_eq!(name.as_deref(), Some("base.img"));
    let longest = [b'n'; 1023];
    let name = backing_file(&image(20, 1023, &longest)).unwrap().unwrap();
    assert_eq!(name.as_bytes(), longest);
}

#[test]
fn what_stands_on_nothing_names_nothing() {
    // The size does not count then, so the specification.
    assert_eq!(backing_file(&image(0, 77, b"name")).unwrap(), None);
    let mut raw = image(20, 4, b"name");
    raw.bytes[3] = b'x';
    assert_eq!(backing_file(&raw).unwrap(), None);
    for length in 0..4 {
        let mut short = image(20, 4, b"name");
        short.bytes.truncate(length);
        assert_eq!(backing_file(&short).unwrap(), None);
    }
}

#[test]
fn a_broken_header_is_told() {
    for length in 4..20 {
        let mut cut = image(20, 4, b"name");
        cut.bytes.truncate(length);
        let text = error(&cut);
        assert!(text.starts_with("its header is cut off"), "{text}");
    }
    for size in [0, 1024, u32::MAX] {
        let expected =
            format!("the name of its backing file has {size} bytes: 1 to 1023 are allowed");
        assert_eq!(error(&image(20, size, &[b'n'; 2000])), expected);
    }
    for offset in [21, 1 << 40, i64::MAX as u64 - 2, i64::MAX as u64, u64::MAX] {
        let text = error(&image(offset, 4, b"name"));
        let expected = format!("the name of its backing file is outside of it, at {offset:#x}");
        assert!(text.starts_with(&expected), "{text}");
    }
    assert_eq!(
        error(&image(20, 4, b"\xffame")),
        "the name of its backing file is not UTF-8"
    );
}

proptest! {
    /// Whatever a header says, no more is read than a name can be long, and errors are one line.
    #[test]
    fn hostile_headers_are_survived(
        offset in prop_oneof![0..3000u64, any::<u64>()],
        size in prop_oneof![0..2000u32, any::<u32>()],
        behind in prop::collection::vec(any::<u8>(), 0..3000),
        length in 0..3000usize,
    ) {
        let mut image = image(offset, size, &behind);
        image.bytes.truncate(length);
        match backing_file(&image) {
            Ok(Some(name)) => {
                let at = offset as usize;
                prop_assert_eq!(name.as_bytes(), &image.bytes[at..at + size as usize]);
            }
            Ok(None) => prop_assert!(offset == 0 || length < QCOW2_MAGIC.len()),
            Err(error) => {
                let lines = format!("{error:#}").lines().count();
                prop_assert_eq!(lines, 1);
            }
        }
        for (_, length) in image.reads.into_inner() {
            prop_assert!(length <= 1023);
        }
    }
}
