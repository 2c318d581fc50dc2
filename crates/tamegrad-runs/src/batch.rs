//! A batch of rows of a stream, as its bytes: values are read where they are.

use std::ops::Range;
use std::sync::Arc;

/// The numbers that a column may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U32,
    U64,
    F64,
}

impl Kind {
    pub(super) fn width(self) -> usize {
        if self == Self::U32 { 4 } else { 8 }
    }
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    /// Where in the body the values are; long enough for all rows.
    pub(super) values: Range<usize>,
    /// Where in the body there is a bit a row that says whether the value is there.
    pub(super) presence: Option<Range<usize>>,
}

/// A whole batch of rows.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) rows: usize,
    pub(super) columns: Vec<Column>,
    pub(super) body: Vec<u8>,
}

impl Batch {
    /// The bytes of a value; `None` where it is absent or the column is of another kind.
    pub(super) fn value<const N: usize>(
        &self,
        name: &str,
        kind: Kind,
        row: usize,
    ) -> Option<[u8; N]> {
        let column = self.columns.iter().find(|column| &*column.name == name)?;
        if column.kind != kind {
            return None;
        }
        if let Some(presence) = &column.presence {
            let byte = self.body.get(presence.clone())?.get(row / 8)?;
            if byte & (1 << (row % 8)) == 0 {
                return None;
            }
        }
        self.body.get(column.values.clone())?.as_chunks().0.get(row).copied()
    }
}
