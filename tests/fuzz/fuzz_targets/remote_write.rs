//! Bodies of Prometheus remote write, after their decompression.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::wire::remote_write;

fuzz_target!(|data: &[u8]| {
    let _ = remote_write::read(data, &mut |series| {
        let _ = (series.label("__name__"), series.samples.len());
    });
});
