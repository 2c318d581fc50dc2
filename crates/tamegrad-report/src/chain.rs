//! The chain of gains as a chain of factors with their product.

use tamegrad::chain::USUAL_GAIN;
use tamegrad::record::GainTrack;
use tamegrad::{Chain, Link, Names, Record};

use crate::number::{counted, number, product};
use crate::style::{Style, Tone};
use crate::text::{join, pad, wrap_tokens};

/// From this many on, neighbours with usual gains are folded into one entry.
const FOLD_USUAL: usize = 5;
/// From this many on, neighbours with marked gains on the same side are folded.
const FOLD_MARKED: usize = 16;
/// Marked layers that are named one by one.
pub(crate) const NAMED_MAX: usize = 12;

/// The chain of gains, `forward` from the input to the loss and `backward` from the loss to the
/// input:
///
/// ```text
/// forward   1.02 × 0.98 × [41.3] × 0.97 .. 1.04 (14 layers, product 0.92) = 38
/// ```
///
/// Factors outside [`USUAL_GAIN`] stand in brackets and their layers are named below with both
/// gains and, where there is a record that knows them, the means while the run was calm. Long runs of
/// neighbours on the same side are folded; the product is always that of all factors. In a network
/// that branches the gains are no factors: they are listed, with the growth from end to end.
pub fn chain(chain: &Chain, names: &Names, record: Option<&Record>, style: &Style) -> String {
    let mut lines = equations(chain, style);
    lines.extend(named(chain, names, record, style));
    join(lines)
}

/// The chain of gains as two lists of factors with their products, without names.
pub(crate) fn equations(chain: &Chain, style: &Style) -> Vec<String> {
    let forward: Vec<Option<f64>> = chain.links.iter().map(|link| link.forward).collect();
    let backward: Vec<Option<f64>> = chain.links.iter().rev().map(|link| link.backward).collect();
    let ends = chain.ends.map(|ends| [ends.forward, ends.backward]);
    let mut lines = direction("forward", &forward, ends.map(|[forward, _]| forward), style);
    lines.extend(direction("backward", &backward, ends.map(|[_, backward]| backward), style));
    lines
}

/// What signal and gradient grow by over all layers; `None` where no gain is known.
pub(crate) fn totals(chain: &Chain) -> [Option<String>; 2] {
    let gains =
        |of: fn(&Link) -> Option<f64>| -> Vec<f64> { chain.links.iter().filter_map(of).collect() };
    match chain.ends {
        Some(ends) => [ends.forward, ends.backward].map(|growth| growth.map(number)),
        None => [gains(|link| link.forward), gains(|link| link.backward)]
            .map(|gains| (!gains.is_empty()).then(|| product(&gains))),
    }
}

/// What [`totals`] are.
pub(crate) fn total_label(chain: &Chain) -> &'static str {
    if chain.ends.is_some() { "growth from end to end" } else { "product of all layers" }
}

/// A gain as it stands in the chain: in brackets when it is marked.
pub(crate) fn gain(gain: f64, style: &Style) -> String {
    marked(side(gain), number(gain), style)
}

/// The marked layers, at most `count` of them, those furthest from 1, in order of execution.
pub(crate) fn furthest(chain: &Chain, count: usize) -> Vec<&Link> {
    let mut shown: Vec<&Link> = chain.links.iter().filter(|link| link.is_marked()).collect();
    shown.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
    shown.truncate(count);
    shown.sort_by_key(|link| link.layer);
    shown
}

/// One chain of factors with its product, for factors that belong to no layer.
pub(crate) fn factors(label: &str, factors: &[f64], style: &Style) -> Vec<String> {
    let tokens = folded(factors, "factors", true, style);
    equation(label, tokens, &product(factors), style)
}

/// The gains in one direction; with the growth from end to end, if that is known, in a network that
/// branches.
fn direction(
    label: &str,
    gains: &[Option<f64>],
    ends: Option<Option<f64>>,
    style: &Style,
) -> Vec<String> {
    let known: Vec<f64> = gains.iter().flatten().copied().collect();
    let label = pad(label, 10);
    if known.is_empty() {
        return vec![format!("{label}not measured")];
    }
    let mut tokens = folded(&known, "layers", ends.is_none(), style);
    let unknown = gains.len() - known.len();
    if unknown > 0 {
        tokens.push(format!("({} without a gain)", counted(unknown as u64, "layer")));
    }
    match ends {
        None => equation(&label, tokens, &product(&known), style),
        Some(growth) => {
            let growth = growth.map_or_else(|| "unknown".to_owned(), number);
            let last = format!("end to end {}", style.paint(Tone::Heading, &growth));
            let count = tokens.len();
            let listed = tokens.into_iter().enumerate();
            let mark = |index| if index + 1 < count { "," } else { ";" };
            let listed = listed.map(|(index, token)| token + mark(index));
            wrap_tokens(listed.chain([last]), &label, style.line())
        }
    }
}

fn equation(label: &str, tokens: Vec<String>, product: &str, style: &Style) -> Vec<String> {
    let result = format!("= {}", style.paint(Tone::Heading, product));
    wrap_tokens(tokens.into_iter().chain([result]), label, style.line())
}

/// On which side of [`USUAL_GAIN`] a factor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Below,
    Usual,
    Above,
    NotFinite,
}

fn side(gain: f64) -> Side {
    if !gain.is_finite() {
        Side::NotFinite
    } else if USUAL_GAIN.contains(&gain) {
        Side::Usual
    } else if gain < *USUAL_GAIN.start() {
        Side::Below
    } else {
        Side::Above
    }
}

/// The gains as tokens that are never broken; of factors with `×` before all but the first.
fn folded(gains: &[f64], of: &str, are_factors: bool, style: &Style) -> Vec<String> {
    let runs = gains.chunk_by(|a, b| side(*a) == side(*b));
    let entries = runs.flat_map(|run| {
        let side = side(run[0]);
        let fold_from = if side == Side::Usual { FOLD_USUAL } else { FOLD_MARKED };
        let texts = if run.len() >= fold_from {
            vec![range(run, of, are_factors)]
        } else {
            run.iter().map(|gain| number(*gain)).collect()
        };
        texts.into_iter().map(move |text| marked(side, text, style))
    });
    let with_sign =
        |(index, text)| if index == 0 || !are_factors { text } else { format!("× {text}") };
    entries.enumerate().map(with_sign).collect()
}

fn range(run: &[f64], of: &str, are_factors: bool) -> String {
    let low = run.iter().copied().fold(f64::INFINITY, f64::min);
    let high = run.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = (number(low), number(high));
    let between = if low == high { low } else { format!("{low} .. {high}") };
    if are_factors {
        format!("{between} ({} {of}, product {})", run.len(), product(run))
    } else {
        format!("{between} ({} {of})", run.len())
    }
}

fn marked(side: Side, text: String, style: &Style) -> String {
    match side {
        Side::Usual => text,
        Side::Above | Side::NotFinite => style.paint(Tone::Alarm, &format!("[{text}]")),
        Side::Below => style.paint(Tone::Strain, &format!("[{text}]")),
    }
}

/// The marked layers by name, those furthest from 1 when there are many, in order of execution.
fn named(chain: &Chain, names: &Names, record: Option<&Record>, style: &Style) -> Vec<String> {
    let marked = chain.links.iter().filter(|link| link.is_marked()).count();
    let shown = furthest(chain, NAMED_MAX);
    let names = shown.iter().map(|link| names.layers.get(link.layer.0).map_or("", String::as_str));
    let width = names.clone().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = Vec::new();
    for (link, name) in shown.iter().zip(names) {
        let [forward, backward] = calm_means(record.and_then(|record| record.gain(link.layer)));
        let parts =
            [part("forward", link.forward, forward), part("backward", link.backward, backward)];
        let known: Vec<String> = parts.into_iter().flatten().collect();
        let last = known.len().saturating_sub(1);
        let comma = |(index, part)| if index < last { part + "," } else { part };
        let tokens = known.into_iter().enumerate().map(comma);
        lines.extend(wrap_tokens(tokens, &format!("{}  ", pad(name, width)), style.line()));
    }
    if marked > shown.len() {
        let more = counted((marked - shown.len()) as u64, "more layer");
        lines.push(format!("and {more} outside {}", usual()));
    }
    lines
}

/// The usual gains in words: `0.5 to 2`.
pub(crate) fn usual() -> String {
    format!("{} to {}", number(*USUAL_GAIN.start()), number(*USUAL_GAIN.end()))
}

fn part(label: &str, gain: Option<f64>, calm_mean: Option<f64>) -> Option<String> {
    let gain = number(gain?);
    Some(match calm_mean {
        Some(mean) => format!("{label} {gain} (calm mean {})", number(mean)),
        None => format!("{label} {gain}"),
    })
}

/// The geometric means of a layer's forward and backward gain while the run was calm; `None` for one
/// that was never measured then.
pub(crate) fn calm_means(track: Option<&GainTrack>) -> [Option<f64>; 2] {
    [track.map(|track| &track.forward), track.map(|track| &track.backward)].map(|history| {
        history.filter(|history| history.count() > 0).map(|history| history.mean().exp())
    })
}

/// How far a layer's gains are from 1, in logarithms; NaN and Inf are furthest.
fn distance(link: &Link) -> f64 {
    let gains = [link.forward, link.backward].into_iter().flatten();
    gains
        .map(|gain| if gain.is_nan() { f64::INFINITY } else { gain.ln().abs() })
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::chain::Ends;
    use tamegrad::{LayerId, Step};

    fn told(gains: &[(Option<f64>, Option<f64>)], calm: Option<f64>, width: usize) -> String {
        told_of(gains, calm, width, None)
    }

    fn told_of(
        gains: &[(Option<f64>, Option<f64>)],
        calm: Option<f64>,
        width: usize,
        ends: Option<Ends>,
    ) -> String {
        let guard = crate::check::calm_gains(gains.len(), calm);
        let links = gains.iter().enumerate();
        let links = links.map(|(i, (forward, backward))| Link {
            layer: LayerId(i),
            forward: *forward,
            backward: *backward,
            first_inner: LayerId(i),
            only_normalises: false,
        });
        let given = Chain { step: Step(61), links: links.collect(), ends };
        let record = guard.record();
        chain(&given, &record.names(), Some(record), &Style::plain(width))
    }

    #[test]
    fn factors_products_and_the_marked_layers() {
        let gains = [
            (Some(1.02), Some(0.5)),
            (Some(0.98), None),
            (Some(41.34), Some(38.0)),
            (Some(0.1), Some(2.0)),
        ];
        insta::assert_snapshot!(told(&gains, Some(1.9), 80), @"
        forward   1.02 × 0.98 × [41.3] × [0.1] = 4.13
        backward  2 × [38] × 0.5 (1 layer without a gain) = 38
        layers.2  forward 41.3 (calm mean 1.9), backward 38 (calm mean 1)
        layers.3  forward 0.1 (calm mean 1.9), backward 2 (calm mean 1)
        ");
    }

    #[test]
    fn gains_of_branches_are_listed_and_not_multiplied() {
        let mut gains = vec![(Some(1.0), Some(0.8)); 6];
        gains[2] = (Some(41.34), None);
        let ends = Ends { forward: Some(3.2), backward: None };
        insta::assert_snapshot!(told_of(&gains, None, 60, Some(ends)), @r"
        forward   1, 1, [41.3], 1, 1, 1; end to end 3.2
        backward  0.8 (5 layers), (1 layer without a gain);
                  end to end unknown
        layers.2  forward 41.3
        ");
    }

    #[test]
    fn usual_runs_are_folded_and_the_product_is_that_of_all() {
        let mut gains: Vec<_> =
            (0..14).map(|i| (Some(0.97 + 0.005 * f64::from(i)), None)).collect();
        gains.insert(7, (Some(3e6), None));
        insta::assert_snapshot!(told(&gains, None, 60), @r"
        forward   0.97 .. 1 (7 layers, product 0.899) × [3e6]
                  × 1 .. 1.03 (7 layers, product 1.15) = 3.1e6
        backward  not measured
        layers.7  forward 3e6
        ");
    }

    #[test]
    fn many_marked_layers_are_folded_and_the_furthest_are_named() {
        let mut gains = vec![(Some(2.8), Some(3.0)); 400];
        gains[300] = (Some(f64::INFINITY), Some(f64::NAN));
        let text = told(&gains, None, 100);
        assert!(text.contains("× [inf] × [2.8 (99 layers, product 1.86e44)] = inf\n"), "{text}");
        assert!(text.contains("× [NaN] × [3 (300 layers, product 1.37e143)] = NaN\n"), "{text}");
        assert!(text.contains("layers.300  forward inf, backward NaN\n"), "{text}");
        assert!(text.ends_with("and 388 more layers outside 0.5 to 2\n"), "{text}");
    }

    #[test]
    fn a_product_beyond_f64_is_still_told() {
        let text = told(&vec![(Some(1e3), None); 200], None, 100);
        assert!(
            text.starts_with("forward   [1,000 (200 layers, product 1e600)] = 1e600\n"),
            "{text}"
        );
    }

    #[test]
    fn colours_mark_and_end() {
        let style = Style { colour: true, width: 80 };
        assert_eq!(
            factors("", &[1.0, 40.0, 0.1], &style),
            ["1 × \x1b[1;31m[40]\x1b[0m × \x1b[33m[0.1]\x1b[0m = \x1b[1m4\x1b[0m"]
        );
    }
}
