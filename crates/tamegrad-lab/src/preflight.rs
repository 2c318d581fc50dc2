//! Before the first update: the chain of gains, the headroom, and the size of the first step.

use std::sync::atomic::AtomicBool;

use tamegrad::{Chain, LayerId, Mode, Record};

use crate::prepare::SetupError;
use crate::recipe::Recipe;
use crate::train::{TrainOptions, train};

/// What one forward and backward pass of the first batch shows.
#[derive(Debug, Clone)]
pub struct Preflight {
    /// Gains of the layers.
    pub chain: Option<Chain>,
    /// Loss of the first batch.
    pub loss: Option<f64>,
    /// L2 norm of the first gradient; NaN when it has elements that are not finite.
    pub gradient_norm: Option<f64>,
    /// The first layer whose output is not finite.
    pub overflows_at: Option<LayerId>,
    /// Powers of 2 between the largest output and the largest number of the type.
    pub headroom_bits: Option<f64>,
    /// The largest update ratio of the first update.
    pub first_update: Option<f64>,
    /// Everything that was recorded.
    pub record: Record,
    /// What is wrong, in words; empty when nothing is.
    pub warnings: Vec<String>,
}

/// Products of gains above this are a warning.
const PRODUCT_MAX: f64 = 1e3;
/// First updates above this part of the weights are a warning.
const UPDATE_MAX: f64 = 0.1;
/// Fewer powers of 2 than this to the end of the type are a warning.
const HEADROOM_MIN: f64 = 16.0;

/// Runs the first step of a recipe on a model that is thrown away, and says what it shows.
///
/// # Errors
/// When the data cannot be loaded.
pub fn preflight(recipe: &Recipe) -> Result<Preflight, SetupError> {
    let cancel = AtomicBool::new(false);
    let options = TrainOptions {
        mode: Mode::Observe,
        steps_max: Some(1),
        stop_after_alarm: None,
        cancel: &cancel,
    };
    let run = train(recipe, &options, &mut |_, _| {})?;
    let record = run.record;
    let trace = record.first_trace.as_ref().map(|(_, trace)| trace);
    let outputs = || trace.iter().flat_map(|trace| &trace.layers).map(|layer| layer.output);
    let largest = outputs().map(|output| output.max_abs).fold(0.0, f64::max);
    let max = record.facts.dtype_max.unwrap_or(f64::MAX);
    let mut seen = Preflight {
        chain: record.first_chain(),
        loss: record.now().and_then(|row| row.loss),
        // The norm is that of the finite part: where all is broken it would be a calm 0.
        gradient_norm: record.now().and_then(|row| {
            if row.nonfinite_gradients > 0 { Some(f64::NAN) } else { row.gradient_norm }
        }),
        overflows_at: outputs().position(|output| output.nonfinite() > 0).map(LayerId),
        headroom_bits: (largest > 0.0).then(|| (max / largest).log2()),
        first_update: record.now().and_then(|row| row.update_ratio),
        warnings: Vec::new(),
        record,
    };
    seen.warnings = warnings(&seen);
    Ok(seen)
}

fn warnings(seen: &Preflight) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(layer) = seen.overflows_at {
        let name = seen.record.layout.layer_name(layer);
        warnings.push(format!("the output of {name} overflows in the first pass"));
    } else if let Some(bits) = seen.headroom_bits.filter(|bits| *bits < HEADROOM_MIN) {
        warnings.push(format!("outputs are within {bits:.1} powers of 2 of the largest number"));
    }
    if let Some(chain) = &seen.chain {
        let count = chain.links.len();
        for (side, product) in
            [("forward", chain.forward_product()), ("backward", chain.backward_product())]
        {
            if product > PRODUCT_MAX && product.is_finite() {
                warnings
                    .push(format!("{side} gains multiply to {product:.1e} over {count} layers"));
            }
        }
    }
    if seen.loss.is_some_and(|loss| !loss.is_finite()) {
        warnings.push("the first loss is not finite".to_owned());
    }
    match seen.first_update.filter(|ratio| !(*ratio <= UPDATE_MAX)) {
        Some(ratio) if ratio.is_finite() => warnings
            .push(format!("the first update changes a weight matrix by {ratio:.1} times its size")),
        Some(_) => warnings.push("the first update breaks the weights".to_owned()),
        None => {}
    }
    warnings
}
