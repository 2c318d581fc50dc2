//! Text from outside as a part of a page.

use maud::{Markup, PreEscaped, html};
use tamegrad_report::escaped;

/// Text on a line.
pub(crate) fn text(text: &str) -> PreEscaped<String> {
    PreEscaped(escaped(text))
}

/// Text whose line breaks stay.
pub(crate) fn lines(text: &str) -> PreEscaped<String> {
    PreEscaped(text.lines().map(escaped).collect::<Vec<_>>().join("\n"))
}

/// A sentence with what stands between backticks as code.
pub(crate) fn code_in(sentence: &str) -> Markup {
    html! {
        @for (index, part) in sentence.split('`').enumerate() {
            @if index % 2 == 0 { (text(part)) } @else { code { (text(part)) } }
        }
    }
}
