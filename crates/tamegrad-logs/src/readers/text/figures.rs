//! What a number in a line stands for: a value, a step, a place in the run, or none of these.

use super::names::{Class, Name, Subset};
use super::scan::{Bar, PAIRS_MAX, Pair, Place, Scanner, Separator};
use crate::number::number_at_start;

impl Scanner<'_> {
    pub(super) fn number(&mut self) {
        let start = self.at;
        let Some((value, length)) = number_at_start(self.rest(start)) else { return self.pass(1) };
        let end = start + length;
        if let Some((value, end)) = self.thousands(start, end) {
            return self.value(start, end, value);
        }
        let junk = self.junk(end, integer(value));
        if junk > 0 {
            self.at = end;
            return self.pass(junk);
        }
        let slash = self.after_spaces(end);
        if self.byte(slash) == b'/' {
            return self.fraction(start, value, (end, slash));
        }
        self.value(start, end, value);
    }

    /// The bytes after a number that make it no value: a unit, the rest of a date or a version.
    fn junk(&mut self, end: usize, number: Option<i64>) -> usize {
        let (next, then) = (self.byte(end), self.byte(end + 1));
        let skip = |allowed: &[u8]| {
            let is_in = |byte: &&u8| byte.is_ascii_digit() || allowed.contains(byte);
            self.rest(end).iter().take_while(is_in).count()
        };
        match next {
            b':' | b'.' if then.is_ascii_digit() => skip(b":.,"),
            b'-' if then.is_ascii_digit() => {
                let length = skip(b"-");
                // ESPnet: `3epoch:train:101-200batch:`.
                if self.rest(end + length).starts_with(b"batch")
                    && let Some((batch, _)) = number_at_start(self.rest(end + 1))
                    && let Some(batch) = integer(batch)
                {
                    self.set_step(2, batch);
                }
                length
            }
            // Keras' bar may run into the next message: `loss: 1.4Batch 8: ...`.
            b'A'..=b'Z' if then.is_ascii_lowercase() && self.separator == Separator::Sign => 0,
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                let unit = self.line.get(end..self.word_end(end)).unwrap_or_default();
                if let Some(epoch) = number.filter(|_| unit == b"epoch") {
                    self.set_epoch(epoch);
                }
                unit.len()
            }
            b'(' => 1,
            _ => 0,
        }
    }

    /// `1,234.5` after a name, with where it ends.
    fn thousands(&self, start: usize, end: usize) -> Option<(f64, usize)> {
        if self.words.count == 0 || self.is_dict || self.byte(end) != b',' || end - start > 4 {
            return None;
        }
        let mut digits = self.line.get(start..end)?.to_vec();
        let mut end = end;
        while self.byte(end) == b','
            && self.rest(end + 1).iter().take_while(|byte| byte.is_ascii_digit()).count() == 3
        {
            digits.extend_from_slice(self.line.get(end + 1..end + 4)?);
            end += 4;
        }
        let fraction = self.rest(end).iter().take_while(|b| b.is_ascii_digit() || **b == b'.');
        let fraction = fraction.count();
        digits.extend_from_slice(self.line.get(end..end + fraction)?);
        let (value, length) = number_at_start(&digits)?;
        let is_whole = length == digits.len() && digits.len() > 3;
        (is_whole && !self.byte(end + fraction).is_ascii_alphanumeric())
            .then_some((value, end + fraction))
    }

    /// At `50/7330`, of which the part before the slash was read.
    fn fraction(&mut self, start: usize, at: f64, (end, slash): (usize, usize)) {
        let from = self.after_spaces(slash + 1);
        let parsed = number_at_start(self.rest(from));
        let Some((of, length)) = parsed else {
            // In `step: 3 / loss: 2` the slash only parts them.
            return if slash > end { self.value(start, end, at) } else { self.skip_to(slash + 1) };
        };
        let whole = from + length;
        let place = match (integer(at), integer(of)) {
            (Some(at), Some(of)) if at <= of && at >= 0 => Place { at, of },
            // `loss 2.5/2.25` gives an average as well.
            _ if self.byte(whole) != b'/' => {
                self.value(start, end, at);
                return self.skip_to(whole);
            }
            _ => return self.skip_to(whole),
        };
        // `08/30 15:01:15` and `2020/07/31` are dates.
        if self.byte(whole) == b'/' || self.is_clock(self.after_spaces(whole)) {
            let date = self.rest(whole).iter().take_while(|b| b"/0123456789".contains(b)).count();
            return self.skip_to(whole + date);
        }
        self.at = whole;
        if self.words.count > 0 {
            match self.name().class {
                Class::Step(rank) => {
                    self.set_step(rank, place.at);
                    if self.marks.step == Some((rank, place.at)) {
                        self.marks.step_of = Some(place.of);
                    }
                }
                Class::Epoch => self.set_epoch(place.at),
                _ => {}
            }
            self.last_integer = Some((place.at, whole));
        } else {
            self.set_place(start, whole, place);
        }
        self.clear();
    }

    fn skip_to(&mut self, at: usize) {
        self.at = at;
        self.clear();
    }

    /// Whether `15:01` stands there.
    fn is_clock(&self, at: usize) -> bool {
        self.byte(at).is_ascii_digit()
            && self.byte(at + 2) == b':'
            && self.byte(at + 3).is_ascii_digit()
    }

    /// The name that the words give.
    fn name(&mut self) -> Name {
        let (from, to) = self.words.span();
        self.names.words(self.line.get(from..to).unwrap_or_default())
    }

    /// A fraction without a name.
    fn set_place(&mut self, start: usize, end: usize, place: Place) {
        let after = self.after_spaces(end);
        let rest = self.rest(after);
        let is_first = !self.is_worded && self.marks.place.is_none();
        let bars = ["[=", "[>", "[.", "\u{2501}"];
        let is_keras = bars.iter().any(|bar| rest.starts_with(bar.as_bytes()))
            || rest.starts_with(b"- ") && end < after;
        if is_first && is_keras {
            self.marks.bar = Bar::Keras;
            self.marks.place = Some(place);
            return;
        }
        let is_clock = rest.first() == Some(&b'[')
            && rest.iter().take(5).any(|byte| *byte == b':')
            && rest.get(1).is_some_and(u8::is_ascii_digit);
        if is_clock {
            self.marks.bar = Bar::Tqdm { is_described: self.is_worded };
            self.marks.place = Some(place);
            return;
        }
        let is_next = |&(_, integer_end): &(i64, usize)| {
            let between = self.line.get(integer_end..start).unwrap_or(b"x");
            !between.is_empty() && between.iter().all(|byte| b" \t][:".contains(byte))
        };
        if let Some((integer, _)) = self.last_integer.filter(is_next) {
            if self.marks.epoch.is_none() && self.marks.step.is_none() {
                self.marks.epoch = Some(integer);
            }
            self.marks.place = Some(place);
        } else if is_first {
            self.marks.place = Some(place);
            self.last_integer = Some((place.at, end));
        }
    }

    fn set_step(&mut self, rank: u8, step: i64) {
        if self.marks.step.is_none_or(|(known, _)| known < rank) {
            self.marks.step = Some((rank, step));
            self.marks.step_of = None;
        }
    }

    fn set_epoch(&mut self, epoch: i64) {
        self.marks.epoch.get_or_insert(epoch);
    }

    /// A number that stands where a value can.
    pub(super) fn value(&mut self, start: usize, end: usize, value: f64) {
        self.at = end;
        let text = self.line.get(start..end).unwrap_or_default();
        let is_integer = text.iter().all(u8::is_ascii_digit);
        if self.words.count > 0 {
            if is_integer && self.is_step_before_value(end) {
                return;
            }
            self.pair(end, value, is_integer);
        } else {
            self.nameless(start, end, value, is_integer);
        }
        if is_integer {
            self.last_integer = integer(value).map(|value| (value, end));
        }
        self.clear();
    }

    /// A number that no words lead up to.
    fn nameless(&mut self, start: usize, end: usize, value: f64, is_integer: bool) {
        let (before, after) = (self.line.get(..start).unwrap_or_default(), self.rest(end));
        if before.ends_with(b", ") && after.starts_with(b" avg") {
            // darknet: `42: 3.1, 2.9 avg, 0.001 rate`.
            let id = self.names.own("avg_loss");
            let name = Name { id, class: Class::Loss, says_subset: None };
            return self.push(name, value, false, (start, end));
        }
        let Some(number) = integer(value).filter(|_| is_integer) else { return };
        if !self.is_worded && after.starts_with(b":") {
            return self.set_step(1, number);
        }
        // `3 epoch, 200 iter, loss 2.5`
        if after.first() == Some(&b' ') && self.byte(end + 1).is_ascii_alphabetic() {
            let word_end = self.word_end(end + 1);
            if !b",:;|])".contains(&self.byte(word_end)) {
                return;
            }
            let word = self.line.get(end + 1..word_end).unwrap_or_default();
            match self.names.words(word).class {
                Class::Step(rank @ 2..) => self.set_step(rank, number),
                Class::Epoch => self.set_epoch(number),
                _ => return,
            }
            self.at = word_end;
        }
    }

    /// `Train loss 300 0.51`: the integer is the step and the words wait for the next number.
    fn is_step_before_value(&mut self, end: usize) -> bool {
        let rest = self.rest(end);
        let is_pair = self.separator == Separator::None
            && rest.first() == Some(&b' ')
            && number_at_start(rest.get(1..).unwrap_or_default()).is_some_and(|(value, length)| {
                !value.is_finite() || rest.iter().take(length).any(|byte| *byte == b'.')
            });
        if !is_pair || self.name().class != Class::Loss {
            return false;
        }
        let text = self.line.get(self.words.end..end).unwrap_or_default().trim_ascii();
        if let Some((step, _)) = number_at_start(text).and_then(|(v, n)| Some((integer(v)?, n))) {
            self.set_step(3, step);
        }
        true
    }

    fn pair(&mut self, end: usize, value: f64, is_integer: bool) {
        let (from, to) = self.words.span();
        let raw = self.line.get(from..to).unwrap_or_default();
        let is_key = self.is_key && self.is_dict;
        let name = if is_key { self.names.key(raw) } else { self.names.words(raw) };
        let after = self.byte(self.after_spaces(end));
        match name.class {
            Class::Step(rank) => {
                if let Some(step) = integer(value) {
                    self.set_step(rank, step);
                }
            }
            Class::Epoch if is_integer => {
                if let Some(epoch) = integer(value) {
                    self.set_epoch(epoch);
                }
            }
            // A part of an epoch is no step, but a number to know.
            Class::Epoch if is_key => {
                self.push(Name { class: Class::Shared, ..name }, value, false, (from, end))
            }
            Class::Unknown | Class::Epoch => {}
            _ if self.is_operand(end) => self.marks.is_code = true,
            _ => {
                self.tentative = None;
                let is_sentence = to - from > 3 && raw.to_ascii_lowercase().ends_with(b" is");
                let is_loose = self.separator == Separator::None
                    && (is_integer || is_sentence && after.is_ascii_lowercase());
                self.push(name, value, is_loose, (from, end));
            }
        }
    }

    /// Whether a number is part of a calculation: `loss = 0.5 * x`.
    fn is_operand(&self, end: usize) -> bool {
        let sign = self.after_spaces(end);
        let operand = self.byte(self.after_spaces(sign + 1));
        self.separator == Separator::Sign
            && matches!(self.byte(sign), b'*' | b'+')
            && (operand.is_ascii_alphabetic() || operand == b'(')
    }

    pub(super) fn push(&mut self, name: Name, value: f64, is_loose: bool, span: (usize, usize)) {
        // In `val loss: 2 acc: 0.5` all is of validation.
        if self.marks.pairs.is_empty() && name.says_subset == Some(Subset::Validation) {
            self.marks.subset = name.says_subset;
        }
        let is_validation = self.marks.subset == Some(Subset::Validation)
            && name.says_subset.is_none()
            && name.class.has_validation();
        let is_known = |pair: &Pair| pair.name.id == name.id && pair.is_validation == is_validation;
        if self.marks.pairs.len() < PAIRS_MAX && !self.marks.pairs.iter().any(is_known) {
            self.marks.pairs.push(Pair { name, value, is_validation, is_loose, span });
        }
    }

    /// `Epoch [3]`, `[50/7330]`, `[1, 2000]` and `loss: [0.5]` hold numbers; other brackets end a
    /// name.
    pub(super) fn bracket(&mut self) {
        let from = self.after_spaces(self.at + 1);
        let Some((first, length)) = number_at_start(self.rest(from)) else { return self.pass(1) };
        let after = self.after_spaces(from + length);
        match self.byte(after) {
            b']' | b'/' => self.at = from,
            b',' if !self.is_worded && self.marks.epoch.is_none() => {
                let second = self.after_spaces(after + 1);
                let parsed = number_at_start(self.rest(second));
                if let Some((step, length)) = parsed
                    && self.byte(self.after_spaces(second + length)) == b']'
                    && let (Some(epoch), Some(step)) = (integer(first), integer(step))
                {
                    self.set_epoch(epoch);
                    self.set_step(2, step);
                    self.at = second + length;
                    return self.clear();
                }
                self.pass(1);
            }
            _ => self.pass(1),
        }
    }
}

/// A number without a fraction, small enough to be a step.
pub(super) fn integer(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64)
}
