//! Series of other agents that come by Prometheus remote write become hosts and charts.
//!
//! A series is a chart with the dimension `value`; its labels are the chart's, and `instance` names the host, too. Of what only
//! grows (`_total`, `_count`, `_sum`, `_bucket`) `value` is the rate per second, for whoever looks at the chart, and the hidden
//! dimension `counter` is the counter itself, for PromQL; everything else is `value` as it is. A stored number has seven
//! digits: what a counter, or a value of more than 2^24, has beyond them is in the hidden dimension `rest`.
//!
//! What a series was called can be told from its chart ([`labels_of`]): where labels of charts cannot hold a label, all of them
//! are in one more, [`EXACT`]. The distance of the first two samples of a series is its chart's interval; each sample goes to the slot it is nearest to, counted
//! from the first, so the sender's jitter moves none.
//!
//! Runs on the threads of the web server. Invariant: the lock of one host's series is held while its samples are stored, that of
//! the list of hosts for a look-up only.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use uuid::Uuid;

use crate::base::ids::MachineGuid;
use crate::base::number::{Sample, SampleFlags};
use crate::base::time::{UnixSeconds, UpdateEvery};
use crate::metrics::{
    Algorithm, Chart, ChartMeta, ChartSpec, ChartState, Dimension, DimensionOptions, DimensionSpec,
    Host, LabelSource, Labels, Point, PointValue,
};
use crate::wire::remote_write::Series;

/// Series of one host; more are dropped, and counted.
pub const SERIES_MAX: usize = 200_000;
/// Hosts that write to us; more are refused.
pub const WRITERS_MAX: usize = 10_000;
/// A longer name of an instance is none.
pub const INSTANCE_BYTES_MAX: usize = 255;
/// Of a chart's id, before it is cut and a hash put in place of the rest.
const ID_BYTES_MAX: usize = 130;
const TYPE: &str = "prometheus";
/// Plugin and module of every chart here, and the program of every host.
pub const PLUGIN: &str = "remote_write";
const VALUE: &str = "value";
const COUNTER: &str = "counter";
const REST: &str = "rest";
/// The label that holds all labels of a series whose own do not say them exactly: `name=value` in the order of the names, with
/// commas between; bytes other than letters, digits and `_./-` as `=` and two hexadecimal digits, and `:` between name and value.
pub const EXACT: &str = "_series";
/// Labels that every chart has.
const OF_CHARTS: [&str; 2] = ["_collect_plugin", "_collect_module"];
/// Above this a stored number cannot hold every whole number.
const WHOLE_MAX: f64 = 16_777_215.0;
/// Of the identities of series.
const NAMESPACE: Uuid = Uuid::from_u128(0x5a1f_0d3e_7c64_4b58_a2e9_3d1c_8f60_b714);
/// A value that says "this series has ended".
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// So often in a row another distance of samples has to be seen until it is the chart's interval.
const PERSUADED: u32 = 3;

/// All hosts that write to us.
#[derive(Default)]
pub struct Intake {
    writers: Mutex<FxHashMap<MachineGuid, Arc<Mutex<Writer>>>>,
}

struct Writer {
    host: Arc<Host>,
    series: FxHashMap<Uuid, Kept>,
}

/// What is known of one series.
struct Kept {
    chart: Option<Arc<Chart>>,
    counts: bool,
    first_ms: i64,
    first: f64,
    every: i64,
    /// The sample before.
    last_ms: i64,
    last: f64,
    /// A distance that is not `every`, and how often in a row.
    other: (i64, u32),
    /// The dimension of what a stored number cannot hold, once there was any.
    rest: Option<u32>,
}

/// What a series is called, …
struct Identity<'a> {
    metric: &'a str,
    /// … with all its labels, …
    exact: &'a str,
    /// … and in short.
    key: Uuid,
}

/// What became of the series of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub samples: u64,
    pub dropped: u64,
}

impl Intake {
    /// Stores what a request says of one host, which `host` finds or makes the first time. `None`: it cannot be had.
    pub fn store(
        &self,
        guid: MachineGuid,
        host: impl FnOnce() -> Option<Arc<Host>>,
        series: &[Series<'_>],
    ) -> Option<Stored> {
        let known = self.writers.lock().get(&guid).cloned();
        let writer = match known {
            Some(writer) => writer,
            None => {
                // Before a host is made for it: places of hosts are shared with children.
                if self.writers.lock().len() >= WRITERS_MAX {
                    return None;
                }
                let made =
                    Arc::new(Mutex::new(Writer { host: host()?, series: FxHashMap::default() }));
                let mut writers = self.writers.lock();
                if writers.len() >= WRITERS_MAX && !writers.contains_key(&guid) {
                    return None;
                }
                Arc::clone(writers.entry(guid).or_insert(made))
            }
        };
        let mut writer = writer.lock();
        let mut stored = Stored::default();
        for one in series {
            writer.add(one, &mut stored);
        }
        let host = Arc::clone(&writer.host);
        drop(writer);
        host.flush();
        Some(stored)
    }
}

impl Writer {
    fn add(&mut self, series: &Series<'_>, stored: &mut Stored) {
        let Some(metric) = series.label("__name__").filter(|name| !name.is_empty()) else {
            stored.dropped += series.samples.len() as u64;
            return;
        };
        let exact = exact_of(&series.labels);
        // Nobody finds two series of one identity, so nothing has to be looked for.
        let key = Uuid::new_v5(&NAMESPACE, exact.as_bytes());
        if self.series.len() >= SERIES_MAX && !self.series.contains_key(&key) {
            stored.dropped += series.samples.len() as u64;
            return;
        }
        for &(at_ms, value) in &series.samples {
            if value.to_bits() == STALE {
                if let Some(chart) = self.series.remove(&key).and_then(|kept| kept.chart) {
                    chart.mark_obsolete();
                }
                continue;
            }
            if !(0..=i64::MAX / 2_000_000).contains(&at_ms) {
                stored.dropped += 1;
                continue;
            }
            let kept = self.series.entry(key).or_insert_with(|| Kept {
                chart: None,
                counts: is_counter(metric),
                first_ms: at_ms,
                first: value,
                every: 0,
                last_ms: at_ms,
                last: value,
                other: (0, 0),
                rest: None,
            });
            if kept.every == 0 {
                if at_ms <= kept.first_ms {
                    continue;
                }
                kept.every = seconds(at_ms - kept.first_ms);
                let identity = Identity { metric, exact: &exact, key };
                kept.chart = define(&self.host, &identity, series, kept.every, kept.counts);
                let (first_ms, first) = (kept.first_ms, kept.first);
                kept.put(first_ms, first, None);
            }
            kept.sample(at_ms, value);
            stored.samples += 1;
        }
    }
}

impl Kept {
    fn sample(&mut self, at_ms: i64, value: f64) {
        let apart = at_ms - self.last_ms;
        // One that fell was reset, and what it had grown until then nobody knows.
        let grew = self.counts && apart > 0 && value >= self.last;
        let rate = grew.then(|| (value - self.last) * 1000.0 / apart as f64);
        self.put(at_ms, value, rate);
        if apart <= 0 {
            return;
        }
        (self.last_ms, self.last) = (at_ms, value);
        let distance = seconds(apart);
        self.other = match self.other {
            _ if distance == self.every => (0, 0),
            (before, times) if before == distance => (distance, times + 1),
            _ => (distance, 1),
        };
        if self.other.1 >= PERSUADED {
            (self.every, self.first_ms, self.other) = (distance, at_ms, (0, 0));
        }
    }

    /// Stores a sample; of a counter with its rate, where that is known.
    fn put(&mut self, at_ms: i64, value: f64, rate: Option<f64>) {
        let Some(chart) = &self.chart else { return };
        if !value.is_finite() {
            return;
        }
        let every = UpdateEvery::clamped(self.every);
        let first = UnixSeconds(self.first_ms.div_euclid(1000)).floor_to(every);
        let slots = (at_ms - self.first_ms + self.every * 500).div_euclid(self.every * 1000);
        let end = first + slots * self.every;
        let of = |dim: u32, value: f64| PointValue {
            dim,
            collected: value as i64,
            value,
            flags: SampleFlags::default(),
        };
        let mut values = [of(0, value); 3];
        let mut count = 0;
        let mut add = |value: PointValue| {
            values[count] = value;
            count += 1;
        };
        if self.counts {
            if let Some(rate) = rate {
                add(of(0, rate));
            }
            add(of(1, value));
        } else {
            add(of(0, value));
        }
        let rest = value - Sample::normal(value).unpack();
        if rest != 0.0 && (self.counts || value.abs() > WHOLE_MAX) {
            if self.rest.is_none() {
                let hidden = hidden(REST);
                self.rest = chart.define_dimension(&hidden).ok();
            }
            if let Some(dim) = self.rest {
                add(of(dim, rest));
            }
        }
        let point = Point { end, every, values: &values[..count] };
        let newest = chart.lock().last_updated;
        if end >= newest {
            chart.store_point(&point);
        } else {
            chart.store_replicated(&point, false);
        }
    }
}

fn hidden(id: &str) -> DimensionSpec<'_> {
    let options = DimensionOptions::HIDDEN;
    DimensionSpec { options, ..DimensionSpec::plain(id, Algorithm::Absolute, 1, 1) }
}

fn seconds(ms: i64) -> i64 {
    ((ms + 500) / 1000).clamp(1, 86_400)
}

/// Whether a metric of that name only grows, but for when it begins anew.
pub fn is_counter(metric: &str) -> bool {
    ["_total", "_count", "_sum", "_bucket"].iter().any(|end| metric.ends_with(end))
}

/// The chart of a series; `None`, with an ERROR line, where the host takes no more.
fn define(
    host: &Host,
    identity: &Identity<'_>,
    series: &Series<'_>,
    every: i64,
    counts: bool,
) -> Option<Arc<Chart>> {
    let metric = identity.metric;
    let (id, context) = (chart_id(identity, series), format!("{TYPE}.{metric}"));
    // `node_cpu_seconds_total` belongs to `node_cpu`.
    let family = metric.match_indices('_').nth(1).map_or(metric, |(at, _)| &metric[..at]);
    let base = metric.strip_suffix("_total").unwrap_or(metric);
    let amount = ["bytes", "seconds", "ratio", "celsius", "volts"]
        .into_iter()
        .find(|unit| base.ends_with(unit))
        .unwrap_or(if counts { "events" } else { "value" });
    let units = if counts { format!("{amount}/s") } else { amount.to_owned() };
    let defined = host.define_chart(&ChartSpec {
        id: &id,
        title: metric,
        units: &units,
        family,
        context: &context,
        priority: 90_000,
        update_every: UpdateEvery::clamped(every),
        plugin: PLUGIN,
        module: PLUGIN,
        ..ChartSpec::default()
    });
    let chart = match defined {
        Ok(chart) => chart,
        Err(error) => {
            log::error!("cannot store series '{id}' of '{}': {error}", host.hostname());
            return None;
        }
    };
    let plain = DimensionSpec::plain(VALUE, Algorithm::Absolute, 1, 1);
    let mut defined = chart.define_dimension(&plain);
    if counts && defined.is_ok() {
        defined = chart.define_dimension(&hidden(COUNTER));
    }
    if let Err(error) = defined {
        log::error!("cannot store series '{id}' of '{}': {error}", host.hostname());
        return None;
    }
    let mut state = chart.lock();
    let mut changed = false;
    for (name, value) in series.labels.iter().filter(|(name, _)| *name != "__name__") {
        if !OF_CHARTS.contains(name) && *name != EXACT {
            changed |= state.labels.set(name, value, LabelSource::AUTO);
        }
    }
    // Told by what is there now, not by what should be.
    if exact_of(&plain_labels(&state.meta, &state.labels)) != identity.exact {
        changed |= state.labels.set(EXACT, identity.exact, LabelSource::AUTO);
    }
    if changed {
        state.touch();
    }
    drop(state);
    Some(chart)
}

/// `prometheus.METRIC`, `prometheus.METRIC-NAME.VALUE` of a series with one label, else `prometheus.METRIC-VALUE-VALUE…` with its
/// identity at its end, as it has whatever of these would be long or not tell all.
fn chart_id(identity: &Identity<'_>, series: &Series<'_>) -> String {
    let metric = identity.metric;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let clean =
        |text: &str| -> String { text.chars().map(|c| if plain(c) { c } else { '_' }).collect() };
    let mut id = format!("{TYPE}.{}", clean(metric));
    let telling = |name: &str| !matches!(name, "__name__" | "instance" | "job");
    let labels: Vec<_> = series.labels.iter().filter(|(name, _)| telling(name)).collect();
    // Jobs are left out, and who has no name shares a host with all others that have none.
    let mut whole = metric.chars().all(plain)
        && series.label("job").is_none()
        && series
            .label("instance")
            .is_some_and(|name| (1..=INSTANCE_BYTES_MAX).contains(&name.len()));
    if let [(name, value)] = labels[..] {
        let _ = write!(id, "-{}.{}", clean(name), clean(value));
        whole &= name.chars().chain(value.chars()).all(plain);
    } else {
        labels.iter().for_each(|(_, value)| {
            let _ = write!(id, "-{}", clean(value));
        });
        whole &= labels.is_empty();
    }
    if !whole || id.len() > ID_BYTES_MAX {
        id.truncate(ID_BYTES_MAX);
        let _ = write!(id, "-{}", identity.key.simple());
    }
    id
}

// --- what a series was called -----------------------------------------------------------------------

/// Whether a chart is a series that came by remote write, here or to whoever streams it.
pub fn is_received(meta: &ChartMeta) -> bool {
    *meta.plugin == *PLUGIN && *meta.module == *PLUGIN
}

/// Whether a dimension only holds what another one of a received series cannot: it means nothing by itself.
pub fn is_part(meta: &ChartMeta, dim: &Dimension) -> bool {
    dim.is_hidden() && is_received(meta)
}

/// Whether a host is one of those that write to us, and has nothing else.
pub fn is_writer(host: &Host) -> bool {
    host.info().program_name == PLUGIN
}

/// Whether a chart of that context can be a series of that metric.
pub fn may_be_metric(context: &str, metric: &str) -> bool {
    context.strip_prefix(TYPE).and_then(|rest| rest.strip_prefix('.')) == Some(metric)
}

/// The dimensions whose sum is the value that was sent, of those that `is_there`.
pub fn parts(is_there: &dyn Fn(&str) -> bool) -> (&'static str, &'static str) {
    (if is_there(COUNTER) { COUNTER } else { VALUE }, REST)
}

/// The metric that a chart holds a series of.
pub fn metric_of(state: &ChartState) -> String {
    let labels = labels_of(state);
    let name = labels.into_iter().find(|(name, _)| name == "__name__");
    name.map(|(_, value)| value).unwrap_or_default()
}

/// Name and labels of the series that a chart holds, as they came.
pub fn labels_of(state: &ChartState) -> Vec<(String, String)> {
    match state.labels.get(EXACT).and_then(read_exact) {
        Some(labels) => labels,
        None => {
            let plain = plain_labels(&state.meta, &state.labels);
            plain.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        }
    }
}

/// What the chart itself says.
fn plain_labels<'a>(meta: &'a ChartMeta, labels: &'a Labels) -> Vec<(&'a str, &'a str)> {
    let metric = meta.context.strip_prefix(TYPE).and_then(|rest| rest.strip_prefix('.'));
    let own =
        labels.iter().filter(|label| !OF_CHARTS.contains(&&*label.name) && *label.name != *EXACT);
    let own = own.map(|label| (&*label.name, &*label.value));
    std::iter::once(("__name__", metric.unwrap_or_default())).chain(own).collect()
}

/// All labels as one text, whatever their order.
fn exact_of(labels: &[(&str, &str)]) -> String {
    let mut labels = Cow::Borrowed(labels);
    if !labels.is_sorted() {
        labels.to_mut().sort_unstable();
    }
    let mut out = String::new();
    let push = |out: &mut String, text: &str| {
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"_./-".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "={byte:02x}");
            }
        }
    };
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        if !out.is_empty() {
            out.push(',');
        }
        push(&mut out, name);
        out.push(':');
        push(&mut out, value);
    }
    out
}

fn read_exact(text: &str) -> Option<Vec<(String, String)>> {
    let plain = |text: &str| {
        let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'=' => {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
                }
                _ => byte,
            });
        }
        String::from_utf8(bytes).ok()
    };
    let pair = |text: &str| {
        let (name, value) = text.split_once(':')?;
        Some((plain(name)?, plain(value)?))
    };
    text.split(',').map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{HostInfo, HostKind, HostSettings};
    use crate::storage::Mode;
    use crate::storage::ring::RingEngine;

    const T0: i64 = 1_700_000_000;

    fn host() -> Arc<Host> {
        let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
        let info = HostInfo::named("web1:9100");
        Host::new(MachineGuid::random(), HostKind::Virtual, info, engine, HostSettings::default())
    }

    fn write(intake: &Intake, host: &Arc<Host>, labels: &[(&str, &str)], samples: &[(f64, f64)]) {
        let samples = samples.iter().map(|(at, value)| (T0 * 1000 + (at * 1000.0) as i64, *value));
        let (labels, samples) = (labels.to_vec(), samples.collect());
        let series = Series { labels, samples, ..Series::default() };
        let made = || Some(Arc::clone(host));
        intake.store(host.guid(), made, &[series]).unwrap();
    }

    /// Slots after T0 and what they hold.
    fn held(host: &Host, chart: &str) -> Vec<(i64, f64)> {
        let chart = host.chart(chart).unwrap_or_else(|| {
            panic!(
                "only {:?}",
                host.charts().iter().map(|c| c.id().to_string()).collect::<Vec<_>>()
            )
        });
        let reader = Arc::clone(&chart.lock().dims[0].reader);
        let (mut slots, (first, last)) = (Vec::new(), reader.retention().unwrap());
        reader.read(first - 1, last, &mut |at, sample| {
            if !sample.is_empty() {
                slots.push((at.0 - T0, sample.reading()));
            }
        });
        slots
    }

    #[test]
    fn gauges_are_kept_as_they_are_and_jitter_moves_none() {
        let (intake, host) = (Intake::default(), host());
        let labels = [("__name__", "up"), ("instance", "web1:9100")];
        write(&intake, &host, &labels, &[(7.9, 1.0)]);
        assert!(host.charts().is_empty(), "nobody knows its interval yet");
        write(&intake, &host, &labels, &[(23.1, 2.0), (37.6, 3.0)]);
        write(&intake, &host, &labels, &[(53.2, 4.0), (83.0, 6.0)]);
        // T0 is five seconds after a whole quarter of a minute.
        assert_eq!(
            held(&host, "prometheus.up"),
            [(-5, 1.0), (10, 2.0), (25, 3.0), (40, 4.0), (70, 6.0)]
        );
        assert_eq!(host.chart("prometheus.up").unwrap().lock().meta.update_every.seconds(), 15);
        // What comes late fills its hole.
        write(&intake, &host, &labels, &[(68.0, 5.0)]);
        assert_eq!(held(&host, "prometheus.up")[4], (55, 5.0));
    }

    #[test]
    fn counters_are_kept_as_rates_and_a_reset_is_no_spike() {
        let (intake, host) = (Intake::default(), host());
        let labels = [("__name__", "http_requests_total"), ("code", "200"), ("instance", "i")];
        let samples = [(0.0, 100.0), (10.0, 150.0), (20.0, 250.0), (30.0, 7.0), (40.0, 27.0)];
        write(&intake, &host, &labels, &samples);
        let id = "prometheus.http_requests_total-code.200";
        assert_eq!(held(&host, id), [(10, 5.0), (20, 10.0), (40, 2.0)]);
        let chart = host.chart(id).unwrap();
        let state = chart.lock();
        assert_eq!((&*state.meta.units, &*state.meta.family), ("events/s", "http_requests"));
        assert_eq!(state.labels.get("code"), Some("200"));
    }

    #[test]
    fn series_that_differ_in_a_label_are_charts_apart() {
        let (intake, host) = (Intake::default(), host());
        for labels in [
            [("__name__", "m"), ("a", "x"), ("b", "y")],
            [("__name__", "m"), ("a", "y"), ("b", "x")],
            [("__name__", "m"), ("a", "x/"), ("b", "y")],
            [("__name__", "m"), ("a", "x\\"), ("b", "y")],
        ] {
            write(&intake, &host, &labels, &[(0.0, 1.0), (10.0, 1.0)]);
        }
        assert_eq!(host.charts_count(), 4);
    }

    #[test]
    fn counters_are_kept_to_the_last_digit_as_well() {
        let (intake, host) = (Intake::default(), host());
        let labels = [("__name__", "bytes_total"), ("instance", "i")];
        let samples = [(0.0, 123_456_789_012.0), (10.0, 123_456_789_013.5), (20.0, 7.0)];
        write(&intake, &host, &labels, &samples);
        let chart = host.chart("prometheus.bytes_total").unwrap();
        let state = chart.lock();
        let parts = parts(&|id| state.dimension(id).is_some());
        let at = |id: &str, second: i64| {
            let (mut found, reader) = (0.0, Arc::clone(&state.dimension(id).unwrap().reader));
            let at = UnixSeconds(T0 + second);
            reader.read(at - 1, at, &mut |_, sample| found = sample.value().unwrap_or(0.0));
            found
        };
        for (second, value) in samples {
            let second = second as i64;
            assert_eq!(at(parts.0, second) + at(parts.1, second), value);
        }
        // Whoever exports the chart, or lists its values, has the rate alone.
        let shown = state.dims.iter().filter(|dim| !is_part(&state.meta, dim));
        assert_eq!(shown.map(|dim| &*dim.id).collect::<Vec<_>>(), [VALUE]);
    }

    #[test]
    fn a_series_is_known_by_all_its_labels_as_they_came() {
        let (intake, host) = (Intake::default(), host());
        let all: [&[(&str, &str)]; 9] = [
            &[("__name__", "down"), ("instance", "i")],
            &[("__name__", "up"), ("a", "x"), ("instance", "i")],
            &[("__name__", "up"), ("b", "x"), ("instance", "i")],
            &[("__name__", "up"), ("instance", "unknown")],
            &[("__name__", "up")],
            &[("__name__", "job:up:sum"), ("instance", "i")],
            &[("__name__", "job_up_sum"), ("instance", "i")],
            &[("__name__", "up"), ("_collect_module", "x"), ("instance", "i")],
            &[("__name__", "up"), ("a", " x;\"\\ =3d,:é\n "), ("instance", "i")],
        ];
        for labels in all {
            write(&intake, &host, labels, &[(0.0, 1.0), (10.0, 1.0)]);
        }
        let mut found: Vec<String> = Vec::new();
        for chart in host.charts() {
            let labels = labels_of(&chart.lock());
            let mut labels: Vec<_> =
                labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            labels.sort_unstable();
            found.push(format!("{labels:?}"));
        }
        let mut wanted: Vec<_> = all.iter().map(|labels| format!("{labels:?}")).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_stale_series_is_over_until_it_comes_back() {
        let (intake, host) = (Intake::default(), host());
        let labels = [("__name__", "up"), ("instance", "i")];
        write(&intake, &host, &labels, &[(0.0, 1.0), (10.0, 1.0), (20.0, f64::from_bits(STALE))]);
        let chart = host.chart("prometheus.up").unwrap();
        assert!(chart.lock().is_obsolete());
        write(&intake, &host, &labels, &[(40.0, 1.0), (50.0, 1.0)]);
        assert!(!host.chart("prometheus.up").unwrap().lock().is_obsolete());
    }

    #[test]
    fn a_new_interval_is_followed_once_it_is_sure() {
        let (intake, host) = (Intake::default(), host());
        let labels = [("__name__", "up"), ("instance", "i")];
        let at = |n: i64| if n < 5 { n as f64 * 10.0 } else { 40.0 + (n - 4) as f64 * 30.0 };
        let samples: Vec<_> = (0..12).map(|n| (at(n), n as f64)).collect();
        write(&intake, &host, &labels, &samples);
        assert_eq!(host.chart("prometheus.up").unwrap().lock().meta.update_every.seconds(), 30);
    }

    #[test]
    fn senseless_samples_are_left_out() {
        let (intake, host) = (Intake::default(), host());
        write(&intake, &host, &[("instance", "i")], &[(0.0, 1.0), (1.0, 1.0)]);
        let labels = [("__name__", "up"), ("instance", "i")];
        write(&intake, &host, &labels, &[(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 1.0)]);
        assert_eq!(held(&host, "prometheus.up"), [(2, 1.0)]);
        assert_eq!(host.charts_count(), 1);
    }
}
