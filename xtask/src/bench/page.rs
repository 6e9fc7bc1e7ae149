//! The page of results, docs/performance.md: what stands between its marks, and how tables look in it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use comfy_table::{CellAlignment, Table, TableStyle};

use crate::setup::Project;

/// Where the results of a whole run go, between its marks.
pub const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- written by `cargo xtask bench`: begin -->\n";
const END: &str = "<!-- written by `cargo xtask bench`: end -->\n";

/// A table of texts, the columns after the first few to the right, the last `left` of them not.
#[derive(Debug)]
pub struct Cells {
    /// The names of the columns.
    pub head: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// How many columns at the end are words.
    pub words: usize,
}

impl Cells {
    /// As it is shown on a terminal.
    pub fn on_screen(&self) -> String {
        self.table(NOTHING)
    }

    /// As it stands in a page: Markdown, and readable as it is.
    pub fn in_page(&self) -> String {
        self.table(ASCII_MARKDOWN)
    }

    fn table(&self, style: TableStyle) -> String {
        let mut table = Table::new();
        table.load_style(style).set_header(&self.head).add_rows(&self.rows);
        for column in 1..self.head.len() - self.words {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// Writes what was measured into the page.
///
/// # Errors
/// The page is not there, or has lost its marks.
pub fn write(project: &Project, results: &str) -> Result<()> {
    let file = project.root.join(PAGE);
    let page = fs::read_to_string(&file).with_context(|| format!("cannot read {PAGE}"))?;
    fs::write(&file, with_results(&page, results)?).with_context(|| format!("cannot write {PAGE}"))
}

/// The machine, in words.
pub fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let value = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let gigabytes =
        value(&memory, "MemTotal").split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {}, {gigabytes} GiB, Linux {}", value(&cpus, "model name"), kernel.trim())
}

/// The versions of what is measured; `peers` are those of what it is compared with.
pub fn versions(peers: &[String]) -> String {
    let first = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
    };
    let commit = first("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    let redis = first("redis-server", &["--version"]);
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or_default();
    let ours = [
        format!("dossier {} ({commit})", env!("CARGO_PKG_VERSION")),
        first("rustc", &["--version"]),
        format!("redis-server {redis}"),
    ];
    [&ours, peers].concat().join(", ")
}

/// The page with other results.
fn with_results(page: &str, results: &str) -> Result<String> {
    let around = || {
        let (before, rest) = page.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}{results}{END}{after}"))
    };
    around().with_context(|| format!("{PAGE} has lost the marks of its results: {} and {}", BEGIN.trim(), END.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_written() {
        let page = format!("a\n{BEGIN}old\n{END}b\n");
        let page = with_results(&page, "new\n").unwrap();
        assert_eq!(page, format!("a\n{BEGIN}new\n{END}b\n"));
        assert!(with_results("a", "new").is_err());
    }

    #[test]
    fn a_table_is_markdown_that_can_be_read_as_it_is() {
        let cells =
            Cells { head: vec!["a", "b", "c"], rows: vec![vec!["one".into(), "10.5".into(), "x y".into()]], words: 1 };
        assert_eq!(cells.in_page(), "| a   |    b | c   |\n|-----|------|-----|\n| one | 10.5 | x y |\n");
    }
}
