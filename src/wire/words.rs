//! Lines out of chunks, words out of lines: the lexical rules of PLUGINSD (streaming specification, section 4.1).
//!
//! Feeds the executor of commands for plugins and children, and the sender's reader of what a parent says. Words borrow
//! from the line and nothing is allocated; only a line cut by the end of a chunk is copied, once.
//! Never interprets a word: numbers are `wire::numbers`, commands are the executor's.

use memchr::memchr;

/// Longest line a reader accepts; what is beyond is read as a line of its own, as the original does.
pub const LINE_LIMIT: usize = 15 * 1024;
/// Memory for begun lines that stays between chunks.
const KEPT_BYTES: usize = 1024;

/// How a line falls apart. Which set applies depends on who speaks, not on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// 1.37: blanks and `=` separate, at most 20 words.
    Seed,
    /// 2.x: form feed and vertical tab too, at most 30 words.
    Later,
    /// What a 2.x parent says to its child: as [`Rules::Later`], but `=` is an ordinary character.
    Reply,
}

impl Rules {
    const fn words_max(self) -> u8 {
        match self {
            Rules::Seed => 20,
            Rules::Later | Rules::Reply => 30,
        }
    }

    const fn mask(self) -> u8 {
        match self {
            Rules::Seed => SEPARATES_SEED,
            Rules::Later => SEPARATES_LATER,
            Rules::Reply => SEPARATES_REPLY,
        }
    }
}

const SEPARATES_SEED: u8 = 1;
const SEPARATES_LATER: u8 = 2;
const SEPARATES_REPLY: u8 = 4;
const BACKSLASH: u8 = 8;
const SINGLE: u8 = 16;
const DOUBLE: u8 = 32;

/// What each byte can mean, one lookup for all rule sets.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut class = [0; 256];
    let mut i = 0;
    let blanks = b" \t\r\n";
    while i < blanks.len() {
        class[blanks[i] as usize] = SEPARATES_SEED | SEPARATES_LATER | SEPARATES_REPLY;
        i += 1;
    }
    class[0x0b] = SEPARATES_LATER | SEPARATES_REPLY;
    class[0x0c] = SEPARATES_LATER | SEPARATES_REPLY;
    class[b'=' as usize] = SEPARATES_SEED | SEPARATES_LATER;
    class[b'\\' as usize] = BACKSLASH;
    class[b'\'' as usize] = SINGLE;
    class[b'"' as usize] = DOUBLE;
    class
}

/// The words of one line, first to last. A missing word is `None`; an empty pair of quotes is an empty word.
#[derive(Clone)]
pub struct Words<'a> {
    line: &'a [u8],
    at: usize,
    left: u8,
    separates: u8,
}

impl<'a> Words<'a> {
    #[inline]
    pub fn new(line: &'a [u8], rules: Rules) -> Self {
        Words { line, at: 0, left: rules.words_max(), separates: rules.mask() }
    }

    /// The next `N` words; what is missing is `None`.
    pub fn take_words<const N: usize>(&mut self) -> [Option<&'a [u8]>; N] {
        std::array::from_fn(|_| self.next())
    }

    /// What follows the words taken so far, as it stands in the line, without the blanks before it.
    pub fn rest(&self) -> &'a [u8] {
        let mut at = self.at;
        while at < self.line.len() && CLASS[usize::from(self.line[at])] & self.separates != 0 {
            at += 1;
        }
        &self.line[at..]
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.line;
        let mut at = self.at;
        let first = loop {
            let &byte = line.get(at)?;
            let class = CLASS[usize::from(byte)];
            if class & self.separates == 0 {
                break class;
            }
            at += 1;
        };
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let quote = first & (SINGLE | DOUBLE);
        // A quoted word ends at its twin, a bare one at a separator; both step over what a backslash protects.
        let (start, ends) = if quote != 0 { (at + 1, quote) } else { (at, self.separates) };
        at = start;
        while let Some(&byte) = line.get(at) {
            let class = CLASS[usize::from(byte)] & (ends | BACKSLASH);
            if class != 0 {
                if class & BACKSLASH == 0 {
                    break;
                }
                at += 1;
            }
            at += 1;
        }
        let end = at.min(line.len());
        // The byte that ended the word is used up: a closing quote or a separator.
        self.at = (end + 1).min(line.len());
        Some(&line[start..end])
    }
}

/// Puts lines together from chunks as they are read.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line that the last chunk began and did not end.
    begun: Vec<u8>,
    cut: u64,
}

impl Lines {
    pub fn new() -> Self {
        Lines::default()
    }

    /// How many lines were longer than [`LINE_LIMIT`] so far.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Bytes held back because their line has no end yet.
    pub fn pending(&self) -> usize {
        self.begun.len()
    }

    /// Calls `visit` with each line that `chunk` completes, without its line end; stops at the first error.
    #[inline]
    pub fn feed<E>(
        &mut self,
        mut chunk: &[u8],
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.begun.is_empty() && !chunk.is_empty() {
            let room = LINE_LIMIT - self.begun.len();
            let end = memchr(b'\n', chunk);
            let length = end.unwrap_or(chunk.len());
            if length > room {
                self.begun.extend_from_slice(&chunk[..room]);
                chunk = &chunk[room..];
                self.cut += 1;
            } else {
                self.begun.extend_from_slice(&chunk[..length]);
                if end.is_none() {
                    return Ok(());
                }
                chunk = &chunk[length + 1..];
            }
            // Lent out for the call, given back for its capacity: long lines come in runs.
            let mut line = std::mem::take(&mut self.begun);
            let seen = visit(&line);
            line.clear();
            self.begun = line;
            seen?;
        }
        loop {
            match memchr(b'\n', chunk) {
                Some(end) if end <= LINE_LIMIT => {
                    visit(&chunk[..end])?;
                    chunk = &chunk[end + 1..];
                }
                _ if chunk.len() > LINE_LIMIT => {
                    self.cut += 1;
                    visit(&chunk[..LINE_LIMIT])?;
                    chunk = &chunk[LINE_LIMIT..];
                }
                _ => break,
            }
        }
        self.begun.extend_from_slice(chunk);
        Ok(())
    }

    /// Gives back the memory of a long line that is over.
    pub fn shrink(&mut self) {
        if self.begun.is_empty() && self.begun.capacity() > KEPT_BYTES {
            self.begun = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(line: &str, rules: Rules, words: &[&str]) {
        let got: Vec<_> = Words::new(line.as_bytes(), rules)
            .map(|word| String::from_utf8(word.to_vec()).unwrap())
            .collect();
        assert_eq!(got, words, "{line:?}");
    }

    #[test]
    fn blanks_and_equal_signs_separate() {
        for line in ["SET \"x\" = 5", "SET x=5", "SET\t'x'\t=\t5\r", "  SET = x 5  "] {
            check(line, Rules::Seed, &["SET", "x", "5"]);
        }
        check("", Rules::Seed, &[]);
        check(" \t=", Rules::Seed, &[]);
    }

    #[test]
    fn form_feeds_separate_only_by_the_later_rules() {
        check("a\x0bb\x0cc", Rules::Seed, &["a\x0bb\x0cc"]);
        check("a\x0bb\x0cc", Rules::Later, &["a", "b", "c"]);
        check("FUNCTION t 5 a=b", Rules::Reply, &["FUNCTION", "t", "5", "a=b"]);
    }

    #[test]
    fn a_leading_quote_protects_up_to_its_twin() {
        check("'a b' \"c 'd'\" e'f", Rules::Seed, &["a b", "c 'd'", "e'f"]);
        check("'' \"\" x", Rules::Seed, &["", "", "x"]);
        check("\"open quote", Rules::Seed, &["open quote"]);
        check("'a'b", Rules::Seed, &["a", "b"]);
        check("\"", Rules::Seed, &[""]);
    }

    #[test]
    fn a_backslash_protects_and_stays() {
        check(r#""a\" b" c\ d"#, Rules::Seed, &[r#"a\" b"#, r"c\ d"]);
        check(r"a\", Rules::Seed, &[r"a\"]);
    }

    #[test]
    fn words_beyond_the_limit_are_ignored() {
        let line = vec!["w"; 60].join(" ");
        assert_eq!(Words::new(line.as_bytes(), Rules::Seed).count(), 20);
        assert_eq!(Words::new(line.as_bytes(), Rules::Later).count(), 30);
    }

    #[test]
    fn the_rest_is_what_was_not_taken() {
        let mut words = Words::new(b"LABEL old = 2  one two", Rules::Seed);
        assert_eq!(words.take_words::<3>(), [Some(&b"LABEL"[..]), Some(b"old"), Some(b"2")]);
        assert_eq!(words.rest(), b"one two");
        assert_eq!(words.take_words::<3>(), [Some(&b"one"[..]), Some(b"two"), None]);
    }

    fn lines(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Lines) {
        let (mut lines, mut got) = (Lines::new(), Vec::new());
        for chunk in chunks {
            lines
                .feed(chunk, |line| {
                    got.push(line.to_vec());
                    Ok::<_, ()>(())
                })
                .unwrap();
        }
        (got, lines)
    }

    #[test]
    fn half_a_line_waits_for_the_other_half() {
        let (got, lines) = lines(&[b"one\ntw", b"o\n\nth", b"re", b"e"]);
        assert_eq!(got, [&b"one"[..], b"two", b""]);
        assert_eq!(lines.pending(), 5);
    }

    #[test]
    fn a_line_too_long_is_cut_and_its_rest_is_the_next() {
        let long = [vec![b'x'; LINE_LIMIT + 7], b"\nnext\n".to_vec()].concat();
        for size in [1, 100, LINE_LIMIT, LINE_LIMIT + 1, long.len()] {
            let (got, lines) = lines(&long.chunks(size).collect::<Vec<_>>());
            let sizes: Vec<_> = got.iter().map(Vec::len).collect();
            assert_eq!(sizes, [LINE_LIMIT, 7, 4], "in pieces of {size}");
            assert_eq!(lines.cut(), 1);
        }
    }

    #[test]
    fn a_line_of_just_the_limit_is_whole() {
        let full = [vec![b'x'; LINE_LIMIT], b"\n".to_vec()].concat();
        for size in [1, 4096, LINE_LIMIT, full.len()] {
            let (got, lines) = lines(&full.chunks(size).collect::<Vec<_>>());
            assert_eq!(got, [vec![b'x'; LINE_LIMIT]], "in pieces of {size}");
            assert_eq!(lines.cut(), 0);
        }
    }

    #[test]
    fn an_error_ends_the_chunk() {
        let mut seen = 0;
        let end = Lines::new().feed(b"a\nb\nc\n", |line| {
            seen += 1;
            if line == b"b" { Err("stop") } else { Ok(()) }
        });
        assert_eq!((end, seen), (Err("stop"), 2));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in proptest::collection::vec(any::<u8>(), 0..400), size in 1usize..50) {
            let whole = lines(&[&text]).0;
            let pieces = lines(&text.chunks(size).collect::<Vec<_>>()).0;
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn any_bytes_split_into_words_of_the_line(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            for rules in [Rules::Seed, Rules::Later, Rules::Reply] {
                let words = Words::new(&line, rules);
                let total: usize = words.clone().map(<[u8]>::len).sum();
                prop_assert!(total <= line.len());
            }
        }
    }
}
