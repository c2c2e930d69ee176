//! The limits of the container's processes, as files of a control group (Documentation/admin-guide/cgroup-v2.rst): what
//! runc makes of `linux.resources` on a host with cgroup v2, the guest has for its own group.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

/// The scheduler's period in microseconds if the configuration has a quota only
/// (config-linux.md, CPU).
pub(super) const DEFAULT_PERIOD: u64 = 100_000;

/// How a group says that there is no limit.
const NONE: &str = "max";

/// Files of the group, and what to write there, in this order. Shares are not among them: in the guest there is nobody to
/// share with. Nor are processors, which are the host's.
pub(crate) fn of(resources: Option<&LinuxResources>) -> Vec<(String, String)> {
    let Some(resources) = resources else {
        return Vec::new();
    };
    let memory = resources.memory().iter().flat_map(memory);
    let cpu = resources.cpu().iter().filter_map(cpu_max);
    let pids = resources.pids().iter().filter_map(pids_max);
    let files = memory.chain(cpu).chain(pids);
    files
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Swap comes first: it may be on only as long as memory is not limited.
fn memory(memory: &LinuxMemory) -> Vec<(&'static str, String)> {
    let given = |limit: Option<i64>| limit.filter(|bytes| *bytes != 0);
    let limit = given(memory.limit());
    let swap = swap_max(limit, given(memory.swap()));
    let files = [
        ("memory.swap.max", swap),
        ("memory.max", limit.map(bytes)),
        ("memory.low", given(memory.reservation()).map(bytes)),
    ];
    let files = files.into_iter();
    files
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// The specification counts memory and swap together, the group swap alone. Without a limit of memory swap has none, either.
fn swap_max(limit: Option<i64>, swap: Option<i64>) -> Option<String> {
    match (limit, swap) {
        (Some(..0), None) | (_, Some(..0)) => Some(NONE.to_owned()),
        (Some(limit @ 0..), Some(swap)) => Some(bytes(swap.saturating_sub(limit).max(0))),
        _ => None,
    }
}

fn bytes(limit: i64) -> String {
    u64::try_from(limit).map_or_else(|_| NONE.to_owned(), |limit| limit.to_string())
}

fn cpu_max(cpu: &LinuxCpu) -> Option<(&'static str, String)> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_none() && period.is_none() {
        return None;
    }
    let quota = quota.map_or_else(|| NONE.to_owned(), bytes);
    let period = period.unwrap_or(DEFAULT_PERIOD);
    Some(("cpu.max", format!("{quota} {period}")))
}

fn pids_max(pids: &LinuxPids) -> Option<(&'static str, String)> {
    let limit = Some(pids.limit()).filter(|limit| *limit != 0)?;
    Some(("pids.max", bytes(limit)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn files(resources: serde_json::Value) -> String {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let files = of(Some(&resources)).into_iter();
        let files: Vec<_> = files
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        files.join(", ")
    }

    #[test]
    fn limits_are_those_of_runc() {
        for (resources, expected) in [
            (json!({}), ""),
            (
                json!({"memory": {"limit": 0, "swap": 0}, "pids": {"limit": 0}}),
                "",
            ),
            (json!({"memory": {"limit": 64}}), "memory.max 64"),
            (
                json!({"memory": {"limit": 64, "swap": 128, "reservation": 32}}),
                "memory.swap.max 64, memory.max 64, memory.low 32",
            ),
            (
                json!({"memory": {"limit": 64, "swap": 64}}),
                "memory.swap.max 0, memory.max 64",
            ),
            (
                json!({"memory": {"limit": 64, "swap": -1}}),
                "memory.swap.max max, memory.max 64",
            ),
            (
                json!({"memory": {"limit": -1}}),
                "memory.swap.max max, memory.max max",
            ),
            (json!({"memory": {"swap": 64}}), ""),
            (json!({"cpu": {"shares": 7, "cpus": "0"}}), ""),
            (json!({"cpu": {"quota": 50_000}}), "cpu.max 50000 100000"),
            (json!({"cpu": {"quota": 5, "period": 10}}), "cpu.max 5 10"),
            (json!({"cpu": {"quota": -1}}), "cpu.max max 100000"),
            (json!({"cpu": {"period": 10}}), "cpu.max max 10"),
            (json!({"pids": {"limit": 7}}), "pids.max 7"),
            (json!({"pids": {"limit": -1}}), "pids.max max"),
        ] {
            assert_eq!(files(resources.clone()), expected, "{resources}");
        }
        assert_eq!(of(None), []);
    }
}
