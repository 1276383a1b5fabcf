//! From text to a syntax tree, by the crate `promql-parser`; before that, what would cost too much is turned away.
//!
//! Trees are walked and dropped recursively and patterns are compiled while the text is read, so both are bounded by what can be
//! counted in the text itself.

use promql_parser::parser::Expr;

use super::Error;

/// A query may be this long.
pub const QUERY_BYTES_MAX: usize = 32 << 10;
/// Operators, calls, parentheses and brackets of a query: no tree is deeper than their number.
const PARTS_MAX: usize = 500;
/// Patterns of a query, …
const PATTERNS_MAX: usize = 64;
/// … and how often their repetitions (`{m,n}`) may repeat something, all together.
const REPETITIONS_MAX: u64 = 1000;

pub fn parse(query: &str) -> Result<Expr, Error> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Error::Parse(format!("the query is longer than {QUERY_BYTES_MAX} bytes")));
    }
    measure(query)?;
    promql_parser::parser::parse(query).map_err(|why| Error::Parse(format!("parse error: {why}")))
}

/// Counts what is expensive; text that is no query at all is left to the parser.
fn measure(query: &str) -> Result<(), Error> {
    let (mut parts, mut patterns, mut repetitions) = (0, 0, 0u64);
    let mut braces = 0usize;
    let bytes = query.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'#' => at += memchr::memchr(b'\n', &bytes[at..]).unwrap_or(bytes.len() - at),
            b'"' | b'\'' | b'`' => {
                let begin = at;
                while let Some(&next) = bytes.get(at).filter(|next| **next != byte) {
                    at += if next == b'\\' && byte != b'`' { 2 } else { 1 };
                }
                let end = at.min(bytes.len());
                repetitions = repetitions.saturating_add(repeats(&bytes[begin..end]));
                at += 1;
            }
            b'{' => braces += 1,
            b'}' => braces = braces.saturating_sub(1),
            b'~' => patterns += 1,
            _ if braces > 0 => {}
            b'(' | b'[' | b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'!' | b'<' | b'>' => {
                parts += 1;
            }
            // `and`, `or`, `unless`, `atan2`, `offset`: the letters are counted where a word begins.
            b'a' | b'o' | b'u' | b'A' | b'O' | b'U'
                if at < 2 || bytes[at - 2].is_ascii_whitespace() || bytes[at - 2] == b')' =>
            {
                parts += 1;
            }
            _ => {}
        }
    }
    if parts > PARTS_MAX {
        return Err(Error::Parse(format!(
            "the query has more than {PARTS_MAX} operators and calls"
        )));
    }
    if patterns > PATTERNS_MAX || repetitions > REPETITIONS_MAX {
        return Err(Error::Parse("the patterns of the query are too expensive".to_owned()));
    }
    Ok(())
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
            "x".repeat(QUERY_BYTES_MAX + 1),
        ] {
            assert!(matches!(parse(&query), Err(Error::Parse(_))), "{}", &query[..20]);
        }
    }

    #[test]
    fn broken_text_is_an_error() {
        for query in ["", "sum(", "a{", "a{b=~\"(\"}", "1 + ", "\"", "{}", "rate(x)", "\\", "a[5m"]
        {
            assert!(matches!(parse(query), Err(Error::Parse(_))), "{query}");
        }
    }
}
