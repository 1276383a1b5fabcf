//! Series of other agents that come by Prometheus remote write become hosts and charts.
//!
//! A series is a chart with the one dimension `value`; its labels are the chart's, but for `instance`, which names the
//! host. What only grows (`_total`, `_count`, `_sum`, `_bucket`) is stored as its rate per second, everything else as it is. The
//! distance of the first two samples of a series is its chart's interval; each sample goes to the slot it is nearest to, counted
//! from the first, so the sender's jitter moves none.
//!
//! Runs on the threads of the web server. Invariant: the lock of one host's series is held while its samples are stored, that of
//! the list of hosts for a look-up only.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::base::ids::MachineGuid;
use crate::base::number::SampleFlags;
use crate::base::time::{UnixSeconds, UpdateEvery};
use crate::metrics::{
    Algorithm, Chart, ChartSpec, DimensionSpec, Host, LabelSource, Point, PointValue,
};
use crate::wire::remote_write::Series;

/// Series of one host; more are dropped, and counted.
pub const SERIES_MAX: usize = 200_000;
/// Hosts that write to us; more are refused.
pub const WRITERS_MAX: usize = 10_000;
/// Of a chart's id, before it is cut and a hash put in place of the rest.
const ID_BYTES_MAX: usize = 150;
const TYPE: &str = "prometheus";
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
    series: FxHashMap<u64, Kept>,
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
        let mut hasher = DefaultHasher::new();
        series.labels.hash(&mut hasher);
        let key = hasher.finish();
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
            });
            if kept.every == 0 {
                if at_ms <= kept.first_ms {
                    continue;
                }
                kept.every = seconds(at_ms - kept.first_ms);
                kept.chart = define(&self.host, metric, series, kept.every, kept.counts);
                if !kept.counts {
                    let first = kept.first;
                    kept.put(kept.first_ms, first);
                }
            }
            kept.sample(at_ms, value);
            stored.samples += 1;
        }
    }
}

impl Kept {
    fn sample(&mut self, at_ms: i64, value: f64) {
        let apart = at_ms - self.last_ms;
        if self.counts {
            // One that fell was reset, and what it had grown until then nobody knows.
            if apart > 0 && value >= self.last {
                self.put(at_ms, (value - self.last) * 1000.0 / apart as f64);
            }
        } else {
            self.put(at_ms, value);
        }
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

    fn put(&self, at_ms: i64, value: f64) {
        let Some(chart) = &self.chart else { return };
        if !value.is_finite() {
            return;
        }
        let every = UpdateEvery::clamped(self.every);
        let first = UnixSeconds(self.first_ms.div_euclid(1000)).floor_to(every);
        let slots = (at_ms - self.first_ms + self.every * 500).div_euclid(self.every * 1000);
        let end = first + slots * self.every;
        let collected = value as i64;
        let values = [PointValue { dim: 0, collected, value, flags: SampleFlags::default() }];
        let point = Point { end, every, values: &values };
        let newest = chart.lock().last_updated;
        if end >= newest {
            chart.store_point(&point);
        } else {
            chart.store_replicated(&point, false);
        }
    }
}

fn seconds(ms: i64) -> i64 {
    ((ms + 500) / 1000).clamp(1, 86_400)
}

fn is_counter(metric: &str) -> bool {
    ["_total", "_count", "_sum", "_bucket"].iter().any(|end| metric.ends_with(end))
}

/// The chart of a series; `None`, with an ERROR line, where the host takes no more.
fn define(
    host: &Host,
    metric: &str,
    series: &Series<'_>,
    every: i64,
    counts: bool,
) -> Option<Arc<Chart>> {
    let (id, context) = (chart_id(metric, series), format!("{TYPE}.{metric}"));
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
        plugin: "remote_write",
        module: "remote_write",
        ..ChartSpec::default()
    });
    let chart = match defined {
        Ok(chart) => chart,
        Err(error) => {
            log::error!("cannot store series '{id}' of '{}': {error}", host.hostname());
            return None;
        }
    };
    let plain = DimensionSpec::plain("value", Algorithm::Absolute, 1, 1);
    if let Err(error) = chart.define_dimension(&plain) {
        log::error!("cannot store series '{id}' of '{}': {error}", host.hostname());
        return None;
    }
    let mut state = chart.lock();
    let mut changed = false;
    for (name, value) in series.labels.iter().filter(|(name, _)| *name != "__name__") {
        changed |= state.labels.set(name, value, LabelSource::AUTO);
    }
    if changed {
        state.touch();
    }
    drop(state);
    Some(chart)
}

/// `prometheus.METRIC-VALUE-VALUE…`; with a hash at its end where that does not tell all labels.
fn chart_id(metric: &str, series: &Series<'_>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut id = format!("{TYPE}.");
    id.extend(metric.chars().map(|c| if plain(c) { c } else { '_' }));
    let mut whole = true;
    let telling = |name: &str| !matches!(name, "__name__" | "instance" | "job");
    for (_, value) in series.labels.iter().filter(|(name, _)| telling(name)) {
        id.push('-');
        whole &= value.chars().all(plain);
        id.extend(value.chars().map(|c| if plain(c) { c } else { '_' }));
    }
    // Which label a value belongs to is not told either, and jobs are left out.
    whole &= series.labels.iter().filter(|(name, _)| telling(name)).count() <= 1
        && series.label("job").is_none();
    if !whole || id.len() > ID_BYTES_MAX {
        id.truncate(ID_BYTES_MAX);
        let mut hasher = DefaultHasher::new();
        series.labels.hash(&mut hasher);
        id.push_str(&format!("-{:08x}", hasher.finish() >> 32));
    }
    id
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

    fn write(
        intake: &Intake,
        host: &Arc<Host>,
        labels: &[(&'static str, &'static str)],
        samples: &[(f64, f64)],
    ) {
        let samples = samples.iter().map(|(at, value)| (T0 * 1000 + (at * 1000.0) as i64, *value));
        let series = Series { labels: labels.to_vec(), samples: samples.collect() };
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
        let id = "prometheus.http_requests_total-200";
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
