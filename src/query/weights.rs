//! How much a metric differs between two spans of time: what `weights` and `metric_correlations` rank metrics by.
//!
//! Pure functions over rows of values; NaN is a row without one.

/// Fewer differences than this say nothing about their distribution.
pub const KS2_POINTS_MIN: usize = 15;
/// Terms of the distribution's series; it converges long before.
const TERMS: u32 = 100;

/// By which share of its usual level a metric moved, weighted by how much of the time it was on that side of it.
/// `None` when it did not move or is not known.
pub fn volume(usual: &[f64], now: &[f64]) -> Option<f64> {
    let (usual, level) = (mean(usual)?, mean(now)?);
    if usual == level {
        return None;
    }
    let moved = if usual == 0.0 { level.abs() } else { ((level - usual) / usual).abs() };
    let values = now.iter().filter(|v| !v.is_nan());
    let (mut beyond, mut all) = (0.0, 0.0);
    for value in values {
        all += 1.0;
        if (level > usual && *value > usual) || (level < usual && *value < usual) {
            beyond += 1.0;
        }
    }
    Some(moved * beyond / all)
}

/// The mean of a row of rates; `None` without any.
pub fn mean(values: &[f64]) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values.iter().filter(|v| !v.is_nan()) {
        sum += value;
        count += 1.0;
    }
    (count > 0.0).then_some(sum / count)
}

/// The confidence, 0 to 1, that steps from row to row are distributed differently in the two spans (two-sample
/// Kolmogorov-Smirnov test). Nothing counts as 0, as those who ask with `null2zero` expect.
pub fn ks2(usual: &[f64], now: &[f64]) -> Option<f64> {
    let (a, b) = (steps(usual), steps(now));
    if a.len() < KS2_POINTS_MIN || b.len() < KS2_POINTS_MIN {
        return None;
    }
    let distance = largest_gap(&a, &b);
    let (n, m) = (a.len() as f64, b.len() as f64);
    let effective = (n * m / (n + m)).sqrt();
    Some(1.0 - tail((effective + 0.12 + 0.11 / effective) * distance))
}

/// Sorted differences between neighbours.
fn steps(values: &[f64]) -> Vec<f64> {
    let or_zero = |v: f64| if v.is_nan() { 0.0 } else { v };
    let mut steps: Vec<f64> = values.windows(2).map(|w| or_zero(w[1]) - or_zero(w[0])).collect();
    steps.sort_unstable_by(f64::total_cmp);
    steps
}

/// The largest distance between the cumulative distributions of two sorted samples.
fn largest_gap(a: &[f64], b: &[f64]) -> f64 {
    let (mut i, mut j, mut largest) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        let at = a[i].min(b[j]);
        while i < a.len() && a[i] <= at {
            i += 1;
        }
        while j < b.len() && b[j] <= at {
            j += 1;
        }
        let gap = i as f64 / a.len() as f64 - j as f64 / b.len() as f64;
        largest = largest.max(gap.abs());
    }
    largest
}

/// The chance that equal distributions lie as far apart as `x`.
fn tail(x: f64) -> f64 {
    if x < 0.04 {
        return 1.0;
    }
    let mut sum = 0.0;
    let mut sign = 1.0;
    for j in 1..=TERMS {
        let term = sign * (-2.0 * f64::from(j * j) * x * x).exp();
        sum += term;
        if term.abs() < 1e-12 {
            break;
        }
        sign = -sign;
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

/// Replaces each weight by its rank, evenly between 0 and 1; equal weights share one.
pub fn spread(weights: &mut [f64]) {
    let mut distinct = weights.to_vec();
    distinct.sort_unstable_by(f64::total_cmp);
    distinct.dedup();
    let count = distinct.len() as f64;
    for weight in weights {
        *weight = distinct.partition_point(|other| *other < *weight) as f64 / count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_is_the_share_a_level_moved_by() {
        assert_eq!(volume(&[10.0, 10.0], &[15.0, 15.0]), Some(0.5));
        assert_eq!(volume(&[10.0], &[10.0]), None);
        assert_eq!(volume(&[f64::NAN], &[10.0]), None);
        assert_eq!(volume(&[0.0], &[3.0]), Some(3.0));
        assert_eq!(volume(&[10.0], &[40.0, 0.0]), Some(0.5));
    }

    #[test]
    fn like_series_have_no_confidence_and_unlike_ones_have() {
        let calm: Vec<f64> = (0..200).map(|n| f64::from(n % 3)).collect();
        let wild: Vec<f64> = (0..50).map(|n| f64::from(n * n % 101)).collect();
        assert!(ks2(&calm, &calm[..60]).unwrap() < 0.1);
        assert!(ks2(&calm, &wild).unwrap() > 0.99);
        assert_eq!(ks2(&calm, &wild[..10]), None);
    }

    #[test]
    fn ranks_are_spread_evenly() {
        let mut weights = [5.0, 0.1, 7.0, 5.0];
        spread(&mut weights);
        assert_eq!(weights, [1.0 / 3.0, 0.0, 2.0 / 3.0, 1.0 / 3.0]);
        spread(&mut []);
    }
}
