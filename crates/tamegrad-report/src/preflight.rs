//! The first pass of a recipe, before any update: as JSON and for the terminal.

use serde::Serialize;
use tamegrad::{Chain, Record};

use crate::chain;
use crate::json::{GainReport, number_if_known};
use crate::number::number;
use crate::style::{Style, Tone};
use crate::text::{join, pad};

/// What the first pass shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreflightReport {
    /// What is wrong, in words; empty when nothing is.
    pub warnings: Vec<String>,
    /// Loss of the first batch.
    #[serde(serialize_with = "number_if_known")]
    pub loss: Option<f64>,
    /// L2 norm of the first gradient.
    #[serde(serialize_with = "number_if_known")]
    pub gradient_norm: Option<f64>,
    /// Product of the layers' forward gains.
    #[serde(serialize_with = "number_if_known")]
    pub forward_product: Option<f64>,
    /// Product of the layers' backward gains.
    #[serde(serialize_with = "number_if_known")]
    pub backward_product: Option<f64>,
    /// The first layer whose output is not finite.
    pub overflows_at: Option<String>,
    /// Powers of 2 between the largest output and the largest number of the type.
    #[serde(serialize_with = "number_if_known")]
    pub headroom_bits: Option<f64>,
    /// Largest |dW|/|W| of a weight matrix at the first update.
    #[serde(serialize_with = "number_if_known")]
    pub first_update_ratio: Option<f64>,
    /// Gains of the layers.
    pub gains: Vec<GainReport>,
}

/// The report for the terminal: what is wrong, the numbers, the chain of gains. Every line ends
/// with a line break.
pub fn text(
    report: &PreflightReport,
    gains: Option<&Chain>,
    record: &Record,
    style: &Style,
) -> String {
    let mut lines = match report.warnings.is_empty() {
        true => vec![style.paint(Tone::Good, "Ready: nothing is wrong with the first pass")],
        false => vec![style.paint(Tone::Alarm, "Not ready: the first pass shows")],
    };
    lines.extend(report.warnings.iter().map(|warning| format!("  - {warning}")));
    lines.push(String::new());
    for (label, value) in [
        ("loss", report.loss),
        ("gradient norm", report.gradient_norm),
        ("largest first update |dW|/|W|", report.first_update_ratio),
        ("powers of 2 before overflow", report.headroom_bits),
    ] {
        lines.push(format!("{}{}", pad(label, 32), value.map_or("not known".into(), number)));
    }
    let mut text = join(lines);
    if let Some(gains) = gains {
        text.push_str("\nGains of the layers\n");
        text.push_str(&chain::chain(gains, record, style));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::{Layout, RunFacts};

    #[test]
    fn warnings_come_first_and_unknown_numbers_are_said() {
        let mut report = PreflightReport {
            warnings: vec!["the output of layers.2 overflows in the first pass".into()],
            loss: Some(f64::NAN),
            gradient_norm: Some(0.0),
            forward_product: Some(f64::INFINITY),
            backward_product: None,
            overflows_at: Some("layers.2".into()),
            headroom_bits: Some(2.5),
            first_update_ratio: None,
            gains: vec![],
        };
        let record = Record::new(Layout::default(), RunFacts::default());
        let shown = text(&report, None, &record, &Style::plain(80));
        assert_eq!(
            shown.lines().collect::<Vec<_>>(),
            [
                "Not ready: the first pass shows",
                "  - the output of layers.2 overflows in the first pass",
                "",
                "loss                            NaN",
                "gradient norm                   0",
                "largest first update |dW|/|W|   not known",
                "powers of 2 before overflow     2.5",
            ]
        );
        report.warnings.clear();
        let ready = text(&report, None, &record, &Style::plain(80));
        assert!(ready.starts_with("Ready: nothing is wrong"), "{ready}");
        let json = serde_json::to_value(&report).expect("serializes");
        assert_eq!(json["loss"], "NaN");
        assert_eq!(json["forward_product"], "Infinity");
        assert_eq!(json["overflows_at"], "layers.2");
    }
}
