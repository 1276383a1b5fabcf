//! A small JSON writer: objects and arrays by begin and end, commas and escapes by itself, numbers as Netdata prints them.
//!
//! Fed by the API's endpoints. No thread, no lock, one growing buffer. What comes out is always valid UTF-8; it is
//! valid JSON as long as every `begin` meets its `end` and every member of an object has its key.

use std::fmt::Write as _;

/// Writes one JSON document into a string.
#[derive(Default)]
pub struct JsonWriter {
    out: String,
    /// Whether the next element stands after another one of the same object or array.
    after_element: bool,
}

impl JsonWriter {
    pub fn new() -> Self {
        JsonWriter::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        JsonWriter { out: String::with_capacity(bytes), after_element: false }
    }

    /// Goes on with an object that has members already, behind the last of them.
    pub fn inside(out: String) -> Self {
        JsonWriter { out, after_element: true }
    }

    /// The text so far.
    pub fn as_str(&self) -> &str {
        &self.out
    }

    pub fn finish(self) -> String {
        self.out
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.out.into_bytes()
    }

    fn element(&mut self) -> &mut String {
        if self.after_element {
            self.out.push(',');
        }
        self.after_element = true;
        &mut self.out
    }

    fn begin(&mut self, bracket: char) -> &mut Self {
        self.element().push(bracket);
        self.after_element = false;
        self
    }

    fn end(&mut self, bracket: char) -> &mut Self {
        self.out.push(bracket);
        self.after_element = true;
        self
    }

    pub fn begin_object(&mut self) -> &mut Self {
        self.begin('{')
    }

    pub fn end_object(&mut self) -> &mut Self {
        self.end('}')
    }

    pub fn begin_array(&mut self) -> &mut Self {
        self.begin('[')
    }

    pub fn end_array(&mut self) -> &mut Self {
        self.end(']')
    }

    /// `{ … }` with `body` writing its members.
    pub fn object(&mut self, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.begin_object();
        body(self);
        self.end_object()
    }

    /// `[ … ]` with `body` writing its elements.
    pub fn array(&mut self, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.begin_array();
        body(self);
        self.end_array()
    }

    /// The key of the member whose value comes next.
    pub fn key(&mut self, name: &str) -> &mut Self {
        push_string(self.element(), name);
        self.out.push(':');
        self.after_element = false;
        self
    }

    pub fn string(&mut self, text: &str) -> &mut Self {
        push_string(self.element(), text);
        self
    }

    /// One string of several texts.
    pub fn joined<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> &mut Self {
        let out = self.element();
        out.push('"');
        texts.into_iter().for_each(|text| push_escaped(out, text));
        out.push('"');
        self
    }

    /// The text, or null.
    pub fn maybe_string(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.string(text),
            None => self.null(),
        }
    }

    pub fn integer(&mut self, value: i64) -> &mut Self {
        push_integer(self.element(), value);
        self
    }

    /// A count or a size; beyond 2^63 it stays at the largest integer.
    pub fn count(&mut self, value: usize) -> &mut Self {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// Up to seven decimals; null for what is no number.
    pub fn number(&mut self, value: f64) -> &mut Self {
        push_number(self.element(), value);
        self
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.element().push_str(if value { "true" } else { "false" });
        self
    }

    pub fn null(&mut self) -> &mut Self {
        self.element().push_str("null");
        self
    }

    /// One whole element that is JSON already.
    pub fn raw(&mut self, json: &str) -> &mut Self {
        self.element().push_str(json);
        self
    }
}

/// Appends `text` in double quotes, escaped.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Appends `text` as it stands between the quotes of a JSON string.
pub fn push_escaped(out: &mut String, text: &str) {
    if is_plain(text.as_bytes()) {
        out.push_str(text);
        return;
    }
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 | 0x7F => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain..]);
}

/// Whether nothing has to be escaped: true of nearly all texts.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    const fn is_special(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7F
    }
    const SPECIAL: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < table.len() {
            table[byte] = is_special(byte as u8);
            byte += 1;
        }
        table
    };
    // Names are short: one look each. In longer texts, without a way out of the middle, the compiler looks at many at once.
    match text.len() {
        0..24 => !text.iter().fold(false, |any, byte| any | SPECIAL[usize::from(*byte)]),
        _ => !text.iter().fold(false, |any, byte| any | is_special(*byte)),
    }
}

pub fn push_integer(out: &mut String, value: i64) {
    let magnitude = value.unsigned_abs();
    let mut digits = [0; NUMBER_BYTES];
    let mut at = integer_before(&mut digits, NUMBER_BYTES, magnitude);
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or("0"));
}

const SCALE: f64 = 1e7;
const ROUNDING: f64 = 4_503_599_627_370_496.0;
/// The room that writing a number below [`WHOLE_MAX`] needs: a point and seven decimals, up to 18 digits in three eights, a sign.
pub const NUMBER_BYTES: usize = 33;
/// Below this the whole part fits 64 bits; from it on there is no fraction left to print.
pub const WHOLE_MAX: f64 = 1e18;

/// Appends a number in fixed notation with up to seven decimals, rounded half to even on the seventh, trailing zeros
/// removed; `null` for NaN and infinities. A negative that rounds to nothing prints `-0`, zero itself prints `0`.
pub fn push_number(out: &mut String, value: f64) {
    if value.is_finite() && value.abs() >= WHOLE_MAX {
        let _ = write!(out, "{value:.0}");
        return;
    }
    let mut digits = [0; NUMBER_BYTES];
    let at = number_before(&mut digits, NUMBER_BYTES, value, Zeros::Trimmed);
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or("null"));
}

/// Appends a number with exactly seven decimals; `null` for NaN and infinities.
pub fn push_fixed(out: &mut String, value: f64) {
    if value.is_finite() && value.abs() >= WHOLE_MAX {
        let _ = write!(out, "{value:.7}");
        return;
    }
    let mut digits = [0; NUMBER_BYTES];
    let at = number_before(&mut digits, NUMBER_BYTES, value, Zeros::Kept);
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or("null"));
}

/// What becomes of zeros at the end of a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    Kept,
    Trimmed,
}

/// Writes the ASCII text of a number so that it ends right before `end`, and gives where it begins. Digits come last
/// first, so a whole row written this way, from its end, copies none of them. There must be [`NUMBER_BYTES`] before
/// `end`, and the number must be smaller than [`WHOLE_MAX`]: larger ones come out as `null`.
#[inline]
pub fn number_before(buffer: &mut [u8], end: usize, value: f64, zeros: Zeros) -> usize {
    let magnitude = value.abs();
    let mut at = end;
    if magnitude >= WHOLE_MAX || magnitude.is_nan() {
        at -= 4;
        buffer[at..end].copy_from_slice(b"null");
        return at;
    }
    // by way of signed integers, which processors convert in one step
    let trunk = magnitude as i64;
    let mut whole = trunk.unsigned_abs();
    let rest = magnitude - trunk as f64;
    if rest > 0.0 || zeros == Zeros::Kept {
        // Adding and taking away 2^52 rounds to an integer, ties to even, without a call.
        let rounded = (rest * SCALE + ROUNDING) - ROUNDING;
        let mut fraction = (rounded as i64) as u32;
        if fraction == 10_000_000 {
            whole += 1;
            fraction = 0;
        }
        if fraction > 0 || zeros == Zeros::Kept {
            // Eight bytes at a time, those too many in front, where the next digits overwrite them.
            let decimals = (digits(fraction) & !0xFF) | u64::from(b'.');
            let zeros_behind = match zeros {
                Zeros::Kept => 0,
                // the point is no zero, so there are at most seven
                Zeros::Trimmed => (decimals ^ ZEROS).leading_zeros() / 8,
            };
            let shifted = decimals << (8 * zeros_behind);
            buffer[at - 8..at].copy_from_slice(&shifted.to_le_bytes());
            at -= 8 - zeros_behind as usize;
        }
    }
    at = integer_before(buffer, at, whole);
    if value < 0.0 {
        at -= 1;
        buffer[at] = b'-';
    }
    at
}

/// The same for a whole number below 10^18.
#[inline(always)]
pub fn integer_before(buffer: &mut [u8], end: usize, mut whole: u64) -> usize {
    let mut at = end;
    if whole < 10 {
        at -= 1;
        buffer[at] = b'0' + whole as u8;
    } else if whole < 10_000 {
        let low = four_digits(whole as u32);
        buffer[at - 4..at].copy_from_slice(&low.to_le_bytes());
        // it is 10 at least, so one digit is no zero
        at -= 4 - (low ^ ZEROS as u32).trailing_zeros() as usize / 8;
    } else {
        while whole >= 100_000_000 {
            let low = digits((whole % 100_000_000) as u32);
            buffer[at - 8..at].copy_from_slice(&low.to_le_bytes());
            (at, whole) = (at - 8, whole / 100_000_000);
        }
        let high = digits(whole as u32);
        buffer[at - 8..at].copy_from_slice(&high.to_le_bytes());
        // the last digit stays
        let zeros_in_front = ((high ^ ZEROS) | 1 << 63).trailing_zeros() as usize / 8;
        at -= 8 - zeros_in_front;
    }
    at
}

/// Eight zeros in ASCII.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The four digits of every number below 10^4 in ASCII, the first one in the lowest byte. Looking them up takes half the time of
/// making them.
static FOUR_DIGITS: [u32; 10_000] = {
    let mut table = [0; 10_000];
    let mut n = 0;
    while n < table.len() {
        let (mut digits, mut rest, mut place) = (0, n as u32, 4);
        while place > 0 {
            digits = digits << 8 | (0x30 + rest % 10);
            (rest, place) = (rest / 10, place - 1);
        }
        table[n] = digits;
        n += 1;
    }
    table
};

/// The four digits of a number below 10^4.
#[inline(always)]
fn four_digits(n: u32) -> u32 {
    FOUR_DIGITS[n as usize % FOUR_DIGITS.len()]
}

/// The eight digits of a number below 10^8 in ASCII, the first one in the lowest byte.
#[inline(always)]
fn digits(n: u32) -> u64 {
    u64::from(four_digits(n / 10_000)) | u64::from(four_digits(n % 10_000)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: f64, text: &str) {
        let mut out = String::new();
        push_number(&mut out, value);
        assert_eq!(out, text);
    }

    #[test]
    fn numbers_have_up_to_seven_decimals_and_no_trailing_zeros() {
        check(0.0, "0");
        check(-0.0, "0");
        check(28.0, "28");
        check(1.5, "1.5");
        check(-1.25, "-1.25");
        check(3.015_075_4, "3.0150754");
        check(0.1 + 0.2, "0.3");
        check(0.999_999_99, "1");
        check(-4e-8, "-0");
        check(1234.05, "1234.05");
        check(100.000_1, "100.0001");
        check(99.999_999_96, "100");
        check(1e-7, "0.0000001");
        check(12_345_678_901_234_567.0, "12345678901234568");
        check(1.5e25, "15000000000000000285212672");
        check(f64::NAN, "null");
        check(f64::NEG_INFINITY, "null");
    }

    #[test]
    fn fixed_numbers_have_exactly_seven_decimals() {
        let mut out = String::new();
        push_fixed(&mut out, -2.5);
        out.push(' ');
        push_fixed(&mut out, 1e18);
        assert_eq!(out, "-2.5000000 1000000000000000000.0000000");
    }

    #[test]
    fn commas_stand_between_elements_only() {
        let mut json = JsonWriter::new();
        json.object(|j| {
            j.key("a").integer(-5);
            j.key("b").array(|j| {
                j.bool(true).null().string("x").object(|_| {}).array(|_| {});
            });
            j.key("c").object(|j| {
                j.key("d").number(0.5);
            });
        });
        assert_eq!(json.finish(), r#"{"a":-5,"b":[true,null,"x",{},[]],"c":{"d":0.5}}"#);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text: String) {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_number_comes_back_to_seven_decimals(value in -1e12f64..1e12) {
            let mut out = String::new();
            push_number(&mut out, value);
            prop_assert!((out.parse::<f64>().unwrap() - value).abs() <= 1e-7 + value.abs() * 1e-15, "{} for {}", out, value);
        }
    }
}
