//! Reads what one batch, or several in a row, hold of a host.
//!
//! A chart's lock is held while names and readers are copied out, never while samples are read or text is made. Runs
//! on the instance's thread.

use std::sync::Arc;

use super::body::{Body, ChartText, DimensionText, HostText, Point, Value};
use super::window::edge;
use crate::base::pattern::SimplePattern;
use crate::base::stats::{QueryBy, STATS};
use crate::base::time::{MICROS, UnixSeconds};
use crate::config::DataSource;
use crate::ingest::remote_write::is_part;
use crate::metrics::{Chart, ChartState, Dimension, Host};
use crate::storage::{Mode, Reader};

/// Whether charts and dimensions that nobody collects any more are looked up, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// The batch is of now: what is over has nothing in it.
    LiveOnly,
    WithArchived,
}

/// Charts in the order in which they are sent.
pub(super) fn charts_of(host: &Host, wanted: &SimplePattern, past: Past) -> Vec<Arc<Chart>> {
    let mut charts = host.charts();
    if past == Past::WithArchived {
        host.archived_charts(
            &mut |head| wanted.matches(head.id) || wanted.matches(head.name),
            &mut |chart| charts.push(Arc::clone(chart)),
        );
    }
    charts
}

/// What is copied out of a chart.
pub(super) struct Copied {
    text: ChartText,
    every: i64,
    dims: Vec<(DimensionText, Arc<dyn Reader>)>,
    /// The slots of its windows: after this one …
    after: i64,
    /// … up to each of these.
    edges: Vec<i64>,
    /// Of the dimension that is being read.
    points: Vec<Point>,
}

fn text_of_chart(chart: &Chart, state: &ChartState) -> ChartText {
    let meta = &state.meta;
    ChartText {
        id: Arc::clone(chart.id()),
        name: Arc::clone(&meta.name),
        family: Arc::clone(&meta.family),
        context: Arc::clone(&meta.context),
        units: Arc::clone(&meta.units),
        from_prometheus: &*meta.module == "prometheus",
    }
}

fn text_of_dimension(dim: &Dimension) -> DimensionText {
    DimensionText {
        id: Arc::clone(&dim.id),
        name: Arc::clone(&dim.name),
        algorithm: dim.algorithm,
        multiplier: dim.multiplier,
        divisor: dim.divisor,
    }
}

fn is_wanted(chart: &Chart, state: &ChartState, wanted: &SimplePattern) -> bool {
    !state.dims.is_empty() && (wanted.matches(chart.id()) || wanted.matches(&state.meta.name))
}

/// The batches of a host that are made at once: of the times `ends`, after one of time `after`.
pub(super) struct Span<'a> {
    pub(super) after: i64,
    pub(super) ends: &'a [i64],
    pub(super) source: DataSource,
    pub(super) past: Past,
}

impl Span<'_> {
    /// What there is of a chart, its samples excepted.
    pub(super) fn chart(
        &self,
        host: &Host,
        chart: &Chart,
        wanted: &SimplePattern,
    ) -> Option<Copied> {
        let mut copied = copy(host, chart, wanted)?;
        if self.past == Past::WithArchived {
            let older = host.archived_dimensions(chart);
            let older = older
                .iter()
                .filter(|dim| !is_part(&chart.lock().meta, dim))
                .map(|dim| (text_of_dimension(dim), Arc::clone(&dim.reader)));
            copied.dims.extend(older);
        }
        copied.after = edge(self.after, copied.every);
        copied.edges = self.ends.iter().map(|end| edge(*end, copied.every)).collect();
        Some(copied)
    }

    /// Adds what is stored of the dimension of that number, to be called in their order; false when there are no more.
    pub(super) fn dimension(
        &self,
        chart: &mut Copied,
        number: usize,
        text: &HostText,
        body: &mut Body,
    ) -> bool {
        let Some((dim, reader)) = chart.dims.get(number) else { return false };
        let points = &mut chart.points;
        points.clear();
        let read = windows(&**reader, chart.after, &chart.edges, self.source, points);
        if number == 0 {
            body.begin_chart(&chart.text);
        }
        body.dimension(text, &chart.text, dim, points);
        STATS.query(QueryBy::Exporters, u64::from(read > 0), read);
        true
    }

    /// Adds what is stored of a chart.
    #[cfg(test)]
    pub(super) fn stored(
        &self,
        host: &Host,
        chart: &Chart,
        wanted: &SimplePattern,
        text: &HostText,
        body: &mut Body,
    ) {
        let Some(mut copied) = self.chart(host, chart, wanted) else { return };
        let _ = (0..).find(|number| !self.dimension(&mut copied, *number, text, body));
    }
}

fn copy(host: &Host, chart: &Chart, wanted: &SimplePattern) -> Option<Copied> {
    let of = |chart: &Chart, state: &ChartState| {
        let dims = state.dims.iter().filter(|dim| !is_part(&state.meta, dim));
        is_wanted(chart, state, wanted).then(|| Copied {
            text: text_of_chart(chart, state),
            every: state.meta.update_every.seconds(),
            dims: dims.map(|dim| (text_of_dimension(dim), Arc::clone(&dim.reader))).collect(),
            after: 0,
            edges: Vec::new(),
            points: Vec::new(),
        })
    };
    {
        let state = chart.lock();
        if !chart.is_retired() {
            return of(chart, &state);
        }
    }
    // Another chart has taken its place meanwhile.
    let heir = host.chart(chart.id())?;
    let state = heir.lock();
    of(&heir, &state)
}

/// Averages or sums of one dimension, a point for each window that holds samples. Gives how many were read.
fn windows(
    reader: &dyn Reader,
    after: i64,
    edges: &[i64],
    source: DataSource,
    points: &mut Vec<Point>,
) -> u64 {
    let Some(&before) = edges.last().filter(|before| **before > after) else { return 0 };
    let (mut read, mut last) = (0, after);
    let (mut window, mut sum, mut count) = (0, 0.0, 0.0);
    let mut close = |window: usize, sum: f64, count: f64, last: i64| {
        let value = if source == DataSource::Sum { sum } else { sum / count };
        if count > 0.0 && value.is_finite() {
            // What is stored ends earlier, of a dimension that is over.
            let at = edges[window].min(last);
            points.push(Point { at_ms: at.saturating_mul(1000), value: Value::Stored(value) });
        }
    };
    reader.read(UnixSeconds(after), UnixSeconds(before), &mut |at, sample| {
        last = at.0;
        while window < edges.len() && at.0 > edges[window] {
            close(window, sum, count, last);
            (window, sum, count) = (window + 1, 0.0, 0.0);
        }
        if window < edges.len() && !sample.is_empty() {
            sum += sample.reading();
            count += 1.0;
            read += 1;
        }
    });
    if window < edges.len() {
        close(window, sum, count, last);
    }
    read
}

/// Adds the values of a chart as they were collected last, of all dimensions that were since `after`.
pub(super) fn collected(
    chart: &Chart,
    wanted: &SimplePattern,
    after: i64,
    text: &HostText,
    body: &mut Body,
) {
    let (chart_text, dims) = {
        let state = chart.lock();
        if state.is_obsolete() || !is_wanted(chart, &state, wanted) {
            return;
        }
        let live = state.dims.iter().filter(|dim| {
            !is_part(&state.meta, dim)
                && dim.was_collected()
                && !dim.is_obsolete()
                && dim.last_collected_us.div_euclid(MICROS) > after
        });
        let point = |dim: &Dimension| Point {
            at_ms: dim.last_collected_us.div_euclid(1000),
            value: Value::Collected(dim.last_collected),
        };
        let dims: Vec<_> = live.map(|dim| (text_of_dimension(dim), point(dim))).collect();
        (text_of_chart(chart, &state), dims)
    };
    body.begin_chart(&chart_text);
    for (dim, point) in &dims {
        body.dimension(text, &chart_text, dim, std::slice::from_ref(point));
    }
}

/// The time whose batch has all its samples, as far as one can tell: by its chart that is furthest. `None` without charts.
pub(super) fn ripe_until(host: &Host) -> Option<i64> {
    let mut fastest = i64::MAX;
    let mut newest = None;
    for chart in host.charts() {
        let state = chart.lock();
        if !state.is_obsolete() {
            fastest = fastest.min(state.meta.update_every.seconds());
            newest = newest.max(Some(state.last_updated.0));
        }
    }
    newest.map(|newest| newest.saturating_add(2 * fastest))
}

/// While samples of the past are still arriving: a number that changes with each of them.
pub(super) fn filling(host: &Host) -> Option<u64> {
    let (mut is_filling, mut version) = (false, 0u64);
    for chart in host.charts() {
        let state = chart.lock();
        is_filling |= state.replicating || state.filling.is_any();
        version = version.wrapping_add(state.past_version);
    }
    is_filling.then_some(version)
}

/// First and last sample that is held of a host, of whatever was collected ever.
pub(super) fn retention(host: &Host) -> Option<(i64, i64)> {
    if host.engine().mode() == Mode::None {
        return None;
    }
    let mut held: Option<(i64, i64)> = None;
    for chart in charts_of(host, &SimplePattern::new("*"), Past::WithArchived) {
        let readers: Vec<_> = chart.lock().dims.iter().map(|dim| Arc::clone(&dim.reader)).collect();
        for (first, last) in readers.iter().filter_map(|reader| reader.retention()) {
            let (from, to) = held.unwrap_or((first.0, last.0));
            held = Some((from.min(first.0), to.max(last.0)));
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::number::Sample;

    struct Held(Vec<(i64, Option<f64>)>);

    impl Reader for Held {
        fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
            Some((UnixSeconds(self.0.first()?.0), UnixSeconds(self.0.last()?.0)))
        }

        fn read(
            &self,
            after: UnixSeconds,
            before: UnixSeconds,
            visit: &mut dyn FnMut(UnixSeconds, Sample),
        ) {
            for (at, value) in self.0.iter().filter(|(at, _)| after.0 < *at && *at <= before.0) {
                visit(UnixSeconds(*at), value.map_or(Sample::EMPTY, Sample::normal));
            }
        }
    }

    #[track_caller]
    fn check(held: &Held, edges: &[i64], source: DataSource, want: &[(i64, f64)]) {
        let mut points = Vec::new();
        windows(held, 0, edges, source, &mut points);
        let told: Vec<_> = points
            .iter()
            .map(|point| match point.value {
                Value::Stored(value) => (point.at_ms / 1000, value),
                Value::Collected(_) => panic!("nothing was collected"),
            })
            .collect();
        assert_eq!(told, want);
    }

    #[test]
    fn every_window_has_its_own_samples() {
        let mut held = Held((1..=35).map(|t| (t, Some(t as f64))).collect());
        held.0[14].1 = None;
        let average = |from: i64, to: i64| (from + to) as f64 / 2.0;
        check(
            &held,
            &[10, 20, 30, 40],
            DataSource::Average,
            &[
                (10, average(1, 10)),
                (20, (155.0 - 15.0) / 9.0),
                (30, average(21, 30)),
                // the last one ends where the samples do
                (35, average(31, 35)),
            ],
        );
        check(&held, &[2], DataSource::Sum, &[(2, 3.0)]);
    }

    #[test]
    fn a_window_without_samples_has_no_point() {
        let held = Held(vec![(5, Some(1.0)), (6, None), (25, Some(3.0))]);
        check(&held, &[10, 20, 30], DataSource::Sum, &[(10, 1.0), (25, 3.0)]);
        check(&Held(Vec::new()), &[10], DataSource::Average, &[]);
        check(&Held(vec![(-5, Some(1.0))]), &[10], DataSource::Average, &[]);
    }
}
