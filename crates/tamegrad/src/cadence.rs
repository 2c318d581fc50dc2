//! How often an integration looks at a run, and how much it keeps of it.

/// Steps between what costs more than reading the gradients, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// Steps between two passes with probes, which read every layer's output and gradient.
    pub trace_every: u64,
    /// Steps between two snapshots in protect mode.
    pub snapshot_every: u64,
    /// Snapshots held at the same time.
    pub snapshots_max: usize,
}

impl Cadence {
    /// For an integration whose tensors are shared until one owner writes to them: a snapshot costs memory and
    /// no time.
    ///
    /// Probes every 32 steps were tried: the history of gains is shorter then, and of 23 planted
    /// layers 21 were named in place of 22.
    pub const SHARED: Self = Self { trace_every: 25, snapshot_every: 25, snapshots_max: 8 };

    /// For an integration whose optimizer writes over the parameters: every snapshot is a copy. Its probes are
    /// calls of an interpreter, two for each layer.
    pub const IN_PLACE: Self = Self { trace_every: 50, snapshot_every: 100, snapshots_max: 1 };
}

/// Steps at the start of a run whose updates are all looked at, for the baselines to settle.
pub const UPDATES_ALL_UNTIL: u64 = 128;
/// Steps between two looks at an update after that, in an integration that has to copy a sample of the
/// parameters before it.
pub const UPDATES_EVERY: u64 = 8;
/// Ratio of an update by a sample from which it is measured in full, where an integration can: signs look from
/// 0.1 on, so what fires rests on exact numbers.
pub const UPDATE_NOTABLE: f64 = 0.05;
/// Steps in which every parameter is read in full once for elements that are not finite.
pub const READ_EVERY: u64 = 32;
/// Calm steps after which the memory of a copy of the parameters is given back.
pub const COPY_KEPT_STEPS: u64 = 200;
/// Steps after an alarm in which an operation is looked for.
pub const OPERATION_TRIES_MAX: u64 = 2;
