//! Images as `qemu-img` makes them, where there is one, and broken ones.

use std::os::unix::fs::FileExt;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// An image that qemu-img makes; none, where there is none and none is required.
fn image(folder: &Path, name: &str, options: &[&str]) -> Option<PathBuf> {
    let path = folder.join(name);
    let mut command = Command::new("qemu-img");
    let command = command.args(["create", "-q", "-f", "qcow2"]).args(options);
    let made = command.arg(&path).arg("1M").current_dir(folder).status();
    if made.is_err() {
        let required = std::env::var_os("RUNQ_TEST_TOOLS").is_some();
        assert!(!required, "qemu-img (package qemu-utils) is required");
        return None;
    }
    assert!(made.unwrap().success());
    Some(path)
}

fn open_image(path: &Path) -> Result<Image> {
    let file = File::options().read(true).write(true).open(path)?;
    open(file, path, Cache::Writeback, false)
}

fn error(path: &Path) -> String {
    format!("{:#}", open_image(path).unwrap_err())
}

#[track_caller]
fn check(path: &Path) {
    let checked = Command::new("qemu-img")
        .args(["check", "-q"])
        .arg(path)
        .status();
    assert!(checked.unwrap().success(), "{path:?}");
}

#[test]
fn images_of_every_kind_keep_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for (number, options) in [
        "compat=0.10",
        "compat=1.1",
        "lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=2M",
        "refcount_bits=1",
        "preallocation=metadata",
    ]
    .into_iter()
    .enumerate()
    {
        let Some(path) = image(folder.path(), &number.to_string(), &["-o", options]) else {
            return;
        };
        let image = open_image(&path).unwrap();
        assert_eq!(image.access.size(), 1 << 20, "{options}");
        image.access.write(&[7; 3000][..], 100_000).unwrap();
        image.access.flush().unwrap();
        drop(image);
        check(&path);
        let image = open_image(&path).unwrap();
        let mut data = [1; 3002];
        image.access.read(&mut data[..], 99_999).unwrap();
        let expected = |at: usize| match at {
            0 | 3001 => 0,
            _ => 7,
        };
        let wrong = (0..data.len()).find(|&at| data[at] != expected(at));
        assert_eq!(wrong, None, "{options}");
    }
}

#[test]
fn an_image_stands_on_others_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    std::fs::write(&base, vec![5; 1 << 20]).unwrap();
    let on = |below: &'static str, format: &'static str| ["-b", below, "-F", format];
    let Some(_) = image(folder.path(), "middle", &on("base", "raw")) else {
        return;
    };
    let top = image(folder.path(), "top", &on("middle", "qcow2")).unwrap();
    let opened = open_image(&top).unwrap();
    opened.access.write(&[6; 512][..], 0).unwrap();
    let mut data = [0; 1024];
    opened.access.read(&mut data[..], 0).unwrap();
    assert_eq!(data[..512], [6; 512]);
    assert_eq!(data[512..], [5; 512]);
    // What it stands on is not written by anybody meanwhile.
    let writer = File::options().read(true).write(true).open(&base).unwrap();
    assert!(lock::lock(&writer, true).is_err());
    drop(opened);
    assert!(std::fs::read(&base).unwrap() == vec![5; 1 << 20]);
    lock::lock(&writer, true).unwrap();
    assert!(
        error(&top).contains("in use by another machine"),
        "{}",
        error(&top)
    );
}

#[test]
fn images_share_what_they_stand_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base"), vec![5; 1 << 20]).unwrap();
    let on = ["-b", "base", "-F", "raw"];
    let Some(one) = image(folder.path(), "one", &on) else {
        return;
    };
    let other = image(folder.path(), "other", &on).unwrap();
    let both = [one, other].map(|path| open_image(&path).unwrap());
    for image in both {
        let mut data = [0; 512];
        image.access.read(&mut data[..], 0).unwrap();
        assert_eq!(data, [5; 512]);
    }
}

#[test]
fn nothing_that_is_not_beside_the_image_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("secret"), vec![5; 1 << 20]).unwrap();
    std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
    let secret = folder.path().join("secret").display().to_string();
    for (name, below) in [("a", "../secret"), ("b", &*secret), ("c", "link")] {
        let Some(path) = image(&inner, name, &["-b", below, "-F", "raw"]) else {
            return;
        };
        let text = error(&path);
        assert!(
            text.contains("not beside the image that names it"),
            "{text}"
        );
    }
    let path = image(&inner, "d", &["-u", "-b", "missing", "-F", "raw"]).unwrap();
    assert!(
        error(&path).contains("missing: No such file"),
        "{}",
        error(&path)
    );
    let path = image(&inner, "e", &["-u", "-b", "e", "-F", "qcow2"]).unwrap();
    let text = error(&path);
    assert!(text.contains("more images below each other"), "{text}");
    let path = image(&inner, "f", &["-o", "data_file=raw,data_file_raw=on"]).unwrap();
    assert!(
        error(&path).contains("its data is in another file"),
        "{}",
        error(&path)
    );
}

#[test]
fn what_is_not_known_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = image(folder.path(), "extended", &["-o", "extended_l2=on"]) else {
        return;
    };
    let text = error(&path);
    assert!(text.starts_with("qcow2 image: "), "{text}");
    let secret = [
        "--object",
        "secret,id=s,data=x",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s",
    ];
    let path = image(folder.path(), "encrypted", &secret).unwrap();
    let text = error(&path);
    assert!(text.starts_with("qcow2 image: "), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is wrong in an image, it is an error or other data, and nothing worse.
    #[test]
    fn broken_images_are_survived(
        changes in prop::collection::vec((prop_oneof![0..600u64, 0..0x5_0000u64], any::<[u8; 8]>()), 1..8),
        length in prop_oneof![Just(None), (0..0x5_0000u64).prop_map(Some)],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let Some(path) = image(folder.path(), "image", &[]) else {
            return Ok(());
        };
        let whole = open_image(&path).unwrap();
        whole.access.write(&[7; 3000][..], 100_000).unwrap();
        drop(whole);
        let file = File::options().write(true).open(&path).unwrap();
        for (offset, bytes) in changes {
            file.write_all_at(&bytes, offset).unwrap();
        }
        if let Some(length) = length {
            file.set_len(length).unwrap();
        }
        drop(file);
        if let Ok(image) = open_image(&path) {
            let size = image.access.size();
            let mut data = [0; 4096];
            for offset in [0, 99_840, size.saturating_sub(4096)] {
                let _ = image.access.read(&mut data[..], offset);
                let _ = image.access.write(&data[..], offset);
            }
            let _ = image.access.flush();
        }
    }
}
