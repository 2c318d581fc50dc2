//! Sign: parameters are updated by very large values.

use super::{Reading, Sign, SignName};
use crate::explain::Doc;
use crate::finding::{Evidence, Finding, Severity};
use crate::observe::{LayerId, TensorId};
use crate::record::Record;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "updates-too-large",
    title: "Parameters are updated by very large values",
    what: "One step changes a weight matrix by a large part of its own size.",
    why: "The gradient is a local slope. A step that replaces a tenth of a matrix leaves the \
          region where the slope was true, and the next gradient is taken somewhere else.",
    rule: "Update ratio |dW|/|W| of each weight matrix (L2 norms). Usual ones are some thousandths. \
           Fires when a ratio is above 0.1 and 4 times its own mean (after 100 steps); above 1 it \
           fires at once. It is an alarm above 1, or when the loss departs as well, otherwise a \
           strain.",
    example: "output.weight: |dW|/|W| = 0.131 at step 111, mean before it 0.00976.",
    remedy: "Lower the learning rate, warm up, or clip; for Adam look at the lag of its second \
             moment.",
    source: "LARS (You, Gitman, Ginsburg 2017) and AGC (Brock 2021) bound the same ratio.",
};

const TROUBLE: f64 = 0.1;
const OVERTHROW: f64 = 1.0;

/// State: none beyond the record's baselines.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UpdatesTooLarge;

impl Sign for UpdatesTooLarge {
    fn name(&self) -> SignName {
        SignName::UpdatesTooLarge
    }

    fn read(&mut self, record: &Record) -> Reading {
        match record.tensors.iter().map(|track| track.update.count()).max() {
            Some(count) if count >= super::WARM_UP_STEPS => Reading::Quiet,
            count => Reading::TooEarly { needs: super::WARM_UP_STEPS - count.unwrap_or(0) },
        }
    }

    fn read_update(&mut self, record: &Record) -> Reading {
        let Some(row) = record.now() else { return Reading::Quiet };
        let too_large = record.tensors.iter().enumerate().filter_map(|(index, track)| {
            let ratio = track.latest_update.filter(|update| update.nonfinite == 0)?.ratio();
            let usual = track.update.mean().exp();
            let settled = track.update.count() >= super::WARM_UP_STEPS;
            let fires = ratio > OVERTHROW || (settled && ratio > TROUBLE && ratio > 4.0 * usual);
            (record.layout.tensors[index].is_matrix && fires).then_some((index, ratio, usual))
        });
        let Some((index, ratio, usual)) = too_large.max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return Reading::Quiet;
        };
        let departs = row.loss.is_some_and(|loss| record.loss_departure(loss) > 4.0);
        let grave = ratio > OVERTHROW || departs;
        let tensor = TensorId(index);
        let layer: Option<LayerId> = record.layout.layer_of(tensor);
        let name = record.layout.tensor_name(tensor);
        let settled = record.tensors[index].update.count() > 0;
        let (reference, limit) =
            if settled { ("mean before it", usual) } else { ("trouble begins at", TROUBLE) };
        Reading::Fired(Finding {
            sign: self.name(),
            step: row.step,
            severity: if grave { Severity::Alarm } else { Severity::Strain },
            tensor: Some(tensor),
            layer,
            evidence: vec![Evidence::against(
                format!("update ratio of {name}"),
                ratio,
                reference,
                limit,
            )],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::check::{Given, alarms, noise, run, tensors};

    fn run_with(ratio_at_150: f64) -> Vec<Given> {
        let ratio = |i: usize| if i == 150 { ratio_at_150 } else { 0.003 * (1.0 + 0.5 * noise(i)) };
        (0..200)
            .map(|i| Given { loss: Some(1.0), ratios: vec![0.003, ratio(i)], ..Given::default() })
            .collect()
    }

    #[test]
    fn fires_on_trouble_and_alarms_on_overthrow() {
        for (ratio, strains_at, alarms_at) in
            [(0.05, vec![], vec![]), (0.3, vec![150], vec![]), (2.5, vec![150], vec![150])]
        {
            let (findings, _) = run(&mut UpdatesTooLarge, &run_with(ratio));
            assert_eq!(
                findings.iter().map(|f| f.step.0).collect::<Vec<_>>(),
                strains_at,
                "{ratio}"
            );
            assert_eq!(alarms(&findings), alarms_at, "{ratio}");
            assert!(tensors(&findings).iter().all(|t| *t == Some(TensorId(1))), "{ratio}");
        }
    }

    #[test]
    fn an_overthrow_in_the_warm_up_counts() {
        let given = [Given { ratios: vec![0.01, 40.0], ..Given::default() }];
        assert_eq!(alarms(&run(&mut UpdatesTooLarge, &given).0), [0]);
    }

    #[test]
    fn ten_per_cent_that_is_usual_for_a_tensor_is_no_news() {
        let given = vec![Given { ratios: vec![0.12], ..Given::default() }; 200];
        assert_eq!(run(&mut UpdatesTooLarge, &given), (vec![], Reading::Quiet));
    }
}
