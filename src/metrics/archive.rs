//! What is not live: hosts and charts of earlier times, looked up in the metadata database when somebody asks.
//!
//! An archived chart is a row on the disk. It becomes a [`Chart`] with readers for as long as one query needs it, so it
//! costs no memory between queries, whatever their number. Runs on the thread of the query, and takes no lock that a
//! collector waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chart::{Chart, ChartMeta, ChartOptions, ChartState, ChartType};
use super::dimension::{Algorithm, Dimension, DimensionOptions, DimensionSpec};
use super::host::{Host, HostInfo, HostSettings};
use super::labels::{Label, LabelSource, Labels};
use crate::base::intern::intern;
use crate::base::time::UnixSeconds;
use crate::storage::none::no_writer;
use crate::storage::records::{ChartRecord, DimensionRecord, HostRecord, LabelRecord};
use crate::storage::{Metric, StorageEngine};

pub use crate::storage::metadata::ChartHead;

impl Host {
    /// Calls `visit` for every chart that is `wanted` and not live.
    pub fn archived_charts(
        &self,
        wanted: &mut dyn FnMut(&ChartHead<'_>) -> bool,
        visit: &mut dyn FnMut(&Arc<Chart>),
    ) {
        let Some(database) = self.database().filter(|_| self.has_older_charts()) else { return };
        database.charts(
            self.guid(),
            &mut |head| wanted(head) && self.chart(head.id).is_none(),
            &mut |record| visit(&self.archived_chart_of(&record)),
        );
    }

    /// The chart of an id, else of a name: a live one if there is, else an archived one.
    pub fn find_any_chart(&self, id_or_name: &str) -> Option<Arc<Chart>> {
        self.find_chart(id_or_name).or_else(|| {
            let database = self.database().filter(|_| self.has_older_charts())?;
            let record = database.chart(self.guid(), id_or_name)?;
            // A live chart may have taken another name meanwhile.
            self.chart(&record.id).is_none().then(|| self.archived_chart_of(&record))
        })
    }

    /// Dimensions that a chart had earlier, for those that are not in `chart` now. To be called without its lock: it
    /// reads from the disk.
    pub fn archived_dimensions(&self, chart: &Chart) -> Vec<Dimension> {
        let Some(database) = self.database().filter(|_| chart.has_older_dimensions()) else {
            return Vec::new();
        };
        let mut record = ChartRecord::bare(chart.id());
        record.dimensions = database.dimensions(self.guid(), chart.id());
        {
            let state = chart.lock();
            record.update_every = state.meta.update_every;
            record.dimensions.retain(|dim| state.dimension(&dim.id).is_none());
        }
        self.readable_dimensions(&record)
    }

    /// Whether anything is stored of an archived chart, on any tier.
    pub(super) fn holds_samples(&self, record: &ChartRecord) -> bool {
        self.readable_dimensions(record).iter().any(|dim| {
            let reader = &dim.reader;
            reader.retention().is_some()
                || (1..reader.tiers()).any(|tier| reader.tier_retention(tier).is_some())
        })
    }

    fn readable_dimensions(&self, record: &ChartRecord) -> Vec<Dimension> {
        let engine = self.engine();
        let open = |dim: &DimensionRecord| {
            let key = record.key(self.guid(), dim);
            let reader = engine.reader(&key, record.update_every)?;
            let metric = Metric { writer: no_writer(), reader };
            Some(Dimension::new(intern(&dim.id), intern(&dim.name), &spec_of(dim), metric))
        };
        record.dimensions.iter().filter_map(open).collect()
    }

    fn archived_chart_of(&self, record: &ChartRecord) -> Arc<Chart> {
        let mut options = ChartOptions::empty();
        options.set(ChartOptions::HIDDEN, record.hidden);
        let meta = ChartMeta {
            name: record.name.as_str().into(),
            title: record.title.as_str().into(),
            units: record.units.as_str().into(),
            family: record.family.as_str().into(),
            context: record.context.as_str().into(),
            plugin: record.plugin.as_str().into(),
            module: record.module.as_str().into(),
            chart_type: chart_type_of(record.chart_type),
            options,
            priority: record.priority,
            update_every: record.update_every,
        };
        let dims = self.readable_dimensions(record);
        Arc::new(Chart::archived(
            record.id.as_str().into(),
            self.link(),
            meta,
            labels_of(&record.labels),
            dims,
        ))
    }
}

impl Chart {
    /// The metadata database may know dimensions that are not here.
    pub fn has_older_dimensions(&self) -> bool {
        self.older_dims.load(Ordering::Acquire)
    }

    pub(super) fn set_older_dimensions(&self, older: bool) {
        self.older_dims.store(older, Ordering::Release);
    }
}

// --- values to records and back -------------------------------------------------------------------

pub(super) fn record_of_host(host: &Host) -> HostRecord {
    let (info, settings) = (host.info(), host.settings());
    HostRecord {
        guid: host.guid(),
        hostname: info.hostname.clone(),
        registry_hostname: info.registry_hostname.clone(),
        update_every: info.update_every,
        os: info.os.clone(),
        timezone: info.timezone.clone(),
        abbrev_timezone: info.abbrev_timezone.clone(),
        utc_offset: info.utc_offset,
        tags: info.tags.clone(),
        hops: info.hops,
        mode: settings.mode,
        history: settings.history,
        program_name: info.program_name.clone(),
        program_version: info.program_version.clone(),
        health_enabled: settings.health_enabled,
        ephemeral: host.is_ephemeral(),
        claim_id: info.claim_id.clone(),
        node_id: info.node_id.clone(),
        last_connected: UnixSeconds(host.connected_at().0.max(host.disconnected_at().0)),
        system: info.system.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        labels: records_of(&host.labels()),
    }
}

/// A host as it was remembered.
pub(super) fn host_of(record: HostRecord, engine: Arc<dyn StorageEngine>) -> Arc<Host> {
    let settings = HostSettings {
        mode: record.mode,
        history: record.history,
        ephemeral: record.ephemeral,
        ..HostSettings::default()
    };
    let labels = labels_of(&record.labels);
    let info = HostInfo {
        hostname: record.hostname,
        registry_hostname: record.registry_hostname,
        os: record.os,
        timezone: record.timezone,
        abbrev_timezone: record.abbrev_timezone,
        utc_offset: record.utc_offset,
        tags: record.tags,
        program_name: record.program_name,
        program_version: record.program_version,
        update_every: record.update_every,
        // Whoever is not here was somebody's local host at the nearest one hop away.
        hops: record.hops.max(1),
        system: record.system.into_iter().collect(),
        claim_id: record.claim_id,
        node_id: record.node_id,
        ..HostInfo::default()
    };
    let host = Host::archived(record.guid, info, engine, settings);
    host.set_labels(labels);
    host.set_connected(false, record.last_connected);
    host
}

pub(super) fn record_of_chart(chart: &Chart, state: &ChartState) -> ChartRecord {
    let meta = &state.meta;
    ChartRecord {
        id: chart.id().to_string(),
        name: meta.name.to_string(),
        family: meta.family.to_string(),
        context: meta.context.to_string(),
        title: meta.title.to_string(),
        units: meta.units.to_string(),
        plugin: meta.plugin.to_string(),
        module: meta.module.to_string(),
        priority: meta.priority,
        update_every: meta.update_every,
        chart_type: meta.chart_type as u8,
        hidden: meta.options.contains(ChartOptions::HIDDEN),
        labels: records_of(&state.labels),
        dimensions: state.dims.iter().map(record_of_dimension).collect(),
    }
}

fn record_of_dimension(dim: &Dimension) -> DimensionRecord {
    DimensionRecord {
        id: dim.id.to_string(),
        name: dim.name.to_string(),
        multiplier: dim.multiplier,
        divisor: dim.divisor,
        algorithm: dim.algorithm as u8,
        hidden: dim.is_hidden(),
    }
}

fn spec_of(dim: &DimensionRecord) -> DimensionSpec<'_> {
    let mut options = DimensionOptions::empty();
    options.set(DimensionOptions::HIDDEN, dim.hidden);
    let algorithm = match dim.algorithm {
        1 => Algorithm::Incremental,
        2 => Algorithm::PercentageOfIncrementalRow,
        3 => Algorithm::PercentageOfAbsoluteRow,
        _ => Algorithm::Absolute,
    };
    DimensionSpec {
        id: &dim.id,
        name: &dim.name,
        algorithm,
        multiplier: dim.multiplier,
        divisor: dim.divisor,
        options,
    }
}

fn chart_type_of(number: u8) -> ChartType {
    match number {
        1 => ChartType::Area,
        2 => ChartType::Stacked,
        3 => ChartType::Heatmap,
        _ => ChartType::Line,
    }
}

fn records_of(labels: &Labels) -> Vec<LabelRecord> {
    let record = |label: &Label| LabelRecord {
        name: label.name.to_string(),
        value: label.value.to_string(),
        source: label.source.0,
    };
    labels.iter().map(record).collect()
}

fn labels_of(records: &[LabelRecord]) -> Labels {
    let mut labels = Labels::new();
    for record in records {
        labels.set(&record.name, &record.value, LabelSource(record.source));
    }
    labels
}
