//! JSON bodies of streams and requests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::wire::json::Value;

fuzz_target!(|data: &[u8]| {
    if let Some(value) = Value::parse(data) {
        let _ = (value.get("a"), value.string(), value.array(), value.integer());
    }
});
