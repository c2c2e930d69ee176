use proptest::prelude::*;
use proto::WindowSize;

use super::*;

/// The container of the recorded configuration.
fn container() -> Process {
    let config = include_str!("../../testdata/config.run.json");
    let config: Value = serde_json::from_str(config).unwrap();
    let spec = spec::read(&config).unwrap();
    translate(spec::process(&spec).unwrap()).unwrap()
}

/// As dockerd writes it: with what Go leaves out or null.
fn process(more: Value) -> Value {
    let mut process = json!({
        "user": {"uid": 3, "gid": 4, "additionalGids": [5]},
        "args": ["sh", "-c", "id"],
        "env": ["PATH=/bin", "A=b"],
        "cwd": "/data",
        "rlimits": null,
    });
    for (name, value) in more.as_object().unwrap() {
        process[name] = value.clone();
    }
    process
}

#[test]
fn all_that_is_known_is_told() {
    let more = json!({
        "terminal": true,
        "consoleSize": {"height": 24, "width": 80},
        "noNewPrivileges": true,
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    });
    let exec = parse(process(more), &container()).unwrap();
    assert_eq!(exec.args, ["sh", "-c", "id"]);
    assert_eq!(exec.env.unwrap(), ["PATH=/bin", "A=b"]);
    assert_eq!(exec.cwd.unwrap(), "/data");
    let user = User {
        uid: 3,
        gid: 4,
        additional_gids: vec![5],
    };
    assert_eq!(exec.user, Some(ExecUser::Known(user)));
    assert_eq!(exec.capabilities.unwrap().permitted, 1 << 5);
    assert_eq!(exec.no_new_privileges, Some(true));
    assert_eq!(exec.terminal, Some(WindowSize { rows: 24, cols: 80 }));
    assert!(!exec.unfiltered && exec.more_env.is_empty() && exec.rlimits.is_some());
}

#[test]
fn privileged_is_what_has_all_that_the_container_has_not() {
    let config = include_str!("../../testdata/config.privileged.json");
    let config: Value = serde_json::from_str(config).unwrap();
    let capabilities = &config["process"]["capabilities"];
    let privileged = process(json!({ "capabilities": capabilities }));
    let mut container = container();
    assert!(parse(privileged.clone(), &container).unwrap().unfiltered);
    let own = process(json!({}));
    assert!(!parse(own, &container).unwrap().unfiltered);
    container.capabilities = None;
    assert!(!parse(privileged, &container).unwrap().unfiltered);
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("process");
    std::fs::write(&file, process(json!({"args": []})).to_string()).unwrap();
    let error = format!("{:#}", read(&file, &container()).unwrap_err());
    let expected = format!("--process {}: process.args is empty", file.display());
    assert_eq!(error, expected);
    let error = format!(
        "{:#}",
        read(&folder.path().join("no"), &container()).unwrap_err()
    );
    assert!(error.starts_with("--process: /"), "{error}");
}

#[test]
fn users_by_number_and_name() {
    let own = container();
    let groups = |groups: &[&str]| groups.iter().map(ToString::to_string).collect::<Vec<_>>();
    let known = |uid, gid, additional_gids| {
        ExecUser::Known(User {
            uid,
            gid,
            additional_gids,
        })
    };
    assert_eq!(user(None, &[], &own).unwrap(), None);
    assert_eq!(
        user(Some("7"), &[], &own).unwrap(),
        Some(known(7, 0, vec![]))
    );
    let more = groups(&["9", "10"]);
    assert_eq!(
        user(Some("7:8"), &more, &own).unwrap(),
        Some(known(7, 8, vec![9, 10]))
    );
    assert_eq!(
        user(Some("joe:8"), &[], &own).unwrap(),
        Some(ExecUser::Named("joe:8".into()))
    );
    let mut all = own.user.additional_gids.clone();
    all.extend([9, 10]);
    assert_eq!(
        user(None, &more, &own).unwrap(),
        Some(known(own.user.uid, own.user.gid, all))
    );
    assert!(user(Some("joe"), &more, &own).is_err());
    let error = user(None, &groups(&["staff"]), &own).unwrap_err();
    assert!(format!("{error:#}").starts_with("--additional-gids staff: a number is needed"));
}

#[test]
fn capabilities_beside_the_containers() {
    let own = container();
    assert_eq!(add_capabilities(&[], &own).unwrap(), None);
    let sets = add_capabilities(&["CAP_SYS_ADMIN".into(), "sys_time".into()], &own);
    let (sets, before) = (sets.unwrap().unwrap(), own.capabilities.unwrap());
    let added = (1 << 21) | (1 << 25);
    assert_eq!(sets.bounding, before.bounding | added);
    assert_eq!(sets.permitted, before.permitted | added);
    assert_eq!(sets.inheritable, before.inheritable);
    let error = add_capabilities(&["CAP_MOON".into()], &own).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--cap CAP_MOON: there is no such capability"
    );
}

/// JSON of any form, of the names that a process has.
fn any_json() -> impl Strategy<Value = Value> {
    let names =
        "terminal|consoleSize|user|args|env|cwd|capabilities|rlimits|uid|bounding|type|height";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z/_]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(
                proptest::sample::select(names.split('|').collect::<Vec<_>>()),
                inner,
                0..6
            )
            .prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_process_is_translated_or_refused(
        field in proptest::sample::select(vec![
            "terminal", "consoleSize", "user", "args", "env", "cwd", "capabilities", "rlimits",
        ]),
        value in any_json(),
    ) {
        let mut process = process(json!({}));
        process[field] = value;
        if let Ok(exec) = parse(process.clone(), &container()) {
            prop_assert!(!exec.args.is_empty());
            prop_assert!(exec.cwd.unwrap().starts_with('/'));
        } else {
            prop_assert!(parse(Value::Null, &container()).is_err());
        }
    }
}
