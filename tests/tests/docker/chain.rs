//! Disks in qcow2 images that stand on others.

use std::fs;

use tests::docker::{Container, script};

use crate::assert_output;
use crate::disks::{Images, assert_clean};
use crate::refusals::refused;

/// Makes an image that stands on another one of the same directory, or elsewhere.
fn on(images: &Images, name: &str, below: &str, format: &str) -> String {
    let path = images.path(name);
    script(&format!(
        "qemu-img create -q -f qcow2 -b {below} -F {format} {path}"
    ))
    .unwrap();
    path
}

/// Both are disks of one container: one stands on an image that stands on a raw one, the other on that itself.
#[test]
#[ignore = "needs Docker: make test"]
fn images_that_stand_on_one_have_their_own_changes_and_leave_it_as_it_is() {
    let images = Images::new();
    let base = images.formatted("base.img", 64, "mke2fs -q -F -t ext4");
    fs::write(images.path("file"), "of the base\n").unwrap();
    let from = images.path("file");
    script(&format!(
        "debugfs -w -R 'write {from} file' {base} 2>/dev/null"
    ))
    .unwrap();
    let middle = on(&images, "middle", "base.img", "raw");
    let sums = || script(&format!("sha256sum {base} {middle}")).unwrap();
    let before = sums();
    let high = on(&images, "high.qcow2", "middle", "qcow2");
    let low = on(&images, "low.qcow2", "base.img", "raw");

    let high_at = format!("{high}:/dev/runq/high/none/ext4/high");
    let low_at = format!("{low}:/dev/runq/low/writeback/ext4/low");
    let options = ["--rm", "-v", &high_at, "-v", &low_at];
    let write = r"
        cat /high/file /low/file
        echo high >/high/file
        echo low >/low/file
        head -c 4000000 /dev/zero | tr '\0' h >/high/more
    ";
    let done = Container::new().unwrap().shell(&options, write).unwrap();
    assert_output(&done, "of the base\nof the base\n");
    let read = "cat /high/file /low/file; md5sum </high/more; ls /low/more 2>/dev/null || true";
    let done = Container::new().unwrap().shell(&options, read).unwrap();
    let sum = script(r"head -c 4000000 /dev/zero | tr '\0' h | md5sum").unwrap();
    assert_output(&done, &format!("high\nlow\n{sum}\n"));

    assert_eq!(sums(), before);
    for image in [&high, &low] {
        script(&format!("qemu-img check -q {image}")).unwrap();
        let raw = images.path("raw");
        script(&format!("qemu-img convert -O raw {image} {raw}")).unwrap();
        assert_clean(&raw);
    }
}

#[test]
#[ignore = "needs Docker: make test"]
fn an_image_that_stands_on_what_is_not_beside_it_is_refused() {
    let images = Images::new();
    images.blank("base.img", 1);
    fs::create_dir(images.path("inner")).unwrap();
    let refused = |image: &str, expected: &[&str]| {
        let volume = format!("{image}:/dev/runq/data/none");
        let expected = [&["/dev/runq/data/none", image], expected].concat();
        refused(&["--network", "none", "-v", &volume], &expected);
    };
    let elsewhere = on(&images, "inner/top", "../base.img", "raw");
    refused(&elsewhere, &["../base.img", "own directory", "rebase"]);
    let missing = on(&images, "top", "base.img", "raw");
    fs::remove_file(images.path("base.img")).unwrap();
    refused(&missing, &["base.img", "No such file or directory"]);
}
