//! The few forms of protocol buffers that remote write is made of, written by hand.
//!
//! `WriteRequest { repeated TimeSeries timeseries = 1; }`, `TimeSeries { repeated Label labels = 1; repeated Sample
//! samples = 2; }`, `Label { string name = 1; string value = 2; }`, `Sample { double value = 1; int64 timestamp = 2; }`.

const LENGTH_DELIMITED: u8 = 2;
const FIXED64: u8 = 1;
const VARINT: u8 = 0;

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn push_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | LENGTH_DELIMITED);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn bytes_len(bytes: &[u8]) -> usize {
    1 + varint_len(bytes.len() as u64) + bytes.len()
}

/// Labels of a series as they stand in its message.
#[derive(Default)]
pub(super) struct Labels(Vec<u8>);

impl Labels {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// To be called in the order of the names; a label without a value is left out, as that means the same.
    pub(super) fn push(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let inner = bytes_len(name.as_bytes()) + bytes_len(value.as_bytes());
        self.0.push(1 << 3 | LENGTH_DELIMITED);
        push_varint(&mut self.0, inner as u64);
        push_bytes(&mut self.0, 1, name.as_bytes());
        push_bytes(&mut self.0, 2, value.as_bytes());
    }
}

fn sample_len(at_ms: i64) -> usize {
    // A zero value is written, too: some receivers take an empty sample for none.
    9 + 1 + varint_len(at_ms.cast_unsigned())
}

/// Appends a series to a request.
pub(super) fn push_series(
    out: &mut Vec<u8>,
    labels: &Labels,
    samples: impl Iterator<Item = (i64, f64)> + Clone,
) {
    let framed = |len: usize| 1 + varint_len(len as u64) + len;
    let inner: usize =
        labels.0.len() + samples.clone().map(|(at, _)| framed(sample_len(at))).sum::<usize>();
    out.push(1 << 3 | LENGTH_DELIMITED);
    push_varint(out, inner as u64);
    out.extend_from_slice(&labels.0);
    for (at_ms, value) in samples {
        out.push(2 << 3 | LENGTH_DELIMITED);
        push_varint(out, sample_len(at_ms) as u64);
        out.push(1 << 3 | FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
        out.push(2 << 3 | VARINT);
        push_varint(out, at_ms.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_these_bytes() {
        let mut labels = Labels::default();
        labels.push("__name__", "up");
        labels.push("empty", "");
        let mut out = Vec::new();
        push_series(&mut out, &labels, [(300i64, 1.0)].into_iter());
        let want: Vec<u8> = [
            &[0x0a, 30][..],
            &[0x0a, 14, 0x0a, 8],
            b"__name__",
            &[0x12, 2],
            b"up",
            &[0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02],
        ]
        .concat();
        assert_eq!(out, want);
    }

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX / 2, u64::MAX] {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }
}
