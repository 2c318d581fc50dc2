//! What one line of a console says: named numbers, and where in the run it stands.

use super::names::{Name, Names, Subset, subset_of_word};
use crate::number::number_at_start;

/// What was found in a line.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    /// The named numbers that go into series, each name once.
    pub(super) pairs: Vec<Pair>,
    /// The step that a word names, and how exactly that word does.
    pub(super) step: Option<(u8, i64)>,
    /// Of how many it is, as in `Batch 50/7330`.
    pub(super) step_of: Option<i64>,
    /// The epoch.
    pub(super) epoch: Option<i64>,
    /// `50/7330`: how far the epoch is, or the run where no epoch is given.
    pub(super) place: Option<Place>,
    /// The progress bar that the line draws.
    pub(super) bar: Bar,
    /// Which data the line is about, where it says so.
    pub(super) subset: Option<Subset>,
    /// Whether it reads like source code or settings.
    pub(super) is_code: bool,
}

impl Marks {
    /// Forgets all, but keeps the room.
    pub(super) fn clear(&mut self) {
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.clear();
        *self = Self { pairs, ..Self::default() };
    }

    /// Whether the line says where in the run it stands.
    pub(super) fn has_position(&self) -> bool {
        self.step.is_some() || self.epoch.is_some() || self.place.is_some()
    }
}

/// A named number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) name: Name,
    pub(super) value: f64,
    /// Whether it is of validation though its name does not say so.
    pub(super) is_validation: bool,
    /// Whether the same words could stand in a sentence: `a loss of 3`.
    pub(super) is_loose: bool,
    /// The bytes of the line from the name to the end of the number.
    pub(super) span: (usize, usize),
}

/// Numbers of one line that are kept.
pub(super) const PAIRS_MAX: usize = 512;

/// A position and the largest there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: i64,
    pub(super) of: i64,
}

/// The kind of a progress bar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Bar {
    /// None.
    #[default]
    None,
    /// Of tqdm, with words or not: each state is of one step.
    Tqdm { is_described: bool },
    /// Of Keras: each state is an average over the epoch so far.
    Keras,
}

/// Looks through a line. `marks` is emptied first.
pub(super) fn scan(line: &[u8], names: &mut Names, marks: &mut Marks) {
    marks.clear();
    let mut scanner = Scanner {
        line,
        at: 0,
        names,
        marks,
        words: Words::default(),
        separator: Separator::None,
        is_dict: false,
        is_key: false,
        tentative: None,
        last_integer: None,
        is_worded: false,
    };
    scanner.run();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    None,
    /// `:` or `=`.
    Sign,
    /// The border of a table's cell.
    Cell,
}

/// The words before a number: where the last four begin, and where they end.
#[derive(Debug, Default)]
pub(super) struct Words {
    starts: [usize; 4],
    pub(super) count: usize,
    pub(super) end: usize,
}

impl Words {
    fn push(&mut self, start: usize, end: usize) {
        if let Some(free) = self.starts.get_mut(self.count) {
            *free = start;
            self.count += 1;
        } else {
            self.starts.rotate_left(1);
            self.starts[3] = start;
        }
        self.end = end;
    }

    pub(super) fn span(&self) -> (usize, usize) {
        (self.starts[0], self.end)
    }
}

pub(super) struct Scanner<'a> {
    pub(super) line: &'a [u8],
    pub(super) at: usize,
    pub(super) names: &'a mut Names,
    pub(super) marks: &'a mut Marks,
    pub(super) words: Words,
    pub(super) separator: Separator,
    /// Whether we are in braces.
    pub(super) is_dict: bool,
    /// Whether the words are one key in quotes.
    pub(super) is_key: bool,
    /// The data that a word since the last number stands for, unless it is part of a name.
    pub(super) tentative: Option<Subset>,
    /// The last integer and where it ended: an epoch if `[50/7330]` follows.
    pub(super) last_integer: Option<(i64, usize)>,
    /// Whether any word came yet.
    pub(super) is_worded: bool,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) {
        while let Some(&byte) = self.line.get(self.at) {
            match byte {
                b' ' | b'\t' => self.at += 1,
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(),
                b'0'..=b'9' => self.number(),
                b'-' | b'+' | b'.' => self.sign(),
                b':' | b'=' => self.separator(byte),
                b'\'' | b'"' => self.quote(byte),
                b'[' => self.bracket(),
                b'{' => self.brace(),
                b'|' => self.border(),
                // `step #5`
                b'#' if self.byte(self.at + 1).is_ascii_digit() => self.at += 1,
                b'}' => {
                    self.is_dict = false;
                    self.pass(1);
                }
                _ => self.pass(1),
            }
        }
        self.clear();
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.line.get(at).copied().unwrap_or(0)
    }

    pub(super) fn rest(&self, at: usize) -> &'a [u8] {
        self.line.get(at..).unwrap_or_default()
    }

    pub(super) fn after_spaces(&self, at: usize) -> usize {
        at + self.rest(at).iter().take_while(|byte| **byte == b' ').count()
    }

    /// Goes on after bytes that end a name.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.clear();
        self.at += bytes;
    }

    /// Forgets the words, which were no name: then one may say which data the numbers are of.
    pub(super) fn clear(&mut self) {
        if let Some(subset) = self.tentative.take() {
            self.marks.subset = Some(subset);
        }
        self.words.count = 0;
        self.separator = Separator::None;
        self.is_key = false;
    }

    fn word(&mut self) {
        let start = self.at;
        let is_awaited = self.separator != Separator::None || self.words.count > 0;
        if is_awaited && matches!(self.byte(start), b'n' | b'N' | b'i' | b'I') {
            let parsed = number_at_start(self.rest(start));
            if let Some((value, length)) = parsed {
                return self.value(start, start + length, value);
            }
        }
        let end = self.word_end(start);
        self.at = end;
        if self.separator != Separator::None {
            if self.byte(end) == b'(' && is_wrapper(self.rest(start)) {
                self.at = end + 1;
                return;
            }
            let is_assigned = self.byte(start.saturating_sub(1)) == b'=';
            self.clear();
            if is_assigned && self.byte(end) != b'(' {
                // The value of something else: in `valid=dev loss=2` it is no part of the name.
                self.tentative = subset_of_word(self.line.get(start..end).unwrap_or_default());
                return self.clear();
            }
        }
        let end = if self.byte(end) == b'(' { self.parenthesis(end) } else { end };
        self.push_word(start, end);
    }

    pub(super) fn word_end(&self, start: usize) -> usize {
        let mut end = start + 1;
        loop {
            let byte = self.byte(end);
            let is_joined = || self.byte(end + 1).is_ascii_alphanumeric();
            if byte.is_ascii_alphanumeric()
                || byte == b'_'
                || matches!(byte, b'.' | b'/' | b'-' | b'@' | b'^') && is_joined()
            {
                end += 1;
            } else {
                return end;
            }
        }
    }

    fn push_word(&mut self, start: usize, end: usize) {
        self.is_worded = true;
        // `--loss 0.5` is an option of a command.
        if start >= 2 && self.rest(start - 2).starts_with(b"--") {
            return self.clear();
        }
        if self.words.count > 0 {
            let between = self.line.get(self.words.end..start).unwrap_or_default();
            if self.is_key || between.len() > 1 || between == b"\t" {
                self.clear();
            }
        }
        if let Some(subset) = subset_of_word(self.line.get(start..end).unwrap_or_default()) {
            self.tentative = Some(subset);
        }
        self.words.push(start, end);
    }

    /// After a word and at `(`: `Epoch(train)` says which data, `time(s)` is a name, and
    /// `dict(lr=1)` is code. Gives the end of the name.
    fn parenthesis(&mut self, open: usize) -> usize {
        let inside = self.rest(open + 1);
        let length = inside.iter().take(64).take_while(|byte| **byte != b')').count();
        let inside = inside.get(..length).unwrap_or_default();
        if let Some(subset) = subset_of_word(inside) {
            self.marks.subset = Some(subset);
            self.at = open + length + 2;
            return open;
        }
        let is_code = inside.iter().any(|byte| matches!(byte, b'=' | b'\'' | b'"'));
        if is_code && !self.marks.pairs.iter().any(|pair| pair.name.class.is_core()) {
            self.marks.is_code = true;
        }
        if length <= 12 && inside.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            self.at = open + length + 2;
            return open + length + 1;
        }
        self.at = open + 1;
        open
    }

    fn sign(&mut self) {
        let next = self.byte(self.at + 1);
        let is_number = next.is_ascii_digit()
            || matches!(next, b'.' | b'n' | b'N' | b'i' | b'I')
                && number_at_start(self.rest(self.at)).is_some();
        if is_number {
            return self.number();
        }
        let is_free = self.words.count > 0 && self.separator == Separator::None;
        if is_free && self.rest(self.at).starts_with(b"->") {
            self.separator = Separator::Sign;
            self.at += 2;
            return;
        }
        // Marian abbreviates: `Ep. 1 : Up. 1000 : Cost 85.5`.
        if is_free && self.is_abbreviation() {
            self.at += 1;
            return;
        }
        let run = self.rest(self.at).iter().take_while(|byte| **byte == self.byte(self.at)).count();
        self.pass(run);
    }

    fn separator(&mut self, byte: u8) {
        let next = self.byte(self.at + 1);
        if matches!(next, b':' | b'=') {
            let run = self.rest(self.at).iter().take_while(|b| matches!(b, b':' | b'=')).count();
            return self.pass(run);
        }
        // In `INFO:root:loss=2` the first words are the logger's.
        let is_glued = byte == b':' && (next.is_ascii_alphabetic() || next == b'_');
        let is_value = !is_glued || number_at_start(self.rest(self.at + 1)).is_some();
        if self.words.count == 0 || !is_value {
            return self.pass(1);
        }
        self.separator = Separator::Sign;
        // `=>`
        self.at += if byte == b'=' && next == b'>' { 2 } else { 1 };
    }

    fn quote(&mut self, quote: u8) {
        let inside = self.rest(self.at + 1);
        let length = inside.iter().take(80).take_while(|byte| **byte != quote).count();
        if inside.get(length) != Some(&quote) || length == 0 {
            return self.pass(1);
        }
        let (start, end) = (self.at + 1, self.at + 1 + length);
        if self.separator != Separator::None {
            let text = inside.get(..length).unwrap_or_default().trim_ascii();
            match number_at_start(text).filter(|(_, used)| *used == text.len()) {
                Some((value, _)) => self.value(start, end, value),
                None => self.clear(),
            }
            self.at = end + 1;
        } else if self.byte(self.after_spaces(end + 1)) == b':' {
            self.clear();
            self.words.push(start, end);
            self.is_key = true;
            self.is_worded = true;
            self.at = end + 1;
        } else {
            self.pass(1);
        }
    }

    fn is_abbreviation(&self) -> bool {
        let (from, to) = self.words.span();
        let word = self.line.get(from..to).unwrap_or_default();
        to == self.at
            && self.rest(to).starts_with(b". ")
            && (word.eq_ignore_ascii_case(b"ep") || word.eq_ignore_ascii_case(b"up"))
    }

    /// A dict opens, of which all numbers count; but `weight_dict: {...}` is passed over.
    fn brace(&mut self) {
        let (from, to) = self.words.span();
        let name = self.line.get(from..to).unwrap_or_default().to_ascii_lowercase();
        let has = |word: &&[u8]| name.windows(word.len()).any(|part| part == *word);
        if self.words.count > 0 && SETTING_DICTS.iter().any(has) {
            let length = self.rest(self.at).iter().take_while(|byte| **byte != b'}').count();
            return self.pass(length);
        }
        self.is_dict = true;
        self.pass(1);
    }

    /// `| loss | 0.5 |` is a row of a table; other borders end a name.
    fn border(&mut self) {
        let (from, _) = self.words.span();
        let before = self.line.get(..from).unwrap_or_default().trim_ascii_end();
        if self.words.count > 0 && self.separator == Separator::None && before.ends_with(b"|") {
            let start = self.after_spaces(self.at + 1);
            let parsed = number_at_start(self.rest(start));
            if parsed.is_some_and(|(_, n)| self.byte(self.after_spaces(start + n)) == b'|') {
                self.separator = Separator::Cell;
                self.at = start;
                return;
            }
        }
        self.pass(1);
    }
}

/// Parts of the names of dicts that hold settings.
const SETTING_DICTS: &[&[u8]] = &[b"dict", b"weight", b"conf", b"cfg", b"arg", b"param", b"optim"];

/// Whether a call such as `tensor(0.5)` only wraps a number.
fn is_wrapper(text: &[u8]) -> bool {
    let names: [&[u8]; 8] = [
        b"tensor(",
        b"array(",
        b"tf.Tensor(",
        b"Array(",
        b"Tensor(",
        b"np.float32(",
        b"np.float64(",
        b"float(",
    ];
    names.iter().any(|name| text.starts_with(name))
}
