//! Objects one after the other, each of which is a record.

use crate::json::{Event, Json, JsonError};
use crate::number::parse_number;
use crate::row::Row;
use crate::rows::Rows;
use crate::step::Stepper;

/// What is kept from record to record.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    row: Row,
    name: String,
    stepper: Stepper,
}

/// Reads objects one after the other, each of which is a record.
pub(super) fn read_records(
    mut json: Json<'_>,
    rows: &mut Rows,
    records: &mut Records,
) -> Result<(), JsonError> {
    let Records { row, name, stepper } = records;
    loop {
        row.clear();
        name.clear();
        let start = json.offset();
        let record = match json.next() {
            Ok(Event::End) => return Ok(()),
            Ok(Event::ObjectStart) => read_record(&mut json, row, name),
            Ok(event) => {
                rows.notice(json.offset(), "got a value that is not an object, want a record");
                json.skip(event)
            }
            Err(error) => Err(error),
        };
        match record {
            Ok(()) => rows.push("", row, stepper),
            Err(error @ JsonError { found: Some(_), .. }) => {
                rows.notice(error.offset, format!("{error}; this record is left out"));
                json.seek_line();
                rows.log.lose(json.offset() - start);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Puts the numbers of an object, whose start was read, into a row; those of objects in it under
/// names joined by `/`.
pub(super) fn read_record(
    json: &mut Json<'_>,
    row: &mut Row,
    name: &mut String,
) -> Result<(), JsonError> {
    let length = name.len();
    while json.next()? == Event::Key {
        join(name, &json.text());
        match json.next()? {
            Event::ObjectStart => read_record(json, row, name)?,
            Event::ArrayStart => {
                if let Some(number) = read_single(json)? {
                    row.push(name, number);
                }
            }
            Event::Number(number) => row.push(name, number),
            Event::Text => push_text(row, name, &json.text()),
            _ => {}
        }
        name.truncate(length);
    }
    Ok(())
}

/// The number of an array, whose start was read, that has one element.
fn read_single(json: &mut Json<'_>) -> Result<Option<f64>, JsonError> {
    let first = json.next()?;
    let mut event = first;
    let mut count = 0u64;
    while event != Event::ArrayEnd {
        json.skip(event)?;
        count += 1;
        event = json.next()?;
    }
    Ok(match first {
        Event::Number(number) if count == 1 => Some(number),
        _ => None,
    })
}

/// Adds a text that is a number, or that says what the record is of.
pub(super) fn push_text(row: &mut Row, name: &str, text: &str) {
    match parse_number(text) {
        Some(number) => row.push(name, number),
        None => row.push_text(name, text),
    }
}

pub(super) fn join(name: &mut String, part: &str) {
    if !name.is_empty() {
        name.push('/');
    }
    name.push_str(part);
}
