//! An alert's original bytes as people can read them. Knows nothing of where they lie.

use std::io::Write;

use serde::de::IgnoredAny;

use super::output::{Out, count, printable};

/// How much of an original is shown, in bytes.
const SHOWN: usize = 16 << 10;
/// Nested deeper than this, lines are indented no further.
const DEEPEST: usize = 32;

/// Writes an original as it can be read best: JSON indented, text as it is, anything else as a hexdump, and so many bytes of it. `rest`
/// says how to get all of it.
///
/// # Errors
/// The output cannot be written.
pub fn write_original<W: Write>(body: &[u8], rest: &str, out: &mut Out<W>) -> std::io::Result<()> {
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
        writeln!(out, "… cut here; {rest}")?;
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
}
