//! Remedies as edits of a recipe.

use tamegrad::remedies::{Change, NormPlace, Scheme, two_digits};

use crate::recipe::edit::{Edit, EditValue};
use crate::recipe::{Activation, ClipBy, Model, NormalisationKind, Recipe, Scale};

/// The edits of a recipe that carry out a change; `None` where the recipe has no place for it (no
/// batch norm in a recurrent net) or has it already.
pub fn edits(change: &Change, recipe: &Recipe) -> Option<Vec<Edit>> {
    let optimizer = |key: &str| format!("optimizer.{}.{key}", recipe.optimizer.name());
    match change {
        // What the guard does at run time, or the user in code and data, is no part of a recipe.
        Change::Guard
        | Change::Rewind { .. }
        | Change::FilterRows { .. }
        | Change::FixLabels { .. }
        | Change::GuardAverage { .. }
        | Change::GuardOperation { .. }
        | Change::UnmaskRow { .. }
        | Change::OptimizerEps { .. }
        | Change::ClearGradients
        | Change::MeanLoss
        | Change::DropLastBatch
        | Change::WiderType { .. }
        | Change::OtherKernel => None,
        Change::ClipGlobalNorm { max_norm } => clip(ClipBy::GlobalNorm, *max_norm, recipe),
        Change::ClipTensorNorm { max_norm } => clip(ClipBy::TensorNorm, *max_norm, recipe),
        Change::ClipValue { limit } => clip(ClipBy::Value, *limit, recipe),
        Change::WarmUp { steps } => (recipe.schedule.warm_up < *steps)
            .then(|| vec![set("schedule.warm_up", EditValue::Integer(*steps as i64))]),
        Change::LearningRate { factor, .. } => {
            let rate = two_digits(recipe.optimizer.learning_rate() * factor);
            Some(vec![set(optimizer("learning_rate"), EditValue::Float(rate))])
        }
        Change::ScaleTarget => {
            (recipe.scale.target == Scale::None).then(|| vec![text("scale.target", "standard")])
        }
        Change::ScaleInput => {
            (recipe.scale.input == Scale::None).then(|| vec![text("scale.input", "standard")])
        }
        Change::WeightDecay { rate } => (recipe.optimizer.weight_decay() < *rate)
            .then(|| vec![set(optimizer("weight_decay"), EditValue::Float(*rate))]),
        Change::L2Penalty { strength } => (recipe.regularise.l2 < *strength)
            .then(|| vec![set("regularise.l2", EditValue::Float(*strength))]),
        Change::L1Penalty { strength } => (recipe.regularise.l1 < *strength)
            .then(|| vec![set("regularise.l1", EditValue::Float(*strength))]),
        Change::BatchSize { samples } => ((*samples as usize) < recipe.training.batch)
            .then(|| vec![set("training.batch", EditValue::Integer(*samples as i64))]),
        Change::Reinitialise { scheme, layer } => reinitialise(*scheme, layer.as_deref(), recipe),
        Change::BatchNorm { place } => batch_norm(*place, recipe),
        Change::Activation { name, layer } => activation(name, layer.as_deref(), recipe),
        Change::Depth { layers } => depth(*layers, recipe),
    }
}

/// Clipping of one kind, unless the recipe clips so already, and no looser.
fn clip(by: ClipBy, limit: f64, recipe: &Recipe) -> Option<Vec<Edit>> {
    if recipe.clip.as_ref().is_some_and(|clip| clip.by == by && clip.limit <= limit) {
        return None;
    }
    let word = match by {
        ClipBy::GlobalNorm => "global-norm",
        ClipBy::TensorNorm => "tensor-norm",
        ClipBy::Value => "value",
    };
    Some(vec![text("clip.by", word), set("clip.limit", EditValue::Float(limit))])
}

fn reinitialise(scheme: Scheme, layer: Option<&str>, recipe: &Recipe) -> Option<Vec<Edit>> {
    if let Some(index) = layer.and_then(hidden_index) {
        return Some(init(format!("model.mlp.layer[{index}].init"), scheme).into());
    }
    let overrides = match &recipe.model {
        Model::Mlp(mlp) => mlp.layer.iter().filter(|l| l.init.is_some()).collect(),
        Model::Conv(_) | Model::Rnn(_) | Model::Transformer(_) => Vec::new(),
    };
    let mut edits: Vec<Edit> =
        overrides.iter().map(|l| remove(format!("model.mlp.layer[{}].init", l.index))).collect();
    if matches!(recipe.model, Model::Rnn(_)) {
        edits.push(remove("model.rnn.spectral_radius"));
    }
    edits.extend(init(format!("model.{}.init", recipe.model.name()), scheme));
    Some(edits)
}

/// A scheme with gain 1 in the place of what is there.
fn init(key: String, scheme: Scheme) -> [Edit; 2] {
    let gain = format!("{key}.{}.gain", scheme.as_str());
    [remove(key), set(gain, EditValue::Float(1.0))]
}

fn batch_norm(place: NormPlace, recipe: &Recipe) -> Option<Vec<Edit>> {
    let has_none = match &recipe.model {
        Model::Mlp(mlp) => mlp.normalisation.kind == NormalisationKind::None,
        Model::Conv(conv) => conv.normalisation.kind == NormalisationKind::None,
        Model::Rnn(_) | Model::Transformer(_) => false,
    };
    let key = format!("model.{}.normalisation", recipe.model.name());
    let set = |field, word| text(format!("{key}.{field}"), word);
    let edits = || vec![set("kind", "batch"), set("place", place.as_str())];
    has_none.then(edits)
}

fn activation(name: &str, layer: Option<&str>, recipe: &Recipe) -> Option<Vec<Edit>> {
    let (whole, overrides) = match &recipe.model {
        Model::Mlp(mlp) => (mlp.activation, &mlp.layer[..]),
        Model::Conv(conv) => (conv.activation, &[][..]),
        Model::Rnn(rnn) => (rnn.activation, &[][..]),
        Model::Transformer(model) => (model.activation, &[][..]),
    };
    if let Some(index) = layer.and_then(hidden_index) {
        return Some(vec![text(format!("model.mlp.layer[{index}].activation"), name)]);
    }
    let exp = Activation::Exp;
    let in_layers = overrides.iter().filter(|l| l.activation == Some(exp));
    let mut edits: Vec<Edit> =
        in_layers.map(|l| text(format!("model.mlp.layer[{}].activation", l.index), name)).collect();
    if whole == exp {
        edits.push(text(format!("model.{}.activation", recipe.model.name()), name));
    }
    (!edits.is_empty()).then_some(edits)
}

fn depth(layers: u64, recipe: &Recipe) -> Option<Vec<Edit>> {
    let Model::Mlp(mlp) = &recipe.model else { return None };
    let layers_left = usize::try_from(layers).ok().filter(|n| *n >= 1 && *n < mlp.depth)?;
    let gone = mlp.layer.iter().filter(|layer| layer.index >= layers_left);
    let mut edits: Vec<Edit> =
        gone.map(|l| remove(format!("model.mlp.layer[{}]", l.index))).collect();
    edits.push(set("model.mlp.depth", EditValue::Integer(layers as i64)));
    Some(edits)
}

/// The number of a perceptron's hidden layer, `layers.17`: only those can differ from the rest.
fn hidden_index(layer: &str) -> Option<usize> {
    layer.strip_prefix("layers.")?.parse().ok()
}

fn set(key: impl Into<String>, value: EditValue) -> Edit {
    Edit { key: key.into(), value }
}

fn text(key: impl Into<String>, value: &str) -> Edit {
    set(key, EditValue::Text(value.to_owned()))
}

fn remove(key: impl Into<String>) -> Edit {
    set(key, EditValue::Remove)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Clip, edit, parse};

    const RECIPE: &str = r#"
name = "t"
[data.polynomial]
samples = 100
coefficients = [0.0, 1.0]
range = [0.0, 1.0]
noise = 0.0
[model.mlp]
depth = 4
width = 8
init.normal.gain = 2.0
[[model.mlp.layer]]
index = 3
activation = "exp"
init.he.gain = 10.0
[optimizer.sgd]
learning_rate = 0.3
[training]
batch = 10
epochs = 1
"#;

    /// Applies a change and returns the lines that came and went.
    fn check(change: Change) -> (String, String) {
        let recipe = parse(RECIPE, None).unwrap();
        let edits = edits(&change, &recipe).unwrap();
        let after = edit::apply(RECIPE, &edits).unwrap();
        parse(&after, None).unwrap_or_else(|e| panic!("{change:?}: {e}\n{after}"));
        let only_in = |text: &str, other: &str| {
            let is_new = |line: &&str| !line.is_empty() && other.lines().all(|l| l != *line);
            text.lines().filter(is_new).collect::<Vec<_>>().join("\n")
        };
        (only_in(&after, RECIPE), only_in(RECIPE, &after))
    }

    #[test]
    fn each_change_edits_what_it_means_and_the_recipe_stays_readable() {
        let layer = || Some("layers.3".to_owned());
        for (change, came, went) in [
            (
                Change::ClipGlobalNorm { max_norm: 2.5 },
                "[clip]\nby = \"global-norm\"\nlimit = 2.5",
                "",
            ),
            (Change::WarmUp { steps: 20 }, "[schedule]\nwarm_up = 20", ""),
            (
                Change::LearningRate { factor: 0.1, from: None },
                "learning_rate = 0.03",
                "learning_rate = 0.3",
            ),
            (Change::ScaleTarget, "[scale]\ntarget = \"standard\"", ""),
            (Change::WeightDecay { rate: 0.1 }, "weight_decay = 0.1", ""),
            (Change::L1Penalty { strength: 0.001 }, "[regularise]\nl1 = 0.001", ""),
            (Change::BatchSize { samples: 5 }, "batch = 5", "batch = 10"),
            (
                Change::Reinitialise { scheme: Scheme::Orthogonal, layer: layer() },
                "init = { orthogonal = { gain = 1.0 } }",
                "init.he.gain = 10.0",
            ),
            (
                Change::Reinitialise { scheme: Scheme::He, layer: None },
                "init = { he = { gain = 1.0 } }",
                "init.normal.gain = 2.0\ninit.he.gain = 10.0",
            ),
            (
                Change::BatchNorm { place: NormPlace::After },
                "normalisation = { kind = \"batch\", place = \"after\" }",
                "",
            ),
            (
                Change::Activation { name: "relu".to_owned(), layer: layer() },
                "activation = \"relu\"",
                "activation = \"exp\"",
            ),
            (
                Change::Depth { layers: 2 },
                "depth = 2",
                "depth = 4\n[[model.mlp.layer]]\nindex = 3\nactivation = \"exp\"\ninit.he.gain = 10.0",
            ),
        ] {
            let (got_came, got_went) = check(change.clone());
            assert_eq!((&*got_came, &*got_went), (came, went), "{change:?}");
        }
    }

    #[test]
    fn what_a_recipe_has_already_is_no_change() {
        let mut recipe = parse(RECIPE, None).unwrap();
        recipe.scale.target = Scale::Standard;
        recipe.schedule.warm_up = 50;
        recipe.clip = Some(Clip { by: ClipBy::Value, limit: 0.1 });
        let looser = Change::ClipValue { limit: 0.5 };
        assert_eq!(edits(&looser, &recipe), None);
        let tighter = Change::ClipValue { limit: 0.01 };
        assert_eq!(edits(&tighter, &recipe).map(|edits| edits.len()), Some(2));
        for change in [Change::ScaleTarget, Change::WarmUp { steps: 20 }, Change::Guard] {
            assert_eq!(edits(&change, &recipe), None, "{change:?}");
        }
    }
}
