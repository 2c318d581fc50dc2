//! What Python has found out about an alarm, as the core takes it.

use std::collections::HashMap;

use pyo3::prelude::*;
use tamegrad::causes::by_experiments;
use tamegrad::inspection::{self, BrokenRows, Experiment, OperationKind, SourceLine, Varied};
use tamegrad::{LayerId, TensorId};

/// The fields of `_inspection.Inspection`.
#[derive(FromPyObject)]
pub(crate) struct Inspection {
    operation: Option<Operation>,
    labels: Option<Labels>,
    target_range: Option<TargetRange>,
    rows: HashMap<String, Vec<u64>>,
    row_counts: HashMap<String, u64>,
    division: Option<Division>,
    accumulation: Option<Accumulation>,
    time_steps: Option<TimeSteps>,
    parameter: Option<(usize, u64)>,
}

#[derive(FromPyObject)]
struct Operation {
    kind: String,
    name: String,
    backward: bool,
    module: Option<String>,
    line: Option<Line>,
    operands: Vec<Operand>,
    nan: u64,
    inf: u64,
    dtype_max: Option<f64>,
    wider_is_finite: Option<bool>,
    compiled: bool,
}

#[derive(FromPyObject)]
struct Line {
    file: String,
    line: u64,
    function: String,
    code: String,
}

#[derive(FromPyObject)]
struct Operand {
    dtype: String,
    len: u64,
    zeros: u64,
    negatives: u64,
    nan: u64,
    pos_inf: u64,
    neg_inf: u64,
    smallest: Option<f64>,
    largest: Option<f64>,
    masked_rows: u64,
    made_by: Option<String>,
}

#[derive(FromPyObject)]
struct Labels {
    len: u64,
    ignored: u64,
    min: i64,
    max: i64,
    classes: u64,
    too_long: Option<u64>,
    reduction: String,
}

#[derive(FromPyObject)]
struct TargetRange {
    min: f64,
    max: f64,
}

#[derive(FromPyObject)]
struct Division {
    tensor: usize,
    optimizer: String,
    eps: Option<f64>,
    dtype: String,
    eps_in_type: Option<f64>,
    lost: u64,
    zeros: u64,
    len: u64,
}

#[derive(FromPyObject)]
struct Accumulation {
    passes: u64,
    norm_of_one: f64,
    norm: f64,
    norm_left: f64,
}

#[derive(FromPyObject)]
struct TimeSteps {
    layer: Option<usize>,
    calls: u64,
    norm_of_first: f64,
    norm_of_last: f64,
}

impl From<Inspection> for inspection::Inspection {
    fn from(of: Inspection) -> Self {
        let mut rows: Vec<BrokenRows> = of
            .rows
            .into_iter()
            .map(|(name, mut rows)| {
                let count = of.row_counts.get(&name).copied().unwrap_or(rows.len() as u64);
                rows.truncate(BrokenRows::MAX);
                BrokenRows { input: (name != "targets").then_some(name), rows, count }
            })
            .collect();
        rows.sort_by(|a, b| a.input.cmp(&b.input));
        Self {
            operation: of.operation.map(Into::into),
            labels: of.labels.map(Into::into),
            probabilities: of.target_range.map(|range| (range.min, range.max)),
            rows,
            division: of.division.and_then(Division::into_core),
            accumulation: of.accumulation.map(|of| inspection::Accumulation {
                passes: of.passes,
                norm_of_one: of.norm_of_one,
                norm: of.norm,
                norm_left: of.norm_left,
            }),
            time_steps: of.time_steps.map(|of| inspection::TimeSteps {
                layer: of.layer.map(LayerId),
                calls: of.calls,
                norm_of_first: of.norm_of_first,
                norm_of_last: of.norm_of_last,
            }),
            parameter: of.parameter.map(|(tensor, count)| (TensorId(tensor), count)),
            experiments: Vec::new(),
        }
    }
}

impl From<Operation> for inspection::Operation {
    fn from(of: Operation) -> Self {
        Self {
            kind: OperationKind::named(&of.kind),
            name: of.name,
            is_backward: of.backward,
            module: of.module,
            line: of.line.map(|line| SourceLine {
                file: line.file,
                line: line.line,
                function: line.function,
                code: line.code,
            }),
            operands: of.operands.into_iter().map(Into::into).collect(),
            nan: of.nan,
            inf: of.inf,
            dtype_max: of.dtype_max,
            wider_is_finite: of.wider_is_finite,
            is_compiled: of.compiled,
        }
    }
}

impl From<Operand> for inspection::Operand {
    fn from(of: Operand) -> Self {
        Self {
            dtype: of.dtype,
            len: of.len,
            zeros: of.zeros,
            negatives: of.negatives,
            nan: of.nan,
            pos_inf: of.pos_inf,
            neg_inf: of.neg_inf,
            smallest: of.smallest,
            largest: of.largest,
            masked_rows: of.masked_rows,
            made_by: of.made_by.as_deref().map(OperationKind::named),
        }
    }
}

impl From<Labels> for inspection::Labels {
    fn from(of: Labels) -> Self {
        Self {
            len: of.len,
            ignored: of.ignored,
            min: of.min,
            max: of.max,
            classes: of.classes,
            too_long: of.too_long.unwrap_or(0),
            is_summed: of.reduction == "sum",
        }
    }
}

impl Division {
    /// `None` of an optimizer that adds nothing to what it divides by.
    fn into_core(self) -> Option<inspection::Division> {
        Some(inspection::Division {
            tensor: TensorId(self.tensor),
            optimizer: self.optimizer,
            eps: self.eps?,
            dtype: self.dtype,
            eps_in_type: self.eps_in_type?,
            zeros: self.zeros,
            lost: self.lost,
            len: self.len,
        })
    }
}

/// The cause that follows from running a step again with one thing changed at a time: rows of what was
/// changed, and whether all was finite (`None`: that was not tried). A name that the core does not know is
/// left out.
#[pyfunction]
pub(crate) fn judge_experiments(rows: Vec<(String, Option<bool>)>) -> Option<&'static str> {
    let experiment = |(name, is_finite): (String, Option<bool>)| {
        let varied = Varied::ALL.iter().copied().find(|varied| varied.as_str() == name)?;
        Some(Experiment { varied, is_finite: is_finite? })
    };
    let experiments: Vec<Experiment> = rows.into_iter().filter_map(experiment).collect();
    by_experiments(&experiments).map(|cause| cause.as_str())
}
