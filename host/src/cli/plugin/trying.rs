//! What the commands that try a plugin have in common: reading a component, and making the step, the tables and the alert that
//! it is tried with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use dossier_authoring::manifest::Manifest;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::alert::Decoder;
use crate::alert::observables::Observable;
use crate::cli::output::printable;
use crate::config::{Config, ConfigError, Limits, StepConfig};
use crate::dead_letter::Reason;
use crate::digest::sha256_hex;
use crate::pipeline::{Failure, Given};
use crate::plugin::trial::{self, Web, Workshop};
use crate::plugin::{MAX_COMPONENT, too_large};
use crate::tables::{Snapshot, Table};

/// The largest file with alerts, settings or a fixture, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// The time that a call has where a plugin may ask the network, as in a host.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// Under this name all of HTTP is granted in a trial; whoever answers decides what is answered.
const ALL_HTTP: &str = "trial";

/// A component that was read.
pub struct Subject {
    /// Its file.
    pub path: PathBuf,
    /// What stands in it.
    pub bytes: Vec<u8>,
    /// SHA-256 of that.
    pub sha256: String,
    /// What it asks for, or why that cannot be read.
    pub manifest: Result<Option<Manifest>, String>,
}

impl Subject {
    /// Reads a component, or the one component that lies in a folder.
    ///
    /// # Errors
    /// It cannot be read, is too large, or there is not just one.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let path = if path.is_dir() { only_component(path)? } else { path.to_owned() };
        let bytes = read_bounded(&path, MAX_COMPONENT).with_context(|| printable(&path.display().to_string()))?;
        let (sha256, manifest) = (sha256_hex(&bytes), Manifest::read(&bytes));
        Ok(Self { path, bytes, sha256, manifest })
    }

    /// The stem of its file: what a plugins folder would call it.
    pub fn stem(&self) -> String {
        self.path.file_stem().map_or_else(|| "plugin".to_owned(), |stem| stem.to_string_lossy().into_owned())
    }

    /// What it asks for; nothing where that cannot be read.
    pub fn asks(&self) -> Manifest {
        self.manifest.clone().ok().flatten().unwrap_or_default()
    }

    /// A step that grants what it asks for, and no tables yet.
    pub fn step(&self) -> StepConfig {
        let asks = self.asks();
        let mut step = StepConfig::unnamed(&self.stem());
        (step.required, step.retries) = (true, 5);
        step.http = vec![ALL_HTTP.to_owned()];
        step.settings = Value::Object(asks.settings).to_string();
        let size = |bytes: Option<u64>, or: usize| bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(or);
        let default = Limits::default();
        let timeout = if asks.http.is_empty() { default.timeout } else { HTTP_TIMEOUT };
        step.limits = Limits {
            fuel: asks.limits.fuel.unwrap_or(default.fuel),
            timeout: asks.limits.timeout_ms.map_or(timeout, Duration::from_millis),
            memory: size(asks.limits.memory, default.memory),
            answer: size(asks.limits.answer, default.answer),
            ..default
        };
        step
    }

    /// The HTTP interfaces that it asks for, without credentials.
    ///
    /// # Errors
    /// An address that is none.
    pub fn interfaces(&self) -> anyhow::Result<BTreeMap<String, crate::config::HttpConfig>> {
        let mut http = toml::Table::new();
        for ask in self.asks().http {
            let interface = toml::Table::from_iter([("url".to_owned(), toml::Value::from(ask.url))]);
            http.insert(ask.name, interface.into());
        }
        let text = toml::Table::from_iter([("http".to_owned(), http.into())]).to_string();
        let config = Config::parse(Path::new("what it asks for"), &text).map_err(wrong)?;
        Ok(config.http)
    }
}

/// The one `.wasm` file in a folder.
fn only_component(folder: &Path) -> anyhow::Result<PathBuf> {
    let shown = printable(&folder.display().to_string());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.extension().is_some_and(|extension| extension == "wasm") && !hidden {
            found.push(path);
        }
    }
    match found.len() {
        0 => bail!("no .wasm file lies in {shown}; build it with `dossier plugin build {shown}`, or name the file"),
        1 => Ok(found.remove(0)),
        count => bail!("{count} .wasm files lie in {shown}; name one of them"),
    }
}

/// Reads a file that is not too large; `-` is the standard input.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read_bounded(path: &Path, longest: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(longest + 1).read_to_end(&mut bytes)?;
    } else {
        // Looked at first: to open a pipe is to wait for whoever writes into it.
        ensure!(
            !std::fs::metadata(path)?.file_type().is_fifo(),
            "it is a pipe; name a file, or - for the standard input"
        );
        File::open(path)?.take(longest + 1).read_to_end(&mut bytes)?;
    }
    if longest == MAX_COMPONENT && bytes.len() as u64 > longest {
        bail!(too_large());
    }
    ensure!(bytes.len() as u64 <= longest, "it is larger than {} MiB", longest >> 20);
    Ok(bytes)
}

/// Reads a file of text or JSON.
///
/// # Errors
/// It cannot be read, or is larger than 64 MiB.
pub fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    read_bounded(path, MAX_FILE).with_context(|| printable(&path.display().to_string()))
}

/// What the plugin is given.
#[derive(Debug, clap::Args)]
pub struct Provision {
    /// The plugin's settings, as JSON or in a file [default: the example that it carries, else {}]
    #[arg(long, value_name = "JSON|FILE", conflicts_with = "step")]
    settings: Option<String>,
    /// A table that it may look into; its rows are found by the first column, or by KEY. Can be given more than once
    #[arg(long = "table", value_name = "NAME=FILE[:KEY,…]")]
    tables: Vec<String>,
    /// Settings, limits, tables and HTTP grants of this step of the configuration
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Let it send HTTP requests, to what it asks for or to what the step is granted
    #[arg(long)]
    network: bool,
}

/// A step with all that a call needs.
pub struct Stand {
    /// How alerts are read.
    pub decoder: Decoder,
    /// The step.
    pub step: StepConfig,
    /// Its tables.
    pub tables: Arc<Snapshot>,
    /// What answers HTTP.
    pub web: Web,
}

impl Provision {
    /// Gets everything ready. `file` is the configuration.
    ///
    /// # Errors
    /// Whatever is wrong with settings, tables, or the configuration where a step of it is asked for.
    pub fn stand(&self, subject: &Subject, file: &Path, workshop: &Workshop) -> anyhow::Result<Stand> {
        let mut named = named_tables(&self.tables)?;
        let (mut step, config) = match &self.step {
            Some(name) => {
                let config = Config::load(file)?;
                let step = config.steps.iter().find(|step| step.name == *name).cloned().with_context(|| {
                    let names: Vec<_> = config.steps.iter().map(|step| printable(&step.name)).collect();
                    format!(
                        "there is no step \"{}\" in {}; there are: {}",
                        printable(name),
                        file.display(),
                        names.join(", ")
                    )
                })?;
                for table in &step.tables {
                    if let Some(table_config) = config.tables.get(table) {
                        named.entry(table.clone()).or_insert_with(|| table_config.clone());
                    }
                }
                (step, config)
            }
            None => (subject.step(), trial::standard()),
        };
        if let Some(settings) = &self.settings {
            step.settings = settings_of(settings)?;
        }
        let web = match (&self.step, self.network) {
            (None, true) => {
                let interfaces = subject.interfaces()?;
                step.http = interfaces.keys().cloned().collect();
                Web::Real(workshop.network(&interfaces)?)
            }
            (Some(_), true) => Web::Real(workshop.network(&config.http)?),
            (_, false) => {
                step.http = vec![ALL_HTTP.to_owned()];
                Web::Off("add --network to let it ask")
            }
        };
        let mut tables = Snapshot::new();
        for (name, table) in named {
            let loaded = Table::load(&table).with_context(|| format!("table \"{}\"", printable(&name)))?;
            tables.insert(name, Arc::new(loaded));
        }
        step.tables = tables.keys().cloned().collect();
        Ok(Stand { decoder: Decoder::new(&config.alert), step, tables: Arc::new(tables), web })
    }
}

/// Settings that were typed, or that stand in a file.
///
/// # Errors
/// They are no JSON object.
pub fn settings_of(typed: &str) -> anyhow::Result<String> {
    let (text, place) = if typed.trim_start().starts_with('{') {
        (typed.to_owned(), "--settings".to_owned())
    } else {
        (String::from_utf8(read_file(Path::new(typed))?)?, printable(typed))
    };
    let settings: serde_json::Map<String, Value> =
        serde_json::from_str(&text).with_context(|| format!("{place} is no JSON object"))?;
    Ok(Value::Object(settings).to_string())
}

/// Tables as they are typed, read as the configuration would read them.
fn named_tables(typed: &[String]) -> anyhow::Result<BTreeMap<String, crate::config::TableConfig>> {
    let mut tables = toml::Table::new();
    for one in typed {
        let Some((name, file)) = one.split_once('=') else {
            bail!("--table {} names no file; write NAME=FILE, as in geo=countries.csv", printable(one));
        };
        let (file, keys) = match file.rsplit_once(':') {
            Some((file, keys)) if !keys.contains('/') => (file, keys.split(',').map(str::to_owned).collect()),
            _ => (file, Vec::new()),
        };
        let keys = if keys.is_empty() { first_column(Path::new(file))? } else { keys };
        let mut table = toml::Table::from_iter([("file".to_owned(), toml::Value::from(file))]);
        if !keys.is_empty() {
            table.insert("key".to_owned(), keys.into());
        }
        tables.insert(name.to_owned(), table.into());
    }
    let text = toml::Table::from_iter([("tables".to_owned(), tables.into())]).to_string();
    Ok(Config::parse(Path::new("--table"), &text).map_err(wrong)?.tables)
}

/// The first column of a file with a header; none where the format has no columns.
fn first_column(file: &Path) -> anyhow::Result<Vec<String>> {
    let separator = match file.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => ',',
        Some("tsv") => '\t',
        Some("jsonl" | "ndjson") => {
            bail!("--table {}: name the key, as in {0}:ip", printable(&file.display().to_string()))
        }
        _ => return Ok(Vec::new()),
    };
    let mut header = String::new();
    let opened = File::open(file).with_context(|| printable(&file.display().to_string()))?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(opened.take(1 << 20)), &mut header)?;
    let first = header.trim_end().split(separator).next().unwrap_or_default();
    Ok(vec![first.trim().trim_matches('"').to_owned()])
}

fn wrong(ConfigError(findings): ConfigError) -> anyhow::Error {
    let messages: Vec<_> = findings.iter().map(|finding| finding.message.clone()).collect();
    anyhow::anyhow!(
        "{}: {}",
        findings.first().map_or_else(String::new, |one| one.file.display().to_string()),
        messages.join("; ")
    )
}

/// What an alert brings beside its bytes.
#[derive(Default)]
pub struct Beside {
    /// Its observables, in the place of those that are found in it.
    pub observables: Option<Vec<Observable>>,
    /// Results of earlier stages.
    pub enrichment: Vec<(String, Box<RawValue>)>,
    /// When it was received; the beginning of 1970 where that is not said, so that the same alert gives the same result.
    pub received: Option<Timestamp>,
}

/// An alert as a step is given it.
///
/// # Errors
/// The bytes are no JSON object.
pub fn given(decoder: &Decoder, tables: &Arc<Snapshot>, alert: Bytes, beside: Beside) -> anyhow::Result<Arc<Given>> {
    let alert = decoder.decode(alert, beside.received.unwrap_or(Timestamp::UNIX_EPOCH))?;
    let observables = beside.observables.map_or_else(|| alert.observables.clone(), Arc::new);
    let (alert, tables) = (Arc::new(alert), Arc::clone(tables));
    Ok(Arc::new(Given { alert, observables, enrichment: beside.enrichment, tables }))
}

/// The alerts of a file: one JSON object, or one a line.
///
/// # Errors
/// It cannot be read.
pub fn alerts(path: &Path) -> anyhow::Result<Vec<Bytes>> {
    let bytes = Bytes::from(read_file(path)?);
    if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() {
        return Ok(vec![bytes]);
    }
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    Ok(lines.map(|line| bytes.slice_ref(line)).collect())
}

/// What a failure is called in fixtures, and what was said.
pub fn kind(failure: &Failure) -> (&'static str, &str) {
    match failure {
        Failure::NotApplicable(why) => ("not-applicable", why),
        Failure::Unavailable { reason, .. } => ("unavailable", reason),
        Failure::Failed { reason: Reason::PluginError, detail } => ("internal", detail),
        Failure::Failed { reason, detail } => (reason.as_str(), detail),
    }
}

/// What a host would do with the alert.
pub fn fate(failure: &Failure, step: &StepConfig) -> String {
    let dead = |reason: &str| {
        if step.required {
            format!(
                "the alert goes to the dead letters as \"{reason}\" (with required = false its record says so instead)"
            )
        } else {
            format!("the record says \"{reason}\", and the alert goes on: the step is not required")
        }
    };
    match failure {
        Failure::NotApplicable(_) => "no failure: it is noted on the record, and the alert goes on".to_owned(),
        Failure::Unavailable { after, .. } => {
            let after = after.map_or_else(String::new, |after| format!(", not before {} ms", after.as_millis()));
            format!("called again up to {} times{after}; then {}", step.retries, dead("unavailable"))
        }
        Failure::Failed { reason, .. } => dead(reason.as_str()),
    }
}
