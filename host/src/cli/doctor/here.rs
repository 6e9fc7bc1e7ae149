//! What lies on this machine: its limits and disks, the plugins, the tables.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit};

use crate::checkup::{Observation, disk, rough};
use crate::cli::output::grouped;
use crate::cli::validate::describe;
use crate::config::{Config, QueueKind};
use crate::plugin::CheckedStep;
use crate::tables::Snapshot;
use crate::telemetry::alarms::Kind;

/// From this age on a table is worth a word: lists of addresses go stale in days, and a download that fails each night is seen by nobody.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Files that a host has open beside those of alerts: connections, plugins, tables, the log.
const OTHER_FILES: u64 = 256;

/// Limits, disks, the clock.
pub(super) fn machine(config: &Config) -> Vec<Observation> {
    let mut seen = vec![files(config)];
    seen.extend(disk::look(&config.host.state_dir, "state_dir"));
    if jiff::Timestamp::now() < jiff::Timestamp::constant(1_767_225_600, 0) {
        seen.push(Observation::risk(
            format!("this machine's clock says {:.0}, before this program was made", jiff::Timestamp::now()),
            "set it, and keep it by NTP: records and dead letters are dated by it",
        ));
    }
    seen
}

fn files(config: &Config) -> Observation {
    // Of a directory queue each alert in flight holds its file and its lock open.
    let alerts = match config.queue.kind {
        QueueKind::Directory { .. } => 2 * config.host.in_flight as u64,
        QueueKind::Redis(_) => 0,
    };
    let http: u64 = config.http.values().map(|http| http.concurrency as u64).sum();
    let needed = alerts + http + OTHER_FILES;
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < needed => Observation::risk(
            format!(
                "a process may have {} files open here (ulimit -Hn), and a host may need {}",
                grouped(most),
                grouped(needed)
            ),
            "raise it (LimitNOFILE= of a systemd unit), or lower in_flight in [host]",
        ),
        Some(most) => {
            Observation::fine(format!("{} files may be open, {} may be needed", grouped(most), grouped(needed)))
        }
        None => Observation::fine("any number of files may be open"),
    }
}

/// What the plugins are, and what nothing names. What is wrong with them stands with the configuration.
pub(super) fn plugins(config: &Config, steps: &[CheckedStep]) -> Vec<Observation> {
    let mut seen: Vec<_> = steps
        .iter()
        .map(|checked| {
            let text = describe(&checked.step.config, Some(checked));
            match () {
                () if checked.refused => {
                    Observation::broken(format!("{text}: refused"), "see what is wrong under Configuration")
                }
                () if checked.step.config.line.is_none() => {
                    Observation::note(text, "name it in a [[step]], or take it out of the plugins folder")
                }
                () => Observation::fine(text),
            }
        })
        .collect();
    let there: BTreeSet<_> = steps.iter().map(|checked| checked.step.config.name.as_str()).collect();
    let absent = config.steps.iter().filter(|step| !there.contains(step.name.as_str()) && !step.required);
    seen.extend(absent.map(|step| {
        Observation::note(
            describe(step, None),
            format!(
                "put {}.wasm into {}: until then each record says that it was absent",
                step.plugin,
                config.plugins.dir.display()
            ),
        )
    }));
    if config.steps.is_empty() && steps.is_empty() {
        seen.push(Observation::note(
            "there is no step: alerts are stored as they are",
            "put a plugin into the plugins folder",
        ));
    }
    seen
}

/// What the tables are, and how old their files.
pub(super) fn tables(config: &Config, tables: &Snapshot) -> Vec<Observation> {
    let granted: BTreeSet<_> = config.steps.iter().flat_map(|step| &step.tables).collect();
    let look = |(name, table): (&String, &crate::config::TableConfig)| {
        let rows = match tables.get(name).map(|table| table.rows()) {
            Some(Some(1)) => ", 1 row".to_owned(),
            Some(Some(rows)) => format!(", {} rows", grouped(rows as u64)),
            Some(None) => ", a database".to_owned(),
            None => String::new(),
        };
        let written = std::fs::metadata(&table.file).and_then(|data| data.modified()).ok()?;
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        let what = format!("{name}: {}{rows}, written {} ago", table.file.display(), rough(age));
        let too_old = table.max_age.filter(|most| age > *most);
        Some(if !granted.contains(name) {
            Observation::note(what, "no step was granted it: add it to tables = [...] in a [[step]], or take it out")
        } else if let Some(most) = too_old {
            Observation::risk(
                format!("{what}, which is more than its max_age, {}", rough(most)),
                Kind::TableStale.remedy(),
            )
        } else if age > OLD {
            Observation::note(what, "is what writes it still at work? Plugins answer by what it says")
        } else {
            Observation::fine(what)
        })
    };
    // What cannot be read is a finding already.
    config.tables.iter().filter_map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Gravity;

    #[test]
    fn a_table_that_is_older_than_it_may_be_is_a_risk() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.csv");
        std::fs::write(&file, "k,v\n1,2\n").unwrap();
        let written = SystemTime::now() - Duration::from_secs(2 * 3600);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
        for (max_age, gravity) in [("1h", Gravity::Risk), ("3h", Gravity::Fine)] {
            let text = format!(
                "[tables.t]\nfile = \"t.csv\"\nkey = \"k\"\nmax_age = \"{max_age}\"\n[[step]]\nplugin = \"p\"\ntables = [\"t\"]\n"
            );
            let config = Config::parse(&folder.path().join("dossier.toml"), &text).unwrap();
            let seen = tables(&config, &Snapshot::default());
            assert_eq!(seen[0].gravity, gravity, "{seen:?}");
        }
    }
}
