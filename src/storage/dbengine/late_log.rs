//! The bytes of `late-NUMBER.log`: batches of runs of late samples, and the two older kinds of batches, which are read.
//!
//! Pure functions over slices; reading bounds what it believes and goes on behind what does not hold. Layout:
//! `docs/formats/dbengine.md`.

use super::codec::{self, Damaged, Input};
use super::runs::SLOTS_MAX;
use crate::base::number::Sample;

/// Of batches of whole records and of short ones, which earlier versions wrote, and of runs.
const MAGIC_WHOLE: u32 = 0x4E44_4C31;
const MAGIC_SHORT: u32 = 0x4E44_4C32;
const MAGIC: u32 = 0x4E44_4C33;
const HEADER: usize = 12;
const WHOLE_RECORD: usize = 16;
/// Bytes of the records of a batch.
const BATCH_MAX: usize = 64 * 1024;
/// A run is never longer.
const RUN_MAX: usize = 1 + 4 * 5 + 4 * SLOTS_MAX;

/// The slot of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) metric: u32,
    pub(super) every: u32,
    pub(super) time: u32,
}

/// Bits of a head: the interval is another one than before, and follows; the time likewise.
const NEW_EVERY: u8 = 1;
const NEW_TIME: u8 = 2;
/// Above them stands by how much the metric's number grew, or that the number follows.
const STEP: u8 = 2;
const FAR: u8 = 63;

/// Batches as they are written. Each run says how its place differs from the one before, the first of a batch from zeros:
/// runs come metric by metric, often of the same seconds.
#[derive(Default)]
pub(super) struct Batches {
    bytes: Vec<u8>,
    /// Where the last batch begins.
    batch: usize,
    last: Place,
}

impl Batches {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.batch, self.last) = (0, Place::default());
    }

    /// Consecutive slots from a place on.
    pub(super) fn put(&mut self, place: Place, samples: impl ExactSizeIterator<Item = Sample>) {
        if self.bytes.len() + RUN_MAX > self.batch + HEADER + BATCH_MAX {
            self.end_batch();
        }
        if self.bytes.len() == self.batch {
            self.bytes.extend_from_slice(&MAGIC.to_le_bytes());
            self.bytes.extend_from_slice(&[0; HEADER - 4]);
        }
        let last = std::mem::replace(&mut self.last, place);
        let step = place.metric.wrapping_sub(last.metric);
        let near = u8::try_from(step).ok().filter(|step| *step < FAR);
        let mut head = near.unwrap_or(FAR) << STEP;
        head |= u8::from(place.every != last.every) * NEW_EVERY;
        head |= u8::from(place.time != last.time) * NEW_TIME;
        self.bytes.push(head);
        if near.is_none() {
            codec::write_varint(u64::from(place.metric), &mut self.bytes);
        }
        if head & NEW_EVERY != 0 {
            codec::write_varint(u64::from(place.every), &mut self.bytes);
        }
        if head & NEW_TIME != 0 {
            codec::write_varint(u64::from(place.time), &mut self.bytes);
        }
        codec::write_varint(samples.len() as u64, &mut self.bytes);
        self.bytes.extend(samples.flat_map(|sample| sample.0.to_le_bytes()));
    }

    fn end_batch(&mut self) {
        let Some((header, records)) =
            self.bytes.get_mut(self.batch..).and_then(|batch| batch.split_at_mut_checked(HEADER))
        else {
            return;
        };
        header[4..8].copy_from_slice(&u32::try_from(records.len()).unwrap_or(0).to_le_bytes());
        header[8..].copy_from_slice(&crc32fast::hash(records).to_le_bytes());
        (self.batch, self.last) = (self.bytes.len(), Place::default());
    }

    /// Gives memory beyond so many bytes back; what is in them has been written.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        self.clear();
        self.bytes.shrink_to(bytes);
    }

    /// All of it, ready to be written.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.end_batch();
        &self.bytes
    }
}

/// Visits what a log holds; gives how many of its bytes belong to no whole batch. Reading goes on after them.
pub(super) fn read(bytes: &[u8], put: &mut dyn FnMut(Place, Sample)) -> usize {
    let (mut at, mut damaged) = (0, 0);
    while at < bytes.len() {
        if let Some((magic, records)) = batch_at(bytes, at) {
            let mut put = |place: Place, sample: Sample| {
                if place.every > 0 && !sample.is_empty() {
                    put(place, sample);
                }
            };
            match magic {
                MAGIC_WHOLE => whole_records(records, &mut put),
                // Up to the first that makes no sense, which a checksum that holds leaves no room for.
                _ => while_they_last(records, magic == MAGIC, &mut put),
            }
            at += HEADER + records.len();
            continue;
        }
        let rest = &bytes[at + 1..];
        let skipped = next_magic(rest).map_or(bytes.len() - at, |next| next + 1);
        damaged += skipped;
        at += skipped;
    }
    damaged
}

/// Magic and records of the batch that begins at a byte, if there is one and it is whole.
fn batch_at(bytes: &[u8], at: usize) -> Option<(u32, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (magic, length) = (word(at)?, word(at + 4)? as usize);
    if !matches!(magic, MAGIC | MAGIC_SHORT | MAGIC_WHOLE) || length > BATCH_MAX {
        return None;
    }
    let records = bytes.get(at + HEADER..at + HEADER + length)?;
    (crc32fast::hash(records) == word(at + 8)?).then_some((magic, records))
}

/// Where a batch may begin next.
fn next_magic(bytes: &[u8]) -> Option<usize> {
    // They differ in their first byte only.
    let rest = &MAGIC.to_le_bytes()[1..];
    let firsts = [MAGIC, MAGIC_SHORT, MAGIC_WHOLE].map(|magic| magic.to_le_bytes()[0]);
    memchr::memmem::find_iter(bytes, rest)
        .filter_map(|at| at.checked_sub(1))
        .find(|&at| firsts.contains(&bytes[at]))
}

/// Runs, or the short records of one sample each.
fn while_they_last(records: &[u8], are_runs: bool, put: &mut dyn FnMut(Place, Sample)) {
    let mut input = Input(records);
    let mut place = Place::default();
    let mut next = |put: &mut dyn FnMut(Place, Sample)| -> Result<(), Damaged> {
        let head = input.byte()?;
        let mut number = || u32::try_from(input.varint()?).map_err(|_| Damaged);
        place.metric = match head >> STEP {
            FAR => number()?,
            step => place.metric.wrapping_add(u32::from(step)),
        };
        if head & NEW_EVERY != 0 {
            place.every = number()?;
        }
        if head & NEW_TIME != 0 {
            place.time = number()?;
        }
        let count = if are_runs { number()? } else { 1 };
        for slot in 0..count {
            let time = place.time.saturating_add(place.every.saturating_mul(slot));
            put(Place { time, ..place }, Sample(u32::from_le_bytes(input.array()?)));
        }
        Ok(())
    };
    while next(put).is_ok() {}
}

fn whole_records(records: &[u8], put: &mut dyn FnMut(Place, Sample)) {
    for record in records.chunks_exact(WHOLE_RECORD) {
        let field =
            |i: usize| u32::from_le_bytes([record[i], record[i + 1], record[i + 2], record[i + 3]]);
        put(Place { metric: field(0), every: field(4), time: field(8) }, Sample(field(12)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(magic: u32, records: &[u8]) -> Vec<u8> {
        let (length, crc) = (records.len() as u32, crc32fast::hash(records));
        let head = [magic, length, crc].map(u32::to_le_bytes);
        [&head.concat(), records].concat()
    }

    proptest! {
        #[test]
        fn runs_come_back_from_every_batch(
            runs in proptest::collection::vec((any::<u32>(), 0u32..3, 0u32..4, any::<u32>(), 1..=SLOTS_MAX), 0..300),
        ) {
            let mut batches = Batches::default();
            let mut wanted = Vec::new();
            for (number, &(far, near, every, bits, count)) in runs.iter().enumerate() {
                // runs of neighbours, and leaps
                let metric = if near > 0 { number as u32 + near } else { far };
                let place = Place { metric, every: every + 1, time: 1_700_000_000 + every };
                let samples: Vec<Sample> =
                    (0..count as u32).map(|n| Sample(bits.wrapping_add(n))).collect();
                batches.put(place, samples.iter().copied());
                for (&sample, n) in samples.iter().zip(0..) {
                    let place = Place { time: place.time + n * place.every, ..place };
                    if !sample.is_empty() {
                        wanted.push((place, sample));
                    }
                }
            }
            let bytes = batches.finish();
            let mut seen = Vec::new();
            prop_assert_eq!(read(bytes, &mut |place, sample| seen.push((place, sample))), 0);
            prop_assert!(seen == wanted);
        }

        #[test]
        fn no_bytes_make_a_log_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u32..4) {
            let mut log = batch(MAGIC_WHOLE + kind, &bytes);
            log.extend_from_slice(&bytes);
            read(&log, &mut |_, _| {});
            read(&bytes, &mut |_, _| {});
        }
    }

    /// Logs are bytes on disks: these stay readable.
    #[test]
    fn batches_of_all_kinds_are_read_for_ever() {
        let whole = [7u32, 1, 1_700_000_001, 0x0110_0000, 8, 10, 1_700_000_010, 0x0120_0000];
        let whole: Vec<u8> = whole.iter().flat_map(|word| word.to_le_bytes()).collect();
        let short = [
            0x1F, 1, 0x81, 0xE2, 0xCF, 0xAA, 0x06, 0, 0, 0x10, 0x01, // 7 every 1 at …001
            0x07, 10, 0x8A, 0xE2, 0xCF, 0xAA, 0x06, 0, 0, 0x20, 0x01, // 8 every 10 at …010
        ];
        let runs = [
            0x1F, 1, 0x81, 0xE2, 0xCF, 0xAA, 0x06, 1, 0, 0, 0x10, 0x01, //
            0x07, 10, 0x8A, 0xE2, 0xCF, 0xAA, 0x06, 2, 0, 0, 0x20, 0x01, 0, 0, 0,
            0x04, // and a gap
        ];
        let place = |metric, every, time| Place { metric, every, time };
        let wanted = [
            (place(7, 1, 1_700_000_001), Sample(0x0110_0000)),
            (place(8, 10, 1_700_000_010), Sample(0x0120_0000)),
        ];
        for (magic, records) in
            [(MAGIC_WHOLE, &whole[..]), (MAGIC_SHORT, &short[..]), (MAGIC, &runs[..])]
        {
            let bytes = batch(magic, records);
            let mut seen = Vec::new();
            let log = [&bytes[3..], &bytes[..]].concat();
            let damaged = read(&log, &mut |place, sample| seen.push((place, sample)));
            assert_eq!(damaged, bytes.len() - 3);
            assert_eq!(seen, wanted);
        }
        let mut written = Batches::default();
        written.put(wanted[0].0, [wanted[0].1].into_iter());
        written.put(wanted[1].0, [wanted[1].1, Sample::EMPTY].into_iter());
        assert_eq!(written.finish(), batch(MAGIC, &runs));
    }
}
