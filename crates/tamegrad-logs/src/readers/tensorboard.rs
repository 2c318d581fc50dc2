//! TensorBoard event files: scalars and histograms, in the old and in the new encoding.
//!
//! A file is a row of TFRecord frames, each around an `Event { 1: wall_time, 2: step, 5: Summary }`
//! of tensorflow/core/util/event.proto; a `Summary` is a list of
//! `Value { 1: tag, 2: simple_value, 5: histo, 8: tensor, 9: metadata }`.

mod frames;
mod growing;
mod tensor;

use std::io::Read;
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use self::frames::{Frames, payload_len};
use self::growing::grow;
use super::{Format, Head, Reader};
use crate::bins::{BINS_MAX, l2_norm};
use crate::files::read_each;
use crate::framed::{self, Taken};
use crate::log::{LogBuilder, Point};
use crate::tags::{Number, Tags};
use crate::wire::{Malformed, Value, each_fixed, fields};

/// TensorBoard event files. All those of one folder are one run.
pub(super) const READER: Reader = Reader {
    format: Format {
        norm_option: "call `add_scalar(\"grad_norm\", ...)` with the value that `clip_grad_norm_` returns",
        tensors_option: "call `add_scalar(f\"grad_norm/{name}\", ...)` for each parameter",
        ..Format::named("TensorBoard event file")
    },
    recognises,
    run_key: |_| Some(String::new()),
    grow,
    read,
    ..Reader::OF_FILES
};

const WANTED: &str = "TensorBoard records";

/// Megatron writes each number a second time, over samples or tokens in place of steps.
const TWINS: &[&[u8]] = &[b" vs samples", b" vs tokens"];

fn recognises(head: &Head<'_>) -> bool {
    let is_named_so =
        head.path.file_name().is_some_and(|name| name.to_string_lossy().contains(".tfevents."));
    // Data sets are TFRecord files too. An `Event` begins with its time, step or version, a
    // `tf.train.Example` with another kind of field.
    let is_event = |payload: Option<&u8>| matches!(payload, Some(0x09 | 0x10 | 0x1a | 0x2a));
    is_named_so || payload_len(head.bytes).is_some() && is_event(head.bytes.get(12))
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    let mut run = Run::default();
    read_each(paths, log, |path, file, len, log| run.read(path, file, len, log))
}

/// What is known of a run over its files.
#[derive(Debug, Default)]
struct Run {
    tags: Tags<Tag>,
    buckets: Buckets,
}

#[derive(Debug, Default)]
struct Tag {
    place: Option<usize>,
    kind: Kind,
}

/// What the tensors of a tag are, as the metadata of its first record says.
#[derive(Debug, Default, Clone, Copy)]
enum Kind {
    #[default]
    Scalars,
    Histograms,
    Others,
}

/// Room for one histogram, used again for the next.
#[derive(Debug, Default)]
struct Buckets {
    limits: Vec<f64>,
    counts: Vec<f64>,
    rows: Vec<f64>,
}

impl Run {
    fn read(
        &mut self,
        path: &Path,
        stream: impl Read,
        len: u64,
        log: &mut LogBuilder,
    ) -> Result<(), ReadError> {
        if len == 0 {
            return Err(ReadError::broken(path, 0, "an empty file", WANTED));
        }
        let frames = Frames::new(stream, len);
        let read = framed::read_records(path, len, frames, WANTED, log, |event, log| {
            match self.event(event, log) {
                Ok(()) => Taken::Whole,
                Err(Malformed) => Taken::No("a record that is not an event; left out".to_owned()),
            }
        });
        self.tags.note_left_out(path, log);
        read
    }

    #[inline]
    fn event(&mut self, event: &[u8], log: &mut LogBuilder) -> Result<(), Malformed> {
        let mut moment = Point { step: 0, wall: f64::NAN, value: f64::NAN };
        let mut summary: &[u8] = &[];
        for field in fields(event) {
            match field? {
                (1, Value::Fixed64(bits)) => moment.wall = f64::from_bits(bits),
                (2, Value::Varint(step)) => moment.step = step as i64,
                (5, Value::Bytes(bytes)) => summary = bytes,
                _ => {}
            }
        }
        for field in fields(summary) {
            if let (1, Value::Bytes(value)) = field? {
                self.value(value, moment, log)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn value(
        &mut self,
        value: &[u8],
        moment: Point,
        log: &mut LogBuilder,
    ) -> Result<(), Malformed> {
        let mut tag: &[u8] = &[];
        let (mut number, mut histogram, mut tensor, mut metadata) = (None, None, None, None);
        for field in fields(value) {
            match field? {
                (1, Value::Bytes(bytes)) => tag = bytes,
                (2, Value::Fixed32(bits)) => {
                    number = Some(Number::Exact(f32::from_bits(bits).into()));
                }
                (5, Value::Bytes(bytes)) => histogram = Some(bytes),
                (8, Value::Bytes(bytes)) => tensor = Some(bytes),
                (9, Value::Bytes(bytes)) => metadata = Some(bytes),
                _ => {}
            }
        }
        if tag.is_empty() || TWINS.iter().any(|twin| tag.ends_with(twin)) {
            return Ok(());
        }
        let Some(entry) = self.tags.entry(tag) else { return Ok(()) };
        if let Some(kind) = metadata.map(kind).transpose()?.flatten() {
            entry.kind = kind;
        }
        if number.is_none() {
            number = match (histogram, tensor, entry.kind) {
                (Some(histogram), ..) => old_norm(histogram, &mut self.buckets)?,
                (_, Some(tensor), Kind::Scalars) => tensor::number(tensor)?.map(Number::Exact),
                (_, Some(tensor), Kind::Histograms) => new_norm(tensor, &mut self.buckets.rows)?,
                _ => None,
            };
        }
        if let Some(number) = number {
            number.push(&mut entry.place, tag, moment, log);
        }
        Ok(())
    }
}

/// What the plugin named in `SummaryMetadata { 1: PluginData { 1: plugin_name } }` writes.
fn kind(metadata: &[u8]) -> Result<Option<Kind>, Malformed> {
    let mut kind = None;
    for field in fields(metadata) {
        let (1, Value::Bytes(plugin)) = field? else { continue };
        for field in fields(plugin) {
            let (1, Value::Bytes(name)) = field? else { continue };
            kind = Some(match name {
                b"scalars" => Kind::Scalars,
                b"histograms" => Kind::Histograms,
                _ => Kind::Others,
            });
        }
    }
    Ok(kind)
}

/// The norm from a `HistogramProto { 1: min, 2: max, 3: num, 4: sum, 5: sum_squares,
/// 6: bucket_limit, 7: bucket }`. A field that is 0 is not written.
fn old_norm(histogram: &[u8], buckets: &mut Buckets) -> Result<Option<Number>, Malformed> {
    let Buckets { limits, counts, .. } = buckets;
    limits.clear();
    counts.clear();
    let mut sums = [None; 5];
    for field in fields(histogram) {
        match field? {
            (field @ 1..=5, Value::Fixed64(bits)) => {
                sums[field as usize - 1] = Some(f64::from_bits(bits));
            }
            (6, value) => each_fixed(value, |limit| push_bounded(limits, limit))?,
            (7, value) => each_fixed(value, |count| push_bounded(counts, count))?,
            _ => {}
        }
    }
    let [min, max, num, sum, sum_squares] = sums;
    if let Some(sum_squares) = sum_squares {
        return Ok(Some(Number::Exact(sum_squares.sqrt())));
    }
    let (Some(low), Some(high)) = (min.or(max.and(Some(0.0))), max.or(min.and(Some(0.0)))) else {
        // All of them are 0, and so are the values.
        return Ok(num.filter(|_| sum.is_none()).map(|_| Number::Exact(0.0)));
    };
    let within = |limit: f64| limit.max(low).min(high);
    let lows = std::iter::once(low).chain(limits.iter().copied());
    let bins = lows.zip(limits.iter().copied()).zip(counts.iter().copied());
    Ok(l2_norm(bins.map(|((low, high), n)| (within(low), within(high), n))).map(Number::Estimate))
}

fn push_bounded(numbers: &mut Vec<f64>, number: [u8; 8]) {
    if numbers.len() < BINS_MAX {
        numbers.push(f64::from_le_bytes(number));
    }
}

/// The norm from a tensor of rows `left, right, count`.
fn new_norm(tensor: &[u8], rows: &mut Vec<f64>) -> Result<Option<Number>, Malformed> {
    if !tensor::histogram(tensor, rows)? {
        return Ok(None);
    }
    let (rows, _) = rows.as_chunks::<{ tensor::COLUMNS }>();
    let bins = rows.iter().map(|&[left, right, count]| (left, right, count));
    Ok(l2_norm(bins).map(Number::Estimate))
}

#[cfg(test)]
mod tests {
    use super::frames::frame;
    use super::*;
    use crate::log::Log;
    use crate::readers::tests::{change, check_damage, knows, words};
    use crate::wire::write::{message, varint};
    use proptest::prelude::*;

    const FLOAT: u64 = 1;
    const DOUBLE: u64 = 2;

    fn event(step: i64, values: &[Vec<u8>]) -> Vec<u8> {
        let summary: Vec<_> = values.iter().map(|value| (1, Value::Bytes(value))).collect();
        frame(&message(&[
            (1, Value::Fixed64(1e9_f64.to_bits())),
            (2, Value::Varint(step as u64)),
            (5, Value::Bytes(&message(&summary))),
        ]))
    }

    fn version() -> Vec<u8> {
        let version = Value::Bytes(b"brain.Event:2");
        frame(&message(&[(1, Value::Fixed64(1e9_f64.to_bits())), (3, version)]))
    }

    fn scalar(tag: &str, number: f32) -> Vec<u8> {
        message(&[(1, Value::Bytes(tag.as_bytes())), (2, Value::Fixed32(number.to_bits()))])
    }

    fn metadata(plugin: &str) -> Vec<u8> {
        message(&[(1, Value::Bytes(&message(&[(1, Value::Bytes(plugin.as_bytes()))])))])
    }

    fn tensor(tag: &str, plugin: &str, dtype: u64, sizes: &[u64], content: &[u8]) -> Vec<u8> {
        let sizes: Vec<Vec<u8>> =
            sizes.iter().map(|&size| message(&[(1, Value::Varint(size))])).collect();
        let shape: Vec<_> = sizes.iter().map(|size| (2, Value::Bytes(size))).collect();
        let tensor = message(&[
            (1, Value::Varint(dtype)),
            (2, Value::Bytes(&message(&shape))),
            (4, Value::Bytes(content)),
        ]);
        let metadata = metadata(plugin);
        let mut fields = vec![(1, Value::Bytes(tag.as_bytes())), (8, Value::Bytes(&tensor))];
        if !plugin.is_empty() {
            fields.push((9, Value::Bytes(&metadata)));
        }
        message(&fields)
    }

    fn doubles(numbers: &[f64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// A histogram of `[min, max, num, sum, sum_squares]`, where 0 is not written, and its buckets.
    fn histogram(tag: &str, sums: [f64; 5], limits: &[f64], counts: &[f64]) -> Vec<u8> {
        let (limits, counts) = (doubles(limits), doubles(counts));
        let mut fields: Vec<(u32, Value<'_>)> = (1..)
            .zip(sums)
            .filter(|&(_, sum)| sum != 0.0)
            .map(|(number, sum)| (number, Value::Fixed64(sum.to_bits())))
            .collect();
        fields.extend([(6, Value::Bytes(&limits)), (7, Value::Bytes(&counts))]);
        message(&[(1, Value::Bytes(tag.as_bytes())), (5, Value::Bytes(&message(&fields)))])
    }

    fn read_bytes(files: &[Vec<u8>]) -> Result<Log, String> {
        let mut log = LogBuilder::new();
        let mut run = Run::default();
        for bytes in files {
            run.read(Path::new("a"), &bytes[..], bytes.len() as u64, &mut log)
                .map_err(|error| error.to_string())?;
        }
        Ok(log.finish())
    }

    fn check(files: &[Vec<u8>], want: &[&str]) {
        assert_eq!(words(&read_bytes(files).unwrap()), want);
    }

    #[test]
    fn what_is_damaged_is_counted() {
        let events = (0..8000).map(|step| event(step, &[scalar("loss", 2.5), scalar("lr", 1e-3)]));
        check_damage(&READER, "a.tfevents.1", &events.collect::<Vec<_>>().concat());
    }

    #[test]
    fn scalars_in_both_encodings() {
        let old = [
            version(),
            event(0, &[scalar("loss", 2.5), scalar("lr", 0.5)]),
            event(10, &[scalar("loss", f32::NAN)]),
            event(20, &[scalar("loss", f32::NEG_INFINITY), scalar("", 1.0)]),
        ];
        check(&[old.concat()], &["loss: 0=2.5 10=NaN 20=-inf", "lr: 0=0.5"]);
        let new = [
            version(),
            event(0, &[tensor("loss", "scalars", FLOAT, &[], &2.5_f32.to_le_bytes())]),
            // The metadata is in the first record of a tag only.
            event(1, &[tensor("loss", "", FLOAT, &[1], &1.5_f32.to_le_bytes())]),
            event(2, &[tensor("loss", "", DOUBLE, &[], &f64::NAN.to_le_bytes())]),
            event(3, &[tensor("loss", "", DOUBLE, &[2], &[0; 16])]),
            event(3, &[tensor("note", "text", 7, &[], b"")]),
            event(3, &[tensor("_hparams_/session", "hparams", FLOAT, &[], &[])]),
            event(-1, &[tensor("epoch", "scalars", FLOAT, &[], &[])]),
        ];
        check(&[new.concat()], &["loss: 0=2.5 1=1.5 2=NaN", "epoch: -1=0"]);
    }

    #[test]
    fn twins_over_samples_are_dropped() {
        let values = [scalar("lm loss", 3.0), scalar("lm loss vs samples", 3.0)];
        check(&[event(1, &values)], &["lm loss: 1=3"]);
    }

    #[test]
    fn norms_of_histograms() {
        let rows = doubles(&[-3.0, -1.0, 2.0, 0.5, 1.5, 1.0]);
        let limits = [-1.0, 0.5, f64::MAX];
        let events = [
            // With the sum of squares: exact.
            event(0, &[histogram("exact", [-2.0, 3.0, 4.0, 2.0, 16.0], &limits, &[1.0, 1.0, 2.0])]),
            event(1, &[histogram("exact", [0.0, 0.0, 4.0, 0.0, 0.0], &limits, &[0.0, 4.0, 0.0])]),
            event(2, &[histogram("exact", [-1.0, 1.0, 2.0, 0.0, f64::NAN], &[], &[])]),
            // Without it from the bins, within the range: sqrt(2 * 2^2 + 1 * 1^2).
            event(0, &[histogram("bins", [-3.0, 1.5, 3.0, -3.0, 0.0], &limits, &[2.0, 0.0, 1.0])]),
            event(1, &[histogram("bins", [0.0; 5], &limits, &[0.0, 0.0, 0.0])]),
            event(0, &[tensor("new", "histograms", DOUBLE, &[2, 3], &rows)]),
            event(1, &[tensor("new", "", DOUBLE, &[0, 3], &[])]),
            event(0, &[tensor("curve", "pr_curves", DOUBLE, &[2, 3], &rows)]),
            event(0, &[tensor("table", "", DOUBLE, &[2, 3], &rows)]),
        ];
        check(&[events.concat()], &["exact: 0=4 1=0 2=NaN", "bins: 0=~3", "new: 0=~3"]);
    }

    #[test]
    fn files_of_a_run_follow_each_other_and_steps_may_go_back() {
        let first = [version(), event(1, &[scalar("loss", 3.0)]), event(2, &[scalar("loss", 2.0)])];
        let second = [version(), event(2, &[scalar("loss", 2.5)])];
        check(&[first.concat(), second.concat()], &["loss: 1=3 2=2 2=2.5"]);
    }

    #[test]
    fn what_is_broken_is_left_out_and_said() {
        let good = |step| event(step, &[scalar("loss", 1.0)]);
        let record = good(1).len();
        let mut corrupt = [good(1), good(2), good(3)].concat();
        corrupt[record + 20] ^= 1;
        let left_out = format!(
            "! a at byte {record}: a record with checksum e3f51f14, want e7a715c6; left out \
             {record} bytes up to the next record"
        );
        check(&[corrupt], &["loss: 1=1 3=1", &left_out]);
        let cut = [good(1), good(2)].concat();
        let cut = cut[..record + 15].to_vec();
        let ends = format!(
            "! a at byte {record}: a record cut short by the end of the file (15 bytes of it are \
             there); everything before it is used"
        );
        check(&[cut], &["loss: 1=1", &ends]);
        let no_event = [good(1), frame(&[0x0a, 0x7f]), good(2)].concat();
        let left_out = format!("! a at byte {record}: a record that is not an event; left out");
        check(&[no_event], &["loss: 1=1 2=1", &left_out]);
    }

    #[test]
    fn a_file_without_any_record_is_an_error() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "a at byte 0: got an empty file, want TensorBoard records"),
            (
                b"not an event file",
                "a at byte 0: got bytes that are no record (the length's checksum does not fit); \
                 left out 17 bytes up to the end of the file, want TensorBoard records",
            ),
        ];
        for (bytes, want) in cases {
            assert_eq!(read_bytes(&[bytes.to_vec()]), Err((*want).to_owned()));
        }
        check(&[version()], &[]);
    }

    #[test]
    fn recognised_by_content_or_else_by_name() {
        let real = b"\x48\0\0\0\0\0\0\0\xfe\x92\x48\x9d\x09\xf6\x70\xfa\xbe\x5a";
        let example = frame(&message(&[(1, Value::Bytes(b"features"))]));
        let cases: &[(&str, &[u8], bool)] = &[
            ("a", &version(), true),
            ("a", real, true),
            ("train.tfrecord", &example, false),
            ("a", b"", false),
            ("a", &[0; 100], false),
            ("events.out.tfevents.1.host", b"", true),
            ("events.out.tfevents.1.host", &[0; 100], true),
        ];
        for (path, bytes, want) in cases {
            assert_eq!(knows(&READER, path, bytes), *want, "{path} {bytes:?}");
        }
    }

    #[test]
    fn a_run_with_a_bad_file_is_read_from_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        write("events.out.tfevents.1.a", &event(1, &[scalar("loss", 2.0)]));
        write("events.out.tfevents.2.a", b"");
        write("events.out.tfevents.3.a", &event(1, &[scalar("loss", 1.0)]));
        let (sources, errors) = crate::discover(folder.path());
        assert_eq!((sources.len(), errors.len()), (1, 0));
        let log = sources[0].read().unwrap();
        let empty = folder.path().join("events.out.tfevents.2.a");
        let notice =
            format!("! {} at byte 0: got an empty file, want TensorBoard records", empty.display());
        assert_eq!(words(&log), ["loss: 1=2 1=1", &notice]);
    }

    fn any_event() -> impl Strategy<Value = Vec<u8>> {
        let tag = prop::sample::select(vec!["loss", "grad_norm", "w"]);
        let plugin = prop::sample::select(vec!["", "scalars", "histograms"]);
        let numbers = prop::collection::vec(any::<f64>(), 0..7);
        (any::<i64>(), tag, plugin, numbers, any::<f32>()).prop_map(
            |(step, tag, plugin, numbers, number)| {
                let rows = numbers.len() as u64 / 3;
                let values = [
                    scalar(tag, number),
                    tensor(tag, plugin, DOUBLE, &[rows, 3], &doubles(&numbers)),
                    tensor(tag, plugin, FLOAT, &[], &number.to_le_bytes()),
                    histogram(tag, [0.0; 5], &numbers, &numbers),
                ];
                event(step, &values)
            },
        )
    }

    proptest! {
        #[test]
        fn every_number_of_a_good_file_is_there(
            events in prop::collection::vec(any_event(), 1..9),
        ) {
            let log = read_bytes(&[events.concat()]).unwrap();
            prop_assert_eq!(log.notices.len(), 0);
            let points: usize = log.series.iter().map(|series| series.points.len()).sum();
            prop_assert!(points >= events.len() && points <= 4 * events.len(), "{}", points);
        }

        /// Past the checksums, so that the protobuf is what is tried.
        #[test]
        fn no_changed_event_panics(
            event in any_event(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut payload = event[12..event.len() - 4].to_vec();
            change(&mut payload, &changes);
            let mut log = LogBuilder::new();
            let read = Run::default().event(&payload, &mut log);
            let points: usize = log.finish().series.iter().map(|s| s.points.len()).sum();
            prop_assert!(points <= payload.len(), "{:?}", read);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let mut log = LogBuilder::new();
            let read = Run::default().event(&bytes, &mut log);
            prop_assert!(log.finish().series.len() <= bytes.len(), "{:?}", read);
            let framed = read_bytes(&[[version(), frame(&bytes)].concat()]);
            prop_assert_eq!(framed.map(|log| log.notices.len()), Ok(read.is_err() as usize));
        }
    }

    #[test]
    fn a_long_varint_is_a_step() {
        assert_eq!(varint(-1_i64 as u64).len(), 10);
        check(&[event(i64::MIN, &[scalar("loss", 1.0)])], &[&format!("loss: {}=1", i64::MIN)]);
    }
}
