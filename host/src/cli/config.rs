//! `dossier config`: what the configuration may say, and what it says.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use toml::Value;

use crate::config::effective::{self, Origin, Segment, Setting};
use crate::config::{Config, schema};

use super::output::{Out, printable};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show every setting with its value and where that comes from
    ///
    /// Each line says where its value comes from: a line of the file, variables of the environment, or the default. What is shown can be
    /// used as a configuration itself. Secrets are masked: only the names of variables are shown, and asterisks in place of the rest.
    #[command(after_help = "\
Examples:
  dossier config show
  dossier config show --changed            Only what is not the default
  dossier config show --json | jq -r '.settings[] | select(.reload | not).setting'")]
    Show {
        /// Only what the file or the environment says
        #[arg(long)]
        changed: bool,
        /// One JSON object, for scripts
        #[arg(long)]
        json: bool,
    },

    /// Print the JSON Schema of the configuration
    ///
    /// Draft 2020-12. Editors that know it complete and check dossier.toml while it is written. With x-kind it says what is for one kind
    /// of queue only, with x-reload what a running host takes over.
    #[command(after_help = "\
Examples:
  dossier config schema > dossier.schema.json
  sed -i '1i #:schema ./dossier.schema.json' dossier.toml     For editors with Taplo or Tombi")]
    Schema,
}

/// What `dossier config show --json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    file: String,
    sha256: &'a str,
    settings: Vec<Setting>,
}

/// Does it.
///
/// # Errors
/// The output cannot be written.
pub fn execute<W: Write>(
    command: &Command,
    config: impl FnOnce() -> anyhow::Result<Config>,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Schema => writeln!(out, "{}", serde_json::to_string_pretty(&schema::schema())?)?,
        Command::Show { changed, json } => {
            let config = config()?;
            let mut settings = effective::settings(&config, &|name| std::env::var(name).ok());
            settings.retain(|setting| !changed || setting.origin != Origin::Default);
            if *json {
                let file = config.file.display().to_string();
                let shown = Shown { file, sha256: &config.sha256, settings };
                writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?;
            } else {
                write!(out, "{}", written(&config, &settings))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything as a configuration.
#[cfg(test)]
pub(crate) fn to_toml(config: &Config, variable: &dyn Fn(&str) -> Option<String>) -> String {
    written(config, &effective::settings(config, variable))
}

fn written(config: &Config, settings: &[Setting]) -> String {
    let file = printable(&config.file.display().to_string());
    let folder = config.file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| ".".to_owned(), |folder| printable(&folder.display().to_string()));
    let mut text = format!(
        "# What {file} comes to, with dossier {} (sha256 {}).\n# Relative paths start in {folder}/, and \
         secrets are masked.\n",
        env!("CARGO_PKG_VERSION"),
        config.sha256
    );
    let width = settings.iter().map(|setting| line(setting).chars().count()).filter(|width| *width <= 60).max();
    let mut section = &Vec::new();
    for setting in settings {
        if setting.section != *section {
            section = &setting.section;
            text.push_str(&format!("\n{}\n", head(section)));
        }
        let origin = origin(&file, &setting.origin);
        text.push_str(&format!("{:<width$}  # {origin}\n", line(setting), width = width.unwrap_or_default()));
    }
    text
}

/// `batch = 100`; a comment where it is a variable that no setting of the file stands for.
fn line(setting: &Setting) -> String {
    let is_variable = matches!(&setting.origin, Origin::Variable { variable } if *variable == setting.key);
    format!("{}{} = {}", if is_variable { "# " } else { "" }, key(&setting.key), setting.value)
}

/// `[tables.blocklist]` or `[[step]]`.
fn head(section: &[Segment]) -> String {
    let names: Vec<_> = section
        .iter()
        .filter_map(|segment| match segment {
            Segment::Name(name) => Some(key(name)),
            Segment::Index(_) => None,
        })
        .collect();
    let names = names.join(".");
    if matches!(section.last(), Some(Segment::Index(_))) { format!("[[{names}]]") } else { format!("[{names}]") }
}

/// A key as TOML takes it.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

fn origin(file: &str, origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::Variable { variable } => format!("{} of the environment", printable(variable)),
        Origin::File { line, variables } => {
            let mut from = line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"));
            if !variables.is_empty() {
                let variables: Vec<_> = variables.iter().map(|name| printable(name)).collect();
                from.push_str(&format!(", with {} of the environment", variables.join(", ")));
            }
            from
        }
    }
}
