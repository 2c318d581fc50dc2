//! The core's table of the remedies.

use pyo3::prelude::*;
use tamegrad::remedies::RemedyName;

/// The remedies, the least force first, each with the causes that it treats.
#[pyfunction]
pub(crate) fn remedies() -> Vec<(&'static str, Vec<&'static str>)> {
    let treated = |remedy: RemedyName| remedy.treats().iter().map(|cause| cause.as_str()).collect();
    RemedyName::ALL.iter().map(|remedy| (remedy.as_str(), treated(*remedy))).collect()
}
