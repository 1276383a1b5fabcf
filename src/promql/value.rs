//! What expressions come to, at all steps at once.

use std::collections::HashMap;

use super::Error;
use super::labels::Labels;

/// A series at the steps of an evaluation; `None` where it has nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub points: Vec<Option<f64>>,
}

/// What a value takes at a step.
pub(super) const VALUE_BYTES: usize = 16;
/// As much as so many values are the labels of a series.
pub(super) const LABELS_WEIGHT: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number for each step.
    Scalar(Vec<f64>),
    Vector(Vec<Series>),
    Text(String),
}

impl Value {
    /// As many values this is, or takes as much room as.
    pub(super) fn weight(&self) -> usize {
        match self {
            Value::Scalar(values) => values.len(),
            Value::Vector(series) => series.iter().map(Series::weight).sum(),
            Value::Text(text) => text.len() / VALUE_BYTES,
        }
    }
}

impl Series {
    fn weight(&self) -> usize {
        // Most labels are short, or those that the chart has; functions may make long ones.
        let long = self.labels.iter().filter(|(_, value)| value.len() > 256);
        let texts: usize = long.map(|(_, value)| value.len()).sum();
        self.points.len() + LABELS_WEIGHT + texts / VALUE_BYTES
    }
}

/// Series as they were read: only an instant query gives them as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct RawSeries {
    pub labels: Labels,
    /// Milliseconds, and values.
    pub samples: Vec<(i64, f64)>,
}

/// Makes one of series whose labels are the same, and leaves those out that have no point; two values of one step are an error.
pub fn merged(series: Vec<Series>) -> Result<Vec<Series>, Error> {
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    let mut known: HashMap<Labels, usize> = HashMap::with_capacity(series.len());
    for one in series {
        if one.points.iter().all(Option::is_none) {
            continue;
        }
        match known.get(&one.labels) {
            None => {
                known.insert(one.labels.clone(), out.len());
                out.push(one);
            }
            Some(&at) => {
                for (own, other) in out[at].points.iter_mut().zip(one.points) {
                    if own.is_some() && other.is_some() {
                        return Err(Error::same_labels());
                    }
                    *own = own.or(other);
                }
            }
        }
    }
    Ok(out)
}

/// A number as Prometheus writes it.
pub fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}
