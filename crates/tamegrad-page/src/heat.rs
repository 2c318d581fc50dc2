//! A quantity of many tensors over the steps as a heat map.

use tamegrad::Place;
use tamegrad::logs::Sample;
use tamegrad_report::number;
use tamegrad_report::number::count;

use crate::curve::step_of;
use crate::events;
use crate::figure::{Drawing, Figure, Frame, Pen, Table, Width, px, shared_prefix, shortened};
use crate::grid::Grid;
use crate::order::{Order, ordered};
use crate::ramp::{Cell, LEVELS, data_url};
use crate::steps::StepAxis;
use crate::view::RunView;

/// Rows up to which each tensor has its own; beyond, neighbours share one.
const ROWS_MAX: usize = 240;
/// Pixels between two names.
const NAME_HEIGHT: f64 = 12.5;
/// Pixels of a column at least, so that one of them survives where the page shrinks the figure.
const COLUMN_WIDTH: f64 = 2.0;

/// What a heat map shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heat<'a> {
    /// As a file.
    pub(crate) name: &'static str,
    /// Such as `Gradient norm by tensor`.
    pub(crate) title: &'a str,
    /// What a cell shows, such as `gradient norm`.
    pub(crate) what: &'a str,
    pub(crate) tensors: &'a [(String, Vec<Sample>)],
}

/// The heat map as a figure; `None` where there is no tensor.
pub(crate) fn figure(heat: &Heat<'_>, run: &RunView<'_>) -> Option<Figure> {
    if heat.tensors.iter().all(|(_, samples)| samples.is_empty()) {
        return None;
    }
    let names: Vec<&str> = heat.tensors.iter().map(|(name, _)| &name[..]).collect();
    let (places, order) = ordered(&names, run.log.diagnosis);
    let per_row = places.len().div_ceil(ROWS_MAX);
    let rows: Vec<Row<'_>> = places
        .chunks(per_row)
        .map(|places| Row {
            name: names[places[0]],
            others: places.len() - 1,
            series: places.iter().map(|place| &heat.tensors[*place].1[..]).collect(),
            is_origin: places.iter().any(|place| is_origin(names[*place], run)),
        })
        .collect();
    let axis = run.axis();
    let shared = shared_prefix(&names);
    let drawings = [Width::Wide, Width::Narrow].map(|width| draw(&rows, run, &axis, shared, width));
    Some(Figure {
        name: heat.name,
        title: heat.title.to_owned(),
        description: description(heat, &rows, run),
        caption: caption(heat, per_row, order, shared),
        table: table(&places, heat.tensors),
        drawings,
    })
}

/// A row of the heat map.
struct Row<'a> {
    name: &'a str,
    /// Tensors in it beside the first.
    others: usize,
    series: Vec<&'a [Sample]>,
    is_origin: bool,
}

/// Whether the explosion began in this tensor, or in the layer that it is of.
fn is_origin(tensor: &str, run: &RunView<'_>) -> bool {
    let found = run.log.diagnosis;
    let Some(origin) = &found.origin else { return false };
    let own = found.names.name(origin.place);
    let layer = origin.layer().and_then(|layer| found.names.name(Place::Layer(layer)));
    let is_in = |layer: &str| {
        let layer = layer.split('@').next().unwrap_or(layer);
        tensor.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match origin.place {
        Place::Tensor(_) => own == Some(tensor),
        _ => layer.is_some_and(is_in),
    }
}

fn draw(
    rows: &[Row<'_>],
    run: &RunView<'_>,
    axis: &StepAxis,
    shared: &str,
    width: Width,
) -> Drawing {
    let frame = width.frame();
    let series: Vec<Vec<&[Sample]>> = rows.iter().map(|row| row.series.clone()).collect();
    let grid = Grid::of(&series, axis, (frame.plot() / COLUMN_WIDTH) as usize);
    let row_height = (width.pick(480.0, 400.0) / rows.len() as f64).clamp(2.0, 18.0);
    let height = row_height * rows.len() as f64;
    let top = events::LABELS;
    let mut pen = Pen::default();
    let (x, y) = (px(frame.left), px(top));
    pen.rect("empty", (frame.left, top), (frame.plot(), height));
    pen.raw(&format!(
        r#"<image class="heat" x="{x}" y="{y}" width="{}" height="{}" preserveAspectRatio="none" href="{}"></image>"#,
        px(frame.plot()),
        px(height),
        data_url(&grid.cells, grid.columns)
    ));
    names(&mut pen, rows, shared, &frame, (top, row_height), width);
    let mut y = top + height + 2.0;
    let mut lanes = Pen::default();
    y += events::lanes(&mut lanes, run, axis, &frame, y, grid.columns);
    pen.step_axis(axis, &frame, y, width);
    // Beside the map alone, for the column at the onset to be seen.
    events::lines(&mut pen, run, axis, &frame, (top, top));
    pen.append(lanes);
    y += 34.0;
    let rows = legend(&mut pen, &grid, &frame, y, width);
    pen.into_drawing(frame.width, y + 16.0 * rows)
}

/// Names of rows in the left margin, as many as there is room for, and always those of the origin.
fn names(
    pen: &mut Pen,
    rows: &[Row<'_>],
    shared: &str,
    frame: &Frame,
    (top, row_height): (f64, f64),
    width: Width,
) {
    let middle = |row: usize| top + row_height * (row as f64 + 0.5);
    let origins: Vec<usize> =
        rows.iter().enumerate().filter(|(_, row)| row.is_origin).map(|(index, _)| index).collect();
    let (small, most) = width.pick(("", 22), (" s", 15));
    for run in origins.chunk_by(|a, b| a + 1 == *b) {
        let (first, last) = (run[0] as f64, run[run.len() - 1] as f64);
        let y = top + row_height * first;
        pen.rect("origin", (frame.left - 5.0, y), (3.0, row_height * (last - first + 1.0)));
    }
    let own = |row: &Row<'_>, most| shortened(&row.name[shared.len()..], most);
    let label = |row: &Row<'_>| match row.others {
        0 => own(row, most),
        others => format!("{} +{others}", own(row, most - 4)),
    };
    let mut taken: Vec<f64> = Vec::new();
    let is_free = |taken: &[f64], y: f64| taken.iter().all(|at| (at - y).abs() >= NAME_HEIGHT);
    for &row in &origins {
        if is_free(&taken, middle(row)) {
            taken.push(middle(row));
            let class = format!("t b{small} onset-t end");
            pen.text(&class, (frame.left - 9.0, middle(row) + 3.5), &label(&rows[row]));
        }
    }
    let ends = [0, rows.len() - 1];
    for row in ends.into_iter().chain(0..rows.len()) {
        if is_free(&taken, middle(row)) && !rows[row].is_origin {
            taken.push(middle(row));
            let class = format!("t m{small} end");
            pen.text(&class, (frame.left - 9.0, middle(row) + 3.5), &label(&rows[row]));
        }
    }
}

/// The colours and what they mean, from `y` on; returns its number of lines.
fn legend(pen: &mut Pen, grid: &Grid, frame: &Frame, y: f64, width: Width) -> f64 {
    let mut x = frame.left;
    if let Some((low, high)) = grid.range {
        let swatch = width.pick(3.0, 2.0);
        let marks = [
            format!("{}{}", if grid.clipped.0 { "≤ " } else { "" }, number(low)),
            format!("{}{}", if grid.clipped.1 { "≥ " } else { "" }, number(high)),
        ];
        pen.text("t m start", (x, y + 9.0), &marks[0]);
        x += 6.6 * marks[0].chars().count() as f64 + 6.0;
        for level in 0..LEVELS {
            pen.raw(&format!(
                r#"<rect class="heat" x="{}" y="{}" width="{}" height="10" fill="{}"></rect>"#,
                px(x),
                px(y),
                // A little more, so that no line shows between two.
                px(swatch + 0.4),
                Cell::Level(level).hex()
            ));
            x += swatch;
        }
        pen.text("t m start", (x + 6.0, y + 9.0), &marks[1]);
        x += 6.6 * marks[1].chars().count() as f64 + 26.0;
    }
    let others = [(Cell::Broken, "NaN or Inf"), (Cell::Zero, "0"), (Cell::Empty, "not logged")];
    let others: Vec<_> = others.into_iter().filter(|(cell, _)| grid.has(*cell)).collect();
    if others.is_empty() {
        return 1.0;
    }
    let (x, y, rows) = width.pick((x, y, 1.0), (frame.left, y + 18.0, 2.1));
    let mut x = x;
    for (cell, words) in others {
        let class = if cell == Cell::Empty { "swatch empty" } else { "swatch heat" };
        pen.raw(&format!(
            r#"<rect class="{class}" x="{}" y="{}" width="10" height="10" fill="{}"></rect>"#,
            px(x),
            px(y),
            cell.hex()
        ));
        pen.text("t m start", (x + 15.0, y + 9.0), words);
        x += 15.0 + 6.4 * words.chars().count() as f64 + 16.0;
    }
    rows
}

fn description(heat: &Heat<'_>, rows: &[Row<'_>], run: &RunView<'_>) -> String {
    let tensors = heat.tensors.len() as u64;
    let broken = heat
        .tensors
        .iter()
        .filter(|(_, samples)| samples.iter().any(|sample| !sample.value.is_finite()));
    let mut text = format!(
        "A heat map of the {} of {} tensors, a row each, over the steps, on a logarithmic scale.",
        heat.what,
        count(tensors)
    );
    match broken.count() as u64 {
        0 => {}
        1 => text += " One of them is NaN or infinite at some step.",
        more => text += &format!(" {} of them are NaN or infinite at some step.", count(more)),
    }
    let origins: Vec<&str> = rows.iter().filter(|row| row.is_origin).map(|row| row.name).collect();
    if let Some(first) = origins.first() {
        text += &format!(" The origin is marked: {first}.");
    }
    text + &events::words(run)
}

fn caption(heat: &Heat<'_>, per_row: usize, order: Order, shared: &str) -> String {
    let order = match order {
        Order::Executed => "Tensors in the order in which their layers ran",
        Order::Logged => "Tensors in the order of the log",
        Order::Named => "Tensors by name",
    };
    let prefix = match shared {
        "" => String::new(),
        shared => format!(" All names begin with {shared}"),
    };
    let shared = match per_row {
        1 => String::new(),
        more => format!(" A row holds {more} neighbours and shows the largest of them."),
    };
    format!(
        "{order}, from the top. A cell shows the largest {} of its steps; between two steps that \
         were logged, the larger of both.{shared}{prefix}",
        heat.what
    )
}

fn table(places: &[usize], tensors: &[(String, Vec<Sample>)]) -> Table {
    let head = ["tensor", "first", "median", "largest", "at step", "last", "first NaN or Inf"];
    let rows = places.iter().map(|place| {
        let (name, samples) = &tensors[*place];
        let mut finite: Vec<Sample> =
            samples.iter().copied().filter(|sample| sample.value.is_finite()).collect();
        let value = |sample: Option<&Sample>| {
            sample.map_or("–".to_owned(), |sample| number(sample.value))
        };
        let (first, last) = (value(samples.first()), value(samples.last()));
        finite.sort_by(|a, b| a.value.total_cmp(&b.value));
        let step = |sample: Option<&Sample>| {
            sample.map_or("–".to_owned(), |sample| step_of(sample.step))
        };
        vec![
            name.clone(),
            first,
            value(finite.get(finite.len() / 2)),
            value(finite.last()),
            step(finite.last()),
            last,
            step(samples.iter().find(|sample| !sample.value.is_finite())),
        ]
    });
    Table { head: head.map(str::to_owned).to_vec(), rows: rows.collect() }
}
