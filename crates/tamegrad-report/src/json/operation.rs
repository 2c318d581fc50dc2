//! An operation as JSON.

use serde::{Deserialize, Serialize};
use tamegrad::inspection::{Operand, Operation, OperationKind, SourceLine};

use super::number;
use crate::words;

/// The operation that made the first value that was not finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationReport {
    /// Kebab-case name of what it computes.
    pub kind: String,
    /// The framework's name for it.
    pub name: String,
    /// Whether its gradient was not finite, and its result was.
    pub is_backward: bool,
    /// Dotted path of the module that called it; `null` outside the model.
    pub module: Option<String>,
    /// Where it stands in the user's source.
    pub line: Option<LineReport>,
    /// What it was given.
    pub operands: Vec<OperandReport>,
    /// Elements of its result, or of its gradient, that were NaN.
    pub nan: u64,
    /// Elements of it that were infinite.
    pub inf: u64,
    /// Largest finite value of the result's number type.
    #[serde(with = "number::optional")]
    pub dtype_max: Option<f64>,
    /// Whether the same operation is finite in a wider number type.
    pub wider_is_finite: Option<bool>,
    /// Whether it lies in a compiled region.
    pub is_compiled: bool,
    /// The whole in words.
    pub text: String,
}

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineReport {
    /// Path of the file.
    pub file: String,
    /// Number of the line, from 1.
    pub line: u64,
    /// The function that it is part of.
    pub function: String,
    /// The text of the line.
    pub code: String,
}

/// A tensor that an operation was given, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperandReport {
    /// Its number type.
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
    /// Smallest magnitude above 0.
    #[serde(with = "number::optional")]
    pub smallest: Option<f64>,
    /// Largest finite magnitude.
    #[serde(with = "number::optional")]
    pub largest: Option<f64>,
    /// Rows of which every element is negative infinity.
    pub masked_rows: u64,
    /// Kebab-case name of the operation that made it.
    pub made_by: Option<String>,
}

impl From<&Operation> for OperationReport {
    fn from(of: &Operation) -> Self {
        let line = of.line.as_ref().map(|line| LineReport {
            file: line.file.clone(),
            line: line.line,
            function: line.function.clone(),
            code: line.code.clone(),
        });
        Self {
            kind: of.kind.as_str().to_owned(),
            name: of.name.clone(),
            is_backward: of.is_backward,
            module: of.module.clone(),
            line,
            operands: of.operands.iter().map(OperandReport::from).collect(),
            nan: of.nan,
            inf: of.inf,
            dtype_max: of.dtype_max,
            wider_is_finite: of.wider_is_finite,
            is_compiled: of.is_compiled,
            text: words::operation(of),
        }
    }
}

impl From<&Operand> for OperandReport {
    fn from(of: &Operand) -> Self {
        Self {
            dtype: of.dtype.clone(),
            len: of.len,
            zeros: of.zeros,
            negatives: of.negatives,
            nan: of.nan,
            pos_inf: of.pos_inf,
            neg_inf: of.neg_inf,
            smallest: of.smallest,
            largest: of.largest,
            masked_rows: of.masked_rows,
            made_by: of.made_by.map(|kind| kind.as_str().to_owned()),
        }
    }
}

impl TryFrom<&OperationReport> for Operation {
    type Error = String;

    /// Reads an operation back.
    ///
    /// # Errors
    /// A kind that this version does not know.
    fn try_from(of: &OperationReport) -> Result<Self, String> {
        let kind = |name: &str| {
            let found = OperationKind::ALL.iter().copied().find(|kind| kind.as_str() == name);
            found.ok_or_else(|| {
                format!("operation: got `{name}`, which this version of tamegrad does not know")
            })
        };
        let operand = |of: &OperandReport| {
            Ok::<_, String>(Operand {
                dtype: of.dtype.clone(),
                len: of.len,
                zeros: of.zeros,
                negatives: of.negatives,
                nan: of.nan,
                pos_inf: of.pos_inf,
                neg_inf: of.neg_inf,
                smallest: of.smallest,
                largest: of.largest,
                masked_rows: of.masked_rows,
                made_by: of.made_by.as_deref().map(kind).transpose()?,
            })
        };
        let line = of.line.as_ref().map(|line| SourceLine {
            file: line.file.clone(),
            line: line.line,
            function: line.function.clone(),
            code: line.code.clone(),
        });
        Ok(Self {
            kind: kind(&of.kind)?,
            name: of.name.clone(),
            is_backward: of.is_backward,
            module: of.module.clone(),
            line,
            operands: of.operands.iter().map(operand).collect::<Result<_, _>>()?,
            nan: of.nan,
            inf: of.inf,
            dtype_max: of.dtype_max,
            wider_is_finite: of.wider_is_finite,
            is_compiled: of.is_compiled,
        })
    }
}
