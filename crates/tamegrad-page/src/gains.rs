//! The chain of gains as bars: the factor of each layer, and what they multiply to.

use tamegrad::chain::USUAL_GAIN;
use tamegrad::{Chain, Diagnosis, Link, Place};
use tamegrad_report::number;
use tamegrad_report::number::{count, product};

use crate::figure::{Drawing, Figure, Frame, Pen, Table, Width, shared_prefix, shortened};
use crate::scale::{Scale, Tick};

/// Rows of the figure at most.
const ROWS_MAX: usize = 48;
/// Neighbours with usual gains from which on they share a row, where there are too many layers.
const FOLD_FROM: usize = 3;
const ROW: f64 = 16.0;

/// The chain of gains as a figure; `None` where no gain was measured.
pub(crate) fn figure(diagnosis: &Diagnosis) -> Option<Figure> {
    let chain = diagnosis.chain.as_ref()?;
    let is_known = |link: &Link| link.forward.is_some() || link.backward.is_some();
    if !chain.links.iter().any(is_known) {
        return None;
    }
    let names: Vec<&str> = chain.links.iter().map(|link| name(link, diagnosis)).collect();
    let shared = shared_prefix(&names);
    let drawings = [Width::Wide, Width::Narrow].map(|width| draw(chain, diagnosis, shared, width));
    Some(Figure {
        name: "gains",
        title: format!("Gains of the layers at step {}", count(chain.step.0)),
        description: description(chain, diagnosis),
        caption: caption(chain, shared),
        table: table(chain, diagnosis),
        drawings,
    })
}

/// The way through the network in which a factor counts.
#[derive(Clone, Copy)]
enum Way {
    Forward,
    Backward,
}

impl Way {
    fn gain(self, link: &Link) -> Option<f64> {
        match self {
            Self::Forward => link.forward,
            Self::Backward => link.backward,
        }
    }

    fn title(self, width: Width) -> &'static str {
        match self {
            Self::Forward => width.pick("Forward: output over input", "Forward"),
            Self::Backward => width.pick("Backward: gradient at input over output", "Backward"),
        }
    }

    /// What the signal or the gradient grows by over all layers.
    fn total(self, chain: &Chain) -> Option<String> {
        match (self, chain.ends) {
            (Self::Forward, Some(ends)) => ends.forward.map(number),
            (Self::Backward, Some(ends)) => ends.backward.map(number),
            (way, None) => {
                let gains: Vec<f64> =
                    chain.links.iter().filter_map(|link| way.gain(link)).collect();
                (!gains.is_empty()).then(|| product(&gains))
            }
        }
    }
}

/// A row of the figure.
enum Entry<'a> {
    Layer(&'a Link),
    /// Neighbours with usual gains.
    Usual(&'a [Link]),
    /// Layers that there is no room for.
    More(usize),
}

fn entries(chain: &Chain) -> Vec<Entry<'_>> {
    if chain.links.len() <= ROWS_MAX {
        return chain.links.iter().map(Entry::Layer).collect();
    }
    let runs = chain.links.chunk_by(|a, b| a.is_marked() == b.is_marked());
    let mut entries: Vec<Entry<'_>> = runs
        .flat_map(|run| match run {
            [first, ..] if !first.is_marked() && run.len() >= FOLD_FROM => vec![Entry::Usual(run)],
            _ => run.iter().map(Entry::Layer).collect(),
        })
        .collect();
    let more = entries.len().saturating_sub(ROWS_MAX);
    if more > 0 {
        let middle = ROWS_MAX / 2;
        let hidden: usize = entries
            .drain(middle..=middle + more)
            .map(|entry| match entry {
                Entry::Layer(_) => 1,
                Entry::Usual(links) => links.len(),
                Entry::More(count) => count,
            })
            .sum();
        entries.insert(middle, Entry::More(hidden));
    }
    entries
}

fn name<'a>(link: &Link, diagnosis: &'a Diagnosis) -> &'a str {
    diagnosis.names.name(Place::Layer(link.layer)).unwrap_or("?")
}

fn draw(chain: &Chain, diagnosis: &Diagnosis, shared: &str, width: Width) -> Drawing {
    let frame = width.frame();
    let gap = width.pick(52.0, 16.0);
    let half = (frame.plot() - gap) / 2.0;
    let panels = [
        (Way::Forward, Frame { right: frame.left + half, ..frame }),
        (Way::Backward, Frame { left: frame.right - half, ..frame }),
    ];
    let gains = chain.links.iter().flat_map(|link| [link.forward, link.backward]).flatten();
    let finite = gains.filter(|gain| gain.is_finite() && *gain > 0.0).map(f64::log10);
    let (low, high) =
        finite.fold((-0.5f64, 0.5f64), |(low, high), log| (low.min(log), high.max(log)));
    // Room for the number behind a bar.
    let room = width.pick(0.16, 0.38) * (high - low);
    let scale = Scale::Log { low: low - 0.02 * (high - low), high: high + room };
    let entries = entries(chain);
    let (top, bottom) = (22.0, 22.0 + ROW * entries.len() as f64 + 4.0);
    let mut pen = Pen::default();
    for (way, panel) in &panels {
        pen.text("t b start", (panel.left, 12.0), way.title(width));
        let x = |gain: f64| panel.x(scale.at(gain).unwrap_or(0.0).clamp(0.0, 1.0));
        let usual = (x(*USUAL_GAIN.start()), x(*USUAL_GAIN.end()));
        pen.rect("usual", (usual.0, top), (usual.1 - usual.0, bottom - top));
        for Tick { at, label } in scale.ticks(width.pick(6, 3)) {
            let x = panel.x(at);
            pen.line("axis", (x, bottom), (x, bottom + 4.0));
            pen.text("t m mid", (x, bottom + 16.0), &label);
        }
        pen.line("axis", (x(1.0), top), (x(1.0), bottom));
    }
    let origin = diagnosis.origin.as_ref().and_then(tamegrad::Origin::layer);
    let own = |link: &Link, most| shortened(&name(link, diagnosis)[shared.len()..], most);
    let most = width.pick(22, 13);
    for (row, entry) in entries.iter().enumerate() {
        let y = top + 2.0 + ROW * row as f64;
        let (class, label) = match entry {
            Entry::Layer(link) if origin == Some(link.layer) => {
                ("t b onset-t end", own(link, most))
            }
            Entry::Layer(link) => ("t m end", own(link, most)),
            Entry::Usual(links) => ("t m i end", format!("{} layers", links.len())),
            Entry::More(more) => ("t m i end", format!("{more} more layers")),
        };
        pen.text(class, (frame.left - 9.0, y + 11.0), &label);
        for (way, panel) in &panels {
            bar(&mut pen, entry, *way, panel, &scale, y);
        }
    }
    let y = bottom + 40.0;
    let total = if chain.ends.is_some() { "end to end" } else { "product" };
    pen.text("t b end", (frame.left - 9.0, y), total);
    for (way, panel) in &panels {
        let total =
            way.total(chain).map_or("not measured".to_owned(), |total| format!("× {total}"));
        pen.text("t b big start", (panel.left, y), &total);
    }
    pen.into_drawing(frame.width, y + 10.0)
}

fn bar(pen: &mut Pen, entry: &Entry<'_>, way: Way, panel: &Frame, scale: &Scale, y: f64) {
    let x = |gain: f64| panel.x(scale.at(gain).unwrap_or(0.0).clamp(0.0, 1.0));
    let number_at = |pen: &mut Pen, class: &str, right: f64, text: &str| {
        pen.text(&format!("t {class} start"), (right + 5.0, y + 11.0), text);
    };
    match entry {
        Entry::Layer(link) => match way.gain(link) {
            None => {}
            Some(gain) if !gain.is_finite() => {
                pen.rect("nan", (x(1.0), y + 2.0), (panel.right - x(1.0) - 26.0, ROW - 5.0));
                number_at(pen, "b nan-t", panel.right - 26.0, &number(gain));
            }
            Some(gain) => {
                let is_usual = USUAL_GAIN.contains(&gain) || link.only_normalises;
                let (bar, text) = match (is_usual, gain > 1.0) {
                    (true, _) => ("gain", "m"),
                    (false, true) => ("gain up", "b onset-t"),
                    (false, false) => ("gain down", "b"),
                };
                let (from, to) = (x(gain.min(1.0)), x(gain.max(1.0)));
                pen.rect(bar, (from, y + 2.0), ((to - from).max(1.0), ROW - 5.0));
                number_at(pen, text, to, &number(gain));
            }
        },
        Entry::Usual(links) => {
            let gains = links.iter().filter_map(|link| way.gain(link));
            let (low, high) =
                gains.fold((f64::INFINITY, 0.0_f64), |(low, high), g| (low.min(g), high.max(g)));
            if low <= high {
                pen.rect("gain", (x(low), y + 5.0), ((x(high) - x(low)).max(1.0), ROW - 11.0));
                number_at(
                    pen,
                    "m",
                    x(high.max(1.0)),
                    &format!("{} to {}", number(low), number(high)),
                );
            }
        }
        Entry::More(_) => {}
    }
}

fn description(chain: &Chain, diagnosis: &Diagnosis) -> String {
    let marked = chain.links.iter().filter(|link| link.is_marked()).count() as u64;
    let total = |way: Way| way.total(chain).unwrap_or("not measured".to_owned());
    let what = if chain.ends.is_some() { "From end to end" } else { "Over all layers" };
    let most = |way: Way| {
        let known = chain.links.iter().filter_map(|link| Some((way.gain(link)?, link)));
        let (gain, link) = known.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(format!("{} in {}", number(gain), name(link, diagnosis)))
    };
    let largest = |way: Way| most(way).unwrap_or("not measured".to_owned());
    format!(
        "The gain of each of {} layers, forward and backward, as bars on a logarithmic scale. {} of \
         them lie outside {} to {}. The largest gain is {} forward and {} backward. {what}, the signal \
         grows {} times and the gradient {} times.",
        count(chain.links.len() as u64),
        count(marked),
        number(*USUAL_GAIN.start()),
        number(*USUAL_GAIN.end()),
        largest(Way::Forward),
        largest(Way::Backward),
        total(Way::Forward),
        total(Way::Backward)
    )
}

fn caption(chain: &Chain, shared: &str) -> String {
    let prefix = match shared {
        "" => String::new(),
        shared => format!(" All names begin with {shared}"),
    };
    let growth = match chain.ends {
        Some(_) => {
            "The network branches, so the gains do not multiply; the growth is measured from end to end."
        }
        None => "By the chain rule the gains multiply.",
    };
    format!(
        "A bar begins at 1; the shaded range, {} to {}, is usual. {growth} Layers in order of execution; \
         the gradient passes them from the last to the first. Logarithmic scale.{prefix}",
        number(*USUAL_GAIN.start()),
        number(*USUAL_GAIN.end())
    )
}

fn table(chain: &Chain, diagnosis: &Diagnosis) -> Table {
    let known = |gain: Option<f64>| gain.map_or("–".to_owned(), number);
    let rows = chain.links.iter().map(|link| {
        vec![name(link, diagnosis).to_owned(), known(link.forward), known(link.backward)]
    });
    let head = ["layer", "forward gain", "backward gain"].map(str::to_owned).to_vec();
    Table { head, rows: rows.collect() }
}
