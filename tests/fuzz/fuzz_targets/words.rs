//! Lines put together from any chunks are the lines of the whole; any line is cut into words, and no word holds what
//! separates words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::wire::words::{LINE_LIMIT, Lines, Rules, Words};

fn lines(chunks: impl Iterator<Item = Vec<u8>>) -> (Vec<Vec<u8>>, usize) {
    let mut out = Vec::new();
    let mut lines = Lines::new();
    for chunk in chunks {
        let _ = lines.feed(&chunk, |line| -> Result<(), ()> {
            assert!(line.len() <= LINE_LIMIT);
            out.push(line.to_vec());
            Ok(())
        });
    }
    (out, lines.pending())
}

fuzz_target!(|data: &[u8]| {
    let step = data.first().map_or(1, |b| usize::from(*b) + 1);
    let whole = lines(std::iter::once(data.to_vec()));
    let pieces = lines(data.chunks(step).map(<[u8]>::to_vec));
    if data.len() <= LINE_LIMIT {
        assert_eq!(whole, pieces, "chunks of {step}");
    }
    for line in &whole.0 {
        for rules in [Rules::Seed, Rules::Later] {
            let mut total = 0;
            for word in Words::new(line, rules) {
                total += word.len() + 1;
            }
            assert!(total <= 2 * line.len() + 2);
            let [_, _, _] = Words::new(line, rules).take_words::<3>();
        }
    }
});
