//! `dossier validate`: asks everything that `dossier run` would use what is wrong with it, and shows all of it at once.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{Config, Finding, StepConfig};
use crate::pipeline::LoadedStep;
use crate::plugin;
use crate::queue;
use crate::tables::{Snapshot, Tables};
use crate::telemetry::{Telemetry, logging};

use super::FAILED;
use super::output::{Out, count, place, printable};

/// Shows every problem, or what is fine.
///
/// # Errors
/// The output cannot be written, or a table's loader panicked.
pub async fn validate<W: Write>(file: &Path, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let (config, mut findings) = Config::examine(file);
    let Some(config) = config else { return write_findings(&findings, out) };
    let config = Arc::new(config);
    findings.extend(logging::filter(&config.log).err().map(|error| config.finding(None, error.to_string())));
    let tables = load_tables(&config).await?.unwrap_or_else(|wrong| {
        findings.extend(wrong);
        Arc::default()
    });
    let (wrong, steps) = plugin::check(&config).await;
    findings.extend(wrong);
    findings.extend(queue::findings(&config, queue::check(&config.queue).await));
    if !findings.is_empty() {
        // In the order of the file; then what has no line, then what is wrong elsewhere.
        findings.sort_by_key(|finding| (finding.file != config.file, finding.line.unwrap_or(usize::MAX)));
        return write_findings(&findings, out);
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
    steps: &[LoadedStep],
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
    let named = config.steps.iter().map(|step| (step, steps.iter().find(|loaded| loaded.config.name == step.name)));
    let unnamed = steps.iter().filter(|loaded| loaded.config.line.is_none());
    for (step, loaded) in named.chain(unnamed.map(|loaded| (&*loaded.config, Some(loaded)))) {
        writeln!(out, "step   {}", describe(step, loaded))?;
    }
    writeln!(out, "{} is fine", printable(&config.file.display().to_string()))
}

/// `geo: plugin geo 0.1.0, enrich, tables geo`.
fn describe(step: &StepConfig, loaded: Option<&LoadedStep>) -> String {
    let enricher = loaded.and_then(|loaded| Some((loaded, loaded.enricher.as_ref()?)));
    let mut parts = match enricher {
        Some((loaded, enricher)) => vec![
            format!("plugin {} {}", printable(&step.plugin), printable(enricher.version())),
            loaded.stage.as_str().to_owned(),
        ],
        None => vec![format!("plugin {} is absent", printable(&step.plugin))],
    };
    let granted = |kind: &str, names: &[String]| {
        let names: Vec<_> = names.iter().map(|name| printable(name)).collect();
        (!names.is_empty()).then(|| format!("{kind} {}", names.join(" ")))
    };
    parts.extend(granted("tables", &step.tables));
    parts.extend(granted("http", &step.http));
    if step.line.is_none() {
        parts.push("named by no step: no grants, not required".to_owned());
    } else if !step.required {
        parts.push("not required".to_owned());
    }
    format!("{}: {}", printable(&step.name), parts.join(", "))
}
