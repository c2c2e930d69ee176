use std::io::Write;
use std::os::unix::fs::FileExt;

use devices::dev::blk::QCOW2_MAGIC;

use super::*;

fn disk(path: &Path) -> Disk {
    Disk {
        name: path.display().to_string(),
        path: path.to_owned(),
        serial: "runq-0".into(),
        cache: Cache::Writeback,
        read_only: false,
        format: None,
    }
}

fn image(contents: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents).unwrap();
    file
}

fn raw(config: &Config) -> &File {
    match &config.contents {
        Contents::Raw(file) => file,
        Contents::Image(image) => panic!("{image:?}"),
    }
}

fn error(disk: &Disk) -> String {
    format!("{:#}", disk.open(1).unwrap_err())
}

#[test]
fn an_image_has_its_size_and_a_queue_for_each_processor() {
    let file = image(&[0; 4096]);
    for (cpus, queues) in [(1, 1), (3, 3), (100, 8)] {
        let config = disk(file.path()).config(cpus).unwrap();
        assert_eq!((config.size, config.queues), (4096, queues));
        assert_eq!(config.blocks.logical, 512);
    }
}

/// The alignment that O_DIRECT needs is the block size of the disk, or it is said that there is none.
#[test]
fn past_the_page_cache_blocks_are_as_the_file_system_wants_them() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("image");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let disk = Disk {
        cache: Cache::None,
        ..disk(&path)
    };
    match disk.config(1) {
        Ok(config) => {
            let mut buffer = vec![0u8; 3 * 4096];
            let start = buffer.as_ptr().align_offset(4096);
            let block = config.blocks.logical as usize;
            let aligned = &mut buffer[start..start + block];
            raw(&config).read_exact_at(aligned, block as u64).unwrap();
        }
        Err(error) => assert!(format!("{error:#}").contains("O_DIRECT"), "{error:#}"),
    }
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    let text = error(&disk(&missing));
    assert!(
        text.starts_with(&format!("disk {}: No such file", missing.display())),
        "{text}"
    );
    for path in [folder.path(), Path::new("/dev/null")] {
        let text = error(&disk(path));
        assert!(
            text.ends_with("neither an image file nor a block device"),
            "{text}"
        );
    }
    let text = error(&disk(image(&[0; 511]).path()));
    assert!(text.contains("empty: `truncate"), "{text}");
    let text = error(&disk(image(b"QFI\xfb and more").path()));
    assert!(text.contains("qcow2 image: "), "{text}");
}

#[test]
fn an_image_in_use_is_refused() {
    let file = image(&[0; 512]);
    let used = disk(file.path()).config(1).unwrap();
    let text = error(&disk(file.path()));
    assert!(text.contains("in use by another machine"), "{text}");
    drop(used);
    disk(file.path()).open(1).unwrap();
}

#[test]
fn a_disk_that_is_read_only_needs_no_right_to_write() {
    let file = image(&[0; 512]);
    let disk = Disk {
        read_only: true,
        ..disk(file.path())
    };
    let config = disk.config(1).unwrap();
    assert!(raw(&config).write_at(&[1], 0).is_err());
    disk.open(1).unwrap();
}

#[test]
fn an_image_is_what_it_begins_with_unless_it_is_said() {
    let file = image(&[&QCOW2_MAGIC[..], &[0; 508]].concat());
    assert!(error(&disk(file.path())).contains("qcow2 image: "));
    let said = Disk {
        format: Some(Format::Raw),
        ..disk(file.path())
    };
    let config = said.config(1).unwrap();
    assert!(!config.found_raw, "the guest may write what it likes");
    let file = image(&[0; 512]);
    assert!(disk(file.path()).config(1).unwrap().found_raw);
    let said = Disk {
        format: Some(Format::Qcow2),
        ..disk(file.path())
    };
    assert!(error(&said).contains("qcow2 image: "));
}
