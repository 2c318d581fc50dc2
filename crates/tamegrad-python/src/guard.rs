//! The guard of the core crate, driven from Python.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tamegrad::cadence::Cadence;
use tamegrad::{
    Finding, Finished, GuardConfig, Measure, Mode, NamedInput, Names, Observation, OpenStep, Place,
    RunFacts, ShrinkingStep, Step, TensorInfo,
};
use tamegrad_report::code::{Framework, code};
use tamegrad_report::{Style, describe_change, json, terminal};

use crate::decision::Decision;
use crate::inspection::Inspection;
use crate::layout::{LayerRow, TensorRow, layout, tensor_infos};
use crate::numbers::{Numbers, stats};
use crate::scan::Scan;
use crate::trace::Trace;
use crate::updates::Updates;

/// The defaults of the options: the optimizer writes over the parameters.
const IN_PLACE: Cadence = Cadence::IN_PLACE;

/// The guard of one run: it sees numbers, and says what shall be done.
#[pyclass(module = "tamegrad._core")]
pub(crate) struct Guard {
    pub(crate) core: tamegrad::Guard,
    /// The step whose update is still to come.
    open: Option<OpenStep>,
    /// The step whose update is made anew.
    shrinking: Option<ShrinkingStep>,
}

/// Quantity, kind and name of the place, step, over how many, value, what it is compared with and the
/// value of that, in words.
type MeasureRow = (
    &'static str,
    &'static str,
    Option<String>,
    Option<u64>,
    Option<u64>,
    f64,
    Option<&'static str>,
    Option<f64>,
    String,
);
/// Step, sign, severity, tensor, layer, the numbers, and what has happened.
type FindingRow = (
    u64,
    &'static str,
    &'static str,
    Option<String>,
    Option<String>,
    Vec<MeasureRow>,
    &'static str,
);
/// Verdict, onset, origin, cause, kind of place.
type Summary =
    (&'static str, Option<u64>, Option<String>, Option<&'static str>, Option<&'static str>);
/// Label, what it changes, why, whether it treats the cause, name, grade, code by framework.
type RemedyRow =
    (String, String, String, bool, &'static str, &'static str, Vec<(&'static str, String)>);

#[pymethods]
impl Guard {
    #[new]
    #[pyo3(signature = (
        tensors, layers, *, mode = "observe", trace_every = IN_PLACE.trace_every,
        snapshot_every = IN_PLACE.snapshot_every, snapshots_max = IN_PLACE.snapshots_max,
        planned_steps = None, dtype_max = None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "keywords on the Python side")]
    fn new(
        tensors: Vec<TensorRow>,
        layers: Vec<LayerRow>,
        mode: &str,
        trace_every: u64,
        snapshot_every: u64,
        snapshots_max: usize,
        planned_steps: Option<u64>,
        dtype_max: Option<f64>,
    ) -> PyResult<Self> {
        let mode = mode_of(mode)?;
        let facts = RunFacts { planned_steps, dtype_max, ..RunFacts::default() };
        let config = GuardConfig { mode, trace_every, snapshot_every, snapshots_max };
        Ok(Self::of(tamegrad::Guard::new(layout(tensors, layers)?, facts, config)))
    }

    /// A guard that goes on from a state, in a model of these parameters; the layers are those of the
    /// state.
    #[staticmethod]
    #[pyo3(signature = (
        state, tensors, *, mode = "observe", trace_every = IN_PLACE.trace_every,
        snapshot_every = IN_PLACE.snapshot_every, snapshots_max = IN_PLACE.snapshots_max,
        planned_steps = None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "keywords on the Python side")]
    fn restored(
        state: &[u8],
        tensors: Vec<String>,
        mode: &str,
        trace_every: u64,
        snapshot_every: u64,
        snapshots_max: usize,
        planned_steps: Option<u64>,
    ) -> PyResult<Self> {
        let config =
            GuardConfig { mode: mode_of(mode)?, trace_every, snapshot_every, snapshots_max };
        let facts = RunFacts { planned_steps, ..RunFacts::default() };
        let saved = tamegrad_state::load(state).map_err(value_error)?;
        // Only the first pass of a run shows the layers, and only its start which parameters are
        // zeros: what the state says of both holds, if the parameters have the same names.
        let mut layout = saved.record().layout().clone();
        let named = tensors.into_iter().enumerate().map(|(index, name)| {
            let known = layout.tensors.get(index);
            TensorInfo {
                name,
                layer: known.and_then(|tensor| tensor.layer),
                is_matrix: known.is_some_and(|tensor| tensor.is_matrix),
                fan_in: known.and_then(|tensor| tensor.fan_in),
            }
        });
        layout.tensors = named.collect();
        let mut core = tamegrad::Guard::new(layout, facts, config);
        core.resume(saved).map_err(value_error)?;
        Ok(Self::of(core))
    }

    /// The state, for `restored`.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let state = tamegrad_state::save(&self.core).map_err(value_error)?;
        Ok(PyBytes::new(py, &state))
    }

    /// Whether hooks at the layers shall see the coming pass.
    fn wants_trace(&self, step: u64) -> bool {
        self.core.before_pass(Step(step)).trace
    }

    /// Whether an alarm has come.
    fn is_alarmed(&self) -> bool {
        self.core.run().is_alarmed()
    }

    /// Whether an alarm has come whose pass no hooks have seen.
    fn wants_repeated_trace(&self) -> bool {
        self.core.asks().repeated_trace
    }

    /// Whether a snapshot of the state before this step shall be kept.
    fn wants_snapshot(&mut self, step: u64) -> bool {
        let wanted = self.core.before_pass(Step(step)).snapshot;
        if wanted {
            self.core.snapshot_kept(Step(step));
        }
        wanted
    }

    /// Whether the update of the step that was observed last may have to be taken back, and whether it
    /// shall be measured.
    fn wants_of_update(&self) -> (bool, bool) {
        let asks = self.core.asks();
        (asks.copy, asks.update)
    }

    /// Takes in parameters that the optimizer has got later.
    fn add_tensors(&mut self, rows: Vec<TensorRow>) -> PyResult<()> {
        let layers = self.core.record().layout().layers.len();
        self.core.add_tensors(tensor_infos(rows, layers)?);
        Ok(())
    }

    /// Whether the lag of Adam's second moment shall be measured at this step.
    fn wants_lag(&self) -> bool {
        self.core.asks().lag
    }

    /// The factor on the learning rate; exactly 1 when the guard leaves it alone.
    fn learning_rate_factor(&self) -> f64 {
        self.core.learning_rate_factor()
    }

    /// Takes in a step before its update; `None` when it shall go on as without the guard.
    #[pyo3(signature = (
        step, gradients, *, loss = None, metric = None, learning_rate = None, trace = None,
        inputs = None, targets = None, clipped_to = None, constant_loss = None,
        gradient_is_nan = false,
    ))]
    #[allow(clippy::too_many_arguments, reason = "keywords on the Python side")]
    fn observe(
        &mut self,
        step: u64,
        gradients: &Scan,
        loss: Option<f64>,
        metric: Option<f64>,
        learning_rate: Option<f64>,
        trace: Option<&Trace>,
        inputs: Option<Vec<(String, Numbers)>>,
        targets: Option<Numbers>,
        clipped_to: Option<f64>,
        constant_loss: Option<f64>,
        gradient_is_nan: bool,
    ) -> Option<Decision> {
        let trace = trace.map(|trace| trace.to_core(self.core.record().layout().layers.len()));
        let inputs = inputs.unwrap_or_default();
        let named = inputs.iter().map(|(name, of)| NamedInput { name, stats: stats(*of) });
        let inputs: Vec<NamedInput<'_>> = named.collect();
        let open = self.core.begin(&Observation {
            step: Step(step),
            loss,
            metric,
            learning_rate,
            gradients: &gradients.entries,
            trace: trace.as_ref(),
            inputs: &inputs,
            targets: targets.map(stats),
            clipped_to,
            constant_loss,
            // Torch's anomaly mode stops at the first, and most gradients are not there then.
            gradient_norm: gradient_is_nan.then_some(f64::NAN),
        });
        let decision = open.decision();
        let told = (!decision.is_proceed()).then(|| Decision::from(decision));
        self.open = Some(open);
        told
    }

    /// Takes in the update (`None`: the step was left out) and ends the step. `None`: take it; 0:
    /// refuse it; another number: make it anew from gradients multiplied by that. One that cannot be
    /// undone is taken.
    #[pyo3(signature = (updates = None, *, can_undo = true))]
    fn observe_update(
        &mut self,
        updates: Option<&Updates>,
        can_undo: bool,
    ) -> PyResult<Option<f64>> {
        let open = self.open.take().ok_or_else(|| out_of_order("observe_update", "observe"))?;
        let updates = updates.map_or(&[][..], |updates| &updates.entries);
        if !can_undo {
            self.core.finish_taken(open, updates);
            return Ok(None);
        }
        Ok(match self.core.finish(open, updates) {
            Finished::Taken => None,
            Finished::Refused => Some(0.0),
            Finished::Shrink(shrinking) => {
                let factor = shrinking.factor();
                self.shrinking = Some(shrinking);
                Some(factor)
            }
        })
    }

    /// Takes in the update made anew; false when it shall not be taken either.
    fn observe_shrunk_update(&mut self, updates: &Updates) -> PyResult<bool> {
        let shrinking = self.shrinking.take();
        let shrinking =
            shrinking.ok_or_else(|| out_of_order("observe_shrunk_update", "observe_update"))?;
        Ok(self.core.finish_shrunk(shrinking, &updates.entries))
    }

    /// Takes in what hooks saw when the pass of the latest step was run again after an alarm.
    fn observe_trace(&mut self, trace: &Trace) {
        let trace = trace.to_core(self.core.record().layout().layers.len());
        self.core.observe_trace(&trace);
    }

    /// Takes in the lag of Adam's second moment (RMS of g^2/v) of each tensor.
    fn observe_lag(&mut self, lag: Vec<Option<f64>>) {
        self.core.observe_lag(&lag);
    }

    /// Whether the operation shall be looked for that made the latest pass not finite.
    fn wants_operation(&self) -> bool {
        self.core.asks().operation
    }

    /// Whether the elasticities of the loss shall be measured in this step's pass.
    fn wants_elasticities(&self) -> bool {
        self.core.asks().elasticities
    }

    /// Takes in the elasticities of the loss: |sum of W * G| over |loss| for each weight matrix.
    fn observe_elasticities(&mut self, elasticities: Vec<Option<f64>>) {
        self.core.observe_elasticities(&elasticities);
    }

    /// Takes in what was found out about an alarm, a `_inspection.Inspection`; what is known already stays.
    fn observe_inspection(&mut self, found: Inspection) {
        self.core.observe_inspection(found.into());
    }

    /// Number of findings so far.
    fn finding_count(&self) -> usize {
        self.core.run().findings().len()
    }

    /// The findings from a position on.
    fn findings(&self, from: usize) -> Vec<FindingRow> {
        if from >= self.finding_count() {
            // The names below are copies of all.
            return Vec::new();
        }
        let names = self.core.record().names();
        let layout = self.core.record().layout();
        let name = |place: Place| names.name(place).map(str::to_owned);
        let row = |finding: &Finding| {
            let (tensor, place) = (finding.place.tensor(), finding.place);
            let layer = place.layer().or(tensor.and_then(|tensor| layout.layer_of(tensor)));
            (
                finding.step.0,
                finding.sign.as_str(),
                finding.severity.as_str(),
                tensor.and_then(|_| name(place)),
                layer.and_then(|layer| name(Place::Layer(layer))),
                finding.evidence.iter().map(|of| measure_row(of, &names)).collect(),
                tamegrad_report::title(finding),
            )
        };
        self.core.run().findings().iter().skip(from).map(row).collect()
    }

    /// What the guard did, each with its step.
    fn actions(&self) -> Vec<(u64, Decision)> {
        let actions = self.core.run().actions().iter();
        actions.map(|(step, decision)| (step.0, Decision::from(decision))).collect()
    }

    /// The verdict's name, the onset, the origin's name, the cause's name, and the origin's
    /// [`Place::kind`].
    fn summary(&self) -> Summary {
        let diagnosis = self.core.diagnosis();
        (
            diagnosis.verdict.as_str(),
            diagnosis.onset.map(|step| step.0),
            diagnosis.origin_name().map(str::to_owned),
            diagnosis.cause(),
            diagnosis.origin.map(|origin| origin.place.kind()),
        )
    }

    /// The diagnosis as text.
    #[pyo3(signature = (*, width = 100, colour = false))]
    fn text(&self, width: usize, colour: bool) -> String {
        terminal::diagnosis(&self.core.diagnosis(), self.core.run(), &Style { colour, width })
    }

    /// The diagnosis as JSON.
    fn json(&self) -> PyResult<String> {
        let report = json::DiagnosisReport::from(&self.core.diagnosis());
        json::to_string(&report).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// The diagnosis as an HTML page; `notes` limit what it says, a sentence each.
    #[pyo3(signature = (notes = Vec::new()))]
    fn html(&self, notes: Vec<String>) -> String {
        tamegrad_page::live_page(&self.core.diagnosis(), self.core.run(), "this run", &notes)
    }

    /// What to do, best first.
    fn remedies(&self) -> Vec<RemedyRow> {
        let diagnosis = self.core.diagnosis();
        let row = |proposal: &tamegrad::remedies::Proposal| {
            let change = describe_change(&proposal.change);
            let lines = |framework: Framework| {
                Some((framework.as_str(), code(&proposal.change, framework)?))
            };
            (
                proposal.label(),
                change,
                tamegrad_report::why(proposal),
                proposal.treats_cause,
                proposal.remedy.as_str(),
                proposal.grade().as_str(),
                Framework::ALL.into_iter().filter_map(lines).collect(),
            )
        };
        diagnosis.remedies.iter().map(row).collect()
    }

    /// The guard with its whole state, to go back to.
    fn copy(&self) -> Self {
        Self::of(self.core.clone())
    }
}

impl Guard {
    fn of(core: tamegrad::Guard) -> Self {
        Self { core, open: None, shrinking: None }
    }
}

/// A call that needs another one before it.
fn out_of_order(call: &str, before: &str) -> PyErr {
    PyValueError::new_err(format!("{call}: got no open step, want a call of {before} before it"))
}

fn measure_row(of: &Measure, names: &Names) -> MeasureRow {
    let (reference, limit) = of.against.map(|(of, value)| (of.as_str(), value)).unzip();
    (
        of.quantity.as_str(),
        of.place.kind(),
        names.name(of.place).map(str::to_owned),
        of.step.map(|step| step.0),
        of.over,
        of.value,
        reference,
        limit,
        tamegrad_report::measure(of, names),
    )
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn mode_of(name: &str) -> PyResult<Mode> {
    match name {
        "off" => Ok(Mode::Off),
        "observe" => Ok(Mode::Observe),
        "protect" => Ok(Mode::Protect),
        _ => Err(PyValueError::new_err(format!(
            "mode: got `{name}`, want `observe`, `protect` or `off`"
        ))),
    }
}
