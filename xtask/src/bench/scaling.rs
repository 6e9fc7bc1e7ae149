//! The table of how figures change with one thing at a time.

use std::fmt::Write as _;

use serde::Deserialize;

use super::page::Cells;
use super::targets::Target;

/// How much dearer an alert may be with many plugins in the folder than with those that are steps.
const FLAT: f64 = 1.05;

/// What varies then, as the program calls it.
const FOLDER: &str = "plugins in the folder";

/// What the program says. Times are in microseconds.
#[derive(Debug, Deserialize)]
pub struct Report {
    cases: Vec<Case>,
    missing: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Case {
    thing: String,
    value: String,
    alerts_per_second: [f64; 3],
    bytes_per_second: f64,
    host_us: f64,
    server_us: f64,
    half_load: [f64; 2],
    memory: u64,
}

impl Report {
    /// The table.
    pub fn cells(&self) -> Cells {
        let mut last = "";
        let row = |case: &'_ Case| {
            let [least, rate, most] = case.alerts_per_second;
            vec![
                case.thing.clone(),
                case.value.clone(),
                format!("{rate:.0}"),
                format!("{least:.0} to {most:.0}"),
                format!("{:.1}", case.bytes_per_second / 1e6),
                format!("{:.1}", case.host_us),
                format!("{:.1}", case.server_us),
                format!("{:.2}, {:.2}", case.half_load[0] / 1e3, case.half_load[1] / 1e3),
                format!("{:.1}", case.memory as f64 / 1e6),
            ]
        };
        let mut rows: Vec<_> = self.cases.iter().map(row).collect();
        for (row, case) in rows.iter_mut().zip(&self.cases) {
            // Said once is enough.
            if std::mem::replace(&mut last, &case.thing) == case.thing {
                row[0].clear();
            }
        }
        let head = vec![
            "what changes",
            "",
            "alerts/s",
            "in its runs",
            "MB/s",
            "CPU µs",
            "CPU µs, Redis",
            "half load: p50, p99 ms",
            "memory MB",
        ];
        Cells { head, rows, words: 0 }
    }

    /// Whether an alert costs the same however many plugins lie in the folder.
    pub fn targets(&self) -> Vec<Target> {
        let mut cases = self.cases.iter().filter(|case| case.thing == FOLDER);
        let (Some(few), Some(many)) = (cases.next(), cases.next_back()) else { return Vec::new() };
        let what = format!("cost of an alert with {} plugins in the folder, beside {}", many.value, few.value);
        let of = format!("{:.1} µs, and {:.1} µs", many.host_us, few.host_us);
        vec![Target::at_most(what, many.host_us / few.host_us, FLAT, "", of)]
    }

    /// What could not be measured.
    pub fn notes(&self) -> String {
        let mut text = String::new();
        for missing in &self.missing {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "- Not available: {missing}.");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_said_once_and_the_folder_is_a_target() {
        let case = |thing: &str, value: &str, host_us| Case {
            thing: thing.into(),
            value: value.into(),
            alerts_per_second: [1.0, 2.0, 3.0],
            bytes_per_second: 1e6,
            host_us,
            server_us: 5.0,
            half_load: [1000.0, 2500.0],
            memory: 40_000_000,
        };
        let cases = vec![case("batch", "1", 9.0), case(FOLDER, "4", 10.0), case(FOLDER, "100", 11.0)];
        let report = Report { cases, missing: Vec::new() };
        assert_eq!(report.cells().rows[2], ["", "100", "2", "1 to 3", "1.0", "11.0", "5.0", "1.00, 2.50", "40.0"]);
        assert!(!report.targets()[0].is_reached());
    }
}
