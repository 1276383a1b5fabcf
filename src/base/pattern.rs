//! Simple patterns: the word lists with `*` and `!` that configuration uses to choose charts, hosts and peers.
//!
//! A list is compiled once; matching then allocates nothing and takes no lock. Words are tried from left to right and
//! the first that matches decides. The matching inside a word never goes back: each inner `*text*` takes the first
//! occurrence and the last text must stand at the end. That, and what several `*` in a row mean, is observable, so it
//! is kept as the original has it.

use std::net::IpAddr;

use memchr::memmem;

/// A compiled list of words. An empty list matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimplePattern {
    words: Box<[Word]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    negative: bool,
    parts: Box<[Part]>,
}

/// A stretch of a word between two wildcards, and how it has to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    place: Place,
    text: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `text`
    Whole,
    /// `text*`
    Start,
    /// `*text`, which before another part means "first occurrence"
    End,
    /// `*text*`
    Anywhere,
}

/// What the wildcards of a word took, in order; see [`SimplePattern::matches_taking`].
pub type Wildcarded = Vec<u8>;

impl SimplePattern {
    /// Words separated by white space.
    pub fn new(list: &str) -> Self {
        SimplePattern::with_separators(list, &[])
    }

    /// Words separated by white space and by any of `also`.
    pub fn with_separators(list: &str, also: &[u8]) -> Self {
        SimplePattern::cut(list, |c| matches!(c, b' ' | b'\t'..=b'\r') || also.contains(&c))
    }

    /// Words separated by nothing but the bytes in `separators`: for lists of names that hold blanks.
    pub fn separated_by(list: &str, separators: &[u8]) -> Self {
        SimplePattern::cut(list, |c| separators.contains(&c))
    }

    fn cut(list: &str, separates: impl Fn(u8) -> bool) -> Self {
        let words = split(list.as_bytes(), separates)
            .into_iter()
            .map(|(negative, text)| Word { negative, parts: parts(&text).into() })
            .collect();
        SimplePattern { words }
    }

    /// True when the first word that matches is a positive one. An empty subject never matches.
    pub fn matches(&self, subject: &str) -> bool {
        self.verdict(subject.as_bytes(), None) == Some(true)
    }

    /// The verdict of the first matching word: `Some(false)` says a `!` word took it, `None` that no word did.
    pub fn decide(&self, subject: &str) -> Option<bool> {
        self.verdict(subject.as_bytes(), None)
    }

    /// As [`SimplePattern::matches`], and puts into `taken` the text that the wildcards stood for.
    pub fn matches_taking(&self, subject: &str, taken: &mut Wildcarded) -> bool {
        self.verdict(subject.as_bytes(), Some(taken)) == Some(true)
    }

    /// True when no word is there, so nothing can ever match.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    fn verdict(&self, subject: &[u8], mut taken: Option<&mut Wildcarded>) -> Option<bool> {
        if subject.is_empty() {
            return None;
        }
        let decides = |word: &&Word| {
            // What a word took before it failed is forgotten when the next one tries.
            if let Some(taken) = &mut taken {
                taken.clear();
            }
            matches_parts(&word.parts, subject, &mut taken)
        };
        self.words.iter().find(decides).map(|word| !word.negative)
    }
}

fn matches_parts(parts: &[Part], subject: &[u8], taken: &mut Option<&mut Wildcarded>) -> bool {
    let mut take = |text: &[u8]| {
        if let Some(taken) = taken {
            taken.extend_from_slice(text);
        }
    };
    let mut rest = subject;
    for (number, part) in parts.iter().enumerate() {
        let text = &*part.text;
        if text.is_empty() {
            // Only `*` and `**` have no text; they take all, and the original does not report it.
            return true;
        }
        let last = number + 1 == parts.len();
        match part.place {
            Place::Whole => return rest == text,
            Place::Start => {
                let Some(after) = rest.strip_prefix(text) else { return false };
                if last {
                    take(after);
                    return true;
                }
                rest = after;
            }
            Place::End if last => {
                let Some(before) = rest.strip_suffix(text) else { return false };
                take(before);
                return true;
            }
            Place::End | Place::Anywhere => {
                let Some(at) = memmem::find(rest, text) else { return false };
                take(&rest[..at]);
                rest = &rest[at + text.len()..];
                if last {
                    take(rest);
                    return true;
                }
            }
        }
    }
    false
}

/// Cuts a list into words: (began with `!`, text without escapes).
fn split(list: &[u8], separates: impl Fn(u8) -> bool) -> Vec<(bool, Vec<u8>)> {
    let mut words = Vec::new();
    let mut rest = list;
    loop {
        while let [c, tail @ ..] = rest
            && separates(*c)
        {
            rest = tail;
        }
        let negative = rest.first() == Some(&b'!');
        if negative {
            rest = &rest[1..];
        }
        if rest.is_empty() {
            return words;
        }
        let mut word = Vec::new();
        let mut escaped = false;
        while let [c, tail @ ..] = rest {
            if *c == b'\\' && !escaped {
                escaped = true;
            } else if separates(*c) && !escaped {
                break;
            } else {
                word.push(*c);
                escaped = false;
            }
            rest = tail;
        }
        // A lone `!` says nothing about the word after it.
        if !word.is_empty() {
            words.push((negative, word));
        }
    }
}

/// Cuts a word at its wildcards. Further `*` right behind the one that opens a part belong to its text.
fn parts(word: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = word;
    loop {
        let opens = rest.first() == Some(&b'*');
        let text_from = usize::from(opens);
        let stars = rest.iter().take_while(|&&c| c == b'*').count();
        let next = memchr::memchr(b'*', &rest[stars..])
            .map(|at| at + stars)
            .filter(|at| at + 1 < rest.len());
        let (part, tail) = match next {
            Some(at) => (&rest[..at], Some(&rest[at..])),
            None => (rest, None),
        };
        let closes = tail.is_some() || (part.len() > 1 && part.ends_with(b"*"));
        let text_to = if tail.is_none() && closes { part.len() - 1 } else { part.len() };
        let place = match (opens, closes) {
            (false, false) => Place::Whole,
            (false, true) => Place::Start,
            (true, false) => Place::End,
            (true, true) => Place::Anywhere,
        };
        parts.push(Part { place, text: part[text_from.min(text_to)..text_to].into() });
        match tail {
            Some(tail) => rest = tail,
            None => return parts,
        }
    }
}

/// How `allow … from` lists see a peer: numeric, but loopback is `localhost`, and an IPv4 peer of an
/// IPv6 socket is its IPv4 address.
pub fn address_text(peer: IpAddr) -> String {
    let peer = peer.to_canonical();
    if peer == IpAddr::from([127, 0, 0, 1]) || peer == IpAddr::from(std::net::Ipv6Addr::LOCALHOST) {
        return "localhost".to_owned();
    }
    peer.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(list: &str, subject: &str, want: bool, wildcarded: &str) {
        let mut taken = Wildcarded::new();
        let pattern = SimplePattern::new(list);
        assert_eq!(pattern.matches_taking(subject, &mut taken), want, "'{list}' on '{subject}'");
        assert_eq!(String::from_utf8_lossy(&taken), wildcarded, "'{list}' on '{subject}'");
        assert_eq!(pattern.matches(subject), want);
    }

    #[test]
    fn wildcards_take_what_the_texts_leave() {
        check("a*c*e", "abcde", true, "bd");
        check("*", "abc", true, "");
        check("a*", "abc", true, "bc");
        check("*c", "abc", true, "ab");
        check("*b*", "abc", true, "ac");
        check("!a*", "abc", false, "bc");
    }

    #[test]
    fn a_word_without_a_star_is_the_whole_subject() {
        check("a", "a", true, "");
        check("a", "ab", false, "");
        check("A*", "abc", false, "");
        check("a?c", "abc", false, "");
    }

    #[test]
    fn matching_never_goes_back() {
        check("x*a", "xaa", true, "a");
        check("*a*a", "xa", false, "x");
        check("*b*b", "abbb", true, "ab");
    }

    #[test]
    fn a_second_star_in_a_row_is_text() {
        check("**", "x", true, "");
        check("***b*c", "aX**bYc", true, "aXY");
        check("*a*! ab", "b*aa", false, "");
        check("***", "x", false, "");
        check("a**", "abc", true, "");
        check("a**b", "aXb", false, "");
        check("a**b", "a*b", true, "");
        check("**b", "aab", false, "");
        check("*a**", "xay", true, "x");
    }

    #[test]
    fn the_first_word_that_matches_decides() {
        check("!a", "b", false, "");
        check("!a *", "a", false, "");
        check("!a *", "b", true, "");
        check("* !a", "a", true, "");
        check("!10.1.2.3 10.*", "10.1.2.3", false, "");
        check("!10.1.2.3 10.*", "10.1.2.30", true, "1.2.30");
    }

    #[test]
    fn escapes_work_on_blanks_bangs_and_themselves_but_not_on_stars() {
        check(r"two\ words", "two words", true, "");
        check(r"\!x", "!x", true, "");
        check(r"\*", "xx", true, "");
        check(r"\\", r"\", true, "");
        check(r"a\", "a", true, "");
        check("! a", "a", true, "");
        check("!!a", "!a", false, "");
    }

    #[test]
    fn nothing_matches_nothing() {
        check("", "x", false, "");
        check("*", "", false, "");
        assert!(SimplePattern::new(" \t ! ").is_empty());
    }

    #[test]
    fn callers_may_add_separators() {
        let pattern = SimplePattern::with_separators("a,b|c d", b",|");
        assert!(["a", "b", "c", "d"].iter().all(|w| pattern.matches(w)));
        assert!(!SimplePattern::new("a,b").matches("a"));
        let names = SimplePattern::separated_by("Mix Name|b*", b",|");
        assert!(names.matches("Mix Name") && names.matches("bc") && !names.matches("Mix"));
    }

    #[test]
    fn loopback_is_localhost_to_address_lists() {
        for (ip, text) in [
            ("127.0.0.1", "localhost"),
            ("::1", "localhost"),
            ("::ffff:127.0.0.1", "localhost"),
            ("127.0.0.2", "127.0.0.2"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("fd00::1", "fd00::1"),
        ] {
            assert_eq!(address_text(ip.parse().unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn no_list_and_no_subject_upsets_it(list in r"[ab*!\\ ]{0,24}", subject in "[ab*]{0,12}") {
            let pattern = SimplePattern::new(&list);
            let mut taken = Wildcarded::new();
            prop_assert_eq!(pattern.matches(&subject), pattern.matches_taking(&subject, &mut taken));
        }

        #[test]
        fn a_plain_word_matches_itself_only(word in "[a-z.]{1,10}", other in "[a-z.]{1,10}") {
            let pattern = SimplePattern::new(&word);
            prop_assert!(pattern.matches(&word));
            prop_assert_eq!(pattern.matches(&other), word == other);
        }
    }
}
