//! The `options` words of a query: which exist, how they are read and how an answer lists them.

use bitflags::bitflags;

bitflags! {
    /// What a client asked for beside the window, in the order in which answers list it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Options: u32 {
        const NONZERO = 1;
        const FLIP = 1 << 1;
        const JSONWRAP = 1 << 2;
        const MIN2MAX = 1 << 3;
        const MILLISECONDS = 1 << 4;
        const ABSOLUTE = 1 << 5;
        const DISPLAY_ABSOLUTE = 1 << 6;
        const SECONDS = 1 << 7;
        const NULL2ZERO = 1 << 8;
        const OBJECT_ROWS = 1 << 9;
        const GOOGLE_JSON = 1 << 10;
        const PERCENTAGE = 1 << 11;
        const UNALIGNED = 1 << 12;
        const MATCH_IDS = 1 << 13;
        const MATCH_NAMES = 1 << 14;
        const ANOMALY_BIT = 1 << 15;
        const SELECTED_TIER = 1 << 16;
        const RAW = 1 << 17;
        const ANOMALY_RATES = 1 << 18;
        const NATURAL_POINTS = 1 << 19;
        const VIRTUAL_POINTS = 1 << 20;
        const ALL_DIMENSIONS = 1 << 21;
    }
}

/// Every word that is understood; the first of several for one option is the one that answers print.
const WORDS: &[(&str, Options)] = &[
    ("nonzero", Options::NONZERO),
    ("flip", Options::FLIP),
    ("reversed", Options::FLIP),
    ("reverse", Options::FLIP),
    ("jsonwrap", Options::JSONWRAP),
    ("min2max", Options::MIN2MAX),
    ("ms", Options::MILLISECONDS),
    ("milliseconds", Options::MILLISECONDS),
    ("abs", Options::ABSOLUTE),
    ("absolute", Options::ABSOLUTE),
    ("absolute_sum", Options::ABSOLUTE),
    ("absolute-sum", Options::ABSOLUTE),
    ("display_absolute", Options::DISPLAY_ABSOLUTE),
    ("display-absolute", Options::DISPLAY_ABSOLUTE),
    ("seconds", Options::SECONDS),
    ("null2zero", Options::NULL2ZERO),
    ("objectrows", Options::OBJECT_ROWS),
    ("google_json", Options::GOOGLE_JSON),
    ("google-json", Options::GOOGLE_JSON),
    ("percentage", Options::PERCENTAGE),
    ("unaligned", Options::UNALIGNED),
    ("match_ids", Options::MATCH_IDS),
    ("match-ids", Options::MATCH_IDS),
    ("match_names", Options::MATCH_NAMES),
    ("match-names", Options::MATCH_NAMES),
    ("anomaly-bit", Options::ANOMALY_BIT),
    ("selected-tier", Options::SELECTED_TIER),
    ("raw", Options::RAW),
    ("jw-anomaly-rates", Options::ANOMALY_RATES),
    ("natural-points", Options::NATURAL_POINTS),
    ("virtual-points", Options::VIRTUAL_POINTS),
    ("all-dimensions", Options::ALL_DIMENSIONS),
];

impl Options {
    /// Words separated by commas, bars or spaces; unknown ones are skipped.
    pub fn parse(text: &str) -> Options {
        text.split([',', '|', ' '])
            .filter_map(|word| WORDS.iter().find(|(known, _)| *known == word))
            .fold(Options::empty(), |all, (_, option)| all | *option)
    }

    /// The words of these options, as answers list them.
    pub fn words(self) -> String {
        let mut left = self;
        let mut out = String::new();
        for (word, option) in WORDS {
            if left.contains(*option) {
                left.remove(*option);
                if !out.is_empty() {
                    out.push(',');
                }
                out.push_str(word);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_listed_in_one_order_whatever_was_asked() {
        let asked = Options::parse("jsonwrap,reverse|absolute-sum unaligned,bogus,,nonzero");
        assert_eq!(asked.words(), "nonzero,flip,jsonwrap,abs,unaligned");
        assert_eq!(
            Options::all().words().split(',').count(),
            Options::all().bits().count_ones() as usize
        );
        assert_eq!(Options::parse("").words(), "");
    }
}
