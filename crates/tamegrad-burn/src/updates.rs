//! The size of an update: what changed between two states of a module.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
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

/// A copy of `before` moved by a multiple of the way to `after`. Running statistics are those of
/// `before`, and not shared with it.
pub(crate) fn along<M: Module>(before: &M, after: &M, multiple: f64) -> M {
    struct Targets(HashMap<ParamId, TensorData>);
    impl ModuleVisitor for Targets {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.0.insert(param.id, param.val().into_data());
            }
        }
    }
    struct Mover(Targets, f64);
    impl ModuleMapper for Mover {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(target) = self.0.0.remove(&param.id) else { return param };
            let multiple = self.1;
            param.map(|value| {
                let value = value.inner();
                let target = Tensor::<D>::from_data(target, &value.device());
                let moved = value.clone() + (target - value) * multiple;
                Tensor::from_inner(moved).require_grad()
            })
        }
    }
    let mut targets = Targets(HashMap::new());
    after.visit(&mut targets);
    before.valid().train().map(&mut Mover(targets, multiple))
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
