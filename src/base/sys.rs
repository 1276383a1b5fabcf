//! Safe faces of the libc calls that std lacks. The only module, beside those that map memory, that may be `unsafe`.

use super::time::UnixSeconds;

/// Wall-clock fields in the time zone of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalTime {
    pub year: i32,
    /// 1..=12
    pub month: i32,
    /// 1..=31
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
    /// Seconds east of Greenwich.
    pub utc_offset: i64,
}

/// `at` in the local time zone; the zero value when it lies beyond what the C library can name.
pub fn local_time(at: UnixSeconds) -> LocalTime {
    // SAFETY: `tm` is a C struct of integers and one pointer, for all of which zero bytes are a valid value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types, and localtime_r keeps neither.
    let known = unsafe { libc::localtime_r(&at.0, &mut tm) };
    if known.is_null() {
        return LocalTime::default();
    }
    LocalTime {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        utc_offset: tm.tm_gmtoff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_the_time_plus_the_offset() {
        let noon = local_time(UnixSeconds(1_700_000_000));
        let of_day = (1_700_000_000 + noon.utc_offset).rem_euclid(86_400);
        assert_eq!(i64::from(noon.hour * 3600 + noon.minute * 60 + noon.second), of_day);
        assert_eq!((noon.year, noon.month), (2023, 11));
        assert_eq!(local_time(UnixSeconds(i64::MAX)), LocalTime::default());
    }
}
