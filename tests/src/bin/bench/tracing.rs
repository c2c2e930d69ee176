//! Exits by reason, and when the guest ran first, from KVM's tracepoints (Linux `trace/histogram.rst`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

const DIRECTORY: &str = "/sys/kernel/tracing";

/// Event, and what to count it by.
const HISTOGRAMS: [(&str, &str); 4] = [
    ("kvm_exit", "isa,exit_reason"),
    ("kvm_pio", "rw,port"),
    ("kvm_mmio", "type,gpa"),
    ("kvm_msr", "write,ecx"),
];
/// Told one by one: the start of a program, and the guest's entries, of which the first is of interest.
const TOLD: [&str; 2] = [
    "events/sched/sched_process_exec/enable",
    "events/kvm/kvm_entry/enable",
];

/// Tracepoints that are on; off again when this is dropped.
pub(crate) struct Tracing(());

/// What the tracepoints saw.
pub(crate) struct Trace {
    /// From exec of the monitor to the first entry of the guest.
    pub(crate) before_guest: Duration,
    /// By event: how often each combination of keys came.
    pub(crate) counts: BTreeMap<&'static str, BTreeMap<Vec<u64>, u64>>,
}

impl Tracing {
    /// Switches the tracepoints on.
    ///
    /// # Errors
    /// When tracefs is not mounted, the module kvm not loaded, or the kernel without histograms.
    pub(crate) fn start() -> Result<Self> {
        let tracing = Self(());
        write("trace_clock", "mono")?;
        write("trace", "")?;
        for (event, keys) in HISTOGRAMS {
            write(&trigger(event), &histogram_of(keys))?;
        }
        for event in TOLD {
            write(event, "1")?;
        }
        write("tracing_on", "1")?;
        Ok(tracing)
    }

    /// What was seen of the one run since [`Tracing::start`].
    ///
    /// # Errors
    /// When tracefs cannot be read, or the guest was never entered.
    pub(crate) fn finish(self) -> Result<Trace> {
        let trace = read("trace")?;
        let exec = first_time(&trace, "sched_process_exec").context("no exec in the trace")?;
        let entry =
            first_time(&trace, "kvm_entry").context("no entry of the guest in the trace")?;
        let mut counts = BTreeMap::new();
        for (event, _) in HISTOGRAMS {
            counts.insert(
                event,
                histogram(&read(&format!("events/kvm/{event}/hist"))?),
            );
        }
        Ok(Trace {
            before_guest: entry.saturating_sub(exec),
            counts,
        })
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        let _ = write("tracing_on", "0");
        for event in TOLD {
            let _ = write(event, "0");
        }
        for (event, keys) in HISTOGRAMS {
            let _ = write(&trigger(event), &format!("!{}", histogram_of(keys)));
        }
        let _ = write("trace", "");
    }
}

fn histogram_of(keys: &str) -> String {
    format!("hist:keys={keys}")
}

fn trigger(event: &str) -> String {
    format!("events/kvm/{event}/trigger")
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn write(name: &str, text: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, text).with_context(|| format!("write {text:?} to {}", path.display()))
}

fn read(name: &str) -> Result<String> {
    let path = path(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The time of the first `event`: `vcpu0-123 [000] d.... 12.345678: kvm_entry: ...`, in seconds.
fn first_time(trace: &str, event: &str) -> Option<Duration> {
    let marked = format!(": {event}: ");
    let (head, _) = trace.lines().find_map(|line| line.split_once(&marked))?;
    let (whole, micros) = head.split_whitespace().last()?.split_once('.')?;
    Some(Duration::from_secs(whole.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}

/// Lines such as `{ rw:          1, port:       1016 } hitcount:         43`.
fn histogram(text: &str) -> BTreeMap<Vec<u64>, u64> {
    text.lines().filter_map(bucket).collect()
}

fn bucket(line: &str) -> Option<(Vec<u64>, u64)> {
    let (keys, hits) = line.strip_prefix("{ ")?.split_once(" } hitcount:")?;
    let hits = hits.split_whitespace().next()?.parse().ok()?;
    let value = |key: &str| key.split_once(':')?.1.trim().parse().ok();
    let keys = keys.split(',').map(value).collect::<Option<_>>()?;
    Some((keys, hits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_read() {
        let text = "# event histogram\n#\n\n\
            { rw:          1, port:       1016 } hitcount:         43\n\
            { rw:          0, port:       1021 } hitcount:          7\n\nTotals:\n    Hits: 50\n";
        let expected = BTreeMap::from([(vec![1, 1016], 43), (vec![0, 1021], 7)]);
        assert_eq!(histogram(text), expected);
    }

    #[test]
    fn the_first_events_time_is_found() {
        let trace = "# tracer: nop\n#\n\
            \x20        bench-120     [000] .....     9.000001: sched_process_exec: filename=/a pid=123\n\
            \x20        vcpu0-123     [000] d....    12.345678: kvm_entry: vcpu 0\n";
        assert_eq!(
            first_time(trace, "kvm_entry"),
            Some(Duration::from_micros(12_345_678))
        );
        assert_eq!(
            first_time(trace, "sched_process_exec"),
            Some(Duration::from_micros(9_000_001))
        );
        assert_eq!(first_time("# tracer: nop\n", "kvm_entry"), None);
    }
}
