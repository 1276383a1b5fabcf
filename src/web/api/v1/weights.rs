//! `/api/v1/weights` and `/api/v1/metric_correlations`: which metrics differ most between a span of time and the one before.

use std::sync::Arc;

use crate::base::json::{JsonWriter, push_fixed};
use crate::base::pattern::SimplePattern;
use crate::base::stats::QueryBy;
use crate::query::options::Options;
use crate::query::run::{self, Outcome};
use crate::query::select::SEPARATORS;
use crate::query::{weights, window};
use crate::web::api::Call;
use crate::web::http::{ContentType, Response};

const POINTS: i64 = 500;
const POINTS_MAX: i64 = 10_000;
const TIMEOUT_MS: i64 = 60_000;
const TIMEOUT_MS_MIN: i64 = 1000;
/// The baseline is the span before, this many times as long, unless it is given: a power of two.
const BASELINE_SHIFT: u32 = 4;
const BASELINE_SHIFT_MAX: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Ks2,
    Volume,
    AnomalyRate,
}

impl Method {
    fn parse(word: &str) -> Method {
        match word {
            "volume" => Method::Volume,
            "anomaly-rate" => Method::AnomalyRate,
            _ => Method::Ks2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Method::Ks2 => "ks2",
            Method::Volume => "volume",
            Method::AnomalyRate => "anomaly-rate",
        }
    }

    fn has_baseline(self) -> bool {
        self != Method::AnomalyRate
    }
}

/// A span of time and its rows.
#[derive(Clone, Copy, Debug)]
struct Span {
    after: i64,
    before: i64,
    points: i64,
}

struct Comparison<'a> {
    method: Method,
    group: &'a str,
    options: Options,
    highlight: Span,
    baseline: Span,
}

#[derive(Default)]
struct Statistics {
    queries: i64,
    result_points: i64,
    points_per_tier: Vec<u64>,
}

/// A dimension that has a weight.
struct Weighed {
    context: Arc<str>,
    chart: Arc<str>,
    dimension: Arc<str>,
    weight: f64,
}

pub fn weights(call: &Call<'_>) -> Response {
    let method = call.query().get("method").unwrap_or("anomaly-rate");
    answer(call, Method::parse(method), write_contexts)
}

pub fn metric_correlations(call: &Call<'_>) -> Response {
    let method = call.query().get("method").unwrap_or("ks2");
    answer(call, Method::parse(method), write_charts)
}

fn failure(status: u16, message: &str) -> Response {
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("error").string(message);
    });
    Response::new(status, ContentType::Json, json.into_bytes())
}

fn answer(call: &Call<'_>, method: Method, write: fn(&mut JsonWriter, &[Weighed])) -> Response {
    let query = call.query();
    let integer =
        |names: &[&str]| query.get_any(names).map_or(0, crate::wire::http::lenient_integer);
    let now = call.now().0 - 1;
    let started_us = call.agent.clock.monotonic_us();
    let after = integer(&["after", "highlight_after"]);
    let before = integer(&["before", "highlight_before"]);
    let (after, before) = window::absolute(after, before, now);
    if before <= after {
        return failure(400, "Invalid selected time-range.");
    }
    let points = match integer(&["points", "max_points"]) {
        0 => POINTS,
        points => points.clamp(1, POINTS_MAX),
    };
    let asked = (integer(&["baseline_after"]), integer(&["baseline_before"]));
    let Some((baseline, shift)) = baseline(asked, after, before, now) else {
        return failure(400, "Invalid baseline time-range.");
    };
    let comparison = Comparison {
        method,
        group: query.get("group").unwrap_or("average"),
        options: query
            .get("options")
            .map_or(Options::NONZERO | Options::NULL2ZERO | Options::UNALIGNED, Options::parse),
        highlight: Span { after, before, points },
        baseline: Span { after: baseline.0, before: baseline.1, points: points << shift },
    };
    if method == Method::Ks2 && points < weights::KS2_POINTS_MIN as i64 {
        return failure(400, "Too few points available, at least 15 are needed.");
    }
    let timeout_ms = match integer(&["timeout"]) {
        0 => TIMEOUT_MS,
        ms => ms.max(TIMEOUT_MS_MIN),
    };
    let deadline_us = started_us.saturating_add(timeout_ms.saturating_mul(1000));
    let expired = || call.agent.clock.monotonic_us() > deadline_us;
    let contexts = query
        .get_any(&["context", "contexts"])
        .filter(|list| *list != "*")
        .map(|list| SimplePattern::separated_by(list, SEPARATORS));

    let mut statistics = Statistics::default();
    let mut weighed = Vec::new();
    let mut examined = 0;
    for chart in call.host.charts() {
        if expired() {
            return failure(504, "timed out");
        }
        let (context, dimensions) = {
            let state = chart.lock();
            (Arc::clone(&state.meta.context), state.dims.len())
        };
        if contexts.as_ref().is_some_and(|p| !p.matches(&context)) {
            continue;
        }
        examined += dimensions;
        for (dimension, weight) in weigh(call, chart.id(), &comparison, &mut statistics) {
            if weight != 0.0 || !comparison.options.contains(Options::NONZERO) {
                let (context, chart) = (Arc::clone(&context), Arc::clone(chart.id()));
                weighed.push(Weighed { context, chart, dimension, weight });
            }
        }
    }
    if weighed.is_empty() {
        return failure(404, "no results produced.");
    }
    if !comparison.options.contains(Options::RAW) {
        let mut all: Vec<f64> = weighed.iter().map(|w| w.weight).collect();
        weights::spread(&mut all);
        weighed.iter_mut().zip(all).for_each(|(w, rank)| w.weight = rank);
    }
    let mut json = JsonWriter::with_capacity(16 * 1024);
    json.object(|j| {
        write_head(j, &comparison, &statistics, call.agent.clock.monotonic_us() - started_us);
        write(j, &weighed);
        j.key("total_dimensions_count").count(examined);
    });
    Response::json(json)
}

/// The span to compare with and how often, as a power of two, it holds the other one; `None` when it makes no sense.
fn baseline(
    (asked_after, asked_before): (i64, i64),
    after: i64,
    before: i64,
    now: i64,
) -> Option<((i64, i64), u32)> {
    let span = before - after;
    if (asked_after, asked_before) == (0, 0) {
        return Some(((after - (span << BASELINE_SHIFT), after), BASELINE_SHIFT));
    }
    let (from, to) = window::absolute(asked_after, asked_before, now);
    if to <= from {
        return None;
    }
    let mut shift = 0;
    while shift < BASELINE_SHIFT_MAX && span << (shift + 1) <= to - from {
        shift += 1;
    }
    Some(((to - (span << shift), to), shift))
}

/// The dimensions of a chart that have a weight, before they are ranked.
fn weigh(
    call: &Call<'_>,
    chart: &str,
    comparison: &Comparison<'_>,
    statistics: &mut Statistics,
) -> Vec<(Arc<str>, f64)> {
    let mut ask = |span: Span, points: i64| {
        let mut options = Options::UNALIGNED;
        options.set(Options::ANOMALY_BIT, comparison.method == Method::AnomalyRate);
        let query = run::Query {
            chart,
            after: span.after,
            before: span.before,
            points,
            group: comparison.group,
            options,
            clock: call.now().0,
            ..run::Query::default()
        };
        let outcome = run::run(call.host, &query, &|| false).ok()?.counted(QueryBy::ApiWeights);
        let answer = &outcome.answer;
        let series = i64::try_from(answer.series.len()).unwrap_or(0);
        statistics.queries += series;
        statistics.result_points += series * i64::try_from(answer.rows()).unwrap_or(0);
        let tiers = statistics.points_per_tier.len().max(answer.points_per_tier.len());
        statistics.points_per_tier.resize(tiers, 0);
        for (all, own) in statistics.points_per_tier.iter_mut().zip(&answer.points_per_tier) {
            *all += own;
        }
        Some(outcome)
    };
    let highlight = comparison.highlight;
    let now = match comparison.method {
        Method::AnomalyRate => ask(highlight, 1),
        _ => ask(highlight, highlight.points),
    };
    let Some(now) = now else { return Vec::new() };
    let usual = match comparison.method {
        Method::AnomalyRate => None,
        Method::Volume => ask(comparison.baseline, 1),
        Method::Ks2 => ask(comparison.baseline, comparison.baseline.points),
    };
    let usual_of = |id: &str| values(usual.as_ref()?, id);
    now.answer
        .shown()
        .filter_map(|series| {
            let values = &series.column.values;
            let weight = match comparison.method {
                Method::AnomalyRate => weights::mean(values),
                Method::Volume => weights::volume(usual_of(&series.id)?, values),
                Method::Ks2 => weights::ks2(usual_of(&series.id)?, values),
            };
            Some((Arc::clone(&series.name), weight?))
        })
        .collect()
}

fn values<'a>(outcome: &'a Outcome, id: &str) -> Option<&'a [f64]> {
    let series = outcome.answer.shown().find(|series| *series.id == *id)?;
    Some(&series.column.values)
}

fn write_head(j: &mut JsonWriter, comparison: &Comparison<'_>, statistics: &Statistics, us: i64) {
    let mut span = |prefix: &str, span: &Span| {
        j.key(&format!("{prefix}after")).integer(span.after);
        j.key(&format!("{prefix}before")).integer(span.before);
        j.key(&format!("{prefix}duration")).integer(span.before - span.after);
        j.key(&format!("{prefix}points")).integer(span.points);
    };
    span("", &comparison.highlight);
    if comparison.method.has_baseline() {
        span("baseline_", &comparison.baseline);
    }
    j.key("statistics").object(|j| {
        j.key("query_time_ms").number(us as f64 / 1000.0);
        j.key("db_queries").integer(statistics.queries);
        j.key("query_result_points").integer(statistics.result_points);
        j.key("binary_searches").integer(0);
        let count = |points: u64| i64::try_from(points).unwrap_or(i64::MAX);
        j.key("db_points_read").integer(count(statistics.points_per_tier.iter().sum()));
        j.key("db_points_per_tier").array(|j| {
            for points in &statistics.points_per_tier {
                j.integer(count(*points));
            }
        });
    });
    j.key("group").string(crate::query::group::Method::parse(comparison.group).1);
    j.key("method").string(comparison.method.name());
    j.key("options").string(&comparison.options.words());
}

fn write_weight(j: &mut JsonWriter, weight: f64) {
    let mut text = String::new();
    push_fixed(&mut text, weight);
    j.raw(&text);
}

fn write_dimensions(j: &mut JsonWriter, weighed: &[Weighed]) {
    j.key("dimensions").object(|j| {
        for one in weighed {
            write_weight(j.key(&one.dimension), one.weight);
        }
    });
}

fn average(weighed: &[&[Weighed]]) -> f64 {
    let all = || weighed.iter().flat_map(|group| group.iter());
    all().map(|w| w.weight).sum::<f64>() / all().count() as f64
}

/// Context by context, each with its charts.
fn write_contexts(j: &mut JsonWriter, weighed: &[Weighed]) {
    let charts: Vec<&[Weighed]> = weighed.chunk_by(|a, b| a.chart == b.chart).collect();
    let mut contexts: Vec<Arc<str>> = Vec::new();
    for chart in &charts {
        if !contexts.contains(&chart[0].context) {
            contexts.push(Arc::clone(&chart[0].context));
        }
    }
    j.key("contexts").object(|j| {
        for context in contexts {
            let own: Vec<_> =
                charts.iter().copied().filter(|chart| chart[0].context == context).collect();
            j.key(&context).object(|j| {
                j.key("charts").object(|j| {
                    for chart in &own {
                        j.key(&chart[0].chart).object(|j| {
                            write_dimensions(j, chart);
                            write_weight(j.key("weight"), average(&[chart]));
                        });
                    }
                });
                write_weight(j.key("weight"), average(&own));
            });
        }
    });
    j.key("weighted_dimensions").count(weighed.len());
}

/// Chart by chart.
fn write_charts(j: &mut JsonWriter, weighed: &[Weighed]) {
    j.key("correlated_charts").object(|j| {
        for chart in weighed.chunk_by(|a, b| a.chart == b.chart) {
            j.key(&chart[0].chart).object(|j| {
                j.key("context").string(&chart[0].context);
                write_dimensions(j, chart);
            });
        }
    });
    j.key("correlated_dimensions").count(weighed.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::run::samples::T0;
    use crate::web::api::v1::samples::{ask, json, text};

    fn span() -> String {
        format!("after={}&before={}", T0 + 700, T0 + 800)
    }

    #[test]
    fn metrics_are_ranked_by_how_much_they_moved() {
        let w = json(&ask(weights, &format!("method=volume&contexts=t.ctx|t.slow&{}", span())));
        assert_eq!(
            (&w["duration"], &w["baseline_duration"], &w["baseline_points"]),
            (&100.into(), &1600.into(), &8000.into())
        );
        assert_eq!(w["total_dimensions_count"], 6);
        assert!(
            w["contexts"]["t.slow"]["charts"]["t.slow"]["dimensions"]["s"].as_f64().unwrap() > 0.0
        );
        let m = json(&ask(
            metric_correlations,
            &format!("highlight_{}", span().replace("&", "&highlight_")),
        ));
        assert_eq!(m["method"], "ks2");
        assert_eq!(m["correlated_charts"]["t.slow"]["context"], "t.slow");
    }

    #[test]
    fn without_anomalies_there_is_nothing_to_rank() {
        let response = ask(weights, &span());
        assert_eq!(
            (response.status, text(&response).as_str()),
            (404, r#"{"error":"no results produced."}"#)
        );
        assert_eq!(ask(weights, "after=5&before=4&method=ks2&points=3").status, 400);
    }

    #[test]
    fn the_baseline_is_a_power_of_two_of_the_span() {
        assert_eq!(baseline((0, 0), 1000, 1060, 5000), Some(((40, 1000), 4)));
        let (now, t) = (2_000_000_000, 1_900_000_000);
        assert_eq!(baseline((t - 700, t), t, t + 100, now), Some(((t - 400, t), 2)));
        assert_eq!(baseline((t, t), t, t + 100, now), None);
    }
}
