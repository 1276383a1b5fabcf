//! Simple patterns and subjects; endpoint lists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::base::pattern::SimplePattern;
use netdata_rs::net::listen::parse_bind;
use netdata_rs::net::parse_destinations;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (list, subject) = text.split_once('\n').unwrap_or((text, "system.cpu"));
    let pattern = SimplePattern::new(list);
    let decided = pattern.decide(subject);
    assert_eq!(pattern.matches(subject), decided == Some(true));
    let _ = SimplePattern::with_separators(list, b",|").matches(subject);
    let _ = (parse_bind(list, 19999), parse_destinations(list, 19999));
});
