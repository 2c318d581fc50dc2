//! `tamegrad preflight`: a recipe before its first update.

use std::process::ExitCode;

use tamegrad::{Chain, Link};
use tamegrad_lab::preflight;
use tamegrad_report::{json, preflight as words};

use super::{FOUND, read_recipe, to_json};
use crate::args::Preflight;
use crate::failure::Failure;
use crate::screen;

/// Looks at the first pass; exit code 1 when something is wrong with it.
pub(crate) fn run(args: &Preflight) -> Result<ExitCode, Failure> {
    let file = read_recipe(&args.common)?;
    let seen = preflight(&file.recipe)?;
    let chain = seen.chain.as_ref();
    let layer_name = |layer| seen.record.layout.layer_name(layer).to_owned();
    let report = words::PreflightReport {
        warnings: seen.warnings.clone(),
        loss: seen.loss,
        gradient_norm: seen.gradient_norm,
        forward_product: chain.and_then(|chain| {
            measured(chain, |link| link.forward).then(|| chain.forward_product())
        }),
        backward_product: chain.and_then(|chain| {
            measured(chain, |link| link.backward).then(|| chain.backward_product())
        }),
        overflows_at: seen.overflows_at.map(layer_name),
        headroom_bits: seen.headroom_bits,
        first_update_ratio: seen.first_update,
        gains: json::gains(chain, &seen.record),
    };
    if args.common.json {
        screen::print(&to_json(&report)?);
    } else if !args.common.quiet {
        screen::print(&words::text(&report, chain, &seen.record, &screen::style()));
    }
    Ok(if seen.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

/// Whether any layer has this gain: a product of none would read as a calm 1.
fn measured(chain: &Chain, gain: impl Fn(&Link) -> Option<f64>) -> bool {
    chain.links.iter().any(|link| gain(link).is_some())
}
