//! Numbers as they stand on the wire (streaming specification, section 4.5): decimal, hexadecimal and positional base64.
//!
//! Readers recognise the form by its prefix in every numeric position, whatever was agreed: `#` base64, `0x` hex, `@` a
//! double's bits in base64, `%` the same in hex. Like the C library they read as far as a number goes and ignore what
//! follows it. Writers append to the caller's buffer without allocating once it has grown.

use std::io::Write;

/// How a sender writes its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Decimal,
    Hex,
    Base64,
}

/// The two digits of each 12 bits.
static PAIRS64: [[u8; 2]; 4096] = {
    let mut pairs = [[0; 2]; 4096];
    let mut n = 0;
    while n < 4096 {
        pairs[n] = [DIGITS64[n >> 6], DIGITS64[n & 63]];
        n += 1;
    }
    pairs
};
static DIGITS64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static DIGITS16: &[u8; 16] = b"0123456789ABCDEF";
const NO_DIGIT: u8 = 0xff;

static VALUE64: [u8; 256] = values64();
static VALUE16: [u8; 256] = values16();

const fn values64() -> [u8; 256] {
    let mut value = [NO_DIGIT; 256];
    let mut i = 0u8;
    while i < 64 {
        value[DIGITS64[i as usize] as usize] = i;
        i += 1;
    }
    value
}

const fn values16() -> [u8; 256] {
    let mut value = [NO_DIGIT; 256];
    let mut i = 0u8;
    while i < 16 {
        value[DIGITS16[i as usize] as usize] = i;
        value[DIGITS16[i as usize].to_ascii_lowercase() as usize] = i;
        i += 1;
    }
    value
}

/// Digits of a power-of-two base; bits beyond the 64th fall out at the top. `None` without a single digit.
#[inline]
fn digits(word: &[u8], values: &[u8; 256], bits: u32) -> Option<u64> {
    let mut n = 0u64;
    let mut count = 0usize;
    for &byte in word {
        let value = values[usize::from(byte)];
        if value == NO_DIGIT {
            break;
        }
        n = n << bits | u64::from(value);
        count += 1;
    }
    (count != 0).then_some(n)
}

/// Decimal (or octal) digits, saturating. `None` without a single digit.
#[inline]
fn small_base(word: &[u8], base: u64) -> Option<u64> {
    let mut n = 0u64;
    let mut count = 0usize;
    for &byte in word {
        let value = u64::from(byte.wrapping_sub(b'0'));
        if value >= base {
            break;
        }
        n = n.saturating_mul(base).saturating_add(value);
        count += 1;
    }
    (count != 0).then_some(n)
}

#[inline]
fn magnitude(word: &[u8]) -> Option<u64> {
    match word {
        [b'#', digits64 @ ..] => digits(digits64, &VALUE64, 6),
        [b'0', b'x' | b'X', hex @ ..] => digits(hex, &VALUE16, 4),
        _ => small_base(word, 10),
    }
}

/// An unsigned integer in any form; `None` if the word does not begin with one. A sign is not part of it.
#[inline]
pub fn unsigned(word: &[u8]) -> Option<u64> {
    match word {
        [b'+', rest @ ..] => magnitude(rest),
        _ => magnitude(word),
    }
}

/// A signed integer in any form, clipped to 64 bits; `None` if the word does not begin with one.
#[inline]
pub fn integer(word: &[u8]) -> Option<i64> {
    match word {
        [b'-', rest @ ..] => magnitude(rest).map(negated),
        [b'+', rest @ ..] => magnitude(rest).map(clipped),
        _ => magnitude(word).map(clipped),
    }
}

/// As [`integer`], but a leading `0` means octal: what `SET` takes from plugins and old children.
#[inline]
pub fn c_integer(word: &[u8]) -> Option<i64> {
    match word {
        [b'0', b'0'..=b'7', ..] => small_base(word, 8).map(clipped),
        [b'-', b'0', b'0'..=b'7', ..] => small_base(&word[1..], 8).map(negated),
        _ => integer(word),
    }
}

#[inline]
fn clipped(magnitude: u64) -> i64 {
    i64::try_from(magnitude).unwrap_or(i64::MAX)
}

#[inline]
fn negated(magnitude: u64) -> i64 {
    0i64.checked_sub_unsigned(magnitude).unwrap_or(i64::MIN)
}

/// The integer that `text` begins with and the number of bytes it takes, in the forms of [`integer`], without reading
/// a word apart first. `None` when there is none, or one so long that only [`integer`] knows how to clip it.
#[inline]
pub fn leading_integer(text: &[u8]) -> Option<(i64, usize)> {
    match text {
        [b'#', digits @ ..] => {
            let (n, taken) = leading_digits64(digits)?;
            Some((n, taken + 1))
        }
        [b'-', rest @ ..] => {
            let (n, taken) = match rest {
                [b'-', ..] => return None,
                _ => leading_integer_unsigned(rest)?,
            };
            Some((-n, taken + 1))
        }
        _ => leading_integer_unsigned(text),
    }
}

fn leading_integer_unsigned(text: &[u8]) -> Option<(i64, usize)> {
    match text {
        [b'#', digits @ ..] => leading_digits64(digits).map(|(n, taken)| (n, taken + 1)),
        [b'0', b'x' | b'X', digits @ ..] => {
            let mut n = 0;
            let mut taken = 0;
            for &byte in digits {
                let value = VALUE16[usize::from(byte)];
                if value == NO_DIGIT {
                    break;
                }
                n = n << 4 | i64::from(value);
                taken += 1;
            }
            (1..=15).contains(&taken).then_some((n, taken + 2))
        }
        _ => leading_decimal_integer(text),
    }
}

/// As [`leading_integer`], in decimal only and without a sign.
#[inline]
pub fn leading_decimal_integer(text: &[u8]) -> Option<(i64, usize)> {
    let mut n = 0i64;
    let mut taken = 0usize;
    for &byte in text {
        let value = i64::from(byte.wrapping_sub(b'0'));
        if value > 9 {
            break;
        }
        n = n.wrapping_mul(10).wrapping_add(value);
        taken += 1;
    }
    (1..=18).contains(&taken).then_some((n, taken))
}

/// Up to ten digits, so that the sign stays free.
#[inline]
fn leading_digits64(text: &[u8]) -> Option<(i64, usize)> {
    let mut n = 0i64;
    let mut taken = 0usize;
    for &byte in text {
        let value = VALUE64[usize::from(byte)];
        if value == NO_DIGIT {
            break;
        }
        n = n << 6 | i64::from(value);
        taken += 1;
    }
    (1..=10).contains(&taken).then_some((n, taken))
}

/// The double in base64 (`@` and digits) that `text` begins with, and the bytes it takes.
#[inline]
pub fn leading_bits(text: &[u8]) -> Option<(f64, usize)> {
    const DIGITS: usize = 11;
    let Some([b'@', digits @ ..]) = text.first_chunk::<{ DIGITS + 1 }>() else {
        return leading_bits_short(text);
    };
    // Nearly all doubles have just so many digits: read without a branch per digit.
    let (mut bits, mut seen) = (0u64, 0u8);
    for &byte in digits {
        let value = VALUE64[usize::from(byte)];
        seen |= value;
        bits = bits << 6 | u64::from(value);
    }
    let more = text.get(DIGITS + 1).is_some_and(|&byte| VALUE64[usize::from(byte)] != NO_DIGIT);
    if seen > 63 || more {
        return leading_bits_short(text);
    }
    Some((f64::from_bits(bits), DIGITS + 1))
}

fn leading_bits_short(text: &[u8]) -> Option<(f64, usize)> {
    let [b'@', digits @ ..] = text else { return None };
    let (bits, taken) = leading_digits64(digits)?;
    Some((f64::from_bits(bits.cast_unsigned()), taken + 1))
}

/// A decimal integer as far as it goes, 0 where none begins: priorities, intervals and time-outs.
pub fn plain_integer(word: &[u8]) -> i64 {
    match word {
        [b'-', rest @ ..] => small_base(rest, 10).map_or(0, negated),
        [b'+', rest @ ..] => small_base(rest, 10).map_or(0, clipped),
        _ => small_base(word, 10).map_or(0, clipped),
    }
}

/// The decimal number that `word` begins with and what follows it; `None` when it begins with none.
pub fn leading_decimal(word: &[u8]) -> Option<(f64, &[u8])> {
    let (number, rest) = word.split_at(decimal_prefix(word));
    let n = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((n, rest))
}

/// A double in any form; `nan` and `null` are NaN, `None` is a word that is no number at all.
#[inline]
pub fn double(word: &[u8]) -> Option<f64> {
    match word {
        [b'@', rest @ ..] => digits(rest, &VALUE64, 6).map(f64::from_bits),
        [b'%', rest @ ..] => digits(rest, &VALUE16, 4).map(f64::from_bits),
        [b'-', b'@' | b'%', ..] => double(&word[1..]).map(|n| -n),
        [b'#', ..] | [b'0', b'x' | b'X', ..] => magnitude(word).map(wide),
        [b'-', b'#', ..] | [b'-', b'0', b'x' | b'X', ..] => magnitude(&word[1..]).map(|n| -wide(n)),
        _ => decimal(word),
    }
}

fn wide(n: u64) -> f64 {
    n as f64
}

fn decimal(word: &[u8]) -> Option<f64> {
    if let Ok(n) = std::str::from_utf8(word).unwrap_or("").parse() {
        return Some(n);
    }
    if word.len() == 4 && word.eq_ignore_ascii_case(b"null") {
        return Some(f64::NAN);
    }
    // Not a number as a whole: as far as it goes, like strtod.
    let length = decimal_prefix(word);
    std::str::from_utf8(&word[..length]).unwrap_or("").parse().ok()
}

/// Length of the longest beginning that reads as `[sign]digits[.digits][e[sign]digits]`.
fn decimal_prefix(word: &[u8]) -> usize {
    let run = |from: usize| word[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(matches!(word.first(), Some(b'+' | b'-')));
    at += run(at);
    if word.get(at) == Some(&b'.') {
        at += 1 + run(at + 1);
    }
    if let Some(b'e' | b'E') = word.get(at) {
        let sign = usize::from(matches!(word.get(at + 1), Some(b'+' | b'-')));
        let exponent = run((at + 1 + sign).min(word.len()));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    at
}

/// Longest text of an unsigned 64-bit number in any of our bases.
const DIGITS_MAX: usize = 20;

static PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// Appends `n` in decimal.
#[inline]
pub fn put_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut text = [0u8; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    while n >= 100 {
        let pair = (n % 100) as usize * 2;
        n /= 100;
        at -= 2;
        text[at] = PAIRS[pair];
        text[at + 1] = PAIRS[pair + 1];
    }
    let last = n as usize;
    if last >= 10 {
        at -= 2;
        text[at] = PAIRS[last * 2];
        text[at + 1] = PAIRS[last * 2 + 1];
    } else {
        at -= 1;
        text[at] = PAIRS[last * 2 + 1];
    }
    out.extend_from_slice(&text[at..]);
}

/// Appends `n` in decimal with its sign.
#[inline]
pub fn put_signed_decimal(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    put_decimal(out, n.unsigned_abs());
}

#[inline]
fn put_base64(out: &mut Vec<u8>, prefix: u8, n: u64) {
    // Slots and most collected values are short, and a copy of a few bytes costs more than their digits.
    if n < 1 << 24 {
        let mut bits = (24 - (n | 1).leading_zeros().saturating_sub(40)).div_ceil(6) * 6;
        out.reserve(5);
        out.push(prefix);
        while bits > 0 {
            bits -= 6;
            out.push(DIGITS64[(n >> bits & 63) as usize]);
        }
        return;
    }
    // Eleven digits: most doubles.
    if n >= 1 << 60 {
        let mut text = [0; 12];
        text[0] = prefix;
        text[1] = DIGITS64[(n >> 60) as usize];
        for (place, pair) in text[2..].chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&PAIRS64[(n >> (48 - 12 * place) & 4095) as usize]);
        }
        out.extend_from_slice(&text);
        return;
    }
    // As many digits as the longest has, the highest first, and the end cut off: its length known, the copy is cheap.
    let digits = (64 - n.leading_zeros()).div_ceil(6);
    let aligned = u128::from(n) << (66 - 6 * digits);
    let mut text = [prefix; 12];
    for (place, digit) in text[1..].iter_mut().enumerate() {
        *digit = DIGITS64[(aligned >> (60 - 6 * place) & 63) as usize];
    }
    out.extend_from_slice(&text);
    out.truncate(out.len() - (11 - digits as usize));
}

fn put_hex(out: &mut Vec<u8>, mut n: u64) {
    let mut text = [0u8; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        let digit = (n & 15) as usize;
        text[at] = DIGITS16[digit];
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(b"0x");
    out.extend_from_slice(&text[at..]);
}

/// Appends an unsigned integer.
#[inline]
pub fn put_unsigned(out: &mut Vec<u8>, n: u64, form: Form) {
    match form {
        Form::Base64 => put_base64(out, b'#', n),
        Form::Decimal => put_decimal(out, n),
        Form::Hex => put_hex(out, n),
    }
}

/// Appends a signed integer: the sign stands before the form's prefix.
#[inline]
pub fn put_integer(out: &mut Vec<u8>, n: i64, form: Form) {
    if n < 0 {
        out.push(b'-');
    }
    put_unsigned(out, n.unsigned_abs(), form);
}

/// Beyond these magnitudes a plain decimal grows by hundreds of digits.
const PLAIN_MAX: f64 = 1e17;
const PLAIN_MIN: f64 = 1e-7;

/// Appends a double: its bits in base64, else a decimal that reads back as the same number (both other forms).
#[inline]
pub fn put_double(out: &mut Vec<u8>, n: f64, form: Form) {
    if form == Form::Base64 {
        return put_base64(out, b'@', n.to_bits());
    }
    let size = n.abs();
    // Writing to a Vec cannot fail.
    let _ = if n.is_nan() {
        out.write_all(b"nan")
    } else if size != 0.0 && !(PLAIN_MIN..PLAIN_MAX).contains(&size) {
        write!(out, "{n:e}")
    } else {
        write!(out, "{n}")
    };
}

/// Appends a number with seven decimals, as variables have.
pub fn put_fixed7(out: &mut Vec<u8>, n: f64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{n:.7}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_documented_examples() {
        let base64 = |n: i64| text(|out| put_integer(out, n, Form::Base64));
        assert_eq!(base64(0), "#A");
        assert_eq!(base64(1_676_071_986), "#Bj5tQy");
        assert_eq!(base64(-1_676_071_986), "-#Bj5tQy");
        assert_eq!(text(|out| put_double(out, 1.5, Form::Base64)), "@D/4AAAAAAAA");
        assert_eq!(text(|out| put_double(out, 0.0, Form::Base64)), "@A");
        assert_eq!(text(|out| put_integer(out, -255, Form::Hex)), "-0xFF");
        assert_eq!(text(|out| put_fixed7(out, 42.0)), "42.0000000");
    }

    #[test]
    fn every_form_is_recognised_by_its_prefix() {
        for (word, value) in [
            ("5", 5),
            ("+5", 5),
            ("-5", -5),
            ("0x1F", 31),
            ("0Xff", 255),
            ("-0x10", -16),
            ("#Bj5tQy", 1_676_071_986),
            ("-#Bj5tQy", -1_676_071_986),
            ("12abc", 12),
            ("010", 10),
            ("99999999999999999999999999", i64::MAX),
            ("-99999999999999999999999999", i64::MIN),
        ] {
            assert_eq!(integer(word.as_bytes()), Some(value), "{word}");
        }
        for word in ["", "abc", "-", "#", "0x", "-#", "="] {
            assert_eq!(integer(word.as_bytes()), None, "{word}");
        }
        assert_eq!(c_integer(b"010"), Some(8));
        assert_eq!(c_integer(b"-010"), Some(-8));
        assert_eq!(c_integer(b"0"), Some(0));
        assert_eq!(c_integer(b"0x5"), Some(5));
    }

    #[test]
    fn doubles_in_every_form() {
        for (word, value) in [
            ("@D/4AAAAAAAA", 1.5),
            ("%3FF8000000000000", 1.5),
            ("1.5", 1.5),
            ("-1.5e3", -1500.0),
            ("1.5x", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e", 1.0),
            ("#B", 1.0),
            ("-#B", -1.0),
            ("0x10", 16.0),
            ("99999999999999999999999999", 1e26),
        ] {
            assert_eq!(double(word.as_bytes()), Some(value), "{word}");
        }
        for word in ["nan", "NAN", "NaN", "null", "NULL"] {
            assert!(double(word.as_bytes()).unwrap().is_nan(), "{word}");
        }
        for word in ["", "abc", "-", ".", "@", "e5"] {
            assert_eq!(double(word.as_bytes()), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn integers_come_back(n: i64) {
            for form in [Form::Decimal, Form::Hex, Form::Base64] {
                let word = text(|out| put_integer(out, n, form));
                prop_assert_eq!(integer(word.as_bytes()), Some(n), "{}", word);
            }
        }

        #[test]
        fn unsigned_come_back(n: u64) {
            for form in [Form::Decimal, Form::Hex, Form::Base64] {
                let word = text(|out| put_unsigned(out, n, form));
                prop_assert_eq!(unsigned(word.as_bytes()), Some(n), "{}", word);
            }
        }

        #[test]
        fn doubles_come_back_to_the_bit(bits: u64) {
            let n = f64::from_bits(bits);
            for form in [Form::Decimal, Form::Hex, Form::Base64] {
                let word = text(|out| put_double(out, n, form));
                let back = double(word.as_bytes()).unwrap();
                prop_assert!(back.to_bits() == bits || n.is_nan() && back.is_nan(), "{} {}", n, word);
                prop_assert!(word.len() < 30);
            }
        }

        #[test]
        fn a_leading_number_is_the_number_of_its_word(word in "-?(#|@|0x|)[-0-9a-fA-F+/]{0,22}") {
            let word = word.as_bytes();
            if let Some((n, taken)) = leading_integer(word) {
                prop_assert_eq!(integer(&word[..taken]), Some(n));
                prop_assert_eq!(integer(word), Some(n));
            }
            if let Some((n, taken)) = leading_bits(word) {
                prop_assert_eq!(double(&word[..taken]).map(f64::to_bits), Some(n.to_bits()));
            }
            if let Some((n, rest)) = leading_decimal(word) {
                prop_assert_eq!(double(&word[..word.len() - rest.len()]), Some(n));
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(word in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (integer(&word), unsigned(&word), c_integer(&word), double(&word));
        }
    }
}
