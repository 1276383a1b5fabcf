//! `/api/openapi.json`: the whole interface in the form of OpenAPI 3.1, made from the tables of endpoints and, for what they
//! cannot say by themselves, from [`DOCS`] below. A test holds the two together: an endpoint without an entry fails it, and so
//! does an entry without an endpoint.

use super::{Endpoint, v1, v2, v3};
use crate::base::VERSION;
use crate::base::json::JsonWriter;
use crate::web::acl::Rights;
use crate::web::http::{ContentType, Response};

/// What is to be said of an endpoint beside its name.
struct Doc {
    /// Its path; `v2` stands for `v3` too, where both have it.
    path: &'static str,
    about: &'static str,
    /// Names of [`PARAMETERS`], separated by blanks; those that are needed end in `!`.
    takes: &'static str,
    gives: &'static [ContentType],
    /// Members that a JSON object of a 200 always has, separated by blanks.
    members: &'static str,
    /// Status codes other than 200 and 403.
    fails: &'static [u16],
}

const JSON: &[ContentType] = &[ContentType::Json];
const TEXT: &[ContentType] = &[ContentType::Text];

const fn doc(path: &'static str, about: &'static str) -> Doc {
    Doc { path, about, takes: "", gives: JSON, members: "", fails: &[] }
}

impl Doc {
    const fn takes(self, takes: &'static str) -> Doc {
        Doc { takes, ..self }
    }

    const fn gives(self, gives: &'static [ContentType]) -> Doc {
        Doc { gives, ..self }
    }

    const fn members(self, members: &'static str) -> Doc {
        Doc { members, ..self }
    }

    const fn fails(self, fails: &'static [u16]) -> Doc {
        Doc { fails, ..self }
    }
}

const SCOPE: &str = "scope_nodes nodes options";

#[rustfmt::skip]
const DOCS: &[Doc] = &[
    doc("v1/info", "The agent, its hosts, and the machine of the requested host")
        .members("version uid mirrored_hosts mirrored_hosts_status alarms host_labels functions collectors hosts-available buildinfo charts-count metrics-count"),
    doc("v1/charts", "All charts of a host").members("hostname version charts charts_count dimensions_count hosts"),
    doc("v1/chart", "One chart").takes("chart!").members("id name context title units dimensions chart_labels").fails(&[400, 404]),
    doc("v1/contexts", "Charts of one kind taken together").takes("options after before chart_label_key chart_labels_filter dimensions")
        .members("hostname machine_guid contexts"),
    doc("v1/context", "One context").takes("context! options after before chart_label_key chart_labels_filter dimensions")
        .members("title units family").fails(&[400, 404]),
    doc("v1/data", "Samples, grouped over time; either a chart or a context has to be given")
        .takes("chart context dimensions after before points group group_options gtime format options timeout tier chart_label_key chart_labels_filter show_dimensions callback filename tqx")
        .gives(&[ContentType::Json, ContentType::Text, ContentType::Html, ContentType::JavaScript]).fails(&[400, 404, 503]),
    doc("v1/allmetrics", "The latest value of everything, for scrapers and scripts")
        .takes("allmetrics_format filter server prefix source help types names timestamps variables oldunits hideunits")
        .gives(&[ContentType::Text, ContentType::Prometheus, ContentType::Json]).fails(&[400]),
    doc("v1/badge.svg", "A value as a picture")
        .takes("chart! alarm dimensions after before points group group_options options label units label_color value_color text_color_lbl text_color_val multiply divide refresh precision scale fixed_width_lbl fixed_width_val")
        .gives(&[ContentType::Svg]).fails(&[400]),
    doc("v1/weights", "Metrics by how much they moved").takes("method after before baseline_after baseline_before points group options timeout contexts tier")
        .members("after before method contexts").fails(&[400, 404, 504]),
    doc("v1/metric_correlations", "Metrics by how much they moved, chart by chart")
        .takes("method after before baseline_after baseline_before points group options timeout contexts tier")
        .members("after before method correlated_charts").fails(&[400, 404, 504]),
    doc("v1/registry", "What a dashboard learns of the agent before anything else, and which agents a browser has visited")
        .takes("action! machine url name delete_url for to").members("action status hostname machine_guid registry")
        .fails(&[400, 404, 412, 430, 431, 432, 433, 434]),
    doc("v1/alarms", "Alarms that are raised, or all of them").takes("all active").members("hostname status now alarms"),
    doc("v1/alarms_values", "Values of alarms").takes("all active").members("hostname alarms"),
    doc("v1/alarm_count", "How many alarms are in a state").takes("status context"),
    doc("v1/alarm_log", "What happened to alarms, the latest first").takes("after_id chart"),
    doc("v1/alarm_variables", "What expressions of alarms on a chart can name").takes("chart!").members("chart chart_name chart_variables host_variables").fails(&[400, 404]),
    doc("v1/manage/health", "Silences and disables alarms; needs the token of the management API").takes("cmd alarm chart context hosts families")
        .gives(&[ContentType::Text, ContentType::Json]).fails(&[503]),
    doc("v1/functions", "What a host can be asked to do").members("functions"),
    doc("v1/function", "Has a collector or child run a function, and gives its answer").takes("function! timeout_s")
        .gives(&[ContentType::Json, ContentType::Text, ContentType::Html]).fails(&[400, 404, 499, 503, 504, 591]),
    doc("v1/aclk", "The link to a vendor's cloud: there is none").members("aclk-available"),
    doc("v1/dbengine_stats", "What each tier of the store holds").gives(&[ContentType::Json, ContentType::Text]).fails(&[404]),
    doc("v1/archivedcharts", "Kept for old clients: nothing").gives(TEXT),
    doc("v1/prometheus/api/v1/query", "An expression of PromQL at one time; also posted as a form, as is all below")
        .takes("query! time query_timeout lookback_delta").members("status data").fails(&[400, 422, 503]),
    doc("v1/prometheus/api/v1/query_range", "An expression of PromQL at every step of a time")
        .takes("query! start! end! step! query_timeout lookback_delta").members("status data").fails(&[400, 422, 503]),
    doc("v1/prometheus/api/v1/series", "The labels of series that a selector finds").takes("match! start end limit").members("status data").fails(&[400, 422, 503]),
    doc("v1/prometheus/api/v1/labels", "Names of labels").takes("match start end limit").members("status data").fails(&[400, 422, 503]),
    doc("v1/prometheus/api/v1/label/{label}/values", "Values of a label").takes("label_name! match start end limit").members("status data").fails(&[400, 404, 422, 503]),
    doc("v1/prometheus/api/v1/metadata", "What metrics are").takes("metric limit").members("status data").fails(&[400]),
    doc("v1/prometheus/api/v1/status/buildinfo", "Which version of PromQL is spoken").members("status data"),
    doc("v2/info", "This agent as a whole").takes(SCOPE).members("api versions agents timings"),
    doc("v2/nodes", "What every host is").takes(SCOPE).members("api nodes timings"),
    doc("v2/node_instances", "How every host's samples come in, are kept and go on").takes(SCOPE).members("api nodes versions agents timings"),
    doc("v2/contexts", "What is collected, over all hosts").takes("scope_nodes nodes scope_contexts contexts options after before cardinality_limit")
        .members("api nodes contexts versions agents timings"),
    doc("v2/q", "Contexts in which a word is found").takes("q scope_nodes nodes scope_contexts contexts options after before cardinality_limit")
        .members("api nodes contexts versions agents timings"),
    doc("v2/data", "Samples of many hosts, grouped over time and by what they have in common")
        .takes("scope_nodes scope_contexts scope_instances scope_dimensions nodes contexts instances dimensions labels after before points group_by group_by_label aggregation time_group time_group_options time_resampling options timeout tier")
        .members("api summary totals result db view agents timings").fails(&[400, 404, 504]),
    doc("v2/functions", "What all hosts can be asked to do").takes(SCOPE).members("api nodes functions versions agents timings"),
    doc("v2/function", "As in v1").takes("function! timeout_s")
        .gives(&[ContentType::Json, ContentType::Text, ContentType::Html]).fails(&[400, 404, 499, 503, 504, 591]),
    doc("v2/alerts", "What is wrong, over all hosts").takes(SCOPE).members("api nodes alerts versions agents timings"),
    doc("v2/alert_transitions", "What happened to alarms, over all hosts, the newest first")
        .takes("scope_nodes nodes scope_contexts contexts options after before last anchor_gi alert transition f_status f_type f_role f_class f_component f_node f_alert f_instance f_context")
        .members("api nodes facets transitions items versions agents timings"),
    doc("v2/versions", "Numbers that change when what they name does").members("api versions timings"),
    doc("v2/weights", "As in v1").takes("method after before baseline_after baseline_before points group options timeout contexts tier")
        .members("after before method contexts").fails(&[400, 404, 504]),
    doc("v3/stream_info", "What a child asks of a parent before it connects").takes("machine_guid").members("version status host_id nodes receivers nonce").fails(&[404]),
    doc("v3/stream_path", "The agents that every host's samples pass").takes(SCOPE).members("api nodes timings"),
    doc("v3/allmetrics", "As in v1").takes("allmetrics_format filter server prefix source help types names timestamps variables oldunits hideunits")
        .gives(&[ContentType::Text, ContentType::Prometheus, ContentType::Json]).fails(&[400]),
    doc("v3/badge.svg", "As in v1")
        .takes("chart! alarm dimensions after before points group group_options options label units label_color value_color text_color_lbl text_color_val multiply divide refresh precision scale fixed_width_lbl fixed_width_val")
        .gives(&[ContentType::Svg]).fails(&[400]),
];

/// What a parameter's value may be.
enum Value {
    Text,
    Integer { from: i64, to: i64 },
    OneOf(&'static [&'static str]),
}

use Value::{OneOf, Text};

const TIME: Value = Value::Integer { from: -100_000_000, to: 4_000_000_000 };
const COUNT: Value = Value::Integer { from: 0, to: 1000 };
const FLAG: Value = OneOf(&["yes", "no"]);
const METHODS: Value = OneOf(&[
    "average",
    "sum",
    "min",
    "max",
    "median",
    "trimmed-mean",
    "trimmed-median",
    "percentile",
    "stddev",
    "cv",
    "incremental-sum",
    "ses",
    "des",
    "countif",
]);

struct Parameter {
    /// The name that [`DOCS`] use.
    name: &'static str,
    /// The name on the wire, where it is another one.
    wire: &'static str,
    value: Value,
    about: &'static str,
}

const fn parameter(name: &'static str, value: Value, about: &'static str) -> Parameter {
    Parameter { name, wire: name, value, about }
}

#[rustfmt::skip]
const PARAMETERS: &[Parameter] = &[
    parameter("chart", Text, "Id or name of a chart; for data also a list of patterns"),
    parameter("context", Text, "A context; for data also a list of patterns"),
    parameter("contexts", Text, "Patterns of contexts, separated by commas or bars"),
    parameter("dimensions", Text, "Patterns of ids and names, separated by commas or bars"),
    parameter("instances", Text, "Patterns of charts, separated by commas or bars"),
    parameter("labels", Text, "Patterns of labels as key:value"),
    parameter("after", TIME, "Begin, in seconds since 1970, or relative to `before`"),
    parameter("before", TIME, "End, in seconds since 1970, or relative to now; 0 is the latest"),
    parameter("baseline_after", TIME, "Begin of the time to compare with"),
    parameter("baseline_before", TIME, "End of the time to compare with"),
    parameter("points", COUNT, "How many rows; 0 is all there are"),
    parameter("group", METHODS, "How the samples of a row become one value"),
    parameter("group_options", Text, "A number or a condition for some of the methods"),
    parameter("gtime", COUNT, "Seconds that a value is to be an amount of"),
    parameter("time_group", METHODS, "How the samples of a row become one value"),
    parameter("time_group_options", Text, "A number or a condition for some of the methods"),
    parameter("time_resampling", COUNT, "Seconds that a value is to be an amount of"),
    parameter("group_by", Text, "selected, dimension, instance, label, node, context, units, separated by commas"),
    parameter("group_by_label", Text, "Names of labels to group by, separated by commas"),
    parameter("aggregation", OneOf(&["avg", "min", "max", "sum", "extremes", "percentage"]), "How the metrics of a group become one"),
    // Not `csvjsonarray`, whose dates have no quotes: that is no JSON.
    parameter("format", OneOf(&["json", "jsonp", "csv", "tsv", "tsv-excel", "markdown", "html", "ssv", "ssvcomma", "array", "datatable", "datasource"]), "The form of the answer"),
    Parameter { name: "allmetrics_format", wire: "format", value: OneOf(&["shell", "prometheus", "prometheus_all_hosts", "json"]), about: "The form of the answer" },
    parameter("options", Text, "Words separated by commas, bars or blanks"),
    Parameter { name: "timeout", wire: "timeout", value: Value::Integer { from: 1000, to: 60_000 }, about: "Milliseconds after which the query is given up" },
    Parameter { name: "timeout_s", wire: "timeout", value: Value::Integer { from: 1, to: 3 }, about: "Seconds after which the call is given up" },
    parameter("tier", Value::Integer { from: 0, to: 4 }, "Which tier of the store to read"),
    parameter("chart_label_key", Text, "Patterns of labels whose charts are meant"),
    parameter("chart_labels_filter", Text, "Patterns of labels as key:value whose charts are meant"),
    parameter("show_dimensions", Text, "Anything: list all dimensions, charts and labels too"),
    parameter("callback", Text, "Name of the function that jsonp calls"),
    parameter("filename", Text, "Name under which a browser saves the answer"),
    parameter("tqx", Text, "What Google's visualisation library says"),
    parameter("filter", Text, "Patterns of charts, separated by blanks"),
    parameter("server", Text, "Who scrapes; the client's address by default"),
    parameter("prefix", Text, "What names of metrics begin with"),
    parameter("source", OneOf(&["average", "sum", "as-collected"]), "What of the samples is given"),
    parameter("help", FLAG, "Comments that explain the metrics"),
    parameter("types", FLAG, "The type of each metric"),
    parameter("names", FLAG, "Names instead of ids"),
    parameter("timestamps", FLAG, "The time of each sample"),
    parameter("variables", FLAG, "Custom variables of the host too"),
    parameter("oldunits", FLAG, "Units as they were called before 1.13"),
    parameter("hideunits", FLAG, "No units in names"),
    parameter("alarm", Text, "Name of an alarm"),
    parameter("label", Text, "What stands on the left of a badge"),
    parameter("units", Text, "What stands after the value"),
    parameter("label_color", Text, "A colour's name, or RGB, or RRGGBB"),
    parameter("value_color", Text, "The same, or conditions as in `red<10|green`"),
    parameter("text_color_lbl", Text, "Colour of the text on the left"),
    parameter("text_color_val", Text, "Colour of the text on the right"),
    parameter("multiply", COUNT, "What the value is multiplied by"),
    parameter("divide", COUNT, "What the value is divided by"),
    parameter("refresh", Text, "Seconds after which a browser is to ask again, or `auto`"),
    parameter("precision", Value::Integer { from: -1, to: 10 }, "Decimals; -1 is as many as fit"),
    parameter("scale", Value::Integer { from: 100, to: 1000 }, "Size in percent"),
    parameter("fixed_width_lbl", COUNT, "Width of the left part"),
    parameter("fixed_width_val", COUNT, "Width of the right part"),
    parameter("method", OneOf(&["ks2", "volume", "anomaly-rate"]), "How two spans of time are compared"),
    parameter("action", OneOf(&["hello", "access", "delete", "search", "switch"]), "What is wanted of the registry"),
    parameter("machine", Text, "GUID of the agent that a browser visits"),
    parameter("url", Text, "Where it visits it"),
    parameter("name", Text, "What its menu is to call it"),
    parameter("delete_url", Text, "A URL to forget"),
    parameter("for", Text, "GUID of an agent whose URLs are wanted"),
    parameter("to", Text, "GUID of the person to become"),
    parameter("all", Text, "Anything: alarms that are not raised too"),
    parameter("active", Text, "Anything: only what is raised"),
    parameter("status", Text, "A state of alarms; RAISED by default"),
    Parameter { name: "after_id", wire: "after", value: COUNT, about: "Unique id after which entries are wanted" },
    parameter("last", Value::Integer { from: 1, to: 1000 }, "How many transitions are listed at most; 1 by default"),
    parameter("anchor_gi", Value::Integer { from: 0, to: 9_000_000_000_000_000 }, "The `gi` of a transition: only older ones are listed"),
    parameter("alert", Text, "Name of an alarm"),
    parameter("transition", Text, "Id of a transition"),
    parameter("f_status", Text, "New states of alarms, separated by commas"),
    parameter("f_type", Text, "Types of alarms, separated by commas"),
    parameter("f_role", Text, "Recipients, separated by commas"),
    parameter("f_class", Text, "Classes of alarms, separated by commas"),
    parameter("f_component", Text, "Components, separated by commas"),
    parameter("f_node", Text, "Hostnames, separated by commas"),
    parameter("f_alert", Text, "Names of alarms, separated by commas"),
    parameter("f_instance", Text, "Ids of charts, separated by commas"),
    parameter("f_context", Text, "Contexts, separated by commas"),
    parameter("cmd", OneOf(&["LIST", "SILENCE ALL", "DISABLE ALL", "SILENCE", "DISABLE", "RESET"]), "What is to be done"),
    parameter("hosts", Text, "Patterns of hosts"),
    parameter("families", Text, "Patterns of families"),
    parameter("function", Text, "Name of a function, and what it takes"),
    parameter("scope_nodes", Text, "Patterns of hostnames and machine GUIDs: what exists for this answer"),
    parameter("nodes", Text, "The same: what is selected of it"),
    parameter("scope_contexts", Text, "Patterns of contexts: what exists for this answer"),
    parameter("scope_instances", Text, "Patterns of charts: what exists for this answer"),
    parameter("scope_dimensions", Text, "Patterns of dimensions: what exists for this answer"),
    parameter("cardinality_limit", COUNT, "How many names are listed at most"),
    parameter("q", Text, "What is looked for"),
    parameter("machine_guid", Text, "The machine GUID of the host that asks"),
    parameter("query", Text, "An expression of PromQL"),
    parameter("time", Text, "When, in seconds since 1970 or as a date of RFC 3339; now, if not given"),
    parameter("start", Text, "Begin, in seconds since 1970 or as a date of RFC 3339"),
    parameter("end", Text, "End, in seconds since 1970 or as a date of RFC 3339"),
    parameter("step", Text, "Seconds between two steps, or a duration such as 30s or 5m"),
    Parameter { name: "query_timeout", wire: "timeout", value: Text, about: "Seconds, or a duration, that the query may take" },
    parameter("lookback_delta", Text, "Seconds, or a duration, that a sample stands for; five minutes, if not given"),
    Parameter { name: "match", wire: "match[]", value: Text, about: "A selector of PromQL; may be given several times" },
    parameter("limit", COUNT, "How many are listed at most; 0 is all"),
    parameter("metric", Text, "The name of a metric"),
    Parameter { name: "label_name", wire: "label", value: Text, about: "The name of a label" },
];

/// The versions and their tables, in the order of the document.
const VERSIONS: &[(&str, &[&[Endpoint]])] =
    &[("v1", v1::TABLES), ("v2", v2::TABLES), ("v3", v3::TABLES)];

/// What is said of an endpoint; what v3 has of v2 is described there.
fn described(version: &str, name: &str) -> Option<&'static Doc> {
    let is = |doc: &&Doc, version: &str| {
        doc.path.split_once('/').is_some_and(|(v, n)| v == version && n == name)
    };
    let own = DOCS.iter().find(|doc| is(doc, version));
    own.or_else(|| DOCS.iter().find(|doc| version == "v3" && is(doc, "v2")))
}

pub fn document() -> Response {
    let mut json = JsonWriter::with_capacity(64 * 1024);
    json.object(|j| {
        j.key("openapi").string("3.1.0");
        j.key("info").object(|j| {
            j.key("title").string("Agent of a Netdata-compatible monitoring system");
            j.key("version").string(VERSION);
            j.key("description").string(
                "Every path can also be asked of another host of this agent, below /host/NAME or /host/GUID. \
                 Parameters that are not known, or empty, are ignored.",
            );
            j.key("license").object(|j| {
                j.key("name").string("GPL-3.0-or-later");
                j.key("identifier").string("GPL-3.0-or-later");
            });
        });
        j.key("servers").array(|j| {
            j.object(|j| {
                j.key("url").string("/");
            });
        });
        j.key("paths").object(|j| {
            for (version, tables) in VERSIONS {
                for endpoint in tables.iter().flat_map(|table| table.iter()) {
                    if let Some(doc) = described(version, endpoint.name) {
                        j.key(&format!("/api/{version}/{}", endpoint.name)).object(|j| {
                            j.key("get").object(|j| operation(j, version, endpoint, doc));
                        });
                    }
                }
            }
        });
    });
    Response::json(json).public()
}

fn operation(j: &mut JsonWriter, version: &str, endpoint: &Endpoint, doc: &Doc) {
    let id: String =
        endpoint.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    j.key("operationId").string(&format!("{version}_{id}"));
    j.key("summary").string(doc.about);
    j.key("tags").array(|j| {
        j.string(version);
    });
    j.key("parameters").array(|j| {
        for name in doc.takes.split_whitespace() {
            let required = name.ends_with('!');
            let name = name.trim_end_matches('!');
            if let Some(parameter) = PARAMETERS.iter().find(|p| p.name == name) {
                let in_path = endpoint.name.contains(&format!("{{{}}}", parameter.wire));
                j.object(|j| write_parameter(j, parameter, required, in_path));
            }
        }
    });
    j.key("responses").object(|j| {
        j.key("200").object(|j| {
            j.key("description").string("What was asked for");
            content(j, doc.gives, doc.members);
        });
        if endpoint.needs != Rights::empty() {
            j.key("403").object(|j| failure(j, doc, "This client may not ask this"));
        }
        for status in doc.fails {
            let about = match status {
                400 => "Something is missing or cannot be understood",
                404 => "There is nothing of that name, or no sample of it in that time",
                422 => "The expression cannot be computed with these samples",
                499 => "The call was taken back",
                503 => "Nobody is there to answer, or the time was up",
                504 => "The time was up",
                _ => "It did not work",
            };
            j.key(&status.to_string()).object(|j| failure(j, doc, about));
        }
    });
}

/// Values of which there is something on every agent, for whoever tries the interface.
const EXAMPLES: &[(&str, &str)] = &[
    ("chart", "netdata.requests"),
    ("context", "netdata.requests"),
    ("contexts", "netdata.requests"),
    ("function", "netdata-streaming"),
    ("dimensions", "*"),
    ("options", "unaligned"),
    ("query", "sum by (dimension) (netdata_netdata_requests_requests_persec_average)"),
    ("match", "{chart=\"netdata.requests\"}"),
    ("label_name", "chart"),
    ("step", "15s"),
    ("start", "1700000000"),
    ("end", "1700000600"),
];

fn write_parameter(j: &mut JsonWriter, parameter: &Parameter, required: bool, in_path: bool) {
    j.key("name").string(parameter.wire);
    j.key("in").string(if in_path { "path" } else { "query" });
    j.key("required").bool(required);
    j.key("description").string(parameter.about);
    if let Some((_, value)) = EXAMPLES.iter().find(|(name, _)| *name == parameter.name) {
        j.key("example").string(value);
    }
    j.key("schema").object(|j| match &parameter.value {
        // Control characters are refused wherever they stand.
        Value::Text => {
            j.key("type").string("string");
            j.key("minLength").integer(i64::from(required));
            j.key("maxLength").integer(200);
            j.key("pattern").string("^[ -~]*$");
        }
        Value::Integer { from, to } => {
            j.key("type").string("integer");
            j.key("minimum").integer(*from);
            j.key("maximum").integer(*to);
        }
        Value::OneOf(words) => {
            j.key("type").string("string");
            j.key("enum").array(|j| {
                for word in *words {
                    j.string(word);
                }
            });
        }
    });
}

fn content(j: &mut JsonWriter, types: &[ContentType], members: &str) {
    j.key("content").object(|j| {
        for kind in types {
            let bare = kind.as_str().split(';').next().unwrap_or_default();
            // Two of them differ in what follows the semicolon alone.
            if *kind == ContentType::Prometheus && types.contains(&ContentType::Text) {
                continue;
            }
            j.key(bare).object(|j| {
                j.key("schema").object(|j| {
                    if *kind != ContentType::Json {
                        j.key("type").string("string");
                    } else if !members.is_empty() {
                        j.key("type").string("object");
                        j.key("required").array(|j| {
                            for member in members.split_whitespace() {
                                j.string(member);
                            }
                        });
                    }
                });
            });
        }
    });
}

/// Errors are plain text, but for those of a few endpoints that give JSON.
fn failure(j: &mut JsonWriter, doc: &Doc, about: &str) {
    j.key("description").string(about);
    let kinds = if doc.gives.contains(&ContentType::Json) {
        &[ContentType::Text, ContentType::Json, ContentType::Html][..]
    } else {
        TEXT
    };
    content(j, kinds, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_described_and_nothing_else() {
        let mut used = Vec::new();
        for (version, tables) in VERSIONS {
            for endpoint in tables.iter().flat_map(|table| table.iter()) {
                let doc = described(version, endpoint.name);
                let path = doc.map(|doc| doc.path);
                assert!(path.is_some(), "/api/{version}/{} is in no entry of DOCS", endpoint.name);
                used.extend(path);
            }
        }
        let unused: Vec<_> =
            DOCS.iter().map(|doc| doc.path).filter(|path| !used.contains(path)).collect();
        assert!(unused.is_empty(), "no endpoint: {unused:?}");
    }

    #[test]
    fn every_parameter_that_is_named_is_explained() {
        for doc in DOCS {
            for name in doc.takes.split_whitespace().map(|name| name.trim_end_matches('!')) {
                let known = PARAMETERS.iter().any(|parameter| parameter.name == name);
                assert!(known, "'{name}' of {}", doc.path);
            }
        }
    }

    #[test]
    fn the_document_is_json_with_every_path_once() {
        let response = document();
        let text = String::from_utf8(response.body.bytes().to_vec()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), text.matches("\"get\":{").count());
        assert_eq!(paths["/api/v1/chart"]["get"]["parameters"][0]["required"], true);
    }
}
