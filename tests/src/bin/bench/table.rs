//! The report: what each monitor's boots cost, the goals, and what the exits were.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Column;
use crate::clock::Clock;
use crate::exit_names;
use crate::run::Run;

/// A figure of the table: how to get it from a run, and what it shall be for the guest that all boot.
struct Row {
    name: &'static str,
    goal: Option<f64>,
    decimals: usize,
    value: fn(&Run) -> f64,
}

/// In M instructions; only there can it be judged.
const BOOT_GOAL: f64 = 85.0;
const EXITS_GOAL: f64 = 1300.0;
const RSS_GOAL_KIB: f64 = 6144.0;
/// In MB.
const BINARY_GOAL: f64 = 6.0;

const ROWS: [Row; 8] = [
    row("boot", Some(BOOT_GOAL), 1, |run| Clock::value(run.boot)),
    row("exits", Some(EXITS_GOAL), 0, |run| run.kvm.exits as f64),
    row("  port I/O", None, 0, |run| run.kvm.io as f64),
    row("  MMIO", None, 0, |run| run.kvm.mmio as f64),
    row(
        "resident beside guest memory, KiB",
        Some(RSS_GOAL_KIB),
        0,
        |run| run.memory.beside_guest as f64,
    ),
    row("guest memory touched, KiB", None, 0, |run| {
        run.memory.guest as f64
    }),
    row("  in huge pages, KiB", None, 0, |run| {
        run.memory.guest_huge as f64
    }),
    row("page faults of the monitor", None, 0, |run| {
        run.minor_faults as f64
    }),
];

const fn row(
    name: &'static str,
    goal: Option<f64>,
    decimals: usize,
    value: fn(&Run) -> f64,
) -> Row {
    Row {
        name,
        goal,
        decimals,
        value,
    }
}

/// The first column is ours, the second the one that it is compared with, if it is there.
pub(crate) fn comparison(columns: &[Column], clock: Clock) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\nUntil the guest's first output, 1 vCPU, {} MiB: median (spread)",
        crate::monitor::GUEST_MIB
    );
    let _ = writeln!(text, "{}", clock.explanation());
    let mut head = vec!["".to_owned()];
    head.extend(columns.iter().map(|column| column.monitor.name.to_owned()));
    head.extend(["goal".to_owned(), "ours/QEMU".to_owned()]);
    line(&mut text, &head);
    for row in &ROWS {
        let goal = row
            .goal
            .filter(|_| clock == Clock::Instructions || row.name != "boot");
        let name = if row.name == "boot" {
            format!("boot, {}", clock.unit())
        } else {
            row.name.to_owned()
        };
        let values: Vec<_> = columns
            .iter()
            .map(|column| Spread::of(column, row.value))
            .collect();
        let cells = values
            .iter()
            .map(|value| value.show(row.decimals))
            .collect();
        let medians: Vec<f64> = values.iter().map(|value| value.median).collect();
        line(&mut text, &cells_of(name, cells, goal, &medians));
        if row.name == "boot" {
            before_guest(&mut text, columns);
        }
    }
    binary_sizes(&mut text, columns);
    for column in columns {
        let times: Vec<f64> = column
            .runs
            .iter()
            .filter_map(|run| run.init_ready)
            .collect();
        if let Some(spread) = Spread::over(times) {
            let name = column.monitor.name;
            let _ = writeln!(
                text,
                "{name}: init ready after {} {}, by --stats",
                spread.show(1),
                clock.unit()
            );
        }
    }
    text
}

fn before_guest(text: &mut String, columns: &[Column]) {
    let values: Vec<f64> = columns
        .iter()
        .map(|column| {
            column
                .traced
                .as_ref()
                .map_or(f64::NAN, |trace| Clock::value(trace.before_guest))
        })
        .collect();
    let cells = values.iter().map(|value| format!("{value:.1}")).collect();
    line(
        text,
        &cells_of(
            "  before the guest's first instruction".to_owned(),
            cells,
            None,
            &values,
        ),
    );
}

fn binary_sizes(text: &mut String, columns: &[Column]) {
    let values: Vec<f64> = columns
        .iter()
        .map(|column| column.monitor.size() as f64 / 1e6)
        .collect();
    let cells = values.iter().map(|value| format!("{value:.1}")).collect();
    line(
        text,
        &cells_of(
            "program without its libraries, MB".to_owned(),
            cells,
            Some(BINARY_GOAL),
            &values,
        ),
    );
}

/// Name, a cell for each column, the goal and whether it is reached, ours in relation to the second.
fn cells_of(name: String, cells: Vec<String>, goal: Option<f64>, values: &[f64]) -> Vec<String> {
    let mut line = vec![name];
    line.extend(cells);
    let ours = values.first().copied().unwrap_or(f64::NAN);
    line.push(goal.map_or(String::new(), |goal| {
        format!("<= {goal}{}", if ours <= goal { "" } else { ", MISSED" })
    }));
    let ratio = values.get(1).map_or(f64::NAN, |other| ours / other);
    line.push(if ratio.is_finite() {
        format!("{ratio:.2}")
    } else {
        String::new()
    });
    line
}

/// Whether ours has reached every goal that can be judged by this clock.
pub(crate) fn goals_reached(ours: &Column, clock: Clock) -> bool {
    let rows = ROWS.iter().all(|row| match row.goal {
        Some(_) if row.name == "boot" && clock != Clock::Instructions => true,
        Some(goal) => Spread::of(ours, row.value).median <= goal,
        None => true,
    });
    rows && ours.monitor.size() as f64 / 1e6 <= BINARY_GOAL
}

/// Exits by reason, and the ports and addresses behind them, the most frequent first.
pub(crate) fn exits(columns: &[Column]) -> String {
    let mut text = String::new();
    for column in columns {
        let Some(trace) = &column.traced else {
            continue;
        };
        let _ = writeln!(
            text,
            "\n{}: what the guest exited for, in one more boot",
            column.monitor.name
        );
        for (event, counts) in &trace.counts {
            let _ = writeln!(text, "  {event}: {}", most_frequent(event, counts));
        }
    }
    text
}

fn most_frequent(event: &str, counts: &BTreeMap<Vec<u64>, u64>) -> String {
    const MANY: usize = 16;
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, hits)| std::cmp::Reverse(**hits));
    let rest: u64 = sorted.iter().skip(MANY).map(|(_, hits)| **hits).sum();
    let mut parts: Vec<String> = sorted
        .iter()
        .take(MANY)
        .map(|(keys, hits)| format!("{hits} {}", exit_names::of(event, keys)))
        .collect();
    if rest > 0 {
        parts.push(format!("{rest} others"));
    }
    parts.join(", ")
}

fn line(text: &mut String, cells: &[String]) {
    for (index, cell) in cells.iter().enumerate() {
        let _ = if index == 0 {
            write!(text, "{cell:38}")
        } else {
            write!(text, " {cell:>18}")
        };
    }
    text.push('\n');
}

/// Several measurements of one thing.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    /// Largest less smallest, of the median.
    relative: f64,
}

impl Spread {
    fn of(column: &Column, value: fn(&Run) -> f64) -> Self {
        Self::over(column.runs.iter().map(value).collect()).unwrap_or(Self {
            median: f64::NAN,
            relative: 0.0,
        })
    }

    /// None if there are no values.
    fn over(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let median = *values.get(values.len() / 2)?;
        let width = values.last()? - values.first()?;
        Some(Self {
            median,
            relative: if width > 0.0 { width / median } else { 0.0 },
        })
    }

    fn show(&self, decimals: usize) -> String {
        let Self { median, relative } = self;
        format!("{median:.decimals$} ({:.1} %)", relative * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread() {
        let spread = Spread::over(vec![11.0, 10.0, 9.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                median: 10.0,
                relative: 0.2
            }
        );
        assert_eq!(spread.show(1), "10.0 (20.0 %)");
        assert_eq!(Spread::over(vec![5.0]).unwrap().relative, 0.0);
        assert_eq!(Spread::over(Vec::new()), None);
    }

    #[test]
    fn a_missed_goal_is_told() {
        let cells = |value| cells_of("exits".to_owned(), vec![], Some(1300.0), &[value, 2000.0]);
        assert_eq!(cells(1300.0), ["exits", "<= 1300", "0.65"]);
        assert_eq!(cells(1301.0), ["exits", "<= 1300, MISSED", "0.65"]);
    }
}
