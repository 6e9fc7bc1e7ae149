//! A host as lines of text, in the order in which somebody who was woken up wants them: does it run, does the queue grow, which step is
//! to blame, what died of what, what happened. The same lines are a screen and, without colours, the plain text of `--once`.

use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::cells::{self, Column, Side};
use super::readings::{Rates, Reading, StepRates};
use crate::admin::api::report::{Alarm, DeadReason, Step, Table};
use crate::cli::output::{duration, grouped, printable, rough};

/// How many alarms, rows of dead letters, and events there are at most.
const ALARMS: usize = 6;
const DEAD: usize = 8;
const EVENTS: usize = 12;

/// How narrow a terminal is on which only what matters most stands above the steps.
const NARROW: usize = 60;

const BAD: Style = Style::new().fg(Color::Red);
const ODD: Style = Style::new().fg(Color::Yellow);
const GOOD: Style = Style::new().fg(Color::Green);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

/// The page of a host that is starting.
pub fn none_yet(at: &str, width: usize) -> Vec<Line<'static>> {
    let who = vec![Span::styled("dossier", HEAD), Span::raw(format!(" at {at}   ")), Span::styled("STARTING", ODD)];
    vec![cut(who, width)]
}

/// The page of a reading, for lines of this many columns. `at` is where the host was asked, and `answers` whether it still does.
pub fn page(at: &str, reading: &Reading, rates: Option<&Rates>, answers: bool, width: usize) -> Vec<Line<'static>> {
    let mut lines = header(at, reading, rates, answers, width);
    for (part, what) in &reading.status.problems {
        lines.push(cut(vec![Span::styled(format!("{}: {}", printable(part), printable(what)), BAD)], width));
    }
    lines.extend(alarms(reading, width));
    lines.push(Line::default());
    lines.extend(steps(reading, rates, width));
    lines.push(Line::default());
    lines.extend(dead_letters(reading, width));
    lines.push(Line::default());
    lines.extend(events(reading, width));
    if !reading.tables.tables.is_empty() {
        lines.push(Line::default());
        lines.extend(tables(reading, width));
    }
    lines
}

/// A line that ends with `…` where it would be longer.
fn cut(spans: Vec<Span<'static>>, width: usize) -> Line<'static> {
    let mut left = width;
    let mut line = Line::default();
    for span in spans {
        let wide = console::measure_text_width(&span.content);
        if wide <= left {
            left -= wide;
            line.push_span(span);
            continue;
        }
        let content = console::truncate_str(&span.content, left, "…").into_owned();
        line.push_span(Span::styled(content, span.style));
        break;
    }
    line
}

/// Facts beside each other, as many on a line as there is room for.
fn flowing(facts: Vec<Vec<Span<'static>>>, width: usize) -> Vec<Line<'static>> {
    let wide =
        |fact: &[Span<'static>]| fact.iter().map(|span| console::measure_text_width(&span.content)).sum::<usize>();
    let (mut lines, mut line, mut used) = (Vec::new(), Vec::new(), 0);
    for fact in facts {
        let needs = wide(&fact);
        if used > 0 && used + 3 + needs > width {
            lines.push(cut(std::mem::take(&mut line), width));
            used = 0;
        }
        if used > 0 {
            line.push(Span::raw("   "));
            used += 3;
        }
        line.extend(fact);
        used += needs;
    }
    lines.push(cut(line, width));
    lines
}

fn plain(text: impl Into<String>) -> Vec<Span<'static>> {
    vec![Span::raw(text.into())]
}

fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "for ever".to_owned(), duration)
}

fn header(at: &str, reading: &Reading, rates: Option<&Rates>, answers: bool, width: usize) -> Vec<Line<'static>> {
    let status = &reading.status;
    let (word, style) = match (answers, status.ready) {
        (false, _) => ("NO ANSWER", BAD.add_modifier(Modifier::BOLD)),
        (true, false) => ("NOT READY", BAD.add_modifier(Modifier::BOLD)),
        (true, true) => ("ready", GOOD),
    };
    let name = match status.queue.kind.as_str() {
        "redis" => format!("stream {}", printable(&status.queue.name)),
        _ => format!("directory {}", printable(&status.queue.name)),
    };
    let is_narrow = width < NARROW;
    let mut who = vec![
        vec![Span::styled(format!("dossier {}", printable(&status.version)), HEAD), Span::raw(format!(" at {at}"))],
        vec![Span::styled(word, style)],
        plain(format!("up {}", seconds(status.uptime_seconds))),
    ];
    if !is_narrow {
        who.push(plain(name));
    }
    let mut lines = flowing(who, width);
    lines.extend(flowing(backlog(reading, rates), width));
    let alerts = &status.alerts;
    let per_second = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{}/s", cells::rate(rate)));
    let mut flow = vec![
        plain(format!("in {}", per_second(rates.and_then(|rates| rates.added)))),
        plain(format!("out {}", per_second(rates.and_then(|rates| rates.finished)))),
    ];
    if status.queue.flow.is_some() && !is_narrow {
        flow.push(plain(format!("out of this host {}", per_second(rates.map(|rates| rates.finished_here)))));
    }
    let took = rates.map(|rates| &rates.duration);
    let time = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), cells::time);
    if !is_narrow {
        flow.push(plain(format!("p50 {}", time(took.and_then(|took| took.p50)))));
    }
    flow.push(plain(format!("p99 {}", time(took.and_then(|took| took.p99)))));
    if is_narrow {
        lines.extend(flowing(flow, width));
        return lines;
    }
    flow.push(plain(format!("in flight here {} of {}", alerts.in_flight, status.limits.in_flight)));
    lines.extend(flowing(flow, width));
    let counts = [
        ("stored", alerts.stored + alerts.conflicts),
        ("dead", alerts.dead),
        ("stored before", alerts.duplicates),
        ("enriched anew", alerts.replaced),
        ("kept as they were", alerts.kept),
        ("beside another", alerts.conflicts),
        ("taken over", alerts.lost),
    ];
    let mut since: Vec<_> = vec![plain("since start:")];
    let shown = counts.into_iter().enumerate().filter(|(place, (_, count))| *place < 2 || *count > 0);
    since.extend(shown.map(|(_, (name, count))| {
        vec![Span::styled(
            format!("{} {name}", grouped(count)),
            if name == "dead" && count > 0 { ODD } else { Style::new() },
        )]
    }));
    for label in ["malicious", "suspicious", "benign", "unknown"] {
        let count = alerts.verdicts.get(label).copied().unwrap_or_default();
        if count > 0 {
            since.push(plain(format!("{label} {}", grouped(count))));
        }
    }
    lines.extend(flowing(since, width));
    lines
}

/// How full the queue is, and whether it grows.
fn backlog(reading: &Reading, rates: Option<&Rates>) -> Vec<Vec<Span<'static>>> {
    let Some(depth) = &reading.status.queue.depth else { return vec![plain("backlog not measured yet")] };
    let backlog = depth.waiting + depth.in_flight;
    let mut facts = vec![
        vec![Span::styled(format!("backlog {}", grouped(backlog)), HEAD)],
        plain(format!("lag {}", grouped(depth.waiting))),
        plain(format!("in flight {}", grouped(depth.in_flight))),
        plain(format!("oldest {}", depth.oldest_seconds.map_or_else(|| "-".to_owned(), seconds))),
    ];
    // What is only in flight comes and goes with each batch.
    if let Some(rates) = rates.filter(|_| depth.waiting > 0) {
        let grows = rates.added.zip(rates.finished).filter(|(added, finished)| *added > finished * 1.02);
        match (rates.empty_in_seconds, grows) {
            (_, Some((added, finished))) => {
                facts.push(vec![Span::styled(format!("grows by {}/s", cells::rate(added - finished)), BAD)]);
            }
            (Some(empty), None) => facts.push(vec![Span::styled(format!("empty in {}", seconds(empty)), GOOD)]),
            (None, None) => {}
        }
    }
    let age = reading.status.uptime_seconds - depth.measured_seconds;
    // The host measures every two seconds; one that does not has a queue that does not answer.
    if age > 10.0 {
        facts.push(vec![Span::styled(format!("measured {} ago", seconds(age)), BAD)]);
    }
    facts
}

/// The alarms, each with what to do; the gravest first.
fn alarms(reading: &Reading, width: usize) -> Vec<Line<'static>> {
    let alarms = folded(&reading.alarms.alarms);
    if alarms.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::default()];
    lines.push(cut(vec![Span::styled(format!("alarms {}", grouped(reading.status.alarms)), HEAD)], width));
    for alarm in alarms.iter().take(ALARMS) {
        let style = match alarm.severity.as_str() {
            "critical" => BAD.add_modifier(Modifier::BOLD),
            "warning" => ODD,
            _ => Style::new(),
        };
        let subject = if alarm.subject.is_empty() { String::new() } else { format!(" {}", printable(&alarm.subject)) };
        let age = rough(Duration::from_secs(alarm.age_seconds));
        let what = vec![
            Span::styled(format!("{}{subject}", printable(&alarm.alarm)), style),
            Span::raw(format!(" for {age}: {}", printable(&alarm.detail))),
        ];
        lines.push(cut(what, width));
        if alarm.severity != "info" {
            lines.push(cut(vec![Span::styled(format!("  → {}", printable(&alarm.remedy)), FAINT)], width));
        }
    }
    if alarms.len() > ALARMS {
        let all = alarms.len().max(usize::try_from(reading.alarms.total).unwrap_or(usize::MAX));
        lines.push(cut(vec![Span::raw(format!("  and {} more", grouped((all - ALARMS) as u64)))], width));
    }
    lines
}

/// Of one kind that is only worth knowing, one line for all.
fn folded(alarms: &[Alarm]) -> Vec<Alarm> {
    let mut folded: Vec<Alarm> = Vec::new();
    for alarm in alarms {
        let same = |other: &&mut Alarm| alarm.severity == "info" && other.alarm == alarm.alarm;
        match folded.iter_mut().find(same) {
            Some(other) => {
                other.subject = format!("{}, {}", other.subject, alarm.subject);
                other.detail.clone_from(&alarm.remedy);
            }
            None => folded.push(alarm.clone()),
        }
    }
    folded
}

fn steps(reading: &Reading, rates: Option<&Rates>, width: usize) -> Vec<Line<'static>> {
    let columns = [
        Column::new("STEP", Side::Left, 13, 0),
        Column::new("STAGE", Side::Left, 0, 4),
        Column::new("CALLS/S", Side::Right, 0, 0),
        Column::new("P50", Side::Right, 0, 2),
        Column::new("P99", Side::Right, 0, 0),
        Column::new("FUEL", Side::Right, 0, 3),
        Column::new("FAILED", Side::Left, 20, 0),
        Column::new("VERSION", Side::Left, 0, 2),
        Column::new("DIGEST", Side::Left, 0, 5),
        Column::new("PROBATION", Side::Left, 0, 1),
    ];
    let rows =
        reading.steps.steps.iter().map(|step| step_cells(step, rates.and_then(|rates| rates.steps.get(&step.step))));
    cells::table(&columns, rows.collect(), width)
}

fn step_cells(step: &Step, rates: Option<&StepRates>) -> Vec<Span<'static>> {
    let none = || "-".to_owned();
    let name = printable(&step.step);
    let absent = step.version.is_none();
    let failed: Vec<_> = {
        let mut failures: Vec<_> = step.failures().collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let retries = (step.retries > 0).then_some(("retried", step.retries));
        failures
            .into_iter()
            .chain(retries)
            .map(|(kind, count)| format!("{} {}", printable(kind), grouped(count)))
            .collect()
    };
    let is_failing = rates.is_some_and(|rates| rates.failures > 0.0);
    let failed_style = match (failed.is_empty(), is_failing) {
        (true, _) => FAINT,
        (false, true) => BAD,
        (false, false) => ODD,
    };
    let probation = match &step.probation {
        Some(trial) => format!("{}/{} of {}", trial.failed, trial.calls, trial.of),
        None => none(),
    };
    let notice = !step.alarms.is_empty() || step.probation.is_some();
    let time = |value: Option<f64>| value.map_or_else(none, cells::time);
    let (calls, p50, p99, fuel) = match rates {
        Some(StepRates { calls, duration, fuel, .. }) => {
            (cells::rate(*calls), time(duration.p50), time(duration.p99), fuel.p99.map_or_else(none, cells::short))
        }
        None => (none(), none(), none(), none()),
    };
    vec![
        Span::styled(
            name,
            if absent {
                BAD
            } else if notice {
                ODD
            } else {
                Style::new()
            },
        ),
        Span::raw(step.stage.clone().unwrap_or_else(none)),
        Span::raw(calls),
        Span::raw(p50),
        Span::raw(p99),
        Span::raw(fuel),
        Span::styled(if failed.is_empty() { none() } else { failed.join(", ") }, failed_style),
        Span::styled(
            step.version.as_deref().map_or_else(|| "absent".to_owned(), printable),
            if absent { BAD } else { Style::new() },
        ),
        Span::styled(step.sha256.as_deref().map_or_else(none, |sha256| format!("{:.12}", printable(sha256))), FAINT),
        Span::styled(probation, if step.probation.is_some() { ODD } else { FAINT }),
    ]
}

fn dead_letters(reading: &Reading, width: usize) -> Vec<Line<'static>> {
    let Some(dead) = &reading.dead_letters else {
        return vec![cut(vec![Span::styled("dead letters: the queue does not answer", BAD)], width)];
    };
    let total = dead.total.unwrap_or(dead.counted);
    let style = match total {
        0 => GOOD,
        _ if total >= dead.alarm_from => BAD,
        _ => ODD,
    };
    let mut title = vec![Span::styled(format!("dead letters {}", grouped(total)), style.add_modifier(Modifier::BOLD))];
    // A few that came since they were counted are no news; thousands that were not counted are.
    if total > dead.counted + dead.counted / 10 + 100 {
        title.push(Span::raw(format!("  of the oldest {}:", grouped(dead.counted))));
    }
    if total > 0 {
        title.push(Span::styled("  (each one: dossier dlq list)", FAINT));
    }
    let mut lines = vec![cut(title, width)];
    for DeadReason { reason, step, count, last } in dead.reasons.iter().take(DEAD) {
        let whose = step.as_ref().map(|step| format!(" in {}", printable(step))).unwrap_or_default();
        let ago = last.as_deref().and_then(|last| last.parse().ok()).map(crate::cli::output::since);
        let ago = ago.map(|ago| format!(", the last {} ago", rough(ago))).unwrap_or_default();
        lines.push(cut(vec![Span::raw(format!("{:>9}  {}{whose}{ago}", grouped(*count), printable(reason)))], width));
    }
    if dead.reasons.len() > DEAD {
        lines.push(cut(vec![Span::raw(format!("{:>9}  and {} reasons more", "", dead.reasons.len() - DEAD))], width));
    }
    lines
}

fn tables(reading: &Reading, width: usize) -> Vec<Line<'static>> {
    let columns = [
        Column::new("TABLE", Side::Left, 8, 0),
        Column::new("ROWS", Side::Right, 0, 1),
        Column::new("FILE CHANGED", Side::Right, 0, 0),
        Column::new("LOADED", Side::Right, 0, 2),
        Column::new("DIGEST", Side::Left, 0, 4),
        Column::new("USED BY", Side::Left, 6, 3),
    ];
    let ago = |seconds: Option<f64>| match seconds.and_then(|it| Duration::try_from_secs_f64(it).ok()) {
        Some(age) => format!("{} ago", rough(age)),
        None => "-".to_owned(),
    };
    let row = |table: &Table| {
        vec![
            Span::raw(printable(&table.table)),
            Span::raw(table.rows.map_or_else(|| "-".to_owned(), grouped)),
            Span::styled(
                if table.changed_seconds_ago.is_some() {
                    ago(table.changed_seconds_ago)
                } else {
                    "file is gone".to_owned()
                },
                if table.changed_seconds_ago.is_some() { Style::new() } else { BAD },
            ),
            Span::raw(ago(table.loaded_seconds_ago)),
            Span::styled(format!("{:.12}", printable(&table.sha256)), FAINT),
            Span::raw(if table.steps.is_empty() { "no step".to_owned() } else { printable(&table.steps.join(", ")) }),
        ]
    };
    cells::table(&columns, reading.tables.tables.iter().map(row).collect(), width)
}

fn events(reading: &Reading, width: usize) -> Vec<Line<'static>> {
    let events = &reading.events.events;
    if events.is_empty() {
        return vec![cut(vec![Span::styled("nothing happened yet that somebody should know of", FAINT)], width)];
    }
    let mut lines = vec![cut(vec![Span::styled("last events (UTC)", HEAD)], width)];
    for event in events.iter().take(EVENTS) {
        let time = event.last.parse::<jiff::Timestamp>();
        let time = time.map_or_else(|_| "-".to_owned(), |time| time.strftime("%H:%M:%S").to_string());
        let style = match event.level.as_str() {
            "error" => BAD,
            "warn" => ODD,
            _ => Style::new(),
        };
        let times = if event.count > 1 { format!(" ×{}", grouped(event.count)) } else { String::new() };
        lines.push(cut(
            vec![
                Span::styled(format!("{time} "), FAINT),
                Span::styled(format!("{}{times}", printable(&event.kind)), style),
                Span::raw(format!("  {}", printable(&event.text))),
            ],
            width,
        ));
    }
    if events.len() > EVENTS {
        let more = format!("and {} more: /api/v1/events", events.len() - EVENTS);
        lines.push(cut(vec![Span::styled(more, FAINT)], width));
    }
    lines
}
