//! Series to store: made ones of four kinds, and recorded ones.

use std::fs;
use std::io;
use std::path::Path;

/// What a made series does from second to second. The numbers of a series depend on its number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Constant,
    /// Grows by 0 to 1,500.
    Counter,
    /// Two decimals; goes up or down by at most 50.00.
    Walk,
    /// 20 bits without any order.
    Noise,
}

/// Of ten dimensions three are constant, three count, three walk and one is noise.
pub const MIX: [Kind; 10] = [
    Kind::Constant,
    Kind::Constant,
    Kind::Constant,
    Kind::Counter,
    Kind::Counter,
    Kind::Counter,
    Kind::Walk,
    Kind::Walk,
    Kind::Walk,
    Kind::Noise,
];

pub struct Series {
    kind: Kind,
    state: u64,
    /// In hundredths.
    value: i64,
}

impl Series {
    pub fn new(kind: Kind, number: usize) -> Series {
        let state = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let value = match kind {
            Kind::Constant => 100 * (number as i64 * 7 + 42),
            Kind::Counter => 100 * (number as i64 * 1_000_003 % 5_000_000),
            Kind::Walk => 5_000_000,
            Kind::Noise => 0,
        };
        Series { kind, state, value }
    }

    /// A number below `bound`.
    fn random(&mut self, bound: u64) -> i64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 16) % bound) as i64
    }

    /// The value of the next second.
    pub fn next(&mut self) -> f64 {
        match self.kind {
            Kind::Constant => {}
            Kind::Counter => self.value += 100 * self.random(1501),
            Kind::Walk => {
                self.value += self.random(10_001) - 5_000;
                self.value = self.value.clamp(0, 1_000_000_000);
            }
            Kind::Noise => self.value = 100 * self.random(1 << 20),
        }
        self.value as f64 / 100.0
    }
}

/// A recording: every series with a sample, or none, per second.
pub type Recording = Vec<Vec<Option<f64>>>;

/// Reads `{"chart.dimension": [value or null, …]}`, compressed by zstd; every `nth` of the series.
pub fn recorded(path: &Path, nth: usize) -> io::Result<Recording> {
    let text = zstd::decode_all(fs::File::open(path)?)?;
    let json: serde_json::Value = serde_json::from_slice(&text)?;
    let all = json.as_object().ok_or_else(|| io::Error::other("no object of series"))?;
    Ok(all
        .values()
        .step_by(nth)
        .filter_map(|series| series.as_array())
        .map(|series| series.iter().map(serde_json::Value::as_f64).collect())
        .collect())
}

/// Writes what [`recorded`] reads.
pub fn keep(path: &Path, recording: &Recording) -> io::Result<()> {
    let numbered = recording.iter().enumerate();
    let named: std::collections::BTreeMap<String, _> =
        numbered.map(|(number, series)| (format!("{number:06}"), series)).collect();
    fs::write(path, zstd::encode_all(serde_json::to_vec(&named)?.as_slice(), 3)?)
}
