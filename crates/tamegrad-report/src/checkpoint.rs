//! The tensors of a checkpoint: as a table for the terminal, and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::json::number as json_number;
use crate::number::{count, counted, number};
use crate::style::{Style, Tone};
use crate::table;
use crate::text::{join, printable, wrap};

/// Rows of sound tensors that the table has unless all are asked for.
const SOUND_MAX: usize = 20;
/// Names in a line that tells of several tensors.
const NAMES_MAX: usize = 3;

/// A checkpoint as scanned: one file, or several shards.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointReport {
    /// What was scanned.
    pub path: String,
    /// The tensors that were scanned, in the order of the file.
    pub tensors: Vec<ScannedTensor>,
    /// Names of the tensors that hold NaN or infinity.
    pub broken: Vec<String>,
    /// The tensors of types that are not scanned.
    pub not_scanned: Vec<UnscannedTensor>,
    /// What could not be read, with file and place.
    pub notices: Vec<String>,
}

/// The statistics of one tensor; norm, maximum and mean are over its finite elements.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScannedTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements, such as `BF16`.
    pub dtype: String,
    /// Its shape; empty for a single number.
    pub shape: Vec<u64>,
    /// Elements.
    pub len: u64,
    /// L2 norm.
    pub l2: f64,
    /// Largest magnitude.
    pub max_abs: f64,
    /// Mean.
    pub mean: f64,
    /// Elements that are not a number.
    pub nans: u64,
    /// Elements that are infinite.
    pub infs: u64,
    /// Elements that are exactly 0.
    pub zeros: u64,
    /// Powers of 2 between the largest magnitude and the largest number of the type; infinite if
    /// there is nothing but zeros.
    #[serde(with = "json_number::optional")]
    pub headroom_log2: Option<f64>,
}

/// A tensor of a type that is not scanned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnscannedTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements, such as `I64`.
    pub dtype: String,
    /// Its shape; empty for a single number.
    pub shape: Vec<u64>,
}

impl CheckpointReport {
    /// The report; which tensors are broken is found here.
    pub fn new(
        path: String,
        tensors: Vec<ScannedTensor>,
        not_scanned: Vec<UnscannedTensor>,
        notices: Vec<String>,
    ) -> Self {
        let broken = tensors.iter().filter(|tensor| tensor.is_broken());
        let broken = broken.map(|tensor| tensor.name.clone()).collect();
        Self { path, tensors, broken, not_scanned, notices }
    }
}

impl ScannedTensor {
    fn is_broken(&self) -> bool {
        self.nans > 0 || self.infs > 0
    }
}

/// The report for the terminal: broken tensors first and all of them, then the sound ones, those
/// with the least headroom first and at most 20 unless `all` are wanted. Every line ends with a
/// line break; names are in the last column, whole, with control characters spelled out.
pub fn text(report: &CheckpointReport, all: bool, style: &Style) -> String {
    let mut lines = vec![heading(report, style)];
    let (broken, mut sound): (Vec<&ScannedTensor>, Vec<&ScannedTensor>) =
        report.tensors.iter().partition(|tensor| tensor.is_broken());
    let headroom = |tensor: &ScannedTensor| tensor.headroom_log2.unwrap_or(f64::INFINITY);
    sound.sort_by(|a, b| headroom(a).total_cmp(&headroom(b)));
    let shown = if all { sound.len() } else { sound.len().min(SOUND_MAX) };
    if !report.tensors.is_empty() {
        let rows = broken.iter().chain(&sound[..shown]).map(|tensor| row(tensor, style));
        let rows: Vec<Vec<String>> = std::iter::once(titles(style)).chain(rows).collect();
        // No column wraps: a name that is broken into lines cannot be copied.
        lines.extend(table::columns(&rows, usize::MAX, style.line()));
    }
    if shown < sound.len() {
        let more = counted((sound.len() - shown) as u64, "more finite tensor");
        lines.push(style.paint(Tone::Quiet, &format!("and {more}; list them with --all")));
    }
    lines.extend(not_scanned(report, style));
    for notice in &report.notices {
        lines.extend(wrap(&printable(notice), "not read: ", style.line()));
    }
    join(lines)
}

fn heading(report: &CheckpointReport, style: &Style) -> String {
    let path = printable(&report.path);
    let tensors = counted(report.tensors.len() as u64, "tensor");
    let (tone, said) = match (report.broken.len(), report.tensors.len()) {
        (0, 0) => (Tone::Strain, "no tensor was scanned".to_owned()),
        (0, _) if report.notices.is_empty() => (Tone::Good, format!("{tensors}, all finite")),
        (0, _) => (Tone::Strain, format!("{tensors}, all finite, but some could not be read")),
        (1, _) => (Tone::Alarm, format!("1 of {tensors} holds NaN or Inf")),
        (broken, _) => {
            (Tone::Alarm, format!("{} of {tensors} hold NaN or Inf", count(broken as u64)))
        }
    };
    format!("{path}: {}", style.paint(tone, &said))
}

fn titles(style: &Style) -> Vec<String> {
    ["", "norm", "max", "NaN", "Inf", "zeros", "headroom", "dtype", "shape", "tensor"]
        .map(|title| style.paint(Tone::Heading, title))
        .to_vec()
}

fn row(tensor: &ScannedTensor, style: &Style) -> Vec<String> {
    let mark =
        |text: String, is_bad: bool| if is_bad { style.paint(Tone::Alarm, &text) } else { text };
    vec![
        mark("!".repeat(tensor.is_broken().into()), true),
        number(tensor.l2),
        number(tensor.max_abs),
        mark(count(tensor.nans), tensor.nans > 0),
        mark(count(tensor.infs), tensor.infs > 0),
        percent(tensor.zeros, tensor.len),
        headroom(tensor.headroom_log2),
        printable(&tensor.dtype).into_owned(),
        shape(&tensor.shape),
        mark(printable(&tensor.name).into_owned(), tensor.is_broken()),
    ]
}

fn percent(part: u64, whole: u64) -> String {
    if part == 0 {
        return "0%".into();
    }
    format!("{}%", number(part as f64 / whole as f64 * 100.0))
}

/// As a power of 2, rounded down: below `2^1` a value of twice the size would overflow.
fn headroom(log2: Option<f64>) -> String {
    match log2 {
        Some(log2) if log2.is_finite() => format!("2^{}", log2.floor()),
        _ => "-".into(),
    }
}

fn shape(shape: &[u64]) -> String {
    /// Sizes that are written out.
    const SIZES_MAX: usize = 8;
    if shape.is_empty() {
        return "scalar".into();
    }
    let sizes: Vec<String> = shape.iter().take(SIZES_MAX).map(u64::to_string).collect();
    let more = if shape.len() > SIZES_MAX { "×…" } else { "" };
    format!("{}{more}", sizes.join("×"))
}

/// A line or more for each type that is not scanned.
fn not_scanned(report: &CheckpointReport, style: &Style) -> Vec<String> {
    let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for tensor in &report.not_scanned {
        types.entry(&tensor.dtype).or_default().push(&tensor.name);
    }
    let line = |(dtype, names): (&str, Vec<&str>)| {
        let total = counted(names.len() as u64, "tensor");
        let mut shown: Vec<String> =
            names.iter().take(NAMES_MAX).map(|name| printable(name).into_owned()).collect();
        if names.len() > NAMES_MAX {
            shown.push("…".into());
        }
        let text = format!("{total} of {}: {}", printable(dtype), shown.join(", "));
        wrap(&text, "not scanned: ", style.line())
    };
    types.into_iter().flat_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::keys;

    fn tensor(name: &str, max_abs: f64, headroom_log2: f64) -> ScannedTensor {
        ScannedTensor {
            name: name.into(),
            dtype: "F16".into(),
            shape: vec![16, 8],
            len: 128,
            l2: 2.0 * max_abs,
            max_abs,
            mean: 0.0,
            nans: 0,
            infs: 0,
            zeros: 0,
            headroom_log2: Some(headroom_log2),
        }
    }

    fn unscanned(name: &str, dtype: &str) -> UnscannedTensor {
        UnscannedTensor { name: name.into(), dtype: dtype.into(), shape: vec![2] }
    }

    fn report(tensors: Vec<ScannedTensor>) -> CheckpointReport {
        CheckpointReport::new("m.safetensors".into(), tensors, vec![], vec![])
    }

    fn check(report: &CheckpointReport, want: &str) {
        let shown = text(report, false, &Style::plain(100));
        assert_eq!(shown.trim_end(), want.trim(), "\n{shown}");
    }

    /// Broken and sound tensors, some not scanned, some not read.
    fn mixed() -> CheckpointReport {
        let empty = ScannedTensor {
            shape: vec![],
            len: 1,
            zeros: 1,
            ..tensor("scale", 0.0, f64::INFINITY)
        };
        let nan = ScannedTensor { nans: 1500, zeros: 1, len: 3000, ..tensor("head", 1.0, 15.99) };
        let inf = ScannedTensor { infs: 2, dtype: "BF16".into(), ..tensor("tail", 0.25, 130.0) };
        let mut report = report(vec![empty, tensor("a", 0.5, 16.99), nan, inf]);
        report.tensors.push(tensor("near\x1b[2J", 65504.0, 0.0));
        report.not_scanned = ["i", "j", "k", "l"].map(|name| unscanned(name, "I64")).to_vec();
        report.not_scanned.insert(1, unscanned("w", "F8_E4M3"));
        report.notices = vec!["m.safetensors at byte 9: the file ends here".into()];
        report
    }

    #[test]
    fn broken_tensors_come_first_then_the_least_headroom() {
        check(
            &mixed(),
            r"
m.safetensors: 2 of 5 tensors hold NaN or Inf
   norm     max     NaN    Inf  zeros    headroom  dtype  shape   tensor
!  2        1       1,500  0    0.0333%  2^15      F16    16×8    head
!  0.5      0.25    0      2    0%       2^130     BF16   16×8    tail
   131,008  65,504  0      0    0%       2^0       F16    16×8    near\u{1b}[2J
   1        0.5     0      0    0%       2^16      F16    16×8    a
   0        0       0      0    100%     -         F16    scalar  scale
not scanned: 1 tensor of F8_E4M3: w
not scanned: 4 tensors of I64: i, j, k, …
not read: m.safetensors at byte 9: the file ends here
",
        );
    }

    #[test]
    fn the_heading_says_how_it_is() {
        let sound = report(vec![tensor("a", 1.0, 15.0)]);
        let nan = report(vec![ScannedTensor { nans: 1, ..tensor("a", 1.0, 15.0) }]);
        let cut = CheckpointReport { notices: vec!["cut".into()], ..sound.clone() };
        for (report, want) in [
            (&sound, "m.safetensors: 1 tensor, all finite"),
            (&nan, "m.safetensors: 1 of 1 tensor holds NaN or Inf"),
            (&cut, "m.safetensors: 1 tensor, all finite, but some could not be read"),
            (&report(vec![]), "m.safetensors: no tensor was scanned"),
        ] {
            let shown = text(report, false, &Style::plain(100));
            assert_eq!(shown.lines().next(), Some(want));
        }
    }

    #[test]
    fn sound_rows_are_bounded_and_broken_ones_are_not() {
        let sound = (0..25).map(|i| tensor(&format!("sound{i}"), 1.0, f64::from(25 - i)));
        let broken =
            (0..30).map(|i| ScannedTensor { infs: 1, ..tensor(&format!("broken{i}"), 1.0, 1.0) });
        let report = report(sound.chain(broken).collect());
        let rows = |all, word: &str| {
            let shown = text(&report, all, &Style::plain(100));
            shown.lines().filter(|line| line.contains(word)).count()
        };
        assert_eq!((rows(false, "  broken"), rows(false, "  sound")), (30, 20));
        assert_eq!((rows(true, "  broken"), rows(true, "  sound")), (30, 25));
        let shown = text(&report, false, &Style::plain(100));
        assert!(shown.ends_with("and 5 more finite tensors; list them with --all\n"), "{shown}");
        assert!(!shown.contains("sound4\n"), "those with the most headroom are left out: {shown}");
    }

    #[test]
    fn long_shapes_end_early() {
        for (sizes, want) in [
            (&[][..], "scalar"),
            (&[0], "0"),
            (&[1, 2, 3, 4, 5, 6, 7, 8], "1×2×3×4×5×6×7×8"),
            (&[1; 9], "1×1×1×1×1×1×1×1×…"),
        ] {
            assert_eq!(shape(sizes), want);
        }
    }

    #[test]
    fn colours_mark_what_is_broken() {
        let nan = report(vec![ScannedTensor { nans: 3, ..tensor("a", 1.0, 15.0) }]);
        let shown = text(&nan, false, &Style { colour: true, width: 100 });
        let row = shown.lines().last().unwrap();
        assert_eq!(row.matches("\x1b[1;31m").count(), 3, "mark, count and name: {row:?}");
    }

    #[test]
    fn json_has_every_number() {
        let json = serde_json::to_value(mixed()).unwrap();
        assert_eq!(keys(&json), "broken not_scanned notices path tensors");
        assert_eq!(
            keys(&json["tensors"][0]),
            "dtype headroom_log2 infs l2 len max_abs mean name nans shape zeros"
        );
        assert_eq!(json["tensors"][0]["headroom_log2"], "Infinity");
        assert_eq!(json["tensors"][1]["headroom_log2"], 16.99);
        assert_eq!(json["broken"], serde_json::json!(["head", "tail"]));
        let not_scanned = serde_json::json!({"name": "w", "dtype": "F8_E4M3", "shape": [2]});
        assert_eq!(json["not_scanned"][1], not_scanned);
    }
}
