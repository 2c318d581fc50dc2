//! Odd recipes: each value of each key replaced by what nobody would write. None panics, aborts or waits,
//! and each that is refused says where and what to do.

use std::fs;
use std::path::Path;

use tamegrad_lab::{preflight, recipe};

/// Recipes that together have every table, one key a line.
const BASES: [&str; 5] = [
    r#"
name = "a"
seed = 1
[data.circles]
samples = 20
noise = 0.1
factor = 0.5
[scale]
input = "standard"
[model.mlp]
depth = 2
width = 4
activation = "tanh"
init = { uniform = { low = -1.0, high = 1.0 } }
normalisation = { kind = "batch", place = "before" }
residual = true
[[model.mlp.layer]]
index = 1
width = 3
[optimizer.sgd]
learning_rate = 0.1
momentum = 0.9
weight_decay = 0.01
[schedule]
warm_up = 2
decay = "cosine"
[clip]
by = "global-norm"
limit = 1.0
[regularise]
l1 = 0.1
l2 = 0.1
[training]
batch = 8
epochs = 2
loss = "cross-entropy"
dtype = "f32"
"#,
    r#"
name = "a"
[data.blobs]
samples = 20
centers = 3
features = 16
std = 1.0
image = [1, 4, 4]
[model.conv]
channels = [2, 2]
kernel = 3
dense = [4]
init.he.gain = 1.0
[optimizer.adam]
learning_rate = 0.1
beta1 = 0.9
beta2 = 0.99
epsilon = 1e-8
[training]
batch = 8
epochs = 2
[fault.rate-jump]
step = 3
factor = 2.0
"#,
    r#"
name = "a"
[data.adding]
samples = 20
length = 6
[model.rnn]
hidden = 4
cell = "plain"
spectral_radius = 1.0
[optimizer.rmsprop]
learning_rate = 0.1
alpha = 0.9
momentum = 0.5
[training]
batch = 8
epochs = 2
"#,
    r#"
name = "a"
[data.temporal-order]
samples = 20
length = 12
[model.transformer]
depth = 1
width = 4
heads = 2
[optimizer.adamw]
learning_rate = 0.1
weight_decay = 0.01
[training]
batch = 8
epochs = 2
"#,
    r#"
name = "a"
[data.polynomial]
samples = 20
coefficients = [0.0, 1.0]
range = [-1.0, 1.0]
noise = 0.1
powers = 2
[scale]
target = "standard"
[model.mlp]
depth = 0
width = 4
output_init = { normal = { gain = 0.1 } }
[optimizer.sgd]
learning_rate = 0.1
[training]
batch = 8
epochs = 2
"#,
];

/// What is put in the place of a value.
fn odd_values() -> Vec<String> {
    let plain = [
        "0",
        "-1",
        "1",
        "1000000000",
        "1000000000000000000",
        "9223372036854775808",
        "nan",
        "inf",
        "-inf",
        "0.5",
        "1e300",
        "-1e-300",
        "\"\"",
        "\"\\u0000\\u001b[31m\"",
        "true",
        "[]",
        "{}",
        "[nan]",
        "[[[]]]",
        "1979-05-27",
        "{ a.b.c = 1 }",
    ];
    let mut values: Vec<String> = plain.map(str::to_owned).into();
    values.push(format!("\"{}\"", "x".repeat(100_000)));
    values.push(format!("[{}]", "1, ".repeat(10_000)));
    values.push(format!("{}1{}", "[".repeat(5000), "]".repeat(5000)));
    values.push(format!("{}1{}", "{ a = ".repeat(5000), " }".repeat(5000)));
    values
}

/// Every base with one line that is odd, missing or there twice.
fn odd_recipes() -> Vec<String> {
    let values = odd_values();
    let mut recipes = Vec::new();
    for base in BASES {
        let lines: Vec<&str> = base.trim().lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let with = |instead: &str| {
                let (before, after) = (lines[..at].join("\n"), lines[at + 1..].join("\n"));
                format!("{before}\n{instead}\n{after}\n")
            };
            recipes.extend([with(""), with(&format!("{line}\n{line}"))]);
            if let Some((key, _)) = line.split_once(" = ") {
                recipes.extend(values.iter().map(|value| with(&format!("{key} = {value}"))));
            }
        }
    }
    recipes
}

/// What is told of a recipe in a file; `None` where it runs.
fn told(path: &Path) -> Option<String> {
    match recipe::read(path) {
        Err(error) => {
            assert!(error.line > 0, "no place: {error}");
            Some(error.to_string())
        }
        Ok(file) => preflight(&file.recipe).err().map(|error| error.to_string()),
    }
}

#[test]
fn an_odd_recipe_runs_or_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("odd.toml");
    let recipes = odd_recipes();
    assert!(recipes.len() > 1000, "{}", recipes.len());
    let mut refused = 0;
    for text in &recipes {
        fs::write(&path, text).expect("a file");
        let Some(told) = told(&path) else { continue };
        refused += 1;
        let says_what_next = [" want ", "allowed", "hint: ", "not TOML", "write all that"];
        assert!(says_what_next.iter().any(|words| told.contains(words)), "{told}");
        assert!(told.len() < 1000 && !told.contains('\x1b'), "{}", &told[..told.len().min(2000)]);
    }
    assert!(refused > 500 && refused < recipes.len(), "{refused} of {}", recipes.len());
}

#[test]
fn a_recipe_that_is_no_text_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("odd.toml");
    for (bytes, want) in [
        (b"name = \"\xff\"".to_vec(), "want UTF-8"),
        (b"\xff\xfen\0a\0".to_vec(), "want UTF-8"),
        (b"name\0 = 1".to_vec(), "not TOML"),
        (b"\x1f\x8b\x08\x00".to_vec(), "want UTF-8"),
        (vec![b'['; 1 << 20], "not TOML"),
        (vec![b'\n'; 5 << 20], "a file of more than 4194304 bytes"),
    ] {
        fs::write(&path, bytes).expect("a file");
        let told = recipe::read(&path).expect_err(want).to_string();
        assert!(told.contains(want), "{told}");
    }
}
