//! `tamegrad report` as a user runs it: files in; exit code, screen and HTML out.

use std::fs;
use std::path::Path;

use tamegrad_runs::{Event, RunInfo, RunWriter, StepRow, TensorInfo, TensorRow};
use tempfile::TempDir;

/// What a run of the binary left behind.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(folder: &Path, args: &[&str]) -> Ran {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_tamegrad"));
    let output = command.current_dir(folder).arg("report").args(args).output();
    let output = output.expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    Ran { code: output.status.code().expect("an exit code"), stdout, stderr }
}

/// A folder with a log whose loss is NaN from step 150 on, and one of a healthy run.
fn logs() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let table = |breaks: u32| -> String {
        let row = |step: u32| match step {
            _ if step >= breaks => format!("{step},NaN,NaN,0.1\n"),
            _ => format!("{step},{},{},0.1\n", 2.0 - 0.005 * f64::from(step), 1 + step % 3),
        };
        "step,loss,grad_norm,lr\n".to_owned() + &(0..200).map(row).collect::<String>()
    };
    fs::write(folder.path().join("broken.csv"), table(150)).expect("a log");
    fs::write(folder.path().join("calm.csv"), table(999)).expect("a log");
    folder
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_log_becomes_a_page_and_figures() {
    let folder = logs();
    let ran = run(folder.path(), &["broken.csv", "--figures", "svg"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    let page = read(folder.path(), "broken-report.html");
    assert!(page.contains("The run ended with NaN or Inf after the alarm at step 150."), "{page}");
    assert!(ran.stdout.starts_with("broken-report.html ("), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("svg (3 figures)\n"), "{}", ran.stdout);
    let mut names: Vec<String> = fs::read_dir(folder.path().join("svg"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["gradient-norm.svg", "learning-rate.svg", "loss.svg"]);
}

#[test]
fn several_runs_are_compared_and_the_given_one_comes_first() {
    let folder = logs();
    for (name, of) in [("fixed", "calm.csv"), ("given", "broken.csv")] {
        fs::create_dir_all(folder.path().join("runs").join(name)).expect("a folder");
        let to = folder.path().join("runs").join(name).join("log.csv");
        fs::rename(folder.path().join(of), to).expect("a file to move");
    }
    let ran = run(folder.path(), &["runs", "--output", "both.html", "--figures", "svg", "--quiet"]);
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (0, "", ""));
    let page = read(folder.path(), "both.html");
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} in {page}"));
    assert!(place("given/log.csv") < place("fixed/log.csv"));
    assert!(place("2 runs compared") < place("ended with NaN or Inf after the alarm at step 150"));
    assert!(place("ended with NaN or Inf after the alarm at step 150") < place("No alarm ("));
    for name in ["compared-loss.svg", "1-loss.svg", "2-loss.svg"] {
        assert!(read(&folder.path().join("svg"), name).starts_with("<?xml"), "{name}");
    }
}

#[test]
fn only_former_reports_are_replaced_without_being_asked() {
    let folder = logs();
    let args = ["broken.csv", "--output", "r.html", "--figures", "svg"];
    assert_eq!(run(folder.path(), &args).code, 0);
    assert_eq!(run(folder.path(), &args).code, 0, "it takes the place of the former one");

    fs::write(folder.path().join("r.html"), "<p>my notes").expect("a file");
    let ran = run(folder.path(), &args);
    assert_eq!(ran.code, 2);
    let told = "error: r.html: already there, and not written by `tamegrad report`; hint: choose \
                another name with --output or --figures, or replace it with --overwrite\n";
    assert_eq!(ran.stderr, told);
    assert_eq!(read(folder.path(), "r.html"), "<p>my notes");
    fs::write(folder.path().join("svg/loss.svg"), "<svg/>").expect("a file");
    assert_eq!(run(folder.path(), &[&args[..], &["--overwrite"]].concat()).code, 0);
    assert!(read(folder.path(), "svg/loss.svg").contains("role=\"img\""));

    fs::create_dir(folder.path().join("taken")).expect("a folder");
    let ran = run(folder.path(), &["broken.csv", "--output", "taken", "--overwrite"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = logs();
    fs::write(folder.path().join("empty.csv"), "").expect("a file");
    for (args, code, told, is_written) in [
        (&["none.csv", "-o", "a.html"][..], 2, "error: nothing was written", false),
        (&["empty.csv", "-o", "b.html"], 2, "an empty file", false),
        (&["broken.csv", "empty.csv", "-o", "c.html"], 2, "an empty file", true),
        (&["broken.csv", "--map", "loss=lr", "-o", "d.html"], 0, "", true),
        (&["broken.csv", "--map", "loss=x", "-o", "e.html"], 2, "got `x` for loss", false),
        (&["broken.csv", "-o", "no/such/f.html"], 2, "no/such/f.html", false),
    ] {
        let ran = run(folder.path(), args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{args:?}: {}", ran.stderr);
        let output = args.last().expect("a file");
        assert_eq!(folder.path().join(output).exists(), is_written, "{args:?}");
    }
}

#[test]
fn a_run_folder_shows_its_tensors_and_what_the_guard_did() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mlp");
    let tensor = |name: &str| TensorInfo { name: name.into(), layer: None, len: 9 };
    let tensors = ["fc1.weight", "<b>fc2</b>.weight"].map(tensor).into();
    let mut writer =
        RunWriter::create(&path, &RunInfo { tensors, ..RunInfo::default() }).expect("a run folder");
    for step in 0..300 {
        let loss = Some(2.0 / (1.0 + step as f64));
        let row = StepRow { step, loss, gradient_norm: Some(1.0), ..StepRow::default() };
        writer.step(&row).expect("a step");
        let rows = [0, 1].map(|tensor| TensorRow { tensor, l2: 1.0, ..TensorRow::default() });
        writer.tensors(step, &rows).expect("tensors");
    }
    let data = serde_json::json!({
        "skip": true, "scale": false, "learning_rate": 0.5, "rewind": null, "stop": false,
    });
    let (kind, text) = ("action".to_owned(), "no update, learning rate times 0.5".to_owned());
    writer.event(&Event { step: 120, kind, text, data }).expect("an event");
    writer.finish().expect("an end");

    let ran = run(folder.path(), &["mlp"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    let page = read(folder.path(), "mlp-report.html");
    for wanted in [
        "Gradient norm by tensor",
        "&lt;b&gt;fc2&lt;/b&gt;.weight",
        "guard acted on 1 step, first on step 120: 1 skipped, 1 at a lower learning rate",
        "no update, learning rate times 0.5",
        "Layer gains were not measured",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(!page.contains("<b>fc2"), "names are escaped");
}
