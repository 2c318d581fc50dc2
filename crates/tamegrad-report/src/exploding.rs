//! What exploding gradients are, with a worked example that is computed from its factors.

use tamegrad::SignName;
use tamegrad::chain::depth_to_exceed;
use tamegrad::remedies::RemedyName;

use crate::chain::factors as chain_of;
use crate::number::{count, counted, number, product, worked};
use crate::style::{Style, Tone};
use crate::table::columns;
use crate::text::{join, section, wrap};

/// The factors of the worked example: two layers, the derivatives 100 and 400.
pub const DEFAULT_FACTORS: [f64; 2] = [100.0, 400.0];
/// The learning rate of the worked example.
const LEARNING_RATE: f64 = 0.01;
/// The weight of the worked example.
const WEIGHT: f64 = 0.5;
/// A mean factor this close to 1 neither grows nor vanishes at any depth that a network has.
const ONE: std::ops::RangeInclusive<f64> = 1.0 - 1e-9..=1.0 + 1e-9;
/// Number types with their largest finite value.
const TYPES: [(&str, f64); 3] = [("f16", 65504.0), ("bf16", 3.3895e38), ("f32", 3.4028e38)];

const WHAT: &str = "Training moves each weight against its gradient, the slope of the loss with \
    respect to that weight. A gradient explodes when this slope becomes so large that one update \
    throws the weight far away, to where the slope is larger still, until the numbers overflow.";
const WHY: [&str; 2] = [
    "The gradient of a weight in an early layer is a product: the chain rule multiplies the \
     derivatives of all layers between that weight and the loss. If the factors are above 1 on \
     average, the product grows exponentially with depth; if they are below 1, it vanishes.",
    "Factors become large because the initial weights are too large, the learning rate lets the \
     weights grow, activations grow faster than their input, targets or inputs are not scaled, or \
     the same recurrent matrix is multiplied once per time step.",
];
const SEEN: &str = "The signs; `tamegrad explain NAME` describes each:";
const HELP: &str = "Four families of remedies; `tamegrad explain NAME` describes each remedy:";

/// The four families of remedies: what each does, and its remedies.
const FAMILIES: [(&str, &str, &[RemedyName]); 4] = [
    (
        "Simplify",
        "fewer factors in the product, fewer samples in a step",
        &[RemedyName::FewerLayers, RemedyName::SmallerBatch],
    ),
    (
        "Clip",
        "bound the gradient before it becomes an update",
        &[RemedyName::ClipGlobalNorm, RemedyName::ClipTensorNorm, RemedyName::ClipValue],
    ),
    (
        "Regularise",
        "keep the weights small, and with them the factors",
        &[RemedyName::L1Penalty, RemedyName::L2Penalty, RemedyName::WeightDecay],
    ),
    ("Normalise", "reset the scale at every layer", &[RemedyName::BatchNorm]),
];

/// Explains what exploding gradients are, why they happen, how to recognise them and what helps,
/// with an example worked out from `factors`: the derivatives that the chain rule multiplies, the
/// one next to the weight first. No factors means [`DEFAULT_FACTORS`].
pub fn exploding_gradients(factors: &[f64], style: &Style) -> String {
    let factors = if factors.is_empty() { &DEFAULT_FACTORS } else { factors };
    let mut lines = vec![style.paint(Tone::Heading, "Exploding gradients")];
    lines.extend(section("What they are", &[WHAT], style));
    lines.extend(section("Why they happen", &WHY, style));
    lines.extend(section("A worked example", &[], style));
    lines.extend(example(factors, style));
    lines.extend(section("Depth at which it overflows", &[], style));
    lines.extend(depths(factors, style));
    lines.extend(section("How to recognise them", &[SEEN], style));
    lines.extend(signs(style));
    lines.extend(section("What helps", &[HELP], style));
    lines.extend(families(style));
    join(lines)
}

/// The chain, its product, and the update that follows from it.
fn example(factors: &[f64], style: &Style) -> Vec<String> {
    let width = style.line();
    let net = match factors.len() {
        1 => {
            "A network with one layer between a weight w and the loss L has one factor:".to_owned()
        }
        2 => "In a network of two layers, w -> h -> L, the chain rule gives the slope of the loss \
              L with respect to the first weight w as dL/dw = dh/dw × dL/dh:"
            .to_owned(),
        many => format!(
            "In a network of {many} layers, the chain rule multiplies one factor per layer:"
        ),
    };
    let mut lines = wrap(&net, "  ", width);
    lines.extend(chain_of("    dL/dw = ", factors, style));
    lines.extend(wrap(&update(factors), "  ", width));
    lines
}

/// What the gradient does to a weight.
fn update(factors: &[f64]) -> String {
    let slope: f64 = factors.iter().product();
    if !slope.is_finite() {
        return format!("The slope is {}: no weight survives such an update.", product(factors));
    }
    let change = LEARNING_RATE * slope;
    let after = WEIGHT - change;
    let judged = match change.abs() / WEIGHT {
        ratio if ratio > 1.0 => {
            format!("the update is {} times as large as the weight", number(ratio))
        }
        ratio => format!("the update is {} of the weight", number(ratio)),
    };
    format!(
        "With a learning rate of {}, one update subtracts {} × {} = {} from the weight: {} becomes \
         {}. In other words, {judged}.",
        worked(LEARNING_RATE),
        worked(LEARNING_RATE),
        worked(slope),
        worked(change),
        worked(WEIGHT),
        worked(after)
    )
}

/// The depth at which the chain, repeated at its mean factor, overflows each number type.
fn depths(factors: &[f64], style: &Style) -> Vec<String> {
    let mean = mean(factors);
    let width = style.line();
    let each = format!("The geometric mean of the factors is {} per layer.", number(mean));
    let never = if mean.is_nan() {
        "A factor is not a number, so nothing can be said about deeper networks."
    } else if ONE.contains(&mean) {
        "A chain of such layers never overflows: its product stays the same."
    } else if mean < 1.0 {
        "A chain of such layers never overflows: it vanishes towards 0 instead."
    } else {
        let told = format!("{each} A chain of such layers overflows");
        let mut lines = wrap(&told, "  ", width);
        let rows: Vec<Vec<String>> = TYPES.iter().map(|kind| depth_row(*kind, mean)).collect();
        lines.extend(columns(&rows, 2, width - 4).into_iter().map(|line| format!("    {line}")));
        return lines;
    };
    wrap(&format!("{each} {never}"), "  ", width)
}

fn depth_row((name, largest): (&str, f64), mean: f64) -> Vec<String> {
    let depth = depth_to_exceed(mean, largest)
        .map_or_else(|| "never".to_owned(), |depth| format!("at {}", counted(depth, "layer")));
    vec![name.to_owned(), format!("(largest value {})", number(largest)), depth]
}

/// The geometric mean of the magnitudes.
fn mean(factors: &[f64]) -> f64 {
    let logarithms: f64 = factors.iter().map(|factor| factor.abs().ln()).sum();
    (logarithms / factors.len() as f64).exp()
}

fn signs(style: &Style) -> Vec<String> {
    let row = |(index, sign): (usize, SignName)| {
        let number = format!("    {}.", count(index as u64 + 1));
        vec![number, sign.as_str().to_owned(), sign.doc().title.to_owned()]
    };
    let rows: Vec<Vec<String>> = SignName::ALL.into_iter().enumerate().map(row).collect();
    columns(&rows, 2, style.line())
}

fn families(style: &Style) -> Vec<String> {
    let row = |(name, what, remedies): &(&str, &str, &[RemedyName])| {
        let names: Vec<&str> = remedies.iter().map(|remedy| remedy.as_str()).collect();
        vec![format!("    {name}"), format!("{what}: {}", names.join(", "))]
    };
    let rows: Vec<Vec<String>> = FAMILIES.iter().map(row).collect();
    columns(&rows, 1, style.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(factors: &[f64]) -> String {
        exploding_gradients(factors, &Style::plain(90))
    }

    /// The sections from a heading to the next, joined to one line.
    fn part(text: &str, heading: &str) -> String {
        let lines = text.lines().skip_while(|line| *line != heading).skip(1);
        let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).map(str::trim).collect();
        lines.join(" ")
    }

    #[test]
    fn the_whole_page() {
        insta::assert_snapshot!(told(&[]), @r"
        Exploding gradients

        What they are
          Training moves each weight against its gradient, the slope of the loss with respect to
          that weight. A gradient explodes when this slope becomes so large that one update throws
          the weight far away, to where the slope is larger still, until the numbers overflow.

        Why they happen
          The gradient of a weight in an early layer is a product: the chain rule multiplies the
          derivatives of all layers between that weight and the loss. If the factors are above 1
          on average, the product grows exponentially with depth; if they are below 1, it
          vanishes.
          Factors become large because the initial weights are too large, the learning rate lets
          the weights grow, activations grow faster than their input, targets or inputs are not
          scaled, or the same recurrent matrix is multiplied once per time step.

        A worked example
          In a network of two layers, w -> h -> L, the chain rule gives the slope of the loss L
          with respect to the first weight w as dL/dw = dh/dw × dL/dh:
            dL/dw = [100] × [400] = 40,000
          With a learning rate of 0.01, one update subtracts 0.01 × 40,000 = 400 from the weight:
          0.5 becomes -399.5. In other words, the update is 800 times as large as the weight.

        Depth at which it overflows
          The geometric mean of the factors is 200 per layer. A chain of such layers overflows
            f16   (largest value 65,504)   at 3 layers
            bf16  (largest value 3.39e38)  at 17 layers
            f32   (largest value 3.4e38)   at 17 layers

        How to recognise them
          The signs; `tamegrad explain NAME` describes each:
            1.  loss-fluctuates      Loss fluctuates wildly
            2.  loss-nonfinite       Loss is NaN or Inf
            3.  metric-stalls        Metric stalls or deteriorates
            4.  updates-too-large    Updates are too large
            5.  gradient-spikes      Gradients spike or are very large
            6.  learning-rate-falls  The learning rate has to come down a lot

        What helps
          Four families of remedies; `tamegrad explain NAME` describes each remedy:
            Simplify    fewer factors in the product, fewer samples in a step: fewer-layers,
                        smaller-batch
            Clip        bound the gradient before it becomes an update: clip-global-norm,
                        clip-tensor-norm, clip-value
            Regularise  keep the weights small, and with them the factors: l1-penalty, l2-penalty,
                        weight-decay
            Normalise   reset the scale at every layer: batch-norm
        ");
    }

    #[test]
    fn the_example_is_computed_from_the_factors() {
        for (factors, words) in [
            (vec![100.0, 400.0], "= 400 from the weight: 0.5 becomes -399.5."),
            (vec![0.1, 0.5], "= 5e-4 from the weight: 0.5 becomes 0.4995. In other words"),
            (vec![-30.0], "= -0.3 from the weight: 0.5 becomes 0.8."),
            (vec![1e200, 1e200], "= 1e400 The slope is 1e400: no weight survives"),
            (vec![f64::NAN], "The slope is NaN"),
        ] {
            let example = part(&told(&factors), "A worked example");
            assert!(example.contains(words), "{factors:?}: {example}");
        }
    }

    #[test]
    fn the_depth_of_cases() {
        for (factors, words) in [
            (vec![2.0], "f16 (largest value 65,504) at 16 layers"),
            (vec![2.0], "f32 (largest value 3.4e38) at 128 layers"),
            (vec![1.0, 4.0], "mean of the factors is 2 per layer"),
            (vec![1e39], "bf16 (largest value 3.39e38) at 1 layer"),
            (vec![0.1, 10.0], "never overflows: its product stays"),
            (vec![3.0, 1.0 / 3.0], "never overflows: its product stays"),
            (vec![0.5], "never overflows: it vanishes"),
            (vec![0.0, 5.0], "never overflows: it vanishes"),
            (vec![f64::NAN, 5.0], "A factor is not a number"),
            (vec![-2.0], "f16 (largest value 65,504) at 16 layers"),
        ] {
            let depths = part(&told(&factors), "Depth at which it overflows");
            let depths = depths.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(depths.contains(words), "{factors:?}: {depths}");
        }
    }

    #[test]
    fn a_mean_next_to_one_ends() {
        let depths = part(&told(&[1.0 + f64::EPSILON]), "Depth at which it overflows");
        assert!(depths.contains("its product stays"), "{depths}");
    }
}
