//! A page of the documentation as a list of things to do: its code blocks, in their order, and what each of them means. Knows
//! every kind of block or refuses the page, so that none is skipped. Who does them is [`super::shell`]'s.
//!
//! What a block is stands behind its three backquotes:
//!
//! | | |
//! |---|---|
//! | `sh` | commands, all of which must succeed. The shell stays the same from block to block |
//! | `sh fails` | one command, which must fail |
//! | `sh terminal=NAME` | one command that is left open in another terminal, and ends well with Ctrl-C at the end of the page |
//! | `text`, `console` | what the `sh` block before it must print, from its first line to its last |
//! | `text terminal=NAME` | what that terminal must show next; it is waited for |
//! | `… title="FILE"` | the text of a file, which is written. What stands before the block names the file too, as `FILE`: readers do not see titles |
//!
//! In what is printed `…` stands for anything in a line, a line of `…` alone for any lines, and `≈` before a figure says that
//! figure, and its unit of time, to be an example. How many spaces there are does not matter, nor empty lines at the end.

use anyhow::{Context as _, Result, bail, ensure};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use regex::Regex;

/// A block, and the line that it begins in.
#[derive(Debug)]
pub struct Block {
    /// Its line in the page, from 1.
    pub line: usize,
    /// What to do.
    pub what: What,
}

/// What to do with a block.
#[derive(Debug)]
pub enum What {
    /// Run commands.
    Run(String),
    /// Run a command that fails.
    Fail(String),
    /// Leave a command open in a terminal of this name.
    Open(String, String),
    /// Compare with what was printed.
    Printed(Pattern),
    /// Wait for what a terminal shows.
    Shown(String, Pattern),
    /// Write a file.
    Write(String, String),
}

/// Reads a page.
///
/// # Errors
/// A block of a kind that is not known, with its line.
pub fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (event, range) in Parser::new(page).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let line = page[..range.start].matches('\n').count() + 1;
                let CodeBlockKind::Fenced(info) = kind else {
                    bail!("line {line}: an indented block; write it between backquotes and say what it is");
                };
                open = Some((line, info.into_string(), String::new()));
            }
            Event::Text(text) => {
                if let Some((.., code)) = &mut open {
                    code.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                let (line, info, code) = open.take().context("a block ends that did not begin")?;
                let before = blocks.last().map(|block: &Block| &block.what);
                let what = what(&info, code, before).with_context(|| format!("line {line}: ```{info}"))?;
                if let What::Write(file, _) = &what {
                    let above = page.lines().nth(line.wrapping_sub(2)).unwrap_or_default();
                    ensure!(
                        above.contains(&format!("`{file}`")),
                        "line {line}: the line before the block does not name `{file}`"
                    );
                }
                blocks.push(Block { line, what });
            }
            _ => {}
        }
    }
    Ok(blocks)
}

fn what(info: &str, code: String, before: Option<&What>) -> Result<What> {
    let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
    let terminal = rest.strip_prefix("terminal=");
    Ok(match (language, rest, terminal) {
        ("sh", "", _) => What::Run(code),
        ("sh", "fails", _) => What::Fail(one_command(code)?),
        ("sh", _, Some(name)) => What::Open(name.to_owned(), one_command(code)?),
        ("text" | "console", "", _) => {
            let follows = matches!(before, Some(What::Run(_) | What::Fail(_)));
            ensure!(follows, "it follows no sh block, so there is nothing to compare it with");
            What::Printed(Pattern::new(&code)?)
        }
        ("text" | "console", _, Some(name)) => What::Shown(name.to_owned(), Pattern::new(&code)?),
        _ => {
            let file = rest.strip_prefix("title=\"").and_then(|rest| rest.strip_suffix('"'));
            What::Write(file.context("no known kind of block; see tests/src/page.rs")?.to_owned(), code)
        }
    })
}

fn one_command(code: String) -> Result<String> {
    ensure!(code.trim_end().lines().count() == 1, "it must be one command on one line");
    Ok(code)
}

/// What is printed, with room for what varies.
#[derive(Debug)]
pub struct Pattern {
    written: String,
    regex: Regex,
}

impl Pattern {
    fn new(written: &str) -> Result<Self> {
        let mut regex = String::from("^");
        for line in written.lines() {
            if line == "…" {
                regex.push_str(r"(?:[^\n]*\n)*?");
            } else {
                regex.push_str(&self::line(line.trim_end())?);
                regex.push_str(" *\n");
            }
        }
        Ok(Self { written: written.to_owned(), regex: Regex::new(&regex)? })
    }

    /// Where it ends in a text that begins with it; none in one that does not, or not yet.
    pub fn end_in(&self, text: &str) -> Option<usize> {
        Some(self.regex.find(text)?.end())
    }

    /// Whether a text is this, and nothing more but empty lines at its end.
    pub fn is(&self, text: &str) -> bool {
        let whole = Regex::new(&format!("{}$", self.regex)).expect("a pattern with an end is a pattern");
        whole.is_match(&format!("{}\n", text.trim_end()))
    }

    /// As it stands in the page.
    pub fn written(&self) -> &str {
        &self.written
    }
}

fn line(line: &str) -> Result<String> {
    let varies = Regex::new(r"…| +|≈([0-9][0-9.,_]*)( (?:ns|µs|ms|s|min)\b)?")?;
    let (mut regex, mut at) = (String::new(), 0);
    for found in varies.captures_iter(line) {
        let whole = found.get(0).context("a match is one")?;
        regex.push_str(&regex::escape(&line[at..whole.start()]));
        regex.push_str(match (whole.as_str(), found.get(2)) {
            ("…", _) => r"[^\n]*?",
            (spaces, _) if spaces.starts_with(' ') => " +",
            (_, None) => "[0-9][0-9.,_]*",
            (_, Some(_)) => "[0-9][0-9.,_]* (?:ns|µs|ms|s|min)",
        });
        at = whole.end();
    }
    regex.push_str(&regex::escape(&line[at..]));
    ensure!(!line[at..].contains('≈') && !regex.contains('≈'), "a ≈ must stand before a figure: {line}");
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(page: &str) -> String {
        format!("{:#}", blocks(page).expect_err("the page is refused"))
    }

    #[test]
    fn no_block_is_skipped() {
        assert!(wrong("text\n\n```js\nx\n```\n").contains("line 3: ```js: no known kind"));
        assert!(wrong("```\nx\n```\n").contains("no known kind"));
        assert!(wrong("```sh maybe\nx\n```\n").contains("no known kind"));
        assert!(wrong("a\n\n    cargo test\n").contains("indented"));
        assert!(wrong("- a\n  ```bash\n  x\n  ```\n").contains("line 2"), "in a list as well");
    }

    #[test]
    fn a_file_is_named_where_readers_see_it() {
        assert!(wrong("Write this:\n```csv title=\"a.csv\"\nx\n```\n").contains("line 2: the line before"));
        assert!(wrong("```csv title=\"a.csv\"\nx\n```\n").contains("line 1: the line before"));
        assert_eq!(blocks("`a.csv`:\n```csv title=\"a.csv\"\nx\n```\n").expect("a page").len(), 1);
    }

    #[test]
    fn what_is_printed_follows_what_prints_it() {
        assert!(wrong("```text\nx\n```\n").contains("follows no sh block"));
        assert!(
            wrong("```sh\ntrue\n```\n`a`\n```rust title=\"a\"\n```\n```text\nx\n```\n").contains("follows no sh block")
        );
        assert!(wrong("```sh fails\nfalse\nfalse\n```\n").contains("one command"));
        assert_eq!(blocks("```sh\necho x\n```\nprints\n```text\nx\n```\n").expect("a page").len(), 2);
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("a pattern")
    }

    #[test]
    fn only_what_is_marked_may_vary() {
        let exact = pattern("ok    a (1)\n");
        assert!(exact.is("ok a (1)\n") && exact.is("ok    a (1)  \n\n"));
        assert!(!exact.is("ok    a (2)\n") && !exact.is("ok    a (1)\nmore\n") && !exact.is("ok a\n"));
        let figures = pattern("took ≈4.2 µs, ≈15,252 fuel, 7 rows\n");
        assert!(figures.is("took 12 ms, 814 fuel, 7 rows\n"));
        assert!(!figures.is("took 12 ms, 814 fuel, 8 rows\n") && !figures.is("took 12 MiB, 814 fuel, 7 rows\n"));
        let some = pattern("sha256 …\n…\nend\n");
        assert!(some.is("sha256 ab cd\nend\n") && some.is("sha256 ab\nx\ny\nend\n"));
        assert!(!some.is("sha256 ab\nx\n"));
        assert!(Pattern::new("about ≈\n").is_err());
    }

    #[test]
    fn what_a_terminal_shows_may_go_on() {
        let ready = pattern("… ready\n");
        assert_eq!(ready.end_in("12:00 ready\n12:01 more\n"), Some(12));
        assert_eq!(ready.end_in("12:00 rea"), None);
    }
}
