//! A model before its first update: warnings in words, as JSON and for the terminal.

use serde::Serialize;
use tamegrad::preflight::{Direction, MULTIPLE_TRIED_MAX, MULTIPLE_TRIED_MIN, OverflowAt, Warning};
use tamegrad::{Layout, Names, Preflight};

use crate::chain::{self, NAMED_MAX};
use crate::json::{DiagnosisReport, GainReport, gains, number as json_number};
use crate::number::{count, counted, known, number};
use crate::picture::{Series, columns};
use crate::style::{Style, Tone};
use crate::table;
use crate::text::{join, pad, wrap};

/// Up to so many layers the table has a row for each.
const ROWS_ALL: usize = 16;
/// Narrower than this, the table leaves two columns out.
const TABLE_WIDTH: usize = 80;

/// What the first pass and the first update show, for machines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreflightReport {
    /// The diagnosis before the run begins.
    pub diagnosis: DiagnosisReport,
    /// What is wrong, in words; empty when nothing is.
    pub warnings: Vec<String>,
    /// Loss of the first batch.
    #[serde(with = "json_number::optional")]
    pub loss: Option<f64>,
    /// L2 norm of the first gradient.
    #[serde(with = "json_number::optional")]
    pub gradient_norm: Option<f64>,
    /// Product of the layers' forward gains.
    #[serde(with = "json_number::optional")]
    pub forward_product: Option<f64>,
    /// Product of the layers' backward gains.
    #[serde(with = "json_number::optional")]
    pub backward_product: Option<f64>,
    /// Where the first non-finite number appears: `input`, `output`, `loss`,
    /// `loss-gradient`, `gradient`, `parameter-gradient`.
    pub overflow: Option<&'static str>,
    /// The layer that this belongs to.
    pub overflows_at: Option<String>,
    /// Powers of 2 between the largest output or gradient and the largest number of the type.
    #[serde(with = "json_number::optional")]
    pub headroom_bits: Option<f64>,
    /// Largest |dW|/|W| of a weight matrix at the first update.
    #[serde(with = "json_number::optional")]
    pub first_update_ratio: Option<f64>,
    /// That weight matrix.
    pub first_update_tensor: Option<String>,
    /// The smallest multiple of the first update that raises the loss of its own batch: infinite
    /// when the largest that was tried does not, 0 when the smallest does.
    #[serde(with = "json_number::optional")]
    pub critical_multiple: Option<f64>,
    /// Gains of the layers.
    pub gains: Vec<GainReport>,
    /// Sizes of the layers' outputs and of the gradients with respect to them.
    pub layers: Vec<LayerReport>,
}

/// The sizes at one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerReport {
    /// The layer's name.
    pub layer: String,
    /// RMS of its output.
    #[serde(with = "json_number")]
    pub output_rms: f64,
    /// Largest magnitude in its output.
    #[serde(with = "json_number")]
    pub output_max: f64,
    /// RMS of the gradient of the loss with respect to its output.
    #[serde(with = "json_number::optional")]
    pub gradient_rms: Option<f64>,
    /// L2 norm of that gradient.
    #[serde(with = "json_number::optional")]
    pub gradient_norm: Option<f64>,
    /// Powers of 2 between the largest of both and the largest number of the type.
    #[serde(with = "json_number::optional")]
    pub headroom_bits: Option<f64>,
}

/// The report for machines.
pub fn report(seen: &Preflight) -> PreflightReport {
    let warnings = seen.warnings();
    let layout = &seen.layout;
    let layer = |row: &tamegrad::preflight::LayerScale| LayerReport {
        layer: layout.layer_name(row.layer).to_owned(),
        output_rms: row.output_rms,
        output_max: row.output_max,
        gradient_rms: row.gradient_rms,
        gradient_norm: row.gradient_norm,
        headroom_bits: row.headroom_bits,
    };
    let (tensor, ratio) = seen.first_update.unzip();
    PreflightReport {
        diagnosis: DiagnosisReport::from(&seen.diagnosis()),
        warnings: warnings.iter().map(|warning| words(warning, layout)).collect(),
        loss: seen.loss,
        gradient_norm: seen.gradient_norm,
        forward_product: seen.product(Direction::Forward).map(|(product, _)| product),
        backward_product: seen.product(Direction::Backward).map(|(product, _)| product),
        overflow: seen.overflow.map(|at| match at {
            OverflowAt::Input => "input",
            OverflowAt::Output(_) => "output",
            OverflowAt::Loss => "loss",
            OverflowAt::LossGradient => "loss-gradient",
            OverflowAt::Gradient(_) => "gradient",
            OverflowAt::Parameter(_) => "parameter-gradient",
        }),
        overflows_at: seen.overflow_layer().map(|layer| layout.layer_name(layer).to_owned()),
        headroom_bits: seen.headroom_bits,
        first_update_ratio: ratio,
        first_update_tensor: tensor.map(|tensor| layout.tensor_name(tensor).to_owned()),
        critical_multiple: seen.critical_multiple,
        gains: seen.chain.as_ref().map_or(Vec::new(), |chain| gains(chain, &Names::of(layout))),
        layers: seen.layers.iter().map(layer).collect(),
    }
}

/// A warning in words, without a full stop.
pub fn words(warning: &Warning, layout: &Layout) -> String {
    let layer = |id| layout.layer_name(id);
    let tensor = |id| layout.tensor_name(id);
    match *warning {
        Warning::Overflow(OverflowAt::Input) => "the input of the batch contains NaN or Inf".into(),
        Warning::Overflow(OverflowAt::Output(id)) => {
            format!("will overflow at {}: its output is not finite", layer(id))
        }
        Warning::Overflow(OverflowAt::Loss) => {
            "will overflow at the loss: it is not finite, although every output is".into()
        }
        Warning::Overflow(OverflowAt::LossGradient) => {
            "will overflow at the loss: its gradient is not finite".into()
        }
        Warning::Overflow(OverflowAt::Gradient(id)) => format!(
            "will overflow at {} in the backward pass: the gradient that it passes on is not finite",
            layer(id)
        ),
        Warning::Overflow(OverflowAt::Parameter(id)) => {
            format!("will overflow at {}: its gradient is not finite", tensor(id))
        }
        Warning::AbsurdGradient { norm } => {
            format!("the gradient norm is {}, far too large for a first step", number(norm))
        }
        Warning::LittleHeadroom { layer: id, bits } => format!(
            "{} is within {} powers of 2 of the largest number of its type",
            layer(id),
            number(bits)
        ),
        Warning::Gains { direction, product, layers } => format!(
            "{} gains multiply to {} over {}",
            match direction {
                Direction::Forward => "forward",
                Direction::Backward => "backward",
            },
            number(product),
            counted(layers as u64, "layer")
        ),
        Warning::LargeUpdate { tensor: id, ratio } => {
            format!("the first update changes {} by {} times its size", tensor(id), number(ratio))
        }
        Warning::BrokenUpdate { tensor: id } => {
            format!("the first update breaks the weights: it leaves {} NaN or Inf", tensor(id))
        }
        Warning::LearningRate { times } if times.is_finite() => format!(
            "this learning rate is {} times the largest that lowers the loss",
            number(times)
        ),
        Warning::LearningRate { .. } => format!(
            "the first update raises the loss, and so does 1/{} of it",
            count((1.0 / MULTIPLE_TRIED_MIN) as u64)
        ),
    }
}

/// The report for the terminal: what is wrong, the numbers, the chain of gains as factors and as a
/// picture, and a table of the layers. Every line ends with a line break.
pub fn text(seen: &Preflight, style: &Style) -> String {
    let warnings = seen.warnings();
    let (tone, title) = if warnings.is_empty() {
        (Tone::Good, "Ready: nothing wrong before the first update")
    } else {
        (Tone::Alarm, "Not ready: problems before the first update")
    };
    let mut lines = vec![style.paint(tone, title)];
    for warning in &warnings {
        lines.extend(wrap(&words(warning, &seen.layout), "  - ", style.line()));
    }
    lines.push(String::new());
    lines.extend(numbers(seen));
    if let Some(chain) = &seen.chain {
        lines.extend([String::new(), style.paint(Tone::Heading, "Gains of the layers")]);
        lines.extend(chain::equations(chain, style));
        lines.extend(pictures(seen, style));
        lines.push(String::new());
        lines.extend(layers(seen, chain, style));
    }
    join(lines)
}

fn numbers(seen: &Preflight) -> Vec<String> {
    let update = seen
        .first_update
        .map(|(tensor, ratio)| format!("{} ({})", number(ratio), seen.layout.tensor_name(tensor)));
    let critical = seen.critical_multiple.map(|multiple| match multiple {
        f64::INFINITY => format!("more than {} times this one", number(MULTIPLE_TRIED_MAX)),
        0.0 => format!("less than 1/{} of this one", count((1.0 / MULTIPLE_TRIED_MIN) as u64)),
        _ => format!("{} times this one", number(multiple)),
    });
    let rows = [
        ("loss", seen.loss.map(number)),
        ("gradient norm", seen.gradient_norm.map(number)),
        ("largest first update |dW|/|W|", update),
        ("largest rate lowering the loss", critical),
        ("powers of 2 before overflow", seen.headroom_bits.map(number)),
    ];
    rows.map(|(label, value)| pad(label, 32) + value.as_deref().unwrap_or("unknown")).to_vec()
}

fn pictures(seen: &Preflight, style: &Style) -> Vec<String> {
    let series = Series::of(seen);
    let charts = [
        ("RMS of the outputs, logarithmic", &series.signal),
        ("Norm of the gradients with respect to them, logarithmic", &series.gradient),
    ];
    let mut lines = Vec::new();
    for (title, values) in charts {
        let chart = columns(&series, values, style);
        if !chart.is_empty() {
            lines.extend([String::new(), style.paint(Tone::Heading, title)]);
            lines.extend(chart);
        }
    }
    lines
}

/// A row a layer; of many the first, the last and the marked ones that are furthest from 1.
fn layers(seen: &Preflight, chain: &tamegrad::Chain, style: &Style) -> Vec<String> {
    let count = seen.layers.len();
    let furthest: Vec<usize> =
        chain::furthest(chain, NAMED_MAX).iter().map(|link| link.layer.0).collect();
    let overflow = seen.overflow_layer().map(|layer| layer.0);
    let is_shown = |index: &usize| {
        count <= ROWS_ALL
            || *index == 0
            || index + 1 == count
            || overflow == Some(*index)
            || furthest.contains(index)
    };
    let is_wide = style.line() >= TABLE_WIDTH;
    let cells = |cells: [String; 8]| -> Vec<String> {
        let left_out = |index: &usize| !is_wide && [4, 6].contains(index);
        cells.into_iter().enumerate().filter(|(i, _)| !left_out(i)).map(|(_, cell)| cell).collect()
    };
    let heads =
        ["layer", "forward", "backward", "out RMS", "out max", "grad RMS", "grad norm", "bits"];
    let mut rows = vec![cells(heads.map(str::to_owned))];
    let mut folded = 0;
    for (index, (row, link)) in seen.layers.iter().zip(&chain.links).enumerate() {
        if !is_shown(&index) {
            folded += 1;
            continue;
        }
        rows.extend(fold(&mut folded));
        let gain =
            |gain: Option<f64>| gain.map_or_else(|| "-".to_owned(), |g| chain::gain(g, style));
        rows.push(cells([
            seen.layout.layer_name(row.layer).to_owned(),
            gain(link.forward),
            gain(link.backward),
            number(row.output_rms),
            number(row.output_max),
            known(row.gradient_rms),
            known(row.gradient_norm),
            known(row.headroom_bits),
        ]));
    }
    table::columns(&rows, 0, style.line())
}

/// The row that stands for those before it that are not shown.
fn fold(folded: &mut u64) -> Option<Vec<String>> {
    let layers = std::mem::take(folded);
    (layers > 0).then(|| vec![format!("({})", counted(layers, "layer"))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::preflight;
    use tamegrad::{FirstStep, LayerId, TensorId};

    #[test]
    fn warnings_come_first_then_numbers_chain_pictures_and_layers() {
        let seen = preflight(&[2.0, 1.0, 40.0, 30.0], &[1.5, 20.0, 0.25, 1.0], 0.025);
        insta::assert_snapshot!(text(&seen, &Style::plain(80)), @r"
        Not ready: problems before the first update
          - forward gains multiply to 2,400 over 4 layers
          - this learning rate is 40 times the largest that lowers the loss

        loss                            2.5
        gradient norm                   5.2
        largest first update |dW|/|W|   0.01 (layers.0.linear.weight)
        largest rate lowering the loss  0.025 times this one
        powers of 2 before overflow     117

        Gains of the layers
        forward   2 × 1 × [40] × [30] = 2,400
        backward  1 × [0.25] × [20] × 1.5 = 7.5

        RMS of the outputs, logarithmic
        2,400 |            ███
              |            ███
              |         ▇▇▇███
              |         ██████
            1 |▁▁▁▄▄▄▄▄▄██████
                     ^  ^  ^
               input  layers.3

        Norm of the gradients with respect to them, logarithmic
         7.5 |███▃▃▃
             |██████
             |██████
             |██████   ██████
        0.25 |██████▁▁▁██████
                    ^  ^  ^
              input  layers.3

        layer     forward  backward  out RMS  out max  grad RMS  grad norm  bits
        layers.0  2        1.5       2        2        5         5          126
        layers.1  1        [20]      2        2        0.25      0.25       127
        layers.2  [40]     [0.25]    80       80       1         1          122
        layers.3  [30]     1         2,400    2,400    1         1          117
        ");
    }

    #[test]
    fn an_overflow_shows_as_crosses_from_its_layer_on() {
        let inf = f64::INFINITY;
        let seen = preflight(&[1.0, 1e30, inf, 1.0], &[1.0; 4], inf);
        insta::assert_snapshot!(text(&seen, &Style::plain(60)), @r"
        Not ready: problems before the first update
          - will overflow at layers.2: its output is not finite

        loss                            2.5
        gradient norm                   2
        largest first update |dW|/|W|   0.01 (layers.0.linear.weight)
        largest rate lowering the loss  more than 4 times this one
        powers of 2 before overflow     0

        Gains of the layers
        forward   1 × [1e30] × [inf] (1 layer without a gain) = inf
        backward  1 × 1 × 1 × 1 = 1

        RMS of the outputs, logarithmic
        1e30 |      ███××××××
             |      ███××××××
             |      ███××××××
             |      ███××××××
           1 |▁▁▁▁▁▁███××××××
                    ^  ^
              input  layers.3

        Norm of the gradients with respect to them, logarithmic
         3.16 |
              |
              |▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄
              |███████████████
        0.316 |███████████████
                     ^  ^
               input  layers.3

        layer     forward  backward  out RMS  grad RMS  bits
        layers.0  1        1         1        1         128
        layers.1  [1e30]   1         1e30     1         28.3
        layers.2  [inf]    1         inf      1         0
        layers.3  -        1         inf      1         0
        ");
    }

    #[test]
    fn of_many_layers_the_ends_and_the_marked_ones_have_rows() {
        let mut forward = vec![1.0; 300];
        forward[200] = 300.0;
        let seen = preflight(&forward, &[1.0; 300], 4.0);
        let shown = text(&seen, &Style::plain(100));
        let table: Vec<&str> = shown.lines().skip_while(|line| !line.contains("bits")).collect();
        let names: Vec<&str> =
            table.iter().map(|row| row.split("  ").next().unwrap_or("")).collect();
        assert_eq!(
            names,
            ["layer", "layers.0", "(199 layers)", "layers.200", "(98 layers)", "layers.299"]
        );
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
        assert!(table[3].contains("[300]"), "{}", table[3]);
    }

    #[test]
    fn every_warning_names_its_place_and_number() {
        let layout = crate::check::layers(3);
        let (layer, tensor) = (LayerId(1), TensorId(2));
        let overflow = Warning::Overflow;
        for (warning, want) in [
            (overflow(OverflowAt::Input), "the input of the batch contains NaN or Inf"),
            (
                overflow(OverflowAt::Output(layer)),
                "will overflow at layers.1: its output is not finite",
            ),
            (
                overflow(OverflowAt::Loss),
                "will overflow at the loss: it is not finite, although every output is",
            ),
            (
                overflow(OverflowAt::LossGradient),
                "will overflow at the loss: its gradient is not finite",
            ),
            (
                overflow(OverflowAt::Gradient(layer)),
                "will overflow at layers.1 in the backward pass: the gradient that it passes on is not \
                 finite",
            ),
            (
                overflow(OverflowAt::Parameter(tensor)),
                "will overflow at layers.2.linear.weight: its gradient is not finite",
            ),
            (
                Warning::LittleHeadroom { layer, bits: 2.54 },
                "layers.1 is within 2.54 powers of 2 of the largest number of its type",
            ),
            (
                Warning::Gains { direction: Direction::Forward, product: 3e7, layers: 30 },
                "forward gains multiply to 3e7 over 30 layers",
            ),
            (
                Warning::Gains { direction: Direction::Backward, product: 4e3, layers: 1 },
                "backward gains multiply to 4,000 over 1 layer",
            ),
            (
                Warning::LargeUpdate { tensor, ratio: 1.25 },
                "the first update changes layers.2.linear.weight by 1.25 times its size",
            ),
            (
                Warning::BrokenUpdate { tensor },
                "the first update breaks the weights: it leaves layers.2.linear.weight NaN or Inf",
            ),
            (
                Warning::LearningRate { times: 40.0 },
                "this learning rate is 40 times the largest that lowers the loss",
            ),
            (
                Warning::LearningRate { times: f64::INFINITY },
                "the first update raises the loss, and so does 1/65,536 of it",
            ),
        ] {
            assert_eq!(words(&warning, &layout), want);
        }
    }

    #[test]
    fn machines_get_every_number() {
        let inf = f64::INFINITY;
        let seen = preflight(&[1.0, inf, 1.0], &[2.0, 1.0, 1.0], inf);
        let json = serde_json::to_value(report(&seen)).expect("serializes");
        assert_eq!(json["overflow"], "output");
        assert_eq!(json["overflows_at"], "layers.1");
        assert_eq!(json["forward_product"], "Infinity");
        assert_eq!(json["backward_product"], 2.0);
        assert_eq!(json["critical_multiple"], "Infinity");
        assert_eq!(json["first_update_tensor"], "layers.0.linear.weight");
        assert_eq!(json["layers"][0]["layer"], "layers.0");
        assert_eq!(json["layers"][0]["output_rms"], 1.0);
        assert_eq!(json["layers"][1]["output_max"], "Infinity");
        assert_eq!(json["layers"][1]["headroom_bits"], 0.0);
        assert_eq!(json["gains"][1]["forward"], "Infinity");
        assert_eq!(json["warnings"][0], words(&seen.warnings()[0], &seen.layout));
    }

    #[test]
    fn what_is_not_known_is_said() {
        let seen = tamegrad::preflight(&Layout::default(), &FirstStep::default());
        assert_eq!(
            text(&seen, &Style::plain(80)).lines().collect::<Vec<_>>(),
            [
                "Ready: nothing wrong before the first update",
                "",
                "loss                            unknown",
                "gradient norm                   unknown",
                "largest first update |dW|/|W|   unknown",
                "largest rate lowering the loss  unknown",
                "powers of 2 before overflow     unknown",
            ]
        );
        let json = serde_json::to_value(report(&seen)).expect("serializes");
        assert_eq!(json["backward_product"], serde_json::Value::Null);
        assert_eq!(json["layers"], serde_json::Value::Array(vec![]));
    }
}
