//! `histogram_quantile` over classic buckets: series with a label `le`, each counting what is not larger.

use std::collections::HashMap;

use super::Error;
use super::labels::{Labels, NAME};
use super::value::Series;

const UPPER: &str = "le";

/// The upper bound of a bucket, and its count at each step.
type Bucket = (f64, Vec<Option<f64>>);

/// For each set of buckets the quantile at each step.
pub(super) fn quantiles(q: &[f64], series: Vec<Series>) -> Result<Vec<Series>, Error> {
    let mut sets: Vec<(Labels, Vec<Bucket>)> = Vec::new();
    let mut known: HashMap<Labels, usize> = HashMap::new();
    let apart = [UPPER.to_owned(), NAME.to_owned()];
    for one in series {
        // What has no bound is no bucket.
        let Some(upper) = bound(one.labels.get(UPPER)) else { continue };
        let labels = one.labels.all_but(&apart);
        let at = *known.entry(labels).or_insert_with_key(|labels| {
            sets.push((labels.clone(), Vec::new()));
            sets.len() - 1
        });
        sets[at].1.push((upper, one.points));
    }
    let out = sets.into_iter().map(|(labels, buckets)| {
        let points = q.iter().enumerate().map(|(step, q)| {
            let here = buckets.iter().filter_map(|(upper, points)| Some((*upper, points[step]?)));
            let here: Vec<(f64, f64)> = here.collect();
            (!here.is_empty()).then(|| quantile(*q, here))
        });
        Series { labels, points: points.collect() }
    });
    Ok(out.filter(|one| one.points.iter().any(Option::is_some)).collect())
}

fn bound(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Linear within the bucket where it lies.
fn quantile(q: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    if buckets.last().is_none_or(|(upper, _)| *upper != f64::INFINITY) {
        return f64::NAN;
    }
    buckets.dedup_by(|(later, count), (first, whole)| {
        let same = later == first;
        if same {
            *whole += *count;
        }
        same
    });
    let mut most = f64::NEG_INFINITY;
    for (_, count) in &mut buckets {
        // Counts that were not taken at the same moment may fall.
        most = most.max(*count);
        *count = most;
    }
    let [.., (largest, _), (_, all)] = buckets[..] else { return f64::NAN };
    if all == 0.0 {
        return f64::NAN;
    }
    let rank = q * all;
    let inside = &buckets[..buckets.len() - 1];
    let Some(n) = inside.iter().position(|(_, count)| *count >= rank) else { return largest };
    let (upper, count) = inside[n];
    if n == 0 {
        return if upper <= 0.0 { upper } else { upper * (rank / count) };
    }
    let (lower, below) = inside[n - 1];
    lower + (upper - lower) * ((rank - below) / (count - below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_linear_within_a_bucket() {
        let buckets = vec![(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)];
        assert_eq!(quantile(0.5, buckets.clone()), 1.5);
        assert_eq!(quantile(0.125, buckets.clone()), 0.5);
        assert_eq!(quantile(0.9, buckets.clone()), 2.0);
        assert!(quantile(0.5, buckets[..2].to_vec()).is_nan());
        assert!(quantile(0.5, vec![(f64::INFINITY, 4.0)]).is_nan());
    }
}
