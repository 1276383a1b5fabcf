//! The lines that make up nearly all of the traffic, read in one pass without looking for their end first.
//!
//! Each function either recognises its line completely and acts on it, or changes nothing and says so; then
//! [`super::commands`] reads the line by the general rules. A property test holds both to the same results.

use super::Executor;
use super::commands::believable;
use crate::base::number::SampleFlags;
use crate::base::time::UnixMicros;
use crate::metrics::{PointValue, Staged};
use crate::wire::caps::Capabilities;
use crate::wire::numbers;

impl Executor {
    /// Executes the first line of `text` and gives what follows it, or `None` when the line is none of these. Lines end
    /// at a line feed, the last one at the end of the text.
    #[inline]
    pub(super) fn fast<'a>(&mut self, text: &'a [u8], now: UnixMicros) -> Option<&'a [u8]> {
        match text {
            [b'S', b'E', b'T', b'2', b' ', rest @ ..] => self.fast_set2(rest),
            [b'S', b'E', b'T', b' ', rest @ ..] => self.fast_set(rest),
            [b'E', b'N', b'D', b'2', rest @ ..] => {
                let rest = after_line(rest)?;
                if !self.interpolated || !self.in_point {
                    return None;
                }
                self.complete_point();
                Some(rest)
            }
            [b'E', b'N', b'D', rest @ ..] => {
                let rest = after_line(rest)?;
                self.session.chart(self.chart)?;
                self.complete(now);
                Some(rest)
            }
            [b'B', b'E', b'G', b'I', b'N', b'2', b' ', rest @ ..] => self.fast_begin2(rest),
            [b'B', b'E', b'G', b'I', b'N', b' ', rest @ ..] => self.fast_begin(rest),
            [b'R', b'S', b'E', b'T', b' ', rest @ ..] => self.fast_replay_set(rest),
            [b'R', b'B', b'E', b'G', b'I', b'N', b' ', rest @ ..] => {
                self.fast_replay_begin(rest, now)
            }
            _ => None,
        }
    }

    #[inline]
    fn fast_set<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        let known = self.session.chart(self.chart)?;
        let (dim, rest, next) = known.expect(self.dim, text)?;
        // A leading zero may mean octal.
        if let [b'0', b'0'..=b'9' | b'x' | b'X', ..] | [b'-', b'0', ..] = rest {
            return None;
        }
        let (value, taken) = numbers::leading_integer(rest)?;
        let rest = after_line(&rest[taken..])?;
        self.staged.push(Staged { dim, value });
        self.dim_before = dim;
        self.dim = next;
        Some(rest)
    }

    #[inline]
    fn fast_begin<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        let (chart, rest) = self.session.expect(text)?;
        if !rest.first()?.is_ascii_digit() {
            return None;
        }
        let (since_us, taken) = numbers::leading_decimal_integer(rest)?;
        let rest = after_line(&rest[taken..])?;
        self.begin(chart, believable(since_us));
        Some(rest)
    }

    #[inline]
    fn fast_begin2<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        if !self.interpolated {
            return None;
        }
        let (chart, rest) = self.session.expect(text)?;
        let (every, rest) = integer_and_blank(rest)?;
        let (end, rest) = integer_and_blank(rest)?;
        if !(1..=self.latest).contains(&end) {
            return None;
        }
        let wall = match rest {
            [b'#'] | [b'#', b'\n', ..] => 1,
            number => numbers::leading_integer(number)?.1,
        };
        let rest = after_line(&rest[wall..])?;
        self.begin_point(chart, every, end);
        Some(rest)
    }

    #[inline]
    fn fast_set2<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        if !self.in_point {
            return None;
        }
        let known = self.session.chart(self.chart)?;
        let (dim, rest, next) = known.expect(self.dim, text)?;
        let (collected, rest) = integer_and_blank(rest)?;
        let (value, rest) = match rest {
            [b'#', b' ', rest @ ..] => (collected as f64, rest),
            _ => value_and_blank(rest)?,
        };
        let (anomalous, reset, rest) = match rest {
            [b'A', b'R', rest @ ..] => (false, true, rest),
            [b'A', rest @ ..] => (false, false, rest),
            [b'\'', b'\'', rest @ ..] => (true, false, rest),
            [b'R', rest @ ..] => (true, true, rest),
            _ => return None,
        };
        let rest = after_line(rest)?;
        let flags = SampleFlags { anomalous, reset };
        self.point.push(PointValue { dim, collected, value, flags });
        self.dim_before = dim;
        self.dim = next;
        Some(rest)
    }

    #[inline]
    fn fast_replay_set<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        if self.skips_block || self.replay.is_none() {
            return None;
        }
        let known = self.session.chart(self.chart)?;
        let (dim, rest, next) = known.expect(self.dim, text)?;
        let (value, rest) = value_and_blank(rest)?;
        let (anomalous, reset, rest) = match rest {
            [b'"', b'A', b'"', rest @ ..] => (false, false, rest),
            [b'"', b'"', rest @ ..] => (true, false, rest),
            [b'"', b'A', b'R', b'"', rest @ ..] => (false, true, rest),
            [b'"', b'R', b'"', rest @ ..] => (true, true, rest),
            _ => return None,
        };
        let rest = after_line(rest)?;
        let flags = SampleFlags { anomalous: anomalous && self.interpolated, reset };
        self.point.push(PointValue { dim, collected: 0, value, flags });
        self.dim_before = dim;
        self.dim = next;
        Some(rest)
    }

    /// The next slot of a block; its chart is in scope.
    #[inline]
    fn fast_replay_begin<'a>(&mut self, text: &'a [u8], now: UnixMicros) -> Option<&'a [u8]> {
        self.session.chart(self.chart)?;
        if self.skips_block || !self.agreed(Capabilities::REPLICATION) {
            return None;
        }
        let rest = match text.strip_prefix(b"SLOT:#") {
            Some(slot) if self.slots => {
                // Slots of charts have three digits at most here; longer ones are left to be judged.
                let digits = slot.iter().take(4).position(|byte| *byte == b' ')?;
                let known = slot[..digits].iter().all(u8::is_ascii_alphanumeric);
                slot.get(digits + 1..).filter(|_| known && digits > 0)?
            }
            Some(_) => return None,
            None => text,
        };
        let rest = rest.strip_prefix(b"'' ")?;
        let (start, rest) = integer_and_blank(rest)?;
        let (end, rest) = integer_and_blank(rest)?;
        let (wall, taken) = numbers::leading_integer(rest)?;
        let rest = after_line(&rest[taken..])?;
        self.store_slot();
        self.begin_slot(start, end, wall, now);
        Some(rest)
    }
}

/// A value as bits or as a decimal number, and what follows the blank behind it.
#[inline]
fn value_and_blank(text: &[u8]) -> Option<(f64, &[u8])> {
    match text {
        [b'@', ..] => {
            let (value, taken) = numbers::leading_bits(text)?;
            Some((value, text[taken..].strip_prefix(b" ")?))
        }
        [b'0'..=b'9' | b'-', ..] => decimal_and_blank(text),
        _ => None,
    }
}

/// What follows the end of a line, if `text` is at one.
#[inline]
fn after_line(text: &[u8]) -> Option<&[u8]> {
    match text {
        [] => Some(text),
        [b'\n', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// An integer, and what follows the blank after it.
#[inline]
fn integer_and_blank(text: &[u8]) -> Option<(i64, &[u8])> {
    let (number, taken) = numbers::leading_integer(text)?;
    Some((number, text[taken..].strip_prefix(b" ")?))
}

/// A double in plain decimal, and what follows the blank after it.
fn decimal_and_blank(text: &[u8]) -> Option<(f64, &[u8])> {
    let number = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e');
    let length = text.iter().take_while(|b| number(b)).count();
    let rest = text[length..].strip_prefix(b" ")?;
    Some((numbers::double(&text[..length])?, rest))
}
