//! Heads of HTTP requests as they arrive, their targets and parameters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::wire::http::{
    Head, HeadScanner, Query, Target, decode, escape_html, lenient_integer,
};

fuzz_target!(|data: &[u8]| {
    let _ = (Head::parse(data), Target::parse(data), Query::parse(data));
    if let Ok(text) = decode(data) {
        let _ = (escape_html(&text), lenient_integer(&text));
    }
    // the end of a head is found at the same byte however it arrives
    let whole = HeadScanner::default().examine(data);
    let mut scanner = HeadScanner::default();
    for end in 1..=data.len().min(600) {
        match scanner.examine(&data[..end]) {
            Ok(None) => {}
            Ok(Some(found)) => {
                assert_eq!(whole.ok(), Some(Some(found)));
                let _ = Head::parse(&data[..found]);
                break;
            }
            Err(_) => break,
        }
    }
});
