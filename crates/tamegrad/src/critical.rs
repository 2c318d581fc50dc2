//! The critical step size: the smallest multiple of an update that raises the loss of its own batch.

use crate::preflight::{MULTIPLE_TRIED_MAX, MULTIPLE_TRIED_MIN};

/// Bisections that follow the powers of 4: they leave 2% between lowering and raising.
const BISECTIONS: u32 = 6;
/// Changes of the loss up to this many units of its rounding are none: each of the two losses is a
/// sum over a batch, and each weight was rounded when it was moved.
const ROUNDING_UNITS: f64 = 16.0;

/// The multiples of an update that are tried, from a first one to [`MULTIPLE_TRIED_MAX`], each 4
/// times the one before it.
pub fn multiples(first: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(first), |multiple| Some(4.0 * multiple))
        .take_while(|multiple| *multiple <= MULTIPLE_TRIED_MAX)
}

/// Whether `loss` is above `start` by more than rounding, where `epsilon` is the distance from 1 to
/// the next number of the type that the loss is computed in. NaN counts as raised.
pub fn is_raised(start: f64, epsilon: f64, loss: f64) -> bool {
    !(loss <= start + ROUNDING_UNITS * epsilon * start.abs())
}

/// The smallest multiple of the update that raises the loss, within 2%, by at most 16 losses:
/// infinite when [`MULTIPLE_TRIED_MAX`] does not raise it, 0 when [`MULTIPLE_TRIED_MIN`] does. `None`
/// when the loss is not finite before the update.
///
/// `start` is the loss of the batch before the update, `epsilon` as in [`is_raised`], and `loss_at`
/// gives the loss of the same batch with each parameter at W + multiple dW.
///
/// # Errors
/// The first error of `loss_at`.
///
/// ```
/// use std::convert::Infallible;
/// use tamegrad::critical::critical_multiple;
///
/// // The loss 2 w^2 from w = 1, and an update to w = 0.9: it is raised beyond w = -1.
/// let loss_at = |multiple: f64| Ok::<_, Infallible>(2.0 * (1.0 - 0.1 * multiple).powi(2));
/// assert_eq!(critical_multiple(2.0, f64::EPSILON, loss_at), Ok(Some(f64::INFINITY)));
/// let loss_at = |multiple: f64| Ok::<_, Infallible>(2.0 * (1.0 - 4.0 * multiple).powi(2));
/// let Ok(multiple) = critical_multiple(2.0, f64::EPSILON, loss_at);
/// assert!(multiple.is_some_and(|multiple| (0.5..0.515).contains(&multiple)));
/// ```
pub fn critical_multiple<E>(
    start: f64,
    epsilon: f64,
    mut loss_at: impl FnMut(f64) -> Result<f64, E>,
) -> Result<Option<f64>, E> {
    if !start.is_finite() {
        return Ok(None);
    }
    let mut raises = |multiple| Ok(is_raised(start, epsilon, loss_at(multiple)?));
    let mut lowers = 0.0;
    for multiple in multiples(MULTIPLE_TRIED_MIN) {
        if raises(multiple)? {
            if lowers > 0.0 {
                return bisect(lowers, multiple, raises).map(Some);
            }
            return Ok(Some(0.0));
        }
        lowers = multiple;
    }
    Ok(Some(f64::INFINITY))
}

fn bisect<E>(
    mut lowers: f64,
    mut raised: f64,
    mut raises: impl FnMut(f64) -> Result<bool, E>,
) -> Result<f64, E> {
    for _ in 0..BISECTIONS {
        let middle = (lowers * raised).sqrt();
        if raises(middle)? { raised = middle } else { lowers = middle }
    }
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Of the loss a w^2 / 2 from w = 1 along an update by `u`.
    fn of_parabola(u: f64) -> (Option<f64>, u32) {
        let mut losses = 0;
        let loss_at = |multiple: f64| {
            losses += 1;
            Ok::<_, Infallible>((1.0 + u * multiple).powi(2))
        };
        let Ok(multiple) = critical_multiple(1.0, f64::from(f32::EPSILON), loss_at);
        (multiple, losses)
    }

    #[test]
    fn the_multiple_is_found_within_2_percent_by_few_losses() {
        for want in [3.9, 1.0, 0.7, 0.025, 1e-4] {
            let (multiple, losses) = of_parabola(-2.0 / want);
            let got = multiple.expect("finite");
            assert!((0.999..1.025).contains(&(got / want)), "{got} is not {want}");
            assert!(losses <= 16, "{losses}");
        }
        for (u, want) in [(-0.4, f64::INFINITY), (0.0, f64::INFINITY), (1e6, 0.0), (f64::NAN, 0.0)]
        {
            assert_eq!(of_parabola(u).0, Some(want), "{u}");
        }
    }

    #[test]
    fn an_error_ends_the_search_and_a_broken_start_has_none() {
        assert_eq!(critical_multiple(1.0, 0.0, |_| Err("no loss")), Err("no loss"));
        assert_eq!(critical_multiple(f64::NAN, 0.0, |_| Err("no loss")), Ok(None));
    }
}
