//! `/api/v1/prometheus/api/v1/…`: what Grafana and others ask of a Prometheus, answered from what this agent keeps.
//!
//! Parameters come in the URL or as a form. At the top the series of all hosts are there, below `/host/X` those of that host. The
//! forms of answers and errors are those of Prometheus; what differs is told in `docs/promql.md`.
//!
//! A query is read and runs on a thread of its own for its time, as expressions are walked and patterns compiled recursively and
//! connections have small stacks.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt::Write as _;

use promql_parser::parser::Expr;
use promql_parser::util::parse_duration;

use crate::base::json::push_string;
use crate::base::stats::{QueryBy, STATS};
use crate::base::threads;
use crate::promql::eval::{Evaluator, Instant, Times, alternatives};
use crate::promql::labels::{Labels, NAME};
use crate::promql::store::Store;
use crate::promql::value::number;
use crate::promql::{Error, Limits, Source, calendar, parse};
use crate::web::api::{Call, Endpoint, read};
use crate::web::http::{ContentType, Response};
use crate::wire::http::Query;

/// The beginning of the paths of all endpoints, below whichever host.
pub const PATH: &str = "/api/v1/prometheus/";
pub const ENDPOINTS: &[Endpoint] = &[
    read("prometheus/api/v1/query", query),
    read("prometheus/api/v1/query_range", query_range),
    read("prometheus/api/v1/series", series),
    read("prometheus/api/v1/labels", labels),
    read("prometheus/api/v1/label/{label}/values", label_values),
    read("prometheus/api/v1/metadata", metadata),
    read("prometheus/api/v1/status/buildinfo", build_info),
];

/// Steps of a range query; more are refused, as by Prometheus.
const STEPS_MAX: i64 = 11_000;
/// A query may take so long, whatever it asks for.
const TIME_MS_MAX: i64 = 60_000;
/// A sample stands for the time after it, so long.
const LOOKBACK_MS: i64 = 300_000;
/// Selectors in one request for names and labels.
const SELECTORS_MAX: usize = 64;
/// For as many levels as a query has operators at most, of a build that is not optimized.
const STACK_BYTES: usize = 16 << 20;
/// The version whose semantics these are; clients look at it for what they may ask.
const SPEAKS: &str = "2.42.0";
/// Times nobody keeps samples of are as good as the nearest that anybody may.
const TIME_MS_BOUND: i64 = 1 << 52;

/// What is sent where there is no answer.
enum Failure {
    /// A parameter is missing or wrong.
    BadData(String),
    Query(Error),
    NoThread,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Query(error)
    }
}

impl Failure {
    fn response(self) -> Response {
        let (status, kind, text) = match self {
            Failure::BadData(text) => (400, "bad_data", text),
            Failure::Query(Error::Parse(text)) => {
                (400, "bad_data", format!("invalid parameter \"query\": {text}"))
            }
            Failure::Query(Error::Execution(text)) => (422, "execution", text),
            Failure::Query(error @ Error::TimedOut) => (503, "timeout", error.to_string()),
            Failure::Query(error @ Error::Busy) => (503, "unavailable", error.to_string()),
            Failure::NoThread => (503, "unavailable", "no thread can be started".to_owned()),
        };
        let mut body = format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":");
        push_string(&mut body, &text);
        body.push('}');
        Response::new(status, ContentType::Json, body)
    }
}

fn bad_parameter(name: &str, why: impl std::fmt::Display) -> Failure {
    Failure::BadData(format!("invalid parameter {name:?}: {why}"))
}

/// Parameters of the URL and of the body; of one that is in both the latter counts.
struct Asked<'a> {
    call: &'a Call<'a>,
    form: Query,
    deadline_us: i64,
}

impl<'a> Asked<'a> {
    fn of(call: &'a Call<'a>) -> Result<Asked<'a>, Failure> {
        let form = Query::parse_form(&call.request.body);
        let form = form.map_err(|_| Failure::BadData("the body is no form".to_owned()))?;
        let mut asked = Asked { call, form, deadline_us: 0 };
        let time_ms = asked.duration("timeout")?.unwrap_or(TIME_MS_MAX).clamp(1, TIME_MS_MAX);
        asked.deadline_us = call.agent.clock.monotonic_us().saturating_add(time_ms * 1000);
        Ok(asked)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.form.get(name).or_else(|| self.call.query().get(name))
    }

    /// All of a parameter that may be there several times.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.form.pairs().chain(self.call.query().pairs());
        pairs.filter(move |(own, _)| *own == name).map(|(_, value)| value)
    }

    fn time(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let why = || format!("cannot parse {text:?} to a valid timestamp");
        time_ms(text).map(Some).ok_or_else(|| bad_parameter(name, why()))
    }

    /// Milliseconds, above zero.
    fn duration(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let why = || format!("cannot parse {text:?} to a valid duration");
        duration_ms(text).map(Some).ok_or_else(|| bad_parameter(name, why()))
    }

    fn store(&self) -> Store<'a> {
        let agent = self.call.agent;
        let one = self.call.is_below_host();
        let hosts = if one { vec![self.call.host.clone()] } else { agent.hosts.all() };
        Store {
            hosts,
            prefix: &agent.prometheus.prefix,
            names: agent.prometheus.send_names,
            now_s: self.call.now().0,
        }
    }

    fn expired(&self) -> bool {
        self.call.agent.clock.monotonic_us() > self.deadline_us
    }

    /// Answers an expression, on a stack that is large enough for it.
    fn answer(
        &self,
        whole: Times,
        answer: impl FnOnce(&Evaluator<'_>, &Expr) -> Result<String, Error> + Send,
    ) -> Result<Response, Failure> {
        let text = self.get("query").unwrap_or("");
        let lookback_ms = self.duration("lookback_delta")?.unwrap_or(LOOKBACK_MS);
        let store = self.store();
        let expired = || self.expired();
        let work = || {
            let expr = parse::parse(text)?;
            let limits = Limits::default();
            let evaluator = Evaluator::new(&store, limits, lookback_ms, whole, &expired);
            let data = answer(&evaluator, &expr);
            let (series, samples) = evaluator.read();
            STATS.query(QueryBy::ApiData, series, samples);
            data
        };
        let data = threads::with_stack(STACK_BYTES, work).map_err(|_| Failure::NoThread)??;
        Ok(success(&data))
    }

    /// Calls `visit` for every series that any of the selectors `match[]` finds, or for all.
    fn series(&self, visit: &mut (dyn FnMut(&Labels) + Send)) -> Result<(), Failure> {
        let texts: Vec<&str> = self.all("match[]").collect();
        if texts.len() > SELECTORS_MAX {
            return Err(bad_parameter("match[]", format!("more than {SELECTORS_MAX} selectors")));
        }
        let from = self.time("start")?.unwrap_or(0);
        let to = self.time("end")?.unwrap_or(TIME_MS_BOUND);
        let store = self.store();
        let expired = || self.expired();
        let work = || {
            let mut wanted = Vec::new();
            for text in texts {
                match parse::parse(text) {
                    Ok(Expr::VectorSelector(selector)) => {
                        wanted.extend(alternatives(selector.name.as_deref(), &selector.matchers));
                    }
                    Ok(_) => {
                        return Err(bad_parameter("match[]", format!("{text:?} is no selector")));
                    }
                    Err(why) => return Err(bad_parameter("match[]", why)),
                }
                if expired() {
                    return Err(Error::TimedOut.into());
                }
            }
            if wanted.is_empty() {
                wanted.push(Vec::new());
            }
            let found = store.select(&wanted, (from, to), &Limits::default(), &expired)?;
            found.iter().for_each(|one| visit(&one.labels));
            Ok(())
        };
        threads::with_stack(STACK_BYTES, work).map_err(|_| Failure::NoThread)?
    }

    fn limit(&self) -> usize {
        let limit = self.get("limit").and_then(|text| text.parse().ok());
        limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX)
    }
}

fn respond(result: Result<Response, Failure>) -> Response {
    result.unwrap_or_else(Failure::response)
}

fn success(data: &str) -> Response {
    let body = ["{\"status\":\"success\",\"data\":", data, "}"].concat();
    Response::new(200, ContentType::Json, body)
}

fn query(call: &Call<'_>) -> Response {
    let answer = || {
        let asked = Asked::of(call)?;
        let now_ms = call.agent.clock.now().0.div_euclid(1000);
        let at_ms = asked.time("time")?.unwrap_or(now_ms);
        let whole = Times { start_ms: at_ms, end_ms: at_ms, step_ms: 1 };
        asked.answer(whole, move |evaluator, expr| Ok(instant(&evaluator.instant(expr)?, at_ms)))
    };
    respond(answer())
}

fn query_range(call: &Call<'_>) -> Response {
    let answer = || {
        let asked = Asked::of(call)?;
        let missing = |name| bad_parameter(name, "cannot parse \"\" to a valid timestamp");
        let start_ms = asked.time("start")?.ok_or_else(|| missing("start"))?;
        let end_ms = asked.time("end")?.ok_or_else(|| missing("end"))?;
        let no_step = || bad_parameter("step", "cannot parse \"\" to a valid duration");
        let step_ms = asked.duration("step")?.ok_or_else(no_step)?;
        if end_ms < start_ms {
            return Err(bad_parameter("end", "end timestamp must not be before start time"));
        }
        if (end_ms - start_ms) / step_ms > STEPS_MAX {
            return Err(Failure::BadData(
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
                    .to_owned(),
            ));
        }
        asked.answer(Times { start_ms, end_ms, step_ms }, |evaluator, expr| {
            let (times, series) = evaluator.range(expr)?;
            let rows = series.iter().map(|one| {
                let points = times.iter().zip(&one.points).filter_map(|(at, v)| Some((*at, (*v)?)));
                (&one.labels, points)
            });
            Ok(matrix(rows))
        })
    };
    respond(answer())
}

fn series(call: &Call<'_>) -> Response {
    let answer = || {
        let asked = Asked::of(call)?;
        if asked.all("match[]").next().is_none() {
            return Err(Failure::BadData("no match[] parameter provided".to_owned()));
        }
        let (mut out, mut left) = (String::from("["), asked.limit());
        asked.series(&mut |labels| {
            if left > 0 {
                left -= 1;
                comma(&mut out);
                push_labels(&mut out, labels);
            }
        })?;
        out.push(']');
        Ok(success(&out))
    };
    respond(answer())
}

fn labels(call: &Call<'_>) -> Response {
    let answer = || {
        let asked = Asked::of(call)?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        asked.series(&mut |labels| {
            for (name, _) in labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        })?;
        Ok(list(&names, asked.limit()))
    };
    respond(answer())
}

fn label_values(call: &Call<'_>) -> Response {
    let answer = || {
        let asked = Asked::of(call)?;
        let parts: Vec<&str> = call.request.path.rsplitn(3, '/').collect();
        let name = parts.get(1).copied().unwrap_or_default();
        if !crate::promql::labels::is_label_name(name) {
            return Err(Failure::BadData(format!("invalid label name: {name:?}")));
        }
        let mut values: BTreeSet<String> = BTreeSet::new();
        if name == NAME && asked.all("match[]").next().is_none() && asked.get("start").is_none() {
            // Every dashboard asks this first; names of series need not be made for it.
            asked.store().metrics(&mut |found| {
                if !values.contains(found.metric) {
                    values.insert(found.metric.to_owned());
                }
            });
        } else {
            asked.series(&mut |labels| {
                let value = labels.get(name);
                if !value.is_empty() && !values.contains(value) {
                    values.insert(value.to_owned());
                }
            })?;
        }
        Ok(list(&values, asked.limit()))
    };
    respond(answer())
}

fn metadata(call: &Call<'_>) -> Response {
    let answer = || {
        let asked = Asked::of(call)?;
        let (wanted, limit) = (asked.get("metric"), asked.limit());
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        asked.store().metrics(&mut |metric| {
            if wanted.is_some_and(|wanted| wanted != metric.metric) || found.len() > limit {
                return;
            }
            if let Entry::Vacant(place) = found.entry(metric.metric.to_owned()) {
                let mut text = format!("[{{\"type\":\"{}\",\"help\":", metric.kind);
                push_string(&mut text, metric.help);
                text.push_str(",\"unit\":");
                push_string(&mut text, metric.unit);
                text.push_str("}]");
                place.insert(text);
            }
        });
        let mut out = String::from("{");
        for (metric, text) in found.iter().take(limit) {
            comma(&mut out);
            push_string(&mut out, metric);
            out.push(':');
            out.push_str(text);
        }
        out.push('}');
        Ok(success(&out))
    };
    respond(answer())
}

fn build_info(_: &Call<'_>) -> Response {
    success(&format!(
        "{{\"version\":\"{SPEAKS}\",\"revision\":\"\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}}"
    ))
}

// --- answers as text --------------------------------------------------------------------------------

fn comma(out: &mut String) {
    if !out.ends_with(['[', '{']) {
        out.push(',');
    }
}

fn list(texts: &BTreeSet<String>, limit: usize) -> Response {
    let mut out = String::from("[");
    for text in texts.iter().take(limit) {
        comma(&mut out);
        push_string(&mut out, text);
    }
    out.push(']');
    success(&out)
}

fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (n, (name, value)) in labels.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        push_string(out, value);
    }
    out.push('}');
}

/// Seconds with as many of three decimals as there are none of zeros alone.
fn push_time(out: &mut String, at_ms: i64) {
    let (seconds, millis) = (at_ms.div_euclid(1000), at_ms.rem_euclid(1000));
    let _ = match millis {
        0 => write!(out, "{seconds}"),
        _ => write!(out, "{:.3}", at_ms as f64 / 1000.0),
    };
}

fn push_point(out: &mut String, at_ms: i64, value: f64) {
    out.push('[');
    push_time(out, at_ms);
    let _ = write!(out, ",\"{}\"]", number(value));
}

fn instant(answer: &Instant, at_ms: i64) -> String {
    let mut out = String::new();
    match answer {
        Instant::Scalar(value) => {
            out.push_str("{\"resultType\":\"scalar\",\"result\":");
            push_point(&mut out, at_ms, *value);
        }
        Instant::Text(text) => {
            out.push_str("{\"resultType\":\"string\",\"result\":[");
            push_time(&mut out, at_ms);
            out.push(',');
            push_string(&mut out, text);
            out.push(']');
        }
        Instant::Vector(series) => {
            out.push_str("{\"resultType\":\"vector\",\"result\":[");
            for (n, (labels, value)) in series.iter().enumerate() {
                out.push_str(if n > 0 { ",{\"metric\":" } else { "{\"metric\":" });
                push_labels(&mut out, labels);
                out.push_str(",\"value\":");
                push_point(&mut out, at_ms, *value);
                out.push('}');
            }
            out.push(']');
        }
        Instant::Matrix(series) => {
            return matrix(series.iter().map(|one| (&one.labels, one.samples.iter().copied())));
        }
    }
    out.push('}');
    out
}

fn matrix<'l>(
    rows: impl Iterator<Item = (&'l Labels, impl Iterator<Item = (i64, f64)>)>,
) -> String {
    let mut out = String::from("{\"resultType\":\"matrix\",\"result\":[");
    for (n, (labels, points)) in rows.enumerate() {
        out.push_str(if n > 0 { ",{\"metric\":" } else { "{\"metric\":" });
        push_labels(&mut out, labels);
        out.push_str(",\"values\":[");
        for (n, (at_ms, value)) in points.enumerate() {
            if n > 0 {
                out.push(',');
            }
            push_point(&mut out, at_ms, value);
        }
        out.push_str("]}");
    }
    out.push_str("]}");
    out
}

// --- parameters as numbers --------------------------------------------------------------------------

/// Seconds since 1970, or a date of RFC 3339.
fn time_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return ms.is_finite().then(|| (ms as i64).clamp(-TIME_MS_BOUND, TIME_MS_BOUND));
    }
    let (date, rest) = text.split_at_checked(10)?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let date = (date.next()??, date.next()??, date.next()??);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let mut time = time.split(':').map(|part| part.parse::<i64>().ok());
    let time = (time.next()??, time.next()??, time.next()??);
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            (format!("0.{}", &rest[..digits]).parse::<f64>().ok()?, &rest[digits..])
        }
        None => (0.0, rest),
    };
    let ahead_s = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            let part = |text: &str| text.parse::<i64>().ok().filter(|n| (0..60).contains(n));
            sign * (part(hours)? * 3600 + part(minutes)? * 60)
        }
    };
    let seconds = calendar::seconds_of(date, time)? - ahead_s;
    let ms = seconds * 1000 + (fraction * 1000.0).round() as i64;
    Some(ms.clamp(-TIME_MS_BOUND, TIME_MS_BOUND))
}

/// Seconds, or a duration as in queries; above zero.
fn duration_ms(text: &str) -> Option<i64> {
    let ms = match text.parse::<f64>() {
        Ok(seconds) => (seconds * 1000.0).round(),
        Err(_) => parse_duration(text).ok()?.as_millis() as f64,
    };
    (ms >= 1.0 && ms < TIME_MS_BOUND as f64).then_some(ms as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::run::samples::T0;
    use crate::web::api::v1::samples::{ask, ask_below, json, text};

    #[test]
    fn times_are_seconds_or_dates() {
        for (text, ms) in [
            ("0", Some(0)),
            ("1435781451.781", Some(1_435_781_451_781)),
            ("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781)),
            ("2015-07-01T22:10:51+02:00", Some(1_435_781_451_000)),
            ("2015-07-01", None),
            ("2015-13-01T00:00:00Z", None),
            ("2015-07-01T20:10:51é", None),
            ("NaN", None),
            ("x", None),
        ] {
            assert_eq!(time_ms(text), ms, "{text}");
        }
        for (text, ms) in [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            ("1m30s", Some(90_000)),
            ("0", None),
            ("-1", None),
        ] {
            assert_eq!(duration_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn our_own_samples_are_series_of_the_names_that_are_exported() {
        let asked = format!("query=netdata_t_ctx_things_persec_average&time={}", T0 + 150);
        let answer = json(&ask(query, &asked));
        assert_eq!(answer["status"], "success");
        let result = answer["data"]["result"].as_array().unwrap();
        assert_eq!(result.len(), 5, "{result:?}");
        let up = result.iter().find(|one| one["metric"]["chart"] == "t.two").unwrap();
        assert_eq!(
            up["metric"],
            serde_json::json!({"__name__": "netdata_t_ctx_things_persec_average", "chart": "t.two",
                "dimension": "up", "family": "t", "instance": "node"})
        );
        assert_eq!(up["value"], serde_json::json!([T0 + 150, "50"]));
    }

    #[test]
    fn a_range_has_a_value_for_every_step() {
        let asked = format!(
            "query=sum by(dimension)(rate(netdata_t_slow_things_persec_average[1m]))&start={}&end={}&step=30",
            T0 + 300,
            T0 + 360
        );
        let answer = json(&ask(query_range, &asked));
        let result = &answer["data"]["result"];
        assert_eq!(answer["data"]["resultType"], "matrix");
        assert_eq!(result[0]["metric"], serde_json::json!({"dimension": "s"}));
        let want = serde_json::json!([[T0 + 300, "1"], [T0 + 330, "1"], [T0 + 360, "1"]]);
        assert_eq!(result[0]["values"], want);
    }

    #[test]
    fn errors_are_told_as_prometheus_tells_them() {
        for (handler, asked, status, kind) in [
            (query as fn(&Call<'_>) -> Response, "", 400, "bad_data"),
            (query, "query=sum(", 400, "bad_data"),
            (query, "query=1&time=x", 400, "bad_data"),
            (query, "query=label_replace(vector(1),\"0\",\"\",\"\",\"\")", 422, "execution"),
            (query_range, "query=1&start=0&end=1", 400, "bad_data"),
            (query_range, "query=1&start=0&end=11001&step=1", 400, "bad_data"),
            (query_range, "query=1&start=1&end=0&step=1", 400, "bad_data"),
            (series, "", 400, "bad_data"),
            (series, "match[]=1", 400, "bad_data"),
            (series, "match[]=x offset Inf", 400, "bad_data"),
            (query, "query=x offset 1e20", 400, "bad_data"),
            (query, "query=x[1e20]", 400, "bad_data"),
            (query, "query=x offset NaN", 400, "bad_data"),
            (query, "query=x[18446744073709551615]", 400, "bad_data"),
            (query, "query=max_over_time((x)[140000y:1s] offset -140000y)", 422, "execution"),
        ] {
            let response = ask(handler, asked);
            let body: serde_json::Value = serde_json::from_str(&text(&response)).unwrap();
            assert_eq!(
                (response.status, body["errorType"].as_str()),
                (status, Some(kind)),
                "{asked}"
            );
            assert_eq!(body["status"], "error");
        }
    }

    #[test]
    fn selectors_are_read_where_there_is_stack_enough() {
        let deep = |levels: usize| {
            format!("match[]=x{{a=~\"{}{}\"}}", "(".repeat(levels), ")".repeat(levels))
        };
        let many = "match[]=x&".repeat(SELECTORS_MAX + 1);
        // As much as connections have.
        let statuses = threads::with_stack(256 << 10, || {
            [series, labels].map(|handler: fn(&Call<'_>) -> Response| {
                [&deep(20), &deep(200), &many].map(|asked| ask(handler, asked).status)
            })
        });
        assert_eq!(statuses.unwrap(), [[200, 400, 400]; 2]);
    }

    #[test]
    fn below_a_host_however_many_slashes_there_are_only_it_is_meant() {
        let is_below = |path: &str| {
            let is_below = |call: &Call<'_>| {
                let text = if call.is_below_host() { "one" } else { "all" };
                Response::text(text)
            };
            text(&ask_below(is_below, path))
        };
        assert_eq!(is_below("/host/node/api/v1/prometheus/api/v1/series"), "one");
        assert_eq!(is_below("//host/node/api/v1/prometheus/api/v1/series"), "one");
        assert_eq!(is_below("/api/v1/prometheus/api/v1/series"), "all");
        assert_eq!(is_below("//api/v1/prometheus/api/v1/label/host/values"), "all");
    }

    #[test]
    fn names_and_labels_can_be_listed() {
        let listed = |handler, asked: &str| json(&ask(handler, asked))["data"].clone();
        assert_eq!(
            listed(labels, ""),
            serde_json::json!([
                "__name__",
                "application",
                "chart",
                "dimension",
                "family",
                "instance",
                "version"
            ])
        );
        let all = listed(series, "match[]=netdata_info&match[]={dimension=\"s\"}");
        assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
        let described = listed(metadata, "metric=netdata_t_slow_things_persec_average");
        let about = &described["netdata_t_slow_things_persec_average"][0];
        assert_eq!((&about["type"], &about["unit"]), (&"gauge".into(), &"things/s".into()));
    }
}
