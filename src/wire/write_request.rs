//! Requests of Prometheus remote write as they are written, in version 1.0 or 2.0, by hand: values in, bytes out. `remote_write` has the
//! messages they consist of, and reads them.
//!
//! Whoever writes many series that differ in one label alone has all others made once, as a [`Frame`]; so a series costs two copies of
//! bytes beside its samples, and allocates nothing once the request's memory is there.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use super::remote_write::{self, FIXED64, LENGTH_DELIMITED, Malformed, Series, VARINT};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

impl Version {
    pub fn name(self) -> &'static str {
        match self {
            Version::One => "1.0",
            Version::Two => "2.0",
        }
    }
}

/// All labels of some series but one, as they stand in one request: what is before that one, and what after it.
#[derive(Default)]
pub struct Frame {
    before: Vec<u8>,
    after: Vec<u8>,
}

/// A request that grows.
pub struct Request {
    version: Version,
    series: Vec<u8>,
    /// The label that differs, or all of a series that has no frame.
    own: Vec<u8>,
    symbols: Symbols,
}

/// The texts of 2.0, each once.
#[derive(Default)]
struct Symbols {
    bytes: Vec<u8>,
    count: u32,
    /// By the hash of a text: its number, and where it stands.
    known: FxHashMap<u64, (u32, usize)>,
}

impl Symbols {
    fn clear(&mut self) {
        self.known.clear();
        self.bytes.clear();
        // The first one is always the empty text.
        push_bytes(&mut self.bytes, 4, b"");
        self.count = 1;
    }

    fn number(&mut self, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let mut hasher = FxHasher::default();
        hasher.write(text.as_bytes());
        let hash = hasher.finish();
        let known = self.known.get(&hash).filter(|(_, at)| {
            self.bytes.get(*at..*at + text.len()).is_some_and(|known| known == text.as_bytes())
        });
        if let Some((number, _)) = known {
            return u64::from(*number);
        }
        push_bytes(&mut self.bytes, 4, text.as_bytes());
        let number = self.count;
        self.count += 1;
        self.known.insert(hash, (number, self.bytes.len() - text.len()));
        u64::from(number)
    }
}

impl Request {
    pub fn new(version: Version) -> Request {
        let mut symbols = Symbols::default();
        symbols.clear();
        Request { version, series: Vec::new(), own: Vec::new(), symbols }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// What is written from now on; to be called while there is nothing in it.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    pub fn bytes(&self) -> usize {
        match self.version {
            Version::One => self.series.len(),
            Version::Two => self.series.len() + self.symbols.bytes.len(),
        }
    }

    /// Makes what is before and after the label of that name, of labels in the order of their names; good until the request
    /// is finished.
    pub fn frame(&mut self, frame: &mut Frame, labels: &[(&str, &str)], differs: &str) {
        frame.before.clear();
        frame.after.clear();
        for (name, value) in labels {
            let side = if *name < differs { &mut frame.before } else { &mut frame.after };
            if *name != differs {
                push_label(self.version, &mut self.symbols, side, name, value);
            }
        }
    }

    /// Appends a series of that frame.
    pub fn push(
        &mut self,
        frame: &Frame,
        (name, value): (&str, &str),
        samples: impl Iterator<Item = (i64, f64)> + Clone,
    ) {
        self.own.clear();
        push_label(self.version, &mut self.symbols, &mut self.own, name, value);
        let parts = [&frame.before[..], &self.own, &frame.after];
        push_series(self.version, &mut self.series, parts, samples);
    }

    /// Appends a series with these labels, in the order of their names.
    pub fn push_series(
        &mut self,
        labels: &[(&str, &str)],
        samples: impl Iterator<Item = (i64, f64)> + Clone,
    ) {
        self.own.clear();
        for (name, value) in labels {
            push_label(self.version, &mut self.symbols, &mut self.own, name, value);
        }
        push_series(self.version, &mut self.series, [&self.own[..], &[], &[]], samples);
    }

    /// Puts the whole request into `out`, in place of what is there, and begins another.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.clear();
        if self.version == Version::Two {
            out.extend_from_slice(&self.symbols.bytes);
        }
        out.extend_from_slice(&self.series);
        self.series.clear();
        self.symbols.clear();
    }
}

/// A label without a value is left out, as that means the same.
fn push_label(version: Version, symbols: &mut Symbols, out: &mut Vec<u8>, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    match version {
        Version::One => {
            let inner = bytes_len(name.as_bytes()) + bytes_len(value.as_bytes());
            out.push(1 << 3 | LENGTH_DELIMITED);
            push_varint(out, inner as u64);
            push_bytes(out, 1, name.as_bytes());
            push_bytes(out, 2, value.as_bytes());
        }
        Version::Two => {
            let name = symbols.number(name);
            push_varint(out, name);
            let value = symbols.number(value);
            push_varint(out, value);
        }
    }
}

fn push_series(
    version: Version,
    out: &mut Vec<u8>,
    labels: [&[u8]; 3],
    samples: impl Iterator<Item = (i64, f64)> + Clone,
) {
    let framed = |len: usize| 1 + varint_len(len as u64) + len;
    let inner = labels.iter().map(|part| part.len()).sum::<usize>();
    let all_samples: usize = samples.clone().map(|(at, _)| framed(sample_len(at))).sum();
    let (field, labels_len) = match version {
        Version::One => (1, inner),
        Version::Two => (5, framed(inner)),
    };
    out.push(field << 3 | LENGTH_DELIMITED);
    push_varint(out, (labels_len + all_samples) as u64);
    if version == Version::Two {
        // All numbers in one piece.
        out.push(1 << 3 | LENGTH_DELIMITED);
        push_varint(out, inner as u64);
    }
    labels.iter().for_each(|part| out.extend_from_slice(part));
    for (at_ms, value) in samples {
        out.push(2 << 3 | LENGTH_DELIMITED);
        push_varint(out, sample_len(at_ms) as u64);
        out.push(1 << 3 | FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
        out.push(2 << 3 | VARINT);
        push_varint(out, at_ms.cast_unsigned());
    }
}

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

fn sample_len(at_ms: i64) -> usize {
    // A zero value is written, too: some receivers take an empty sample for none.
    9 + 1 + varint_len(at_ms.cast_unsigned())
}

// --- requests that were made ------------------------------------------------------------------------

fn series_of(version: Version, bytes: &[u8]) -> Result<Vec<Series<'_>>, Malformed> {
    let mut all = Vec::new();
    let read = match version {
        Version::One => remote_write::read,
        Version::Two => remote_write::read_2,
    };
    read(bytes, &mut |one| all.push(one))?;
    Ok(all)
}

fn made(version: Version, all: &[Series<'_>]) -> Vec<u8> {
    let (mut request, mut out) = (Request::new(version), Vec::new());
    for one in all {
        request.push_series(&one.labels, one.samples.iter().copied());
    }
    request.finish(&mut out);
    out
}

/// The same series as a request of another version.
pub fn converted(from: Version, to: Version, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    Ok(made(to, &series_of(from, bytes)?))
}

/// A request as two, with the number of samples in each: half the series in either, or, where there is one only, half of its
/// samples. `None` when there is but one sample.
pub fn halves(version: Version, bytes: &[u8]) -> Option<[(Vec<u8>, u64); 2]> {
    let mut all = series_of(version, bytes).ok()?;
    let mut rest = all.split_off(all.len() / 2);
    if let ([], [one]) = (all.as_slice(), rest.as_mut_slice()) {
        let later = one.samples.split_off(one.samples.len() / 2);
        let earlier = std::mem::replace(&mut one.samples, later);
        all.push(Series { labels: one.labels.clone(), samples: earlier, ..Series::default() });
    }
    let half = |all: &[Series<'_>]| {
        let samples = all.iter().map(|one| one.samples.len() as u64).sum::<u64>();
        (samples > 0).then(|| (made(version, all), samples))
    };
    Some([half(&all)?, half(&rest)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_of_either_version_is_these_bytes() {
        let sample: &[u8] = &[0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02];
        let one = [&[0x0a, 30, 0x0a, 14, 0x0a, 8], &b"__name__"[..], &[0x12, 2], b"up", sample];
        let two = [
            &[0x22, 0, 0x22, 8],
            &b"__name__"[..],
            &[0x22, 2],
            b"up",
            &[0x2a, 18, 0x0a, 2, 1, 2],
            sample,
        ];
        for (version, want) in [(Version::One, one.concat()), (Version::Two, two.concat())] {
            let (mut request, mut out) = (Request::new(version), vec![7]);
            // Nothing is left of what was before.
            for _ in 0..2 {
                let labels = [("__name__", "up"), ("empty", "")];
                request.push_series(&labels, [(300i64, 1.0)].into_iter());
                assert_eq!(request.bytes(), want.len());
                request.finish(&mut out);
                assert_eq!(out, want);
            }
        }
    }

    #[test]
    fn halves_go_down_to_the_sample() {
        for version in [Version::One, Version::Two] {
            let mut request = Request::new(version);
            for n in 0..3 {
                let name = format!("n{n}");
                request.push_series(&[("n", &name)], (0..=n).map(|at| (at, at as f64)));
            }
            let mut whole = Vec::new();
            request.finish(&mut whole);
            let [(first, one), (_, others)] = halves(version, &whole).unwrap();
            assert_eq!((one, others), (1, 5));
            assert!(halves(version, &first).is_none() && halves(version, &[]).is_none());
            let (mut rest, mut single) = (vec![whole], Vec::new());
            while let Some(part) = rest.pop() {
                match halves(version, &part) {
                    Some([(first, _), (second, _)]) => rest.extend([second, first]),
                    None => {
                        let all = series_of(version, &part).unwrap();
                        single.push((all[0].labels[0].1.to_owned(), all[0].samples.clone()));
                    }
                }
            }
            let want = [("n0", 0), ("n1", 0), ("n1", 1), ("n2", 0), ("n2", 1), ("n2", 2)];
            let want = want.map(|(name, at)| (name.to_owned(), vec![(at, at as f64)]));
            assert_eq!(single, want, "{version:?}");
        }
    }

    /// A host and a chart have 256 labels each at most, all of which are sent.
    #[test]
    fn as_many_labels_as_there_can_be_are_told_in_either_version() {
        let names: Vec<String> = (0..520).map(|n| format!("label{n:03}")).collect();
        let labels: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let made = [Version::One, Version::Two].map(|version| {
            let (mut request, mut out) = (Request::new(version), Vec::new());
            request.push_series(&labels, [(1i64, 1.0)].into_iter());
            request.finish(&mut out);
            out
        });
        assert_eq!(converted(Version::One, Version::Two, &made[0]).as_ref(), Ok(&made[1]));
        assert_eq!(converted(Version::Two, Version::One, &made[1]).as_ref(), Ok(&made[0]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            labels in prop::collection::btree_map("[a-z]{1,9}", ".{1,30}", 1..6),
            others in prop::collection::vec(".{1,9}", 1..4),
            samples in prop::collection::vec((any::<i64>(), -1e9f64..1e9), 1..6),
        ) {
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let differs = labels[labels.len() / 2].0;
            let mut written = Vec::new();
            for version in [Version::One, Version::Two] {
                let (mut request, mut frame) = (Request::new(version), Frame::default());
                request.push_series(&labels, samples.iter().copied());
                request.frame(&mut frame, &labels, differs);
                for other in &others {
                    request.push(&frame, (differs, other), samples.iter().copied());
                }
                let mut out = Vec::new();
                request.finish(&mut out);
                let all = series_of(version, &out).unwrap();
                prop_assert_eq!(&all[0].labels, &labels);
                for (one, other) in all[1..].iter().zip(&others) {
                    let mut want = labels.clone();
                    want[labels.len() / 2].1 = other;
                    prop_assert_eq!(&one.labels, &want);
                }
                prop_assert!(all.iter().all(|one| one.samples == samples));
                prop_assert_eq!(all.len(), others.len() + 1);
                written.push(out);
            }
            let [one, two] = <[_; 2]>::try_from(written).unwrap();
            prop_assert_eq!(converted(Version::Two, Version::One, &two).unwrap(), one.clone());
            prop_assert_eq!(converted(Version::One, Version::Two, &one).unwrap(), two);
        }

        #[test]
        fn any_bytes_are_halved_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (halves(Version::One, &bytes), halves(Version::Two, &bytes));
        }
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
