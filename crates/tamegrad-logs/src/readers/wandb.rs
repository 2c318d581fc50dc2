//! W&B run files, `run-<id>.wandb`: the history of a run, with the histograms of `wandb.watch`.
//!
//! A file is a header and a LevelDB log of `Record { 2: HistoryRecord }` of wandb_internal.proto,
//! with `HistoryRecord { 1: HistoryItem, 2: HistoryStep { 1: num } }` and
//! `HistoryItem { 1: key, 2: nested_key, 16: value_json }`.

mod chunks;

use std::io::Read;
use std::path::{Path, PathBuf};

use jiter::{Jiter, JiterResult, Peek};
use tamegrad_runs::ReadError;

use self::chunks::Records;
use super::{Format, Head, Reader};
use crate::bins::{BINS_MAX, l2_norm};
use crate::files::read_each;
use crate::framed::{self, Taken};
use crate::log::{LogBuilder, Point};
use crate::number::nonfinite;
use crate::tags::{Number, Tags};
use crate::wire::{Malformed, Value, fields};

/// W&B run files. Those of one run id in one folder are one run.
pub(super) const READER: Reader = Reader {
    format: Format {
        tensors_option: "call `wandb.watch(model, log=\"gradients\")`, which logs their histograms",
        ..Format::named("W&B run file")
    },
    recognises,
    run_key,
    read,
    ..Reader::OF_FILES
};

/// `:W&B`, the magic number 0xBEE1 and the version 0.
const HEADER: &[u8; 7] = b":W&B\xe1\xbe\0";
const HEADER_WANTED: &str = "the header of a W&B run file";
const WANTED: &str = "W&B records";

/// A longer value is passed over; a histogram of 64 bins takes some 800 bytes.
const VALUE_MAX: usize = 16 << 20;
/// Dictionaries within dictionaries that are looked into.
const DEPTH_MAX: usize = 16;
/// What W&B itself writes beside the numbers of the run.
const OWN_KEYS: &[&[u8]] = &[b"_step", b"_timestamp", b"_runtime", b"_wandb"];

fn recognises(head: &Head<'_>) -> bool {
    let is_named_so = head.path.extension().is_some_and(|extension| extension == "wandb");
    is_named_so || head.bytes.starts_with(HEADER)
}

fn run_key(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_prefix("run-")?.strip_suffix(".wandb")?.to_owned())
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    let mut run = Run::default();
    read_each(paths, log, |path, file, len, log| run.read(path, file, len, log))
}

/// What is known of a run over its files.
#[derive(Debug, Default)]
struct Run {
    places: Tags<Option<usize>>,
    room: Room,
    /// History records so far: the step of those that have none.
    histories: i64,
}

/// Room that is used again for each record.
#[derive(Debug, Default)]
struct Room {
    name: Vec<u8>,
    values: Vec<f64>,
    bins: Vec<f64>,
}

impl Run {
    fn read(
        &mut self,
        path: &Path,
        mut stream: impl Read,
        len: u64,
        log: &mut LogBuilder,
    ) -> Result<(), ReadError> {
        let fail = |error| ReadError::io(path, error);
        if len == 0 {
            return Err(ReadError::broken(path, 0, "an empty file", WANTED));
        }
        let mut header = Vec::new();
        stream.by_ref().take(HEADER.len() as u64).read_to_end(&mut header).map_err(fail)?;
        if header != HEADER {
            let found = format!("\"{}\"", header.escape_ascii());
            return Err(ReadError::broken(path, 0, found, HEADER_WANTED));
        }
        // The header is part of the first block.
        let stream = HEADER.chain(stream);
        let records = Records::new(stream, len, HEADER.len() as u64).map_err(fail)?;
        let read = framed::read_records(path, len, records, WANTED, log, |record, log| {
            self.record(record, log).map_or_else(Taken::InPart, |()| Taken::Whole)
        });
        self.places.note_left_out(path, log);
        read
    }

    /// Reads a record; what was left out of it, in words.
    fn record(&mut self, record: &[u8], log: &mut LogBuilder) -> Result<(), String> {
        for field in fields(record) {
            if let (2, Value::Bytes(history)) = field.map_err(no_message)? {
                let moment = moment(history, self.histories, &mut self.room).map_err(no_message)?;
                self.histories += 1;
                self.history(history, moment, log)?;
            }
        }
        Ok(())
    }

    /// Reads all items, also behind a bad one; the first that was left out, in words.
    fn history(
        &mut self,
        history: &[u8],
        moment: Point,
        log: &mut LogBuilder,
    ) -> Result<(), String> {
        let mut first = Ok(());
        for field in fields(history) {
            let (1, Value::Bytes(item)) = field.map_err(no_message)? else { continue };
            let json = item_of(item, &mut self.room.name).map_err(no_message)?;
            let is_own = OWN_KEYS.contains(&&self.room.name[..]);
            if let Some(json) = json.filter(|_| !is_own) {
                let read = self.value(json, moment, log);
                first = first.and(read);
            }
        }
        first
    }

    /// Adds what a value holds under the name in `self.room`.
    fn value(&mut self, json: &[u8], moment: Point, log: &mut LogBuilder) -> Result<(), String> {
        let Room { name, values, bins } = &mut self.room;
        let shown =
            |name: &[u8]| String::from_utf8_lossy(name.get(..80).unwrap_or(name)).into_owned();
        if json.len() > VALUE_MAX {
            let mib = VALUE_MAX >> 20;
            return Err(format!("a value of {:?} with more than {mib} MiB; left out", shown(name)));
        }
        let places = &mut self.places;
        let mut push = |name: &[u8], number: Number| {
            if let Some(place) = places.entry(name) {
                number.push(place, name, moment, log);
            }
        };
        if json.first() != Some(&b'{') {
            if let Some(value) = plain_number(json) {
                push(name, Number::Exact(value));
            }
            return Ok(());
        }
        let mut json = Jiter::new(json).with_allow_inf_nan();
        let mut found = Found { name, values, bins, push: &mut push };
        let read = found.dictionary(&mut json, 0).and_then(|()| json.finish());
        read.map_err(|error| {
            let error = error.error_type;
            format!("a value of {:?} that is not JSON ({error}); left out", shown(name))
        })
    }
}

fn no_message(_: Malformed) -> String {
    "a record that is no protobuf message; left out".to_owned()
}

/// Step and time of a history record, in a point without a value.
fn moment(history: &[u8], ordinal: i64, room: &mut Room) -> Result<Point, Malformed> {
    let (mut counted, mut logged, mut wall) = (None, None, f64::NAN);
    for field in fields(history) {
        match field? {
            (1, Value::Bytes(item)) => {
                let Some(json) = item_of(item, &mut room.name)? else { continue };
                match &room.name[..] {
                    b"_step" => logged = plain_number(json).map(|step| step as i64),
                    b"_timestamp" => wall = plain_number(json).unwrap_or(f64::NAN),
                    _ => {}
                }
            }
            (2, Value::Bytes(step)) => {
                counted = Some(0);
                for field in fields(step) {
                    if let (1, Value::Varint(num)) = field? {
                        counted = Some(num as i64);
                    }
                }
            }
            _ => {}
        }
    }
    let step = counted.or(logged).unwrap_or(ordinal);
    Ok(Point { step, wall, value: f64::NAN })
}

/// The value of an item, and its name in `name`: nested keys are joined by dots, as W&B shows them.
fn item_of<'a>(item: &'a [u8], name: &mut Vec<u8>) -> Result<Option<&'a [u8]>, Malformed> {
    name.clear();
    let mut json = None;
    for field in fields(item) {
        match field? {
            (1 | 2, Value::Bytes(key)) => {
                if !name.is_empty() && !key.is_empty() {
                    name.push(b'.');
                }
                name.extend_from_slice(key);
            }
            (16, Value::Bytes(bytes)) => json = Some(bytes),
            _ => {}
        }
    }
    Ok(json.filter(|_| !name.is_empty()))
}

/// A number as W&B writes it; what is not finite is a literal or, in newer files, a string.
fn plain_number(json: &[u8]) -> Option<f64> {
    match json {
        [b'"', text @ .., b'"'] => nonfinite(text),
        // The library's parser knows `NaN`, `Infinity` and `-Infinity`.
        _ => std::str::from_utf8(json).ok()?.trim().parse().ok(),
    }
}

/// The numbers of a dictionary, on their way to the log.
struct Found<'a, F> {
    name: &'a mut Vec<u8>,
    values: &'a mut Vec<f64>,
    bins: &'a mut Vec<f64>,
    push: &'a mut F,
}

impl<F: FnMut(&[u8], Number)> Found<'_, F> {
    fn dictionary(&mut self, json: &mut Jiter<'_>, depth: usize) -> JiterResult<()> {
        match kind(json.clone())?.as_deref() {
            None => self.members(json, depth),
            Some("histogram") => self.histogram(json),
            // Images, tables and the like.
            Some(_) => json.next_skip(),
        }
    }

    fn members(&mut self, json: &mut Jiter<'_>, depth: usize) -> JiterResult<()> {
        let len = self.name.len();
        let mut key = json.next_object()?;
        while let Some(member) = key {
            self.name.push(b'.');
            self.name.extend_from_slice(member.as_bytes());
            match json.peek()? {
                Peek::Object if depth < DEPTH_MAX => self.dictionary(json, depth + 1)?,
                Peek::String => {
                    if let Some(number) = nonfinite(json.known_str()?.as_bytes()) {
                        (self.push)(self.name, Number::Exact(number));
                    }
                }
                other @ (Peek::Object | Peek::Array | Peek::Null | Peek::True | Peek::False) => {
                    json.known_skip(other)?;
                }
                number => {
                    let number = json.known_float(number)?;
                    (self.push)(self.name, Number::Exact(number));
                }
            }
            self.name.truncate(len);
            key = json.next_key()?;
        }
        Ok(())
    }

    /// A `{"_type": "histogram", "values": [n counts], "bins": [n + 1 edges]}`.
    fn histogram(&mut self, json: &mut Jiter<'_>) -> JiterResult<()> {
        self.values.clear();
        self.bins.clear();
        let mut key = json.next_object()?;
        while let Some(member) = key {
            match member {
                "values" => numbers(json, self.values)?,
                "bins" => numbers(json, self.bins)?,
                _ => json.next_skip()?,
            }
            key = json.next_key()?;
        }
        let edges = self.bins.windows(2).zip(self.values.iter());
        let bins = edges.filter_map(|(edge, &count)| Some((*edge.first()?, *edge.last()?, count)));
        if let Some(norm) = l2_norm(bins) {
            (self.push)(self.name, Number::Estimate(norm));
        }
        Ok(())
    }
}

/// The `_type` of a dictionary, which need not come first.
fn kind(mut json: Jiter<'_>) -> JiterResult<Option<String>> {
    let mut key = json.next_object()?;
    while let Some(member) = key {
        if member == "_type" && json.peek()? == Peek::String {
            return Ok(Some(json.known_str()?.to_owned()));
        }
        json.next_skip()?;
        key = json.next_key()?;
    }
    Ok(None)
}

/// The numbers of an array.
fn numbers(json: &mut Jiter<'_>, into: &mut Vec<f64>) -> JiterResult<()> {
    let mut peek = json.next_array()?;
    while let Some(number) = peek {
        let number = json.known_float(number)?;
        if into.len() < BINS_MAX {
            into.push(number);
        }
        peek = json.array_step()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::readers::tests::{change, check_damage, knows, words};
    use crate::wire::write::message;
    use proptest::prelude::*;

    const RUN: &str = "run-a.wandb";

    fn item(keys: &[&str], json: &str) -> Vec<u8> {
        // One key is a `key`, as older writers have it; several are nested.
        let number = if keys.len() == 1 { 1 } else { 2 };
        let mut parts: Vec<(u32, Value<'_>)> =
            keys.iter().map(|key| (number, Value::Bytes(key.as_bytes()))).collect();
        parts.push((16, Value::Bytes(json.as_bytes())));
        message(&parts)
    }

    /// A record of a history with a `HistoryStep`, if one is given.
    fn history(step: Option<u64>, items: &[(&str, &str)]) -> Vec<u8> {
        let items: Vec<Vec<u8>> = items
            .iter()
            .map(|(key, json)| item(&key.split('>').collect::<Vec<_>>(), json))
            .collect();
        let mut parts: Vec<(u32, Value<'_>)> =
            items.iter().map(|item| (1, Value::Bytes(item))).collect();
        let step = step.map(|step| message(&[(1, Value::Varint(step))]));
        if let Some(step) = &step {
            parts.push((2, Value::Bytes(step)));
        }
        message(&[(1, Value::Varint(3)), (2, Value::Bytes(&message(&parts)))])
    }

    fn file(records: &[Vec<u8>]) -> Vec<u8> {
        chunks::write(HEADER, records)
    }

    fn read_bytes(bytes: &[u8]) -> Result<Log, String> {
        let mut log = LogBuilder::new();
        Run::default()
            .read(Path::new(RUN), bytes, bytes.len() as u64, &mut log)
            .map_err(|error| error.to_string())?;
        Ok(log.finish())
    }

    fn check(records: &[Vec<u8>], want: &[&str]) {
        assert_eq!(words(&read_bytes(&file(records)).unwrap()), want);
    }

    #[test]
    fn what_is_damaged_is_counted() {
        let records: Vec<Vec<u8>> =
            (0..8000).map(|step| history(Some(step), &[("loss", "2.5"), ("lr", "1e-3")])).collect();
        check_damage(&READER, RUN, &file(&records));
    }

    #[test]
    fn numbers_and_what_is_nonfinite() {
        check(
            &[
                history(Some(0), &[("loss", "2.5"), ("_runtime", "3.1"), ("note", "\"good\"")]),
                history(Some(1), &[("loss", "NaN"), ("train>lr", "5e-4"), ("done", "true")]),
                history(Some(2), &[("loss", "-Infinity"), ("none", "null"), ("", "1")]),
                history(Some(3), &[("loss", "\"Infinity\""), ("list", "[1, 2]")]),
                history(Some(4), &[("loss", "\"NaN\""), ("loss", "1.8e308")]),
            ],
            &["loss: 0=2.5 1=NaN 2=-inf 3=inf 4=NaN 4=inf", "train.lr: 1=0.0005"],
        );
    }

    #[test]
    fn the_step_is_the_history_step_or_else_the_item_or_else_the_count() {
        check(
            &[
                history(Some(7), &[("train/global_step", "500"), ("loss", "1"), ("_step", "9")]),
                history(None, &[("train/global_step", "0"), ("loss", "2"), ("_step", "8")]),
                history(None, &[("loss", "3")]),
            ],
            &["train/global_step: 7=500 8=0", "loss: 7=1 8=2 2=3"],
        );
        let timed = file(&[history(Some(0), &[("loss", "1"), ("_timestamp", "1668953437.25")])]);
        assert_eq!(read_bytes(&timed).unwrap().series[0].points[0].wall, 1_668_953_437.25);
    }

    #[test]
    fn dictionaries_are_flattened_and_histograms_estimated() {
        let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
        check(
            &[
                history(Some(0), &[("eval", r#"{"acc": 0.5, "by": {"x": NaN, "y": "Infinity"}}"#)]),
                history(Some(0), &[("image", r#"{"size": 12, "_type": "image-file"}"#)]),
                history(Some(0), &[("deep", &deep)]),
                history(
                    Some(1),
                    &[(
                        "gradients/w",
                        // sqrt(2 * 2^2 + 1 * 1^2)
                        r#"{"_type":"histogram","values":[2, 0.0, 1],"bins":[-3.0, -1, 0.5, 1.5]}"#,
                    )],
                ),
                history(Some(2), &[("gradients/w", r#"{"bins": [], "_type": "histogram"}"#)]),
            ],
            &["eval.acc: 0=0.5", "eval.by.x: 0=NaN", "eval.by.y: 0=inf", "gradients/w: 1=~3"],
        );
    }

    #[test]
    fn what_is_broken_is_left_out_and_said() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let large = format!("{{\"a\": {}1}}", " ".repeat(VALUE_MAX));
        let long = "k".repeat(5000);
        check(
            &[
                history(Some(0), &[("bad", "{\"a\": 1, b}"), ("loss", "1")]),
                history(Some(1), &[("deep", &format!("{{\"a\": {deep}}}")), ("loss", "2")]),
                history(Some(2), &[("large", &large), ("loss", "3")]),
                history(Some(3), &[(&long, "1"), ("loss", "4")]),
                message(&[(2, Value::Bytes(&[0x0a, 0x7f]))]),
            ],
            &[
                "loss: 0=1 1=2 2=3 3=4",
                "! run-a.wandb at byte 7: a value of \"bad\" that is not JSON (key must be a \
                 string); left out",
                "! run-a.wandb at byte 55: a value of \"deep\" that is not JSON (recursion limit \
                 exceeded); left out",
                "! run-a.wandb at byte 200149: a value of \"large\" with more than 16 MiB; left \
                 out",
                "! run-a.wandb at byte 16986043: a record that is no protobuf message; left out",
                "! run-a.wandb: left out 1 values: of one run, 100000 names of at most 4096 bytes, \
                 16777216 bytes together, are kept",
            ],
        );
    }

    #[test]
    fn a_file_without_any_record_is_an_error() {
        let header = "the header of a W&B run file";
        let cases: &[(&[u8], &str)] = &[
            (b"", "got an empty file, want W&B records"),
            (b":W&B", &format!("got \":W&B\", want {header}")),
            (&[0; 100], &format!("got \"\\x00\\x00\\x00\\x00\\x00\\x00\\x00\", want {header}")),
        ];
        for (bytes, want) in cases {
            assert_eq!(read_bytes(bytes), Err(format!("{RUN} at byte 0: {want}")));
        }
        let cut = file(&[history(Some(0), &[("loss", "1")])])[..20].to_vec();
        let text = "a record cut short by the end of the file; everything before it is used";
        let want = format!("{RUN} at byte 7: got {text}, want W&B records");
        assert_eq!(read_bytes(&cut), Err(want));
        check(&[], &[]);
    }

    #[test]
    fn files_of_one_id_in_a_folder_are_one_run() {
        let key = |name| run_key(Path::new(name));
        assert_eq!(key("x/run-1hk2nv98.wandb"), Some("1hk2nv98".to_owned()));
        assert_eq!(key("x/offline.wandb"), None);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run-a.wandb"), file(&[])).unwrap();
        std::fs::write(folder.path().join("run-b.wandb"), "").unwrap();
        let (sources, errors) = crate::discover(folder.path());
        assert_eq!((sources.len(), errors.len()), (2, 0));
        let error = sources[1].read().unwrap_err().to_string();
        assert!(error.ends_with("run-b.wandb at byte 0: got an empty file, want W&B records"));
    }

    #[test]
    fn recognised_by_content_or_else_by_name() {
        let cases: &[(&str, &[u8], bool)] = &[
            ("a", &file(&[]), true),
            ("a", b":W&B", false),
            ("a", b"", false),
            (RUN, b"", true),
            (RUN, &[0; 9], true),
        ];
        for (path, bytes, want) in cases {
            assert_eq!(knows(&READER, path, bytes), *want, "{path} {bytes:?}");
        }
    }

    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<f64>().prop_map(|number| format!("{number:?}")),
            Just("NaN".to_owned()),
            Just("\"Infinity\"".to_owned()),
            Just(r#"{"_type":"histogram","values":[1,2],"bins":[0,1,2]}"#.to_owned()),
            "[ -~]{0,12}",
        ];
        leaf.prop_recursive(4, 16, 3, |inner| {
            prop::collection::vec(("[a-c]{1,2}", inner), 0..3).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(key, json)| format!("\"{key}\":{json}")).collect();
                format!("{{{}}}", members.join(","))
            })
        })
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written(number: f64, step: u32) {
            let step = u64::from(step);
            let log = read_bytes(&file(&[history(Some(step), &[("loss", &number.to_string())])]));
            let point = log.unwrap().series[0].points[0];
            prop_assert_eq!((point.step, point.value.to_bits()), (step as i64, number.to_bits()));
        }

        #[test]
        fn no_json_panics(json in any_json()) {
            let records = [history(Some(0), &[("x", &json)]), history(Some(1), &[("loss", "1")])];
            let log = read_bytes(&file(&records)).unwrap();
            prop_assert_eq!(log.series("loss").unwrap().points.len(), 1);
            prop_assert!(log.notices.len() <= 1, "{:?}", log.notices);
        }

        /// Past the checksums, so that the protobuf and the JSON are what is tried.
        #[test]
        fn no_changed_record_panics(
            json in any_json(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut record = history(Some(5), &[("a>b", &json), ("_step", "7"), ("c", "1.5")]);
            change(&mut record, &changes);
            let mut log = LogBuilder::new();
            let read = Run::default().record(&record, &mut log);
            let points: usize = log.finish().series.iter().map(|s| s.points.len()).sum();
            prop_assert!(points <= record.len(), "{:?}", read);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let mut log = LogBuilder::new();
            let read = Run::default().record(&bytes, &mut log);
            prop_assert!(log.finish().series.len() <= bytes.len(), "{:?}", read);
            let logged = read_bytes(&file(&[history(Some(0), &[("loss", "1")]), bytes])).unwrap();
            prop_assert_eq!(logged.notices.len(), usize::from(read.is_err()));
        }
    }
}
