//! One value that holds everything: arrays of objects are records, arrays of numbers are columns.

use super::records::{join, push_text};
use crate::json::{Event, Json, JsonError};
use crate::number::parse_number;
use crate::row::Row;
use crate::rows::{Rows, is_log_name, is_loss_name};
use crate::step::{Stepper, is_step_name};

/// Names that hold all records of a document and say nothing more about them.
const WRAPPERS: [&str; 12] = [
    "log_history",
    "history",
    "logs",
    "log",
    "metrics",
    "records",
    "data",
    "entries",
    "rows",
    "results",
    "items",
    "values",
];
/// Numbers of columns that are held at a time, 16 bytes each.
const COLUMN_CELLS_MAX: usize = 3_000_000;
/// Columns of one object.
const COLUMNS_MAX: usize = 20_000;
/// Columns without a name that is known are taken for numbers over steps from this length on.
const COLUMN_LENGTH_MIN: usize = 16;

/// An array of numbers, with holes where an element is none.
type Column = Vec<Option<f64>>;

/// A document, through which the reader goes member by member. Arrays of objects are records;
/// arrays of numbers are columns.
pub(super) struct Document<'a> {
    json: Json<'a>,
    rows: &'a mut Rows,
    only: Option<&'a str>,
    cells_left: usize,
    is_full_said: bool,
}

/// Where in the document the reader is.
#[derive(Default)]
struct Name {
    /// The names of the objects that hold this one, joined by `/`.
    text: String,
    /// Where the names inside of a record start, if this is in one.
    row: Option<usize>,
}

impl Name {
    /// Goes to a member; [`Name::back`] with what this returns goes back.
    fn enter(&mut self, part: &str) -> usize {
        let length = self.text.len();
        if self.row.is_some() || !WRAPPERS.contains(&part) {
            join(&mut self.text, part);
        }
        length
    }

    fn back(&mut self, length: usize) {
        self.text.truncate(length);
    }

    /// The name inside of the record.
    fn in_row(&self) -> &str {
        let name = self.text.get(self.row.unwrap_or(0)..).unwrap_or_default();
        name.strip_prefix('/').unwrap_or(name)
    }
}

impl<'a> Document<'a> {
    /// A document, or of it the one top-level member that is named.
    pub(super) fn new(json: Json<'a>, rows: &'a mut Rows, only: Option<&'a str>) -> Self {
        Self { json, rows, only, cells_left: COLUMN_CELLS_MAX, is_full_said: false }
    }

    pub(super) fn read(mut self) -> Result<(), JsonError> {
        let (mut name, mut row) = (Name::default(), Row::default());
        loop {
            match self.json.next()? {
                Event::End => return Ok(()),
                Event::ObjectStart => {
                    self.object(&mut name, &mut row)?;
                }
                Event::ArrayStart => {
                    let mut column = Column::new();
                    self.array(&mut name, &mut column)?;
                    self.cells_left += column.len();
                }
                _ => {}
            }
            row.clear();
        }
    }

    /// Reads an object whose start was read: its numbers into the row, its columns and records
    /// into the log. Whether it has columns.
    fn object(&mut self, name: &mut Name, row: &mut Row) -> Result<bool, JsonError> {
        let mut columns = Vec::new();
        let length = name.text.len();
        let ended = self.members(name, row, &mut columns);
        // An error leaves the name at the member that is broken.
        name.back(length);
        let has_columns = self.push_columns(name, row, columns, ended.is_err());
        Ok(ended? | has_columns)
    }

    fn members(
        &mut self,
        name: &mut Name,
        row: &mut Row,
        columns: &mut Vec<(String, Column)>,
    ) -> Result<bool, JsonError> {
        let mut has_columns = false;
        while self.json.next()? == Event::Key {
            let is_top = self.json.depth() == 1;
            let key = self.json.text().into_owned();
            let event = self.json.next()?;
            if is_top && self.only.is_some_and(|only| only != key) {
                self.json.skip(event)?;
                continue;
            }
            let length = name.enter(&key);
            match event {
                Event::ObjectStart => has_columns |= self.object(name, row)?,
                Event::ArrayStart => self.member_array(name, key, row, columns)?,
                Event::Number(number) => row.push(name.in_row(), number),
                Event::Text => push_text(row, name.in_row(), &self.json.text()),
                _ => {}
            }
            name.back(length);
        }
        Ok(has_columns)
    }

    fn member_array(
        &mut self,
        name: &mut Name,
        key: String,
        row: &mut Row,
        columns: &mut Vec<(String, Column)>,
    ) -> Result<(), JsonError> {
        let mut column = Column::new();
        let ended = self.array(name, &mut column);
        match column[..] {
            [_, _, ..] if columns.len() < COLUMNS_MAX => {
                columns.push((key, column));
                return ended;
            }
            [Some(number)] => row.push(name.in_row(), number),
            _ => {}
        }
        self.cells_left += column.len();
        ended
    }

    /// Reads an array whose start was read: objects as records, other elements into the column.
    fn array(&mut self, name: &mut Name, column: &mut Column) -> Result<(), JsonError> {
        loop {
            let event = self.json.next()?;
            let cell = match event {
                Event::ArrayEnd => return Ok(()),
                Event::ObjectStart if column.is_empty() => return self.records(name),
                Event::Number(number) => Some(number),
                Event::Text => parse_number(&self.json.text()),
                _ => {
                    self.json.skip(event)?;
                    None
                }
            };
            if self.cells_left > 0 {
                self.cells_left -= 1;
                column.push(cell);
            } else if !std::mem::replace(&mut self.is_full_said, true) {
                let text = format!(
                    "got columns of more than {COLUMN_CELLS_MAX} numbers in one object; the rest \
                     is left out"
                );
                self.rows.notice(self.json.offset(), text);
            }
        }
    }

    /// Reads the rest of an array of objects; the start of the first was read.
    fn records(&mut self, name: &mut Name) -> Result<(), JsonError> {
        let outer = name.row;
        let (depth, length) = (self.json.depth() - 1, name.text.len());
        let (mut row, mut stepper) = (Row::default(), Stepper::default());
        let mut event = Ok(Event::ObjectStart);
        let ended = loop {
            row.clear();
            name.row = Some(length);
            let element = match event {
                Ok(Event::ArrayEnd) => break Ok(()),
                Ok(Event::ObjectStart) => self.object(name, &mut row),
                Ok(event) => self.json.skip(event).map(|()| true),
                Err(error) => Err(error),
            };
            name.back(length);
            match element {
                // Numbers beside columns are settings. In records of records (a list of layers in
                // each step) only those with an own step are records.
                Ok(true) => {}
                Ok(false) if outer.is_some() && !has_step(&row) => {}
                Ok(false) => self.rows.push(&name.text, &row, &mut stepper),
                Err(error) => {
                    if let Err(error) = self.seek_record(error, depth) {
                        break Err(error);
                    }
                }
            }
            event = self.json.next();
        };
        name.row = outer;
        ended
    }

    /// Goes behind a broken record, to the next one.
    fn seek_record(&mut self, error: JsonError, depth: usize) -> Result<(), JsonError> {
        if error.found.is_none() {
            return Err(error);
        }
        self.rows.notice(error.offset, format!("{error}; this record is left out"));
        let is_more = self.json.seek_object(depth);
        self.rows.log.lose(self.json.offset() - error.offset);
        if is_more {
            return Ok(());
        }
        Err(JsonError { offset: self.json.offset(), found: None })
    }

    /// Turns columns of an object that belong together, by their length, into rows. Whether there
    /// were any.
    fn push_columns(
        &mut self,
        name: &Name,
        row: &Row,
        mut columns: Vec<(String, Column)>,
        is_cut: bool,
    ) -> bool {
        self.cells_left += columns.iter().map(|(_, column)| column.len()).sum::<usize>();
        let record = name.row.is_some().then_some(row);
        let mut has_columns = false;
        while let Some(length) = columns.first().map(|(_, column)| column.len()) {
            // The column that the file breaks off in belongs to the others.
            let (group, rest): (Vec<_>, Vec<_>) =
                columns.into_iter().partition(|(_, column)| is_cut || column.len() == length);
            columns = rest;
            if self.are_named(&name.text, &group) || are_over_steps(&group, record) {
                self.push_group(&name.text, &group);
                has_columns = true;
            }
        }
        has_columns
    }

    /// Whether the user gave the name of a column to a role.
    fn are_named(&self, prefix: &str, columns: &[(String, Column)]) -> bool {
        columns.iter().any(|(column, _)| {
            let mut name = prefix.to_owned();
            join(&mut name, column);
            self.rows.log.is_named(&name)
        })
    }

    fn push_group(&mut self, prefix: &str, group: &[(String, Column)]) {
        let (mut row, mut stepper) = (Row::default(), Stepper::default());
        let length = group.iter().map(|(_, column)| column.len()).max().unwrap_or(0);
        // Sacred: `"train.loss": {"steps": [...], "values": [...]}`.
        let has_steps = group.iter().any(|(name, _)| is_step_name(name));
        let is_value = |name: &str| has_steps && matches!(name, "values" | "value");
        let (above, own) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let is_named = !own.is_empty() && group.iter().any(|(name, _)| is_value(name));
        for index in 0..length {
            row.clear();
            for (name, column) in group {
                let name = if is_named && is_value(name) { own } else { name };
                if let Some(&Some(value)) = column.get(index) {
                    row.push(name, value);
                }
            }
            self.rows.push(if is_named { above } else { prefix }, &row, &mut stepper);
        }
    }
}

fn has_step(row: &Row) -> bool {
    row.cells().any(|(name, _)| is_step_name(name))
}

/// Whether columns are numbers over steps, and not a setting (`betas`) or something of one step
/// (the sizes of all blocks).
fn are_over_steps(columns: &[(String, Column)], record: Option<&Row>) -> bool {
    let any = |is_known: fn(&str) -> bool| columns.iter().any(|(name, _)| is_known(name));
    match record {
        Some(row) => any(is_step_name) || (any(is_loss_name) && !has_step(row)),
        None => {
            any(is_log_name) || columns.iter().any(|(_, column)| column.len() >= COLUMN_LENGTH_MIN)
        }
    }
}
