//! The command line: what people type, and what they are told. Reads the arguments and the configuration, calls what does
//! the work, and turns its end into an exit code. It decides nothing about alerts.
//!
//! Exit codes: 0 done, 1 it failed or found problems, 2 the command line makes no sense, 3 not yet (`explain`), 130 interrupted.

pub mod compile;
pub(crate) mod config;
mod dlq;
mod doctor;
mod explain;
mod host;
mod manual;
#[cfg(test)]
pub(crate) mod memory;
mod original;
mod output;
mod plugin;
mod reenrich;
mod run;
mod send;
mod sheet;
mod status;
mod tap;
mod top;
mod trial;
mod validate;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, QueueKind};
use crate::queue::{self, Queue};
use crate::telemetry::Telemetry;

use self::output::{Out, complain, place};
use self::verify::identity::Identifier;

/// What ended with problems that were shown already.
pub const FAILED: u8 = 1;
/// What the shell says of a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// Enriches security alerts with sandboxed WebAssembly plugins.
///
/// Alerts wait in a queue: a directory, or a Redis stream. `dossier run` takes them, lets the plugins look things up, stores each
/// alert with its dossier, and only then lets go of the original. What could not be enriched lies in the dead letters with
/// the reason.
#[derive(Debug, Parser)]
#[command(name = "dossier", version, max_term_width = 100, after_help = EXAMPLES, after_long_help = LONG_EXAMPLES)]
struct Arguments {
    /// The configuration
    #[arg(long, short, global = true, value_name = "FILE", env = "DOSSIER_CONFIG", default_value = "dossier.toml")]
    #[arg(hide_env_values = true)]
    config: PathBuf,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  dossier validate                     Is everything in order?
  dossier send alerts.ndjson           Put alerts into the queue
  dossier run                          Enrich what arrives, until Ctrl-C
  dossier status                       How much waits, how much is done
  dossier top                          What a running host does, as it does it
  dossier explain ID                   One alert's whole story
  dossier doctor                       What endangers alerts, or stops work?
  dossier dlq list                     What could not be enriched, and why
  dossier verify --ids sent.ids        Is everything that was sent where it should be?";

const LONG_EXAMPLES: &str = "\
Examples:
  dossier validate                     Is everything in order?
  dossier send alerts.ndjson           Put alerts into the queue
  dossier run                          Enrich what arrives, until Ctrl-C
  dossier status                       How much waits, how much is done
  dossier top                          What a running host does, as it does it
  dossier explain ID                   One alert's whole story
  dossier doctor                       What endangers alerts, or stops work?
  dossier dlq list                     What could not be enriched, and why
  dossier verify --ids sent.ids        Is everything that was sent where it should be?

Exit codes:
  0    Done
  1    It failed, or found problems
  2    The command line makes no sense
  130  Interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Work(Work),

    /// Print completions for a shell
    #[command(after_help = "\
Examples:
  source <(dossier completions bash)
  dossier completions bash > /etc/bash_completion.d/dossier
  dossier completions zsh > \"${fpath[1]}/_dossier\"
  dossier completions fish > ~/.config/fish/completions/dossier.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Print the manual page, or write the pages of all commands into a folder
    #[command(after_help = "\
Examples:
  dossier man | man -l -
  dossier man --dir /usr/local/share/man/man1")]
    Man {
        /// Write a page for each command here: dossier.1, dossier-run.1, …
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },

    #[command(hide = true)]
    Compile(compile::Args),

    #[command(hide = true)]
    Trial,
}

/// What people do.
#[derive(Debug, Subcommand)]
enum Work {
    /// Enrich alerts as they arrive
    ///
    /// Takes alerts from the queue until it is told to stop. SIGTERM and Ctrl-C end it cleanly: it stops reading and finishes
    /// what is in flight.
    #[command(after_help = "\
Examples:
  dossier run
  dossier run --until-empty            Do what is there, then end
  dossier run --config /etc/dossier/dossier.toml
  dossier run --watch=owners           While you write the plugin in owners/
  DOSSIER_LOG=debug dossier run        Log more: a level or a filter, in place of level in [log]")]
    Run {
        /// End with 0 once nothing is waiting or in flight
        #[arg(long)]
        until_empty: bool,
        /// Short lines for a person in place of the log: plugins that are loaded and refused, and each result. With the
        /// folder of a plugin, build it whenever it changes
        #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true)]
        #[expect(clippy::option_option, reason = "clap's way to say an option with an optional value")]
        watch: Option<Option<PathBuf>>,
    },

    /// Put alerts into the queue, one a line
    ///
    /// Every line is one alert, whatever it holds. Its bytes arrive as they are, without the line's end (LF or CRLF); empty lines
    /// are skipped and counted. Lines are sent as they come, so a pipe that never ends works. A line longer than 64 MiB is an
    /// error.
    Send(send::Arguments),

    /// Check the configuration and everything that it names
    ///
    /// Looks at everything that `dossier run` would use: the configuration, the tables, the plugins with their grants and settings,
    /// and the queue. Shows every problem at once and changes nothing. Ends with 1 if there is one.
    #[command(after_help = "\
Examples:
  dossier validate
  dossier validate --config staging.toml && echo fine")]
    Validate,

    /// Look at everything that a host stands on, and say what endangers alerts or stops work, and what to do
    ///
    /// The configuration, the queue and its server, this machine, the plugins with their grants, the tables with their ages, the HTTP
    /// interfaces, the host that runs here. Changes nothing; asks each HTTP interface once whether it answers, without credentials.
    Doctor(doctor::Arguments),
    /// Show what the configuration may say, and what it says
    #[command(after_help = "\
Examples:
  dossier config show                  Every setting, and where its value comes from
  dossier config schema                The JSON Schema, for editors")]
    Config {
        #[command(subcommand)]
        command: config::Command,
    },

    /// Show how much waits, how much is done and how much failed
    Status(status::Arguments),

    /// Watch a running host: its queue, its steps, what fails and what happened
    ///
    /// Asks the host's admin address once a second and shows backlog, rates, lag and age, each step with its calls, times, fuel and
    /// failures, the dead letters by reason, the tables and the last events. Rates and percentiles are those of the last ten seconds.
    Top(top::Arguments),

    /// Look on while a running host stores records, or while a step is called
    ///
    /// Shows what is stored as it is stored, or what one step is given and gives. Lines for a person on a terminal, one JSON object a line
    /// elsewhere. The host waits for nobody: what comes faster than it is read, or faster than 1,000 in a second, is left out, and
    /// the standard error says how many. What is shown holds whole alerts.
    Tap(tap::Arguments),
    /// Tell one alert's whole story: what was found in it, what each step answered, the verdict, and how it came to that
    ///
    /// Looks for the id in the store, in the dead letters and in what waits, and tells of all that share it: a record and a dead letter,
    /// and alerts with other bytes, which are stored as <id>~<hash>. The page keeps to the width of the terminal; in colours only there.
    Explain(explain::Arguments),

    /// Compare what was sent with what is stored, dead and waiting
    ///
    /// The ledger: every alert that was sent must wait, be stored or be dead. Names orphans (sent, and found nowhere), doubles
    /// (stored twice, or stored and dead) and strangers (found, and never sent). It changes nothing, and hosts may work meanwhile: what
    /// looks wrong is looked at again before it is said. Ends with 1 when something is wrong.
    ///
    /// What was sent is told by ids, one a line, or by the alerts themselves. `dossier send --ids` writes such a file; its lines
    /// say the SHA-256 as well, so that other bytes under the same id are told apart. Whoever writes one by hand writes ids
    /// as they are, or as JSON: "id", or {"id":"…","sha256":"…"} of the alert's bytes without white space around them.
    Verify(verify::Arguments),

    /// Look at, replay or delete dead letters: alerts that could not be enriched
    ///
    /// A dead letter is an alert that could not be enriched, byte for byte, with the reason. Once the cause is mended, replay
    /// it. An ID is a dead letter's key or an alert's id, which stands for all dead letters of that alert.
    #[command(after_help = "\
Examples:
  dossier dlq list                           What failed, and why
  dossier dlq show 1763715600000-0           All that is known of one
  dossier dlq replay --reason unavailable    The API is back: try those
  dossier dlq drop 1763715600000-0           Delete one for good")]
    Dlq {
        #[command(subcommand)]
        command: dlq::Command,
    },

    /// Enrich stored alerts anew, where a plugin has answered them that is mended since
    ///
    /// Sends stored alerts through the pipeline again. Each record stays until the new one takes its place under the same id, in one atomic
    /// step, and tells of the old one in its history. An alert that fails this time keeps the record that it has, and the host's log says why.
    /// Only records from before this began are taken, each once. When it is killed, nothing is lost or doubled; the same command with the
    /// --before that it says at its start does the rest.
    ///
    /// All filters must fit: with --step and --digest together, that step by that version.
    Reenrich(reenrich::Arguments),

    /// Write a plugin: begin one, build it, look at it, try it
    ///
    /// What the author of a plugin needs. None of it wants a configuration or a running host.
    #[command(after_help = "\
Examples:
  dossier plugin new owners --lang python    Begin one, in the folder owners
  dossier plugin build owners                Make owners/owners.wasm of it
  dossier plugin test owners                 Try it on owners/tests/*.json
  dossier plugin run owners --alert a.json   Enrich one alert with it
  dossier plugin bench owners                What a call costs, and limits for it
  dossier plugin inspect owners              What it asks for, and a step to paste")]
    Plugin {
        #[command(subcommand)]
        command: plugin::Command,
    },
}

/// The whole program: reads the arguments, does what they say, and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let work = match arguments.command {
        // These bound their process and have a runtime of their own, so there must be none yet.
        Command::Compile(arguments) => return compile::run(&arguments),
        Command::Trial => return trial::run(),
        Command::Completions { shell } => return manual::end(manual::completions(shell)),
        Command::Man { dir } => return manual::end(manual::pages(dir.as_deref())),
        Command::Work(work) => work,
    };
    let done = tokio::runtime::Runtime::new().context("cannot start the runtime").and_then(|runtime| {
        let done = runtime.block_on(execute(&arguments.config, work));
        // A thread may still wait for a terminal or a pipe; nobody waits for it.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        match error.downcast_ref::<ConfigError>() {
            Some(ConfigError(findings)) => findings.iter().for_each(|finding| complain(&finding.to_string())),
            None => complain(&format!("{error:#}")),
        }
        ExitCode::from(FAILED)
    })
}

async fn execute(file: &Path, work: Work) -> anyhow::Result<ExitCode> {
    let mut out = Out::new(std::io::stdout());
    let done = match work {
        Work::Run { until_empty, watch } => {
            // First of all: a service manager may ask for a reload as soon as the program runs.
            let hangups = run::Hangups::listen()?;
            run::run(Config::load(file)?, hangups, until_empty, watch.map(|folder| run::Watched { folder })).await
        }
        Work::Doctor(arguments) => doctor::doctor(file, &arguments, &mut out).await,
        Work::Validate => validate::validate(file, &mut out).await,
        Work::Config { command } => config::execute(&command, || Ok(Config::load(file)?), &mut out),
        Work::Send(arguments) => {
            let config = Config::load(file)?;
            let place = place(&config.queue.kind);
            let identifier = Identifier::new(&config);
            with_queue(&config, async |queue| send::send(queue, &place, &identifier, arguments, &mut out).await).await
        }
        Work::Status(arguments) => {
            let config = Config::load(file)?;
            with_queue(&config, async |queue| status::status(queue, &config, &arguments, &mut out).await).await
        }
        Work::Top(arguments) => top::top(file, &arguments, &mut out).await,
        Work::Tap(arguments) => tap::tap(file, &arguments, &mut out).await,
        Work::Explain(arguments) => {
            let config = Config::load(file)?;
            with_queue(&config, async |queue| explain::explain(queue, &config, &arguments, &mut out).await).await
        }
        Work::Verify(arguments) => {
            let config = Config::load(file)?;
            with_queue(&config, async |queue| verify::verify(queue, &config, &arguments, &mut out).await).await
        }
        Work::Dlq { command } => {
            let config = Config::load(file)?;
            with_queue(&config, async |queue| dlq::execute(queue, &config, command, &mut out).await).await
        }
        Work::Reenrich(arguments) => {
            let config = Config::load(file)?;
            with_queue(&config, async |queue| reenrich::reenrich(queue, &config, &arguments, &mut out).await).await
        }
        Work::Plugin { command } => plugin::execute(command, file, &mut out).await,
    };
    out.finish().context("cannot write to the standard output")?;
    done
}

/// Opens the queue for one piece of work and gives up what was taken for it.
async fn with_queue<F>(config: &Config, work: F) -> anyhow::Result<ExitCode>
where
    F: AsyncFnOnce(&dyn Queue) -> anyhow::Result<ExitCode>,
{
    let opened = queue::open(&config.queue, Arc::new(Telemetry::default())).await;
    let queue = opened.map_err(|error| {
        let next = match config.queue.kind {
            QueueKind::Directory { .. } => "check path and its permissions",
            QueueKind::Redis(_) => "check that the server runs and that url is right",
        };
        let (place, file) = (place(&config.queue.kind), config.file.display());
        anyhow::anyhow!("cannot open the {place}: {error}; {next}: [queue] in {file}")
    })?;
    let done = work(queue.as_ref()).await;
    // Nothing was received, so there is nothing to give back: at worst a lease runs out by itself.
    let _ = queue.close().await;
    done
}

/// Ends when somebody wants the program to end: Ctrl-C or SIGTERM.
async fn interrupted() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        // Without a handler the signal ends the program by itself.
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
