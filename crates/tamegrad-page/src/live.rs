//! The page of a run that is being watched.

use tamegrad::logs::Sample;
use tamegrad::record::Row;
use tamegrad::{Diagnosis, Run};
use tamegrad_report::log::LogRun;
use tamegrad_report::number::counted;

use crate::page::page;
use crate::view::{Action, ActionKind, RunView};

/// The page of a run so far, from what its guard remembers. `notes` limit what can be said of it, a sentence
/// each.
pub fn live_page(diagnosis: &Diagnosis, run: &Run, name: &str, notes: &[String]) -> String {
    let rows = run.record().rows();
    let series = |value: fn(&Row) -> Option<f64>| -> Vec<Sample> {
        let sample = |row: &Row| {
            Some(Sample { step: 0_i64.saturating_add_unsigned(row.step.0), value: value(row)? })
        };
        rows.iter().filter_map(sample).collect()
    };
    let loss = series(|row| row.loss);
    let norm = series(|row| match row.nonfinite_gradients {
        0 => row.gradient_norm,
        _ => Some(f64::NAN),
    });
    let rate = series(|row| row.learning_rate);
    let updates = [("the weight matrices, the largest".to_owned(), series(|row| row.update_ratio))];
    let has_updates = !updates[0].1.is_empty();
    let layout = run.record().layout();
    let actions = run.actions().iter().flat_map(|(step, decision)| {
        let text = tamegrad_report::action(decision, layout);
        ActionKind::of(decision).map(move |kind| Action { step: step.0, kind, text: text.clone() })
    });
    let actions: Vec<Action> = actions.collect();
    let mut lost = notes.to_vec();
    for (count, what) in [
        (run.record().rows_dropped(), "step"),
        (run.findings_dropped(), "finding"),
        (run.actions_dropped(), "action"),
    ] {
        if count > 0 {
            lost.push(format!("{} were dropped to bound memory.", counted(count, what)));
        }
    }
    let log = LogRun {
        loss: (!loss.is_empty()).then_some(("loss", &loss[..])),
        grad_norm: (!norm.is_empty()).then_some(("gradient norm", &norm[..])),
        ..LogRun::of(name, "watched by tamegrad", diagnosis)
    };
    page(&[RunView {
        learning_rate: &rate,
        update_ratios: if has_updates { &updates } else { &[] },
        actions: &actions,
        lost: &lost,
        ..RunView::of(log)
    }])
}
