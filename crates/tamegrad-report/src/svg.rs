//! The scale of the signal and of the gradient, layer by layer, as an SVG picture.

use tamegrad::Preflight;
use tamegrad::preflight::{Direction, headroom_min};

use crate::chain;
use crate::number::{counted, number};
use crate::picture::{Series, decades};
use crate::text::escaped;

/// Size of the picture, in pixels.
const SIZE: (f64, f64) = (960.0, 540.0);
/// The part of it that the axes enclose: left, top, right, bottom.
const PLOT: (f64, f64, f64, f64) = (80.0, 96.0, 936.0, 420.0);
/// Lines of the grid at most, each at a power of ten.
const GRID_MAX: usize = 8;
/// Marked layers that are named, those whose gains are furthest from 1.
const NAMED_MAX: usize = 24;
/// Names nearer to each other than this many pixels are left out.
const NAME_DISTANCE: f64 = 14.0;
const SIGNAL: &str = "#1f5fa8";
const GRADIENT: &str = "#b8321f";

/// A model before its first update as a picture: layers from left to right, sizes upward on a
/// logarithmic scale. One line is the RMS of each output, the other the norm of the gradient that
/// comes back to it. Layers with an unusual gain are dots with a name, what is not finite a cross
/// at the upper edge, and the largest number of the dtype is a line when something is near it.
///
/// The SVG file is complete in itself: no script, no style sheet and no font from elsewhere.
pub fn svg(seen: &Preflight, title: &str) -> String {
    let plot = Plot::new(seen);
    let (width, height) = SIZE;
    let mut lines = vec![
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="sans-serif" font-size="13">"#
        ),
        format!("<title>{}</title>", escaped(title)),
        format!(r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##),
        text(PLOT.0, 26.0, r##"font-size="16" font-weight="bold""##, title),
    ];
    lines.extend(legend(seen));
    lines.extend(plot.axes());
    lines.extend(plot.end_of_type());
    lines.extend(plot.line(&plot.series.signal, SIGNAL, ""));
    lines.extend(plot.line(&plot.series.gradient, GRADIENT, r#" stroke-dasharray="7 3""#));
    lines.extend(plot.names(seen));
    lines.push("</svg>".into());
    lines.join("\n") + "\n"
}

/// What the lines are, and what the gains multiply to.
fn legend(seen: &Preflight) -> Vec<String> {
    let entry = |y: f64, colour: &str, what: &str, direction| {
        let product = seen.product(direction).map_or_else(String::new, |(product, layers)| {
            let layers = counted(layers as u64, "layer");
            format!("; gains multiply to {} over {layers}", number(product))
        });
        text(PLOT.0, y, &format!(r#"fill="{colour}""#), &format!("{what}{product}"))
    };
    vec![
        entry(52.0, SIGNAL, "forward (solid line): RMS of the output", Direction::Forward),
        entry(
            72.0,
            GRADIENT,
            "backward (dashed): norm of the gradient with respect to the output",
            Direction::Backward,
        ),
    ]
}

struct Plot {
    series: Series,
    /// Decades at the lower and the upper edge.
    low: f64,
    high: f64,
    /// The largest number of the dtype, when something is near it.
    end: Option<f64>,
}

impl Plot {
    fn new(seen: &Preflight) -> Self {
        let series = Series::of(seen);
        let is_near = seen.overflow.is_some()
            || seen
                .headroom_bits
                .zip(seen.dtype_max)
                .is_some_and(|(bits, max)| bits < headroom_min(max));
        let end = seen.dtype_max.filter(|_| is_near);
        let shown = series.signal.iter().chain(&series.gradient).chain([&end]);
        let (low, high) = decades(shown).unwrap_or((-0.5, 0.5));
        let margin = 0.04 * (high - low);
        Self { series, low: low - margin, high: high + margin, end }
    }

    /// Pixels from the left of a layer.
    fn x(&self, index: usize) -> f64 {
        let steps = self.series.names.len().saturating_sub(1);
        let part = if steps == 0 { 0.5 } else { index as f64 / steps as f64 };
        PLOT.0 + part * (PLOT.2 - PLOT.0)
    }

    /// Pixels from the top of a number of decades.
    fn y(&self, decade: f64) -> f64 {
        PLOT.3 - (decade - self.low) / (self.high - self.low) * (PLOT.3 - PLOT.1)
    }

    fn axes(&self) -> Vec<String> {
        let (left, top, right, bottom) = PLOT;
        let mut lines = vec![format!(
            r##"<rect x="{left}" y="{top}" width="{}" height="{}" fill="none" stroke="#888888"/>"##,
            right - left,
            bottom - top
        )];
        for decade in self.grid() {
            let y = self.y(decade);
            lines.push(format!(
                r##"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#dddddd"/>"##
            ));
            let label = number(10f64.powf(decade));
            lines.push(text(left - 8.0, y + 4.0, r#"text-anchor="end""#, &label));
        }
        lines
    }

    /// Whole decades, at most [`GRID_MAX`] of them.
    fn grid(&self) -> Vec<f64> {
        let (first, last) = (self.low.ceil(), self.high.floor());
        let step = ((last - first + 1.0) / GRID_MAX as f64).ceil().max(1.0);
        std::iter::successors(Some(first), |decade| Some(decade + step))
            .take_while(|decade| *decade <= last)
            .collect()
    }

    fn end_of_type(&self) -> Vec<String> {
        let Some(end) = self.end else { return Vec::new() };
        let y = self.y(end.log10());
        let label = format!("largest number of the type: {}", number(end));
        vec![
            format!(
                r##"<line class="end" x1="{}" y1="{y:.1}" x2="{}" y2="{y:.1}" stroke="#444444" stroke-dasharray="2 3"/>"##,
                PLOT.0, PLOT.2
            ),
            text(PLOT.2, y - 6.0, r#"text-anchor="end""#, &label),
        ]
    }

    /// The known values joined, dots at the marked layers, crosses where one is not finite.
    fn line(&self, values: &[Option<f64>], colour: &str, dash: &str) -> Vec<String> {
        let log = |value: &Option<f64>| value.map(f64::log10).filter(|log| log.is_finite());
        let points: Vec<Option<(f64, f64)>> = values
            .iter()
            .enumerate()
            .map(|(index, value)| log(value).map(|log| (self.x(index), self.y(log))))
            .collect();
        let mut lines = Vec::new();
        for run in points.split(Option::is_none).filter(|run| !run.is_empty()) {
            let joined: Vec<String> =
                run.iter().flatten().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            lines.push(format!(
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>"#,
                joined.join(" ")
            ));
        }
        for (index, (point, value)) in points.iter().zip(values).enumerate() {
            if let Some((x, y)) = point.filter(|_| self.series.marked[index]) {
                lines.push(format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#));
            } else if value.is_some_and(|value| !value.is_finite()) {
                let (x, y) = (self.x(index), PLOT.1 + 5.0);
                let anchor = format!(r#"text-anchor="middle" fill="{colour}" font-weight="bold""#);
                lines.push(text(x, y, &anchor, "×"));
            }
        }
        lines
    }

    /// Names below the axis: of the first and the last layer, and of the marked ones.
    fn names(&self, seen: &Preflight) -> Vec<String> {
        let Some(last) = self.series.names.len().checked_sub(1) else { return Vec::new() };
        let inputs = self.series.names.len() - seen.layers.len();
        let marked = seen.chain.iter().flat_map(|chain| chain::furthest(chain, NAMED_MAX));
        let mut named: Vec<(usize, bool)> =
            marked.map(|link| (link.layer.0 + inputs, true)).collect();
        let overflow = seen.overflow_layer().map(|layer| layer.0 + inputs);
        for index in overflow.into_iter().chain([0, last]) {
            if !named.iter().any(|(other, _)| *other == index) {
                named.push((index, overflow == Some(index)));
            }
        }
        named.sort_unstable();
        let mut lines = Vec::new();
        let mut right_of = f64::NEG_INFINITY;
        for (index, is_marked) in named {
            let (x, y) = (self.x(index), PLOT.3 + 16.0);
            if x < right_of {
                continue;
            }
            right_of = x + NAME_DISTANCE;
            let weight = if is_marked { r#" font-weight="bold""# } else { "" };
            let attributes =
                format!(r#"text-anchor="end"{weight} transform="rotate(-55 {x:.1} {y:.1})""#);
            lines.push(text(x, y, &attributes, &self.series.names[index]));
        }
        lines
    }
}

fn text(x: f64, y: f64, attributes: &str, words: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" {attributes}>{}</text>"#, escaped(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::preflight;

    fn lines_with<'a>(picture: &'a str, word: &str) -> Vec<&'a str> {
        picture.lines().filter(|line| line.contains(word)).collect()
    }

    #[test]
    fn two_lines_of_known_points_with_the_marked_layers_named() {
        let seen = preflight(&[1.0, 10.0, 10.0], &[1.0; 3], f64::INFINITY);
        let picture = svg(&seen, "three layers");
        let polylines = lines_with(&picture, "<polyline");
        assert_eq!(polylines.len(), 2, "{picture}");
        // From 1 to 100, with a margin of 4%, the plot is 324 pixels high and 856 wide.
        let y = |decades: f64| 420.0 - (decades + 0.08) / 2.16 * 324.0;
        let points =
            [(80.0, 0.0), (80.0 + 856.0 / 3.0, 0.0), (80.0 + 856.0 * 2.0 / 3.0, 1.0), (936.0, 2.0)];
        let points: Vec<String> =
            points.iter().map(|(x, decades)| format!("{x:.1},{:.1}", y(*decades))).collect();
        assert!(polylines[0].contains(&format!("points=\"{}\"", points.join(" "))), "{picture}");
        assert_eq!(lines_with(&picture, "<circle").len(), 4, "two marked layers on two lines");
        for name in ["input", "layers.1", "layers.2"] {
            assert_eq!(lines_with(&picture, &format!(">{name}</text>")).len(), 1, "{name}");
        }
        assert_eq!(lines_with(&picture, ">layers.0<").len(), 0, "neither marked nor an end");
        assert_eq!(lines_with(&picture, "gains multiply to 100 over 3 layers").len(), 1);
        assert_eq!(lines_with(&picture, "class=\"end\"").len(), 0, "f32 ends far from here");
        assert_eq!(lines_with(&picture, "×").len(), 0);
    }

    #[test]
    fn an_overflow_breaks_the_line_with_crosses_below_the_end_of_the_type() {
        let seen = preflight(&[1.0, f64::INFINITY, 1.0, 1.0], &[1.0; 4], f64::INFINITY);
        let picture = svg(&seen, "overflow");
        assert_eq!(lines_with(&picture, ">×</text>").len(), 3, "{picture}");
        assert_eq!(lines_with(&picture, "class=\"end\"").len(), 1);
        assert_eq!(lines_with(&picture, "largest number of the type: 3.4e38").len(), 1);
        assert!(!picture.contains("NaN") && !picture.contains("inf,"), "{picture}");
        let grid = lines_with(&picture, "#dddddd").len();
        assert!((4..=GRID_MAX).contains(&grid), "{grid} lines over 38 decades");
    }

    #[test]
    fn names_of_the_users_are_text_and_never_markup() {
        let mut seen = preflight(&[1.0, 5.0], &[1.0; 2], 1.0);
        seen.layout.layers[1].name = "<b attr=\"x\">&\u{1}".into();
        let picture = svg(&seen, "a & b");
        assert_eq!(lines_with(&picture, "&lt;b attr=&quot;x&quot;&gt;&amp;\\u{1}").len(), 1);
        assert_eq!(lines_with(&picture, "<title>a &amp; b</title>").len(), 1);
        assert!(!picture.contains("<b"), "{picture}");
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let picture = svg(&preflight(&[3.0; 500], &[1.0; 500], 1.0), "deep");
        let names = lines_with(&picture, "rotate").len();
        assert!((2..=(856.0 / NAME_DISTANCE) as usize + 1).contains(&names), "{names}");
        // A product of 3^500 is beyond f32: every layer from 3e38 on is not finite in fact, but
        // the picture takes what it is given.
        assert_eq!(lines_with(&picture, "<polyline").len(), 2);
    }

    #[test]
    fn without_probes_there_are_axes_alone() {
        let seen =
            tamegrad::preflight(&tamegrad::Layout::default(), &tamegrad::FirstStep::default());
        let picture = svg(&seen, "nothing");
        assert_eq!(lines_with(&picture, "<polyline").len(), 0);
        assert!(picture.ends_with("</svg>\n"), "{picture}");
    }
}
