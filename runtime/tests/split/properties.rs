//! What holds for any configuration.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Parts of the host's configuration that are made anew.
const OURS: [&str; 12] = [
    "/root",
    "/mounts",
    "/process/args",
    "/process/env",
    "/process/user",
    "/process/capabilities",
    "/process/rlimits",
    "/linux/devices",
    "/linux/seccomp",
    "/linux/sysctl",
    "/linux/resources/devices",
    "/linux/resources/pids",
];

/// Pointers to all values.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    let children: Vec<_> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items
                .map(|(index, item)| (index.to_string(), item))
                .collect()
        }
        _ => Vec::new(),
    };
    for (name, child) in children {
        let name = name.replace('~', "~0").replace('/', "~1");
        pointers(child, &format!("{at}/{name}"), all);
    }
}

fn all_pointers(config: &Value) -> Vec<String> {
    let mut all = Vec::new();
    pointers(config, "", &mut all);
    all
}

fn is_ours(pointer: &str) -> bool {
    OURS.iter().any(|ours| pointer.starts_with(ours))
}

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[], {}, null, "/", -1])),
        Just(json!({"path": "/", "type": "c", "options": 1})),
    ]
}

proptest! {
    #[test]
    fn unknown_fields_stay_where_they_are(
        which in any::<Index>(),
        name in "x-[a-z]{1,8}",
        value in anything(),
    ) {
        let mut config = config("detach");
        let objects: Vec<_> = all_pointers(&config)
            .into_iter()
            .filter(|pointer| !is_ours(pointer) && config.pointer(pointer).unwrap().is_object())
            .collect();
        let pointer = which.get(&objects).as_str();
        config.pointer_mut(pointer).unwrap()[&name] = value.clone();
        // Strings are all that annotations and the like may have.
        if let Ok(split) = split(&config, &Given::new(), &host()) {
            prop_assert_eq!(split.runc.pointer(pointer).unwrap().get(&name), Some(&value));
        } else {
            prop_assert!(pointer.starts_with("/annotations"));
        }
    }

    #[test]
    fn no_value_at_any_place_is_more_than_refused(which in any::<Index>(), value in anything()) {
        let mut config = disks::add(
            config("detach"),
            &[disks::volume("/srv/a.img", "/dev/runq/a/none/ext4/a", &["rbind", "ro"])],
            &[disks::block("/dev/runq/b/unsafe", 8, 16)],
        );
        let all = all_pointers(&config);
        *config.pointer_mut(which.get(&all).as_str()).unwrap() = value;
        let dns = given(&[("dns", "::1"), ("tmpfs", "/tmp"), ("runqenv", "1")]);
        if let Err(error) = split(&config, &dns, &disks::host_with_files()) {
            let text = format!("{error:#}");
            prop_assert!(!text.is_empty() && !text.contains('\n'), "{}", text);
        }
    }
}
