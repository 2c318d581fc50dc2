//! A row of named numbers, as JSON and CSV have them.

/// Bytes that a name may have; longer ones are no names that a person gave.
pub(crate) const NAME_BYTES_MAX: usize = 1024;
/// Bytes that all names of a row may have; what comes after is left out.
const ROW_BYTES_MAX: usize = 4 << 20;
/// Numbers that a row may have.
const ROW_CELLS_MAX: usize = 100_000;

/// The numbers of one record. Made once and filled again for each record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// All names, each with a zero behind it.
    names: String,
    /// Where each name ends, and its number.
    cells: Vec<(usize, f64)>,
    /// What the record says it is of, where that is not training.
    split: Option<&'static str>,
}

impl Row {
    /// Empties the row.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.cells.clear();
        self.split = None;
    }

    /// Adds a number, if there is room for it.
    pub(crate) fn push(&mut self, name: &str, value: f64) {
        let has_room =
            self.names.len() + name.len() <= ROW_BYTES_MAX && self.cells.len() < ROW_CELLS_MAX;
        if has_room && name.len() <= NAME_BYTES_MAX {
            self.names.push_str(name);
            self.cells.push((self.names.len(), value));
            self.names.push('\0');
        }
    }

    /// Takes note of a text, which may say that the record is of a validation: mmcv has
    /// `"mode": "val"`.
    pub(crate) fn push_text(&mut self, name: &str, text: &str) {
        if !matches!(name, "mode" | "split" | "phase") {
            return;
        }
        let splits = ["val", "valid", "validation", "eval", "test"];
        if let Some(split) = splits.iter().find(|split| text.eq_ignore_ascii_case(split)) {
            self.split = Some(split);
        }
    }

    /// What the record is of, where that is not training.
    pub(crate) fn split(&self) -> Option<&'static str> {
        self.split
    }

    /// The names and their numbers.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (&str, f64)> {
        let mut start = 0;
        self.cells.iter().map(move |&(end, value)| {
            let name = self.names.get(start..end).unwrap_or_default();
            start = end + 1;
            (name, value)
        })
    }

    /// The numbers without their names.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> {
        self.cells.iter().map(|&(_, value)| value)
    }

    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The number of a cell.
    pub(crate) fn value(&self, index: usize) -> Option<f64> {
        self.cells.get(index).map(|&(_, value)| value)
    }

    /// All names in one text, to compare two rows by.
    pub(crate) fn all_names(&self) -> &str {
        &self.names
    }

    /// Whether there is no number.
    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}
