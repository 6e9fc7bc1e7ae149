//! Where things stand in the configuration's file: turns offsets and keys into findings with lines.

use std::path::{Path, PathBuf};

use super::Finding;

/// A path as people write it (`step.1.fuel`), without what [`Spanned`] puts into it.
pub(super) fn dotted(path: &serde_ignored::Path<'_>) -> String {
    let path = path.to_string();
    let segments: Vec<_> = path.split('.').filter(|segment| *segment != "?" && !segment.starts_with('$')).collect();
    segments.join(".")
}

/// Puts spaces in place of the lines that a span lies in, so that every other line and offset stays what it was.
pub(super) fn blank(text: &mut String, span: &std::ops::Range<usize>) {
    let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[span.end.max(span.start)..].find('\n').map_or(text.len(), |at| at + span.end);
    let spaces: String = text[start..end].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(start..end, &spaces);
}

/// The file while it is read: turns offsets into lines.
pub(super) struct Place<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Place<'_> {
    pub(super) fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// The line of the `[section]` that a line belongs to.
    pub(super) fn header(&self, line: usize) -> Option<usize> {
        let before = self.text.lines().take(line).collect::<Vec<_>>();
        before.iter().rposition(|text| text.trim_start().starts_with('[')).map(|at| at + 1)
    }

    pub(super) fn finding(&self, offset: Option<usize>, message: impl Into<String>) -> Finding {
        Finding { file: self.file.to_owned(), line: offset.map(|offset| self.line(offset)), message: message.into() }
    }

    pub(super) fn toml_error(&self, error: &toml::de::Error) -> Finding {
        self.finding(error.span().map(|span| span.start), error.message().replace('\n', ", "))
    }

    /// The line of a dotted key (`step.0.plugni`).
    pub(super) fn line_of_key(&self, path: &str) -> Option<usize> {
        let root = toml::de::DeTable::parse(self.text).ok()?;
        let mut table = root.get_ref();
        let mut segments = path.split('.').peekable();
        while let Some(segment) = segments.next() {
            let (key, value) = table.get_key_value(segment)?;
            if segments.peek().is_none() {
                return Some(self.line(key.span().start));
            }
            let mut value = value.get_ref();
            while let toml::de::DeValue::Array(array) = value {
                value = array.get(segments.next()?.parse::<usize>().ok()?)?.get_ref();
            }
            table = match value {
                toml::de::DeValue::Table(inner) => inner,
                _ => return None,
            };
        }
        None
    }

    /// A path of the file, relative to the file's folder.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}
