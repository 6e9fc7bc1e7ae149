//! `dossier dlq show`: all that is known of a dead letter, and its original in the form that can be read best.

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use anyhow::bail;
use serde::de::IgnoredAny;

use crate::cli::output::{Out, count, duration, printable, since};
use crate::dead_letter::DeadLetter;
use crate::dead_letter::history::Failure;
use crate::queue::{Dead, Queue};

use super::{find, json};

/// How much of an original is shown, in bytes.
const SHOWN: usize = 16 << 10;
/// Nested deeper than this, lines are indented no further.
const DEEPEST: usize = 32;

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
            let mut object = json(dead)?;
            match std::str::from_utf8(&body) {
                Ok(text) => object.insert("body".to_owned(), text.into()),
                Err(_) => object.insert("body_hex".to_owned(), hex::encode(&body).into()),
            };
            serde_json::to_writer(&mut *out, &object)?;
            writeln!(out)?;
        } else {
            if number > 0 {
                writeln!(out)?;
            }
            write_letter(dead, out)?;
            writeln!(out)?;
            write_original(&body, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_harmless(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| text.lines().all(|line| printable(line) == line))
}

fn write_letter<W: Write>(dead: &Dead, out: &mut Out<W>) -> std::io::Result<()> {
    let DeadLetter { schema: _, id, reason, detail, step, attempts, history, deliveries, first_seen, failed_at, host } =
        &dead.letter;
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<11}{}", printable(value));
    let moment = |moment: jiff::Timestamp| format!("{moment:.0} ({} ago)", duration(since(moment)));
    line("key", &dead.key)?;
    line("alert", id.as_deref().unwrap_or("- (its bytes could not be decoded)"))?;
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
    for Failure { failed_at, reason, step, plugin, version, sha256, detail } in history.failures() {
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        let of = match step {
            Some(step) => format!(" in {step} ({} {}, sha256 {})", word(plugin), word(version), word(sha256)),
            None => String::new(),
        };
        line("before", &format!("{failed_at:.0} {reason}{of}: {detail}"))?;
    }
    Ok(())
}

/// A number with its thousands apart: `1,234,567`.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

fn write_original<W: Write>(body: &[u8], out: &mut Out<W>) -> std::io::Result<()> {
    let (kind, shown) = match std::str::from_utf8(body) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => ("JSON", indented(text)),
        Ok(text) => ("text", head(text)),
        Err(_) => ("binary", hexdump(&body[..body.len().min(SHOWN / 4)])),
    };
    writeln!(out, "original ({}, {kind})", count(body.len() as u64, "byte"))?;
    for line in shown.text.lines() {
        writeln!(out, "{}", printable(line))?;
    }
    if shown.cut || (kind == "binary" && body.len() > SHOWN / 4) {
        writeln!(out, "… cut here; --raw gives all of it")?;
    }
    Ok(())
}

struct Shown {
    text: String,
    cut: bool,
}

fn head(text: &str) -> Shown {
    let end = text.floor_char_boundary(SHOWN);
    Shown { text: text[..end].to_owned(), cut: end < text.len() }
}

/// Valid JSON with line breaks and indentation, and nothing else changed: keys keep their order and stand twice where they
/// do, numbers keep their digits. A parsed value would lose that, and it may be what the matter is.
fn indented(json: &str) -> Shown {
    let mut text = String::with_capacity(json.len().min(SHOWN) * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut opened = false;
    for char in json.chars() {
        if text.len() > SHOWN {
            return Shown { text, cut: true };
        }
        if in_string {
            in_string = escaped || char != '"';
            escaped = !escaped && char == '\\';
            text.push(char);
            continue;
        }
        if char.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(char, '}' | ']');
        depth -= usize::from(closes);
        if opened != closes {
            new_line(&mut text, depth);
        }
        opened = false;
        match char {
            '{' | '[' => {
                text.push(char);
                depth += 1;
                opened = true;
            }
            ',' => {
                text.push(',');
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_string = char == '"';
                text.push(char);
            }
        }
    }
    Shown { text, cut: false }
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
}

/// Offset, bytes, and what of it is ASCII: as `hexdump -C` shows it.
fn hexdump(bytes: &[u8]) -> Shown {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (number, chunk) in bytes.chunks(16).enumerate() {
        let hex: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii: String = chunk
            .iter()
            .map(|&byte| if byte == b' ' || byte.is_ascii_graphic() { byte as char } else { '.' })
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:08x}  {:<47}  |{ascii}|", number * 16, hex.join(" "));
    }
    Shown { text, cut: false }
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

    #[test]
    fn indenting_changes_nothing_but_space() {
        let json = r#"{"b":1.10,"a":[{},[],"x, \"{y}\" \\"],"a":{"c":null , "d" : [1,2]}}"#;
        let expected = "{\n  \"b\": 1.10,\n  \"a\": [\n    {},\n    [],\n    \"x, \\\"{y}\\\" \\\\\"\n  ],\n  \"a\": {\n    \"c\": null,\n    \"d\": [\n      1,\n      2\n    ]\n  }\n}";
        assert_eq!(indented(json).text, expected);
        assert_eq!(indented("17").text, "17");
    }

    #[test]
    fn a_deep_or_long_original_is_cut() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let shown = indented(&deep);
        assert!(shown.cut && shown.text.len() < 2 * SHOWN);
        assert!(head(&"é".repeat(SHOWN)).cut);
    }

    #[test]
    fn bytes_are_dumped_as_hexdump_does() {
        assert_eq!(
            hexdump(b"\xff\x00{\"id\": 1}ABCDEFGH").text,
            "00000000  ff 00 7b 22 69 64 22 3a 20 31 7d 41 42 43 44 45  |..{\"id\": 1}ABCDE|\n\
             00000010  46 47 48                                         |FGH|\n"
        );
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
