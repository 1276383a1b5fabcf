//! From text to a syntax tree, by the crate `promql-parser`; before that, what would cost too much is turned away.
//!
//! Trees are walked and dropped recursively and patterns are compiled while the text is read, so both are bounded by what can be
//! counted in the text itself. What that crate takes otherwise than Prometheus does is written anew for it on the way.

use std::fmt::Write as _;

use promql_parser::parser::Expr;
use promql_parser::util::{escape_string, unquote_string};
use regex::{Regex, RegexBuilder};

use super::Error;

/// A query may be this long.
pub const QUERY_BYTES_MAX: usize = 32 << 10;
/// Operators, calls, parentheses and brackets of a query: no tree is deeper than their number.
const PARTS_MAX: usize = 500;
/// Patterns of a query, those of `label_replace` among them, …
const PATTERNS_MAX: usize = 64;
/// … how often their repetitions (`{m,n}`) may repeat something, all together, …
const REPETITIONS_MAX: u64 = 1000;
/// … and how many classes (`\w`) they may name, each of which is a long list while a pattern is read, …
const CLASSES_MAX: usize = 1000;
/// … how deep the parentheses of one may go, as patterns are compiled recursively, …
const PATTERN_DEPTH_MAX: u32 = 50;
/// … and what one may become: enough for a list of words as long as a query.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// The longest time that can be told, so that sums of some of them are no matter: 142,000 years.
pub(super) const TIME_MS_MAX: i64 = 1 << 52;

pub fn parse(query: &str) -> Result<Expr, Error> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Error::Parse(format!("the query is longer than {QUERY_BYTES_MAX} bytes")));
    }
    let text = prepared(query)?;
    // What is known to make the parser panic does not get here; this is for what is not known.
    let parsed = std::panic::catch_unwind(|| promql_parser::parser::parse(&text));
    let parsed = parsed.unwrap_or_else(|_| Err("this cannot be understood".to_owned()));
    parsed.map_err(broken)
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::Parse(format!("parse error: {why}"))
}

/// A pattern as selectors and `label_replace` have them: for the whole of a value.
pub(super) fn pattern(text: &str) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(&format!("^(?:{text})$"));
    builder.nest_limit(PATTERN_DEPTH_MAX).size_limit(PATTERN_BYTES_MAX).build()
}

/// The query as the parser is to have it. What is expensive is counted; text that is no query at all is left to the parser.
fn prepared(query: &str) -> Result<String, Error> {
    let bytes = query.as_bytes();
    let mut out = String::with_capacity(query.len());
    let (mut parts, mut patterns, mut classes, mut repetitions) = (0, 0, 0, 0u64);
    let (mut braces, mut brackets) = (false, false);
    // What came just before, blanks and comments apart.
    let (mut after_tilde, mut after_offset) = (false, false);
    // All before is in `out`, and where the next thing begins.
    let (mut done, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let begin = at;
        at += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => continue,
            b'#' => {
                let rest = &bytes[at..];
                at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                continue;
            }
            b'"' | b'\'' | b'`' => {
                while let Some(&next) = bytes.get(at).filter(|next| **next != byte) {
                    at += if next == b'\\' && byte != b'`' { 2 } else { 1 };
                }
                if at >= bytes.len() {
                    return Err(broken("unterminated quoted string"));
                }
                at += 1;
                let (quoted, inside) = (&query[begin..at], &query[begin + 1..at - 1]);
                let mut value = match byte {
                    b'`' => inside.to_owned(),
                    _ if !are_escapes(inside.as_bytes(), byte) => {
                        return Err(broken(format!("unknown escape sequence in {quoted}")));
                    }
                    _ => unquote_string(quoted).map_err(broken)?,
                };
                repetitions = repetitions.saturating_add(repeats(value.as_bytes()));
                // Nothing is compiled that may be refused for its cost.
                classes += named_classes(value.as_bytes());
                if repetitions > REPETITIONS_MAX || classes > CLASSES_MAX || patterns > PATTERNS_MAX
                {
                    return Err(too_expensive());
                }
                let mut anew = byte == b'`';
                if after_tilde && let Some(other) = as_compiled(&value)? {
                    (value, anew) = (other, true);
                }
                if anew {
                    out.push_str(&query[done..begin]);
                    let _ = write!(out, "\"{}\"", escape_string(&value));
                    done = at;
                }
            }
            b'~' => {
                patterns += 1;
                after_tilde = true;
                continue;
            }
            b'{' => braces = true,
            b'}' => braces = false,
            _ if is_of_word(byte, brackets) => {
                let hexadecimal = byte == b'0' && matches!(bytes.get(at), Some(b'x' | b'X'));
                let decimal = (byte.is_ascii_digit() || byte == b'.') && !hexadecimal;
                while bytes.get(at).is_some_and(|next| {
                    let sign = matches!(next, b'+' | b'-') && matches!(bytes[at - 1], b'e' | b'E');
                    is_of_word(*next, brackets) || decimal && sign
                }) {
                    at += 1;
                }
                let word = query[begin..at].to_ascii_lowercase();
                if (brackets || after_offset) && is_no_duration(&word) {
                    return Err(broken(format!("duration out of range: {word}")));
                }
                match &*word {
                    _ if braces => {}
                    "and" | "or" | "unless" | "atan2" => parts += 1,
                    "offset" => {
                        parts += 1;
                        after_offset = true;
                        continue;
                    }
                    "label_replace" => patterns += 1,
                    _ => {}
                }
            }
            _ if braces => {}
            b'+' | b'-' if after_offset => {
                parts += 1;
                continue;
            }
            b'(' | b'[' | b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'!' | b'<' | b'>' => {
                parts += 1;
                brackets |= byte == b'[';
            }
            b']' => brackets = false,
            _ => {}
        }
        (after_tilde, after_offset) = (false, false);
    }
    if parts > PARTS_MAX {
        return Err(Error::Parse(format!(
            "the query has more than {PARTS_MAX} operators and calls"
        )));
    }
    if patterns > PATTERNS_MAX {
        return Err(too_expensive());
    }
    out.push_str(&query[done..]);
    Ok(out)
}

fn too_expensive() -> Error {
    Error::Parse("the patterns of the query are too expensive".to_owned())
}

/// Of names, keywords, numbers and durations.
fn is_of_word(byte: u8, in_brackets: bool) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || byte == b':' && !in_brackets
}

/// A number that the parser cannot make a duration of; it ends with a panic there.
fn is_no_duration(word: &str) -> bool {
    let most = (TIME_MS_MAX / 1000) as f64;
    word.parse::<f64>().is_ok_and(|seconds| seconds.is_nan() || seconds.abs() > most)
}

/// Whether every backslash in a quoted text begins something that is known.
fn are_escapes(inside: &[u8], quote: u8) -> bool {
    let mut rest = inside;
    while let Some(found) = memchr::memchr(b'\\', rest) {
        let Some((&kind, after)) = rest[found + 1..].split_first() else { return false };
        rest = after;
        let (digits, base) = match kind {
            b'x' => (2, 16),
            b'u' => (4, 16),
            b'U' => (8, 16),
            b'0'..=b'7' => (2, 8),
            b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'\\' => (0, 10),
            _ if kind == quote => (0, 10),
            _ => return false,
        };
        let Some(number) = rest.get(..digits) else { return false };
        if !number.iter().all(|digit| char::from(*digit).is_digit(base)) {
            return false;
        }
        rest = &rest[digits..];
    }
    true
}

/// What is to stand for a pattern that can only be compiled when it is written otherwise.
fn as_compiled(text: &str) -> Result<Option<String>, Error> {
    let refused = |why| match why {
        regex::Error::CompiledTooBig(_) => too_expensive(),
        _ => broken(format!("invalid or too deep regular expression {text:?}")),
    };
    match pattern(text) {
        Ok(_) => Ok(None),
        Err(why @ regex::Error::CompiledTooBig(_)) => Err(refused(why)),
        Err(_) => {
            let other = braces_escaped(text);
            pattern(&other).map_err(refused)?;
            Ok(Some(other))
        }
    }
}

/// A brace that begins no repetition stands for itself in Go.
fn braces_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => {
                out.push(next);
                let Some(kind) = rest.next() else { break };
                out.push(kind);
                if matches!(kind, 'p' | 'P' | 'x' | 'u' | 'U') && rest.as_str().starts_with('{') {
                    out.extend(rest.next());
                }
            }
            '{' => {
                let inside = rest.as_str().split_once('}').map_or("", |(inside, _)| inside);
                let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
                let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
                if least.is_empty() || !digits(least) || !digits(most) {
                    out.push('\\');
                }
                out.push(next);
            }
            _ => out.push(next),
        }
    }
    out
}

/// How many classes of characters a pattern calls by their names.
fn named_classes(pattern: &[u8]) -> usize {
    let is_name = |pair: &&[u8]| {
        pair[0] == b'\\' && matches!(pair[1], b'w' | b'W' | b'd' | b'D' | b's' | b'S' | b'p' | b'P')
    };
    pattern.windows(2).filter(is_name).count()
}

/// How often a pattern repeats its innermost part at most; 0 without `{n}`.
fn repeats(pattern: &[u8]) -> u64 {
    let mut product = 0u64;
    for from in memchr::memchr_iter(b'{', pattern) {
        let inside = &pattern[from + 1..];
        let inside = &inside[..memchr::memchr(b'}', inside).unwrap_or(0)];
        let numbers = inside.split(|b| *b == b',').filter_map(|n| std::str::from_utf8(n).ok());
        if let Some(most) = numbers.filter_map(|n| n.trim().parse::<u64>().ok()).max() {
            product = product.max(1).saturating_mul(most.max(1));
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: &[&str] = &[
        "x",
        "sum",
        "by",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "5m",
        ":",
        "1",
        "-",
        "+",
        "and",
        "or",
        "on",
        "group_left",
        "offset",
        "@",
        "start()",
        "a=\"b\"",
        "=~",
        "\"(\"",
        ",",
        "rate",
        "bool",
        "==",
        "#",
        "\n",
        "é",
        "'",
        "`",
        "\\",
        "topk",
        "1e9999",
        "NaN",
        "0x",
    ];

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(words in prop::collection::vec(prop::sample::select(WORDS), 0..40), blanks: bool) {
            let _ = parse(&words.join(if blanks { " " } else { "" }));
        }

        #[test]
        fn any_characters_are_taken_or_refused(text in ".{0,60}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn ordinary_queries_are_taken() {
        for query in [
            "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / on(job) group_left sum(up) > bool 0.5",
            "a or b and c unless d # (((((",
            "x{ip=~\"[0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}\"} offset -5m @ end()",
            "max_over_time(deriv(x[1m])[10m:30s])",
            "'(((' ",
        ] {
            assert!(parse(query).is_ok(), "{query}: {:?}", parse(query));
        }
    }

    #[test]
    fn what_would_take_too_long_or_too_deep_is_not() {
        for query in [
            "(".repeat(20_000),
            "-".repeat(2_000) + "1",
            "1+".repeat(2_000) + "1",
            format!("a{}", " or a".repeat(2_000)),
            format!("a{}", "[1m:]".repeat(1_000)),
            "x{a=~\"((x{100}){100}){100}\"}".to_owned(),
            format!("x{{{}}}", "a=~\"y\",".repeat(100)),
            format!("x{{a=~{:?}}}", "(".repeat(200) + &")".repeat(200)),
            format!("x{{a=~{:?}}}", "[".repeat(200) + "a" + &"]".repeat(200)),
            format!("x{{a=~`{}`}}", "(".repeat(200) + &")".repeat(200)),
            format!("x{{a=~\"{}\"}}", r"\x28".repeat(200) + &r"\x29".repeat(200)),
            r#"x{a=~"((x\x7b100}){100}){100}"}"#.to_owned(),
            r"x{a=~`\w{900}`}".to_owned(),
            format!("x{{a=~`{}`}}", r"\w".repeat(10_000)),
            "0x1e+".repeat(2_000) + "1",
            format!("#\r{}1", "-".repeat(2_000)),
            format!("a{{}}{}", "or a{}".repeat(2_000)),
            format!("`{}`", "a\n\\".repeat(20_000)),
            "label_replace(".repeat(65) + "x" + &", \"a\", \"\", \"b\", \"\")".repeat(65),
            "x".repeat(QUERY_BYTES_MAX + 1),
        ] {
            assert!(matches!(parse(&query), Err(Error::Parse(_))), "{:?}", query.get(..20));
        }
    }

    #[test]
    fn numbers_that_are_no_durations_are_refused_before_they_are_parsed() {
        for query in [
            "x offset 1e20",
            "x offset -1e20",
            "x OFFSET # much\n 1e+20",
            "x offset NaN",
            "x offset .5e+30",
            "x offset Inf",
            "x offset +inf",
            "x[1e20]",
            "x[18446744073709551615]",
            "x[5m:1e20]",
            "x[1e+20:5m]",
            "x @ 1 offset 1e300",
        ] {
            let refused = prepared(query);
            assert!(matches!(refused, Err(Error::Parse(_))), "{query}: {refused:?}");
            assert!(matches!(parse(query), Err(Error::Parse(_))), "{query}");
        }
        for query in ["x @ NaN", "x @ 1e300", "x @ -Inf", "x[0x7fffffffffffffff]", "x[1e20s]"] {
            let _ = parse(query);
        }
        for query in
            ["x offset 5", "x[300]", "x offset -1e3", "inf + nan", "x + 1e20 - x offset 1y"]
        {
            assert!(parse(query).is_ok(), "{query}: {:?}", parse(query));
        }
    }

    #[track_caller]
    fn matched(query: &str) -> promql_parser::label::Matcher {
        match parse(query) {
            Ok(Expr::VectorSelector(selector)) => selector.matchers.matchers[0].clone(),
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn what_is_between_backticks_is_taken_as_it_is() {
        assert!(matched(r"x{a=~`a\d`}").is_match("a7"));
        assert!(matched("x{a=~ # digits\n `\"\\.`}").is_match("\"."));
        assert_eq!(matched("x{a=`\\\n\"é\\`}").value, "\\\n\"é\\");
        let text = parse(r"label_replace(x, `a`, `$1`, `b`, `(\w)`)").unwrap();
        let Expr::Call(call) = text else { panic!("no call") };
        let Expr::StringLiteral(last) = &*call.args.args[4] else { panic!("no text") };
        assert_eq!(last.val, r"(\w)");
    }

    #[test]
    fn patterns_of_ordinary_depth_and_length_are_taken() {
        assert!(matched("x{a=~\"a{bc}{2}\"}").is_match("a{bc}}"));
        assert!(matched("x{a=~\"{{x}}\"}").is_match("{{x}}"));
        let deep = "(".repeat(20) + "x" + &")".repeat(20);
        assert!(matched(&format!("x{{a=~{deep:?}}}")).is_match("x"));
        let words: Vec<String> = (0..3_000).map(|n| format!("host{n:04}")).collect();
        assert!(matched(&format!("x{{a=~{:?}}}", words.join("|"))).is_match("host2999"));
    }

    #[test]
    fn broken_text_is_an_error() {
        for query in [
            "",
            "sum(",
            "a{",
            "a{b=~\"(\"}",
            "a{b=\"\\é\"}",
            "a{b=\"\\xé\"}",
            "`",
            "1 + ",
            "\"",
            "{}",
            "rate(x)",
            "\\",
            "a[5m",
        ] {
            assert!(matches!(parse(query), Err(Error::Parse(_))), "{query}");
        }
    }
}
