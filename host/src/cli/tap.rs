//! `dossier tap`: what a running host stores, or what one of its steps is given and gives, as it happens.

use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::host::Which;
use super::output::{Out, count, one_line, printable, remark};
use super::{INTERRUPTED, interrupted};

/// What to show of which host.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier tap                              Every record as it is stored
  dossier tap --verdict malicious          Only those that matter most
  dossier tap --step geo --limit 5         What geo is given and gives, five times
  dossier tap | jq .verdict.reasons        One JSON object a line, for programs")]
pub struct Arguments {
    /// What this step is given and gives, in place of records
    #[arg(long, value_name = "STEP", conflicts_with = "verdict")]
    step: Option<String>,
    /// Only records with this verdict
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// One JSON object a line on a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// The labels of a verdict.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Verdict {
    Malicious,
    Suspicious,
    Benign,
    Unknown,
}

/// A line of the host's: one of these.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    call: Option<&'a RawValue>,
    lost: Option<u64>,
}

/// Shows it until the limit, or until somebody ends it.
///
/// # Errors
/// No host answers, it refuses, it goes away, or the output cannot be written.
pub async fn tap<W: Write>(file: &Path, arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let client = arguments.which.client(file)?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if let Some(step) = &arguments.step {
        query.append_pair("step", step);
    }
    if let Some(verdict) = arguments.verdict {
        query.append_pair("verdict", &format!("{verdict:?}").to_lowercase());
    }
    if let Some(limit) = arguments.limit {
        query.append_pair("limit", &limit.to_string());
    }
    let mut lines = client.lines(&format!("/api/v1/tap?{}", query.finish())).await?;
    let pretty = std::io::stdout().is_terminal() && !arguments.json;
    if pretty {
        let what = arguments
            .step
            .as_ref()
            .map_or_else(|| "what is stored".to_owned(), |step| format!("step {}", printable(step)));
        remark(&format!("tapping {what} at {}; Ctrl-C ends it", client.at()));
    }
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = interrupted() => return Ok(ExitCode::from(INTERRUPTED)),
        };
        let Some(line) = line.transpose()? else { return Ok(ExitCode::SUCCESS) };
        show(&line, pretty, out).context("what the host says is no line of a tap")?;
        // As it happens, also into a pipe.
        out.flush()?;
        if out.is_closed() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn show<W: Write>(line: &[u8], pretty: bool, out: &mut Out<W>) -> anyhow::Result<()> {
    let line: Line<'_> = serde_json::from_slice(line)?;
    if let Some(lost) = line.lost {
        remark(&format!("{} left out here: they came faster than they were read", count(lost, "line")));
    }
    let Some(value) = line.record.or(line.call) else { return Ok(()) };
    match pretty {
        false => writeln!(out, "{}", one_line(value.get()))?,
        true if line.record.is_some() => record(&serde_json::from_str(value.get())?, out)?,
        true => call(&serde_json::from_str(value.get())?, out)?,
    }
    Ok(())
}

/// What of a record is shown to people.
#[derive(Deserialize)]
struct Record {
    id: String,
    enrichment: serde_json::Map<String, serde_json::Value>,
    verdict: Judged,
    pipeline: Pipeline,
}

#[derive(Deserialize)]
struct Judged {
    label: String,
    score: u8,
    reasons: Vec<String>,
}

#[derive(Deserialize)]
struct Pipeline {
    finished: String,
    duration_us: u64,
}

fn record<W: Write>(record: &Record, out: &mut Out<W>) -> std::io::Result<()> {
    let Record { id, enrichment, verdict: Judged { label, score, reasons }, pipeline } = record;
    let verdict = format!("{label} {score}");
    let (time, ms) = (clock(&pipeline.finished), millis(pipeline.duration_us));
    writeln!(out, "{time}  {}  {}  {ms}", printable(&verdict), printable(id))?;
    for reason in reasons {
        writeln!(out, "    {}", printable(reason))?;
    }
    for (step, fields) in enrichment {
        writeln!(out, "  {:<16} {}", printable(step), one_line(&fields.to_string()))?;
    }
    Ok(())
}

/// What of a call is shown to people.
#[derive(Deserialize)]
struct Call {
    id: String,
    step: String,
    version: String,
    ended: String,
    attempt: u32,
    outcome: String,
    detail: Option<String>,
    alert: serde_json::Value,
    given: serde_json::Map<String, serde_json::Value>,
    gave: Option<serde_json::Map<String, serde_json::Value>>,
    fuel: u64,
    duration_us: u64,
}

fn call<W: Write>(call: &Call, out: &mut Out<W>) -> std::io::Result<()> {
    let Call { id, step, version, outcome, fuel, .. } = call;
    let again = if call.attempt > 1 { format!(", call {}", call.attempt) } else { String::new() };
    let (time, ms) = (clock(&call.ended), millis(call.duration_us));
    let which = printable(&format!("{step} {version}  {outcome}{again}  {id}"));
    writeln!(out, "{time}  {which}  {ms}  fuel {}", super::output::grouped(*fuel))?;
    if let Some(detail) = &call.detail {
        writeln!(out, "    {}", printable(detail))?;
    }
    writeln!(out, "  {:<16} {}", "alert", one_line(&call.alert.to_string()))?;
    for (what, value) in call.given.iter().chain(call.gave.iter().flatten()) {
        let empty =
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !empty && !value.is_null() {
            writeln!(out, "  {:<16} {}", printable(what), one_line(&value.to_string()))?;
        }
    }
    Ok(())
}

/// The time of day of a timestamp.
fn clock(time: &str) -> String {
    let parsed = time.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| printable(time), |time| time.strftime("%H:%M:%S%.3fZ").to_string())
}

fn millis(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"record":{"schema":1,"id":"a\u001b[2J","alert":{"n":1.10},"observables":[],"enrichment":{"geo":{"country":"NL"}},"verdict":{"label":"malicious","score":92,"reasons":["seen \u202e before"]},"pipeline":{"finished":"2026-01-02T03:04:05.6789Z","duration_us":1234}}}"#;
    const CALL: &str = r#"{"call":{"id":"a","step":"geo","stage":"enrich","plugin":"geo","version":"0.1.0","sha256":"ab","ended":"2026-01-02T03:04:05Z","attempt":2,"outcome":"ok","alert":{"src_ip":"192.0.2.1"},"given":{"observables":[],"enrichment":{}},"gave":{"fields":{"country":"NL"},"observables":[],"verdict":null},"cached":false,"tables":{},"fuel":4211,"memory":131072,"duration_us":9}}"#;

    fn shown(line: &str, pretty: bool) -> String {
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        show(line.as_bytes(), pretty, &mut out).unwrap();
        drop(out);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_program_gets_the_record_as_it_is_stored_on_one_line_that_drives_no_terminal() {
        let line = shown(&RECORD.replace("\"n\":1.10", "\"n\":1.10, \"x\":\"\u{9b}31m\""), false);
        assert!(line.starts_with("{\"schema\":1,") && line.ends_with("}\n") && line.contains("1.10"), "{line}");
        assert!(line.contains("\\u009b31m") && printable(line.trim_end()) == line.trim_end(), "{line}");
        assert_eq!(shown("{\"lost\":3}", false), "", "that goes to the standard error");
    }

    #[test]
    fn a_person_gets_what_matters_first() {
        let text = shown(RECORD, true);
        let expected = "03:04:05.678Z  malicious 92  a\\u{1b}[2J  1.234 ms\n    seen \\u{202e} before\n  geo              {\"country\":\"NL\"}\n";
        assert_eq!(text, expected);
        let text = shown(CALL, true);
        let expected = "03:04:05.000Z  geo 0.1.0  ok, call 2  a  0.009 ms  fuel 4,211\n  alert            {\"src_ip\":\"192.0.2.1\"}\n  fields           {\"country\":\"NL\"}\n";
        assert_eq!(text, expected);
    }
}
