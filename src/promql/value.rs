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

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number for each step.
    Scalar(Vec<f64>),
    Vector(Vec<Series>),
    Text(String),
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
