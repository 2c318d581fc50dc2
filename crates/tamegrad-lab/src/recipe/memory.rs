//! What a run needs of memory, added up before anything is allocated.
//!
//! The sum is what training has to hold at the same time: the samples, the weights with what the optimizer
//! and the guard keep of each, and what the layers keep of a batch for the backward pass.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use super::check::Conflict;
use super::{
    Cell, Conv, Dtype, Mlp, Model, Normalisation, NormalisationKind, Optimizer, Recipe, Rnn,
    Source, Transformer,
};

/// The sizes of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Samples {
    /// Samples to train on.
    pub(crate) train: usize,
    /// Samples held out.
    pub(crate) test: usize,
    /// Shape of one sample.
    pub(crate) shape: Vec<usize>,
    /// Number of classes, or of values to predict.
    pub(crate) outputs: usize,
}

/// Samples that are held out are looked at this many at a time.
pub(crate) const TEST_ROWS: usize = 512;

/// The peak of a pass over what its layers keep: 1.5 to 2 in training runs of a conv, an LSTM and a
/// transformer, for gradients of outputs and what comes and goes within an operation.
const PEAK: usize = 2;

/// The steps of a sample and the numbers of each: the rows of an image, single numbers of the rest.
pub(crate) fn sequence(shape: &[usize]) -> [usize; 2] {
    match *shape {
        [steps, features] => [steps, features],
        [channels, height, width] => [height, channels * width],
        ref other => [other.iter().product(), 1],
    }
}

/// Channels, height and width of a sample; one that is no image is one channel of one row.
pub(crate) fn image(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [channels, height, width] => [channels, height, width],
        ref other => [1, 1, other.iter().product()],
    }
}

/// Whether a convolution's output of this size is halved by a maximum over 2 x 2.
pub(crate) fn pools(height: usize, width: usize) -> bool {
    height >= 4 && width >= 4
}

impl Source {
    /// The sizes of what is generated; `None` where only the files tell.
    pub(crate) fn samples(&self) -> Option<Samples> {
        let split = |samples: usize, shape: Vec<usize>, outputs| {
            let test = (samples as f64 * 0.3).round() as usize;
            Samples { train: samples.saturating_sub(test), test, shape, outputs }
        };
        let beside =
            |train: usize, shape, outputs| Samples { train, test: train / 5, shape, outputs };
        Some(match self {
            Source::Digits {} => {
                Samples { train: 1438, test: 359, shape: vec![1, 8, 8], outputs: 10 }
            }
            Source::Csv { .. } | Source::Idx { .. } => return None,
            Source::Circles { samples, .. } => split(*samples, vec![2], 2),
            Source::Blobs { samples, centers, features, image, .. } => {
                let shape = image.map_or(vec![*features], |image| image.to_vec());
                split(*samples, shape, *centers)
            }
            Source::Polynomial { samples, powers, .. } => split(*samples, vec![*powers], 1),
            Source::Linear { samples, features, .. } => split(*samples, vec![*features], 1),
            Source::Adding { samples, length } => beside(*samples, vec![*length, 2], 1),
            Source::TemporalOrder { samples, length } => beside(*samples, vec![*length, 6], 4),
        })
    }

    /// The key that says how many samples there are.
    fn samples_key(&self) -> String {
        let key = match self {
            Source::Digits {} => return "data.digits".into(),
            Source::Csv { .. } => return "data.csv.path".into(),
            Source::Idx { .. } => return "data.idx.images".into(),
            Source::Circles { .. } => "circles",
            Source::Blobs { .. } => "blobs",
            Source::Polynomial { .. } => "polynomial",
            Source::Linear { .. } => "linear",
            Source::Adding { .. } => "adding",
            Source::TemporalOrder { .. } => "temporal-order",
        };
        format!("data.{key}.samples")
    }

    /// The key that says how large one of them is.
    fn size_key(&self) -> String {
        match self {
            Source::Blobs { .. } => "data.blobs.features".into(),
            Source::Linear { .. } => "data.linear.features".into(),
            Source::Adding { .. } => "data.adding.length".into(),
            Source::TemporalOrder { .. } => "data.temporal-order.length".into(),
            _ => self.samples_key(),
        }
    }
}

/// One part of the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// The key of the recipe that makes it as large as it is.
    key: String,
    bytes: u128,
}

/// The parts of the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    /// Samples, where they are still to be made.
    data: Part,
    /// Weights with their gradients, the optimizer's moments and copies.
    weights: Part,
    /// What a batch leaves for the backward pass.
    kept: Part,
}

impl Need {
    fn bytes(&self) -> u128 {
        [&self.data, &self.weights, &self.kept]
            .into_iter()
            .fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    fn largest(&self) -> &Part {
        let parts = [&self.data, &self.weights, &self.kept];
        parts.into_iter().max_by_key(|part| part.bytes).unwrap_or(&self.weights)
    }
}

/// What is too large about a run: of data that is `loaded`, or that the recipe says all about. `None`
/// where it fits, or where nobody can tell.
pub(crate) fn excess(recipe: &Recipe, loaded: Option<&Samples>) -> Option<Conflict> {
    let samples = loaded.cloned().or_else(|| recipe.data.samples())?;
    excess_over(free_bytes()?, recipe, &samples, loaded.is_some())
}

fn excess_over(free: u64, recipe: &Recipe, samples: &Samples, is_loaded: bool) -> Option<Conflict> {
    let need = need(recipe, samples, is_loaded);
    if need.bytes() <= u128::from(free) {
        return None;
    }
    let message = format!(
        "got a run that needs about {} of memory ({} for the samples, {} for the weights with \
         gradients, moments and copies, {} for what a batch keeps for the backward pass), want at \
         most the {} that are free",
        spell(need.bytes()),
        spell(need.data.bytes),
        spell(need.weights.bytes),
        spell(need.kept.bytes),
        spell(u128::from(free)),
    );
    let help = "make this smaller, or train where there is more memory";
    Some(Conflict { path: need.largest().key.clone(), message, help })
}

/// The memory that this process can still have; `None` where the system does not tell.
pub(crate) fn free_bytes() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let mut free = system.available_memory();
    if let Ok(own) = sysinfo::get_current_pid() {
        let (own, only) = ([own], ProcessRefreshKind::nothing());
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&own), false, only);
        // What a group of processes has in the cache of files would make room.
        if let Some(limits) = system.process(own[0]).and_then(|process| process.cgroup_limits()) {
            free = free.min(limits.total_memory.saturating_sub(limits.rss));
        }
    }
    (free > 0).then_some(free)
}

fn need(recipe: &Recipe, samples: &Samples, is_loaded: bool) -> Need {
    let float = match recipe.training.dtype {
        Dtype::F32 => 4,
        Dtype::F16 => 2,
    };
    let width = product(&samples.shape);
    let rows = samples.train.saturating_add(samples.test);
    // Those of the table that is split into two, and those of the two.
    let data =
        if is_loaded { 0 } else { product(&[rows, 8]).saturating_mul(width.saturating_add(1)) };
    let samples_key = recipe.data.samples_key();
    let is_wide = width > rows as u128;
    let data_key = if is_wide { recipe.data.size_key() } else { samples_key };

    let layers = layers(&recipe.model, samples, &recipe.data);
    let weights: u128 = layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.weights));
    let kept: u128 = layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.kept));
    let batch = recipe.training.batch.min(samples.train);
    let widest = |by: fn(&Layer) -> u128| {
        let layer = layers.iter().rev().max_by_key(|layer| by(layer));
        layer.map_or(String::new(), |layer| layer.key.clone())
    };
    let passing = layers.iter().map(|layer| layer.passing).max().unwrap_or(0);
    let of_batch = product(&[batch, float, PEAK]).saturating_mul(kept);
    let of_test = product(&[TEST_ROWS.min(samples.test), float, 2]).saturating_mul(passing);
    // Many samples, rather than large ones.
    let is_batch = batch as u128 > width && of_batch >= of_test;
    Need {
        data: Part { key: data_key, bytes: data },
        weights: Part {
            key: widest(|layer| layer.weights),
            bytes: weights.saturating_mul(product(&[float, copies(&recipe.optimizer)])),
        },
        kept: Part {
            key: if is_batch { "training.batch".into() } else { widest(|layer| layer.kept) },
            bytes: of_batch.max(of_test),
        },
    }
}

/// How often each weight is there: itself, its gradient, the weight after the update, and what the
/// optimizer keeps.
fn copies(optimizer: &Optimizer) -> usize {
    3 + match optimizer {
        Optimizer::Sgd(of) => usize::from(of.momentum > 0.0),
        Optimizer::Adam(_) | Optimizer::Adamw(_) => 2,
        Optimizer::Rmsprop(of) => 1 + usize::from(of.momentum > 0.0),
    }
}

/// A layer, or several that are alike.
struct Layer {
    /// The key that gives its size.
    key: String,
    weights: u128,
    /// Numbers that it keeps of one sample for the backward pass.
    kept: u128,
    /// Numbers of one sample that it gives to the next layer.
    passing: u128,
}

fn layers(model: &Model, samples: &Samples, source: &Source) -> Vec<Layer> {
    match model {
        Model::Mlp(mlp) => of_mlp(mlp, samples, source),
        Model::Conv(conv) => of_conv(conv, samples, source),
        Model::Rnn(rnn) => of_rnn(rnn, samples, source),
        Model::Transformer(transformer) => of_transformer(transformer, samples, source),
    }
}

/// A linear map with what follows it: the map's values and the activation's, and those of a
/// normalisation.
fn dense(key: String, inputs: u128, outputs: usize, normalisation: Normalisation) -> Layer {
    let outputs = outputs as u128;
    let kept = outputs.saturating_mul(2 + of_norm(normalisation));
    Layer { key, weights: inputs.saturating_mul(outputs), kept, passing: outputs }
}

/// Numbers that a normalisation keeps of each of its inputs.
fn of_norm(normalisation: Normalisation) -> u128 {
    if normalisation.kind == NormalisationKind::None { 0 } else { 2 }
}

/// The output layer with its loss.
fn output(inputs: usize, samples: &Samples, key: String, source: &Source) -> Layer {
    let key = match source {
        Source::Blobs { centers, .. } if *centers > inputs => "data.blobs.centers".into(),
        Source::Csv { .. } | Source::Idx { .. } if samples.outputs > inputs => source.samples_key(),
        _ => key,
    };
    dense(key, inputs as u128, samples.outputs, Normalisation::default())
}

fn of_mlp(mlp: &Mlp, samples: &Samples, source: &Source) -> Vec<Layer> {
    let mut inputs = samples.shape.iter().product();
    let mut key = source.size_key();
    let mut layers = Vec::new();
    for index in 0..mlp.depth {
        let own = mlp.layer.iter().position(|layer| layer.index == index);
        let of_own =
            own.and_then(|at| Some((format!("model.mlp.layer[{at}].width"), mlp.layer[at].width?)));
        let (own_key, width) = of_own.unwrap_or_else(|| ("model.mlp.width".into(), mlp.width));
        let normalisation =
            own.and_then(|at| mlp.layer[at].normalisation).unwrap_or(mlp.normalisation);
        let larger = if inputs > width { key } else { own_key.clone() };
        layers.push(dense(larger, inputs as u128, width, normalisation));
        (inputs, key) = (width, own_key);
    }
    layers.push(output(inputs, samples, key, source));
    layers
}

fn of_conv(conv: &Conv, samples: &Samples, source: &Source) -> Vec<Layer> {
    let [mut channels, mut height, mut width] = image(&samples.shape);
    let mut layers = Vec::new();
    for (at, &out) in conv.channels.iter().enumerate() {
        let pixels = product(&[out, height, width]);
        layers.push(Layer {
            key: format!("model.conv.channels[{at}]"),
            weights: product(&[channels, out, conv.kernel, conv.kernel]),
            kept: pixels.saturating_mul(2 + of_norm(conv.normalisation)),
            passing: pixels,
        });
        channels = out;
        if pools(height, width) {
            (height, width) = (height / 2, width / 2);
        }
    }
    let mut inputs = channels.saturating_mul(height).saturating_mul(width);
    let mut key = format!("model.conv.channels[{}]", conv.channels.len().saturating_sub(1));
    for (at, &units) in conv.dense.iter().enumerate() {
        let own_key = format!("model.conv.dense[{at}]");
        let larger = if inputs > units { key } else { own_key.clone() };
        layers.push(dense(larger, inputs as u128, units, conv.normalisation));
        (inputs, key) = (units, own_key);
    }
    layers.push(output(inputs, samples, key, source));
    layers
}

fn of_rnn(rnn: &Rnn, samples: &Samples, source: &Source) -> Vec<Layer> {
    let [steps, features] = sequence(&samples.shape);
    let key = "model.rnn.hidden".to_owned();
    // The gates, and what a step keeps of each unit beside them.
    let (gates, beside) = match rnn.cell {
        Cell::Plain => (1, 1),
        Cell::Lstm => (4, 6),
        Cell::Gru => (3, 5),
    };
    let of_steps = product(&[steps, rnn.hidden]);
    let longest = if steps > rnn.hidden { source.size_key() } else { key.clone() };
    let cell = Layer {
        key: key.clone(),
        weights: product(&[gates, rnn.hidden])
            .saturating_mul(features as u128 + rnn.hidden as u128),
        kept: 0,
        passing: 0,
    };
    let unrolled = Layer {
        key: longest,
        weights: 0,
        kept: of_steps.saturating_mul(2 * gates as u128 + beside),
        passing: of_steps.saturating_mul(gates as u128),
    };
    vec![cell, unrolled, output(rnn.hidden, samples, key, source)]
}

fn of_transformer(model: &Transformer, samples: &Samples, source: &Source) -> Vec<Layer> {
    let [steps, features] = sequence(&samples.shape);
    let (width, depth) = (model.width, model.depth as u128);
    let key = "model.transformer.width".to_owned();
    let of_steps = product(&[steps, width]);
    let scores = product(&[model.heads, steps, steps]);
    let longest = if steps > width { source.size_key() } else { key.clone() };
    // Query, key and value, what is mixed of them, the perceptron's four widths before and after its
    // activation, and the two sums.
    let of_block = of_steps.saturating_mul(3 + 2 + 8 + 2 + 2 * of_norm(model.normalisation));
    let kept = of_block.saturating_add(scores.saturating_mul(2)).saturating_mul(depth);
    let blocks = Layer {
        key: longest,
        weights: product(&[width, width, 12]).saturating_mul(depth),
        kept,
        passing: scores.max(of_steps.saturating_mul(4)),
    };
    let embedding = of_steps.saturating_add(product(&[features, width]));
    let embed = Layer { key: key.clone(), weights: embedding, kept: of_steps, passing: of_steps };
    vec![blocks, embed, output(width, samples, key, source)]
}

/// The product, or the largest number where it is larger.
fn product(sizes: &[usize]) -> u128 {
    sizes.iter().fold(1, |product: u128, size| product.saturating_mul(*size as u128))
}

/// Bytes in binary units, with two digits or more.
fn spell(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::parse;

    const GIB: u64 = 1 << 30;

    fn recipe(data: &str, model: &str, batch: usize) -> Recipe {
        let text = format!(
            "name = \"a\"\ndata.{data}\nmodel.{model}\noptimizer.adam.learning_rate = 0.1\n\
             training = {{ batch = {batch}, epochs = 2 }}\n"
        );
        parse(&text, None).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn what_needs_more_than_there_is_names_the_key_that_makes_it_so_large() {
        let digits = "digits = {}";
        let adding = "adding = { samples = 100, length = 10000 }";
        let wide = "blobs = { samples = 30, centers = 2, features = 65536, std = 1.0 }";
        let cases = [
            (digits, "mlp = { depth = 500, width = 8192 }", 8, "model.mlp.width"),
            (
                digits,
                "conv = { channels = [8, 8192, 8192], kernel = 31 }",
                8,
                "model.conv.channels[2]",
            ),
            (
                digits,
                "conv = { channels = [64], kernel = 3, dense = [8192, 8192, 8192, 8192, 8192, \
              8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192] }",
                8,
                "model.conv.dense[1]",
            ),
            (adding, "rnn = { hidden = 8192 }", 100, "data.adding.length"),
            (adding, "transformer = { depth = 2, width = 8, heads = 8 }", 8, "data.adding.length"),
            (
                digits,
                "transformer = { depth = 200, width = 8192, heads = 8 }",
                8,
                "model.transformer.width",
            ),
            (wide, "mlp = { depth = 1, width = 8192 }", 8, "data.blobs.features"),
            (
                "circles = { samples = 10000000, noise = 0.1, factor = 0.5 }",
                "mlp = { depth = 9, width = 900 }",
                1_000_000,
                "training.batch",
            ),
            (
                "linear = { samples = 10000000, features = 107, noise = 0.1 }",
                "mlp = { depth = 1, width = 9 }",
                8,
                "data.linear.samples",
            ),
        ];
        for (data, model, batch, key) in cases {
            let recipe = recipe(data, model, batch);
            let samples = recipe.data.samples().expect("generated");
            let told = excess_over(8 * GIB, &recipe, &samples, false).expect(model);
            assert_eq!(told.path, key, "{model}: {}", told.message);
            assert!(
                told.message.ends_with("want at most the 8.0 GiB that are free"),
                "{}",
                told.message
            );
        }
    }

    #[test]
    fn what_is_large_and_fits_is_allowed() {
        for (data, model, batch) in [
            ("digits = {}", "mlp = { depth = 10, width = 2048 }", 512),
            ("adding = { samples = 1000, length = 1000 }", "rnn = { hidden = 128 }", 100),
            (
                "blobs = { samples = 100000, centers = 10, features = 100, std = 1 }",
                "mlp = { depth = 0, width = 1 }",
                9,
            ),
        ] {
            let recipe = recipe(data, model, batch);
            let samples = recipe.data.samples().expect("generated");
            let told = excess_over(8 * GIB, &recipe, &samples, false).map(|told| told.message);
            assert_eq!(told, None, "{model}");
        }
    }

    #[test]
    fn sizes_beyond_every_number_are_only_too_large() {
        let max = usize::MAX;
        let sizes = [
            Samples { train: max, test: max, shape: vec![max, 1], outputs: max },
            Samples { train: max, test: max, shape: vec![1, 1 << 31, 1 << 31], outputs: max },
        ];
        let models = [
            "mlp = { depth = 3, width = 8192 }",
            "conv = { channels = [8192], kernel = 31 }",
            "rnn = { hidden = 8192, cell = \"lstm\" }",
            "transformer = { depth = 200, width = 8192, heads = 8192 }",
        ];
        for (samples, model) in sizes.iter().flat_map(|s| models.iter().map(move |m| (s, m))) {
            let told = excess_over(u64::MAX, &recipe("digits = {}", model, 8), samples, false);
            assert!(told.is_some_and(|told| told.message.contains("EiB")), "{model}");
        }
    }

    #[test]
    fn there_is_memory_for_the_tests() {
        assert!(free_bytes().is_none_or(|free| free > GIB / 16), "{:?}", free_bytes());
    }

    #[test]
    fn sizes_are_spelt_in_units() {
        for (bytes, spelt) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (20 << 30, "20 GiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(spell(bytes), spelt);
        }
    }
}
