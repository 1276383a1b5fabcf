//! Files of alarms, and expressions by themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::health::expression::Expression;
use netdata_rs::health::grammar::{Book, read_text};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut book = Book::default();
    read_text(text, &"fuzz.conf".into(), &mut book);
    for definition in &book.definitions {
        assert!(definition.every > 0 && !definition.on.is_empty());
    }
    if let Ok(expression) = Expression::parse(text) {
        let first =
            expression.evaluate(&mut |index: usize| (index % 3 > 0).then_some(index as f64));
        // What is printed is read as the same.
        if let Ok(again) = Expression::parse(&expression.parsed()) {
            let second =
                again.evaluate(&mut |index: usize| (index % 3 > 0).then_some(index as f64));
            assert_eq!(first.map(f64::to_bits), second.map(f64::to_bits));
        }
    }
});
