//! Update ratios |dW|/|W|: as a log has them, or from the norms of updates and parameters in it.

use std::collections::HashMap;

use tamegrad::logs::Sample;

use super::{behind, samples};
use crate::log::{Log, Point, Series};
use crate::vocabulary::{has, normal};

/// What the whole network is called where ratios are told of single tensors as well.
const ALL: &str = tamegrad::logs::ALL_PARAMETERS;

/// The ratios by what they are of: the weight matrices that the log names, or all parameters.
pub(crate) fn ratios(log: &Log) -> Vec<(String, Vec<Sample>)> {
    let given = log.series.iter().filter_map(|series| {
        let tensor = of(&series.name, &["update_ratio", "update_ratios", "update_to_weight"])?;
        Some((tensor, samples(&series.points)))
    });
    let is_matrix = |(name, _): &(String, Vec<Sample>)| {
        // A bias starts at zero, and then any update is large beside it.
        !normal(name).ends_with("bias")
    };
    given.chain(from_norms(log)).filter(is_matrix).collect()
}

/// The norm of all parameters.
pub(crate) fn parameter_norm(log: &Log) -> Option<&Series> {
    log.series.iter().find(|series| parameters(&series.name).as_deref() == Some(ALL))
}

/// The ratios of norms of updates to norms of the same parameters at the same step.
fn from_norms(log: &Log) -> Vec<(String, Vec<Sample>)> {
    let mut norms: HashMap<String, &Series> = HashMap::new();
    for series in &log.series {
        if let Some(tensor) = parameters(&series.name) {
            norms.entry(tensor).or_insert(series);
        }
    }
    let updates = log.series.iter().filter_map(|series| Some((updates(&series.name)?, series)));
    let ratios = updates.filter_map(|(tensor, updates)| {
        let norms = norms.get(&tensor)?;
        let at: HashMap<i64, f64> = norms.points.iter().map(|p| (p.step, p.value)).collect();
        let ratio = |update: &Point| {
            let norm = at.get(&update.step).filter(|norm| **norm > 0.0)?;
            Some(Sample { step: update.step, value: update.value / norm })
        };
        let ratios: Vec<Sample> = updates.points.iter().filter_map(ratio).collect();
        (!ratios.is_empty()).then_some((tensor, ratios))
    });
    ratios.collect()
}

/// The tensor whose update's norm a series is.
fn updates(name: &str) -> Option<String> {
    of(name, &["l2_norm/update", "update_norm", "updates_norm", "updates/norm", "l2_updates"])
}

/// The tensor whose norm a series is.
fn parameters(name: &str) -> Option<String> {
    let of_weights = ["l2_norm/param", "param_norm", "params_norm", "params/norm", "l2_params"];
    of(name, &of_weights).or_else(|| of(name, &["weight_norm", "params-norm", "params norm"]))
}

/// What a series is of whose name, behind any folder, is one of these, or begins with it and a `/`.
fn of(name: &str, starts: &[&str]) -> Option<String> {
    let is_other = has(&normal(name), &["max", "min", "std", "var", "ratio_std"]);
    let tensor = starts.iter().find_map(|start| match behind(name, start)? {
        "" | "/global" | "/total" | "/all" => Some(ALL),
        rest => rest.strip_prefix('/'),
    });
    tensor.filter(|_| !is_other).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::log_of;

    #[test]
    fn ratios_as_writers_name_them_and_from_norms() {
        let log = log_of(&[
            ("update_ratio", &[0.001, 0.002]),
            ("train/update_ratio/fc.weight", &[0.003]),
            ("update_ratio/fc.bias", &[9.0]),
            ("l2_norm/update/h.0.mlp", &[0.5, 1.0, 2.0]),
            ("l2_norm/param/h.0.mlp", &[100.0, 100.0]),
            ("param_norm", &[50.0]),
            ("grad_norm", &[1.0]),
        ]);
        let got: Vec<(String, Vec<f64>)> = ratios(&log)
            .into_iter()
            .map(|(name, samples)| (name, samples.iter().map(|s| s.value).collect()))
            .collect();
        let want = [
            ("all parameters", vec![0.001, 0.002]),
            ("fc.weight", vec![0.003]),
            ("h.0.mlp", vec![0.005, 0.01]),
        ];
        assert_eq!(got, want.map(|(name, values)| (name.to_owned(), values)));
        assert_eq!(parameter_norm(&log).map(|series| series.name.as_str()), Some("param_norm"));
    }
}
