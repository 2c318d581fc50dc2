//! `tamegrad preflight`: a recipe before its first update.

use std::process::ExitCode;

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
    let layer_name = |layer| seen.record.layout.layer_name(layer).to_owned();
    let report = words::PreflightReport {
        warnings: seen.warnings.clone(),
        loss: seen.loss,
        gradient_norm: seen.gradient_norm,
        forward_product: seen.chain.as_ref().map(tamegrad::Chain::forward_product),
        backward_product: seen.chain.as_ref().map(tamegrad::Chain::backward_product),
        overflows_at: seen.overflows_at.map(layer_name),
        headroom_bits: seen.headroom_bits,
        first_update_ratio: seen.first_update,
        gains: json::gains(seen.chain.as_ref(), &seen.record),
    };
    if args.common.json {
        screen::print(&to_json(&report)?);
    } else {
        let chain = seen.chain.as_ref();
        screen::print(&words::text(&report, chain, &seen.record, &screen::style()));
    }
    Ok(if seen.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}
