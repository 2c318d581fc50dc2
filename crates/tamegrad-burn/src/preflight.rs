//! A model before its first update: one probed step on copies.

use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::ModuleOptimizer;
use burn::tensor::Tensor;
use tamegrad::{FirstStep, GuardConfig, LayerInfo, Mode, Preflight, TensorStats, Update};

use crate::clip::Clip;
use crate::critical::critical_multiple;
use crate::guard::Guard;
use crate::probe::Probes;

/// How the first update is made.
pub struct FirstUpdate {
    optimizer: ModuleOptimizer,
    learning_rate: f64,
    clip: Option<Clip>,
}

impl FirstUpdate {
    /// With an optimizer that has taken no step, at the learning rate of the run's first step.
    pub fn new(optimizer: ModuleOptimizer, learning_rate: f64) -> Self {
        Self { optimizer, learning_rate, clip: None }
    }

    /// As [`Guard::with_clip`].
    pub fn with_clip(mut self, clip: Option<Clip>) -> Self {
        self.clip = clip;
        self
    }
}

// burn's optimizer has no `Debug`.
impl fmt::Debug for FirstUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstUpdate")
            .field("learning_rate", &self.learning_rate)
            .field("clip", &self.clip)
            .finish_non_exhaustive()
    }
}

/// Runs one forward and backward pass of one batch, and the first update, on copies of a model
/// whose layers are listed in order of execution, and returns what they show. The critical step size
/// takes at most 17 more forward passes. The model is unchanged, running statistics included.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::{ModuleOptimizer, SgdConfig};
/// use burn::tensor::{Tensor, activation::relu};
/// use tamegrad::LayerInfo;
/// use tamegrad_burn::{FirstUpdate, default_device, preflight};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     first: Linear,
///     last: Linear,
/// }
///
/// let device = default_device();
/// let net = Net {
///     first: LinearConfig::new(2, 16).init(&device),
///     last: LinearConfig::new(16, 1).init(&device),
/// };
/// let x = Tensor::<2>::from_data([[1.0, -0.5], [0.25, 2.0], [-1.0, 1.0]], &device);
/// let y = Tensor::<2>::from_data([[500.0], [-200.0], [100.0]], &device);
///
/// let sgd = ModuleOptimizer::from(SgdConfig::new().build());
/// let layers = ["first", "last"].map(LayerInfo::named).to_vec();
/// let seen = preflight(&net, layers, FirstUpdate::new(sgd, 0.1), |net: &Net, probes| {
///     let h = probes.tap("first", relu(net.first.forward(probes.input(x.clone()))));
///     (probes.tap("last", net.last.forward(h)) - y.clone()).square().mean()
/// });
///
/// // Targets of 500 make an update that is far too large for weights of about 0.5.
/// let (_, ratio) = seen.first_update.expect("there are weight matrices");
/// assert!(ratio > 1.0);
/// assert!(!seen.warnings().is_empty());
/// ```
pub fn preflight<M: Module>(
    model: &M,
    layers: Vec<LayerInfo>,
    update: FirstUpdate,
    loss: impl Fn(&M, &Probes) -> Tensor<1>,
) -> Preflight {
    let config = GuardConfig { mode: Mode::Observe, ..GuardConfig::default() };
    let FirstUpdate { mut optimizer, learning_rate, clip } = update;
    // A clone would share the running statistics of batch norm.
    let before = model.valid().train();
    let mut guard = Guard::new(&before, config).with_layers(layers).with_clip(clip);
    let first = loss(&before, guard.probes());
    let value = f64::from(first.clone().inner().into_scalar::<f32>());
    let gradients = guard.backward(first, &before);
    let after =
        guard.step_with_pass(&mut optimizer, learning_rate, before, gradients, value, &loss);
    let is_updated = guard.outcome().is_some_and(|outcome| outcome.updated);
    let record = guard.record();
    let gradients: Vec<Option<TensorStats>> =
        record.tensors().iter().map(|track| track.latest).collect();
    let updates: Vec<Option<Update>> =
        record.tensors().iter().map(|track| track.latest_update).collect();
    let multiple = is_updated.then(|| critical_multiple(model, &after, &loss)).flatten();
    tamegrad::preflight(
        record.layout(),
        &FirstStep {
            loss: Some(value),
            trace: record.first_trace().map(|(_, trace)| trace),
            gradients: &gradients,
            updates: &updates,
            critical_multiple: multiple,
            dtype_max: dtype_max(model),
        },
    )
}

/// The largest finite value of the narrowest type among the trainable tensors.
fn dtype_max<M: Module>(model: &M) -> Option<f64> {
    struct Narrowest(Option<f64>);
    impl ModuleVisitor for Narrowest {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            if let Some(info) = value.dtype().finfo().filter(|_| value.is_require_grad()) {
                self.0 = Some(self.0.map_or(info.max, |max| max.min(info.max)));
            }
        }
    }
    let mut narrowest = Narrowest(None);
    model.visit(&mut narrowest);
    narrowest.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::optim::{AdamConfig, AdamWConfig, SgdConfig};
    use burn::tensor::{DType, Device, TensorData};
    use tamegrad::preflight::{Direction, OverflowAt, Warning};
    use tamegrad::{LayerId, TensorId};

    use crate::{default_device, weights_hash};

    /// Two matrices with batch norm behind them, and a factor that is not trained.
    #[derive(Module, Debug)]
    struct Net {
        first: Param<Tensor<2>>,
        second: Param<Tensor<2>>,
        norm: BatchNorm,
        fixed: Param<Tensor<1>>,
    }

    fn parameter<const D: usize>(data: impl Into<TensorData>, dtype: DType) -> Param<Tensor<D>> {
        let tensor = Tensor::<D>::from_data(data, (&default_device(), dtype));
        Param::initialized(ParamId::new(), tensor.require_grad())
    }

    impl Net {
        /// `first` multiplies by one factor, `second` by another.
        fn new(first: f32, second: f32) -> Self {
            let times = |factor: f32| parameter([[factor, 0.0], [0.0, factor]], DType::F32);
            let fixed = Tensor::from_data([1.0f32], &default_device());
            Self {
                first: times(first),
                second: times(second),
                norm: BatchNormConfig::new(2).init(&default_device()),
                fixed: Param::initialized(ParamId::new(), fixed),
            }
        }

        fn layers() -> Vec<LayerInfo> {
            ["first", "second"].map(LayerInfo::named).to_vec()
        }

        fn forward(&self, probes: &Probes) -> Tensor<2> {
            let x = [[1.0f32, -2.0], [3.0, 0.5], [-1.0, 1.0]];
            let x = probes.input(Tensor::<2>::from_data(x, &default_device()));
            let h = probes.tap("first", x.matmul(self.first.val()) * self.fixed.val().unsqueeze());
            probes.tap("second", h.matmul(self.second.val()))
        }
    }

    fn sgd(rate: f64) -> FirstUpdate {
        FirstUpdate::new(ModuleOptimizer::from(SgdConfig::new().build()), rate)
    }

    fn mean(net: &Net, probes: &Probes) -> Tensor<1> {
        net.forward(probes).mean()
    }

    #[test]
    fn the_gains_of_a_users_own_model_are_its_factors() {
        let seen = preflight(&Net::new(100.0, 400.0), Net::layers(), sgd(1e-6), mean);
        let links = &seen.chain.as_ref().expect("probed").links;
        for (link, factor) in links.iter().zip([100.0, 400.0]) {
            for gain in [link.forward, link.backward] {
                let gain = gain.expect("measured");
                assert!((gain / factor - 1.0).abs() < 1e-6, "{link:?} is not {factor}");
            }
        }
        assert_eq!(links.len(), 2);
        // The gradient of a mean of 6 is 1/6 each.
        let last = seen.layers[1];
        assert!((last.gradient_rms.expect("came back") * 6.0 - 1.0).abs() < 1e-6, "{last:?}");
        assert_eq!(last.output_max, 3.0 * 40_000.0);
        let (product, layers) = seen.product(Direction::Backward).expect("probed");
        assert!((product / 40_000.0 - 1.0).abs() < 1e-6 && layers == 2, "{product} {layers}");
        let bits = (f64::from(f32::MAX) / 120_000.0).log2();
        assert_eq!(seen.headroom_bits, Some(bits));
        let warnings = seen.warnings();
        let directions: Vec<_> = warnings
            .iter()
            .map(|warning| match warning {
                Warning::Gains { direction, .. } => Some(*direction),
                _ => None,
            })
            .collect();
        assert_eq!(directions, [Some(Direction::Forward), Some(Direction::Backward)]);
        let names: Vec<_> = seen.layout.tensors.iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["first", "second", "norm.gamma", "norm.beta"], "what is trained");
    }

    #[test]
    fn the_first_update_is_that_of_the_optimizer_with_its_clip_and_decay() {
        let net = Net::new(1.0, 2.0);
        let ratio = |update| preflight(&net, Net::layers(), update, mean).first_update;
        // |second| is sqrt(8), |first| sqrt(2); the sums of x are 3 and -0.5.
        let gradient = (2.0f64 * (3.0 * 3.0 + 0.5 * 0.5)).sqrt() / 6.0;
        for (update, want) in [
            (sgd(0.1), (TensorId(0), 0.1 * 2.0 * gradient / 2f64.sqrt())),
            (sgd(0.1).with_clip(Some(Clip::TensorNorm(0.5))), (TensorId(0), 0.05 / 2f64.sqrt())),
        ] {
            let (tensor, ratio) = ratio(update).expect("measured");
            assert_eq!(tensor, want.0);
            assert!((ratio / want.1 - 1.0).abs() < 1e-5, "{ratio} is not {}", want.1);
        }
        let adamw = ModuleOptimizer::from(AdamWConfig::new().with_weight_decay(0.5).build());
        let decayed = FirstUpdate::new(adamw, 0.1).with_clip(Some(Clip::Value(0.0)));
        let (_, ratio) = ratio(decayed).expect("measured");
        assert!((ratio - 0.05).abs() < 1e-6, "{ratio}");
    }

    #[test]
    fn the_model_stays_as_it_is_to_the_bit() {
        let adam = || FirstUpdate::new(ModuleOptimizer::from(AdamConfig::new().build()), 0.1);
        for update in [sgd(0.1), adam(), sgd(f64::INFINITY)] {
            let net = Net::new(1.0, 2.0);
            // Running statistics of a run that has begun.
            let warmed = net.norm.forward(net.forward(&Probes::unarmed()));
            assert_eq!(warmed.dims(), [3, 2]);
            let before = weights_hash(&net);
            let seen = preflight(&net, Net::layers(), update, |net: &Net, probes| {
                net.norm.forward(net.forward(probes)).square().mean()
            });
            assert!(seen.first_update.is_some_and(|(_, ratio)| ratio > 0.0), "{seen:?}");
            assert_eq!(weights_hash(&net), before);
        }
    }

    #[test]
    fn an_overflow_names_its_layer_on_both_ways() {
        let seen = preflight(&Net::new(1e20, 1e20), Net::layers(), sgd(0.1), mean);
        assert_eq!(seen.overflow, Some(OverflowAt::Output(LayerId(1))));
        assert_eq!(seen.warnings()[0], Warning::Overflow(OverflowAt::Output(LayerId(1))));
        // The loss is finite: what overflows is the gradient behind the second layer.
        let seen = preflight(&Net::new(1e-20, 1e30), Net::layers(), sgd(0.1), |net: &Net, p| {
            (net.forward(p) * 1e10).mean()
        });
        assert_eq!(seen.loss.map(f64::is_finite), Some(true));
        assert_eq!(seen.overflow, Some(OverflowAt::Gradient(LayerId(1))));
        let Some(Warning::BrokenUpdate { .. }) = seen.warnings().pop() else {
            panic!("{:?}", seen.warnings());
        };
    }

    /// L = a w^2 / 2.
    #[derive(Module, Debug)]
    struct Quadratic {
        w: Param<Tensor<2>>,
    }

    fn critical(multiple: f64) -> Option<f64> {
        let a = 4.0;
        // A step of SGD takes w to w (1 - a rate), which lowers the loss below a rate of 2 / a.
        let rate = 2.0 / (a * multiple);
        let net = Quadratic { w: parameter([[1.0f32]], DType::F32) };
        let seen = preflight(&net, Vec::new(), sgd(rate), |net: &Quadratic, _| {
            net.w.val().square().sum() * (a / 2.0)
        });
        seen.critical_multiple
    }

    #[test]
    fn the_critical_multiple_of_a_quadratic_loss_is_the_analytic_one() {
        for want in [3.0, 1.0, 0.7, 0.025, 1e-4] {
            let got = critical(want).expect("measured");
            assert!((0.99..1.03).contains(&(got / want)), "{got} is not {want}");
        }
        for (multiple, got) in [(4.5, f64::INFINITY), (1e9, f64::INFINITY), (1e-6, 0.0)] {
            assert_eq!(critical(multiple), Some(got), "{multiple}");
        }
        assert_eq!(critical(f64::NAN), Some(0.0), "weights that the update breaks");
    }

    #[test]
    fn a_model_computes_in_its_narrowest_type() {
        #[derive(Module, Debug)]
        struct Mixed {
            wide: Param<Tensor<1>>,
            half: Param<Tensor<1>>,
        }
        let device = Device::flex().autodiff();
        let of = |dtype| {
            let tensor = Tensor::<1>::from_data(TensorData::from([1.0f32]), (&device, dtype));
            Param::initialized(ParamId::new(), tensor.require_grad())
        };
        for (half, max) in [(DType::F16, 65_504.0), (DType::F32, f64::from(f32::MAX))] {
            let mixed = Mixed { wide: of(DType::F64), half: of(half) };
            assert_eq!(dtype_max(&mixed), Some(max));
        }
    }
}
