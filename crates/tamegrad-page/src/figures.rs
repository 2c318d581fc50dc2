//! All figures of a run, in the order in which they are shown.

use tamegrad::logs::Sample;

use crate::curve::{self, Curve};
use crate::figure::Figure;
use crate::gains;
use crate::heat::{self, Heat};
use crate::overlay::{self, Named, RUNS_MAX};
use crate::view::RunView;

/// The figures that the run has numbers for: `loss`, `gradient-norm`, `tensors`, `gains`, `update-ratio` and
/// `learning-rate`.
pub fn figures(run: &RunView<'_>) -> Vec<Figure> {
    let of = |name, title: &str, note: &str, samples: &[Sample], is_log| {
        curve::figure(&Curve { name, title, note, samples, is_log }, run)
    };
    let source = |series: Option<(&str, &[Sample])>| {
        series.map_or(String::new(), |(name, _)| format!("Series: {name}."))
    };
    let (loss, norm) = (source(run.log.loss), source(run.log.grad_norm));
    let tensors = Heat {
        name: "tensors",
        title: "Gradient norm by tensor",
        what: "gradient norm",
        tensors: run.tensors,
    };
    let ratios = match run.update_ratios {
        [(of_what, samples)] => {
            let note = format!("|ΔW| / |W| of {of_what}. About 0.001 is usual.");
            of("update-ratio", "Update ratio", &note, samples, true)
        }
        several => heat::figure(
            &Heat {
                name: "update-ratio",
                title: "Update ratio |ΔW| / |W| by tensor",
                what: "update ratio",
                tensors: several,
            },
            run,
        ),
    };
    let all = [
        of("loss", "Loss", &loss, run.loss(), true),
        of("gradient-norm", "Gradient norm", &norm, run.gradient_norm(), true),
        heat::figure(&tensors, run),
        gains::figure(run.log.diagnosis),
        ratios,
        of("learning-rate", "Learning rate", "", run.learning_rate, false),
    ];
    all.into_iter().flatten().collect()
}

/// Loss and gradient norm of several runs in one figure each, `names` beside their lines: `compared-loss`
/// and `compared-gradient-norm`.
pub fn overlays(runs: &[RunView<'_>], names: &[String]) -> Vec<Figure> {
    let of = |series: fn(&RunView<'_>) -> Vec<Sample>, name, title| {
        let series: Vec<Vec<Sample>> = runs.iter().take(RUNS_MAX).map(series).collect();
        let named: Vec<Named<'_>> =
            names.iter().zip(&series).map(|(name, samples)| (&name[..], &samples[..])).collect();
        overlay::figure(name, title, &named)
    };
    let all = [
        of(|run| run.loss().to_vec(), "compared-loss", "Loss"),
        of(|run| run.gradient_norm().to_vec(), "compared-gradient-norm", "Gradient norm"),
    ];
    all.into_iter().flatten().collect()
}
