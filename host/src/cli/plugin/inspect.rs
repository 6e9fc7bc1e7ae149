//! `dossier plugin inspect`: shows a component as far as it can be shown, whoever built it. It is compiled and configured as a
//! host would, in a child process; a component that a host refuses is shown with the reason.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use dossier_authoring::manifest::{HttpAsk, Manifest, TableAsk};
use dossier_authoring::outline::{self, Kind, Outline};
use serde::Serialize;
use serde_json::Value;

use crate::cli::FAILED;
use crate::cli::output::{Out, grouped, pretty, printable};
use crate::plugin::snapshot::Compiled;
use crate::plugin::trial::Workshop;
use crate::plugin::{PACKAGE, PREVIEW};

use super::paste;
use super::run::tell;
use super::trying::{Subject, settings_of};

/// What `dossier plugin inspect` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier plugin inspect geo.wasm
  dossier plugin inspect reputation.wasm --settings '{\"feeds\":[]}'
  dossier plugin inspect geo.wasm --json | jq .step -r >> dossier.toml

A file that a host would refuse is shown as far as it can be read, with the reason, and the exit code is 1.")]
pub struct Arguments {
    /// The component, or a folder with one
    #[arg(value_name = "PLUGIN")]
    component: PathBuf,
    /// The settings to configure it with, as JSON or in a file [default: the example that it carries, else {}]
    #[arg(long, value_name = "JSON|FILE")]
    settings: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// All that is known of a component.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    size: usize,
    sha256: &'a str,
    kind: &'static str,
    contract: Option<&'a str>,
    /// Why the file cannot be read to its end; what it imports and exports is then not all that it may be.
    damage: Option<&'a str>,
    imports: &'a [String],
    name: Option<&'a str>,
    version: Option<&'a str>,
    summary: Option<&'a str>,
    stage: Option<&'a str>,
    result_schema: Option<Value>,
    /// Whether a copy of what `configure` left serves; none where that is not known.
    copied: Option<bool>,
    not_copied_because: Option<&'a str>,
    asks: Option<&'a Manifest>,
    asks_unreadable: Option<&'a str>,
    refused: Option<&'a str>,
    /// The block to paste.
    step: Option<String>,
}

/// Shows a component. Ends with 1 when a host would refuse it.
///
/// # Errors
/// It cannot be read, or nothing be compiled at all.
pub async fn inspect<W: Write>(arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let subject = Subject::read(&arguments.component)?;
    let outline = outline::read(&subject.bytes);
    let mut step = subject.step();
    if let Some(settings) = &arguments.settings {
        step.settings = settings_of(settings)?;
    }
    let workshop = Workshop::open()?;
    let described = match &subject.manifest {
        Ok(_) => workshop.describe(&subject.bytes, &step).await.map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    tell(&workshop.take_told());
    let renamed = described
        .as_ref()
        .ok()
        .filter(|about| about.name != subject.stem())
        .map(|about| format!("a host knows a plugin by its file: rename it to {}.wasm", about.name));
    let (about, refused) = match &described {
        Ok(about) => (Some(about), renamed.as_deref()),
        Err(why) => (None, Some(why.as_str())),
    };
    let report = report(&subject, &outline, about, refused);
    if arguments.json {
        writeln!(out, "{}", pretty(&report)?)?;
    } else {
        write_report(&report, out)?;
    }
    Ok(if refused.is_none() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn report<'a>(
    subject: &'a Subject,
    outline: &'a Outline,
    about: Option<&'a Compiled>,
    refused: Option<&'a str>,
) -> Report<'a> {
    let manifest = subject.manifest.as_ref().ok().and_then(Option::as_ref);
    let contract = outline.exports.iter().find_map(|export| export.strip_prefix(PACKAGE)?.strip_prefix("enricher@"));
    let asks = with_placeholders(manifest.cloned().unwrap_or_default(), &outline.imports);
    let schema = about.and_then(|about| about.result_schema.as_deref());
    Report {
        file: subject.path.display().to_string(),
        size: subject.bytes.len(),
        sha256: &subject.sha256,
        kind: match outline.kind {
            Kind::Component => "component",
            Kind::Module => "core module",
            Kind::Other => "no WebAssembly",
        },
        contract,
        damage: outline.damage.as_deref(),
        imports: &outline.imports,
        name: about.map(|about| about.name.as_str()),
        version: about.map(|about| about.version.as_str()),
        summary: about.map(|about| about.summary.as_str()),
        stage: about.map(|about| about.stage.as_str()),
        result_schema: schema.and_then(|schema| serde_json::from_str(schema).ok()),
        copied: about.map(|about| about.plain.is_none()),
        not_copied_because: about.and_then(|about| about.plain.as_deref()),
        asks: manifest,
        asks_unreadable: subject.manifest.as_ref().err().map(String::as_str),
        refused,
        step: about.map(|about| paste::block(&about.name, &subject.sha256, &asks)),
    }
}

/// What a plugin asks for, with something to be replaced for what it imports without saying why.
fn with_placeholders(mut asks: Manifest, imports: &[String]) -> Manifest {
    let imports = |name: &str| imports.iter().any(|import| import.starts_with(&format!("{PACKAGE}{name}@")));
    let why = |what: &str| format!("it imports {what} and does not say which: name yours");
    if asks.tables.is_empty() && imports("tables") {
        asks.tables.push(TableAsk { name: "some-table".to_owned(), why: why("tables"), optional: false });
    }
    if asks.http.is_empty() && imports("http") {
        let (name, url) = ("some-api".to_owned(), "https://api.example".to_owned());
        asks.http.push(HttpAsk { name, url, why: why("http"), ..HttpAsk::default() });
    }
    asks
}

fn write_report<W: Write>(report: &Report<'_>, out: &mut Out<W>) -> anyhow::Result<()> {
    if let (Some(name), Some(version), Some(stage), Some(summary)) =
        (report.name, report.version, report.stage, report.summary)
    {
        writeln!(out, "{} {}, a plugin of the stage {stage}", printable(name), printable(version))?;
        writeln!(out, "{}\n", printable(summary))?;
    }
    if let Some(why) = report.refused {
        writeln!(out, "A host refuses this file: {}\n", printable(why))?;
    }
    writeln!(out, "file      {}, {} bytes, {}", printable(&report.file), grouped(report.size as u64), report.kind)?;
    writeln!(out, "sha256    {}", report.sha256)?;
    match (report.contract, report.damage) {
        (Some(version), _) => {
            writeln!(out, "contract  {PACKAGE}enricher@{}", printable(version))?;
            if version == PREVIEW {
                writeln!(out, "          in development: a host takes it only with preview = true in [plugins]")?;
            }
        }
        (None, Some(damage)) => writeln!(out, "contract  not known: the file cannot be read: {}", printable(damage))?,
        (None, None) => writeln!(out, "contract  none: it does not export {PACKAGE}enricher")?,
    }
    write_imports(report.imports, out)?;
    match (report.copied, report.not_copied_because) {
        (Some(true), _) => {
            writeln!(out, "start     each alert gets a copy of what configure left: it starts at no cost")?
        }
        (_, Some(why)) => writeln!(
            out,
            "start     configured anew in each instance, which costs time and fuel of each call: its memory\n          \
             cannot be copied ({}); reuse = N in its [[step]] saves some of it",
            printable(why)
        )?,
        _ => {}
    }
    match (&report.result_schema, report.name) {
        (Some(schema), _) => {
            let schema = pretty(schema)?.replace('\n', "\n          ");
            writeln!(out, "result    {schema}")?;
        }
        (None, Some(_)) => writeln!(out, "result    any JSON object: it declares no schema")?,
        (None, None) => {}
    }
    match report.asks_unreadable {
        Some(why) => writeln!(out, "asks for  not known: {}", printable(why))?,
        None => write_asks(report.asks, out)?,
    }
    if let Some(step) = &report.step {
        writeln!(out, "\nTo run it, put this into dossier.toml, with your own files:\n\n{step}")?;
    }
    Ok(())
}

/// What a component imports, and what that means.
///
/// # Errors
/// The output cannot be written.
pub fn write_imports<W: Write>(imports: &[String], out: &mut Out<W>) -> std::io::Result<()> {
    let mut wasi = 0;
    let mut lines = Vec::new();
    for import in imports {
        let own = import.strip_prefix(PACKAGE).and_then(|rest| rest.split('@').next());
        let means = match own {
            Some("types") => "the alert, as far as it looks at it",
            Some("log") => "lines in the host's log; always granted, bounded",
            Some("tables") => "looks into the tables that it is granted",
            Some("http") => "sends requests to the hosts that it is granted",
            _ if import.starts_with("wasi:") => {
                wasi += 1;
                continue;
            }
            _ => "unknown: no host gives it this",
        };
        let name = own.filter(|name| ["types", "log", "tables", "http"].contains(name)).unwrap_or(import);
        lines.push(format!("{:<7} {means}", printable(name)));
    }
    if wasi > 0 {
        lines.push(format!("{:<7} {wasi} interfaces of an empty world: no files, no variables, no network", "wasi:*"));
    }
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    for (at, line) in lines.iter().enumerate() {
        writeln!(out, "{:<9} {line}", if at == 0 { "imports" } else { "" })?;
    }
    Ok(())
}

/// What a component asks for.
///
/// # Errors
/// The output cannot be written.
pub fn write_asks<W: Write>(asks: Option<&Manifest>, out: &mut Out<W>) -> std::io::Result<()> {
    let Some(asks) = asks else { return writeln!(out, "asks for  it does not say: it carries no manifest") };
    let optional = |optional: bool| if optional { ", optional" } else { "" };
    let mut lines = Vec::new();
    for ask in &asks.tables {
        lines.push(format!("table {}{}: {}", printable(&ask.name), optional(ask.optional), printable(&ask.why)));
    }
    for ask in &asks.http {
        let credential = ask.credential.as_ref().map(|header| format!(", with credentials in {}", printable(header)));
        let (name, url) = (printable(&ask.name), printable(&ask.url));
        let credential = credential.unwrap_or_default();
        lines.push(format!("http {name} at {url}{credential}{}: {}", optional(ask.optional), printable(&ask.why)));
    }
    let kib = |bytes: u64| format!("{} KiB", grouped(bytes.div_ceil(1024)));
    let limits = [
        asks.limits.fuel.map(|fuel| format!("fuel {}", grouped(fuel))),
        asks.limits.timeout_ms.map(|timeout| format!("{} ms", grouped(timeout))),
        asks.limits.memory.map(|memory| format!("memory {}", kib(memory))),
        asks.limits.answer.map(|answer| format!("answers of {}", kib(answer))),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        let why = asks.limits.why.as_ref().map_or_else(String::new, |why| format!(": {}", printable(why)));
        lines.push(format!("{}{why}", limits.join(", ")));
    }
    for (name, value) in &asks.unknown {
        lines.push(format!(
            "{} {}: not known to this version, which gives nothing for it",
            printable(name),
            printable(&value.to_string())
        ));
    }
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    for (at, line) in lines.iter().enumerate() {
        writeln!(out, "{:<9} {line}", if at == 0 { "asks for" } else { "" })?;
    }
    Ok(())
}
