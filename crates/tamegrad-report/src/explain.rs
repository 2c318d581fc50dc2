//! The pages of `explain`: one for each sign, cause and remedy, and the list of them all.

use tamegrad::doc::Doc;
use tamegrad::explain::{Topic, all};

pub use crate::exploding::{DEFAULT_FACTORS, exploding_gradients};
use crate::style::{Style, Tone};
use crate::table::columns;
use crate::text::{join, section};

/// The name of the page on what exploding gradients are.
pub const EXPLODING_GRADIENTS: &str = "exploding-gradients";

/// The page of a sign, cause, remedy or rule: its title, then its sections under their headings.
pub fn page(doc: &Doc, topic: Topic, style: &Style) -> String {
    let title = style.paint(Tone::Heading, doc.title);
    let mut lines = vec![format!("{title} ({}: {})", topic.as_str(), doc.name)];
    for (heading, text) in doc.sections() {
        lines.extend(section(heading, &[&text], style));
    }
    join(lines)
}

/// All names with their titles, in aligned columns.
pub fn list(style: &Style) -> String {
    let docs = all();
    let of = |topic: Topic| docs.iter().filter(move |(t, _)| *t == topic).map(|(_, doc)| *doc);
    let entry = |name: &str, title: &str| vec![format!("  {name}"), title.to_owned()];
    let heading = |text: &str| vec![style.paint(Tone::Heading, text)];
    let mut rows = vec![
        heading("Start here"),
        entry(
            EXPLODING_GRADIENTS,
            "What they are, why they happen, how to recognise them, what helps",
        ),
    ];
    for (topic, title) in [
        (Topic::Sign, "Signs"),
        (Topic::Cause, "Causes"),
        (Topic::Remedy, "Remedies"),
        (Topic::Rule, "Rules"),
    ] {
        rows.push(heading(title));
        rows.extend(of(topic).map(|doc| entry(doc.name, doc.title)));
    }
    join(columns(&rows, 1, style.line()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::visible_width;
    use tamegrad::explain::find;

    const DOC: Doc = Doc {
        name: "too-loud",
        title: "Too loud",
        what: "The volume is\n           above ten.",
        why: "Ears have no reset.",
        rule: |_| "volume > 10".to_owned(),
        example: "Eleven.",
        remedy: "Turn it down.",
        source: "A well-known amplifier.",
    };

    #[test]
    fn a_page_has_all_sections_wrapped() {
        insta::assert_snapshot!(page(&DOC, Topic::Sign, &Style::plain(40)), @r"
        Too loud (sign: too-loud)

        What it is
          The volume is above ten.

        Why it matters
          Ears have no reset.

        Rule
          volume > 10

        Example
          Eleven.

        Remedy
          Turn it down.

        Source
          A well-known amplifier.
        ");
    }

    #[test]
    fn every_text_fits_its_width() {
        for (topic, doc) in all() {
            let text = page(doc, topic, &Style::plain(60));
            let wide = text
                .lines()
                .skip(1)
                .filter(|line| visible_width(line) > 60 && line.split_whitespace().count() > 1);
            assert_eq!(wide.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", doc.name);
        }
    }

    #[test]
    fn the_list_names_everything_once() {
        let text = list(&Style::plain(100));
        let names: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("  "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut expected = vec![EXPLODING_GRADIENTS];
        expected.extend(all().iter().map(|(_, doc)| doc.name));
        assert_eq!(names, expected);
        let column = |title: &str| text.lines().find_map(|line| line.find(title));
        assert_eq!(column("Clip the gradient by value"), column("A bad batch"));
        assert!(text.contains("\nCauses\n"), "{text}");
    }

    #[test]
    fn the_entry_to_begin_with_is_no_sign_cause_or_remedy() {
        assert_eq!(find(EXPLODING_GRADIENTS), None);
    }
}
