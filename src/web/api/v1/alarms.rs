//! Alarms: the answers of an agent whose health checks are off, valid and empty.

use crate::base::json::JsonWriter;
use crate::base::time::MICROS;
use crate::metrics::ChartState;
use crate::web::api::Call;
use crate::web::http::{ContentType, Response};

pub(super) fn alarms(call: &Call<'_>) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("hostname").string(&call.host.hostname());
        j.key("latest_alarm_log_unique_id").integer(0);
        j.key("status").bool(false);
        j.key("now").integer(call.now().0);
        j.key("alarms").object(|_| {});
    });
    Response::json(json)
}

pub(super) fn alarms_values(call: &Call<'_>) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("hostname").string(&call.host.hostname());
        j.key("alarms").object(|_| {});
    });
    Response::json(json)
}

pub(super) fn alarm_count(_: &Call<'_>) -> Response {
    Response::new(200, ContentType::Json, "[0]")
}

pub(super) fn alarm_log(_: &Call<'_>) -> Response {
    Response::new(200, ContentType::Json, "[\n]\n").public()
}

/// What expressions of alarms on a chart can name.
pub(super) fn alarm_variables(call: &Call<'_>) -> Response {
    let Some(wanted) = call.query().get("chart") else {
        return Response::error(400, "No chart id is given at the request.");
    };
    let Some(chart) = call.host.find_chart(wanted) else {
        return Response::error_about(404, "Chart is not found: ", wanted);
    };
    let mut json = JsonWriter::new();
    json.object(|j| {
        {
            let state = chart.lock();
            j.key("chart").string(chart.id());
            j.key("chart_name").string(&state.meta.name);
            j.key("chart_context").string(&state.meta.context);
            j.key("chart_variables").object(|j| chart_variables(j, &state));
            j.key("family").string(&state.meta.family);
        }
        j.key("family_variables").object(|_| {});
        j.key("host").string(&call.host.hostname());
        j.key("host_variables").object(|j| {
            for (name, value) in call.host.variables() {
                variable(j, &name, value);
            }
        });
    });
    Response::json(json).public()
}

fn chart_variables(json: &mut JsonWriter, state: &ChartState) {
    #[expect(clippy::cast_precision_loss, reason = "seconds, far below 2^53")]
    let last = (state.last_collected.0 / MICROS) as f64;
    variable(json, "last_collected_t", last);
    json.key("green").null();
    json.key("red").null();
    #[expect(clippy::cast_precision_loss, reason = "at most a day")]
    variable(json, "update_every", state.meta.update_every.seconds() as f64);
    for (name, value) in &state.variables {
        variable(json, name, *value);
    }
    for dim in &state.dims {
        variable(json, &dim.id, dim.current.value().unwrap_or(f64::NAN));
    }
}

/// Five decimals, or null.
fn variable(json: &mut JsonWriter, name: &str, value: f64) {
    json.key(name);
    if value.is_finite() {
        json.raw(&format!("{value:.5}"))
    } else {
        json.null()
    };
}
