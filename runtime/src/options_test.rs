use super::*;

fn read(given: &[(&'static str, &str)], environment: &[&str]) -> Result<Options> {
    let given = given.iter().map(|(name, value)| (*name, value.to_string()));
    let environment: Vec<_> = environment.iter().map(ToString::to_string).collect();
    Options::read(&given.collect(), &environment)
}

fn error(given: &[(&'static str, &str)], environment: &[&str]) -> String {
    read(given, environment).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let options = read(&[], &["PATH=/bin"]).unwrap();
    assert_eq!(
        options,
        Options {
            cpus: 1,
            memory_mib: 256,
            dns: None,
            tmpfs: Vec::new(),
            environment_file: false,
            cpu_features: "host".into(),
            p9_cache: None,
            root_disk: None,
            crypto: None,
            systemd: false,
            exec: true,
            log: None,
        }
    );
}

#[test]
fn a_variable_comes_before_the_option() {
    let options = read(
        &[("cpu", "2"), ("mem", "512"), ("runqenv", "true")],
        &["RUNQ_CPU=3", "RUNQ_CPU=4", "RUNQ_CPUS=9", "RUNQ_RUNQENV=0"],
    )
    .unwrap();
    assert_eq!(options.cpus, 4);
    assert_eq!(options.memory_mib, 512);
    assert!(!options.environment_file && options.exec);
    assert!(!read(&[("noexec", "true")], &[]).unwrap().exec);
    assert!(
        read(&[("noexec", "true")], &["RUNQ_NOEXEC=0"])
            .unwrap()
            .exec
    );
}

#[test]
fn what_is_wrong_is_named_with_its_value_and_what_is_allowed() {
    assert_eq!(
        error(&[("cpu", "2")], &["RUNQ_CPU=0"]),
        "RUNQ_CPU=0: whole numbers of vCPUs from 1 to 1024 are allowed"
    );
    assert_eq!(
        error(&[("mem", "lots")], &[]),
        "--mem lots: whole numbers of MiB from 64 to 67108864 are allowed"
    );
    assert_eq!(
        error(&[("mem", "63")], &[]),
        "--mem 63: whole numbers of MiB from 64 to 67108864 are allowed"
    );
    assert_eq!(
        error(&[], &["RUNQ_SYSTEMD=on"]),
        "RUNQ_SYSTEMD=on: 1, true, 0 and false are allowed"
    );
    assert_eq!(
        error(&[], &["RUNQ_NOEXEC=2"]),
        "RUNQ_NOEXEC=2: 1, true, 0 and false are allowed"
    );
    assert_eq!(
        error(&[("nestedvm", "maybe")], &[]),
        "--nestedvm maybe: 1, true, 0 and false are allowed"
    );
    // What is allowed depends on the architecture.
    let reason = CpuFeatures::parse("host,avx=maybe").unwrap_err();
    assert_eq!(
        error(&[], &["RUNQ_CPUARGS=host,avx=maybe"]),
        format!("RUNQ_CPUARGS=host,avx=maybe: {reason}")
    );
    assert_eq!(
        error(&[("tmpfs", "/tmp,run")], &[]),
        "--tmpfs /tmp,run: absolute paths without dots, separated by commas, are allowed"
    );
    assert_eq!(
        error(&[], &["RUNQ_CPU=1\n2"]),
        "RUNQ_CPU=1\\n2: whole numbers of vCPUs from 1 to 1024 are allowed"
    );
}

#[test]
fn variables_are_bounded_by_the_operators_options() {
    let bounds = [("max-cpu", "4"), ("max-mem", "512")];
    let options = read(&bounds, &["RUNQ_CPU=4", "RUNQ_MEM=512"]).unwrap();
    assert_eq!((options.cpus, options.memory_mib), (4, 512));
    assert_eq!(
        error(&bounds, &["RUNQ_MEM=513"]),
        "RUNQ_MEM=513: this host allows 512 MiB at most (--max-mem)"
    );
    assert_eq!(
        error(&bounds, &["RUNQ_CPU=5"]),
        "RUNQ_CPU=5: this host allows 4 vCPUs at most (--max-cpu)"
    );
    // The same hand writes both.
    let own = read(&[("mem", "1024"), ("max-mem", "512")], &[]).unwrap();
    assert_eq!(own.memory_mib, 1024);
    assert_eq!(
        error(&[("max-mem", "all")], &[]),
        "--max-mem all: whole numbers of MiB from 64 to 67108864 are allowed"
    );
}

#[test]
fn crypto_adapters_are_of_a_device_if_the_machine_can_have_any() {
    const UUID: &str = "62177883-f1bb-47f0-914d-32a22e3a8804";
    assert_eq!(read(&[], &["RUNQ_APUUID="]).unwrap().crypto, None);
    let uuid = format!("RUNQ_APUUID={UUID}");
    match vmm::ap::uuid(UUID) {
        Ok(_) => {
            let options = read(&[], &[&uuid]).unwrap();
            assert_eq!(options.crypto.as_deref(), Some(UUID));
            assert!(error(&[], &["RUNQ_APUUID=1"]).starts_with("RUNQ_APUUID=1: this is no UUID: "));
        }
        Err(_) => assert_eq!(
            error(&[], &[&uuid]),
            format!("{uuid}: crypto adapters are of s390x: leave them out on this machine")
        ),
    }
}

#[test]
fn a_log_has_levels() {
    for log in ["debug", "OFF", "warn,vmm=trace", "proxy::dns=info"] {
        let options = read(&[], &[&format!("RUNQ_LOG={log}")]).unwrap();
        assert_eq!(options.log.as_deref(), Some(log));
    }
    assert_eq!(read(&[], &["RUNQ_LOG="]).unwrap().log, None);
    for log in ["loud", "vmm", "vmm=loud", "=info", "info,", "debug trace"] {
        assert_eq!(
            error(&[], &[&format!("RUNQ_LOG={log}")]),
            format!(
                "RUNQ_LOG={log}: off, error, warn, info, debug, trace and lists of target=level are allowed"
            )
        );
    }
}

#[test]
fn a_9p_cache_is_one_that_linux_has() {
    let read = |given: &[_], environment: &[_]| read(given, environment).unwrap().p9_cache;
    for cache in P9Cache::ALL {
        assert_eq!(read(&[("9pcache", cache.name())], &[]), Some(cache));
    }
    assert_eq!(read(&[], &[]), None);
    let given = [("9pcache", "none")];
    assert_eq!(read(&given, &["RUNQ_9PCACHE=mmap"]), Some(P9Cache::Mmap));
    assert_eq!(read(&given, &["RUNQ_9PCACHE="]), None);
    assert_eq!(
        error(&[], &["RUNQ_9PCACHE=writeback"]),
        "RUNQ_9PCACHE=writeback: none, loose, fscache, mmap are allowed"
    );
    assert_eq!(
        error(&[("9pcache", "no")], &[]),
        "--9pcache no: none, loose, fscache, mmap are allowed"
    );
}

#[test]
fn name_servers_are_addresses() {
    let options = read(
        &[
            ("dns", "8.8.8.8,8.8.4.4"),
            ("dns-search", "a.example,b.example"),
        ],
        &["RUNQ_DNS_OPT=ndots:1 rotate"],
    )
    .unwrap();
    assert_eq!(
        options.dns,
        Some(Dns {
            servers: vec![
                Server::Address([8, 8, 8, 8].into()),
                Server::Address([8, 8, 4, 4].into()),
            ],
            search: vec!["a.example".into(), "b.example".into()],
            options: vec!["ndots:1".into(), "rotate".into()],
        })
    );
    for wrong in ["8.8.8.8.8", "a/b", "-a", "::1%eth0", "a;b"] {
        let expected = "IP addresses and names of containers, separated by commas, are allowed";
        assert_eq!(
            error(&[("dns", wrong)], &[]),
            format!("--dns {wrong}: {expected}")
        );
    }
    assert_eq!(
        error(&[("dns", "::1")], &["RUNQ_DNS_OPTS=a;b"]),
        "RUNQ_DNS_OPTS=a;b: words of letters, digits and -._:/ are allowed"
    );
}

#[test]
fn resolv_conf_stays_where_the_user_says_so() {
    let preserved = read(&[("dns", "8.8.8.8")], &["RUNQ_DNS_PRESERVE=1"]).unwrap();
    assert_eq!(preserved.dns, None);
    assert_eq!(read(&[], &[]).unwrap().dns, None);
}

#[test]
fn what_is_set_to_nothing_is_nothing() {
    let given = [("dns", "8.8.8.8"), ("dns-search", "a"), ("dns-opts", "b")];
    let dns = |given: &[_], environment: &[_]| read(given, environment).unwrap().dns.unwrap();
    let nothing = ["RUNQ_DNS=", "RUNQ_DNS_SEARCH=", "RUNQ_DNS_OPTS="];
    assert_eq!(dns(&given, &nothing), Dns::default());
    assert_eq!(dns(&[("dns", "")], &[]), Dns::default());
    assert_eq!(dns(&[], &["RUNQ_DNS_OPT="]), Dns::default());
    let without_servers = dns(&given, &nothing[..1]);
    assert_eq!(without_servers.servers, []);
    assert_eq!(
        (without_servers.search, without_servers.options),
        (vec!["a".into()], vec!["b".into()])
    );
}

#[test]
fn name_servers_can_be_containers() {
    let options = read(&[], &["RUNQ_DNS=::1,dns_proxy.1-a"]).unwrap();
    let container = Server::Container {
        name: "dns_proxy.1-a".into(),
        setting: "RUNQ_DNS=dns_proxy.1-a".into(),
    };
    let expected = [Server::Address("::1".parse().unwrap()), container];
    assert_eq!(options.dns.unwrap().servers, expected);
}

#[test]
fn paths_lose_slashes_at_their_ends() {
    let options = read(&[("tmpfs", "/tmp/,/var/tmp")], &[]).unwrap();
    assert_eq!(options.tmpfs, ["/tmp", "/var/tmp"]);
}

#[test]
fn a_root_disk_has_the_id_of_a_disk_and_paths_that_are_not_copied() {
    let read = |environment: &[_]| read(&[], environment).unwrap().root_disk;
    let root_disk = |id: &str, exclude: &[&str]| {
        let exclude = exclude.iter().map(ToString::to_string).collect();
        let id = id.to_owned();
        Some(RootDisk { id, exclude })
    };
    assert_eq!(read(&["RUNQ_ROOTDISK=a-B_1"]), root_disk("a-B_1", &[]));
    let exclude = "RUNQ_ROOTDISK_EXCLUDE=/var/cache/,/srv";
    assert_eq!(
        read(&["RUNQ_ROOTDISK=root", exclude]),
        root_disk("root", &["/var/cache", "/srv"])
    );
    assert_eq!(read(&["RUNQ_ROOTDISK=", exclude]), None);
    assert_eq!(read(&[exclude]), None);

    assert_eq!(
        error(&[], &["RUNQ_ROOTDISK=a b"]),
        "RUNQ_ROOTDISK=a b: disk ID \"a b\": 1 to 36 of a-z, A-Z, 0-9, - and _ are allowed"
    );
    for exclude in ["srv", "/srv/../etc", "/", "/a,b"] {
        let exclude = format!("RUNQ_ROOTDISK_EXCLUDE={exclude}");
        assert_eq!(
            error(&[], &["RUNQ_ROOTDISK=root", &exclude]),
            format!("{exclude}: absolute paths without dots, separated by commas, are allowed")
        );
    }
}
