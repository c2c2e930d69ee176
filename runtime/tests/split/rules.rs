//! The rules of the split, one by one.

use proto::{MountFlags, Mountable};
use serde_json::{Value, json};

use super::*;
use runtime::certs::{Certificates, Pair};

#[test]
fn what_shares_with_the_host_is_refused() {
    let text = refusal(&config("privileged"));
    assert!(text.starts_with("--privileged is not supported"), "{text}");
    for (kind, text) in [
        ("pid", "--pid host and --pid container:ID are not supported"),
        ("ipc", "--ipc host and --ipc container:ID are not supported"),
    ] {
        let without = changed(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != kind);
        });
        assert_eq!(refusal(&without), text);
        let another = changed(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            let own = namespaces
                .iter_mut()
                .find(|namespace| namespace["type"] == kind);
            own.unwrap()["path"] = "/proc/1/ns/x".into();
        });
        assert_eq!(refusal(&another), text);
    }
    let of_host = changed(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
    });
    assert!(refusal(&of_host).starts_with("--network host is not supported"));
    let mapped =
        changed(|config| push(&mut config["linux"]["namespaces"], json!({"type": "user"})));
    assert_eq!(
        refusal(&mapped),
        "user namespaces are not supported: use --userns host"
    );
}

#[test]
fn everything_allowed_is_privileged_in_any_spelling() {
    for rule in [
        json!({"allow": true, "access": "rwm"}),
        json!({"allow": true, "type": "a", "major": -1, "minor": -1}),
        json!({"allow": true, "type": "", "major": null}),
    ] {
        let config = changed(|config| push(&mut config["linux"]["resources"]["devices"], rule));
        assert!(refusal(&config).starts_with("--privileged"));
    }
    for rule in [
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "a", "major": 1}),
    ] {
        let config = changed(|config| push(&mut config["linux"]["resources"]["devices"], rule));
        split_with(&config, &[]);
    }
}

#[test]
fn a_configuration_without_a_command_is_refused() {
    let config = changed(|config| drop(config.as_object_mut().unwrap().remove("process")));
    assert_eq!(
        refusal(&config),
        "config.json: process is missing: there is nothing to run"
    );
    let config = changed(|config| config["process"]["args"] = json!([]));
    assert_eq!(refusal(&config), "config.json: process.args is empty");
    let config = changed(|config| config["root"] = Value::Null);
    assert_eq!(refusal(&config), "config.json: root is missing");
    let config = changed(|config| config["linux"] = Value::Null);
    assert_eq!(refusal(&config), "config.json: linux is missing");
}

#[test]
fn an_unknown_capability_is_refused() {
    let config = changed(|config| {
        config["process"]["capabilities"]["ambient"] = json!(["CAP_FLY"]);
    });
    assert_eq!(
        refusal(&config),
        "config.json: process.capabilities: capability \"CAP_FLY\" is unknown"
    );
}

#[test]
fn an_environment_that_no_message_carries_is_refused() {
    let long = format!("A={}", "x".repeat(proto::MAX_FRAME));
    let config = changed(|config| push(&mut config["process"]["env"], long.into()));
    let text = refusal(&config);
    let begin = "config.json: arguments, environment and mounts: a message of ";
    assert!(text.starts_with(begin), "{text}");
}

#[test]
fn a_wrong_variable_is_refused() {
    let config = changed(|config| push(&mut config["process"]["env"], "RUNQ_CPU=0".into()));
    assert_eq!(
        refusal(&config),
        "RUNQ_CPU=0: whole numbers of vCPUs from 1 to 1024 are allowed"
    );
}

#[test]
fn the_monitor_is_the_process() {
    let config = changed(|config| {
        config["process"]["env"] = json!(["A=b", "RUNQ_LOG=debug"]);
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "umask": 7, "additionalGids": [8]});
        config["process"]["apparmorProfile"] = "docker-default".into();
        config["process"]["oomScoreAdj"] = 300.into();
    });
    let split = split_with(&config, &[]);
    let process = &split.runc["process"];
    assert_eq!(process["args"], json!(["/proxy"]));
    assert_eq!(process["env"], json!(["RUNQ_LOG=debug"]));
    assert_eq!(process["user"], json!({"uid": 0, "gid": 0}));
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["apparmorProfile"], "docker-default");
    assert_eq!(process["oomScoreAdj"], 300);
    assert_eq!(process["capabilities"]["inheritable"], Value::Null);
    let guest = &split.vm.start.process;
    assert_eq!(guest.env, ["A=b", "RUNQ_LOG=debug", "RUNQ_COMMIT=0123abc"]);
    assert_eq!(
        (guest.user.uid, guest.user.gid, guest.umask),
        (5, 6, Some(7))
    );
    assert_eq!(guest.user.additional_gids, [8]);
    let quiet = split_with(&self::config("run"), &[]);
    assert_eq!(quiet.runc["process"]["env"], json!([]));
}

#[test]
fn only_a_terminal_needs_pseudo_terminals_on_the_host() {
    let without = split_with(&config("run"), &[]);
    assert!(!destinations(&without.runc["mounts"]).contains(&"/dev/pts"));
    assert_eq!(without.vm.start.process.terminal, None);
    let with = split_with(&config("run-ti"), &[]);
    assert_eq!(
        destinations(&with.runc["mounts"])[..3],
        ["/proc", "/dev", "/dev/pts"]
    );
    assert!(with.vm.start.process.terminal.is_some());
}

#[test]
fn mounts_of_the_monitor_that_are_missing_are_made() {
    let config = changed(|config| {
        config["mounts"] = Value::Null;
        config["process"]["terminal"] = true.into();
    });
    let split = split_with(&config, &[]);
    assert_eq!(
        destinations(&split.runc["mounts"]),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/run",
            "/run/vmspec.json",
            "/run/kills",
            "/run/started",
            "/sys",
            "/run/share/root",
            "/run/share/modules"
        ]
    );
    assert!(split.vm.start.mounts.is_empty());
}

#[test]
fn the_modules_of_the_kernel_are_shared_if_they_are_installed() {
    let with = split_with(&config("run"), &[]);
    let mounts = with.runc["mounts"].as_array().unwrap();
    let shared = mounts
        .iter()
        .find(|mount| mount["destination"] == "/run/share/modules");
    assert_eq!(
        *shared.unwrap(),
        json!({
            "destination": "/run/share/modules", "type": "bind", "source": "/var/lib/runq/vm/lib/modules",
            "options": ["bind", "ro", "rprivate", "nosuid", "nodev", "noexec"],
        })
    );
    let expected = Mountable::Bind {
        path: "modules".into(),
        flags: MountFlags::ALL,
    };
    assert_eq!(with.vm.start.modules, Some(expected));

    let host = Host {
        modules: false,
        ..host()
    };
    let without = split(&config("run"), &Given::new(), &host).unwrap();
    assert!(!destinations(&without.runc["mounts"]).contains(&"/run/share/modules"));
    assert_eq!(without.vm.start.modules, None);
}

#[test]
fn volumes_are_shared_with_fewer_rights_and_no_propagation() {
    let volume = json!({
        "destination": "/data", "type": "bind", "source": "data", "uidMappings": [],
        "options": ["rbind", "rshared", "ro", "exec", "x-own"],
    });
    let split = split_with(&changed(|config| config["mounts"] = json!([volume])), &[]);
    let mounts = split.runc["mounts"].as_array().unwrap();
    assert_eq!(
        *mounts.last().unwrap(),
        json!({
            "destination": "/run/share/volumes/0", "type": "bind", "source": "/run/bundle/data",
            "uidMappings": [],
            "options": [
                "rbind", "ro", "x-own", "rprivate",
                "nosuid", "nodev", "noexec", "rnosuid", "rnodev", "rnoexec",
            ],
        })
    );
    assert_eq!(targets(&split), [("/data", "volumes/0")]);
}

/// runc gives a plain option to the top mount alone, and what the host has mounted below a volume
/// kept its set-user-ID programs and devices in the monitor's mount namespace.
#[test]
fn what_is_mounted_below_a_volume_is_restricted_but_not_read_only_unless_that_is_asked() {
    let restricted = ["nosuid", "nodev", "noexec", "rnosuid", "rnodev", "rnoexec"];
    for asked in [
        &["rbind", "rw", "rsuid", "rdev", "rexec", "rnosuid"][..],
        &["rbind", "ro"],
        &["rbind", "rro"],
        &["bind", "ro"],
    ] {
        let volume = json!({"destination": "/v", "source": "/v", "options": asked});
        let split = split_with(&changed(|config| config["mounts"] = json!([volume])), &[]);
        let mounts = split.runc["mounts"].as_array().unwrap();
        let options = &mounts.last().unwrap()["options"];
        let expected = asked[..2].iter().chain(&["rprivate"]).chain(&restricted);
        assert_eq!(*options, json!(Vec::from_iter(expected)));
    }
}

#[test]
fn a_read_only_root_is_so_on_both_sides() {
    for readonly in [false, true] {
        let config = changed(|config| {
            config["root"] = json!({"path": "rootfs", "readonly": readonly});
        });
        let split = split_with(&config, &[]);
        assert_eq!(split.vm.start.root.read_only, readonly);
        let mounts = split.runc["mounts"].as_array().unwrap();
        let root = mounts
            .iter()
            .find(|mount| mount["destination"] == "/run/share/root");
        let mut options = vec![
            "rbind", "rprivate", "nosuid", "nodev", "noexec", "rnosuid", "rnodev", "rnoexec",
        ];
        options.extend(readonly.then_some("ro"));
        assert_eq!(
            *root.unwrap(),
            json!({
                "destination": "/run/share/root", "type": "bind", "source": "/run/bundle/rootfs",
                "options": options,
            })
        );
        assert_eq!(
            split.runc["root"],
            json!({"path": "/var/lib/runq/vm", "readonly": true})
        );
    }
}

#[test]
fn devices_of_the_container_are_the_guests_and_those_of_the_monitor_the_hosts() {
    let config = changed(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20_600},
            {"path": "/dev/sr0", "type": "b", "major": 11, "minor": 0, "uid": 1, "gid": 2},
        ]);
    });
    let split = split_with(&config, &[]);
    let node = |path: &str, block, (major, minor), mode, (uid, gid)| proto::Device {
        path: path.into(),
        block,
        major,
        minor,
        mode,
        uid,
        gid,
    };
    assert_eq!(
        split.vm.start.devices,
        [
            node("/dev/fuse", false, (10, 229), 0o600, (0, 0)),
            node("/dev/sr0", true, (11, 0), 0o666, (1, 2)),
        ]
    );
    let devices = split.runc["linux"]["devices"].as_array().unwrap();
    let paths: Vec<_> = devices.iter().map(|device| &device["path"]).collect();
    assert_eq!(paths, ["/dev/kvm", "/dev/vhost-net"]);
    let rules = split.runc["linux"]["resources"]["devices"]
        .as_array()
        .unwrap();
    assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
    for rule in [
        json!({"allow": true, "type": "c", "major": 10, "access": "rwm", "minor": 232}),
        json!({"allow": true, "type": "c", "major": 237, "access": "rwm"}),
    ] {
        assert!(rules.contains(&rule), "{rule}");
    }
    assert_eq!(rules.len(), 1 + 9 + 2 + 1);
    let unnamed = json!({"type": "c", "major": 1, "minor": 3});
    let config = changed(|config| push(&mut config["linux"]["devices"], unnamed));
    assert_eq!(
        refusal(&config),
        "config.json: linux.devices: /: this is no path for a device"
    );
    let pipe = json!({"path": "/dev/p", "type": "p"});
    let config = changed(|config| push(&mut config["linux"]["devices"], pipe));
    assert_eq!(
        refusal(&config),
        "config.json: linux.devices: /dev/p: type \"p\": only block and character devices are \
         supported"
    );
}

#[test]
fn filter_and_kernel_settings_are_the_guests() {
    let config = changed(|config| config["domainname"] = "example".into());
    let split = split_with(&config, &[]);
    let linux = split.runc["linux"].as_object().unwrap();
    assert!(!linux.contains_key("seccomp") && !linux.contains_key("sysctl"));
    let start = &split.vm.start;
    assert!(!start.process.seccomp.is_empty());
    let sysctls: Vec<_> = start
        .sysctls
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        sysctls,
        [
            "fs.file-max",
            "kernel.panic_on_oops",
            "vm.overcommit_memory",
            "vm.panic_on_oom",
            "kernel.domainname",
            "net.ipv4.ip_unprivileged_port_start",
            "net.ipv4.ping_group_range",
        ]
    );
    for name in ["maskedPaths", "readonlyPaths"] {
        assert_eq!(linux[name], config["linux"][name]);
    }
    assert_eq!(start.masked_paths[0], "/proc/asound");
    assert_eq!(start.read_only_paths[0], "/proc/bus");
    let unconfined = changed(|config| drop(config["linux"]["seccomp"].take()));
    assert!(
        split_with(&unconfined, &[])
            .vm
            .start
            .process
            .seccomp
            .is_empty()
    );
}

#[test]
fn name_servers_replace_dockers_file() {
    let split = split_with(
        &config("run"),
        &[
            ("dns", "8.8.8.8,::1"),
            ("dns-search", "a,b"),
            ("dns-opts", "ndots:1"),
        ],
    );
    let dns = split.vm.dns.as_ref().unwrap();
    assert_eq!(
        (dns.servers.len(), dns.search.len(), dns.options.len()),
        (2, 2, 1)
    );
    let of_docker = |split: &Split| {
        let targets = targets(split);
        targets
            .iter()
            .any(|(target, _)| *target == "/etc/resolv.conf")
    };
    assert!(!of_docker(&split) && !split.runc.to_string().contains("resolv.conf"));
    let without = split_with(&config("run"), &[]);
    assert!(of_docker(&without) && without.vm.dns.is_none());
}

#[test]
fn the_environment_file_is_quoted_and_the_users() {
    let config = changed(|config| {
        config["process"]["env"] = json!(["A=b c", "B=\"$x\\`", "no name=1", "C", "_D="]);
        config["process"]["user"] = json!({"uid": 5, "gid": 6});
    });
    let split = split_with(&config, &[("runqenv", "true")]);
    let [file] = &split.files[..] else {
        panic!("{:?}", split.files);
    };
    assert_eq!(file.contents, "A=\"b c\"\nB=\"\\\"\\$x\\\\\\`\"\n_D=\"\"\n");
    assert_eq!((file.mode, file.owner), (0o400, (5, 6)));
    let last = split.vm.start.mounts.last().unwrap();
    assert_eq!(last.target, "/.runqenv");
    let proto::Mountable::Bind { flags, .. } = &last.what else {
        panic!("{last:?}");
    };
    assert!(flags.read_only);
}

#[test]
fn a_tmpfs_by_default_does_not_hide_what_is_mounted() {
    let config = changed(|config| {
        config["mounts"] = json!([
            {"destination": "/data", "type": "bind", "source": "/data"},
            {"destination": "/tmp/sub", "type": "bind", "source": "/sub"},
            {"destination": "/var/tmp/", "type": "tmpfs", "options": ["size=1k"]},
        ]);
    });
    let split = split_with(&config, &[("tmpfs", "/tmp,/var/tmp,/other")]);
    assert_eq!(
        targets(&split),
        [
            ("/data", "volumes/0"),
            ("/tmp", ""),
            ("/tmp/sub", "volumes/1"),
            ("/var/tmp", ""),
            ("/other", ""),
        ]
    );
}

#[test]
fn systemd_mounts_control_groups_itself() {
    let config = changed(|config| push(&mut config["process"]["env"], "RUNQ_SYSTEMD=1".into()));
    let split = split_with(&config, &[]);
    assert!(split.vm.systemd);
    assert!(
        targets(&split)
            .iter()
            .all(|(target, _)| *target != "/sys/fs/cgroup")
    );
    let plain = split_with(&self::config("run"), &[]);
    assert!(targets(&plain).contains(&("/sys/fs/cgroup", "")));
}

/// A host on which certificates are installed.
fn host_with_certificates() -> Host {
    let pair = |name: &str| Pair {
        certificate: format!("{name}'s certificate"),
        key: format!("{name}'s key"),
    };
    Host {
        certificates: Ok(Certificates {
            authority: "authority".into(),
            agent: pair("agent"),
            client: pair("client"),
        }),
        ..host()
    }
}

#[test]
fn each_side_gets_its_part_of_the_certificates() {
    let split = split(&config("run"), &Given::new(), &host_with_certificates()).unwrap();
    let agent = split.vm.start.agent.unwrap();
    assert_eq!(
        [
            &agent.container,
            &agent.authority,
            &agent.certificate,
            &agent.key
        ],
        ["c0ffee", "authority", "agent's certificate", "agent's key"]
    );
    let file = split.files.iter().find(|file| file.name == "exec.json");
    let file = file.unwrap();
    assert_eq!((file.mode, file.owner), (0o400, (0, 0)));
    let expected = json!({
        "authority": "authority",
        "certificate": "client's certificate",
        "key": "client's key",
    });
    assert_eq!(
        serde_json::from_str::<Value>(&file.contents).unwrap(),
        expected
    );
    assert!(split.warnings.is_empty());
}

#[test]
fn without_an_agent_there_are_no_keys() {
    let noexec = given(&[("noexec", "true")]);
    let quiet = split(&config("run"), &noexec, &host_with_certificates()).unwrap();
    let missing = split(&config("run"), &Given::new(), &host()).unwrap();
    for split in [&quiet, &missing] {
        assert_eq!(split.vm.start.agent, None);
        assert!(split.files.iter().all(|file| file.name != "exec.json"));
    }
    assert!(quiet.warnings.is_empty());
    assert_eq!(
        missing.warnings,
        ["no docker exec: no certificates: `runq certs` makes certificates"]
    );
}

/// Init makes them in an image that it can write to, and runq before in one that it cannot.
#[test]
fn a_read_only_image_gets_the_mount_points_that_it_needs() {
    let image = |devices: Value| {
        changed(|config| {
            config["root"] = json!({"path": "rootfs", "readonly": true});
            config["process"]["cwd"] = "/work/dir".into();
            config["linux"]["devices"] = devices;
            config["mounts"] = json!([
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
                {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind"]},
                {"destination": "/data/in/it", "type": "bind", "source": "/srv/it", "options": ["rbind"]},
                {"destination": "/work", "type": "tmpfs", "source": "tmpfs"},
            ]);
        })
    };
    let split = split_with(&image(json!([])), &[]);
    let points: Vec<_> = split
        .mount_points
        .iter()
        .map(|point| {
            (
                point.path.as_str(),
                point.source.as_deref().and_then(Path::to_str),
            )
        })
        .collect();
    for expected in [
        ("/data", Some("/srv/data")),
        ("/work", None),
        ("/proc", None),
        ("/dev", None),
    ] {
        assert!(points.contains(&expected), "{expected:?}: {points:?}");
    }
    for (path, _) in points {
        let absent = ["/dev/", "/data/", "/work/"]
            .iter()
            .any(|below| path.starts_with(below));
        assert!(!absent, "{path}");
    }
    // Init makes such a device in the image.
    let device = json!([{"path": "/other/null", "type": "c", "major": 1, "minor": 3}]);
    let split = split_with(&image(device), &[]);
    assert_eq!(split.mount_points, []);
    let mounts = split.runc["mounts"].as_array().unwrap();
    let root = mounts
        .iter()
        .find(|mount| mount["destination"] == "/run/share/root");
    assert!(!root.unwrap()["options"].to_string().contains("\"ro\""));
}
