//! `data`: samples of many hosts, grouped over time as in v1 and then by what the metrics have in common.
//!
//! Every host is asked for the same absolute window, so its rows fall together with those of the others. A metric's column goes
//! into its group at once and is forgotten: memory follows the number of groups, which is bounded, not that of metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::envelope::{Scope, Tail, pattern};
use crate::base::json::JsonWriter;
use crate::base::pattern::SimplePattern;
use crate::base::stats::QueryBy;
use crate::metrics::{Host, Labels};
use crate::query::answer::Series;
use crate::query::options::Options;
use crate::query::run::{self, Outcome, QueryError};
use crate::query::window::{self, Window};
use crate::web::api::Call;
use crate::web::http::Response;
use crate::wire::http::Query;

/// Groups of one answer; what comes after them falls together.
const GROUPS_MAX: usize = 1000;
/// Values all groups together may hold.
const VALUES_MAX: usize = 4 << 20;
const REMAINING: &str = "[remaining]";

/// How the metrics of a group become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregation {
    Average,
    Min,
    Max,
    Sum,
    Extremes,
    Percentage,
}

impl Aggregation {
    fn parse(word: &str) -> Aggregation {
        match word {
            "min" => Aggregation::Min,
            "max" => Aggregation::Max,
            "sum" => Aggregation::Sum,
            "extremes" => Aggregation::Extremes,
            "percentage" => Aggregation::Percentage,
            _ => Aggregation::Average,
        }
    }
}

/// What groups are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Selected,
    Dimension,
    Instance,
    Label,
    Node,
    Context,
    Units,
}

const BY: &[(&str, By)] = &[
    ("selected", By::Selected),
    ("dimension", By::Dimension),
    ("instance", By::Instance),
    ("label", By::Label),
    ("node", By::Node),
    ("context", By::Context),
    ("units", By::Units),
];

/// The question, as its parameters say it.
struct Asked<'a> {
    by: Vec<(&'static str, By)>,
    by_label: Vec<&'a str>,
    aggregation: Aggregation,
    options: Options,
    contexts: Vec<SimplePattern>,
    instances: Vec<SimplePattern>,
    dimensions: Vec<SimplePattern>,
    labels: Vec<SimplePattern>,
}

/// The first that is given, an index in brackets or none.
fn either<'a>(query: &'a Query, names: &[&str]) -> &'a str {
    query.get_any(names).unwrap_or("")
}

impl<'a> Asked<'a> {
    fn of(query: &'a Query) -> Asked<'a> {
        let patterns = |names: [&str; 2]| {
            names.iter().filter_map(|name| pattern(query.get(name).unwrap_or(""))).collect()
        };
        let words = either(query, &["group_by", "group_by[0]"]);
        let mut by: Vec<_> = words
            .split([',', '|', ' '])
            .filter_map(|word| BY.iter().find(|(known, _)| *known == word).copied())
            .collect();
        if by.is_empty() {
            by.push(("dimension", By::Dimension));
        }
        let aggregation = Aggregation::parse(either(query, &["aggregation", "aggregation[0]"]));
        let mut options = Options::parse(query.get("options").unwrap_or(""));
        let sums = by.iter().any(|(_, by)| *by != By::Dimension);
        if sums || aggregation == Aggregation::Percentage {
            options |= Options::ABSOLUTE;
        }
        let labels = either(query, &["group_by_label", "group_by_label[0]"]);
        Asked {
            by,
            by_label: labels.split([',', '|']).filter(|name| !name.is_empty()).collect(),
            aggregation,
            options,
            contexts: patterns(["scope_contexts", "contexts"]),
            instances: patterns(["scope_instances", "instances"]),
            dimensions: patterns(["scope_dimensions", "dimensions"]),
            labels: patterns(["scope_labels", "labels"]),
        }
    }
}

/// What is known of some values.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    count: u64,
    min: f64,
    max: f64,
    sum: f64,
    rates: f64,
    /// What it contributes: the sum of the averages of its metrics.
    volume: f64,
    metrics: usize,
}

impl Summary {
    fn see(&mut self, value: f64, rate: f64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = if self.count == 0 { value } else { self.max.max(value) };
        self.sum += value;
        self.rates += rate;
        self.count += 1;
    }

    fn add(&mut self, other: &Summary) {
        if other.count > 0 {
            self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
            self.max = if self.count == 0 { other.max } else { self.max.max(other.max) };
        }
        self.sum += other.sum;
        self.rates += other.rates;
        self.count += other.count;
        self.volume += other.volume;
        self.metrics += other.metrics;
    }

    fn average(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    fn rate(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.rates / self.count as f64 }
    }

    fn share(&self, all: f64) -> f64 {
        if all > 0.0 { self.volume * 100.0 / all } else { 0.0 }
    }

    fn write(&self, j: &mut JsonWriter, all: f64) {
        j.key("sts").object(|j| {
            j.key("min").number(self.min);
            j.key("max").number(self.max);
            j.key("avg").number(self.average());
            j.key("arp").number(self.rate());
            j.key("con").number(self.share(all));
        });
    }
}

/// One row of a group, while metrics come in.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    count: u32,
    missing: u32,
    sum: f64,
    min: f64,
    max: f64,
    rates: f64,
}

impl Place {
    fn see(&mut self, value: f64, rate: f64) {
        if value.is_nan() {
            self.missing += 1;
            return;
        }
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = if self.count == 0 { value } else { self.max.max(value) };
        self.sum += value;
        self.rates += rate;
        self.count += 1;
    }

    fn value(&self, aggregation: Aggregation, total: f64) -> f64 {
        if self.count == 0 {
            return f64::NAN;
        }
        match aggregation {
            Aggregation::Average => self.sum / f64::from(self.count),
            Aggregation::Min => self.min,
            Aggregation::Max => self.max,
            Aggregation::Sum => self.sum,
            Aggregation::Extremes if self.min.abs() > self.max.abs() => self.min,
            Aggregation::Extremes => self.max,
            Aggregation::Percentage if total == 0.0 => 0.0,
            Aggregation::Percentage => self.sum * 100.0 / total,
        }
    }

    fn rate(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.rates / f64::from(self.count) }
    }

    /// 1: nothing at all; 4: something is missing.
    fn annotation(&self) -> i64 {
        match (self.count, self.missing) {
            (0, _) => 1,
            (_, 0) => 0,
            _ => 4,
        }
    }
}

struct Group {
    id: String,
    name: String,
    units: Arc<str>,
    rows: Vec<Place>,
    metrics: usize,
    /// Of the metrics, as they are.
    read: Summary,
}

/// Counts and values of one thing that is part of the answer.
#[derive(Default)]
struct Part {
    instances: usize,
    summary: Summary,
}

/// Everything that comes together.
struct Gathered {
    window: Window,
    groups: Vec<Group>,
    by_id: FxHashMap<String, usize>,
    totals: Vec<f64>,
    all: Summary,
    nodes: Vec<Part>,
    contexts: BTreeMap<Arc<str>, Part>,
    /// (chart, index of its node)
    instances: BTreeMap<(Arc<str>, usize), Part>,
    /// In order of appearance.
    dimensions: Vec<(Arc<str>, Summary)>,
    labels: BTreeMap<String, BTreeMap<String, Summary>>,
    points_per_tier: Vec<u64>,
    every: i64,
    first: i64,
    last: i64,
    title: String,
    chart_type: &'static str,
    units: Arc<str>,
}

impl Gathered {
    fn new(window: Window, nodes: usize) -> Gathered {
        Gathered {
            window,
            groups: Vec::new(),
            by_id: FxHashMap::default(),
            totals: vec![0.0; window.rows],
            all: Summary::default(),
            nodes: (0..nodes).map(|_| Part::default()).collect(),
            contexts: BTreeMap::new(),
            instances: BTreeMap::new(),
            dimensions: Vec::new(),
            labels: BTreeMap::new(),
            points_per_tier: Vec::new(),
            every: i64::MAX,
            first: i64::MAX,
            last: 0,
            title: String::new(),
            chart_type: "line",
            units: "".into(),
        }
    }

    /// The group of that id; beyond the limit all is one.
    fn group(&mut self, id: String, name: String, units: &Arc<str>) -> &mut Group {
        let rows = self.window.rows;
        let full = self.groups.len() >= GROUPS_MAX.min(VALUES_MAX / rows.max(1)).max(1);
        let (id, name) = match self.by_id.contains_key(&id) || !full {
            true => (id, name),
            false => (REMAINING.to_owned(), REMAINING.to_owned()),
        };
        let groups = &mut self.groups;
        let at = *self.by_id.entry(id).or_insert_with_key(|id| {
            groups.push(Group {
                id: id.clone(),
                name,
                units: Arc::clone(units),
                rows: vec![Place::default(); rows],
                metrics: 0,
                read: Summary::default(),
            });
            groups.len() - 1
        });
        &mut self.groups[at]
    }
}

/// What of a metric's chart groups and sums go by.
struct ChartFacts {
    id: Arc<str>,
    context: Arc<str>,
    units: Arc<str>,
    labels: Labels,
    title: Arc<str>,
    chart_type: &'static str,
}

fn facts(host: &Host, id: &str) -> Option<ChartFacts> {
    let chart = host.find_any_chart(id)?;
    let state = chart.lock();
    Some(ChartFacts {
        id: Arc::clone(chart.id()),
        context: Arc::clone(&state.meta.context),
        units: Arc::clone(&state.meta.units),
        labels: state.labels.clone(),
        title: Arc::clone(&state.meta.title),
        chart_type: state.meta.chart_type.name(),
    })
}

pub fn data(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    let query = call.query();
    let asked = Asked::of(query);
    // Without either this would be everything there is.
    if asked.contexts.is_empty() && asked.instances.is_empty() {
        return Response::error(400, "No chart or context is given.");
    }
    let integer = |name, default| query.integer(name).unwrap_or(default);
    let now = call.now().0;
    let (after, before) = window::absolute(integer("after", -600), integer("before", 0), now - 1);
    let timeout_us = integer("timeout", 0).saturating_mul(1000);
    let deadline = call.agent.clock.monotonic_us().saturating_add(timeout_us);
    let expired = || timeout_us > 0 && call.agent.clock.monotonic_us() > deadline;
    let listed = |names: &[&str]| either(query, names).to_owned();
    let (contexts, instances, dimensions, labels) = (
        listed(&["contexts", "scope_contexts"]),
        listed(&["instances", "scope_instances"]),
        listed(&["dimensions", "scope_dimensions"]),
        listed(&["labels", "scope_labels"]),
    );
    let question = run::Query {
        chart: &instances,
        context: if contexts.is_empty() { "*" } else { &contexts },
        dimensions: if dimensions == "*" { "" } else { &dimensions },
        chart_labels_filter: &labels,
        after,
        before,
        points: integer("points", 0),
        gtime: integer("time_resampling", 0),
        group: query.get("time_group").unwrap_or("average"),
        group_options: query.get("time_group_options").unwrap_or(""),
        options: asked.options | Options::VIRTUAL_POINTS | Options::ANOMALY_RATES,
        tier: query.integer("tier").and_then(|tier| usize::try_from(tier).ok()),
        clock: now,
        ..run::Query::default()
    };
    let mut gathered: Option<Gathered> = None;
    for node in &scope.nodes {
        let outcome = match run::run(&node.host, &question, &expired) {
            Ok(outcome) => outcome.counted(QueryBy::ApiData),
            Err(QueryError::TimedOut) => return Response::error(504, "query timeout"),
            Err(QueryError::NothingAsked | QueryError::NoMatch) => continue,
        };
        let window = outcome.answer.window;
        let all = gathered.get_or_insert_with(|| Gathered::new(window, scope.nodes.len()));
        if all.window.rows == window.rows && all.window.before == window.before {
            take(all, &asked, &node.host, node.index, outcome);
        }
    }
    let Some(gathered) = gathered.filter(|all| !all.groups.is_empty()) else {
        return Response::error(404, "No metrics where matched to query.");
    };
    scope.answer(Tail::Agents, |j| write(j, &scope, &asked, &gathered))
}

/// Takes in what one host answered.
fn take(all: &mut Gathered, asked: &Asked<'_>, host: &Host, index: usize, outcome: Outcome) {
    let answer = outcome.answer;
    all.every = all.every.min(answer.held.every);
    all.first = all.first.min(answer.held.first);
    all.last = all.last.max(answer.held.last);
    let tiers = all.points_per_tier.len().max(answer.points_per_tier.len());
    all.points_per_tier.resize(tiers, 0);
    for (sum, own) in all.points_per_tier.iter_mut().zip(&answer.points_per_tier) {
        *sum += own;
    }
    let charts: Vec<_> = answer.charts.iter().map(|chart| facts(host, &chart.id)).collect();
    let hostname = host.hostname();
    let guid = host.guid().to_string();
    for series in answer.series.iter().filter(|series| series.shown) {
        let Some(Some(chart)) = charts.get(series.chart) else { continue };
        let fits = |patterns: &[SimplePattern], names: &[&str]| {
            patterns.iter().all(|p| names.iter().any(|name| p.matches(name)))
        };
        if !fits(&asked.contexts, &[&chart.context])
            || !fits(&asked.instances, &[&chart.id, &answer.charts[series.chart].name])
            || !fits(&asked.dimensions, &[&series.id, &series.name])
            || !asked
                .labels
                .iter()
                .all(|p| crate::query::select::any_label_matches(p, &chart.labels))
        {
            continue;
        }
        if all.title.is_empty() {
            all.title = chart.title.to_string();
            all.chart_type = chart.chart_type;
            all.units = Arc::clone(&chart.units);
        }
        add(all, asked, chart, series, index, [&hostname, &guid]);
    }
}

/// Adds one metric to its group and to everything it is a part of.
fn add(
    all: &mut Gathered,
    asked: &Asked<'_>,
    chart: &ChartFacts,
    series: &Series,
    node: usize,
    [hostname, guid]: [&str; 2],
) {
    let absolute = asked.options.contains(Options::ABSOLUTE);
    let nothing = if asked.options.contains(Options::NULL2ZERO) { 0.0 } else { f64::NAN };
    let mut parts: [Vec<String>; 2] = Default::default();
    for (_, by) in &asked.by {
        let [id, name] = match by {
            By::Selected => ["selected".to_owned(), "selected".to_owned()],
            By::Dimension => [series.id.to_string(), series.name.to_string()],
            By::Instance => [format!("{}@{guid}", chart.id), format!("{}@{hostname}", chart.id)],
            By::Node => [guid.to_owned(), hostname.to_owned()],
            By::Context => [chart.context.to_string(), chart.context.to_string()],
            By::Units => [chart.units.to_string(), chart.units.to_string()],
            By::Label => {
                let values = asked.by_label.iter().map(|key| chart.labels.get(key));
                let values: Vec<_> = values.map(|value| value.unwrap_or("[unset]")).collect();
                [values.join(":"), values.join(":")]
            }
        };
        parts[0].push(id);
        parts[1].push(name);
    }
    let value_of = |row: usize| {
        let value = series.column.values[row];
        match value.is_nan() {
            true => nothing,
            false if absolute => value.abs(),
            false => value,
        }
    };
    let rate_of = |row: usize| series.column.anomaly_rates.get(row).copied().unwrap_or(0.0);
    let mut summary = Summary { metrics: 1, ..Summary::default() };
    let rows = all.window.rows.min(series.column.values.len());
    for row in 0..rows {
        let value = value_of(row);
        if !value.is_nan() {
            let rate = rate_of(row);
            summary.see(value, if rate.is_nan() { 0.0 } else { rate });
            all.totals[row] += value;
        }
    }
    summary.volume = summary.average().abs();
    let group = all.group(parts[0].join(","), parts[1].join(","), &chart.units);
    for row in 0..rows {
        let rate = rate_of(row);
        group.rows[row].see(value_of(row), if rate.is_nan() { 0.0 } else { rate });
    }
    group.metrics += 1;
    group.read.add(&summary);
    all.all.add(&summary);
    let new = {
        let part = all.instances.entry((Arc::clone(&chart.id), node)).or_default();
        part.summary.add(&summary);
        std::mem::replace(&mut part.instances, 1) == 0
    };
    all.nodes[node].summary.add(&summary);
    all.nodes[node].instances += usize::from(new);
    let context = all.contexts.entry(Arc::clone(&chart.context)).or_default();
    context.summary.add(&summary);
    context.instances += usize::from(new);
    match all.dimensions.iter().position(|(id, _)| *id == series.id) {
        Some(known) => all.dimensions[known].1.add(&summary),
        None if all.dimensions.len() < GROUPS_MAX => {
            all.dimensions.push((Arc::clone(&series.id), summary));
        }
        None => {}
    }
    for label in chart.labels.iter() {
        let values = all.labels.entry(label.name.to_string()).or_default();
        if values.len() < GROUPS_MAX || values.contains_key(&*label.value) {
            values.entry(label.value.to_string()).or_default().add(&summary);
        }
    }
}

fn counts(j: &mut JsonWriter, key: &str, count: usize) {
    j.key(key).object(|j| {
        j.key("sl").count(count);
        j.key("qr").count(count);
    });
}

fn write(j: &mut JsonWriter, scope: &Scope<'_, '_>, asked: &Asked<'_>, all: &Gathered) {
    let volume = all.all.volume;
    j.key("summary").object(|j| write_summary(j, scope, all, volume));
    j.key("totals").object(|j| {
        let nodes = all.nodes.iter().filter(|node| node.instances > 0).count();
        counts(j, "nodes", nodes);
        counts(j, "contexts", all.contexts.len());
        counts(j, "instances", all.instances.len());
        counts(j, "dimensions", all.dimensions.len());
        counts(j, "label_keys", all.labels.len());
        counts(j, "label_key_values", all.labels.values().map(BTreeMap::len).sum());
    });
    j.key("functions").array(|_| {});
    write_result(j.key("result"), asked, all);
    write_db(j, all, volume);
    write_view(j, asked, all);
}

fn write_summary(j: &mut JsonWriter, scope: &Scope<'_, '_>, all: &Gathered, volume: f64) {
    j.key("nodes").array(|j| {
        for (node, part) in scope.nodes.iter().zip(&all.nodes) {
            j.object(|j| {
                scope.name(j, node);
                super::envelope::status(j);
                counts(j, "is", part.instances);
                counts(j, "ds", part.summary.metrics);
                part.summary.write(j, volume);
            });
        }
    });
    j.key("contexts").array(|j| {
        for (id, part) in &all.contexts {
            j.object(|j| {
                j.key("id").string(id);
                counts(j, "is", part.instances);
                counts(j, "ds", part.summary.metrics);
                part.summary.write(j, volume);
            });
        }
    });
    j.key("instances").array(|j| {
        for ((id, node), part) in &all.instances {
            j.object(|j| {
                j.key("id").string(id);
                j.key("ni").count(*node);
                counts(j, "ds", part.summary.metrics);
                part.summary.write(j, volume);
            });
        }
    });
    j.key("dimensions").array(|j| {
        for (priority, (id, summary)) in all.dimensions.iter().enumerate() {
            j.object(|j| {
                j.key("id").string(id);
                counts(j, "ds", summary.metrics);
                summary.write(j, volume);
                j.key("pri").count(priority);
            });
        }
    });
    j.key("labels").array(|j| {
        for (name, values) in &all.labels {
            j.object(|j| {
                let mut sum = Summary::default();
                values.values().for_each(|value| sum.add(value));
                j.key("id").string(name);
                counts(j, "ds", sum.metrics);
                sum.write(j, volume);
                j.key("vl").array(|j| {
                    for (value, summary) in values {
                        j.object(|j| {
                            j.key("id").string(value);
                            counts(j, "ds", summary.metrics);
                            summary.write(j, volume);
                        });
                    }
                });
            });
        }
    });
    j.key("alerts").array(|_| {});
}

fn list<T>(j: &mut JsonWriter, key: &str, all: &[T], write: impl Fn(&mut JsonWriter, &T)) {
    j.key(key).array(|j| {
        for one in all {
            write(j, one);
        }
    });
}

fn statistics(j: &mut JsonWriter, all: &[Summary], volume: f64) {
    j.key("sts").object(|j| {
        list(j, "min", all, |j, s| {
            j.number(s.min);
        });
        list(j, "max", all, |j, s| {
            j.number(s.max);
        });
        list(j, "avg", all, |j, s| {
            j.number(s.average());
        });
        list(j, "arp", all, |j, s| {
            j.number(s.rate());
        });
        list(j, "con", all, |j, s| {
            j.number(s.share(volume));
        });
    });
}

fn write_db(j: &mut JsonWriter, all: &Gathered, volume: f64) {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    j.key("db").object(|j| {
        j.key("tiers").count(all.points_per_tier.len());
        j.key("update_every").integer(all.every);
        j.key("first_entry").integer(all.first);
        j.key("last_entry").integer(all.last);
        j.key("units").string(&all.units);
        j.key("dimensions").object(|j| {
            list(j, "ids", &all.groups, |j, g| {
                j.string(&g.id);
            });
            list(j, "units", &all.groups, |j, g| {
                j.string(&g.units);
            });
            let read: Vec<_> = all.groups.iter().map(|group| group.read).collect();
            statistics(j, &read, volume);
        });
        j.key("per_tier").array(|j| {
            for (tier, points) in all.points_per_tier.iter().enumerate() {
                let first = tier == 0;
                j.object(|j| {
                    j.key("tier").count(tier);
                    j.key("queries").count(if *points > 0 { all.all.metrics } else { 0 });
                    j.key("points").integer(number(*points));
                    j.key("update_every").integer(if first { all.every } else { 0 });
                    j.key("first_entry").integer(if first { all.first } else { 0 });
                    j.key("last_entry").integer(if first { all.last } else { 0 });
                });
            }
        });
    });
}

fn write_view(j: &mut JsonWriter, asked: &Asked<'_>, all: &Gathered) {
    let window = &all.window;
    let mut shown = vec![Summary::default(); all.groups.len()];
    let mut extremes = Summary::default();
    for (group, summary) in all.groups.iter().zip(&mut shown) {
        for (place, total) in group.rows.iter().zip(&all.totals) {
            let value = place.value(asked.aggregation, *total);
            if !value.is_nan() {
                summary.see(value, place.rate());
            }
        }
        summary.volume = summary.average().abs();
        extremes.add(summary);
    }
    let percent: Arc<str> = "%".into();
    let units = |group: &Group| match asked.aggregation {
        Aggregation::Percentage => Arc::clone(&percent),
        _ => Arc::clone(&group.units),
    };
    j.key("view").object(|j| {
        j.key("title").string(&all.title);
        j.key("update_every").integer(window.every);
        j.key("after").integer(window.after);
        j.key("before").integer(window.before);
        j.key("units").string(match asked.aggregation {
            Aggregation::Percentage => "%",
            _ => &all.units,
        });
        j.key("chart_type").string(all.chart_type);
        j.key("dimensions").object(|j| {
            list(j, "grouped_by", &asked.by, |j, (word, _)| {
                j.string(word);
            });
            list(j, "ids", &all.groups, |j, g| {
                j.string(&g.id);
            });
            list(j, "names", &all.groups, |j, g| {
                j.string(&g.name);
            });
            list(j, "units", &all.groups, |j, g| {
                j.string(&units(g));
            });
            let order: Vec<_> = (0..all.groups.len()).collect();
            list(j, "priorities", &order, |j, n| {
                j.count(*n);
            });
            list(j, "aggregated", &all.groups, |j, g| {
                j.count(g.metrics);
            });
            statistics(j, &shown, extremes.volume);
        });
        j.key("min").number(extremes.min);
        j.key("max").number(extremes.max);
    });
}

/// The rows, the newest first unless they are to be flipped: a time, and of every group value, rate and annotation.
fn write_result(j: &mut JsonWriter, asked: &Asked<'_>, all: &Gathered) {
    let window = &all.window;
    let scale = if asked.options.contains(Options::MILLISECONDS) { 1000 } else { 1 };
    j.object(|j| {
        j.key("labels").array(|j| {
            j.string("time");
            all.groups.iter().for_each(|group| {
                j.string(&group.id);
            });
        });
        j.key("point").object(|j| {
            j.key("value").integer(0);
            j.key("arp").integer(1);
            j.key("pa").integer(2);
        });
        j.key("data").array(|j| {
            let mut row = |row: usize| {
                let behind = i64::try_from(window.rows - 1 - row).unwrap_or(0);
                j.array(|j| {
                    j.integer((window.before - behind * window.every) * scale);
                    for group in &all.groups {
                        let place = &group.rows[row];
                        j.array(|j| {
                            j.number(place.value(asked.aggregation, all.totals[row]));
                            j.number(place.rate());
                            j.integer(place.annotation());
                        });
                    }
                });
            };
            if asked.options.contains(Options::FLIP) {
                (0..window.rows).for_each(&mut row);
            } else {
                (0..window.rows).rev().for_each(&mut row);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::query::run::samples::T0;
    use crate::web::api::v1::samples::{ask, json, text};

    fn span() -> String {
        format!("after={}&before={}&points=1", T0 + 101, T0 + 110)
    }

    #[test]
    fn metrics_of_one_name_fall_together() {
        let j = json(&ask(data, &format!("contexts=t.ctx&{}", span())));
        assert_eq!(j["view"]["dimensions"]["ids"], json!(["up", "zero", "gap"]));
        assert_eq!(j["view"]["dimensions"]["aggregated"], json!([2, 1, 1]));
        assert_eq!(j["totals"]["instances"], json!({"sl": 2, "qr": 2}));
        assert_eq!(j["result"]["data"].as_array().unwrap().len(), 1);
        assert_eq!(j["view"]["after"].as_i64().unwrap(), T0 + 101);
    }

    #[test]
    fn shares_of_all_add_up_to_the_whole() {
        let query = format!("contexts=t.ctx&group_by=instance&aggregation=percentage&{}", span());
        let j = json(&ask(data, &query));
        let row = j["result"]["data"][0].as_array().unwrap();
        let sum: f64 = row[1..].iter().map(|point| point[0].as_f64().unwrap()).sum();
        assert!((sum - 100.0).abs() < 1e-6, "{row:?}");
        assert_eq!(j["view"]["units"], "%");
    }

    #[test]
    fn a_question_about_nothing_or_everything_is_refused() {
        assert_eq!(ask(data, "contexts=no.such").status, 404);
        let response = ask(data, "contexts=*");
        assert_eq!((response.status, text(&response).is_empty()), (400, false));
    }
}
