//! `dossier validate`: asks everything that `dossier run` would use what is wrong with it, and shows all of it at once.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Finding, StepConfig};
use crate::{plugin, queue, tables};

use super::FAILED;
use super::output::{Out, count, place, printable};

/// Shows every problem, or what is fine.
///
/// # Errors
/// The output cannot be written.
pub async fn validate<W: Write>(file: &Path, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let (config, mut findings) = Config::examine(file);
    if let Some(config) = &config {
        findings.extend(tables::check(config).await);
        findings.extend(plugin::check(config).await);
        findings.extend(queue::findings(config, queue::check(&config.queue).await));
    }
    match config {
        Some(config) if findings.is_empty() => {
            write_summary(&config, out)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            write_findings(&findings, out)?;
            Ok(ExitCode::from(FAILED))
        }
    }
}

fn write_findings<W: Write>(findings: &[Finding], out: &mut Out<W>) -> std::io::Result<()> {
    for finding in findings {
        writeln!(out, "{}", printable(&finding.to_string()))?;
    }
    writeln!(out, "{}", count(findings.len() as u64, "problem"))
}

fn write_summary<W: Write>(config: &Config, out: &mut Out<W>) -> std::io::Result<()> {
    writeln!(out, "{} is fine", printable(&config.file.display().to_string()))?;
    writeln!(out, "queue   {}", place(&config.queue.kind))?;
    for (name, table) in &config.tables {
        writeln!(out, "table   {}: {}", printable(name), printable(&table.file.display().to_string()))?;
    }
    for (name, http) in &config.http {
        writeln!(out, "http    {}: {}", printable(name), printable(http.url.as_str()))?;
    }
    for step in &config.steps {
        writeln!(out, "step    {}", describe(step))?;
    }
    Ok(())
}

fn describe(step: &StepConfig) -> String {
    let mut parts = vec![format!("plugin {}", printable(&step.plugin))];
    let granted = |kind: &str, names: &[String]| {
        let names: Vec<_> = names.iter().map(|name| printable(name)).collect();
        (!names.is_empty()).then(|| format!("{kind} {}", names.join(", ")))
    };
    parts.extend(granted("tables", &step.tables));
    parts.extend(granted("http", &step.http));
    if !step.required {
        parts.push("not required".to_owned());
    }
    format!("{}: {}", printable(&step.name), parts.join("; "))
}
