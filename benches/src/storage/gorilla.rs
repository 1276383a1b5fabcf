//! XOR with the value before, as in Facebook's paper on Gorilla, for 32-bit samples: one bit for "the same", else leading
//! zeros and the meaningful bits, or the meaningful bits in the place they had before.

use netdata_rs::base::number::Sample;

struct Out<'a> {
    bytes: &'a mut Vec<u8>,
    word: u64,
    used: u32,
}

impl Out<'_> {
    fn put(&mut self, value: u32, width: u32) {
        self.word |= u64::from(value) << self.used;
        self.used += width;
        while self.used >= 8 {
            self.bytes.push(self.word as u8);
            self.word >>= 8;
            self.used -= 8;
        }
    }
}

pub fn encode(page: &[Sample], out: &mut Vec<u8>) {
    let mut out = Out { bytes: out, word: 0, used: 0 };
    let (mut before, mut leading, mut length) = (0u32, 0u32, 0u32);
    for sample in page {
        let xor = sample.0 ^ before;
        before = sample.0;
        if xor == 0 {
            out.put(0, 1);
            continue;
        }
        out.put(1, 1);
        let (zeros, trailing) = (xor.leading_zeros(), xor.trailing_zeros());
        if length > 0 && zeros >= leading && trailing >= 32 - leading - length {
            out.put(0, 1);
        } else {
            (leading, length) = (zeros, 32 - zeros - trailing);
            out.put(1, 1);
            out.put(leading, 5);
            out.put(length - 1, 5);
        }
        out.put(xor >> (32 - leading - length), length);
    }
    let used = out.used;
    out.put(0, (8 - used) % 8);
}

pub fn decode(bytes: &[u8], count: usize, out: &mut Vec<Sample>) {
    let (mut word, mut left, mut rest) = (0u64, 0u32, bytes.iter());
    let mut get = |width: u32| -> u32 {
        while left < width {
            word |= u64::from(rest.next().copied().unwrap_or(0)) << left;
            left += 8;
        }
        let value = (word & ((1u64 << width) - 1)) as u32;
        word >>= width;
        left -= width;
        value
    };
    let (mut before, mut leading, mut length) = (0u32, 0u32, 0u32);
    for _ in 0..count {
        if get(1) == 1 {
            if get(1) == 1 {
                (leading, length) = (get(5), get(5) + 1);
            }
            before ^= get(length) << (32 - leading - length);
        }
        out.push(Sample(before));
    }
}
