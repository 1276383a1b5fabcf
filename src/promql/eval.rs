//! Walks an expression: selectors, subqueries, and what is made of them at every step.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use promql_parser::label::{MatchOp, Matcher, Matchers};
use promql_parser::parser::{AtModifier, Expr, Offset, SubqueryExpr, VectorSelector};

use super::labels::{Labels, NAME};
use super::parse::TIME_MS_MAX;
use super::value::{LABELS_WEIGHT, RawSeries, Series, Value, merged};
use super::windows::{Moment, Window};
use super::{Alternatives, Error, Limits, Source, Stored, aggregate, binary, functions};

/// Steps of a subquery that names none, as Prometheus has them where nothing is configured.
const SUBQUERY_STEP_MS: i64 = 60_000;
/// Samples between two looks at the clock.
const CHECKED_EVERY: usize = 1 << 20;
/// Times of steps, wherever they are moved, are not further away.
const TIMES_MS_MAX: i64 = 2 * TIME_MS_MAX;
/// Values are taken from the budget of all queries in pieces of so many.
const TAKEN_AT_ONCE: usize = 1 << 14;

/// The times of a query, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub start_ms: i64,
    pub end_ms: i64,
    /// Above zero.
    pub step_ms: i64,
}

impl Times {
    fn steps(self) -> impl Iterator<Item = i64> {
        let next = move |at: &i64| at.checked_add(self.step_ms).filter(|at| *at <= self.end_ms);
        std::iter::successors(Some(self.start_ms).filter(|at| *at <= self.end_ms), next)
    }

    fn count(self) -> usize {
        let whole = i128::from(self.end_ms) - i128::from(self.start_ms);
        let steps = whole.div_euclid(i128::from(self.step_ms.max(1))) + 1;
        usize::try_from(steps.max(0)).unwrap_or(usize::MAX)
    }
}

/// What an instant query comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Instant {
    Scalar(f64),
    Text(String),
    Vector(Vec<(Labels, f64)>),
    Matrix(Vec<RawSeries>),
}

pub struct Evaluator<'a> {
    source: &'a dyn Source,
    limits: Limits,
    lookback_ms: i64,
    /// Of the whole query, for `@ start()` and `@ end()`.
    whole: Times,
    expired: &'a dyn Fn() -> bool,
    samples: Cell<u64>,
    series: Cell<u64>,
    /// Values that are held just now, …
    held: Cell<usize>,
    /// … and the most there were, which are of the budget until the query ends.
    taken: Cell<usize>,
}

impl Drop for Evaluator<'_> {
    fn drop(&mut self) {
        self.limits.budget.give_back(self.taken.get());
    }
}

impl<'a> Evaluator<'a> {
    pub fn new(
        source: &'a dyn Source,
        limits: Limits,
        lookback_ms: i64,
        whole: Times,
        expired: &'a dyn Fn() -> bool,
    ) -> Evaluator<'a> {
        Evaluator {
            source,
            limits,
            lookback_ms,
            whole,
            expired,
            samples: Cell::new(0),
            series: Cell::new(0),
            held: Cell::new(0),
            taken: Cell::new(0),
        }
    }

    /// Series and samples that were read.
    pub fn read(&self) -> (u64, u64) {
        (self.series.get(), self.samples.get())
    }

    /// At the one time of the query.
    pub fn instant(&self, expr: &Expr) -> Result<Instant, Error> {
        let at = [self.whole.start_ms];
        if let Some(Ranged::Selector(selector, range)) = ranged(expr) {
            return Ok(Instant::Matrix(self.raw_series(selector, millis(range)?, at[0])?));
        }
        if let Some(Ranged::Subquery(subquery)) = ranged(expr) {
            let times = self.subquery_times(subquery, &at)?;
            return Ok(Instant::Matrix(self.subquery_series(subquery, times)?));
        }
        Ok(match self.eval(expr, &at)? {
            Value::Scalar(values) => Instant::Scalar(values.first().copied().unwrap_or(f64::NAN)),
            Value::Text(text) => Instant::Text(text),
            Value::Vector(series) => {
                let value = |one: Series| Some((one.labels, (*one.points.first()?)?));
                Instant::Vector(series.into_iter().filter_map(value).collect())
            }
        })
    }

    /// At every step of the query, and the times of these.
    pub fn range(&self, expr: &Expr) -> Result<(Vec<i64>, Vec<Series>), Error> {
        self.room_for(1, self.whole.count())?;
        let times: Vec<i64> = self.whole.steps().collect();
        let series = match self.eval(expr, &times)? {
            Value::Vector(mut series) => {
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
                series
            }
            Value::Scalar(values) => {
                let points = values.into_iter().map(Some).collect();
                vec![Series { labels: Labels::default(), points }]
            }
            Value::Text(_) => {
                return Err(Error::Parse(
                    "invalid expression type \"string\" for range query, must be Scalar or instant Vector"
                        .to_owned(),
                ));
            }
        };
        Ok((times, series))
    }

    pub(super) fn check_time(&self) -> Result<(), Error> {
        if (self.expired)() { Err(Error::TimedOut) } else { Ok(()) }
    }

    pub(super) fn eval(&self, expr: &Expr, times: &[i64]) -> Result<Value, Error> {
        self.check_time()?;
        let before = self.held.get();
        let value = self.value(expr, times)?;
        // What it was made of is gone.
        self.held.set(before);
        self.hold(value.weight())?;
        Ok(value)
    }

    fn value(&self, expr: &Expr, times: &[i64]) -> Result<Value, Error> {
        self.room_for(1, times.len())?;
        match expr {
            Expr::NumberLiteral(number) => Ok(Value::Scalar(vec![number.val; times.len()])),
            Expr::StringLiteral(text) => Ok(Value::Text(text.val.clone())),
            Expr::Paren(inner) => self.eval(&inner.expr, times),
            Expr::Unary(inner) => negative(self.eval(&inner.expr, times)?),
            Expr::VectorSelector(selector) => {
                let newest = |at: &Found| at.1;
                Ok(Value::Vector(self.instants(selector, times, newest)?))
            }
            Expr::Aggregate(aggregate) => aggregate::eval(self, aggregate, times),
            Expr::Binary(binary) => binary::eval(self, binary, times),
            Expr::Call(call) => functions::eval(self, call, times),
            Expr::MatrixSelector(_) | Expr::Subquery(_) => Err(Error::Parse(
                "invalid expression type \"range vector\", must be Scalar or instant Vector"
                    .to_owned(),
            )),
            Expr::Extension(_) => Err(Error::execution("nothing is known of this expression")),
        }
    }

    pub(super) fn vector(&self, expr: &Expr, times: &[i64]) -> Result<Vec<Series>, Error> {
        match self.eval(expr, times)? {
            Value::Vector(series) => Ok(series),
            _ => Err(Error::Parse("expected type instant vector".to_owned())),
        }
    }

    pub(super) fn scalar(&self, expr: &Expr, times: &[i64]) -> Result<Vec<f64>, Error> {
        match self.eval(expr, times)? {
            Value::Scalar(values) => Ok(values),
            _ => Err(Error::Parse("expected type scalar".to_owned())),
        }
    }

    pub(super) fn text(&self, expr: &Expr) -> Result<String, Error> {
        match self.eval(expr, &[])? {
            Value::Text(text) => Ok(text),
            _ => Err(Error::Parse("expected type string".to_owned())),
        }
    }

    /// So many series are about to be held beside what is held already.
    pub(super) fn room_for(&self, series: usize, steps: usize) -> Result<(), Error> {
        self.room(series.saturating_mul(steps.saturating_add(LABELS_WEIGHT)))
    }

    fn room(&self, values: usize) -> Result<(), Error> {
        let all = self.held.get().saturating_add(values);
        if all > self.limits.values {
            return Err(Error::execution(
                "query processing would load too many samples into memory in query execution",
            ));
        }
        let lacking = all.saturating_sub(self.taken.get());
        if lacking > 0 {
            let more = lacking.next_multiple_of(TAKEN_AT_ONCE);
            if !self.limits.budget.take(more) {
                return Err(Error::Busy);
            }
            self.taken.set(self.taken.get() + more);
        }
        Ok(())
    }

    /// So many values are held until the part of the expression that is evaluated is done.
    fn hold(&self, values: usize) -> Result<(), Error> {
        self.room(values)?;
        self.held.set(self.held.get() + values);
        Ok(())
    }

    /// What a selector finds at each step, as `told` has it.
    pub(super) fn instants(
        &self,
        selector: &VectorSelector,
        times: &[i64],
        told: impl Fn(&Found) -> f64,
    ) -> Result<Vec<Series>, Error> {
        let shift = self.shift(selector.at.as_ref(), selector.offset.as_ref())?;
        let Some((first, last)) = shift.bounds(times)? else { return Ok(Vec::new()) };
        let found = self.select(selector, (first - self.lookback_ms, last))?;
        self.room_for(found.len(), times.len())?;
        let spans = shift.spans(times, self.lookback_ms);
        let (mut out, mut samples) = (Vec::with_capacity(found.len()), Vec::new());
        for stored in found {
            self.read_samples(&stored, &spans, &mut samples)?;
            let mut next = 0;
            let points = times.iter().map(|at| {
                let at = shift.of(*at);
                // Times only grow, unless all are the same.
                while samples.get(next).is_some_and(|(time, _)| *time <= at) {
                    next += 1;
                }
                let newest = samples.get(next.checked_sub(1)?)?;
                let fresh = newest.0 >= at - self.lookback_ms
                    && stored.over_ms.is_none_or(|over| at <= over.max(newest.0));
                fresh.then(|| told(newest))
            });
            let points: Vec<_> = points.collect();
            if points.iter().any(Option::is_some) {
                out.push(Series { labels: stored.labels, points });
            }
        }
        Ok(out)
    }

    /// Calls `of` with every window of every series of a range selector or subquery.
    pub(super) fn windows(
        &self,
        expr: &Expr,
        times: &[i64],
        of: &mut dyn FnMut(&Window<'_>, usize) -> Option<f64>,
    ) -> Result<Vec<Series>, Error> {
        let (range_ms, shift, series) = match ranged(expr) {
            Some(Ranged::Selector(selector, range)) => {
                let range_ms = millis(range)?;
                let shift = self.shift(selector.at.as_ref(), selector.offset.as_ref())?;
                let Some((first, last)) = shift.bounds(times)? else { return Ok(Vec::new()) };
                let found = self.select(selector, (first - range_ms, last))?;
                self.room_for(found.len(), times.len())?;
                let spans = shift.spans(times, range_ms);
                let (mut out, mut samples) = (Vec::with_capacity(found.len()), Vec::new());
                for stored in found {
                    self.read_samples(&stored, &spans, &mut samples)?;
                    let points = self.slide(&samples, range_ms, shift, times, of)?;
                    out.push(Series { labels: stored.labels, points });
                }
                return Ok(out);
            }
            Some(Ranged::Subquery(subquery)) => {
                let shift = self.shift(subquery.at.as_ref(), subquery.offset.as_ref())?;
                let inner = self.subquery_times(subquery, times)?;
                (millis(subquery.range)?, shift, self.subquery_series(subquery, inner)?)
            }
            None => return Err(Error::Parse("expected type range vector".to_owned())),
        };
        self.room_for(series.len(), times.len())?;
        let mut out = Vec::with_capacity(series.len());
        for one in series {
            self.check_time()?;
            let points = self.slide(&one.samples, range_ms, shift, times, of)?;
            out.push(Series { labels: one.labels, points });
        }
        Ok(out)
    }

    /// Every window of one series' samples.
    fn slide(
        &self,
        samples: &[(i64, f64)],
        range_ms: i64,
        shift: Shift,
        times: &[i64],
        of: &mut dyn FnMut(&Window<'_>, usize) -> Option<f64>,
    ) -> Result<Vec<Option<f64>>, Error> {
        let (mut begin, mut end, mut looked_at) = (0, 0, 0);
        let mut points = Vec::with_capacity(times.len());
        for (step, at) in times.iter().enumerate() {
            let to = shift.of(*at);
            let from = to - range_ms;
            while samples.get(end).is_some_and(|(time, _)| *time <= to) {
                end += 1;
            }
            while begin < end && samples[begin].0 < from {
                begin += 1;
            }
            let samples = &samples[begin..end];
            // Windows overlap, so that few samples may be looked at very often.
            looked_at += samples.len();
            if looked_at > CHECKED_EVERY {
                looked_at = 0;
                self.check_time()?;
            }
            let moment = Moment { at_ms: *at, from_ms: from, to_ms: to };
            let window = Window { samples, moment };
            points.push(if samples.is_empty() { None } else { of(&window, step) });
        }
        Ok(points)
    }

    /// A range selector at one time.
    fn raw_series(
        &self,
        selector: &VectorSelector,
        range_ms: i64,
        at: i64,
    ) -> Result<Vec<RawSeries>, Error> {
        let shift = self.shift(selector.at.as_ref(), selector.offset.as_ref())?;
        let Some((at, _)) = shift.bounds(&[at])? else { return Ok(Vec::new()) };
        let (mut out, mut held) = (Vec::new(), 0);
        for stored in self.select(selector, (at - range_ms, at))? {
            let mut samples = Vec::new();
            self.read_samples(&stored, &[(at - range_ms, at)], &mut samples)?;
            held += samples.len() + LABELS_WEIGHT;
            self.room(held)?;
            if !samples.is_empty() {
                out.push(RawSeries { labels: stored.labels, samples });
            }
        }
        Ok(out)
    }

    fn subquery_times(&self, subquery: &SubqueryExpr, times: &[i64]) -> Result<Times, Error> {
        let shift = self.shift(subquery.at.as_ref(), subquery.offset.as_ref())?;
        let range_ms = millis(subquery.range)?;
        let step_ms = match subquery.step {
            Some(step) => millis(step)?.max(1),
            None => SUBQUERY_STEP_MS,
        };
        let (first, last) = shift.bounds(times)?.unwrap_or((0, -1));
        // Steps are whole multiples of their length, wherever the query begins.
        let begin = first - range_ms;
        let start_ms = begin.div_euclid(step_ms) * step_ms;
        let start_ms = if start_ms < begin { start_ms + step_ms } else { start_ms };
        Ok(Times { start_ms, end_ms: last, step_ms })
    }

    fn subquery_series(
        &self,
        subquery: &SubqueryExpr,
        times: Times,
    ) -> Result<Vec<RawSeries>, Error> {
        self.hold(times.count())?;
        let times: Vec<i64> = times.steps().collect();
        let series = match self.eval(&subquery.expr, &times)? {
            Value::Vector(series) => series,
            Value::Scalar(values) => {
                let points = values.into_iter().map(Some).collect();
                vec![Series { labels: Labels::default(), points }]
            }
            Value::Text(_) => {
                let text = "subquery is only allowed on instant vector, got string instead";
                return Err(Error::Parse(text.to_owned()));
            }
        };
        let raw = |one: Series| {
            let samples = times.iter().zip(one.points).filter_map(|(at, v)| Some((*at, v?)));
            RawSeries { labels: one.labels, samples: samples.collect() }
        };
        Ok(series.into_iter().map(raw).filter(|one| !one.samples.is_empty()).collect())
    }

    fn select(&self, selector: &VectorSelector, span: (i64, i64)) -> Result<Vec<Stored>, Error> {
        let wanted = alternatives(selector.name.as_deref(), &selector.matchers);
        let found = self.source.select(&wanted, span, &self.limits, self.expired)?;
        self.series.set(self.series.get() + found.len() as u64);
        Ok(found)
    }

    fn read_samples(
        &self,
        stored: &Stored,
        spans: &[(i64, i64)],
        out: &mut Vec<(i64, f64)>,
    ) -> Result<(), Error> {
        self.check_time()?;
        out.clear();
        for (from, to) in spans {
            stored.samples.read(*from, *to, out);
        }
        self.samples.set(self.samples.get() + out.len() as u64);
        if self.samples.get() > self.limits.samples {
            return Err(Error::execution("the query reads too many samples"));
        }
        self.room_for(1, out.len())
    }

    fn shift(&self, at: Option<&AtModifier>, offset: Option<&Offset>) -> Result<Shift, Error> {
        let fixed_ms = match at {
            None => None,
            Some(AtModifier::Start) => Some(self.whole.start_ms),
            Some(AtModifier::End) => Some(self.whole.end_ms),
            Some(AtModifier::At(time)) => Some(match time.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => millis(since)?,
                Err(before) => -millis(before.duration())?,
            }),
        };
        let offset_ms = match offset {
            None => 0,
            Some(Offset::Pos(offset)) => millis(*offset)?,
            Some(Offset::Neg(offset)) => -millis(*offset)?,
        };
        Ok(Shift { fixed_ms, offset_ms })
    }
}

/// Time and value of the newest sample of a series.
pub(super) type Found = (i64, f64);

/// What `@` and `offset` make of the time of a step.
#[derive(Clone, Copy)]
struct Shift {
    fixed_ms: Option<i64>,
    offset_ms: i64,
}

impl Shift {
    fn of(self, at: i64) -> i64 {
        self.fixed_ms.unwrap_or(at).saturating_sub(self.offset_ms)
    }

    /// What the windows of all steps cover, each ending at its step and so long; windows that touch are one.
    fn spans(self, times: &[i64], length_ms: i64) -> Vec<(i64, i64)> {
        let mut spans: Vec<(i64, i64)> = Vec::new();
        for at in times {
            let to = self.of(*at);
            let from = to - length_ms;
            match spans.last_mut() {
                // A gap that is short is read faster than it is jumped over.
                Some(last) if from <= last.1 + length_ms => last.1 = last.1.max(to),
                _ => spans.push((from, to)),
            }
        }
        spans
    }

    /// The first and the last of all times, from which any duration can be taken.
    fn bounds(self, times: &[i64]) -> Result<Option<(i64, i64)>, Error> {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(None) };
        let (first, last) = (self.of(*first), self.of(*last));
        if first < -TIMES_MS_MAX || last > TIMES_MS_MAX {
            return Err(Error::execution("a time of the query is out of range"));
        }
        Ok(Some((first, last)))
    }
}

/// An expression that gives more than one sample of a series.
enum Ranged<'e> {
    Selector(&'e VectorSelector, Duration),
    Subquery(&'e SubqueryExpr),
}

fn ranged(expr: &Expr) -> Option<Ranged<'_>> {
    match expr {
        Expr::MatrixSelector(matrix) => Some(Ranged::Selector(&matrix.vs, matrix.range)),
        Expr::Subquery(subquery) => Some(Ranged::Subquery(subquery)),
        Expr::Paren(inner) => ranged(&inner.expr),
        _ => None,
    }
}

fn millis(duration: Duration) -> Result<i64, Error> {
    let millis = i64::try_from(duration.as_millis()).ok().filter(|ms| *ms <= TIME_MS_MAX);
    millis.ok_or_else(|| Error::Parse("duration out of range".to_owned()))
}

/// The matchers of a selector, its name among them.
pub fn alternatives(name: Option<&str>, matchers: &Matchers) -> Alternatives {
    let name = name.map(|name| Matcher::new(MatchOp::Equal, NAME, name));
    let with_name = |all: &Vec<Matcher>| name.iter().chain(all).cloned().collect();
    if matchers.or_matchers.is_empty() {
        return vec![with_name(&matchers.matchers)];
    }
    matchers.or_matchers.iter().map(with_name).collect()
}

fn negative(value: Value) -> Result<Value, Error> {
    Ok(match value {
        Value::Scalar(values) => Value::Scalar(values.into_iter().map(|v| -v).collect()),
        Value::Vector(series) => {
            let turned = series.into_iter().map(|one| Series {
                labels: one.labels.nameless(),
                points: one.points.into_iter().map(|point| point.map(|v| -v)).collect(),
            });
            Value::Vector(merged(turned.collect())?)
        }
        Value::Text(_) => return Err(Error::Parse("a string has no sign".to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::budget::Budget;
    use crate::promql::{Samples, parse};

    /// One series, `x`, with a sample every second.
    struct Seconds;

    impl Source for Seconds {
        fn select(
            &self,
            _: &Alternatives,
            _: (i64, i64),
            _: &Limits,
            _: &dyn Fn() -> bool,
        ) -> Result<Vec<Stored>, Error> {
            let labels = Labels::of([(NAME, "x")]);
            Ok(vec![Stored { labels, samples: Box::new(Seconds), over_ms: Some(5_000_000) }])
        }
    }

    impl Samples for Seconds {
        fn read(&self, from_ms: i64, to_ms: i64, out: &mut Vec<(i64, f64)>) {
            let seconds = from_ms.max(0).div_euclid(1000)..=to_ms.div_euclid(1000).min(4_900);
            out.extend(seconds.map(|s| (s * 1000, s as f64)).filter(|(at, _)| *at >= from_ms));
        }
    }

    fn ask(
        query: &str,
        at_s: i64,
        limits: Limits,
        expired: &dyn Fn() -> bool,
    ) -> Result<Instant, Error> {
        let whole = Times { start_ms: at_s * 1000, end_ms: at_s * 1000, step_ms: 1 };
        let expr = parse::parse(query)?;
        Evaluator::new(&Seconds, limits, 300_000, whole, expired).instant(&expr)
    }

    #[test]
    fn times_are_counted_whatever_they_are() {
        let count = |start_ms, end_ms, step_ms| Times { start_ms, end_ms, step_ms }.count();
        assert_eq!(count(0, 10, 3), 4);
        assert_eq!(count(5, 5, 1), 1);
        assert_eq!((count(6, 5, 3), count(0, -1, 60_000)), (0, 0));
        assert_eq!(count(i64::MIN, i64::MAX, 1), usize::MAX);
        assert_eq!(count(i64::MIN, i64::MAX, i64::MAX), 3);
    }

    #[test]
    fn durations_and_times_that_are_too_large_are_refused() {
        let nested = |inside: &str, range: &str| {
            let (open, close) = ("max_over_time((".repeat(9), format!("){range})").repeat(9));
            format!("{open}{inside}{close}")
        };
        for query in [
            nested("x", "[36000000y:1000000y] offset -18000000y"),
            nested("x", "[140000y:70000y] offset -140000y"),
            nested("x", "[140000y:70000y] offset 140000y"),
            "max_over_time(x[140000y:1s])".to_owned(),
            "x[36000000y]".to_owned(),
            "x offset 36000000y".to_owned(),
            "x @ 1e18".to_owned(),
        ] {
            let answer = ask(&query, 4_000, Limits::default(), &|| false);
            assert!(matches!(answer, Err(Error::Execution(_) | Error::Parse(_))), "{query}");
        }
        let whole = Times { start_ms: -TIME_MS_MAX, end_ms: TIME_MS_MAX, step_ms: 1 };
        let evaluator = Evaluator::new(&Seconds, Limits::default(), 10_000, whole, &|| false);
        let answer = evaluator.range(&parse::parse("1").unwrap());
        assert!(matches!(answer, Err(Error::Execution(_))));
    }

    #[test]
    fn values_of_all_parts_of_a_query_count_together() {
        let few = Limits { values: 5_000, ..Limits::default() };
        // A thousand steps of each of the operands, and as many times.
        let sum = |operands: usize| {
            let (open, close) = ("(x + ".repeat(operands - 1), ")".repeat(operands - 1));
            format!("max_over_time(({open}x{close})[999s:1s])")
        };
        assert!(ask(&sum(2), 4_000, few, &|| false).is_ok());
        let answer = ask(&sum(9), 4_000, few, &|| false);
        assert!(matches!(answer, Err(Error::Execution(_))), "{answer:?}");
        // One after the other they are held no longer than one alone.
        let folded = format!("max_over_time(({})[999s:1s])", ["x"; 9].join(" + "));
        assert!(ask(&folded, 4_000, few, &|| false).is_ok());
    }

    #[test]
    fn labels_that_grow_with_every_call_are_refused() {
        let grown = |calls: usize, replacement: &str| {
            let (open, close) = (
                "label_replace(".repeat(calls),
                format!(", \"a\", \"{replacement}\", \"a\", \".*\")").repeat(calls),
            );
            let seed = "label_replace(x, \"a\", \"0123456789\", \"\", \"\")";
            ask(&format!("{open}{seed}{close}"), 4_000, Limits::default(), &|| false)
        };
        assert!(grown(2, &"$0".repeat(20)).is_ok());
        for answer in [grown(3, &"$0".repeat(20)), grown(2, &"$0".repeat(5_000))] {
            assert!(matches!(answer, Err(Error::Execution(_))), "{answer:?}");
        }
    }

    #[test]
    fn queries_at_once_share_what_they_may_hold() {
        static ROOM: Budget = Budget::new(TAKEN_AT_ONCE);
        let limits = Limits { budget: &ROOM, ..Limits::default() };
        let whole = Times { start_ms: 4_000_000, end_ms: 4_000_000, step_ms: 1 };
        let first = Evaluator::new(&Seconds, limits, 300_000, whole, &|| false);
        assert!(first.instant(&parse::parse("x").unwrap()).is_ok());
        assert_eq!(ask("x", 4_000, limits, &|| false), Err(Error::Busy));
        drop(first);
        assert!(ask("x", 4_000, limits, &|| false).is_ok());
        assert!(ask("x", 4_000, limits, &|| false).is_ok());
    }

    #[track_caller]
    fn check(query: &str, at_s: i64, want: &[f64]) {
        let Ok(Instant::Vector(found)) = ask(query, at_s, Limits::default(), &|| false) else {
            panic!("{query} is no vector")
        };
        assert_eq!(found.iter().map(|(_, value)| *value).collect::<Vec<_>>(), want, "{query}");
    }

    #[test]
    fn a_series_that_was_said_to_be_over_stands_for_nothing() {
        check("x", 4_950, &[4_900.0]);
        check("x", 5_000, &[4_900.0]);
        check("x", 5_001, &[]);
        check("last_over_time(x[10m])", 5_001, &[4_900.0]);
    }

    #[test]
    fn steps_far_apart_read_their_windows_only() {
        let whole = Times { start_ms: 1_000_000, end_ms: 4_000_000, step_ms: 1_000_000 };
        let evaluator = Evaluator::new(&Seconds, Limits::default(), 10_000, whole, &|| false);
        let expr = parse::parse("x + sum_over_time(x[1s])").unwrap();
        let (times, series) = evaluator.range(&expr).unwrap();
        assert_eq!(times, [1_000_000, 2_000_000, 3_000_000, 4_000_000]);
        let values: Vec<_> = series[0].points.iter().map(|point| point.unwrap()).collect();
        assert_eq!(values, [2999.0, 5999.0, 8999.0, 11999.0]);
        assert_eq!(evaluator.read(), (2, 4 * 11 + 4 * 2));
    }

    #[test]
    fn a_query_ends_at_its_limits() {
        let few = Limits { values: 100, ..Limits::default() };
        for (query, limits) in [
            ("sum_over_time(x[5m])", few),
            ("sum_over_time(x[10m])", Limits { samples: 500, ..Limits::default() }),
            ("max_over_time(x[1h:1s])", few),
            ("x[10m]", few),
        ] {
            let answer = ask(query, 4_000, limits, &|| false);
            assert!(matches!(answer, Err(Error::Execution(_))), "{query}: {answer:?}");
        }
    }

    #[test]
    fn a_query_ends_when_its_time_is_up() {
        let asked = Cell::new(0);
        let expired = || {
            asked.set(asked.get() + 1);
            asked.get() > 10
        };
        // Some thousand windows of some thousand samples each.
        let query = "max_over_time(max_over_time(x[1h])[1h:1s])";
        assert_eq!(ask(query, 4_000, Limits::default(), &expired), Err(Error::TimedOut));
        assert_eq!(asked.get(), 11);
    }

    #[test]
    fn what_is_nested_deeply_is_answered_or_refused() {
        let deep = |open: &str, inside: &str, close: &str, levels: usize| {
            format!("{}{inside}{}", open.repeat(levels), close.repeat(levels))
        };
        let queries = [
            deep("abs(", "x", ")", 480),
            deep("(", "x", ")", 490),
            deep("-", "x", "", 490),
            deep("1 + ", "x", "", 490),
            deep("x or ", "x", "", 240),
            deep("sum(", "x", ")", 480),
            deep("topk(1, ", "x", ")", 480),
            deep("x ^ ", "x", "", 490),
        ];
        let answers = crate::base::threads::with_stack(16 << 20, || {
            queries.map(|query| ask(&query, 4_000, Limits::default(), &|| false).is_ok())
        });
        assert_eq!(answers.unwrap(), [true; 8]);
    }
}
