//! Tables with the names in a first line and a row for each epoch or step.

use super::figures;
use super::names::{Class, Name, Names, Subset, subset_of_word};
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
    let line = body(line).trim_ascii();
    // Kaldi: `%Iter`, `duration`, `train_loss`, `valid_loss`.
    let line = line.strip_prefix(b"%").unwrap_or(line);
    let cut = if line.starts_with(b"|") {
        Cut::Border
    } else if line.contains(&b'\t') {
        Cut::Tab
    } else if line.windows(2).any(|pair| pair == b"  ") {
        Cut::Gap
    } else {
        Cut::Space
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b" \t|_-/.@#".contains(byte);
    if line.len() > 1000 || !line.iter().all(is_name) {
        return None;
    }
    let mut texts: Vec<&[u8]> = cells(line, cut).take(COLUMNS_MAX + 1).collect();
    if cut == Cut::Space {
        join_losses(line, &mut texts);
    }
    // spaCy: `E    #       LOSS TOK2VEC  LOSS NER  ENTS_F`
    if texts.contains(&&b"#"[..]) {
        let known = [(&b"E"[..], &b"epoch"[..]), (b"#", b"step")];
        for cell in &mut texts {
            *cell = known.iter().find(|(short, _)| short == cell).map_or(*cell, |(_, long)| long);
        }
    }
    let mut columns: Vec<Name> = texts.iter().map(|cell| names.words(cell)).collect();
    let is_position = |name: &Name| matches!(name.class, Class::Epoch | Class::Step(2..));
    let first = columns.first().is_some_and(is_position);
    // YOLO names its losses by their boxes and classes alone.
    for (cell, column) in texts.iter().copied().zip(&mut columns) {
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

/// A line without what a logger printed before the first cell of a table of tabs, as in
/// `10:15:01 INFO history : 3`.
pub(super) fn body(line: &[u8]) -> &[u8] {
    let Some(tab) = memchr::memchr(b'\t', line) else { return line };
    let first = line.get(..tab).unwrap_or_default();
    let begin = memchr::memmem::rfind(first, b": ").map_or(0, |at| at + 2);
    line.get(begin..).unwrap_or_default()
}

/// Joins `train` and `loss`, which a single space parts as it does the columns.
fn join_losses<'a>(line: &'a [u8], cells: &mut Vec<&'a [u8]>) {
    let mut at = 0;
    while at + 1 < cells.len() {
        if cells[at + 1].eq_ignore_ascii_case(b"loss") && subset_of_word(cells[at]).is_some() {
            let offset = |cell: &[u8]| cell.as_ptr() as usize - line.as_ptr() as usize;
            let (begin, end) = (offset(cells[at]), offset(cells[at + 1]) + cells[at + 1].len());
            cells[at] = line.get(begin..end).unwrap_or_default();
            cells.remove(at + 1);
        }
        at += 1;
    }
}

/// Longest line that may be a row without a header.
const HEADLESS_BYTES_MAX: usize = 400;

/// Whether a line may be a row of a table that never had a header: a quick look.
pub(super) fn is_headless(line: &[u8]) -> bool {
    line.len() <= HEADLESS_BYTES_MAX && {
        let mut cells = cells(line, Cut::Space);
        cells.next().and_then(position).is_some()
            && cells.next().is_some_and(|second| {
                subset_of_word(second).is_some() || second.ends_with(b"G") && is_number(second)
            })
    }
}

fn is_number(cell: &[u8]) -> bool {
    number_at_start(cell).is_some_and(|(_, length)| length + 1 >= cell.len())
}

/// Rows of tables without a header, whose columns are known all the same. Whether `line` is one.
///
/// `26 train 4.5` gives a step, the data and the loss. `0/29  4.7G  0.12  0.034 ...` is that of YOLOv5
/// and v7: epoch, memory, three losses, in v7 their sum, and the number of labels.
pub(super) fn headless(line: &[u8], names: &mut Names, marks: &mut Marks) -> bool {
    let cells: Vec<&[u8]> = cells(line, Cut::Space).collect();
    let value = |cell: &&[u8]| {
        number_at_start(cell).filter(|(_, length)| *length == cell.len()).map(|(value, _)| value)
    };
    match cells[..] {
        [step, subset, ref loss] => {
            let (Some(step), Some(subset), Some(loss)) =
                (position(step), subset_of_word(subset), value(loss))
            else {
                return false;
            };
            marks.step = Some((4, step));
            marks.subset = Some(subset);
            let name = named(names, "loss");
            let is_validation = subset == Subset::Validation;
            marks.pairs.push(Pair {
                name,
                value: loss,
                is_validation,
                is_loose: false,
                span: (0, 0),
            });
            true
        }
        [epoch, memory, ref rest @ ..] if memory.ends_with(b"G") && rest.len() >= 5 => {
            let values: Vec<f64> = rest.iter().map_while(value).collect();
            let labels =
                values.iter().skip(3).position(|value| value.fract() == 0.0 && *value >= 1.0);
            let (Some(epoch), Some(sums @ 0..=1)) = (position(epoch), labels) else { return false };
            marks.epoch = Some(epoch);
            marks.bar = Bar::Keras;
            marks.place = Some(Place { at: 0, of: 0 });
            for (name, &value) in YOLO_LOSSES.iter().zip(&values).take(3 + sums) {
                let name = named(names, name);
                marks.pairs.push(Pair {
                    name,
                    value,
                    is_validation: false,
                    is_loose: false,
                    span: (0, 0),
                });
            }
            true
        }
        _ => false,
    }
}

/// The losses of YOLO's rows, in their order.
const YOLO_LOSSES: [&str; 4] = ["box_loss", "obj_loss", "cls_loss", "total_loss"];

fn named(names: &mut Names, text: &str) -> Name {
    Name { id: names.own(text), class: Class::Loss, says_subset: None }
}

impl Table {
    /// Whether `line` is a row; then its numbers are put into `marks`, which was emptied.
    pub(super) fn row(&self, line: &[u8], marks: &mut Marks) -> bool {
        // Cells of rows are numbers, which have no spaces in them.
        let cut = if self.cut == Cut::Gap { Cut::Space } else { self.cut };
        let mut cells = cells(body(line).trim_ascii(), cut);
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
