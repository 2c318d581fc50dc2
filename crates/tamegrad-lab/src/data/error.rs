//! What can be wrong with data: each error says got, want, where, and a next step.

use std::path::PathBuf;

/// Why a data set could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The file could not be opened or read to its end.
    #[error("{}: got `{reason}`, want a file that can be read; hint: {hint}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system or the decompressor said.
        reason: String,
        /// A next step.
        hint: &'static str,
    },
    /// A cell of a table does not hold what its column needs.
    #[error("{}:{line}: column `{column}`: got `{got}`, want {want}; hint: {hint}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: usize,
        /// Name of the column.
        column: String,
        /// What the cell holds.
        got: String,
        /// What it should hold.
        want: &'static str,
        /// A next step.
        hint: &'static str,
    },
    /// The header has no column of the target's name.
    #[error(
        "{}:1: got no column `{got}`, want one of: {}; hint: {hint}",
        path.display(), columns.join(", ")
    )]
    NoTargetColumn {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        got: String,
        /// The names that the header has.
        columns: Vec<String>,
        /// A next step.
        hint: &'static str,
    },
    /// A table's rows, columns or text are not as they should be.
    #[error("{}:{line}: got {got}, want {want}; hint: {hint}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What was found.
        got: String,
        /// What should be there.
        want: String,
        /// A next step.
        hint: &'static str,
    },
    /// An IDX file does not hold what it should.
    #[error("{}: byte {offset}: got {got}, want {want}; hint: {hint}", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// Offset from 0, in the decompressed bytes where the file is compressed.
        offset: u64,
        /// What was found.
        got: String,
        /// What should be there.
        want: String,
        /// A next step.
        hint: &'static str,
    },
    /// A parameter of a source is outside its range.
    #[error("`{name}`: got {got}, want {want}; hint: {hint}")]
    Parameter {
        /// The parameter's name in a recipe.
        name: &'static str,
        /// Its value.
        got: String,
        /// The values that are allowed.
        want: String,
        /// A next step.
        hint: &'static str,
    },
}
