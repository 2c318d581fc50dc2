//! Gradients scaled or clamped in place.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use tamegrad_stats::TensorMut;

use crate::device_scan::widened;
use crate::host::is_host;
use crate::parameters::ParameterTable;

/// What becomes of gradients, by [`tamegrad::TensorId`]. Non-finite elements stay as they are, so
/// that the next scan still shows them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// Each is multiplied by its factor; `None` is not touched.
    Scale(Vec<Option<f64>>),
    /// The elements of those marked are brought within `limit` of 0.
    Clamp {
        /// The largest magnitude.
        limit: f64,
        /// Whether a tensor has an element beyond it.
        exceeds: Vec<bool>,
    },
}

impl Change {
    /// Changes the gradients and says whether there was anything to do. On the CPU the tensors are
    /// taken out, changed in their own memory in one call, and put back.
    pub(crate) fn apply<M: Module>(
        &self,
        table: &ParameterTable,
        model: &M,
        gradients: &mut GradientsParams,
    ) -> bool {
        if !(0..table.len()).any(|index| self.touches(index)) {
            return false;
        }
        let slots = (0..table.len()).map(|_| Slot::Unseen).collect();
        let mut taker = Taker { change: self, table, gradients, slots };
        model.visit(&mut taker);
        let mut slots = taker.slots;
        self.change_on_host(&mut slots);
        model.visit(&mut Returner { table, gradients, slots });
        true
    }

    fn touches(&self, index: usize) -> bool {
        match self {
            Change::Scale(factors) => factors.get(index).is_some_and(Option::is_some),
            Change::Clamp { exceeds, .. } => exceeds.get(index).is_some_and(|exceeds| *exceeds),
        }
    }

    fn change_on_host(&self, slots: &mut [Slot]) {
        let (mut tensors, mut indices) = (Vec::new(), Vec::new());
        for (index, slot) in slots.iter_mut().enumerate() {
            if let Slot::Taken(data, _) = slot
                && let Some(tensor) = elements(data)
            {
                tensors.push(tensor);
                indices.push(index);
            }
        }
        match self {
            Change::Scale(factors) => {
                let factors: Vec<f64> = indices.iter().filter_map(|i| factors[*i]).collect();
                tamegrad_stats::scale_list(&mut tensors, &factors);
            }
            Change::Clamp { limit, .. } => {
                tamegrad_stats::clip_values(&mut tensors, *limit);
            }
        }
    }

    fn change_on_device<const D: usize>(&self, index: usize, tensor: Tensor<D>) -> Tensor<D> {
        match self {
            Change::Scale(factors) => scaled(tensor, factors[index].unwrap_or(1.0)),
            Change::Clamp { limit, .. } => clamped(tensor, *limit),
        }
    }
}

/// The way of a gradient through the change. A tied tensor is met twice.
enum Slot {
    Unseen,
    Taken(TensorData, Device),
    Done,
}

struct Taker<'a> {
    change: &'a Change,
    table: &'a ParameterTable,
    gradients: &'a mut GradientsParams,
    slots: Vec<Slot>,
}

impl ModuleVisitor for Taker<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(index) = self.table.index_of(param.id) else { return };
        if !self.change.touches(index) || !matches!(self.slots[index], Slot::Unseen) {
            return;
        }
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
        let device = gradient.device();
        self.slots[index] = if is_host(&device) {
            Slot::Taken(gradient.into_data(), device)
        } else {
            let changed = self.change.change_on_device(index, gradient);
            self.gradients.register(param.id, changed);
            Slot::Done
        };
    }
}

struct Returner<'a> {
    table: &'a ParameterTable,
    gradients: &'a mut GradientsParams,
    slots: Vec<Slot>,
}

impl ModuleVisitor for Returner<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(index) = self.table.index_of(param.id) else { return };
        if let Slot::Taken(data, device) = std::mem::replace(&mut self.slots[index], Slot::Done) {
            let dtype = data.dtype();
            let tensor = Tensor::<D>::from_data(data, (&device, dtype));
            self.gradients.register(param.id, tensor);
        }
    }
}

fn elements(data: &mut TensorData) -> Option<TensorMut<'_>> {
    match data.dtype() {
        DType::F32 => data.as_mut_slice().ok().map(TensorMut::F32),
        DType::F64 => data.as_mut_slice().ok().map(TensorMut::F64),
        DType::F16 => data.as_mut_slice().ok().map(TensorMut::F16),
        DType::BF16 => data.as_mut_slice().ok().map(TensorMut::Bf16),
        _ => None,
    }
}

/// [`tamegrad_stats::scale`] by tensor operations.
fn scaled<const D: usize>(tensor: Tensor<D>, factor: f64) -> Tensor<D> {
    // A factor that f32 holds with fewer digits is applied in two steps; the first is exact.
    const STEP: f64 = 1.0 / (1u64 << 63) as f64;
    let wide = widened(tensor.clone());
    let product = if factor.abs() < f64::from(f32::MIN_POSITIVE) {
        wide.mul_scalar(STEP).mul_scalar(factor / STEP)
    } else {
        wide.mul_scalar(factor)
    };
    with_nonfinite_of(tensor, product)
}

/// [`tamegrad_stats::clip_value`] by tensor operations.
fn clamped<const D: usize>(tensor: Tensor<D>, limit: f64) -> Tensor<D> {
    let within = widened(tensor.clone()).clamp(-limit, limit);
    with_nonfinite_of(tensor, within)
}

/// What has become of the finite elements of a tensor, in the tensor's type, beside those that are
/// not finite.
fn with_nonfinite_of<const D: usize>(tensor: Tensor<D>, changed: Tensor<D>) -> Tensor<D> {
    let is_nonfinite = tensor.clone().is_finite().bool_not();
    changed.cast(FloatDType::from(tensor.dtype())).mask_where(is_nonfinite, tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;

    const TYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

    fn tensor<const D: usize>(data: impl Into<TensorData>, dtype: DType) -> Tensor<D> {
        Tensor::from_data(data, (&Device::flex(), dtype))
    }

    fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u64> {
        tensor.into_data().iter::<f64>().map(f64::to_bits).collect()
    }

    /// What the kernels of the CPU make of a tensor.
    fn on_host(change: &Change, tensor: Tensor<1>) -> Tensor<1> {
        let (device, dtype) = (tensor.device(), tensor.dtype());
        let mut slots = [Slot::Taken(tensor.into_data(), device.clone())];
        change.change_on_host(&mut slots);
        let [Slot::Taken(data, _)] = slots else { panic!("taken out") };
        Tensor::from_data(data, (&device, dtype))
    }

    #[test]
    fn tensor_operations_do_what_the_kernels_do() {
        let values = [1.0f64, -3.0, 0.0, 1e30, f64::NAN, f64::INFINITY, -f64::INFINITY, 1e-3];
        let scale = |factor| Change::Scale(vec![Some(factor)]);
        let clamp = |limit| Change::Clamp { limit, exceeds: vec![true] };
        // Powers of two are exact in every type.
        for factor in [0.25, 0.0, 2f64.powi(-20), 2f64.powi(-70), 2f64.powi(-130)] {
            for dtype in TYPES {
                let device = scale(factor).change_on_device(0, tensor::<1>(values, dtype));
                assert_eq!(device.dtype(), dtype);
                let host = on_host(&scale(factor), tensor(values, dtype));
                assert_eq!(bits(device), bits(host), "{factor} {dtype:?}");
            }
        }
        for dtype in TYPES {
            let device = clamp(2.0).change_on_device(0, tensor::<1>(values, dtype));
            assert_eq!(bits(device), bits(on_host(&clamp(2.0), tensor(values, dtype))));
        }
    }

    #[test]
    fn a_factor_below_the_normal_f32_keeps_its_digits() {
        let product = scaled(tensor::<1>([3e38f32, -2e38], DType::F32), 1.234_567e-40);
        let product: Vec<f64> = product.into_data().iter::<f64>().collect();
        for (got, want) in product.into_iter().zip([3.703_701e-2, -2.469_134e-2]) {
            assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
        }
    }

    /// A tied tensor, one of half precision and one without gradient.
    #[derive(Module, Debug)]
    struct Net {
        first: Param<Tensor<2>>,
        half: Param<Tensor<1>>,
        absent: Param<Tensor<1>>,
        tied: Param<Tensor<2>>,
    }

    #[test]
    fn gradients_keep_type_and_place_and_other_owners_see_no_change() {
        let trained = |tensor: Tensor<1>| {
            Param::initialized(ParamId::new(), Tensor::from_inner(tensor).require_grad())
        };
        let first = Tensor::from_inner(tensor::<2>([[0.0f32; 2]; 2], DType::F32)).require_grad();
        let first = Param::initialized(ParamId::new(), first);
        let model = Net {
            tied: first.clone(),
            first,
            half: trained(tensor([0.0f32; 2], DType::F16)),
            absent: trained(tensor([0.0f32], DType::F32)),
        };
        let table = ParameterTable::new(&model, None);
        assert_eq!(table.len(), 3);
        let gradient = tensor::<2>([[1.0f32, 2.0], [3.0, 4.0]], DType::F32);
        let mut gradients = GradientsParams::new();
        gradients.register(model.first.id, gradient.clone());
        gradients.register(model.half.id, tensor::<1>([8.0f32, f32::INFINITY], DType::F16));

        let nothing = Change::Scale(vec![None; 3]);
        assert!(!nothing.apply(&table, &model, &mut gradients));
        let change = Change::Scale(vec![None, Some(0.5), Some(0.5)]);
        assert!(change.apply(&table, &model, &mut gradients));
        let half = gradients.get::<1>(model.half.id).expect("put back");
        assert_eq!(half.dtype(), DType::F16);
        assert_eq!(bits(half), [4.0, f64::INFINITY].map(f64::to_bits));
        assert_eq!(gradients.len(), 2);

        let change = Change::Scale(vec![Some(0.5), None, None]);
        assert!(change.apply(&table, &model, &mut gradients));
        let scaled = gradients.get::<2>(model.first.id).expect("put back");
        assert_eq!(bits(scaled), [0.5, 1.0, 1.5, 2.0].map(f64::to_bits), "once, though tied");
        assert_eq!(bits(gradient), [1.0, 2.0, 3.0, 4.0].map(f64::to_bits), "another owner's");
    }
}
