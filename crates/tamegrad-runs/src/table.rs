//! What the files of a run folder hold, and how rows become Arrow columns and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float64Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, Float64Array, PrimitiveArray};
use arrow_schema::{Field, Schema};
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Kind};

/// What a run is: the contents of `run.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    /// The watched tensors; a row's tensor is a place in this table.
    pub tensors: Vec<TensorInfo>,
    /// The text of the recipe that was trained, if there was one.
    pub recipe: Option<String>,
    /// Where the run comes from, if not from a recipe: a script, a framework.
    pub source: Option<String>,
    /// Versions, hardware, seeds and other circumstances.
    pub environment: BTreeMap<String, String>,
}

/// One watched tensor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TensorInfo {
    /// Its name, such as `fc1.weight`.
    pub name: String,
    /// The layer it belongs to.
    pub layer: Option<String>,
    /// How many numbers it has.
    pub len: u64,
}

/// Rows that an Arrow stream holds.
pub(super) trait Table: Copy {
    /// The Arrow schema.
    fn schema() -> Schema;

    /// The columns of some rows.
    fn columns(rows: &[Self]) -> Vec<ArrayRef>;

    /// A row of a batch; `None` where the batch lacks what a row cannot do without.
    fn row(batch: &Batch, row: usize) -> Option<Self>;

    /// The step and the segment, by which rows are in order.
    fn place(&self) -> (u32, u64);
}

/// A value of a column.
trait Cell: Sized {
    fn field(name: &str) -> Field;

    fn array(values: impl Iterator<Item = Self>) -> ArrayRef;

    /// The value in a row of a batch; `None` where the batch lacks the column or the value.
    fn read(batch: &Batch, column: &str, row: usize) -> Option<Self>;
}

macro_rules! cells {
    ($($native:ty: $arrow:ty, $kind:ident;)+) => {$(
        impl Cell for $native {
            fn field(name: &str) -> Field {
                Field::new(name, <$arrow>::DATA_TYPE, false)
            }

            fn array(values: impl Iterator<Item = Self>) -> ArrayRef {
                Arc::new(PrimitiveArray::<$arrow>::from_iter_values(values))
            }

            fn read(batch: &Batch, column: &str, row: usize) -> Option<Self> {
                batch.value(column, Kind::$kind, row).map(Self::from_le_bytes)
            }
        }
    )+};
}

cells! {
    u32: UInt32Type, U32;
    u64: UInt64Type, U64;
    f64: Float64Type, F64;
}

impl Cell for Option<f64> {
    fn field(name: &str) -> Field {
        f64::field(name).with_nullable(true)
    }

    fn array(values: impl Iterator<Item = Self>) -> ArrayRef {
        Arc::new(values.collect::<Float64Array>())
    }

    fn read(batch: &Batch, column: &str, row: usize) -> Option<Self> {
        Some(f64::read(batch, column, row))
    }
}

/// Makes the fields of a struct the columns of a stream. Behind `=` is the value of a field that a
/// batch lacks; without it, there is no row.
macro_rules! table {
    ($(#[$about:meta])* pub struct $row:ident {
        $($(#[$doc:meta])* pub $field:ident: $kind:ty $(= $missing:expr)?,)+
    }) => {
        $(#[$about])*
        pub struct $row {
            $($(#[$doc])* pub $field: $kind,)+
        }

        impl Table for $row {
            fn schema() -> Schema {
                Schema::new(vec![$(<$kind>::field(stringify!($field))),+])
            }

            fn columns(rows: &[Self]) -> Vec<ArrayRef> {
                vec![$(<$kind>::array(rows.iter().map(|row| row.$field))),+]
            }

            fn row(batch: &Batch, row: usize) -> Option<Self> {
                $(
                    let value = <$kind>::read(batch, stringify!($field), row);
                    let $field = value$(.or(Some($missing)))??;
                )+
                Some(Self { $($field),+ })
            }

            fn place(&self) -> (u32, u64) {
                (self.segment, self.step)
            }
        }
    };
}

table! {
    /// One step: a row of `steps.arrows`.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    pub struct StepRow {
        /// The step.
        pub step: u64,
        /// Number of rewinds before it: steps ascend within a segment.
        pub segment: u32 = 0,
        /// Seconds since 1970; NaN if unknown.
        pub wall: f64 = f64::NAN,
        /// The training loss.
        pub loss: Option<f64>,
        /// The metric of the task, such as an accuracy.
        pub metric: Option<f64>,
        /// The learning rate.
        pub learning_rate: Option<f64>,
        /// The L2 norm of all gradients together.
        pub gradient_norm: Option<f64>,
        /// Gradient values that were NaN or infinite.
        pub nonfinite_gradients: u64 = 0,
        /// The largest ratio of an update's norm to its parameter's norm.
        pub update_ratio: Option<f64>,
    }
}

impl StepRow {
    /// Whether a number of this step is NaN or infinite.
    pub fn is_nonfinite(&self) -> bool {
        self.nonfinite_gradients > 0
            || [self.loss, self.metric, self.gradient_norm, self.update_ratio]
                .into_iter()
                .flatten()
                .any(|value| !value.is_finite())
    }
}

/// The gradient of one tensor at a step, as it is handed to the writer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TensorRow {
    /// The place in [`RunInfo::tensors`].
    pub tensor: u32,
    /// The L2 norm.
    pub l2: f64,
    /// The largest magnitude.
    pub max_abs: f64,
    /// The mean.
    pub mean: f64,
    /// How many values are NaN.
    pub nans: u64,
    /// How many are infinite.
    pub infs: u64,
    /// How many are zero.
    pub zeros: u64,
}

table! {
    /// The gradient of one tensor at one step, or an envelope of many: a row of `tensors.arrows`.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    pub struct TensorRecord {
        /// The step; of an envelope, the last one.
        pub step: u64,
        /// The segment, as in [`StepRow`].
        pub segment: u32 = 0,
        /// How many steps the row stands for: 1, or more in an envelope.
        pub steps: u32 = 1,
        /// The place in [`RunInfo::tensors`].
        pub tensor: u32,
        /// The L2 norm; of an envelope, the mean.
        pub l2: f64,
        /// The smallest L2 norm of these steps.
        pub l2_min: f64 = l2,
        /// The largest L2 norm of these steps, where NaN counts as larger than all.
        pub l2_max: f64 = l2,
        /// The largest magnitude in these steps, where NaN counts as larger than all.
        pub max_abs: f64 = f64::NAN,
        /// The mean over these steps.
        pub mean: f64 = f64::NAN,
        /// NaNs, added up over these steps.
        pub nans: u64 = 0,
        /// Infinities, added up.
        pub infs: u64 = 0,
        /// Zeros, added up.
        pub zeros: u64 = 0,
    }
}

impl TensorRecord {
    pub(super) fn new(step: u64, segment: u32, row: &TensorRow) -> Self {
        let TensorRow { tensor, l2, max_abs, mean, nans, infs, zeros } = *row;
        let envelope = Self { step, segment, steps: 1, l2_min: l2, l2_max: l2, ..Self::default() };
        Self { tensor, l2, max_abs, mean, nans, infs, zeros, ..envelope }
    }
}

/// A finding, a diagnosis or an action: a line of `events.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The step that it is about.
    pub step: u64,
    /// What it is, in a word: `finding`, `diagnosis`, `action`.
    pub kind: String,
    /// The event in words.
    pub text: String,
    /// The event as data. JSON has no NaN: numbers that may be NaN are better given as text.
    pub data: serde_json::Value,
}
