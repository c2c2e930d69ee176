use std::os::unix::fs::symlink;

use super::*;

/// A qcow2 image, as far as its name for what it stands on; the name begins at 20.
fn write(folder: &Path, name: &str, below: &[u8]) {
    let size = u32::try_from(below.len()).unwrap();
    let header = [
        &b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\0\x14"[..],
        &size.to_be_bytes(),
        below,
    ];
    fs::write(folder.join(name), header.concat()).unwrap();
}

/// A directory without links in its path.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    fn backing(&self, name: &str, path: &str) -> Backing {
        Backing {
            name: name.into(),
            path: self.path().join(path).to_str().unwrap().to_owned(),
        }
    }
}

#[track_caller]
fn refused(path: &Path) -> String {
    let text = format!("{:#}", look(path).unwrap_err());
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn an_image_stands_on_the_files_beside_it_from_the_top() {
    let folder = Folder::new();
    let path = folder.path();
    fs::write(path.join("base"), [0; 512]).unwrap();
    write(&path, "middle", b"base");
    symlink("middle", path.join("current")).unwrap();
    write(&path, "top", b"current");
    let elsewhere = Folder::new();
    let link = elsewhere.path().join("disk");
    symlink(path.join("top"), &link).unwrap();
    let expected = Image {
        name: "top".into(),
        backing: vec![
            folder.backing("current", "middle"),
            folder.backing("base", "base"),
        ],
    };
    for top in [&path.join("top"), &link] {
        assert_eq!(look(top).unwrap(), expected);
    }
    let raw = look(&path.join("base")).unwrap();
    assert_eq!((&*raw.name, raw.backing), ("base", Vec::new()));
}

#[test]
fn what_is_not_beside_the_image_is_refused() {
    let folder = Folder::new();
    let path = folder.path();
    let inner = path.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(path.join("secret"), "").unwrap();
    symlink("../secret", inner.join("link")).unwrap();
    let secret = path.join("secret").to_str().unwrap().to_owned();
    let beside = inner.join("top").to_str().unwrap().to_owned();
    for below in ["../secret", &secret, "link", ".", "..", "./top", &beside] {
        write(&inner, "top", below.as_bytes());
        let expected = format!(
            "image \"top\" stands on {below:?}: only files in the image's own directory are allowed, without links \
             to others: copy it there, and name it by `qemu-img rebase -u -b NAME -F FORMAT FILE`"
        );
        assert_eq!(refused(&inner.join("top")), expected);
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = Folder::new();
    let path = folder.path();
    fs::create_dir(path.join("folder")).unwrap();
    nix::unistd::mkfifo(&path.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    write(&path, "middle", b"fifo");
    for (below, expected) in [
        (
            &b"folder"[..],
            "image \"top\" stands on \"folder\": no regular file, which it has to be",
        ),
        (
            b"middle",
            "image \"middle\" stands on \"fifo\": no regular file, which it has to be",
        ),
        (
            b"two\nlines",
            "image \"top\" stands on \"two\\nlines\": No such file or directory (os error 2)",
        ),
        (
            b"\xff",
            "image \"top\": the name of its backing file is not UTF-8",
        ),
    ] {
        write(&path, "top", below);
        assert_eq!(refused(&path.join("top")), expected);
    }
    write(&path, "top", b"nul\0");
    refused(&path.join("top"));
}

#[test]
fn sixteen_images_below_one_are_the_most_and_loops_end() {
    let folder = Folder::new();
    let path = folder.path();
    fs::write(path.join("0"), "").unwrap();
    for number in 1..=17 {
        write(
            &path,
            &number.to_string(),
            (number - 1).to_string().as_bytes(),
        );
    }
    assert_eq!(look(&path.join("16")).unwrap().backing.len(), 16);
    let told = "more images below each other than the 16 that are allowed: `qemu-img convert` makes one of all";
    let text = refused(&path.join("17"));
    assert_eq!(text, format!("image \"1\" stands on \"0\": {told}"));
    write(&path, "self", b"self");
    let text = refused(&path.join("self"));
    assert_eq!(text, format!("image \"self\" stands on \"self\": {told}"));
}
