//! The names of series as a file has them, found again fast and bounded in number and size.

use std::collections::HashMap;
use std::path::Path;

use crate::log::{LogBuilder, Point};

/// Names kept of one run.
const TAGS_MAX: usize = 100_000;
/// Bytes of all names together.
const TAG_BYTES_MAX: usize = 16 << 20;
/// Bytes of one name.
const TAG_LEN_MAX: usize = 4096;

/// What a reader keeps for each name.
#[derive(Debug, Default)]
pub(crate) struct Tags<T> {
    ids: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    entries: Vec<T>,
    bytes: usize,
    left_out: u64,
}

impl<T: Default> Tags<T> {
    /// The entry of a name, made if it is not there; `None` where there are too many.
    #[inline]
    pub(crate) fn entry(&mut self, tag: &[u8]) -> Option<&mut T> {
        // Before the search: the time to hash a name is bounded as well.
        let known = if tag.len() > TAG_LEN_MAX { None } else { self.ids.get(tag).copied() };
        let id = match known {
            Some(id) => id,
            None => self.insert(tag)?,
        };
        self.entries.get_mut(id)
    }

    #[cold]
    fn insert(&mut self, tag: &[u8]) -> Option<usize> {
        let is_over = self.entries.len() >= TAGS_MAX || self.bytes + tag.len() > TAG_BYTES_MAX;
        if is_over || tag.len() > TAG_LEN_MAX {
            self.left_out += 1;
            return None;
        }
        let id = self.entries.len();
        self.bytes += tag.len();
        self.entries.push(T::default());
        self.ids.insert(tag.into(), id);
        Some(id)
    }

    /// Notes how much was left out because there were too many names, and forgets it.
    pub(crate) fn note_left_out(&mut self, path: &Path, log: &mut LogBuilder) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let text = format!(
                "left out {left_out} values: of one run, {TAGS_MAX} names of at most \
                 {TAG_LEN_MAX} bytes, {TAG_BYTES_MAX} bytes together, are kept"
            );
            log.notice(path, None, text);
        }
    }
}

/// A number of a record: as it is, or computed from a histogram's bins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Exact(f64),
    Estimate(f64),
}

impl Number {
    /// Adds the number to the series of a name, whose place is looked up but once.
    #[inline]
    pub(crate) fn push(
        self,
        place: &mut Option<usize>,
        name: &[u8],
        moment: Point,
        log: &mut LogBuilder,
    ) {
        let text = || String::from_utf8_lossy(name);
        match self {
            Self::Exact(value) => {
                let place = *place.get_or_insert_with(|| log.place(&text()));
                log.push_at(place, Point { value, ..moment });
            }
            Self::Estimate(value) => log.push_estimate(&text(), Point { value, ..moment }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_bounded() {
        let mut tags = Tags::<u32>::default();
        *tags.entry(b"loss").unwrap() = 7;
        assert_eq!(tags.entry(b"loss"), Some(&mut 7));
        assert_eq!(tags.entry(&[b'x'; TAG_LEN_MAX + 1]), None);
        for number in 0..TAGS_MAX {
            tags.entry(number.to_string().as_bytes());
        }
        assert_eq!(tags.entries.len(), TAGS_MAX);
        assert_eq!(tags.entry(b"loss"), Some(&mut 7));
        let mut log = LogBuilder::new();
        tags.note_left_out(Path::new("a"), &mut log);
        tags.note_left_out(Path::new("a"), &mut log);
        let notices: Vec<String> = log.finish().notices.iter().map(|n| n.to_string()).collect();
        assert_eq!(notices.len(), 1);
        assert!(notices[0].starts_with("a: left out 2 values"), "{notices:?}");
    }
}
