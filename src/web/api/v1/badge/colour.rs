//! Colours of a badge: by name, as hex digits, or chosen by the value.

use crate::wire::http::lenient_integer;

/// The digits of an RGB colour, three or six.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour([u8; 6], usize);

const NAMES: &[(&str, &str)] = &[
    ("brightgreen", "4c1"),
    ("green", "97CA00"),
    ("yellow", "dfb317"),
    ("yellowgreen", "a4a61d"),
    ("orange", "fe7d37"),
    ("red", "e05d44"),
    ("blue", "007ec6"),
    ("grey", "555"),
    ("gray", "555"),
    ("lightgrey", "9f9f9f"),
    ("lightgray", "9f9f9f"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

/// Longer words first. Braces stand for the signs that URLs and HTML do not like.
const TESTS: &[(&str, Test)] = &[
    ("<=", Test::LessOrEqual),
    ("{=", Test::LessOrEqual),
    ("(=", Test::LessOrEqual),
    ("<>", Test::NotEqual),
    ("{}", Test::NotEqual),
    ("()", Test::NotEqual),
    (">=", Test::GreaterOrEqual),
    ("}=", Test::GreaterOrEqual),
    (")=", Test::GreaterOrEqual),
    ("!=", Test::NotEqual),
    ("!:", Test::NotEqual),
    ("<", Test::Less),
    ("{", Test::Less),
    ("(", Test::Less),
    (">", Test::Greater),
    ("}", Test::Greater),
    (")", Test::Greater),
    ("=", Test::Equal),
    (":", Test::Equal),
    ("!", Test::NotEqual),
];

impl Colour {
    pub(super) const LABEL: Colour = Colour(*b"555   ", 3);
    pub(super) const TEXT: Colour = Colour(*b"fff   ", 3);
    /// Of a value, unless something else is said.
    const VALUE: Colour = Colour(*b"4c1   ", 3);
    /// Of a value that is not known.
    pub(super) const UNKNOWN: Colour = Colour(*b"999   ", 3);

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0[..self.1]).unwrap_or("555")
    }

    /// A name, or three or six hex digits.
    pub(super) fn parse(text: &str) -> Option<Colour> {
        let digits = NAMES.iter().find(|(name, _)| *name == text).map_or(text, |(_, rgb)| rgb);
        let hex = matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| {
            let mut rgb = [b' '; 6];
            rgb[..digits.len()].copy_from_slice(digits.as_bytes());
            Colour(rgb, digits.len())
        })
    }

    /// The colour that `rules` (`colour<10|colour>=10|colour:null|colour`) give to a value. The first test that holds
    /// decides; without any the last colour named.
    pub(super) fn of_value(rules: &str, value: f64) -> Colour {
        let default = if value.is_finite() { Colour::VALUE } else { Colour::UNKNOWN };
        let mut chosen = "";
        for rule in rules.split('|').filter(|rule| !rule.is_empty()) {
            let end =
                rule.find(['<', '>', '=', ':', '!', '{', '}', '(', ')']).unwrap_or(rule.len());
            let (name, test) = rule.split_at(end);
            chosen = name;
            if holds(test, value) {
                break;
            }
        }
        Colour::parse(chosen).unwrap_or(default)
    }
}

/// Whether a value passes; a text that is no test always does.
fn holds(test: &str, value: f64) -> bool {
    let Some((sign, test)) = TESTS
        .iter()
        .find(|(sign, _)| test.starts_with(sign))
        .map(|(sign, t)| (test[sign.len()..].trim(), *t))
    else {
        return true;
    };
    if sign == "null" {
        return match test {
            Test::Equal => !value.is_finite(),
            Test::NotEqual => value.is_finite(),
            _ => false,
        };
    }
    let bound = lenient_integer(sign) as f64;
    match test {
        Test::Less => value < bound,
        Test::LessOrEqual => value <= bound,
        Test::Greater => value > bound,
        Test::GreaterOrEqual => value >= bound,
        Test::Equal => value == bound,
        Test::NotEqual => value.is_finite() && value != bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, value: f64, want: &str) {
        assert_eq!(Colour::of_value(rules, value).as_str(), want, "{rules} of {value}");
    }

    #[test]
    fn the_first_test_that_holds_decides() {
        let rules = "green<10|orange<=20|red>20|grey:null";
        check(rules, 0.0, "97CA00");
        check(rules, 20.0, "fe7d37");
        check(rules, 20.5, "e05d44");
        check(rules, f64::NAN, "555");
        check("red}5|blue", 4.0, "007ec6");
        check("red>5|blue>7", 4.0, "007ec6");
        check("abc", 4.0, "abc");
        check("", 4.0, "4c1");
        check("", f64::NAN, "999");
        check("no\"colour", 4.0, "4c1");
    }

    #[test]
    fn colours_are_names_or_hex_digits() {
        assert_eq!(Colour::parse("brightgreen").unwrap().as_str(), "4c1");
        assert_eq!(Colour::parse("A1b2C3").unwrap().as_str(), "A1b2C3");
        assert_eq!(Colour::parse("12345"), None);
        assert_eq!(Colour::parse("ééé"), None);
    }
}
