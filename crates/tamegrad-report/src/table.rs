//! Columns of text, one of which takes the width that the others leave and wraps its cells.

use crate::text::{pad, visible_width, wrap};

/// Narrowest column that cells are wrapped in.
const FLEXIBLE_MIN: usize = 20;

/// The lines of a table. `flexible` is the column that wraps; a colour in its cells is one word.
/// Rows shorter than the longest end early.
pub(crate) fn columns(rows: &[Vec<String>], flexible: usize, width: usize) -> Vec<String> {
    aligned(rows, flexible, width).concat()
}

/// As [`columns`], with the lines of each row apart.
pub(crate) fn aligned(rows: &[Vec<String>], flexible: usize, width: usize) -> Vec<Vec<String>> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..count)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|c| visible_width(c)).max())
        .map(|widest| widest.unwrap_or(0))
        .collect();
    let gaps = 2 * count.saturating_sub(1);
    if let Some(wanted) = widths.get(flexible).copied() {
        let others = widths.iter().sum::<usize>() - wanted;
        widths[flexible] = wanted.min(width.saturating_sub(others + gaps).max(FLEXIBLE_MIN));
    }
    rows.iter().map(|row| row_lines(row, flexible, &widths)).collect()
}

fn row_lines(row: &[String], flexible: usize, widths: &[usize]) -> Vec<String> {
    let wrapped = row.get(flexible).map(|cell| {
        let indent = &cell[..cell.len() - cell.trim_start().len()];
        wrap(cell, indent, widths[flexible])
    });
    let wrapped = wrapped.unwrap_or_default();
    let height = wrapped.len().max(1);
    (0..height).map(|line| row_line(row, flexible, widths, &wrapped, line)).collect()
}

fn row_line(
    row: &[String],
    flexible: usize,
    widths: &[usize],
    wrapped: &[String],
    line: usize,
) -> String {
    let cells = row.iter().enumerate().map(|(column, cell)| {
        let text = match (column == flexible, line) {
            (true, _) => wrapped.get(line).map_or("", String::as_str),
            (false, 0) => cell.as_str(),
            (false, _) => "",
        };
        pad(text, widths[column])
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_one_wraps() {
        let rows = [
            vec!["a".to_owned(), "words that take more than a line".to_owned(), "1".to_owned()],
            vec!["\x1b[1mbbb\x1b[0m".to_owned(), "short".to_owned(), "23".to_owned()],
            vec!["c".to_owned()],
        ];
        assert_eq!(
            columns(&rows, 1, 32),
            [
                "a    words that take more     1",
                "     than a line",
                "\x1b[1mbbb\x1b[0m  short                    23",
                "c",
            ]
        );
    }

    #[test]
    fn the_column_that_wraps_has_a_least_width() {
        let row = vec!["name".to_owned(), "twenty characters or".to_owned()];
        assert_eq!(columns(&[row], 1, 10), ["name  twenty characters or"]);
    }

    #[test]
    fn a_table_without_rows_has_no_lines() {
        assert_eq!(columns(&[], 0, 80), Vec::<String>::new());
    }
}
