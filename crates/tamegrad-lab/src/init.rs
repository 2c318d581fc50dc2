//! Initial weights, drawn from our own seeded generator, so that they depend on nothing else.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal, Uniform};

use crate::recipe::{Activation, Distribution, Init};

/// A weight tensor as a trainable parameter. `fan_in` and `fan_out` are the numbers of inputs and
/// outputs of one unit; the tensor's first dimension has `rows` entries (for orthogonal weights,
/// which are drawn as a matrix of `rows` by the rest).
pub(crate) fn weight<const D: usize>(
    shape: [usize; D],
    fan_in: usize,
    fan_out: usize,
    init: &Init,
    activation: Activation,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Param<Tensor<D>> {
    let count: usize = shape.iter().product();
    let (inputs, outputs) = (fan_in as f64, fan_out as f64);
    let values = match *init {
        Init::He { gain, distribution } => {
            spread(count, gain * (2.0 / inputs).sqrt(), distribution, rng)
        }
        Init::Xavier { gain, distribution } => {
            spread(count, gain * (2.0 / (inputs + outputs)).sqrt(), distribution, rng)
        }
        Init::Lecun { gain, distribution } => {
            spread(count, gain * (1.0 / inputs).sqrt(), distribution, rng)
        }
        Init::Uniform { gain, low, high } => uniform(count, gain * low, gain * high, rng),
        Init::Normal { gain } => normal(count, gain, rng),
        Init::Orthogonal { gain } => {
            let (rows, cols) = (shape[0], count / shape[0].max(1));
            let scale = gain * orthogonal_gain(activation);
            orthogonal(rows, cols, rng).into_iter().map(|v| scale * v).collect()
        }
    };
    parameter(values, shape, device)
}

/// A bias of zeros as a trainable parameter.
pub(crate) fn bias(len: usize, device: &Device) -> Param<Tensor<1>> {
    parameter(vec![0.0; len], [len], device)
}

/// A trainable parameter with these values.
pub(crate) fn parameter<const D: usize>(
    values: Vec<f64>,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    let tensor = Tensor::<D>::from_data(TensorData::new(values, shape), device);
    Param::initialized(ParamId::new(), tensor.require_grad())
}

/// The gain that keeps an orthogonal layer's signal at its scale: the square root of 2 where half
/// of the units are cut off (He 2015), 1 otherwise.
fn orthogonal_gain(activation: Activation) -> f64 {
    match activation {
        Activation::Relu | Activation::Gelu => 2f64.sqrt(),
        Activation::Tanh
        | Activation::Sigmoid
        | Activation::Selu
        | Activation::Linear
        | Activation::Exp => 1.0,
    }
}

fn spread(count: usize, std: f64, distribution: Distribution, rng: &mut ChaCha8Rng) -> Vec<f64> {
    match distribution {
        Distribution::Normal => normal(count, std, rng),
        Distribution::Uniform => uniform(count, -3f64.sqrt() * std, 3f64.sqrt() * std, rng),
    }
}

fn normal(count: usize, std: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    match Normal::new(0.0, std) {
        Ok(distribution) => (0..count).map(|_| distribution.sample(rng)).collect(),
        Err(_) => vec![0.0; count],
    }
}

fn uniform(count: usize, low: f64, high: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    match Uniform::new(low, high) {
        Ok(distribution) => (0..count).map(|_| distribution.sample(rng)).collect(),
        Err(_) => vec![low; count],
    }
}

/// A random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2013):
/// Gram-Schmidt, applied twice, on normal vectors. Row-major, `rows * cols` numbers.
fn orthogonal(rows: usize, cols: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let (short, long) = (rows.min(cols), rows.max(cols));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(short);
    while basis.len() < short {
        let mut vector = normal(long, 1.0, rng);
        for _ in 0..2 {
            for other in &basis {
                let along: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
        }
        let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 1e-6 {
            basis.push(vector.into_iter().map(|v| v / norm).collect());
        }
    }
    let at = |row: usize, col: usize| if rows <= cols { basis[row][col] } else { basis[col][row] };
    (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))).map(|(r, c)| at(r, c)).collect()
}

/// The spectral radius of a square matrix (row-major, `size * size`): the limit of |W^k|^(1/k),
/// taken at k = 2^12 by repeated squaring with rescaling (Gelfand's formula).
pub(crate) fn spectral_radius(matrix: &[f64], size: usize) -> f64 {
    let norm = |m: &[f64]| m.iter().map(|v| v * v).sum::<f64>().sqrt();
    let mut power = matrix.to_vec();
    let (mut log_norm, mut exponent) = (0.0, 1.0);
    for _ in 0..12 {
        let scale = norm(&power);
        if !(scale > 0.0 && scale.is_finite()) {
            return 0.0;
        }
        power.iter_mut().for_each(|v| *v /= scale);
        log_norm = 2.0 * (log_norm + scale.ln());
        power = square(&power, size);
        exponent *= 2.0;
    }
    ((log_norm + norm(&power).ln()) / exponent).exp()
}

fn square(matrix: &[f64], size: usize) -> Vec<f64> {
    let mut result = vec![0.0; size * size];
    for (row, out) in matrix.chunks(size).zip(result.chunks_mut(size)) {
        for (factor, other) in row.iter().zip(matrix.chunks(size)) {
            out.iter_mut().zip(other).for_each(|(o, v)| *o += factor * v);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn each_scheme_has_its_spread() {
        let device = tamegrad_burn::default_device();
        let (normal, flat) = (Distribution::Normal, Distribution::Uniform);
        for (init, std) in [
            (Init::He { gain: 1.0, distribution: normal }, (2.0f64 / 100.0).sqrt()),
            (Init::He { gain: 3.0, distribution: flat }, 3.0 * (2.0f64 / 100.0).sqrt()),
            (Init::Xavier { gain: 1.0, distribution: normal }, (2.0f64 / 300.0).sqrt()),
            (Init::Lecun { gain: 1.0, distribution: flat }, 0.1),
            (Init::Normal { gain: 0.25 }, 0.25),
            (Init::Uniform { gain: 0.5, low: -1.0, high: 1.0 }, 0.5 / 3f64.sqrt()),
            (Init::Orthogonal { gain: 1.0 }, 1.0 / 200f64.sqrt()),
        ] {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let weight = weight([100, 200], 100, 200, &init, Activation::Tanh, &mut rng, &device);
            let data = weight.val().into_data();
            let rms = tamegrad_stats::scan(data.as_slice::<f32>().unwrap()).rms();
            assert!((rms / std - 1.0).abs() < 0.03, "{init:?}: {rms}, want {std}");
        }
    }

    #[test]
    fn orthogonal_vectors_are_orthonormal_in_either_shape() {
        for (rows, cols) in [(5, 8), (8, 5), (6, 6)] {
            let m = orthogonal(rows, cols, &mut ChaCha8Rng::seed_from_u64(3));
            let short = rows.min(cols);
            let at =
                |i: usize, k: usize| if rows <= cols { m[i * cols + k] } else { m[k * cols + i] };
            for i in 0..short {
                for j in 0..short {
                    let dot: f64 = (0..rows.max(cols)).map(|k| at(i, k) * at(j, k)).sum();
                    let want = if i == j { 1.0 } else { 0.0 };
                    assert!((dot - want).abs() < 1e-12, "{rows}x{cols}: {i}.{j} = {dot}");
                }
            }
        }
    }

    #[test]
    fn spectral_radius_of_known_matrices() {
        // A rotation by any angle has radius 1; a triangular matrix that of its diagonal.
        for (matrix, radius) in [
            ([0.6, -0.8, 0.8, 0.6], 1.0),
            ([1.5, 100.0, 0.0, 0.5], 1.5),
            ([0.0, 1.0, 0.0, 0.0], 0.0),
        ] {
            let got = spectral_radius(&matrix, 2);
            assert!((got - radius).abs() < 5e-3, "{matrix:?}: {got}, want {radius}");
        }
    }
}
