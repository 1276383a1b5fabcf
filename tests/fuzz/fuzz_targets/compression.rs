//! Any bytes are decoded alike however they are cut, or refused alike, within bounds; any text comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::wire::compression::{Algorithm, Decoder, Encoder, FrameError, Levels};

/// The text, and why it ended early.
fn text(algorithm: Algorithm, bytes: &[u8], step: usize) -> (Vec<u8>, Option<FrameError>) {
    let mut decoder = Decoder::new(algorithm);
    let mut text = Vec::new();
    for chunk in bytes.chunks(step) {
        let fed = decoder.feed(chunk, |piece| {
            text.extend_from_slice(piece);
            Ok::<_, FrameError>(())
        });
        // A frame holds 128 KiB at most, and has a head of four bytes and a body.
        assert!(text.len() <= (bytes.len() / 5 + 1) * 128 * 1024);
        if let Err(error) = fed {
            return (text, Some(error));
        }
    }
    (text, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let algorithm = Algorithm::ALL[usize::from(choice) % Algorithm::ALL.len()];
    let step = usize::from(choice) / Algorithm::ALL.len() + 1;
    // As bytes of a peer, as the body of one frame, and as text of ours.
    assert_eq!(text(algorithm, data, data.len().max(1)), text(algorithm, data, step));
    if (1..1 << 14).contains(&data.len()) {
        let length = data.len();
        let mut frame = vec![0xfa, 0x80 | (length & 0x7f) as u8, 0x80 | (length >> 7) as u8, 0x0a];
        frame.extend_from_slice(data);
        assert_eq!(text(algorithm, &frame, frame.len()), text(algorithm, &frame, step));
    }
    let mut encoder = Encoder::new(algorithm, Levels::default()).expect("memory");
    let (mut wire, mut rest) = (Vec::new(), data);
    while !rest.is_empty() {
        let before = wire.len();
        let taken = encoder.frame(rest, &mut wire).expect("every text can be encoded");
        assert!(taken > 0 && wire.len() - before <= 4 + 16_255);
        rest = &rest[taken..];
    }
    assert_eq!(text(algorithm, &wire, step), (data.to_vec(), None));
});
