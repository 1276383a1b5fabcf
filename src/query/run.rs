//! Runs a query: selects, resolves the window, walks every metric. The only part that reads storage.
//!
//! Runs on the caller's thread, which has others help where much is read, and holds no lock while it reads. Memory is
//! bounded by [`VALUES_MAX`] values.

use std::sync::Arc;

use super::answer::{Answer, ChartRef, Series};
use super::group::{Grouping, Method};
use super::options::Options;
use super::rows::{Column, Facet, Notes, Walk};
use super::select::{self, Metric, Wanted};
use super::tiers::{self, Stretch};
use super::window::{self, Asked, Held};
use crate::base::stats::{QueryBy, STATS};
use crate::base::threads;
use crate::base::time::UnixSeconds;
use crate::metrics::Host;
use crate::storage::Reader;

/// Values one answer may hold; a query that would need more gets fewer rows, each over a longer time.
pub const VALUES_MAX: i64 = 16 << 20;
/// Points to read from which on another processor is worth asking for help.
const POINTS_SHARED: usize = 15_000;

/// A query of one host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    pub chart: &'a str,
    pub context: &'a str,
    pub dimensions: &'a str,
    pub chart_label_key: &'a str,
    pub chart_labels_filter: &'a str,
    /// Seconds, absolute or relative; 0 = the latest, or ten minutes.
    pub after: i64,
    pub before: i64,
    pub points: i64,
    pub gtime: i64,
    /// A method's word.
    pub group: &'a str,
    pub group_options: &'a str,
    pub options: Options,
    pub tier: Option<usize>,
    /// The current second.
    pub clock: i64,
    /// Note which rows hold a counter's reset.
    pub want_resets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("neither a chart nor a context is given")]
    NothingAsked,
    #[error("no metric matches")]
    NoMatch,
    #[error("the query took longer than its time-out")]
    TimedOut,
}

/// Whether the query is about one chart that was named, or a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Single,
    Pattern,
}

/// An answer and what only the query could tell about it.
#[derive(Debug)]
pub struct Outcome {
    pub answer: Answer,
    pub kind: Kind,
    pub label_keys: Vec<String>,
    /// The tier that was asked for, if there is one of that number.
    pub tier: Option<usize>,
}

/// Answers `query`; `expired` is asked before every metric.
pub fn run(
    host: &Host,
    query: &Query<'_>,
    expired: &(dyn Fn() -> bool + Sync),
) -> Result<Outcome, QueryError> {
    let wanted = Wanted {
        chart: query.chart,
        context: query.context,
        dimensions: query.dimensions,
        chart_label_key: query.chart_label_key,
        chart_labels_filter: query.chart_labels_filter,
        options: query.options,
        after: query.after,
        before: query.before,
    };
    if !select::says_anything(&wanted) {
        return Err(QueryError::NothingAsked);
    }
    let selection = select::select(host, &wanted, query.clock);
    let Some(held) = held(&selection.metrics) else { return Err(QueryError::NoMatch) };
    let mut options = query.options;
    let tiers = selection.metrics.iter().map(|metric| metric.tiers_count).max().unwrap_or(1);
    let tier = query.tier.filter(|tier| *tier < tiers);
    options.set(Options::SELECTED_TIER, tier.is_some());
    let asked = Asked {
        after: query.after,
        before: query.before,
        points: query.points,
        gtime: query.gtime,
        options,
        forced_every: tier.filter(|tier| *tier > 0).and_then(|tier| {
            selection.metrics.iter().filter_map(|m| m.tiers[tier].map(|held| held.every)).min()
        }),
    };
    let rows_max = VALUES_MAX / i64::try_from(selection.metrics.len()).unwrap_or(i64::MAX);
    let window = window::resolve(&asked, held, query.clock, rows_max);
    options.remove(Options::NATURAL_POINTS | Options::VIRTUAL_POINTS);
    options.insert(if window.natural { Options::NATURAL_POINTS } else { Options::VIRTUAL_POINTS });

    let (method, group) = Method::parse(query.group);
    let facet =
        if options.contains(Options::ANOMALY_BIT) { Facet::AnomalyRate } else { Facet::of(method) };
    let notes = Notes {
        anomaly_rates: options.contains(Options::ANOMALY_RATES),
        resets: query.want_resets,
    };
    let rows = i64::try_from(window.rows).unwrap_or(i64::MAX);
    // Points that a metric takes, about; the first one speaks for all.
    let points = selection.metrics.first().map_or(1, |metric| {
        let mut stretches = Vec::new();
        tiers::plan(&metric.tiers, tier, (window.after, window.before, rows), &mut stretches);
        let points = stretches.iter().map(|s| (s.before - s.after) / s.every.max(1));
        usize::try_from(points.sum::<i64>()).unwrap_or(0).max(1)
    });
    let metrics = &selection.metrics;
    let computed = threads::shared(metrics.len(), POINTS_SHARED.div_ceil(points), |share| {
        let mut grouping = Grouping::new(method, query.group_options, &window);
        let mut points_per_tier = vec![0; tiers];
        let mut stretches = Vec::new();
        let mut columns = Vec::with_capacity(share.len());
        for metric in &metrics[share] {
            if expired() {
                return None;
            }
            tiers::plan(&metric.tiers, tier, (window.after, window.before, rows), &mut stretches);
            let mut walk = Walk::new(&window, facet, notes, &mut grouping);
            if let Some(stretch) = stretches.first()
                && let Some(held) = metric.tiers[stretch.tier]
                && metric.joined_later
                && held.first > stretch.after
            {
                walk.feed_gap(held.first - stretch.every);
            }
            columns.push(column(&*metric.reader, &stretches, walk, &mut points_per_tier));
        }
        Some((columns, points_per_tier))
    });
    let mut columns = Vec::with_capacity(metrics.len());
    let mut points_per_tier = vec![0; tiers];
    for share in computed {
        let (of_share, points) = share.ok_or(QueryError::TimedOut)?;
        columns.extend(of_share);
        points_per_tier.iter_mut().zip(points).for_each(|(all, points)| *all += points);
    }
    let series = selection.metrics.into_iter().zip(columns).map(|(metric, column)| Series {
        chart: metric.chart,
        id: metric.id,
        name: metric.name,
        latest: metric.latest,
        shown: metric.shown,
        column,
    });
    let mut series: Vec<Series> = series.collect();
    if options.contains(Options::NONZERO) && query.dimensions.is_empty() {
        drop_zeros(&mut series);
    }
    let answer = Answer {
        window,
        held,
        options,
        group,
        charts: selection.charts,
        series,
        points_per_tier,
        full: selection.full,
    };
    let kind = if selection.single { Kind::Single } else { Kind::Pattern };
    Ok(Outcome { answer, kind, label_keys: selection.label_keys, tier })
}

/// What all metrics together hold; `None` without metrics.
fn held(metrics: &[Metric]) -> Option<Held> {
    metrics
        .iter()
        .filter_map(|m| {
            let (first, last) = select::span_of(&m.tiers)?;
            Some(Held { every: m.every, first, last })
        })
        .reduce(|a, b| Held {
            every: a.every.min(b.every),
            first: a.first.min(b.first),
            last: a.last.max(b.last),
        })
}

/// Walks one metric through the tiers that answer best.
fn column(
    reader: &dyn Reader,
    stretches: &[Stretch],
    mut walk: Walk<'_>,
    points_per_tier: &mut [u64],
) -> Column {
    for stretch in stretches {
        let before = walk.points_read();
        let (from, to) = (UnixSeconds(stretch.after), UnixSeconds(stretch.before));
        let every = stretch.every;
        if stretch.tier == 0 && walk.takes_rows(every) {
            reader.read(from, to, &mut |end, sample| walk.feed_row(end.0, sample));
        } else if stretch.tier == 0 {
            reader.read(from, to, &mut |end, sample| walk.feed_sample(end.0, every, sample));
        } else {
            reader.read_tier(stretch.tier, from, to, &mut |point| walk.feed(&point, every));
        }
        if let Some(points) = points_per_tier.get_mut(stretch.tier) {
            *points += walk.points_read() - before;
        }
    }
    walk.finish()
}

/// Hides dimensions whose samples are all zero or missing, unless that hides everything.
fn drop_zeros(series: &mut [Series]) {
    if series.iter().any(|s| s.shown && s.column.nonzero) {
        for s in series {
            s.shown &= s.column.nonzero;
        }
    }
}

impl Outcome {
    /// Counts what was read, for the agent's charts about itself.
    pub fn counted(self, by: QueryBy) -> Outcome {
        let points = self.answer.points_per_tier.iter().sum();
        STATS.query(by, self.answer.series.len() as u64, points);
        self
    }

    /// The chart of a single-chart query.
    pub fn chart(&self) -> Option<&ChartRef> {
        self.answer.charts.first().filter(|_| self.kind == Kind::Single)
    }

    pub fn chart_name(&self) -> Option<Arc<str>> {
        self.chart().map(|chart| Arc::clone(&chart.name))
    }
}

#[cfg(test)]
pub mod samples {
    //! A host with a short past, for tests of whatever asks questions.

    use super::*;
    use crate::base::ids::MachineGuid;
    use crate::base::number::SampleFlags;
    use crate::base::time::UpdateEvery;
    use crate::metrics::{
        Algorithm, ChartSpec, DimensionOptions, DimensionSpec, HostInfo, HostKind, HostSettings,
        LabelSource, Point, PointValue,
    };
    use crate::storage::Mode;
    use crate::storage::ring::RingEngine;

    pub const T0: i64 = 1_700_000_000;
    pub const SECONDS: i64 = 900;

    /// Charts `t.abs` (up, `some zero` named "Zero Zero", gap, hid hidden) and `t.two` (up), both of context `t.ctx`,
    /// and `t.slow` every five seconds (s).
    pub fn host() -> Arc<Host> {
        let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
        let info = HostInfo::named("node");
        let host = Host::new(
            MachineGuid::random(),
            HostKind::Local,
            info,
            engine,
            HostSettings::default(),
        );
        for (id, name, context, every, dims) in [
            ("t.abs", "absname", "t.ctx", 1, &["up", "zero", "gap", "hid"][..]),
            ("t.two", "", "t.ctx", 1, &["up"]),
            ("t.slow", "", "t.slow", 5, &["s"]),
        ] {
            let every = UpdateEvery::clamped(every);
            let chart = host
                .define_chart(&ChartSpec {
                    id,
                    name,
                    context,
                    units: "things/s",
                    title: if id == "t.abs" { "The absolute one" } else { "The second one" },
                    update_every: every,
                    plugin: "feed",
                    ..ChartSpec::default()
                })
                .unwrap();
            if id == "t.abs" {
                chart.lock().labels.set("colour", "red", LabelSource::CONFIG);
            }
            for dim in dims {
                chart
                    .define_dimension(&DimensionSpec {
                        name: if *dim == "zero" { "Zero Zero" } else { "" },
                        options: if *dim == "hid" {
                            DimensionOptions::HIDDEN
                        } else {
                            DimensionOptions::empty()
                        },
                        ..DimensionSpec::plain(dim, Algorithm::Absolute, 1, 1)
                    })
                    .unwrap();
            }
            let mut end = T0 + every.seconds();
            while end <= T0 + SECONDS {
                let t = end - T0;
                let values: Vec<_> = dims
                    .iter()
                    .zip(0..)
                    .map(|(dim, n)| PointValue {
                        dim: n,
                        collected: t,
                        value: match *dim {
                            "up" => (t % 100) as f64,
                            "zero" => 0.0,
                            "gap" if t % 10 < 5 => f64::NAN,
                            "hid" => 100.0,
                            _ => t as f64,
                        },
                        flags: SampleFlags::default(),
                    })
                    .collect();
                chart.store_point(&Point { end: UnixSeconds(end), every, values: &values });
                end += every.seconds();
            }
        }
        host
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{SECONDS, T0, host};
    use super::*;

    fn query() -> Query<'static> {
        Query {
            chart: "t.abs",
            after: T0 + 101,
            before: T0 + 103,
            clock: T0 + 5000,
            ..Query::default()
        }
    }

    fn ask(query: &Query<'_>) -> Result<Outcome, QueryError> {
        run(&host(), query, &|| false)
    }

    /// Names of the shown dimensions.
    #[track_caller]
    fn names(query: &Query<'_>, want: &[&str]) {
        let outcome = ask(query).unwrap();
        assert_eq!(outcome.answer.shown().map(|s| s.name.to_string()).collect::<Vec<_>>(), want);
    }

    #[test]
    fn dimensions_are_chosen_by_id_name_and_pattern() {
        names(&query(), &["up", "Zero Zero", "gap"]);
        names(&Query { chart: "t.absname", ..query() }, &["up", "Zero Zero", "gap"]);
        names(&Query { dimensions: "*", ..query() }, &["up", "Zero Zero", "gap", "hid"]);
        names(&Query { dimensions: "hid,Zero Zero", ..query() }, &["Zero Zero", "hid"]);
        names(&Query { dimensions: "zero|u*", ..query() }, &["up", "Zero Zero"]);
        names(&Query { dimensions: "zero|up", options: Options::MATCH_NAMES, ..query() }, &["up"]);
        let nonzero = Query { options: Options::NONZERO, before: T0 + 110, ..query() };
        names(&nonzero, &["up", "gap"]);
        names(&Query { dimensions: "zero", ..nonzero }, &["Zero Zero"]);
        names(&Query { options: Options::PERCENTAGE, dimensions: "up", ..query() }, &["up"]);
    }

    #[test]
    fn charts_are_chosen_by_context_pattern_and_label() {
        let pattern = Query { chart: "", context: "t.ctx", ..query() };
        names(&pattern, &["up", "Zero Zero", "gap", "up"]);
        names(&Query { chart: "*two", ..pattern }, &["up"]);
        names(&Query { chart_labels_filter: "colour:red", dimensions: "up", ..pattern }, &["up"]);
        let outcome = ask(&Query { chart_label_key: "colour,size", ..pattern }).unwrap();
        assert_eq!(
            (outcome.kind, outcome.label_keys.len(), outcome.answer.charts.len()),
            (Kind::Pattern, 2, 1)
        );
        assert_eq!(outcome.answer.charts[0].labels[0].as_deref(), Some("red"));
        assert_eq!(ask(&Query { chart: "t.nosuch", ..query() }).unwrap_err(), QueryError::NoMatch);
        assert_eq!(ask(&Query { chart: "*", ..query() }).unwrap_err(), QueryError::NothingAsked);
    }

    #[test]
    fn rows_hold_what_was_stored() {
        let answer = ask(&query()).unwrap().answer;
        assert_eq!(answer.rows(), 3);
        assert_eq!(answer.series[0].column.values, [1.0, 2.0, 3.0]);
        assert!(answer.series[2].column.values.iter().all(|v| v.is_nan()));
        assert_eq!((answer.held.first, answer.held.last), (T0 + 1, T0 + SECONDS));
        assert_eq!(answer.points_per_tier, [9]);
    }

    #[test]
    fn a_window_without_samples_is_no_match_but_one_that_touches_them_is() {
        let at = |after: i64, before: i64| {
            ask(&Query { after: T0 + after, before: T0 + before, ..query() })
        };
        assert_eq!(at(903, 950).unwrap_err(), QueryError::NoMatch);
        assert_eq!(at(902, 950).unwrap().answer.rows(), 49);
        assert_eq!(at(-20, -2).unwrap_err(), QueryError::NoMatch);
        assert_eq!(
            ask(&Query { after: 0, before: 0, ..query() }).unwrap_err(),
            QueryError::NoMatch
        );
    }

    #[test]
    fn a_spent_timeout_ends_the_query() {
        assert_eq!(run(&host(), &query(), &|| true).unwrap_err(), QueryError::TimedOut);
    }

    #[test]
    fn everything_about_the_contexts_can_be_listed() {
        let query = Query {
            options: Options::ALL_DIMENSIONS,
            chart: "",
            context: "t.ctx",
            chart_labels_filter: "colour:red",
            ..query()
        };
        let full = ask(&query).unwrap().answer.full.unwrap();
        assert_eq!(full.charts.len(), 2);
        assert_eq!(full.dimensions.len(), 4);
        assert!(full.labels.iter().any(|(k, v)| &**k == "colour" && &**v == "red"));
    }
}
