//! What is remembered of hosts, charts and dimensions beside their samples: plain values, as the metadata database and the
//! dbengine's catalog keep them.

use super::{MetricKey, Mode};
use crate::base::ids::MachineGuid;
use crate::base::time::{UnixSeconds, UpdateEvery};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord {
    pub guid: MachineGuid,
    pub hostname: String,
    pub registry_hostname: String,
    pub update_every: i64,
    pub os: String,
    pub timezone: String,
    pub abbrev_timezone: String,
    pub utc_offset: i64,
    pub tags: String,
    pub hops: i64,
    pub mode: Mode,
    /// Entries of its rings, before rounding.
    pub history: i64,
    pub program_name: String,
    pub program_version: String,
    pub health_enabled: bool,
    pub ephemeral: bool,
    pub claim_id: Option<String>,
    pub node_id: Option<String>,
    /// When it was seen last; 0 = not known.
    pub last_connected: UnixSeconds,
    /// `NETDATA_…` facts.
    pub system: Vec<(String, String)>,
    pub labels: Vec<LabelRecord>,
}

impl HostRecord {
    /// Of a host that only the catalog knows.
    pub fn named(guid: MachineGuid, hostname: &str) -> HostRecord {
        HostRecord {
            guid,
            hostname: hostname.to_owned(),
            registry_hostname: hostname.to_owned(),
            update_every: 1,
            os: String::new(),
            timezone: String::new(),
            abbrev_timezone: String::new(),
            utc_offset: 0,
            tags: String::new(),
            hops: 1,
            mode: Mode::Dbengine,
            history: 0,
            program_name: String::new(),
            program_version: String::new(),
            health_enabled: false,
            ephemeral: false,
            claim_id: None,
            node_id: None,
            last_connected: UnixSeconds(0),
            system: Vec::new(),
            labels: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRecord {
    pub name: String,
    pub value: String,
    /// The bits of [`crate::wire`]'s label sources.
    pub source: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartRecord {
    /// `type.id`
    pub id: String,
    /// `type.name`
    pub name: String,
    pub family: String,
    pub context: String,
    pub title: String,
    pub units: String,
    pub plugin: String,
    pub module: String,
    pub priority: i64,
    pub update_every: UpdateEvery,
    /// line 0, area 1, stacked 2, heatmap 3
    pub chart_type: u8,
    pub hidden: bool,
    pub labels: Vec<LabelRecord>,
    pub dimensions: Vec<DimensionRecord>,
}

impl ChartRecord {
    /// Of a chart of which nothing but metrics is known.
    pub fn bare(id: &str) -> ChartRecord {
        let kind = id.split('.').next().unwrap_or(id);
        ChartRecord {
            id: id.to_owned(),
            name: id.to_owned(),
            family: kind.to_owned(),
            context: id.to_owned(),
            title: String::new(),
            units: String::new(),
            plugin: String::new(),
            module: String::new(),
            priority: 1000,
            update_every: UpdateEvery::SECOND,
            chart_type: 0,
            hidden: false,
            labels: Vec::new(),
            dimensions: Vec::new(),
        }
    }

    pub fn key(&self, host: MachineGuid, dimension: &DimensionRecord) -> MetricKey {
        MetricKey { host, chart: self.id.as_str().into(), dimension: dimension.id.as_str().into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimensionRecord {
    pub id: String,
    pub name: String,
    pub multiplier: i64,
    pub divisor: i64,
    /// absolute 0, incremental 1, percentage-of-incremental-row 2, percentage-of-absolute-row 3
    pub algorithm: u8,
    pub hidden: bool,
}

impl DimensionRecord {
    pub fn bare(id: &str) -> DimensionRecord {
        DimensionRecord {
            id: id.to_owned(),
            name: id.to_owned(),
            multiplier: 1,
            divisor: 1,
            algorithm: 0,
            hidden: false,
        }
    }
}
