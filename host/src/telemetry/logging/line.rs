//! How a line looks, and why it stays one line: every value is cut, and whatever could break a line or drive a terminal is
//! escaped.

use std::cell::Cell;
use std::fmt::{self, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::telemetry::redact::Masks;

/// Fields of our own events whose `{:?}` is JSON, and whose `{:#?}` is for people.
pub const JSON_FIELDS: [&str; 3] = ["steps", "entries", "changed"];

/// The longest value in a line, in bytes.
const VALUE: usize = 1024;

/// The longest text that somebody wrote for people, in bytes: as long as a plugin's line may be.
const TEXT: usize = 4096;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty {
        /// Whether there is a terminal that shows colours.
        colour: bool,
    },
}

/// What a line is put together in; kept by each thread, so that a line costs no allocation.
#[derive(Default)]
struct Scratch {
    line: String,
    message: String,
    fields: String,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// Gives an event's line, with its line feed, to `write`.
pub(super) fn with(style: Style, event: &Event<'_>, write: impl FnOnce(&str)) {
    // Taken, not borrowed: formatting a value may log.
    let mut scratch = SCRATCH.take();
    scratch.line.clear();
    scratch.message.clear();
    scratch.fields.clear();
    let ours = event.metadata().target().starts_with("dossier");
    let masks = Masks::current();
    event.record(&mut Values { style, ours, masks, message: &mut scratch.message, fields: &mut scratch.fields });
    // Writing to a string does not fail.
    let _ = match style {
        Style::Json => json(&mut scratch, event),
        Style::Pretty { colour } => pretty(&mut scratch, event, colour),
    };
    scratch.line.push('\n');
    write(&scratch.line);
    SCRATCH.set(scratch);
}

fn json(scratch: &mut Scratch, event: &Event<'_>) -> fmt::Result {
    let level = match *event.metadata().level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let Scratch { line, message, fields } = scratch;
    write!(line, "{{\"time\":\"{:.6}\",\"level\":\"{level}\",\"target\":\"", Timestamp::now())?;
    escape(line, event.metadata().target(), true);
    line.push_str("\",\"message\":\"");
    escape(line, message, true);
    line.push('"');
    line.push_str(fields);
    line.push('}');
    Ok(())
}

fn pretty(scratch: &mut Scratch, event: &Event<'_>, colour: bool) -> fmt::Result {
    let (level, paint) = match *event.metadata().level() {
        Level::ERROR => ("ERROR", "31"),
        Level::WARN => (" WARN", "33"),
        Level::INFO => (" INFO", "32"),
        Level::DEBUG => ("DEBUG", "34"),
        Level::TRACE => ("TRACE", "35"),
    };
    let Scratch { line, message, fields } = scratch;
    let time = Timestamp::now().strftime("%H:%M:%S%.3fZ").to_string();
    if colour {
        write!(line, "\x1b[2m{time}\x1b[0m \x1b[{paint}m{level}\x1b[0m \x1b[1m")?;
        escape(line, message, false);
        line.push_str("\x1b[0m");
    } else {
        write!(line, "{time} {level} ")?;
        escape(line, message, false);
    }
    line.push_str(fields);
    Ok(())
}

/// Collects an event's values.
struct Values<'a> {
    style: Style,
    ours: bool,
    /// What must not be said now.
    masks: Masks,
    message: &'a mut String,
    fields: &'a mut String,
}

impl Values<'_> {
    /// Writes what stands before a value.
    fn name(&mut self, field: &Field) {
        let name = field.name();
        // Other crates' fields may be called anything.
        let taken = if matches!(name, "time" | "level" | "target") { "field_" } else { "" };
        let (before, after) = match self.style {
            Style::Json => (",\"", "\":"),
            Style::Pretty { colour: true } => (" \x1b[2m", "=\x1b[0m"),
            Style::Pretty { colour: false } => (" ", "="),
        };
        [before, taken, name, after].into_iter().for_each(|part| self.fields.push_str(part));
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.fields, "{value}");
    }

    fn text(&mut self, field: &Field, value: &str, cut: bool) {
        if field.name() == "message" {
            self.message.push_str(value);
            self.message.push_str(if cut { "…" } else { "" });
            return;
        }
        self.name(field);
        // For people, a value that cannot be mistaken for two needs no quotes.
        let bare = matches!(self.style, Style::Pretty { .. })
            && !value.is_empty()
            && !value.contains([' ', '"', '=', '\\', '\n', '\r', '\t']);
        let quote = if bare { "" } else { "\"" };
        self.fields.push_str(quote);
        escape(self.fields, value, !bare);
        self.fields.push_str(if cut { "…" } else { "" });
        self.fields.push_str(quote);
    }
}

impl Visit for Values<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.plain(field, value) } else { self.text(field, &value.to_string(), false) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Masked before it is cut: half a name is one, too.
        let masks = self.masks.clone();
        let value = &*masks.mask(value);
        let end = value.floor_char_boundary(longest(field));
        self.text(field, &value[..end], end < value.len());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.ours && JSON_FIELDS.contains(&field.name()) {
            self.name(field);
            if !self.masks.is_empty() {
                let shown = if let Style::Json = self.style {
                    self.masks.mask_json(&format!("{value:?}")).into_owned()
                } else {
                    self.masks.mask(&format!("[{value:#?}]")).into_owned()
                };
                escape(self.fields, &shown, false);
            } else if let Style::Json = self.style {
                // Control characters are escaped already; what is left to escape stands inside of strings.
                let _ = write!(Escaped(self.fields), "{value:?}");
            } else {
                self.fields.push('[');
                let _ = write!(Escaped(self.fields), "{value:#?}");
                self.fields.push(']');
            }
            return;
        }
        if !self.masks.is_empty() {
            // All of it, to be masked before it is cut.
            return self.record_str(field, &format!("{value:?}"));
        }
        let mut text = Bounded { text: String::new(), left: longest(field), cut: false };
        // It fails when the bound is reached: that is how a value of megabytes is never put together.
        let _ = write!(text, "{value:?}");
        self.text(field, &text.text, text.cut);
    }
}

/// How long a value may be, in bytes.
fn longest(field: &Field) -> usize {
    if matches!(field.name(), "message" | "text" | "why" | "error") { TEXT } else { VALUE }
}

/// Takes text until it is full.
struct Bounded {
    text: String,
    left: usize,
    cut: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let end = more.floor_char_boundary(self.left);
        self.text.push_str(&more[..end]);
        self.left -= end;
        self.cut = end < more.len();
        if self.cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Takes JSON, in which nothing but what could break a line is still to be escaped.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        escape(self.0, more, false);
        Ok(())
    }
}

/// Appends text as JSON writes it inside of a string: with what could end a line, move a cursor or turn text around as
/// `\uXXXX`. Quotes and backslashes are escaped if `quoted`.
fn escape(out: &mut String, text: &str, quoted: bool) {
    // Nearly every text is plain, and this is found out many bytes at a time.
    let plain = |byte: u8| matches!(byte, b' '..=b'~') & !(quoted & ((byte == b'"') | (byte == b'\\')));
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        return out.push_str(text);
    }
    let mut done = 0;
    for (at, char) in text.char_indices() {
        let short = match char {
            '"' if quoted => "\\\"",
            '\\' if quoted => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            _ if harmful(char) => "",
            _ => continue,
        };
        out.push_str(&text[done..at]);
        done = at + char.len_utf8();
        if short.is_empty() {
            let _ = write!(out, "\\u{:04x}", u32::from(char));
        } else {
            out.push_str(short);
        }
    }
    out.push_str(&text[done..]);
}

/// Control characters (C0, DEL, C1), the separators that many take for line ends, and marks that change the direction of
/// what follows (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>). All of them have four digits.
fn harmful(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
