//! `dossier completions` and `dossier man`: the command line as shells and `man` want it, made from its own description.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::output::{Out, complain};
use super::{Arguments, FAILED};

/// Prints the completions for a shell.
///
/// # Errors
/// The output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "dossier", &mut text);
    print(&text)
}

/// Writes the pages of all commands into a folder, or prints the one of `dossier`.
///
/// # Errors
/// They cannot be written.
pub fn pages(folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        let mut text = Vec::new();
        clap_mangen::Man::new(command()).render(&mut text)?;
        return print(&with_examples(&text));
    };
    let wrong = || format!("the pages cannot be written to {}; choose a folder with --dir", folder.display());
    std::fs::create_dir_all(folder).with_context(wrong)?;
    let mut command = command().disable_help_subcommand(true);
    // So that each knows its whole name.
    command.build();
    write(&command, folder).with_context(wrong)
}

/// Writes the page of a command and those of the commands below it.
fn write(command: &clap::Command, folder: &Path) -> std::io::Result<()> {
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| write(below, folder))?;
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(folder.join(page.get_filename()), with_examples(&text))
}

/// A page whose examples stand under that name: the library calls what comes after the options EXTRA.
fn with_examples(page: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(page).replace("\n.SH EXTRA\nExamples:\n", "\n.SH EXAMPLES\n").into_bytes()
}

/// The command line without what only a host says.
fn command() -> clap::Command {
    let all = Arguments::command();
    let (hidden, shown): (Vec<_>, Vec<_>) = all.get_subcommands().cloned().partition(clap::Command::is_hide_set);
    if hidden.is_empty() {
        return all;
    }
    let mut command = clap::Command::new("dossier");
    for argument in all.get_arguments() {
        command = command.arg(argument.clone());
    }
    if let Some(about) = all.get_about() {
        command = command.about(about.clone());
    }
    if let Some(about) = all.get_long_about() {
        command = command.long_about(about.clone());
    }
    if let Some(after) = all.get_after_long_help() {
        command = command.after_long_help(after.clone());
    }
    command.version(env!("CARGO_PKG_VERSION")).subcommand_required(true).subcommands(shown)
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut out = Out::new(std::io::stdout());
    // A reader that has gone away has seen enough.
    let _ = out.write_all(text);
    out.finish().context("cannot write to the standard output")
}

/// The exit code of what was done.
pub fn end(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_none_that_is_hidden() {
        let folder = tempfile::tempdir().unwrap();
        pages(Some(folder.path())).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in
            ["dossier.1", "dossier-run.1", "dossier-config-show.1", "dossier-dlq-replay.1", "dossier-plugin-new.1"]
        {
            assert!(names.contains(&name.to_owned()), "{name} is not in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("compile") || name.contains("trial")), "{names:?}");
        let page = std::fs::read_to_string(folder.path().join("dossier-run.1")).unwrap();
        assert!(page.contains("until\\-empty") && page.contains("Takes alerts from the queue"), "{page}");
        assert!(page.contains("\n.SH EXAMPLES\n") && !page.contains("EXTRA"), "{page}");
    }

    #[test]
    fn completions_know_every_command_of_every_shell_and_none_that_is_hidden() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut command(), "dossier", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("until-empty") && text.contains("replay"), "{shell}");
            assert!(!text.contains("trial"), "{shell}");
        }
    }
}
