use clap::CommandFactory;

use super::*;

fn parse(args: &[&str]) -> Options {
    let args = ["runq-vmm"].iter().chain(args);
    Cli::try_parse_from(args).unwrap().options
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn sizes_are_mib_or_have_a_suffix() {
    let bytes = |text: &str| text.parse::<Size>().map(|size| size.0);
    assert_eq!(bytes("64"), Ok(64 << 20));
    assert_eq!(bytes("64M"), Ok(64 << 20));
    assert_eq!(bytes("512MiB"), Ok(512 << 20));
    assert_eq!(bytes("5g"), Ok(5 << 30));
    assert_eq!(bytes("65536k"), Ok(64 << 20));
    for wrong in [
        "",
        "M",
        "1.5G",
        "-1",
        "64X",
        "99999999999999999999",
        "99999999T",
    ] {
        assert!(bytes(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn shares_have_a_tag_a_directory_and_perhaps_ro() {
    let share: Share = "data=/srv/a=b:ro".parse().unwrap();
    assert_eq!(share.tag, "data");
    assert_eq!(share.directory, Path::new("/srv/a=b"));
    assert!(share.read_only);
    assert!(!"data=/srv".parse::<Share>().unwrap().read_only);
    for wrong in ["", "data", "=dir", "data=", "data=:ro"] {
        assert!(wrong.parse::<Share>().is_err(), "{wrong}");
    }
}

#[test]
fn a_file_says_the_same_as_the_command_line() {
    let json = r#"{
        "rootfs": "/r", "share": ["data=/d:ro"], "9pcache": "loose", "disk": ["d.img,ro"], "net": ["tap=t"], "vsock": "cid=7", "ap": "u",
        "kernel": "/k", "initrd": "/i", "modules": "/m", "cmdline": "quiet", "cpus": 2, "mem": "1G", "cpu": "host,-avx2", "console": "virtio",
        "stats": true, "trace": true, "command": ["/bin/echo", "hi"]
    }"#;
    let args = [
        "--rootfs",
        "/r",
        "--share",
        "data=/d:ro",
        "--9pcache",
        "loose",
        "--disk",
        "d.img,ro",
        "--net",
        "tap=t",
        "--ap",
        "u",
        "--vsock",
        "cid=7",
        "--kernel",
        "/k",
        "--initrd",
        "/i",
        "--modules",
        "/m",
        "--cmdline",
        "quiet",
        "--cpus",
        "2",
        "--mem",
        "1G",
        "--cpu",
        "host,-avx2",
        "--console",
        "virtio",
        "--stats",
        "--trace",
        "--",
        "/bin/echo",
        "hi",
    ];
    let file: Options = serde_json::from_str(json).unwrap();
    assert_eq!(file, parse(&args));
}

#[test]
fn the_command_line_comes_before_the_file() {
    let file: Options =
        serde_json::from_str(r#"{"cpus": 2, "mem": 512, "command": ["a"]}"#).unwrap();
    let both = parse(&["--cpus", "3", "--", "b"]).or(file);
    assert_eq!(both.cpus, Some(3));
    assert_eq!(both.mem, Some(Size(512 << 20)));
    assert_eq!(both.command, ["b"]);
}

#[test]
fn unknown_fields_are_refused_by_name() {
    let error = serde_json::from_str::<Options>(r#"{"cpu_count": 2}"#).unwrap_err();
    assert!(error.to_string().contains("cpu_count"), "{error}");
}

#[test]
fn a_file_can_say_all_that_init_is_told() {
    let json = r#"{"start": {"hostname": "h", "process": {"args": ["a"], "umask": 7}}}"#;
    let options: Options = serde_json::from_str(json).unwrap();
    let start = options.start().unwrap();
    assert_eq!(start.hostname.as_deref(), Some("h"));
    assert_eq!(start.process.umask, Some(7));
    options.check().unwrap();

    let error = parse(&["--", "ls"]).or(options).check().unwrap_err();
    assert!(error.to_string().contains("\"ls\""), "{error}");
    let wrong = r#"{"start": {"process": {"arg": ["a"]}}}"#;
    let error = serde_json::from_str::<Options>(wrong).unwrap_err();
    assert!(error.to_string().contains("`arg`"), "{error}");
}

#[test]
fn what_is_wrong_in_itself_is_found_and_named() {
    let wrong = |args: &[&str]| parse(args).check().unwrap_err().to_string();
    assert!(wrong(&["--cpus", "0"]).contains("--cpus 0"));
    assert!(wrong(&["--mem", "63"]).contains("64 MiB"));
    assert!(wrong(&["--rootfs", "/"]).contains("no command"));
    assert!(wrong(&["--", "ls"]).contains("--rootfs"));
    let twice = wrong(&["--share", "a=/x", "--share", "b=/y", "--share", "a=/z"]);
    assert!(twice.contains("a=") && twice.contains("twice"), "{twice}");
    assert!(wrong(&["--rootfs", "/", "--share", "root=/x", "--", "ls"]).contains("another"));
    parse(&[
        "--rootfs", "/", "--share", "a=/x", "--mem", "64", "--", "ls",
    ])
    .check()
    .unwrap();
    parse(&[]).check().unwrap();
}
