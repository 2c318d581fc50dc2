//! Float tensors that are measured together.

use burn::tensor::Tensor;
use tamegrad_stats::{ListStats, TensorRef, TensorStats, scan_list};

use crate::device_scan::{self, Row};
use crate::host::HostTensor;

/// A list of tensors to measure: on the CPU they are read where they lie, all in one pass; on any
/// other device they become rows of numbers there, which one read-back brings over.
#[derive(Default)]
pub(crate) struct TensorList {
    places: Vec<Place>,
    host: Vec<HostTensor>,
    rows: Vec<Row>,
}

/// Where the statistics of a tensor come from.
enum Place {
    Host,
    Row,
    Known(TensorStats),
}

impl TensorList {
    /// Adds a tensor and gives its position. The list keeps a handle to it: drop or scan the list
    /// before burn's next operation on the tensor.
    pub(crate) fn push<const D: usize>(&mut self, tensor: Tensor<D>) -> usize {
        let place = match HostTensor::new(tensor.clone()) {
            Some(host) => {
                self.host.push(host);
                Place::Host
            }
            None => self.push_row(tensor),
        };
        self.places.push(place);
        self.places.len() - 1
    }

    /// [`TensorList::push`] for a tensor that is used before the list is scanned: no handle is
    /// kept.
    pub(crate) fn push_measured<const D: usize>(&mut self, tensor: Tensor<D>) -> usize {
        let place = match HostTensor::new(tensor.clone()) {
            Some(host) => {
                let mut stats = ListStats::default();
                scan_list(&[host.elements()], &mut stats);
                Place::Known(*stats.total())
            }
            None => self.push_row(tensor),
        };
        self.places.push(place);
        self.places.len() - 1
    }

    fn push_row<const D: usize>(&mut self, tensor: Tensor<D>) -> Place {
        if tensor.shape().num_elements() == 0 {
            return Place::Known(TensorStats::default());
        }
        self.rows.push(Row::new(tensor));
        Place::Row
    }

    /// The statistics of the tensors in the order in which they were added. The handles are gone
    /// when this returns.
    pub(crate) fn scan(self, buffers: &mut ListStats) -> impl Iterator<Item = TensorStats> {
        let elements: Vec<TensorRef<'_>> = self.host.iter().map(HostTensor::elements).collect();
        scan_list(&elements, buffers);
        let mut host = buffers.tensors().iter().copied();
        let mut rows = device_scan::read(self.rows).into_iter();
        self.places.into_iter().map(move |place| {
            let stats = match place {
                Place::Host => host.next(),
                Place::Row => rows.next(),
                Place::Known(stats) => Some(stats),
            };
            stats.unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device};

    #[test]
    fn statistics_come_in_the_order_of_the_list() {
        let device = Device::flex().autodiff();
        let ones = |len: usize| Tensor::<1>::ones([len], &device).require_grad();
        let mut list = TensorList::default();
        assert_eq!(list.push(ones(4)), 0);
        assert_eq!(list.push_measured(ones(9)), 1);
        let row = list.push_row(ones(16));
        list.places.push(row);
        let row = list.push_row(ones(0));
        list.places.push(row);
        assert_eq!(list.push(ones(1).cast(DType::BF16)), 4);
        let norms: Vec<f64> = list.scan(&mut ListStats::default()).map(|s| s.l2).collect();
        assert_eq!(norms, [2.0, 3.0, 4.0, 0.0, 1.0]);
    }

    #[test]
    fn a_scanned_list_leaves_the_tensor_its_memory() {
        let tensor = Tensor::<1>::ones([100], &Device::flex());
        let mut list = TensorList::default();
        list.push_measured(tensor.clone());
        assert!(tensor.can_mut());
        list.push(tensor.clone());
        assert!(!tensor.can_mut(), "the list holds a handle");
        let norms: Vec<f64> = list.scan(&mut ListStats::default()).map(|s| s.l2).collect();
        assert_eq!(norms, [10.0, 10.0]);
        assert!(tensor.can_mut());
    }
}
