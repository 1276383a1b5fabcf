//! The look-ups of alarms: one number of one chart, again and again.
//!
//! The same windows, tiers and grouping as [`run`](super::run), for one row. Which metrics a look-up reads is worked out
//! once per definition of the chart ([`Lookup::lanes`]); evaluating it then allocates nothing, once [`Scratch`] has grown.

use std::sync::Arc;

use super::group::{Grouping, Method};
use super::options::Options;
use super::rows::{Column, Facet, Notes, Walk};
use super::select::{self, SEPARATORS};
use super::tiers::{self, Stretch, Tiers};
use super::window::{self, Asked, Held};
use crate::base::pattern::SimplePattern;
use crate::base::stats::{QueryBy, STATS};
use crate::base::time::UnixSeconds;
use crate::metrics::ChartState;
use crate::storage::Reader;

/// What is looked up.
#[derive(Clone, Debug)]
pub struct Lookup {
    pub method: Method,
    /// The method's name.
    pub name: &'static str,
    /// Seconds, negative.
    pub after: i64,
    /// Seconds, 0 or negative.
    pub before: i64,
    pub options: Options,
    /// Dimensions as written; empty = all that are not hidden.
    pub dimensions: Arc<str>,
}

/// A metric that a look-up reads.
pub struct Lane {
    reader: Arc<dyn Reader>,
    /// Counts; others are only part of the total of percentages.
    shown: bool,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// NaN for nothing.
    pub value: f64,
    /// First and last second it is about; 0 without any.
    pub after: i64,
    pub before: i64,
}

impl Found {
    pub const NOTHING: Found = Found { value: f64::NAN, after: 0, before: 0 };
}

/// Memory that look-ups share, one after another.
#[derive(Default)]
pub struct Scratch {
    stretches: Vec<Stretch>,
    column: Column,
    kept: Vec<f64>,
    tiers: Vec<Tiers>,
    values: Vec<(f64, bool)>,
}

impl Lookup {
    /// The metrics of a chart that are read; `only` names the one dimension of a look-up made for each.
    pub fn lanes(&self, state: &ChartState, only: Option<&str>) -> Box<[Lane]> {
        let pattern = (!self.dimensions.is_empty() && &*self.dimensions != "*")
            .then(|| SimplePattern::with_separators(&self.dimensions, SEPARATORS));
        let lanes = state.dims.iter().filter_map(|dim| {
            let shown = match (only, &pattern) {
                (Some(only), _) => *dim.name == *only,
                (None, Some(pattern)) => select::matches(pattern, self.options, &dim.id, &dim.name),
                (None, None) => !dim.is_hidden(),
            };
            let counts = shown || self.options.contains(Options::PERCENTAGE);
            counts.then(|| Lane { reader: Arc::clone(&dim.reader), shown })
        });
        lanes.collect()
    }

    /// First and last second that is held of `lanes`.
    pub fn held(lanes: &[Lane]) -> Option<(i64, i64)> {
        lanes
            .iter()
            .filter_map(|lane| lane.reader.retention())
            .map(|(first, last)| (first.0, last.0))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// The number for now, of a chart that is collected `every` so many seconds.
    pub fn evaluate(&self, lanes: &[Lane], every: i64, clock: i64, scratch: &mut Scratch) -> Found {
        scratch.tiers.clear();
        let mut held: Option<Held> = None;
        for lane in lanes {
            let tiers = select::held(&*lane.reader, every);
            if let Some((first, last)) = select::span_of(&tiers) {
                held = Some(held.map_or(Held { every, first, last }, |held| Held {
                    every,
                    first: held.first.min(first),
                    last: held.last.max(last),
                }));
            }
            scratch.tiers.push(tiers);
        }
        let Some(held) = held else { return Found::NOTHING };
        let asked = Asked {
            after: self.after,
            before: self.before,
            points: 1,
            gtime: 0,
            options: self.options,
            forced_every: None,
        };
        let window = window::resolve(&asked, held, clock, 1);
        let facet = if self.options.contains(Options::ANOMALY_BIT) {
            Facet::AnomalyRate
        } else {
            Facet::of(self.method)
        };
        let mut grouping =
            Grouping::reusing(self.method, "", &window, std::mem::take(&mut scratch.kept));
        scratch.values.clear();
        let mut points = 0;
        for (lane, tiers) in lanes.iter().zip(&scratch.tiers) {
            if select::span_of(tiers).is_none() {
                continue;
            }
            let span = (window.after, window.before, 1);
            tiers::plan(tiers, None, span, &mut scratch.stretches);
            let column = std::mem::take(&mut scratch.column);
            let mut walk = Walk::reusing(&window, facet, Notes::default(), &mut grouping, column);
            for stretch in &scratch.stretches {
                let (from, to) = (UnixSeconds(stretch.after), UnixSeconds(stretch.before));
                let every = stretch.every;
                if stretch.tier == 0 {
                    lane.reader
                        .read(from, to, &mut |end, sample| walk.feed_sample(end.0, every, sample));
                } else {
                    lane.reader
                        .read_tier(stretch.tier, from, to, &mut |point| walk.feed(&point, every));
                }
            }
            scratch.column = walk.finish();
            points += scratch.column.points_read;
            let value = scratch.column.values.last().copied().unwrap_or(f64::NAN);
            scratch.values.push((value, lane.shown));
        }
        scratch.kept = grouping.into_memory();
        STATS.query(QueryBy::Health, scratch.values.len() as u64, points);
        let value = self.one_number(&scratch.values);
        Found { value, after: window.after, before: window.before }
    }

    /// The row as one number: the sum of what is shown, or the distance of its extremes; NaN when all is null.
    fn one_number(&self, values: &[(f64, bool)]) -> f64 {
        let absolute = self.options.contains(Options::ABSOLUTE);
        let signed = |value: f64| if absolute { value.abs() } else { value };
        let known = || values.iter().filter(|(value, _)| !value.is_nan());
        let total = self.options.contains(Options::PERCENTAGE).then(|| {
            let total = known().map(|(value, _)| signed(*value)).sum::<f64>();
            if total == 0.0 { 1.0 } else { total }
        });
        let share = |value: f64| total.map_or(value, |total| value * 100.0 / total);
        let shown = || known().filter(|(_, shown)| *shown).map(|(value, _)| share(signed(*value)));
        let Some(first) = shown().next() else {
            return if self.options.contains(Options::NULL2ZERO) { 0.0 } else { f64::NAN };
        };
        if !self.options.contains(Options::MIN2MAX) {
            return shown().sum();
        }
        let ends = (first.min(0.0), first.max(0.0));
        let ends = shown().fold(ends, |(min, max), value| (min.min(value), max.max(value)));
        ends.1 - ends.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::answer::Row;
    use crate::query::run::samples::{T0, host};
    use crate::query::run::{Query, run};

    /// The number of a look-up is that of a query for one row with the same words.
    #[test]
    fn a_look_up_is_a_query_for_one_row() {
        let host = host();
        let chart = host.chart("t.abs").unwrap();
        let mut scratch = Scratch::default();
        let mut compared = 0;
        for method in ["average", "sum", "min", "max", "median", "stddev", "incremental_sum", "ses"]
        {
            for options in ["", "unaligned", "abs,percentage", "min2max", "null2zero,unaligned"] {
                for dimensions in ["", "up", "zero,hid", "gap", "u*|!z*"] {
                    for (after, before) in [(-60, 0), (-7, -5), (-300, -100)] {
                        let (method, name) = Method::parse(method);
                        let options = Options::parse(options);
                        let lookup = Lookup {
                            method,
                            name,
                            after,
                            before,
                            options,
                            dimensions: dimensions.into(),
                        };
                        let clock = T0 + 901;
                        let lanes = lookup.lanes(&chart.lock(), None);
                        let found = lookup.evaluate(&lanes, 1, clock, &mut scratch);
                        let query = Query {
                            chart: "t.abs",
                            dimensions,
                            after,
                            before,
                            points: 1,
                            group: name,
                            options,
                            clock,
                            ..Query::default()
                        };
                        let answer = run(&host, &query, &|| false).unwrap().answer;
                        let want = match answer.rows() {
                            0 => f64::NAN,
                            rows => answer.one_number(rows - 1, &mut Row::default()),
                        };
                        let near = (found.value - want).abs() <= 1e-9 * want.abs().max(1.0);
                        assert!(
                            near || (found.value.is_nan() && want.is_nan()),
                            "{query:?}: {found:?} instead of {want}"
                        );
                        assert_eq!(
                            (found.after, found.before),
                            (answer.window.after, answer.window.before)
                        );
                        compared += 1;
                    }
                }
            }
        }
        assert_eq!(compared, 8 * 5 * 5 * 3);
    }

    #[test]
    fn a_look_up_of_one_dimension_goes_by_its_name() {
        let host = host();
        let chart = host.chart("t.abs").unwrap();
        let lookup = Lookup {
            method: Method::Average,
            name: "average",
            after: -10,
            before: 0,
            options: Options::default(),
            dimensions: "".into(),
        };
        assert_eq!(lookup.lanes(&chart.lock(), Some("Zero Zero")).len(), 1);
        assert_eq!(lookup.lanes(&chart.lock(), Some("nothing")).len(), 0);
        let nothing = lookup.evaluate(&[], 1, T0, &mut Scratch::default());
        assert!(nothing.value.is_nan() && nothing.before == 0);
    }
}
