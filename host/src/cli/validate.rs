//! `dossier validate`: asks everything that `dossier run` would use what is wrong with it, and shows all of it at once.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{Config, Finding, StepConfig};
use crate::plugin::{self, CheckedStep};
use crate::queue;
use crate::tables::{Snapshot, Tables};
use crate::telemetry::{Telemetry, logging};

use super::FAILED;
use super::output::{Out, count, place, printable};

/// What was found out about a configuration and the files that it names. The queue is not looked at.
pub struct Examined {
    /// The configuration, if it can be read at all; one that has findings must not be run.
    pub config: Option<Arc<Config>>,
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// The tables, if all can be loaded.
    pub tables: Arc<Snapshot>,
    /// The steps whose plugins are there.
    pub steps: Vec<CheckedStep>,
}

/// Looks at a configuration, its tables and its plugins, as a host would at its start.
///
/// # Errors
/// A table's loader panicked.
pub async fn examine(file: &Path) -> anyhow::Result<Examined> {
    let (config, mut findings) = Config::examine(file);
    let Some(config) = config else {
        return Ok(Examined { config: None, findings, tables: Arc::default(), steps: Vec::new() });
    };
    let config = Arc::new(config);
    findings.extend(logging::filter(&config.log).err().map(|error| config.finding(None, error.to_string())));
    let tables = load_tables(&config).await?.unwrap_or_else(|wrong| {
        findings.extend(wrong);
        Arc::default()
    });
    let (wrong, steps) = plugin::check(&config).await;
    findings.extend(wrong);
    Ok(Examined { config: Some(config), findings, tables, steps })
}

/// Shows every problem, or what is fine.
///
/// # Errors
/// The output cannot be written, or a table's loader panicked.
pub async fn validate<W: Write>(file: &Path, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let Examined { config, mut findings, tables, steps } = examine(file).await?;
    let Some(config) = config else { return write_findings(&findings, out) };
    findings.extend(queue::findings(&config, &queue::check(&config.queue).await));
    if !findings.is_empty() {
        // In the order of the file; then what has no line, then what is wrong elsewhere.
        findings.sort_by_key(|finding| (finding.file != config.file, finding.line.unwrap_or(usize::MAX)));
        let code = write_findings(&findings, out)?;
        for checked in steps.iter().filter(|checked| checked.refused) {
            let step = &checked.step.config;
            writeln!(out, "\nstep   {}: plugin {} is refused", printable(&step.name), printable(&step.plugin))?;
            rights(step, checked).iter().try_for_each(|line| writeln!(out, "         {line}"))?;
        }
        return Ok(code);
    }
    write_summary(&config, &tables, &steps, out)?;
    Ok(ExitCode::SUCCESS)
}

async fn load_tables(config: &Arc<Config>) -> anyhow::Result<Result<Arc<Snapshot>, Vec<Finding>>> {
    let config = Arc::clone(config);
    let open = move || Tables::open(&config, Arc::new(Telemetry::default())).map(|tables| tables.snapshot());
    Ok(tokio::task::spawn_blocking(open).await?)
}

fn write_findings<W: Write>(findings: &[Finding], out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    for finding in findings {
        writeln!(out, "{}", printable(&finding.to_string()))?;
    }
    writeln!(out, "{}", count(findings.len() as u64, "problem"))?;
    Ok(ExitCode::from(FAILED))
}

fn write_summary<W: Write>(
    config: &Config,
    tables: &Snapshot,
    steps: &[CheckedStep],
    out: &mut Out<W>,
) -> std::io::Result<()> {
    writeln!(out, "queue  {}", place(&config.queue.kind))?;
    for (name, table) in tables {
        let rows = table.rows().map_or_else(|| "a database".to_owned(), |rows| count(rows as u64, "row"));
        writeln!(out, "table  {}: {rows}", printable(name))?;
    }
    for (name, http) in &config.http {
        writeln!(out, "http   {}: {}", printable(name), printable(http.url.as_str()))?;
    }
    let checked = |name: &str| steps.iter().find(|checked| checked.step.config.name == name);
    let named = config.steps.iter().map(|step| (step, checked(&step.name)));
    let unnamed = steps.iter().filter(|checked| checked.step.config.line.is_none());
    for (step, checked) in named.chain(unnamed.map(|checked| (&*checked.step.config, Some(checked)))) {
        writeln!(out, "step   {}", describe(step, checked))?;
        for line in checked.map(|checked| rights(step, checked)).unwrap_or_default() {
            writeln!(out, "         {line}")?;
        }
    }
    writeln!(out, "{} is fine", printable(&config.file.display().to_string()))
}

/// `geo: plugin geo 0.1.0, enrich`.
pub fn describe(step: &StepConfig, checked: Option<&CheckedStep>) -> String {
    let enricher = checked.and_then(|checked| Some((checked, checked.step.enricher.as_ref()?)));
    let mut parts = match enricher {
        Some((checked, enricher)) => vec![
            format!("plugin {} {}", printable(&step.plugin), printable(enricher.version())),
            checked.step.stage.as_str().to_owned(),
        ],
        None => vec![format!("plugin {} is absent", printable(&step.plugin))],
    };
    if step.line.is_none() {
        parts.push("named by no step: no grants, not required".to_owned());
    } else if !step.required {
        parts.push("not required".to_owned());
    }
    format!("{}: {}", printable(&step.name), parts.join(", "))
}

/// What a step's plugin imports and asks for, side by side with what it was granted; a line each.
fn rights(step: &StepConfig, checked: &CheckedStep) -> Vec<String> {
    let imports = |name: &str| {
        let name = format!("{}{name}@", plugin::PACKAGE);
        checked.imports.iter().any(|import| import.starts_with(&name))
    };
    let manifest = checked.manifest.clone().unwrap_or_default();
    let optional =
        |name: &str, optional: bool| format!("{}{}", printable(name), if optional { " (optional)" } else { "" });
    let tables: Vec<_> = manifest.tables.iter().map(|ask| optional(&ask.name, ask.optional)).collect();
    let http: Vec<_> = manifest.http.iter().map(|ask| optional(&ask.name, ask.optional)).collect();
    let mut rows = Vec::new();
    for (kind, asks, granted) in [("tables", tables, &step.tables), ("http", http, &step.http)] {
        if !imports(kind) && asks.is_empty() && granted.is_empty() {
            continue;
        }
        let asks = match (imports(kind), asks.is_empty()) {
            (true, true) => "imports it, does not say why".to_owned(),
            (true, false) => format!("asks for {}", asks.join(", ")),
            (false, true) => "does not import it".to_owned(),
            (false, false) => format!("asks for {}, does not import it", asks.join(", ")),
        };
        let names: Vec<_> = granted.iter().map(|name| printable(name)).collect();
        let granted =
            if names.is_empty() { "nothing granted".to_owned() } else { format!("granted {}", names.join(", ")) };
        rows.push((kind, asks, granted));
    }
    let limits = &step.limits;
    let timeout = u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX);
    let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
    for (asked, has, name, show) in [
        (manifest.limits.fuel, limits.fuel, "fuel", &(|fuel: u64| fuel.to_string()) as &dyn Fn(u64) -> String),
        (manifest.limits.timeout_ms, timeout, "timeout", &|milliseconds| format!("{milliseconds} ms")),
        (manifest.limits.memory, limits.memory as u64, "memory", &kib),
        (manifest.limits.answer, limits.answer as u64, "answer", &kib),
    ] {
        if let Some(asked) = asked {
            rows.push((name, format!("asks for {}", show(asked)), format!("granted {}", show(has))));
        }
    }
    if checked.imports.iter().any(|import| import.starts_with("wasi:")) {
        rows.push(("wasi", "imports it".to_owned(), "an empty world".to_owned()));
    }
    let width = rows.iter().map(|(_, asks, _)| console::measure_text_width(asks)).max().unwrap_or_default();
    let mut lines: Vec<_> = rows
        .iter()
        .map(|(kind, asks, granted)| {
            format!("{kind:<8} {}  {granted}", console::pad_str(asks, width, console::Alignment::Left, None))
        })
        .collect();
    if checked.refused {
        return lines;
    }
    lines.push(match &checked.plain {
        None => "start    a copy of what configure left".to_owned(),
        Some(why) => format!("start    configured in each instance: it cannot be copied ({})", printable(why)),
    });
    lines
}
