//! `dossier doctor`: asks everything that a host stands on how it is, and shows what endangers alerts or stops work, each with what to
//! do. What a thing is like is found out by who knows it; here it is put together and shown.

mod around;
mod here;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use console::Style;
use serde::Serialize;

use crate::checkup::{Gravity, NO_HOST, Observation};
use crate::config::QueueKind;
use crate::queue;

use super::output::{Out, count, place};
use super::sheet::{Sheet, Styled};
use super::validate::{Examined, examine};
use super::{FAILED, INTERRUPTED, interrupted};

/// How to show it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier doctor
  dossier doctor --quiet && echo all well     For cron: speaks only of what is not as it should be
  dossier doctor --json | jq '.parts[].observations[] | select(.gravity == \"risk\")'

Exit codes:
  0    Nothing endangers alerts or stops work; there may be notes
  1    Something does: a RISK or a FAIL")]
pub struct Arguments {
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
    /// Leave out what is as it should be
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

/// What to do about a finding that does not say it.
const MEND: &str = "mend it there, and look again: dossier validate";

/// A part of what a host stands on.
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    observations: Vec<Observation>,
}

/// Looks at everything and shows it.
///
/// # Errors
/// The output cannot be written, or a table's loader panicked.
pub async fn doctor<W: Write>(file: &Path, arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let parts = tokio::select! {
        parts = look(file) => parts?,
        () = interrupted() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let all = || parts.iter().flat_map(|part| &part.observations);
    let worst = all().map(|observation| observation.gravity).max().unwrap_or(Gravity::Fine);
    if arguments.json {
        let json = serde_json::json!({ "worst": worst, "healthy": !worst.is_problem(), "parts": parts });
        writeln!(out, "{json}")?;
    } else {
        write(&mut Sheet::new(out), &parts, arguments.quiet)?;
    }
    Ok(if worst.is_problem() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

async fn look(file: &Path) -> anyhow::Result<Vec<Part>> {
    let Examined { config, findings, tables, steps } = examine(file).await?;
    let broken = findings.iter().map(|finding| Observation::broken_as_told(&finding.to_string(), MEND));
    let mut configuration: Vec<_> = broken.collect();
    let Some(config) = config else {
        return Ok(vec![Part { name: "Configuration", observations: configuration }]);
    };
    if configuration.is_empty() {
        let steps = count(config.steps.len() as u64, "step");
        let queue = place(&config.queue.kind);
        configuration.push(Observation::fine(format!("{} is fine: {queue}, {steps}", config.file.display())));
    }
    let (mut of_queue, http, (answers, host)) =
        tokio::join!(queue::check(&config.queue), around::http(&config), around::host(&config));
    if answers {
        of_queue.retain(|one| one.what != NO_HOST);
    }
    let name = match config.queue.kind {
        QueueKind::Directory { .. } => "Queue (directory)",
        QueueKind::Redis(_) => "Queue (Redis)",
    };
    let mut parts = vec![
        Part { name: "Configuration", observations: configuration },
        Part { name, observations: of_queue },
        Part { name: "Machine", observations: here::machine(&config) },
        Part { name: "Plugins", observations: here::plugins(&config, &steps) },
        Part { name: "Tables", observations: here::tables(&config, &tables) },
        Part { name: "HTTP interfaces", observations: http },
        Part { name: "Host", observations: host },
    ];
    parts.retain(|part| !part.observations.is_empty());
    Ok(parts)
}

fn write<W: Write>(sheet: &mut Sheet<'_, W>, parts: &[Part], quiet: bool) -> std::io::Result<()> {
    let mut first = true;
    for Part { name, observations } in parts {
        let shown: Vec<_> = observations.iter().filter(|one| !quiet || one.gravity > Gravity::Fine).collect();
        if shown.is_empty() {
            continue;
        }
        if !std::mem::take(&mut first) {
            sheet.gap()?;
        }
        sheet.paragraph("", Styled((*name).to_owned(), Style::new().bold()))?;
        for Observation { gravity, what, next } in shown {
            let style = match gravity {
                Gravity::Fine => Style::new().green(),
                Gravity::Note => Style::new().yellow(),
                Gravity::Risk | Gravity::Broken => Style::new().red().bold(),
            };
            let word = style.apply_to(format!("{:<4}", gravity.as_str()));
            sheet.paragraph(&format!("  {word}  "), what.as_str())?;
            if !next.is_empty() {
                sheet.paragraph("        -> ", next.as_str())?;
            }
        }
    }
    let of = |wanted: fn(Gravity) -> bool| {
        parts.iter().flat_map(|part| &part.observations).filter(|one| wanted(one.gravity)).count() as u64
    };
    let (problems, notes) = (of(Gravity::is_problem), of(|gravity| gravity == Gravity::Note));
    if quiet && problems + notes == 0 {
        return Ok(());
    }
    if !first {
        sheet.gap()?;
    }
    let notes = if notes > 0 { format!(", {}", count(notes, "note")) } else { String::new() };
    match problems {
        0 => sheet.paragraph("", format!("nothing endangers alerts or stops work{notes}")),
        _ => sheet.paragraph("", Styled(format!("{}{notes}", count(problems, "problem")), Style::new().bold())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(width: Option<usize>, quiet: bool, parts: &[Part]) -> String {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        write(&mut Sheet::of_width(&mut out, width), parts, quiet).unwrap();
        out.finish().unwrap();
        drop(out);
        String::from_utf8(bytes).unwrap()
    }

    fn parts() -> Vec<Part> {
        let observations = vec![
            Observation::fine("it is there"),
            Observation::risk("it may lose what it holds, all of it, and nobody would know", "tell it not to, soon"),
        ];
        vec![
            Part { name: "One", observations },
            Part { name: "Two", observations: vec![Observation::fine("\u{1b}[2J")] },
        ]
    }

    #[test]
    fn a_page_fits_and_drives_no_terminal() {
        assert_eq!(
            written(Some(40), false, &parts()),
            "One\n  ok    it is there\n  RISK  it may lose what it holds, all\n        of it, and nobody would know\n        -> tell it \
             not to, soon\n\nTwo\n  ok    \\u{1b}[2J\n\n1 problem\n"
        );
    }

    #[test]
    fn quiet_speaks_only_of_what_is_not_fine() {
        let page = written(None, true, &parts());
        assert!(page.contains("RISK") && !page.contains("it is there") && !page.contains("Two"), "{page}");
        assert_eq!(written(None, true, &parts()[1..]), "");
    }
}
