//! The few forms of protocol buffers that Prometheus remote write is made of, 1.0 and 2.0, read by hand; `write_request` writes them.
//!
//! `WriteRequest { repeated TimeSeries timeseries = 1; }`, `TimeSeries { repeated Label labels = 1; repeated Sample
//! samples = 2; }`, `Label { string name = 1; string value = 2; }`, `Sample { double value = 1; int64 timestamp = 2; }`. Of 2.0: `Request {
//! repeated string symbols = 4; repeated TimeSeries timeseries = 5; }`, `TimeSeries { repeated uint32 labels_refs = 1; repeated Sample
//! samples = 2; }`, a label being two numbers of symbols.

pub(super) const LENGTH_DELIMITED: u8 = 2;
pub(super) const FIXED64: u8 = 1;
pub(super) const VARINT: u8 = 0;

/// Series of one request (senders put some thousands into one), and labels of a series; more make a request malformed. What we
/// send ourselves must be within it: a host has 256 labels at most, a chart as many.
const SERIES_MAX: usize = 100_000;
const LABELS_MAX: usize = 1024;
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
    /// How many there were that are not read.
    pub histograms: u64,
    pub exemplars: u64,
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

/// What a request holds that is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOver<'a> {
    pub histograms: u64,
    pub exemplars: u64,
    /// The metric of the first series that has one.
    pub of: &'a str,
}

/// What is counted of a request.
#[derive(Default)]
struct Counted<'a> {
    series: usize,
    labels: usize,
    samples: usize,
    passed_over: PassedOver<'a>,
}

impl<'a> Counted<'a> {
    /// A series more; one without samples is none, but its labels were read all the same.
    fn add(&mut self, series: &Series<'a>) -> Result<(), Malformed> {
        let all = &mut self.passed_over;
        if series.histograms + series.exemplars > 0 && all.of.is_empty() {
            all.of = series.label("__name__").unwrap_or_default();
        }
        all.histograms += series.histograms;
        all.exemplars += series.exemplars;
        self.labels += series.labels.len();
        self.series += usize::from(!series.samples.is_empty());
        self.samples += series.samples.len();
        let too_many = self.series > SERIES_MAX
            || self.labels > LABELS_IN_ALL_MAX
            || self.samples > SAMPLES_IN_ALL_MAX;
        if too_many { Err(Malformed) } else { Ok(()) }
    }
}

/// Calls `visit` for every series of an uncompressed request that has samples; what else is in it is passed over, native histograms
/// and exemplars counted.
pub fn read<'a>(
    mut bytes: &'a [u8],
    visit: &mut dyn FnMut(Series<'a>),
) -> Result<PassedOver<'a>, Malformed> {
    let mut counted = Counted::default();
    while let Some((field, value)) = next_field(&mut bytes)? {
        let (1, Field::Bytes(message)) = (field, value) else { continue };
        let one = read_series(message)?;
        counted.add(&one)?;
        if !one.samples.is_empty() {
            visit(one);
        }
    }
    Ok(counted.passed_over)
}

/// The same of a request of version 2.0.
pub fn read_2<'a>(
    bytes: &'a [u8],
    visit: &mut dyn FnMut(Series<'a>),
) -> Result<PassedOver<'a>, Malformed> {
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
    Ok(counted.passed_over)
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
            (3, Field::Bytes(_)) => series.histograms += 1,
            (4, Field::Bytes(_)) => series.exemplars += 1,
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
            (3, Field::Bytes(_)) => series.exemplars += 1,
            (4, Field::Bytes(_)) => series.histograms += 1,
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
    fn native_histograms_and_exemplars_are_counted() {
        let name = [&[0x0a, 13, 0x0a, 8][..], b"__name__", &[0x12, 1, b'h']].concat();
        let series = [name, [0x22, 0, 0x22, 0, 0x1a, 0].to_vec()].concat();
        let request = [&[0x0a, series.len() as u8][..], &series].concat();
        let mut seen = 0;
        let passed = read(&request, &mut |_| seen += 1).unwrap();
        assert_eq!((passed, seen), (PassedOver { histograms: 2, exemplars: 1, of: "h" }, 0));
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
            read(bytes, &mut |one| all += one.samples.len()).map(|_| all)
        };
        assert_eq!(count(&series(1_000)), Ok(1_000));
        assert_eq!(count(&series(SAMPLES_IN_ALL_MAX)), Ok(SAMPLES_IN_ALL_MAX));
        assert_eq!(count(&series(SAMPLES_IN_ALL_MAX + 1)), Err(Malformed));
        assert_eq!(count(&series(SAMPLES_IN_ALL_MAX / 2 + 1).repeat(2)), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, &mut |_| {});
            let _ = read_2(&bytes, &mut |_| {});
        }
    }

    #[test]
    fn version_2_names_labels_by_number() {
        let push_bytes = |out: &mut Vec<u8>, field: u8, bytes: &[u8]| {
            out.extend([field << 3 | LENGTH_DELIMITED, bytes.len() as u8]);
            out.extend(bytes);
        };
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
        // What is not read is counted, and named.
        push_bytes(&mut series, 3, &[0x08, 1]);
        push_bytes(&mut series, 4, &[0x08, 1]);
        push_bytes(&mut series, 4, &[]);
        let mut whole = request.clone();
        push_bytes(&mut whole, 5, &series);
        let passed = PassedOver { histograms: 1, exemplars: 2, of: "up" };
        assert_eq!(read_2(&whole, &mut |_| {}), Ok(passed));
        // A number of no symbol, and a name without a value.
        for labels in [&[1u8, 9][..], &[1, 2, 3]] {
            let mut message = Vec::new();
            push_bytes(&mut message, 1, labels);
            let mut bad = request.clone();
            push_bytes(&mut bad, 5, &message);
            assert_eq!(read_2(&bad, &mut |_| {}), Err(Malformed));
        }
    }
}
