//! Rows in one buffer, as JSON values; a look-up makes an object of them.

use std::borrow::Cow;

/// The largest integer that every reader of JSON keeps exactly (RFC 7493, section 2.2).
const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// The rows of a table. A row is known by where it starts.
#[derive(Debug)]
pub(super) struct Rows {
    /// One value a line: JSON text holds no line break, so a line break ends a value, and neither offsets nor the columns'
    /// names are kept for each row.
    text: String,
    /// `"name":` for each column; none where a row is an object already.
    columns: Option<Vec<String>>,
    count: usize,
}

impl Rows {
    /// Rows of cells with these columns.
    pub(super) fn of_cells<'a>(columns: impl Iterator<Item = &'a str>) -> Self {
        let columns = columns.map(|column| format!("{}:", serde_json::Value::from(column))).collect();
        Self { text: String::new(), columns: Some(columns), count: 0 }
    }

    /// Rows that are JSON objects.
    pub(super) fn of_objects() -> Self {
        Self { text: String::new(), columns: None, count: 0 }
    }

    /// Adds a row of cells, as many as there are columns, and says where it starts.
    pub(super) fn push_cells<'a>(&mut self, cells: impl Iterator<Item = &'a str>) -> u32 {
        let start = self.begin();
        for cell in cells {
            if is_number(cell) {
                self.text.push_str(cell);
            } else {
                self.text.push_str(&serde_json::Value::from(cell).to_string());
            }
            self.text.push('\n');
        }
        start
    }

    /// Adds a JSON object that is one line, and says where it starts.
    pub(super) fn push_object(&mut self, object: &str) -> u32 {
        let start = self.begin();
        self.text.push_str(object);
        self.text.push('\n');
        start
    }

    fn begin(&mut self) -> u32 {
        self.count += 1;
        self.text.len() as u32
    }

    /// The row that starts here as a JSON object.
    pub(super) fn object(&self, start: u32) -> Cow<'_, str> {
        let mut values = self.text[start as usize..].split('\n');
        let Some(columns) = &self.columns else { return Cow::Borrowed(values.next().unwrap_or("{}")) };
        let mut object = String::with_capacity(32 * columns.len());
        for (column, value) in columns.iter().zip(values) {
            object.push(if object.is_empty() { '{' } else { ',' });
            object.push_str(column);
            object.push_str(value);
        }
        object.push('}');
        Cow::Owned(object)
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.text.capacity()
    }

    /// Gives back what was allocated in advance.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
    }
}

/// Whether a cell is a JSON number that every reader takes for the same number and would write in the same way.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) || cell.len() > 24 {
        return false;
    }
    if digits.contains('.') {
        cell.parse::<f64>().is_ok_and(|number| number.to_string() == cell)
    } else {
        cell.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= LARGEST_EXACT && number.to_string() == cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_nobody_reads_or_writes_otherwise_are_numbers() {
        for number in ["0", "7", "-7", "1.5", "-0.5", "0.25", "9007199254740991"] {
            assert!(is_number(number), "{number}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(number).unwrap().to_string(), number);
        }
        for text in [
            "",
            "-",
            "007",
            "-0",
            "-0.0",
            "1.10",
            "1.",
            ".5",
            "1e5",
            "+1",
            "9007199254740992",
            "18446744073709551615",
            "NaN",
            "inf",
            "0x1f",
            "1_000",
            "10.0.0.1",
            "1 2",
            "0.1000000000000000055",
        ] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn whatever_a_cell_holds_comes_back_as_it_was() {
        let cells = ["10.0.0.1", "a \"quoted\"\nline", "", "\u{1F980}\u{0}", "12"];
        let mut rows = Rows::of_cells(["ip", "te\"xt", "empty", "odd", "n"].into_iter());
        let first = rows.push_cells(cells.into_iter());
        let second = rows.push_cells(["b"; 5].into_iter());
        let object: serde_json::Value = serde_json::from_str(&rows.object(first)).unwrap();
        assert_eq!(
            object,
            serde_json::json!({"ip": cells[0], "te\"xt": cells[1], "empty": "", "odd": cells[3], "n": 12})
        );
        assert_eq!(rows.object(second), r#"{"ip":"b","te\"xt":"b","empty":"b","odd":"b","n":"b"}"#);
        assert_eq!(rows.len(), 2);
    }
}
