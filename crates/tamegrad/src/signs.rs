//! The warning signs, one file each: state goes in, a [`Reading`] comes out.

use crate::doc::Doc;
use crate::finding::{Finding, Reading, SignName, for_each_sign};
use crate::run::Run;

/// A sign.
pub trait Sign {
    /// Reads the latest step before its update. The record's baselines do not hold it yet.
    fn read(&mut self, run: &Run) -> Reading;

    /// Reads the latest update: signs that look at parameters.
    fn read_update(&mut self, _run: &Run) -> Reading {
        Reading::Quiet
    }
}

/// Declares the modules of the signs, each with a type that has the sign's name.
macro_rules! signs {
    ($($(#[$doc:meta])* $module:ident => $name:ident,)*) => {
        $(mod $module;)*
        $(pub use $module::$name;)*

        impl SignName {
            /// The text that explains it.
            pub fn doc(self) -> &'static Doc {
                match self {
                    $(SignName::$name => &$module::DOC,)*
                }
            }
        }

        /// The state of the signs. It is saved, restored and rewound with the run.
        #[derive(Debug, Clone, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct Signs {
            $($module: $name,)*
        }

        impl Signs {
            fn all(&mut self) -> [(SignName, &mut dyn Sign); SignName::ALL.len()] {
                [$((SignName::$name, &mut self.$module),)*]
            }
        }
    };
}

for_each_sign!(signs);

impl SignName {
    /// Kebab-case name.
    pub fn as_str(self) -> &'static str {
        self.doc().name
    }
}

impl Signs {
    /// Reads all of them before the update.
    pub(crate) fn read(&mut self, run: &Run) -> Vec<(SignName, Reading)> {
        self.all().map(|(name, sign)| (name, sign.read(run))).into()
    }

    /// Reads those that look at the update.
    pub(crate) fn read_update(&mut self, run: &Run) -> Vec<Finding> {
        self.all().into_iter().filter_map(|(_, sign)| sign.read_update(run).fired()).collect()
    }
}

/// A run as data, for the tests of the signs: feeds rows and collects what one sign says.
#[cfg(test)]
pub(crate) mod check {
    use super::{Reading, Sign};
    use crate::finding::Finding;
    use crate::jump;
    use crate::observe::{
        LayerId, LayerInfo, Layout, Observation, RunFacts, Step, TensorId, TensorInfo, Update,
    };
    use crate::run::Run;
    use tamegrad_stats::TensorStats;

    /// One step of a test run: the loss and, for each tensor, the gradient norm and update ratio.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Given {
        pub(crate) loss: Option<f64>,
        pub(crate) metric: Option<f64>,
        pub(crate) learning_rate: Option<f64>,
        pub(crate) norms: Vec<f64>,
        pub(crate) ratios: Vec<f64>,
    }

    impl Given {
        /// A loss and gradient norms.
        pub(crate) fn of(loss: f64, norms: &[f64]) -> Self {
            Self { loss: Some(loss), norms: norms.to_vec(), ..Self::default() }
        }
    }

    /// A layout of `count` one-matrix layers `fc0`, `fc1`, ...
    pub(crate) fn layout(count: usize) -> Layout {
        Layout {
            tensors: (0..count)
                .map(|i| TensorInfo {
                    name: format!("fc{i}.weight"),
                    layer: Some(LayerId(i)),
                    is_matrix: true,
                    fan_in: None,
                })
                .collect(),
            layers: (0..count).map(|i| LayerInfo::named(format!("fc{i}"))).collect(),
        }
    }

    /// Statistics of one element with this magnitude; NaN and Inf are counted.
    pub(crate) fn stats(norm: f64) -> TensorStats {
        tamegrad_stats::scan(&[norm])
    }

    /// A change of a tensor of one element by this part of it, which breaks it if it is not finite.
    pub(crate) fn update(ratio: f64) -> Option<Update> {
        let nonfinite = u64::from(!ratio.is_finite());
        Some(Update { change_norm: ratio, weight_norm: 1.0, len: 1, nonfinite })
    }

    /// A step with a loss and gradients.
    pub(crate) fn seen(step: u64, loss: f64, gradients: &[Option<TensorStats>]) -> Observation<'_> {
        Observation { step: Step(step), loss: Some(loss), gradients, ..Observation::default() }
    }

    /// Feeds a run to a sign and returns its findings with their steps, and the last reading.
    pub(crate) fn run(sign: &mut dyn Sign, given: &[Given]) -> (Vec<Finding>, Reading) {
        let tensors = given.iter().map(|g| g.norms.len().max(g.ratios.len())).max().unwrap_or(0);
        let mut kept = Run::new(layout(tensors), RunFacts::default());
        let (mut findings, mut last) = (Vec::new(), Reading::Quiet);
        for (index, row) in given.iter().enumerate() {
            let gradients: Vec<_> = row.norms.iter().map(|n| Some(stats(*n))).collect();
            let seen = Observation {
                step: Step(index as u64),
                loss: row.loss,
                metric: row.metric,
                learning_rate: row.learning_rate,
                gradients: &gradients,
                ..Observation::default()
            };
            jump::follow(&mut kept, &seen);
            kept.take(&seen);
            last = sign.read(&kept);
            let updates: Vec<_> = row.ratios.iter().map(|ratio| update(*ratio)).collect();
            kept.record.take_update(&updates);
            for reading in [last.clone(), sign.read_update(&kept)] {
                if let Reading::Fired(finding) = reading {
                    kept.note([finding.clone()]);
                    findings.push(finding);
                }
            }
            kept.settle();
        }
        (findings, last)
    }

    /// The steps of the findings.
    pub(crate) fn steps(findings: &[Finding]) -> Vec<u64> {
        findings.iter().map(|f| f.step.0).collect()
    }

    /// The steps of the alarms among the findings.
    pub(crate) fn alarms(findings: &[Finding]) -> Vec<u64> {
        findings.iter().filter(|f| f.is_alarm()).map(|f| f.step.0).collect()
    }

    /// A repeatable value in -1..1 that jumps about as noise does.
    pub(crate) fn noise(i: usize) -> f64 {
        let x = (i as f64 * 12.9898).sin() * 43758.5453;
        2.0 * (x - x.floor()) - 1.0
    }

    /// The names of the tensors in the findings.
    pub(crate) fn tensors(findings: &[Finding]) -> Vec<Option<TensorId>> {
        findings.iter().map(|f| f.place.tensor()).collect()
    }
}
