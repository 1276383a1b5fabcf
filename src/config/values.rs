//! The types an option's text can have, read the way every era of Netdata wrote them.
//!
//! Numbers without a unit keep the unit of the option's name; a unit in the value wins. Nothing here fails: text that
//! makes no sense reads as the original reads it (mostly zero), because a bad option must not stop an agent.

use std::time::Duration;

/// `yes`, `no`, or only when there is something to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDemand {
    No,
    Yes,
    Auto,
}

impl OnDemand {
    /// The four legal words, in small letters only.
    pub fn parse(text: &str) -> Option<OnDemand> {
        match text {
            "yes" => Some(OnDemand::Yes),
            "no" => Some(OnDemand::No),
            "auto" | "on demand" => Some(OnDemand::Auto),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            OnDemand::No => "no",
            OnDemand::Yes => "yes",
            OnDemand::Auto => "auto",
        }
    }
}

/// What a bare number of a duration counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    Milliseconds,
    Seconds,
    Days,
}

impl TimeUnit {
    fn nanos(self) -> f64 {
        match self {
            TimeUnit::Milliseconds => 1e6,
            TimeUnit::Seconds => 1e9,
            TimeUnit::Days => 86_400e9,
        }
    }

    /// The bare number that means `time`; a fraction of the unit is cut off.
    pub fn count(self, time: Duration) -> u64 {
        match self {
            TimeUnit::Milliseconds => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            TimeUnit::Seconds => time.as_secs(),
            TimeUnit::Days => time.as_secs() / 86_400,
        }
    }
}

/// What a bare number of a size counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeUnit {
    Bytes,
    Mebibytes,
}

impl SizeUnit {
    pub fn bytes(self) -> u64 {
        match self {
            SizeUnit::Bytes => 1,
            SizeUnit::Mebibytes => 1 << 20,
        }
    }
}

/// Five words are true in any case of letters; everything else, `1` included, is false.
pub fn boolean(text: &str) -> bool {
    ["yes", "true", "on", "auto", "on demand"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// As C's `strtoll` with base 0: hexadecimal after `0x`, octal after `0`, what follows the digits is ignored.
pub fn number(text: &str) -> i64 {
    let text = text.trim_start();
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match hex {
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => (16, hex),
        Some(_) => return 0,
        None if digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    let magnitude = digits
        .chars()
        .map_while(|c| c.to_digit(radix))
        .fold(0i64, |n, d| n.saturating_mul(i64::from(radix)).saturating_add(i64::from(d)));
    if negative { -magnitude } else { magnitude }
}

/// Whether a text can be meant as a number, a time or a size.
pub fn is_quantity(text: &str) -> bool {
    let words = ["never", "off", "unlimited"];
    text.trim_start_matches('+').starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// `90`, `1h30m`, `1.5d`, `never`: numbers with units, added up. Negative and senseless texts are zero.
pub fn duration(text: &str, native: TimeUnit) -> Duration {
    let text = text.trim();
    if text.eq_ignore_ascii_case("never") || text.eq_ignore_ascii_case("off") {
        return Duration::ZERO;
    }
    let mut nanos = 0.0;
    let mut rest = text;
    while let Some((count, after)) = decimal(rest) {
        let unit: &str = {
            let word = after.trim_start();
            &word[..word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len())]
        };
        if unit.is_empty() {
            // A bare number, also in base 16 or 8 as before units were allowed.
            let bare = if rest == text && after.is_empty() && rest.starts_with('0') {
                number_f64(rest, count)
            } else {
                count
            };
            nanos += bare * native.nanos();
            break;
        }
        nanos += count * time_unit(unit).unwrap_or(native.nanos());
        let after_unit = after.trim_start();
        rest = after_unit[unit.len()..].trim_start();
    }
    if text.starts_with("0x") {
        nanos = number_f64(text, 0.0) * native.nanos();
    }
    Duration::try_from_secs_f64((nanos / 1e9).max(0.0)).unwrap_or(Duration::MAX)
}

/// Nanoseconds of one unit. `M` is a month as in the health dialect of 1.x; otherwise case does not matter.
fn time_unit(word: &str) -> Option<f64> {
    const DAY: f64 = 86_400e9;
    if word == "M" {
        return Some(30.0 * DAY);
    }
    let lower = word.to_ascii_lowercase();
    Some(match lower.as_str() {
        "ns" | "nanosecond" | "nanoseconds" => 1.0,
        "us" | "microsecond" | "microseconds" => 1e3,
        "ms" | "millisecond" | "milliseconds" => 1e6,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e9,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e9,
        "h" | "hour" | "hours" => 3600e9,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => 7.0 * DAY,
        "mo" | "month" | "months" => 30.0 * DAY,
        "q" | "quarter" | "quarters" => 91.25 * DAY,
        "y" | "year" | "years" => 365.0 * DAY,
        _ => return None,
    })
}

/// `10485760`, `512MiB`, `1.5 GB`: decimal with K M G T P, binary with Ki Mi Gi Ti Pi, in bytes.
pub fn size(text: &str, native: SizeUnit) -> u64 {
    let text = text.trim();
    if text.eq_ignore_ascii_case("off") {
        return 0;
    }
    let Some((count, after)) = decimal(text) else { return 0 };
    let unit = after.trim().to_ascii_lowercase();
    let factor = match unit.trim_end_matches('b') {
        "" if unit.is_empty() => {
            let bare = if text.starts_with('0') { number_f64(text, count) } else { count };
            return bytes(bare * to_f64(native.bytes()));
        }
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "p" => 1e15,
        "ki" => 1024.0,
        "mi" => 1_048_576.0,
        "gi" => 1_073_741_824.0,
        "ti" => 1_099_511_627_776.0,
        "pi" => 1_125_899_906_842_624.0,
        _ if text.starts_with("0x") => {
            return bytes(number_f64(text, 0.0) * to_f64(native.bytes()));
        }
        _ => to_f64(native.bytes()),
    };
    bytes(count * factor)
}

fn to_f64(n: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "units are powers of two below 2^53")]
    let float = n as f64;
    float
}

fn bytes(n: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped by `as`")]
    let whole = n.max(0.0).round() as u64;
    whole
}

/// A number in base 16 or 8 where the text is one, else `decimal`.
fn number_f64(text: &str, decimal: f64) -> f64 {
    if text.contains('.') {
        return decimal;
    }
    #[expect(clippy::cast_precision_loss, reason = "no option counts beyond 2^53")]
    let float = number(text) as f64;
    float
}

/// Splits a decimal number off the front; `None` when there is none.
fn decimal(text: &str) -> Option<(f64, &str)> {
    let signed = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = signed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(signed.len());
    let end = text.len() - signed.len() + digits;
    let value = text[..end].parse().ok()?;
    Some((value, &text[end..]))
}

/// How a duration is shown as a bare number of its option's unit.
pub(super) fn show_duration(time: Duration, native: TimeUnit) -> String {
    native.count(time).to_string()
}

/// How a size is shown as a bare number of its option's unit.
pub(super) fn show_size(bytes: u64, native: SizeUnit) -> String {
    (bytes / native.bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn five_words_are_true() {
        for word in ["yes", "true", "on", "auto", "on demand", "YES", "On"] {
            assert!(boolean(word), "{word}");
        }
        for word in ["1", "no", "enabled", "", "yes # really"] {
            assert!(!boolean(word), "{word}");
        }
    }

    #[test]
    fn numbers_read_as_the_c_library_reads_them() {
        for (text, value) in [
            ("0x10", 16),
            ("010", 8),
            ("5seconds", 5),
            ("-3", -3),
            ("garbage", 0),
            ("", 0),
            ("0", 0),
            ("0x", 0),
            ("08", 0),
            ("99999999999999999999", i64::MAX),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn durations_of_every_era() {
        let seconds = |text| duration(text, TimeUnit::Seconds).as_secs();
        for (text, value) in [
            ("60", 60),
            ("5seconds", 5),
            ("10m", 600),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("1.5d", 129_600),
            ("3mo", 7_776_000),
            ("1M", 2_592_000),
            ("2y", 63_072_000),
            ("2Y", 63_072_000),
            ("1w", 604_800),
            ("never", 0),
            ("OFF", 0),
            ("-5", 0),
            ("x", 0),
            ("0x10", 16),
            ("010", 8),
            ("3 apples", 3),
            ("1500ms", 1),
        ] {
            assert_eq!(seconds(text), value, "{text}");
        }
        assert_eq!(duration("250", TimeUnit::Milliseconds), Duration::from_millis(250));
        assert_eq!(duration("2", TimeUnit::Days).as_secs(), 172_800);
    }

    #[test]
    fn sizes_of_every_era() {
        let mega = |text| size(text, SizeUnit::Mebibytes);
        for (text, value) in [
            ("32", 32 << 20),
            ("1GiB", 1 << 30),
            ("512MiB", 512 << 20),
            ("10MB", 10_000_000),
            ("10M", 10_000_000),
            ("100B", 100),
            ("1.5KiB", 1536),
            ("0x10", 16 << 20),
            ("x", 0),
            ("-1", 0),
            ("off", 0),
        ] {
            assert_eq!(mega(text), value, "{text}");
        }
        assert_eq!(size("10485760", SizeUnit::Bytes), 10_485_760);
    }

    proptest! {
        #[test]
        fn no_text_upsets_a_reader(text in ".{0,20}") {
            boolean(&text);
            number(&text);
            duration(&text, TimeUnit::Seconds);
            size(&text, SizeUnit::Mebibytes);
        }

        #[test]
        fn a_shown_duration_reads_back(seconds in 0u32..) {
            let time = Duration::from_secs(u64::from(seconds));
            let shown = show_duration(time, TimeUnit::Seconds);
            prop_assert_eq!(duration(&shown, TimeUnit::Seconds), time);
        }
    }
}
