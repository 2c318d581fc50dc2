//! An event file that is still being written.

use std::path::{Path, PathBuf};

use super::Run;
use super::frames::{FRAMING, HEADER, RECORD_MAX, is_sound, payload_len};
use crate::log::{Log, LogBuilder};
use crate::readers::Growing;

/// A file with what is known of its run.
#[derive(Debug)]
struct Events {
    path: PathBuf,
    run: Run,
    log: LogBuilder,
}

pub(super) fn grow(path: &Path, log: LogBuilder) -> Option<Box<dyn Growing>> {
    Some(Box::new(Events { path: path.to_owned(), run: Run::default(), log }))
}

/// The length of the first frame, sound or not; `None` where its length is damaged.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let len = payload_len(bytes).filter(|len| *len <= RECORD_MAX)?;
    usize::try_from(len + FRAMING).ok()
}

impl Growing for Events {
    fn whole(&self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while rest.len() >= HEADER {
            let Some(frame) = rest.get(..frame_len(rest)?) else { break };
            is_sound(frame).then_some(())?;
            rest = &rest[frame.len()..];
        }
        Some(bytes.len() - rest.len())
    }

    fn take(&mut self, bytes: &[u8], offset: u64) {
        self.log.saw(bytes.len() as u64);
        let mut rest = bytes;
        while let Some(frame) = frame_len(rest).and_then(|len| rest.get(..len)) {
            let payload = frame.get(HEADER..frame.len() - 4).unwrap_or_default();
            if self.run.event(payload, &mut self.log).is_err() {
                let at = offset + (bytes.len() - rest.len()) as u64;
                self.log.notice(&self.path, Some(at), "a record that is not an event; left out");
                self.log.lose(frame.len() as u64);
            }
            rest = &rest[frame.len()..];
        }
    }

    fn look(&mut self, _: &[u8], points: usize) -> Log {
        self.log.ending(points).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::tensorboard::frames::frame;
    use crate::wire::Value;
    use crate::wire::write::message;

    /// The frame of an event with the loss at a step.
    fn event(step: u64, loss: f32) -> Vec<u8> {
        let value = message(&[(1, Value::Bytes(b"loss")), (2, Value::Fixed32(loss.to_bits()))]);
        let summary = message(&[(1, Value::Bytes(&value))]);
        frame(&message(&[(2, Value::Varint(step)), (5, Value::Bytes(&summary))]))
    }

    #[test]
    fn whole_frames_are_taken_in_and_damage_is_told() {
        let mut events = grow(Path::new("a"), LogBuilder::new()).unwrap();
        let (first, second) = (event(1, 2.5), event(2, 2.25));
        let bytes = [&first[..], &second].concat();
        for cut in first.len()..bytes.len() {
            assert_eq!(events.whole(&bytes[..cut]), Some(first.len()), "{cut}");
        }
        assert_eq!(events.whole(&bytes), Some(bytes.len()));
        for damaged in [0, 9, 20] {
            let mut bytes = bytes.clone();
            bytes[damaged] ^= 1;
            assert_eq!(events.whole(&bytes), None, "{damaged}");
        }
        events.take(&first, 0);
        events.take(&second, first.len() as u64);
        let log = events.look(&[], 100);
        let points: Vec<(i64, f64)> =
            log.series[0].points.iter().map(|p| (p.step, p.value)).collect();
        assert_eq!(points, [(1, 2.5), (2, 2.25)]);
        assert_eq!(log.notices, []);
    }
}
