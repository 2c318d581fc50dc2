//! Remedies as code, for each framework in its own words.

mod burn;
mod keras;
mod lightning;
mod pytorch;
mod transformers;

use tamegrad::remedies::Change;

/// A framework that remedies are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framework {
    /// PyTorch, in a loop of one's own.
    PyTorch,
    /// PyTorch Lightning.
    Lightning,
    /// The Trainer of Hugging Face Transformers.
    Transformers,
    /// burn, in Rust.
    Burn,
    /// Keras.
    Keras,
}

impl Framework {
    /// All frameworks.
    pub const ALL: [Framework; 5] = [
        Framework::PyTorch,
        Framework::Lightning,
        Framework::Transformers,
        Framework::Burn,
        Framework::Keras,
    ];

    /// Its name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Framework::PyTorch => "pytorch",
            Framework::Lightning => "lightning",
            Framework::Transformers => "transformers",
            Framework::Burn => "burn",
            Framework::Keras => "keras",
        }
    }
}

impl std::str::FromStr for Framework {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|framework| framework.as_str() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|framework| framework.as_str()).collect();
            format!("framework: got `{name}`, want one of {}", names.join(", "))
        })
    }
}

/// The lines that carry out a change; `None` where there is no line to show.
///
/// Names that a program has of its own are `model`, `optimizer`, `loss`, `x`, `y` and so on.
///
/// ```
/// use tamegrad::remedies::Change;
/// use tamegrad_report::code::{Framework, code};
///
/// let clip = Change::ClipGlobalNorm { max_norm: 12.0 };
/// let line = code(&clip, Framework::PyTorch);
/// assert_eq!(
///     line.as_deref(),
///     Some("torch.nn.utils.clip_grad_norm_(model.parameters(), 12.0)  # before optimizer.step()")
/// );
/// assert_eq!(
///     code(&clip, Framework::Burn).as_deref(),
///     Some("let guard = guard.with_clip(Clip::GlobalNorm(12.0));")
/// );
/// ```
pub fn code(change: &Change, framework: Framework) -> Option<String> {
    match framework {
        Framework::PyTorch => pytorch::code(change),
        Framework::Lightning => lightning::code(change).or_else(|| pytorch::code(change)),
        Framework::Transformers => transformers::code(change).or_else(|| pytorch::code(change)),
        Framework::Burn => burn::code(change),
        Framework::Keras => keras::code(change),
    }
}

/// The numbers of rows as a list.
fn list(rows: &[u64]) -> String {
    let rows: Vec<String> = rows.iter().map(u64::to_string).collect();
    format!("[{}]", rows.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::Step;
    use tamegrad::inspection::{OperationKind, SourceLine};
    use tamegrad::remedies::{NormPlace, Scheme};

    #[test]
    fn every_framework_has_code_for_what_it_can_do() {
        let changes = [
            Change::Guard,
            Change::FilterRows { input: None, rows: vec![3, 17] },
            Change::FixLabels { classes: Some(10) },
            Change::GuardAverage { line: None },
            Change::GuardOperation { operation: OperationKind::Sqrt, line: None },
            Change::UnmaskRow { line: None },
            Change::OptimizerEps { eps: 1e-4 },
            Change::ClearGradients,
            Change::MeanLoss,
            Change::DropLastBatch,
            Change::WiderType { line: None },
            Change::OtherKernel,
            Change::ClipGlobalNorm { max_norm: 1.0 },
            Change::ClipTensorNorm { max_norm: 1.0 },
            Change::ClipValue { limit: 1.0 },
            Change::WarmUp { steps: 100 },
            Change::LearningRate { factor: 0.3, from: Some(1e-3) },
            Change::LearningRate { factor: 0.3, from: None },
            Change::Rewind { before: Step(90) },
            Change::ScaleTarget,
            Change::ScaleInput,
            Change::WeightDecay { rate: 0.01 },
            Change::L2Penalty { strength: 1e-3 },
            Change::L1Penalty { strength: 1e-3 },
            Change::BatchSize { samples: 16 },
            Change::Reinitialise { scheme: Scheme::He, layer: None },
            Change::BatchNorm { place: NormPlace::Before },
            Change::Activation { name: "relu".into(), layer: None },
        ];
        // What a framework does by itself, or has no way to do.
        let none = |change: &Change, framework| {
            matches!(
                (change, framework),
                (Change::ClearGradients | Change::Guard, Framework::Keras)
                    | (Change::ClearGradients, Framework::Burn)
            )
        };
        for change in &changes {
            for framework in Framework::ALL {
                let has = code(change, framework).is_some();
                assert_eq!(has, !none(change, framework), "{change:?} {framework:?}");
            }
        }
        assert_eq!(code(&Change::Depth { layers: 3 }, Framework::PyTorch), None);
    }

    #[test]
    fn the_line_itself_is_patched_where_its_form_is_known() {
        use OperationKind::{Division, Exp, Log, Norm, Sqrt};
        for (operation, line, patched) in [
            (Sqrt, "d = x.sum(1).sqrt()", "d = x.sum(1).clamp(min=1e-12).sqrt()"),
            (
                Sqrt,
                "return torch.sqrt(a + b) * 2",
                "return torch.sqrt((a + b).clamp(min=1e-12)) * 2",
            ),
            (Log, "loss = -p.log().mean()", "loss = -p.clamp(min=1e-12).log().mean()"),
            (Exp, "s = torch.exp(lv)", "s = torch.exp((lv).clamp(max=80))"),
            (Division, "w = a / b.sum()", "w = a / (b.sum() + 1e-8)"),
            (Norm, "n = f(x)", "torch.linalg.vector_norm(x + 1e-12, dim=-1)"),
        ] {
            let (file, function) = (String::new(), String::new());
            let line = Some(SourceLine { file, line: 1, function, code: line.into() });
            let change = Change::GuardOperation { operation, line };
            let lines = code(&change, Framework::PyTorch).expect("code");
            assert!(lines.lines().any(|line| line == patched), "{lines}");
        }
    }
}
