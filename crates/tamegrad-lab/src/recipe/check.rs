//! What a recipe must keep across its values, beyond the range of each.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::de::{Fault, What};
use super::{Cell, Init, Loss, Mlp, Model, Recipe, Rnn, Scheme, Source, Task, Transformer};

/// Checks `recipe`, which was read from `table`.
pub(super) fn whole(recipe: &Recipe, table: &DeTable<'_>) -> Result<(), Fault> {
    let found = source(&recipe.data.source)
        .or_else(|| model_fits_data(&recipe.model, &recipe.data.source))
        .or_else(|| model(&recipe.model))
        .or_else(|| loss(recipe));
    match found {
        None => Ok(()),
        Some(Conflict { path, message, help }) => {
            let span = span_of(table, &path);
            Err(Fault::new(What::Conflict { message, help }).at(&span, &path))
        }
    }
}

/// A value that another one forbids.
struct Conflict {
    /// Dotted path of the value.
    path: String,
    message: String,
    help: String,
}

impl Conflict {
    fn new(path: &str, message: String, help: &str) -> Option<Conflict> {
        Some(Conflict { path: path.to_owned(), message, help: help.to_owned() })
    }
}

fn source(source: &Source) -> Option<Conflict> {
    match source {
        Source::Idx { test_images: Some(_), test_labels: None, .. } => Conflict::new(
            "data.test_images",
            "got `test_images` without `test_labels` in [data], want both or neither".into(),
            "add `test_labels`, or hold out a `test_fraction` of `images` instead",
        ),
        Source::Idx { test_images: None, test_labels: Some(_), .. } => Conflict::new(
            "data.test_labels",
            "got `test_labels` without `test_images` in [data], want both or neither".into(),
            "add `test_images`, or hold out a `test_fraction` of `images` instead",
        ),
        Source::Blobs { samples, centers, .. } if centers > samples => Conflict::new(
            "data.centers",
            format!("got {centers} for `centers` in [data], want at most samples = {samples}"),
            "",
        ),
        Source::Blobs { features, image: Some(image), .. }
            if image.iter().try_fold(1, |product: usize, side| product.checked_mul(*side))
                != Some(*features) =>
        {
            let message = format!(
                "got {image:?} for `image` in [data], want a product of features = {features}"
            );
            Conflict::new("data.image", message, "channels, height, width")
        }
        Source::Polynomial { range: [low, high], .. } if low >= high => Conflict::new(
            "data.range",
            format!("got [{low:?}, {high:?}] for `range` in [data], want the lower bound first"),
            "",
        ),
        _ => None,
    }
}

fn model_fits_data(model: &Model, source: &Source) -> Option<Conflict> {
    match model {
        Model::Rnn(_) | Model::Transformer(_)
            if !source.has_sequences() && !source.has_images() =>
        {
            let kind = if matches!(model, Model::Rnn(_)) { "rnn" } else { "transformer" };
            let message = format!(
                "got kind = \"{kind}\" in [model] with data that has no sequences or images"
            );
            let help =
                "allowed with it: source = \"adding\", \"temporal-order\", \"digits\" or \"idx\"";
            Conflict::new("model.kind", message, help)
        }
        Model::Conv(_) if !source.has_images() => Conflict::new(
            "model.kind",
            "got kind = \"conv\" in [model] with data that has no images".into(),
            "allowed with a conv: source = \"digits\" or \"idx\", or \"blobs\" with an `image`",
        ),
        _ => None,
    }
}

fn model(model: &Model) -> Option<Conflict> {
    match model {
        Model::Mlp(mlp) => init(&mlp.init, "model.init").or_else(|| layers(mlp)),
        Model::Conv(conv) => init(&conv.init, "model.init"),
        Model::Rnn(rnn) => init(&rnn.init, "model.init").or_else(|| cell(rnn)),
        Model::Transformer(model) => init(&model.init, "model.init").or_else(|| heads(model)),
    }
}

fn cell(rnn: &Rnn) -> Option<Conflict> {
    if rnn.cell == Cell::Plain || rnn.spectral_radius.is_none() {
        return None;
    }
    Conflict::new(
        "model.spectral_radius",
        "got `spectral_radius` in [model] with a cell that has several recurrent matrices".into(),
        "allowed with cell = \"plain\"",
    )
}

fn heads(model: &Transformer) -> Option<Conflict> {
    let (width, heads) = (model.width, model.heads);
    if width.is_multiple_of(heads) {
        return None;
    }
    let message = format!("got {heads} for `heads` in [model], want a divisor of width = {width}");
    Conflict::new("model.heads", message, "each head gets the same share of the width")
}

fn layers(mlp: &Mlp) -> Option<Conflict> {
    mlp.layer.iter().enumerate().find_map(|(at, layer)| {
        let path = format!("model.layer[{at}]");
        let (index, depth) = (layer.index, mlp.depth);
        if index >= depth {
            let message =
                format!("got {index} for `index` in [[model.layer]], want below depth = {depth}");
            return Conflict::new(&format!("{path}.index"), message, "layers count from 0");
        }
        if mlp.layer[..at].iter().any(|earlier| earlier.index == index) {
            let message = format!("got {index} for `index` in [[model.layer]] a second time");
            let help = "write all that differs in a layer into one [[model.layer]]";
            return Conflict::new(&format!("{path}.index"), message, help);
        }
        init(layer.init.as_ref()?, &format!("{path}.init"))
    })
}

fn init(init: &Init, path: &str) -> Option<Conflict> {
    match init.scheme {
        Scheme::Uniform { low, high } if low >= high => Conflict::new(
            path,
            format!("got low = {low:?} and high = {high:?} in [{path}], want low below high"),
            "without them low is -1 and high is 1",
        ),
        _ => None,
    }
}

fn loss(recipe: &Recipe) -> Option<Conflict> {
    let regression = recipe.data.source.task() == Task::Regression;
    if !regression || recipe.training.loss != Some(Loss::CrossEntropy) {
        return None;
    }
    Conflict::new(
        "training.loss",
        "got \"cross-entropy\" for `loss` in [training] with data that has no classes".into(),
        "allowed with values to predict: mean-squared-error, sum-squared-error",
    )
}

/// Where the value at a dotted path stands in the text, or the last table on the way that does.
fn span_of(table: &DeTable<'_>, path: &str) -> Range<usize> {
    let mut span = 0..0;
    let mut table = Some(table);
    for step in path.split('.') {
        let (key, index) = match step.split_once('[') {
            Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (step, None),
        };
        let found = table.and_then(|table| table.get(key)).and_then(|value| match index {
            Some(index) => value.get_ref().as_array().and_then(|array| array.get(index)),
            None => Some(value),
        });
        let Some(value) = found else {
            break;
        };
        span = value.span();
        table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    span
}
