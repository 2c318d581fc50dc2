//! What a recipe must keep across its values, beyond the range of each.

use super::{Cell, Init, Loss, Mlp, Model, Recipe, Rnn, Source, Task, Transformer};

/// A value that another one, or the machine, forbids.
pub(crate) struct Conflict {
    /// Dotted path of the value.
    pub(crate) path: String,
    /// What is there, and what should be.
    pub(crate) message: String,
    /// What to do next; empty when the message says all.
    pub(crate) help: &'static str,
}

impl Conflict {
    fn new(path: &str, message: String, help: &'static str) -> Option<Conflict> {
        Some(Conflict { path: path.to_owned(), message, help })
    }
}

/// The first conflict of a recipe.
pub(super) fn conflict(recipe: &Recipe) -> Option<Conflict> {
    source(&recipe.data)
        .or_else(|| model_fits_data(&recipe.model, &recipe.data))
        .or_else(|| model(&recipe.model))
        .or_else(|| loss(recipe))
}

fn source(source: &Source) -> Option<Conflict> {
    match source {
        Source::Idx { test_images: Some(_), test_labels: None, .. } => Conflict::new(
            "data.idx.test_images",
            "got `test_images` without `test_labels` in [data.idx], want both or neither".into(),
            "add `test_labels`, or hold out a `test_fraction` of `images` instead",
        ),
        Source::Idx { test_images: None, test_labels: Some(_), .. } => Conflict::new(
            "data.idx.test_labels",
            "got `test_labels` without `test_images` in [data.idx], want both or neither".into(),
            "add `test_images`, or hold out a `test_fraction` of `images` instead",
        ),
        Source::Blobs { samples, centers, .. } if centers > samples => Conflict::new(
            "data.blobs.centers",
            format!(
                "got {centers} for `centers` in [data.blobs], want at most samples = {samples}"
            ),
            "",
        ),
        Source::Blobs { features, image: Some(image), .. }
            if image.iter().try_fold(1, |product: usize, side| product.checked_mul(*side))
                != Some(*features) =>
        {
            let message = format!(
                "got {image:?} for `image` in [data.blobs], want a product of features = {features}"
            );
            Conflict::new("data.blobs.image", message, "channels, height, width")
        }
        Source::Polynomial { range: [low, high], .. } if low >= high => Conflict::new(
            "data.polynomial.range",
            format!("got [{low:?}, {high:?}] for `range`, want the lower bound first"),
            "",
        ),
        _ => None,
    }
}

fn model_fits_data(model: &Model, source: &Source) -> Option<Conflict> {
    let (fits, want, help) = match model {
        Model::Mlp(_) => return None,
        Model::Conv(_) => (
            source.has_images(),
            "images",
            "allowed with a conv: [data.digits] or [data.idx], or [data.blobs] with an `image`",
        ),
        Model::Rnn(_) | Model::Transformer(_) => (
            source.has_sequences() || source.has_images(),
            "sequences or images",
            "allowed with it: [data.adding], [data.temporal-order], [data.digits] or [data.idx]",
        ),
    };
    let path = format!("model.{}", model.name());
    let message = format!("got [{path}] with data that has no {want}");
    if fits { None } else { Conflict::new(&path, message, help) }
}

fn model(model: &Model) -> Option<Conflict> {
    match model {
        Model::Mlp(mlp) => init(&mlp.init, "model.mlp.init").or_else(|| layers(mlp)),
        Model::Conv(conv) => init(&conv.init, "model.conv.init"),
        Model::Rnn(rnn) => init(&rnn.init, "model.rnn.init").or_else(|| cell(rnn)),
        Model::Transformer(model) => {
            init(&model.init, "model.transformer.init").or_else(|| heads(model))
        }
    }
}

fn cell(rnn: &Rnn) -> Option<Conflict> {
    if rnn.cell == Cell::Plain || rnn.spectral_radius.is_none() {
        return None;
    }
    Conflict::new(
        "model.rnn.spectral_radius",
        "got `spectral_radius` in [model.rnn] with a cell that has several recurrent matrices"
            .into(),
        "allowed with cell = \"plain\"",
    )
}

fn heads(model: &Transformer) -> Option<Conflict> {
    let (width, heads) = (model.width, model.heads);
    if width.is_multiple_of(heads) {
        return None;
    }
    let message = format!(
        "got {heads} for `heads` in [model.transformer], want a divisor of width = {width}"
    );
    Conflict::new("model.transformer.heads", message, "each head gets the same share of the width")
}

fn layers(mlp: &Mlp) -> Option<Conflict> {
    mlp.layer.iter().enumerate().find_map(|(at, layer)| {
        let path = format!("model.mlp.layer[{at}]");
        let (index, depth) = (layer.index, mlp.depth);
        if index >= depth {
            let message = format!(
                "got {index} for `index` in [[model.mlp.layer]], want below depth = {depth}"
            );
            return Conflict::new(&format!("{path}.index"), message, "layers count from 0");
        }
        if mlp.layer[..at].iter().any(|earlier| earlier.index == index) {
            let message = format!("got {index} for `index` in [[model.mlp.layer]] a second time");
            let help = "write all that differs in a layer into one [[model.mlp.layer]]";
            return Conflict::new(&format!("{path}.index"), message, help);
        }
        init(layer.init.as_ref()?, &format!("{path}.init"))
    })
}

fn init(init: &Init, path: &str) -> Option<Conflict> {
    match init {
        Init::Uniform { low, high, .. } if low >= high => Conflict::new(
            &format!("{path}.uniform"),
            format!("got low = {low:?} and high = {high:?} in `init`, want low below high"),
            "without them low is -1 and high is 1",
        ),
        _ => None,
    }
}

fn loss(recipe: &Recipe) -> Option<Conflict> {
    let regression = recipe.data.task() == Task::Regression;
    if !regression || recipe.training.loss != Some(Loss::CrossEntropy) {
        return None;
    }
    Conflict::new(
        "training.loss",
        "got \"cross-entropy\" for `loss` in [training] with data that has no classes".into(),
        "allowed with values to predict: mean-squared-error, sum-squared-error",
    )
}
