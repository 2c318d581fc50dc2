//! A quantity over the steps as a curve: loss, gradient norm, learning rate, update ratio.

use tamegrad::logs::Sample;
use tamegrad_report::number;
use tamegrad_report::number::count;

use crate::envelope::{Envelope, OffScale, envelope};
use crate::events;
use crate::figure::{Drawing, Figure, Frame, Pen, Table, Width};
use crate::scale::Scale;
use crate::steps::StepAxis;
use crate::view::RunView;

/// What a curve shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Curve<'a> {
    /// As a file.
    pub(crate) name: &'static str,
    /// Such as `Loss`.
    pub(crate) title: &'a str,
    /// What else is to be said below it.
    pub(crate) note: &'a str,
    pub(crate) samples: &'a [Sample],
    /// Whether its scale is logarithmic.
    pub(crate) is_log: bool,
}

/// Height of a lane above or below the plot for values without a place on the scale.
const LANE: f64 = 12.0;
/// Columns of a short series.
const COLUMNS_MIN: usize = 100;
/// Points up to which each has a dot.
const DOTS_MAX: usize = 60;
/// Rows of the table behind a curve.
const ROWS: usize = 24;

/// The curve as a figure; `None` where it has no point.
pub(crate) fn figure(curve: &Curve<'_>, run: &RunView<'_>) -> Option<Figure> {
    if curve.samples.is_empty() {
        return None;
    }
    let values = curve.samples.iter().map(|sample| sample.value);
    let scale = if curve.is_log { Scale::log(values) } else { Scale::linear(values) };
    let axis = run.axis();
    let drawings = [Width::Wide, Width::Narrow].map(|width| draw(curve, run, &axis, scale, width));
    Some(Figure {
        name: curve.name,
        title: curve.title.to_owned(),
        description: description(curve, run, scale),
        caption: caption(curve, scale),
        table: table(curve.samples, &axis),
        drawings,
    })
}

fn draw(
    curve: &Curve<'_>,
    run: &RunView<'_>,
    axis: &StepAxis,
    scale: Option<Scale>,
    width: Width,
) -> Drawing {
    let frame = width.frame();
    let columns = columns(&frame, curve.samples.len());
    // Where nothing is finite, the marks are all there is.
    let shown = scale.unwrap_or(Scale::Log { low: 0.0, high: 1.0 });
    let thin = envelope(curve.samples, axis, &shown, columns);
    let (mut pen, mut lanes) = (Pen::default(), Pen::default());
    let mut y = events::LABELS;
    let lines_top = y;
    for (kind, word) in [(OffScale::Inf, "Inf"), (OffScale::Nan, "NaN")] {
        y += off_lane(&mut lanes, &thin, (kind, word, "nan"), &frame, y, columns);
    }
    let top = y + 2.0;
    let bottom = top + if scale.is_some() { width.pick(180.0, 130.0) } else { 0.0 };
    y = bottom + 2.0;
    y += off_lane(&mut lanes, &thin, (OffScale::Zero, "0", "zero"), &frame, y, columns);
    y += events::lanes(&mut lanes, run, axis, &frame, y, columns);
    // What happened at the onset shall be seen: its line lies below all else.
    events::lines(&mut pen, run, axis, &frame, (lines_top, y));
    if scale.is_some() {
        pen.value_axis(&shown, &frame, (top, bottom), width.pick(6, 5));
        draw_line(&mut pen, &thin, &frame, axis, &shown, (top, bottom), "");
    }
    pen.append(lanes);
    pen.step_axis(axis, &frame, y, width);
    pen.into_drawing(frame.width, y + 22.0)
}

/// Columns of a series of so many points: of a short one fewer than pixels, so that marks of neighbours
/// touch.
pub(crate) fn columns(frame: &Frame, points: usize) -> usize {
    points.max(COLUMNS_MIN).min(frame.plot() as usize)
}

/// The lines of an envelope; `class` tells those of several runs apart.
pub(crate) fn draw_line(
    pen: &mut Pen,
    thin: &Envelope,
    frame: &Frame,
    axis: &StepAxis,
    scale: &Scale,
    (top, bottom): (f64, f64),
    class: &str,
) {
    let place = |sample: &Sample| {
        let at = scale.at(sample.value)?;
        Some((frame.x(axis.at(sample.step)), bottom - at * (bottom - top)))
    };
    let placed = |lines: &[Vec<Sample>]| -> Vec<Vec<(f64, f64)>> {
        lines.iter().map(|line| line.iter().filter_map(place).collect()).collect()
    };
    if thin.middles.is_empty() {
        pen.path(&format!("l{class}"), placed(&thin.lines));
    } else {
        pen.path(&format!("band{class}"), placed(&thin.lines));
        pen.path(&format!("l{class}"), placed(&thin.middles));
    }
    let points = thin.lines.iter().map(Vec::len).sum::<usize>();
    if points <= DOTS_MAX {
        for (x, y) in placed(&thin.lines).into_iter().flatten() {
            pen.dot(&format!("dot{class}"), (x, y), 2.0);
        }
    }
}

/// Marks of a colour where values have no place on the scale, with a word in the margin; returns their
/// height.
pub(crate) fn off_lane(
    pen: &mut Pen,
    thin: &Envelope,
    (kind, word, colour): (OffScale, &str, &str),
    frame: &Frame,
    top: f64,
    columns: usize,
) -> f64 {
    let of_kind = thin.off.iter().filter(|(of, _)| *of == kind);
    let of_kind: Vec<usize> = of_kind.map(|(_, column)| *column).collect();
    if of_kind.is_empty() {
        return 0.0;
    }
    let words = match kind {
        OffScale::Zero => "t m end".to_owned(),
        _ => format!("t b {colour} end"),
    };
    pen.text(&words, (frame.left - 8.0, top + LANE - 2.5), word);
    pen.lane(colour, frame, (top + 2.0, LANE - 4.0), of_kind, columns);
    LANE
}

fn description(curve: &Curve<'_>, run: &RunView<'_>, scale: Option<Scale>) -> String {
    let values = || curve.samples.iter().map(|sample| sample.value);
    let finite = || values().filter(|value| value.is_finite());
    let low = finite().fold(f64::INFINITY, f64::min);
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    let broken = values().count() - finite().count();
    let mut text = match (scale, curve.samples.iter().rev().find(|s| s.value.is_finite())) {
        (Some(scale), Some(last)) => format!(
            "{} over the steps, on a {} scale: from {} to {}, the last finite value {} at step {}.",
            curve.title,
            scale.kind(),
            number(low),
            number(high),
            number(last.value),
            step_of(last.step)
        ),
        _ => format!("{} over the steps: never finite.", curve.title),
    };
    if broken > 0 {
        text += &format!(" {} values are NaN or infinite.", count(broken as u64));
    }
    text + &events::words(run)
}

fn caption(curve: &Curve<'_>, scale: Option<Scale>) -> String {
    let scale = scale.map_or("", |scale| match scale {
        Scale::Linear { .. } => "",
        Scale::Log { .. } => "Logarithmic scale.",
        Scale::Signed { .. } => "Logarithmic scale on both sides of zero.",
    });
    [scale, curve.note].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The series in equal ranges of steps.
pub(crate) fn table(samples: &[Sample], axis: &StepAxis) -> Table {
    let head = ["steps", "points", "smallest", "median", "largest", "NaN or Inf"];
    let mut by_row: Vec<Vec<&Sample>> = vec![Vec::new(); ROWS];
    for sample in samples {
        if let Some(values) = axis.column(sample.step, ROWS).and_then(|row| by_row.get_mut(row)) {
            values.push(sample);
        }
    }
    let rows = by_row.iter().filter(|values| !values.is_empty()).map(|values| {
        let mut finite: Vec<f64> =
            values.iter().map(|sample| sample.value).filter(|value| value.is_finite()).collect();
        finite.sort_by(f64::total_cmp);
        let steps = values.iter().map(|sample| sample.step);
        let (first, last) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
        let at = |place: Option<&f64>| place.map_or("–".to_owned(), |value| number(*value));
        vec![
            if first == last {
                step_of(first)
            } else {
                format!("{}–{}", step_of(first), step_of(last))
            },
            count(values.len() as u64),
            at(finite.first()),
            at(finite.get(finite.len() / 2)),
            at(finite.last()),
            match values.len() - finite.len() {
                0 => "–".to_owned(),
                broken => count(broken as u64),
            },
        ]
    });
    Table { head: head.map(str::to_owned).to_vec(), rows: rows.collect() }
}

/// A step with a comma between thousands.
pub(crate) fn step_of(step: i64) -> String {
    let sign = if step < 0 { "−" } else { "" };
    format!("{sign}{}", count(step.unsigned_abs()))
}
