//! Which series of a log is the loss and which the gradient norm, by the names that writers use.

mod behaviour;
mod metric;
mod updates;

use crate::log::{Log, Point, Series};
use crate::vocabulary::{HELD_OUT, LossName, has, is_gradient_norm, is_match, normal, words};
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

/// Names that the user gave to roles. A name may be a pattern with `*` and `?`, and a role may have
/// several.
pub type Map = [(Role, String)];

/// Which series plays which role.
#[derive(Debug, Clone, Default)]
pub struct Roles<'a> {
    /// Training losses, that of the whole first.
    pub losses: Vec<&'a Series>,
    /// Whether the first of them is that of the whole, and the others are its parts.
    pub first_is_whole: bool,
    /// L2 norms of the whole gradient, or of the gradients of single networks.
    pub grad_norms: Vec<&'a Series>,
    /// Learning rate.
    pub learning_rate: Option<&'a Series>,
    /// Scale of the loss in mixed precision.
    pub loss_scale: Option<&'a Series>,
    /// A metric on held-out data.
    pub metric: Option<&'a Series>,
    /// Gradient norms of individual tensors, by the tensor's name.
    pub tensors: Vec<(&'a str, &'a Series)>,
    /// Why the losses are taken for losses.
    pub loss_ground: Ground,
    /// Roles that the user gave.
    pub mapped: Vec<Role>,
}

/// Why a series has its role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ground {
    /// Its name says so.
    #[default]
    Name,
    /// Its name is one of a loss where nothing is called a loss.
    LikelyName,
    /// It falls as a loss does, where nothing has the name of one.
    Behaviour,
    /// The user said so.
    Mapped,
}

impl Ground {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "by its name",
            Self::LikelyName => "by its name, since nothing is called a loss",
            Self::Behaviour => "it falls as a loss does, and nothing has the name of one",
            Self::Mapped => "by --map",
        }
    }
}

impl<'a> Roles<'a> {
    /// Finds the roles in a log; what the user mapped takes precedence over what names suggest.
    ///
    /// # Errors
    /// If the log does not have a mapped name; the message lists the names that it has.
    pub fn find(log: &'a Log, map: &Map) -> Result<Self, String> {
        let tensors: Vec<(&str, &Series)> =
            log.series.iter().filter_map(|s| Some((tensor_name(&s.name)?, s))).collect();
        let (losses, loss_ground) = losses(log);
        let mut grad_norms = ranked(log, norm_score);
        grad_norms.retain(|norm| tensor_name(&norm.name).is_none());
        let first_is_whole = losses.first().is_some_and(|first| is_whole(&normal(&first.name)));
        let mut roles = Self {
            losses,
            first_is_whole,
            loss_ground,
            grad_norms,
            learning_rate: ranked(log, rate_score).first().copied(),
            loss_scale: ranked(log, scale_score).first().copied(),
            metric: metric::find(log),
            tensors,
            mapped: Vec::new(),
        };
        roles.apply(log, map)?;
        Ok(roles)
    }

    fn apply(&mut self, log: &'a Log, map: &Map) -> Result<(), String> {
        for role in Role::ALL {
            let mut given: Vec<&Series> = Vec::new();
            for (_, pattern) in map.iter().filter(|(of, _)| *of == role) {
                let found = named(log, pattern);
                if found.is_empty() {
                    let names: Vec<&str> = log.series.iter().map(|s| s.name.as_str()).collect();
                    let names = names.join(", ");
                    return Err(format!(
                        "got `{pattern}` for {}, want one of: {names}",
                        role.as_str()
                    ));
                }
                given.extend(
                    found
                        .into_iter()
                        .filter(|s| !given.iter().any(|g| g.name == s.name))
                        .collect::<Vec<_>>(),
                );
            }
            let Some(&first) = given.first() else { continue };
            self.mapped.push(role);
            match role {
                Role::Loss => {
                    (self.losses, self.loss_ground) = (given, Ground::Mapped);
                    self.first_is_whole = false;
                }
                Role::GradNorm => self.grad_norms = given,
                Role::LearningRate => self.learning_rate = Some(first),
                Role::LossScale => self.loss_scale = Some(first),
                Role::Metric => self.metric = Some(first),
            }
        }
        Ok(())
    }

    /// The training loss of the whole.
    pub fn loss(&self) -> Option<&'a Series> {
        self.losses.first().copied()
    }

    /// The norm of the whole gradient, or of that of the first network.
    pub fn grad_norm(&self) -> Option<&'a Series> {
        self.grad_norms.first().copied()
    }

    /// The role of a series, and why it has it.
    pub fn role(&self, name: &str) -> Option<(Role, Ground)> {
        let is = |series: &&Series| series.name == name;
        let single = |of: Option<&'a Series>, role| of.filter(is).map(|_| role);
        let several = |of: &[&'a Series], role| of.iter().copied().find(|s| is(s)).map(|_| role);
        let role = several(&self.losses, Role::Loss)
            .or_else(|| several(&self.grad_norms, Role::GradNorm))
            .or_else(|| single(self.learning_rate, Role::LearningRate))
            .or_else(|| single(self.loss_scale, Role::LossScale))
            .or_else(|| single(self.metric, Role::Metric))?;
        let ground = match role {
            _ if self.mapped.contains(&role) => Ground::Mapped,
            Role::Loss => self.loss_ground,
            _ => Ground::Name,
        };
        Some((role, ground))
    }

    /// Whether the metric improves by falling, by its name.
    pub fn is_lower_better(&self) -> bool {
        self.metric.is_some_and(|series| metric::is_lower_better(&series.name))
    }
}

/// The series of a name as it is or, if there is none, of a pattern with `*` and `?`.
pub(crate) fn named<'a>(log: &'a Log, pattern: &str) -> Vec<&'a Series> {
    if let Some(series) = log.series(pattern) {
        return vec![series];
    }
    log.series.iter().filter(|series| is_match(&series.name, pattern)).collect()
}

/// The points as the core takes them.
pub(crate) fn samples(points: &[Point]) -> Vec<Sample> {
    points.iter().map(|point| Sample { step: point.step, value: point.value }).collect()
}

/// A series has this many times the numbers of one that is its summary, such as an epoch's mean or sum.
const SUMMARY_OF: usize = 5;

/// The series with a score, the best first: that with the highest score; of equals the first. Those
/// with far fewer numbers than others are summaries, and come last.
fn ranked(log: &Log, score: fn(&str) -> u32) -> Vec<&Series> {
    let scored = log.series.iter().map(|s| (score(&normal(&s.name)), s));
    let mut found: Vec<(u32, &Series)> =
        scored.filter(|(score, series)| *score > 0 && !series.points.is_empty()).collect();
    let most = found.iter().map(|(_, series)| series.points.len()).max().unwrap_or(0);
    let is_summary = |series: &Series| SUMMARY_OF * series.points.len() < most;
    found.sort_by_key(|(score, series)| (is_summary(series), std::cmp::Reverse(*score)));
    found.into_iter().map(|(_, series)| series).collect()
}

/// The training losses: what is called so, or else has a name that a loss may have, or falls as one.
fn losses(log: &Log) -> (Vec<&Series>, Ground) {
    let strong = ranked(log, loss_score);
    if !strong.is_empty() {
        return (strong, Ground::Name);
    }
    let likely = ranked(log, likely_score);
    if !likely.is_empty() {
        return (likely, Ground::LikelyName);
    }
    let falling = behaviour::losses(log);
    let ground = if falling.is_empty() { Ground::Name } else { Ground::Behaviour };
    (falling, ground)
}

/// Whether the name is of a loss and says of nothing in particular: `train/total_loss`, not `box_loss`.
fn is_whole(name: &str) -> bool {
    const OF_ALL: &[&str] = &[
        "loss", "losses", "train", "training", "tr", "total", "overall", "global", "all", "sum",
        "mean", "avg", "average", "running", "smooth", "smoothed", "epoch", "step", "batch",
        "iter", "lm", "metrics", "log", "inner",
    ];
    has(name, &["loss", "losses"]) && words(name).all(|word| OF_ALL.contains(&word))
}

/// How sure it is that a name is the training loss; 0 if it is not.
fn loss_score(name: &str) -> u32 {
    if LossName::of(name) != LossName::Loss || has(name, HELD_OUT) {
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

/// The same for names of a loss where nothing is called one.
fn likely_score(name: &str) -> u32 {
    let is_train = has(name, &["train", "training", "tr"]);
    match LossName::of(name) {
        _ if has(name, HELD_OUT) => 0,
        LossName::Fair => 50 + u32::from(is_train),
        LossName::Weak => 20 + u32::from(is_train),
        _ => 0,
    }
}

/// How sure it is that a name is the norm of the whole gradient, or of one network.
fn norm_score(name: &str) -> u32 {
    if !is_gradient_norm(name) || has(name, HELD_OUT) {
        return 0;
    }
    match name {
        "grad_norm" | "train_grad_norm" | "gradient_norm" | "gnorm" | "global_grad_norm" => 100,
        "total_grad_norm" | "grad_norm_total" | "optim_total_grad_norm" => 98,
        "l2_norm_grad_global" | "grad_2_0_norm_total" | "grad_2_norm_total" => 98,
        "train_gnorm" | "train_inner_gnorm" | "total_norm" => 96,
        "norm" => 60,
        _ if has(name, &["total", "global", "before", "unclipped", "preclip"]) => 80,
        // The norm of one tensor or layer, as a rule.
        _ if words(name).count() > 4 => 0,
        _ => 40,
    }
}

fn rate_score(name: &str) -> u32 {
    match name {
        "lr" | "learning_rate" | "train_lr" | "train_learning_rate" => 100,
        _ if name.contains("learning_rate") => 80,
        _ if has(name, &["lr", "lrate", "lr0", "lr1"]) => 70,
        _ => 0,
    }
}

fn scale_score(name: &str) -> u32 {
    match name {
        "loss_scale" | "train_loss_scale" => 100,
        _ if name.contains("loss_scale") || name.contains("grad_scale") => 80,
        _ if name.contains("loss_scaler")
            || has(name, &["amp", "fp16"]) && has(name, &["scale"]) =>
        {
            70
        }
        _ => 0,
    }
}

/// The tensor whose gradient norm, or histogram of gradients, a series is.
fn tensor_name(name: &str) -> Option<&str> {
    const BEFORE: &[&str] = &[
        "gradients/",
        "gradient/",
        "grads/",
        "l2_norm/grad/",
        "grad_norm/",
        "grad_norms/",
        "grad/norm/",
        "gradients/norm/",
        "gradient_norm/",
        "gradient_norms/",
        "gradnorm/",
        "grad_2.0_norm/",
        "grad_2_norm/",
    ];
    // What stands there for the whole of a network, or says when it was measured.
    const WHOLE: &[&str] = &[
        "global",
        "total",
        "all",
        "",
        "norm",
        "before",
        "after",
        "clip",
        "mean",
        "max",
        "min",
        "std",
        "actor",
        "critic",
        "policy",
        "value",
        "generator",
        "discriminator",
        "encoder",
        "decoder",
        "model",
        "train",
        "unclipped",
        "clipped",
    ];
    let tensor = BEFORE.iter().rev().find_map(|before| behind(name, before));
    let lightning = || name.strip_prefix("grad_2.0_norm_")?.strip_suffix("_step");
    let is_part = |tensor: &&str| !words(&normal(tensor)).all(|word| WHOLE.contains(&word));
    tensor.or_else(lightning).filter(is_part)
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
            assert_eq!(name(roles.loss()).as_deref(), *loss, "{names:?}");
            assert_eq!(name(roles.grad_norm()).as_deref(), *norm, "{names:?}");
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
    fn the_norm_of_a_tensor_is_not_that_of_a_network() {
        let log = log(&[("loss", 9), ("grad_norm/0.bias", 9), ("grad_norm/critic", 9)]);
        let roles = Roles::find(&log, &[]).unwrap();
        let names = |of: &[&Series]| of.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&roles.grad_norms), ["grad_norm/critic"]);
        let tensors: Vec<&str> = roles.tensors.iter().map(|(name, _)| *name).collect();
        assert_eq!(tensors, ["0.bias"]);
    }

    #[test]
    fn a_mapped_name_goes_before_and_must_be_there() {
        let log = log(&[("loss", 3), ("objective", 3)]);
        let map = [(Role::Loss, "objective".to_owned())];
        assert_eq!(Roles::find(&log, &map).unwrap().loss().unwrap().name, "objective");
        let error = Roles::find(&log, &[(Role::GradNorm, "gn".to_owned())]).unwrap_err();
        assert_eq!(error, "got `gn` for grad_norm, want one of: loss, objective");
        assert_eq!("grad_norm".parse(), Ok(Role::GradNorm));
        assert_eq!(
            "x".parse::<Role>().unwrap_err(),
            "got `x`, want one of loss, grad_norm, lr, loss_scale, metric"
        );
    }
}
