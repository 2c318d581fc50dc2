//! What follows a linear map in a layer: normalisation, activation, skip connection.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor};
use tamegrad::{LayerInfo, NormalisationKind};

use super::{activate, activation_kind};
use crate::recipe::{Activation, Normalisation, NormalisationKind as Kind, Place};

/// Normalisation over the batch or over the features.
#[derive(Module, Debug)]
pub(crate) enum Norm {
    /// Batch norm (Ioffe and Szegedy 2015).
    Batch(BatchNorm),
    /// Layer norm (Ba et al. 2016).
    Layer(LayerNorm),
}

impl Norm {
    /// The normalisation of a layer of this width (channels for images), if it has one.
    pub(crate) fn new(normalisation: Normalisation, width: usize, device: &Device) -> Option<Self> {
        match normalisation.kind {
            Kind::None => None,
            Kind::Batch => Some(Norm::Batch(BatchNormConfig::new(width).init(device))),
            Kind::Layer => Some(Norm::Layer(LayerNormConfig::new(width).init(device))),
        }
    }

    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            // Features are the last dimension of a sequence; batch norm wants them second.
            Norm::Batch(norm) if D == 3 => norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2),
            Norm::Batch(norm) => norm.forward(x),
            // Channels are the second dimension of an image, features the last: layer norm over
            // the channels of each pixel.
            Norm::Layer(norm) if D == 4 => norm.forward(x.swap_dims(1, 3)).swap_dims(1, 3),
            Norm::Layer(norm) => norm.forward(x),
        }
    }
}

/// How a layer ends: normalisation before or after the activation, and a skip connection where
/// input and output have the same shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) activation: Activation,
    pub(crate) normalisation: Normalisation,
    pub(crate) residual: bool,
}

/// A linear map and what follows it.
#[derive(Module, Debug)]
pub(crate) struct Dense {
    pub(super) linear: Linear,
    pub(super) norm: Option<Norm>,
    #[module(skip)]
    pub(super) ending: Ending,
}

impl Dense {
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mapped = self.linear.forward(x.clone());
        self.ending.apply(self.norm.as_ref(), x, mapped)
    }
}

/// What the core is told of layers that are numbered under a name.
pub(super) fn infos<'a>(
    name: &str,
    endings: impl Iterator<Item = &'a Ending>,
) -> impl Iterator<Item = LayerInfo> {
    endings.enumerate().map(move |(index, ending)| ending.info(format!("{name}.{index}")))
}

impl Ending {
    /// `mapped` is the linear map of `input`.
    pub(crate) fn apply<const D: usize>(
        &self,
        norm: Option<&Norm>,
        input: Tensor<D>,
        mapped: Tensor<D>,
    ) -> Tensor<D> {
        let normalise = |x: Tensor<D>| norm.map_or(x.clone(), |norm| norm.forward(x));
        let out = match self.normalisation.place {
            Place::Before => activate(self.activation, normalise(mapped)),
            Place::After => normalise(activate(self.activation, mapped)),
        };
        if self.residual && input.dims() == out.dims() { input + out } else { out }
    }

    /// What the core is told of the layer.
    fn info(&self, name: String) -> LayerInfo {
        LayerInfo {
            activation: Some(activation_kind(self.activation)),
            normalisation: Some(match self.normalisation.kind {
                Kind::None => NormalisationKind::None,
                Kind::Batch => NormalisationKind::Batch,
                Kind::Layer => NormalisationKind::Layer,
            }),
            residual: Some(self.residual),
            ..LayerInfo::named(name)
        }
    }
}
