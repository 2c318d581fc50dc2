//! A figure: an SVG drawing with a title, a description and the table behind it.

use std::fmt::Write as _;

use tamegrad_report::{escaped, printable};

use crate::scale::{Scale, Tick};
use crate::steps::StepAxis;

/// Colours and lines of all figures, for light paper and dark.
pub(crate) const STYLE: &str = include_str!("figure.css");

/// How wide a figure is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 960 pixels, for a screen or a sheet of paper.
    Wide,
    /// 358 pixels, for a phone.
    Narrow,
}

/// The margins of a figure, which are the same for all, so that their steps lie below each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    pub(crate) width: f64,
    pub(crate) left: f64,
    pub(crate) right: f64,
}

impl Width {
    pub(crate) fn frame(self) -> Frame {
        match self {
            Self::Wide => Frame { width: 960.0, left: 148.0, right: 940.0 },
            Self::Narrow => Frame { width: 358.0, left: 92.0, right: 348.0 },
        }
    }

    pub(crate) fn pick<T>(self, wide: T, narrow: T) -> T {
        match self {
            Self::Wide => wide,
            Self::Narrow => narrow,
        }
    }
}

impl Frame {
    /// Pixels of the plot.
    pub(crate) fn plot(&self) -> f64 {
        self.right - self.left
    }

    /// Pixels from the left of a share of the plot.
    pub(crate) fn x(&self, at: f64) -> f64 {
        self.left + at * self.plot()
    }
}

/// Numbers behind a figure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// One heading a column.
    pub head: Vec<String>,
    /// The rows, a cell for each heading.
    pub rows: Vec<Vec<String>>,
}

/// A figure of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is called as a file: `loss`, `gradient-norm`, `tensors`, ...
    pub name: &'static str,
    /// What it shows, in a few words.
    pub title: String,
    /// What is to be seen in it, in a sentence or two, for those who cannot see it.
    pub description: String,
    /// How it is to be read.
    pub caption: String,
    /// The numbers behind it.
    pub table: Table,
    /// The drawing, for each width.
    pub(crate) drawings: [Drawing; 2],
}

/// The inside of an SVG element.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawing {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) marks: String,
}

impl Figure {
    /// The SVG element, with ids that begin with `id` and its style left to the page.
    pub fn element(&self, width: Width, id: &str) -> String {
        self.svg(width, id, "", "")
    }

    /// The figure as an SVG file that is complete in itself: no script, and no style sheet or font from
    /// elsewhere.
    pub fn file(&self, width: Width) -> String {
        let style = format!("<style>{STYLE}</style>");
        let paper = r#"<rect class="paper" width="100%" height="100%"></rect>"#;
        let svg = self.svg(width, self.name, &style, paper);
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- {} -->\n{svg}\n", crate::MARK)
    }

    fn svg(&self, width: Width, id: &str, style: &str, paper: &str) -> String {
        let drawing = &self.drawings[width.pick(0, 1)];
        let (w, h) = (px(drawing.width), px(drawing.height));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fig\" viewBox=\"0 0 {w} {h}\" \
             width=\"{w}\" height=\"{h}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{style}{paper}{}</svg>",
            escaped(&self.title),
            escaped(&self.description),
            drawing.marks
        )
    }
}

/// Pixels of a mark in a lane at least.
const MARK_WIDTH: f64 = 4.0;

/// An SVG drawing that grows downward.
#[derive(Debug, Default)]
pub(crate) struct Pen {
    marks: String,
}

impl Pen {
    pub(crate) fn into_drawing(self, width: f64, height: f64) -> Drawing {
        Drawing { width, height, marks: self.marks }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.marks.push_str(&other.marks);
    }

    pub(crate) fn raw(&mut self, svg: &str) {
        self.marks.push_str(svg);
    }

    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (px(from.0), px(from.1), px(to.0), px(to.1));
        let _ = write!(
            self.marks,
            r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"></line>"#
        );
    }

    pub(crate) fn rect(&mut self, class: &str, corner: (f64, f64), size: (f64, f64)) {
        let (x, y, w, h) = (px(corner.0), px(corner.1), px(size.0), px(size.1));
        let _ = write!(
            self.marks,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{w}" height="{h}"></rect>"#
        );
    }

    pub(crate) fn dot(&mut self, class: &str, at: (f64, f64), radius: f64) {
        let (x, y, r) = (px(at.0), px(at.1), px(radius));
        let _ =
            write!(self.marks, r#"<circle class="{class}" cx="{x}" cy="{y}" r="{r}"></circle>"#);
    }

    /// Text; where it is attached to its place is a part of the class: `start`, `mid` or `end`.
    pub(crate) fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = (px(at.0), px(at.1));
        let _ =
            write!(self.marks, r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, escaped(text));
    }

    /// Joined points, of each of the lines.
    pub(crate) fn path(&mut self, class: &str, lines: impl IntoIterator<Item = Vec<(f64, f64)>>) {
        let mut path = String::new();
        for line in lines {
            for (index, (x, y)) in line.iter().enumerate() {
                let command = match index {
                    0 => "M",
                    1 => "L",
                    _ => " ",
                };
                let _ = write!(path, "{command}{} {}", px(*x), px(*y));
            }
            if line.len() == 1 {
                // A round end makes it a dot.
                path.push_str("h0");
            }
        }
        if !path.is_empty() {
            let _ = write!(self.marks, r#"<path class="{class}" d="{path}"></path>"#);
        }
    }

    /// Marks of columns in a lane of the plot; neighbours are one mark.
    pub(crate) fn lane(
        &mut self,
        class: &str,
        frame: &Frame,
        (top, height): (f64, f64),
        columns: impl IntoIterator<Item = usize>,
        of: usize,
    ) {
        let each = frame.plot() / of as f64;
        for (first, last) in runs(columns) {
            let own = each * (last - first + 1) as f64;
            let more = (MARK_WIDTH - own).max(0.0);
            let left = frame.left + each * first as f64 - more / 2.0;
            self.rect(class, (left, top), (own + more, height));
        }
    }

    /// The axis of steps below a plot, with its name in the left margin.
    pub(crate) fn step_axis(&mut self, axis: &StepAxis, frame: &Frame, y: f64, width: Width) {
        self.line("axis", (frame.left, y), (frame.right, y));
        for Tick { at, label } in axis.ticks(width.pick(8, 3)) {
            let x = frame.x(at);
            self.line("axis", (x, y), (x, y + 4.0));
            self.text("t m mid", (x, y + 16.0), &label);
        }
        self.text("t m end", (frame.left - 22.0, y + 16.0), "step");
    }

    /// Lines of a grid with their values in the left margin.
    pub(crate) fn value_axis(
        &mut self,
        scale: &Scale,
        frame: &Frame,
        (top, bottom): (f64, f64),
        count: usize,
    ) {
        let mut last = f64::INFINITY;
        for Tick { at, label } in scale.ticks(count) {
            let y = bottom - at * (bottom - top);
            if last - y < 11.0 {
                continue;
            }
            last = y;
            self.line("grid", (frame.left, y), (frame.right, y));
            self.text("t m end", (frame.left - 8.0, y + 4.0), &label);
        }
    }
}

/// First and last of each run of neighbours.
fn runs(columns: impl IntoIterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for column in columns {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 >= column => *last = column,
            _ => runs.push((column, column)),
        }
    }
    runs
}

/// A number of pixels, to a tenth.
pub(crate) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0")
        .map_or(text.clone(), |whole| if whole == "-0" { "0".to_owned() } else { whole.to_owned() })
}

/// A name in so many characters at most: its start and its end.
pub(crate) fn shortened(name: &str, most: usize) -> String {
    let shown = printable(name);
    let count = shown.chars().count();
    if count <= most {
        return shown.into_owned();
    }
    let end = (most - 1) * 2 / 3;
    let start = most - 1 - end;
    let head: String = shown.chars().take(start).collect();
    let tail: String = shown.chars().skip(count - end).collect();
    format!("{head}…{tail}")
}

/// The part before a dot that all names begin with, with the dot; empty where there is none.
pub(crate) fn shared_prefix<'a>(names: &[&'a str]) -> &'a str {
    let (Some(first), 2..) = (names.first(), names.len()) else { return "" };
    let ends = first.match_indices('.').map(|(at, _)| &first[..=at]);
    let shared = |prefix: &&str| {
        names.iter().all(|name| name.len() > prefix.len() && name.starts_with(prefix))
    };
    ends.take_while(shared).last().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_share_what_stands_before_a_dot() {
        for (names, shared) in [
            (&["h.0.w", "h.1.w"][..], "h."),
            (&["model.h.0.w", "model.h.0.b"], "model.h.0."),
            (&["head.w", "h.w"], ""),
            (&["h.w", "h."], ""),
            (&["h.w"], ""),
            (&[], ""),
        ] {
            assert_eq!(shared_prefix(names), shared, "{names:?}");
        }
    }

    #[test]
    fn long_names_keep_their_start_and_their_end() {
        assert_eq!(shortened("layers.0.weight", 15), "layers.0.weight");
        assert_eq!(shortened("transformer.h.11.mlp.c_proj.weight", 18), "transf…proj.weight");
        assert_eq!(shortened("層層層層層層", 5), "層層…層層");
    }

    #[test]
    fn neighbours_are_one_mark() {
        assert_eq!(runs([0, 1, 2, 5, 7, 8]), [(0, 2), (5, 5), (7, 8)]);
        assert_eq!(runs([]), []);
    }

    #[test]
    fn pixels_have_a_tenth_at_most() {
        assert_eq!([0.0, -0.04, 1.25, 3.99, 100.0].map(px), ["0", "0", "1.2", "4", "100"]);
    }
}
