//! LZ4 blocks that go on where the one before ended: each may refer to the last 64 KiB of the connection's text.
//!
//! The decoder is that of the crate `lz4_flex`. The encoder is ours, because the crate's hashes the whole window anew for
//! every block, and a connection's blocks are small.

use lz4_flex::block::{DecompressError, decompress_into_with_dict};

/// How far back a block may refer; what is older is dropped.
pub(super) const WINDOW: usize = 64 * 1024;
/// Text gathered beyond the window before it is moved to the front.
const SLACK: usize = 32 * 1024;

// --- encoder ---------------------------------------------------------------------------------------------

const TABLE_BITS: u32 = 12;
/// The shortest text worth a reference.
const MATCH_MIN: usize = 4;
/// The format wants the end of a block as it is, and no match to begin shortly before it.
const END_LITERALS: usize = 5;
const END_MATCH: usize = 12;
/// After so many misses (a power of two) the steps become longer by one.
const PATIENCE_BITS: u32 = 6;
/// In bytes that match a reference reads ahead.
const AHEAD: usize = 8;

pub(super) struct Lz4Encoder {
    /// The window and what came after it.
    text: Vec<u8>,
    /// Where a text of this hash was last seen, plus one; 0 is nowhere. Made with the first block.
    seen: Vec<u32>,
    acceleration: u32,
}

impl Lz4Encoder {
    pub(super) fn new(acceleration: u32) -> Lz4Encoder {
        Lz4Encoder { text: Vec::new(), seen: Vec::new(), acceleration: acceleration.max(1) }
    }

    /// Appends a block for `plain`.
    pub(super) fn block(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if self.seen.is_empty() {
            self.seen = vec![0; 1 << TABLE_BITS];
        }
        self.make_room(plain.len());
        let start = self.text.len();
        self.text.extend_from_slice(plain);
        let text = &self.text[..];
        let (mut at, mut anchor) = (start, start);
        let match_end = text.len().saturating_sub(END_LITERALS);
        let mut misses = self.acceleration << PATIENCE_BITS;
        while at + END_MATCH <= text.len() {
            let Some(ahead) = word(text, at) else { break };
            let seen = &mut self.seen[hash(ahead)];
            let before = std::mem::replace(seen, at as u32 + 1) as usize;
            let found = before.checked_sub(1).filter(|&from| {
                at - from < WINDOW && word(text, from).is_some_and(|w| w as u32 == ahead as u32)
            });
            let Some(mut from) = found else {
                at += (misses >> PATIENCE_BITS) as usize;
                misses += 1;
                continue;
            };
            while at > anchor && from > 0 && text[at - 1] == text[from - 1] {
                at -= 1;
                from -= 1;
            }
            let length = MATCH_MIN + common(text, from + MATCH_MIN, at + MATCH_MIN, match_end);
            sequence(out, &text[anchor..at], Some((at - from, length)));
            at += length;
            anchor = at;
            misses = self.acceleration << PATIENCE_BITS;
            // So that the next time around this place is found as well.
            if let Some(just_before) = word(text, at - 2) {
                self.seen[hash(just_before)] = (at - 2) as u32 + 1;
            }
        }
        sequence(out, &text[anchor..], None);
    }

    fn make_room(&mut self, length: usize) {
        if self.text.len() + length <= WINDOW + SLACK || self.text.len() <= WINDOW {
            return;
        }
        let old = self.text.len() - WINDOW;
        self.text.drain(..old);
        for place in &mut self.seen {
            *place = place.saturating_sub(old as u32);
        }
    }
}

#[inline]
fn word(text: &[u8], at: usize) -> Option<u64> {
    text.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes))
}

/// Of the first five bytes.
#[inline]
fn hash(word: u64) -> usize {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    ((word << 24).wrapping_mul(PRIME) >> (64 - TABLE_BITS)) as usize
}

/// How many bytes are the same at both places, up to `end`.
#[inline]
fn common(text: &[u8], from: usize, at: usize, end: usize) -> usize {
    let mut length = 0;
    while at + length + AHEAD <= end
        && let (Some(old), Some(new)) = (word(text, from + length), word(text, at + length))
    {
        let differ = old ^ new;
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += AHEAD;
    }
    while at + length < end && text[from + length] == text[at + length] {
        length += 1;
    }
    length
}

/// One step of the format: text as it is, then a reference of distance and length.
fn sequence(out: &mut Vec<u8>, literals: &[u8], reference: Option<(usize, usize)>) {
    const FULL: usize = 15;
    let beyond = |out: &mut Vec<u8>, length: usize| {
        if let Some(mut rest) = length.checked_sub(FULL) {
            while rest >= 255 {
                out.push(255);
                rest -= 255;
            }
            out.push(rest as u8);
        }
    };
    let short = reference.map_or(0, |(_, length)| length - MATCH_MIN);
    out.push((literals.len().min(FULL) << 4 | short.min(FULL)) as u8);
    beyond(out, literals.len());
    out.extend_from_slice(literals);
    if let Some((distance, _)) = reference {
        out.extend_from_slice(&(distance as u16).to_le_bytes());
        beyond(out, short);
    }
}

// --- decoder ---------------------------------------------------------------------------------------------

/// What a decoder begins with.
const ROOM_FIRST: usize = 8 * 1024;

pub(super) struct Lz4Decoder {
    /// Decoded text up to `end`, its last [`WINDOW`] bytes being what a block may refer to; room for the next behind it.
    text: Vec<u8>,
    end: usize,
}

impl Lz4Decoder {
    pub(super) fn new() -> Lz4Decoder {
        Lz4Decoder { text: vec![0; ROOM_FIRST], end: 0 }
    }

    /// The text of a block of at most `most` bytes; `None` when it is broken.
    pub(super) fn block(&mut self, block: &[u8], most: usize) -> Option<&[u8]> {
        let mut length = self.decode(block);
        while is_too_small(&length) && self.make_room(most) {
            length = self.decode(block);
        }
        let start = self.end;
        self.end += length.ok()?;
        Some(&self.text[start..self.end])
    }

    /// Room grows with what a connection has to say: one that says little stays small. False when there is enough.
    fn make_room(&mut self, most: usize) -> bool {
        let held = self.text.len();
        if self.end > WINDOW {
            self.text.copy_within(self.end - WINDOW..self.end, 0);
            self.end = WINDOW;
            return true;
        }
        let larger = match held {
            ROOM_FIRST => WINDOW + SLACK,
            // No known sender makes blocks of more than half of the slack.
            _ if held < WINDOW + most => WINDOW + most,
            _ => return false,
        };
        // Not resized: what is zero from the start takes no memory until it is used.
        let mut text = vec![0; larger];
        text[..self.end].copy_from_slice(&self.text[..self.end]);
        self.text = text;
        true
    }

    fn decode(&mut self, block: &[u8]) -> Result<usize, DecompressError> {
        let (known, room) = self.text.split_at_mut(self.end);
        let dictionary = &known[known.len().saturating_sub(WINDOW)..];
        decompress_into_with_dict(block, room, dictionary)
    }
}

fn is_too_small(decoded: &Result<usize, DecompressError>) -> bool {
    matches!(decoded, Err(DecompressError::OutputTooSmall { .. }))
}
