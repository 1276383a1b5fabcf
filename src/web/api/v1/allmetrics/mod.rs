//! `/api/v1/allmetrics`: the newest value of everything, for scripts (shell), programs (json) and Prometheus
//! (its own text, or OpenMetrics where `Accept` asks for it).

use crate::base::json::{push_fixed, push_integer, push_string};
use crate::base::pattern::SimplePattern;
use crate::metrics::Host;
use crate::net::usage::add;
use crate::web::api::Call;
use crate::web::api::v1::alarms;
use crate::web::http::{Body, ContentType, Response};

use self::prometheus::Comments;
use super::charts::is_visible;

mod openmetrics;
pub mod prometheus;
pub mod shell;

pub fn allmetrics(call: &Call<'_>) -> Response {
    let query = call.query();
    let filter = query.get("filter").map(SimplePattern::new);
    let used = &call.agent.usage.used;
    let prometheus = |all_hosts| {
        add(&used.prometheus, 1);
        if openmetrics::is_wanted(call.request.accept.as_deref()) {
            let text = prometheus::body(call, filter.as_ref(), all_hosts, Comments::Types);
            let kind = ContentType::Other(openmetrics::CONTENT_TYPE);
            return (kind, Body::from(openmetrics::from_prometheus(&text.concat())));
        }
        let pieces = prometheus::body(call, filter.as_ref(), all_hosts, Comments::AsAsked);
        (ContentType::Prometheus, Body::of_pieces(pieces))
    };
    let (content_type, body) = match query.get("format").unwrap_or("shell") {
        "shell" => {
            add(&used.shell, 1);
            let alarms = alarms::for_shell(call);
            let pieces = shell::body(call.host, &alarms, filter.as_ref());
            (ContentType::Text, Body::of_pieces(pieces))
        }
        "json" => {
            add(&used.json, 1);
            (ContentType::Json, json(call.host, filter.as_ref()).into())
        }
        "prometheus" => prometheus(false),
        "prometheus_all_hosts" => prometheus(true),
        _ => {
            return Response::error(
                400,
                "Which format? 'shell', 'prometheus', 'prometheus_all_hosts' and 'json' are currently supported.",
            );
        }
    };
    Response::new(200, content_type, body)
}

/// Chart by chart: names, units and the value stored last with exactly seven decimals.
fn json(host: &Host, filter: Option<&SimplePattern>) -> String {
    let mut out = String::with_capacity(64 * 1024);
    out.push('{');
    let mut first = true;
    for chart in host.charts() {
        let state = chart.lock();
        let meta = &state.meta;
        let wanted = filter.is_none_or(|f| f.matches(chart.id()) || f.matches(&meta.name));
        if !wanted || !is_visible(host, &state) {
            continue;
        }
        out.push_str(if first { "\n" } else { ",\n" });
        first = false;
        push_string(&mut out, chart.id());
        out.push_str(": {");
        for (key, text) in [
            ("\"name\": ", &meta.name),
            (", \"family\": ", &meta.family),
            (", \"context\": ", &meta.context),
            (", \"units\": ", &meta.units),
        ] {
            out.push_str(key);
            push_string(&mut out, text);
        }
        out.push_str(", \"last_updated\": ");
        push_integer(&mut out, state.last_updated.0);
        out.push_str(", \"dimensions\": {");
        for (n, dim) in state.dims.iter().filter(|dim| !dim.is_obsolete()).enumerate() {
            out.push_str(if n == 0 { "\n" } else { ",\n" });
            push_string(&mut out, &dim.id);
            out.push_str(": {\"name\": ");
            push_string(&mut out, &dim.name);
            out.push_str(", \"value\": ");
            push_fixed(&mut out, dim.latest);
            out.push('}');
        }
        out.push_str("}}");
    }
    out.push_str("\n}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::run::samples::{SECONDS, T0};
    use crate::web::api::v1::samples::{ask, json, text};

    #[test]
    fn json_holds_the_newest_values() {
        let response = ask(allmetrics, "format=json");
        let all = json(&response);
        assert_eq!(all["t.abs"]["last_updated"], T0 + SECONDS);
        assert_eq!(all["t.abs"]["dimensions"]["zero"]["name"], "Zero Zero");
        assert_eq!(all["t.abs"]["dimensions"]["gap"]["value"], serde_json::Value::Null);
        assert!(text(&response).contains("\"hid\": {\"name\": \"hid\", \"value\": 100.0000000}"));
        let some = json(&ask(allmetrics, "format=json&filter=t.t*+!t.a*+t.slow"));
        assert_eq!(some.as_object().unwrap().keys().collect::<Vec<_>>(), ["t.slow", "t.two"]);
    }

    #[test]
    fn other_formats_are_refused() {
        assert_eq!(ask(allmetrics, "format=xml").status, 400);
        assert!(text(&ask(allmetrics, "")).starts_with("\n# chart: "));
    }
}
