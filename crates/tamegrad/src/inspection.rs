//! What an integration finds when it looks into the step of an alarm: an [`Inspection`].

use crate::evidence::named_enum;
use crate::observe::{LayerId, TensorId};

named_enum! {
    /// What an operation computes, whatever the framework calls it.
    #[cfg_attr(
        feature = "serde",
        derive(serde::Serialize, serde::Deserialize),
        serde(rename_all = "kebab-case")
    )]
    OperationKind {
        /// A logarithm.
        Log => "log",
        /// A square root, or one over it.
        Sqrt => "sqrt",
        /// A norm or a distance.
        Norm => "norm",
        /// A standard deviation or variance.
        Std => "std",
        /// A division or a reciprocal.
        Division => "division",
        /// A power.
        Power => "power",
        /// An exponential, or a function that contains one.
        Exp => "exp",
        /// An inverse trigonometric or hyperbolic function.
        InverseTrigonometric => "inverse-trigonometric",
        /// A softmax.
        Softmax => "softmax",
        /// The logarithm of a softmax.
        LogSoftmax => "log-softmax",
        /// Attention in one operation.
        Attention => "attention",
        /// A mean.
        Mean => "mean",
        /// A sum.
        Sum => "sum",
        /// A choice by a mask.
        Where => "where",
        /// Values overwritten by a mask.
        Mask => "mask",
        /// A product of matrices.
        Matmul => "matmul",
        /// A convolution.
        Convolution => "convolution",
        /// A normalisation over a batch or over features.
        Normalisation => "normalisation",
        /// A conversion to another number type.
        Cast => "cast",
        /// A product by elements.
        Multiply => "multiply",
        /// A sum or difference by elements.
        Add => "add",
        /// A loss in one operation.
        Loss => "loss",
        /// A function that the user has given forward and backward.
        Custom => "custom",
        /// Anything else.
        Other => "other",
    }
}

impl OperationKind {
    /// The kind of this name; [`OperationKind::Other`] for a name that is not in the list.
    ///
    /// ```
    /// use tamegrad::inspection::OperationKind;
    ///
    /// assert_eq!(OperationKind::named("sqrt"), OperationKind::Sqrt);
    /// assert_eq!(OperationKind::named("fft"), OperationKind::Other);
    /// ```
    pub fn named(name: &str) -> Self {
        let mut kinds = Self::ALL.iter().copied();
        kinds.find(|kind| kind.as_str() == name).unwrap_or(OperationKind::Other)
    }

    /// Whether infinities are given to it on purpose.
    pub(crate) fn masks(self) -> bool {
        use OperationKind::{Add, Attention, LogSoftmax, Mask, Softmax, Where};
        matches!(self, Add | Attention | LogSoftmax | Mask | Softmax | Where)
    }

    /// Whether it may do no more than move what it is given, or change its type.
    pub(crate) fn passes_on(self) -> bool {
        matches!(self, OperationKind::Cast | OperationKind::Other)
    }

    /// Whether the function, or its slope, is infinite or undefined at some finite inputs.
    pub fn is_singular(self) -> bool {
        use OperationKind::{Division, Exp, InverseTrigonometric, Log, Norm, Power, Sqrt, Std};
        matches!(self, Division | Exp | InverseTrigonometric | Log | Norm | Power | Sqrt | Std)
    }
}

/// A line of the user's source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SourceLine {
    /// Path of the file.
    pub file: String,
    /// Number of the line, from 1.
    pub line: u64,
    /// The function that it is part of; empty where that is not known.
    pub function: String,
    /// The text of the line; empty where that is not known.
    pub code: String,
}

/// What an operation was given: one tensor in numbers.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Operand {
    /// Its number type, such as `float32`.
    pub dtype: String,
    /// Number of elements.
    pub len: u64,
    /// Elements that are 0.
    pub zeros: u64,
    /// Elements below 0.
    pub negatives: u64,
    /// Elements that are NaN.
    pub nan: u64,
    /// Elements that are positive infinity.
    pub pos_inf: u64,
    /// Elements that are negative infinity.
    pub neg_inf: u64,
    /// Smallest magnitude above 0 of the finite elements.
    pub smallest: Option<f64>,
    /// Largest magnitude of the finite elements.
    pub largest: Option<f64>,
    /// Rows of which every element is negative infinity.
    pub masked_rows: u64,
    /// The operation that made it, where that is known.
    pub made_by: Option<OperationKind>,
}

impl Operand {
    /// Elements that are NaN or infinite.
    pub(crate) fn nonfinite(&self) -> u64 {
        self.nan + self.pos_inf + self.neg_inf
    }

    /// Whether it is one infinite number, which somebody has written down.
    pub(crate) fn is_constant(&self) -> bool {
        self.len == 1 && self.pos_inf + self.neg_inf == 1
    }
}

/// The operation that made the first value that is not finite: its result is not finite and its operands
/// are, but for an infinity that was put there on purpose.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Operation {
    /// What it computes.
    pub kind: OperationKind,
    /// The framework's name for it.
    pub name: String,
    /// Whether its gradient is not finite, and its result was.
    pub is_backward: bool,
    /// Dotted path of the module that called it; `None` outside the model.
    pub module: Option<String>,
    /// Where it stands in the user's source.
    pub line: Option<SourceLine>,
    /// What it was given.
    pub operands: Vec<Operand>,
    /// Elements of the result, or of its gradient, that are NaN.
    pub nan: u64,
    /// Elements of it that are infinite.
    pub inf: u64,
    /// Largest finite value of the result's number type.
    pub dtype_max: Option<f64>,
    /// Whether the same operation is finite in a wider number type; `None` where it was not tried.
    pub wider_is_finite: Option<bool>,
    /// Whether it lies in a compiled region, and may be several operations in one.
    pub is_compiled: bool,
}

impl Operation {
    /// An operation of which only the kind is known.
    pub fn new(kind: OperationKind) -> Self {
        Self {
            kind,
            name: kind.as_str().to_owned(),
            is_backward: false,
            module: None,
            line: None,
            operands: Vec::new(),
            nan: 0,
            inf: 0,
            dtype_max: None,
            wider_is_finite: None,
            is_compiled: false,
        }
    }

    /// Whether it overflowed a number type of 16 bits, or of less, though a wider one has room.
    pub(crate) fn overflows_narrow_type(&self) -> bool {
        let is_narrow = self.dtype_max.is_some_and(|max| max <= NARROW_MAX);
        // An exponential or a power of a number that is not 0 is finite in a type that is wide enough.
        let overflows = matches!(self.kind, OperationKind::Exp | OperationKind::Power)
            || !self.kind.is_singular();
        self.wider_is_finite.unwrap_or(is_narrow && self.inf > 0 && overflows)
    }

    /// Whether it was given finite numbers alone.
    pub(crate) fn has_finite_operands(&self) -> bool {
        !self.operands.is_empty() && self.operands.iter().all(|of| of.nonfinite() == 0)
    }

    /// Whether it is undefined, or its slope is, at the finite numbers that it was given, whatever its kind:
    /// they are far from any overflow.
    pub(crate) fn is_undefined(&self) -> bool {
        let largest = self.operands.iter().filter_map(|operand| operand.largest);
        let is_far = largest.fold(0.0, f64::max) < self.dtype_max.unwrap_or(f64::MAX).sqrt();
        self.has_finite_operands() && is_far && self.nan + self.inf > 0
    }
}

/// Largest value of a number type that overflows long before f32 does: float16 ends at 65,504, and
/// bfloat16 where f32 does.
pub(crate) const NARROW_MAX: f64 = 65_504.0;

/// The integer targets of a classification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Labels {
    /// Number of labels.
    pub len: u64,
    /// Labels that the loss leaves out.
    pub ignored: u64,
    /// Smallest of the others.
    pub min: i64,
    /// Largest of the others.
    pub max: i64,
    /// Number of classes of the model's output; 0 where that is not known.
    pub classes: u64,
    /// Sequences whose labels are longer than their input can hold.
    pub too_long: u64,
    /// Whether the loss is a sum over the labels, and not a mean.
    pub is_summed: bool,
}

impl Labels {
    /// Whether a label is no class.
    pub(crate) fn are_outside(&self) -> bool {
        let is_above = self.classes > 0 && u64::try_from(self.max).is_ok_and(|m| m >= self.classes);
        self.ignored < self.len && (self.min < 0 || is_above)
    }
}

/// What the optimizer divided by when it broke a parameter.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Division {
    /// The parameter.
    pub tensor: TensorId,
    /// Name of the optimizer.
    pub optimizer: String,
    /// What it adds to the divisor.
    pub eps: f64,
    /// Name of the number type of its state.
    pub dtype: String,
    /// What `eps` is in that type.
    pub eps_in_type: f64,
    /// Elements of the divisor's state that are 0 in it.
    pub zeros: u64,
    /// Those of them whose gradients are not 0, and far larger than `eps`: their squares were lost.
    pub lost: u64,
    /// Elements of the state.
    pub len: u64,
}

/// What the gradient of a step is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Accumulation {
    /// Backward passes since the step before.
    pub passes: u64,
    /// L2 norm of the gradient of the last of them alone.
    pub norm_of_one: f64,
    /// L2 norm of the gradient that the optimizer is given.
    pub norm: f64,
    /// L2 norm of what the step before had left in the gradients when the first pass began.
    pub norm_left: f64,
}

/// Calls of one module in a pass, each of which is given what the one before has made.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TimeSteps {
    /// The layer, where it is one.
    pub layer: Option<LayerId>,
    /// Number of the calls.
    pub calls: u64,
    /// L2 norm of the gradient at the output of the first call.
    pub norm_of_first: f64,
    /// The same of the last call.
    pub norm_of_last: f64,
}

/// A batch's data whose rows are not finite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BrokenRows {
    /// Name of the input; `None`: the targets.
    pub input: Option<String>,
    /// Numbers of rows, at most [`BrokenRows::MAX`].
    pub rows: Vec<u64>,
    /// How many there are.
    pub count: u64,
}

impl BrokenRows {
    /// Rows that are listed.
    pub const MAX: usize = 20;
}

named_enum! {
    /// One thing that is changed when the step of an alarm is run again.
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    Varied {
        /// Nothing.
        Again => "again",
        /// Nothing, a second time: whether the bits are those of the first.
        Twice => "same-bits",
        /// All numbers in f32, without autocast.
        F32 => "f32",
        /// All numbers in f64.
        F64 => "f64",
        /// No autocast.
        NoAutocast => "no-autocast",
        /// No compilation.
        NoCompile => "no-compile",
        /// Attention in single operations.
        PlainAttention => "plain-attention",
        /// On the CPU.
        Cpu => "cpu",
        /// No dropout.
        NoDropout => "no-dropout",
        /// Nothing, with the update that follows.
        Update => "update",
        /// The update with a larger eps.
        LargerEps => "larger-eps",
        /// The update with parameters and optimizer state in f32.
        F32State => "f32-state",
    }
}

/// What came of running the step of an alarm again with one thing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Experiment {
    /// What was changed.
    pub varied: Varied,
    /// Whether loss, gradients and, where an update was made, parameters were finite. Of
    /// [`Varied::Twice`], whether the bits were the same.
    pub is_finite: bool,
}

/// What an integration finds out about an alarm, beside what it reports of every step. What is not known
/// is `None` or empty.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Inspection {
    /// The operation that made the first value that is not finite.
    pub operation: Option<Operation>,
    /// The integer targets.
    pub labels: Option<Labels>,
    /// Smallest and largest target of a loss that wants probabilities.
    pub probabilities: Option<(f64, f64)>,
    /// Rows of the data that are not finite.
    pub rows: Vec<BrokenRows>,
    /// The division of the optimizer that broke a parameter.
    pub division: Option<Division>,
    /// What the gradient is made of.
    pub accumulation: Option<Accumulation>,
    /// How the gradient grows back through time.
    pub time_steps: Option<TimeSteps>,
    /// The first parameter that was not finite before the pass that first was not, with the number of its
    /// elements that are NaN or infinite.
    pub parameter: Option<(TensorId, u64)>,
    /// The step run again, each time with one thing changed.
    pub experiments: Vec<Experiment>,
}

impl Inspection {
    /// These facts, and `other`'s where these are unknown.
    pub fn or(self, other: Inspection) -> Inspection {
        Inspection {
            operation: self.operation.or(other.operation),
            labels: self.labels.or(other.labels),
            probabilities: self.probabilities.or(other.probabilities),
            rows: if self.rows.is_empty() { other.rows } else { self.rows },
            division: self.division.or(other.division),
            accumulation: self.accumulation.or(other.accumulation),
            time_steps: self.time_steps.or(other.time_steps),
            parameter: self.parameter.or(other.parameter),
            experiments: if self.experiments.is_empty() {
                other.experiments
            } else {
                self.experiments
            },
        }
    }
}
