//! The size of an update: what changed between two states of a module.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::container::TensorContainer;
use burn::tensor::{DType, Tensor};
use tamegrad::Update;
use tamegrad_stats::{ListStats, update_of};

use crate::device_scan::widened;
use crate::host::HostTensor;
use crate::list::TensorList;
use crate::parameters::ParameterTable;

/// The update of each parameter from `before` to `after`, by [`tamegrad::TensorId`].
///
/// On the CPU both states are read where they lie, by [`update_of`]. On any other device the change is
/// formed there in the parameters' own type (f32 for half precision), so each element of it is rounded
/// once.
pub(crate) fn measure<M: Module>(
    table: &ParameterTable,
    before: &M,
    after: &M,
    buffers: &mut ListStats,
) -> Vec<Option<Update>> {
    let mut updates = vec![None; table.len()];
    measure_those(table, before, after, &vec![true; table.len()], &mut updates, buffers);
    updates
}

/// [`measure`] of the parameters that are `wanted`, into their places.
pub(crate) fn measure_those<M: Module>(
    table: &ParameterTable,
    before: &M,
    after: &M,
    wanted: &[bool],
    updates: &mut [Option<Update>],
    buffers: &mut ListStats,
) {
    let mut pairs = Pairs {
        table,
        wanted,
        before: parameters(before),
        updates,
        listed: Vec::new(),
        list: TensorList::default(),
    };
    after.visit(&mut pairs);
    let Pairs { listed, list, .. } = pairs;
    let mut stats = list.scan(buffers);
    for (index, type_max) in listed {
        if let (Some(change), Some(before), Some(after)) =
            (stats.next(), stats.next(), stats.next())
        {
            updates[index] = Some(Update::of_stats(&change, &before, &after, type_max));
        }
    }
}

/// A copy of `before` moved by a multiple of the way to `after`. Running statistics are those of
/// `before`, and not shared with it.
pub(crate) fn along<M: Module>(before: &M, after: &M, multiple: f64) -> M {
    struct Mover(TensorContainer<ParamId>, f64);
    impl ModuleMapper for Mover {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let target = self.0.remove::<Tensor<D>>(&param.id);
            let Some(target) = target else { return param };
            let multiple = self.1;
            param.map(|value| {
                let value = value.inner();
                let moved = value.clone() + (target - value) * multiple;
                Tensor::from_inner(moved).require_grad()
            })
        }
    }
    before.valid().train().map(&mut Mover(parameters(after), multiple))
}

/// Handles to the trainable tensors of a module.
fn parameters<M: Module>(module: &M) -> TensorContainer<ParamId> {
    struct Collector(TensorContainer<ParamId>);
    impl ModuleVisitor for Collector {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            // What no pass has used stays as it is.
            let value = param.is_initialized().then(|| param.val());
            if let Some(value) = value.filter(|value| value.is_require_grad()) {
                self.0.register(param.id, value.inner());
            }
        }
    }
    let mut collector = Collector(TensorContainer::new());
    module.visit(&mut collector);
    collector.0
}

/// Goes through the parameters after an update and measures each that lies in the memory of the CPU.
/// Of the others it lists: the change, what the tensor was, what it is.
struct Pairs<'a> {
    table: &'a ParameterTable,
    wanted: &'a [bool],
    before: TensorContainer<ParamId>,
    updates: &'a mut [Option<Update>],
    /// The parameter of each three tensors of the list, and the largest number of the type that its
    /// change is formed in.
    listed: Vec<(usize, f64)>,
    list: TensorList,
}

impl ModuleVisitor for Pairs<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(index) = self.table.index_of(param.id).filter(|index| self.wanted[*index]) else {
            return;
        };
        let Some(before) = self.before.remove::<Tensor<D>>(&param.id) else { return };
        let after = param.val().inner();
        self.updates[index] = in_place(&before, &after);
        if self.updates[index].is_none() {
            let is_f64 = after.dtype() == DType::F64;
            self.listed.push((index, if is_f64 { f64::MAX } else { f64::from(f32::MAX) }));
            self.list.push(widened(after.clone()) - widened(before.clone()));
            self.list.push(before);
            self.list.push(after);
        }
    }
}

/// The update of a tensor that is read where it lies; `None` where it cannot be.
fn in_place<const D: usize>(before: &Tensor<D>, after: &Tensor<D>) -> Option<Update> {
    let (before, after) = (HostTensor::new(before.clone())?, HostTensor::new(after.clone())?);
    before.is_laid_out_like(&after).then(|| update_of(before.elements(), after.elements()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[derive(Module, Debug)]
    struct Net {
        weight: Param<Tensor<1>>,
    }

    impl Net {
        fn new(id: ParamId, values: &[f64], dtype: DType) -> Self {
            let device = Device::flex().autodiff();
            let tensor = Tensor::<1>::from_data(TensorData::from(values), (&device, dtype));
            Self { weight: Param::initialized(id, tensor.require_grad()) }
        }

        /// As the type holds them.
        fn values(&self) -> Vec<f64> {
            self.weight.val().into_data().iter::<f64>().collect()
        }
    }

    /// The update and, as reference, one measured by f64 differences.
    fn measured(before: &[f64], after: &[f64], dtype: DType) -> (Update, Update) {
        let id = ParamId::new();
        let (before, after) = (Net::new(id, before, dtype), Net::new(id, after, dtype));
        let table = ParameterTable::new(&before, None);
        let found = measure(&table, &before, &after, &mut ListStats::default());
        let (before, after) = (before.values(), after.values());
        let change: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let want = Update {
            change_norm: tamegrad_stats::scan(&change).l2,
            weight_norm: tamegrad_stats::scan(&before).l2,
            len: after.len() as u64,
            nonfinite: tamegrad_stats::scan(&after).nonfinite(),
        };
        (found[0].expect("measured"), want)
    }

    #[test]
    fn agrees_with_differences_in_f64() {
        let wave = |i: i32, pace: f64| (f64::from(i) * pace).sin();
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            // From a first step to steps that most weights are too coarse for.
            for size in [10.0, 0.1, 1e-3, 1e-5, 1e-8] {
                let before: Vec<f64> = (0..5000).map(|i| 0.05 * wave(i, 0.7)).collect();
                let after: Vec<f64> =
                    (0..).zip(&before).map(|(i, w)| w - 0.05 * size * wave(i, 0.3)).collect();
                let (got, want) = measured(&before, &after, dtype);
                let error = (got.change_norm - want.change_norm).abs();
                assert!(error <= 1e-6 * want.change_norm, "{dtype:?} {size}: {got:?} {want:?}");
                assert!((got.weight_norm / want.weight_norm - 1.0).abs() < 1e-12);
                assert_eq!((got.len, got.nonfinite), (5000, 0));
            }
        }
    }

    #[test]
    fn broken_weights_are_counted_and_no_part_of_the_change() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let (got, want) = measured(&[1.0, 1.0, 2.0, inf], &[nan, inf, 5.0, inf], DType::F32);
        assert_eq!(got, want);
        assert_eq!((got.change_norm, got.nonfinite), (3.0, 3));
    }

    #[test]
    fn a_change_beyond_the_type_is_not_lost() {
        let (got, want) = measured(&[3e38, 1.0], &[-3e38, 1.0], DType::F32);
        assert!((got.change_norm / want.change_norm - 1.0).abs() < 1e-6, "{got:?} {want:?}");
    }
}
