//! The bodies of `/api/v1/data`, one function per format (HTTP specification, section 7.7).
//!
//! Pure: an [`Answer`] in, text out. Names come from outside and are escaped wherever the format can express it.

use std::fmt::Write as _;
use std::ops::Range;

use crate::base::json::{
    NUMBER_BYTES, WHOLE_MAX, Zeros, integer_before, number_before, push_escaped, push_integer,
    push_number, push_string,
};
use crate::base::sys::{self, local_time};
use crate::base::threads;
use crate::base::time::UnixSeconds;
use crate::query::answer::{Answer, Extremes, Row};
use crate::query::options::Options;
use crate::web::http::ContentType;
use crate::wire::http::escape_html;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Jsonp,
    Ssv,
    SsvComma,
    Array,
    Csv,
    Tsv,
    Markdown,
    CsvJsonArray,
    Html,
    DataTable,
    DataSource,
}

impl Format {
    /// An unknown word means json.
    pub fn parse(word: &str) -> Format {
        match word {
            "jsonp" => Format::Jsonp,
            "ssv" => Format::Ssv,
            "ssvcomma" => Format::SsvComma,
            "array" => Format::Array,
            "csv" => Format::Csv,
            "tsv" | "tsv-excel" => Format::Tsv,
            "markdown" => Format::Markdown,
            "csvjsonarray" => Format::CsvJsonArray,
            "html" => Format::Html,
            "datatable" => Format::DataTable,
            "datasource" => Format::DataSource,
            _ => Format::Json,
        }
    }

    /// The `out:` words of Google's visualisation requests.
    pub fn parse_google(word: &str) -> Format {
        match word {
            "html" => Format::Html,
            "csv" => Format::Csv,
            "tsv-excel" => Format::Tsv,
            _ => Format::DataSource,
        }
    }

    /// What jsonwrap calls it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Jsonp => "jsonp",
            Format::Ssv => "ssv",
            Format::SsvComma => "ssvcomma",
            Format::Array => "array",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Html => "html",
            Format::DataTable => "datatable",
            Format::DataSource => "datasource",
            Format::Markdown | Format::CsvJsonArray => "unknown",
        }
    }

    pub fn content_type(self, wrapped: bool) -> ContentType {
        match self {
            Format::Jsonp | Format::DataSource => ContentType::JavaScript,
            _ if wrapped => ContentType::Json,
            Format::Json | Format::Array | Format::CsvJsonArray | Format::DataTable => {
                ContentType::Json
            }
            Format::Html => ContentType::Html,
            Format::Ssv | Format::SsvComma | Format::Csv | Format::Tsv | Format::Markdown => {
                ContentType::Text
            }
        }
    }

    /// The whole row becomes one number.
    pub fn sums_rows(self) -> bool {
        matches!(self, Format::Ssv | Format::SsvComma | Format::Array)
    }

    /// A body that is no JSON, so jsonwrap makes it a string.
    pub fn is_text(self) -> bool {
        matches!(
            self,
            Format::Ssv
                | Format::SsvComma
                | Format::Csv
                | Format::Tsv
                | Format::Markdown
                | Format::Html
        )
    }
}

/// Line ends of the formats that have lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    CrLf,
    /// Inside jsonwrap.
    Lf,
}

/// The label of an answer without dimensions.
pub const NO_DATA: &str = "no data";

fn labels(answer: &Answer) -> impl Iterator<Item = &str> {
    let none = answer.shown().next().is_none().then_some(NO_DATA);
    answer.shown().map(|series| &*series.name).chain(none)
}

/// `{"labels":[…],"data":[[time,value…]…]}`, or with object rows.
pub fn json(answer: &Answer, out: &mut String) {
    json_of(answer, out, &answer.filler());
}

/// The same shape, with the rates of anomalous samples instead of the values.
pub fn json_anomaly_rates(answer: &Answer, out: &mut String) {
    json_of(answer, out, &|n, values: &mut Vec<f64>| {
        values.clear();
        values.extend(answer.anomaly_rates(n));
    });
}

/// Values of a body from which on another processor is worth asking for help.
const VALUES_SHARED: usize = 15_000;

fn json_of(answer: &Answer, out: &mut String, fill: &(impl Fn(usize, &mut Vec<f64>) + Sync)) {
    let objects = answer.options.contains(Options::OBJECT_ROWS);
    // what stands before each value of an object row
    let mut keys: Vec<String> = Vec::new();
    let mut columns = 0;
    let mut head = "{\"labels\":[\"time\"".to_owned();
    for label in labels(answer) {
        head.push(',');
        let start = head.len();
        push_string(&mut head, label);
        columns += 1;
        if objects {
            keys.push(format!(",{}:", &head[start..]));
        }
    }
    head.push_str("],\"data\":[");
    let order: Vec<usize> = answer.order().collect();
    let mut shares = threads::shared(order.len(), VALUES_SHARED / (columns + 1), |share| {
        // What comes first has room for all.
        let (head, rows) =
            if share.start == 0 { (head.as_str(), order.len()) } else { ("", share.len()) };
        // A number takes about ten bytes.
        let mut text = Vec::with_capacity(head.len() + rows * (columns + 2) * 10 + 3);
        sys::prefer_huge_pages(&mut text);
        text.extend_from_slice(head.as_bytes());
        json_rows(answer, &order, share, columns, &keys, fill, &mut text);
        // Checked once, as a whole.
        String::from_utf8(text).unwrap_or_default()
    })
    .into_iter();
    let first = shares.next().unwrap_or_default();
    if out.is_empty() {
        *out = first;
    } else {
        out.push_str(&first);
    }
    shares.for_each(|rows| out.push_str(&rows));
    out.push_str("\n]}");
}

/// Some of the rows, each with what separates it from the one before.
fn json_rows(
    answer: &Answer,
    order: &[usize],
    share: Range<usize>,
    columns: usize,
    keys: &[String],
    fill: &(impl Fn(usize, &mut Vec<f64>) + Sync),
    out: &mut Vec<u8>,
) {
    let objects = answer.options.contains(Options::OBJECT_ROWS);
    let google = answer.options.contains(Options::GOOGLE_JSON);
    let ms = answer.options.contains(Options::MILLISECONDS);
    let (open, close) = if objects { ("{\"time\":", '}') } else { ("[", ']') };
    let key = |column: usize| keys.get(column).map_or(",", String::as_str);
    let mut values = Vec::with_capacity(columns);
    let mut texts = vec![LastText::default(); columns];
    // A row is put together from its end.
    let room =
        keys.iter().map(String::len).sum::<usize>() + (columns + 1) * (NUMBER_BYTES + 1) + 40;
    let mut line = vec![0; room];
    let mut text = String::new();
    for at_order in share {
        let (n, before) = (order[at_order], if at_order == 0 { "\n" } else { ",\n" });
        fill(n, &mut values);
        let time = answer.time(n);
        if google || time < 0 || values.iter().any(|value| value.abs() >= WHOLE_MAX) {
            text.clear();
            text.push_str(before);
            text.push_str(open);
            if google {
                text.push_str("new ");
                push_google_date(&mut text, time);
            } else {
                push_seconds(&mut text, time, ms);
            }
            for (column, value) in values.iter().enumerate() {
                text.push_str(key(column));
                push_number(&mut text, *value);
            }
            text.push(close);
            out.extend_from_slice(text.as_bytes());
            continue;
        }
        let mut at = line.len();
        let put = |line: &mut [u8], at: &mut usize, text: &str| {
            *at -= text.len();
            line[*at..*at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(&mut line, &mut at, if objects { "}" } else { "]" });
        for ((column, value), before) in values.iter().enumerate().zip(&mut texts).rev() {
            at = before.put(&mut line, at, *value);
            if objects {
                put(&mut line, &mut at, key(column));
            } else {
                at -= 1;
                line[at] = b',';
            }
        }
        if ms {
            put(&mut line, &mut at, "000");
        }
        at = integer_before(&mut line, at, time.unsigned_abs());
        put(&mut line, &mut at, open);
        put(&mut line, &mut at, before);
        out.extend_from_slice(&line[at..]);
    }
}

/// The text of a column's last value. Most values repeat the one before, and copying is quicker than making digits.
#[derive(Clone, Default)]
struct LastText {
    bits: u64,
    /// 0 until the value came twice.
    length: usize,
    /// The text at their end.
    bytes: [u8; LastText::BYTES],
}

impl LastText {
    const BYTES: usize = 16;

    /// As [`number_before`].
    #[inline]
    fn put(&mut self, line: &mut [u8], end: usize, value: f64) -> usize {
        let again = self.bits == value.to_bits();
        if again && self.length > 0 {
            line[end - Self::BYTES..end].copy_from_slice(&self.bytes);
            return end - self.length;
        }
        let begin = number_before(line, end, value, Zeros::Trimmed);
        self.bits = value.to_bits();
        self.length = 0;
        if again && end - begin <= Self::BYTES {
            self.length = end - begin;
            self.bytes.copy_from_slice(&line[end - Self::BYTES..end]);
        }
        begin
    }
}

fn push_seconds(out: &mut String, time: i64, ms: bool) {
    push_integer(out, time);
    if ms {
        out.push_str("000");
    }
}

/// Months count from 0 there.
fn push_google_date(out: &mut String, time: i64) {
    let t = local_time(UnixSeconds(time));
    let _ = write!(
        out,
        "Date({},{},{},{},{},{})",
        t.year,
        t.month - 1,
        t.day,
        t.hour,
        t.minute,
        t.second
    );
}

/// A time as the formats made of lines show it: local, unless seconds or milliseconds were asked for.
fn push_time(out: &mut String, time: i64, options: Options) {
    let ms = options.contains(Options::MILLISECONDS);
    if ms || options.contains(Options::SECONDS) {
        return push_seconds(out, time, ms);
    }
    let t = local_time(UnixSeconds(time));
    let _ = write!(
        out,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        t.year, t.month, t.day, t.hour, t.minute, t.second
    );
}

/// Header and rows of csv, tsv and markdown.
pub fn lines(answer: &Answer, format: Format, end: LineEnd, out: &mut String) {
    let separator = match format {
        Format::Tsv => '\t',
        Format::Markdown => '|',
        _ => ',',
    };
    let end = match end {
        LineEnd::CrLf => "\r\n",
        LineEnd::Lf => "\n",
    };
    let columns = answer.shown().count();
    if columns > 0 {
        out.push_str("time");
    }
    for series in answer.shown() {
        out.push(separator);
        out.push_str(&series.name);
    }
    out.push_str(end);
    if format == Format::Markdown {
        if columns > 0 {
            out.push_str(":---:");
            out.push_str(&"|:---:".repeat(columns));
        }
        out.push_str(end);
    }
    let mut row = Row::default();
    for n in answer.order() {
        push_time(out, answer.time(n), answer.options);
        answer.fill(n, &mut row);
        for value in &row.values {
            out.push(separator);
            push_number(out, *value);
        }
        out.push_str(end);
    }
}

/// An array of arrays. Times are unquoted and therefore no JSON unless they are numbers; `quote_times` mends that.
pub fn csv_json_array(answer: &Answer, quote_times: bool, out: &mut String) {
    let numbers = answer.options.intersects(Options::SECONDS | Options::MILLISECONDS);
    let quote = if quote_times && !numbers { "\"" } else { "" };
    out.push_str("[\n[\"time\"");
    for label in labels(answer) {
        out.push(',');
        push_string(out, label);
    }
    out.push(']');
    let mut row = Row::default();
    for n in answer.order() {
        out.push_str(",\n[");
        out.push_str(quote);
        push_time(out, answer.time(n), answer.options);
        out.push_str(quote);
        answer.fill(n, &mut row);
        for value in &row.values {
            out.push(',');
            push_number(out, *value);
        }
        out.push(']');
    }
    out.push_str("\n]");
}

pub fn html(answer: &Answer, out: &mut String) {
    out.push_str("<html>\n<center>\n<table border=\"0\" cellpadding=\"5\" cellspacing=\"5\">\n");
    out.push_str("<tr><td>time</td>");
    for label in labels(answer) {
        let _ = write!(out, "<td>{}</td>", escape_html(label));
    }
    out.push_str("</tr>\n");
    let mut row = Row::default();
    for n in answer.order() {
        out.push_str("<tr><td>");
        push_time(out, answer.time(n), answer.options);
        answer.fill(n, &mut row);
        for value in &row.values {
            out.push_str("</td><td>");
            push_number(out, *value);
        }
        out.push_str("</td></tr>\n");
    }
    out.push_str("</table>\n</center>\n</html>\n");
}

/// One number per row. Gives their extremes, which jsonwrap reports.
pub fn one_per_row(answer: &Answer, format: Format, out: &mut String) -> Extremes {
    let separator = if format == Format::Ssv { ' ' } else { ',' };
    let percentage = answer.options.contains(Options::PERCENTAGE);
    let mut extremes = Extremes::default();
    let mut last = f64::NAN;
    let mut scratch = Row::default();
    if format == Format::Array {
        out.push('[');
    }
    let start = out.len();
    for n in answer.order_of_all() {
        if out.len() > start {
            out.push(separator);
        }
        let number = answer.one_number(n, &mut scratch);
        extremes.add(number);
        last = number;
        push_number(out, number);
    }
    if format == Format::Array {
        out.push(']');
    }
    if percentage && answer.window.rows > 1 {
        extremes = answer.extremes();
        extremes.add(last);
    }
    extremes
}

/// Google's table. With `google_json` it is JavaScript: keys without quotes, texts in single ones.
pub fn data_table(answer: &Answer, out: &mut String) {
    let google = answer.options.contains(Options::GOOGLE_JSON);
    let key = |name: &str| if google { format!("{name}:") } else { format!("\"{name}\":") };
    let quote = if google { '\'' } else { '"' };
    let column = |out: &mut String, label: &str, kind: &str, role: Option<&str>| {
        let _ = write!(out, "\n{{{}{quote}{quote},{}", key("id"), key("label"));
        push_quoted(out, quote, label);
        let _ =
            write!(out, ",{}{quote}{quote},{}{quote}{kind}{quote}", key("pattern"), key("type"));
        if let Some(role) = role {
            let _ = write!(out, ",{}{{{}{quote}{role}{quote}}}", key("p"), key("role"));
        }
        out.push('}');
    };
    let _ = write!(out, "{{\n{}[", key("cols"));
    column(out, "time", "datetime", None);
    out.push(',');
    column(out, "", "string", Some("annotation"));
    out.push(',');
    column(out, "", "string", Some("annotationText"));
    for label in labels(answer) {
        out.push(',');
        column(out, label, "number", None);
    }
    let _ = write!(out, "\n],\n{}[", key("rows"));
    let (cells, cell) = (key("c"), key("v"));
    let mut row = Row::default();
    let mut first = true;
    for n in answer.order() {
        out.push_str(if first { "\n" } else { ",\n" });
        first = false;
        let _ = write!(out, "{{{cells}[{{{cell}{quote}");
        push_google_date(out, answer.time(n));
        if answer.has_reset(n) {
            let _ = write!(
                out,
                "{quote}}},{{{cell}{quote}RESET OR OVERFLOW{quote}}},{{{cell}{quote}A counter was reset or overflowed.{quote}}}"
            );
        } else {
            let _ = write!(out, "{quote}}},{{{cell}null}},{{{cell}null}}");
        }
        answer.fill(n, &mut row);
        for value in &row.values {
            let _ = write!(out, ",{{{cell}");
            push_number(out, *value);
            out.push('}');
        }
        out.push_str("]}");
    }
    out.push_str("\n]\n}");
}

/// Appends a text in single or double quotes.
pub fn push_quoted(out: &mut String, quote: char, text: &str) {
    out.push(quote);
    if quote == '"' {
        push_escaped(out, text);
    } else {
        let mut escaped = String::new();
        push_escaped(&mut escaped, text);
        out.push_str(&escaped.replace("\\\"", "\"").replace('\'', "\\'"));
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::query::answer::samples::answer;

    fn text(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    fn parsed(write: impl FnOnce(&mut String)) -> Value {
        serde_json::from_str(&text(write)).unwrap()
    }

    #[test]
    fn json_has_arrays_or_objects_as_rows() {
        assert_eq!(
            parsed(|o| json(&answer(""), o)),
            json!({"labels": ["time", "up", "Mix \"Name\""], "data": [[1_700_000_108, 8, null], [1_700_000_107, 7, -2.5]]})
        );
        assert_eq!(
            parsed(|o| json(&answer("objectrows,flip,ms"), o))["data"][0],
            json!({"time": 1_700_000_107_000_i64, "up": 7, "Mix \"Name\"": -2.5})
        );
        assert_eq!(
            parsed(|o| json_anomaly_rates(&answer(""), o))["data"],
            json!([[1_700_000_108, 50, 50], [1_700_000_107, 0, 0]])
        );
        let dates = text(|o| json(&answer("google_json"), o));
        assert!(dates.contains("[new Date(2023,10,1"), "{dates}");
    }

    #[test]
    fn lines_are_separated_as_the_format_says() {
        let check = |format, options: &str, end, want: &str| {
            assert_eq!(text(|o| lines(&answer(options), format, end, o)), want);
        };
        check(
            Format::Csv,
            "seconds",
            LineEnd::CrLf,
            "time,up,Mix \"Name\"\r\n1700000108,8,null\r\n1700000107,7,-2.5\r\n",
        );
        check(
            Format::Tsv,
            "ms,flip",
            LineEnd::Lf,
            "time\tup\tMix \"Name\"\n1700000107000\t7\t-2.5\n1700000108000\t8\tnull\n",
        );
        check(
            Format::Markdown,
            "seconds",
            LineEnd::CrLf,
            "time|up|Mix \"Name\"\r\n:---:|:---:|:---:\r\n1700000108|8|null\r\n1700000107|7|-2.5\r\n",
        );
    }

    #[test]
    fn one_number_per_row() {
        let check = |format, want: &str| {
            assert_eq!(
                text(|o| assert_eq!(one_per_row(&answer(""), format, o).get(), (4.5, 8.0))),
                want
            );
        };
        check(Format::Ssv, "8 4.5");
        check(Format::SsvComma, "8,4.5");
        check(Format::Array, "[8,4.5]");
    }

    #[test]
    fn tables_for_google() {
        let table = parsed(|o| data_table(&answer(""), o));
        assert_eq!(table["cols"][4]["label"], "Mix \"Name\"");
        assert_eq!(table["rows"][0]["c"][1]["v"], "RESET OR OVERFLOW");
        assert_eq!(table["rows"][1]["c"][1]["v"], Value::Null);
        assert_eq!(table["rows"][1]["c"][4]["v"], -2.5);
        let loose = text(|o| data_table(&answer("google_json"), o)).replace('\n', "");
        assert!(
            loose.starts_with("{cols:[{id:'',label:'time',pattern:'',type:'datetime'}"),
            "{loose}"
        );
        assert!(loose.contains(",{v:null},{v:null},{v:7},{v:-2.5}]}"), "{loose}");
    }

    #[test]
    fn arrays_of_arrays_are_json_when_times_are() {
        assert_eq!(
            parsed(|o| csv_json_array(&answer("seconds"), false, o)),
            json!([
                ["time", "up", "Mix \"Name\""],
                [1_700_000_108, 8, null],
                [1_700_000_107, 7, -2.5]
            ])
        );
        assert!(parsed(|o| csv_json_array(&answer(""), true, o))[1][0].is_string());
        assert!(text(|o| html(&answer("seconds"), o)).contains("<td>Mix &quot;Name&quot;</td></tr>\n<tr><td>1700000108</td><td>8</td><td>null</td></tr>"));
    }

    #[test]
    fn an_answer_without_dimensions_says_so() {
        let mut none = answer("");
        none.series.iter_mut().for_each(|s| s.shown = false);
        assert_eq!(parsed(|o| json(&none, o)), json!({"labels": ["time", "no data"], "data": []}));
        assert_eq!(text(|o| lines(&none, Format::Csv, LineEnd::CrLf, o)), "\r\n");
    }
}
