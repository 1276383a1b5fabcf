//! `/api/v1/charts` and `/api/v1/chart`: what is collected, chart by chart.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::VERSION;
use crate::base::json::JsonWriter;
use crate::metrics::{Chart, ChartOptions, ChartState, Dimension, Function, Host, HostKind};
use crate::storage::Mode;
use crate::web::api::{Call, many};
use crate::web::http::{Body, ContentType, Response};

use super::alarms::{self, OfCharts};
use super::functions::write_functions_of;

/// Bytes of one stored sample in memory.
const SAMPLE_BYTES: i64 = 4;

/// Charts that clients may see: neither hidden nor obsolete, with dimensions, and with samples to ask for.
pub(super) fn is_visible(host: &Host, state: &ChartState) -> bool {
    !state.meta.options.intersects(ChartOptions::HIDDEN | ChartOptions::OBSOLETE)
        && !state.dims.is_empty()
        && host.engine().mode() != Mode::None
}

/// Dimensions that a chart's description lists.
fn visible_dimensions(state: &ChartState) -> impl Iterator<Item = &Dimension> {
    state.dims.iter().filter(|dim| !dim.is_hidden() && !dim.is_obsolete())
}

/// The version a host runs; our own for this machine, should nobody have said.
pub(super) fn version_of(host: &Host) -> String {
    let version = &host.info().program_version;
    if version.is_empty() && host.kind() == HostKind::Local {
        VERSION.to_owned()
    } else {
        version.clone()
    }
}

pub fn charts(call: &Call<'_>) -> Response {
    let host = call.host;
    let info = host.info();
    // Before any chart is locked: health locks charts while it holds its own.
    let alarms = alarms::of_charts(call, None);
    let functions = host.functions();
    let mut listed = host.charts();
    if host.is_archived() {
        host.archived_charts(&mut |_| true, &mut |chart| listed.push(Arc::clone(chart)));
    }
    let [charts, dimensions, all_dimensions] = [const { AtomicUsize::new(0) }; 3];
    let mut pieces = many::pieces(&listed, |chart, (), out| {
        let state = chart.lock();
        // Of a host that is not here whatever can be asked for is shown.
        if !is_visible(host, &state) || (host.is_archived() && state.retention().is_none()) {
            return;
        }
        charts.fetch_add(1, Ordering::Relaxed);
        dimensions.fetch_add(visible_dimensions(&state).count(), Ordering::Relaxed);
        all_dimensions.fetch_add(state.dims.len(), Ordering::Relaxed);
        let mut json = JsonWriter::inside(mem::take(out));
        describe(json.key(chart.id()), chart, &state, &alarms, &functions);
        *out = json.finish();
    });
    // Each begins with the comma that separates it from the one before. A blank in its place moves nothing.
    if let Some(first) = pieces.iter_mut().find(|piece| !piece.is_empty()) {
        first.replace_range(..1, " ");
    }
    let mut json = JsonWriter::with_capacity(4096);
    json.begin_object();
    json.key("hostname").string(&info.hostname);
    json.key("version").string(&version_of(host));
    json.key("release_channel").string(call.agent.options.release_channel);
    json.key("os").string(if info.os.is_empty() { "linux" } else { &info.os });
    json.key("timezone").string(&info.timezone);
    json.key("update_every").integer(info.update_every.max(1));
    json.key("history").integer(i64::from(host.engine().entries()));
    json.key("memory_mode").string(host.engine().mode().name());
    json.key("custom_info").string(&call.agent.options.custom_dashboard_info);
    json.key("charts").begin_object();
    pieces.insert(0, json.finish());
    let mut json = JsonWriter::inside(String::from("}"));
    json.key("charts_count").count(charts.into_inner());
    json.key("dimensions_count").count(dimensions.into_inner());
    json.key("alarms_count").count(alarms.values().map(Vec::len).sum());
    let per_dimension = i64::from(host.engine().entries()) * SAMPLE_BYTES;
    let bytes = per_dimension * i64::try_from(all_dimensions.into_inner()).unwrap_or(0);
    json.key("rrd_memory_bytes").integer(bytes);
    let hosts = call.agent.hosts.all();
    json.key("hosts_count").count(hosts.len());
    json.key("hosts").array(|j| {
        for host in &hosts {
            j.object(|j| {
                j.key("hostname").string(&host.hostname());
            });
        }
    });
    json.end_object();
    pieces.push(json.finish());
    Response::new(200, ContentType::Json, Body::of_pieces(pieces)).public()
}

pub fn chart(call: &Call<'_>) -> Response {
    let Some(name) = call.query().get("chart") else {
        return Response::error(400, "No chart id is given at the request.");
    };
    let Some(chart) = call.host.find_any_chart(name) else {
        return Response::error_about(404, "Chart is not found: ", name);
    };
    let mut json = JsonWriter::with_capacity(4096);
    let alarms = alarms::of_charts(call, Some(chart.id()));
    let mut state = chart.lock();
    state.last_accessed = call.now();
    describe(&mut json, &chart, &state, &alarms, &call.host.functions());
    drop(state);
    Response::json(json).public()
}

/// One chart, with its lock held.
fn describe(
    j: &mut JsonWriter,
    chart: &Chart,
    state: &ChartState,
    alarms: &OfCharts,
    functions: &[Arc<Function>],
) {
    let meta = &state.meta;
    let every = meta.update_every.seconds();
    let (first, last) = state.retention().map_or((0, 0), |(first, last)| (first.0, last.0));
    let duration = if last == 0 { 0 } else { last - first + every };
    j.object(|j| {
        j.key("id").string(chart.id());
        j.key("name").string(&meta.name);
        j.key("type").string(chart.type_part());
        j.key("family").string(&meta.family);
        j.key("context").string(&meta.context);
        j.key("title").joined([&*meta.title, " (", &*meta.name, ")"]);
        j.key("priority").integer(meta.priority);
        j.key("plugin").string(&meta.plugin);
        j.key("module").string(&meta.module);
        j.key("units").string(&meta.units);
        j.key("data_url").joined(["/api/v1/data?chart=", &*meta.name]);
        j.key("chart_type").string(meta.chart_type.name());
        j.key("duration").integer(duration);
        j.key("first_entry").integer(first);
        j.key("last_entry").integer(last);
        j.key("update_every").integer(every);
        j.key("dimensions").object(|j| {
            for dim in visible_dimensions(state) {
                j.key(&dim.id).object(|j| {
                    j.key("name").string(&dim.name);
                });
            }
        });
        j.key("chart_variables").object(|j| {
            for (name, value) in &state.variables {
                j.key(name).number(*value);
            }
        });
        j.key("green").null();
        j.key("red").null();
        alarms::write_briefs(j.key("alarms"), alarms.get(chart.id()));
        j.key("chart_labels");
        labels(j, state);
        write_functions_of(j.key("functions"), functions, chart.id());
    });
}

/// All labels of a chart as an object.
pub(super) fn labels(j: &mut JsonWriter, state: &ChartState) {
    j.object(|j| {
        for label in state.labels.iter() {
            j.key(&label.name).string(&label.value);
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::query::run::samples::{SECONDS, T0};
    use crate::web::api::v1::samples::{ask, json, text};

    #[test]
    fn charts_stand_in_order_of_creation() {
        let response = ask(charts, "");
        let all = json(&response);
        assert_eq!(
            (&all["hostname"], &all["charts_count"], &all["dimensions_count"]),
            (&json!("node"), &json!(3), &json!(5))
        );
        let text = text(&response);
        let at = |id: &str| text.find(&format!("\"{id}\":{{\"id\"")).unwrap();
        assert!(at("t.abs") < at("t.two") && at("t.two") < at("t.slow"));
        assert_eq!(
            all["charts"]["t.abs"]["dimensions"],
            json!({"up": {"name": "up"}, "zero": {"name": "Zero Zero"}, "gap": {"name": "gap"}})
        );
    }

    #[test]
    fn a_chart_is_found_by_id_or_name() {
        let c = json(&ask(chart, "chart=t.absname"));
        assert_eq!(
            (&c["id"], &c["title"]),
            (&json!("t.abs"), &json!("The absolute one (t.absname)"))
        );
        assert_eq!(
            (&c["first_entry"], &c["last_entry"], &c["duration"]),
            (&json!(T0 + 1), &json!(T0 + SECONDS), &json!(SECONDS))
        );
        assert_eq!(
            c["chart_labels"],
            json!({"_collect_plugin": "feed", "_collect_module": "[none]", "colour": "red"})
        );
        assert_eq!(ask(chart, "").status, 400);
        let missing = ask(chart, "chart=a<b>");
        assert_eq!(
            (missing.status, text(&missing).as_str()),
            (404, "Chart is not found: a&lt;b&gt;")
        );
    }
}
