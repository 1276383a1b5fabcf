//! Operators between two values: numbers, series, and series that are matched by their labels.

use std::collections::HashMap;

use promql_parser::parser::token::{
    T_ADD, T_ATAN2, T_DIV, T_EQLC, T_GTE, T_GTR, T_LAND, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MOD,
    T_MUL, T_NEQ, T_POW, T_SUB, TokenId,
};
use promql_parser::parser::{BinModifier, BinaryExpr, LabelModifier, VectorMatchCardinality};

use super::Error;
use super::eval::Evaluator;
use super::labels::{Labels, NAME};
use super::value::{Series, Value, merged};

/// The value, and whether a comparison holds.
fn compute(op: TokenId, a: f64, b: f64) -> (f64, bool) {
    match op {
        T_ADD => (a + b, true),
        T_SUB => (a - b, true),
        T_MUL => (a * b, true),
        T_DIV => (a / b, true),
        T_MOD => (a % b, true),
        T_POW => (a.powf(b), true),
        T_ATAN2 => (a.atan2(b), true),
        T_EQLC => (a, a == b),
        T_NEQ => (a, a != b),
        T_GTR => (a, a > b),
        T_LSS => (a, a < b),
        T_GTE => (a, a >= b),
        T_LTE => (a, a <= b),
        _ => (f64::NAN, false),
    }
}

fn is_comparison(op: TokenId) -> bool {
    matches!(op, T_EQLC | T_NEQ | T_GTR | T_LSS | T_GTE | T_LTE)
}

/// What remains at one point; `None` where a comparison takes it away.
fn point(op: TokenId, a: f64, b: f64, as_number: bool) -> Option<f64> {
    let (value, holds) = compute(op, a, b);
    if as_number { Some(if holds { 1.0 } else { 0.0 }) } else { holds.then_some(value) }
}

pub(super) fn eval(
    evaluator: &Evaluator<'_>,
    binary: &BinaryExpr,
    times: &[i64],
) -> Result<Value, Error> {
    let op = binary.op.id();
    let default = BinModifier::default();
    let modifier = binary.modifier.as_ref().unwrap_or(&default);
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(Error::execution("'fill' is not supported"));
    }
    let as_number = modifier.return_bool;
    let (left, right) = (evaluator.eval(&binary.lhs, times)?, evaluator.eval(&binary.rhs, times)?);
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            if is_comparison(op) && !as_number {
                let text = "comparisons between scalars must use BOOL modifier";
                return Err(Error::Parse(text.to_owned()));
            }
            let values = left.into_iter().zip(right);
            let values = values.map(|(a, b)| point(op, a, b, as_number).unwrap_or(f64::NAN));
            Ok(Value::Scalar(values.collect()))
        }
        (Value::Vector(series), Value::Scalar(numbers)) => {
            with_number(op, as_number, series, |step, value| {
                point(op, value, numbers[step], as_number)
            })
        }
        (Value::Scalar(numbers), Value::Vector(series)) => {
            with_number(op, as_number, series, |step, value| {
                let found = point(op, numbers[step], value, as_number)?;
                // What is compared is the series, on whichever side it stands.
                Some(if is_comparison(op) && !as_number { value } else { found })
            })
        }
        (Value::Vector(left), Value::Vector(right)) => match op {
            T_LAND | T_LOR | T_LUNLESS => sets(op, modifier, left, right, times.len()),
            _ => Matching { evaluator, op, modifier, steps: times.len() }.run(&left, &right),
        },
        _ => Err(Error::Parse(
            "binary expression must contain only scalar and instant vector types".to_owned(),
        )),
    }
}

fn with_number(
    op: TokenId,
    as_number: bool,
    series: Vec<Series>,
    of: impl Fn(usize, f64) -> Option<f64>,
) -> Result<Value, Error> {
    let out = series.into_iter().map(|one| {
        let labels = match !is_comparison(op) || as_number {
            true => one.labels.nameless(),
            false => one.labels,
        };
        let points = one.points.into_iter().enumerate();
        Series { labels, points: points.map(|(step, value)| of(step, value?)).collect() }
    });
    Ok(Value::Vector(merged(out.collect())?))
}

/// The labels by which two series find each other.
fn signature(labels: &Labels, matching: Option<&LabelModifier>) -> Labels {
    match matching {
        None => labels.clone().nameless(),
        Some(LabelModifier::Include(names)) => labels.only(&names.labels),
        Some(LabelModifier::Exclude(names)) => labels.all_but(&names.labels).nameless(),
    }
}

/// A number for each signature.
#[derive(Default)]
struct Signatures(HashMap<Labels, usize>);

impl Signatures {
    fn of(&mut self, series: &[Series], matching: Option<&LabelModifier>) -> Vec<usize> {
        let number = |one: &Series| {
            let next = self.0.len();
            *self.0.entry(signature(&one.labels, matching)).or_insert(next)
        };
        series.iter().map(number).collect()
    }
}

fn sets(
    op: TokenId,
    modifier: &BinModifier,
    left: Vec<Series>,
    right: Vec<Series>,
    steps: usize,
) -> Result<Value, Error> {
    let mut signatures = Signatures::default();
    let left_of = signatures.of(&left, modifier.matching.as_ref());
    let right_of = signatures.of(&right, modifier.matching.as_ref());
    // At which steps any series of a signature is there.
    let there = |series: &[Series], of: &[usize]| {
        let mut there: HashMap<usize, Vec<bool>> = HashMap::new();
        for (one, number) in series.iter().zip(of) {
            let there = there.entry(*number).or_insert_with(|| vec![false; steps]);
            there.iter_mut().zip(&one.points).for_each(|(is, point)| *is |= point.is_some());
        }
        there
    };
    let kept = |series: Vec<Series>,
                of: &[usize],
                other: &HashMap<usize, Vec<bool>>,
                where_other: bool| {
        let one = |(one, number): (Series, &usize)| {
            let other = other.get(number);
            let is_there = |step: usize| other.is_some_and(|there| there[step]);
            let points = one.points.into_iter().enumerate();
            let points =
                points.map(|(step, point)| point.filter(|_| is_there(step) == where_other));
            Series { labels: one.labels, points: points.collect() }
        };
        series.into_iter().zip(of).map(one).collect::<Vec<_>>()
    };
    let out = match op {
        T_LAND => kept(left, &left_of, &there(&right, &right_of), true),
        T_LUNLESS => kept(left, &left_of, &there(&right, &right_of), false),
        _ => {
            let on_the_left = there(&left, &left_of);
            let mut all = left;
            all.extend(kept(right, &right_of, &on_the_left, false));
            all
        }
    };
    Ok(Value::Vector(merged(out)?))
}

/// Series of two sides that are matched one to one, or many to one.
struct Matching<'a> {
    evaluator: &'a Evaluator<'a>,
    op: TokenId,
    modifier: &'a BinModifier,
    steps: usize,
}

impl Matching<'_> {
    fn run(&self, left: &[Series], right: &[Series]) -> Result<Value, Error> {
        // What is called "many" here may be one as well; "one" is never many.
        let swapped = matches!(self.modifier.card, VectorMatchCardinality::OneToMany(_));
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        let mut signatures = Signatures::default();
        let one_of = signatures.of(one, self.modifier.matching.as_ref());
        let many_of = signatures.of(many, self.modifier.matching.as_ref());
        let count = signatures.0.len();
        let mut out: Vec<Series> = Vec::new();
        let mut by_pair: HashMap<(usize, usize), usize> = HashMap::new();
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        let one_to_one = matches!(self.modifier.card, VectorMatchCardinality::OneToOne);
        for step in 0..self.steps {
            if step % 256 == 0 {
                self.evaluator.check_time()?;
            }
            let mut here: Vec<Option<usize>> = vec![None; count];
            for (n, number) in
                one_of.iter().enumerate().filter(|(n, _)| one[*n].points[step].is_some())
            {
                if let Some(other) = here[*number].replace(n) {
                    return Err(self.many_to_many(
                        &one[n],
                        &one[other],
                        if swapped { "left" } else { "right" },
                    ));
                }
            }
            let mut matched = vec![false; count];
            for (m, number) in many_of.iter().enumerate() {
                let Some(n) = here[*number] else { continue };
                let (Some(a), Some(b)) = (many[m].points[step], one[n].points[step]) else {
                    continue;
                };
                let (a, b) = if swapped { (b, a) } else { (a, b) };
                let Some(value) = point(self.op, a, b, self.modifier.return_bool) else { continue };
                if one_to_one && std::mem::replace(&mut matched[*number], true) {
                    let text = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
                    return Err(Error::execution(text));
                }
                let at = match by_pair.get(&(m, n)) {
                    Some(at) => *at,
                    None => {
                        let labels = self.labels(&many[m].labels, &one[n].labels);
                        let known = by_labels.get(&labels).copied();
                        let at = match known {
                            Some(at) => at,
                            None => {
                                self.evaluator.room_for(out.len() + 1, self.steps)?;
                                by_labels.insert(labels.clone(), out.len());
                                out.push(Series { labels, points: vec![None; self.steps] });
                                out.len() - 1
                            }
                        };
                        by_pair.insert((m, n), at);
                        at
                    }
                };
                if out[at].points[step].replace(value).is_some() {
                    return Err(match one_to_one {
                        true => Error::same_labels(),
                        false => Error::execution(
                            "multiple matches for labels: grouping labels must ensure unique matches",
                        ),
                    });
                }
            }
        }
        Ok(Value::Vector(out))
    }

    fn labels(&self, many: &Labels, one: &Labels) -> Labels {
        let mut labels = many.clone();
        if !is_comparison(self.op) || self.modifier.return_bool {
            labels.remove(NAME);
        }
        match &self.modifier.card {
            VectorMatchCardinality::OneToOne => match &self.modifier.matching {
                Some(LabelModifier::Include(names)) => labels = labels.only(&names.labels),
                Some(LabelModifier::Exclude(names)) => labels = labels.all_but(&names.labels),
                None => {}
            },
            card => {
                for name in card.labels().into_iter().flat_map(|names| &names.labels) {
                    labels.set(name, one.get(name));
                }
            }
        }
        labels
    }

    fn many_to_many(&self, a: &Series, b: &Series, side: &str) -> Error {
        let text = |labels: &Labels| {
            let all = labels.iter().map(|(name, value)| format!("{name}={value:?}"));
            format!("{{{}}}", all.collect::<Vec<_>>().join(", "))
        };
        let group = signature(&a.labels, self.modifier.matching.as_ref());
        Error::execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
             many-to-many matching not allowed: matching labels must be unique on one side",
            text(&group),
            text(&a.labels),
            text(&b.labels),
        ))
    }
}
