//! Several runs in one figure.

use tamegrad::logs::Sample;
use tamegrad_report::number;

use crate::curve::{columns, draw_line, off_lane, step_of};
use crate::envelope::{OffScale, envelope};
use crate::figure::{Drawing, Figure, Pen, Table, Width, shortened};
use crate::scale::Scale;
use crate::steps::StepAxis;

/// Runs that one figure holds.
pub(crate) const RUNS_MAX: usize = 8;

/// A run's name and the series that is compared.
pub(crate) type Named<'a> = (&'a str, &'a [Sample]);

/// The same series of several runs, a colour each; `None` where none has a point.
pub(crate) fn figure(name: &'static str, title: &str, runs: &[Named<'_>]) -> Option<Figure> {
    let values = runs.iter().flat_map(|(_, samples)| samples.iter().map(|sample| sample.value));
    let scale = Scale::log(values)?;
    let axis = StepAxis::of(runs.iter().map(|(_, samples)| *samples));
    let drawings = [Width::Wide, Width::Narrow].map(|width| draw(runs, &axis, &scale, width));
    let names: Vec<&str> = runs.iter().map(|(name, _)| *name).collect();
    Some(Figure {
        name,
        title: title.to_owned(),
        description: format!(
            "{title} over the steps, on a {} scale, of these runs: {}.",
            scale.kind(),
            names.join(", ")
        ),
        caption: "Logarithmic scale; marks above show where a run is NaN or infinite.".to_owned(),
        table: table(runs),
        drawings,
    })
}

fn draw(runs: &[Named<'_>], axis: &StepAxis, scale: &Scale, width: Width) -> Drawing {
    let frame = width.frame();
    let longest = runs.iter().map(|(_, samples)| samples.len()).max().unwrap_or(0);
    let columns = columns(&frame, longest);
    let mut pen = Pen::default();
    let mut x = frame.left;
    let mut y = 12.0;
    let most = width.pick(30, 22);
    for (index, (name, _)) in runs.iter().enumerate() {
        let words = shortened(name, most);
        let room = 26.0 + 6.8 * words.chars().count() as f64;
        if x > frame.left && x + room > frame.right {
            (x, y) = (frame.left, y + 17.0);
        }
        pen.line(&format!("l run c{index}"), (x, y - 4.0), (x + 16.0, y - 4.0));
        pen.text(&format!("t b run c{index} start"), (x + 21.0, y), &words);
        x += room + 14.0;
    }
    y += 10.0;
    let envelopes: Vec<_> =
        runs.iter().map(|(_, samples)| envelope(samples, axis, scale, columns)).collect();
    for (index, thin) in envelopes.iter().enumerate() {
        for (kind, word) in [(OffScale::Inf, "Inf"), (OffScale::Nan, "NaN")] {
            let colour = format!("run c{index}");
            y += off_lane(&mut pen, thin, (kind, word, &colour), &frame, y, columns);
        }
    }
    let (top, bottom) = (y + 2.0, y + 2.0 + width.pick(220.0, 160.0));
    pen.value_axis(scale, &frame, (top, bottom), width.pick(6, 5));
    for (index, thin) in envelopes.iter().enumerate() {
        draw_line(&mut pen, thin, &frame, axis, scale, (top, bottom), &format!(" run c{index}"));
    }
    pen.step_axis(axis, &frame, bottom, width);
    pen.into_drawing(frame.width, bottom + 22.0)
}

fn table(runs: &[Named<'_>]) -> Table {
    let head = ["run", "points", "first", "smallest", "largest", "last", "first NaN or Inf"];
    let rows = runs.iter().map(|(name, samples)| {
        let finite = || samples.iter().map(|s| s.value).filter(|value| value.is_finite());
        let value = |value: Option<f64>| value.map_or("–".to_owned(), number);
        let broken = samples.iter().find(|sample| !sample.value.is_finite());
        vec![
            (*name).to_owned(),
            samples.len().to_string(),
            value(samples.first().map(|sample| sample.value)),
            value(finite().reduce(f64::min)),
            value(finite().reduce(f64::max)),
            value(samples.last().map(|sample| sample.value)),
            broken.map_or("–".to_owned(), |sample| step_of(sample.step)),
        ]
    });
    Table { head: head.map(str::to_owned).to_vec(), rows: rows.collect() }
}
