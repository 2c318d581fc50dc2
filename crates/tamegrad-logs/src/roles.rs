//! Which series of a log is the loss and which the gradient norm, by the names that writers use.

mod metric;
mod updates;

use crate::log::{Log, Point, Series};
use tamegrad::logs::Sample;

pub(crate) use updates::{parameter_norm, ratios};

/// A quantity that the verdict is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Training loss.
    Loss,
    /// L2 norm of the whole gradient.
    GradNorm,
    /// Learning rate.
    LearningRate,
    /// Scale of the loss in mixed precision.
    LossScale,
    /// A metric on held-out data.
    Metric,
}

impl Role {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Loss, Self::GradNorm, Self::LearningRate, Self::LossScale, Self::Metric];

    /// The name that `--map` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::GradNorm => "grad_norm",
            Self::LearningRate => "lr",
            Self::LossScale => "loss_scale",
            Self::Metric => "metric",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("got `{text}`, want one of {}", known()))
    }
}

/// Names that the user gave to roles.
pub type Map = [(Role, String)];

/// Which series plays which role.
#[derive(Debug, Clone, Default)]
pub struct Roles<'a> {
    /// Training loss.
    pub loss: Option<&'a Series>,
    /// L2 norm of the whole gradient.
    pub grad_norm: Option<&'a Series>,
    /// Learning rate.
    pub learning_rate: Option<&'a Series>,
    /// Scale of the loss in mixed precision.
    pub loss_scale: Option<&'a Series>,
    /// A metric on held-out data.
    pub metric: Option<&'a Series>,
    /// Gradient norms of individual tensors, by the tensor's name.
    pub tensors: Vec<(&'a str, &'a Series)>,
}

impl<'a> Roles<'a> {
    /// Finds the roles in a log; what the user mapped takes precedence over what names suggest.
    ///
    /// # Errors
    /// If the log does not have a mapped name; the message lists the names that it has.
    pub fn find(log: &'a Log, map: &Map) -> Result<Self, String> {
        let mut roles = Self {
            loss: best(log, loss_score),
            grad_norm: best(log, norm_score),
            learning_rate: best(log, rate_score),
            loss_scale: best(log, scale_score),
            metric: metric::find(log),
            tensors: log.series.iter().filter_map(|s| Some((tensor_name(&s.name)?, s))).collect(),
        };
        for (role, name) in map {
            let series = log.series(name).ok_or_else(|| {
                let names: Vec<&str> = log.series.iter().map(|s| s.name.as_str()).collect();
                format!("got `{name}` for {}, want one of: {}", role.as_str(), names.join(", "))
            })?;
            match role {
                Role::Loss => roles.loss = Some(series),
                Role::GradNorm => roles.grad_norm = Some(series),
                Role::LearningRate => roles.learning_rate = Some(series),
                Role::LossScale => roles.loss_scale = Some(series),
                Role::Metric => roles.metric = Some(series),
            }
        }
        Ok(roles)
    }

    /// Whether the metric improves by falling, by its name.
    pub fn is_lower_better(&self) -> bool {
        self.metric.is_some_and(|series| metric::is_lower_better(&series.name))
    }
}

/// The points as the core takes them.
pub(crate) fn samples(points: &[Point]) -> Vec<Sample> {
    points.iter().map(|point| Sample { step: point.step, value: point.value }).collect()
}

/// The series with the highest score; of equals the first. One that has less than a tenth of the
/// numbers of another candidate is a summary, and is passed over.
fn best(log: &Log, score: fn(&str) -> u32) -> Option<&Series> {
    let candidates = || {
        let scored = log.series.iter().map(|s| (score(&normal(&s.name)), s));
        scored.filter(|(score, series)| *score > 0 && !series.points.is_empty())
    };
    let most = candidates().map(|(_, series)| series.points.len()).max()?;
    let full = candidates().filter(|(_, series)| 10 * series.points.len() >= most);
    full.reduce(|a, b| if b.0 > a.0 { b } else { a }).map(|(_, series)| series)
}

/// A name in lower case, its separators all `_`.
fn normal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        if !(c == '_' && out.ends_with('_')) {
            out.push(c);
        }
    }
    out.trim_matches('_').to_owned()
}

fn words(normal: &str) -> impl Iterator<Item = &str> {
    normal.split('_')
}

fn has(normal: &str, of: &[&str]) -> bool {
    words(normal).any(|word| of.contains(&word))
}

const HELD_OUT: &[&str] = &["val", "valid", "validation", "eval", "test", "dev", "best", "heldout"];

/// How sure it is that a name is the training loss; 0 if it is not.
fn loss_score(name: &str) -> u32 {
    let is_loss = words(name).any(|word| word.ends_with("loss") || word == "trl");
    let is_other = has(name, HELD_OUT) || has(name, &["scale", "weight", "coef", "lr", "over"]);
    if !is_loss || is_other {
        return 0;
    }
    match name {
        "loss" | "train_loss" | "training_loss" | "loss_train" | "trl" => 100,
        "total_loss" | "train_total_loss" | "loss_total" | "lm_loss" | "train_lm_loss" => 98,
        "mean_loss" | "avg_loss" | "average_loss" | "global_avg_loss" | "epoch_loss" => 96,
        _ if has(name, &["total", "overall", "global"]) => 90,
        _ if name.starts_with("train") || name.ends_with("train_loss") => 80,
        _ if name.ends_with("_loss") && words(name).count() == 2 => 60,
        _ => 50,
    }
}

/// How sure it is that a name is the norm of the whole gradient.
fn norm_score(name: &str) -> u32 {
    let is_norm = name.contains("gnorm")
        || name == "norm"
        || name == "total_norm"
        || (name.contains("grad") && name.contains("norm"));
    let is_other = has(name, HELD_OUT)
        || has(name, &["clipped", "afterclip", "after", "clip", "param", "weight", "update"])
        || has(name, &["actor", "critic", "value", "policy", "generator", "discriminator"])
        || has(name, &["max", "min", "std", "var", "ratio"]);
    if !is_norm || is_other {
        return 0;
    }
    match name {
        "grad_norm" | "train_grad_norm" | "gradient_norm" | "gnorm" | "global_grad_norm" => 100,
        "total_grad_norm" | "grad_norm_total" | "optim_total_grad_norm" => 98,
        "l2_norm_grad_global" | "grad_2_0_norm_total" | "grad_2_norm_total" => 98,
        "train_gnorm" | "train_inner_gnorm" | "total_norm" => 96,
        "norm" => 60,
        _ if has(name, &["total", "global"]) => 80,
        // The norm of one tensor or layer, as a rule.
        _ if words(name).count() > 4 => 0,
        _ => 40,
    }
}

fn rate_score(name: &str) -> u32 {
    match name {
        "lr" | "learning_rate" | "train_lr" | "train_learning_rate" => 100,
        _ if name.contains("learning_rate") => 80,
        _ if has(name, &["lr"]) => 70,
        _ => 0,
    }
}

fn scale_score(name: &str) -> u32 {
    match name {
        "loss_scale" | "train_loss_scale" => 100,
        _ if name.contains("loss_scale") || name.contains("grad_scale") => 80,
        _ => 0,
    }
}

/// The tensor whose gradient norm, or histogram of gradients, a series is.
fn tensor_name(name: &str) -> Option<&str> {
    const BEFORE: &[&str] =
        &["gradients/", "l2_norm/grad/", "grad_norm/", "grad_2.0_norm/", "grad_2_norm/"];
    const WHOLE: &[&str] = &["global", "total", ""];
    let tensor = BEFORE.iter().find_map(|before| behind(name, before));
    let lightning = || name.strip_prefix("grad_2.0_norm_")?.strip_suffix("_step");
    tensor.or_else(lightning).filter(|tensor| !WHOLE.contains(tensor))
}

/// What a name goes on with behind a start, which may stand below folders.
fn behind<'a>(name: &'a str, start: &str) -> Option<&'a str> {
    let at = name.find(start).filter(|at| *at == 0 || name[..*at].ends_with('/'))?;
    Some(&name[at + start.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::log_of;

    fn log(names: &[(&str, usize)]) -> Log {
        let series = names.iter().map(|(name, count)| (*name, &[1.0; 99][..*count]));
        log_of(&series.collect::<Vec<_>>())
    }

    #[test]
    fn names_as_writers_use_them() {
        // (names with the number of their points, loss, gradient norm, learning rate)
        type Case<'a> = (&'a [(&'a str, usize)], Option<&'a str>, Option<&'a str>, Option<&'a str>);
        let cases: &[Case<'_>] = &[
            (
                &[
                    ("train/loss", 9),
                    ("eval/loss", 3),
                    ("train/grad_norm", 9),
                    ("train/learning_rate", 9),
                ],
                Some("train/loss"),
                Some("train/grad_norm"),
                Some("train/learning_rate"),
            ),
            (
                &[("loss_ce", 9), ("total_loss", 9), ("loss_mask", 9), ("lr", 9)],
                Some("total_loss"),
                None,
                Some("lr"),
            ),
            (
                &[("train_loss", 1), ("train_loss_batch", 50), ("val_loss_batch_step", 70)],
                Some("train_loss_batch"),
                None,
                None,
            ),
            (
                &[("iteration", 9), ("lm loss", 9), ("grad-norm", 9), ("loss_scale", 9)],
                Some("lm loss"),
                Some("grad-norm"),
                None,
            ),
            (&[("loss/policy", 9), ("loss/value", 9)], Some("loss/policy"), None, None),
            (
                &[("loss", 9), ("grad_norm", 9), ("grad_norm_afterclip", 9)],
                Some("loss"),
                Some("grad_norm"),
                None,
            ),
            (
                &[
                    ("loss_metrics/global_avg_loss", 9),
                    ("optim/total grad norm", 9),
                    ("optim/LR", 9),
                ],
                Some("loss_metrics/global_avg_loss"),
                Some("optim/total grad norm"),
                Some("optim/LR"),
            ),
            (&[("val_loss", 9), ("accuracy", 9), ("loss_scale", 9)], None, None, None),
        ];
        for (names, loss, norm, rate) in cases {
            let log = log(names);
            let roles = Roles::find(&log, &[]).unwrap();
            let name = |series: Option<&Series>| series.map(|series| series.name.clone());
            assert_eq!(name(roles.loss).as_deref(), *loss, "{names:?}");
            assert_eq!(name(roles.grad_norm).as_deref(), *norm, "{names:?}");
            assert_eq!(name(roles.learning_rate).as_deref(), *rate, "{names:?}");
        }
    }

    #[test]
    fn single_tensors() {
        let cases = [
            ("gradients/layers.0.weight", Some("layers.0.weight")),
            ("l2_norm/grad/model.h.3.mlp", Some("model.h.3.mlp")),
            ("l2_norm/grad/global", None),
            ("grad_2.0_norm/fc.bias", Some("fc.bias")),
            ("grad_2.0_norm_total", None),
            ("grad_2.0_norm_fc.bias_step", Some("fc.bias")),
            ("train/grad_norm", None),
            ("parameters/layers.0.weight", None),
        ];
        for (name, want) in cases {
            assert_eq!(tensor_name(name), want, "{name}");
        }
    }

    #[test]
    fn a_mapped_name_goes_before_and_must_be_there() {
        let log = log(&[("loss", 3), ("objective", 3)]);
        let map = [(Role::Loss, "objective".to_owned())];
        assert_eq!(Roles::find(&log, &map).unwrap().loss.unwrap().name, "objective");
        let error = Roles::find(&log, &[(Role::GradNorm, "gn".to_owned())]).unwrap_err();
        assert_eq!(error, "got `gn` for grad_norm, want one of: loss, objective");
        assert_eq!("grad_norm".parse(), Ok(Role::GradNorm));
        assert_eq!(
            "x".parse::<Role>().unwrap_err(),
            "got `x`, want one of loss, grad_norm, lr, loss_scale, metric"
        );
    }
}
