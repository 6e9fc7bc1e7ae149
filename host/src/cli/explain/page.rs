//! An alert's story as a page. Knows nothing of where it was found.

use std::io::{self, Write};
use std::time::Duration;

use bytesize::ByteSize;
use console::Style;
use jiff::Timestamp;

use crate::alert::observables::Observable;
use crate::cli::dlq::show::told;
use crate::cli::output::{count, duration, grouped, printable, since};
use crate::cli::sheet::{Sheet, Styled};
use crate::dead_letter::history::History;
use crate::dead_letter::{DeadLetter, FailedStep, Reason};
use crate::queue::Dead;
use crate::record::SCHEMA;

use super::story::{Story, Trace};

/// How many lines of one step's answer are shown.
const LINES: usize = 40;
/// How much of a digest is shown: enough for `--digest` of other commands.
const DIGEST: usize = 12;

/// Writes what a record tells.
pub fn write_record<W: Write>(sheet: &mut Sheet<'_, W>, key: &str, story: &Story) -> io::Result<()> {
    let Story { verdict, pipeline, .. } = story;
    let style = match verdict.label.as_str() {
        "malicious" => Style::new().red().bold(),
        "suspicious" => Style::new().yellow().bold(),
        "benign" => Style::new().green().bold(),
        _ => Style::new().bold(),
    };
    title(sheet, &story.id, &format!("{} {}", verdict.label.to_uppercase(), verdict.score), style)?;
    if story.schema > SCHEMA {
        let line = format!("its schema {} is newer than this program, which may misread it", story.schema);
        sheet.paragraph("! ", Styled(line, Style::new().yellow()))?;
    }
    for reason in &verdict.reasons {
        sheet.paragraph("  - ", reason.as_str())?;
    }
    let rows: Vec<_> =
        story.observables.iter().map(|seen| [&seen.kind, &seen.role, &seen.value].map(Clone::clone)).collect();
    write_observables(sheet, &rows)?;

    sheet.heading("Steps")?;
    if pipeline.steps.is_empty() {
        sheet.paragraph("  ", "none: no step was configured")?;
    }
    for (number, trace) in pipeline.steps.iter().enumerate() {
        if number > 0 {
            sheet.gap()?;
        }
        write_step(sheet, trace, story)?;
    }

    sheet.heading("Way")?;
    write_history(sheet, &pipeline.history, pipeline.history_cut)?;
    let mut line = |name: &str, text: String| sheet.entry(2, NAME, name, text);
    if let Some(first) = pipeline.history.first_received() {
        line("arrived", moment(first))?;
    }
    if let Some(received) = pipeline.received {
        line("received", moment(received))?;
    }
    if let Some(finished) = pipeline.finished {
        line("stored", format!("{}, {} after that", moment(finished), took(pipeline.duration_us)))?;
    }
    line("deliveries", deliveries(pipeline.deliveries))?;
    line("attempts", attempts(pipeline.attempts))?;
    line("stored as", key.to_owned())?;
    line("host", format!("{}, configuration {}", pipeline.host, short(&pipeline.config_sha256)))
}

/// Writes what a dead letter tells, with the observables that its alert would have.
pub fn write_dead<W: Write>(sheet: &mut Sheet<'_, W>, dead: &Dead, observables: &[Observable]) -> io::Result<()> {
    let Dead { key, letter, .. } = dead;
    let id = letter.id.as_deref().unwrap_or("without an id: its bytes could not be decoded");
    title(sheet, id, &format!("DEAD {}", letter.reason), Style::new().red().bold())?;
    sheet.paragraph("  ", letter.detail.as_str())?;
    sheet.gap()?;
    for (command, what) in next(key, letter) {
        sheet.paragraph("  ", Styled(command, Style::new().bold()))?;
        sheet.paragraph("      ", what)?;
    }
    let rows: Vec<_> = observables.iter().map(|seen| [&seen.kind, &seen.role, &seen.value].map(Clone::clone)).collect();
    write_observables(sheet, &rows)?;
    if let Some(failed) = &letter.step {
        sheet.heading("Failed step")?;
        write_failed(sheet, failed, letter.reason)?;
    }
    sheet.heading("Way")?;
    write_history(sheet, &letter.history, letter.left_out())?;
    let mut line = |name: &str, text: String| sheet.entry(2, NAME, name, text);
    line("first seen", moment(letter.first_seen))?;
    line("failed", moment(letter.failed_at))?;
    line("deliveries", deliveries(letter.deliveries))?;
    line("attempts", attempts(letter.attempts))?;
    if let Some(entry) = &letter.entry {
        line("entry", entry.clone())?;
    }
    line("dead as", key.clone())?;
    line("host", letter.host.clone())
}

/// Writes what is known of an alert that waits.
pub fn write_waiting<W: Write>(
    sheet: &mut Sheet<'_, W>,
    id: &str,
    key: &str,
    is_again: bool,
    observables: &[Observable],
) -> io::Result<()> {
    title(sheet, id, "WAITING", Style::new().cyan().bold())?;
    let what = if is_again {
        "It was sent to be enriched anew: its record is about to be replaced, and stays until then, or for good if it fails this time."
    } else {
        "It is in the queue: no host has taken it, or one has it in flight."
    };
    sheet.paragraph("  ", what)?;
    sheet.gap()?;
    sheet.paragraph("  ", Styled("dossier status".to_owned(), Style::new().bold()))?;
    sheet.paragraph("      ", "says whether a host runs and how long the oldest has waited")?;
    let rows: Vec<_> = observables.iter().map(|seen| [&seen.kind, &seen.role, &seen.value].map(Clone::clone)).collect();
    write_observables(sheet, &rows)?;
    sheet.heading("Way")?;
    sheet.entry(2, NAME, "waits as", key.to_owned())
}

/// How wide the names under "Way" are.
const NAME: usize = 10;

fn title<W: Write>(sheet: &mut Sheet<'_, W>, id: &str, what: &str, style: Style) -> io::Result<()> {
    let (what, id) = (printable(what), printable(id));
    let both = console::measure_text_width(&what) + 2 + console::measure_text_width(&id);
    if both <= sheet.room(0) {
        return writeln!(sheet.out(), "{}  {id}", style.apply_to(what));
    }
    sheet.paragraph("", Styled(what, style))?;
    sheet.paragraph("", id)
}

fn write_observables<W: Write>(sheet: &mut Sheet<'_, W>, rows: &[[String; 3]]) -> io::Result<()> {
    sheet.heading("Observables")?;
    if rows.is_empty() {
        return sheet.paragraph("  ", "none were found: nothing in it could be looked up");
    }
    sheet.table(2, rows)
}

fn write_step<W: Write>(sheet: &mut Sheet<'_, W>, trace: &Trace, story: &Story) -> io::Result<()> {
    step_title(sheet, &trace.step, &trace.outcome)?;
    if trace.outcome == "absent" {
        return sheet.paragraph("    ", format!("plugin {} was not there when the alert was enriched", trace.plugin));
    }
    if let Some(detail) = &trace.detail {
        sheet.paragraph("    ", detail.as_str())?;
    }
    let mut cost = vec![
        trace.stage.clone(),
        took(trace.duration_us),
        format!("{} fuel", grouped(trace.fuel)),
        format!("{} memory", size(trace.memory)),
    ];
    if trace.attempts != 1 {
        cost.push(format!("{} (the figures are the last one's)", count(trace.attempts.into(), "call")));
    }
    if trace.cached {
        cost.push("asked answers came from the cache".to_owned());
    }
    let dim = |text: String| Styled(text, Style::new().dim());
    sheet.paragraph("    ", dim(cost.join(", ")))?;
    sheet.paragraph("    ", dim(plugin(&trace.plugin, &trace.version, &trace.sha256)))?;
    if !trace.tables.is_empty() {
        let tables: Vec<_> = trace.tables.iter().map(|(table, sha256)| format!("{table} {}", short(sha256))).collect();
        sheet.paragraph(
            "    ",
            dim(format!("{}: {}", if tables.len() == 1 { "table" } else { "tables" }, tables.join(", "))),
        )?;
    }
    let Some(answer) = story.enrichment.get(&trace.step) else { return Ok(()) };
    let missing = sheet.json(4, answer, LINES)?;
    match missing {
        0 => Ok(()),
        _ => sheet.paragraph("    ", format!("… {} more; --json gives all of it", count(missing as u64, "line"))),
    }
}

fn write_failed<W: Write>(sheet: &mut Sheet<'_, W>, failed: &FailedStep, reason: Reason) -> io::Result<()> {
    step_title(sheet, &failed.step, reason.as_str())?;
    let took = took(failed.duration_us);
    let calls = count(failed.calls.into(), "call");
    let last = if failed.calls == 1 { "it" } else { "the last" };
    sheet.paragraph("    ", format!("{calls}, {last} used {} fuel and took {took}", grouped(failed.fuel)))?;
    sheet.paragraph("    ", Styled(plugin(&failed.plugin, &failed.version, &failed.sha256), Style::new().dim()))
}

fn step_title<W: Write>(sheet: &mut Sheet<'_, W>, step: &str, outcome: &str) -> io::Result<()> {
    let style = match outcome {
        "ok" => Style::new().green(),
        "not-applicable" => Style::new().dim(),
        "absent" => Style::new().yellow(),
        _ => Style::new().red(),
    };
    let (step, outcome) = (printable(step), printable(outcome));
    if console::measure_text_width(&step) + console::measure_text_width(&outcome) + 2 > sheet.room(2) {
        sheet.paragraph("  ", Styled(step, Style::new().bold()))?;
        return sheet.paragraph("  ", Styled(outcome, style));
    }
    writeln!(sheet.out(), "  {}  {}", Style::new().bold().apply_to(step), style.apply_to(outcome))
}

fn write_history<W: Write>(sheet: &mut Sheet<'_, W>, history: &History, left_out: u32) -> io::Result<()> {
    if left_out > 0 {
        sheet.entry(2, NAME, "before", format!("{}, not kept", count(left_out.into(), "attempt")))?;
    }
    for event in history.events() {
        sheet.entry(2, NAME, "before", told(event))?;
    }
    Ok(())
}

fn plugin(name: &str, version: &str, sha256: &str) -> String {
    format!("plugin {name} {version}, digest {}", short(sha256))
}

fn deliveries(number: u32) -> String {
    match number {
        0 | 1 => number.to_string(),
        _ => format!("{number}: it was delivered again because a host ended or lost it before it was done"),
    }
}

fn attempts(number: u32) -> String {
    match number {
        0 | 1 => number.to_string(),
        _ => format!(
            "{number}: it was processed to its end {} before",
            match number {
                2 => "once".to_owned(),
                number => format!("{} times", number - 1),
            }
        ),
    }
}

/// Microseconds: `17 µs`, `200.6 ms`, `2.0 s`.
fn took(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => duration(time),
    }
}

fn moment(moment: Timestamp) -> String {
    format!("{moment:.0} ({} ago)", duration(since(moment)))
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// The beginning of a digest.
fn short(sha256: &str) -> &str {
    sha256.get(..DIGEST).unwrap_or(sha256)
}

/// What somebody can do about a dead letter: commands, and what each is for.
fn next(key: &str, letter: &DeadLetter) -> Vec<(String, &'static str)> {
    // A shell takes a key as it is; one that it would not is quoted.
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
    let key = if plain { key.to_owned() } else { format!("'{}'", key.replace('\'', "'\\''")) };
    let replay = format!("dossier dlq replay {key}");
    let drop = format!("dossier dlq drop {key}");
    let raw = format!("dossier dlq show --raw {key}");
    match letter.reason {
        Reason::NoAlert => vec![(drop, "it holds no alert; mend its sender, which must write the field \"alert\"")],
        Reason::Malformed | Reason::NotAnObject => vec![
            (raw, "gives its exact bytes; mend its sender: an alert is one JSON object"),
            (drop, "nothing will make these bytes an alert"),
        ],
        Reason::TooLarge => vec![(replay, "once max_alert_size in [queue] is large enough")],
        Reason::Unavailable => vec![(replay, "once what the step asks answers again; `dossier doctor` tries it")],
        Reason::HostCrash => vec![(replay, "gives it a new start; report the crash, whatever the alert holds")],
        Reason::OutOfFuel | Reason::Memory | Reason::Timeout => vec![
            (replay, "once its limit in its [[step]] is higher, or the plugin is mended"),
            (raw, "gives its exact bytes, to try: dossier plugin run PLUGIN --alert FILE"),
        ],
        Reason::Trap | Reason::InvalidOutput | Reason::Invalid | Reason::PluginError => vec![
            (format!("{replay} --with NEW.wasm --dry-run"), "says whether it would pass with a mended plugin"),
            (replay, "once that one is in the plugins folder"),
        ],
    }
}
