//! A judged log as its figures take it.

use tamegrad::logs::Sample;
use tamegrad_logs::{Event, Series};
use tamegrad_page::{Action, ActionKind, RunView};
use tamegrad_report::number::count;

use super::judged::Judged;

/// A run with all that is drawn of it.
pub(crate) struct Pictured<'a> {
    judged: &'a Judged<'a>,
    learning_rate: Vec<Sample>,
    tensors: Vec<(String, Vec<Sample>)>,
    actions: Vec<Action>,
    lost: Vec<String>,
}

impl<'a> Pictured<'a> {
    /// Collects what is drawn of a run.
    pub(crate) fn of(judged: &'a Judged<'a>) -> Self {
        let roles = &judged.reading.roles;
        let tensors = roles.tensors.iter().map(|(name, of)| ((*name).to_owned(), samples(of)));
        let events = || judged.log.recorded.iter().flat_map(|recorded| &recorded.events);
        let told = events().filter(|event| event.kind != "action");
        let thinned: u64 = judged.log.series.iter().map(|series| series.thinned).sum();
        let thinned = (thinned > 0).then(|| {
            format!(
                "{} points were thinned out while reading; the smallest and the largest of neighbours \
                 stayed.",
                count(thinned)
            )
        });
        Self {
            judged,
            learning_rate: roles.learning_rate.map(samples).unwrap_or_default(),
            tensors: tensors.collect(),
            actions: events().flat_map(actions).collect(),
            lost: told.map(|event| event.text.clone()).chain(thinned).collect(),
        }
    }

    /// The run as figures and pages take it.
    pub(crate) fn view(&self) -> RunView<'_> {
        RunView {
            learning_rate: &self.learning_rate,
            update_ratios: &self.judged.reading.update_ratios,
            tensors: &self.tensors,
            actions: &self.actions,
            lost: &self.lost,
            ..RunView::of(self.judged.run())
        }
    }
}

fn samples(series: &Series) -> Vec<Sample> {
    let sample = |point: &tamegrad_logs::Point| Sample { step: point.step, value: point.value };
    series.points.iter().map(sample).collect()
}

/// What the guard did according to an event of a run folder.
fn actions(event: &Event) -> Vec<Action> {
    if event.kind != "action" {
        return Vec::new();
    }
    let is = |key: &str| event.data[key].as_bool().unwrap_or(false);
    let all = [
        (is("skip"), ActionKind::Skip),
        (is("scale"), ActionKind::Scale),
        (
            event.data["learning_rate"].as_f64().is_some_and(|rate| rate < 1.0),
            ActionKind::LowerRate,
        ),
        (event.data["rewind"].is_u64(), ActionKind::Rewind),
        (is("stop"), ActionKind::Stop),
    ];
    let kinds = all.into_iter().filter(|(is, _)| *is).map(|(_, kind)| kind);
    kinds.map(|kind| Action { step: event.step, kind, text: event.text.clone() }).collect()
}
