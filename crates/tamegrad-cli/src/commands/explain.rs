//! `tamegrad explain`: what a sign, a cause or a remedy is.

use tamegrad_report::explain;

use super::HEALTHY;
use crate::args::Explain;
use crate::failure::Failure;
use crate::screen;

/// The name of the whole story.
const STORY: &str = "exploding-gradients";
/// The factors of the worked example.
const FACTORS: [f64; 2] = [100.0, 400.0];

/// Prints a page, or the list of all names.
pub(crate) fn run(args: &Explain) -> Result<u8, Failure> {
    let style = screen::style();
    let page = match (args.name.as_deref(), &args.factors) {
        (Some(STORY), factors) | (None, factors @ Some(_)) => {
            let factors = factors.as_deref().unwrap_or(&FACTORS);
            if let Some(bad) = factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
                return Err(Failure::Factor(*bad));
            }
            explain::exploding_gradients(factors, &style)
        }
        (Some(name), None) => {
            let (topic, doc) = tamegrad::explain::find(name).ok_or_else(|| unknown(name))?;
            explain::page(doc, topic, &style)
        }
        (Some(name), Some(_)) => {
            return Err(Failure::FactorsOf { name: name.to_owned(), story: STORY });
        }
        (None, None) => explain::list(&style),
    };
    screen::print(&page);
    Ok(HEALTHY)
}

fn unknown(name: &str) -> Failure {
    let words: Vec<&str> = name.split('-').filter(|word| word.len() > 2).collect();
    let entries = tamegrad::explain::all().into_iter().map(|(_, doc)| doc.name);
    let names = std::iter::once(STORY).chain(entries);
    let near: Vec<&str> = names.filter(|n| words.iter().any(|word| n.contains(word))).collect();
    let hint = if near.is_empty() {
        "`tamegrad explain` lists them".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    Failure::Unknown { name: name.to_owned(), hint }
}
