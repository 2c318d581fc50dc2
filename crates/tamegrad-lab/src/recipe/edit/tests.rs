//! Edits as texts before and after.

use std::path::Path;

use super::EditValue::{Bool, Float, Integer, Remove, Text};
use super::{Edit, EditError, EditValue, absolute_paths, apply};
use crate::recipe::{ClipBy, Init, Model, Optimizer, Sgd, parse};

fn edit(key: &str, value: EditValue) -> Edit {
    Edit { key: key.into(), value }
}

fn text(value: &str) -> EditValue {
    Text(value.into())
}

/// Before, key and new value, after.
fn check(cases: &[(&str, &str, EditValue, &str)]) {
    for (before, key, value, after) in cases {
        let edited = apply(before, &[edit(key, value.clone())]);
        assert_eq!(edited.as_deref(), Ok(*after), "{key} = {value:?} in {before:?}");
    }
}

#[test]
fn values_change_in_place() {
    check(&[
        ("# a\nx = 1  # b\ny = 2\n", "x", Integer(3), "# a\nx = 3  # b\ny = 2\n"),
        ("[a]\nx = \"b\"\n", "a.x", text("c\"d"), "[a]\nx = 'c\"d'\n"),
        ("[a]\nx=true\n", "a.x", Bool(false), "[a]\nx=false\n"),
        ("a = { x = 1, y = 2 } # c\n", "a.x", Integer(3), "a = { x = 3, y = 2 } # c\n"),
        ("a.x = 1\n", "a.x", Integer(2), "a.x = 2\n"),
        ("[a]\nb.x = 1 # c\n", "a.b.x", Integer(2), "[a]\nb.x = 2 # c\n"),
        ("x = 1\r\n# c\r\ny = 2\r\n", "x", Integer(3), "x = 3\r\n# c\r\ny = 2\r\n"),
    ]);
}

#[test]
fn floats_are_short() {
    let cases = [
        (1.0, "x = 1.0\n"),
        (0.1, "x = 0.1\n"),
        (1e-8, "x = 1e-8\n"),
        (1e300, "x = 1e300\n"),
        (-2.5, "x = -2.5\n"),
        (0.30000000000000004, "x = 0.30000000000000004\n"),
    ];
    for (value, after) in cases {
        check(&[("x = 0\n", "x", Float(value), after)]);
    }
}

#[test]
fn missing_keys_and_tables_are_added() {
    check(&[
        ("[a]\nx = 1\n\n[b]\n", "a.y", Integer(2), "[a]\nx = 1\ny = 2\n\n[b]\n"),
        ("[a]\nx = 1\n", "c.y", Float(1.0), "[a]\nx = 1\n\n[c]\ny = 1.0\n"),
        ("[a]\nx = 1\n# c\n", "d.y", Integer(2), "[a]\nx = 1\n# c\n\n[d]\ny = 2\n"),
        ("[a]\nx = 1\n# c\n", "a.y", Integer(2), "[a]\nx = 1\ny = 2\n# c\n"),
        ("[a]\nx = 1\n", "a.b.y", Integer(2), "[a]\nx = 1\nb = { y = 2 }\n"),
        ("a = { x = 1 }\n", "a.y", Integer(2), "a = { x = 1, y = 2 }\n"),
        ("a = {x = 1}\n", "a.b.y", Integer(2), "a = {x = 1, b = { y = 2 }}\n"),
        ("a.x = 1\n", "a.y", Integer(2), "a.x = 1\na.y = 2\n"),
        ("# c\n[a]\n", "x", Integer(2), "x = 2\n# c\n[a]\n"),
        ("", "a.x", Integer(2), "[a]\nx = 2\n"),
    ]);
}

#[test]
fn layers_are_found_by_their_index() {
    let one = "[model.mlp]\ndepth = 9\n\n# planted\n[[model.mlp.layer]]\nindex = 3\n\n[b]\nx = 1\n";
    check(&[
        (
            one,
            "model.mlp.layer[3].init.gain",
            Float(2.0),
            "[model.mlp]\ndepth = 9\n\n# planted\n[[model.mlp.layer]]\nindex = 3\n\
             init = { gain = 2.0 }\n\n[b]\nx = 1\n",
        ),
        (
            one,
            "model.mlp.layer[5].activation",
            text("tanh"),
            "[model.mlp]\ndepth = 9\n\n# planted\n[[model.mlp.layer]]\nindex = 3\n\n\
             [[model.mlp.layer]]\nindex = 5\nactivation = \"tanh\"\n\n[b]\nx = 1\n",
        ),
        (one, "model.mlp.layer[3]", Remove, "[model.mlp]\ndepth = 9\n\n[b]\nx = 1\n"),
        (one, "model.mlp.layer", Remove, "[model.mlp]\ndepth = 9\n\n[b]\nx = 1\n"),
        (one, "model.mlp.layer[4]", Remove, one),
        (
            "[model.mlp]\nx = 1\n\n[b]\n",
            "model.mlp.layer[0].activation",
            text("exp"),
            "[model.mlp]\nx = 1\n\n[[model.mlp.layer]]\nindex = 0\nactivation = \"exp\"\n\n[b]\n",
        ),
        (
            "model.mlp = { layer = [{ index = 1 }] }\n",
            "model.mlp.layer[1].residual",
            Bool(true),
            "model.mlp = { layer = [{ index = 1, residual = true }] }\n",
        ),
        (
            "model.mlp = { layer = [{ index = 1 }] }\n",
            "model.mlp.layer[2].x",
            Integer(1),
            "model.mlp = { layer = [{ index = 1 }, { index = 2, x = 1 }] }\n",
        ),
        (
            "model.mlp.depth = 2\n",
            "model.mlp.layer[1].x",
            Integer(1),
            "model.mlp.depth = 2\nmodel.mlp.layer = [{ index = 1, x = 1 }]\n",
        ),
        (
            "model.mlp = { layer = [{ index = 1 }, { index = 2 }] }\n",
            "model.mlp.layer[2]",
            Remove,
            "model.mlp = { layer = [{ index = 1 }] }\n",
        ),
    ]);
}

#[test]
fn removed_keys_take_their_own_comments_only() {
    check(&[
        (
            "# file\n\n# of x\nx = 1 # too\n\n# of y\ny = 2\n",
            "x",
            Remove,
            "# file\n\n# of y\ny = 2\n",
        ),
        (
            "[a]\nx = 1\n\n# of c\n[c]\nby = 1\n\n# of limit\nlimit = 2\n\n# of d\n[d]\n",
            "c",
            Remove,
            "[a]\nx = 1\n\n# of d\n[d]\n",
        ),
        ("[a]\nx = 1\n\n[c]\ny = 2\n", "c", Remove, "[a]\nx = 1\n"),
        ("[a]\nx = 1\n\n[a.b]\ny = 2\n\n[c]\n", "a", Remove, "[c]\n"),
        ("[c]\ny = 2\n", "c", Remove, ""),
        ("a = { x = 1, y = 2 }\n", "a.y", Remove, "a = { x = 1 }\n"),
        ("a = { x = 1, y = 2 }\n", "a.x", Remove, "a = { y = 2 }\n"),
        ("a.x = 1\na.y = 2\n", "a.x", Remove, "a.y = 2\n"),
        ("a.x = 1\nb = 1\na.y = 2\n", "a", Remove, "b = 1\n"),
        ("[a]\nx = 1\ny = 2", "a.y", Remove, "[a]\nx = 1\n"),
        ("a = 1\n", "b.c", Remove, "a = 1\n"),
    ]);
}

#[test]
fn impossible_edits_are_errors() {
    let mismatch = |key: &str, part: &str, got, want| EditError::Mismatch {
        key: key.into(),
        part: part.into(),
        got,
        want,
    };
    let cases = [
        ("a = 1\n", "a.b", mismatch("a.b", "a", "a plain value", "a table")),
        ("[a]\n", "a", mismatch("a", "a", "a table", "a plain value")),
        ("a = [1]\n", "a.b", mismatch("a.b", "a", "an array", "a table")),
        ("a = 1\n", "a[0].b", mismatch("a[0].b", "a", "a plain value", "an array of tables")),
        ("", "a..b", EditError::Key("a..b".into())),
        ("", "a[x].b", EditError::Key("a[x].b".into())),
        ("", "", EditError::Key(String::new())),
    ];
    for (before, key, want) in cases {
        assert_eq!(apply(before, &[edit(key, Integer(1))]), Err(want), "{key} in {before:?}");
    }
    let message = apply("a = \n", &[edit("a", Integer(1))]).unwrap_err().to_string();
    assert!(message.starts_with("not TOML: "), "{message}");
    for value in [f64::NAN, f64::INFINITY] {
        let want = EditError::NotFinite { key: "a".into(), value: value.to_string() };
        assert_eq!(apply("", &[edit("a", Float(value))]), Err(want));
    }
}

#[test]
fn paths_become_absolute() {
    let folder = if cfg!(windows) { Path::new("C:\\r") } else { Path::new("/r") };
    let absolute = |name: &str| std::path::absolute(folder.join(name)).unwrap();
    let before = "[data.csv]\npath = \"t.csv\" # mine\n";
    let after = absolute_paths(before, folder);
    let data: toml::Table = after.parse().unwrap();
    assert_eq!(data["data"]["csv"]["path"].as_str(), absolute("t.csv").to_str());
    assert!(after.starts_with("[data.csv]\npath = "), "{after}");
    assert!(after.ends_with(" # mine\n"), "{after}");
    assert_eq!(absolute_paths(&after, Path::new("elsewhere")), after);
    for untouched in ["[data.digits]\n", "not toml", "x = 1\n"] {
        assert_eq!(absolute_paths(untouched, folder), untouched);
    }
}

/// Recipes that say the same in the three ways of TOML.
const LAYOUTS: [&str; 3] = [
    "name = \"a\"\n[data.digits]\n[model.mlp]\ndepth = 20\nwidth = 8\n[optimizer.sgd]\n\
     learning_rate = 1.0\n[training]\nbatch = 8\nepochs = 1\n# the end\n",
    "name = \"a\"\ndata = { digits = {} }\nmodel = { mlp = { depth = 20, width = 8 } }\n\
     optimizer = { sgd = { learning_rate = 1.0 } }\ntraining = { batch = 8, epochs = 1 }\n",
    "name = \"a\"\ndata.digits = {}\nmodel.mlp.depth = 20\nmodel.mlp.width = 8\n\
     optimizer.sgd.learning_rate = 1.0\ntraining.batch = 8\ntraining.epochs = 1\n",
];

/// Numbers that look random, the same at each run (Marsaglia 2003, xorshift).
fn scatter(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn what_is_set_is_what_is_read() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..300 {
        let before = LAYOUTS[round % LAYOUTS.len()];
        let mut number = || f64::from(scatter(&mut state) as u32 + 1) / 1e7;
        let (rate, limit, gain) = (number(), number(), number());
        let index = (scatter(&mut state) % 20) as usize;
        let mut edits = vec![
            edit("optimizer.sgd.learning_rate", Float(rate)),
            edit("clip.by", text("tensor-norm")),
            edit("clip.limit", Float(limit)),
            edit(&format!("model.mlp.layer[{index}].init.normal.gain"), Float(gain)),
            edit(&format!("model.mlp.layer[{index}].activation"), text("tanh")),
            edit("model.mlp.normalisation.kind", text("batch")),
            edit("schedule.warm_up", Integer(7)),
        ];
        let by = (scatter(&mut state) % edits.len() as u64) as usize;
        edits.rotate_left(by);
        let after = apply(before, &edits).unwrap();
        let recipe = parse(&after, None).unwrap_or_else(|error| panic!("{error}\n{after}"));
        let sgd = Sgd { learning_rate: rate, weight_decay: 0.0, momentum: 0.0 };
        assert_eq!(recipe.optimizer, Optimizer::Sgd(sgd));
        let clip = recipe.clip.unwrap();
        assert_eq!((clip.by, clip.limit), (ClipBy::TensorNorm, limit));
        let Model::Mlp(mlp) = recipe.model else { panic!("{after}") };
        let found: Vec<_> = mlp.layer.iter().map(|l| (l.index, l.init)).collect();
        assert_eq!(found, [(index, Some(Init::Normal { gain }))], "{after}");
        assert_eq!(recipe.schedule.warm_up, 7);

        let removals = ["clip", "model.mlp.layer", "model.mlp.normalisation", "schedule"];
        let mut back: Vec<Edit> = removals.iter().map(|key| edit(key, Remove)).collect();
        back.push(edit("optimizer.sgd.learning_rate", Float(1.0)));
        let restored = apply(&after, &back).unwrap();
        assert_eq!(parse(&restored, None), parse(before, None), "{restored}");
    }
}
