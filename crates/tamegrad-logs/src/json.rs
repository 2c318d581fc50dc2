//! JSON as a stream of events, so that a reader can stop anywhere and go on behind what is broken.
//!
//! `jiter` reads it. Ours is what it cannot do: go on after an error, and take what programs write
//! that is no JSON (`None`, `nan`, `1.#INF`, a comma before the end, bytes that are no UTF-8).

use std::borrow::Cow;
use std::fmt;

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};

use crate::number::parse_number_bytes;
use crate::row::NAME_BYTES_MAX;

/// Objects and arrays that may be open at a time. Readers call themselves for each.
const DEPTH_MAX: usize = 128;
/// Bytes that a number or a literal may have.
const WORD_BYTES_MAX: usize = 512;

/// What comes next in the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    /// The name of an object's member; [`Json::text`] has it.
    Key,
    /// A string; [`Json::text`] has it.
    Text,
    Number(f64),
    /// `true`, `false` or `null`.
    Other,
    /// The end of the text, with nothing open.
    End,
}

/// Why there is no next event, and where, in bytes from the start of the file.
#[derive(Debug)]
pub(crate) struct JsonError {
    pub(crate) offset: u64,
    /// What should not be there; `None` where the text ends while something is open.
    pub(crate) found: Option<String>,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "got {found}"),
            None => f.write_str(
                "got the end, want the rest of a record; hint: the file was cut off while being \
                 written; the records before are used",
            ),
        }
    }
}

/// Where inside of the innermost object or array the reader stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// Before its `{` or `[`.
    Start,
    /// Before a value, of a member or after an error.
    Value,
    /// Behind a value.
    Behind,
}

/// A reader of JSON.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    bytes: &'a [u8],
    /// Where the bytes begin in their file.
    before: u64,
    is_one_line_each: bool,
    /// Reads the bytes from `start` to `end`.
    jiter: Jiter<'a>,
    start: usize,
    end: usize,
    /// Whether each of the open ones is an object.
    open: Vec<bool>,
    place: Place,
    text: Vec<u8>,
}

impl<'a> Json<'a> {
    /// A reader at the start of a text.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            before: 0,
            is_one_line_each: false,
            jiter: Jiter::new(bytes),
            start: 0,
            end: bytes.len(),
            open: Vec::new(),
            place: Place::Value,
            text: Vec::new(),
        }
    }

    /// Counts bytes from here on: the text begins at this place of its file.
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

    /// Where the reader is, in bytes of the file.
    pub(crate) fn offset(&self) -> u64 {
        self.before + self.position() as u64
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
        let found = match (self.open.last().copied(), self.place) {
            (None, _) if !self.has_another() => return Ok(Event::End),
            (None, _) | (Some(_), Place::Value) => self.jiter.peek().map(Some),
            (Some(true), place) => {
                let key = match place {
                    Place::Start => self.jiter.next_object_bytes(),
                    _ => self.jiter.next_key_bytes(),
                };
                if let Ok(Some(key)) = key {
                    unescape(key, &mut self.text);
                    self.place = Place::Value;
                    return Ok(Event::Key);
                }
                key.map(|_| None)
            }
            (Some(false), Place::Start) => self.jiter.known_array(),
            (Some(false), _) => self.jiter.array_step(),
        };
        match found {
            Ok(Some(peek)) => self.value(peek),
            Ok(None) => Ok(self.close()),
            // A comma before the end is forgiven.
            Err(JiterError {
                error_type: JiterErrorType::JsonError(JsonErrorType::TrailingComma),
                index,
            }) => {
                self.go_to(self.start + index + 1);
                Ok(self.close())
            }
            Err(error) => Err(self.error(error)),
        }
    }

    /// Passes over a value whose first event was read.
    ///
    /// # Errors
    /// [`JsonError`].
    pub(crate) fn skip(&mut self, first: Event) -> Result<(), JsonError> {
        let peek = match first {
            Event::ObjectStart => Peek::Object,
            Event::ArrayStart => Peek::Array,
            _ => return Ok(()),
        };
        let mut jiter = self.jiter.clone();
        if jiter.known_skip(peek).is_ok() {
            self.jiter = jiter;
            self.close();
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
    pub(crate) fn seek_object(&mut self, depth: usize) -> bool {
        self.open.truncate(depth);
        self.place = Place::Value;
        self.seek(b'{')
    }

    /// After an error, goes to the end of the line, behind which the next value starts. False if
    /// there is none.
    pub(crate) fn seek_line(&mut self) -> bool {
        self.open.clear();
        self.seek(b'\n')
    }

    fn seek(&mut self, wanted: u8) -> bool {
        let rest = self.bytes.get(self.position()..).unwrap_or_default();
        let found = memchr::memchr(wanted, rest);
        self.end = self.bytes.len();
        self.go_to(self.position() + found.unwrap_or(rest.len()));
        found.is_some()
    }

    fn position(&self) -> usize {
        self.start + self.jiter.current_index()
    }

    fn go_to(&mut self, place: usize) {
        self.start = place.min(self.end);
        let bytes = self.bytes.get(self.start..self.end).unwrap_or_default();
        self.jiter = Jiter::new(bytes).with_allow_inf_nan();
    }

    /// Goes to the next value where nothing is open. False at the end.
    fn has_another(&mut self) -> bool {
        let mut place = self.position();
        while let Some(byte) = self.bytes.get(place) {
            // The byte order mark of UTF-8.
            let is_mark =
                self.before + place as u64 <= 2 && matches!(byte, b'\xef' | b'\xbb' | b'\xbf');
            if !is_mark && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                break;
            }
            place += 1;
        }
        let rest = self.bytes.get(place..).unwrap_or_default();
        let line = if self.is_one_line_each { memchr::memchr(b'\n', rest) } else { None };
        self.end = line.map_or(self.bytes.len(), |length| place + length);
        self.go_to(place);
        !rest.is_empty()
    }

    fn value(&mut self, peek: Peek) -> Result<Event, JsonError> {
        let place = self.position();
        let read = match peek {
            Peek::Object | Peek::Array => {
                if self.open.len() >= DEPTH_MAX {
                    return Err(self.wrong(place, JsonErrorType::RecursionLimitExceeded));
                }
                self.open.push(peek == Peek::Object);
                self.place = Place::Start;
                return Ok(match peek {
                    Peek::Object => Event::ObjectStart,
                    _ => Event::ArrayStart,
                });
            }
            Peek::String => match self.jiter.known_bytes() {
                Ok(text) => {
                    unescape(text, &mut self.text);
                    self.place = Place::Behind;
                    return Ok(Event::Text);
                }
                Err(_) => return self.odd_text(place),
            },
            Peek::True | Peek::False => self.jiter.known_bool(peek).map(|_| Event::Other),
            Peek::Null => self.jiter.known_null().map(|()| Event::Other),
            number => self.jiter.known_float(number).map(Event::Number),
        };
        let event = match read {
            Ok(event) => event,
            Err(_) => self.word(place)?,
        };
        // The text may go on where the file was cut: `0.0` of `0.05`.
        if !self.open.is_empty() && self.position() == self.bytes.len() {
            return Err(self.cut());
        }
        self.place = Place::Behind;
        Ok(event)
    }

    /// A string with what is no JSON, as half of a pair of surrogates that cut text leaves.
    fn odd_text(&mut self, place: usize) -> Result<Event, JsonError> {
        let mut at = place + 1;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some(length) = memchr::memchr3(b'"', b'\\', b'\n', rest) else {
                return Err(self.cut());
            };
            at += length;
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at += 2,
                // Never part of a string: its end is missing.
                _ => return Err(self.wrong(at, JsonErrorType::EofWhileParsingString)),
            }
        }
        unescape(self.bytes.get(place + 1..at).unwrap_or_default(), &mut self.text);
        self.go_to(at + 1);
        self.place = Place::Behind;
        Ok(Event::Text)
    }

    /// A number or a literal that is not of standard JSON.
    fn word(&mut self, place: usize) -> Result<Event, JsonError> {
        let rest = self.bytes.get(place..self.end).unwrap_or_default();
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.#".contains(byte);
        let length = rest.iter().take(WORD_BYTES_MAX).take_while(|byte| is_word(byte)).count();
        let word = rest.get(..length).unwrap_or_default();
        let event = match word {
            b"True" | b"False" | b"None" => Some(Event::Other),
            _ => parse_number_bytes(word).map(Event::Number),
        };
        let is_cut = place + length == self.bytes.len() && !self.open.is_empty();
        self.go_to(place + length);
        match event {
            Some(event) => Ok(event),
            None if is_cut => Err(self.cut()),
            None => Err(self.wrong(place, JsonErrorType::ExpectedSomeValue)),
        }
    }

    fn close(&mut self) -> Event {
        self.place = Place::Behind;
        match self.open.pop() {
            Some(true) => Event::ObjectEnd,
            _ => Event::ArrayEnd,
        }
    }

    fn error(&mut self, error: JiterError) -> JsonError {
        // Whatever was to come: a place at the end is one where the text was cut.
        let place = self.start + error.index;
        if place >= self.bytes.len() {
            return self.cut();
        }
        self.wrong(place, error.error_type)
    }

    fn cut(&mut self) -> JsonError {
        self.go_to(self.end);
        JsonError { offset: self.offset(), found: None }
    }

    /// The error at a place, from where the search for what is whole goes on.
    fn wrong(&mut self, place: usize, why: impl fmt::Display) -> JsonError {
        let found = match self.bytes.get(place) {
            Some(b'\n') => "the end of the line".to_owned(),
            Some(byte @ b' '..=b'~') => format!("`{}`", char::from(*byte)),
            Some(byte) => format!("the byte {byte:#04x}"),
            None => "the end".to_owned(),
        };
        self.go_to(place);
        let offset = self.before + place as u64;
        JsonError { offset, found: Some(format!("{found}: {why}")) }
    }
}

/// Puts the start of a string, given as it stands between its quotes, into `text`.
fn unescape(raw: &[u8], text: &mut Vec<u8>) {
    text.clear();
    if memchr::memchr(b'\\', raw).is_some()
        && let Ok(plain) = Jiter::new(&[b"\"", raw, b"\""].concat()).known_str()
    {
        text.extend(plain.bytes().take(NAME_BYTES_MAX));
    } else {
        text.extend_from_slice(raw.get(..NAME_BYTES_MAX).unwrap_or(raw));
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
                    all.push(format!("!{} {error}", error.offset));
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
        assert_eq!(
            events(b"[nan, -inf, 1.#INF,+1,007,.5,None,True]"),
            "[ NaN -inf inf 1 7 0.5 - - ]"
        );
        assert_eq!(
            events(b"{\"a\": 1e400, \"a\": 123456789012345678901234567890,}"),
            "{ a: inf a: 123456789012345680000000000000 }"
        );
        assert_eq!(events(b"\xef\xbb\xbf{}"), "{ }");
        assert_eq!(events("{\"é\": 1}".as_bytes()), "{ é: 1 }");
        assert_eq!(events(b"[\"\\ud83d\", \"a\tb\", \"\\x\"]"), r#"[ "\\ud83d" "a\tb" "\\x" ]"#);
        assert_eq!(events(b"{\"\xff\": 1}"), "{ \u{fffd}: 1 }");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let cases: [(&[u8], &str); 8] = [
            (b"{\"a\" 1}", "{ !5 got `1`: expected `:`"),
            (b"[1 2]", "[ 1 !3 got `2`: expected `,` or `]`"),
            (b"{\"a\": 1 \"b\"}", "{ a: 1 !8 got `\"`: expected `,` or `}`"),
            (b"[nul]", "[ !1 got `n`: expected value"),
            (b"{1}", "{ !1 got `1`: key must be a string"),
            (b"[\"a\n", "[ !3 got the end of the line: EOF while parsing a string"),
            (b"\0\0", "!0 got the byte 0x00: expected value"),
            (b"]", "!0 got `]`: expected value"),
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
            assert!(got.ends_with("recursion limit exceeded"));
        }
    }

    #[test]
    fn goes_on_behind_what_is_broken() -> Result<(), JsonError> {
        let mut json = Json::new(&b"[{\"a\": oops}, {\"b\": 2}]"[..]);
        while json.next().is_ok() {}
        assert!(json.seek_object(1));
        assert_eq!(json.next()?, Event::ObjectStart);
        assert_eq!(json.next()?, Event::Key);
        assert_eq!(json.text(), "b");
        let mut json = Json::new(&b"{\"a\":\n{\"b\": 2}"[..]).one_line_each(true);
        while json.next().is_ok() {}
        assert!(json.seek_line());
        assert_eq!(json.next()?, Event::ObjectStart);
        assert_eq!(json.next()?, Event::Key);
        Ok(())
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
                    Err(_) => if !json.seek_object(0) { break },
                }
            }
        }
    }
}
