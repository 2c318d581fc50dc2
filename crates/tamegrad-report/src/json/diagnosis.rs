//! A diagnosis as JSON: the one schema of `diagnose --json`, `train --json`, Python's `to_dict` and what
//! a run folder keeps (`docs/json.md`). It is read back as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tamegrad::causes::{Cause, CauseName, Ground};
use tamegrad::diagnosis::{Seen, SignSummary};
use tamegrad::inspection::Operation;
use tamegrad::remedies::{Change, Proposal, RemedyName};
use tamegrad::{
    Chain, Diagnosis, Finding, FirstNonFinite, LayerId, Link, Measure, Names, Origin, Place,
    Quantity, Reference, Severity, SignName, Stage, Step, TensorId, Verdict,
};

use super::number;
use super::operation::OperationReport;
use crate::code::{Framework, code};
use crate::{change, words};

/// The schema and its version.
pub const SCHEMA: &str = "tamegrad/diagnosis/2";

/// A diagnosis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiagnosisReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// The verdict's kebab-case name.
    pub verdict: String,
    /// How much of the run was seen.
    pub seen: SeenReport,
    /// The step of the first alarm.
    pub onset_step: Option<u64>,
    /// The step from which on the run was back at its level.
    pub recovered_step: Option<u64>,
    /// Where it began.
    pub origin: Option<OriginReport>,
    /// The first value that was not finite; `null` where all were.
    pub first_nonfinite: Option<FirstNonFiniteReport>,
    /// The operation that made it, where it is known.
    pub operation: Option<OperationReport>,
    /// Why, the best supported first.
    pub causes: Vec<CauseReport>,
    /// The signs.
    pub signs: Vec<SignReport>,
    /// Kebab-case name of the sign whose alarm decided.
    pub decided_by: Option<String>,
    /// The chain of gains; `null` when it was not measured.
    pub chain: Option<ChainReport>,
    /// What to do, best first.
    pub remedies: Vec<RemedyReport>,
    /// Number of steps at which the guard acted.
    pub actions: u64,
    /// The latest measurement of the held-out metric.
    #[serde(with = "number::optional")]
    pub metric: Option<f64>,
}

/// How much of a run was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenReport {
    /// `steps`, or `records` of a log.
    pub unit: String,
    /// How many.
    pub count: u64,
}

/// A place in the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceReport {
    /// As [`Place::kind`].
    pub kind: String,
    /// Its name, where it has one.
    pub name: Option<String>,
}

/// Where an explosion began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OriginReport {
    /// As in [`PlaceReport::kind`].
    pub kind: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Of data that is not finite: the first layer that it came to.
    pub reached: Option<String>,
    /// The numbers.
    pub evidence: Vec<MeasureReport>,
}

/// The first value that was not finite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstNonFiniteReport {
    /// When.
    pub step: u64,
    /// Kebab-case name of the stage of the step: `inputs`, `targets`, `outputs`, `loss`, ...
    pub stage: String,
    /// The input, layer output or parameter.
    pub place: Option<PlaceReport>,
    /// Stages of that step that are known to have been finite.
    pub finite: Vec<String>,
    /// The whole in words.
    pub text: String,
}

/// A cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CauseReport {
    /// Kebab-case name.
    pub name: String,
    /// Title in words.
    pub title: String,
    /// Kebab-case name of what it rests on; causes are ranked by it.
    pub ground: String,
    /// The layer that it concerns.
    pub layer: Option<String>,
    /// The numbers.
    pub evidence: Vec<MeasureReport>,
}

/// Whether a sign was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignState {
    /// Never.
    Quiet,
    /// The run ended before it could say anything.
    TooEarly,
    /// Worth showing, no alarm.
    Strain,
    /// Part of an explosion.
    Alarm,
}

/// One sign over the whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignReport {
    /// Kebab-case name.
    pub name: String,
    /// What has happened, or what the sign is where it was never up.
    pub title: String,
    /// Whether it was up.
    pub state: SignState,
    /// Number of findings.
    pub count: u64,
    /// How many more steps or measurements it needed to say anything.
    pub needs: Option<u32>,
    /// Its first finding, alarms before strains; of a log one of each rule that fired.
    pub findings: Vec<FindingReport>,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingReport {
    /// When.
    pub step: u64,
    /// `alarm` or `strain`.
    pub severity: String,
    /// What has happened, in words.
    pub title: String,
    /// The tensor that shows it, if it is one alone.
    pub place: Option<PlaceReport>,
    /// The numbers.
    pub evidence: Vec<MeasureReport>,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureReport {
    /// Kebab-case key of what is measured.
    pub quantity: String,
    /// Where; `null` for the whole run.
    pub place: Option<PlaceReport>,
    /// At which step, where that is not the finding's.
    pub step: Option<u64>,
    /// Of how many layers, time steps or steps it is made.
    pub over: Option<u64>,
    /// The value.
    #[serde(with = "number")]
    pub value: f64,
    /// What it is held against.
    pub against: Option<AgainstReport>,
    /// The whole in words.
    pub text: String,
}

/// What a number is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgainstReport {
    /// Kebab-case key: `limit`, `usual`, `before`, ...
    pub reference: String,
    /// The value.
    #[serde(with = "number")]
    pub value: f64,
}

/// The chain of gains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChainReport {
    /// The step at which it was measured.
    pub step: u64,
    /// How much the signal grows from input to output.
    #[serde(with = "number")]
    pub forward: f64,
    /// How much the gradient grows from output to input.
    #[serde(with = "number")]
    pub backward: f64,
    /// Whether the network branches, so that the gains are no factors of these two.
    pub branches: bool,
    /// The layers in order of execution.
    pub layers: Vec<GainReport>,
}

/// The gains of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GainReport {
    /// The layer's name.
    pub layer: String,
    /// RMS of its output over RMS of its input.
    #[serde(with = "number::optional")]
    pub forward: Option<f64>,
    /// Norm of the gradient at its input over that at its output.
    #[serde(with = "number::optional")]
    pub backward: Option<f64>,
    /// Whether it normalises and does nothing else.
    pub only_normalises: bool,
}

/// A remedy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemedyReport {
    /// Kebab-case name.
    pub name: String,
    /// The name with what tells its variants apart, such as `batch-norm-before`.
    pub label: String,
    /// What it changes, as data.
    pub change: Change,
    /// What it changes, in words.
    pub text: String,
    /// Why it may help, in words.
    pub why: String,
    /// Whether it treats the first cause, rather than its effect.
    pub treats_cause: bool,
    /// Whether the guard does it at run time, in protect mode.
    pub is_automatic: bool,
    /// Who carries it out: `automatic`, `on-request` or `advice`.
    pub grade: String,
    /// The lines that carry it out, by framework; those without such lines are left out.
    pub code: BTreeMap<String, String>,
    /// The numbers that it is made from.
    pub evidence: Vec<MeasureReport>,
}

impl From<&Diagnosis> for DiagnosisReport {
    fn from(of: &Diagnosis) -> Self {
        let names = &of.names;
        let (unit, count) = match of.seen {
            Seen::Steps(count) => ("steps", count),
            Seen::Records(count) => ("records", count),
        };
        Self {
            schema: SCHEMA.to_owned(),
            verdict: of.verdict.as_str().to_owned(),
            seen: SeenReport { unit: unit.to_owned(), count },
            onset_step: of.onset.map(|step| step.0),
            recovered_step: of.recovered.map(|step| step.0),
            origin: of.origin.as_ref().map(|of| origin(of, names)),
            first_nonfinite: of.first_nonfinite.as_ref().map(|of| first_nonfinite(of, names)),
            operation: of.operation.as_ref().map(OperationReport::from),
            causes: of.causes.iter().map(|of| cause(of, names)).collect(),
            signs: of.signs.iter().map(|of| sign(of, names)).collect(),
            decided_by: of.decided_by.map(|sign| sign.as_str().to_owned()),
            chain: of.chain.as_ref().map(|of| chain(of, names)),
            remedies: of.remedies.iter().map(|of| remedy(of, names)).collect(),
            actions: of.actions,
            metric: of.metric,
        }
    }
}

fn place(place: Place, names: &Names) -> Option<PlaceReport> {
    let name = names.name(place).map(str::to_owned);
    (place != Place::Run).then(|| PlaceReport { kind: place.kind().to_owned(), name })
}

fn layer(layer: Option<LayerId>, names: &Names) -> Option<String> {
    names.name(Place::Layer(layer?)).map(str::to_owned)
}

/// A measure.
pub(crate) fn measure(of: &Measure, names: &Names) -> MeasureReport {
    let against = of.against.map(|(reference, value)| AgainstReport {
        reference: reference.as_str().to_owned(),
        value,
    });
    MeasureReport {
        quantity: of.quantity.as_str().to_owned(),
        place: place(of.place, names),
        step: of.step.map(|step| step.0),
        over: of.over,
        value: of.value,
        against,
        text: words::measure(of, names),
    }
}

fn measures(of: &[Measure], names: &Names) -> Vec<MeasureReport> {
    of.iter().map(|of| measure(of, names)).collect()
}

fn origin(of: &Origin, names: &Names) -> OriginReport {
    OriginReport {
        kind: of.place.kind().to_owned(),
        name: names.name(of.place).map(str::to_owned),
        reached: layer(of.reached, names),
        evidence: measures(&of.evidence, names),
    }
}

fn first_nonfinite(of: &FirstNonFinite, names: &Names) -> FirstNonFiniteReport {
    FirstNonFiniteReport {
        step: of.step.0,
        stage: of.stage.as_str().to_owned(),
        place: place(of.place, names),
        finite: of.finite.iter().map(|stage| stage.as_str().to_owned()).collect(),
        text: words::first_nonfinite(of, names),
    }
}

fn cause(of: &Cause, names: &Names) -> CauseReport {
    CauseReport {
        name: of.name.as_str().to_owned(),
        title: of.name.doc().title.to_owned(),
        ground: of.ground.as_str().to_owned(),
        layer: layer(of.layer, names),
        evidence: measures(&of.evidence, names),
    }
}

fn sign(of: &SignSummary, names: &Names) -> SignReport {
    SignReport {
        name: of.sign.as_str().to_owned(),
        title: words::sign_title(of).to_owned(),
        state: match of.first().map(|finding| finding.severity) {
            None if of.too_early.is_some() => SignState::TooEarly,
            None => SignState::Quiet,
            Some(Severity::Strain) => SignState::Strain,
            Some(Severity::Alarm) => SignState::Alarm,
        },
        count: of.count,
        needs: of.too_early,
        findings: of.findings.iter().map(|of| finding(of, names)).collect(),
    }
}

/// A finding.
pub fn finding(of: &Finding, names: &Names) -> FindingReport {
    FindingReport {
        step: of.step.0,
        severity: of.severity.as_str().to_owned(),
        title: words::title(of).to_owned(),
        place: place(of.place, names),
        evidence: measures(&of.evidence, names),
    }
}

fn chain(of: &Chain, names: &Names) -> ChainReport {
    ChainReport {
        step: of.step.0,
        forward: of.forward_product(),
        backward: of.backward_product(),
        branches: of.ends.is_some(),
        layers: gains(of, names),
    }
}

/// The gains of a chain, a layer each in order of execution.
pub(crate) fn gains(of: &Chain, names: &Names) -> Vec<GainReport> {
    let gain = |link: &Link| GainReport {
        layer: layer(Some(link.layer), names).unwrap_or_default(),
        forward: link.forward,
        backward: link.backward,
        only_normalises: link.only_normalises,
    };
    of.links.iter().map(gain).collect()
}

fn remedy(of: &Proposal, names: &Names) -> RemedyReport {
    RemedyReport {
        name: of.remedy.as_str().to_owned(),
        label: of.label(),
        change: of.change.clone(),
        text: change::describe_change(&of.change),
        why: words::why(of),
        treats_cause: of.treats_cause,
        is_automatic: of.is_automatic(),
        grade: of.grade().as_str().to_owned(),
        code: lines(&of.change),
        evidence: measures(&of.evidence, names),
    }
}

/// The lines that carry out a change, by framework.
fn lines(of: &Change) -> BTreeMap<String, String> {
    let lines = |framework: Framework| Some((framework.as_str().into(), code(of, framework)?));
    Framework::ALL.into_iter().filter_map(lines).collect()
}

impl TryFrom<&DiagnosisReport> for Diagnosis {
    type Error = String;

    /// Reads a diagnosis back.
    ///
    /// # Errors
    /// A name that this version does not know, with where it stands.
    fn try_from(report: &DiagnosisReport) -> Result<Self, String> {
        if report.schema != SCHEMA {
            return Err(format!("schema: got `{}`, want `{SCHEMA}`", report.schema));
        }
        let mut read = Read::default();
        let seen = match report.seen.unit.as_str() {
            "steps" => Seen::Steps(report.seen.count),
            "records" => Seen::Records(report.seen.count),
            unit => return Err(unknown("seen.unit", unit)),
        };
        let chain = report.chain.as_ref().map(|of| read.chain(of));
        let origin = report.origin.as_ref().map(|of| read.origin(of)).transpose()?;
        let first_nonfinite = report.first_nonfinite.as_ref();
        let first_nonfinite = first_nonfinite.map(|of| read.first_nonfinite(of)).transpose()?;
        let operation = report.operation.as_ref().map(Operation::try_from).transpose()?;
        let causes = all(&report.causes, |of| read.cause(of))?;
        let signs = all(&report.signs, |of| read.sign(of))?;
        let remedies = all(&report.remedies, |of| read.remedy(of))?;
        Ok(Self {
            verdict: known("verdict", &report.verdict, Verdict::ALL, Verdict::as_str)?,
            seen,
            onset: report.onset_step.map(Step),
            recovered: report.recovered_step.map(Step),
            origin,
            first_nonfinite,
            operation,
            causes,
            signs,
            decided_by: report.decided_by.as_deref().map(sign_name).transpose()?,
            chain,
            remedies,
            actions: report.actions,
            metric: report.metric,
            names: read.names,
        })
    }
}

/// What a key names, among all that there is.
fn known<T: Copy>(
    key: &str,
    got: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.iter().copied().find(|of| name(*of) == got);
    found.ok_or_else(|| unknown(key, got))
}

fn unknown(key: &str, got: &str) -> String {
    format!("{key}: got `{got}`, which this version of tamegrad does not know")
}

fn sign_name(name: &str) -> Result<SignName, String> {
    known("sign", name, &SignName::ALL, SignName::as_str)
}

fn all<A, B>(from: &[A], read: impl FnMut(&A) -> Result<B, String>) -> Result<Vec<B>, String> {
    from.iter().map(read).collect()
}

/// The names that come up while a diagnosis is read.
#[derive(Default)]
struct Read {
    names: Names,
}

impl Read {
    fn layer(&mut self, name: Option<&String>) -> Option<LayerId> {
        name.map(|name| LayerId(index(&mut self.names.layers, name)))
    }

    fn place(&mut self, of: Option<&PlaceReport>) -> Result<Place, String> {
        let Some(PlaceReport { kind, name }) = of else { return Ok(Place::Run) };
        let name = name.as_deref().unwrap_or_default();
        Ok(match kind.as_str() {
            "run" => Place::Run,
            "data" => Place::Data,
            "input" => Place::Input(index(&mut self.names.inputs, name)),
            "targets" => Place::Targets,
            "layer" => Place::Layer(LayerId(index(&mut self.names.layers, name))),
            "layer-input" => Place::LayerInput(LayerId(index(&mut self.names.layers, name))),
            "layer-output" => Place::Output(LayerId(index(&mut self.names.layers, name))),
            "loss" => Place::Loss,
            "loss-gradient" => Place::LossGradient,
            "gradients" => Place::Gradients,
            "tensor" => Place::Tensor(TensorId(index(&mut self.names.tensors, name))),
            _ => return Err(unknown("place", kind)),
        })
    }

    fn measures(&mut self, all: &[MeasureReport]) -> Result<Vec<Measure>, String> {
        let measure = |of: &MeasureReport| {
            let reference = |of: &AgainstReport| {
                known("reference", &of.reference, Reference::ALL, Reference::as_str)
                    .map(|kind| (kind, of.value))
            };
            Ok(Measure {
                quantity: known("quantity", &of.quantity, Quantity::ALL, Quantity::as_str)?,
                place: self.place(of.place.as_ref())?,
                step: of.step.map(Step),
                over: of.over,
                value: of.value,
                against: of.against.as_ref().map(reference).transpose()?,
            })
        };
        all.iter().map(measure).collect()
    }

    fn origin(&mut self, of: &OriginReport) -> Result<Origin, String> {
        let place = PlaceReport { kind: of.kind.clone(), name: of.name.clone() };
        Ok(Origin {
            place: self.place(Some(&place))?,
            reached: self.layer(of.reached.as_ref()),
            evidence: self.measures(&of.evidence)?,
        })
    }

    fn first_nonfinite(&mut self, of: &FirstNonFiniteReport) -> Result<FirstNonFinite, String> {
        let stage = |name: &String| known("stage", name, Stage::ALL, Stage::as_str);
        Ok(FirstNonFinite {
            step: Step(of.step),
            stage: stage(&of.stage)?,
            place: self.place(of.place.as_ref())?,
            finite: of.finite.iter().map(stage).collect::<Result<_, _>>()?,
        })
    }

    fn cause(&mut self, of: &CauseReport) -> Result<Cause, String> {
        Ok(Cause {
            name: known("cause", &of.name, CauseName::ALL, CauseName::as_str)?,
            ground: known("ground", &of.ground, Ground::ALL, Ground::as_str)?,
            layer: self.layer(of.layer.as_ref()),
            evidence: self.measures(&of.evidence)?,
        })
    }

    fn sign(&mut self, of: &SignReport) -> Result<SignSummary, String> {
        let sign = sign_name(&of.name)?;
        let finding = |of: &FindingReport| {
            Ok(Finding {
                sign,
                step: Step(of.step),
                severity: known("severity", &of.severity, Severity::ALL, Severity::as_str)?,
                place: self.place(of.place.as_ref())?,
                evidence: self.measures(&of.evidence)?,
            })
        };
        let findings = of.findings.iter().map(finding).collect::<Result<_, String>>()?;
        Ok(SignSummary { sign, findings, count: of.count, too_early: of.needs })
    }

    fn chain(&mut self, of: &ChainReport) -> Chain {
        let links = of.layers.iter().map(|gain| {
            let layer = LayerId(index(&mut self.names.layers, &gain.layer));
            Link {
                layer,
                forward: gain.forward,
                backward: gain.backward,
                first_inner: layer,
                only_normalises: gain.only_normalises,
            }
        });
        let ends = tamegrad::chain::Ends { forward: Some(of.forward), backward: Some(of.backward) };
        Chain { step: Step(of.step), links: links.collect(), ends: of.branches.then_some(ends) }
    }

    fn remedy(&mut self, of: &RemedyReport) -> Result<Proposal, String> {
        Ok(Proposal {
            remedy: known("remedy", &of.name, RemedyName::ALL, RemedyName::as_str)?,
            change: of.change.clone(),
            treats_cause: of.treats_cause,
            evidence: self.measures(&of.evidence)?,
        })
    }
}

/// The index of a name, which is added if it is not there.
fn index(names: &mut Vec<String>, name: &str) -> usize {
    let known = names.iter().position(|known| known == name);
    known.unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{exploded, healthy, protected, recovered};

    /// The diagnosis of a report, as a report again.
    fn there_and_back(report: &DiagnosisReport) -> DiagnosisReport {
        let text = serde_json::to_string(report).expect("reports serialize");
        let read: DiagnosisReport = serde_json::from_str(&text).expect("what was written is read");
        DiagnosisReport::from(&Diagnosis::try_from(&read).expect("all names are known"))
    }

    #[test]
    fn what_is_written_is_read_back() {
        for guard in [exploded(), healthy(), recovered(), protected()] {
            let report = DiagnosisReport::from(&guard.diagnosis());
            let back = there_and_back(&report);
            // NaN is no equal of itself; its text is.
            assert_eq!(format!("{back:?}"), format!("{report:?}"));
        }
    }

    #[test]
    fn another_version_and_unknown_names_are_refused_with_words() {
        let report = DiagnosisReport::from(&exploded().diagnosis());
        type Damage = fn(&mut DiagnosisReport);
        let damages: [(Damage, &str); 4] = [
            (|r| r.schema = "tamegrad/diagnosis/9".into(), "want `tamegrad/diagnosis/2`"),
            (|r| r.verdict = "sunny".into(), "verdict: got `sunny`"),
            (|r| r.causes[0].name = "moon".into(), "cause: got `moon`"),
            (|r| r.causes[0].evidence[0].quantity = "luck".into(), "quantity: got `luck`"),
        ];
        for (damage, words) in damages {
            let mut damaged = report.clone();
            damage(&mut damaged);
            let error = Diagnosis::try_from(&damaged).expect_err("it is damaged");
            assert!(error.contains(words), "{error}");
        }
    }
}
