//! A run of a recipe as bytes, from which it goes on: position, model, optimizer, guard.

use std::time::{Duration, Instant};

use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use serde::{Deserialize, Serialize};
use tamegrad_burn::Guard;

use crate::model::Network;
use crate::prepare::SetupError;

/// How often a checkpoint is made.
const EVERY: Duration = Duration::from_secs(10);
/// Making it takes at most this part of the time.
const REST: u32 = 50;

/// What takes a checkpoint as it is made.
pub type TakeCheckpoint<'a> = &'a dyn Fn(&[u8]);

/// Where a run stands, beside its weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) step: u64,
    pub(crate) skipped_batches: u64,
    pub(crate) taken: u64,
    pub(crate) nonfinite: u32,
    pub(crate) metric: Option<f64>,
    pub(crate) seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    position: Position,
    model: Vec<u8>,
    optimizer: Vec<u8>,
    guard: Vec<u8>,
}

/// Says when a checkpoint is due.
pub(crate) struct Keeper<'a> {
    take: Option<TakeCheckpoint<'a>>,
    saved: Instant,
    took: Duration,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(take: Option<TakeCheckpoint<'a>>) -> Self {
        Self { take, saved: Instant::now(), took: Duration::ZERO }
    }

    /// Makes a checkpoint if it is time, or if it `must` be made.
    pub(crate) fn save<N: Network>(
        &mut self,
        must: bool,
        position: &Position,
        model: &N,
        optimizer: &ModuleOptimizer,
        guard: &Guard<N>,
    ) {
        let Some(take) = self.take else { return };
        if !must && self.saved.elapsed() < EVERY.max(self.took * REST) {
            return;
        }
        let began = Instant::now();
        // Bytes in memory: only a lack of it could stop that, and the next one is tried again.
        if let Some(bytes) = save(position, model, optimizer, guard) {
            take(&bytes);
        }
        self.saved = Instant::now();
        self.took = self.saved.duration_since(began);
    }
}

fn save<N: Network>(
    position: &Position,
    model: &N,
    optimizer: &ModuleOptimizer,
    guard: &Guard<N>,
) -> Option<Vec<u8>> {
    let checkpoint = Checkpoint {
        position: *position,
        model: model.clone().into_record().into_bytes().ok()?.to_vec(),
        optimizer: optimizer.into_bytes().ok()?.to_vec(),
        guard: guard.state().ok()?,
    };
    postcard::to_stdvec(&checkpoint).ok()
}

/// Gives a model, an optimizer and a guard the state of a checkpoint.
pub(crate) fn load<N: Network>(
    bytes: &[u8],
    model: N,
    optimizer: ModuleOptimizer,
    guard: &mut Guard<N>,
) -> Result<(Position, N, ModuleOptimizer), SetupError> {
    let broken =
        |error: &dyn std::fmt::Display| SetupError::Checkpoint { reason: error.to_string() };
    let checkpoint: Checkpoint = postcard::from_bytes(bytes).map_err(|error| broken(&error))?;
    let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(checkpoint.model));
    let record = record.map_err(|error| broken(&error))?;
    let model = model.try_load_record(record).map_err(|error| broken(&error))?;
    let record = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(checkpoint.optimizer));
    let optimizer = optimizer.load_record(record.map_err(|error| broken(&error))?);
    guard.resume(&model, &checkpoint.guard).map_err(|error| broken(&error))?;
    Ok((checkpoint.position, model, optimizer))
}
