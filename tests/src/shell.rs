//! Somebody who types what a page says: one shell that stays the same from block to block, and other terminals in which
//! something is left open. What the blocks mean is [`super::page`]'s.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::page::{Block, What};

/// How long a line is waited for: a first build on a busy machine says nothing for minutes.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long a terminal may take to show what it should.
const SOON: Duration = Duration::from_secs(300);

/// Stands before the status and the folder after each block.
const MARK: &str = "--- end of the block:";

/// The person.
pub struct Typist {
    environment: Vec<(String, String)>,
    shell: Child,
    lines: Receiver<String>,
    folder: PathBuf,
    printed: String,
    terminals: BTreeMap<String, Terminal>,
}

/// Something that was left open.
struct Terminal {
    child: Child,
    lines: Receiver<String>,
    /// What it has shown and nobody has looked at.
    shown: String,
}

impl Typist {
    /// Sits down in a folder, with programs of another one on PATH.
    ///
    /// # Errors
    /// There is no bash.
    pub fn new(folder: &Path, programs: &Path) -> Result<Self> {
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let environment = vec![("PATH".to_owned(), path)];
        let (shell, lines) = spawn(Command::new("bash").args(["--noprofile", "--norc", "-e"]), folder, &environment)?;
        let folder = folder.to_owned();
        Ok(Self { environment, shell, lines, folder, printed: String::new(), terminals: BTreeMap::new() })
    }

    /// Does every block, in order, and ends what was left open.
    ///
    /// # Errors
    /// The first block that does not do what it says.
    pub fn follow(mut self, blocks: Vec<Block>) -> Result<()> {
        for Block { line, what } in blocks {
            self.follow_one(what).with_context(|| format!("the block in line {line}"))?;
        }
        for (name, terminal) in &mut self.terminals {
            terminal.interrupt().with_context(|| format!("terminal {name}"))?;
        }
        Ok(())
    }

    fn follow_one(&mut self, what: What) -> Result<()> {
        match what {
            What::Run(commands) => ensure!(self.run(&commands)? == 0, "it failed; it printed:\n{}", self.printed),
            What::Fail(command) => {
                // The shell ends at what fails, but not here.
                let status = self.run(&format!("set +e\n{command}\n( exit $? )\n"))?;
                ensure!(status != 0, "it succeeded; it printed:\n{}", self.printed);
                self.run("set -e\n").map(drop)?;
            }
            What::Printed(expected) => ensure!(
                expected.is(&self.printed),
                "the page says\n{}\nbut it printed\n{}",
                expected.written(),
                self.printed
            ),
            What::Open(name, command) => {
                // A terminal's programs hear Ctrl-C, even when these tests run in the background, where it is ignored.
                let mut bash = Command::new("env");
                bash.args(["--default-signal=INT", "bash", "--noprofile", "--norc", "-c", &format!("exec {command}")]);
                let (child, lines) = spawn(&mut bash, &self.folder, &self.environment)?;
                self.terminals.insert(name, Terminal { child, lines, shown: String::new() });
            }
            What::Shown(name, expected) => {
                let terminal = self.terminals.get_mut(&name).context("there is no such terminal")?;
                loop {
                    if let Some(end) = expected.end_in(&terminal.shown) {
                        terminal.shown.drain(..end);
                        break;
                    }
                    let Ok(line) = terminal.lines.recv_timeout(SOON) else {
                        bail!("the page says\n{}\nbut the terminal shows\n{}", expected.written(), terminal.shown);
                    };
                    terminal.shown.push_str(&line);
                }
            }
            What::Write(file, text) => {
                let file = self.folder.join(file);
                std::fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
                std::fs::write(&file, text).with_context(|| file.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Runs commands and keeps what they print; gives the status of the last.
    fn run(&mut self, commands: &str) -> Result<i32> {
        let keep = !commands.starts_with("set -e");
        if keep {
            self.printed.clear();
        }
        let block = tempfile::NamedTempFile::new()?;
        std::fs::write(&block, commands)?;
        let shell = self.shell.stdin.as_mut().context("the shell has a standard input")?;
        // Its own input is not the commands'.
        let block = block.path().display();
        writeln!(shell, "source {block} < /dev/null; printf '%s %s %s\\n' '{MARK}' $? \"$PWD\"")?;
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                bail!("a command failed, or took too long; until then it printed:\n{}", self.printed);
            };
            if let Some((before, end)) = line.split_once(MARK) {
                self.printed.push_str(before);
                let (status, folder) = end.trim().split_once(' ').context("a status and a folder")?;
                self.folder = folder.into();
                return Ok(status.parse()?);
            }
            print!("{line}");
            if keep {
                self.printed.push_str(&line);
            }
        }
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        let terminals = self.terminals.values_mut().map(|terminal| &mut terminal.child);
        for child in terminals.chain([&mut self.shell]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Terminal {
    /// Ctrl-C, after which it must end well.
    fn interrupt(&mut self) -> Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::INT)?;
        loop {
            match self.lines.recv_timeout(SOON) {
                Ok(line) => self.shown.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("it goes on after Ctrl-C; it showed:\n{}", self.shown),
            }
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status} after Ctrl-C; it showed:\n{}", self.shown);
        Ok(())
    }
}

/// Starts a program whose both outputs come as lines in one stream, as on a terminal.
fn spawn(command: &mut Command, folder: &Path, environment: &[(String, String)]) -> Result<(Child, Receiver<String>)> {
    let (output, input) = std::io::pipe()?;
    command.current_dir(folder).envs(environment.iter().map(|(name, value)| (name, value)));
    // What the build that runs the tests was told is not for the builds of a person.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "DOSSIER_"];
        if text == "CARGO" || text == "LD_LIBRARY_PATH" || ours.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::piped()).stdout(input.try_clone()?).stderr(input);
    let child = command.spawn().context("bash does not start")?;
    // The command holds the writing ends; the stream ends when the program does.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = sync_channel(1024);
    std::thread::spawn(move || {
        let mut output: BufReader<PipeReader> = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    Ok((child, lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::blocks;

    fn follow(page: &str) -> Result<()> {
        let folder = tempfile::tempdir()?;
        Typist::new(folder.path(), Path::new("/nowhere"))?.follow(blocks(page)?)
    }

    fn wrong(page: &str) -> String {
        format!("{:#}", follow(page).expect_err("the page is wrong"))
    }

    #[test]
    fn the_shell_stays_the_same_from_block_to_block() {
        follow(
            "```sh\nmkdir a && cd a\nx=7\n```\n`b/c.toml`:\n```toml title=\"b/c.toml\"\nd\n```\n```sh\ncat b/c.toml; echo $x >&2\n```\n\
             ```text\nd\n7\n```\n",
        )
        .expect("it does what it says");
    }

    #[test]
    fn what_fails_or_prints_something_else_is_found() {
        assert!(wrong("```sh\necho before\nfalse\necho after\n```\n").contains("printed:\nbefore\n"));
        assert!(wrong("```sh fails\ntrue\n```\n").contains("it succeeded"));
        follow("```sh fails\nfalse\n```\n```sh\necho on\n```\n```text\non\n```\n").expect("it fails as it says");
        assert!(wrong("```sh fails\nfalse\n```\n```sh\nfalse\n```\n").contains("line 4"));
        assert!(wrong("```sh\necho a\n```\n```text\nb\n```\n").contains("but it printed\na\n"));
    }

    #[test]
    fn a_terminal_is_left_open_until_the_end_and_must_end_well() {
        let open = |at_ctrl_c: &str| {
            format!(
                "```sh terminal=one\nbash -c 'trap \"{at_ctrl_c}\" INT; echo up; while :; do read -t 1; done'\n```\n```text terminal=one\nup\n```\n"
            )
        };
        follow(&open("exit 0")).expect("it ends well");
        assert!(wrong(&open("exit 3")).contains("ended with exit status: 3"));
    }
}
