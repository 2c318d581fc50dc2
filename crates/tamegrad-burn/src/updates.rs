//! The size of an update: what changed between two states of a module.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use tamegrad::Update;

use crate::parameters::{ParameterTable, scan_data};

/// The update of each parameter from `before` to `after`, by [`tamegrad::TensorId`].
pub(crate) fn measure<M: Module>(
    table: &ParameterTable,
    before: &M,
    after: &M,
) -> Vec<Option<Update>> {
    let (before, after) = (collect(table, before), collect(table, after));
    before.into_iter().zip(after).map(|(before, after)| Some(update(&before?, &after?))).collect()
}

fn update(before: &TensorData, after: &TensorData) -> Update {
    let change: Vec<f64> = after
        .iter::<f64>()
        .zip(before.iter::<f64>())
        .map(|(after, before)| after - before)
        .collect();
    let after = scan_data(after);
    Update {
        change_norm: tamegrad_stats::scan(&change).l2,
        weight_norm: scan_data(before).l2,
        len: after.len,
        nonfinite: after.nonfinite(),
    }
}

fn collect<M: Module>(table: &ParameterTable, module: &M) -> Vec<Option<TensorData>> {
    let mut collector = Collector { table, found: vec![None; table.ids.len()] };
    module.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    table: &'a ParameterTable,
    found: Vec<Option<TensorData>>,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(index) = self.table.ids.iter().position(|id| *id == param.id) {
            self.found[index].get_or_insert_with(|| param.val().into_data());
        }
    }
}
