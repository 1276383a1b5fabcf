//! The lines that make up nearly all of the traffic, read in one pass.
//!
//! Each function either recognises its line completely and acts on it, or changes nothing and says so; then
//! [`super::commands`] reads the line by the general rules. A property test holds both to the same results.

use super::Executor;
use super::commands::{TIME_MAX, number_flags};
use super::session::SLOT_MAX;
use crate::base::time::UnixMicros;
use crate::metrics::{PointValue, Staged};
use crate::wire::numbers;

impl Executor {
    /// True when the line was one of these and is done.
    #[inline]
    pub(super) fn fast(&mut self, line: &[u8], now: UnixMicros) -> bool {
        match line {
            [b'S', b'E', b'T', b'2', b' ', rest @ ..] => self.fast_set2(rest).is_some(),
            [b'S', b'E', b'T', b' ', rest @ ..] => self.fast_set(rest).is_some(),
            [b'B', b'E', b'G', b'I', b'N', b'2', b' ', rest @ ..] => {
                self.fast_begin2(rest).is_some()
            }
            [b'B', b'E', b'G', b'I', b'N', b' ', rest @ ..] => self.fast_begin(rest).is_some(),
            b"END2" if self.interpolated && self.in_point => {
                self.complete_point();
                true
            }
            b"END" if self.session.chart(self.chart).is_some() => {
                self.complete(now);
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn fast_set(&mut self, text: &[u8]) -> Option<()> {
        let known = self.session.chart(self.chart)?;
        let (mut rest, next) = known.expect(self.dim, text)?;
        while let [b' ' | b'=', more @ ..] = rest {
            rest = more;
        }
        // A leading zero may mean octal.
        if let [b'0', _, ..] | [b'-', b'0', ..] = rest {
            return None;
        }
        let (value, taken) = numbers::leading_integer(rest)?;
        if taken != rest.len() {
            return None;
        }
        self.staged.push(Staged { dim: self.dim, value });
        self.dim_before = self.dim;
        self.dim = next;
        Some(())
    }

    #[inline]
    fn fast_begin(&mut self, text: &[u8]) -> Option<()> {
        let (chart, mut rest) = self.session.expect(text)?;
        while let [b' ', more @ ..] = rest {
            rest = more;
        }
        let mut since_us = 0;
        if let [b'0'..=b'9', ..] = rest {
            let (us, taken) = numbers::leading_integer(rest)?;
            if taken != rest.len() {
                return None;
            }
            since_us = us;
        } else if !rest.is_empty() {
            return None;
        }
        self.begin(chart, super::commands::believable(since_us));
        Some(())
    }

    #[inline]
    fn fast_begin2(&mut self, text: &[u8]) -> Option<()> {
        if !self.interpolated {
            return None;
        }
        let (chart, rest) = match self.slot(text)? {
            (0, text) => self.session.expect(text)?,
            (slot, text) => self.session.expect_slot(slot, text)?,
        };
        let (every, rest) = spaced_integer(rest)?;
        let (end, rest) = spaced_integer(rest)?;
        if !(1..=TIME_MAX).contains(&end) {
            return None;
        }
        if !matches!(rest, b" #") {
            let (_wall, rest) = spaced_integer(rest)?;
            if !rest.is_empty() {
                return None;
            }
        }
        self.begin_point(chart, every, end);
        Some(())
    }

    #[inline]
    fn fast_set2(&mut self, text: &[u8]) -> Option<()> {
        if !self.in_point {
            return None;
        }
        let known = self.session.chart(self.chart)?;
        let (rest, next) = match self.slot(text)? {
            (0, text) => known.expect(self.dim, text)?,
            (slot, text) => known.expect_slot(self.dim, slot, text)?,
        };
        let (collected, rest) = spaced_integer(rest)?;
        let [b' ', number @ ..] = rest else { return None };
        let (value, rest) = match number {
            [b'#', b' ', rest @ ..] => (collected as f64, rest),
            [b'@', ..] => {
                let (value, taken) = numbers::leading_bits(number)?;
                let [b' ', rest @ ..] = &number[taken..] else { return None };
                (value, rest)
            }
            [b'0'..=b'9' | b'-', ..] => {
                let end = number.iter().position(|b| *b == b' ')?;
                let (number, rest) = number.split_at(end);
                if number.iter().any(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e')) {
                    return None;
                }
                (numbers::double(number)?, &rest[1..])
            }
            _ => return None,
        };
        let (value, flags) = match rest {
            b"A" | b"''" | b"AR" | b"R" | b"E" => {
                number_flags(value, if rest == b"''" { b"" } else { rest })
            }
            _ => return None,
        };
        self.point.push(PointValue { dim: self.dim, collected, value, flags });
        self.dim_before = self.dim;
        self.dim = next;
        Some(())
    }

    /// The slot `text` begins with, 0 if there is none, and what follows it.
    #[inline]
    fn slot<'a>(&self, text: &'a [u8]) -> Option<(u64, &'a [u8])> {
        match text {
            [b'S', b'L', b'O', b'T', b':', number @ ..] => {
                if !self.slots {
                    return None;
                }
                let (slot, taken) = numbers::leading_unsigned(number)?;
                let [b' ', rest @ ..] = &number[taken..] else { return None };
                (1..=SLOT_MAX).contains(&slot).then_some((slot, rest))
            }
            _ => Some((0, text)),
        }
    }
}

/// A blank, an integer, and then the end or another blank, which stays.
#[inline]
fn spaced_integer(text: &[u8]) -> Option<(i64, &[u8])> {
    let text = match text {
        [b' ', text @ ..] => text,
        // The blank after a bare word went with it.
        _ => text,
    };
    let (number, taken) = numbers::leading_integer(text)?;
    match &text[taken..] {
        rest @ ([] | [b' ', ..]) => Some((number, rest)),
        _ => None,
    }
}
