//! Rule: no file names a path of the machine that it was written on.

use super::{Complaint, source::Source};

/// This file has to spell the paths out.
const EXEMPT: &str = "xtask/src/tidy/machine_paths.rs";

/// Folders of one person; what follows them means nothing elsewhere.
const ANY: &[&str] = &["/root/"];

/// Folders that are on every machine: only a name below them is of one machine.
const WITH_NAME: &[&str] = &["/home/", "/Users/", "/tmp/"];

/// Finds absolute paths into these folders, in every text file.
pub(super) fn check(source: &Source) -> Vec<Complaint> {
    if source.path == EXEMPT {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        if let Some(path) = machine_path(line) {
            complaints.push(Complaint {
                line: index + 1,
                message: format!("`{path}` is a path of one machine"),
                hint: "use a path relative to the project, or a temporary folder of the test",
            });
        }
    }
    complaints
}

/// The first such path in a line.
fn machine_path(line: &str) -> Option<&str> {
    let of = |folders: &'static [&str], named: bool| {
        folders.iter().flat_map(move |folder| {
            line.match_indices(folder)
                .map(move |(offset, _)| (offset, offset + folder.len(), named))
        })
    };
    of(ANY, false)
        .chain(of(WITH_NAME, true))
        .filter(|&(start, end, named)| {
            is_absolute(&line[..start])
                && (!named || line[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
        .min()
        .map(|(start, end, _)| {
            let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
            let rest = &line[end..];
            &line[start..end + rest.find(|c| !goes_on(c)).unwrap_or(rest.len())]
        })
}

/// Whether a `/` after `before` starts a path, rather than going on with one.
fn is_absolute(before: &str) -> bool {
    !before.ends_with(|c: char| {
        c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '/' | '}' | ')' | '>' | '*')
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_lines;

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_lines(
            super::check,
            &[
                ("a.md", "See /root/notes.\n\nor (/home/anna/x)\n", &[1, 3]),
                ("a.rs", "let p = \"/tmp/anna/1\"; // or /root/x\n", &[1]),
                ("a.toml", "path = \"/Users/anna/data.csv\"\n", &[1]),
                ("a.md", "crates/x/root/y, ../root/z, ~/root/z, https://a.b/home/c\n", &[]),
                ("a.md", "a home such as `/home/<user>/`, or /tmp/\n", &[]),
                ("a.md", "square root/rest, /rooted/\n", &[]),
                (super::EXEMPT, "/root/x\n", &[]),
            ],
        );
    }

    #[test]
    fn the_first_path_of_a_line_is_named() {
        assert_eq!(super::machine_path("a=/home/b-c/d.rs:4 /root/e"), Some("/home/b-c/d.rs"));
        assert_eq!(super::machine_path("relative/home/b"), None);
    }
}
