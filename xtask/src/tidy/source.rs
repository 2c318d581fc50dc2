//! One file as the rules see it: its text, and for Rust what of it is code and what is prose.

/// Stands in [`Source::prose`] where code was, so that no phrase is found across code.
const CODE_MARK: u8 = 1;

/// A file of the project. `code` and `prose` are as long as `text`, byte for byte, so an offset
/// in one is an offset in all; for a file that is not Rust they are empty.
pub(super) struct Source {
    /// Relative to the project, with `/` between the parts.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments and literals blanked.
    pub(super) code: String,
    /// The text with all but comments and literals overwritten.
    pub(super) prose: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Prose,
}

impl Source {
    pub(super) fn new(path: &str, text: String) -> Source {
        let (code, prose) = if path.ends_with(".rs") {
            let parts = parts(&text);
            (keep(&text, &parts, Part::Code, b' '), keep(&text, &parts, Part::Prose, CODE_MARK))
        } else {
            (String::new(), String::new())
        };
        Source { path: path.to_owned(), text, code, prose }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file lies below one of these folders, given as `crates/name`.
    pub(super) fn is_below(&self, folders: &[&str]) -> bool {
        folders
            .iter()
            .any(|folder| self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The line of a byte of the text, counted from 1.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count()
    }
}

/// Offsets of `word` in `code` where it is a whole identifier.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(offset, _)| offset).filter(move |&offset| {
        !code[..offset].ends_with(is_word) && !code[offset + word.len()..].starts_with(is_word)
    })
}

/// The identifier at the start of `code`, empty if there is none.
pub(super) fn leading_word(code: &str) -> &str {
    let end = code.find(|c| !is_word(c)).unwrap_or(code.len());
    &code[..end]
}

/// What stands between the bracket that `code` begins with and its partner, both left out.
pub(super) fn bracketed(code: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (offset, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => return Some(&code[1..offset]),
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The pieces of a list between its commas, those within brackets not counted.
pub(super) fn items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (offset, c) in list.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(list[start..offset].trim());
                start = offset + 1;
            }
            _ => {}
        }
    }
    found.push(list[start..].trim());
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn keep(text: &str, parts: &[Part], kept: Part, filler: u8) -> String {
    let bytes = text.bytes().zip(parts).map(|(byte, &part)| match byte {
        b'\n' => byte,
        _ if part == kept => byte,
        _ => filler,
    });
    // Characters are kept or filled whole, so nothing is replaced here.
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

/// The part that each byte of a Rust file belongs to. A file that does not compile may be read
/// wrongly, never out of bounds.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = vec![Part::Code; text.len()];
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let in_word = text[..at].ends_with(is_word);
        let length = comment(rest)
            .or_else(|| if in_word { quoted(rest, 0) } else { string(rest) })
            .or_else(|| character(rest));
        match length {
            Some(length) => {
                parts[at..at + length].fill(Part::Prose);
                at += length;
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    parts
}

/// The length of the comment at the start of `rest`. Block comments nest.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    Some(rest.len())
}

/// The length of the string literal at the start of `rest`: with a prefix, raw or plain.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"].into_iter().find(|&prefix| rest.starts_with(prefix));
    if let Some(prefix) = prefix {
        let hashes = rest[prefix.len()..].bytes().take_while(|&byte| byte == b'#').count();
        let start = prefix.len() + hashes;
        if rest[start..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = rest[start + 1..].find(&end).map(|found| start + 1 + found + end.len());
            return Some(length.unwrap_or(rest.len()));
        }
    }
    quoted(rest, usize::from(rest.starts_with(['b', 'c'])))
}

/// The length of the plain string literal whose quote is at `quote`.
fn quoted(rest: &str, quote: usize) -> Option<usize> {
    rest[quote..].starts_with('"').then(|| quote + 1 + until(&rest[quote + 1..], '"'))
}

/// The length of the character literal at the start of `rest`; `'a` alone is a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        return Some(1 + until(inner, '\''));
    }
    inner[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

/// The length up to and with the first `end` that no backslash takes the meaning from.
fn until(inner: &str, end: char) -> usize {
    let mut escaped = false;
    for (offset, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == end => return offset + c.len_utf8(),
            _ => {}
        }
    }
    inner.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let cases = [
            ("a // b", "a     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x \" y", z)"#, r#"f(        , z)"#),
            (r##"f(r#"x " y"#, z)"##, r##"f(          , z)"##),
            (r#"f(b"x", c"y", br"z\", w)"#, r#"f(    ,     ,       , w)"#),
            (r#"r#type = "x""#, r#"r#type =    "#),
            ("x('\"', '\\'', 'é', b'\\\\', y)", "x(   ,     ,     , b    , y)"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("a /* open", "a        "),
            ("a \"open", "a      "),
            ("\"// no comment\" b", "                b"),
            ("var\"x\" b", "var    b"),
        ];
        for (text, expected) in cases {
            let source = Source::new("x.rs", text.to_owned());
            assert_eq!(source.code, expected, "{text}");
            assert_eq!(source.prose.len(), text.len(), "{text}");
        }
    }

    #[test]
    fn lines_stay_and_prose_is_the_rest() {
        let source = Source::new("x.rs", "a; // b\nc \"d\n e\"".to_owned());
        assert_eq!(source.code, "a;     \nc   \n   ");
        assert_eq!(source.prose, "\u{1}\u{1}\u{1}// b\n\u{1}\u{1}\"d\n e\"");
        assert_eq!([source.line_at(0), source.line_at(8), source.line_at(14)], [1, 2, 3]);
    }

    #[test]
    fn words_are_whole_identifiers() {
        let found: Vec<usize> = words("dbg dbg_x my_dbg (dbg)", "dbg").collect();
        assert_eq!(found, [0, 18]);
        assert_eq!(
            [leading_word("fs::read"), leading_word("{fs}"), leading_word("")],
            ["fs", "", ""]
        );
    }

    #[test]
    fn brackets_pair_up() {
        let cases = [
            ("(a(b)[c])d", Some("a(b)[c]")),
            ("{}", Some("")),
            ("(a", None),
            ("a(b)", None),
            ("", None),
        ];
        for (code, expected) in cases {
            assert_eq!(bracketed(code), expected, "{code}");
        }
        assert_eq!(items("a, b(c, d) , {e, f},"), ["a", "b(c, d)", "{e, f}", ""]);
    }

    #[test]
    fn a_folder_is_not_its_longer_namesake() {
        let source = Source::new("crates/tamegrad-stats/src/lib.rs", String::new());
        assert!(!source.is_below(&["crates/tamegrad"]));
        assert!(source.is_below(&["xtask", "crates/tamegrad-stats"]));
    }
}
