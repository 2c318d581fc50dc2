//! Tables of text with a header: Lightning's `metrics.csv`, Keras' `CSVLogger`, Stable-Baselines3's
//! `progress.csv`, and others that have a step, an epoch or a loss.
//!
//! Fields are split here, line by line, and not by a library: a quote that is never closed, as
//! where a file was cut and written on, must not take the rest of the file for one field.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use crate::files::open;
use crate::lines::{LINE_BYTES_MAX, Line, bad_bytes, each_line, whole_lines};
use crate::log::{Log, LogBuilder};
use crate::number::parse_number_bytes;
use crate::readers::{Format, Growing, Head, Reader};
use crate::row::Row;
use crate::rows::{Rows, is_log_name, is_loss_name};
use crate::step::Stepper;
use crate::vocabulary::{is_gradient_norm, normal};

/// CSV with a header.
pub(crate) const READER: Reader = Reader {
    format: Format {
        norm_option: "in Lightning, log `grad_norm(self, norm_type=2)` in `on_before_optimizer_step`",
        tensors_option: "in Lightning, call `log_dict(grad_norm(self, norm_type=2))`",
        ..Format::named("csv")
    },
    recognises,
    grow,
    read,
    ..Reader::OF_FILES
};

/// Columns of a table; a line of more is no header.
const COLUMNS_MAX: usize = 20_000;

fn recognises(head: &Head<'_>) -> bool {
    let end = if head.is_whole { head.bytes.len() } else { whole_lines(head.bytes) };
    let text = head.bytes.get(..end).unwrap_or_default();
    // What the start holds is what the reader finds in it.
    let mut table = Table::new(LogBuilder::with_named(head.named), head.path);
    let ended = table.read(text, 0);
    ended.is_ok() && table.rows.look_like_a_log() && table.good > table.bad
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for path in paths {
        let file = open(path).map_err(|error| ReadError::io(path, error))?;
        let mut table = Table::new(std::mem::take(log), path);
        let ended = table.read(file, 0);
        *log = table.rows.log;
        match ended {
            Ok(()) if log.is_empty() => {
                let found = match table.header {
                    Some(_) => "a header without numbers below it",
                    None => "no header",
                };
                let wanted = "a header that names a step, epoch or loss, followed by lines of \
                              numbers";
                return Err(ReadError::broken(path, 0, found, wanted));
            }
            Err(error) if log.is_empty() => return Err(ReadError::io(path, error)),
            Err(error) => {
                log.lose_the_rest();
                log.notice(path, None, format!("{error}; what comes before it is used"));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

fn grow(path: &Path, log: LogBuilder) -> Option<Box<dyn Growing>> {
    Some(Box::new(Table::new(log, path)))
}

impl Growing for Table {
    fn take(&mut self, bytes: &[u8], offset: u64) {
        // Bytes in memory can be read.
        let _ = self.read(bytes, offset);
    }

    /// The rest may break off within a number, and is left alone.
    fn look(&mut self, _: &[u8], points: usize) -> Log {
        self.rows.ending(points).log.finish()
    }
}

/// The names of the columns.
#[derive(Debug, Clone)]
struct Header {
    delimiter: u8,
    names: Vec<String>,
}

impl Header {
    /// The header that a line is, if it is one: two names or more, of which one is known.
    fn of(line: &[u8], log: &LogBuilder, path: &Path) -> Option<Self> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let line = line.strip_prefix(b"#").unwrap_or(line);
        let count = |delimiter: u8| line.iter().filter(|&&byte| byte == delimiter).count();
        let delimiter = *b",;\t".iter().max_by_key(|&&delimiter| count(delimiter))?;
        // Zero bytes are of a binary file here; further down they are what a crash left.
        if !(1..COLUMNS_MAX).contains(&count(delimiter)) || line.contains(&0) {
            return None;
        }
        let mut names: Vec<String> =
            fields(line, delimiter).map(|name| String::from_utf8_lossy(&name).into()).collect();
        if names == ["Wall time", "Step", "Value"] {
            names = tensorboard_names(path);
        }
        let is_number = |name: &&String| parse_number_bytes(name.as_bytes()).is_some();
        let numbers = names.iter().filter(is_number).count();
        let is_known = |name: &String| is_log_name(name) || log.is_named(name);
        let is_header = numbers * 2 < names.len() && names.iter().any(is_known);
        is_header.then_some(Self { delimiter, names })
    }

    /// Puts the numbers of a line into a row; returns how many fields there are, and how many of
    /// them are words.
    fn fill(&self, line: &[u8], row: &mut Row) -> (usize, usize) {
        row.clear();
        let (mut count, mut words) = (0, 0);
        for field in fields(line, self.delimiter) {
            let name = self.names.get(count);
            count += 1;
            let Some(name) = name else { continue };
            if let Some(number) = parse_number_bytes(&field) {
                row.push(name, number);
            } else if !is_missing(&field) {
                words += 1;
                row.push_text(name, &String::from_utf8_lossy(&field));
            }
        }
        (count, words)
    }
}

/// The columns of a file that was downloaded from TensorBoard, whose name tells the series:
/// `run-NAME-tag-loss_train.csv`.
fn tensorboard_names(path: &Path) -> Vec<String> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let tag = stem.rsplit_once("-tag-").map_or(stem.as_str(), |(_, tag)| tag);
    vec!["wall_time".to_owned(), "step".to_owned(), tag.to_owned()]
}

/// Whether a field says that there is no number.
fn is_missing(field: &[u8]) -> bool {
    let spellings: [&[u8]; 6] = [b"", b"NA", b"N/A", b"None", b"null", b"-"];
    spellings.iter().any(|spelling| field.eq_ignore_ascii_case(spelling))
}

/// A table while it is read.
#[derive(Default)]
struct Table {
    rows: Rows,
    header: Option<Header>,
    row: Row,
    stepper: Stepper,
    /// Lines with as many fields as the header, and lines that are no rows or odd ones.
    good: u64,
    bad: u64,
    usual: Usual,
}

/// The columns that have numbers in all rows so far, and how many rows that is; `None` where they differ.
#[derive(Debug, Clone, Default)]
struct Usual {
    names: Option<String>,
    rows: u64,
    is_mixed: bool,
    is_noticed: bool,
}

/// Rows after which a column that had a number in each counts as one without gaps.
const USUAL_ROWS: u64 = 5;

impl Table {
    fn new(log: LogBuilder, path: &Path) -> Self {
        Self { rows: Rows::new(log, path), ..Self::default() }
    }

    /// Reads up to the end, or to where it is clear that there is no header. The input begins at an
    /// offset of the file.
    fn read(&mut self, input: impl Read, offset: u64) -> io::Result<()> {
        let read = each_line(input, offset, |line| {
            self.rows.log.saw(line.len());
            line.bytes.trim_ascii().is_empty() || self.line(line)
        });
        read.map_err(|(_, error)| error)
    }

    /// Takes in a line. False if it should have been the header and is none.
    fn line(&mut self, about: Line<'_>) -> bool {
        let line = about.bytes;
        let is_comment = line.starts_with(b"#");
        let Some(header) = &self.header else {
            self.header =
                Header::of(line, &self.rows.log, &self.rows.path).filter(|_| !about.is_cut);
            return self.header.is_some() || is_comment;
        };
        if is_comment {
            return true;
        }
        let wanted = header.names.len();
        let (count, words) = header.fill(line, &mut self.row);
        if about.is_cut {
            let text = format!("got a line of more than {LINE_BYTES_MAX} bytes; it is left out");
            self.rows.log.lose(about.len());
            self.odd(about, text);
        } else if count < wanted && !about.is_ended {
            let text = format!(
                "got {count} fields, want {wanted}; hint: the file was cut off while being written; \
                 the lines before are used"
            );
            self.odd(about, text);
        } else if self.row.is_empty() {
            // A run that goes on in the same file writes its header again.
            match Header::of(line, &self.rows.log, &self.rows.path) {
                Some(header) => self.header = Some(header),
                None if words > 0 => {
                    self.rows.log.lose(about.len());
                    self.odd(about, "got a line without numbers; it is left out".to_owned());
                }
                None => {}
            }
        } else {
            let bad = bad_bytes(line);
            self.rows.log.lose(bad);
            if count == wanted {
                self.good += 1;
            } else {
                let text = format!("got {count} fields, want {wanted}, as in the header");
                self.odd(about, text);
            }
            // Of a damaged line nothing is known by what it lacks.
            if count == wanted && words == 0 && bad == 0 {
                self.fill_gaps(about.offset);
            }
            self.rows.push("", &self.row, &mut self.stepper);
        }
        true
    }

    /// Pandas writes NaN as an empty cell. Where all rows so far had the same columns, and one lacks
    /// nothing but losses or gradient norms, these are NaN.
    fn fill_gaps(&mut self, offset: u64) {
        let usual = &mut self.usual;
        let names = usual.names.get_or_insert_with(|| self.row.all_names().to_owned());
        if names.as_str() == self.row.all_names() {
            usual.rows += 1;
            return;
        }
        let is_known = |name: &str| names.split_terminator('\0').any(|known| known == name);
        let is_there = |name: &str| self.row.cells().any(|(cell, _)| cell == name);
        let gaps: Vec<String> = names
            .split_terminator('\0')
            .filter(|name| !is_there(name))
            .map(str::to_owned)
            .collect();
        let is_loss = |name: &String| is_loss_name(name) || is_gradient_norm(&normal(name));
        let are_gaps = self.row.cells().all(|(name, _)| is_known(name)) && gaps.iter().all(is_loss);
        if usual.is_mixed || usual.rows < USUAL_ROWS || !are_gaps {
            usual.is_mixed = true;
            return;
        }
        gaps.iter().for_each(|name| self.row.push(name, f64::NAN));
        if !std::mem::replace(&mut usual.is_noticed, true) {
            let text = "got empty cells where all rows before had a number; they are read as NaN, which \
                        pandas writes so";
            self.rows.notice(offset, text);
        }
    }

    fn odd(&mut self, about: Line<'_>, text: String) {
        self.bad += 1;
        self.rows.notice(about.offset, text);
    }
}

/// The fields of a line, without the white space and the quotes around them.
fn fields(line: &[u8], delimiter: u8) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let mut left = Some(line);
    std::iter::from_fn(move || {
        let rest = left?;
        let quoted = rest.trim_ascii_start().strip_prefix(b"\"").and_then(unquote);
        let (field, rest) = quoted.map_or((None, rest), |(field, rest)| (Some(field), rest));
        let end = memchr::memchr(delimiter, rest);
        left = end.and_then(|end| rest.get(end + 1..));
        let plain = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        Some(field.map_or(Cow::Borrowed(plain.trim_ascii()), Cow::Owned))
    })
}

/// What stands before the closing quote, two quotes being one, and what comes behind it; `None` if
/// there is no closing quote.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut field = Vec::new();
    let mut rest = text;
    loop {
        let end = memchr::memchr(b'"', rest)?;
        field.extend_from_slice(rest.get(..end)?);
        rest = rest.get(end + 1..)?;
        match rest.strip_prefix(b"\"") {
            Some(behind) => {
                field.push(b'"');
                rest = behind;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::tests::{
        change, check_damage, compare, knows, points, read_text, survives,
    };
    use proptest::prelude::*;

    /// Reads a text and compares `name: step:value ...` of all series, one a line.
    fn check(text: &str, want: &str, notices: &[u64]) {
        assert!(knows(&READER, "a.csv", text.as_bytes()), "{text}");
        let log = read_text(&READER, "a.csv", text.as_bytes());
        compare(&log, want);
        let got: Vec<u64> = log.notices.iter().filter_map(|notice| notice.offset).collect();
        assert_eq!(got, notices, "{:?}", log.notices);
    }

    #[test]
    fn what_is_damaged_is_counted() {
        let rows: String = (0..8000).map(|step| format!("{step},2.5,0.125\n")).collect();
        check_damage(&READER, "a.csv", format!("step,loss,lr\n{rows}").as_bytes());
    }

    #[test]
    fn lightning_leaves_cells_empty() {
        check(
            "epoch,step,train_loss,val_loss\n0,9,nan,\n0,19,-inf,\n0,19,,2.5\n1,29,1e3,\n",
            "epoch: 9:0 19:0 19:0 29:1
             train_loss: 9:NaN 19:-inf 29:1000
             val_loss: 19:2.5",
            &[],
        );
    }

    #[test]
    fn keras_writes_na_and_steps_are_epochs() {
        check(
            "epoch,loss,val_loss\r\n0,3,NA\r\n1,2,4\r\n",
            "loss: 0:3 1:2
             val_loss: 1:4",
            &[],
        );
    }

    #[test]
    fn stable_baselines_has_comments_and_other_names() {
        check(
            "#{\"t_start\": 1.5}\ntime/total_timesteps,train/loss\n2048,0.5\n4096,0.25\n",
            "train/loss: 2048:0.5 4096:0.25",
            &[],
        );
        check(
            "value_loss,total timesteps\n0.5,2048\n0.25,4096\n",
            "value_loss: 2048:0.5 4096:0.25",
            &[],
        );
    }

    #[test]
    fn delimiters_and_quotes_differ() {
        check("step;loss\n1;2\n2;1.#INF\n", "loss: 1:2 2:inf", &[]);
        check("# Step\tloss\n1\t2\n2\t1\n", "loss: 1:2 2:1", &[]);
        check(
            "\"Step\", \"run \"\"a\"\", loss\"\n\"1\",\"2\"\n2,1\n",
            "run \"a\", loss: 1:2 2:1",
            &[],
        );
        // The quote in the third line is never closed.
        check("step,loss,note\n1,2,a\n2,1,\"b\n3,0,c\n", "loss: 1:2 2:1 3:0", &[]);
    }

    #[test]
    fn validations_have_their_own_series() {
        check(
            "\u{feff}step,split,loss\n1,train,3\n1,val,4\n2,train,2\n",
            "loss: 1:3 2:2
             val/loss: 1:4",
            &[],
        );
    }

    #[test]
    fn without_a_step_the_row_counts() {
        check("loss,acc\n3,0.5\n2,0.75\n", "loss: 0:3 1:2\nacc: 0:0.5 1:0.75", &[]);
    }

    #[test]
    fn what_is_broken_is_left_out_and_said() {
        let start = "step,loss,lr\n1,3,0.1\n2,2,0.1\n3,1,0.1\n";
        let loss = "loss: 1:3 2:2 3:1";
        let lr = "lr: 1:0.1 2:0.1 3:0.1";
        check(&format!("{start}40,0."), &format!("{loss}\n{lr}"), &[37]);
        check(&format!("{start}killed\n"), &format!("{loss}\n{lr}"), &[37]);
        check(&format!("{start}4,7\n"), &format!("{loss} 4:7\n{lr}"), &[37]);
        check(&format!("{start}\0\0\0\n"), &format!("{loss}\n{lr}"), &[37]);
        // The run was started again, with another column.
        check(
            &format!("{start}step,loss,norm\n1,9,5\n"),
            &format!("{loss} 1:9\n{lr}\nnorm: 1:5"),
            &[],
        );
    }

    #[test]
    fn bytes_that_are_no_text_and_long_lines_do_no_harm() {
        let mut text = b"step,loss\n1,3\n\xff\xfe,\x80\n2,2\n".to_vec();
        text.resize(text.len() + (20 << 20), b'7');
        text.extend_from_slice(b",1\n3,1\n");
        let log = read_text(&READER, "a.csv", &text);
        assert_eq!(points(&log, "loss"), "1:3 2:2 3:1");
        assert_eq!(log.notices.len(), 2, "{:?}", log.notices);
    }

    #[test]
    fn other_text_is_not_taken_for_a_log() {
        for text in [
            "",
            "step,loss\n",
            "name,height\nanna,1\nbert,2\n",
            "the loss, as it is,\nwas 5, then 6\n",
            "Epoch 1, loss: 2.3\nEpoch 2, loss: 2.2\n",
            "1,2,loss\n3,4,5\n",
            "step loss\n1 2\n",
            "def f(step, loss):\n    return step, loss\n",
        ] {
            assert!(!knows(&READER, "a.txt", text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_name_that_the_user_gave_makes_a_table_a_log() {
        let bytes = b"time_s,objective\n1,5\n2,4\n";
        for (named, want) in [("objective", true), ("energy", false)] {
            let named = [named.to_owned()];
            let head = Head { path: Path::new("a.csv"), bytes, is_whole: true, named: &named };
            assert_eq!(recognises(&head), want, "{named:?}");
        }
    }

    #[test]
    fn a_file_without_numbers_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, want) in [("", "got no header"), ("step,loss\n", "got a header without numbers")]
        {
            std::fs::write(file.path(), text).unwrap();
            let error = read(&[file.path().to_owned()], &mut LogBuilder::new()).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(
            mut text in prop_oneof![
                Just(b"epoch,step,\"train, loss\",note\n0,1,nan,a\n,,,\n1,2,3,\"b\"\"\"\n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..80),
            ],
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            change(&mut text, &changes);
            survives(&READER, &text);
        }
    }
}
