//! One HTML file of a run, or of several.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::badge::badge;
use crate::figure::{self, Figure, Width};
use crate::figures::{figures, overlays};
use crate::markup::text;
use crate::sections;
use crate::view::RunView;

/// The style of a page beside that of its figures.
const PAGE_STYLE: &str = include_str!("page.css");
/// Which style the page may have: the digest of [`style`], as a test checks.
const STYLE_DIGEST: &str = "sha256-ZLSlgb3Ygtp4gU6R828xbD2rQLooOv6Wrl/P6bmtFJk=";

/// Runs that are shown in full; of further ones only the comparison is.
pub(crate) const FULL_MAX: usize = 4;

fn style() -> String {
    format!("{}{PAGE_STYLE}", figure::STYLE)
}

/// The runs as one HTML file that needs nothing else: verdict, figures, signs, causes, remedies, and what
/// is not known. Several runs are compared first.
///
/// It has no script, and its content security policy allows none, nor anything from elsewhere. Names and
/// texts of a log are escaped.
pub fn page(runs: &[RunView<'_>]) -> String {
    let names = sections::short_names(runs);
    let title = match (runs, &names[..]) {
        ([run], [name]) => format!("{}: {name}", badge(run.log.diagnosis)),
        _ => names.join(", "),
    };
    let policy = format!(
        "default-src 'none'; style-src '{STYLE_DIGEST}'; img-src data:; base-uri 'none'; \
         form-action 'none'"
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="generator" content=(crate::MARK);
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (text(&title)) " – tamegrad" }
                style { (PreEscaped(style())) }
            }
            body {
                main {
                    @if let [run] = runs {
                        (of_run(run, &names[0], "r0", true))
                    } @else {
                        (comparison(runs, &names))
                        @for (index, (run, name)) in runs.iter().zip(&names).take(FULL_MAX).enumerate() {
                            article.run id={ "r" (index) } {
                                (of_run(run, name, &format!("r{index}"), false))
                            }
                        }
                    }
                }
                footer {
                    p { "Written by " (crate::MARK) ". This file needs no network and runs no script." }
                }
            }
        }
    };
    page.into_string()
}

fn comparison(runs: &[RunView<'_>], names: &[String]) -> Markup {
    html! {
        header {
            p.eyebrow { "tamegrad report" }
            h1 { (runs.len()) " runs compared" }
        }
        section {
            (sections::comparison(runs, names))
            @for (index, figure) in overlays(runs, names).iter().enumerate() {
                (drawn(figure, &format!("o{index}")))
            }
        }
        @if runs.len() > FULL_MAX {
            p.note { "The first " (FULL_MAX) " runs follow in full." }
        }
    }
}

/// Everything that is known of a run. `id` begins the ids of its elements.
fn of_run(run: &RunView<'_>, name: &str, id: &str, is_alone: bool) -> Markup {
    let figures = figures(run);
    let drawn_of = |names: &[&str]| -> Markup {
        html! {
            @for figure in figures.iter().filter(|figure| names.contains(&figure.name)) {
                (drawn(figure, &format!("{id}-{}", figure.name)))
            }
        }
    };
    html! {
        (sections::head(run, name, id, is_alone))
        @if figures.iter().any(|figure| ["loss", "gradient-norm"].contains(&figure.name)) {
            section { h2 { "What happened" } (drawn_of(&["loss", "gradient-norm"])) }
        }
        @if figures.iter().any(|figure| ["tensors", "gains"].contains(&figure.name)) {
            section { h2 { "Where" } (drawn_of(&["tensors", "gains"])) }
        }
        @if figures.iter().any(|figure| ["update-ratio", "learning-rate"].contains(&figure.name)) {
            section { h2 { "Updates" } (drawn_of(&["update-ratio", "learning-rate"])) }
        }
        (sections::signs(run))
        (sections::causes(run))
        (sections::remedies(run, id))
        (sections::actions(run))
        (sections::not_shown(run, &figures))
    }
}

/// A figure for both widths, of which the style shows one, with its caption and its table.
fn drawn(figure: &Figure, id: &str) -> Markup {
    html! {
        figure {
            figcaption {
                h3 { (text(&figure.title)) }
                @if !figure.caption.is_empty() { p { (text(&figure.caption)) } }
            }
            div.wide { (PreEscaped(figure.element(Width::Wide, &format!("{id}-w")))) }
            div.narrow { (PreEscaped(figure.element(Width::Narrow, &format!("{id}-n")))) }
            details.data {
                summary { "Numbers" }
                (sections::table(&figure.table))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_policy_allows_this_style_and_no_other() {
        let digest = Sha256::digest(style());
        let digest = base64::engine::general_purpose::STANDARD.encode(digest);
        assert_eq!(STYLE_DIGEST, format!("sha256-{digest}"));
    }
}
