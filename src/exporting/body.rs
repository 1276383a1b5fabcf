//! Metrics as other databases read them: lines, JSON and remote write. Values in, bytes out.
//!
//! The layouts are those of the original, odd spaces included, but for two things: text in JSON is escaped, and an
//! empty batch is not sent. `tests/exporting_samples.rs` compares whole lines with recorded ones.

use std::fmt::Write as _;
use std::sync::Arc;

use super::names::{
    host_labels, info_series, metric_name, push_dotted, push_graphite_value, push_opentsdb_value,
    sanitized, series_labels,
};
use crate::base::json::{push_escaped, push_fixed, push_integer, push_string};
use crate::config::{Carrier, DataSource, Dialect, InstanceOptions, WriteVersion};
use crate::metrics::{Algorithm, Host, HostKind};
use crate::wire::write_request::{self, Frame, Request, Version};

/// A body is sent once it is so long, before compression.
const BODY_BYTES: usize = 2 << 20;
/// A request of remote write holds about so many samples at most.
const REMOTE_WRITE_SAMPLES: u64 = 20_000;
/// A server that takes less than this takes nothing.
const LEAST_BYTES: usize = 16 << 10;
const LEAST_SAMPLES: u64 = 100;

/// A host as it stands in every line of a batch.
pub(super) struct HostText {
    pub(super) hostname: String,
    /// The series that tells who it is, of remote write.
    info: Vec<(String, String)>,
    /// Tags and labels in the database's own form.
    attached: String,
}

#[derive(Clone, Debug)]
pub(super) struct ChartText {
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) family: Arc<str>,
    pub(super) context: Arc<str>,
    pub(super) units: Arc<str>,
    /// Its collector took the values from a Prometheus endpoint.
    pub(super) from_prometheus: bool,
}

#[derive(Clone, Debug)]
pub(super) struct DimensionText {
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) algorithm: Algorithm,
    pub(super) multiplier: i64,
    pub(super) divisor: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// Of the store.
    Stored(f64),
    Collected(i64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) at_ms: i64,
    pub(super) value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Graphite,
    Telnet,
    OpenTsdbJson,
    /// One object per line, or, with HTTP, an array of them.
    Json {
        array: bool,
    },
    RemoteWrite,
}

/// A body that grows.
pub(super) struct Body {
    form: Form,
    source: DataSource,
    prefix: String,
    names: bool,
    external: Vec<(String, String)>,
    text: String,
    /// Of remote write.
    request: Request,
    /// What is the same in all series of a chart, once it was made for what `_total` says of them.
    frame: (Option<bool>, Frame),
    plain: Vec<u8>,
    snappy: snap::raw::Encoder,
    series: String,
    /// What Prometheus calls the chart.
    metric: String,
    samples: u64,
    /// From when on it is full; less where a server took no more.
    bytes_max: usize,
    samples_max: u64,
}

impl Body {
    pub(super) fn new(options: &InstanceOptions) -> Body {
        let lines = options.connector.carrier == Carrier::Lines;
        let form = match options.connector.dialect {
            Dialect::Graphite => Form::Graphite,
            Dialect::OpenTsdb if lines => Form::Telnet,
            Dialect::OpenTsdb => Form::OpenTsdbJson,
            Dialect::Json => Form::Json { array: !lines },
            Dialect::RemoteWrite => Form::RemoteWrite,
        };
        Body {
            form,
            source: options.source,
            prefix: options.prefix.clone(),
            names: options.send_names,
            external: options
                .external_labels
                .iter()
                .map(|(name, value)| (sanitized(name), value.clone()))
                .collect(),
            text: String::new(),
            request: Request::new(match options.write_version {
                WriteVersion::Auto | WriteVersion::One => Version::One,
                WriteVersion::Two => Version::Two,
            }),
            frame: Default::default(),
            plain: Vec::new(),
            snappy: snap::raw::Encoder::new(),
            series: String::new(),
            metric: String::new(),
            samples: 0,
            bytes_max: BODY_BYTES,
            samples_max: REMOTE_WRITE_SAMPLES,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.text.len() + self.request.bytes() >= self.bytes_max
            || (self.form == Form::RemoteWrite && self.samples >= self.samples_max)
    }

    /// Bodies from now on are half as long.
    pub(super) fn shrink(&mut self) {
        self.bytes_max = (self.bytes_max / 2).max(LEAST_BYTES);
        self.samples_max = (self.samples_max / 2).max(LEAST_SAMPLES);
    }

    /// The version of remote write in which bodies are made.
    pub(super) fn version(&self) -> Version {
        self.request.version()
    }

    /// That of all bodies from now on; to be called when one was taken.
    pub(super) fn set_version(&mut self, version: Version) {
        self.request.set_version(version);
    }

    /// A body that was taken, in another version of remote write.
    pub(super) fn converted(&self, body: &[u8], from: Version, to: Version) -> Option<Vec<u8>> {
        packed(&write_request::converted(from, to, &unpacked(body)?).ok()?)
    }

    /// One that was taken as two, with the number of values in each; `None` when there is but one thing in it.
    pub(super) fn halves(&self, body: &[u8], version: Version) -> Option<[(Vec<u8>, u64); 2]> {
        match self.form {
            Form::RemoteWrite => {
                let [(first, one), (second, other)] =
                    write_request::halves(version, &unpacked(body)?)?;
                Some([(packed(&first)?, one), (packed(&second)?, other)])
            }
            Form::OpenTsdbJson | Form::Json { array: true } => {
                let inside = std::str::from_utf8(body).ok()?;
                let inside = inside.strip_prefix("[\n")?.strip_suffix("\n]\n")?;
                let all: Vec<&str> = inside.split(",\n").collect();
                let whole = |part: &[&str]| {
                    (format!("[\n{}\n]\n", part.join(",\n")).into_bytes(), part.len() as u64)
                };
                let (first, second) = all.split_at(all.len() / 2);
                (!first.is_empty()).then(|| [whole(first), whole(second)])
            }
            Form::Graphite | Form::Telnet | Form::Json { array: false } => {
                let all: Vec<&[u8]> = body.split_inclusive(|byte| *byte == b'\n').collect();
                let (first, second) = all.split_at(all.len() / 2);
                let whole = |part: &[&[u8]]| (part.concat(), part.len() as u64);
                (!first.is_empty()).then(|| [whole(first), whole(second)])
            }
        }
    }

    /// What there is to send, and how many values are in it; nothing remains.
    pub(super) fn take(&mut self) -> (Vec<u8>, u64) {
        let samples = std::mem::take(&mut self.samples);
        if samples == 0 {
            return (Vec::new(), 0);
        }
        let bytes = match self.form {
            Form::RemoteWrite => {
                self.request.finish(&mut self.plain);
                self.frame.0 = None;
                // It only fails for what is larger than 4 GiB.
                self.snappy.compress_vec(&self.plain).unwrap_or_default()
            }
            Form::OpenTsdbJson | Form::Json { array: true } => {
                let mut text = std::mem::take(&mut self.text);
                text.push_str("\n]\n");
                text.into_bytes()
            }
            _ => std::mem::take(&mut self.text).into_bytes(),
        };
        (bytes, samples)
    }

    /// What is said of a host in every line.
    pub(super) fn host(&self, host: &Host, options: &InstanceOptions) -> HostText {
        let local = host.kind() == HostKind::Local;
        let info = host.info();
        let hostname = match &options.hostname {
            Some(name) if local => name.clone(),
            _ => info.hostname.clone(),
        };
        let tags = match local && !options.host_tags.is_empty() {
            true => options.host_tags.as_str(),
            false => info.tags.as_str(),
        };
        let labels = host_labels(host, options.configured_labels, options.automatic_labels);
        HostText {
            attached: self.attached(tags, &labels),
            info: info_series(&hostname, &info, &labels),
            hostname,
        }
    }

    fn attached(&self, tags: &str, labels: &[(Arc<str>, Arc<str>)]) -> String {
        let mut out = String::new();
        let tags: String = tags.chars().filter(|c| !c.is_control()).collect();
        match self.form {
            Form::Graphite => {
                if !tags.is_empty() {
                    let _ = write!(out, ";{tags}");
                }
                for (name, value) in labels {
                    let _ = write!(out, ";{name}=");
                    push_graphite_value(&mut out, value);
                }
            }
            Form::Telnet => {
                if !tags.is_empty() {
                    let _ = write!(out, " {tags}");
                }
                for (name, value) in labels {
                    let _ = write!(out, " {name}=");
                    push_opentsdb_value(&mut out, value);
                }
            }
            Form::OpenTsdbJson => {
                for (name, value) in labels {
                    out.push(',');
                    push_string(&mut out, name);
                    out.push_str(":\"");
                    let mut clean = String::new();
                    push_opentsdb_value(&mut clean, value);
                    push_escaped(&mut out, &clean);
                    out.push('"');
                }
            }
            Form::Json { .. } => {
                if !tags.is_empty() {
                    out.push_str("\"host_tags\":");
                    push_string(&mut out, &tags);
                    out.push(',');
                }
                if !labels.is_empty() {
                    out.push_str("\"labels\":{");
                    for (n, (name, value)) in labels.iter().enumerate() {
                        if n > 0 {
                            out.push(',');
                        }
                        push_string(&mut out, name);
                        out.push(':');
                        push_string(&mut out, value);
                    }
                    out.push_str("},");
                }
            }
            Form::RemoteWrite => {}
        }
        out
    }

    /// Remote write tells who a host is, and its variables; the others do not.
    pub(super) fn about_host(
        &mut self,
        host: &HostText,
        variables: &[(Arc<str>, f64)],
        at_ms: i64,
    ) {
        if self.form != Form::RemoteWrite {
            return;
        }
        let labels: Vec<(&str, &str)> =
            host.info.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let labels = all_labels(&labels, &self.external);
        self.request.push_series(&labels, std::iter::once((at_ms, 1.0)));
        self.samples += 1;
        for (name, value) in variables.iter().filter(|(_, value)| value.is_finite()) {
            let metric = format!("{}_{}", sanitized(&self.prefix), sanitized(name));
            let own = [("__name__", metric.as_str()), ("instance", &host.hostname)];
            let labels = all_labels(&own, &self.external);
            self.request.push_series(&labels, std::iter::once((at_ms, *value)));
            self.samples += 1;
        }
    }

    /// To be called before the dimensions of a chart.
    pub(super) fn begin_chart(&mut self, chart: &ChartText) {
        if self.form == Form::RemoteWrite {
            self.metric = metric_name(&self.prefix, self.source, &chart.context, &chart.units);
            self.frame.0 = None;
        }
    }

    /// Adds the points of one dimension.
    pub(super) fn dimension(
        &mut self,
        host: &HostText,
        chart: &ChartText,
        dim: &DimensionText,
        points: &[Point],
    ) {
        if points.is_empty() {
            return;
        }
        self.samples += points.len() as u64;
        if self.form == Form::RemoteWrite {
            return self.remote_write(host, chart, dim, points);
        }
        self.begin_series(host, chart, dim);
        for point in points {
            self.text_point(host, point);
        }
    }

    /// Prepares in `series` what is the same for all points.
    fn begin_series(&mut self, host: &HostText, chart: &ChartText, dim: &DimensionText) {
        let out = &mut self.series;
        out.clear();
        let (chart_name, dim_name) =
            if self.names { (&chart.name, &dim.name) } else { (&chart.id, &dim.id) };
        match self.form {
            Form::Graphite => {
                let _ = write!(out, "{}.{}.", one_word(&self.prefix), one_word(&host.hostname));
                push_dotted(out, chart_name);
                out.push('.');
                push_dotted(out, dim_name);
                out.push_str(&host.attached);
            }
            Form::Telnet | Form::OpenTsdbJson => {
                out.push_str(&one_word(&self.prefix));
                out.push('.');
                push_dotted(out, chart_name);
                out.push('.');
                push_dotted(out, dim_name);
            }
            Form::Json { .. } => {
                let spaced = self.source != DataSource::AsCollected;
                let mut pair = |key: &str, text: &str| {
                    out.push_str(key);
                    push_string(out, text);
                };
                pair("{\"prefix\":", &self.prefix);
                pair(",\"hostname\":", &host.hostname);
                out.push(',');
                out.push_str(&host.attached);
                let kind = chart.id.split('.').next().unwrap_or_default();
                let mut pair = |key: &str, text: &str| {
                    out.push_str(key);
                    push_string(out, text);
                };
                pair("\"chart_id\":", &chart.id);
                pair(",\"chart_name\":", &chart.name);
                pair(",\"chart_family\":", &chart.family);
                pair(
                    if spaced { ",\"chart_context\": " } else { ",\"chart_context\":" },
                    &chart.context,
                );
                pair(",\"chart_type\":", kind);
                pair(if spaced { ",\"units\": " } else { ",\"units\":" }, &chart.units);
                pair(",\"id\":", &dim.id);
                pair(",\"name\":", &dim.name);
                out.push_str(",\"value\":");
            }
            Form::RemoteWrite => {}
        }
    }

    fn text_point(&mut self, host: &HostText, point: &Point) {
        let out = &mut self.text;
        let seconds = point.at_ms.div_euclid(1000);
        let array = matches!(self.form, Form::OpenTsdbJson | Form::Json { array: true });
        if array {
            out.push_str(if out.is_empty() { "[\n" } else { ",\n" });
        }
        match self.form {
            Form::Graphite => {
                out.push_str(&self.series);
                out.push(' ');
                push_value(out, point.value);
                let _ = writeln!(out, " {seconds}");
            }
            Form::Telnet => {
                let _ = write!(out, "put {} {seconds} ", self.series);
                push_value(out, point.value);
                let _ = writeln!(out, " host={}{}", one_word(&host.hostname), host.attached);
            }
            Form::OpenTsdbJson => {
                out.push_str("{\"metric\":\"");
                push_escaped(out, &self.series);
                let _ = write!(out, "\",\"timestamp\":{seconds},\"value\":");
                push_value(out, point.value);
                out.push_str(",\"tags\":{\"host\":\"");
                push_escaped(out, &host.hostname);
                out.push('"');
                out.push_str(&host.attached);
                out.push_str("}}");
            }
            Form::Json { array } => {
                out.push_str(&self.series);
                push_value(out, point.value);
                out.push_str(match point.value {
                    Value::Stored(_) => ",\"timestamp\": ",
                    Value::Collected(_) => ",\"timestamp\":",
                });
                push_integer(out, seconds);
                out.push('}');
                if !array {
                    out.push('\n');
                }
            }
            Form::RemoteWrite => {}
        }
    }

    fn remote_write(
        &mut self,
        host: &HostText,
        chart: &ChartText,
        dim: &DimensionText,
        points: &[Point],
    ) {
        let (chart_name, dim_name) =
            if self.names { (&chart.name, &dim.name) } else { (&chart.id, &dim.id) };
        let counter = self.source == DataSource::AsCollected
            && !chart.from_prometheus
            && matches!(
                dim.algorithm,
                Algorithm::Incremental | Algorithm::PercentageOfIncrementalRow
            );
        let (of, frame) = &mut self.frame;
        if of.replace(counter) != Some(counter) {
            let length = self.metric.len();
            if counter {
                self.metric.push_str("_total");
            }
            let own = series_labels(&self.metric, chart_name, "-", &chart.family, &host.hostname);
            self.request.frame(frame, &all_labels(&own, &self.external), "dimension");
            self.metric.truncate(length);
        }
        let scale = match chart.from_prometheus {
            true => dim.multiplier as f64 / dim.divisor as f64,
            false => 1.0,
        };
        let number = |value| match value {
            Value::Stored(value) => value,
            Value::Collected(value) => value as f64 * scale,
        };
        let samples = points.iter().map(|point| (point.at_ms, number(point.value)));
        self.request.push(frame, ("dimension", dim_name), samples);
    }
}

/// A series' labels, sorted as remote write wants them; of a name that is there twice the first counts, and what the file adds
/// comes last.
fn all_labels<'a>(
    own: &[(&'a str, &'a str)],
    external: &'a [(String, String)],
) -> Vec<(&'a str, &'a str)> {
    let added = external.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut all: Vec<(&str, &str)> = own.iter().copied().chain(added).collect();
    all.sort_by_key(|(name, _)| *name);
    all.dedup_by_key(|(name, _)| *name);
    all
}

fn packed(plain: &[u8]) -> Option<Vec<u8>> {
    snap::raw::Encoder::new().compress_vec(plain).ok()
}

fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
    snap::raw::Decoder::new().decompress_vec(body).ok()
}

/// White space would end a word of a line, a line end the line.
fn one_word(text: &str) -> String {
    text.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

fn push_value(out: &mut String, value: Value) {
    match value {
        Value::Stored(value) => push_fixed(out, value),
        Value::Collected(value) => push_integer(out, value),
    }
}
