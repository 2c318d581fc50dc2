//! The order of tensors from top to bottom.

use std::cmp::Ordering;

use tamegrad::{Diagnosis, Place};

/// What tensors are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The order in which their layers ran.
    Executed,
    /// The order of the log, which often is that of the model.
    Logged,
    /// Their names: the log has them in the order of the alphabet, which puts `h.10` before `h.2`.
    Named,
}

/// The places of the tensors in the order in which they are shown.
pub(crate) fn ordered(tensors: &[&str], diagnosis: &Diagnosis) -> (Vec<usize>, Order) {
    let mut places: Vec<usize> = (0..tensors.len()).collect();
    let links = diagnosis.chain.iter().flat_map(|chain| &chain.links);
    let layers: Vec<&str> =
        links.filter_map(|link| diagnosis.names.name(Place::Layer(link.layer))).collect();
    let executed: Vec<Option<usize>> =
        tensors.iter().map(|tensor| layer_of(tensor, &layers)).collect();
    let known = executed.iter().flatten().count();
    if 2 * known > tensors.len() {
        // A tensor of no known layer stays behind the one before it.
        let mut last = 0;
        let ranks: Vec<usize> = executed
            .iter()
            .map(|layer| {
                last = layer.unwrap_or(last);
                last
            })
            .collect();
        places.sort_by_key(|place| ranks[*place]);
        return (places, Order::Executed);
    }
    let is_alphabetical = tensors.len() > 2 && tensors.is_sorted();
    if is_alphabetical {
        places.sort_by(|a, b| natural(tensors[*a], tensors[*b]));
        return (places, Order::Named);
    }
    (places, Order::Logged)
}

/// The layer that a tensor is of: the one with the longest name that the tensor's goes on from.
fn layer_of(tensor: &str, layers: &[&str]) -> Option<usize> {
    let own = layers.iter().enumerate().filter_map(|(index, layer)| {
        // A module that is called again has the number of the call behind its name.
        let layer = layer.split('@').next()?;
        let rest = tensor.strip_prefix(layer)?;
        (rest.is_empty() || rest.starts_with('.')).then_some((index, layer.len()))
    });
    // Of several calls the first.
    own.min_by_key(|(index, len)| (std::cmp::Reverse(*len), *index)).map(|(index, _)| index)
}

/// Compares names as a person does: `h.2` comes before `h.10`.
fn natural(a: &str, b: &str) -> Ordering {
    parts(a).cmp(parts(b))
}

/// Texts and numbers that a name is made of.
fn parts(name: &str) -> impl Iterator<Item = (&str, u64)> {
    let mut rest = name;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let (number, behind) = behind.split_at(end);
        rest = behind;
        Some((text, number.parse().unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::logs::{History, diagnose};
    use tamegrad::{Chain, LayerId, Link, Names, Step};

    fn of_layers(layers: &[&str]) -> Diagnosis {
        let link = |index| Link {
            layer: LayerId(index),
            forward: None,
            backward: None,
            first_inner: LayerId(index),
            only_normalises: false,
        };
        let links: Vec<Link> = (0..layers.len()).map(link).collect();
        let chain = Chain { step: Step(0), links, ends: None };
        let layers = layers.iter().map(|layer| (*layer).to_owned()).collect();
        Diagnosis {
            chain: Some(chain),
            names: Names { layers, ..Names::default() },
            ..diagnose(&History::default())
        }
    }

    #[test]
    fn tensors_stand_in_the_order_of_execution_where_it_is_known() {
        for (layers, tensors, wanted, by) in [
            (
                &["h.0", "h.10", "h.1", "head"][..],
                &["h.1.w", "head.w", "h.0.w", "h.10.w", "scale"][..],
                &["h.0.w", "h.10.w", "scale", "h.1.w", "head.w"][..],
                Order::Executed,
            ),
            (
                &["cell@0", "cell@1"],
                &["cell.w", "out.w", "cell.b"],
                &["cell.w", "out.w", "cell.b"],
                Order::Executed,
            ),
            (&[], &["b.w", "a.w"], &["b.w", "a.w"], Order::Logged),
            (
                &[],
                &["h.0.w", "h.1.w", "h.10.w", "h.2.w"],
                &["h.0.w", "h.1.w", "h.2.w", "h.10.w"],
                Order::Named,
            ),
        ] {
            let (places, order) = ordered(tensors, &of_layers(layers));
            let found: Vec<&str> = places.iter().map(|place| tensors[*place]).collect();
            assert_eq!((&found[..], order), (wanted, by));
        }
    }
}
