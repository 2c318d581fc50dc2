//! Input, output and terminals as they should not be.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use super::*;

/// Longer than any of these commands takes; one that waits for a pipe would never end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a line of shell in which `$TAMEGRAD` is the binary.
fn shell(folder: &Path, line: &str) -> Ran {
    let mut command = assert_cmd::Command::new("sh");
    command.args(["-c", line]).current_dir(folder).timeout(PATIENCE);
    let output = command.env("TAMEGRAD", env!("CARGO_BIN_EXE_tamegrad")).output().expect("sh");
    check(output.status.code(), &output.stdout, &output.stderr, &[line])
}

fn run_in_time(folder: &Path, args: &[&str]) -> Ran {
    let output = command(folder).args(args).timeout(PATIENCE).output().expect("the binary starts");
    check(output.status.code(), &output.stdout, &output.stderr, args)
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

// output that cannot be written

#[cfg(target_os = "linux")]
#[test]
fn an_error_that_nobody_can_read_is_still_exit_code_2() {
    let folder = folder(&[("curve.toml", "name = 1")]);
    for line in [
        "\"$TAMEGRAD\" diagnose gone.csv 2>/dev/full",
        "\"$TAMEGRAD\" diagnose gone.csv 2>&-",
        "\"$TAMEGRAD\" watch gone.csv --idle 0 2>/dev/full",
        "\"$TAMEGRAD\" scan gone.safetensors 2>/dev/full",
        "\"$TAMEGRAD\" export gone 2>/dev/full",
        "\"$TAMEGRAD\" train curve.toml 2>/dev/full",
        "\"$TAMEGRAD\" explain nothing 2>/dev/full",
        "\"$TAMEGRAD\" --no-such-option 2>/dev/full",
    ] {
        let ran = shell(folder.path(), line);
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (2, "", ""), "{line}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_that_cannot_be_written_is_exit_code_2_and_said() {
    let folder = checkpoints();
    fs::write(folder.path().join("log.jsonl"), healthy_jsonl()).expect("a log");
    fs::write(folder.path().join("bad.csv"), diverging_csv()).expect("a log");
    for args in [
        "diagnose log.jsonl",
        "diagnose --json log.jsonl",
        "diagnose --list log.jsonl",
        "diagnose bad.csv",
        "watch --idle 0 bad.csv",
        "scan sound.safetensors",
        "scan --json sound.safetensors",
        "explain",
        "--help",
        "--version",
    ] {
        let ran = shell(folder.path(), &format!("\"$TAMEGRAD\" {args} >/dev/full"));
        assert_eq!(ran.code, 2, "{args}: {}", ran.stderr);
        let said = "error: cannot write to the standard output: No space left on device";
        assert_eq!(ran.stderr.matches(said).count(), 1, "{args}: {}", ran.stderr);
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let folder = folder(&[("log.jsonl", &healthy_jsonl())]);
    for args in ["explain", "diagnose log.jsonl", "--help"] {
        let line = format!("( sleep 0.1; \"$TAMEGRAD\" {args}; echo $? > code ) | true; cat code");
        let ran = shell(folder.path(), &line);
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (0, "0\n", ""), "{args}");
    }
}

/// util-linux's `script` gives the program a terminal; where it is missing, so is this test.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_of_any_width_will_do() {
    let folder = checkpoints();
    fs::write(folder.path().join("bad.csv"), diverging_csv()).expect("a log");
    fs::create_dir(folder.path().join("many")).expect("a folder");
    for number in 0..6 {
        let path = folder.path().join(format!("many/{number}.jsonl"));
        fs::write(path, healthy_jsonl()).expect("a log");
    }
    fs::write(folder.path().join("bad.toml"), HEALTHY.replace("width = 16", "width = 0"))
        .expect("a recipe");
    for columns in [0, 1, 2, 3, 5, 8, 13, 20] {
        let lines = [
            ("diagnose bad.csv", 1),
            ("diagnose many", 0),
            ("scan bad.safetensors", 1),
            ("explain exploding-gradients", 0),
            ("train bad.toml", 2),
            ("diagnose --help", 0),
            ("diagnose --no-such-option", 2),
        ];
        for (args, code) in lines {
            let bin = env!("CARGO_BIN_EXE_tamegrad");
            let line = format!("stty cols {columns}; COLUMNS={columns} '{bin}' {args}");
            let mut script = assert_cmd::Command::new("script");
            script.args(["-qec", &line, "/dev/null"]).current_dir(folder.path());
            let Ok(output) = script.env("TERM", "xterm").timeout(PATIENCE).output() else {
                eprintln!("not tested: `script` is not installed");
                return;
            };
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(code), "{columns} {args}: {text}");
            assert!(!text.contains("panicked"), "{columns} {args}: {text}");
        }
    }
}

// what is no file

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = folder(&[]);
    make_pipe(&folder.path().join("pipe"));
    make_pipe(&folder.path().join("pipe.safetensors"));
    make_pipe(&folder.path().join("a.safetensors.index.json"));
    let _socket = UnixListener::bind(folder.path().join("socket")).expect("a socket");
    for (args, said) in [
        (&["diagnose", "pipe"][..], "pipe: got a pipe, want a file or a folder"),
        (&["diagnose", "socket"], "socket: got a socket, want a file or a folder"),
        (&["diagnose", "/dev/zero"], "/dev/zero: got a device, want a file or a folder"),
        (&["watch", "pipe"], "pipe: got a pipe, want a file or a folder"),
        (&["watch", "/dev/zero"], "/dev/zero: got a device, want a file or a folder"),
        (&["scan", "pipe"], "pipe: got a pipe, want a file"),
        (&["scan", "pipe.safetensors"], "pipe.safetensors: got a pipe, want a file"),
        (&["scan", "a.safetensors.index.json"], "index.json: got a pipe, want a file"),
        (&["scan", "/dev/zero"], "/dev/zero: got a device, want a file"),
    ] {
        let ran = run_in_time(folder.path(), args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn the_standard_input_is_read_to_its_end() {
    let folder = folder(&[]);
    let lines = "printf 'step 1 loss 2.5\\nstep 2 loss 2.25\\nstep 3 loss nan\\n'";
    for (command, code, said) in [
        (format!("{lines} | \"$TAMEGRAD\" diagnose -"), 1, "EXPLODED  standard input (text)"),
        (format!("{lines} | \"$TAMEGRAD\" diagnose /dev/stdin"), 1, "EXPLODED  /dev/stdin (text)"),
        (
            format!("{lines} | gzip | \"$TAMEGRAD\" diagnose -"),
            1,
            "EXPLODED  standard input (text)",
        ),
        (": | \"$TAMEGRAD\" diagnose -".to_owned(), 2, "standard input: got an empty file"),
    ] {
        let ran = shell(folder.path(), &command);
        assert_eq!(ran.code, code, "{command}: {}", ran.stderr);
        assert!(
            format!("{}{}", ran.stdout, ran.stderr).contains(said),
            "{command}: {}",
            ran.stdout
        );
    }
}

#[test]
fn what_is_no_file_in_a_folder_is_passed_over() {
    let folder = folder(&[("log.jsonl", &healthy_jsonl())]);
    let run = folder.path().join("mlruns/0/a");
    fs::create_dir_all(run.join("metrics")).expect("a folder");
    make_pipe(&run.join("meta.yaml"));
    make_pipe(&run.join("metrics/loss"));
    fs::create_dir_all(folder.path().join("train/epoch-1")).expect("a folder");
    make_pipe(&folder.path().join("train/epoch-1/Loss.log"));
    make_pipe(&folder.path().join("pipe.csv"));
    let _socket = UnixListener::bind(folder.path().join("socket.log")).expect("a socket");
    let ran = run_in_time(folder.path(), &["diagnose", "."]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    assert!(ran.stdout.starts_with("HEALTHY  ./log.jsonl"), "{}", ran.stdout);
}

#[test]
fn links_that_lead_in_a_circle_are_not_followed() {
    let folder = folder(&[("bad.csv", &diverging_csv())]);
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    for name in ["a", "b", "c"] {
        symlink(folder.path(), inner.join(name)).expect("a link");
        symlink(&inner, inner.join(name.repeat(2))).expect("a link");
    }
    symlink(inner.join("itself"), inner.join("itself")).expect("a link");
    // A run that is a folder has links in it as well.
    let run = folder.path().join("mlruns/0/a");
    fs::create_dir_all(run.join("metrics")).expect("a folder");
    fs::write(run.join("meta.yaml"), "run_id: a\n").expect("a file");
    fs::write(run.join("metrics/loss"), "1 2.5 0\n2 2.25 1\n").expect("a file");
    for name in ["a", "b", "c"] {
        symlink(&run, run.join(name)).expect("a link");
        symlink(&run, run.join("metrics").join(name)).expect("a link");
    }
    for command in [&["diagnose", "."][..], &["watch", ".", "--idle", "0"]] {
        let ran = run_in_time(folder.path(), command);
        assert_eq!(ran.code, 1, "{command:?}: {}", ran.stderr);
        assert_eq!(ran.stdout.matches("EXPLODING").count(), 1, "{command:?}: {}", ran.stdout);
        assert!(!ran.stderr.contains("error"), "{}", ran.stderr);
    }
    let ran = run_in_time(folder.path(), &["watch", "inner/itself", "--idle", "0"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("inner/itself: cannot be read yet ("), "{}", ran.stderr);
}

// names

/// Sets the title, clears the screen, forges a line, deletes, and turns the text around.
const NAME: &str = "a\x1b]0;x\x07\x1b[2J\nHEALTHY  b\x7f\u{9b}2J\u{202e}\u{2066}c";
const SHOWN: &str = r"a\u{1b}]0;x\u{7}\u{1b}[2J\u{a}HEALTHY  b\u{7f}\u{9b}2J\u{202e}\u{2066}c";

/// Whether nothing but lines of printable characters is there.
fn assert_plain(text: &str, of: &[&str]) {
    let is_bad = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}".contains(c));
    assert_eq!(text.find(is_bad), None, "{of:?}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("HEALTHY  b")), "{of:?}: {text}");
}

#[test]
fn names_of_files_and_series_cannot_command_the_terminal() {
    let folder = folder(&[]);
    let (log, empty) = (format!("{NAME}.csv"), format!("{NAME}.txt"));
    let tensor = NAME.replace('\n', "\r");
    let rows: String = (0..60)
        .map(|i| {
            let norm = if i < 40 { 1.0 + 0.05 * f64::from(i % 3) } else { 1e4 * f64::from(i - 39) };
            format!("{i},{},{norm}\n", 2.0 * norm)
        })
        .collect();
    let header = format!("step,loss,grad_norm/{tensor}\n");
    fs::write(folder.path().join(&log), header + &rows).expect("a log");
    fs::write(folder.path().join(&empty), "").expect("a file");
    fs::write(folder.path().join(format!("{NAME}.safetensors")), safetensors(&[])).expect("a file");
    let checkpoint = format!("{NAME}.safetensors");
    for (args, shown) in [
        (&["diagnose", &log][..], true),
        (&["diagnose", "."], true),
        (&["diagnose", "--list", &log], true),
        (&["diagnose", "--format", "github", &log], true),
        (&["diagnose", "--json", &log], false),
        (&["diagnose", &empty], true),
        (&["diagnose", "--map", &format!("loss={NAME}"), &log], false),
        (&["diagnose", &format!("--{NAME}")], true),
        (&["watch", &log, "--idle", "0"], true),
        (&["watch", &empty, "--idle", "0"], true),
        (&["watch", "--json", &log, "--idle", "0"], false),
        (&["scan", &checkpoint], true),
        (&["scan", "--json", &checkpoint], false),
        (&["scan", &empty], true),
        (&["export", &log], true),
        (&["explain", NAME], true),
        (&["train", &empty], false),
        (&["train", &format!("{NAME}.toml")], false),
    ] {
        let ran = run_in_time(folder.path(), args);
        let text = ran.stdout + &ran.stderr;
        assert_plain(&text, args);
        assert!(!shown || text.contains(SHOWN) || text.contains(&SHOWN[..30]), "{args:?}: {text}");
    }
    let ran = run_in_time(folder.path(), &["diagnose", "--json", &log]);
    assert_eq!(ran.json()["path"], *log, "JSON keeps the name");
}

#[test]
fn a_program_gets_names_that_cannot_command_the_terminal() {
    let folder = folder(&[]);
    let log = format!("{NAME}.csv");
    fs::write(folder.path().join(&log), diverging_csv()).expect("a log");
    let exec = "sh -c 'printf \"%s\\n%s\\n\" \"$TAMEGRAD_PATH\" \"$TAMEGRAD_TEXT\" > told'";
    let ran = run_in_time(folder.path(), &["watch", &log, "--idle", "0", "--exec", exec]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let told = read(folder.path().join("told"));
    assert_plain(&told, &["--exec"]);
    assert_eq!(told.matches(SHOWN).count(), 2, "{told}");
}

#[test]
fn a_recipe_cannot_command_the_terminal() {
    let text = HEALTHY.replace("width = 16", "width = \"\u{202e}\x7f\u{9b}2J\x1b]0;x\x07\"");
    let named = HEALTHY.replace("healthy-curve", r"a\u001b]0;x\u0007\u009b\u202e");
    let folder = folder(&[("bad.toml", &text), ("named.toml", &named)]);
    for args in [&["train", "bad.toml"][..], &["train", "named.toml"], &["fix", "named.toml"]] {
        let ran = run_in_time(folder.path(), args);
        assert_plain(&(ran.stdout + &ran.stderr), args);
    }
}

// logs

#[test]
fn a_first_line_of_any_length_is_read() {
    let names: Vec<String> = (0..4000).map(|i| format!("metrics/of/a/long/name/{i}")).collect();
    let zeros = ",0".repeat(names.len());
    let rows: String =
        (0..60).map(|i| format!("{i},{}{zeros}\n", 3.0 - 0.01 * f64::from(i))).collect();
    let csv = format!("step,loss,{}\n{rows}", names.join(","));
    let text = "x".repeat(100_000);
    let row = |i: i32| {
        format!(
            "{{\"config\": \"{text}\", \"step\": {i}, \"loss\": {}}}\n",
            3.0 - 0.01 * f64::from(i)
        )
    };
    let lines: String = (0..60).map(row).collect();
    let log: String =
        (0..60).map(|i| format!("step {i}: loss {}\n", 3.0 - 0.01 * f64::from(i))).collect();
    let folder =
        folder(&[("a.csv", &csv), ("b.jsonl", &lines), ("c.log", &format!("{text}\n{log}"))]);
    let ran = run_in_time(folder.path(), &["diagnose", "."]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    let healthy = ran.stdout.lines().filter(|line| line.starts_with("HEALTHY")).count();
    assert_eq!(healthy, 3, "{}", ran.stdout);
}

/// Bytes as a bad disk may leave them, the same ones each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn a_log_that_is_mostly_damaged_is_not_healthy() {
    let row = |i: i32| format!("{i},{}\n", 3.0 * 0.9999_f64.powi(i));
    let csv = "step,loss\n".to_owned() + &(0..20_000).map(row).collect::<String>();
    let jsonl: String = (0..20_000)
        .map(|i| format!("{{\"step\": {i}, \"loss\": {}}}\n", 3.0 * 0.9999_f64.powi(i)))
        .collect();
    let log: String =
        (0..20_000).map(|i| format!("step {i}: loss {}\n", 3.0 * 0.9999_f64.powi(i))).collect();
    for (name, text) in [("a.csv", csv), ("a.jsonl", jsonl), ("a.log", log)] {
        for filling in [noise(text.len()), vec![0; text.len()], vec![0xff; text.len()]] {
            let mut bytes = text.clone().into_bytes();
            // Behind the start, by which a format is recognised.
            let from = 70_000;
            let to = bytes.len() - 2000;
            bytes[from..to].copy_from_slice(&filling[from..to]);
            let folder = folder(&[]);
            fs::write(folder.path().join(name), bytes).expect("a log");
            let ran = run_in_time(folder.path(), &["diagnose", name]);
            assert_eq!(ran.code, 2, "{name}: {}{}", ran.stdout, ran.stderr);
            assert!(ran.stdout.starts_with("PARTLY READ, "), "{name}: {}", ran.stdout);
            let json = run_in_time(folder.path(), &["diagnose", "--json", name]);
            assert_eq!((json.code, &json.json()["partly_read"]), (2, &true.into()), "{name}");
            let share = json.json()["left_out"].as_f64().expect("a number");
            assert!((0.5..1.0).contains(&share), "{name}: {share}");
            let quiet = run_in_time(folder.path(), &["diagnose", "--quiet", name]);
            assert_eq!((quiet.code, &*quiet.stdout), (2, ""), "{name}");
            assert_eq!(quiet.stderr, format!("error: {name}: partly read\n"));
            let watched = run_in_time(folder.path(), &["watch", "--idle", "0", name]);
            assert_eq!(watched.code, 2, "{name}: {}", watched.stderr);
            assert!(watched.stderr.contains("PARTLY READ, "), "{name}: {}", watched.stderr);
        }
    }
}

#[test]
fn what_is_usual_in_a_log_is_not_damage() {
    let row = |i: i32| format!("{i},{}\n", 3.0 * 0.98_f64.powi(i));
    let csv = "step,loss\n".to_owned() + &(0..60).map(row).collect::<String>();
    let log: String =
        (0..60).map(|i| format!("step {i}: loss {}\n", 3.0 * 0.98_f64.powi(i))).collect();
    let chatty = log.replace('\n', "\nsaved a checkpoint\n\n\x1b[2Kplease wait ...\x08\r");
    let folder = folder(&[
        ("cut.csv", &csv[..csv.len() - 4]),
        ("blank.csv", &csv.replace("\n30,", "\n\n\n30,")),
        ("cut.jsonl", &healthy_jsonl()[..1500]),
        ("odd.jsonl", &healthy_jsonl().replacen('\n', "\n3 errors\n", 1)),
        ("cut.log", &log[..log.len() - 4]),
        ("chatty.log", &chatty),
    ]);
    let ran = run_in_time(folder.path(), &["diagnose", "."]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("HEALTHY").count(), 6, "{}", ran.stdout);
    assert!(!ran.stdout.contains("PARTLY"), "{}", ran.stdout);
}

#[test]
fn diagnose_and_train_have_the_same_exit_code_for_a_run_that_recovered() {
    let loss = |i: i32| if (40..44).contains(&i) { 900.0 } else { 2.0 * 0.99_f64.powi(i) };
    let rows: String = (0..200).map(|i| format!("{i},{}\n", loss(i))).collect();
    let folder = folder(&[("log.csv", &format!("step,train_loss\n{rows}"))]);
    let ran = run_in_time(folder.path(), &["diagnose", "--json", "log.csv"]);
    assert_eq!((ran.code, &ran.json()["verdict"]), (0, &"recovered".into()), "{}", ran.stdout);
}

#[test]
fn many_runs_are_each_told_once() {
    let folder = folder(&[]);
    for number in 0..1000 {
        let run = folder.path().join(format!("{number:04}"));
        fs::create_dir(&run).expect("a folder");
        fs::write(run.join("log.csv"), "step,loss\n1,2\n2,1\n").expect("a log");
    }
    let ran = run_in_time(folder.path(), &["diagnose", "."]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 1000), "{}", ran.stderr);
    let ran = run_in_time(folder.path(), &["watch", ".", "--idle", "0"]);
    assert_eq!((ran.code, &*ran.stdout), (0, ""), "{}", ran.stderr);
}

// export

#[test]
fn an_export_leaves_whole_files_or_none() {
    let folder = folder(&[("curve.toml", HEALTHY)]);
    let path = folder.path();
    assert_eq!(run(path, &["train", "curve.toml", "--quiet", "--out", "run"]).code, 0);
    let names = |folder: &str| {
        let entries = fs::read_dir(path.join(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    // A limit on the size of files takes the place of a full disk.
    let line = "trap '' XFSZ; ulimit -f 1; exec \"$TAMEGRAD\" export run --out full";
    let ran = shell(path, line);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("full/steps.parquet: "), "{}", ran.stderr);
    assert_eq!(names("full"), [""; 0]);

    assert_eq!(run(path, &["export", "run", "--out", "out"]).code, 0);
    let first = fs::read(path.join("out/steps.parquet")).expect("a file");
    let ran = shell(path, &line.replace("full", "out"));
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(
        fs::read(path.join("out/steps.parquet")).expect("a file"),
        first,
        "the old one stays"
    );
    assert_eq!(run(path, &["export", "run", "--out", "out"]).code, 0, "an export is replaced");
    assert_eq!(names("out"), ["steps.parquet", "tensors.parquet"]);
}

#[test]
fn an_export_replaces_nothing_but_an_export() {
    let folder = folder(&[("curve.toml", HEALTHY), ("mine.txt", "mine")]);
    let path = folder.path();
    assert_eq!(run(path, &["train", "curve.toml", "--quiet", "--out", "run"]).code, 0);
    for (name, said) in
        [("link", "got a symbolic link"), ("other", "got a file that no export wrote")]
    {
        fs::create_dir(path.join(name)).expect("a folder");
        let tensors = path.join(name).join("tensors.parquet");
        if name == "link" {
            symlink(path.join("mine.txt"), &tensors).expect("a link");
        } else {
            fs::write(&tensors, "mine").expect("a file");
        }
        let ran = run(path, &["export", "run", "--out", name]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{name}");
        let at = format!("{name}/tensors.parquet: {said}");
        assert!(ran.stderr.contains(&at) && ran.stderr.contains("--out"), "{}", ran.stderr);
        assert_eq!(read(tensors), "mine", "{name}");
        assert!(!path.join(name).join("steps.parquet").exists(), "{name}");
    }
}
