//! What the files of a run folder hold, and how rows become Arrow columns and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};

use super::batch::Batch;

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

/// One step: a row of `steps.arrows`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepRow {
    /// The step.
    pub step: u64,
    /// Number of rewinds before it: steps ascend within a segment.
    pub segment: u32,
    /// Seconds since 1970; NaN if unknown.
    pub wall: f64,
    /// The training loss.
    pub loss: Option<f64>,
    /// The metric of the task, such as an accuracy.
    pub metric: Option<f64>,
    /// The learning rate.
    pub learning_rate: Option<f64>,
    /// The L2 norm of all gradients together.
    pub gradient_norm: Option<f64>,
    /// Gradient values that were NaN or infinite.
    pub nonfinite_gradients: u64,
    /// The largest ratio of an update's norm to its parameter's norm.
    pub update_ratio: Option<f64>,
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
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// The gradient of one tensor at one step, or an envelope of many: a row of `tensors.arrows`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorRecord {
    /// The step; of an envelope, the last one.
    pub step: u64,
    /// The segment, as in [`StepRow`].
    pub segment: u32,
    /// How many steps the row stands for: 1, or more in an envelope.
    pub steps: u32,
    /// The place in [`RunInfo::tensors`].
    pub tensor: u32,
    /// The L2 norm; of an envelope, the mean.
    pub l2: f64,
    /// The smallest L2 norm of these steps.
    pub l2_min: f64,
    /// The largest L2 norm of these steps, where NaN counts as larger than all.
    pub l2_max: f64,
    /// The largest magnitude in these steps, where NaN counts as larger than all.
    pub max_abs: f64,
    /// The mean over these steps.
    pub mean: f64,
    /// NaNs, added up over these steps.
    pub nans: u64,
    /// Infinities, added up.
    pub infs: u64,
    /// Zeros, added up.
    pub zeros: u64,
}

impl TensorRecord {
    pub(super) fn new(step: u64, segment: u32, row: &TensorRow) -> Self {
        let TensorRow { tensor, l2, max_abs, mean, nans, infs, zeros } = *row;
        let (l2_min, l2_max) = (l2, l2);
        Self {
            step,
            segment,
            steps: 1,
            tensor,
            l2,
            l2_min,
            l2_max,
            max_abs,
            mean,
            nans,
            infs,
            zeros,
        }
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

/// Rows that an Arrow stream holds.
pub(super) trait Table: Copy {
    /// The columns: name, type, whether a value may be absent.
    const COLUMNS: &'static [(&'static str, DataType, bool)];

    /// The columns of some rows.
    fn columns(rows: &[Self]) -> Vec<ArrayRef>;

    /// A row of a batch; `None` where the batch lacks what a row cannot do without.
    fn row(batch: &Batch, row: usize) -> Option<Self>;

    /// The step and the segment, by which rows are in order.
    fn place(&self) -> (u32, u64);

    /// The Arrow schema.
    fn schema() -> Schema {
        let field = |(name, kind, nullable): &(&str, DataType, bool)| {
            Field::new(*name, kind.clone(), *nullable)
        };
        Schema::new(Self::COLUMNS.iter().map(field).collect::<Vec<_>>())
    }
}

fn u64s<T>(rows: &[T], value: impl Fn(&T) -> u64) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(rows.iter().map(value)))
}

fn u32s<T>(rows: &[T], value: impl Fn(&T) -> u32) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(rows.iter().map(value)))
}

fn f64s<T>(rows: &[T], value: impl Fn(&T) -> f64) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(rows.iter().map(value)))
}

fn options<T>(rows: &[T], value: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Float64Array>())
}

impl Table for StepRow {
    const COLUMNS: &'static [(&'static str, DataType, bool)] = &[
        ("step", DataType::UInt64, false),
        ("segment", DataType::UInt32, false),
        ("wall", DataType::Float64, false),
        ("loss", DataType::Float64, true),
        ("metric", DataType::Float64, true),
        ("learning_rate", DataType::Float64, true),
        ("gradient_norm", DataType::Float64, true),
        ("nonfinite_gradients", DataType::UInt64, false),
        ("update_ratio", DataType::Float64, true),
    ];

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        vec![
            u64s(rows, |row| row.step),
            u32s(rows, |row| row.segment),
            f64s(rows, |row| row.wall),
            options(rows, |row| row.loss),
            options(rows, |row| row.metric),
            options(rows, |row| row.learning_rate),
            options(rows, |row| row.gradient_norm),
            u64s(rows, |row| row.nonfinite_gradients),
            options(rows, |row| row.update_ratio),
        ]
    }

    fn row(batch: &Batch, row: usize) -> Option<Self> {
        Some(Self {
            step: batch.integer("step", row)?,
            segment: batch.small("segment", row).unwrap_or(0),
            wall: batch.float("wall", row).unwrap_or(f64::NAN),
            loss: batch.float("loss", row),
            metric: batch.float("metric", row),
            learning_rate: batch.float("learning_rate", row),
            gradient_norm: batch.float("gradient_norm", row),
            nonfinite_gradients: batch.integer("nonfinite_gradients", row).unwrap_or(0),
            update_ratio: batch.float("update_ratio", row),
        })
    }

    fn place(&self) -> (u32, u64) {
        (self.segment, self.step)
    }
}

impl Table for TensorRecord {
    const COLUMNS: &'static [(&'static str, DataType, bool)] = &[
        ("step", DataType::UInt64, false),
        ("segment", DataType::UInt32, false),
        ("steps", DataType::UInt32, false),
        ("tensor", DataType::UInt32, false),
        ("l2", DataType::Float64, false),
        ("l2_min", DataType::Float64, false),
        ("l2_max", DataType::Float64, false),
        ("max_abs", DataType::Float64, false),
        ("mean", DataType::Float64, false),
        ("nans", DataType::UInt64, false),
        ("infs", DataType::UInt64, false),
        ("zeros", DataType::UInt64, false),
    ];

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        vec![
            u64s(rows, |row| row.step),
            u32s(rows, |row| row.segment),
            u32s(rows, |row| row.steps),
            u32s(rows, |row| row.tensor),
            f64s(rows, |row| row.l2),
            f64s(rows, |row| row.l2_min),
            f64s(rows, |row| row.l2_max),
            f64s(rows, |row| row.max_abs),
            f64s(rows, |row| row.mean),
            u64s(rows, |row| row.nans),
            u64s(rows, |row| row.infs),
            u64s(rows, |row| row.zeros),
        ]
    }

    fn row(batch: &Batch, row: usize) -> Option<Self> {
        let l2 = batch.float("l2", row)?;
        Some(Self {
            step: batch.integer("step", row)?,
            segment: batch.small("segment", row).unwrap_or(0),
            steps: batch.small("steps", row).unwrap_or(1),
            tensor: batch.small("tensor", row)?,
            l2,
            l2_min: batch.float("l2_min", row).unwrap_or(l2),
            l2_max: batch.float("l2_max", row).unwrap_or(l2),
            max_abs: batch.float("max_abs", row).unwrap_or(f64::NAN),
            mean: batch.float("mean", row).unwrap_or(f64::NAN),
            nans: batch.integer("nans", row).unwrap_or(0),
            infs: batch.integer("infs", row).unwrap_or(0),
            zeros: batch.integer("zeros", row).unwrap_or(0),
        })
    }

    fn place(&self) -> (u32, u64) {
        (self.segment, self.step)
    }
}
