//! `/api/v1/contexts` and `/api/v1/context`: charts of one kind taken together.

use std::sync::Arc;

use bitflags::bitflags;
use rustc_hash::FxHashMap;

use super::charts::labels;
use crate::base::json::JsonWriter;
use crate::base::pattern::SimplePattern;
use crate::metrics::{Chart, ChartState, Dimension, Host};
use crate::query::select::{SEPARATORS, any_label_matches};
use crate::query::window;
use crate::web::api::Call;
use crate::web::http::Response;

bitflags! {
    /// What to tell beside the contexts themselves.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(in crate::web::api) struct Show: u8 {
        const CHARTS = 1;
        const DIMENSIONS = 2;
        const LABELS = 4;
        const FLAGS = 8;
        const DELETED = 16;
    }
}

impl Show {
    fn parse(words: &str) -> Show {
        words.split([',', '|', ' ']).fold(Show::empty(), |all, word| {
            all | match word {
                "full" | "all" => Show::all(),
                "charts" | "instances" => Show::CHARTS,
                "dimensions" | "metrics" => Show::CHARTS | Show::DIMENSIONS,
                "labels" => Show::LABELS,
                "flags" => Show::FLAGS,
                "deleted" => Show::DELETED,
                _ => Show::empty(),
            }
        })
    }
}

/// What is asked of charts and dimensions to be part of the answer.
pub(in crate::web::api) struct Filter {
    show: Show,
    by_label: [Option<SimplePattern>; 2],
    by_dimension: Option<SimplePattern>,
    span: Option<(i64, i64)>,
    now: i64,
}

impl Filter {
    pub(in crate::web::api) fn of(call: &Call<'_>) -> Filter {
        let query = call.query();
        let pattern =
            |name| query.get(name).map(|list| SimplePattern::separated_by(list, SEPARATORS));
        let now = call.now().0;
        let after = query.integer("after").unwrap_or(0);
        let before = query.integer("before").unwrap_or(0);
        let span = match (after, before) {
            (0, 0) => None,
            (0, before) => Some((0, before)),
            (after, 0) => Some((after, i64::MAX)),
            (after, before) => Some(window::absolute(after, before, now - 1)),
        };
        Filter {
            show: Show::parse(query.get("options").unwrap_or("")),
            by_label: [pattern("chart_label_key"), pattern("chart_labels_filter")],
            by_dimension: pattern("dimensions"),
            span,
            now,
        }
    }

    fn in_span(&self, first: i64, last: i64) -> bool {
        self.span.is_none_or(|(after, before)| first <= before && last >= after)
    }

    fn takes_dimension(&self, dim: &Dimension) -> bool {
        self.by_dimension.as_ref().is_none_or(|p| p.matches(&dim.id) || p.matches(&dim.name))
    }

    fn takes(&self, state: &ChartState) -> bool {
        self.by_label.iter().flatten().all(|p| any_label_matches(p, &state.labels))
            && (self.by_dimension.is_none() || state.dims.iter().any(|d| self.takes_dimension(d)))
    }
}

/// What the charts of a context have in common.
pub(in crate::web::api) struct Context {
    pub(in crate::web::api) title: String,
    pub(in crate::web::api) units: Arc<str>,
    pub(in crate::web::api) family: String,
    pub(in crate::web::api) chart_type: &'static str,
    pub(in crate::web::api) priority: i64,
    pub(in crate::web::api) first: i64,
    pub(in crate::web::api) last: i64,
    pub(in crate::web::api) collected: bool,
    pub(in crate::web::api) charts: Vec<Arc<Chart>>,
}

/// A chart that got no sample for so long is not collected, even if nobody has said that it is over.
const SILENT_S: i64 = 3600;

/// First and last second of a chart's samples; the last is now while more arrive.
fn span(host: &Host, state: &ChartState, now: i64) -> Option<(i64, i64, bool)> {
    let (first, last) = state.retention()?;
    let silent = (now - last.0) > SILENT_S.max(60 * state.meta.update_every.seconds());
    let collected =
        host.is_connected() && !state.is_obsolete() && state.counter_done > 0 && !silent;
    Some((first.0, if collected { last.0.max(now) } else { last.0 }, collected))
}

/// All contexts with a chart that the filter takes, in order of creation.
pub(in crate::web::api) fn gather(
    host: &Host,
    filter: &Filter,
    wanted: Option<&str>,
) -> Vec<(Arc<str>, Context)> {
    let mut found: Vec<(Arc<str>, Context)> = Vec::new();
    let mut by_id: FxHashMap<Arc<str>, usize> = FxHashMap::default();
    let is_asked = |context: &str| wanted.is_none_or(|id| id == context);
    let mut consider = |chart: &Arc<Chart>| {
        let state = chart.lock();
        let meta = &state.meta;
        if !is_asked(&meta.context) || !filter.takes(&state) {
            return;
        }
        let Some((first, last, collected)) = span(host, &state, filter.now) else { return };
        if !filter.in_span(first, last) {
            return;
        }
        if let Some(&at) = by_id.get(&meta.context) {
            let context = &mut found[at].1;
            context.title = merge(&context.title, &meta.title);
            context.family = merge(&context.family, &meta.family);
            // of what cannot be merged the newest chart decides
            context.units = Arc::clone(&meta.units);
            context.chart_type = meta.chart_type.name();
            context.priority = context.priority.min(meta.priority);
            context.first = context.first.min(first);
            context.last = context.last.max(last);
            context.collected |= collected;
            context.charts.push(Arc::clone(chart));
        } else {
            by_id.insert(Arc::clone(&meta.context), found.len());
            let context = Context {
                title: meta.title.to_string(),
                units: Arc::clone(&meta.units),
                family: meta.family.to_string(),
                chart_type: meta.chart_type.name(),
                priority: meta.priority,
                first,
                last,
                collected,
                charts: vec![Arc::clone(chart)],
            };
            found.push((Arc::clone(&meta.context), context));
        }
    };
    host.charts().iter().for_each(&mut consider);
    host.archived_charts(&mut |head| is_asked(head.context), &mut consider);
    found
}

/// What two texts have in common at their beginnings and ends; what lies between becomes `[x]`, as in 1.37.
pub(in crate::web::api) fn merge(one: &str, other: &str) -> String {
    const DIFFERS: &str = "[x]";
    if one == other || one == DIFFERS {
        return one.to_owned();
    }
    if other == DIFFERS {
        return other.to_owned();
    }
    let same = |(a, b): &(char, char)| a == b;
    let bytes = |pairs: &mut dyn Iterator<Item = (char, char)>| -> usize {
        pairs.map(|(c, _)| c.len_utf8()).sum()
    };
    let front = bytes(&mut one.chars().zip(other.chars()).take_while(same));
    // The two may overlap.
    let back = bytes(&mut one.chars().rev().zip(other.chars().rev()).take_while(same));
    format!("{}{DIFFERS}{}", &one[..front], &one[one.len() - back..])
}

fn write_times(j: &mut JsonWriter, filter: &Filter, first: i64, last: i64, collected: bool) {
    j.key("first_time_t").integer(first);
    j.key("last_time_t").integer(last);
    j.key("collected").bool(collected);
    if filter.show.contains(Show::DELETED) {
        j.key("deleted").bool(false);
    }
    if filter.show.contains(Show::FLAGS) {
        j.key("flags").string(if collected { "COLLECTED LIVE_RETENTION " } else { "ARCHIVED " });
    }
}

fn write_context(j: &mut JsonWriter, host: &Host, context: &Context, filter: &Filter) {
    j.object(|j| {
        j.key("title").string(&context.title);
        j.key("units").string(&context.units);
        j.key("family").string(&context.family);
        j.key("chart_type").string(context.chart_type);
        j.key("priority").integer(context.priority);
        write_times(j, filter, context.first, context.last, context.collected);
        if filter.show.contains(Show::CHARTS) {
            j.key("charts").object(|j| {
                for chart in &context.charts {
                    write_chart(j, host, chart, filter);
                }
            });
        }
    });
}

fn write_chart(j: &mut JsonWriter, host: &Host, chart: &Chart, filter: &Filter) {
    let older = match filter.show.contains(Show::DIMENSIONS) {
        true => host.archived_dimensions(chart),
        false => Vec::new(),
    };
    let state = chart.lock();
    let meta = &state.meta;
    let Some((first, last, collected)) = span(host, &state, filter.now) else { return };
    j.key(chart.id()).object(|j| {
        j.key("name").string(&meta.name);
        j.key("context").string(&meta.context);
        j.key("title").string(&meta.title);
        j.key("units").string(&meta.units);
        j.key("family").string(&meta.family);
        j.key("chart_type").string(meta.chart_type.name());
        j.key("priority").integer(meta.priority);
        j.key("update_every").integer(meta.update_every.seconds());
        write_times(j, filter, first, last, collected);
        if filter.show.contains(Show::LABELS) {
            j.key("labels");
            labels(j, &state);
        }
        if filter.show.contains(Show::DIMENSIONS) {
            j.key("dimensions").object(|j| {
                let all = state.dims.iter().chain(&older);
                for dim in all.filter(|dim| filter.takes_dimension(dim)) {
                    let Some((first, last)) = dim.reader.retention() else { continue };
                    let collected = collected && dim.was_collected() && !dim.is_obsolete();
                    let last = if collected { last.0.max(filter.now) } else { last.0 };
                    if filter.in_span(first.0, last) {
                        j.key(&dim.id).object(|j| {
                            j.key("name").string(&dim.name);
                            write_times(j, filter, first.0, last, collected);
                        });
                    }
                }
            });
        }
    });
}

pub fn contexts(call: &Call<'_>) -> Response {
    let host = call.host;
    let info = host.info();
    let filter = Filter::of(call);
    let mut json = JsonWriter::with_capacity(16 * 1024);
    json.object(|j| {
        j.key("hostname").string(&info.hostname);
        j.key("machine_guid").string(&host.guid().to_string());
        j.key("node_id").string(info.node_id.as_deref().unwrap_or(""));
        j.key("claim_id").string(info.claim_id.as_deref().unwrap_or(""));
        if filter.show.contains(Show::LABELS) {
            j.key("host_labels").object(|j| {
                for label in host.labels().iter() {
                    j.key(&label.name).string(&label.value);
                }
            });
        }
        j.key("contexts").object(|j| {
            for (id, context) in gather(host, &filter, None) {
                j.key(&id);
                write_context(j, host, &context, &filter);
            }
        });
    });
    Response::json(json).public()
}

pub fn context(call: &Call<'_>) -> Response {
    let Some(id) = call.query().get("context") else {
        return Response::error(400, "No context is given at the request.");
    };
    let filter = Filter::of(call);
    match gather(call.host, &filter, Some(id)).first() {
        Some((_, context)) => {
            let mut json = JsonWriter::new();
            write_context(&mut json, call.host, context, &filter);
            Response::json(json).public()
        }
        None => Response::error(404, ""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::query::run::samples::T0;
    use crate::web::api::v1::samples::{ask, json};

    #[test]
    fn words_that_differ_are_crossed_out() {
        assert_eq!(merge("The absolute one", "The second one"), "The [x] one");
        assert_eq!(merge("The [x] one", "The third one"), "The [x] one");
        assert_eq!(merge("eth0", "lo"), "[x]");
        assert_eq!(merge("a b", "a b c"), "a b[x]");
        assert_eq!(merge("same.mixed", "same.other"), "same.[x]");
        assert_eq!(merge("a a", "a"), "a[x]a");
        assert_eq!(merge("[x]", "anything"), "[x]");
        assert_eq!(merge("größe", "große"), "gr[x]ße");
    }

    #[test]
    fn a_context_is_all_its_charts() {
        let all = json(&ask(contexts, ""));
        assert_eq!(all["contexts"].as_object().unwrap().len(), 2);
        let c = json(&ask(context, "context=t.ctx&options=charts,dimensions,labels"));
        assert_eq!((&c["title"], &c["first_time_t"]), (&json!("The [x] one"), &json!(T0 + 1)));
        assert_eq!(c["charts"]["t.abs"]["dimensions"]["zero"]["name"], "Zero Zero");
        assert_eq!(c["charts"]["t.abs"]["labels"]["colour"], "red");
        assert_eq!(c["charts"]["t.two"]["context"], "t.ctx");
    }

    #[test]
    fn filters_that_leave_nothing() {
        assert_eq!(json(&ask(contexts, "chart_labels_filter=colour:green"))["contexts"], json!({}));
        assert_eq!(ask(context, "context=t.ctx&chart_labels_filter=colour:green").status, 404);
        assert_eq!(ask(context, "context=t.nosuch").status, 404);
        assert_eq!(ask(context, "").status, 400);
        let only =
            json(&ask(context, "context=t.ctx&options=charts&chart_labels_filter=colour:red"));
        assert_eq!(only["charts"].as_object().unwrap().len(), 1);
    }
}
