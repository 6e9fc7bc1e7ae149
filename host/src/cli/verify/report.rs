//! What `dossier verify` found, for people and for scripts.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::cli::output::{Out, printable};

use super::ledger::{Ledger, Suspects, Wrong};
use super::{Found, Names};

/// The result.
pub(super) struct Report {
    sent: u64,
    unsure: u64,
    different: u64,
    again: u64,
    found: Found,
    counts: BTreeMap<Wrong, u64>,
    names: Names,
}

impl Report {
    pub(super) fn new(
        ledger: &Ledger,
        (sent, unsure): (u64, u64),
        found: Found,
        suspects: &Suspects,
        names: Names,
    ) -> Self {
        let mut counts = BTreeMap::new();
        for wrong in suspects.values().filter_map(|tally| tally.wrong()) {
            *counts.entry(wrong).or_insert(0) += 1;
        }
        Self { sent, unsure, different: ledger.different(), again: ledger.again(), found, counts, names }
    }

    /// How many of them there are. What holds no alert at all was never sent as one.
    pub(super) fn count(&self, wrong: Wrong) -> u64 {
        let foreign = if wrong == Wrong::Stranger { self.found.foreign } else { 0 };
        self.counts.get(&wrong).copied().unwrap_or_default() + foreign
    }

    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        [Wrong::Orphan, Wrong::Double, Wrong::Stranger].iter().all(|wrong| self.count(*wrong) == 0)
    }

    fn named(&self, wrong: Wrong) -> &[(String, Vec<String>)] {
        self.names.get(&wrong).map_or(&[], Vec::as_slice)
    }

    /// For people.
    pub(super) fn write<W: Write>(&self, out: &mut Out<W>) -> std::io::Result<()> {
        let Found { waiting, dead, stored, foreign } = self.found;
        let unsure = match self.unsure {
            0 => String::new(),
            unsure => format!(", and {unsure} that may not have arrived"),
        };
        let again = match self.again {
            0 => String::new(),
            again => format!(", {again} of them once more"),
        };
        writeln!(out, "sent       {}{unsure}; {} different", self.sent, self.different)?;
        writeln!(out, "stored     {stored}")?;
        writeln!(out, "dead       {dead}")?;
        writeln!(out, "waiting    {waiting}{again}")?;
        for (wrong, what) in [
            (Wrong::Orphan, "sent, and found nowhere"),
            (Wrong::Double, "stored twice, or stored and dead"),
            (Wrong::Stranger, "found, and never sent"),
        ] {
            let number = self.count(wrong);
            let what = if number > 0 { format!("  {what}") } else { String::new() };
            writeln!(out, "{:<9}  {number}{what}", format!("{}s", wrong.as_str()))?;
        }
        if self.is_clean() {
            return writeln!(out, "everything is accounted for");
        }
        for wrong in [Wrong::Orphan, Wrong::Double, Wrong::Stranger] {
            for (name, places) in self.named(wrong) {
                let places: Vec<_> = places.iter().map(|place| printable(place)).collect();
                let places = if places.is_empty() { String::new() } else { format!("  ({})", places.join(", ")) };
                writeln!(out, "{:<8}  {}{places}", wrong.as_str(), printable(name))?;
            }
            let named = self.named(wrong).len() as u64;
            let foreign = if wrong == Wrong::Stranger { foreign } else { 0 };
            let more = self.count(wrong) - foreign - named.min(self.count(wrong) - foreign);
            if more > 0 {
                writeln!(out, "{:<8}  … and {more} more", wrong.as_str())?;
            }
            if foreign > 0 {
                let entries = if foreign == 1 { "entry" } else { "entries" };
                writeln!(out, "{:<8}  {foreign} {entries} without an alert", wrong.as_str())?;
            }
        }
        Ok(())
    }

    /// For scripts.
    pub(super) fn write_json<W: Write>(&self, out: &mut Out<W>) -> std::io::Result<()> {
        let wrong = |wrong| -> Value {
            let named = self.named(wrong).iter().map(|(name, found)| json!({ "alert": name, "found": found }));
            json!({ "count": self.count(wrong), "named": named.collect::<Vec<_>>() })
        };
        let report = json!({
            "accounted": self.is_clean(),
            "sent": self.sent,
            "unsure": self.unsure,
            "different": self.different,
            "stored": self.found.stored,
            "dead": self.found.dead,
            "waiting": self.found.waiting,
            "waiting_again": self.again,
            "without_alert": self.found.foreign,
            "orphans": wrong(Wrong::Orphan),
            "doubles": wrong(Wrong::Double),
            "strangers": wrong(Wrong::Stranger),
        });
        writeln!(out, "{report}")
    }
}
