//! A page for a person: headings, paragraphs and lists that keep to the width of the terminal. What is written elsewhere than on a
//! terminal is neither wrapped nor cut nor coloured. Whatever comes in is made safe here, so that nobody can forget it.

use std::io::{self, Write};

use console::{Style, measure_text_width};
use serde_json::Value;

use super::output::{Out, printable};

/// The widest that a page becomes: longer lines are hard to read.
const WIDEST: usize = 110;
/// The narrowest: below it lines are wrapped by the terminal.
const NARROWEST: usize = 8;
/// How much room a text must have beside what stands before it; where there is less it goes below.
const BESIDE: usize = 8;

/// A page that is being written.
pub struct Sheet<'a, W: Write> {
    out: &'a mut Out<W>,
    width: Option<usize>,
}

/// A text with how it looks.
pub struct Styled(pub String, pub Style);

impl From<&str> for Styled {
    fn from(text: &str) -> Self {
        Self(text.to_owned(), Style::new())
    }
}

impl From<String> for Styled {
    fn from(text: String) -> Self {
        Self(text, Style::new())
    }
}

impl<'a, W: Write> Sheet<'a, W> {
    /// As wide as the terminal, if the standard output is one.
    pub fn new(out: &'a mut Out<W>) -> Self {
        let terminal = console::Term::stdout();
        let width = terminal.is_term().then(|| usize::from(terminal.size().1));
        Self::of_width(out, width)
    }

    /// So many columns wide; none wraps nothing.
    pub fn of_width(out: &'a mut Out<W>, width: Option<usize>) -> Self {
        Self { out, width: width.map(|width| width.clamp(NARROWEST, WIDEST)) }
    }

    /// What it is written to.
    pub fn out(&mut self) -> &mut Out<W> {
        self.out
    }

    /// How many columns are left behind so many; many where nothing is wrapped.
    pub fn room(&self, indent: usize) -> usize {
        self.width.map_or(WIDEST, |width| width.saturating_sub(indent)).max(1)
    }

    /// An empty line.
    pub fn gap(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// A heading, with an empty line before it.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        self.gap()?;
        self.paragraph("", Styled(text.to_owned(), Style::new().bold()))
    }

    /// A paragraph: `first` stands before its first line, and as many spaces before the others.
    pub fn paragraph(&mut self, first: &str, text: impl Into<Styled>) -> io::Result<()> {
        let Styled(text, style) = text.into();
        let text = printable(&text);
        let (mut first, mut indent) = (first, measure_text_width(first));
        if let Some(width) = self.width.filter(|width| indent + BESIDE > *width) {
            let head = first.trim_end();
            let lines = if measure_text_width(head) <= width { vec![head.to_owned()] } else { wrap(head, width) };
            for line in lines.iter().filter(|line| !line.is_empty()) {
                writeln!(self.out, "{line}")?;
            }
            (first, indent) = if width < BESIDE + 2 { ("", 0) } else { ("  ", 2) };
        }
        let lines = match self.width {
            Some(width) => wrap(&text, width.saturating_sub(indent).max(2)),
            None => vec![text],
        };
        for (number, line) in lines.iter().enumerate() {
            let before = if number == 0 { first.to_owned() } else { " ".repeat(indent) };
            writeln!(self.out, "{before}{}", style.apply_to(line))?;
        }
        Ok(())
    }

    /// A name with what belongs to it: `  name   text…`, the names as wide as the widest of them.
    pub fn entry(&mut self, indent: usize, widest: usize, name: &str, text: impl Into<Styled>) -> io::Result<()> {
        let name = console::pad_str(&printable(name), widest, console::Alignment::Left, None).into_owned();
        self.paragraph(&format!("{:indent$}{name}  ", ""), text)
    }

    /// Rows of a table: each column as wide as its widest cell, the last one wrapped.
    pub fn table<const N: usize>(&mut self, indent: usize, rows: &[[String; N]]) -> io::Result<()> {
        let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
        let widest = |column: usize| rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or_default();
        let widths: Vec<usize> = (0..N).map(widest).collect();
        for row in &rows {
            let mut first = " ".repeat(indent);
            for (cell, width) in row.iter().zip(&widths).take(N - 1) {
                first.push_str(&console::pad_str(cell, *width, console::Alignment::Left, None));
                first.push_str("  ");
            }
            self.paragraph(&first, row[N - 1].as_str())?;
        }
        Ok(())
    }

    /// JSON as it is read best: what fits into a line stands in one, everything else is taken apart. No more than so many lines; gives how
    /// many are missing.
    pub fn json(&mut self, indent: usize, value: &Value, most: usize) -> io::Result<usize> {
        let mut lines = Vec::new();
        spread(value, 0, self.room(indent), &mut lines);
        let missing = lines.len().saturating_sub(most);
        lines.truncate(most);
        for (depth, line) in lines {
            self.paragraph(&" ".repeat(indent + 2 * depth), line)?;
        }
        Ok(missing)
    }
}

/// Lines of no more than so many columns, broken between words where that can be.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut length = measure_text_width(word);
        if used > 0 && used + 1 + length <= width {
            if let Some(line) = lines.last_mut() {
                line.push(' ');
                line.push_str(word);
            }
            used += 1 + length;
            continue;
        }
        if used > 0 {
            lines.push(String::new());
            used = 0;
        }
        // A word that is longer than a line is broken where the line ends.
        for char in word.chars() {
            let mut buffer = [0; 4];
            length = measure_text_width(char.encode_utf8(&mut buffer));
            if used + length > width {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push(char);
            }
            used += length;
        }
    }
    lines
}

/// A value on one line, without quotes where nothing is lost by that.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}: {}", inline(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

/// A value as lines, each with its depth.
fn spread(value: &Value, depth: usize, width: usize, lines: &mut Vec<(usize, String)>) {
    let room = width.saturating_sub(2 * depth);
    let holds_some = |value: &Value| match value {
        Value::Array(values) => !values.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => false,
    };
    // A level that is not shown any more stands in a line of its own, which is wrapped.
    let fits = |text: &str| measure_text_width(text) <= room || depth > 8;
    match value {
        Value::Object(members) if depth == 0 || !fits(&inline(value)) => {
            for (name, value) in members {
                let line = format!("{name}: {}", inline(value));
                if !holds_some(value) || fits(&line) {
                    lines.push((depth, line));
                } else {
                    lines.push((depth, format!("{name}:")));
                    spread(value, depth + 1, width, lines);
                }
            }
        }
        Value::Array(values) if !fits(&inline(value)) => {
            for value in values {
                let before = lines.len();
                spread(value, depth + 1, width, lines);
                if let Some((depth, line)) = lines.get_mut(before) {
                    *depth = depth.saturating_sub(1);
                    line.insert_str(0, "- ");
                }
            }
        }
        value => lines.push((depth, inline(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(width: Option<usize>, write: impl FnOnce(&mut Sheet<'_, &mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        write(&mut Sheet::of_width(&mut out, width));
        out.finish().unwrap();
        drop(out);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_line_is_longer_than_the_page_is_wide_and_nothing_gets_lost() {
        let text =
            "one two three-hundred-and-sixty-five-characters-without-a-space 漢字漢字漢字漢字漢字漢字漢字漢字 end";
        for width in [8, 12, 16, 20, 24, 30, 80] {
            let page = written(Some(width), |sheet| {
                sheet.heading("Observables").unwrap();
                sheet.entry(2, 10, "deliveries", text).unwrap();
                sheet.table(2, &[["ip", "destination", "162.142.125.10"].map(str::to_owned)]).unwrap();
                sheet
                    .json(
                        4,
                        &json!({"addresses": [{"address": "162.142.125.10", "deeper": {"and": ["deeper", 1]}}]}),
                        9,
                    )
                    .unwrap();
            });
            assert!(page.lines().all(|line| measure_text_width(line) <= width), "{page}");
            for word in ["Observables", "deliveries", "destination", "162.142.125.10"] {
                let whole = page.replace([' ', '\n'], "");
                assert!(whole.contains(word), "{word}: {page}");
            }
            let page = written(Some(width), |sheet| sheet.paragraph("  - ", text).unwrap());
            assert!(page.lines().all(|line| measure_text_width(line) <= width), "{page}");
            let plain = |text: &str| text.chars().filter(|char| !" -\n".contains(*char)).collect::<String>();
            assert_eq!(plain(&page), plain(text));
        }
        assert_eq!(written(None, |sheet| sheet.paragraph("  ", text).unwrap()), format!("  {text}\n"));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_wherever_it_comes_in() {
        let bad = "\u{1b}[2J\n\u{202e}x";
        let page = written(Some(80), |sheet| {
            sheet.heading(bad).unwrap();
            sheet.paragraph("", bad).unwrap();
            sheet.entry(2, 10, bad, bad).unwrap();
            sheet.table(2, &[[bad.to_owned(), bad.to_owned()]]).unwrap();
            sheet.json(2, &json!({bad: [bad, {bad: bad}]}), 100).unwrap();
        });
        assert!(page.chars().all(|char| char == '\n' || !char.is_control() && char != '\u{202e}'), "{page}");
        assert!(page.matches("\\u{1b}[2J\\n\\u{202e}x").count() >= 6, "{page}");
    }

    #[test]
    fn json_is_taken_apart_only_where_it_does_not_fit() {
        let value = json!({"score": 48, "categories": ["blocklist"], "empty": [],
            "addresses": [{"address": "162.142.125.10", "roles": ["source"]}, {"address": "10.20.1.10", "scope": "private"}]});
        let page = written(Some(60), |sheet| assert_eq!(sheet.json(4, &value, 100).unwrap(), 0));
        assert_eq!(
            page,
            "    addresses:\n      - {address: 162.142.125.10, roles: [source]}\n      \
             - {address: 10.20.1.10, scope: private}\n    categories: [blocklist]\n    empty: []\n    score: 48\n"
        );
        let page = written(Some(34), |sheet| assert_eq!(sheet.json(4, &value, 3).unwrap(), 5));
        assert_eq!(page, "    addresses:\n      - address: 162.142.125.10\n        roles: [source]\n");
    }
}
