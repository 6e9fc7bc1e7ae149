//! `dossier plugin test`: runs a plugin on its fixtures and shows what is not as expected.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use console::style;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::cli::FAILED;
use crate::cli::output::{Out, count, duration, grouped, pretty, printable};
use crate::pipeline::{Answer, Cost, Failure};
use crate::plugin::http::Http;
use crate::plugin::trial::{CompileError, Web, Workshop};
use crate::telemetry::Told;

use super::fixture::{Expected, ExpectedFailure, Fixture, files};
use super::trying::{Subject, kind};

/// What `dossier plugin test` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier plugin test                          The plugin of this folder, on tests/*.json
  dossier plugin test owners.wasm --tests t/
  dossier plugin test --update                 Write down what it gives now
  dossier plugin test --filter private

A fixture:
  { \"alert\": { \"src_ip\": \"192.0.2.7\" },
    \"tables\": { \"owners\": { \"192.0.2.0/24\": { \"owner\": \"it\" } } },
    \"expect\": { \"fields\": { \"owner\": \"it\" } } }")]
#[command(after_long_help = "\
Examples:
  dossier plugin test                          The plugin of this folder, on tests/*.json
  dossier plugin test owners.wasm --tests t/
  dossier plugin test --update                 Write down what it gives now
  dossier plugin test --filter private

A fixture is one JSON object. Only \"alert\" must be there; any other key than these is an error:
  name         What it is called [default: the file's name]
  alert        The alert
  received     When it was received [default: the beginning of 1970]
  observables  [{\"type\", \"role\", \"value\"}] [default: what the host finds in the alert]
  enrichment   Results of earlier stages: {\"STEP\": {…}}
  settings     {…} [default: the example that the plugin carries, else {}]
  tables       {\"NAME\": {\"KEY\": {a row}}}; an address finds the longest prefix among the keys
  http         [{\"method\", \"url\", \"status\", \"headers\"?, \"body\"?}]; the body is text, or JSON
  limits       {\"fuel\"?, \"memory\"?, \"timeout_ms\"?, \"answer\"?} [default: the usual ones]
  expect       {\"fields\": {…}} or {\"failure\": {\"kind\", \"contains\"?}}; beside fields, or in their
               place, \"verdict\" and \"observables\", which are not looked at where they are left out

Kinds of failure: not-applicable, unavailable, invalid, internal, trap, out-of-fuel, memory, timeout,
invalid-output, and refused, when the plugin does not take its settings.

A request that is not recorded fails the fixture, and so does a recorded one that is never sent.")]
pub struct Arguments {
    /// The component, or the folder of a plugin
    #[arg(value_name = "PLUGIN", default_value = ".")]
    component: PathBuf,
    /// The fixtures: a folder of them, or one file [default: tests/ beside the component]
    #[arg(long, value_name = "PATH")]
    tests: Option<PathBuf>,
    /// Only the fixtures with this in their name
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write what the plugin gives into the fixtures, as what is expected
    #[arg(long)]
    update: bool,
    /// Let requests that are not recorded go out, to what the plugin asks for
    #[arg(long)]
    network: bool,
}

/// What came of a fixture.
struct Ended {
    outcome: Outcome,
    cost: Cost,
    told: Vec<Told>,
    unused: Vec<String>,
    strays: Vec<String>,
}

/// How a call ended, or that there was none.
enum Outcome {
    Called(Result<Answer, Failure>),
    /// The plugin was refused.
    Refused(String),
}

/// Runs every fixture. Ends with 1 when one fails.
///
/// # Errors
/// The component or a fixture cannot be read, or the output not be written.
pub async fn test<W: Write>(arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let subject = Subject::read(&arguments.component)?;
    let tests = arguments
        .tests
        .clone()
        .unwrap_or_else(|| subject.path.parent().map_or_else(|| PathBuf::from("tests"), |folder| folder.join("tests")));
    let read = files(&tests)?.into_iter().map(|file| Fixture::read(&file, &subject)).collect::<Vec<_>>();
    let wrong: Vec<_> = read.iter().filter_map(|one| Some(format!("{:#}", one.as_ref().err()?))).collect();
    if !wrong.is_empty() {
        bail!(wrong.join("\n"));
    }
    let wanted = |name: &str| arguments.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let fixtures: Vec<_> = read.into_iter().flatten().filter(|fixture| wanted(&fixture.name)).collect();
    if fixtures.is_empty() {
        bail!("no fixture has \"{}\" in its name", printable(arguments.filter.as_deref().unwrap_or_default()));
    }
    let workshop = Workshop::open()?;
    let network = match arguments.network {
        true => Some(subject.interfaces().and_then(|interfaces| Ok(workshop.network(&interfaces)?))?),
        false => None,
    };
    let (mut passed, mut failed, mut written) = (0, 0, 0);
    for fixture in fixtures {
        let ended = try_out(&workshop, &subject, &fixture, network.clone()).await?;
        if arguments.update && ended.strays.is_empty() && ended.unused.is_empty() {
            written += u64::from(update(&fixture, &ended, out)?);
            continue;
        }
        let wrong = differences(&fixture, &ended)?;
        show(&fixture, &ended, &wrong, out)?;
        out.flush()?;
        if wrong.is_empty() { passed += 1 } else { failed += 1 }
    }
    let took = duration(began.elapsed());
    if arguments.update {
        writeln!(out, "{} written, {failed} failed in {took}", count(written, "expectation"))?;
    } else {
        writeln!(out, "{passed} passed, {failed} failed in {took}")?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

async fn try_out(
    workshop: &Workshop,
    subject: &Subject,
    fixture: &Fixture,
    network: Option<Arc<Http>>,
) -> anyhow::Result<Ended> {
    let mut step = fixture.step.clone();
    if network.is_some() {
        step.http = subject.asks().http.into_iter().map(|ask| ask.name).collect();
    }
    let recorded = Arc::new(fixture.recorded(network));
    let loaded = workshop.load(&subject.bytes, step, &Web::Recorded(Arc::clone(&recorded))).await;
    let mut told = workshop.take_told();
    let (outcome, cost) = match loaded {
        Ok(trial) => {
            let mut called = trial.call(Arc::clone(&fixture.given)).await;
            told.append(&mut called.told);
            (Outcome::Called(called.outcome), called.cost)
        }
        Err(CompileError::Refused(why)) => (Outcome::Refused(why), Cost::default()),
        Err(CompileError::Failed(why)) => bail!(why),
    };
    let (unused, strays) = recorded.differences();
    Ok(Ended { outcome, cost, told, unused, strays })
}

impl Outcome {
    fn failure(&self) -> Option<(&str, &str)> {
        match self {
            Self::Called(Ok(_)) => None,
            Self::Called(Err(failure)) => Some(kind(failure)),
            Self::Refused(why) => Some(("refused", why)),
        }
    }

    /// What to expect of it from now on.
    fn expected(&self) -> anyhow::Result<Expected> {
        if let Some((kind, detail)) = self.failure() {
            // Where the text is the host's, only the kind is promised.
            let own = matches!(kind, "not-applicable" | "unavailable" | "invalid" | "internal");
            let contains = own.then(|| detail.to_owned());
            return Ok(Expected {
                failure: Some(ExpectedFailure { kind: kind.to_owned(), contains }),
                ..Expected::default()
            });
        }
        let Self::Called(Ok(answer)) = self else { return Ok(Expected::default()) };
        let verdict = answer.verdict.as_ref().map(serde_json::to_value).transpose()?;
        let observables =
            (!answer.observables.is_empty()).then(|| serde_json::to_value(&answer.observables)).transpose()?;
        let fields = Some(serde_json::from_str(answer.fields.get())?);
        Ok(Expected { fields, failure: None, verdict, observables })
    }
}

/// Everything in which a fixture's end is not as expected.
fn differences(fixture: &Fixture, ended: &Ended) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    match &fixture.expected {
        None => wrong.push("it expects nothing: write \"expect\", or let --update write it".to_owned()),
        Some(expected) => match (&expected.failure, ended.outcome.failure()) {
            (Some(expected), Some((kind, detail))) => {
                if kind != expected.kind {
                    wrong.push(format!("expected the failure {}, got {kind}: {}", expected.kind, printable(detail)));
                }
                if let Some(contains) = expected.contains.as_deref().filter(|contains| !detail.contains(contains)) {
                    let [contains, detail] = [contains, detail].map(printable);
                    wrong.push(format!("the failure does not say \"{contains}\"; it says: {detail}"));
                }
            }
            (None, Some((kind, detail))) => wrong.push(format!("expected a result, got {kind}: {}", printable(detail))),
            (Some(failure), None) => {
                let got = pretty(&ended.outcome.expected()?)?;
                wrong.push(format!("expected the failure {}, got a result:\n{got}", failure.kind));
            }
            (None, None) => {
                let got = ended.outcome.expected()?;
                wrong.extend(different("fields", expected.fields.as_ref(), got.fields)?);
                wrong.extend(different("verdict", expected.verdict.as_ref(), got.verdict)?);
                let none = Some(Value::Array(Vec::new()));
                wrong.extend(different("observables", expected.observables.as_ref(), got.observables.or(none))?);
            }
        },
    }
    for request in &ended.strays {
        wrong.push(format!("it asked {}, which is not recorded in http", printable(request)));
    }
    for request in &ended.unused {
        wrong.push(format!("it never asked {}, which is recorded in http", printable(request)));
    }
    Ok(wrong)
}

/// The difference of two values, if one is expected and the other is not it.
fn different(what: &str, expected: Option<&Value>, got: Option<Value>) -> anyhow::Result<Option<String>> {
    let Some(expected) = expected else { return Ok(None) };
    let got = got.unwrap_or(Value::Null);
    if *expected == got {
        return Ok(None);
    }
    Ok(Some(format!("{what} differ (- expected, + got):\n{}", diff(&pretty(expected)?, &pretty(&got)?))))
}

/// The lines that differ, with some around them; in colours on a terminal only.
fn diff(expected: &str, got: &str) -> String {
    let (expected, got) = (format!("{expected}\n"), format!("{got}\n"));
    let diff = TextDiff::from_lines(&expected, &got);
    let mut text = String::new();
    for (at, group) in diff.grouped_ops(3).iter().enumerate() {
        if at > 0 {
            text.push_str("  …\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = change.value().trim_end_matches('\n');
            text.push_str(&match change.tag() {
                ChangeTag::Delete => style(format!("- {line}")).red().to_string(),
                ChangeTag::Insert => style(format!("+ {line}")).green().to_string(),
                ChangeTag::Equal => format!("  {line}"),
            });
            text.push('\n');
        }
    }
    text
}

fn show<W: Write>(fixture: &Fixture, ended: &Ended, wrong: &[String], out: &mut Out<W>) -> anyhow::Result<()> {
    let name = printable(&fixture.name);
    let cost = format!("{:.1} ms, {} fuel", ended.cost.duration.as_secs_f64() * 1e3, grouped(ended.cost.fuel));
    if wrong.is_empty() {
        writeln!(out, "{}    {name} ({cost})", style("ok").green())?;
        return Ok(());
    }
    writeln!(out, "{}  {name} ({cost}), {}", style("FAIL").red(), printable(&fixture.file.display().to_string()))?;
    for one in wrong {
        for line in one.lines() {
            writeln!(out, "      {line}")?;
        }
    }
    for told in &ended.told {
        for line in &told.lines {
            writeln!(out, "      {}: {}", told.level.as_str().to_lowercase(), printable(line))?;
        }
    }
    Ok(())
}

/// Writes what was got as what is expected, and says so. Whether that changed anything.
fn update<W: Write>(fixture: &Fixture, ended: &Ended, out: &mut Out<W>) -> anyhow::Result<bool> {
    let expected = ended.outcome.expected()?;
    let [before, after] = [fixture.expected.as_ref(), Some(&expected)].map(|one| one.map(serde_json::to_value));
    let (before, after) = (before.transpose()?, after.transpose()?.unwrap_or_default());
    let file = printable(&fixture.file.display().to_string());
    if differences(fixture, ended)?.is_empty() {
        writeln!(out, "same  {}", printable(&fixture.name))?;
        return Ok(false);
    }
    write_whole(&fixture.file, &fixture.with_expected(&expected)?).with_context(|| format!("cannot write {file}"))?;
    writeln!(out, "{}  {} in {file} (- before, + now):", style("wrote").yellow(), printable(&fixture.name))?;
    let before = before.map_or_else(|| Ok(String::new()), |before| pretty(&before))?;
    for line in diff(&before, &pretty(&after)?).lines() {
        writeln!(out, "      {line}")?;
    }
    Ok(true)
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(file: &Path, text: &str) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(std::fs::metadata(file)?.permissions())?;
    new.persist(file)?;
    Ok(())
}
