//! Memory, processors and processes: what the host gives, and what the guest limits.

use serde_json::json;

use super::*;

const GIB: i64 = 1 << 30;
const MIB: i64 = 1 << 20;

/// What the monitor needs beside guest memory: 64 MiB, and 3 KiB for each file that the guest may know.
fn monitor(memory_mib: i64) -> i64 {
    64 * MIB + (16_384 + 32 * memory_mib) * 3072
}

#[test]
fn memory_is_what_the_container_asks_for_and_more() {
    let limits = |split: &Split| split.runc["linux"]["resources"]["memory"].clone();
    let split = split_with(&config("run"), &[("mem", "512")]);
    assert_eq!(split.vm.memory_mib, 512);
    assert_eq!(limits(&split), json!({}));
    let memory = json!({
        "limit": GIB, "swap": 2 * GIB, "reservation": 100 * MIB, "swappiness": 7, "kernel": -1,
    });
    let limited = changed(|config| config["linux"]["resources"]["memory"] = memory);
    let split = split_with(&limited, &[("mem", "512")]);
    assert_eq!(split.vm.memory_mib, 1024 + 512);
    let raise = 512 * MIB + monitor(1536);
    assert_eq!(
        limits(&split),
        json!({
            "limit": GIB + raise, "swap": 2 * GIB + raise, "reservation": 100 * MIB + raise,
            "swappiness": 7, "kernel": -1,
        })
    );
    let memory = json!({"limit": 100 * MIB + 1, "swap": -1});
    let limited = changed(|config| config["linux"]["resources"]["memory"] = memory);
    let split = split_with(&limited, &[]);
    assert_eq!(split.vm.memory_mib, 256 + 101);
    assert_eq!(
        limits(&split),
        json!({"limit": (256 + 101) * MIB + monitor(256 + 101), "swap": -1})
    );
}

#[test]
fn of_memory_there_is_no_more_than_the_host_has() {
    let host = host().memory_mib;
    for limit in [6 * GIB, i64::MAX] {
        let memory = json!({"limit": limit, "swap": limit});
        let limited = changed(|config| config["linux"]["resources"]["memory"] = memory.clone());
        let split = split_with(&limited, &[]);
        assert_eq!(split.vm.memory_mib, host);
        // Above what the monitor needs as it is.
        assert_eq!(split.runc["linux"]["resources"]["memory"], memory);
    }
    let memory = json!({"limit": 4096 * MIB});
    let limited = changed(|config| config["linux"]["resources"]["memory"] = memory.clone());
    let split = split_with(&limited, &[]);
    assert_eq!(split.vm.memory_mib, host);
    let raised = &split.runc["linux"]["resources"]["memory"]["limit"];
    assert_eq!(*raised, 4096 * MIB + monitor(4096));
}

#[test]
fn what_this_host_cannot_give_is_refused() {
    let refusal = |option, value| {
        let error = split(&config("run"), &given(&[(option, value)]), &host()).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        refusal("mem", "4097"),
        "4097 MiB of memory (RUNQ_MEM, --mem): this host has 4096 MiB"
    );
    assert_eq!(
        refusal("cpu", "17"),
        "17 vCPUs (RUNQ_CPU, --cpu): this host's KVM gives a machine 16 at most"
    );
    let split = split_with(&config("run"), &[("mem", "4096"), ("cpu", "16")]);
    assert_eq!((split.vm.memory_mib, split.vm.cpus), (4096, 16));
}

#[test]
fn processors_are_those_of_the_option_and_of_the_quota_as_far_as_the_host_has_them() {
    for (option, cpu, cpus) in [
        ("2", json!({"shares": 5}), 2),
        ("2", json!({"quota": 100_000, "period": 100_000}), 3),
        ("2", json!({"quota": 150_000, "period": 100_000}), 4),
        ("2", json!({"quota": 250_000}), 5),
        ("2", json!({"quota": -1, "period": 0}), 2),
        ("2", json!({"quota": 800_000}), 8),
        ("2", json!({"quota": i64::MAX, "period": 1}), 8),
        // What was asked for by name may be more than the host has.
        ("9", json!({"quota": 100_000}), 9),
    ] {
        let config = changed(|config| config["linux"]["resources"]["cpu"] = cpu.clone());
        let split = split_with(&config, &[("cpu", option)]);
        assert_eq!(split.vm.cpus, cpus, "{cpu}");
        assert_eq!(split.runc["linux"]["resources"]["cpu"], cpu);
    }
}

#[test]
fn a_limit_of_processes_moves_to_the_guest() {
    for (limit, expected) in [(100, Some("100")), (0, None), (-1, Some("max"))] {
        let config = changed(|config| config["linux"]["resources"]["pids"]["limit"] = limit.into());
        let split = split_with(&config, &[]);
        let expected = expected.map(|value| ("pids.max".to_owned(), value.to_owned()));
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(split.vm.start.cgroup, Some(expected));
        assert_eq!(split.runc["linux"]["resources"].get("pids"), None);
    }
}

#[test]
fn limits_of_memory_and_processors_hold_in_the_guest_too() {
    let limited = changed(|config| {
        let resources = &mut config["linux"]["resources"];
        resources["memory"] = json!({"limit": 64 * MIB, "swap": 128 * MIB});
        resources["cpu"] = json!({"quota": 50_000, "period": 100_000, "cpus": "0"});
    });
    let group = split_with(&limited, &[]).vm.start.cgroup.unwrap();
    let group: Vec<_> = group
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    assert_eq!(
        group,
        [
            "memory.swap.max 67108864",
            "memory.max 67108864",
            "cpu.max 50000 100000"
        ]
    );
}
