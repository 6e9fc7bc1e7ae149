//! `dossier plugin run`: one alert through one component. The result goes to the standard output, as JSON; what it cost and what
//! a host would do goes beside it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::alert::observables::Observable;
use crate::cli::FAILED;
use crate::cli::output::{Out, grouped, pretty, printable, remark};
use crate::pipeline::{Answer, Failure};
use crate::plugin::trial::{Called, Trial, Workshop};
use crate::record::Verdict;
use crate::telemetry::Told;

use super::trying::{Beside, Provision, Stand, Subject, alerts, fate, given, kind};

/// What `dossier plugin run` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier plugin run owners.wasm --alert alert.json
  dossier plugin run geo.wasm --alert - --table geo=countries.csv < alert.json
  dossier plugin run geo.wasm --alert alert.json --settings '{\"table\":\"cities\"}' --table cities=c.mmdb
  dossier plugin run geo.wasm --alert alert.json --config dossier.toml --step geo --network")]
pub struct Arguments {
    /// The component, or a folder with one
    #[arg(value_name = "PLUGIN")]
    component: PathBuf,
    /// A file with one alert; "-" is the standard input
    #[arg(long, value_name = "FILE")]
    alert: PathBuf,
    #[command(flatten)]
    provision: Provision,
}

/// What a call gave, as it stands in a fixture's `expect`.
#[derive(Serialize)]
pub struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<ShownFailure<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a Verdict>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    observables: &'a [Observable],
}

#[derive(Serialize)]
struct ShownFailure<'a> {
    kind: &'static str,
    detail: &'a str,
}

impl<'a> Shown<'a> {
    /// Of an outcome.
    pub fn of(outcome: &'a Result<Answer, Failure>) -> Self {
        match outcome {
            Ok(answer) => Self {
                fields: Some(&answer.fields),
                failure: None,
                verdict: answer.verdict.as_ref(),
                observables: &answer.observables,
            },
            Err(failure) => {
                let (kind, detail) = kind(failure);
                let failure = Some(ShownFailure { kind, detail });
                Self { fields: None, failure, verdict: None, observables: &[] }
            }
        }
    }
}

/// Runs it. Ends with 1 when the call failed.
///
/// # Errors
/// The component, the alert, the settings or a table cannot be used.
pub async fn run<W: Write>(arguments: &Arguments, file: &Path, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let subject = Subject::read(&arguments.component)?;
    let alert = match alerts(&arguments.alert)?.as_slice() {
        [alert] => alert.clone(),
        [] => bail!("there is no alert in {}", printable(&arguments.alert.display().to_string())),
        several => bail!(
            "{} holds {} lines; give it one alert",
            printable(&arguments.alert.display().to_string()),
            several.len()
        ),
    };
    let workshop = Workshop::open()?;
    let Stand { decoder, step, tables, web } = arguments.provision.stand(&subject, file, &workshop)?;
    let given = given(&decoder, &tables, alert, Beside::default())
        .with_context(|| printable(&arguments.alert.display().to_string()))?;
    let loaded = workshop.load(&subject.bytes, step.clone(), &web).await;
    tell(&workshop.take_told());
    let trial = match loaded {
        Ok(trial) => trial,
        Err(why) => bail!("{} is refused: {why}", printable(&subject.path.display().to_string())),
    };
    let called = trial.call(given).await;
    tell(&called.told);
    writeln!(out, "{}", pretty(&Shown::of(&called.outcome))?)?;
    out.flush()?;
    remark(&summary(&trial, &called, &step.limits));
    match &called.outcome {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            remark(&format!("in a host: {}", fate(failure, &step)));
            Ok(ExitCode::from(if matches!(failure, Failure::NotApplicable(_)) { 0 } else { FAILED }))
        }
    }
}

/// Shows what was said and denied.
pub fn tell(told: &[Told]) {
    for told in told {
        for line in &told.lines {
            remark(&format!("{:<5}  {}", told.level.as_str().to_lowercase(), printable(line)));
        }
    }
}

/// What the call cost, for people.
fn summary(trial: &Trial, called: &Called, limits: &crate::config::Limits) -> String {
    let cost = &called.cost;
    let about = &trial.about;
    let outcome = match &called.outcome {
        Ok(_) => "answered".to_owned(),
        Err(failure) => kind(failure).0.to_owned(),
    };
    let start = match &about.plain {
        None => "a fresh copy of what configure left".to_owned(),
        Some(why) => format!("configured in this instance; it cannot be copied ({})", printable(why)),
    };
    let tables: Vec<_> = cost.tables.keys().map(|name| printable(name)).collect();
    let mut lines = vec![
        format!("plugin  {} {}, {}", printable(&about.name), printable(&about.version), about.stage),
        format!(
            "call    {outcome} in {:.3} ms of {} ms",
            cost.duration.as_secs_f64() * 1e3,
            limits.timeout.as_millis()
        ),
        format!("fuel    {} of {}", grouped(cost.fuel), grouped(limits.fuel)),
        format!("memory  {} KiB of {} KiB", grouped(cost.memory >> 10), grouped(limits.memory as u64 >> 10)),
        format!("start   {start}"),
    ];
    if !tables.is_empty() {
        lines.push(format!("tables  {}", tables.join(", ")));
    }
    lines.join("\n")
}
