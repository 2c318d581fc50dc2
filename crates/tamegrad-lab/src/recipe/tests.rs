//! What recipes are accepted, what is refused, and where the errors point.

use super::*;

const SHORT: &str = r#"name = "a"
data = { source = "digits" }
model = { kind = "mlp", depth = 3, width = 8 }
optimizer = { kind = "sgd", learning_rate = 0.1 }
training = { batch = 8, epochs = 2 }
"#;

/// The short recipe with one line replaced or, for a section that it lacks, added.
fn with(line: &str) -> String {
    let key = line.split([' ', '.', ']']).next().unwrap_or_default();
    let others = SHORT.lines().filter(|other| !other.starts_with(&format!("{key} ")));
    let mut text: Vec<&str> = others.collect();
    text.push(line);
    text.join("\n")
}

#[test]
fn the_short_recipe_has_the_defaults() {
    let he = Init { scheme: Scheme::He { distribution: Distribution::Normal }, gain: 1.0 };
    let none = Normalisation { kind: NormalisationKind::None, place: Place::Before };
    let want = Recipe {
        name: "a".into(),
        seed: 0,
        data: Data { source: Source::Digits, scale_input: Scale::None, scale_target: Scale::None },
        model: Model::Mlp(Mlp {
            depth: 3,
            width: 8,
            activation: Activation::Relu,
            init: he,
            normalisation: none,
            residual: false,
            output_init: None,
            layer: vec![],
        }),
        optimizer: Optimizer {
            kind: OptimizerKind::Sgd { momentum: 0.0 },
            learning_rate: 0.1,
            weight_decay: 0.0,
        },
        schedule: Schedule { warm_up: 0, decay: Decay::Constant },
        clip: None,
        regularise: Regularise { l1: 0.0, l2: 0.0 },
        training: Training { batch: 8, epochs: 2, loss: None, dtype: Dtype::F32 },
        fault: None,
    };
    assert_eq!(parse(SHORT, None), Ok(want));
}

#[test]
fn the_example_of_the_documentation_is_read() {
    let source = include_str!("../recipe.rs");
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let example: Vec<&str> =
        lines.skip_while(|line| *line != " ```toml").skip(1).take_while(|l| *l != " ```").collect();
    let recipe = parse(&example.join("\n"), None).unwrap();
    assert_eq!(recipe.seed, 7);
    assert_eq!(recipe.schedule, Schedule { warm_up: 100, decay: Decay::Cosine });
    assert_eq!(recipe.clip, Some(Clip { by: ClipBy::GlobalNorm, limit: 1.0 }));
    assert_eq!(recipe.optimizer.kind, OptimizerKind::Sgd { momentum: 0.9 });
    let Model::Mlp(mlp) = recipe.model else { panic!("not an mlp") };
    assert_eq!(mlp.normalisation.kind, NormalisationKind::Batch);
    assert_eq!((mlp.layer[0].index, mlp.layer[0].activation), (2, Some(Activation::Tanh)));
}

#[test]
fn each_optimizer_has_its_keys() {
    let cases = [
        ("kind = \"sgd\", momentum = 0.9", OptimizerKind::Sgd { momentum: 0.9 }),
        (
            "kind = \"adam\", beta1 = 0.5",
            OptimizerKind::Adam { beta1: 0.5, beta2: 0.999, epsilon: 1e-8 },
        ),
        (
            "beta2 = 0.5, kind = \"adamw\", epsilon = 1e-4",
            OptimizerKind::Adamw { beta1: 0.9, beta2: 0.5, epsilon: 1e-4 },
        ),
        (
            "kind = \"rmsprop\", momentum = 0",
            OptimizerKind::Rmsprop { alpha: 0.99, momentum: 0.0, epsilon: 1e-8 },
        ),
    ];
    for (keys, kind) in cases {
        let text =
            with(&format!("optimizer = {{ {keys}, learning_rate = 1, weight_decay = 0.5 }}"));
        let want = Optimizer { kind, learning_rate: 1.0, weight_decay: 0.5 };
        assert_eq!(parse(&text, None).map(|recipe| recipe.optimizer), Ok(want));
    }
}

#[test]
fn each_source_has_its_keys_and_task() {
    use Loss::{CrossEntropy, MeanSquaredError};
    let cases = [
        (r#"source = "digits", scale_input = "standard""#, Source::Digits, CrossEntropy),
        (
            r#"path = "t.csv", source = "csv", target = "y", task = "regression""#,
            Source::Csv {
                path: "t.csv".into(),
                target: "y".into(),
                task: Task::Regression,
                test_fraction: 0.2,
            },
            MeanSquaredError,
        ),
        (
            r#"source = "idx", images = "i", labels = "l", test_images = "ti", test_labels = "tl""#,
            Source::Idx {
                images: "i".into(),
                labels: "l".into(),
                test_images: Some("ti".into()),
                test_labels: Some("tl".into()),
                test_fraction: 0.2,
            },
            CrossEntropy,
        ),
        (
            r#"source = "circles", samples = 100, noise = 0.1, factor = 0.5"#,
            Source::Circles { samples: 100, noise: 0.1, factor: 0.5 },
            CrossEntropy,
        ),
        (
            r#"source = "blobs", samples = 100, centers = 3, features = 2, std = 1"#,
            Source::Blobs { samples: 100, centers: 3, features: 2, std: 1.0, image: None },
            CrossEntropy,
        ),
        (
            r#"source = "polynomial", samples = 1_000, coefficients = [1, -2.5], range = [-3, 3], noise = 0"#,
            Source::Polynomial {
                samples: 1000,
                coefficients: vec![1.0, -2.5],
                range: [-3.0, 3.0],
                noise: 0.0,
                powers: 1,
            },
            MeanSquaredError,
        ),
        (
            r#"source = "linear", samples = 10, features = 20, noise = 0.5"#,
            Source::Linear { samples: 10, features: 20, noise: 0.5 },
            MeanSquaredError,
        ),
        (
            r#"source = "adding", samples = 10, length = 50"#,
            Source::Adding { samples: 10, length: 50 },
            MeanSquaredError,
        ),
        (
            r#"source = "temporal-order", samples = 10, length = 50"#,
            Source::TemporalOrder { samples: 10, length: 50 },
            CrossEntropy,
        ),
    ];
    for (keys, source, loss) in cases {
        let recipe = parse(&with(&format!("data = {{ {keys} }}")), None).unwrap();
        assert_eq!((recipe.loss(), recipe.data.source), (loss, source));
    }
}

#[test]
fn each_model_has_its_keys() {
    let text = with(r#"model = { kind = "conv", channels = [8, 16], kernel = 3 }"#);
    let want = Model::Conv(Conv {
        channels: vec![8, 16],
        kernel: 3,
        dense: vec![],
        activation: Activation::Relu,
        init: Init::default(),
        normalisation: Normalisation::default(),
        residual: false,
    });
    assert_eq!(parse(&text, None).map(|recipe| recipe.model), Ok(want));

    let text = with(r#"data = { source = "adding", samples = 10, length = 50 }"#).replace(
            r#"kind = "mlp", depth = 3, width = 8"#,
            r#"kind = "rnn", hidden = 5, spectral_radius = 1.5, init = { low = -2, scheme = "uniform", gain = 3 }"#,
        );
    let want = Model::Rnn(Rnn {
        hidden: 5,
        cell: Cell::Plain,
        activation: Activation::Tanh,
        init: Init { scheme: Scheme::Uniform { low: -2.0, high: 1.0 }, gain: 3.0 },
        spectral_radius: Some(1.5),
    });
    assert_eq!(parse(&text, None).map(|recipe| recipe.model), Ok(want));

    let text = with(r#"model = { kind = "transformer", depth = 2, width = 8, heads = 2 }"#);
    let want = Model::Transformer(Transformer {
        depth: 2,
        width: 8,
        heads: 2,
        activation: Activation::Gelu,
        init: Init { scheme: Scheme::Xavier { distribution: Distribution::Normal }, gain: 1.0 },
        normalisation: Normalisation { kind: NormalisationKind::Layer, place: Place::Before },
    });
    assert_eq!(parse(&text, None).map(|recipe| recipe.model), Ok(want));
}

#[test]
fn a_model_of_sequences_needs_them() {
    let circles = with(r#"data = { source = "circles", samples = 10, noise = 0, factor = 0.5 }"#);
    for kind in
        ["kind = \"rnn\", hidden = 3", "kind = \"transformer\", depth = 1, width = 4, heads = 2"]
    {
        let text = circles.replace(r#"kind = "mlp", depth = 3, width = 8"#, kind);
        let error = parse(&text, None).expect_err("circles are no sequences");
        assert!(error.message.contains("data that has no sequences or images"), "{error}");
        assert!(error.help.contains("\"temporal-order\""), "{error}");
    }
}

#[test]
fn a_fault_has_its_keys() {
    let jump = |steps| FaultKind::RateJump { factor: 30.0, steps };
    for (keys, kind) in [
        (r#"kind = "rate-jump", factor = 30"#, jump(None)),
        (r#"kind = "rate-jump", factor = 30, steps = 1"#, jump(Some(1))),
        (r#"kind = "rate-ramp", factor = 1.01"#, FaultKind::RateRamp { factor: 1.01 }),
        (r#"kind = "bad-batch", factor = 1000"#, FaultKind::BadBatch { factor: 1000.0 }),
    ] {
        let recipe = parse(&with(&format!("fault = {{ step = 7, {keys} }}")), None).unwrap();
        assert_eq!(recipe.fault, Some(Fault { kind, step: 7 }), "{keys}");
    }
}

/// Text, line, column, part of the message, part of the help.
fn check(cases: &[(&str, usize, usize, &str, &str)]) {
    for (text, line, column, message, help) in cases {
        let Err(error) = parse(text, None) else { panic!("no error in\n{text}") };
        assert_eq!((error.line, error.column), (*line, *column), "{error} in\n{text}");
        assert!(error.message.contains(message), "{error}, want {message} in\n{text}");
        assert!(error.help.contains(help), "{error}, want {help} in\n{text}");
        assert!(!help.is_empty() || error.help.is_empty(), "{error} in\n{text}");
    }
}

/// As [`check`], for the last line of an else right recipe, which is line 5 or, for a section
/// that the short recipe lacks, line 6.
fn check_line(cases: &[(&str, usize, &str, &str)]) {
    for (line, column, message, help) in cases {
        let text = with(line);
        check(&[(&text, text.lines().count(), *column, message, help)]);
    }
}

#[test]
fn unknown_keys_are_told_with_those_allowed() {
    check_line(&[
        ("speed = 1", 1, "unknown key `speed` at the top level", "allowed: name, seed, data"),
        ("modle = 1", 1, "unknown key `modle` at the top level", "did you mean `model`?"),
        (
            r#"model = { kind = "mlp", depth = 3, widht = 8 }"#,
            36,
            "unknown key `widht` in [model]",
            "allowed: kind, depth, width, activation, init, normalisation, residual, output_init, layer; \
                 did you mean `width`?",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, hidden = 3 }"#,
            47,
            "key `hidden` in [model] does not belong to kind = \"mlp\"",
            "it belongs to rnn; allowed: kind, depth",
        ),
        (
            r#"model = { knd = "mlp", depth = 3, width = 8 }"#,
            11,
            "unknown key `knd` in [model]",
            "did you mean `kind`?",
        ),
        (
            r#"optimizer = { kind = "sgd", learning_rate = 0.1, beta1 = 0.9 }"#,
            50,
            "key `beta1` in [optimizer] does not belong to kind = \"sgd\"",
            "it belongs to adam, adamw; allowed: kind, learning_rate, weight_decay, momentum",
        ),
        (
            r#"optimizer = { kind = "adam", lerning_rate = 0.1 }"#,
            30,
            "unknown key `lerning_rate` in [optimizer]",
            "did you mean `learning_rate`?",
        ),
        (
            r#"data = { source = "digits", samples = 3 }"#,
            29,
            "key `samples` in [data] does not belong to source = \"digits\"",
            "it belongs to circles, blobs, polynomial, linear, adding, temporal-order; allowed: source",
        ),
        (
            r#"data = { scale-input = "none", source = "digits" }"#,
            10,
            "unknown key `scale-input` in [data]",
            "did you mean `scale_input`?",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "he", low = 1 } }"#,
            71,
            "key `low` in [model.init] does not belong to scheme = \"he\"",
            "it belongs to uniform; allowed: scheme, gain, distribution",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 1, gain = 2 }] }"#,
            69,
            "unknown key `gain` in [[model.layer]]",
            "allowed: index, width, activation, init, normalisation",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, normalisation = { kind = "batch", x = 1 } }"#,
            81,
            "unknown key `x` in [model.normalisation]",
            "allowed: kind, place",
        ),
        ("clip = { by = \"value\", limit = 1, norm = 2 }", 35, "unknown key `norm`", "by, limit"),
    ]);
}

#[test]
fn unknown_names_are_told_with_those_allowed() {
    check_line(&[
        (
            r#"model = { kind = "mpl", depth = 3, width = 8 }"#,
            18,
            r#"unknown value "mpl" for `kind` in [model]"#,
            "allowed: mlp, conv, rnn, transformer; did you mean `mlp`?",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, activation = 'Relu' }"#,
            60,
            "unknown value 'Relu' for `activation` in [model]",
            "did you mean `relu`?",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 0 }, { index = 1, activation = "swish" }] }"#,
            97,
            r#"unknown value "swish" for `activation` in [[model.layer]]"#,
            "allowed: relu, tanh, sigmoid, gelu, selu, linear, exp",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "glorot" } }"#,
            65,
            r#"unknown value "glorot" for `scheme` in [model.init]"#,
            "allowed: he, xavier, lecun, orthogonal, uniform, normal",
        ),
        (
            r#"data = { source = "mnist" }"#,
            19,
            r#"unknown value "mnist" for `source` in [data]"#,
            "allowed: digits, csv, idx",
        ),
        (
            r#"optimizer = { kind = 3, learning_rate = 0.1 }"#,
            22,
            "unknown value 3 for `kind` in [optimizer]",
            "allowed: sgd, adam, adamw, rmsprop",
        ),
        (
            r#"clip = { by = "global_norm", limit = 1 }"#,
            15,
            "unknown value \"global_norm\"",
            "did you mean `global-norm`?",
        ),
    ]);
}

#[test]
fn wrong_types_and_ranges_are_told() {
    check_line(&[
        ("name = \"a b\"", 8, "got \"a b\" for `name`, want 1 to 100 ASCII letters", ""),
        ("name = \"\"", 8, "got \"\" for `name`", ""),
        ("name = 3", 8, "got 3 for `name`, want a text", "write texts in quotes"),
        ("seed = -1", 8, "got -1 for `seed`, want a whole number from 0", ""),
        ("seed = 99999999999999999999", 8, "want a whole number from 0", ""),
        ("model = 3", 9, "want a table with kind = one of mlp, conv, rnn, transformer", ""),
        ("clip = 3", 8, "got 3 for `clip`, want a table with the keys by, limit", ""),
        ("schedule = { warm_up = 1.5 }", 24, "got 1.5 for `warm_up` in [schedule]", ""),
        (
            "schedule = { warm_up = 10.0 }",
            24,
            "want a whole number from 0 to 1000000000",
            "without point",
        ),
        (
            r#"model = { kind = "mlp", depth = 501, width = 8 }"#,
            33,
            "got 501 for `depth` in [model], want a whole number from 0 to 500",
            "",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = "8" }"#,
            44,
            "got \"8\" for `width` in [model], want a whole number from 1 to 8192",
            "write numbers without quotes",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, residual = "yes" }"#,
            58,
            "got \"yes\" for `residual` in [model], want true or false",
            "without quotes",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "he", gain = 0 } }"#,
            78,
            "got 0 for `gain` in [model.init], want a number above 0",
            "",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 0 }, { index = -1 }] }"#,
            81,
            "got -1 for `index` in [[model.layer]]",
            "",
        ),
        (
            r#"model = { kind = "conv", channels = [8, 0], kernel = 3 }"#,
            41,
            "got 0 for `channels[1]` in [model], want a whole number from 1 to 8192",
            "",
        ),
        (
            r#"model = { kind = "conv", channels = [], kernel = 3 }"#,
            37,
            "got [] for `channels` in [model], want an array of at least one",
            "",
        ),
        (
            r#"model = { kind = "conv", channels = [8], kernel = 4 }"#,
            51,
            "got 4 for `kernel` in [model], want an odd whole number from 1 to 31",
            "",
        ),
        (
            r#"optimizer = { kind = "sgd", learning_rate = 0 }"#,
            45,
            "got 0 for `learning_rate` in [optimizer], want a number above 0",
            "",
        ),
        (
            r#"optimizer = { kind = "sgd", learning_rate = nan }"#,
            45,
            "got nan for `learning_rate` in [optimizer], want a number above 0",
            "nan and inf are not allowed",
        ),
        (
            r#"optimizer = { kind = "sgd", learning_rate = 1, momentum = 1.0 }"#,
            59,
            "got 1.0 for `momentum` in [optimizer], want a number from 0 to below 1",
            "",
        ),
        (
            r#"optimizer = { kind = "sgd", learning_rate = 1, weight_decay = 1e999 }"#,
            63,
            "got 1e999 for `weight_decay` in [optimizer], want a number from 0",
            "",
        ),
        (
            r#"data = { source = "polynomial", samples = 10, coefficients = [1, inf], range = [0, 1], noise = 0 }"#,
            66,
            "got inf for `coefficients[1]` in [data], want a finite number",
            "nan and inf",
        ),
        (
            r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [0], noise = 0 }"#,
            75,
            "got [0] for `range` in [data], want an array of length 2",
            "",
        ),
        (
            r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [0, 1, 2], noise = 0 }"#,
            75,
            "got [0, 1, 2] for `range` in [data], want an array of length 2",
            "",
        ),
        (
            r#"data = { source = "csv", path = "", target = "y", task = "regression" }"#,
            33,
            "got \"\" for `path` in [data], want a text that is not empty",
            "",
        ),
        (
            r#"data = { source = "csv", path = "p", target = "y", task = "regression", test_fraction = 1 }"#,
            89,
            "got 1 for `test_fraction` in [data], want a number above 0 and below 1",
            "",
        ),
        ("regularise = { l1 = -0.1 }", 21, "got -0.1 for `l1` in [regularise]", ""),
        ("regularise = { l2 = -2, l1 = -1 }", 21, "got -2 for `l2` in [regularise]", ""),
        ("training = { batch = 0, epochs = 1 }", 22, "got 0 for `batch` in [training]", ""),
    ]);
}

#[test]
fn missing_keys_are_told_at_their_section() {
    let sections =
        "name = \"a\"\n[data]\nsource = \"digits\"\n  [model]\nkind = \"mlp\"\ndepth = 3\n";
    let layer = with("[[model.layer]]\nactivation = \"relu\"")
        .replace("model = { kind = \"mlp\", depth = 3, width = 8 }\n", "")
        + "\n[model]\nkind = \"mlp\"\ndepth = 3\nwidth = 8\n";
    check(&[
        ("", 1, 1, "missing key `name` at the top level", "want a text"),
        (sections, 4, 3, "missing key `width` in [model]", "want a whole number from 1 to 8192"),
        (&layer, 5, 1, "missing key `index` in [[model.layer]]", "whole number from 0 to 499"),
        (
            &SHORT.replace("training", "# training"),
            1,
            1,
            "missing section [training]",
            "want a table with the keys batch, epochs, loss",
        ),
        (
            &SHORT.replace("model =", "# model ="),
            1,
            1,
            "missing section [model]",
            "want a table with kind = one of mlp, conv, rnn, transformer",
        ),
    ]);
    check_line(&[
        ("data = {}", 8, "missing key `source` in [data]", "want one of digits, csv"),
        (
            "model = { depth = 3 }",
            9,
            "missing key `kind` in [model]",
            "want one of mlp, conv, rnn, transformer",
        ),
        ("clip = { limit = 1 }", 8, "missing key `by` in [clip]", "want one of global-norm"),
        (
            r#"model = { kind = "conv", kernel = 3 }"#,
            9,
            "missing key `channels` in [model]",
            "want an array",
        ),
        (
            r#"optimizer = { kind = "sgd" }"#,
            13,
            "missing key `learning_rate` in [optimizer]",
            "want a number above 0",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, init = { gain = 2 } }"#,
            54,
            "missing key `scheme` in [model.init]",
            "want one of he, xavier",
        ),
        (
            r#"data = { source = "blobs", samples = 10, centers = 2, std = 1 }"#,
            8,
            "missing key `features` in [data]",
            "want a whole number from 1 to 65536",
        ),
    ]);
}

#[test]
fn values_at_odds_are_told() {
    let regression = with(
        r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [0, 1], noise = 0 }"#,
    );
    check(&[(
        &regression.replace("epochs = 2", "epochs = 2, loss = \"cross-entropy\""),
        4,
        44,
        "with data that has no classes",
        "mean-squared-error",
    )]);
    check_line(&[
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 3 }] }"#,
            66,
            "got 3 for `index` in [[model.layer]], want below depth = 3",
            "count from 0",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 1 }, { index = 1 }] }"#,
            81,
            "a second time",
            "into one [[model.layer]]",
        ),
        (
            r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "uniform", low = 2 } }"#,
            54,
            "got low = 2.0 and high = 1.0 in [model.init], want low below high",
            "without them",
        ),
        (
            r#"model = { kind = "rnn", hidden = 3, cell = "gru", spectral_radius = 2 }"#,
            69,
            "a cell that has several recurrent matrices",
            "cell = \"plain\"",
        ),
        (
            r#"model = { kind = "transformer", depth = 1, width = 8, heads = 3 }"#,
            63,
            "got 3 for `heads` in [model], want a divisor of width = 8",
            "the same share",
        ),
        (
            r#"data = { source = "idx", images = "i", labels = "l", test_labels = "t" }"#,
            68,
            "`test_labels` without `test_images`",
            "add `test_images`",
        ),
        (
            r#"data = { source = "blobs", samples = 10, centers = 11, features = 2, std = 1 }"#,
            52,
            "got 11 for `centers` in [data], want at most samples = 10",
            "",
        ),
        (
            r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [1, 1], noise = 0 }"#,
            75,
            "got [1.0, 1.0] for `range`",
            "",
        ),
    ]);
    let conv = with(r#"data = { source = "circles", samples = 10, noise = 0, factor = 0 }"#)
        .replace(
            "kind = \"mlp\", depth = 3, width = 8",
            "kind = \"conv\", channels = [1], kernel = 1",
        );
    check(&[(&conv, 2, 18, "data that has no images", "\"digits\" or \"idx\"")]);
}

#[test]
fn broken_toml_is_told() {
    check(&[
        ("name = \n", 1, 8, "not TOML: ", "`key = value`"),
        ("name = \"a\"\nname = \"b\"\n", 2, 1, "not TOML: duplicate key", "`key = value`"),
        ("µ = \"a\nb = 1", 1, 1, "not TOML: ", "`key = value`"),
    ]);
}

#[test]
fn line_ends_and_byte_order_mark_do_not_move_places() {
    let text = with("regularise = { l1 = -1 }");
    for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
        check(&[(&text, 6, 21, "got -1 for `l1` in [regularise]", "")]);
    }
}

/// Whatever is wrong with a text, the place told is in it, and editing it does not panic.
#[test]
fn damaged_recipes_are_told_within_the_text() {
    let whole = with("[[model.layer]]\nindex = 1 # µ\n[clip]\nby = \"value\"\nlimit = 1\n# end\n")
        .replace("model = { kind = \"mlp\", depth = 3, width = 8 }\n", "")
        + "[model]\nkind = \"mlp\"\ndepth = 3\nwidth = 8\ninit = { scheme = \"he\" }\n";
    assert_eq!(parse(&whole, None).map(|recipe| recipe.name), Ok("a".into()));
    let edits =
        [("clip", edit::EditValue::Remove), ("model.layer[2].x", edit::EditValue::Bool(true))]
            .map(|(key, value)| edit::Edit { key: key.into(), value });
    let mut damaged: Vec<String> = Vec::new();
    for (at, letter) in whole.char_indices() {
        let (before, after) = (&whole[..at], &whole[at + letter.len_utf8()..]);
        damaged.push(before.to_owned());
        for other in ["", "\"", "[", "]", "{", "}", "=", ".", "-", "\n", "#", "µ", "9"] {
            damaged.push(format!("{before}{other}{after}"));
        }
    }
    let mut errors = 0;
    for text in damaged {
        if let Err(error) = parse(&text, None) {
            errors += 1;
            assert!(error.span.end <= text.len(), "{error} in\n{text}");
            let line = text.split('\n').nth(error.line - 1).unwrap_or_default();
            assert!((1..=line.chars().count() + 1).contains(&error.column), "{error}\n{text}");
        }
        if let Ok(edited) = edit::apply(&text, &edits) {
            let read = edited.parse::<toml::Table>();
            read.unwrap_or_else(|error| panic!("{error}:\n{edited}\nfrom\n{text}"));
        }
    }
    assert!(errors > 1000, "only {errors} errors");
}

#[test]
fn errors_show_file_line_and_column() {
    let text = with(r#"model = { kind = "mlp", depth = 3, widht = 8 }"#);
    let error = parse(&text, Some(Path::new("recipes/x.toml"))).unwrap_err();
    assert_eq!(&text[error.span.clone()], "widht");
    assert_eq!(
        error.to_string(),
        "recipes/x.toml:5:36: unknown key `widht` in [model]; allowed: kind, depth, width, \
             activation, init, normalisation, residual, output_init, layer; did you mean `width`?"
    );
    assert!(parse(&text, None).unwrap_err().to_string().starts_with("5:36: unknown key"));
}

#[test]
fn files_are_read_and_their_paths_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    let elsewhere = folder.path().join("elsewhere");
    let idx = format!(
        r#"data = {{ source = "idx", images = "i", labels = "sub/l", test_images = {elsewhere:?}, test_labels = "tl" }}"#
    );
    std::fs::write(&path, with(&idx)).unwrap();
    let file = read(&path).unwrap();
    assert_eq!((file.text, file.path), (with(&idx), path.clone()));
    let want = Source::Idx {
        images: folder.path().join("i"),
        labels: folder.path().join("sub/l"),
        test_images: Some(elsewhere),
        test_labels: Some(folder.path().join("tl")),
        test_fraction: 0.2,
    };
    assert_eq!(file.recipe.data.source, want);

    std::fs::write(&path, b"name = \"a\"\n# \xff\n").unwrap();
    let error = read(&path).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    assert_eq!(&*error.message, "got the byte 0xff, want UTF-8");

    let missing = folder.path().join("none.toml");
    let error = read(&missing).unwrap_err().to_string();
    let start = format!("{}: cannot read the recipe: ", missing.display());
    assert!(error.starts_with(&start), "{error}");
}
