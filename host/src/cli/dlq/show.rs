//! `dossier dlq show`: all that is known of a dead letter, and its original in the form that can be read best.

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use anyhow::bail;

use crate::cli::original::write_original;
use crate::cli::output::{Out, count, duration, grouped, printable, since};
use crate::dead_letter::DeadLetter;
use crate::dead_letter::history::{Event, Failure, Replaced};
use crate::queue::{Dead, Queue};

use super::{find, json, with_body};

/// Which, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Its key, or the alert's id
    id: String,
    /// Nothing but the original, its exact bytes
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// One JSON object a line, for scripts; the original is its `body`, or `body_hex` if it is no text
    #[arg(long)]
    json: bool,
}

/// Shows it; all of them where the alert has several.
///
/// # Errors
/// The ID is unknown, the queue cannot be asked, or the output cannot be written.
pub async fn show<W: Write>(queue: &dyn Queue, arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let mut letters = Vec::new();
    find(queue, std::slice::from_ref(&arguments.id), |dead| letters.push(dead)).await?;
    if arguments.raw && letters.len() > 1 {
        let keys: Vec<_> = letters.iter().map(|dead| printable(&dead.key)).collect();
        bail!("{} dead letters belong to this alert; name one by its key: {}", letters.len(), keys.join(", "));
    }
    for (number, dead) in letters.iter().enumerate() {
        let Some(body) = queue.dead_body(&dead.key).await? else {
            bail!("the dead letter \"{}\" is gone; somebody has just replayed or dropped it", printable(&dead.key));
        };
        if arguments.raw {
            if std::io::stdout().is_terminal() && !is_harmless(&body) {
                bail!("the original holds control characters; send it into a file: dossier dlq show --raw ID > FILE");
            }
            out.write_all(&body)?;
        } else if arguments.json {
            let object = with_body(json(dead)?, &body);
            serde_json::to_writer(&mut *out, &object)?;
            writeln!(out)?;
        } else {
            if number > 0 {
                writeln!(out)?;
            }
            write_letter(dead, out)?;
            writeln!(out)?;
            write_original(&body, "--raw gives all of it", out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_harmless(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| text.lines().all(|line| printable(line) == line))
}

fn write_letter<W: Write>(dead: &Dead, out: &mut Out<W>) -> std::io::Result<()> {
    let DeadLetter {
        schema: _,
        id,
        entry,
        reason,
        detail,
        step,
        attempts,
        history,
        deliveries,
        first_seen,
        failed_at,
        host,
    } = &dead.letter;
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<11}{}", printable(value));
    let moment = |moment: jiff::Timestamp| format!("{moment:.0} ({} ago)", duration(since(moment)));
    line("key", &dead.key)?;
    line("alert", id.as_deref().unwrap_or("- (its bytes could not be decoded)"))?;
    if let Some(entry) = entry {
        line("entry", entry)?;
    }
    line("reason", reason.as_str())?;
    line("detail", detail)?;
    if let Some(step) = step {
        line("step", &step.step)?;
        line("plugin", &format!("{} {}, sha256 {}", step.plugin, step.version, step.sha256))?;
        let took = std::time::Duration::from_micros(step.duration_us);
        line("calls", &format!("{}; the last used {} fuel and took {took:.1?}", step.calls, grouped(step.fuel)))?;
    }
    line("attempts", &attempts.to_string())?;
    line("deliveries", &deliveries.to_string())?;
    line("first seen", &moment(*first_seen))?;
    line("failed", &moment(*failed_at))?;
    line("host", host)?;
    if dead.letter.left_out() > 0 {
        line("before", &format!("{}, not kept", count(dead.letter.left_out().into(), "failure")))?;
    }
    for event in history.events() {
        line("before", &told(event))?;
    }
    Ok(())
}

/// One earlier end of an alert, in a line.
pub fn told(event: &Event) -> String {
    let word = |word: &Option<String>| word.clone().unwrap_or_default();
    let of = |step: &Option<String>, plugin, version, sha256| match step {
        Some(step) => format!(" in {step} ({} {}, sha256 {})", word(plugin), word(version), word(sha256)),
        None => String::new(),
    };
    match event {
        Event::Failure(Failure { failed_at, reason, step, plugin, version, sha256, detail }) => {
            format!("{failed_at:.0} {reason}{}: {detail}", of(step, plugin, version, sha256))
        }
        Event::Replaced(Replaced { replaced_at, finished, verdict, score, step, plugin, version, sha256, .. }) => {
            let finished = finished.map(|finished| format!(" of {finished:.0}")).unwrap_or_default();
            let score = score.map(|score| format!(" {score}")).unwrap_or_default();
            let by = match step {
                Some(step) => format!(", by {step} ({} {}, sha256 {})", word(plugin), word(version), word(sha256)),
                None => String::new(),
            };
            format!("{replaced_at:.0} enriched anew: the record{finished} said {}{score}{by}", word(verdict))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;
    use crate::dead_letter::Reason;

    async fn shown(queue: &MemoryQueue, id: &str, raw: bool, json: bool) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        show(queue, &Arguments { id: id.to_owned(), raw, json }, &mut out).await?;
        out.finish()?;
        drop(out);
        Ok(bytes)
    }

    #[tokio::test]
    async fn raw_gives_the_exact_bytes() {
        let queue = MemoryQueue::default();
        let body = b"\xff\x00\r\n\x1b[2J";
        queue.bury("1-0", None, Reason::Malformed, "-", body);
        assert_eq!(shown(&queue, "1-0", true, false).await.unwrap(), body);
        let text = String::from_utf8(shown(&queue, "1-0", false, false).await.unwrap()).unwrap();
        assert!(text.contains("ff 00 0d 0a 1b") && !text.contains('\u{1b}'), "{text}");
        let json: serde_json::Value =
            serde_json::from_slice(&shown(&queue, "1-0", false, true).await.unwrap()).unwrap();
        assert_eq!(json["body_hex"], hex::encode(body));
    }

    #[tokio::test]
    async fn an_alert_id_shows_all_its_dead_letters_and_raw_wants_one() {
        let queue = MemoryQueue::default();
        queue.bury("1-0", Some("a"), Reason::Trap, "geo", b"{}");
        queue.bury("2-0", Some("a"), Reason::Trap, "geo", b"{}");
        let text = String::from_utf8(shown(&queue, "a", false, false).await.unwrap()).unwrap();
        assert_eq!(text.matches("alert      a\n").count(), 2);
        assert!(shown(&queue, "a", true, false).await.unwrap_err().to_string().contains("1-0, 2-0"));
    }

    #[tokio::test]
    async fn earlier_failures_are_shown_with_the_number_of_those_that_are_not_kept() {
        let queue = MemoryQueue::default();
        queue.bury_again("1-0", 5, &["it\u{1b}[2J trapped", "it was slow"]);
        let text = String::from_utf8(shown(&queue, "1-0", false, false).await.unwrap()).unwrap();
        let before: Vec<_> = text.lines().filter(|line| line.starts_with("before ")).collect();
        assert_eq!(before[0], "before     2 failures, not kept");
        let of = format!("1970-01-01T00:00:00Z trap in geo (geo 0.1.0, sha256 {})", "ab".repeat(32));
        assert_eq!(before[1], format!("before     {of}: it\\u{{1b}}[2J trapped"));
        assert_eq!(before[2..], [format!("before     {of}: it was slow")]);
        let json: serde_json::Value =
            serde_json::from_slice(&shown(&queue, "1-0", false, true).await.unwrap()).unwrap();
        assert_eq!(json["history"][1]["detail"], "it was slow");
    }

    #[tokio::test]
    async fn an_unknown_id_is_named() {
        let error = shown(&MemoryQueue::default(), "x\u{1b}", false, false).await.unwrap_err().to_string();
        assert!(error.contains("\"x\\u{1b}\"") && error.contains("dossier dlq list"), "{error}");
    }
}
