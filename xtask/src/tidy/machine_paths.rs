//! Rule: no file names a path of the machine that it was written on.

use super::{Rule, source::Source};

/// This file has to spell the paths out.
const EXEMPT: &str = "xtask/src/tidy/machine_paths.rs";

/// Folders of one person; what follows them means nothing elsewhere.
const ANY: &[&str] = &["/root/"];

/// Folders that are on every machine: only a name below them is of one machine.
const WITH_NAME: &[&str] = &["/home/", "/Users/", "/tmp/"];

pub(super) const RULE: Rule = Rule {
    hint: "use a path relative to the project, or a temporary folder of the test",
    find,
    #[cfg(test)]
    cases: &[
        ("a.md", "See /root/notes.\n\nor (/home/anna/x)\n", &[1, 3]),
        ("a.rs", "let p = \"/tmp/anna/1\"; // or /root/x\n", &[1]),
        ("a.toml", "path = \"/Users/anna/data.csv\"\n", &[1]),
        ("a.md", "crates/x/root/y, ../root/z, ~/root/z, https://a.b/home/c\n", &[]),
        ("a.md", "a home such as `/home/<user>/`, or /tmp/\n", &[]),
        ("a.md", "square root/rest, /rooted/\n", &[]),
        (EXEMPT, "/root/x\n", &[]),
    ],
};

/// Finds absolute paths into these folders, in every text file.
fn find(source: &Source) -> Vec<(usize, String)> {
    if source.path == EXEMPT {
        return Vec::new();
    }
    let paths = (1..).zip(source.text.lines().map(machine_path));
    let of_one = |path: &str| format!("`{path}` is a path of one machine");
    paths.filter_map(|(line, path)| path.map(|path| (line, of_one(path)))).collect()
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
    #[test]
    fn the_first_path_of_a_line_is_named() {
        assert_eq!(super::machine_path("a=/home/b-c/d.rs:4 /root/e"), Some("/home/b-c/d.rs"));
        assert_eq!(super::machine_path("relative/home/b"), None);
    }
}
