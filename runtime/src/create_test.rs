use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::*;
use crate::host::Device;
use crate::vmspec::VmSpec;

const CONFIG_JSON: &[u8] = include_bytes!("../testdata/config.run.json");

fn bundle() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join(CONFIG);
    fs::write(&config, CONFIG_JSON).unwrap();
    fs::set_permissions(&config, PermissionsExt::from_mode(0o640)).unwrap();
    folder
}

/// A host that is the same everywhere.
fn host(bundle: &Path) -> Host {
    Host {
        vm_folder: "/var/lib/runq/vm".into(),
        modules: true,
        commit: None,
        bundle: bundle.to_str().unwrap().into(),
        container: "c0ffee".into(),
        certificates: Err("no certificates".into()),
        devices: vec![Device {
            path: host::KVM.into(),
            major: 10,
            minor: 232,
        }],
        macvtap_major: None,
        cpus: 4,
        max_vcpus: 4,
        memory_mib: 1024,
        open_files: 1024,
        files: Default::default(),
    }
}

/// As [`rewrite`], on that host.
fn rewrite_here(bundle: &Path, given: &Given) -> Result<Rewritten> {
    let mut host = host(bundle);
    let config = read_original(bundle)?;
    look_at_disks(&mut host, &config);
    write(bundle.to_owned(), split(&config, given, &host)?)
}

fn given() -> Given {
    [("dns", "::1"), ("runqenv", "true")]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
}

fn names(bundle: &Path) -> Vec<String> {
    let entries = fs::read_dir(bundle).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn the_file_of_a_disk_is_looked_at() {
    let bundle = bundle();
    let path = bundle.path();
    let mut config: Value = serde_json::from_slice(CONFIG_JSON).unwrap();
    let destination = "/dev/runq/data/none";
    let mount = json!({"destination": destination, "type": "bind", "source": "disk.img"});
    config["mounts"].as_array_mut().unwrap().push(mount);
    fs::write(path.join(CONFIG), config.to_string()).unwrap();
    let image = path.join("disk.img");
    let error = rewrite_here(path, &given()).unwrap_err().to_string();
    let expected = format!(
        "{destination}: {}: No such file or directory (os error 2)",
        image.display()
    );
    assert_eq!(error, expected);
    assert_eq!(names(path), [CONFIG], "nothing is left behind");
    fs::write(&image, "").unwrap();
    std::mem::forget(rewrite_here(path, &given()).unwrap());
    let vm = VmSpec::load(&path.join(VMSPEC)).unwrap();
    assert_eq!(vm.disks[0].name, format!("data ({})", image.display()));
}

#[test]
fn crypto_adapters_are_looked_for_and_told_of() {
    const UUID: &str = "00000000-0000-0000-0000-00000000000a";
    let bundle = bundle();
    let path = bundle.path();
    let mut config: Value = serde_json::from_slice(CONFIG_JSON).unwrap();
    let environment = config["process"]["env"].as_array_mut().unwrap();
    environment.push(format!("RUNQ_APUUID={UUID}").into());
    fs::write(path.join(CONFIG), config.to_string()).unwrap();

    let error = look_at_crypto(&mut host(path), &config).unwrap_err();
    let error = format!("{error:#}");
    let rewritten = rewrite_here(path, &given());
    if vmm::ap::uuid(UUID).is_ok() {
        let expected = format!("RUNQ_APUUID={UUID}: there is no such mediated device: ");
        assert!(error.starts_with(&expected), "{error}");
        std::mem::forget(rewritten.unwrap());
        let vm = VmSpec::load(&path.join(VMSPEC)).unwrap();
        assert_eq!(vm.crypto.as_deref(), Some(UUID));
        assert!(vm.start.crypto_adapters);
    } else {
        let expected = format!("RUNQ_APUUID={UUID}: crypto adapters are of s390x: ");
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(rewritten.unwrap_err().to_string(), error);
    }
}

#[test]
fn the_bundle_has_both_parts_and_the_original() {
    let bundle = bundle();
    let path = bundle.path();
    assert!(!is_ours(path).unwrap());
    std::mem::forget(rewrite_here(path, &given()).unwrap());
    assert!(is_ours(path).unwrap());
    assert_eq!(
        names(path),
        [CONFIG, ORIGINAL, KILLS, "runqenv", STARTED, VMSPEC]
    );
    assert_eq!(fs::read(path.join(ORIGINAL)).unwrap(), CONFIG_JSON);
    assert_eq!(
        read(&path.join(CONFIG)).unwrap()["process"]["args"],
        json!(["/proxy"])
    );
    VmSpec::load(&path.join(VMSPEC)).unwrap();
    for (name, mode) in [
        (CONFIG, 0o640),
        (ORIGINAL, 0o640),
        ("runqenv", 0o400),
        (VMSPEC, 0o400),
    ] {
        let found = fs::metadata(path.join(name)).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{name}");
    }
}

#[test]
fn a_bundle_that_is_used_again_is_split_from_the_original() {
    let bundle = bundle();
    let path = bundle.path();
    std::mem::forget(rewrite_here(path, &given()).unwrap());
    let first = [CONFIG, ORIGINAL, VMSPEC].map(|name| fs::read(path.join(name)).unwrap());
    std::mem::forget(rewrite_here(path, &given()).unwrap());
    let second = [CONFIG, ORIGINAL, VMSPEC].map(|name| fs::read(path.join(name)).unwrap());
    assert!(first == second);
    // Another program has written the configuration anew: that one counts.
    fs::write(path.join(CONFIG), r#"{"ociVersion": "7"}"#).unwrap();
    let error = rewrite_here(path, &given()).unwrap_err();
    assert!(format!("{error:#}").starts_with("config.json: ociVersion"));
}

#[test]
fn an_annotation_of_the_users_does_not_pass_for_a_bundle_that_is_split() {
    let bundle = bundle();
    let mut config: Value = serde_json::from_slice(CONFIG_JSON).unwrap();
    config["annotations"] = json!({ANNOTATION: "1"});
    fs::write(bundle.path().join(CONFIG), config.to_string()).unwrap();
    let error = rewrite_here(bundle.path(), &given()).unwrap_err();
    assert!(
        error.to_string().contains("only runq may set it"),
        "{error}"
    );
    assert_eq!(names(bundle.path()), [CONFIG]);
}

#[test]
fn undone_the_bundle_is_as_it_was() {
    let bundle = bundle();
    drop(rewrite_here(bundle.path(), &given()).unwrap());
    assert_eq!(names(bundle.path()), [CONFIG]);
    assert_eq!(fs::read(bundle.path().join(CONFIG)).unwrap(), CONFIG_JSON);
}

#[test]
fn a_file_that_cannot_be_written_undoes_the_others() {
    let bundle = bundle();
    fs::create_dir(bundle.path().join(VMSPEC)).unwrap();
    let error = rewrite_here(bundle.path(), &given()).unwrap_err();
    assert!(
        format!("{error:#}").contains("vmspec.json: Is a directory"),
        "{error:#}"
    );
    assert_eq!(names(bundle.path()), [CONFIG, VMSPEC]);
    assert_eq!(fs::read(bundle.path().join(CONFIG)).unwrap(), CONFIG_JSON);
}

#[test]
fn what_is_no_configuration_is_named() {
    let bundle = tempfile::tempdir().unwrap();
    let path = bundle.path().join(CONFIG);
    let error = |bundle: &Path| format!("{:#}", rewrite_here(bundle, &given()).unwrap_err());
    assert!(error(bundle.path()).contains("config.json: No such file"));
    fs::write(&path, "{").unwrap();
    assert!(error(bundle.path()).contains("config.json: EOF while parsing"));
    let file = fs::File::create(&path).unwrap();
    file.set_len(MAX_SIZE + 1).unwrap();
    assert!(error(bundle.path()).ends_with("longer than the 16777216 bytes that are allowed"));
}
