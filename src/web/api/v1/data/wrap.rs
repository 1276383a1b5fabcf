//! The jsonwrap envelope: a description of the query around the body of any format (HTTP specification, section 7.8).

use std::fmt::Write as _;
use std::sync::Arc;

use super::format::{self, Format, LineEnd, NO_DATA, push_quoted};
use crate::base::json::push_number;
use crate::query::answer::{Answer, Row};
use crate::query::options::Options;

/// What the envelope says beyond the answer itself.
#[derive(Debug, Default)]
pub struct Envelope {
    /// The description that serves as id and name.
    pub id: String,
    /// Of a query by pattern or context: the label keys to show, in the order of the charts' values.
    pub by_pattern: Option<Vec<String>>,
}

/// Writes members of the envelope; with `google_json` as JavaScript, without quotes around keys.
struct Members<'a> {
    out: &'a mut String,
    google: bool,
    first: bool,
}

impl Members<'_> {
    fn quote(&self) -> char {
        if self.google { '\'' } else { '"' }
    }

    fn key(&mut self, name: &str) -> &mut String {
        self.out.push_str(if self.first { "\n" } else { ",\n" });
        self.first = false;
        if self.google {
            let _ = write!(self.out, "{name}: ");
        } else {
            let _ = write!(self.out, "\"{name}\": ");
        }
        self.out
    }

    fn integer(&mut self, name: &str, value: i64) {
        let _ = write!(self.key(name), "{value}");
    }

    fn number(&mut self, name: &str, value: f64) {
        push_number(self.key(name), value);
    }

    fn text(&mut self, name: &str, value: &str) {
        let quote = self.quote();
        push_quoted(self.key(name), quote, value);
    }

    fn list<T>(
        &mut self,
        name: &str,
        items: impl Iterator<Item = T>,
        push: impl Fn(&mut String, T, char),
    ) {
        let quote = self.quote();
        let out = self.key(name);
        list(out, items, |out, item| push(out, item, quote));
    }
}

fn list<T>(out: &mut String, items: impl Iterator<Item = T>, push: impl Fn(&mut String, T)) {
    out.push('[');
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

fn push_text(out: &mut String, text: &str, quote: char) {
    push_quoted(out, quote, text);
}

fn push_pair(out: &mut String, pair: &(Arc<str>, Arc<str>), quote: char) {
    out.push('[');
    push_quoted(out, quote, &pair.0);
    out.push(',');
    push_quoted(out, quote, &pair.1);
    out.push(']');
}

/// The whole answer in `format`, wrapped.
pub fn wrap(answer: &Answer, envelope: &Envelope, format: Format, out: &mut String) {
    let google = answer.options.contains(Options::GOOGLE_JSON);
    let none = answer.shown().next().is_none();
    out.push('{');
    let mut m = Members { out, google, first: true };
    m.integer("api", 1);
    m.text("id", &envelope.id);
    m.text("name", &envelope.id);
    m.integer("view_update_every", answer.window.every);
    m.integer("update_every", answer.held.every);
    m.integer("first_entry", answer.held.first);
    m.integer("last_entry", answer.held.last);
    m.integer("before", answer.window.before);
    m.integer("after", answer.window.after);
    m.text("group", answer.group);
    m.text("options", &answer.options.words());
    let no_data = || none.then_some(NO_DATA).into_iter();
    m.list("dimension_names", answer.shown().map(|s| &*s.name).chain(no_data()), push_text);
    m.list("dimension_ids", answer.shown().map(|s| &*s.id).chain(no_data()), push_text);
    if let Some(full) = &answer.full {
        m.list("full_dimension_list", full.dimensions.iter(), push_pair);
        m.list("full_chart_list", full.charts.iter(), push_pair);
        m.list("full_chart_labels", full.labels.iter(), push_pair);
    }
    m.list("functions", std::iter::empty::<&str>(), push_text);
    if let Some(keys) = &envelope.by_pattern {
        let charts = answer.shown().map(|s| &*answer.charts[s.chart].id);
        m.list("chart_ids", charts.chain(no_data()), push_text);
        if !keys.is_empty() {
            chart_labels(&mut m, answer, keys);
        }
    }
    let null = || none.then_some(f64::NAN).into_iter();
    let push_value = |out: &mut String, value: f64, _: char| push_number(out, value);
    m.list("latest_values", answer.shown().map(|s| s.latest).chain(null()), push_value);
    let mut last = Row::default();
    if !none {
        answer.fill(answer.window.rows - 1, &mut last);
    }
    m.list("view_latest_values", last.values.iter().copied().chain(null()), push_value);
    m.integer("dimensions", i64::try_from(answer.shown().count()).unwrap_or(i64::MAX));
    m.integer("points", i64::try_from(answer.rows()).unwrap_or(i64::MAX));
    m.text("format", format.name());
    m.list("db_points_per_tier", answer.points_per_tier.iter(), |out, points, _| {
        let _ = write!(out, "{points}");
    });
    let extremes = result(m.key("result"), answer, format, google);
    if answer.options.contains(Options::ANOMALY_RATES) && format == Format::Json {
        format::json_anomaly_rates(answer, m.key("anomaly_rates"));
    }
    let (min, max) = extremes.unwrap_or_else(|| answer.extremes().get());
    m.number("min", min);
    m.number("max", max);
    out.push_str("\n}\n");
}

fn chart_labels(m: &mut Members<'_>, answer: &Answer, keys: &[String]) {
    let quote = m.quote();
    let out = m.key("chart_labels");
    out.push('{');
    for (n, key) in keys.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        push_quoted(out, quote, key);
        out.push(':');
        list(out, answer.shown(), |out, series| match answer.charts[series.chart].labels.get(n) {
            Some(Some(value)) => push_quoted(out, quote, value),
            _ => out.push_str("null"),
        });
    }
    out.push('}');
}

/// The body as a value; gives its own extremes where the format has some.
fn result(out: &mut String, answer: &Answer, format: Format, google: bool) -> Option<(f64, f64)> {
    let mut extremes = None;
    let mut text = String::new();
    let target = if format.is_text() { &mut text } else { &mut *out };
    match format {
        Format::Json | Format::Jsonp => format::json(answer, target),
        Format::DataTable | Format::DataSource => format::data_table(answer, target),
        Format::CsvJsonArray => format::csv_json_array(answer, true, target),
        Format::Html => format::html(answer, target),
        Format::Csv | Format::Tsv | Format::Markdown => {
            format::lines(answer, format, LineEnd::Lf, target);
        }
        Format::Ssv | Format::SsvComma | Format::Array => {
            extremes = Some(format::one_per_row(answer, format, target).get());
        }
    }
    if format.is_text() {
        push_quoted(out, if google { '\'' } else { '"' }, &text);
    }
    extremes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::query::answer::samples::answer;

    fn wrapped(options: &str, envelope: &Envelope, format: Format) -> String {
        let mut out = String::new();
        wrap(&answer(options), envelope, format, &mut out);
        out
    }

    fn parsed(options: &str, envelope: &Envelope, format: Format) -> Value {
        serde_json::from_str(&wrapped(options, envelope, format)).unwrap()
    }

    #[test]
    fn the_envelope_tells_what_was_answered() {
        let w = parsed(
            "jsonwrap",
            &Envelope { id: "chart://x".into(), ..Default::default() },
            Format::Json,
        );
        assert_eq!(w["id"], w["name"]);
        assert_eq!(
            (&w["after"], &w["before"], &w["points"]),
            (&json!(1_700_000_107), &json!(1_700_000_108), &json!(2))
        );
        assert_eq!(w["view_latest_values"], json!([8, null]));
        assert_eq!(w["dimension_names"], json!(["up", "Mix \"Name\""]));
        assert_eq!(w["options"], "jsonwrap");
        assert_eq!((&w["min"], &w["max"]), (&json!(-4), &json!(8)));
        assert!(w.get("chart_ids").is_none() && w.get("full_chart_list").is_none());
    }

    #[test]
    fn text_formats_become_strings_and_sums_report_their_own_extremes() {
        let envelope = Envelope::default();
        assert_eq!(
            parsed("seconds", &envelope, Format::Tsv)["result"],
            "time\tup\tMix \"Name\"\n1700000108\t8\tnull\n1700000107\t7\t-2.5\n"
        );
        let array = parsed("", &envelope, Format::Array);
        assert_eq!((&array["result"], &array["min"]), (&json!([8, 4.5]), &json!(4.5)));
        assert_eq!(parsed("", &envelope, Format::Markdown)["format"], "unknown");
        assert!(
            parsed("jw-anomaly-rates", &envelope, Format::Json)["anomaly_rates"]["data"].is_array()
        );
    }

    #[test]
    fn a_query_by_pattern_names_charts_and_their_labels() {
        let envelope = Envelope { by_pattern: Some(vec!["colour".into()]), ..Default::default() };
        let w = parsed("", &envelope, Format::Json);
        assert_eq!(w["chart_ids"], json!(["t.c", "t.c"]));
        assert_eq!(w["chart_labels"], json!({"colour": [null, null]}));
    }

    #[test]
    fn google_gets_javascript() {
        let envelope = Envelope { id: "it's".into(), ..Default::default() };
        let text = wrapped("google_json", &envelope, Format::Ssv);
        assert!(text.contains("\napi: 1,\nid: 'it\\'s',"), "{text}");
        assert!(text.contains("result: '8 4.5'"), "{text}");
    }
}
