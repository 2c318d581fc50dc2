//! Runs the binary as a user does: arguments in; exit code, screen and files out.

#[cfg(unix)]
#[path = "cli/faults.rs"]
mod faults;
#[cfg(unix)]
#[path = "cli/watch.rs"]
mod watch;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

/// A curve that a small network learns without an alarm; 120 steps.
const HEALTHY: &str = r#"name = "healthy-curve"
seed = 1

[data.polynomial]
samples = 200
coefficients = [0.0, 0.0, 1.0]
range = [-1.0, 1.0]
noise = 0.05

[model.mlp]
depth = 2
width = 16
activation = "tanh"
init.xavier = {}

[optimizer.sgd]
learning_rate = 0.05

[training]
batch = 32
epochs = 30
"#;

/// Clouds of points that a small network tells apart without an alarm.
const BLOBS: &str = r#"name = "healthy-blobs"
seed = 4
data.blobs = { samples = 200, centers = 3, features = 2, std = 1.0 }
model.mlp = { depth = 2, width = 16, activation = "relu", init.he = {} }
optimizer.adam = { learning_rate = 0.003 }
training = { batch = 32, epochs = 20 }
"#;

/// The user's own table with targets up to 300, by a path relative to the recipe's folder.
const OWN_TABLE: &str = r#"name = "own-table"
seed = 1
data.csv = { path = "table.csv", target = "y", task = "regression" }
model.mlp = { depth = 2, width = 50, activation = "relu", init.he = {} }
optimizer.sgd = { learning_rate = 0.05 }
training = { batch = 32, epochs = 60 }
"#;

const PAGE_HEADINGS: [&str; 6] =
    ["What it is", "Why it matters", "Rule", "Example", "Remedy", "Source"];

/// What a run of the binary left behind.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect(&self.stdout)
    }
}

/// Runs the binary in `folder`. Whatever it is asked, it never panics, and writes no escape
/// sequence to what is no terminal.
fn run(folder: &Path, args: &[&str]) -> Ran {
    let output = command(folder).args(args).output().expect("the binary starts");
    check(output.status.code(), &output.stdout, &output.stderr, args)
}

fn check(code: Option<i32>, stdout: &[u8], stderr: &[u8], args: &[&str]) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(!stdout.contains('\x1b'), "{args:?}: escape on stdout: {stdout:?}");
    assert!(!stderr.contains('\x1b'), "{args:?}: escape on stderr: {stderr:?}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    Ran { code: code.expect("an exit code, not a signal"), stdout, stderr }
}

fn command(folder: &Path) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_tamegrad"));
    command.current_dir(folder);
    for name in ["NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

/// A fresh folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file in it");
    }
    folder
}

/// A recipe of the repository, by its absolute path.
fn repository_recipe(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(path: PathBuf) -> Value {
    serde_json::from_str(&read(path)).expect("JSON")
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().expect("object").keys().map(|k| &**k).collect();
    keys.sort_unstable();
    keys
}

fn own_table() -> String {
    let rows = (0..400).map(|i| f64::from(i) / 200.0 - 1.0);
    let rows: Vec<String> = rows.map(|x| format!("{x},{}", 300.0 * x * x)).collect();
    format!("x,y\n{}\n", rows.join("\n"))
}

/// The documented schema of a diagnosis.
fn schema() -> Value {
    let path = format!("{}/../../docs/diagnosis.schema.json", env!("CARGO_MANIFEST_DIR"));
    read_json(path.into())
}

/// Holds a diagnosis to the documented schema.
fn check_schema(diagnosis: &Value) {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).expect("a JSON Schema");
    let errors: Vec<String> = validator
        .iter_errors(diagnosis)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(errors, Vec::<String>::new(), "{diagnosis:#}");
}

// train

#[test]
fn train_prints_the_promised_keys_and_the_guard_leaves_a_healthy_run_alone() {
    let folder = folder(&[("curve.toml", HEALTHY), ("blobs.toml", BLOBS)]);
    for recipe in ["curve.toml", "blobs.toml"] {
        let mut hashes = Vec::new();
        for guard in ["off", "observe", "protect"] {
            let ran = run(folder.path(), &["train", recipe, "--json", "--guard", guard]);
            assert_eq!(ran.code, 0, "{recipe} {guard}: {}", ran.stderr);
            let report = ran.json();
            check_schema(&report);
            assert_eq!(report["verdict"], "healthy", "{recipe} {guard}");
            assert_eq!(report["actions"], 0, "{recipe} {guard}");
            for key in ["onset_step", "origin", "decided_by"] {
                assert_eq!(report[key], Value::Null, "{recipe} {guard} {key}");
            }
            assert_eq!(report["causes"], serde_json::json!([]), "{recipe} {guard}");
            assert!(report["metric"].as_f64().expect("a number") > 0.5, "{recipe} {report}");
            hashes.push(report["weights_hash"].as_str().expect("text").to_owned());
        }
        let is_hash = hashes[0].len() == 32 && hashes[0].chars().all(|c| c.is_ascii_hexdigit());
        assert!(is_hash, "{hashes:?}");
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{recipe}: {hashes:?}");
    }
}

#[test]
fn the_weights_do_not_depend_on_the_number_of_threads() {
    const CONV: &str = "name = \"conv\"\nseed = 3\ndata.digits = {}\n\
        model.conv = { channels = [8], kernel = 3, dense = [64] }\n\
        optimizer.adam.learning_rate = 0.003\ntraining = { batch = 256, epochs = 2 }\n";
    let folder = folder(&[("curve.toml", HEALTHY), ("conv.toml", CONV)]);
    for recipe in ["curve.toml", "conv.toml"] {
        let hashes = ["1", "2", "2", "3"].map(|threads| {
            let mut command = command(folder.path());
            command.env("RAYON_NUM_THREADS", threads).args(["train", recipe, "--json"]);
            let output = command.output().expect("the binary starts");
            let ran = check(output.status.code(), &output.stdout, &output.stderr, &[recipe]);
            ran.json()["weights_hash"].as_str().expect("text").to_owned()
        });
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{recipe}: {hashes:?}");
    }
}

#[test]
fn the_seed_of_the_command_line_takes_the_place_of_the_recipes() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let hash = |seed: &[&str]| {
        let args = [&["train", "curve.toml", "--json"], seed].concat();
        run(folder.path(), &args).json()["weights_hash"].clone()
    };
    let as_given = hash(&[]);
    assert_eq!(as_given, hash(&["--seed", "1"]), "the recipe's own seed");
    assert_ne!(as_given, hash(&["--seed", "2"]));
    assert_eq!(read(folder.path().join("curve.toml")), HEALTHY, "the file stays as it is");
}

#[test]
fn an_exploding_run_exits_1_and_names_layer_and_cause() {
    let folder = folder(&[]);
    let recipe = repository_recipe("overflow-at-init.toml");
    let report = run(folder.path(), &["train", &recipe, "--json"]);
    assert_eq!(report.code, 1, "{}", report.stderr);
    let report = report.json();
    assert_eq!(report["verdict"], "exploded");
    assert_eq!(report["onset_step"], 0);
    check_schema(&report);
    assert_eq!(report["origin"]["name"], "layers.2");
    assert_eq!(report["causes"][0]["name"], "activation");

    let screen = run(folder.path(), &["train", &recipe]);
    assert_eq!(screen.code, 1);
    for words in ["EXPLODED", "layers.2", "(activation)", "Remedies, best first", "trained for"] {
        assert!(screen.stdout.contains(words), "no {words:?} in\n{}", screen.stdout);
    }
    assert_eq!(screen.stderr, "", "no progress bar where there is no terminal");
}

#[test]
fn train_writes_its_report_to_the_folder_of_out() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let ran = run(folder.path(), &["train", "curve.toml", "--json", "--out", "a/b"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(read(folder.path().join("a/b/report.json")), ran.stdout);
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn each_training_is_a_run_folder_that_diagnose_and_export_read() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let first = run(folder.path(), &["train", "curve.toml"]);
    assert!(first.stdout.ends_with("curve.toml -> runs/healthy-curve\n"), "{}", first.stdout);
    let off = ["train", "curve.toml", "--guard", "off"];
    let second = run(folder.path(), &off);
    assert!(second.stdout.ends_with("curve.toml -> runs/healthy-curve-2\n"), "{}", second.stdout);
    let out = [&off[..], &["--out", "runs/healthy-curve-2"]].concat();
    let third = run(folder.path(), &out);
    assert!(third.stdout.ends_with(" -> runs/healthy-curve-2-2\n"), "{}", third.stdout);
    let fourth = run(folder.path(), &[&out[..], &["--overwrite"]].concat());
    assert!(fourth.stdout.ends_with(" -> runs/healthy-curve-2\n"), "{}", fourth.stdout);

    let info = read_json(folder.path().join("runs/healthy-curve/run.json"));
    assert_eq!(info["recipe"], HEALTHY);
    assert_eq!(info["environment"]["guard"], "observe");
    let report = run(folder.path(), &["diagnose", "runs/healthy-curve", "--json"]).json();
    assert_eq!(
        (&report["format"], &report["verdict"]),
        (&"tamegrad run".into(), &"healthy".into())
    );
    let list = run(folder.path(), &["diagnose", "runs/healthy-curve", "--list"]).stdout;
    for name in ["loss", "metric", "lr", "grad_norm", "update_ratio", "grad_norm/layers.0"] {
        assert!(list.contains(name), "no {name} in\n{list}");
    }

    let ran = run(folder.path(), &["export", "runs/healthy-curve", "--out", "tables"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    assert_eq!(ran.stdout, "tables/steps.parquet\ntables/tensors.parquet\n");
    for name in ["steps", "tensors"] {
        let bytes = fs::read(folder.path().join(format!("tables/{name}.parquet"))).expect("a file");
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{name}");
    }
    let ran = run(folder.path(), &["export", "tables"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("run.json"), "{}", ran.stderr);
}

// fix

#[test]
fn fix_leaves_a_report_and_a_recipe_that_runs_by_itself_elsewhere() {
    let here = folder(&[]);
    let given = repository_recipe("exploding-regression.toml");
    let ran = run(here.path(), &["fix", &given, "--json", "--out", "result"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let result = here.path().join("result");
    assert_eq!(read(result.join("report.json")), ran.stdout, "the file is what --json prints");

    let report = ran.json();
    assert_eq!(keys(&report), ["chosen", "fixed", "given", "trials"]);
    check_schema(&report["given"]);
    assert_eq!(report["given"]["causes"][0]["name"], "unscaled-target");
    assert_eq!(report["given"]["signs"].as_array().expect("signs").len(), 6);
    let trials = report["trials"].as_array().expect("trials");
    let chosen = report["chosen"]["remedy"].as_str().expect("a remedy");
    let trial = trials.iter().find(|trial| trial["remedy"] == chosen).expect("it was tried");
    assert_eq!(trial["verdict"], "healthy");
    assert_eq!(report["fixed"]["verdict"], "healthy");
    let [before, after] =
        ["given", "fixed"].map(|run| report[run]["metric"].as_f64().expect("a number"));
    assert!(after > 0.9 && after > before, "{before} to {after}");

    let markdown = read(result.join("report.md"));
    for words in [chosen, "unscaled-target", "```diff"] {
        assert!(markdown.contains(words), "no {words:?} in\n{markdown}");
    }

    for (name, code, verdict) in [("given", 1, "dead"), ("fixed", 0, "healthy")] {
        let state = read_json(result.join(name).join("diagnosis.json"));
        assert_eq!(state["end"], "completed");
        let recorded = &state["diagnosis"];
        check_schema(recorded);
        assert_eq!(recorded["verdict"], verdict);
        let path = result.join(name).display().to_string();
        let ran = run(here.path(), &["diagnose", &path, "--json"]);
        let read = ran.json();
        check_schema(&read);
        assert_eq!((ran.code, &read["verdict"]), (code, &verdict.into()), "{name}");
        for key in ["origin", "causes", "signs", "remedies"] {
            assert_eq!(read[key], recorded[key], "{name}: what was recorded is what is read");
        }
    }

    let elsewhere = folder(&[]);
    let fixed = result.join("fixed.toml");
    let alone = run(elsewhere.path(), &["train", fixed.to_str().expect("UTF-8"), "--json"]).json();
    assert_eq!(alone["verdict"], "healthy");
    assert_eq!(alone["weights_hash"], report["fixed"]["weights_hash"]);
}

#[test]
fn fix_prints_the_difference_and_where_the_files_are() {
    let folder =
        folder(&[("given.toml", &read(repository_recipe("exploding-regression.toml").into()))]);
    let ran = run(folder.path(), &["fix", "given.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let result = Path::new("runs").join("exploding-regression");
    let fixed = read(folder.path().join(&result).join("fixed.toml"));
    let added: Vec<&str> = ran
        .stdout
        .lines()
        .skip_while(|line| *line != "+++ fixed.toml")
        .skip(1)
        .filter_map(|line| line.strip_prefix('+'))
        .collect();
    assert!(!added.is_empty(), "no difference in\n{}", ran.stdout);
    for line in added {
        assert!(fixed.lines().any(|l| l == line), "{line:?} is not in\n{fixed}");
    }
    for name in ["report.md", "report.json", "fixed.toml"] {
        let path = result.join(name);
        assert!(ran.stdout.contains(path.to_str().expect("UTF-8")), "{name}\n{}", ran.stdout);
        assert!(folder.path().join(path).is_file(), "{name}");
    }
}

#[test]
fn the_fixed_recipe_of_an_own_table_finds_the_table_from_its_new_folder() {
    let here = folder(&[("own.toml", OWN_TABLE), ("table.csv", &own_table())]);
    let ran = run(here.path(), &["fix", "own.toml", "--out", "deep/result", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    let fixed = here.path().join("deep/result/fixed.toml");
    let elsewhere = folder(&[]);
    let alone = run(elsewhere.path(), &["train", fixed.to_str().expect("UTF-8"), "--json"]);
    assert_eq!(alone.code, 0, "{}", alone.stderr);
    assert_eq!(alone.json()["verdict"], "healthy");
}

#[test]
fn fix_leaves_a_healthy_recipe_alone() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let ran = run(folder.path(), &["fix", "curve.toml", "--out", "result"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("Nothing to fix: the recipe is unchanged."), "{}", ran.stdout);
    assert!(!ran.stdout.contains("fixed.toml"), "{}", ran.stdout);
    let mut files: Vec<_> = fs::read_dir(folder.path().join("result"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["given", "lock", "report.json", "report.md", "search.json", "trials.jsonl"]);
    let report = read_json(folder.path().join("result/report.json"));
    assert_eq!(report["given"]["verdict"], "healthy");
    assert_eq!(report["trials"], Value::Array(vec![]));
    assert_eq!((&report["chosen"], &report["fixed"]), (&Value::Null, &Value::Null));
}

#[test]
fn fix_does_not_call_a_run_healthy_that_is_too_short_to_tell() {
    let folder = folder(&[("short.toml", &HEALTHY.replace("epochs = 30", "epochs = 1"))]);
    let ran = run(folder.path(), &["fix", "short.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("Too few steps to say"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("Nothing to fix"), "{}", ran.stdout);
}

// preflight

#[test]
fn preflight_names_the_layer_that_overflows() {
    let folder = folder(&[]);
    let recipe = repository_recipe("overflow-at-init.toml");
    let screen = run(folder.path(), &["preflight", &recipe]);
    assert_eq!(screen.code, 1, "{}", screen.stderr);
    assert!(screen.stdout.contains("Not ready"), "{}", screen.stdout);
    assert!(screen.stdout.contains("- will overflow at layers.2"), "{}", screen.stdout);

    let json = run(folder.path(), &["preflight", &recipe, "--json"]);
    assert_eq!(json.code, 1);
    let report = json.json();
    assert_eq!(report["overflow"], "output");
    assert_eq!(report["overflows_at"], "layers.2");
    assert_eq!(report["loss"], "NaN");
    check_schema(&report["diagnosis"]);
    assert_eq!(report["diagnosis"]["verdict"], "exploded");
    assert_eq!(report["diagnosis"]["origin"]["name"], "layers.2");
    assert_eq!(report["critical_multiple"], Value::Null, "there is no loss to raise");
    assert_eq!(report["backward_product"], Value::Null, "a product of no gain is not 1");
}

#[test]
fn preflight_passes_a_healthy_recipe() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let screen = run(folder.path(), &["preflight", "curve.toml"]);
    assert_eq!(screen.code, 0, "{}", screen.stderr);
    assert!(screen.stdout.starts_with("Ready"), "{}", screen.stdout);

    let report = run(folder.path(), &["preflight", "curve.toml", "--json"]).json();
    assert_eq!(report["warnings"], Value::Array(vec![]));
    let gains = report["gains"].as_array().expect("gains");
    for side in ["forward", "backward"] {
        let product: f64 = gains.iter().filter_map(|gain| gain[side].as_f64()).product();
        let told = report[format!("{side}_product")].as_f64().expect("a number");
        assert!((product - told).abs() < 1e-9 * told, "{side}: {product} is not {told}");
    }
    let layers = report["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), gains.len());
    let rms = |layer: &Value| layer["output_rms"].as_f64().expect("a number");
    for (pair, gain) in layers.windows(2).zip(&gains[1..]) {
        let gain = gain["forward"].as_f64().expect("a number");
        assert!((rms(&pair[1]) / rms(&pair[0]) - gain).abs() < 1e-9 * gain, "{report}");
    }
}

#[test]
fn preflight_tells_how_much_too_large_a_learning_rate_is() {
    let folder = folder(&[
        ("curve.toml", HEALTHY),
        ("fast.toml", &HEALTHY.replace("learning_rate = 0.05", "learning_rate = 50")),
    ]);
    let multiple = |recipe: &str| {
        let ran = run(folder.path(), &["preflight", recipe, "--json"]);
        ran.json()["critical_multiple"].as_f64()
    };
    // Of plain SGD the first update is proportional to the rate.
    let fast = multiple("fast.toml").expect("the first update raises the loss");
    let screen = run(folder.path(), &["preflight", "fast.toml"]);
    assert_eq!(screen.code, 1, "{}", screen.stderr);
    let warning = screen.stdout.lines().find(|line| line.contains("that lowers the loss"));
    let warning = warning.unwrap_or_else(|| panic!("{}", screen.stdout));
    let times: Vec<f64> = warning.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!((times[0] * fast - 1.0).abs() < 0.01, "{warning}, but {fast}");
    let slower = 50.0 * fast * 0.9;
    let slower = HEALTHY.replace("learning_rate = 0.05", &format!("learning_rate = {slower}"));
    fs::write(folder.path().join("slower.toml"), slower).expect("a file");
    let multiple = multiple("slower.toml").expect("a multiple above 1");
    assert!((multiple * 0.9 - 1.0).abs() < 0.05, "{multiple}");
}

#[test]
fn preflight_draws_a_picture_that_is_complete_in_itself() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let recipe = repository_recipe("overflow-at-init.toml");
    for (args, code) in [
        (["preflight", "curve.toml", "--svg", "chain.svg"], 0),
        (["preflight", &recipe, "--svg", "chain.svg"], 1),
    ] {
        let ran = run(folder.path(), &[&args[..], &["--quiet"]].concat());
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (code, "", ""));
        let picture = read(folder.path().join("chain.svg"));
        assert!(picture.starts_with("<svg xmlns") && picture.ends_with("</svg>\n"), "{picture}");
        assert!(picture.contains("before its first update</title>"), "{picture}");
        assert!(picture.contains("<polyline"), "{picture}");
        let named = if code == 0 { ">output</text>" } else { ">layers.2</text>" };
        assert!(picture.contains(named), "{picture}");
    }
    let lost = run(folder.path(), &["preflight", "curve.toml", "--svg", "no/such/folder.svg"]);
    assert_eq!((lost.code, &*lost.stdout), (2, ""));
    assert!(lost.stderr.contains("cannot write no/such/folder.svg"), "{}", lost.stderr);
    assert!(lost.stderr.contains("--svg"), "{}", lost.stderr);
}

// explain

#[test]
fn explain_lists_every_name_and_each_explains_itself() {
    let folder = folder(&[]);
    let list = run(folder.path(), &["explain"]);
    assert_eq!(list.code, 0, "{}", list.stderr);
    let listed: Vec<&str> = list
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    let known: Vec<&str> = tamegrad::explain::all().into_iter().map(|(_, doc)| doc.name).collect();
    assert_eq!(listed[0], "exploding-gradients");
    assert_eq!(listed[1..], known);

    for name in known {
        let page = run(folder.path(), &["explain", name]);
        assert_eq!(page.code, 0, "{name}: {}", page.stderr);
        assert!(page.stdout.lines().next().is_some_and(|line| line.contains(name)), "{name}");
        let headings: Vec<&str> =
            page.stdout.lines().filter(|line| PAGE_HEADINGS.contains(line)).collect();
        assert_eq!(headings, PAGE_HEADINGS, "{name}");
    }
}

#[test]
fn explain_computes_the_worked_example() {
    let folder = folder(&[]);
    for (args, product) in [
        (&["explain", "exploding-gradients"][..], "[100] × [400] = 40,000"),
        (&["explain", "exploding-gradients", "--factors", "2,3"], "2 × [3] = 6"),
        (&["explain", "--factors", "2,3"], "2 × [3] = 6"),
        (&["explain", "--factors", "1e308,1e308"], "= 1e616"),
    ] {
        let page = run(folder.path(), args);
        assert_eq!(page.code, 0, "{args:?}: {}", page.stderr);
        assert!(page.stdout.contains(product), "{args:?}: no {product:?} in\n{}", page.stdout);
    }
}

// diagnose, watch

/// A CSV log whose loss jumps at step 400 and stays away.
fn diverging_csv() -> String {
    let calm = (0..40).map(|i| (i, 2.0 + 0.05 * f64::from(i % 3)));
    let away = (40..60).map(|i| (i, 900.0 * f64::from(i - 39)));
    let rows: Vec<String> =
        calm.chain(away).map(|(i, loss)| format!("{},{loss}", 10 * i)).collect();
    format!("step,train_loss\n{}\n", rows.join("\n"))
}

/// JSON lines of a run that goes well.
/// A series that neither has the name of a loss nor behaves like one.
fn unknown_jsonl() -> String {
    (0..60).map(|i| format!("{{\"step\": {i}, \"speed\": {}}}\n", 100 + i % 3)).collect()
}

fn healthy_jsonl() -> String {
    let row = |i: i32| format!("{{\"step\": {i}, \"loss\": {}}}\n", 3.0 * 0.98_f64.powi(i));
    (0..60).map(row).collect()
}

#[test]
fn diagnose_reads_a_folder_of_formats() {
    let folder = folder(&[("a.csv", &diverging_csv()), ("b.jsonl", &healthy_jsonl())]);
    let ran = run(folder.path(), &["diagnose", "."]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("EXPLODING  ./a.csv (csv)\nWhen           step 400\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.ends_with("\nHEALTHY  ./b.jsonl (json-lines, 60 records)\n"),
        "{}",
        ran.stdout
    );

    let ran = run(folder.path(), &["diagnose", "--json", "a.csv", "b.jsonl"]);
    let objects: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of = |key: &str| objects.iter().map(|object| object[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("verdict"), ["exploding", "healthy"]);
    assert_eq!(of("onset_step"), [Value::from(400), Value::Null]);
    assert_eq!(of("path"), ["a.csv", "b.jsonl"]);
    objects.iter().for_each(check_schema);
    let keys: Vec<&String> = objects[0].as_object().expect("an object").keys().collect();
    for key in ["format", "missing", "notices", "onset_wall", "series"] {
        assert_eq!(keys.iter().filter(|of| **of == key).count(), 1, "{key} in {keys:?}");
    }

    let ran = run(folder.path(), &["diagnose", "--format", "github", "."]);
    assert!(ran.stdout.starts_with("::error file=./a.csv,title=tamegrad: exploding::"));
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    assert_eq!(run(folder.path(), &["diagnose", "b.jsonl"]).code, 0);
    let list = run(folder.path(), &["diagnose", "--list", "b.jsonl"]).stdout;
    let loss = list.lines().nth(1).expect(&list);
    assert!(loss.starts_with("  loss: 60 points, 3 at 0 to 0.91"), "{loss}");
}

#[test]
fn diagnose_says_what_it_cannot_read() {
    let odd = unknown_jsonl();
    let folder =
        folder(&[("prose.txt", "Nothing to see.\n"), ("odd.jsonl", &odd), ("empty.csv", "")]);
    for (args, told) in [
        (&["diagnose", "gone.csv"][..], "gone.csv"),
        (&["diagnose", "prose.txt"], "got text that begins with \"Nothing to see.\""),
        (&["diagnose", "empty.csv"], "got an empty file"),
        (&["diagnose", "odd.jsonl"], "name the loss with --map loss=NAME"),
        (
            &["diagnose", "--map", "loss=cost", "odd.jsonl"],
            "got `cost` for loss, want one of: speed",
        ),
    ] {
        let ran = run(folder.path(), args);
        assert_eq!(ran.code, 2, "{args:?}");
        assert!(ran.stderr.contains(told), "{args:?}: {}", ran.stderr);
    }
    let ran = run(folder.path(), &["diagnose", "--map", "loss=speed", "odd.jsonl"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// Follows a log that another thread writes: the alarm goes to the screen, to a command and to a
/// server on this machine.
#[cfg(unix)]
#[test]
fn watch_alarms_while_the_log_grows() {
    use std::io::{Read, Write};
    let folder = folder(&[]);
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", server.local_addr().expect("its address"));
    let hook = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("one request");
        let (mut request, mut buffer) = (String::new(), [0; 4096]);
        while !request.contains("since step") {
            let count = stream.read(&mut buffer).expect("the request");
            request.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("an answer");
        request
    });
    let log = folder.path().join("log.csv");
    let rows = diverging_csv();
    let writer = std::thread::spawn(move || {
        let (calm, away) = rows.split_at(rows.find("400,").expect("the jump"));
        fs::write(&log, calm).expect("the calm part");
        std::thread::sleep(std::time::Duration::from_millis(600));
        let mut file = fs::OpenOptions::new().append(true).open(&log).expect("the log");
        file.write_all(away.as_bytes()).expect("the rest");
    });
    let exec = "sh -c 'printf \"%s %s\" $TAMEGRAD_VERDICT $TAMEGRAD_ONSET_STEP > told'";
    let args = ["watch", "log.csv", "--idle", "3", "--webhook", &url, "--exec", exec];
    let ran = run(folder.path(), &args);
    writer.join().expect("the writer");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("EXPLODING  log.csv (csv)\n"), "{}", ran.stdout);
    assert_eq!(read(folder.path().join("told")), "exploding 400");
    let request = hook.join().expect("the server");
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("{\"text\":\"log.csv: exploding since step 400: "), "{request}");
}

// scan

/// A safetensors file with these tensors, one after the other.
fn safetensors(tensors: &[(&str, &str, &[u64], &[u8])]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let offsets = [start, data.len()];
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":{offsets:?}}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A folder with a sound checkpoint, one with NaN and Inf, one that is cut, and a pickle.
fn checkpoints() -> TempDir {
    let folder = folder(&[("pickled.pt", "PK\u{3}\u{4} and more")]);
    let sound =
        safetensors(&[("embed", "F32", &[2], &f32s(&[3.0, -4.0])), ("ids", "I8", &[2], &[1, 2])]);
    let bad = safetensors(&[
        ("sound", "F32", &[2], &f32s(&[0.0, 1.0])),
        ("layers.1", "F32", &[1, 2], &f32s(&[f32::NAN, 2.0])),
        ("layers.2", "BF16", &[2], &[0x80, 0x7f, 0x80, 0x3f]),
    ]);
    let cut = &bad[..bad.len() - 1];
    for (name, bytes) in [("sound", &sound[..]), ("bad", &bad), ("cut", cut)] {
        fs::write(folder.path().join(format!("{name}.safetensors")), bytes).expect("a file");
    }
    folder
}

#[test]
fn scan_passes_a_sound_checkpoint() {
    let ran = run(checkpoints().path(), &["scan", "sound.safetensors"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    assert_eq!(
        ran.stdout,
        "sound.safetensors: 1 tensor, all finite\n  \
           norm  max  NaN  Inf  zeros  headroom  dtype  shape  tensor\n  \
           5     4    0    0    0%     2^125     F32    2      embed\n\
         not scanned: 1 tensor of I8: ids\n"
    );
}

#[test]
fn scan_names_the_tensors_with_nan_and_inf() {
    let folder = checkpoints();
    let ran = run(folder.path(), &["scan", "bad.safetensors"]);
    assert_eq!((ran.code, &*ran.stderr), (1, ""));
    let broken: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with('!')).collect();
    assert_eq!(broken.len(), 2, "{}", ran.stdout);
    assert!(broken[0].ends_with("layers.1") && broken[1].ends_with("layers.2"), "{broken:?}");

    let json = run(folder.path(), &["scan", "--json", "bad.safetensors"]);
    assert_eq!((json.code, &*json.stderr), (1, ""));
    let report = json.json();
    assert_eq!(report["broken"], serde_json::json!(["layers.1", "layers.2"]));
    assert_eq!(
        keys(&report["tensors"][1]),
        [
            "dtype",
            "headroom_log2",
            "infs",
            "l2",
            "len",
            "max_abs",
            "mean",
            "name",
            "nans",
            "shape",
            "zeros"
        ]
    );
    assert_eq!(report["tensors"][1]["nans"], 1);
    assert_eq!(report["tensors"][1]["l2"], 2.0);
    assert_eq!(report["notices"], serde_json::json!([]));
}

#[test]
fn scan_goes_on_after_a_file_that_cannot_be_read() {
    let folder = checkpoints();
    for (first, said) in [
        ("pickled.pt", "pickled.pt at byte 0: got a zip archive, as torch.save writes it"),
        ("gone.safetensors", "gone.safetensors: "),
    ] {
        let ran = run(folder.path(), &["scan", first, "bad.safetensors"]);
        assert_eq!(ran.code, 2, "{first}");
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert!(ran.stdout.contains("bad.safetensors: 2 of 3 tensors hold NaN or Inf"));

        let json = run(folder.path(), &["scan", "--json", first, "bad.safetensors"]);
        let objects = serde_json::Deserializer::from_str(&json.stdout).into_iter::<Value>();
        let objects: Vec<Value> = objects.map(|object| object.expect("JSON")).collect();
        assert_eq!((json.code, objects.len()), (2, 2), "{first}");
        assert_eq!(
            (&objects[0]["path"], &objects[1]["path"]),
            (&first.into(), &"bad.safetensors".into())
        );
        assert_eq!(objects[0]["notices"].as_array().map(Vec::len), Some(1));
    }
    let ran = run(folder.path(), &["scan", "cut.safetensors"]);
    assert_eq!((ran.code, &*ran.stderr), (2, ""));
    assert!(ran.stdout.contains("not read: cut.safetensors at byte "), "{}", ran.stdout);
    assert!(ran.stdout.contains("1 of 2 tensors holds NaN or Inf"), "{}", ran.stdout);
}

#[test]
fn scan_reads_a_folder_and_keeps_quiet_when_asked() {
    let folder = checkpoints();
    fs::remove_file(folder.path().join("cut.safetensors")).expect("it is there");
    let ran = run(folder.path(), &["scan", "-q", "."]);
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (1, "", ""));
    let report = run(folder.path(), &["scan", "--json", "."]).json();
    let names: Vec<&str> = report["tensors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|t| t["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["sound", "layers.1", "layers.2", "embed"]);
}

// what cannot run

#[test]
fn what_cannot_run_exits_2_and_says_what_to_do() {
    let folder = folder(&[("curve.toml", HEALTHY), ("own.toml", OWN_TABLE), ("empty.toml", "")]);
    fs::write(folder.path().join("latin.toml"), b"name = \"caf\xe9\"").expect("a file");
    fs::create_dir(folder.path().join("folder.toml")).expect("a folder");
    for (args, words) in [
        (&["train", "absent.toml"][..], &["absent.toml", "cannot read", "check the path"][..]),
        (&["fix", "folder.toml"], &["folder.toml", "cannot read", "a recipe is a TOML file"]),
        (&["train", "latin.toml"], &["latin.toml:1:12", "want UTF-8"]),
        (&["train", "empty.toml"], &["empty.toml:1:1", "missing key `name`"]),
        (&["train", "own.toml"], &["table.csv", "hint: check `path`"]),
        (&["fix", "own.toml"], &["table.csv", "hint: check `path`"]),
        (&["preflight", "own.toml"], &["table.csv", "hint: check `path`"]),
        (&["fix", "curve.toml", "--out", "curve.toml"], &["cannot write curve.toml", "--out"]),
        (&["train", "curve.toml", "--out", "empty.toml"], &["cannot write empty.toml", "--out"]),
        (&["train", "curve.toml", "--seed", "-1"], &["-1 is not in 0.."]),
        (&["train", "curve.toml", "--seed", "18446744073709551615"], &["--seed"]),
        (&["train", "curve.toml", "--guard", "maybe"], &["off, observe, protect"]),
        (&["explain", "clipping"], &["`clipping`", "`tamegrad explain` lists them"]),
        (&["explain", "unscaled"], &["did you mean unscaled-input, unscaled-target?"]),
        (&["explain", "exploding"], &["did you mean exploding-gradients?"]),
        (&["explain", "data", "--factors", "2"], &["--factors with `data`", "exploding-gradients"]),
        (&["explain", "--factors", "2,0"], &["got the factor 0", "above 0"]),
        (&["explain", "--factors", "2,inf"], &["got the factor inf", "finite"]),
        (&["explain", "--factors", "2,x"], &["'x'", "--factors"]),
        (&["scan"], &["<FILE>...", "Usage"]),
        (&["tame"], &["'tame'"]),
        (&[], &["Usage: tamegrad <COMMAND>"]),
    ] {
        let ran = run(folder.path(), args);
        assert_eq!(ran.code, 2, "{args:?}: {}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{args:?}: no {word:?} in\n{}", ran.stderr);
        }
    }
}

#[test]
fn a_recipe_that_needs_more_memory_than_any_machine_has_is_refused_with_its_line() {
    let folder = folder(&[]);
    let digits = "[data.digits]\n";
    let long = "[data.adding]\nsamples = 10000\nlength = 10000\n";
    let wide = "[data.blobs]\nsamples = 16384\ncenters = 2\nfeatures = 65536\nstd = 1.0\nimage = \
                [1, 256, 256]\n";
    for (model, place, words) in [
        (format!("{digits}[model.mlp]\ndepth = 500\nwidth = 8192"), "6:9", "for the weights"),
        (
            format!("{digits}[model.conv]\nchannels = [8192, 8192]\nkernel = 31"),
            "5:19",
            "for the weights",
        ),
        (
            format!("{wide}[model.conv]\nchannels = [8192, 8192]\nkernel = 31"),
            "10:13",
            "for what a batch keeps",
        ),
        (format!("{long}[model.rnn]\nhidden = 8192\ncell = \"lstm\""), "5:10", "for what a batch"),
        (
            format!("{long}[model.transformer]\ndepth = 200\nwidth = 8192\nheads = 8192"),
            "5:10",
            "for what a batch keeps",
        ),
    ] {
        let text = format!(
            "name = \"large\"\noptimizer.adam.learning_rate = 0.1\n{model}\n[training]\nbatch = \
             1000\nepochs = 2\n"
        );
        fs::write(folder.path().join("large.toml"), &text).expect("a file");
        for command in ["train", "fix", "preflight"] {
            let ran = run(folder.path(), &[command, "large.toml"]);
            assert_eq!(ran.code, 2, "{text}\n{}", ran.stderr);
            let shown = ["got a run that needs about", words, "make this smaller"];
            for word in [&[&*format!("large.toml:{place}: ")][..], &shown].concat() {
                assert!(ran.stderr.contains(word), "{command}: no {word:?} in\n{}", ran.stderr);
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_neither_waited_for_nor_read_without_end() {
    let folder = folder(&[]);
    let path = |name: &str| folder.path().join(name);
    let pipe = std::process::Command::new("mkfifo").arg(path("pipe")).status().expect("mkfifo");
    assert!(pipe.success());
    for (odd, kind) in [("/dev/zero", "a device"), ("pipe", "a named pipe"), (".", "a directory")] {
        let table = OWN_TABLE.replace("table.csv", odd);
        let images = format!("{{ images = \"{odd}\", labels = \"{odd}\" }}");
        let images = BLOBS.replace(
            "data.blobs = { samples = 200, centers = 3, features = 2, std = 1.0 }",
            &format!("data.idx = {images}"),
        );
        fs::write(path("table.toml"), table).expect("a file");
        fs::write(path("images.toml"), images).expect("a file");
        for recipe in [odd, "table.toml", "images.toml"] {
            for command in ["train", "fix", "preflight"] {
                let ran = run(folder.path(), &[command, recipe]);
                assert_eq!(ran.code, 2, "{command} {recipe} of {odd}: {}", ran.stderr);
                let told = format!("{kind}, not a file");
                assert!(ran.stderr.contains(&told), "{command} {recipe}: {}", ran.stderr);
            }
        }
    }
}

#[test]
fn a_bad_recipe_is_shown_with_its_place_and_what_is_allowed() {
    let folder = folder(&[]);
    for (from, to, place, words) in [
        ("width = 16", "wdith = 16", "12:1", &["unknown key `wdith`", "did you mean `width`?"][..]),
        ("width = 16", "width = \"16\"", "12:9", &["got \"16\"", "a whole number from 1 to 8192"]),
        ("width = 16", "width = 0", "12:9", &["got 0", "a whole number from 1 to 8192"]),
        ("\"tanh\"", "\"tahn\"", "13:14", &["\"tahn\"", "relu", "did you mean `tanh`?"]),
        ("[optimizer.sgd]", "[optimizer.sdg]", "16:12", &["`sdg`", "sgd, adam, adamw, rmsprop"]),
        ("[optimizer.sgd]", "[optimizer]\nkind = \"sgd\"", "17:8", &["want [optimizer.sgd]"]),
        ("batch = 32", "batch =", "20:8", &["not TOML"]),
        ("learning_rate = 0.05", "learning_rate = nan", "17:17", &["got nan", "above 0"]),
        ("epochs = 30\n", "", "19:1", &["missing key `epochs`", "[training]"]),
        ("seed = 1", "seed = -1", "2:8", &["got -1", "`seed`"]),
    ] {
        let text = HEALTHY.replace(from, to);
        assert_ne!(text, HEALTHY, "{from}");
        fs::write(folder.path().join("bad.toml"), text).expect("a file");
        for command in ["train", "fix", "preflight"] {
            let ran = run(folder.path(), &[command, "bad.toml"]);
            assert_eq!((ran.code, &*ran.stdout), (2, ""), "{to}: {}", ran.stderr);
            let place = format!("bad.toml:{place}: ");
            for word in words.iter().chain(&[&*place]) {
                assert!(ran.stderr.contains(word), "{to}: no {word:?} in\n{}", ran.stderr);
            }
        }
    }
    assert!(!folder.path().join("runs").exists(), "nothing ran, so nothing was written");
}

#[test]
fn the_message_stays_on_one_line_for_what_reads_it() {
    let long = format!("{}.toml", "long-name-".repeat(15));
    let folder = folder(&[(&long, &HEALTHY.replace("width = 16", "width = 0"))]);
    let ran = run(folder.path(), &["train", &long]);
    let message = format!("{long}:12:9: got 0 for `width` in [model.mlp], want a whole number");
    assert!(ran.stderr.lines().any(|line| line.contains(&message)), "{}", ran.stderr);
}

#[test]
fn a_byte_order_mark_is_no_fault() {
    let marked = format!("\u{feff}{HEALTHY}");
    let folder = folder(&[("plain.toml", HEALTHY), ("marked.toml", &marked)]);
    for seed in [&[][..], &["--seed", "3"]] {
        let [plain, marked] = ["plain.toml", "marked.toml"].map(|recipe| {
            let ran = run(folder.path(), &[&["train", recipe, "--json"], seed].concat());
            assert_eq!(ran.code, 0, "{recipe}: {}", ran.stderr);
            ran.stdout
        });
        assert_eq!(plain, marked);
    }
}

// the screen

#[test]
fn quiet_leaves_the_screen_empty_and_the_exit_code_tells() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let bad = repository_recipe("overflow-at-init.toml");
    for (args, code) in [
        (["train", "curve.toml"], 0),
        (["fix", "curve.toml"], 0),
        (["preflight", "curve.toml"], 0),
        (["train", &bad], 1),
        (["preflight", &bad], 1),
    ] {
        for flag in ["--quiet", "-q"] {
            let ran = run(folder.path(), &[&args[..], &[flag]].concat());
            assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (code, "", ""), "{args:?} {flag}");
        }
    }
}

#[test]
fn help_names_every_option() {
    let folder = folder(&[]);
    let run_options = ["<RECIPE>", "--seed", "--json", "--quiet", "--help"];
    for (args, options) in [
        (
            &["--help"][..],
            &["fix", "train", "diagnose", "report", "watch", "scan", "explain", "Exit codes"][..],
        ),
        (&["fix", "--help"], &[&run_options[..], &["--out"]].concat()),
        (&["train", "--help"], &[&run_options[..], &["--out", "--guard", "protect"]].concat()),
        (&["preflight", "--help"], &[&run_options[..], &["--svg"]].concat()),
        (&["diagnose", "--help"], &["<PATH>...", "--map", "--list", "--json", "--format"]),
        (&["report", "--help"], &["<RUN>...", "--map", "--output", "--figures", "--overwrite"]),
        (&["watch", "--help"], &["<PATH>", "--webhook", "--exec", "--idle"]),
        (&["scan", "--help"], &["<FILE>...", "--all", "--json", "--quiet"]),
        (&["explain", "--help"], &["[NAME]", "--factors", "exploding-gradients"]),
    ] {
        let ran = run(folder.path(), args);
        assert_eq!(ran.code, 0, "{args:?}");
        for option in options {
            assert!(ran.stdout.contains(option), "{args:?}: no {option:?} in\n{}", ran.stdout);
        }
    }
}

/// util-linux's `script` gives the program a terminal; where it is missing, so is this test.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let line = format!("'{}' train curve.toml", env!("CARGO_BIN_EXE_tamegrad"));
    for (no_color, coloured) in [(None, true), (Some(""), true), (Some("1"), false)] {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).current_dir(folder.path());
        script.env("TERM", "xterm").env_remove("NO_COLOR");
        if let Some(value) = no_color {
            script.env("NO_COLOR", value);
        }
        let Ok(output) = script.output() else {
            eprintln!("not tested: `script` is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("HEALTHY"), "{text}");
        // The progress bar moves the cursor; colours are the sequences that end in `m`.
        assert_eq!(text.contains("\x1b[32mHEALTHY"), coloured, "NO_COLOR {no_color:?}: {text}");
        assert_eq!(text.contains("\x1b[1m"), coloured, "NO_COLOR {no_color:?}: {text}");
    }
}
