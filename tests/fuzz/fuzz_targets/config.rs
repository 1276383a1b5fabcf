//! netdata.conf and stream.conf: any text loads, renders and loads again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::config::{
    Config, NETDATA_CONF, Present, SizeUnit, StreamConf, TimeUnit, boolean, duration, number, size,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (
        boolean(text),
        number(text),
        duration(text, TimeUnit::Seconds),
        size(text, SizeUnit::Bytes),
    );
    let config = Config::new();
    config.load_text(text, "fuzz.conf", Present::Replace);
    config.migrate(NETDATA_CONF);
    for section in config.sections() {
        let _ = config.number(&section, "update every", 1);
    }
    let rendered = config.render();
    let again = Config::new();
    again.load_text(&rendered, "again.conf", Present::Replace);
    let _ = again.render();
    let stream = StreamConf::from_text(text);
    let _ = stream.sender();
    let _ = stream.admit(
        "11111111-2222-3333-4444-555555555555",
        "22222222-2222-3333-4444-555555555555",
        "localhost",
    );
});
