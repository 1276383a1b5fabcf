//! Aggregations: many series become one for each group, or the best of each group remain.

use std::cmp::Ordering;
use std::collections::HashMap;

use promql_parser::parser::token::{
    T_AVG, T_BOTTOMK, T_COUNT, T_COUNT_VALUES, T_GROUP, T_MAX, T_MIN, T_QUANTILE, T_STDDEV,
    T_STDVAR, T_SUM, T_TOPK,
};
use promql_parser::parser::{AggregateExpr, LabelModifier};

use super::Error;
use super::eval::Evaluator;
use super::labels::{Labels, NAME, is_label_name};
use super::value::{Series, Value, number};
use super::windows::{Sum, quantile, variance};

pub(super) fn eval(
    evaluator: &Evaluator<'_>,
    aggregate: &AggregateExpr,
    times: &[i64],
) -> Result<Value, Error> {
    let series = evaluator.vector(&aggregate.expr, times)?;
    let groups = groups(&series, aggregate.modifier.as_ref());
    let made = match aggregate.op.id() {
        T_TOPK | T_BOTTOMK => series.len(),
        _ => groups.len(),
    };
    evaluator.room_for(made, times.len())?;
    let parameter = || match &aggregate.param {
        Some(expr) => evaluator.scalar(expr, times),
        None => Err(Error::Parse("a parameter is missing".to_owned())),
    };
    let of_each = |fold: &dyn Fn(&mut Vec<f64>, usize) -> f64| {
        let mut values = Vec::new();
        let out = groups.iter().map(|(labels, members)| {
            let points = (0..times.len()).map(|step| {
                values.clear();
                values.extend(members.iter().filter_map(|n| series[*n].points[step]));
                (!values.is_empty()).then(|| fold(&mut values, step))
            });
            Series { labels: labels.clone(), points: points.collect() }
        });
        Value::Vector(out.collect())
    };
    Ok(match aggregate.op.id() {
        T_SUM => of_each(&|values, _| sum(values)),
        T_AVG => of_each(&|values, _| sum(values) / values.len() as f64),
        T_COUNT => of_each(&|values, _| values.len() as f64),
        T_GROUP => of_each(&|_, _| 1.0),
        T_MIN => of_each(&|values, _| extreme(values, |a, b| a < b)),
        T_MAX => of_each(&|values, _| extreme(values, |a, b| a > b)),
        T_STDVAR => of_each(&|values, _| variance(values.iter().copied())),
        T_STDDEV => of_each(&|values, _| variance(values.iter().copied()).sqrt()),
        T_QUANTILE => {
            let q = parameter()?;
            of_each(&|values, step| quantile(q[step], values))
        }
        T_TOPK => best(series, &groups, &parameter()?, |a, b| b.total_cmp(&a))?,
        T_BOTTOMK => best(series, &groups, &parameter()?, |a, b| a.total_cmp(&b))?,
        T_COUNT_VALUES => {
            let label = match &aggregate.param {
                Some(expr) => evaluator.text(expr)?,
                None => String::new(),
            };
            if !is_label_name(&label) {
                return Err(Error::execution(format!("invalid label name {label:?}")));
            }
            count_values(evaluator, &series, &groups, &label, times.len())?
        }
        _ => return Err(Error::execution(format!("'{}' is not supported", aggregate.op))),
    })
}

fn sum(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum.total()
}

fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    let all = values.iter().copied();
    all.reduce(|a, b| if better(b, a) || a.is_nan() { b } else { a }).unwrap_or(f64::NAN)
}

/// The labels of each group and which series are in it, in the order in which the groups are met.
fn groups(series: &[Series], modifier: Option<&LabelModifier>) -> Vec<(Labels, Vec<usize>)> {
    let mut groups: Vec<(Labels, Vec<usize>)> = Vec::new();
    let mut known: HashMap<Labels, usize> = HashMap::new();
    let mut left_out: Vec<String> = Vec::new();
    if let Some(LabelModifier::Exclude(names)) = modifier {
        left_out.clone_from(&names.labels);
        left_out.push(NAME.to_owned());
    }
    for (n, one) in series.iter().enumerate() {
        let labels = match modifier {
            None => Labels::default(),
            Some(LabelModifier::Include(names)) => one.labels.only(&names.labels),
            Some(LabelModifier::Exclude(_)) => one.labels.all_but(&left_out),
        };
        let at = *known.entry(labels).or_insert_with_key(|labels| {
            groups.push((labels.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(n);
    }
    groups
}

/// The first `k` of each group at each step; with one step alone in their order.
fn best(
    series: Vec<Series>,
    groups: &[(Labels, Vec<usize>)],
    k: &[f64],
    compare: impl Fn(f64, f64) -> Ordering,
) -> Result<Value, Error> {
    let mut kept: Vec<Vec<Option<f64>>> = series.iter().map(|_| vec![None; k.len()]).collect();
    let mut order = Vec::new();
    for (_, members) in groups {
        for (step, k) in k.iter().enumerate() {
            // Not so that NaN is taken.
            if k.is_nan() || *k > i64::MAX as f64 {
                return Err(Error::execution(format!("Scalar value {k} overflows int64")));
            }
            let value = |n: &usize| Some((*n, series[*n].points[step]?));
            let mut values: Vec<(usize, f64)> = members.iter().filter_map(value).collect();
            values.sort_by(|(_, a), (_, b)| match (a.is_nan(), b.is_nan()) {
                (false, false) if a == b => Ordering::Equal,
                (false, false) => compare(*a, *b),
                (a, b) => a.cmp(&b),
            });
            for (n, value) in values.into_iter().take(k.max(0.0) as usize) {
                kept[n][step] = Some(value);
                if step == 0 {
                    order.push(n);
                }
            }
        }
    }
    if k.len() > 1 {
        order = (0..series.len()).collect();
    }
    let mut series: Vec<Option<Series>> = series
        .into_iter()
        .zip(kept)
        .map(|(one, points)| Some(Series { labels: one.labels, points }))
        .collect();
    let out = order.into_iter().filter_map(|n| series[n].take());
    Ok(Value::Vector(out.filter(|one| one.points.iter().any(Option::is_some)).collect()))
}

fn count_values(
    evaluator: &Evaluator<'_>,
    series: &[Series],
    groups: &[(Labels, Vec<usize>)],
    label: &str,
    steps: usize,
) -> Result<Value, Error> {
    let mut out: Vec<Series> = Vec::new();
    for (labels, members) in groups {
        let mut known: HashMap<u64, usize> = HashMap::new();
        for (step, value) in members
            .iter()
            .flat_map(|n| series[*n].points.iter().enumerate())
            .filter_map(|(step, point)| Some((step, (*point)?)))
        {
            // All that are not a number are the same, and so are both zeros but for their sign.
            let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            let at = match known.get(&bits) {
                Some(at) => *at,
                None => {
                    evaluator.room_for(out.len() + 1, steps)?;
                    let mut labels = labels.clone();
                    labels.set(label, &number(value));
                    out.push(Series { labels, points: vec![None; steps] });
                    known.insert(bits, out.len() - 1);
                    out.len() - 1
                }
            };
            let count = &mut out[at].points[step];
            *count = Some(count.unwrap_or(0.0) + 1.0);
        }
    }
    Ok(Value::Vector(super::value::merged(out)?))
}
