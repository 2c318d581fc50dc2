//! Tensors in the memory of the CPU, read where they lie.

#[cfg(feature = "flex")]
pub(crate) use flex::{HostTensor, is_host};
#[cfg(not(feature = "flex"))]
pub(crate) use none::{HostTensor, is_host};

/// burn's CPU device flex: a tensor is a shared buffer of bytes.
#[cfg(feature = "flex")]
mod flex {
    use std::ops::Range;

    use burn::backend::flex::{FlexTensor, Layout};
    use burn::backend::{DispatchDevice, Flex};
    use burn::tensor::{DType, Device, Tensor};
    use tamegrad_stats::TensorRef;

    /// A handle to a tensor's buffer: reading through it copies nothing.
    ///
    /// As long as it lives burn takes the tensor for shared, and copies it in place of changing it:
    /// drop it before the next operation.
    pub(crate) struct HostTensor {
        tensor: FlexTensor,
        /// Where in the buffer the elements lie.
        elements: Range<usize>,
    }

    impl HostTensor {
        /// A handle to a float tensor; `None` if it is on another device.
        pub(crate) fn new<const D: usize>(tensor: Tensor<D>) -> Option<Self> {
            let tensor = tensor.inner().try_into_primitive::<Flex>().ok()?;
            if !matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
                return None;
            }
            Some(match stretch(tensor.layout()) {
                Some(elements) => Self { tensor, elements },
                None => {
                    let elements = 0..tensor.layout().num_elements();
                    Self { tensor: tensor.to_contiguous(), elements }
                }
            })
        }

        /// Whether the elements of both come in one order and one type.
        pub(crate) fn is_laid_out_like(&self, other: &Self) -> bool {
            self.tensor.dtype() == other.tensor.dtype()
                && self.elements.len() == other.elements.len()
                && self.tensor.layout() == other.tensor.layout()
        }

        /// Its elements in the order of the buffer, which need not be that of the tensor.
        pub(crate) fn elements(&self) -> TensorRef<'_> {
            match self.tensor.dtype() {
                DType::F64 => TensorRef::F64(part(self.tensor.storage(), &self.elements)),
                DType::F16 => TensorRef::F16(part(self.tensor.storage(), &self.elements)),
                DType::BF16 => TensorRef::Bf16(part(self.tensor.storage(), &self.elements)),
                _ => TensorRef::F32(part(self.tensor.storage(), &self.elements)),
            }
        }
    }

    /// Whether tensors of a device are host tensors.
    pub(crate) fn is_host(device: &Device) -> bool {
        match device.as_dispatch() {
            DispatchDevice::Flex(_) => true,
            DispatchDevice::Autodiff(inner) => matches!(**inner, DispatchDevice::Flex(_)),
            #[allow(unreachable_patterns, reason = "flex may be the only device of the build")]
            _ => false,
        }
    }

    fn part<'a, E>(buffer: &'a [E], elements: &Range<usize>) -> &'a [E] {
        buffer.get(elements.clone()).unwrap_or_default()
    }

    /// The part of the buffer that holds each element once and nothing else; `None` if there are
    /// gaps or repetitions.
    fn stretch(layout: &Layout) -> Option<Range<usize>> {
        let elements = layout.start_offset()..layout.start_offset() + layout.num_elements();
        (layout.is_contiguous() || is_permuted(layout)).then_some(elements)
    }

    /// Whether a layout is a contiguous one with its dimensions in another order.
    fn is_permuted(layout: &Layout) -> bool {
        let mut dims: Vec<(isize, usize)> =
            layout.strides().iter().copied().zip(layout.shape().iter().copied()).collect();
        dims.retain(|(_, size)| *size != 1);
        dims.sort_unstable();
        let mut stride = 1;
        dims.into_iter().all(|(found, size)| {
            let is_dense = found == stride;
            stride *= size as isize;
            is_dense
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn elements(tensor: &Tensor<2>) -> (Vec<f32>, *const f32) {
            let host = HostTensor::new(tensor.clone()).expect("on flex");
            let TensorRef::F32(values) = host.elements() else { panic!("not f32") };
            let mut sorted = values.to_vec();
            sorted.sort_by(f32::total_cmp);
            (sorted, values.as_ptr())
        }

        #[test]
        fn each_element_is_read_once_and_dense_ones_are_not_copied() {
            let device = Device::flex().autodiff();
            let whole = Tensor::<2>::from_data([[0.0f32, 1.0, 2.0], [3.0, 4.0, 5.0]], &device);
            let buffer = elements(&whole).1;
            let all = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
            let repeated = whole.clone().slice([0..1, 0..2]).expand([2, 2]);
            let cases = [
                ("as it is", whole.clone(), all.clone(), true),
                ("that needs a gradient", whole.clone().require_grad(), all.clone(), true),
                ("transposed", whole.clone().transpose(), all.clone(), true),
                ("first row", whole.clone().slice([0..1, 0..3]), vec![0.0, 1.0, 2.0], true),
                ("second row", whole.clone().slice([1..2, 0..3]), vec![3.0, 4.0, 5.0], false),
                ("a column", whole.clone().slice([0..2, 1..2]), vec![1.0, 4.0], false),
                ("reversed", whole.clone().flip([0, 1]), all, false),
                ("repeated", repeated, vec![0.0, 0.0, 1.0, 1.0], false),
                ("empty", whole.slice([0..0, 0..3]), vec![], false),
            ];
            for (name, tensor, want, starts_there) in cases {
                let (values, start) = elements(&tensor);
                assert_eq!(values, want, "{name}");
                assert_eq!(start == buffer, starts_there, "{name}");
            }
        }

        #[test]
        fn devices_are_told_apart_with_and_without_autodiff() {
            assert!(is_host(&Device::flex()));
            assert!(is_host(&Device::flex().autodiff()));
        }
    }
}

/// A build whose devices all have a memory of their own.
#[cfg(not(feature = "flex"))]
mod none {
    use burn::tensor::{Device, Tensor};
    use tamegrad_stats::TensorRef;

    /// There is no such tensor.
    pub(crate) enum HostTensor {}

    impl HostTensor {
        /// `None`: the tensor is on another device.
        pub(crate) fn new<const D: usize>(_tensor: Tensor<D>) -> Option<Self> {
            None
        }

        /// There are no two.
        pub(crate) fn is_laid_out_like(&self, _other: &Self) -> bool {
            match *self {}
        }

        /// Its elements.
        pub(crate) fn elements(&self) -> TensorRef<'_> {
            match *self {}
        }
    }

    /// Whether tensors of a device are host tensors.
    pub(crate) fn is_host(_device: &Device) -> bool {
        false
    }
}
