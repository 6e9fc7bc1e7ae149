//! Tables that fit where they are shown, and numbers that are short enough for them.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::cli::output::grouped;

/// What is between two columns.
const GAP: &str = "  ";

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    side: Side,
    /// To how much it may be cut; 0 when it is not to be cut.
    least: usize,
    /// When it is left out: the highest first, and 0 never.
    dispensable: u8,
}

impl Column {
    /// A column with this name.
    pub const fn new(name: &'static str, side: Side, least: usize, dispensable: u8) -> Self {
        Self { name, side, least, dispensable }
    }
}

/// A table with its header, in lines of at most this many columns. What does not fit is left out column by column, then cut.
pub fn table(columns: &[Column], rows: Vec<Vec<Span<'static>>>, width: usize) -> Vec<Line<'static>> {
    let head = Style::new().add_modifier(Modifier::BOLD);
    let header = columns.iter().map(|column| Span::styled(column.name, head)).collect();
    let rows: Vec<Vec<Span<'static>>> = std::iter::once(header).chain(rows).collect();
    let wide = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(measure).max().unwrap_or_default();
    let mut widths: Vec<_> = (0..columns.len()).map(wide).collect();
    let mut shown: Vec<_> = (0..columns.len()).collect();
    let whole = |shown: &[usize], widths: &[usize]| {
        shown.iter().map(|&at| widths[at]).sum::<usize>() + GAP.len() * shown.len().saturating_sub(1)
    };
    // What can be cut counts for what is left of it: a column that is gone says less than one that is cut.
    let least = |at: usize, widths: &[usize]| match columns[at].least {
        0 => widths[at],
        least => least.min(widths[at]),
    };
    loop {
        let cut: Vec<_> = (0..columns.len()).map(|at| least(at, &widths)).collect();
        if whole(&shown, &cut) <= width {
            break;
        }
        let last = shown.iter().copied().filter(|&at| columns[at].dispensable > 0);
        let Some(last) = last.max_by_key(|&at| columns[at].dispensable) else { break };
        shown.retain(|&at| at != last);
    }
    // The widest gives first.
    while whole(&shown, &widths) > width {
        let too_wide = shown.iter().copied().filter(|&at| columns[at].least > 0 && widths[at] > columns[at].least);
        let Some(at) = too_wide.max_by_key(|&at| widths[at]) else { break };
        widths[at] -= 1;
    }
    rows.into_iter().map(|row| line(columns, &shown, &widths, &row, width)).collect()
}

fn measure(span: &Span<'_>) -> usize {
    console::measure_text_width(&span.content)
}

fn line(columns: &[Column], shown: &[usize], widths: &[usize], row: &[Span<'static>], width: usize) -> Line<'static> {
    let (mut line, mut left) = (Line::default(), width);
    for (place, &at) in shown.iter().enumerate() {
        let Some(cell) = row.get(at) else { continue };
        let last = place + 1 == shown.len();
        let side = match columns[at].side {
            Side::Left => console::Alignment::Left,
            Side::Right => console::Alignment::Right,
        };
        // Nothing follows the last one that it would have to reach to.
        let to = if last && columns[at].side == Side::Left { measure(cell).min(widths[at]) } else { widths[at] };
        let text = console::pad_str(&cell.content, to.min(left), side, Some("…")).into_owned();
        left = left.saturating_sub(to + GAP.len());
        line.push_span(Span::styled(text, cell.style));
        if !last && left > 0 {
            line.push_span(Span::raw(GAP));
        }
    }
    line
}

/// So many in a second: `0`, `0.3`, `12`, `1,234`.
pub fn rate(rate: f64) -> String {
    match rate {
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and as large as counters are"
        )]
        rate => grouped(rate.round() as u64),
    }
}

/// Seconds in three digits and a unit: `740ns`, `12µs`, `3.4ms`, `1.2s`.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// A large number in few letters: `740`, `1.2k`, `34M`.
pub fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v < 1e3 => return format!("{v:.0}"),
        v if v < 1e6 => (v / 1e3, "k"),
        v if v < 1e9 => (v / 1e6, "M"),
        v => (v / 1e9, "G"),
    };
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_up_columns_and_then_letters() {
        let columns = [
            Column::new("NAME", Side::Left, 4, 0),
            Column::new("N", Side::Right, 0, 1),
            Column::new("MORE", Side::Left, 0, 2),
        ];
        let rows = || {
            vec![["a-long-name", "12", "x"].map(Span::raw).to_vec(), ["漢字漢字", "7", "yy"].map(Span::raw).to_vec()]
        };
        let shown = |width| table(&columns, rows(), width).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(80), ["NAME          N  MORE", "a-long-name  12  x", "漢字漢字      7  yy"]);
        assert_eq!(shown(16), ["NAME          N", "a-long-name  12", "漢字漢字      7"], "a column");
        assert_eq!(shown(9), ["NAME    N", "a-lo…  12", "漢字…   7"], "and letters");
        for width in 1..30 {
            assert!(
                shown(width).iter().all(|line| console::measure_text_width(line) <= width),
                "{width}: {:?}",
                shown(width)
            );
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, -1.0, 0.31, 9.97, 12.4, 1234.5].map(rate), ["0", "0", "0.3", "10", "12", "1,235"]);
        assert_eq!(
            [7.4e-7, 1.2e-5, 0.0034, 0.25, 1.23, 75.0].map(time),
            ["740ns", "12µs", "3.4ms", "250ms", "1.2s", "75s"]
        );
        assert_eq!([740.0, 1234.0, 34e6, 2e9].map(short), ["740", "1.2k", "34M", "2.0G"]);
    }
}
