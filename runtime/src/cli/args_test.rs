use super::*;

fn parse(line: &str) -> CommandLine {
    CommandLine::parse(line.split_whitespace().map(OsString::from)).unwrap()
}

fn words(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    words.join(" ")
}

#[test]
fn only_our_own_options_are_removed() {
    let line = parse(
        "--cpu 2 --debug --root /run/x --mem=512 --log /l --log-format json --dns-preserve create \
         --bundle /b --cpu 9 --pid-file /p ID",
    );
    assert_eq!(
        words(&line.globals),
        "--debug --root /run/x --log /l --log-format json"
    );
    assert_eq!(
        words(&line.command),
        "create --bundle /b --cpu 9 --pid-file /p ID"
    );
    let ours: Vec<_> = line.ours.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert_eq!(
        ours,
        [("cpu", "2"), ("dns-preserve", "true"), ("mem", "512")]
    );
}

#[test]
fn a_value_may_look_like_an_option_or_a_command() {
    let line = parse("--root create --dns --debug --log --mem state ID");
    assert_eq!(words(&line.globals), "--root create --log --mem");
    assert_eq!(line.ours.get("dns").unwrap(), "--debug");
    assert_eq!(words(&line.command), "state ID");
}

#[test]
fn an_unknown_option_may_have_a_value() {
    for (options, command) in [
        ("--new", "create -b /b ID"),
        ("--new value", "create -b /b ID"),
        ("--new=create", "run ID"),
        ("--new --other value", "run ID"),
    ] {
        let line = parse(&format!("{options} {command}"));
        assert_eq!(words(&line.globals), options);
        assert_eq!(words(&line.command), command);
    }
}

#[test]
fn the_last_of_two_counts() {
    let line = parse("--cpu 1 --cpu=2 --noexec --noexec=false --log a --log=b --root=r list");
    assert_eq!(line.ours.get("cpu").unwrap(), "2");
    assert_eq!(line.ours.get("noexec").unwrap(), "false");
    assert_eq!(line.global("log").unwrap(), PathBuf::from("b"));
    assert_eq!(line.global("root").unwrap(), PathBuf::from("r"));
    assert_eq!(line.global("log-format"), None);
}

#[test]
fn a_value_that_is_missing_is_told() {
    let error = CommandLine::parse(["--cpu".into()]).unwrap_err();
    assert_eq!(error.to_string(), "--cpu: a value has to follow");
}

#[test]
fn one_dash_is_enough_for_runc() {
    let line = parse("-root /r -debug -version");
    assert_eq!(line.global("root").unwrap(), PathBuf::from("/r"));
    assert!(line.has(&["version", "v"]));
    assert!(!line.has(&["help", "h"]));
    assert!(line.command.is_empty());
    assert_eq!(line.name(), "");
}

#[test]
fn options_of_the_command_are_found_on_both_sides_of_its_operand() {
    let values = ["bundle", "b", "pid-file"];
    for line in [
        "create --pid-file --bundle -b /b ID",
        "create ID --bundle=/b",
        "create --bundle /a --bundle /b ID",
    ] {
        let line = parse(line);
        assert_eq!(
            line.option(&["bundle", "b"], &values).unwrap(),
            PathBuf::from("/b")
        );
        assert_eq!(line.operand(&values).unwrap(), "ID");
    }
    let line = parse("create -- --bundle");
    assert_eq!(line.option(&["bundle", "b"], &values), None);
    assert_eq!(line.operand(&values).unwrap(), "--bundle");
    assert_eq!(parse("create").operand(&values), None);
}

#[test]
fn bytes_that_are_not_text_pass() {
    use std::os::unix::ffi::OsStringExt;

    let odd = OsString::from_vec(b"--x\xff=y".to_vec());
    let line = CommandLine::parse([odd.clone(), "list".into()]).unwrap();
    assert_eq!(line.globals, [odd]);
    assert_eq!(words(&line.command), "list");
    let error = CommandLine::parse(["--mem".into(), OsString::from_vec(vec![0xff])]).unwrap_err();
    assert_eq!(error.to_string(), "--mem \"\\xFF\": not text");
}
