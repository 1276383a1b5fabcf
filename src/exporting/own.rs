//! The charts of an instance about itself: `netdata.exporting_NAME_metrics`, `_bytes`, `_ops`, `_thread_cpu`, as operators
//! know them, and `_behind`, which is ours: how old what waits is.

use std::sync::Arc;

use super::link::Counts;
use crate::base::sys;
use crate::base::time::{UnixMicros, UpdateEvery};
use crate::metrics::host::clean_chart_name;
use crate::metrics::{Algorithm, ChartSpec, ChartType, Collected, DimensionSpec, Host};

/// What happened since the charts were last told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) buffered: i64,
    pub(super) buffered_bytes: i64,
    pub(super) sent: i64,
    pub(super) sent_bytes: i64,
    pub(super) lost: i64,
    pub(super) lost_bytes: i64,
    pub(super) discards: i64,
    /// Seconds.
    pub(super) behind: i64,
}

pub(super) struct Own {
    host: Arc<Host>,
    metrics: Option<Collected>,
    bytes: Option<Collected>,
    operations: Option<Collected>,
    behind: Option<Collected>,
    cpu: Option<Collected>,
}

struct Def {
    suffix: &'static str,
    context: &'static str,
    title: &'static str,
    units: &'static str,
    kind: ChartType,
    priority: i64,
    divisor: i64,
    algorithm: Algorithm,
    dims: &'static [&'static str],
}

const METRICS: Def = Def {
    suffix: "metrics",
    context: "exporting_buffered_metrics",
    title: "Metrics made, sent and lost by an exporting instance",
    units: "metrics",
    kind: ChartType::Line,
    priority: 130_610,
    divisor: 1,
    algorithm: Algorithm::Absolute,
    dims: &["buffered", "lost", "sent"],
};

const BYTES: Def = Def {
    suffix: "bytes",
    context: "exporting_data_size",
    title: "Traffic of an exporting instance",
    units: "KiB",
    kind: ChartType::Area,
    priority: 130_620,
    divisor: 1024,
    dims: &["buffered", "lost", "sent", "received"],
    ..METRICS
};

const OPERATIONS: Def = Def {
    suffix: "ops",
    context: "exporting_operations",
    title: "Operations of an exporting instance",
    units: "operations",
    priority: 130_630,
    dims: &["write", "discard", "reconnect", "failure", "read"],
    ..METRICS
};

const CPU: Def = Def {
    suffix: "thread_cpu",
    context: "exporting_instance",
    title: "Processor time of an exporting instance",
    units: "milliseconds/s",
    kind: ChartType::Stacked,
    priority: 130_640,
    divisor: 1000,
    algorithm: Algorithm::Incremental,
    dims: &["user", "system"],
};

const BEHIND: Def = Def {
    suffix: "behind",
    context: "exporting_behind",
    title: "Age of the oldest batch that was not taken",
    units: "seconds",
    priority: 130_645,
    dims: &["behind"],
    ..METRICS
};

impl Own {
    pub(super) fn new(host: &Arc<Host>, name: &str, every: UpdateEvery) -> Own {
        let make = |def: &Def| {
            let id = format!("netdata.exporting_{}_{}", clean_chart_name(name), def.suffix);
            let mut chart = Collected::new(
                host,
                &ChartSpec {
                    id: &id,
                    title: def.title,
                    units: def.units,
                    family: &format!("exporting_{name}"),
                    context: def.context,
                    chart_type: def.kind,
                    priority: def.priority,
                    update_every: every,
                    plugin: "exporting",
                    ..ChartSpec::default()
                },
            )?;
            for dim in def.dims {
                chart.define(&DimensionSpec::plain(dim, def.algorithm, 1, def.divisor));
            }
            Some(chart)
        };
        Own {
            host: Arc::clone(host),
            metrics: make(&METRICS),
            bytes: make(&BYTES),
            operations: make(&OPERATIONS),
            behind: make(&BEHIND),
            cpu: make(&CPU),
        }
    }

    pub(super) fn collect(&mut self, figures: &Figures, counts: &Counts, now: UnixMicros) {
        let f = figures;
        let (user, system) = sys::thread_times_us();
        let put = |chart: &mut Option<Collected>, values: &[i64]| {
            if let Some(chart) = chart {
                chart.set_first(values);
                chart.done(now);
            }
        };
        put(&mut self.metrics, &[f.buffered, f.lost, f.sent]);
        let bytes = [f.buffered_bytes, f.lost_bytes, f.sent_bytes, counts.received_bytes];
        put(&mut self.bytes, &bytes);
        let operations =
            [counts.writes, f.discards, counts.reconnects, counts.failures, counts.reads];
        put(&mut self.operations, &operations);
        put(&mut self.behind, &[f.behind]);
        put(&mut self.cpu, &[user, system]);
        self.host.flush();
    }
}
