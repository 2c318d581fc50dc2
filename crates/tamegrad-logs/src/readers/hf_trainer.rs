//! The state that the Hugging Face trainer writes, `trainer_state.json`: its `log_history`.
//!
//! `grad_norm` is that of the last step before each row, not an average over the steps since the
//! row before, as `loss` is.

use std::path::PathBuf;

use tamegrad_runs::ReadError;

use crate::log::LogBuilder;
use crate::readers::json_rows::read_file;
use crate::readers::{Format, Head, Reader};

/// `trainer_state.json`.
pub(crate) const READER: Reader = Reader {
    format: Format {
        hides: Some(
            "The trainer replaces a NaN loss with an average (`logging_nan_inf_filter=False` keeps the \
             NaN), and logs the gradient norm of only the last step in each logging window",
        ),
        norm_option: "upgrade to Transformers 4.38 or later, which logs `grad_norm` by default",
        ..Format::named("hf-trainer")
    },
    recognises,
    read,
    ..Reader::OF_FILES
};

const HISTORY: &str = "log_history";

fn recognises(head: &Head<'_>) -> bool {
    let text = head.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head.bytes);
    let name = format!("\"{HISTORY}\"");
    text.trim_ascii_start().first() == Some(&b'{')
        && text.windows(name.len()).any(|part| part == name.as_bytes())
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    paths.iter().try_for_each(|path| read_file(path, Some(HISTORY), log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::tests::{points, read_text};

    const STATE: &str = r#"{
  "best_metric": null,
  "epoch": 1.0,
  "global_step": 30,
  "log_history": [
    {"epoch": 0.1, "grad_norm": 4.5, "learning_rate": 1e-05, "loss": 2.5, "step": 10},
    {"epoch": 0.2, "eval_loss": NaN, "eval_runtime": 3.5, "step": 10},
    {
      "epoch": 0.3,
      "grad_norm": NaN,
      "learning_rate": 2e-05,
      "loss": Infinity,
      "step": 20
    },
    {"epoch": 1.0, "loss": 1.5, "step": 30},
    {"epoch": 1.0, "step": 30, "total_flos": 1e18, "train_loss": 2.0}
  ],
  "stateful_callbacks": {"history": [{"step": 1, "loss": 99.0}, {"step": 2, "loss": 99.0}]},
  "loss": [77, 77, 77],
  "trial_name": null
}"#;

    #[test]
    fn rows_of_training_and_evaluation_become_series() {
        let log = read_text(&READER, "trainer_state.json", STATE.as_bytes());
        assert_eq!(points(&log, "loss"), "10:2.5 20:inf 30:1.5");
        assert_eq!(points(&log, "grad_norm"), "10:4.5 20:NaN");
        assert_eq!(points(&log, "eval_loss"), "10:NaN");
        assert_eq!(points(&log, "train_loss"), "30:2");
        assert_eq!(log.series("epoch").map(|series| series.points.len()), Some(5));
        assert!(log.series("step").is_none());
        assert!(log.notices.is_empty(), "{:?}", log.notices);
    }

    #[test]
    fn a_cut_file_keeps_the_rows_before() {
        let end = STATE.find("Infinity").unwrap() + 3;
        let log = read_text(&READER, "trainer_state.json", &STATE.as_bytes()[..end]);
        assert_eq!(points(&log, "loss"), "10:2.5");
        assert_eq!(log.notices.len(), 1);
        assert_eq!(log.notices[0].offset, Some(end as u64));
        assert!(log.notices[0].text.contains("the file was cut"), "{}", log.notices[0]);
    }

    #[test]
    fn a_broken_row_is_left_out() {
        let text = STATE.replace("Infinity", "Inf~nity");
        let log = read_text(&READER, "trainer_state.json", text.as_bytes());
        assert_eq!(points(&log, "loss"), "10:2.5 30:1.5");
        assert_eq!(log.notices.len(), 1);
        assert_eq!(log.notices[0].offset, text.find('~').map(|at| at as u64));
    }
}
