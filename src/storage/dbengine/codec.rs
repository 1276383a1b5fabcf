//! Pages of samples to bytes and back: the three encodings of `docs/formats/dbengine.md`, chosen by a bench.
//!
//! A page is a run of consecutive slots of one metric. Its samples are split into marks (empty, reset, anomalous) as
//! runs, and values. Values are written as decimal integers with one common exponent, which is what most of them are
//! at heart, so that small numbers stay small whatever mantissa the stored number gave them. Encoding proves itself:
//! what does not come back to the same bits is kept as raw bits instead.
//!
//! Pure functions over slices; decoding bounds everything it reads and never panics on damaged bytes.

use std::cell::RefCell;
use std::ops::Range;

use crate::base::number::Sample;

/// Slots a page may hold.
pub const SLOTS_MAX: usize = 1 << 15;

/// How a page's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All slots hold one and the same sample: its 4 bytes.
    Constant = 0,
    /// Decimal integers, bit-packed in blocks, each as differences or as offsets from its least.
    Packed = 1,
    /// Decimal integers through pco.
    Pco = 2,
    /// The samples' bits through zstd.
    Zstd = 3,
}

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few nanoseconds a sample: what leaves memory for the first time.
    Quick,
    /// The smallest of all encodings: what stays.
    Small,
}

impl Effort {
    /// For a page that leaves memory: a long one is not going to be merged into one that is much smaller.
    pub fn of_new(slots: usize) -> Effort {
        if slots >= LONG { Effort::Small } else { Effort::Quick }
    }
}

/// Slots from which on a page is not made anew when segments are merged.
pub const LONG: usize = 2048;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page does not decode")]
pub struct Damaged;

/// Shorter pages are packed: the others' heads alone cost more than they spare.
const SMALL_SLOTS_MIN: usize = 48;
/// Bits by which the numbers of a page are on average shorter than the widest of their block, as a share of its width, from
/// which on pco is tried: numbers that are spread evenly are one bit shorter on average, and it has nothing to add.
const SPARE_MIN: f64 = 0.03;
/// As small as the higher ones, at a quarter of their time.
const PCO_LEVEL: usize = 5;
const ZSTD_LEVEL: i32 = 3;

/// Appends the encoding of `slots` (1..=[`SLOTS_MAX`]) to `out`.
pub fn encode(slots: &[Sample], effort: Effort, out: &mut Vec<u8>) {
    let Some(&first) = slots.first() else { return };
    if slots.iter().all(|&s| s == first) {
        out.push(Kind::Constant as u8);
        out.extend_from_slice(&first.0.to_le_bytes());
        return;
    }
    let Some(decimals) = Decimals::of(slots) else {
        encode_zstd(slots, out);
        return;
    };
    let start = out.len();
    let spare = decimals.encode_packed(slots, out);
    if effort == Effort::Quick || slots.len() < SMALL_SLOTS_MIN {
        return;
    }
    if spare.is_some_and(|spare| spare >= SPARE_MIN) {
        keep_shorter(out, start, |out| decimals.encode_pco(slots, out));
    }
    if repeats(slots) {
        keep_shorter(out, start, |out| encode_zstd(slots, out));
    }
}

/// Has another encoding written behind the one that begins at `start`, and keeps the shorter of the two.
fn keep_shorter(out: &mut Vec<u8>, start: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    let second = out.len();
    encode(out);
    if out.len() - second < second - start {
        out.drain(start..second);
    } else {
        out.truncate(second);
    }
}

/// Whether pairs of neighbours come again and again, which is what zstd lives on. Looks at their hashes only.
fn repeats(slots: &[Sample]) -> bool {
    const BITS: u32 = 16;
    /// One pair in so many must have been there before; chance makes less of them.
    const SHARE: usize = 6;
    let mut seen = vec![0u64; 1 << (BITS - 6)];
    let mut again = 0;
    for pair in slots.windows(2) {
        let mixed =
            (u64::from(pair[0].0) << 32 | u64::from(pair[1].0)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = (mixed >> (64 - BITS)) as usize;
        let bit = 1u64 << (hash % 64);
        again += usize::from(seen[hash / 64] & bit != 0);
        seen[hash / 64] |= bit;
    }
    again * SHARE > slots.len()
}

/// Appends the samples of an encoded page that are within `span` to `out`: all of them for `0..count`.
pub fn decode(
    bytes: &[u8],
    count: usize,
    span: Range<usize>,
    out: &mut Vec<Sample>,
) -> Result<(), Damaged> {
    if count == 0 || count > SLOTS_MAX || span.start > span.end || span.end > count {
        return Err(Damaged);
    }
    let mut input = Input(bytes);
    match input.byte()? {
        k if k == Kind::Constant as u8 => {
            let sample = Sample(u32::from_le_bytes(input.array()?));
            out.resize(out.len() + span.len(), sample);
            Ok(())
        }
        k if k == Kind::Packed as u8 => decode_decimals(input, count, span, out, unpack_blocks),
        k if k == Kind::Pco as u8 => decode_decimals(input, count, span, out, unpack_pco),
        k if k == Kind::Zstd as u8 => {
            let raw = zstd::bulk::decompress(input.0, count * 4).map_err(|_| Damaged)?;
            if raw.len() != count * 4 {
                return Err(Damaged);
            }
            // Byte planes: all first bytes, then all second ones, and so on.
            let planes: Vec<&[u8]> = raw.chunks_exact(count).collect();
            let &[a, b, c, d] = planes.as_slice() else { return Err(Damaged) };
            out.extend(span.map(|i| Sample(u32::from_le_bytes([a[i], b[i], c[i], d[i]]))));
            Ok(())
        }
        _ => Err(Damaged),
    }
}

fn encode_zstd(slots: &[Sample], out: &mut Vec<u8>) {
    let mut raw = vec![0u8; slots.len() * 4];
    for (i, sample) in slots.iter().enumerate() {
        for (plane, byte) in sample.0.to_le_bytes().into_iter().enumerate() {
            raw[plane * slots.len() + i] = byte;
        }
    }
    out.push(Kind::Zstd as u8);
    let compressed = COMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        kept.as_mut().and_then(|compressor| compressor.compress(&raw).ok())
    });
    match compressed {
        Some(bytes) => out.extend_from_slice(&bytes),
        // Only memory can be lacking here; a stored frame of the library needs none of its tables.
        None => out.extend_from_slice(&zstd::bulk::compress(&raw, -7).unwrap_or_default()),
    }
}

thread_local! {
    /// A page takes a fraction of the time that making its tables does.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

// --- marks ----------------------------------------------------------------------------------------

const RESET: u8 = 1;
const ANOMALOUS: u8 = 2;
const EMPTY: u8 = 4;

fn marks_of(sample: Sample) -> u8 {
    if sample.is_empty() {
        return EMPTY;
    }
    (u8::from(sample.is_reset()) * RESET) | (u8::from(sample.is_anomalous()) * ANOMALOUS)
}

/// Runs of equal marks: `varint(length << 3 | marks)` each, the last one reaching to the end of the page.
fn write_marks(slots: &[Sample], out: &mut Vec<u8>) {
    let mut rest = slots;
    while let Some(&first) = rest.first() {
        let marks = marks_of(first);
        // Samples of equal marks differ in value only, so their bits tell.
        const BITS: u32 = 3 << 24;
        let same = |&&s: &&Sample| {
            if marks == EMPTY {
                s.is_empty()
            } else {
                s.0 & BITS == first.0 & BITS && !s.is_empty()
            }
        };
        let run = rest.iter().take_while(same).count();
        write_varint((run as u64) << 3 | u64::from(marks), out);
        rest = &rest[run..];
    }
}

fn read_marks(
    input: &mut Input<'_>,
    count: usize,
    mut run: impl FnMut(usize, u8),
) -> Result<(), Damaged> {
    let mut left = count;
    while left > 0 {
        let word = input.varint()?;
        let (length, marks) = ((word >> 3) as usize, (word & 7) as u8);
        if length == 0 || length > left {
            return Err(Damaged);
        }
        run(length, marks);
        left -= length;
    }
    Ok(())
}

// --- decimals -------------------------------------------------------------------------------------

/// Values as integers times a power of ten.
struct Decimals {
    exponent: i32,
    ints: Vec<i64>,
}

const POWERS: [i64; 19] = {
    let mut powers = [1i64; 19];
    let mut i = 1;
    while i < 19 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Integers stay below this, so they convert to doubles exactly.
const INT_MAX: u64 = 1 << 53;

impl Decimals {
    fn of(slots: &[Sample]) -> Option<Decimals> {
        let mut exponent = i32::MAX;
        let mut ints = Vec::with_capacity(slots.len());
        // First the digits of each value and the least exponent among them, then all on that exponent.
        let mut last = (Sample::EMPTY, 0i64, 0i32);
        let mut parts: Vec<i8> = Vec::with_capacity(slots.len());
        for &sample in slots {
            let (digits, e) = if sample == last.0 {
                (last.1, last.2)
            } else {
                let (digits, e) = digits(sample);
                last = (sample, digits, e);
                (digits, e)
            };
            if digits != 0 {
                exponent = exponent.min(e);
            }
            ints.push(digits);
            parts.push(i8::try_from(e).ok()?);
        }
        if exponent == i32::MAX {
            exponent = 0;
        }
        let mut previous = 0;
        let rebuild = Rebuild::new(exponent);
        let mut proven = (0i64, Sample::EMPTY);
        for ((int, &e), &sample) in ints.iter_mut().zip(&parts).zip(slots) {
            if sample.is_empty() {
                // Any value does: the marks tell. The one before costs least.
                *int = previous;
                continue;
            }
            if *int != 0 && i32::from(e) != exponent {
                let factor = POWERS.get(usize::try_from(i32::from(e) - exponent).ok()?)?;
                *int = int.checked_mul(*factor)?;
                if int.unsigned_abs() >= INT_MAX {
                    return None;
                }
            }
            if (*int, sample) != proven {
                if rebuild.sample(*int, marks_of(sample)) != sample {
                    return None;
                }
                proven = (*int, sample);
            }
            previous = *int;
        }
        Some(Decimals { exponent, ints })
    }

    fn head(&self, kind: Kind, slots: &[Sample], out: &mut Vec<u8>) {
        out.push(kind as u8);
        out.push(i8::try_from(self.exponent).unwrap_or(0).cast_unsigned());
        write_marks(slots, out);
    }

    /// Gives the share of the bits written that more than packing might spare; `None` if there are none.
    fn encode_packed(&self, slots: &[Sample], out: &mut Vec<u8>) -> Option<f64> {
        self.head(Kind::Packed, slots, out);
        let (bits, shorter) = pack_blocks(&self.ints, out);
        #[expect(clippy::cast_precision_loss, reason = "a page has far fewer bits than 2^53")]
        let share = |bits: u64, of: u64| bits as f64 / of as f64;
        let count = self.ints.len() as u64;
        (bits > 0).then(|| share(shorter.saturating_sub(count), bits))
    }

    fn encode_pco(&self, slots: &[Sample], out: &mut Vec<u8>) {
        let config = pco::ChunkConfig::default().with_compression_level(PCO_LEVEL);
        match pco::standalone::simple_compress(&self.ints, &config) {
            Ok(bytes) => {
                self.head(Kind::Pco, slots, out);
                out.extend_from_slice(&bytes);
            }
            Err(_) => {
                self.encode_packed(slots, out);
            }
        }
    }
}

/// A sample's value as digits without trailing zeros, and the power of ten they count.
fn digits(sample: Sample) -> (i64, i32) {
    if sample.is_empty() {
        return (0, 0);
    }
    let mut mantissa = sample.0 & 0x00FF_FFFF;
    if mantissa == 0 {
        return (0, 0);
    }
    let steps = ((sample.0 >> 27) & 7) as i32;
    let mut exponent = match (sample.0 >> 30 & 1, sample.0 >> 26 & 1) {
        (0, _) => -steps,
        (_, 0) => steps,
        _ => steps * 2,
    };
    // In two strides: most values have few digits, so most of the zeros go at once.
    while mantissa.is_multiple_of(10_000) {
        mantissa /= 10_000;
        exponent += 4;
    }
    while mantissa.is_multiple_of(10) {
        mantissa /= 10;
        exponent += 1;
    }
    let mantissa = i64::from(mantissa);
    (if sample.0 >> 31 == 1 { -mantissa } else { mantissa }, exponent)
}

/// Seven steps of a hundred, and seven zeros of the mantissa.
const EXPONENT_MAX: i32 = 21;

const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const MANTISSA_MAX: u64 = 0x00FF_FFFF;
const MANTISSA_GROW: u64 = 0x0019_999E;

/// A whole number beyond the mantissa: divided by tens, or hundreds where seven of those do not do.
fn large(mut n: u64) -> u32 {
    let hundred = n > 10_000_000 * MANTISSA_MAX;
    let mut steps = 0;
    while steps < 7 && n > MANTISSA_MAX {
        n = if hundred { n / 100 } else { n / 10 };
        steps += 1;
    }
    1 << 30 | u32::from(hundred) << 26 | with_steps(n, steps)
}

/// `n` with so many decimals, seven at most, grown by tens until it has its digits: for whatever the encoder writes the same as [`sample_of`]
/// in general, with narrow numbers.
fn small(n: u64, decimals: usize) -> u32 {
    if n > MANTISSA_MAX * TENS[decimals] {
        return large(if decimals == 0 { n } else { n / TENS[decimals] });
    }
    let (mut grown, mut left, mut steps) = (n, decimals, 0);
    while steps < 7 && grown < MANTISSA_GROW * TENS[left] {
        if left > 0 {
            left -= 1;
        } else {
            grown *= 10;
        }
        steps += 1;
    }
    if left > 0 {
        grown /= TENS[left];
    }
    if grown > MANTISSA_MAX && steps > 0 {
        grown /= 10;
        steps -= 1;
    }
    with_steps(grown, steps)
}

fn with_steps(mantissa: u64, steps: u32) -> u32 {
    u32::try_from(mantissa.min(MANTISSA_MAX)).unwrap_or(0) | steps << 27
}

/// The stored number of `int × 10^exponent`, by integer arithmetic; the inverse of [`digits`].
fn sample_of(int: i64, exponent: i32, marks: u8) -> Sample {
    if marks & EMPTY != 0 {
        return Sample::EMPTY;
    }
    let mut bits =
        if marks & ANOMALOUS == 0 { 1 << 24 } else { 0 } | u32::from(marks & RESET != 0) << 25;
    if int == 0 {
        return Sample(bits);
    }
    if int < 0 {
        bits |= 1 << 31;
    }
    let magnitude = int.unsigned_abs();
    if (-7..=0).contains(&exponent) {
        return Sample(bits | small(magnitude, exponent.unsigned_abs() as usize));
    }
    if let Some(n) = usize::try_from(exponent)
        .ok()
        .and_then(|exponent| magnitude.checked_mul(POWERS.get(exponent)?.cast_unsigned()))
    {
        return Sample(bits | small(n, 0));
    }
    let mut n = u128::from(magnitude);
    // Bring the number to an integer mantissa at `-steps` (divide) or `steps` (multiply).
    let mut scale = exponent;
    if scale > 0 {
        match POWERS.get(scale as usize) {
            Some(&factor) => n *= factor.cast_unsigned() as u128,
            None => n = n.saturating_mul(10u128.saturating_pow(scale as u32)),
        }
        scale = 0;
    }
    let mut steps = 0u32;
    let ten_to = 10u128.pow(scale.unsigned_abs().min(30));
    if n > u128::from(MANTISSA_MAX) * ten_to {
        // Only whole numbers get here exactly; anything else fails the check after encoding.
        let hundred = n > 10_000_000 * u128::from(MANTISSA_MAX) * ten_to;
        let factor = if hundred { 100 } else { 10 };
        n /= ten_to;
        while steps < 7 && n > u128::from(MANTISSA_MAX) {
            n /= factor;
            steps += 1;
        }
        bits |= 1 << 30 | steps << 27 | u32::from(hundred) << 26;
    } else {
        // n / 10^-scale, grown by tens until it has its digits: n × 10^(steps + scale).
        let mut grown = n;
        let mut missing = scale;
        let grow = |grown: u128, missing: i32| -> bool {
            grown < u128::from(MANTISSA_GROW) * 10u128.pow(missing.unsigned_abs().min(30))
        };
        while steps < 7 && grow(grown, missing) {
            if missing < 0 {
                missing += 1;
            } else {
                grown *= 10;
            }
            steps += 1;
        }
        if missing < 0 {
            grown /= 10u128.pow(missing.unsigned_abs().min(30));
        }
        if grown > u128::from(MANTISSA_MAX) && steps > 0 {
            grown /= 10;
            steps -= 1;
        }
        n = grown;
        bits |= steps << 27;
    }
    let mantissa = u32::try_from(n).unwrap_or(u32::MAX).min(0x00FF_FFFF);
    Sample(bits | mantissa)
}

/// `read` appends the page's integers, those behind the given number of them only if it likes.
fn decode_decimals(
    mut input: Input<'_>,
    count: usize,
    span: Range<usize>,
    out: &mut Vec<Sample>,
    read: impl FnOnce(Input<'_>, usize, usize, &mut Vec<i64>) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    let exponent = i32::from(input.byte()?.cast_signed());
    if !(-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent) {
        return Err(Damaged);
    }
    let mut runs: Vec<(usize, u8)> = Vec::new();
    read_marks(&mut input, count, |length, marks| runs.push((length, marks)))?;
    INTS.with_borrow_mut(|ints| {
        ints.clear();
        read(input, count, span.end, ints)?;
        let table = Rebuild::new(exponent);
        let mut end = 0;
        for (length, marks) in runs {
            let begin = end;
            end += length;
            let (from, to) = (begin.max(span.start), end.min(span.end));
            if from >= to {
                continue;
            }
            if marks & EMPTY != 0 {
                out.resize(out.len() + (to - from), Sample::EMPTY);
                continue;
            }
            let mut last = (i64::MIN, Sample::EMPTY);
            out.extend(ints.get(from..to).ok_or(Damaged)?.iter().map(|&int| {
                if int != last.0 {
                    last = (int, table.sample(int, marks));
                }
                last.1
            }));
        }
        Ok(())
    })
}

thread_local! {
    /// A page's integers between unpacking and rebuilding.
    static INTS: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// pco fills batches of so many.
const PCO_BATCH: usize = 256;

fn unpack_pco(
    input: Input<'_>,
    count: usize,
    needed: usize,
    ints: &mut Vec<i64>,
) -> Result<(), Damaged> {
    ints.resize(needed.next_multiple_of(PCO_BATCH).min(count), 0);
    let progress = pco::standalone::simple_decompress_into(input.0, ints).map_err(|_| Damaged)?;
    if progress.n_processed == ints.len() { Ok(()) } else { Err(Damaged) }
}

/// Rebuilding the samples of one page: for the usual sizes the steps to grow a value are looked up by its magnitude.
struct Rebuild {
    exponent: i32,
    /// As far as they are at most seven.
    decimals: Option<u32>,
}

impl Rebuild {
    fn new(exponent: i32) -> Rebuild {
        let decimals = exponent.checked_neg().and_then(|decimals| u32::try_from(decimals).ok());
        Rebuild { exponent, decimals: decimals.filter(|decimals| *decimals <= 7) }
    }

    #[inline]
    fn sample(&self, int: i64, marks: u8) -> Sample {
        let magnitude = int.unsigned_abs();
        // The digits stand for themselves: below the mantissa's range, at most seven decimals.
        if let Some(decimals) = self.decimals
            && magnitude <= MANTISSA_MAX
            && marks & EMPTY == 0
        {
            let mut bits = if marks & ANOMALOUS == 0 { 1 << 24 } else { 0 };
            bits |= u32::from(marks & RESET != 0) << 25;
            if magnitude == 0 {
                return Sample(bits);
            }
            let (tens, limit) = GROWTH[64 - magnitude.leading_zeros() as usize];
            let tens = (tens - u32::from(magnitude >= limit)).min(7 - decimals);
            let mantissa = magnitude * TENS[tens as usize];
            if mantissa <= MANTISSA_MAX {
                bits |= u32::from(int < 0) << 31 | (decimals + tens) << 27;
                #[expect(clippy::cast_possible_truncation, reason = "at most 24 bits")]
                return Sample(bits | mantissa as u32);
            }
        }
        sample_of(int, self.exponent, marks)
    }
}

/// By its length in bits: how many tens a number is multiplied by until it has its digits, and from which number of that
/// length on it is one fewer.
const GROWTH: [(u32, u64); 25] = {
    const fn tens(number: u64) -> u32 {
        let mut tens = 0;
        while number * TENS[tens] < MANTISSA_GROW && tens < 7 {
            tens += 1;
        }
        tens as u32
    }
    let mut growth = [(0, u64::MAX); 25];
    let mut length = 1;
    while length < 25 {
        let most = tens(1 << (length - 1));
        growth[length] = (most, u64::MAX);
        if most > 0 {
            growth[length].1 = MANTISSA_GROW.div_ceil(TENS[most as usize - 1]);
        }
        length += 1;
    }
    growth
};

// --- bit packing ----------------------------------------------------------------------------------

const BLOCK: usize = 128;

/// Blocks of [`BLOCK`] integers. Head: one byte, bit 7 set for differences, the low seven the width; then the least of
/// them as a zigzag varint; then each one's excess over it. Gives the bits of all excesses, and how many of them are leading
/// zeros.
fn pack_blocks(ints: &[i64], out: &mut Vec<u8>) -> (u64, u64) {
    let (mut bits_all, mut bits_zero) = (0u64, 0u64);
    let mut before = 0i64;
    let mut differences = [0i64; BLOCK];
    for block in ints.chunks(BLOCK) {
        let mut previous = before;
        for (difference, &int) in differences.iter_mut().zip(block) {
            *difference = int.wrapping_sub(previous);
            previous = int;
        }
        before = previous;
        let differences = &differences[..block.len()];
        let (by_difference, by_offset) = (width(differences), width(block));
        let (values, width, flag) = if by_difference < by_offset {
            (differences, by_difference, 0x80)
        } else {
            (block, by_offset, 0)
        };
        let least = values.iter().copied().min().unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, reason = "a width is at most 64")]
        out.push(flag | width as u8);
        write_varint(zigzag(least), out);
        let mut bits = BitWriter { out, word: 0, used: 0 };
        let mut zeros = 0;
        for &value in values {
            let excess = value.wrapping_sub(least).cast_unsigned();
            zeros += excess.leading_zeros();
            bits.put(excess, width);
        }
        bits.finish();
        let count = values.len() as u64;
        bits_all += count * u64::from(width);
        bits_zero += u64::from(zeros).saturating_sub(count * u64::from(64 - width));
    }
    (bits_all, bits_zero)
}

fn unpack_blocks(
    mut input: Input<'_>,
    count: usize,
    needed: usize,
    ints: &mut Vec<i64>,
) -> Result<(), Damaged> {
    let mut previous = 0i64;
    let mut left = count;
    while left > 0 && ints.len() < needed {
        let in_block = left.min(BLOCK);
        let head = input.byte()?;
        let width = u32::from(head & 0x7F);
        if width > 64 {
            return Err(Damaged);
        }
        let least = unzigzag(input.varint()?);
        let bytes = input.take((in_block * width as usize).div_ceil(8))?;
        let start = ints.len();
        if width <= WIDTH_AT_ONCE {
            unpack_at_once(bytes, width, in_block, ints);
        } else {
            let mut bits = BitReader { bytes, word: 0, left: 0 };
            ints.extend((0..in_block).map(|_| bits.get(width).cast_signed()));
        }
        if head & 0x80 != 0 {
            for value in &mut ints[start..] {
                previous = previous.wrapping_add(value.wrapping_add(least));
                *value = previous;
            }
        } else {
            for value in &mut ints[start..] {
                *value = value.wrapping_add(least);
            }
            previous = ints.last().copied().unwrap_or(0);
        }
        left -= in_block;
    }
    Ok(())
}

/// Values so wide lie within eight bytes, whatever bit they begin at.
const WIDTH_AT_ONCE: u32 = 57;

/// Appends `count` (at most [`BLOCK`]) values of so many bits each.
fn unpack_at_once(bytes: &[u8], width: u32, count: usize, ints: &mut Vec<i64>) {
    const BYTES: usize = BLOCK * WIDTH_AT_ONCE as usize / 8;
    let mut padded = [0u8; BYTES + 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    let mask = (1u64 << width) - 1;
    ints.extend((0..count).map(|n| {
        let bit = n * width as usize;
        let word = padded[bit / 8..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        (word >> (bit % 8) & mask).cast_signed()
    }));
}

/// Bits that hold every value's excess over the least.
fn width(values: &[i64]) -> u32 {
    let (mut least, mut most) = (i64::MAX, i64::MIN);
    for &value in values {
        least = least.min(value);
        most = most.max(value);
    }
    64 - most.wrapping_sub(least).leading_zeros()
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    word: u128,
    used: u32,
}

impl BitWriter<'_> {
    #[inline]
    fn put(&mut self, value: u64, width: u32) {
        self.word |= u128::from(value) << self.used;
        self.used += width;
        if self.used >= 64 {
            #[expect(clippy::cast_possible_truncation, reason = "the low half")]
            self.out.extend_from_slice(&(self.word as u64).to_le_bytes());
            self.word >>= 64;
            self.used -= 64;
        }
    }

    fn finish(self) {
        #[expect(clippy::cast_possible_truncation, reason = "fewer than 64 bits are left")]
        let bytes = (self.word as u64).to_le_bytes();
        self.out.extend_from_slice(&bytes[..self.used.div_ceil(8) as usize]);
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    word: u128,
    left: u32,
}

impl BitReader<'_> {
    #[inline]
    fn get(&mut self, width: u32) -> u64 {
        while self.left < width {
            if let Some((chunk, rest)) = self.bytes.split_first_chunk::<8>() {
                self.word |= u128::from(u64::from_le_bytes(*chunk)) << self.left;
                self.left += 64;
                self.bytes = rest;
            } else if let Some((&byte, rest)) = self.bytes.split_first() {
                self.word |= u128::from(byte) << self.left;
                self.left += 8;
                self.bytes = rest;
            } else {
                // The caller took exactly the bytes of a block, so only padding can be missing.
                self.left = width;
            }
        }
        let mask = if width == 64 { u64::MAX } else { (1u64 << width) - 1 };
        #[expect(clippy::cast_possible_truncation, reason = "masked to the width")]
        let value = self.word as u64 & mask;
        self.word >>= width;
        self.left -= width;
        value
    }
}

// --- small integers -------------------------------------------------------------------------------

pub(super) fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

pub(super) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.push(value as u8);
}

/// Bytes still to be read.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        let (&first, rest) = self.0.split_first().ok_or(Damaged)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::number::SampleFlags;

    #[track_caller]
    fn check(slots: &[Sample], effort: Effort) -> usize {
        let mut bytes = Vec::new();
        encode(slots, effort, &mut bytes);
        let n = slots.len();
        // whole, and parts as windows cut them
        for span in [0..n, 0..1, n - 1..n, n / 3..n / 2, n / 2..n, 0..n.min(257)] {
            let mut back = Vec::new();
            decode(&bytes, n, span.clone(), &mut back).unwrap();
            assert_eq!(back, slots[span]);
        }
        bytes.len()
    }

    fn series(values: impl Iterator<Item = f64>) -> Vec<Sample> {
        values.map(Sample::normal).collect()
    }

    #[test]
    fn a_constant_page_is_five_bytes() {
        assert_eq!(check(&series((0..7200).map(|_| 42.5)), Effort::Small), 5);
    }

    #[test]
    fn small_whole_numbers_stay_small() {
        let values = series((0..1024).map(|i| f64::from(i * 7 % 100)));
        assert!(check(&values, Effort::Quick) < 1024);
        assert!(check(&values, Effort::Small) < 1024);
    }

    #[test]
    fn gaps_and_marks_come_back() {
        let mut slots = series((0..300).map(|i| f64::from(i) / 4.0));
        slots[0] = Sample::EMPTY;
        slots[100..120].fill(Sample::EMPTY);
        slots[7] = Sample::pack(3.0, SampleFlags { anomalous: true, reset: true });
        slots[299] = Sample::EMPTY;
        check(&slots, Effort::Quick);
        check(&slots, Effort::Small);
    }

    #[test]
    fn the_largest_numbers_come_back() {
        for value in [1e19, 5e20, 1.6e21] {
            let mut slots = series([0.0, value, 0.0, 3.0 * 1e19].into_iter());
            slots.push(Sample::EMPTY);
            check(&slots, Effort::Quick);
            check(&slots.repeat(30), Effort::Small);
        }
    }

    #[test]
    fn bits_no_packer_would_make_are_kept_too() {
        let slots: Vec<_> = (0..50u32).map(|i| Sample(i.wrapping_mul(0x9E37_79B9))).collect();
        check(&slots, Effort::Quick);
        check(&slots, Effort::Small);
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        prop_oneof![
            (any::<i32>(), any::<bool>(), any::<bool>()).prop_map(|(n, anomalous, reset)| {
                Sample::pack(f64::from(n) / 100.0, SampleFlags { anomalous, reset })
            }),
            proptest::num::f64::NORMAL.prop_map(Sample::normal),
            (0u32..5000).prop_map(|n| Sample::normal(f64::from(n))),
            (0u64..1 << 60).prop_map(|n| Sample::normal(n as f64)),
            Just(Sample::EMPTY),
            any::<u32>().prop_map(Sample),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_comes_back(slots in proptest::collection::vec(any_sample(), 1..400)) {
            check(&slots, Effort::Quick);
            check(&slots, Effort::Small);
        }

        #[test]
        fn series_of_one_kind_come_back(values in proptest::collection::vec(0u32..100_000, 1..600), divisor in 1u32..2000) {
            let slots = series(values.iter().map(|&v| f64::from(v) / f64::from(divisor)));
            check(&slots, Effort::Quick);
            check(&slots, Effort::Small);
        }

        #[test]
        fn digits_are_undone_exactly(value in proptest::num::f64::NORMAL, small in -1e9f64..1e9) {
            for sample in [Sample::normal(value), Sample::normal(small), Sample::normal(small.round())] {
                let (int, exponent) = digits(sample);
                if sample.unpack() != 0.0 {
                    prop_assert_eq!(sample_of(int, exponent, 0), sample);
                    prop_assert_eq!(Rebuild::new(exponent).sample(int, 0), sample);
                }
            }
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0usize..2000) {
            let _ = decode(&bytes, count, 0..count, &mut Vec::new());
            let _ = decode(&bytes, count, count / 3..count / 2, &mut Vec::new());
        }
    }
}
