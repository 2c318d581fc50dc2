//! Networks so small that thousands of them train in a minute, and optimizers for them.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

/// What is between two layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Activation {
    /// A linear model where there is one layer.
    Tanh,
    Relu,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Loss {
    /// Mean squared error.
    Squared,
    /// Softmax cross-entropy; the target is the largest of the teacher's outputs.
    CrossEntropy,
}

/// A network: a perceptron or, with time steps, a recurrent cell with a linear output.
#[derive(Debug, Clone)]
pub(super) struct Net {
    pub(super) sizes: Vec<usize>,
    pub(super) activation: Activation,
    pub(super) loss: Loss,
    /// Times that the first layer is applied, its output being its input; 0 for a perceptron.
    pub(super) time: usize,
    /// Weights and biases of all layers; of a recurrent cell also those from its state to itself.
    pub(super) parameters: Vec<f64>,
}

/// Inputs, and the targets for each of them.
pub(super) type Batch = Vec<(Vec<f64>, Vec<f64>)>;

impl Net {
    pub(super) fn new(
        sizes: &[usize],
        activation: Activation,
        loss: Loss,
        time: usize,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let mut net =
            Self { sizes: sizes.to_vec(), activation, loss, time, parameters: Vec::new() };
        for (inputs, outputs) in net.layers() {
            let scale = 1.0 / (inputs as f64).sqrt();
            net.parameters.extend((0..inputs * outputs).map(|_| scale * normal(rng)));
            net.parameters.extend(vec![0.0; outputs]);
        }
        net
    }

    /// Inputs and outputs of each layer. That of a recurrent cell has the state among its inputs.
    fn layers(&self) -> Vec<(usize, usize)> {
        let mut layers: Vec<(usize, usize)> =
            self.sizes.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let (inputs, state) = layers[0];
        if let Some(inputs) = inputs.checked_div(self.time) {
            layers[0] = (inputs + state, state);
        }
        layers
    }

    /// The loss of a batch and its gradient, added up over the batch and divided by its size.
    pub(super) fn loss_and_gradient(&self, batch: &Batch) -> (f64, Vec<f64>) {
        let mut gradient = vec![0.0; self.parameters.len()];
        let mut total = 0.0;
        for (input, target) in batch {
            total += self.one(input, target, &mut gradient);
        }
        let count = batch.len() as f64;
        gradient.iter_mut().for_each(|g| *g /= count);
        (total / count, gradient)
    }

    /// What the network answers to an input.
    pub(super) fn outputs(&self, input: &[f64]) -> Vec<f64> {
        self.forward(input).pop().map(|(_, _, output)| output).unwrap_or_default()
    }

    pub(super) fn loss_of(&self, batch: &Batch) -> f64 {
        let one = |(input, target): &(Vec<f64>, Vec<f64>)| {
            let outputs = self.forward(input);
            self.cost(outputs.last().map_or(&[], |(_, _, output)| output), target).0
        };
        batch.iter().map(one).sum::<f64>() / batch.len() as f64
    }

    /// Each application of a layer: its number, its input and its output.
    fn forward(&self, input: &[f64]) -> Vec<(usize, Vec<f64>, Vec<f64>)> {
        let layers = self.layers();
        let mut calls: Vec<(usize, Vec<f64>, Vec<f64>)> = Vec::new();
        let mut value = input.to_vec();
        if let Some(width) = input.len().checked_div(self.time) {
            value = vec![0.0; layers[0].1];
            for part in input.chunks(width) {
                let joined = [part, &value[..]].concat();
                value = self.apply(0, &joined, true);
                calls.push((0, joined, value.clone()));
            }
        }
        for layer in usize::from(self.time > 0)..layers.len() {
            let output = self.apply(layer, &value, layer + 1 < layers.len());
            calls.push((layer, value, output.clone()));
            value = output;
        }
        calls
    }

    fn offset(&self, layer: usize) -> usize {
        self.layers()[..layer].iter().map(|(inputs, outputs)| (inputs + 1) * outputs).sum()
    }

    fn apply(&self, layer: usize, input: &[f64], is_hidden: bool) -> Vec<f64> {
        let (inputs, outputs) = self.layers()[layer];
        let own = &self.parameters[self.offset(layer)..][..(inputs + 1) * outputs];
        let (weights, biases) = own.split_at(inputs * outputs);
        let rows = weights.chunks(inputs).zip(biases);
        rows.map(|(row, bias)| {
            let sum: f64 = row.iter().zip(input).map(|(w, x)| w * x).sum::<f64>() + bias;
            match self.activation {
                _ if !is_hidden => sum,
                Activation::Tanh => sum.tanh(),
                Activation::Relu => sum.max(0.0),
            }
        })
        .collect()
    }

    /// The cost of an output, and its derivative.
    fn cost(&self, output: &[f64], target: &[f64]) -> (f64, Vec<f64>) {
        match self.loss {
            Loss::Squared => {
                let errors: Vec<f64> = output.iter().zip(target).map(|(o, t)| o - t).collect();
                (errors.iter().map(|e| 0.5 * e * e).sum(), errors)
            }
            Loss::CrossEntropy => {
                let label = target.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                let label = label.map_or(0, |(label, _)| label);
                let highest = output.iter().copied().fold(f64::MIN, f64::max);
                let exps: Vec<f64> = output.iter().map(|o| (o - highest).exp()).collect();
                let sum: f64 = exps.iter().sum();
                let mut derivative: Vec<f64> = exps.iter().map(|e| e / sum).collect();
                derivative[label] -= 1.0;
                (sum.ln() + highest - output[label], derivative)
            }
        }
    }

    fn one(&self, input: &[f64], target: &[f64], gradient: &mut [f64]) -> f64 {
        let calls = self.forward(input);
        let Some((_, _, output)) = calls.last() else { return 0.0 };
        let (cost, mut derivative) = self.cost(output, target);
        let last = self.layers().len() - 1;
        for (layer, input, output) in calls.iter().rev() {
            let (inputs, outputs) = self.layers()[*layer];
            let offset = self.offset(*layer);
            if *layer < last {
                for (d, o) in derivative.iter_mut().zip(output) {
                    *d *= match self.activation {
                        Activation::Tanh => 1.0 - o * o,
                        Activation::Relu => f64::from(*o > 0.0),
                    };
                }
            }
            let mut before = vec![0.0; inputs];
            for (row, d) in derivative.iter().enumerate() {
                let from = offset + row * inputs;
                for (column, x) in input.iter().enumerate() {
                    gradient[from + column] += d * x;
                    before[column] += d * self.parameters[from + column];
                }
                gradient[offset + inputs * outputs + row] += d;
            }
            // The state is the last part of a recurrent cell's input.
            derivative = if self.time > 0 && *layer == 0 {
                before[inputs - outputs..].to_vec()
            } else {
                before
            };
        }
        cost
    }
}

/// A rule by which parameters change.
#[derive(Debug, Clone)]
pub(super) struct Optimizer {
    pub(super) is_adam: bool,
    momentum: Vec<f64>,
    squares: Vec<f64>,
    step: i32,
}

impl Optimizer {
    pub(super) fn new(is_adam: bool, parameters: usize) -> Self {
        Self { is_adam, momentum: vec![0.0; parameters], squares: vec![0.0; parameters], step: 0 }
    }

    pub(super) fn update(&mut self, parameters: &mut [f64], gradient: &[f64], rate: f64) {
        self.step += 1;
        let bias = |beta: f64| 1.0 - beta.powi(self.step);
        for (at, g) in gradient.iter().enumerate() {
            self.momentum[at] = 0.9 * self.momentum[at] + if self.is_adam { 0.1 } else { 1.0 } * g;
            self.squares[at] = 0.99 * self.squares[at] + 0.01 * g * g;
            parameters[at] -= if self.is_adam {
                let v = (self.squares[at] / bias(0.99)).sqrt() + 1e-8;
                rate * self.momentum[at] / bias(0.9) / v
            } else {
                rate * self.momentum[at]
            };
        }
    }
}

pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (sizes, activation, loss, time) in [
            (&[3, 4, 2][..], Activation::Tanh, Loss::CrossEntropy, 0),
            (&[3, 4, 4, 2], Activation::Relu, Loss::Squared, 0),
            (&[6, 4, 2], Activation::Tanh, Loss::Squared, 3),
        ] {
            let net = Net::new(sizes, activation, loss, time, &mut rng);
            let batch: Batch = (0..3)
                .map(|_| {
                    let mut draw = |count| (0..count).map(|_| normal(&mut rng)).collect();
                    (draw(sizes[0]), draw(2))
                })
                .collect();
            let (_, gradient) = net.loss_and_gradient(&batch);
            for (at, got) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut other = net.clone();
                    other.parameters[at] += by;
                    other.loss_of(&batch)
                };
                let want = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((got - want).abs() < 1e-6, "{at}: {got} {want}");
            }
        }
    }
}
