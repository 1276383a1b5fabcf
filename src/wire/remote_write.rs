//! The few forms of protocol buffers that Prometheus remote write is made of, 1.0 written and read by hand, 2.0 read.
//!
//! `WriteRequest { repeated TimeSeries timeseries = 1; }`, `TimeSeries { repeated Label labels = 1; repeated Sample
//! samples = 2; }`, `Label { string name = 1; string value = 2; }`, `Sample { double value = 1; int64 timestamp = 2; }`. Of 2.0: `Request {
//! repeated string symbols = 4; repeated TimeSeries timeseries = 5; }`, `TimeSeries { repeated uint32 labels_refs = 1; repeated Sample
//! samples = 2; }`, a label being two numbers of symbols.

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
pub struct Labels(Vec<u8>);

impl Labels {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// To be called in the order of the names; a label without a value is left out, as that means the same.
    pub fn push(&mut self, name: &str, value: &str) {
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
pub fn push_series(
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

/// An uncompressed request as two, with the number of samples in each; `None` when it holds less than two series.
pub fn halves(bytes: &[u8]) -> Option<[(Vec<u8>, u64); 2]> {
    let (mut rest, mut ends) = (bytes, Vec::new());
    let mut samples = 0;
    while let Some((field, value)) = next_field(&mut rest).ok()? {
        if let (1, Field::Bytes(message)) = (field, value) {
            samples += read_series(message).ok()?.samples.len() as u64;
            ends.push((bytes.len() - rest.len(), samples));
        }
    }
    let (end, first) = *ends.get((ends.len() / 2).checked_sub(1)?)?;
    Some([(bytes[..end].to_vec(), first), (bytes[end..].to_vec(), samples - first)])
}

/// Series of one request (senders put some thousands into one), and labels of a series; more make a request malformed.
const SERIES_MAX: usize = 100_000;
const LABELS_MAX: usize = 128;
/// Labels of all series of a request: each of them takes more room here than in the request.
const LABELS_IN_ALL_MAX: usize = 2_000_000;
/// Samples of a request: one that says nothing takes two bytes there and sixteen here.
const SAMPLES_IN_ALL_MAX: usize = 2_000_000;
/// A label's name or value may be this long.
const LABEL_BYTES_MAX: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no write request of remote write")]
pub struct Malformed;

/// A series as it came.
#[derive(Debug, Default)]
pub struct Series<'a> {
    /// In the order of the request.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Milliseconds since 1970, and values.
    pub samples: Vec<(i64, f64)>,
}

impl<'a> Series<'a> {
    pub fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    /// What the series takes in memory, beside the request it came in.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.labels.capacity() * size_of::<(&str, &str)>()
            + self.samples.capacity() * size_of::<(i64, f64)>()
    }

    fn add_sample(&mut self, sample: &[u8]) -> Result<(), Malformed> {
        if self.samples.len() >= SAMPLES_IN_ALL_MAX {
            return Err(Malformed);
        }
        self.samples.push(read_sample(sample)?);
        Ok(())
    }
}

/// What is counted of a request.
#[derive(Default)]
struct Counted {
    series: usize,
    labels: usize,
    samples: usize,
}

impl Counted {
    /// A series more; one without samples is none, but its labels were read all the same.
    fn add(&mut self, series: &Series<'_>) -> Result<(), Malformed> {
        self.labels += series.labels.len();
        self.series += usize::from(!series.samples.is_empty());
        self.samples += series.samples.len();
        let too_many = self.series > SERIES_MAX
            || self.labels > LABELS_IN_ALL_MAX
            || self.samples > SAMPLES_IN_ALL_MAX;
        if too_many { Err(Malformed) } else { Ok(()) }
    }
}

/// Calls `visit` for every series of an uncompressed request that has samples; what else is in it (metadata) is passed over.
pub fn read<'a>(mut bytes: &'a [u8], visit: &mut dyn FnMut(Series<'a>)) -> Result<(), Malformed> {
    let mut counted = Counted::default();
    while let Some((field, value)) = next_field(&mut bytes)? {
        let (1, Field::Bytes(message)) = (field, value) else { continue };
        let one = read_series(message)?;
        counted.add(&one)?;
        if !one.samples.is_empty() {
            visit(one);
        }
    }
    Ok(())
}

/// The same of a request of version 2.0; histograms, exemplars and metadata are passed over.
pub fn read_2<'a>(bytes: &'a [u8], visit: &mut dyn FnMut(Series<'a>)) -> Result<(), Malformed> {
    let (mut rest, mut symbols) = (bytes, Vec::new());
    // Whoever writes puts the symbols first, but nothing says that it has to.
    while let Some((field, value)) = next_field(&mut rest)? {
        if let (4, Field::Bytes(text)) = (field, value) {
            if text.len() > LABEL_BYTES_MAX || symbols.len() >= LABELS_IN_ALL_MAX {
                return Err(Malformed);
            }
            symbols.push(std::str::from_utf8(text).map_err(|_| Malformed)?);
        }
    }
    let (mut rest, mut counted) = (bytes, Counted::default());
    while let Some((field, value)) = next_field(&mut rest)? {
        let (5, Field::Bytes(message)) = (field, value) else { continue };
        let one = read_series_2(message, &symbols)?;
        counted.add(&one)?;
        if !one.samples.is_empty() {
            visit(one);
        }
    }
    Ok(())
}

fn read_series_2<'a>(mut bytes: &[u8], symbols: &[&'a str]) -> Result<Series<'a>, Malformed> {
    let (mut series, mut name) = (Series::default(), None);
    let mut add = |series: &mut Series<'a>, number: u64| {
        let number = usize::try_from(number).map_err(|_| Malformed)?;
        let text = *symbols.get(number).ok_or(Malformed)?;
        match name.take() {
            None => name = Some(text),
            Some(_) if series.labels.len() >= LABELS_MAX => return Err(Malformed),
            Some(name) => series.labels.push((name, text)),
        }
        Ok(())
    };
    while let Some((field, value)) = next_field(&mut bytes)? {
        match (field, value) {
            // In one piece, or one by one.
            (1, Field::Bytes(mut numbers)) => {
                while !numbers.is_empty() {
                    add(&mut series, next_varint(&mut numbers)?)?;
                }
            }
            (1, Field::Number(number)) => add(&mut series, number)?,
            (2, Field::Bytes(sample)) => series.add_sample(sample)?,
            _ => {}
        }
    }
    if name.is_some() { Err(Malformed) } else { Ok(series) }
}

fn read_series(mut bytes: &[u8]) -> Result<Series<'_>, Malformed> {
    let mut series = Series::default();
    while let Some((field, value)) = next_field(&mut bytes)? {
        match (field, value) {
            (1, Field::Bytes(label)) if series.labels.len() < LABELS_MAX => {
                series.labels.push(read_label(label)?);
            }
            (1, _) => return Err(Malformed),
            (2, Field::Bytes(sample)) => series.add_sample(sample)?,
            _ => {}
        }
    }
    Ok(series)
}

fn read_label(mut bytes: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut name, mut value) = ("", "");
    while let Some((field, found)) = next_field(&mut bytes)? {
        if let Field::Bytes(text) = found {
            let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
            match field {
                _ if text.len() > LABEL_BYTES_MAX => return Err(Malformed),
                1 => name = text,
                2 => value = text,
                _ => {}
            }
        }
    }
    Ok((name, value))
}

fn read_sample(mut bytes: &[u8]) -> Result<(i64, f64), Malformed> {
    let (mut at_ms, mut value) = (0, 0.0);
    while let Some((field, found)) = next_field(&mut bytes)? {
        match (field, found) {
            (1, Field::Fixed(bits)) => value = f64::from_bits(bits),
            (2, Field::Number(number)) => at_ms = number.cast_signed(),
            _ => {}
        }
    }
    Ok((at_ms, value))
}

enum Field<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
    Other,
}

fn next_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u64, Field<'a>)>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let key = next_varint(bytes)?;
    let field = match (key & 7) as u8 {
        VARINT => Field::Number(next_varint(bytes)?),
        FIXED64 => {
            let (fixed, rest) = bytes.split_first_chunk::<8>().ok_or(Malformed)?;
            *bytes = rest;
            Field::Fixed(u64::from_le_bytes(*fixed))
        }
        LENGTH_DELIMITED => {
            let length = usize::try_from(next_varint(bytes)?).map_err(|_| Malformed)?;
            let (inside, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
            *bytes = rest;
            Field::Bytes(inside)
        }
        5 => {
            *bytes = bytes.get(4..).ok_or(Malformed)?;
            Field::Other
        }
        _ => return Err(Malformed),
    };
    Ok(Some((key >> 3, field)))
}

fn next_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn samples_that_say_nothing_are_counted() {
        let series = |samples: usize| {
            let mut bytes = vec![0x0a];
            let mut length = samples * 2;
            while length >= 0x80 {
                bytes.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend([0x12, 0].repeat(samples));
            bytes
        };
        let count = |bytes: &[u8]| {
            let mut all = 0;
            read(bytes, &mut |one| all += one.samples.len()).map(|()| all)
        };
        assert_eq!(count(&series(1_000)), Ok(1_000));
        assert_eq!(count(&series(SAMPLES_IN_ALL_MAX)), Ok(SAMPLES_IN_ALL_MAX));
        assert_eq!(count(&series(SAMPLES_IN_ALL_MAX + 1)), Err(Malformed));
        assert_eq!(count(&series(SAMPLES_IN_ALL_MAX / 2 + 1).repeat(2)), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            labels in prop::collection::vec(("[a-z]{1,9}", ".{1,30}"), 0..6),
            samples in prop::collection::vec((any::<i64>(), -1e9f64..1e9), 0..6),
        ) {
            let mut bytes = Vec::new();
            let mut message = Labels::default();
            labels.iter().for_each(|(name, value)| message.push(name, value));
            push_series(&mut bytes, &message, samples.iter().copied());
            push_series(&mut bytes, &Labels::default(), [(1i64, 2.0)].into_iter());
            let mut seen = Vec::new();
            read(&bytes, &mut |series| {
                let labels: Vec<_> =
                    series.labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
                seen.push((labels, series.samples.clone()));
            })
            .unwrap();
            let mut wanted = vec![(labels, samples), (Vec::new(), vec![(1, 2.0)])];
            wanted.retain(|(_, samples)| !samples.is_empty());
            prop_assert_eq!(seen, wanted);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, &mut |_| {});
            let _ = read_2(&bytes, &mut |_| {});
            let _ = halves(&bytes);
        }
    }

    #[test]
    fn version_2_names_labels_by_number() {
        let mut request: Vec<u8> = Vec::new();
        for symbol in ["", "__name__", "up", "a"] {
            push_bytes(&mut request, 4, symbol.as_bytes());
        }
        let mut series = Vec::new();
        push_bytes(&mut series, 1, &[1, 2, 3, 0]);
        push_bytes(&mut series, 2, &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02]);
        let mut whole = request.clone();
        push_bytes(&mut whole, 5, &series);
        let mut found = Vec::new();
        read_2(&whole, &mut |one| found.push((one.labels.clone(), one.samples.clone()))).unwrap();
        assert_eq!(found, [(vec![("__name__", "up"), ("a", "")], vec![(300, 1.0)])]);
        // A number of no symbol, and a name without a value.
        for labels in [&[1u8, 9][..], &[1, 2, 3]] {
            let mut message = Vec::new();
            push_bytes(&mut message, 1, labels);
            let mut bad = request.clone();
            push_bytes(&mut bad, 5, &message);
            assert_eq!(read_2(&bad, &mut |_| {}), Err(Malformed));
        }
    }

    #[test]
    fn a_request_is_two_halves() {
        let mut whole = Vec::new();
        for n in 0..3 {
            let mut labels = Labels::default();
            labels.push("n", &n.to_string());
            push_series(&mut whole, &labels, (0..=n).map(|at| (at, 1.0)));
        }
        let [(first, one), (second, others)] = halves(&whole).unwrap();
        assert_eq!((one, others), (1, 5));
        assert_eq!([first.clone(), second].concat(), whole);
        assert!(halves(&first).is_none() && halves(&[]).is_none());
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
