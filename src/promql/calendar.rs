//! Parts of a date in UTC, of seconds since 1970. Pure arithmetic on the proleptic Gregorian calendar.

const DAY_S: i64 = 86_400;

/// Year, month and day (from 1).
fn date(seconds: i64) -> (i64, i64, i64) {
    // Counted from 1 March of year 0, so that a leap day is the last of its year.
    let days = seconds.div_euclid(DAY_S) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970 of a date.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Seconds since 1970 of a date and a time of day in UTC; `None` of what is none.
pub fn seconds_of(date: (i64, i64, i64), time: (i64, i64, i64)) -> Option<i64> {
    let ((year, month, day), (hour, minute, second)) = (date, time);
    let is_date = (0..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day);
    let is_time =
        (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    (is_date && is_time)
        .then(|| days_of(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_of(next.0, next.1, 1) - days_of(year, month, 1)
}

/// What a function of that name tells of a time; `None` when it is no such function.
pub(super) fn part(function: &str) -> Option<fn(i64) -> i64> {
    Some(match function {
        "minute" => |s| s.rem_euclid(3600) / 60,
        "hour" => |s| s.rem_euclid(DAY_S) / 3600,
        "day_of_week" => |s| (s.div_euclid(DAY_S) + 4).rem_euclid(7),
        "day_of_month" => |s| date(s).2,
        "day_of_year" => |s| s.div_euclid(DAY_S) - days_of(date(s).0, 1, 1) + 1,
        "days_in_month" => |s| {
            let (year, month, _) = date(s);
            days_in_month(year, month)
        },
        "month" => |s| date(s).1,
        "year" => |s| date(s).0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let parts = |s: i64| {
            [
                "year",
                "month",
                "day_of_month",
                "day_of_week",
                "day_of_year",
                "days_in_month",
                "hour",
                "minute",
            ]
            .map(|name| part(name).unwrap()(s))
        };
        assert_eq!(parts(0), [1970, 1, 1, 4, 1, 31, 0, 0]);
        assert_eq!(parts(951_827_696), [2000, 2, 29, 2, 60, 29, 12, 34]);
        assert_eq!(parts(1_795_333_579), [2026, 11, 22, 0, 326, 30, 7, 46]);
        assert_eq!(parts(-1), [1969, 12, 31, 3, 365, 31, 23, 59]);
        assert_eq!(seconds_of((2000, 2, 29), (12, 34, 56)), Some(951_827_696));
        assert_eq!(seconds_of((2001, 2, 29), (0, 0, 0)), None);
    }
}
