//! Measures how far Adam's second moment lags behind the gradient.

use std::cell::RefCell;

use burn::optim::{Adam, AdamState, AdamW, AdamWState, LearningRate, Optimizer};
use burn::tensor::{Device, FloatDType, Tensor};

/// An optimizer that can tell the second moment v of a parameter's state, bias-corrected.
pub trait SecondMoment: Optimizer {
    /// v of a state, divided by 1 - beta2^t.
    fn second_moment<const D: usize>(&self, state: &Self::State<D>, beta2: f64) -> Tensor<D>;
}

impl SecondMoment for Adam {
    fn second_moment<const D: usize>(&self, state: &AdamState<D>, beta2: f64) -> Tensor<D> {
        corrected(state.momentum.moment_2.clone(), beta2, state.momentum.time)
    }
}

impl SecondMoment for AdamW {
    fn second_moment<const D: usize>(&self, state: &AdamWState<D>, beta2: f64) -> Tensor<D> {
        corrected(state.momentum.moment_2.clone(), beta2, state.momentum.time)
    }
}

fn corrected<const D: usize>(moment: Tensor<D>, beta2: f64, time: usize) -> Tensor<D> {
    moment / (1.0 - beta2.powi(time.min(1 << 20) as i32)).max(f64::MIN_POSITIVE)
}

/// An optimizer that, when asked, measures RMS(g / sqrt(v)) of each parameter before v takes in
/// g (Wortsman 2023, section 3.4: RMS of g^2/v). Otherwise it is the optimizer inside.
#[derive(Debug, Clone)]
pub struct Lagged<O> {
    inner: O,
    beta2: f64,
}

impl<O: SecondMoment> Lagged<O> {
    /// Wraps an optimizer with this beta2.
    pub fn new(inner: O, beta2: f64) -> Self {
        Self { inner, beta2 }
    }
}

/// One number of each parameter that had a gradient, on its device; `None` where there is no v.
type Lags = Vec<Option<Tensor<1>>>;

thread_local! {
    /// What is being measured, if anything is.
    static MEASURED: RefCell<Option<Lags>> = const { RefCell::new(None) };
}

/// Measures while `step` runs, and returns the lags of the parameters with a gradient.
pub(crate) fn measure<R>(step: impl FnOnce() -> R) -> (R, Vec<f64>) {
    MEASURED.set(Some(Vec::new()));
    let result = step();
    (result, read(&MEASURED.take().unwrap_or_default()))
}

/// The numbers, with one read-back; NaN where there is none.
fn read(lags: &[Option<Tensor<1>>]) -> Vec<f64> {
    let Some(device) = lags.iter().flatten().next().map(Tensor::device) else {
        return vec![f64::NAN; lags.len()];
    };
    let found = lags.iter().flatten();
    let found = found.map(|lag| lag.clone().to_device(&device).cast(FloatDType::F32)).collect();
    let data = Tensor::cat(found, 0).into_data();
    let mut read = data.iter::<f64>();
    lags.iter().map(|lag| lag.as_ref().and_then(|_| read.next()).unwrap_or(f64::NAN)).collect()
}

impl<O: SecondMoment> Optimizer for Lagged<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        MEASURED.with_borrow_mut(|measured| {
            let Some(lags) = measured else { return };
            lags.push(state.as_ref().map(|state| {
                let v = self.inner.second_moment(state, self.beta2);
                let ratio = grad.clone().square() / v.clamp_min(1e-30);
                ratio.mean().sqrt()
            }));
        });
        self.inner.step(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}
