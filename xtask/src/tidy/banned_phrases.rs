//! Rule: no phrase in a Rust file that usually hides something unfinished.

use super::{Rule, source::Source};

/// This file has to spell the phrases out.
const EXEMPT: &str = "xtask/src/tidy/banned_phrases.rs";

/// Looked for in comments and literals only: `for now in times` is a loop.
const IN_PROSE: &[&str] =
    &["in a real implementation", "for now", "not yet implemented", "simplified version"];

/// Looked for in the whole text, names of types and functions with it.
const ANYWHERE: &[&str] = &["placeholder", "todo!", "unimplemented!", "dummy", "hack"];

/// Phrases that are part of innocent longer words ("for nowhere", "hackathon").
const WHOLE: &[&str] = &["for now", "hack"];

pub(super) const RULE: Rule = Rule {
    hint: "finish it, or say plainly what it is",
    find,
    #[cfg(test)]
    cases: &[
        ("a.rs", "// In a real implementation this sums.\n", &[1]),
        ("a.rs", "fn f() {}\n/// Zero, in a real\n/// implementation more.\n", &[2]),
        ("a.rs", "// zero for now.\n", &[1]),
        ("a.rs", "// the way for nowhere\n", &[]),
        ("a.rs", "for now in times {}\n", &[]),
        ("a.rs", "f(); // what it waits for\nnow(); // the clock\n", &[]),
        ("a.rs", "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }\n", &[1, 2]),
        ("a.rs", "// not yet implemented\n// a simplified version\n", &[1, 2]),
        ("a.rs", "struct DummyModel;\nlet is_dummy = 1;\n", &[1, 2]),
        ("a.rs", "// a hack\n// a hackathon in a shack\n", &[1]),
        ("a.rs", "let s = \"Placeholders\";\n", &[1]),
        ("a.md", "A hack.\n", &[]),
        (EXEMPT, "// a hack\n", &[]),
    ],
};

/// Finds each phrase in whatever case, also where it wraps onto the next comment line.
fn find(source: &Source) -> Vec<(usize, String)> {
    if !source.is_rust() || source.path == EXEMPT {
        return Vec::new();
    }
    let searches = [(IN_PROSE, Flow::of(&source.prose)), (ANYWHERE, Flow::of(&source.text))];
    let mut complaints = Vec::new();
    for (phrases, flow) in &searches {
        for phrase in *phrases {
            let message = format!("\"{phrase}\" usually hides something unfinished");
            complaints.extend(flow.lines_with(phrase).map(|line| (line, message.clone())));
        }
    }
    complaints
}

/// Running text in lower case: one space between words, comment marks left out.
struct Flow {
    text: String,
    /// Where in `text` each word starts, and the word's line counted from 1.
    starts: Vec<(usize, usize)>,
}

impl Flow {
    fn of(text: &str) -> Flow {
        let mut flow = Flow { text: String::new(), starts: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let words = line.split_whitespace();
            for word in words.filter(|word| !matches!(*word, "//" | "///" | "//!" | "*")) {
                flow.starts.push((flow.text.len(), index + 1));
                flow.text.push_str(&word.to_lowercase());
                flow.text.push(' ');
            }
        }
        flow
    }

    fn lines_with(&self, phrase: &str) -> impl Iterator<Item = usize> {
        let found = self.text.match_indices(phrase).filter(move |(offset, _)| {
            let starts = !self.text[..*offset].ends_with(char::is_alphanumeric);
            let ends = !self.text[offset + phrase.len()..].starts_with(char::is_alphanumeric);
            starts && (ends || !WHOLE.contains(&phrase))
        });
        found.filter_map(|(offset, _)| {
            let after = self.starts.partition_point(|&(start, _)| start <= offset);
            self.starts[..after].last().map(|&(_, line)| line)
        })
    }
}
