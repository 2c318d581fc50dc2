//! The data of the batches: how large it usually is, and whether a batch is unlike those before.

use tamegrad_stats::{TensorStats, merge};

use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::NamedInput;
use crate::rules::{DATA_BATCHES, FIRST_BATCHES, RULES};
use crate::running::Window;

/// Inputs of a batch that are told apart; the further ones are taken together with the last.
pub const INPUTS_MAX: usize = 32;

/// What is kept of the batches' data.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BatchTrack {
    /// The inputs by name, in the order in which they were first seen; at most [`INPUTS_MAX`].
    pub inputs: Vec<(String, DataTrack)>,
    /// The regression targets.
    pub targets: DataTrack,
}

/// What is kept of one input, or of the targets.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DataTrack {
    /// RMS in the first batches.
    pub first_rms: Window<FIRST_BATCHES>,
    /// RMS in the last batches before the first alarm.
    pub rms: Window<DATA_BATCHES>,
    /// Largest magnitude in the same batches.
    pub max: Window<DATA_BATCHES>,
    /// Elements in the same batches.
    pub len: Window<DATA_BATCHES>,
    /// Elements of the batch at the first alarm.
    pub len_at_alarm: Option<u64>,
    /// The latest batch's.
    pub latest: Option<TensorStats>,
    /// That of the batch before it.
    pub previous: Option<TensorStats>,
    /// Of the batch at the first alarm and the one before it, the larger.
    pub at_alarm: Option<TensorStats>,
    /// Whether it was not finite in a step whose loss and gradients were, as an additive mask is.
    pub is_harmless: bool,
}

impl DataTrack {
    fn take(&mut self, stats: TensorStats) {
        // An input that comes in several passes of a step is the data of all of them.
        let together = self.latest.map_or(stats, |before| merge([&before, &stats]));
        self.latest = Some(together);
    }

    fn note_first(&mut self) {
        if let Some(latest) = self.latest.filter(|_| self.first_rms.len() < FIRST_BATCHES) {
            self.first_rms.push(latest.rms());
        }
    }

    pub(crate) fn settle(&mut self) {
        let Some(latest) = self.latest else { return };
        self.previous = Some(latest);
        self.rms.push(latest.rms());
        self.max.push(latest.max_abs);
        self.len.push(latest.len as f64);
    }

    pub(crate) fn freeze(&mut self) {
        let batches = [self.latest, self.previous].into_iter().flatten();
        self.len_at_alarm = self.latest.map(|latest| latest.len);
        self.at_alarm = batches.max_by(|a, b| a.max_abs.total_cmp(&b.max_abs));
    }
}

impl BatchTrack {
    /// The place of an input's track, which is made when there is room; else the last.
    fn place(&mut self, name: &str) -> usize {
        let known = self.inputs.iter().position(|(known, _)| known == name);
        known.unwrap_or_else(|| {
            if self.inputs.len() < INPUTS_MAX {
                self.inputs.push((name.to_owned(), DataTrack::default()));
            }
            self.inputs.len() - 1
        })
    }

    /// The place of an input that was seen before.
    fn known(&self, name: &str) -> Option<usize> {
        let known = self.inputs.iter().position(|(known, _)| known == name);
        known.or_else(|| (self.inputs.len() >= INPUTS_MAX).then(|| self.inputs.len() - 1))
    }

    pub(crate) fn take(&mut self, inputs: &[NamedInput<'_>], targets: Option<TensorStats>) {
        self.tracks().for_each(|track| track.latest = None);
        for input in inputs {
            let place = self.place(input.name);
            self.inputs[place].1.take(input.stats);
        }
        self.targets.latest = targets;
        self.tracks().for_each(DataTrack::note_first);
    }

    pub(crate) fn tracks(&mut self) -> impl Iterator<Item = &mut DataTrack> {
        self.inputs.iter_mut().map(|(_, track)| track).chain([&mut self.targets])
    }

    /// The number by which a batch is unlike those before it: the largest element or the RMS of an
    /// input, or the largest target, is far above their median.
    pub(crate) fn unlike(
        &self,
        inputs: &[NamedInput<'_>],
        targets: Option<TensorStats>,
    ) -> Option<Measure> {
        let mut inputs = inputs.iter();
        let input =
            inputs.find_map(|input| self.unlike_input(self.known(input.name)?, &input.stats));
        input.or_else(|| self.unlike_targets(&targets?))
    }

    /// The same of the batch at the first alarm.
    pub(crate) fn unlike_at_alarm(&self) -> Option<Measure> {
        let mut places = 0..self.inputs.len();
        let input =
            places.find_map(|place| self.unlike_input(place, &self.inputs[place].1.at_alarm?));
        input.or_else(|| self.unlike_targets(&self.targets.at_alarm?))
    }

    fn unlike_input(&self, place: usize, now: &TensorStats) -> Option<Measure> {
        let (_, track) = self.inputs.get(place)?;
        let found = unlike_median(Quantity::LargestElement, now.max_abs, &track.max)
            .or_else(|| unlike_median(Quantity::DataRms, now.rms(), &track.rms));
        found.map(|measure| measure.at(Place::Input(place)))
    }

    fn unlike_targets(&self, now: &TensorStats) -> Option<Measure> {
        let found = unlike_median(Quantity::LargestElement, now.max_abs, &self.targets.max);
        found.map(|measure| measure.at(Place::Targets))
    }
}

fn unlike_median(quantity: Quantity, now: f64, before: &Window<DATA_BATCHES>) -> Option<Measure> {
    let ratio = RULES.data.ratio;
    // Against zeros anything is large: they are a state at its start, or padding.
    let usual = before.median().filter(|usual| *usual > 0.0 && now > ratio * usual)?;
    Some(Measure::new(quantity, now).against(Reference::Usual, usual))
}
