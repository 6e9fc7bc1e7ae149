//! Tables that come and are refused.

use std::time::Duration;

use tracing::Level;

use super::micros;
use crate::telemetry::alarms::{Change, Kind};
use crate::telemetry::metrics::{TableLabel, unix_seconds};
use crate::telemetry::{Event, Metrics, Noted, Told};

/// A table was loaded, or loaded again.
#[derive(Debug)]
pub struct TableLoaded<'a> {
    /// The table.
    pub table: &'a str,
    /// Its rows; none where the format does not tell.
    pub rows: Option<usize>,
    /// Rows whose key came again later: the last one counts.
    pub duplicates: usize,
    /// SHA-256 of its file.
    pub sha256: &'a str,
    /// How long it took.
    pub took: Duration,
    /// Whether it was loaded before.
    pub reload: bool,
}

impl Event for TableLoaded<'_> {
    fn count(&self, metrics: &Metrics) {
        let label = TableLabel { table: metrics.name(self.table) };
        if let Some(rows) = self.rows {
            metrics.table_rows.get_or_create(&label).set(i64::try_from(rows).unwrap_or(i64::MAX));
        }
        let duplicates = i64::try_from(self.duplicates).unwrap_or(i64::MAX);
        metrics.table_duplicates.get_or_create(&label).set(duplicates);
        metrics.table_loaded.get_or_create(&label).set(unix_seconds());
        metrics.table_reloads.get_or_create(&label).inc_by(u64::from(self.reload));
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Clear(Kind::TableRefused, self.table))
    }

    fn noted(&self) -> Option<Noted> {
        let rows = self.rows.map_or_else(String::new, |rows| format!(", {rows} rows"));
        let text = format!("{} ({:.12}){rows}", self.table, self.sha256);
        Noted::change("table loaded", self.table, text)
    }

    fn log(&self) {
        tracing::info!(
            target: "dossier::table",
            table = self.table,
            rows = self.rows,
            duplicates = self.duplicates,
            sha256 = self.sha256,
            duration_us = micros(self.took),
            reload = self.reload,
            "table loaded"
        );
    }

    fn told(&self) -> Option<Told> {
        let rows = self.rows.map_or_else(String::new, |rows| format!(", {rows} rows"));
        let what = if self.reload { "reloaded" } else { "loaded" };
        Some(Told::line(Level::INFO, format!("table {} {what}{rows}", self.table)))
    }
}

/// The configuration names a table no longer.
#[derive(Debug)]
pub struct TableDropped<'a> {
    /// The table.
    pub table: &'a str,
}

impl Event for TableDropped<'_> {
    fn count(&self, metrics: &Metrics) {
        // What is not there has no age that anybody should worry about.
        let label = TableLabel { table: metrics.name(self.table) };
        metrics.table_rows.remove(&label);
        metrics.table_duplicates.remove(&label);
        metrics.table_loaded.remove(&label);
        metrics.table_drops.get_or_create(&label).inc();
    }

    fn log(&self) {
        tracing::info!(target: "dossier::table", table = self.table, "table dropped");
    }
}

/// A table's file was refused; what served before serves on. An alarm.
#[derive(Debug)]
pub struct TableRefused<'a> {
    /// The table.
    pub table: &'a str,
    /// Why, with the line, and what to do.
    pub why: &'a str,
}

impl Event for TableRefused<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.table_refusals.get_or_create(&TableLabel { table: metrics.name(self.table) }).inc();
    }

    fn alarm(&self) -> Option<Change<'_>> {
        Some(Change::Raise(Kind::TableRefused, self.table, self.why.into()))
    }

    fn noted(&self) -> Option<Noted> {
        Noted::error("table refused", self.table, format!("{}: {}", self.table, self.why))
    }

    fn log(&self) {
        tracing::error!(target: "dossier::table", alarm = true, name = Kind::TableRefused.name(), table = self.table, why = self.why, "table refused");
    }

    fn told(&self) -> Option<Told> {
        Some(Told::line(Level::ERROR, format!("table {} refused: {}", self.table, self.why)))
    }
}
