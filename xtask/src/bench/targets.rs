//! The table of what was aimed at: each figure, and whether it is reached. Ratios between rows come from there, flatness over plugins in
//! the folder from the scaling; all else the program measures for itself.

use serde::Deserialize;

use super::page::Cells;

/// A figure and what it is to be.
#[derive(Debug, Deserialize)]
pub struct Target {
    /// What it is.
    pub what: String,
    figure: f64,
    at_most: Option<f64>,
    at_least: Option<f64>,
    #[serde(default)]
    unit: String,
    /// The figures behind it.
    of: String,
}

/// What the program says.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// What it measured for itself.
    pub targets: Vec<Target>,
    tenths: Vec<Tenth>,
}

/// A tenth of the long run. Times are in microseconds, memory is in bytes.
#[derive(Debug, Deserialize)]
struct Tenth {
    alerts: u64,
    host_us: f64,
    server_us: f64,
    memory: u64,
}

impl Target {
    /// A figure that is to be no smaller.
    pub fn at_least(what: String, figure: f64, least: f64, of: String) -> Self {
        Self { what, figure, at_most: None, at_least: Some(least), unit: String::new(), of }
    }

    /// A figure that is to be no larger.
    pub fn at_most(what: String, figure: f64, most: f64, unit: &str, of: String) -> Self {
        Self { what, figure, at_most: Some(most), at_least: None, unit: unit.to_owned(), of }
    }

    /// Whether it is what it is to be.
    pub fn is_reached(&self) -> bool {
        self.at_most.is_none_or(|most| self.figure <= most) && self.at_least.is_none_or(|least| self.figure >= least)
    }
}

/// The table.
pub fn cells(targets: &[Target]) -> Cells {
    let row = |target: &Target| {
        let number = |value: f64| format!("{value} {}", target.unit).trim_end().to_owned();
        let aim = match (target.at_least, target.at_most) {
            (Some(least), _) => format!("at least {}", number(least)),
            (None, Some(most)) => format!("at most {}", number(most)),
            (None, None) => String::new(),
        };
        let digits = if target.figure.abs() < 100.0 { 2 } else { 0 };
        vec![
            target.what.clone(),
            format!("{:.digits$} {}", target.figure, target.unit).trim_end().to_owned(),
            aim,
            if target.is_reached() { "reached" } else { "NOT REACHED" }.to_owned(),
            target.of.clone(),
        ]
    };
    let head = vec!["target", "figure", "aim", "", "of"];
    Cells { head, rows: targets.iter().map(row).collect(), words: 2 }
}

impl Report {
    /// The tenths of the long run.
    pub fn tenths(&self) -> Cells {
        let row = |tenth: &Tenth| {
            let memory = format!("{:.1}", tenth.memory as f64 / 1e6);
            vec![tenth.alerts.to_string(), format!("{:.1}", tenth.host_us), format!("{:.1}", tenth.server_us), memory]
        };
        let head = vec!["alerts done", "CPU µs", "CPU µs, Redis", "memory MB"];
        Cells { head, rows: self.tenths.iter().map(row).collect(), words: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_missed_is_said() {
        let targets = [
            Target::at_least("a".into(), 0.25, 0.25, String::new()),
            Target::at_most("b".into(), 61.2, 60.0, "MB", "x".into()),
        ];
        let rows = cells(&targets).rows;
        assert_eq!(rows[0], ["a", "0.25", "at least 0.25", "reached", ""]);
        assert_eq!(rows[1], ["b", "61.20 MB", "at most 60 MB", "NOT REACHED", "x"]);
    }
}
