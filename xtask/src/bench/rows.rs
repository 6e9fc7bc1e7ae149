//! The table of rows, and the ratios that are aimed at between them.

use std::fmt::Write as _;

use serde::Deserialize;

use super::page::Cells;
use super::targets::Target;

/// What each row is to reach: its name, beside which row, and how much of that row's rate.
const AIMS: [(&str, &str, f64); 5] = [
    ("fresh", "floor", 0.25),
    ("fresh", "native", 0.4),
    ("reuse", "floor", 0.45),
    ("reuse", "vrl", 1.0),
    ("fresh", "python", 4.0),
];

/// What a fresh row's 99th percentile is to be at most, in milliseconds: at half of the most that it can do, and at a hundredth.
const LATENCIES: [f64; 2] = [10.0, 2.0];

/// What the program says of the rows. Times are in microseconds, memory is in bytes.
#[derive(Debug, Deserialize)]
pub struct Report {
    alerts: String,
    batch: usize,
    reuse: u32,
    runs: usize,
    latency_runs: usize,
    seconds: f64,
    rows: Vec<Row>,
    failed: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    about: String,
    alerts: u64,
    alerts_per_second: [f64; 3],
    bytes_per_second: f64,
    host_us: f64,
    server_us: Option<f64>,
    half_load: Option<[f64; 2]>,
    low_load: Option<[f64; 2]>,
    memory: u64,
}

impl Report {
    fn rate(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.name == name).map(|row| row.alerts_per_second[1])
    }

    /// The table.
    pub fn cells(&self) -> Cells {
        let head = vec![
            "row",
            "alerts/s",
            "of the floor",
            "MB/s",
            "CPU µs",
            "CPU µs, Redis",
            "half load: p50, p99 ms",
            "1 %: p50, p99 ms",
            "memory MB",
            "what it is",
        ];
        let floor = self.rate("floor");
        let none = || "–".to_owned();
        let latency =
            |of: Option<[f64; 2]>| of.map_or_else(none, |[p50, p99]| format!("{:.2}, {:.2}", p50 / 1e3, p99 / 1e3));
        let row = |row: &Row| {
            vec![
                row.name.clone(),
                format!("{:.0}", row.alerts_per_second[1]),
                floor.map_or_else(none, |floor| format!("{:.3}", row.alerts_per_second[1] / floor)),
                format!("{:.1}", row.bytes_per_second / 1e6),
                format!("{:.1}", row.host_us),
                row.server_us.map_or_else(none, |us| format!("{us:.1}")),
                latency(row.half_load),
                latency(row.low_load),
                format!("{:.1}", row.memory as f64 / 1e6),
                row.about.clone(),
            ]
        };
        Cells { head, rows: self.rows.iter().map(row).collect(), words: 1 }
    }

    /// What was aimed at between rows. What could not be measured is left out.
    pub fn targets(&self) -> Vec<Target> {
        let aim = |&(name, beside, share): &(&str, &str, f64)| {
            let (rate, other) = (self.rate(name)?, self.rate(beside)?);
            let what = format!("alerts/s of the row {name}, beside {beside}");
            Some(Target::at_least(what, rate / other, share, format!("{rate:.0}/s, and {other:.0}/s")))
        };
        let fresh = self.rows.iter().find(|row| row.name == "fresh");
        let loads = [("half of", fresh.and_then(|row| row.half_load)), ("1 % of", fresh.and_then(|row| row.low_load))];
        let latency = |((share, latency), at_most): ((&str, Option<[f64; 2]>), f64)| {
            let [p50, p99] = latency?;
            let what = format!("p99 from sent to stored, the row fresh at {share} its rate");
            Some(Target::at_most(what, p99 / 1e3, at_most, "ms", format!("p50 {:.2} ms", p50 / 1e3)))
        };
        let latencies = loads.into_iter().zip(LATENCIES).filter_map(latency);
        AIMS.iter().filter_map(aim).chain(latencies).collect()
    }

    /// How it was measured, in words.
    pub fn settings(&self) -> String {
        format!(
            "{}; {} alerts read and committed together; rows that reuse an instance do so {} times; Redis on the same machine, over a unix \
             socket, nothing written to disk; {} runs of about {} s each, {} for latencies, the rows in turn, and each figure is the median",
            self.alerts, self.batch, self.reuse, self.runs, self.seconds, self.latency_runs
        )
    }

    /// What stands below the table: how far the runs of each row were apart, and which rows are missing.
    pub fn notes(&self, missing: &[String]) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let [least, _, most] = row.alerts_per_second;
            // Writing into a string cannot fail.
            let _ = writeln!(text, "- {}: {} alerts a run, from {least:.0}/s to {most:.0}/s.", row.name, row.alerts);
        }
        for peer in missing.iter().chain(&self.failed) {
            let _ = writeln!(text, "- Not available: {peer}.");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_with_the_floor_and_with_what_is_aimed_at() {
        let row = |name: &str, rate: f64| Row {
            name: name.into(),
            about: "a row".into(),
            alerts: 1,
            alerts_per_second: [rate, rate, rate],
            bytes_per_second: rate,
            host_us: 1.0,
            server_us: None,
            half_load: Some([1000.0, 2000.0]),
            low_load: None,
            memory: 1 << 20,
        };
        let rows = vec![row("floor", 100.0), row("fresh", 25.0), row("reuse", 44.0)];
        let report = Report {
            alerts: "alerts".into(),
            batch: 100,
            reuse: 1000,
            runs: 5,
            latency_runs: 3,
            seconds: 3.0,
            rows,
            failed: vec!["python: it is broken".into()],
        };
        assert_eq!(report.cells().rows[1][..3], ["fresh", "25", "0.250"]);
        let reached: Vec<_> =
            report.targets().iter().map(|target| (target.is_reached(), target.what.clone())).collect();
        let named = |reached: bool, what: &str| (reached, what.to_owned());
        assert_eq!(
            reached,
            [
                named(true, "alerts/s of the row fresh, beside floor"),
                named(false, "alerts/s of the row reuse, beside floor"),
                named(true, "p99 from sent to stored, the row fresh at half of its rate"),
            ]
        );
        assert!(report.notes(&[]).ends_with("- Not available: python: it is broken.\n"));
    }
}
