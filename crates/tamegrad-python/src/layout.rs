//! Tensors and layers of a model as Python tells them.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tamegrad::{ActivationKind, LayerId, LayerInfo, Layout, NormalisationKind, TensorInfo};

/// Name, layer, whether it is a weight matrix, inputs of one of its units.
pub(crate) type TensorRow = (String, Option<usize>, bool, Option<u64>);

/// Name, activation with its growth, normalisation, residual, recurrent.
pub(crate) type LayerRow = (String, Option<(String, String)>, Option<String>, Option<bool>, bool);

/// The layout of rows.
pub(crate) fn layout(tensors: Vec<TensorRow>, layers: Vec<LayerRow>) -> PyResult<Layout> {
    let layers = layers.into_iter().map(layer).collect::<PyResult<Vec<_>>>()?;
    Ok(Layout { tensors: tensor_infos(tensors, layers.len())?, layers })
}

/// Rows as the core takes them, in a layout of so many layers.
pub(crate) fn tensor_infos(rows: Vec<TensorRow>, layers: usize) -> PyResult<Vec<TensorInfo>> {
    let infos = rows.into_iter().map(|(name, layer, is_matrix, fan_in)| {
        if let Some(index) = layer.filter(|index| *index >= layers) {
            let message = format!("{name}: got layer {index} of {layers}");
            return Err(PyValueError::new_err(message));
        }
        Ok(TensorInfo { name, layer: layer.map(LayerId), is_matrix, fan_in })
    });
    infos.collect()
}

fn layer((name, activation, normalisation, residual, recurrent): LayerRow) -> PyResult<LayerInfo> {
    let activation = match activation {
        Some((activation, growth)) => Some((activation, growth_of(&growth)?)),
        None => None,
    };
    let normalisation = normalisation.as_deref().map(normalisation_of).transpose()?;
    // Torch's modules are seen one by one: one that normalises does nothing else.
    let only_normalises =
        normalisation.is_some_and(|kind| kind != NormalisationKind::None) && residual.is_none();
    let is_table = false;
    Ok(LayerInfo {
        name,
        activation,
        normalisation,
        residual,
        recurrent,
        is_table,
        only_normalises,
    })
}

fn growth_of(name: &str) -> PyResult<ActivationKind> {
    match name {
        "bounded" => Ok(ActivationKind::Bounded),
        "linear" => Ok(ActivationKind::Linear),
        "superlinear" => Ok(ActivationKind::Superlinear),
        _ => Err(PyValueError::new_err(format!(
            "growth: got `{name}`, want `bounded`, `linear` or `superlinear`"
        ))),
    }
}

fn normalisation_of(name: &str) -> PyResult<NormalisationKind> {
    match name {
        "none" => Ok(NormalisationKind::None),
        "batch" => Ok(NormalisationKind::Batch),
        "layer" => Ok(NormalisationKind::Layer),
        _ => Err(PyValueError::new_err(format!(
            "normalisation: got `{name}`, want `none`, `batch` or `layer`"
        ))),
    }
}
