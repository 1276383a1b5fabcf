//! `contexts`: what is collected, over all hosts; `q`: the same, as far as a word is found in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::envelope::{Scope, Tail, pattern};
use crate::base::json::JsonWriter;
use crate::base::time::UnixSeconds;
use crate::metrics::Chart;
use crate::web::api::Call;
use crate::web::api::v1::contexts::{Context, Filter, gather, merge};
use crate::web::http::Response;
use crate::wire::http::Rfc3339;

/// Names that are listed of one context, without `cardinality_limit`.
const NAMES_MAX: usize = 1000;

/// One context of all hosts that have it.
struct Merged {
    title: String,
    family: String,
    units: Arc<str>,
    chart_type: &'static str,
    priority: i64,
    first: i64,
    last: i64,
    live: bool,
    charts: Vec<Arc<Chart>>,
}

impl Merged {
    fn new(context: Context) -> Merged {
        Merged {
            title: context.title,
            family: context.family,
            units: context.units,
            chart_type: context.chart_type,
            priority: context.priority,
            first: context.first,
            last: context.last,
            live: context.collected,
            charts: context.charts,
        }
    }

    fn add(&mut self, context: Context) {
        self.title = merge(&self.title, &context.title);
        self.family = merge(&self.family, &context.family);
        self.priority = self.priority.min(context.priority);
        self.first = self.first.min(context.first);
        self.last = self.last.max(context.last);
        self.live |= context.collected;
        self.charts.extend(context.charts);
    }

    /// Ids of its dimensions.
    fn dimensions(&self) -> BTreeSet<Arc<str>> {
        let mut all = BTreeSet::new();
        for chart in &self.charts {
            all.extend(chart.lock().dims.iter().map(|dim| Arc::clone(&dim.id)));
        }
        all
    }

    /// Its labels, each with the values it has.
    fn labels(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for chart in &self.charts {
            for label in chart.lock().labels.iter() {
                all.entry(label.name.to_string()).or_default().insert(label.value.to_string());
            }
        }
        all
    }

    /// Whether `text`, in lower case, is part of anything that names the context or what is in it.
    fn speaks_of(&self, id: &str, text: &str) -> bool {
        let has = |name: &str| name.to_lowercase().contains(text);
        has(id)
            || has(&self.title)
            || has(&self.family)
            || has(&self.units)
            || self.charts.iter().any(|chart| {
                let state = chart.lock();
                has(chart.id())
                    || has(&state.meta.name)
                    || state.dims.iter().any(|dim| has(&dim.id) || has(&dim.name))
                    || state.labels.iter().any(|label| has(&label.name) || has(&label.value))
            })
    }
}

pub fn contexts(call: &Call<'_>) -> Response {
    answer(call, None)
}

pub fn search(call: &Call<'_>) -> Response {
    let text = call.query().get("q").unwrap_or("").trim().to_lowercase();
    answer(call, Some(text.trim_matches('*')))
}

fn answer(call: &Call<'_>, text: Option<&str>) -> Response {
    let scope = Scope::of(call);
    let query = call.query();
    let patterns: Vec<_> = ["scope_contexts", "contexts"]
        .iter()
        .filter_map(|name| pattern(query.get(name).unwrap_or("")))
        .collect();
    let limit = query.integer("cardinality_limit").and_then(|n| usize::try_from(n).ok());
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(NAMES_MAX);
    let filter = Filter::of(call);
    let mut found: BTreeMap<Arc<str>, Merged> = BTreeMap::new();
    for node in &scope.nodes {
        for (id, context) in gather(&node.host, &filter, None) {
            if !patterns.iter().all(|pattern| pattern.matches(&id)) {
                continue;
            }
            match found.get_mut(&id) {
                Some(merged) => merged.add(context),
                None => {
                    found.insert(id, Merged::new(context));
                }
            }
        }
    }
    if let Some(text) = text {
        found.retain(|id, merged| merged.speaks_of(id, text));
    }
    scope.answer(Tail::Agents, |j| {
        scope.write_nodes(j);
        j.key("contexts").object(|j| {
            for (id, context) in &found {
                j.key(id).object(|j| write(j, &scope, context, limit));
            }
        });
    })
}

fn write(j: &mut JsonWriter, scope: &Scope<'_, '_>, context: &Merged, limit: usize) {
    j.key("family").string(&context.family);
    j.key("units").string(&context.units);
    j.key("priority").integer(context.priority);
    let mut time = |key: &str, seconds: i64| {
        if scope.rfc3339 {
            j.key(key).string(&Rfc3339(UnixSeconds(seconds)).to_string());
        } else {
            j.key(key).integer(seconds);
        }
    };
    time("first_entry", context.first);
    time("last_entry", context.last);
    j.key("live").bool(context.live);
    if scope.has("titles") {
        j.key("title").string(&context.title);
        j.key("chart_type").string(context.chart_type);
    }
    if scope.has("dimensions") {
        j.key("dimensions").array(|j| {
            for id in context.dimensions().iter().take(limit) {
                j.string(id);
            }
        });
    }
    if scope.has("labels") {
        j.key("labels").object(|j| {
            for (name, values) in context.labels().iter().take(limit) {
                j.key(name).array(|j| {
                    for value in values.iter().take(limit) {
                        j.string(value);
                    }
                });
            }
        });
    }
    if scope.has("instances") {
        j.key("instances").array(|j| {
            for chart in context.charts.iter().take(limit) {
                j.string(chart.id());
            }
        });
    }
}
