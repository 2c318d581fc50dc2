//! A user's own table: a comma-separated file with a header row and a target column.
//!
//! The format is RFC 4180; a byte-order mark, either line ending, blank lines and spaces around a
//! cell (but not between a comma and a quote) are accepted. A number that is missing, not finite or too
//! large for `f32` would make every gradient NaN or Inf, so it is refused with its line and column.

use std::collections::BTreeSet;
use std::path::Path;

use ::csv::{ErrorKind, Position, ReaderBuilder, StringRecord, Trim};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::split::split;
use super::{DataError, Dataset, Table, Targets, parameter};
use crate::file;
use crate::recipe::{Task, memory};

/// Reads the file and holds out `test_fraction` of its rows, drawn by `seed`. Inputs
/// `[columns - 1]` in the order of the header, without the target. Class names become numbers in
/// the order of the numbers that they spell, or else in alphabetical order.
pub(super) fn load(
    path: &Path,
    target: &str,
    task: Task,
    test_fraction: f64,
    seed: u64,
) -> Result<Dataset, DataError> {
    parameter::test_fraction(test_fraction)?;
    // As text, as numbers, and as the numbers of both parts, it is there five times.
    let most = memory::free_bytes().map_or(u64::MAX, |free| free / 5);
    let bytes = file::read(path, most).map_err(|error| DataError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
        hint: "check `path` in the recipe; it is relative to the recipe's folder",
    })?;
    let table = File::new(path, &bytes).read(target, task)?;
    Ok(split(&table, test_fraction, &mut ChaCha8Rng::seed_from_u64(seed)))
}

/// Up to so many classes may have a row each.
const CLASSES_FEW: usize = 1000;
/// Characters of a cell and names of columns that an error shows.
const SHOWN: usize = 40;

/// A cell or a name as an error shows it: on one line, and not for ever.
fn shown(text: &str) -> String {
    let (mut rest, mut out) = (text.chars(), String::new());
    rest.by_ref().take(SHOWN).for_each(|c| match c {
        _ if c.is_control() => out.extend(c.escape_default()),
        _ => out.push(c),
    });
    if rest.next().is_some() { out + "..." } else { out }
}

/// The bytes of a file, with its path for errors.
struct File<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl<'a> File<'a> {
    /// Leaves out blank lines at the end. The reader itself leaves out a byte-order mark.
    fn new(path: &'a Path, bytes: &'a [u8]) -> File<'a> {
        File { path, bytes: bytes.trim_ascii_end() }
    }

    fn read(&self, target: &str, task: Task) -> Result<Table, DataError> {
        if let Some(at) = self.bytes.iter().position(|byte| *byte == 0) {
            let hint = "save the file as text in UTF-8";
            return Err(self.layout(self.line_at(at), "a NUL byte", "text", hint));
        }
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(self.bytes);
        let header = reader.headers().map_err(|error| self.malformed(&error))?.clone();
        let target = self.target_column(&header, target)?;

        let mut rows = Rows { inputs: Vec::new(), targets: Vec::new(), names: Vec::new() };
        for record in reader.records() {
            let record = record.map_err(|error| self.malformed(&error))?;
            for (index, (cell, name)) in record.iter().zip(&header).enumerate() {
                if index != target {
                    rows.inputs.push(self.number(cell, name, &record)?);
                } else if task == Task::Regression {
                    rows.targets.push(self.number(cell, name, &record)?);
                } else {
                    rows.names.push(self.class_name(cell, name, &record)?);
                }
            }
        }
        self.table(rows, header.len() - 1, task)
    }

    fn table(&self, rows: Rows, width: usize, task: Task) -> Result<Table, DataError> {
        let count = rows.inputs.len() / width;
        if count < 2 {
            let hint = "one row is needed to train on and one to test on";
            return Err(self.layout(1, &format!("{count} rows"), "at least 2", hint));
        }
        if rows.inputs.len() > parameter::MAX_NUMBERS {
            let got = format!("{count} rows of {width} inputs");
            let want = format!("at most {} numbers together", parameter::MAX_NUMBERS);
            return Err(self.layout(1, &got, &want, "train on a part of the rows"));
        }
        let targets = match task {
            Task::Regression => Targets::Values { values: rows.targets, width: 1 },
            Task::Classification => self.classes(&rows.names)?,
        };
        Ok(Table { inputs: rows.inputs, input_shape: vec![width], targets })
    }

    fn target_column(&self, header: &StringRecord, target: &str) -> Result<usize, DataError> {
        let mut found = header.iter().enumerate().filter(|(_, name)| *name == target.trim());
        let Some((index, _)) = found.next() else { return Err(self.no_target(header, target)) };
        if found.next().is_some() {
            let got = format!("column `{target}` more than once");
            let hint = "rename or remove the other one: it would give the answer away";
            return Err(self.layout(1, &got, "one target column", hint));
        }
        if header.len() < 2 {
            let got = format!("only the target column `{target}`");
            let hint = "every column but the target is an input; columns are separated by commas";
            return Err(self.layout(1, &got, "at least one more column", hint));
        }
        Ok(index)
    }

    fn no_target(&self, header: &StringRecord, target: &str) -> DataError {
        if header.iter().all(str::is_empty) {
            let hint = "the first line names the columns";
            return self.layout(1, "an empty file", "a header row", hint);
        }
        let one_column = header.len() == 1;
        DataError::NoTargetColumn {
            path: self.path.to_owned(),
            got: shown(target),
            columns: {
                let names = header.iter().take(SHOWN).map(|name| format!("`{}`", shown(name)));
                names.chain((header.len() > SHOWN).then(|| "...".to_owned())).collect()
            },
            hint: if one_column {
                "columns are separated by commas, not by semicolons or tabs"
            } else {
                "set `target` to one of them; the first line must name the columns"
            },
        }
    }

    fn number(&self, cell: &str, column: &str, record: &StringRecord) -> Result<f32, DataError> {
        let (want, hint) = match cell.parse::<f32>() {
            Ok(number) if number.is_finite() => return Ok(number),
            Ok(_) => ("a finite number, at most 3.4e38", "fill in a value or remove the row"),
            Err(_) if cell.is_empty() => ("a number", "fill in the value or remove the row"),
            Err(_) => ("a number", "give columns of text numbers, or leave them out"),
        };
        Err(self.cell(cell, column, record, want, hint))
    }

    fn class_name(
        &self,
        cell: &str,
        column: &str,
        record: &StringRecord,
    ) -> Result<String, DataError> {
        if cell.is_empty() {
            let hint = "remove the row or name its class";
            return Err(self.cell(cell, column, record, "the name of a class", hint));
        }
        Ok(cell.to_owned())
    }

    fn classes(&self, names: &[String]) -> Result<Targets, DataError> {
        let spell_numbers = names.iter().all(|name| name.parse::<i64>().is_ok());
        let key = |name: &String| {
            let number: Option<i64> = if spell_numbers { name.parse().ok() } else { None };
            (number, name.clone())
        };
        let sorted: BTreeSet<_> = names.iter().map(key).collect();
        let order: Vec<_> = sorted.into_iter().collect();
        if order.len() < 2 {
            let got = format!("only the class `{}`", shown(&names[0]));
            let hint = "check `target`, or set `task` to regression";
            return Err(self.layout(1, &got, "at least 2 classes", hint));
        }
        if order.len() > CLASSES_FEW && 2 * order.len() > names.len() {
            let got = format!("{} classes in {} rows", order.len(), names.len());
            let hint = "a column of values to predict needs `task` = \"regression\"";
            return Err(self.layout(1, &got, "at least 2 rows of each class", hint));
        }
        let number = |name| order.partition_point(|other| *other < key(name)) as u32;
        Ok(Targets::Classes { labels: names.iter().map(number).collect(), classes: order.len() })
    }

    fn cell(
        &self,
        got: &str,
        column: &str,
        record: &StringRecord,
        want: &'static str,
        hint: &'static str,
    ) -> DataError {
        DataError::Cell {
            path: self.path.to_owned(),
            line: self.line(record.position()),
            column: shown(column),
            got: shown(got),
            want,
            hint,
        }
    }

    fn malformed(&self, error: &::csv::Error) -> DataError {
        let line = self.line(error.position());
        match error.kind() {
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                let hint = "put cells that hold a comma in double quotes";
                self.layout(line, &format!("{len} cells"), &format!("{expected_len}"), hint)
            }
            ErrorKind::Utf8 { .. } => {
                let hint = "save the file as UTF-8";
                self.layout(line, "bytes that are no UTF-8", "text in UTF-8", hint)
            }
            _ => self.layout(line, &error.to_string(), "comma-separated text", "see RFC 4180"),
        }
    }

    fn layout(&self, line: usize, got: &str, want: &str, hint: &'static str) -> DataError {
        let (got, want) = (got.to_owned(), want.to_owned());
        DataError::Layout { path: self.path.to_owned(), line, got, want, hint }
    }

    /// Line on which a record begins, from 1. Counted here because the reader's own position is
    /// that of the line ending and the blank lines before the record.
    fn line(&self, position: Option<&Position>) -> usize {
        let start = position.map_or(0, |position| position.byte() as usize).min(self.bytes.len());
        let blank = self.bytes[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.line_at(start + blank)
    }

    /// Line of a byte, from 1.
    fn line_at(&self, byte: usize) -> usize {
        1 + self.bytes[..byte].iter().filter(|&&byte| byte == b'\n').count()
    }
}

/// What was read so far; of `targets` and `names` only the one that the task needs is filled.
struct Rows {
    inputs: Vec<f32>,
    targets: Vec<f32>,
    names: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: impl AsRef<[u8]>, target: &str, task: Task) -> Result<Table, DataError> {
        File::new(Path::new("t.csv"), text.as_ref()).read(target, task)
    }

    #[test]
    fn every_spelling_of_the_same_table_reads_alike() {
        let want = Table {
            inputs: vec![1.0, 2.0, -3.5, 4e3],
            input_shape: vec![2],
            targets: Targets::Values { values: vec![10.0, 20.0], width: 1 },
        };
        let cases = [
            "a,y,b\n1,10,2\n-3.5,20,4e3\n",
            "a,y,b\n1,10,2\n-3.5,20,4e3",
            "a,y,b\r\n1,10,2\r\n-3.5,20,4e3\r\n",
            "\u{feff}a,y,b\n1,10,2\n-3.5,20,4e3\n",
            "\u{feff}\"a\",y,b\n1,10,2\n-3.5,20,4e3\n",
            "a,y,b\n1,10,2\n-3.5,20,4e3\n\n\r\n  \n",
            "a,y,b\n\n1,10,2\n\n-3.5,20,4e3\n",
            " a , y , b \n 1 , 10 ,\" 2\"\n-3.5,20,4e3\n",
        ];
        for text in cases {
            assert_eq!(read(text, "y", Task::Regression), Ok(want.clone()), "{text:?}");
        }
        let first = read("\u{feff}y,a,b\n10,1,2\n20,-3.5,4e3\n", "y", Task::Regression);
        assert_eq!(first, Ok(want));
    }

    #[test]
    fn a_number_that_is_not_finite_is_named() {
        for (cell, told) in [
            ("nan", "got `nan`, want a finite number"),
            ("-Inf", "got `-Inf`, want a finite number"),
            ("1e39", "got `1e39`, want a finite number, at most 3.4e38"),
            ("", "got ``, want a number; hint: fill in the value or remove the row"),
        ] {
            let text = format!("a,y\n1,2\n{cell},4\n");
            let error = read(text, "y", Task::Regression).unwrap_err().to_string();
            assert!(error.starts_with(&format!("t.csv:3: column `a`: {told}")), "{error}");
            let text = format!("a,y\n1,{cell}\n3,4\n");
            let error = read(text, "y", Task::Regression).unwrap_err().to_string();
            assert!(error.starts_with(&format!("t.csv:2: column `y`: {told}")), "{error}");
        }
    }

    #[test]
    fn a_class_for_each_row_is_taken_for_values() {
        let rows = |count: u32, of: u32| {
            let rows = (0..count).map(|row| format!("{row},{}\n", row / of));
            read(format!("a,y\n{}", rows.collect::<String>()), "y", Task::Classification)
        };
        let error = rows(1500, 1).unwrap_err().to_string();
        assert!(error.contains("got 1500 classes in 1500 rows, want at least 2 rows"), "{error}");
        for (count, of, want) in [(1000, 1, 1000), (3000, 2, 1500)] {
            let Targets::Classes { classes, .. } = rows(count, of).unwrap().targets else {
                panic!("classes")
            };
            assert_eq!(classes, want);
        }
    }

    #[test]
    fn what_cannot_be_shown_in_a_line_is_not() {
        let long = "x".repeat(9000);
        let text = format!("a,y\n1,2\n\u{1b}[31m\t{long},4\n");
        let error = read(text, "y", Task::Regression).unwrap_err().to_string();
        assert!(error.contains("got `\\u{1b}[31m\\txxx") && error.len() < 200, "{error}");
        let header: String = (0..9000).map(|column| format!("column-{column},")).collect();
        let error = read(format!("{header}z\n"), "y", Task::Regression).unwrap_err().to_string();
        assert!(error.contains("`column-39`, ...; hint") && error.len() < 900, "{error}");
    }

    #[test]
    fn classes_are_numbered_in_order() {
        // cells of the target, labels, classes
        let cases: [(&str, &[u32], usize); 4] = [
            ("cat dog ant cat", &[1, 2, 0, 1], 3),
            ("10 2 1 10", &[2, 1, 0, 2], 3),
            ("10 2 x 10", &[0, 1, 2, 0], 3),
            ("-1 1 -1", &[0, 1, 0], 2),
        ];
        for (cells, labels, classes) in cases {
            let text = cells.split(' ').map(|cell| format!("0,{cell}\n")).collect::<String>();
            let table = read(format!("a,y\n{text}"), "y", Task::Classification).unwrap();
            assert_eq!(table.targets, Targets::Classes { labels: labels.to_vec(), classes });
        }
    }

    #[test]
    fn a_bad_file_says_where_and_what() {
        let check = |bytes: &[u8], task, message: &str| {
            let error = read(bytes, "y", task).expect_err(message).to_string();
            assert!(error.contains(message) && error.contains("; hint: "), "{error}\n{message}");
        };
        for (line, end, told) in
            [(812, "\n", 812), (9, "\r\n", 9), (9, "\n\n", 17), (9, "\r\n\r\n", 17)]
        {
            let mut lines = vec!["1,2"; line];
            lines[0] = "a,y";
            lines[line - 1] = "1,x";
            let message = "column `y`: got `x`, want a number; hint: give columns of text";
            let text = lines.join(end);
            check(text.as_bytes(), Task::Regression, &format!("t.csv:{told}: {message}"));
        }
        let no_semicolons = "want one of: `a;y`; hint: columns are separated by commas";
        let regression: [(&[u8], &str); 15] = [
            (b"a,y\n1,2\n1\0,2\n", "t.csv:3: got a NUL byte, want text; hint: save the file as"),
            (b"\xff\xfea\0,\0y\0\n\0", "t.csv:1: got a NUL byte, want text; hint: save the"),
            ("\u{feff}a,y\n1,x\n".as_bytes(), "t.csv:2: column `y`: got `x`"),
            (b"a,y\n\"1\n\",2\n?,2\n", "t.csv:4: column `a`: got `?`"),
            (
                b"a,b\n1,2\n",
                "t.csv:1: got no column `y`, want one of: `a`, `b`; hint: set `target`",
            ),
            (b"a;y\n1;2\n", no_semicolons),
            (b"y,a,y\n1,2,3\n", "got column `y` more than once, want one"),
            (b"y\n1\n2\n", "got only the target column `y`, want at least one more"),
            (b"a,y\n1,2\n1,2,3\n", "t.csv:3: got 3 cells, want 2; hint: put cells"),
            (b"a,y\r\n1,2\r\n1\r\n", "t.csv:3: got 1 cells, want 2"),
            (b"a,\xff\n1,2\n", "t.csv:1: got bytes that are no UTF-8"),
            (b"", "t.csv:1: got an empty file, want a header row"),
            ("\u{feff}\r\n\n".as_bytes(), "t.csv:1: got an empty file, want a header row"),
            (b"a,y\n", "got 0 rows, want at least 2"),
            (b"a,y\n1,2\n\n", "got 1 rows, want at least 2"),
        ];
        regression.iter().for_each(|(bytes, message)| check(bytes, Task::Regression, message));
        let classification: [(&[u8], &str); 4] = [
            (b"a,y\n1,2\n,2\n", "t.csv:3: column `a`: got ``, want a number"),
            (b"a,y\n1,2\n1,\n", "column `y`: got ``, want the name of a class"),
            (b"a,y\n1,2\n1,\xff\n", "t.csv:3: got bytes that are no UTF-8"),
            (b"a,y\n1,q\n2,q\n", "got only the class `q`, want at least 2"),
        ];
        classification
            .iter()
            .for_each(|(bytes, message)| check(bytes, Task::Classification, message));
    }

    #[test]
    fn a_file_is_split_by_the_seed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.csv");
        let rows: String = (0..50).map(|row| format!("{row},{}\n", row * 2)).collect();
        std::fs::write(&path, format!("x,y\n{rows}")).unwrap();

        let data = load(&path, "y", Task::Regression, 0.2, 7).unwrap();
        assert_eq!((data.train.rows(), data.test.rows()), (40, 10));
        for part in [&data.train, &data.test] {
            let doubled = part.inputs.iter().map(|x| x * 2.0).collect();
            assert_eq!(part.targets, Targets::Values { values: doubled, width: 1 });
        }
        assert_eq!(load(&path, "y", Task::Regression, 0.2, 7), Ok(data.clone()));
        assert_ne!(load(&path, "y", Task::Regression, 0.2, 8), Ok(data));

        for fraction in [0.0, 1.0, -0.5, f64::NAN] {
            let error = load(&path, "y", Task::Regression, fraction, 7).unwrap_err().to_string();
            assert!(
                error.contains(&format!("got {fraction}, want above 0 and below 1")),
                "{error}"
            );
        }
        let gone = load(&folder.path().join("gone.csv"), "y", Task::Regression, 0.2, 7);
        let error = gone.unwrap_err().to_string();
        assert!(
            error.contains("gone.csv: got `") && error.contains("hint: check `path`"),
            "{error}"
        );
    }
}
