//! JSON as a stream of events: memory stays small however long the text is, and a reader can go on
//! behind what is broken.
//!
//! Besides standard JSON it takes what Python writes (`NaN`, `Infinity`, `-Infinity`, `None`), and
//! several values one after the other.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use crate::number::parse_number_bytes;
use crate::row::NAME_BYTES_MAX;

/// Objects and arrays that may be open at a time. Readers call themselves for each.
const DEPTH_MAX: usize = 128;
/// Bytes that a number or a literal may have.
const WORD_BYTES_MAX: usize = 512;
const BUFFER_BYTES: usize = 64 * 1024;

/// What comes next in the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    /// `{`
    ObjectStart,
    /// `}`
    ObjectEnd,
    /// `[`
    ArrayStart,
    /// `]`
    ArrayEnd,
    /// The name of an object's member; [`Json::text`] has it.
    Key,
    /// A string; [`Json::text`] has it.
    Text,
    /// A number.
    Number(f64),
    /// `true`, `false` or `null`.
    Other,
    /// The end of the text, with nothing open.
    End,
}

/// Why there is no next event.
#[derive(Debug)]
pub(crate) enum JsonError {
    /// What the system said.
    Io(io::Error),
    /// The text ends while something is open.
    Cut {
        /// Where it ends.
        offset: u64,
    },
    /// What should not be there.
    Syntax {
        /// Where.
        offset: u64,
        /// What is there.
        found: String,
        /// What should be there.
        wanted: &'static str,
    },
}

impl JsonError {
    /// Where it is, in bytes from the start.
    pub(crate) fn offset(&self) -> Option<u64> {
        match self {
            Self::Io(_) => None,
            Self::Cut { offset } | Self::Syntax { offset, .. } => Some(*offset),
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}; what comes before is used"),
            Self::Cut { .. } => {
                write!(
                    f,
                    "got the end, want the rest of a record; hint: the file was cut while \
                           writing, records before it are used"
                )
            }
            Self::Syntax { found, wanted, .. } => write!(f, "got {found}, want {wanted}"),
        }
    }
}

/// What may come next inside of the innermost object or array.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// Behind `{` or `[`.
    Start,
    /// Behind a comma.
    Comma,
    /// Behind a member's name and its colon.
    Colon,
    /// Behind a value.
    Value,
}

/// A reader of JSON.
#[derive(Debug)]
pub(crate) struct Json<R> {
    input: R,
    buffer: Vec<u8>,
    at: usize,
    /// Bytes before the buffer.
    before: u64,
    /// Whether each of the open ones is an object.
    open: Vec<bool>,
    place: Place,
    text: Vec<u8>,
    is_one_line_each: bool,
    lines: u64,
}

impl<R: Read> Json<R> {
    /// A reader at the start of a text.
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            at: 0,
            before: 0,
            open: Vec::new(),
            place: Place::Start,
            text: Vec::new(),
            is_one_line_each: false,
            lines: 0,
        }
    }

    /// Counts bytes from here on: the input begins at this place of its file.
    pub(crate) fn at(mut self, offset: u64) -> Self {
        self.before = offset;
        self
    }

    /// Takes a line feed inside of a value as an error, so that a line that was cut does not take
    /// the next one with it.
    pub(crate) fn one_line_each(mut self, is_one_line_each: bool) -> Self {
        self.is_one_line_each = is_one_line_each;
        self
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Line feeds read so far.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Objects and arrays that are open.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The last name or string; of a long one the start.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }

    /// The next event.
    ///
    /// # Errors
    /// [`JsonError`]; then go on with [`Json::seek_object`] or [`Json::seek_line`].
    pub(crate) fn next(&mut self) -> Result<Event, JsonError> {
        loop {
            let Some(byte) = self.peek_solid()? else {
                return if self.open.is_empty() { Ok(Event::End) } else { Err(self.cut()) };
            };
            let is_object = self.open.last().copied();
            match (is_object, self.place, byte) {
                (None, ..) | (Some(true), Place::Colon, _) => return self.value(byte),
                (Some(_), Place::Value, b',') => {
                    self.at += 1;
                    self.place = Place::Comma;
                }
                // A comma before the end is forgiven.
                (Some(true), _, b'}') => return Ok(self.close(Event::ObjectEnd)),
                (Some(false), _, b']') => return Ok(self.close(Event::ArrayEnd)),
                (Some(true), Place::Start | Place::Comma, b'"') => return self.key(),
                (Some(false), Place::Start | Place::Comma, _) => return self.value(byte),
                (Some(true), Place::Value, _) => return Err(self.wrong("a comma or `}`")),
                (Some(true), ..) => return Err(self.wrong("a name in quotes or `}`")),
                (Some(false), ..) => return Err(self.wrong("a comma or `]`")),
            }
        }
    }

    /// Passes over a value whose first event was read.
    ///
    /// # Errors
    /// [`JsonError`].
    pub(crate) fn skip(&mut self, first: Event) -> Result<(), JsonError> {
        if !matches!(first, Event::ObjectStart | Event::ArrayStart) {
            return Ok(());
        }
        let depth = self.depth();
        while self.depth() >= depth {
            self.next()?;
        }
        Ok(())
    }

    /// After an error, goes to the next `{`, which is then the next element of the array at a
    /// depth. False if there is none.
    pub(crate) fn seek_object(&mut self, depth: usize) -> Result<bool, JsonError> {
        self.open.truncate(depth);
        self.place = Place::Comma;
        self.seek(b'{')
    }

    /// After an error, goes behind the end of the line, where the next value starts.
    pub(crate) fn seek_line(&mut self) -> Result<bool, JsonError> {
        self.open.clear();
        let is_there = self.seek(b'\n')?;
        if is_there {
            self.at += 1;
            self.lines += 1;
        }
        Ok(is_there)
    }

    fn seek(&mut self, wanted: u8) -> Result<bool, JsonError> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            if let Some(place) = rest.iter().position(|&byte| byte == wanted) {
                self.at += place;
                return Ok(true);
            }
            self.at = self.buffer.len();
            if self.peek()?.is_none() {
                return Ok(false);
            }
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, JsonError> {
        if let Some(&byte) = self.buffer.get(self.at) {
            return Ok(Some(byte));
        }
        self.before += self.buffer.len() as u64;
        self.at = 0;
        self.buffer.resize(BUFFER_BYTES, 0);
        let count = loop {
            match self.input.read(&mut self.buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(JsonError::Io(error));
                }
            }
        };
        self.buffer.truncate(count);
        Ok(self.buffer.first().copied())
    }

    /// The next byte that is no white space.
    fn peek_solid(&mut self) -> Result<Option<u8>, JsonError> {
        loop {
            match self.peek()? {
                Some(b'\n') if self.is_one_line_each && !self.open.is_empty() => {
                    return Err(self.wrong("the rest of the record"));
                }
                Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) => {
                    self.lines += u64::from(byte == b'\n');
                    self.at += 1;
                }
                // The byte order mark of UTF-8.
                Some(b'\xef' | b'\xbb' | b'\xbf') if self.offset() < 3 => self.at += 1,
                other => return Ok(other),
            }
        }
    }

    fn value(&mut self, byte: u8) -> Result<Event, JsonError> {
        match byte {
            b'{' | b'[' => {
                if self.open.len() >= DEPTH_MAX {
                    return Err(self.wrong("at most 128 objects and arrays in each other"));
                }
                self.at += 1;
                self.open.push(byte == b'{');
                self.place = Place::Start;
                Ok(if byte == b'{' { Event::ObjectStart } else { Event::ArrayStart })
            }
            b'"' => {
                self.string()?;
                self.place = Place::Value;
                Ok(Event::Text)
            }
            _ => self.word(),
        }
    }

    fn close(&mut self, event: Event) -> Event {
        self.at += 1;
        self.open.pop();
        self.place = Place::Value;
        event
    }

    fn key(&mut self) -> Result<Event, JsonError> {
        self.string()?;
        match self.peek_solid()? {
            Some(b':') => {
                self.at += 1;
                self.place = Place::Colon;
                Ok(Event::Key)
            }
            Some(_) => Err(self.wrong("a colon behind a name")),
            None => Err(self.cut()),
        }
    }

    /// A number or a literal.
    fn word(&mut self) -> Result<Event, JsonError> {
        let wanted = "a number, a text, `{` or `[`";
        let offset = self.offset();
        self.text.clear();
        while let Some(byte) = self.peek()? {
            let is_word = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'#');
            if !is_word {
                break;
            }
            if self.text.len() >= WORD_BYTES_MAX {
                let found = format!("a word of more than {WORD_BYTES_MAX} bytes");
                return Err(JsonError::Syntax { offset, found, wanted });
            }
            self.text.push(byte);
            self.at += 1;
        }
        // The text may go on where the file was cut: `0.0` of `0.05`.
        if !self.open.is_empty() && self.peek()?.is_none() {
            return Err(self.cut());
        }
        let event = match self.text.as_slice() {
            b"" => return Err(self.wrong(wanted)),
            b"true" | b"false" | b"null" | b"True" | b"False" | b"None" => Event::Other,
            word => match parse_number_bytes(word) {
                Some(number) => Event::Number(number),
                None => {
                    let found = format!("`{}`", String::from_utf8_lossy(word));
                    return Err(JsonError::Syntax { offset, found, wanted });
                }
            },
        };
        self.place = Place::Value;
        Ok(event)
    }

    /// A string, from its opening quote to behind its closing one.
    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        self.text.clear();
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n'));
            let plain = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
            let room = NAME_BYTES_MAX.saturating_sub(self.text.len());
            self.text.extend_from_slice(plain.get(..room).unwrap_or(plain));
            self.at += plain.len();
            match self.peek()? {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                // Never part of a string: its end is missing.
                Some(b'\n') => return Err(self.wrong("the closing quote of a text")),
                Some(_) => {}
                None => return Err(self.cut()),
            }
        }
    }

    /// What a backslash, which was read, stands before.
    fn escape(&mut self) -> Result<(), JsonError> {
        let Some(byte) = self.peek()? else { return Err(self.cut()) };
        if byte == b'\n' {
            return Err(self.wrong("the closing quote of a text"));
        }
        self.at += 1;
        let plain = match byte {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => self.hex()?,
            byte if byte.is_ascii() => char::from(byte),
            _ => char::REPLACEMENT_CHARACTER,
        };
        if self.text.len() + plain.len_utf8() <= NAME_BYTES_MAX {
            self.text.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }

    /// The four digits of a `\u`. Halves of a pair, which names do not have, are replaced.
    fn hex(&mut self) -> Result<char, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek()?.and_then(|byte| char::from(byte).to_digit(16));
            match digit {
                Some(digit) => code = code * 16 + digit,
                None => return Err(self.wrong("four hexadecimal digits")),
            }
            self.at += 1;
        }
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn cut(&self) -> JsonError {
        JsonError::Cut { offset: self.offset() }
    }

    fn wrong(&self, wanted: &'static str) -> JsonError {
        let found = match self.buffer.get(self.at) {
            Some(b'\n') => "the end of the line".to_owned(),
            Some(byte @ b' '..=b'~') => format!("`{}`", char::from(*byte)),
            Some(byte) => format!("the byte {byte:#04x}"),
            None => "the end".to_owned(),
        };
        JsonError::Syntax { offset: self.offset(), found, wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All events in one line each, up to the end or an error.
    fn events(text: &[u8]) -> String {
        let mut json = Json::new(text);
        let mut all = Vec::new();
        loop {
            match json.next() {
                Ok(Event::End) => break,
                Ok(Event::Key) => all.push(format!("{}:", json.text())),
                Ok(Event::Text) => all.push(format!("{:?}", json.text())),
                Ok(Event::Number(number)) => all.push(number.to_string()),
                Ok(Event::Other) => all.push("-".to_owned()),
                Ok(Event::ObjectStart) => all.push("{".to_owned()),
                Ok(Event::ObjectEnd) => all.push("}".to_owned()),
                Ok(Event::ArrayStart) => all.push("[".to_owned()),
                Ok(Event::ArrayEnd) => all.push("]".to_owned()),
                Err(error) => {
                    let offset = error.offset().unwrap_or(u64::MAX);
                    all.push(format!("!{offset} {error}"));
                    break;
                }
            }
        }
        all.join(" ")
    }

    #[test]
    fn reads_json_and_what_python_adds() {
        let text = br#" {"a\u0062\n": [1, -2.5e3, true, null], "b": {"": "x\"y"}} 7"#;
        assert_eq!(
            events(text),
            r#"{ ab
: [ 1 -2500 - - ] b: { : "x\"y" } } 7"#
        );
        assert_eq!(events(b"[NaN,Infinity,-Infinity,]"), "[ NaN inf -inf ]");
        assert_eq!(events(b"\xef\xbb\xbf{}"), "{ }");
        assert_eq!(events("{\"é\": 1}".as_bytes()), "{ é: 1 }");
        assert_eq!(events(b"{\"\xff\": 1}"), "{ \u{fffd}: 1 }");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let cases: [(&[u8], &str); 8] = [
            (b"{\"a\" 1}", "{ !5 got `1`, want a colon behind a name"),
            (b"[1 2]", "[ 1 !3 got `2`, want a comma or `]`"),
            (b"{\"a\": 1 \"b\"}", "{ a: 1 !8 got `\"`, want a comma or `}`"),
            (b"[nul]", "[ !1 got `nul`, want a number, a text, `{` or `[`"),
            (b"{1}", "{ !1 got `1`, want a name in quotes or `}`"),
            (b"{\"a\n", "{ !3 got the end of the line, want the closing quote of a text"),
            (b"\0\0", "!0 got the byte 0x00, want a number, a text, `{` or `[`"),
            (b"]", "!0 got `]`, want a number, a text, `{` or `[`"),
        ];
        for (text, want) in cases {
            assert_eq!(events(text), want);
        }
        for text in ["{", "[1,", "[1", "{\"a", "{\"a\"", "{\"a\":", "[\"\\u12"] {
            let got = events(text.as_bytes());
            assert!(got.contains(&format!("!{}", text.len())), "{text}: {got}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        for open in ["[", "{\"a\":"] {
            let got = events(open.repeat(100_000).as_bytes());
            assert!(got.ends_with("want at most 128 objects and arrays in each other"));
        }
    }

    #[test]
    fn goes_on_behind_what_is_broken() -> Result<(), JsonError> {
        let mut json = Json::new(&b"[{\"a\": oops}, {\"b\": 2}]"[..]);
        while json.next().is_ok() {}
        assert!(json.seek_object(1)?);
        assert_eq!(json.next()?, Event::ObjectStart);
        assert_eq!(json.next()?, Event::Key);
        assert_eq!(json.text(), "b");
        let mut json = Json::new(&b"{\"a\":\n{\"b\": 2}"[..]).one_line_each(true);
        while json.next().is_ok() {}
        assert!(json.seek_line()?);
        assert_eq!(json.next()?, Event::ObjectStart);
        assert_eq!(json.next()?, Event::Key);
        Ok(())
    }

    #[test]
    fn buffers_end_anywhere() {
        let text = format!("[{}\"{}\", 1.25]", " ".repeat(BUFFER_BYTES - 4), "x".repeat(100));
        assert_eq!(events(text.as_bytes()), format!("[ \"{}\" 1.25 ]", "x".repeat(100)));
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]\",:\\1e-.nul \n"[..])], 0..60,
        )) {
            events(&text);
            let mut json = Json::new(&text[..]);
            // Whatever is skipped, it ends.
            for _ in 0..200 {
                match json.next() {
                    Ok(Event::End) => break,
                    Ok(event) => { let _ = json.skip(event); }
                    Err(_) => if !json.seek_object(0).unwrap_or(false) { break },
                }
            }
        }
    }
}
