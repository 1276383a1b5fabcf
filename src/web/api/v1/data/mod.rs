//! `/api/v1/data`: samples of one chart, of a pattern of charts or of a context, grouped over time, in any format.

use std::fmt::Write as _;

use self::format::{Format, LineEnd};
use self::wrap::Envelope;
use crate::base::stats::QueryBy;
use crate::metrics::Host;
use crate::query::options::Options;
use crate::query::run::{self, Kind, Outcome, QueryError};
use crate::query::window;
use crate::web::api::Call;
use crate::web::http::Response;
use crate::wire::http::Query;

pub mod format;
pub mod wrap;

/// What Google's visualisation library says in `tqx`.
struct Google {
    version: String,
    request: String,
    /// The newest sample it has already.
    signature: i64,
    handler: String,
}

/// A request as its parameters say it.
struct Parameters<'a> {
    query: run::Query<'a>,
    format: Format,
    callback: String,
    file_name: String,
    google: Google,
    timeout_ms: i64,
}

pub fn data(call: &Call<'_>) -> Response {
    let dimensions = dimensions(call.query());
    let parameters = Parameters::of(call, &dimensions);
    let query = &parameters.query;
    let deadline_us =
        call.agent.clock.monotonic_us().saturating_add(parameters.timeout_ms.saturating_mul(1000));
    let expired = || parameters.timeout_ms > 0 && call.agent.clock.monotonic_us() > deadline_us;
    let outcome = match run::run(call.host, query, &expired) {
        Ok(outcome) => outcome.counted(QueryBy::ApiData),
        Err(QueryError::NothingAsked) => {
            return Response::error(400, "No chart or context is given.");
        }
        Err(QueryError::NoMatch) => {
            return Response::error(404, "No metrics where matched to query.");
        }
        Err(QueryError::TimedOut) => return Response::error(503, ""),
    };
    let wrapped = query.options.contains(Options::JSONWRAP);
    let body = body(call.host, &parameters, &outcome);
    let mut response = Response::new(200, parameters.format.content_type(wrapped), body);
    if window::is_absolute(query.after, query.before) {
        response = response.public();
    }
    if !parameters.file_name.is_empty() {
        let value = format!("attachment; filename=\"{}\"", parameters.file_name);
        response = response.header("Content-Disposition", value);
    }
    response
}

/// All spellings of `dimensions`, one list: a repeated parameter adds to it.
pub(super) fn dimensions(query: &Query) -> String {
    let mut all = String::new();
    for (name, value) in query.pairs() {
        if matches!(name, "dimensions" | "dimension" | "dims" | "dim") {
            all.push('|');
            all.push_str(value);
        }
    }
    all
}

/// A name that the caller gives us to print: no character of it can do harm.
fn harmless(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

impl<'a> Parameters<'a> {
    fn of(call: &Call<'a>, dimensions: &'a str) -> Parameters<'a> {
        let given = &call.request.query;
        let text = |name| given.get(name).unwrap_or("");
        let integer = |name, default| given.integer(name).unwrap_or(default);
        let mut options = Options::empty();
        if let Some(words) = given.get("options") {
            options = Options::parse(words);
        }
        options.set(
            Options::ALL_DIMENSIONS,
            options.contains(Options::ALL_DIMENSIONS) || given.get("show_dimensions").is_some(),
        );
        let mut parameters = Parameters {
            query: run::Query {
                chart: text("chart"),
                context: text("context"),
                dimensions,
                chart_label_key: text("chart_label_key"),
                chart_labels_filter: text("chart_labels_filter"),
                after: integer("after", -600),
                before: integer("before", 0),
                points: integer("points", 0),
                gtime: integer("gtime", 0),
                group: text("group"),
                group_options: text("group_options"),
                options,
                tier: tier(text("tier")),
                clock: call.now().0,
                want_resets: false,
            },
            format: Format::parse(text("format")),
            callback: harmless(given.get("callback").unwrap_or("callback")),
            file_name: harmless(text("filename")),
            google: Google {
                version: "0.6".to_owned(),
                request: "0".to_owned(),
                signature: 0,
                handler: "google.visualization.Query.setResponse".to_owned(),
            },
            timeout_ms: integer("timeout", 0),
        };
        parameters.read_tqx(text("tqx"));
        parameters.query.want_resets =
            matches!(parameters.format, Format::DataTable | Format::DataSource);
        parameters
    }

    fn read_tqx(&mut self, tqx: &str) {
        for (name, value) in tqx.split(';').filter_map(|part| part.split_once(':')) {
            match name {
                "version" => self.google.version = harmless(value),
                "reqId" => self.google.request = harmless(value),
                "sig" => self.google.signature = crate::wire::http::lenient_integer(value),
                "out" => self.format = Format::parse_google(value),
                "responseHandler" => self.google.handler = harmless(value),
                "outFileName" => self.file_name = harmless(value),
                _ => {}
            }
        }
    }
}

/// The number of a tier; nothing that is no number.
fn tier(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

fn body(host: &Host, parameters: &Parameters<'_>, outcome: &Outcome) -> String {
    let answer = &outcome.answer;
    let mut out = String::new();
    let (before, after) = match parameters.format {
        Format::Jsonp => (format!("{}(", parameters.callback), ");"),
        Format::DataSource => match data_source_head(parameters, outcome) {
            Ok(head) => (head, "});"),
            Err(not_modified) => return not_modified,
        },
        _ => (String::new(), ""),
    };
    out.push_str(&before);
    if answer.options.contains(Options::JSONWRAP) {
        let envelope = Envelope {
            id: describe(host, &parameters.query, outcome),
            by_pattern: (outcome.kind == Kind::Pattern).then(|| outcome.label_keys.clone()),
        };
        wrap::wrap(answer, &envelope, parameters.format, &mut out);
    } else {
        match parameters.format {
            Format::Json | Format::Jsonp => format::json(answer, &mut out),
            Format::Csv | Format::Tsv | Format::Markdown => {
                format::lines(answer, parameters.format, LineEnd::CrLf, &mut out);
            }
            Format::CsvJsonArray => format::csv_json_array(answer, false, &mut out),
            Format::Html => format::html(answer, &mut out),
            Format::Ssv | Format::SsvComma | Format::Array => {
                format::one_per_row(answer, parameters.format, &mut out);
            }
            Format::DataTable | Format::DataSource => format::data_table(answer, &mut out),
        }
    }
    out.push_str(after);
    out
}

/// What stands before the table; `Err` is the whole answer to a client that has the newest data already.
fn data_source_head(parameters: &Parameters<'_>, outcome: &Outcome) -> Result<String, String> {
    let google = &parameters.google;
    let newest = outcome.answer.held.last;
    let head =
        format!("{}({{version:'{}',reqId:'{}',", google.handler, google.version, google.request);
    if google.signature > 0 && google.signature >= newest {
        return Err(format!(
            "{head}status:'error',errors:[{{reason:'not_modified',message:'Data not modified'}}]}});"
        ));
    }
    Ok(format!("{head}status:'ok',sig:'{newest}',table:"))
}

/// The text that names a query in jsonwrap.
fn describe(host: &Host, query: &run::Query<'_>, outcome: &Outcome) -> String {
    let or_all = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
    let mut out = match outcome.chart_name() {
        Some(name) => format!("chart://host:{}/instance:{name}", host.hostname()),
        None => format!(
            "context://host:{}/contexts:{}/instances:{}",
            host.hostname(),
            or_all(query.context),
            or_all(query.chart)
        ),
    };
    let mut options = query.options;
    options.set(Options::SELECTED_TIER, outcome.tier.is_some());
    let _ = write!(
        out,
        "/dimensions:{}/after:{}/before:{}/points:{}/group:{}{}/options:{}",
        or_all(query.dimensions),
        query.after,
        query.before,
        query.points,
        outcome.answer.group,
        query.group_options,
        options.words()
    );
    if query.gtime > 0 {
        let _ = write!(out, "/resampling:{}", query.gtime);
    }
    if let Some(tier) = outcome.tier {
        let _ = write!(out, "/tier:{tier}");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::query::run::samples::T0;
    use crate::web::api::v1::samples::{ask, json, text};
    use crate::web::http::Caching;

    fn window() -> String {
        format!("chart=t.abs&after={}&before={}", T0 + 106, T0 + 107)
    }

    #[test]
    fn a_plain_question_gets_json() {
        let response = ask(data, &window());
        assert_eq!(response.caching, Caching::Public);
        assert_eq!(
            json(&response),
            json!({"labels": ["time", "up", "Zero Zero", "gap"], "data": [[T0 + 107, 7, 0, 107], [T0 + 106, 6, 0, 106]]})
        );
    }

    #[test]
    fn the_envelope_describes_the_query() {
        let query = format!(
            "{}&points=2&dimensions=up|gap&dim=hid&group=percentile&group_options=50&gtime=1&tier=0&options=jsonwrap,reverse,abs,unaligned,nonzero",
            window()
        );
        let w = json(&ask(data, &query));
        let (after, before) = (T0 + 106, T0 + 107);
        assert_eq!(
            w["id"],
            format!(
                "chart://host:node/instance:t.absname/dimensions:|up|gap|hid/after:{after}/before:{before}/points:2/group:percentile9550/options:nonzero,flip,jsonwrap,abs,unaligned,selected-tier/resampling:1/tier:0"
            )
        );
        assert_eq!(
            w["options"],
            "nonzero,flip,jsonwrap,abs,unaligned,selected-tier,virtual-points"
        );
        assert_eq!(w["latest_values"], json!([0, null, 100]));
        let w = json(&ask(
            data,
            &window().replace("chart=t.abs", "context=t.*&chart_label_key=colour&options=jsonwrap"),
        ));
        assert!(
            w["id"]
                .as_str()
                .unwrap()
                .starts_with("context://host:node/contexts:t.*/instances:*/dimensions:*/after:")
        );
        assert_eq!(w["chart_labels"], json!({"colour": ["red", "red", "red"]}));
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        for (query, status, body) in [
            ("", 400, "No chart or context is given."),
            ("chart=&context=*", 400, "No chart or context is given."),
            ("chart=no.such", 404, "No metrics where matched to query."),
            ("chart=t.abs", 404, "No metrics where matched to query."),
        ] {
            let response = ask(data, query);
            assert_eq!((response.status, text(&response).as_str()), (status, body), "{query}");
        }
    }

    #[test]
    fn names_from_outside_are_made_harmless() {
        let response =
            ask(data, &format!("{}&format=jsonp&callback=a.b%28c&filename=a/b", window()));
        assert!(text(&response).starts_with("a.b_c({") && text(&response).ends_with(");"));
        assert_eq!(response.headers[0].1, "attachment; filename=\"a_b\"");
    }

    #[test]
    fn google_is_told_when_nothing_changed() {
        let query = format!("{}&format=datasource", window());
        let full = text(&ask(data, &query));
        assert!(full.starts_with(&format!("google.visualization.Query.setResponse({{version:'0.6',reqId:'0',status:'ok',sig:'{}',table:{{", T0 + 900)), "{full}");
        let same = text(&ask(data, &format!("{query}&tqx=reqId:7;sig:{}", T0 + 900)));
        assert_eq!(
            same,
            "google.visualization.Query.setResponse({version:'0.6',reqId:'7',status:'error',errors:[{reason:'not_modified',message:'Data not modified'}]});"
        );
        assert!(
            text(&ask(data, &format!("{query}&options=seconds&tqx=out:csv")))
                .starts_with("time,up,")
        );
    }
}
