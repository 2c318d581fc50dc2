//! The difference between two recipes, as `diff -u` shows it.

use similar::TextDiff;

/// The lines in which `before` and `after` differ, with three lines of context, under a header with
/// both names; empty when they are equal.
pub fn unified(before: &str, after: &str, before_name: &str, after_name: &str) -> String {
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(before_name, after_name)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn shows_the_changed_line_with_three_lines_round_it() {
        let before = "a\nb\nc\nd\nlimit = 2.0\ne\nf\ng\nh\n";
        let after = "a\nb\nc\nd\nlimit = 1.0\ne\nf\ng\nh\n";
        let want = "--- given.toml\n+++ fixed.toml\n@@ -2,7 +2,7 @@\n b\n c\n d\n-limit = 2.0\n\
                    +limit = 1.0\n e\n f\n g\n";
        assert_eq!(unified(before, after, "given.toml", "fixed.toml"), want);
    }

    #[test]
    fn equal_texts_have_no_difference() {
        assert_eq!(unified("a\n", "a\n", "given.toml", "fixed.toml"), "");
    }
}
