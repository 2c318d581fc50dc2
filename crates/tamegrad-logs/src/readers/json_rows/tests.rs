//! Tests of the reader as a whole.

use super::*;
use crate::readers::tests::{change, check_damage, compare, knows, points, read_text, survives};
use proptest::prelude::*;

/// Reads a text and compares `name: step:value ...` of all series, one a line.
fn check(text: &str, want: &str) {
    assert!(knows(&READER, "log", text.as_bytes()), "{text}");
    let log = read_text(&READER, "log", text.as_bytes());
    compare(&log, want);
    assert!(log.notices.is_empty(), "{:?}", log.notices);
}

/// The same for a text of which something is left out: at these bytes.
fn check_notices(text: &str, want: &str, offsets: &[usize]) {
    let log = read_text(&READER, "log", text.as_bytes());
    assert_eq!(points(&log, "loss"), want, "{text}");
    let got: Vec<_> = log.notices.iter().map(|notice| notice.offset).collect();
    let offsets: Vec<_> = offsets.iter().map(|&offset| Some(offset as u64)).collect();
    assert_eq!(got, offsets, "{:?}", log.notices);
}

#[test]
fn what_is_damaged_is_counted() {
    let row = |step| format!("{{\"step\": {step}, \"loss\": 2.5}}");
    let rows: Vec<String> = (0..8000).map(row).collect();
    check_damage(&READER, "a.jsonl", rows.join("\n").as_bytes());
    check_damage(&READER, "a.json", format!("[{}]", rows.join(",\n")).as_bytes());
}

#[test]
fn lines_are_records() {
    check(
        r#"{"step": 1, "loss": 2.5, "note": "fast", "ok": true, "none": null}
           {"step": 2, "loss": NaN, "lr": "0.1"}

           {"step": 3, "loss": "Infinity", "opt": {"norm": {"all": -Infinity}}, "x": [7]}
           {"step": 1, "loss": 2, "sizes": [1, 2, 3], "deep": [[1]], "void": []}"#,
        "loss: 1:2.5 2:NaN 3:inf 1:2
         lr: 2:0.1
         opt/norm/all: 3:-inf
         x: 3:7",
    );
}

#[test]
fn records_may_stand_in_an_array_or_over_several_lines() {
    let want = "loss: 5:1 6:2";
    check(r#"[{"Iteration": 5.0, "loss": 1}, {"Iteration": 6.0, "loss": 2}]"#, want);
    check("[\n  {\n\"iter\": 5,\n\"loss\": 1\n},\n  {\n\"iter\": 6,\n\"loss\": 2\n}\n]", want);
    check("{\n\"iter\": 5,\n\"loss\": 1\n}\n{\n\"iter\": 6,\n\"loss\": 2\n}\n", want);
    check(r#"{"step":5,"loss":1}{"step":6,"loss":2}"#, want);
    check(r#"{"args": {"lr": 1}, "history": [{"step":5,"loss":1},{"step":6,"loss":2}]}"#, want);
}

#[test]
fn arrays_and_objects_in_a_document_name_the_series() {
    check(
        r#"{"train": [{"step": 1, "loss": 3}, {"step": 2, "loss": 2}],
            "val": [{"step": 2, "loss": 4}]}"#,
        "train/loss: 1:3 2:2
         val/loss: 2:4",
    );
    check(
        r#"{"runs": [{"lr": 0.1, "history": [{"step": 1, "loss": 3, "l": [{"norm": 1}]}]},
                     {"lr": 0.2, "history": [{"step": 1, "loss": 5, "l": [{"norm": 1}]}]}]}"#,
        "runs/history/loss: 1:3 1:5
         runs/lr: 0:0.1 1:0.2",
    );
}

#[test]
fn columns_of_one_length_belong_together() {
    check(
        r#"{"betas": [0.9, 0.99], "steps": [10, 20, 30], "loss": [3, null, NaN],
            "val_loss": [4, "2"], "seed": 1}"#,
        "betas: 0:0.9 1:0.99
         val_loss: 0:4 1:2
         loss: 10:3 30:NaN",
    );
    check(
        r#"{"train": {"step": [1, 2], "loss": [3, 2]}, "val": {"step": [2, 4], "loss": [4, 5]}}"#,
        "train/loss: 1:3 2:2
         val/loss: 2:4 4:5",
    );
    check(
        r#"[{"seed": 1, "step": [1, 2], "loss": [3, 2]}, {"seed": 2, "step": [1], "loss": [4]}]"#,
        "loss: 1:3 2:2 1:4
         seed: 1:2",
    );
}

#[test]
fn iterations_of_mmcv_run_on_and_validations_have_their_own_series() {
    check(
        r#"{"env_info": "Linux", "seed": null}
           {"mode": "train", "epoch": 1, "iter": 50, "loss": 3, "time": 0.5}
           {"mode": "train", "epoch": 1, "iter": 100, "loss": 2, "time": 0.5}
           {"mode": "val", "epoch": 1, "iter": 64, "mIoU": 0.5}
           {"mode": "train", "epoch": 2, "iter": 50, "loss": 1, "time": 0.5}"#,
        "epoch: 50:1 100:1 150:2
         loss: 50:3 100:2 150:1
         time: 50:0.5 100:0.5 150:0.5
         val/epoch: 100:1
         val/mIoU: 100:0.5",
    );
}

#[test]
fn what_is_broken_is_left_out_and_said() {
    let good = r#"{"step": 1, "loss": 1}"#;
    for bad in ["{\"step\": 2, \"lo", "{\"loss\":", "oops", "{\"loss\": 2..1}", "\0\0\0\0"] {
        let at = match bad {
            "oops" | "\0\0\0\0" => 0,
            "{\"loss\": 2..1}" => 9,
            cut => cut.len(),
        };
        check_notices(&format!("{good}\n{bad}\n{good}\n"), "1:1 1:1", &[good.len() + 1 + at]);
    }
    check_notices(&format!("{good}\n{}", &good[..20]), "1:1", &[43]);
    check_notices(&format!("{good}\n5\n{good}"), "1:1 1:1", &[24]);
    check_notices(&format!("[{good}, {{\"step\": oops}}, {good}]"), "1:1 1:1", &[34]);
    check_notices(&format!("[{good}, {good}"), "1:1 1:1", &[47]);
    check_notices(r#"{"step": [1, 2, 3], "loss": [5, 6, 7"#, "1:5 2:6", &[36]);
}

#[test]
fn a_first_line_that_is_cut_does_not_hide_the_others() {
    let text = "{\"step\": 0, \"lo\n{\"step\": 1, \"loss\": 1}\n{\"step\": 2, \"loss\": 2}\n";
    check_notices(text, "1:1 2:2", &[15]);
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    let text = b"{\"step\": 1, \"loss\": 1, \"n\": \"\xff\xfe\"}\n\xff\xfe\x80\n{\"step\": 2, \"loss\": 2}";
    let log = read_text(&READER, "log", text);
    assert_eq!(points(&log, "loss"), "1:1 2:2");
    assert_eq!(log.notices.len(), 1);
}

#[test]
fn long_lines_and_deep_ones_are_no_trouble() {
    let numbers = "1.25,".repeat(4 << 20);
    let text = format!(
        "{{\"step\": 1, \"loss\": 1}}\n{{\"step\": 2, \"loss\": 2, \"all\": [{numbers}1]}}\n\
         {}\n{}\n{{\"step\": 3, \"loss\": 3}}\n",
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
    );
    let log = read_text(&READER, "log", text.as_bytes());
    assert_eq!(points(&log, "loss"), "1:1 2:2 3:3");
    assert_eq!(log.notices.len(), 3, "{:?}", log.notices);
}

#[test]
fn other_json_is_not_taken_for_a_log() {
    for text in [
        "",
        "{}",
        "[]",
        "[1, 2, 3]",
        r#"{"train_loss": 0.5, "epoch": 3}"#,
        r#"{"model_type": "llama", "betas": [0.9, 0.99], "num_epochs": 3, "layers": [1, 2]}"#,
        r#"{"images": [{"id": 1, "width": 2}, {"id": 2, "width": 3}]}"#,
        r#"{"cells": [{"cell_type": "code", "execution_count": 1, "outputs": []}]}"#,
        "loss 3",
    ] {
        assert!(!knows(&READER, "a.json", text.as_bytes()), "{text}");
    }
    assert!(knows(&READER, "a.jsonl", br#"{"train_loss": 0.5, "epoch": 3}"#));
}

#[test]
fn a_file_without_numbers_is_an_error_that_says_where() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, want) in [("", "at byte 0: got no number"), ("{\"a\": ", "at byte 6: got the end")] {
        std::fs::write(file.path(), text).unwrap();
        let error = read(&[file.path().to_owned()], &mut LogBuilder::new()).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

proptest! {
    #[test]
    fn never_panics(
        mut text in prop_oneof![
            Just(b"[{\"step\": 1, \"loss\": [2, NaN]}, {\"epoch\": 2, \"a\": {\"b\": 1}}]".to_vec()),
            Just(b"{\"epoch\": 1, \"iter\": 9}\n{\"epoch\": 2, \"iter\": 3}\n".to_vec()),
            Just(b"{\"log_history\": [{\"step\": 1}], \"s\": {\"step\": [1, 2], \"x\": [3]}}".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..80),
        ],
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        change(&mut text, &changes);
        text.truncate(end.index(text.len() + 1).max(text.len() / 2));
        survives(&READER, &text);
        survives(&crate::readers::hf_trainer::READER, &text);
    }
}
