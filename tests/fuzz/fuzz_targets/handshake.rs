//! Heads of stream requests and first answers of parents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::wire::caps::Capabilities;
use netdata_rs::wire::handshake::{Request, Response};

fuzz_target!(|data: &[u8]| {
    let _ = Response::parse(data, Capabilities::OFFERED);
    if let Ok(request) = Request::parse(data) {
        let mut out = Vec::new();
        request.put(&mut out);
    }
});
