use super::*;

use std::os::unix::fs::symlink;

const UUID: &str = "62177883-f1bb-47f0-914d-32a22e3a8804";

/// sysfs with a mediated device, as Linux 6.12 has it.
fn sysfs() -> tempfile::TempDir {
    let sysfs = tempfile::tempdir().unwrap();
    let parent = sysfs.path().join("devices/vfio_ap/matrix");
    let kind = parent.join("mdev_supported_types/vfio_ap-passthrough");
    let device = parent.join(UUID);
    let devices = sysfs.path().join("bus/mdev/devices");
    for folder in [&kind, &device, &devices] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(kind.join("device_api"), "vfio-ap\n").unwrap();
    symlink(&kind, device.join("mdev_type")).unwrap();
    symlink(
        "../../../../kernel/iommu_groups/7",
        device.join("iommu_group"),
    )
    .unwrap();
    fs::write(device.join("matrix"), "05.0004\n05.00ab\n").unwrap();
    fs::write(device.join("guest_matrix"), "05.0004\n").unwrap();
    symlink(&device, devices.join(UUID)).unwrap();
    sysfs
}

fn error(sysfs: &Path, uuid: &str) -> String {
    let error = format!("{:#}", Matrix::find(sysfs, uuid).unwrap_err());
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn a_device_is_known_by_its_group() {
    let sysfs = sysfs();
    for uuid in [UUID.to_owned(), UUID.to_ascii_uppercase()] {
        let matrix = Matrix::find(sysfs.path(), &uuid).unwrap();
        assert_eq!(matrix.uuid, UUID);
        assert_eq!(matrix.nodes(), ["/dev/vfio/vfio", "/dev/vfio/7"]);
    }
    // As on kernels before 6.0.
    let device = sysfs.path().join("bus/mdev/devices").join(UUID);
    fs::remove_file(device.join("guest_matrix")).unwrap();
    Matrix::find(sysfs.path(), UUID).unwrap();
}

#[test]
fn what_a_device_lacks_is_told() {
    let sysfs = sysfs();
    let device = sysfs.path().join("bus/mdev/devices").join(UUID);
    let other = UUID.replace('6', "7");
    let no_such = error(sysfs.path(), &other);
    assert!(no_such.starts_with(
        "there is no such mediated device: load the module vfio_ap, and write the UUID to /sys/"
    ));

    fs::remove_file(device.join("iommu_group")).unwrap();
    let expected = "the mediated device has no group: the host's kernel needs CONFIG_VFIO_GROUP";
    assert_eq!(error(sysfs.path(), UUID), expected);

    // The queues are the host's own, or the adapters are gone.
    fs::write(device.join("guest_matrix"), "").unwrap();
    let not_bound = error(sysfs.path(), UUID);
    assert!(
        not_bound.contains("(/sys/bus/ap/apmask and aqmask)"),
        "{not_bound}"
    );

    let expected = "the matrix of the mediated device is empty: write numbers to assign_adapter and assign_domain beside it";
    for matrix in ["", "05.\n06.\n", ".0004\n"] {
        fs::write(device.join("matrix"), matrix).unwrap();
        assert_eq!(error(sysfs.path(), UUID), expected, "{matrix:?}");
    }

    fs::write(device.join("mdev_type/device_api"), "vfio-ccw\n").unwrap();
    let wrong = error(sysfs.path(), UUID);
    assert!(
        wrong.starts_with(r#"the mediated device is of the type "vfio-ccw\n", not vfio-ap: "#),
        "{wrong}"
    );
}

#[test]
fn nothing_but_a_uuid_becomes_a_path() {
    let sysfs = sysfs();
    let expected = "this is no UUID: name a mediated device, as /sys/bus/mdev/devices has them";
    let no_uuids = [
        "",
        ".",
        "../../../devices/vfio_ap/matrix",
        "62177883f1bb47f0914d32a22e3a8804",
        "62177883-f1bb-47f0-914d-32a22e3a880",
        "62177883-f1bb-47f0-914d-32a22e3a88040",
        "62177883-f1bb-47f0-914d-32a22e3a88/4",
        "62177883-f1bb-47f0-914d_32a22e3a8804",
    ];
    for text in no_uuids {
        assert_eq!(error(sysfs.path(), text), expected, "{text:?}");
    }
}

#[test]
fn machines_of_other_architectures_have_none() {
    let read = uuid(&UUID.to_ascii_uppercase()).map_err(|error| error.to_string());
    let expected = if CRYPTO_ADAPTERS {
        Ok(UUID.to_owned())
    } else {
        Err("crypto adapters are of s390x: leave them out on this machine".to_owned())
    };
    assert_eq!(read, expected);
}
