//! Tables with the names in a first line and a row for each epoch or step.

use super::figures;
use super::names::{Class, Name, Names};
use super::scan::{Bar, Marks, Pair, Place};
use crate::number::number_at_start;

/// The columns of a table, as its first line gives them.
#[derive(Debug, Clone)]
pub(super) struct Table {
    cut: Cut,
    columns: Vec<Name>,
}

/// What stands between cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Border,
    Tab,
    /// Two spaces or more.
    Gap,
    Space,
}

/// Columns of a table; more are no table of training.
const COLUMNS_MAX: usize = 64;

/// The table that begins with `line`, if that names an epoch or a step, a loss, and no number.
pub(super) fn header(line: &[u8], names: &mut Names) -> Option<Table> {
    let line = line.trim_ascii();
    let cut = if line.starts_with(b"|") {
        Cut::Border
    } else if line.contains(&b'\t') {
        Cut::Tab
    } else if line.windows(2).any(|pair| pair == b"  ") {
        Cut::Gap
    } else {
        Cut::Space
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b" \t|_-/.@".contains(byte);
    if line.len() > 1000 || !line.iter().all(is_name) {
        return None;
    }
    let mut columns: Vec<Name> =
        cells(line, cut).take(COLUMNS_MAX + 1).map(|cell| names.words(cell)).collect();
    let is_position = |name: &Name| matches!(name.class, Class::Epoch | Class::Step(2..));
    let first = columns.first().is_some_and(is_position);
    // YOLO names its losses by their boxes and classes alone.
    for (cell, column) in cells(line, cut).zip(&mut columns) {
        if first && [&b"box"[..], b"obj", b"cls", b"dfl"].contains(&cell) {
            *column = Name {
                id: names.own(&format!("{}_loss", String::from_utf8_lossy(cell))),
                class: Class::Loss,
                says_subset: None,
            };
        }
    }
    let has_loss = columns.iter().any(|name| name.class == Class::Loss);
    // A sentence has single spaces as well, and other words.
    let known = columns.iter().filter(|name| name.class != Class::Unknown).count();
    let has_loss = has_loss && (cut != Cut::Space || 2 * known > columns.len());
    (first && has_loss && columns.len() <= COLUMNS_MAX).then_some(Table { cut, columns })
}

impl Table {
    /// Whether `line` is a row; then its numbers are put into `marks`, which was emptied.
    pub(super) fn row(&self, line: &[u8], marks: &mut Marks) -> bool {
        // Cells of rows are numbers, which have no spaces in them.
        let cut = if self.cut == Cut::Gap { Cut::Space } else { self.cut };
        let mut cells = cells(line.trim_ascii(), cut);
        let Some(position) = cells.next().and_then(position) else { return false };
        let mut found = 1;
        for (cell, &name) in cells.zip(self.columns.iter().skip(1)) {
            found += 1;
            // YOLO's last cell ends in a colon, before a bar.
            let cell = cell.strip_suffix(b":").unwrap_or(cell);
            let value = match number_at_start(cell) {
                Some((value, length)) if length == cell.len() => value,
                _ if name.class == Class::Loss => return false,
                _ => continue,
            };
            if let Class::Step(rank) = name.class {
                marks.step = figures::integer(value).map(|step| (rank, step));
            } else if name.class.is_value() {
                let pair =
                    Pair { name, value, is_validation: false, is_loose: false, span: (0, 0) };
                marks.pairs.push(pair);
            }
        }
        match self.columns.first().map(|name| name.class) {
            Some(Class::Step(rank)) => marks.step = Some((rank, position)),
            _ => marks.epoch = Some(position),
        }
        if marks.step.is_none() {
            // A row of an epoch may be drawn again and again while the epoch goes on.
            marks.bar = Bar::Keras;
            marks.place = Some(Place { at: 0, of: 0 });
        }
        found == self.columns.len() && !marks.pairs.is_empty()
    }
}

/// `3` or `3/300`.
fn position(cell: &[u8]) -> Option<i64> {
    let digits = cell.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = cell.get(digits..)?;
    let is_whole = rest.is_empty()
        || rest.first() == Some(&b'/') && rest.iter().skip(1).all(u8::is_ascii_digit);
    if !is_whole || digits > 15 {
        return None;
    }
    std::str::from_utf8(cell.get(..digits)?).ok()?.parse().ok()
}

fn cells(line: &[u8], cut: Cut) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = match cut {
                Cut::Border => rest.iter().position(|byte| *byte == b'|'),
                Cut::Tab => rest.iter().position(|byte| *byte == b'\t'),
                Cut::Gap => rest.windows(2).position(|pair| pair == b"  "),
                Cut::Space => rest.iter().position(u8::is_ascii_whitespace),
            };
            let end = end.unwrap_or(rest.len());
            let cell = rest.get(..end).unwrap_or_default().trim_ascii();
            rest = rest.get(end + 1..).unwrap_or_default();
            if !cell.is_empty() {
                return Some(cell);
            }
        }
    })
}
