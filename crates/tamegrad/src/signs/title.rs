//! What a finding says has happened, in words that are true for it.

use super::loss_nonfinite;
use crate::finding::{Evidence, Finding, SignName};

/// A sign, how its first number begins, and what has happened then; the first line that fits.
const TITLES: [(SignName, &str, &str); 13] = [
    (SignName::LossFluctuates, "change of the loss", "The loss swings wildly"),
    (SignName::LossFluctuates, "loss", "The loss runs away from where it began"),
    (SignName::MetricStalls, "metric", "The held-out metric deteriorates"),
    (SignName::MetricStalls, "best metric so far", "The held-out metric does not improve"),
    (SignName::UpdatesTooLarge, "update ratio of", "An update changes much of a weight matrix"),
    (SignName::UpdatesTooLarge, "median update ratio", "Updates grow with the learning rate"),
    (SignName::GradientSpikes, "drifting norm of", "A gradient's norm drifts upward"),
    (SignName::GradientSpikes, "lowest norm of", "The gradient's norm stays very high"),
    (
        SignName::GradientSpikes,
        "norm of the whole gradient at the first step",
        "The gradient is very large at the start",
    ),
    (SignName::GradientSpikes, "norm of", "A gradient's norm has jumped"),
    (SignName::GradientSpikes, "product of the layers'", "The layers multiply the gradient"),
    (SignName::LearningRateFalls, "learning rate", "The learning rate was cut"),
    (SignName::LearningRateFalls, "smallest multiple", "The update is too long for its own loss"),
];

impl Finding {
    /// What has happened, in words that are true for this finding; a sign's own title tells of all
    /// that it may be.
    pub fn title(&self) -> &'static str {
        title(self.sign, &self.evidence)
    }
}

/// What has happened, by the numbers of a finding; the sign's own title where they do not say.
fn title(sign: SignName, evidence: &[Evidence]) -> &'static str {
    let first = evidence.first().map_or("", |evidence| &evidence.what);
    let fits = |(of, begins, _): &&(SignName, &str, &str)| *of == sign && first.starts_with(begins);
    loss_nonfinite::title(evidence)
        .filter(|_| sign == SignName::LossNonFinite)
        .or_else(|| TITLES.iter().find(fits).map(|(_, _, title)| *title))
        .unwrap_or(sign.doc().title)
}

#[cfg(test)]
mod tests {
    use crate::signs::check::{Given, noise, run};
    use crate::signs::{
        GradientSpikes, LearningRateFalls, LossFluctuates, MetricStalls, Sign, UpdatesTooLarge,
    };

    /// A run of 400 steps, calm but for what is changed from step 200 on.
    fn changed(change: impl Fn(usize, &mut Given)) -> Vec<Given> {
        let calm = |i: usize| Given {
            loss: Some(1.0 + 0.02 * noise(i)),
            metric: Some(0.5 + 0.001 * i as f64),
            learning_rate: Some(0.01),
            norms: vec![(0.1 * noise(i)).exp(); 2],
            ratios: vec![0.004; 2],
        };
        let at = |i| {
            let mut given = calm(i);
            if i >= 200 {
                change(i, &mut given);
            }
            given
        };
        (0..400).map(at).collect()
    }

    #[test]
    fn each_kind_of_finding_has_a_title_that_is_true_for_it() {
        let grows = |i: usize| 1.01f64.powi(i as i32 - 200);
        type Change<'a> = &'a dyn Fn(usize, &mut Given);
        let cases: [(&mut dyn Sign, Change<'_>, &str); 9] = [
            (
                &mut LossFluctuates::default(),
                &|i, g| g.loss = Some(if i % 3 == 0 { 2.8 } else { 1.0 }),
                "The loss swings wildly",
            ),
            (
                &mut MetricStalls::default(),
                &|_, g| g.metric = Some(0.1),
                "The held-out metric deteriorates",
            ),
            (
                &mut MetricStalls::default(),
                &|_, g| g.metric = Some(0.5),
                "The held-out metric does not improve",
            ),
            (
                &mut UpdatesTooLarge::default(),
                &|_, g| g.ratios[0] = 0.5,
                "An update changes much of a weight matrix",
            ),
            (
                &mut UpdatesTooLarge::default(),
                &|i, g| {
                    g.learning_rate = Some(0.01 * grows(i));
                    g.ratios = vec![0.004 * grows(i); 2];
                },
                "Updates grow with the learning rate",
            ),
            (
                &mut GradientSpikes::default(),
                &|_, g| g.norms = vec![100.0; 2],
                "A gradient's norm has jumped",
            ),
            (
                &mut GradientSpikes::default(),
                &|i, g| g.norms = vec![grows(i).min(3.0); 2],
                "A gradient's norm drifts upward",
            ),
            (&mut GradientSpikes::default(), &|_, _| (), "The gradient's norm stays very high"),
            (
                &mut LearningRateFalls::default(),
                &|i, g| g.learning_rate = Some(0.01 * 0.1f64.powi((i / 50) as i32 - 3)),
                "The learning rate was cut",
            ),
        ];
        for (sign, change, title) in cases {
            let mut given = changed(change);
            match title {
                "The held-out metric does not improve" => {
                    given.iter_mut().for_each(|given| given.metric = Some(0.5));
                }
                "The gradient's norm stays very high" => {
                    given.iter_mut().for_each(|given| given.norms = vec![1e8; 2]);
                }
                _ => {}
            }
            let (findings, _) = run(sign, &given);
            assert_eq!(findings.first().map(|finding| finding.title()), Some(title));
        }
    }

    #[test]
    fn a_loss_that_runs_away_at_the_start_does_not_swing() {
        let losses = [2.3, 2.4, 2.2, 30.0, 900.0, 1e4];
        let given = losses.map(|loss| Given { loss: Some(loss), ..Given::default() });
        let (findings, _) = run(&mut LossFluctuates::default(), &given);
        assert_eq!(findings[0].title(), "The loss runs away from where it began");
    }
}
