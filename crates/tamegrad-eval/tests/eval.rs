//! Runs the program as `cargo xtask eval` does.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

/// The exit code, and what was printed as JSON if it is.
fn run(folder: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::cargo_bin("tamegrad-eval").expect("the program is built");
    let output = command.args(args).current_dir(folder).output().expect("it starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn logs_are_scored_against_their_labels() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |id: &str, name: &str, text: &str| {
        fs::create_dir_all(folder.path().join(id)).expect("a folder");
        fs::write(folder.path().join(id).join(name), text).expect("a file");
    };
    let labels = "id\tlabel\tonset_step\tsource\na\tdiverged\t410\tmade\nb\thealthy\t\tmade\n\
                  c\tnan\t3\tmade\nd\tunknown\t\tmade\n";
    fs::write(folder.path().join("labels.tsv"), labels).expect("a file");
    let calm = (0..40).map(|i| (i, 2.0 + 0.05 * f64::from(i % 3)));
    let away = (40..60).map(|i| (i, 900.0 * f64::from(i - 39)));
    let diverging = calm.chain(away).map(|(i, loss)| format!("{},{loss}\n", 10 * i));
    put("a", "metrics.csv", &format!("step,train_loss\n{}", diverging.collect::<String>()));
    let healthy = |i: i32| format!("{{\"step\": {i}, \"loss\": {}}}\n", 3.0 * 0.98_f64.powi(i));
    for id in ["b", "c"] {
        put(id, "log.jsonl", &(0..60).map(healthy).collect::<String>());
    }
    put("d", "notes.txt", "Nothing to see.\n");

    let (code, report) = run(folder.path(), &["logs", "--json", "."]);
    assert_eq!(code, Some(0));
    let number = |key: &str| report[key].as_u64();
    let sums = ["runs", "read", "bad", "alarms_on_bad", "healthy", "alarms_on_healthy", "exact"];
    assert_eq!(sums.map(number), [4, 3, 2, 1, 1, 0, 2].map(Some));
    assert_eq!(number("onset_within_3"), Some(1));
    let misses = report["misses"].as_array().expect("a list");
    assert_eq!(misses.iter().map(|miss| &miss["id"]).collect::<Vec<_>>(), ["c", "d"]);
    assert_eq!(run(folder.path(), &["logs", "gone"]).0, Some(2));
}

#[cfg(feature = "train")]
#[test]
fn cases_that_are_left_are_run_and_all_are_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let only = |names: &[&'static str]| {
        let args = ["cases", "--quick", "--json", "--out", "out", "--only"];
        let (code, report) = run(folder.path(), &[&args[..], names].concat());
        assert_eq!(code, Some(0), "{report}");
        report
    };
    let report = only(&["published/ips-5"]);
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"));
    assert_eq!(["failing", "alarm_before_nonfinite", "vetoed", "faults"].map(number), [2; 4]);
    assert_eq!(["overflow", "healthy", "planted"].map(number), [0; 3]);
    assert_eq!(report["rivals"].as_array().map(Vec::len), Some(10), "{report}");
    assert!(report["rivals"][0]["name"].is_string() && report["misses"].is_array(), "{report}");
    for file in ["cases.csv", "cases.md"] {
        let text = fs::read_to_string(folder.path().join("out").join(file)).expect("a table");
        assert!(text.contains("published/ips-5"), "{text}");
    }
    // The second run finds the first's outcomes: more cases, and a line for each.
    let rows = || fs::read_to_string(folder.path().join("out/rows.jsonl")).expect("rows");
    let before = rows();
    assert_eq!(only(&["published/ips-5", "published/ips-"])["failing"], 6);
    assert!(rows().starts_with(&before) && rows().lines().count() == 7, "{}", rows());
    assert_eq!(run(folder.path(), &["cases", "--unheard-of"]).0, Some(2));
}

#[cfg(feature = "train")]
#[test]
fn a_loop_with_a_fault_is_diagnosed_and_trained_with_its_first_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let args = ["loops", "--json", "--quiet", "--seeds", "1", "--only", "mlp/rate", "conv/exp"];
    let (code, rows) = run(folder.path(), &args);
    assert_eq!(code, Some(0), "{rows}");
    let of = |row: usize, key: &str| rows[row][key].as_str().unwrap_or_default().to_owned();
    let remedy = |row| of(row, "remedy").split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    for (row, cause, first) in
        [(0, "learning-rate", "lower-learning-rate"), (1, "activation", "bounded-activation")]
    {
        assert_eq!((of(row, "cause"), remedy(row)), (cause.to_owned(), first.to_owned()));
        let explained = |key: &str| rows[row][key].as_f64().expect("a number");
        assert!(explained("explained") < 0.1 && explained("explained_with_remedy") > 0.5, "{rows}");
    }
}

/// What no rule was fitted on counts apart; these bounds are below what was measured.
#[test]
fn made_logs_are_judged_as_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, report) = run(folder.path(), &["logs", "--made", "--tenth", "--json"]);
    assert_eq!(code, Some(0));
    for (half, found, placed) in [("fitted", 0.98, 0.95), ("other", 0.85, 0.75)] {
        let count = |key: &str| report["by_half"][half][key].as_f64().expect("a number");
        assert!(count("shown") >= 250.0 && count("healthy") >= 100.0, "{half}: {report}");
        assert!(count("found") >= found * count("shown"), "{half}");
        assert!(count("placed") >= placed * count("shown"), "{half}");
        assert!(count("accused") <= 0.005 * count("healthy"), "{half}");
        assert_eq!(count("unread"), 0.0, "{half}");
    }
}
