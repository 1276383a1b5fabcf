//! Which metrics a query is about: charts by id, name, pattern, context and labels, then their dimensions.
//!
//! Takes each chart's lock once, for as long as it takes to copy what the query needs of it. Charts that are not live come
//! after those that are.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::answer::{ChartRef, FullLists};
use super::options::Options;
use super::tiers::{TIERS_MAX, TierHeld, Tiers};
use super::window;
use crate::base::pattern::SimplePattern;
use crate::base::time::UnixSeconds;
use crate::metrics::{Chart, ChartState, Dimension, Host, Labels};
use crate::storage::Reader;

/// Lists of names are separated by these and not by blanks, which names may hold.
pub const SEPARATORS: &[u8] = b",|\t\r\n\x0b\x0c";

/// What a client says about the metrics it wants. Texts that are empty count as not given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Id, name or pattern.
    pub chart: &'a str,
    pub context: &'a str,
    /// Pattern over ids and names.
    pub dimensions: &'a str,
    pub chart_label_key: &'a str,
    pub chart_labels_filter: &'a str,
    pub options: Options,
    pub after: i64,
    pub before: i64,
}

/// A metric to read.
pub(super) struct Metric {
    pub(super) chart: usize,
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) shown: bool,
    pub(super) latest: f64,
    /// Of the chart.
    pub(super) every: i64,
    pub(super) tiers: Tiers,
    /// Others of the chart have samples from before its first one: it is a gap there, as far as rows are concerned.
    pub(super) joined_later: bool,
    pub(super) tiers_count: usize,
    pub(super) reader: Arc<dyn Reader>,
}

#[derive(Default)]
pub(super) struct Selection {
    /// The one chart that was named; otherwise the query is one by pattern.
    pub(super) single: bool,
    pub(super) charts: Vec<ChartRef>,
    pub(super) metrics: Vec<Metric>,
    /// The label keys that were asked for.
    pub(super) label_keys: Vec<String>,
    pub(super) full: Option<FullLists>,
}

/// A pattern list, unless it says nothing.
fn pattern(list: &str) -> Option<SimplePattern> {
    (!list.is_empty() && list != "*").then(|| SimplePattern::separated_by(list, SEPARATORS))
}

/// Whether chart or context was given at all.
pub(super) fn says_anything(wanted: &Wanted<'_>) -> bool {
    pattern(wanted.chart).is_some() || pattern(wanted.context).is_some()
}

pub(super) fn select(host: &Host, wanted: &Wanted<'_>, clock: i64) -> Selection {
    let mut selection = Selection {
        label_keys: keys(wanted.chart_label_key),
        full: wanted.options.contains(Options::ALL_DIMENSIONS).then(FullLists::default),
        ..Selection::default()
    };
    let by_dimension = (!wanted.dimensions.is_empty())
        .then(|| SimplePattern::separated_by(wanted.dimensions, SEPARATORS));
    let mut collector = Collector {
        by_dimension,
        options: wanted.options,
        span: window::absolute(wanted.after, wanted.before, clock - 1),
        clock,
        selection: &mut selection,
        seen: FxHashSet::default(),
    };
    let by_context = pattern(wanted.context);
    let by_label = [pattern(wanted.chart_label_key), pattern(wanted.chart_labels_filter)];
    let labelled = |state: &ChartState| {
        by_label.iter().flatten().all(|pattern| any_label_matches(pattern, &state.labels))
    };
    if by_context.is_none()
        && let Some(chart) = host.find_any_chart(wanted.chart)
    {
        let older = host.archived_dimensions(&chart);
        let mut state = chart.lock();
        collector.list(&chart, &state);
        if labelled(&state) {
            collector.take(&chart, &mut state, &older);
        }
        drop(state);
        selection.single = true;
        return selection;
    }
    let by_chart = pattern(wanted.chart);
    let in_context =
        |context: &str| by_context.as_ref().is_none_or(|pattern| pattern.matches(context));
    let is_asked = |id: &str, name: &str| {
        by_chart.as_ref().is_none_or(|pattern| matches(pattern, wanted.options, id, name))
    };
    let mut consider = |chart: &Arc<Chart>| {
        if !in_context(&chart.lock().meta.context) {
            return;
        }
        let older = host.archived_dimensions(chart);
        let mut state = chart.lock();
        collector.list(chart, &state);
        if is_asked(chart.id(), &state.meta.name) && labelled(&state) {
            collector.take(chart, &mut state, &older);
        }
    };
    host.charts().iter().for_each(&mut consider);
    let lists_all = wanted.options.contains(Options::ALL_DIMENSIONS);
    host.archived_charts(
        &mut |head| in_context(head.context) && (lists_all || is_asked(head.id, head.name)),
        &mut consider,
    );
    selection
}

/// The keys of a list of `key` and `key:value`.
fn keys(list: &str) -> Vec<String> {
    if list == "*" {
        return Vec::new();
    }
    list.split(|c: char| u8::try_from(c).is_ok_and(|c| SEPARATORS.contains(&c)))
        .map(|entry| entry.split(':').next().unwrap_or(entry))
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(super) fn matches(pattern: &SimplePattern, options: Options, id: &str, name: &str) -> bool {
    let ids = options.contains(Options::MATCH_IDS);
    let names = options.contains(Options::MATCH_NAMES);
    ((ids || !names) && pattern.matches(id)) || ((names || !ids) && pattern.matches(name))
}

/// Whether a label's name, or its name and value joined by a colon, is in the list.
pub fn any_label_matches(pattern: &SimplePattern, labels: &Labels) -> bool {
    labels.iter().any(|label| {
        pattern.matches(&label.name) || pattern.matches(&format!("{}:{}", label.name, label.value))
    })
}

/// What every tier holds of a metric. A point of a higher tier counts once its time is over: until then it knows only a
/// part of its samples.
pub(super) fn held(reader: &dyn Reader, every: i64) -> Tiers {
    let mut tiers = Tiers::default();
    let samples = reader.retention();
    tiers[0] = samples.map(|(first, last)| TierHeld { every, first: first.0, last: last.0 });
    let newest = samples.map_or(i64::MAX, |(_, last)| last.0);
    for (tier, held) in tiers.iter_mut().enumerate().take(reader.tiers()).skip(1) {
        *held = reader.tier_retention(tier).and_then(|(every, first, last)| {
            let last = last.0.min(newest - newest.rem_euclid(every));
            (first.0 <= last).then_some(TierHeld { every, first: first.0, last })
        });
    }
    tiers
}

/// First and last second over all tiers.
pub(super) fn span_of(tiers: &Tiers) -> Option<(i64, i64)> {
    tiers
        .iter()
        .flatten()
        .map(|held| (held.first, held.last))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

struct Collector<'a> {
    by_dimension: Option<SimplePattern>,
    options: Options,
    /// What the query is about, as far as that is known before the metrics are.
    span: (i64, i64),
    clock: i64,
    selection: &'a mut Selection,
    /// Names that the full lists hold already.
    seen: FxHashSet<(u8, Arc<str>, Arc<str>)>,
}

impl Collector<'_> {
    /// Adds a chart to the full lists.
    fn list(&mut self, chart: &Chart, state: &ChartState) {
        let Some(full) = &mut self.selection.full else { return };
        let name = &state.meta.name;
        full.charts.push((Arc::clone(chart.id()), Arc::clone(name)));
        for dim in &state.dims {
            if self.seen.insert((0, Arc::clone(&dim.id), Arc::clone(&dim.name))) {
                full.dimensions.push((Arc::clone(&dim.id), Arc::clone(&dim.name)));
            }
        }
        for label in state.labels.iter() {
            if self.seen.insert((1, Arc::clone(&label.name), Arc::clone(&label.value))) {
                full.labels.push((Arc::clone(&label.name), Arc::clone(&label.value)));
            }
        }
    }

    /// Adds the dimensions of a chart that the query has to compute.
    fn take(&mut self, chart: &Chart, state: &mut ChartState, older: &[Dimension]) {
        state.last_accessed = UnixSeconds(self.clock);
        let every = state.meta.update_every.seconds();
        let index = self.selection.charts.len();
        let before_us = self.selection.metrics.len();
        let all: Vec<Tiers> =
            state.dims.iter().chain(older).map(|dim| held(&*dim.reader, every)).collect();
        let chart_begin = all.iter().filter_map(span_of).map(|(first, _)| first).min();
        for (dim, tiers) in state.dims.iter().chain(older).zip(all) {
            let shown = match &self.by_dimension {
                Some(pattern) => matches(pattern, self.options, &dim.id, &dim.name),
                None => !dim.is_hidden(),
            };
            // percentages are of everything the chart has
            if !shown && !self.options.contains(Options::PERCENTAGE) {
                continue;
            }
            let Some((first, last)) = span_of(&tiers) else { continue };
            let (after, before) = self.span;
            // One that has nothing to say just now is there all the same.
            let last = if dim.is_obsolete() { last } else { last.max(state.last_updated.0) };
            if first - 2 * every > before || last + 2 * every < after {
                continue;
            }
            self.selection.metrics.push(Metric {
                chart: index,
                id: Arc::clone(&dim.id),
                name: Arc::clone(&dim.name),
                shown,
                latest: dim.latest,
                every,
                tiers,
                joined_later: chart_begin.is_some_and(|begin| first > begin),
                tiers_count: dim.reader.tiers().clamp(1, TIERS_MAX),
                reader: Arc::clone(&dim.reader),
            });
        }
        if self.selection.metrics.len() > before_us {
            let labels = self.selection.label_keys.iter().map(|key| {
                state.labels.iter().find(|l| *l.name == **key).map(|l| Arc::clone(&l.value))
            });
            let labels = labels.collect();
            self.selection.charts.push(ChartRef {
                id: Arc::clone(chart.id()),
                name: Arc::clone(&state.meta.name),
                labels,
            });
        }
    }
}
