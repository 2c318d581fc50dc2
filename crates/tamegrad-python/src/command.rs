//! The command line `tamegrad`, for the script that the package brings.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command line of these arguments, the first of which is the program's name, and gives
/// its exit code. It takes the process for its own: it prints, and handles Ctrl-C.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| tamegrad_cli::run(arguments))
}
