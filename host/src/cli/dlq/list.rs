//! `dossier dlq list`: a table for people, JSON lines for scripts. Shown as it is read, so that its length does not matter.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::output::{Out, printable, rough, since};
use crate::queue::{Dead, Queue};

use super::{Filter, Pages, Sieve, json};

/// Which, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    filter: Filter,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// One JSON object a line, for scripts
    #[arg(long)]
    json: bool,
}

/// Lists them.
///
/// # Errors
/// The queue cannot be asked, a digest is not of one version, or the output cannot be written.
pub async fn list<W: Write>(queue: &dyn Queue, arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let mut first = true;
    let mut pages = Pages::new(queue);
    let mut sieve = Sieve::new(&arguments.filter);
    while left > 0
        && !out.is_closed()
        && let Some(page) = pages.next().await?
    {
        let mut page = sieve.sift(page)?;
        page.truncate(left);
        left -= page.len();
        if arguments.json {
            for dead in &page {
                serde_json::to_writer(&mut *out, &json(dead)?)?;
                writeln!(out)?;
            }
        } else if !page.is_empty() {
            write_table(&page, first, out)?;
            first = false;
        }
        out.flush()?;
    }
    if first && !arguments.json {
        let nothing = match arguments.filter {
            Filter { reason: None, step: None, digest: None } => "no dead letters",
            _ => "no dead letter matches",
        };
        writeln!(out, "{nothing}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a page as a table that fits the terminal; elsewhere nothing is cut.
pub fn write_table<W: Write>(page: &[Dead], header: bool, out: &mut Out<W>) -> std::io::Result<()> {
    // Where every key holds the alert's id (as files do), the id needs no column of its own.
    let needs_id = page.iter().any(|dead| dead.letter.id.as_ref().is_some_and(|id| !dead.key.contains(id.as_str())));
    write_rows(&rows(page, header), needs_id, terminal_width(), out)
}

const COLUMNS: usize = 7;
/// The alert's id.
const ALERT: usize = 1;
/// What is cut where the terminal is narrow: a column, and what is left of it at least; the first one first. A key is never
/// cut: it is what the other commands take.
const CUT: [(usize, usize); 5] = [(6, 20), (ALERT, 12), (3, 8), (6, 8), (ALERT, 8)];
/// The columns of numbers.
const RIGHT: [usize; 2] = [4, 5];

fn terminal_width() -> Option<usize> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| usize::from(terminal.size().1))
}

fn rows(page: &[Dead], header: bool) -> Vec<[String; COLUMNS]> {
    let header = header.then(|| ["KEY", "ALERT", "REASON", "STEP", "TRIES", "AGO", "DETAIL"].map(str::to_owned));
    let rows = page.iter().map(|Dead { key, letter, .. }| {
        [
            printable(key),
            letter.id.as_deref().map_or_else(|| "-".to_owned(), printable),
            letter.reason.to_string(),
            letter.step.as_ref().map_or_else(|| "-".to_owned(), |step| printable(&step.step)),
            letter.attempts.to_string(),
            rough(since(letter.failed_at)),
            printable(&letter.detail),
        ]
    });
    header.into_iter().chain(rows).collect()
}

fn write_rows<W: Write>(
    rows: &[[String; COLUMNS]],
    needs_id: bool,
    width: Option<usize>,
    out: &mut Out<W>,
) -> std::io::Result<()> {
    let shown: Vec<usize> = (0..COLUMNS).filter(|column| needs_id || *column != ALERT).collect();
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = console::measure_text_width(cell).max(*width);
        }
    }
    if let Some(width) = width {
        for (column, least) in CUT {
            let whole = shown.iter().map(|&column| widths[column] + 2).sum::<usize>();
            let too_much = whole.saturating_sub(width + 2);
            widths[column] = widths[column].saturating_sub(too_much).max(least.min(widths[column]));
        }
    }
    for row in rows {
        let mut line = String::new();
        for &column in &shown {
            let is_number = RIGHT.contains(&column);
            let alignment = if is_number { console::Alignment::Right } else { console::Alignment::Left };
            line.push_str(&console::pad_str(&row[column], widths[column], alignment, Some("…")));
            line.push_str("  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;
    use crate::dead_letter::Reason;

    async fn listed(queue: &MemoryQueue, filter: Filter, limit: Option<usize>, json: bool) -> String {
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        list(queue, &Arguments { filter, limit, json }, &mut out).await.unwrap();
        out.finish().unwrap();
        drop(out);
        String::from_utf8(text).unwrap()
    }

    fn filled(number: usize) -> MemoryQueue {
        let queue = MemoryQueue::default();
        for number in 0..number {
            let (reason, step) = if number % 2 == 0 { (Reason::Timeout, "geo") } else { (Reason::Trap, "asset") };
            queue.bury(&format!("{number:05}-0"), Some(&format!("id\u{1b}[31m{number}")), reason, step, b"{}");
        }
        queue
    }

    #[tokio::test]
    async fn every_page_is_listed_once() {
        let queue = filled(2 * super::super::PAGE + 1);
        let text = listed(&queue, Filter::default(), None, true).await;
        let keys: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["key"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(keys, queue.keys());
        assert_eq!(listed(&queue, Filter::default(), None, false).await.lines().count(), keys.len() + 1);
    }

    #[tokio::test]
    async fn filters_and_the_limit_hold() {
        let queue = filled(20);
        let geo = || Filter { reason: Some(Reason::Timeout), step: Some("geo".into()), digest: None };
        assert_eq!(listed(&queue, geo(), None, true).await.lines().count(), 10);
        assert_eq!(listed(&queue, geo(), Some(3), true).await.lines().count(), 3);
        let none = Filter { reason: Some(Reason::Trap), step: Some("geo".into()), digest: None };
        assert_eq!(listed(&queue, none, None, false).await, "no dead letter matches\n");
    }

    #[tokio::test]
    async fn the_table_escapes_what_a_terminal_would_obey_and_json_says_it_as_it_is() {
        let queue = filled(1);
        let text = listed(&queue, Filter::default(), None, false).await;
        assert!(!text.contains('\u{1b}') && text.contains("id\\u{1b}[31m0") && text.contains("it\\u{1b}[2J failed"));
        let json = listed(&queue, Filter::default(), None, true).await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["id"], "id\u{1b}[31m0");
    }

    #[tokio::test]
    async fn the_table_fits_the_terminal_and_cuts_no_key() {
        let queue = MemoryQueue::default();
        let id = "5f6a9d4e-1a5b-5c1e-9a55-6f0e54c17b2f";
        queue.bury("1763715600000-0", Some(id), Reason::InvalidOutput, "a-step-with-a-long-name", b"{}");
        let page = queue.dead(None, 9).await.unwrap();
        for width in [80, 140] {
            let mut text = Vec::new();
            let mut out = Out::new(&mut text);
            write_rows(&rows(&page, true), true, Some(width), &mut out).unwrap();
            drop(out);
            let text = String::from_utf8(text).unwrap();
            assert!(text.lines().all(|line| console::measure_text_width(line) <= width), "{text}");
            assert!(text.contains("1763715600000-0") && text.contains("invalid-output"), "{text}");
        }
    }

    #[tokio::test]
    async fn no_dead_letters_are_said_to_be_none() {
        let queue = MemoryQueue::default();
        assert_eq!(listed(&queue, Filter::default(), None, false).await, "no dead letters\n");
        assert_eq!(listed(&queue, Filter::default(), None, true).await, "");
    }
}
