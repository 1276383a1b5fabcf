//! How badges and alarms write a value: durations, states and numbers with their units.

/// The text of `value` in `units`. A negative precision lets the size of the number decide.
pub fn text(value: f64, units: &str, precision: i64) -> String {
    // As the original has it, what is not known holds.
    let holds = value > 0.0 || value.is_nan();
    let state = match units {
        "on/off" | "on-off" | "onoff" => Some(if holds { "on" } else { "off" }),
        "up/down" | "up-down" | "updown" => Some(if holds { "up" } else { "down" }),
        "ok/error" | "ok-error" | "okerror" => Some(if holds { "ok" } else { "error" }),
        "ok/failed" | "ok-failed" | "okfailed" => Some(if holds { "ok" } else { "failed" }),
        _ => None,
    };
    if let Some(state) = state {
        return state.to_owned();
    }
    if !value.is_finite() {
        return match units {
            "seconds" | "seconds ago" | "minutes" | "minutes ago" | "hours" | "hours ago" => {
                "undefined".to_owned()
            }
            _ => "-".to_owned(),
        };
    }
    let (base, ago) = units.strip_suffix(" ago").map_or((units, ""), |base| (base, " ago"));
    let lasting = match base {
        "seconds" => Some(seconds(value)),
        "minutes" => Some(minutes(value)),
        "hours" => Some(hours(value)),
        _ => None,
    };
    if let Some(lasting) = lasting {
        return lasting.map_or_else(|| "now".to_owned(), |text| format!("{text}{ago}"));
    }
    let number = number(value, precision);
    match units {
        "" | "empty" | "null" => number,
        "percentage" | "percent" | "pcent" => format!("{number}%"),
        _ if units.starts_with(|c: char| c.is_ascii_alphanumeric()) => format!("{number} {units}"),
        _ => format!("{number}{units}"),
    }
}

/// Whole units of a duration; `None` for nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is not negative"
)]
fn whole(value: f64) -> Option<u64> {
    let n = value.abs() as u64;
    (n > 0).then_some(n)
}

fn days(n: u64) -> String {
    match n {
        0 => String::new(),
        1 => "1 day ".to_owned(),
        _ => format!("{n} days "),
    }
}

fn seconds(value: f64) -> Option<String> {
    let s = whole(value)?;
    let (d, h, m, s) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    Some(format!("{}{h:02}:{m:02}:{s:02}", days(d)))
}

fn minutes(value: f64) -> Option<String> {
    let m = whole(value)?;
    let (d, h, m) = (m / 1440, m / 60 % 24, m % 60);
    Some(format!("{}{h}h {m}m", days(d)))
}

fn hours(value: f64) -> Option<String> {
    let h = whole(value)?;
    Some(format!("{}{}h", days(h / 24), h % 24))
}

fn number(value: f64, precision: i64) -> String {
    if let Ok(decimals) = usize::try_from(precision) {
        return format!("{value:.*}", decimals.min(20));
    }
    let size = value.abs();
    let decimals = [(1000.0, 0), (10.0, 1), (0.1, 2), (0.01, 4), (0.001, 5), (0.0001, 6)]
        .iter()
        .find(|(from, _)| size >= *from)
        .map_or(7, |(_, decimals)| *decimals);
    let text = format!("{:.decimals$}", value + 0.0);
    if decimals == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f64, units: &str, precision: i64, want: &str) {
        assert_eq!(text(value, units, precision), want);
    }

    #[test]
    fn numbers_have_as_many_decimals_as_their_size_needs() {
        check(12_345.6, "KiB", -1, "12346 KiB");
        check(1000.0, "", -1, "1000");
        check(12.34, "%", -1, "12.3%");
        check(3.9, "KiB", 2, "3.90 KiB");
        check(0.123_456, "x", -1, "0.12 x");
        check(0.0, "KiB", -1, "0 KiB");
        check(0.000_012_3, "empty", -1, "0.0000123");
        check(f64::NAN, "KiB", -1, "-");
        check(f64::NAN, "ok/failed", -1, "ok");
    }

    #[test]
    fn durations_and_states_are_words() {
        check(7384.0, "seconds", -1, "02:03:04");
        check(93_784.0, "seconds ago", -1, "1 day 02:03:04 ago");
        check(0.0, "seconds ago", -1, "now");
        check(f64::NAN, "minutes", -1, "undefined");
        check(185.0, "minutes", -1, "3h 5m");
        check(51.0, "hours", -1, "2 days 3h");
        check(1.0, "up/down", -1, "up");
        check(0.0, "okfailed", -1, "failed");
        check(50.0, "percentage", -1, "50%");
    }
}
