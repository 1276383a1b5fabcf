//! Round trips, frames of others, and frames that are none.

use proptest::prelude::*;

use super::*;

#[derive(Debug, PartialEq)]
struct Broken(FrameError);

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Broken {
        Broken(error)
    }
}

fn encoder(algorithm: Algorithm) -> Encoder {
    Encoder::new(algorithm, Levels::default()).unwrap()
}

/// All of a text in frames.
fn frames(encoder: &mut Encoder, mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !text.is_empty() {
        let length = encoder.frame(text, &mut out).unwrap();
        text = &text[length..];
    }
    out
}

fn text_of(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut text = Vec::new();
    decoder.feed(bytes, |piece| {
        text.extend_from_slice(piece);
        Ok::<_, Broken>(())
    })?;
    Ok(text)
}

/// Lines as a host sends them: much alike, never the same.
fn lines(count: usize, mut seed: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for line in 0..count {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = seed >> 40;
        text.extend_from_slice(
            format!("BEGIN chart.of_{} 1\nSET dim_{} = {number}\nEND\n", line % 97, line % 13)
                .as_bytes(),
        );
    }
    text
}

#[test]
fn text_comes_back_however_the_bytes_are_cut() {
    for algorithm in Algorithm::ALL {
        let text = lines(9000, 7);
        let wire = frames(&mut encoder(algorithm), &text);
        assert!(wire.len() < text.len() / 2, "{algorithm:?}: {} of {}", wire.len(), text.len());
        for cut in [1, 3, 4, 5, 1000, 16_384, wire.len()] {
            let mut decoder = Decoder::new(algorithm);
            let mut got = Vec::new();
            for chunk in wire.chunks(cut) {
                got.extend(text_of(&mut decoder, chunk).unwrap());
            }
            assert!(got == text, "{algorithm:?} cut at {cut}");
        }
    }
}

#[test]
fn a_message_is_decoded_as_soon_as_it_is_there() {
    for algorithm in Algorithm::ALL {
        let (mut encoder, mut decoder) = (encoder(algorithm), Decoder::new(algorithm));
        for message in lines(300, 3).split_inclusive(|&b| b == b'\n') {
            let wire = frames(&mut encoder, message);
            assert_eq!(text_of(&mut decoder, &wire).unwrap(), message, "{algorithm:?}");
        }
        assert_eq!(decoder.frames(), 900);
    }
}

#[test]
fn frames_end_with_lines_and_have_room_for_text_that_does_not_compress() {
    for algorithm in Algorithm::ALL {
        let mut encoder = encoder(algorithm);
        let mut text = lines(2000, 1);
        let mut seed = 1u64;
        for _ in 0..40_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            text.push((seed >> 32) as u8 | 1);
        }
        let mut rest = &text[..];
        let mut decoder = Decoder::new(algorithm);
        while !rest.is_empty() {
            let mut out = Vec::new();
            let length = encoder.frame(rest, &mut out).unwrap();
            assert!(length <= PLAIN_MAX && out.len() <= HEADER + 16_255, "{}", out.len());
            let whole = rest[..length].ends_with(b"\n") || !rest[..length].contains(&b'\n');
            assert!(whole || length == rest.len());
            assert_eq!(text_of(&mut decoder, &out).unwrap(), &rest[..length]);
            rest = &rest[length..];
        }
    }
}

/// The head is the documents' example.
#[test]
fn the_head_of_a_frame() {
    assert_eq!(head_of(45), Some([0xfa, 0xad, 0x80, 0x0a]));
    assert_eq!(head_of(449), Some([0xfa, 0xc1, 0x83, 0x0a]));
    assert_eq!(head_of(16_383), Some([0xfa, 0xff, 0xff, 0x0a]));
    assert_eq!(head_of(16_384), None);
    assert_eq!(head_of(0), None);
    assert_eq!(body_of(&[0xfa, 0xc1, 0x83, 0x0a]), Ok(Some(HEADER + 449)));
}

/// The first frame of a capture of 1.37.1.
#[test]
fn a_frame_of_the_seed() {
    let body = [
        0xc3, 0x43, 0x4c, 0x41, 0x49, 0x4d, 0x45, 0x44, 0x5f, 0x49, 0x44, 0x20, 0x63, 0x01, 0x00,
        0xf1, 0x00, 0x2d, 0x30, 0x30, 0x30, 0x30, 0x2d, 0x34, 0x30, 0x30, 0x30, 0x2d, 0x38, 0x30,
        0x30, 0x30, 0x0f, 0x00, 0x03, 0x02, 0x00, 0x70, 0x63, 0x20, 0x4e, 0x55, 0x4c, 0x4c, 0x0a,
    ];
    let mut wire = vec![0xfa, 0xad, 0x80, 0x0a];
    wire.extend_from_slice(&body);
    let text = text_of(&mut Decoder::new(Algorithm::Lz4), &wire).unwrap();
    assert_eq!(text, b"CLAIMED_ID cccccccc-0000-4000-8000-00000000000c NULL\n");
}

#[test]
fn a_peer_that_agreed_and_does_not_compress_is_understood() {
    let mut decoder = Decoder::new(Algorithm::Zstd);
    assert_eq!(text_of(&mut decoder, b"CLAIMED").unwrap(), b"CLAIMED");
    assert_eq!(text_of(&mut decoder, b"_ID a b\n\xfa").unwrap(), b"_ID a b\n\xfa");
    assert_eq!(decoder.frames(), 0);
}

#[test]
fn what_is_no_frame_is_an_error() {
    for algorithm in Algorithm::ALL {
        let good = frames(&mut encoder(algorithm), b"LABEL a = 1 b\n");
        for bad in [
            &b"LABEL a = 1 b\n"[..],
            &[0, 1, 2, 3],
            &[0xfa, 0x85, 0x05, 0x0a, 1, 2, 3, 4, 5],
            &[0xfa, 0x80, 0x80, 0x0a],
            &[0xfa, 0x85, 0x80, 0x0b],
        ] {
            let mut decoder = Decoder::new(algorithm);
            text_of(&mut decoder, &good).unwrap();
            let got = text_of(&mut decoder, bad);
            assert!(
                matches!(got, Err(Broken(FrameError::Head(_)))),
                "{algorithm:?} {bad:?}: {got:?}"
            );
        }
    }
}

#[test]
fn references_beyond_what_was_sent_are_refused() {
    let block = [0x1f, 0x41, 0xff, 0xff, 0xff, 0xff, 0x10, 0x50, b'H', b'E', b'L', b'L', b'O'];
    let mut wire = head_of(block.len()).unwrap().to_vec();
    wire.extend_from_slice(&block);
    let got = text_of(&mut Decoder::new(Algorithm::Lz4), &wire);
    assert_eq!(got, Err(Broken(FrameError::Content("lz4"))));
}

/// A few bytes that stand for a great many.
#[test]
fn a_frame_holds_so_much_text_and_no_more() {
    for algorithm in Algorithm::ALL {
        let bomb = vec![b'x'; 1 << 20];
        let mut wire = vec![0; HEADER];
        encoder(algorithm).compress(&bomb, &mut wire).unwrap();
        let head = head_of(wire.len() - HEADER).unwrap();
        wire[..HEADER].copy_from_slice(&head);
        let mut seen = 0;
        let got = Decoder::new(algorithm).feed(&wire, |piece| {
            seen += piece.len();
            Ok::<_, Broken>(())
        });
        let refused = [FrameError::TooMuch, FrameError::Content("lz4")];
        assert!(refused.contains(&got.unwrap_err().0), "{algorithm:?}");
        assert!(seen <= TEXT_MAX, "{algorithm:?}: {seen}");
        // Up to the limit it is a message like another.
        let mut wire = vec![0; HEADER];
        self::encoder(algorithm).compress(&bomb[..TEXT_MAX], &mut wire).unwrap();
        let head = head_of(wire.len() - HEADER).unwrap();
        wire[..HEADER].copy_from_slice(&head);
        assert_eq!(text_of(&mut Decoder::new(algorithm), &wire).unwrap(), &bomb[..TEXT_MAX]);
    }
}

/// A sender that lost its compressor goes on with blocks that refer to nothing.
#[test]
fn a_block_without_history_is_understood() {
    let mut decoder = Decoder::new(Algorithm::Lz4);
    for seed in 0..3 {
        let text = lines(500, seed);
        let wire = frames(&mut encoder(Algorithm::Lz4), &text);
        assert_eq!(text_of(&mut decoder, &wire).unwrap(), text);
    }
}

/// Another encoder, with the whole window as its dictionary.
#[test]
fn blocks_of_others_are_understood() {
    let text = lines(9000, 11);
    let mut decoder = Decoder::new(Algorithm::Lz4);
    let mut from = 0;
    for size in [700, 16_000, 16_384, 3].iter().cycle() {
        let to = (from + size).min(text.len());
        let known = &text[from.saturating_sub(lz4::WINDOW)..from];
        let block = lz4_flex::block::compress_with_dict(&text[from..to], known);
        let mut wire = head_of(block.len()).unwrap().to_vec();
        wire.extend_from_slice(&block);
        assert_eq!(text_of(&mut decoder, &wire).unwrap(), &text[from..to]);
        from = to;
        if from == text.len() {
            break;
        }
    }
}

#[test]
fn the_order_of_preference() {
    use Capabilities as C;
    let order = |names: &[&str]| Algorithm::order(names.iter().copied());
    assert_eq!(order(&[]), [C::ZSTD, C::LZ4, C::GZIP]);
    assert_eq!(order(&["GZIP", "brotli", "what", "gzip", "lz4"]), [C::GZIP, C::LZ4, C::ZSTD]);
    assert_eq!(Algorithm::of(C::GZIP | C::LZ4), Some(Algorithm::Lz4));
    assert_eq!(Algorithm::of(C::BROTLI), None);
}

#[test]
fn levels_are_brought_into_range() {
    let levels = Levels::clamped(-5, i64::MAX, 10);
    assert_eq!(levels, Levels { zstd: 1, lz4_acceleration: 64, gzip: 9 });
    for algorithm in Algorithm::ALL {
        for levels in [levels, Levels::clamped(99, 0, 0)] {
            let text = lines(3000, 5);
            let wire = frames(&mut Encoder::new(algorithm, levels).unwrap(), &text);
            assert_eq!(text_of(&mut Decoder::new(algorithm), &wire).unwrap(), text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Few different bytes, so that matches of all lengths and overlaps occur.
    #[test]
    fn any_text_comes_back(
        texts in prop::collection::vec(prop::collection::vec(0u8..4, 0..3000), 1..20),
        acceleration in 1u32..5,
    ) {
        for algorithm in Algorithm::ALL {
            let levels = Levels { lz4_acceleration: acceleration, ..Levels::default() };
            let mut encoder = Encoder::new(algorithm, levels).unwrap();
            let mut decoder = Decoder::new(algorithm);
            for text in &texts {
                let wire = frames(&mut encoder, text);
                prop_assert_eq!(&text_of(&mut decoder, &wire).unwrap(), text);
            }
        }
    }

    #[test]
    fn hostile_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 1..2000),
        flip in any::<prop::sample::Index>(),
    ) {
        for algorithm in Algorithm::ALL {
            let mut decoder = Decoder::new(algorithm);
            let _ = decoder.feed(&bytes, |_| Ok::<_, Broken>(()));
            // A good head before it, and a good frame with one byte that is not.
            let mut wire = head_of(bytes.len()).unwrap().to_vec();
            wire.extend_from_slice(&bytes);
            let mut seen = 0;
            let _ = Decoder::new(algorithm).feed(&wire, |piece| {
                seen += piece.len();
                Ok::<_, Broken>(())
            });
            prop_assert!(seen <= TEXT_MAX);
            let mut wire = frames(&mut encoder(algorithm), &lines(200, 1));
            let at = flip.index(wire.len());
            wire[at] ^= 0x55;
            let _ = Decoder::new(algorithm).feed(&wire, |_| Ok::<_, Broken>(()));
        }
    }
}

/// The compiler keeps errors of the caller apart from those of frames; nothing is lost on the way.
#[test]
fn the_first_error_of_the_caller_ends_it() {
    #[derive(Debug, PartialEq)]
    enum Mine {
        Frame,
        Enough,
    }
    impl From<FrameError> for Mine {
        fn from(_: FrameError) -> Mine {
            Mine::Frame
        }
    }
    let wire = frames(&mut encoder(Algorithm::Gzip), &lines(3000, 1));
    let mut calls = 0;
    let got = Decoder::new(Algorithm::Gzip).feed(&wire, |_| {
        calls += 1;
        Err(Mine::Enough)
    });
    assert_eq!((got, calls), (Err(Mine::Enough), 1));
}
