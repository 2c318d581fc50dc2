//! What recipes are accepted, what is refused, and where the errors point.

use super::*;

const SHORT: &str = r#"name = "a"
data.digits = {}
model.mlp = { depth = 3, width = 8 }
optimizer.sgd = { learning_rate = 0.1 }
training = { batch = 8, epochs = 2 }
"#;

/// The short recipe with one line replaced or, for a section that it lacks, added.
fn with(line: &str) -> String {
    let key = line.trim_start_matches('[').split([' ', '.', ']']).next().unwrap_or_default();
    let others = SHORT.lines().filter(|other| other.split([' ', '.']).next() != Some(key));
    let mut text: Vec<&str> = others.collect();
    text.push(line);
    text.join("\n")
}

#[test]
fn the_short_recipe_has_the_defaults() {
    let he = Init::He { gain: 1.0, distribution: Distribution::Normal };
    let none = Normalisation { kind: NormalisationKind::None, place: Place::Before };
    let want = Recipe {
        name: "a".into(),
        seed: 0,
        data: Source::Digits {},
        scale: Scaling { input: Scale::None, target: Scale::None },
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
        optimizer: Optimizer::Sgd(Sgd { learning_rate: 0.1, weight_decay: 0.0, momentum: 0.0 }),
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
    let sgd = Sgd { learning_rate: 0.05, weight_decay: 0.0, momentum: 0.9 };
    assert_eq!(recipe.optimizer, Optimizer::Sgd(sgd));
    let scaling = Scaling { input: Scale::Standard, target: Scale::None };
    assert_eq!((recipe.data, recipe.scale), (Source::Digits {}, scaling));
    let Model::Mlp(mlp) = recipe.model else { panic!("not an mlp") };
    assert_eq!(mlp.normalisation.kind, NormalisationKind::Batch);
    assert_eq!((mlp.layer[0].index, mlp.layer[0].activation), (2, Some(Activation::Tanh)));
}

#[test]
fn each_optimizer_has_its_keys() {
    let adam =
        Adam { learning_rate: 1.0, weight_decay: 0.5, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let rmsprop = Rmsprop {
        learning_rate: 1.0,
        weight_decay: 0.5,
        alpha: 0.99,
        momentum: 0.0,
        epsilon: 1e-8,
    };
    let sgd = Sgd { learning_rate: 1.0, weight_decay: 0.5, momentum: 0.9 };
    for (name, keys, want) in [
        ("sgd", "momentum = 0.9", Optimizer::Sgd(sgd)),
        ("adam", "beta1 = 0.5", Optimizer::Adam(Adam { beta1: 0.5, ..adam })),
        (
            "adamw",
            "beta2 = 0.5, epsilon = 1e-4",
            Optimizer::Adamw(Adam { beta2: 0.5, epsilon: 1e-4, ..adam }),
        ),
        ("rmsprop", "momentum = 0", Optimizer::Rmsprop(rmsprop)),
    ] {
        let keys = format!("{keys}, learning_rate = 1, weight_decay = 0.5");
        let recipe = parse(&with(&format!("optimizer.{name} = {{ {keys} }}")), None);
        let got = recipe.map(|recipe| recipe.optimizer).unwrap();
        assert_eq!(got, want);
        assert_eq!((got.name(), got.learning_rate(), got.weight_decay()), (name, 1.0, 0.5));
    }
}

#[test]
fn each_source_has_its_keys_and_task() {
    use Loss::{CrossEntropy, MeanSquaredError};
    let cases = [
        ("digits = {}", Source::Digits {}, CrossEntropy),
        (
            r#"csv = { path = "t.csv", target = "y", task = "regression" }"#,
            Source::Csv {
                path: "t.csv".into(),
                target: "y".into(),
                task: Task::Regression,
                test_fraction: 0.2,
            },
            MeanSquaredError,
        ),
        (
            r#"idx = { images = "i", labels = "l", test_images = "ti", test_labels = "tl" }"#,
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
            r#"circles = { samples = 100, noise = 0.1, factor = 0.5 }"#,
            Source::Circles { samples: 100, noise: 0.1, factor: 0.5 },
            CrossEntropy,
        ),
        (
            r#"blobs = { samples = 100, centers = 3, features = 2, std = 1 }"#,
            Source::Blobs { samples: 100, centers: 3, features: 2, std: 1.0, image: None },
            CrossEntropy,
        ),
        (
            r#"polynomial = { samples = 1_000, coefficients = [1, -2.5], range = [-3, 3], noise = 0 }"#,
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
            r#"linear = { samples = 10, features = 20, noise = 0.5 }"#,
            Source::Linear { samples: 10, features: 20, noise: 0.5 },
            MeanSquaredError,
        ),
        (
            r#"adding = { samples = 10, length = 50 }"#,
            Source::Adding { samples: 10, length: 50 },
            MeanSquaredError,
        ),
        (
            r#"temporal-order = { samples = 10, length = 50 }"#,
            Source::TemporalOrder { samples: 10, length: 50 },
            CrossEntropy,
        ),
    ];
    for (keys, source, loss) in cases {
        let recipe = parse(&with(&format!("data.{keys}")), None).unwrap();
        assert_eq!((recipe.loss(), recipe.data), (loss, source));
    }
}

#[test]
fn each_model_has_its_keys() {
    let text = with(r#"model.conv = { channels = [8, 16], kernel = 3 }"#);
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

    let text = with(r#"data.adding = { samples = 10, length = 50 }"#).replace(
        "mlp = { depth = 3, width = 8",
        "rnn = { hidden = 5, spectral_radius = 1.5, init.uniform = { low = -2, gain = 3 }",
    );
    let want = Model::Rnn(Rnn {
        hidden: 5,
        cell: Cell::Plain,
        activation: Activation::Tanh,
        init: Init::Uniform { gain: 3.0, low: -2.0, high: 1.0 },
        spectral_radius: Some(1.5),
    });
    assert_eq!(parse(&text, None).map(|recipe| recipe.model), Ok(want));

    let text = with(r#"model.transformer = { depth = 2, width = 8, heads = 2 }"#);
    let want = Model::Transformer(Transformer {
        depth: 2,
        width: 8,
        heads: 2,
        activation: Activation::Gelu,
        init: Init::Xavier { gain: 1.0, distribution: Distribution::Normal },
        normalisation: Normalisation { kind: NormalisationKind::Layer, place: Place::Before },
    });
    assert_eq!(parse(&text, None).map(|recipe| recipe.model), Ok(want));
}

#[test]
fn a_model_of_sequences_needs_them() {
    let circles = with(r#"data.circles = { samples = 10, noise = 0, factor = 0.5 }"#);
    for model in ["rnn = { hidden = 3 }", "transformer = { depth = 1, width = 4, heads = 2 }"] {
        let text = circles.replace("mlp = { depth = 3, width = 8 }", model);
        let error = parse(&text, None).expect_err("circles are no sequences");
        assert!(error.message.contains("data that has no sequences or images"), "{error}");
        assert!(error.help.contains("[data.temporal-order]"), "{error}");
    }
}

#[test]
fn a_fault_has_its_keys() {
    let jump = |steps| Fault::RateJump { step: 7, factor: 30.0, steps };
    for (name, keys, fault) in [
        ("rate-jump", "factor = 30", jump(None)),
        ("rate-jump", "factor = 30, steps = 1", jump(Some(1))),
        ("rate-ramp", "factor = 1.01", Fault::RateRamp { step: 7, factor: 1.01 }),
        ("bad-batch", "factor = 1000", Fault::BadBatch { step: 7, factor: 1000.0 }),
    ] {
        let text = with(&format!("fault.{name} = {{ step = 7, {keys} }}"));
        assert_eq!(parse(&text, None).unwrap().fault, Some(fault), "{keys}");
    }
}

/// A text, and `LINE:COLUMN: PART OF THE MESSAGE; PART OF THE HELP` of its error.
fn check(cases: &[(&str, &str)]) {
    for (text, told) in cases {
        let Err(error) = parse(text, None) else { panic!("no error in\n{text}") };
        let (place, told) = told.split_once(": ").expect(told);
        let (message, help) = told.split_once("; ").unwrap_or((told, ""));
        assert_eq!(format!("{}:{}", error.line, error.column), place, "{error} in\n{text}");
        assert!(error.message.contains(message), "{error}, want {message} in\n{text}");
        assert!(error.help.contains(help), "{error}, want {help} in\n{text}");
        assert!(!help.is_empty() || error.help.is_empty(), "{error} in\n{text}");
    }
}

/// As [`check`], for pairs of lines: the last line of an else right recipe, which is line 5 or, for a
/// section that the short recipe lacks, line 6; then what is told, without the line.
fn check_lines(cases: &str) {
    let lines: Vec<&str> = cases.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for pair in lines.chunks(2) {
        let text = with(pair[0]);
        check(&[(&text, &format!("{}:{}", text.lines().count(), pair[1]))]);
    }
}

#[test]
fn unknown_keys_are_told_with_those_allowed() {
    check_lines(
        r#"
        speed = 1
        1: unknown key `speed` at the top level; allowed: name, seed, data
        modle = 1
        1: unknown key `modle` at the top level; did you mean `model`?
        model.mlp = { depth = 3, widht = 8 }
        26: unknown key `widht` in [model.mlp]; allowed: depth, width, activation, init, normalisation, residual, output_init, layer; did you mean `width`?
        model.mlp = { depth = 3, width = 8, hidden = 3 }
        37: unknown key `hidden` in [model.mlp]; it belongs to rnn; allowed: depth, width
        optimizer.sgd = { learning_rate = 0.1, beta1 = 0.9 }
        40: unknown key `beta1` in [optimizer.sgd]; it belongs to adam, adamw; allowed: learning_rate, weight_decay, momentum
        optimizer.adam = { lerning_rate = 0.1 }
        20: unknown key `lerning_rate` in [optimizer.adam]; did you mean `learning_rate`?
        data.digits = { samples = 3 }
        17: unknown key `samples` in [data.digits]; it belongs to circles, blobs, polynomial, linear, adding, temporal-order; allowed: nothing
        scale = { imput = "none" }
        11: unknown key `imput` in [scale]; allowed: input, target; did you mean `input`?
        model.mlp = { depth = 3, width = 8, init = { he = { low = 1 } } }
        53: unknown key `low` in [model.mlp.init.he]; it belongs to uniform; allowed: gain, distribution
        model.mlp = { depth = 3, width = 8, layer = [{ index = 1, gain = 2 }] }
        59: unknown key `gain` in [[model.mlp.layer]]; allowed: index, width, activation, init, normalisation
        model.mlp = { depth = 3, width = 8, normalisation = { kind = "batch", x = 1 } }
        71: unknown key `x` in [model.mlp.normalisation]; allowed: kind, place
        clip = { by = "value", limit = 1, norm = 2 }
        35: unknown key `norm`; by, limit
        "#,
    );
}

#[test]
fn the_form_of_before_is_told_how_to_write_it_now() {
    let old = "[optimizer]\nlearning_rate = 0.1\nkind = \"sgd\"";
    check(&[(&with(old), "7:8: got kind = \"sgd\" in [optimizer], want [optimizer.sgd]; in it")]);
    check_lines(
        r#"
        data = { source = 'csv', path = 'p' }
        19: got source = 'csv' in [data], want [data.csv]; scale_input and scale_target as [scale] input and target
        data.source = "digits"
        15: want [data.digits]; other keys
        model = { kind = "mpl" }
        18: want [model.mpl]; other keys
        model.mlp = { depth = 3, width = 8, init = { scheme = 'he', gain = 2 } }
        55: got scheme = 'he' in [model.mlp.init], want init = { he = {} }; other keys in it
        "#,
    );
}

#[test]
fn one_of_several_is_chosen_and_its_keys_stand_in_its_table() {
    check(&[
        (
            &with("[optimizer]\nlearning_rate = 0.1\n[optimizer.adam]"),
            "6:1: unknown key `learning_rate` in [optimizer]; it belongs to sgd, adam, adamw, rmsprop; allowed: sgd, adam, adamw, rmsprop",
        ),
        (
            &with("[model.mlp]\n[model.rnn]"),
            "5:2: got mlp and rnn in [model], want one of mlp, conv, rnn, transformer",
        ),
    ]);
}

#[test]
fn unknown_names_are_told_with_those_allowed() {
    check_lines(
        r#"
        model.mpl = { depth = 3, width = 8 }
        7: unknown key `mpl` in [model]; allowed: mlp, conv, rnn, transformer; did you mean `mlp`?
        model.mlp = { depth = 3, width = 8, activation = 'Relu' }
        50: unknown value 'Relu' for `activation` in [model.mlp]; did you mean `relu`?
        model.mlp = { depth = 3, width = 8, layer = [{ index = 0 }, { index = 1, activation = "swish" }] }
        87: unknown value "swish" for `activation` in [[model.mlp.layer]]; allowed: relu, tanh, sigmoid, gelu, selu, linear, exp
        model.mlp = { depth = 3, width = 8, init = { glorot = {} } }
        46: unknown key `glorot` in [model.mlp.init]; allowed: he, xavier, lecun, orthogonal, uniform, normal
        data.mnist = {}
        6: unknown key `mnist` in [data]; allowed: digits, csv, idx
        clip = { by = "global_norm", limit = 1 }
        15: unknown value "global_norm"; did you mean `global-norm`?
        "#,
    );
}

#[test]
fn wrong_types_and_ranges_are_told() {
    check_lines(
        r#"
        name = "a b"
        8: got "a b" for `name`, want 1 to 100 ASCII letters
        name = ""
        8: got "" for `name`
        name = 3
        8: got 3 for `name`, want a text; write texts in quotes
        seed = -1
        8: got -1 for `seed`, want a whole number from 0
        seed = 99999999999999999999
        8: want a whole number from 0
        model = 3
        9: want a table with one of mlp, conv, rnn, transformer
        model = 'mlp'
        9: want a table with one of mlp, conv, rnn, transformer; write [model.mlp]
        model = {}
        9: got nothing in [model], want one of mlp, conv, rnn, transformer
        model = { mlp = 3 }
        17: got 3 for `mlp` in [model], want a table with the keys depth, width, activation
        model.mlp = { depth = 3, width = 8, init = 'he' }
        44: got 'he' for `init` in [model.mlp], want a table with one of he, xavier; write init = { he = {} }
        model.mlp = { depth = 3, width = 8, activation = 3 }
        50: got 3 for `activation` in [model.mlp], want one of relu, tanh, sigmoid
        clip = 3
        8: got 3 for `clip`, want a table with the keys by, limit
        schedule = { warm_up = 1.5 }
        24: got 1.5 for `warm_up` in [schedule]
        schedule = { warm_up = 10.0 }
        24: want a whole number from 0 to 1000000000; without point
        model.mlp = { depth = 501, width = 8 }
        23: got 501 for `depth` in [model.mlp], want a whole number from 0 to 500
        model.mlp = { depth = 3, width = "8" }
        34: got "8" for `width` in [model.mlp], want a whole number from 1 to 8192; write numbers without quotes
        model.mlp = { depth = 3, width = 8, residual = "yes" }
        48: got "yes" for `residual` in [model.mlp], want true or false; without quotes
        model.mlp = { depth = 3, width = 8, init = { he = { gain = 0 } } }
        60: got 0 for `gain` in [model.mlp.init.he], want a number above 0
        model.mlp = { depth = 3, width = 8, layer = [{ index = 0 }, { index = -1 }] }
        71: got -1 for `index` in [[model.mlp.layer]]
        model.conv = { channels = [8, 0], kernel = 3 }
        31: got 0 for `channels[1]` in [model.conv], want a whole number from 1 to 8192
        model.conv = { channels = [], kernel = 3 }
        27: got [] for `channels` in [model.conv], want an array of at least one
        model.conv = { channels = [8], kernel = 4 }
        41: got 4 for `kernel` in [model.conv], want an odd whole number from 1 to 31
        optimizer.sgd = { learning_rate = 0 }
        35: got 0 for `learning_rate` in [optimizer.sgd], want a number above 0
        optimizer.sgd = { learning_rate = nan }
        35: got nan for `learning_rate` in [optimizer.sgd], want a number above 0; nan and inf are not allowed
        optimizer.sgd = { learning_rate = 1, momentum = 1.0 }
        49: got 1.0 for `momentum` in [optimizer.sgd], want a number from 0 to below 1
        optimizer.sgd = { learning_rate = 1, weight_decay = 1e999 }
        53: got 1e999 for `weight_decay` in [optimizer.sgd], want a number from 0
        data.polynomial = { samples = 10, coefficients = [1, inf], range = [0, 1], noise = 0 }
        54: got inf for `coefficients[1]` in [data.polynomial], want a finite number; nan and inf
        data.polynomial = { samples = 10, coefficients = [1], range = [0], noise = 0 }
        63: got [0] for `range` in [data.polynomial], want an array of length 2
        data.polynomial = { samples = 10, coefficients = [1], range = [0, 1, 2], noise = 0 }
        63: got [0, 1, 2] for `range` in [data.polynomial], want an array of length 2
        data.csv = { path = "", target = "y", task = "regression" }
        21: got "" for `path` in [data.csv], want a text that is not empty
        data.csv = { path = "p", target = "y", task = "regression", test_fraction = 1 }
        77: got 1 for `test_fraction` in [data.csv], want a number above 0 and below 1
        regularise = { l1 = -0.1 }
        21: got -0.1 for `l1` in [regularise]
        training = { batch = 0, epochs = 1 }
        22: got 0 for `batch` in [training]
        "#,
    );
}

#[test]
fn missing_keys_are_told_at_their_section() {
    let sections = "name = \"a\"\n[data.digits]\n  [model.mlp]\ndepth = 3\n";
    let layer = with("[[model.mlp.layer]]\nactivation = \"relu\"")
        + "\n[model.mlp]\ndepth = 3\nwidth = 8\n";
    check(&[
        ("", "1:1: missing key `name` at the top level; want a text"),
        (sections, "3:3: missing key `width` in [model.mlp]; want a whole number from 1 to 8192"),
        (&layer, "5:1: missing key `index` in [[model.mlp.layer]]; whole number from 0 to 499"),
        (
            &SHORT.replace("training", "# training"),
            "1:1: missing section [training]; want a table with the keys batch, epochs, loss",
        ),
        (
            &SHORT.replace("model.mlp =", "# model ="),
            "1:1: missing section [model]; want a table with one of mlp, conv, rnn, transformer",
        ),
    ]);
    check_lines(
        r#"
        clip = { limit = 1 }
        8: missing key `by` in [clip]; want one of global-norm
        model.conv = { kernel = 3 }
        14: missing key `channels` in [model.conv]; want an array
        optimizer.sgd = {}
        17: missing key `learning_rate` in [optimizer.sgd]; want a number above 0
        data.blobs = { samples = 10, centers = 2, std = 1 }
        14: missing key `features` in [data.blobs]; want a whole number from 1 to 65536
        "#,
    );
}

#[test]
fn values_at_odds_are_told() {
    let regression = with(
        r#"data.polynomial = { samples = 10, coefficients = [1], range = [0, 1], noise = 0 }"#,
    );
    check(&[(
        &regression.replace("epochs = 2", "epochs = 2, loss = \"cross-entropy\""),
        "4:44: with data that has no classes; mean-squared-error",
    )]);
    check_lines(
        r#"
        model.mlp = { depth = 3, width = 8, layer = [{ index = 3 }] }
        56: got 3 for `index` in [[model.mlp.layer]], want below depth = 3; count from 0
        model.mlp = { depth = 3, width = 8, layer = [{ index = 1 }, { index = 1 }] }
        71: a second time; into one [[model.mlp.layer]]
        model.mlp = { depth = 3, width = 8, init = { uniform = { low = 2 } } }
        56: got low = 2.0 and high = 1.0 in `init`, want low below high; without them
        model.rnn = { hidden = 3, cell = "gru", spectral_radius = 2 }
        59: a cell that has several recurrent matrices; cell = "plain"
        model.transformer = { depth = 1, width = 8, heads = 3 }
        53: got 3 for `heads` in [model.transformer], want a divisor of width = 8; the same share
        data.idx = { images = "i", labels = "l", test_labels = "t" }
        56: `test_labels` without `test_images`; add `test_images`
        data.blobs = { samples = 10, centers = 11, features = 2, std = 1 }
        40: got 11 for `centers` in [data.blobs], want at most samples = 10
        data.polynomial = { samples = 10, coefficients = [1], range = [1, 1], noise = 0 }
        63: got [1.0, 1.0] for `range`
        "#,
    );
    let conv = with(r#"data.circles = { samples = 10, noise = 0, factor = 0 }"#)
        .replace("mlp = { depth = 3, width = 8", "conv = { channels = [1], kernel = 1");
    check(&[(&conv, "2:14: data that has no images; [data.digits] or [data.idx]")]);
}

#[test]
fn broken_toml_is_told() {
    check(&[
        ("name = \n", "1:8: not TOML; `key = value`"),
        ("name = \"a\"\nname = \"b\"\n", "2:1: not TOML: duplicate key; `key = value`"),
        ("µ = \"a\nb = 1", "1:1: not TOML; `key = value`"),
    ]);
}

#[test]
fn line_ends_and_byte_order_mark_do_not_move_places() {
    let text = with("regularise = { l1 = -1 }");
    for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
        check(&[(&text, "6:21: got -1 for `l1` in [regularise]")]);
    }
}

/// Whatever is wrong with a text, the place told is in it, and editing it does not panic.
#[test]
fn damaged_recipes_are_told_within_the_text() {
    let whole =
        with("[[model.mlp.layer]]\nindex = 1 # µ\n[clip]\nby = \"value\"\nlimit = 1\n# end\n")
            + "[model.mlp]\ndepth = 3\nwidth = 8\ninit = { he = {} }\n";
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
    let text = with(r#"model.mlp = { depth = 3, widht = 8 }"#);
    let error = parse(&text, Some(Path::new("recipes/x.toml"))).unwrap_err();
    assert_eq!(&text[error.span.clone()], "widht");
    assert_eq!(
        error.to_string(),
        "recipes/x.toml:5:26: unknown key `widht` in [model.mlp]; allowed: depth, width, \
             activation, init, normalisation, residual, output_init, layer; did you mean `width`?"
    );
    assert!(parse(&text, None).unwrap_err().to_string().starts_with("5:26: unknown key"));
}

#[test]
fn files_are_read_and_their_paths_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    let elsewhere = folder.path().join("elsewhere");
    let idx = format!(
        r#"data.idx = {{ images = "i", labels = "sub/l", test_images = {elsewhere:?}, test_labels = "tl" }}"#
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
    assert_eq!(file.recipe.data, want);

    std::fs::write(&path, b"name = \"a\"\n# \xff\n").unwrap();
    let error = read(&path).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    assert_eq!(&*error.message, "got the byte 0xff, want UTF-8");

    let missing = folder.path().join("none.toml");
    let error = read(&missing).unwrap_err().to_string();
    let start = format!("{}: cannot read the recipe: ", missing.display());
    assert!(error.starts_with(&start), "{error}");
}
