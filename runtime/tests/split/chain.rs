//! Images that stand on others.

use runtime::chain::{Backing, Image};
use runtime::host::FileKind;

use super::disks::{add, host_with_files, places, volume};
use super::*;

/// A host on which two images stand on one, the first of them by way of a link.
fn host_with_chains() -> Host {
    let mut host = host_with_files();
    let below = |name: &str, path: &str| Backing {
        name: name.into(),
        path: path.into(),
    };
    let base = below("base", "/srv/vm/base");
    for (path, name, backing) in [
        (
            "/srv/link",
            "top.qcow2",
            vec![below("middle", "/srv/vm/middle-2"), base.clone()],
        ),
        ("/srv/vm/other", "other", vec![base]),
    ] {
        let image = Image {
            name: name.into(),
            backing,
        };
        host.files.insert(path.into(), Ok(FileKind::Regular(image)));
    }
    host
}

#[test]
fn a_disk_has_what_it_stands_on_beside_it_for_reading_alone() {
    let mounts = [
        volume("/srv/link", "/dev/runq/a/none", &[]),
        volume("/srv/vm/other", "/dev/runq/b/none", &["ro"]),
    ];
    let config = add(config("run"), &mounts, &[]);
    let split = split(&config, &Given::new(), &host_with_chains()).unwrap();
    let places = places(&split);
    let found = places.iter().map(|mount| {
        let options = mount["options"].as_array().unwrap();
        for option in ["bind", "rprivate", "nosuid", "noexec", "nodev"] {
            assert!(options.contains(&option.into()), "{mount}");
        }
        (
            mount["destination"].as_str().unwrap(),
            mount["source"].as_str().unwrap(),
            options.contains(&"ro".into()),
        )
    });
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            ("/dev/disks/0/top.qcow2", "/srv/link", false),
            ("/dev/disks/0/middle", "/srv/vm/middle-2", true),
            ("/dev/disks/0/base", "/srv/vm/base", true),
            ("/dev/disks/1/other", "/srv/vm/other", true),
            ("/dev/disks/1/base", "/srv/vm/base", true),
        ]
    );
    let paths = split.vm.disks.iter().map(|disk| disk.path.to_str());
    assert_eq!(
        paths.collect::<Vec<_>>(),
        [Some("/dev/disks/0/top.qcow2"), Some("/dev/disks/1/other")]
    );
}

#[test]
fn what_is_wrong_below_an_image_is_told_with_its_path() {
    let mut host = host_with_files();
    let error = "image \"top\" stands on \"base\": No such file or directory (os error 2)";
    host.files.insert("/srv/top".into(), Err(error.into()));
    let disk = volume("/srv/top", "/dev/runq/a/none", &[]);
    let config = add(config("run"), &[disk], &[]);
    let told = split(&config, &Given::new(), &host).unwrap_err();
    assert_eq!(
        told.to_string(),
        format!("/dev/runq/a/none: /srv/top: {error}")
    );
}
