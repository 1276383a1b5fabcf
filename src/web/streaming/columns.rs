//! The columns of the table `Streaming`: their order is that of release 2.9, and each says how to show, sort and filter it.

use super::row::Cell;
use crate::base::json::JsonWriter;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// One of a few words.
    State,
    Words,
    /// With its unit, which may be none.
    Number(&'static str),
    Percent,
    /// Seconds.
    Duration,
    /// Milliseconds since 1970.
    Time,
    /// How the whole row is to look.
    RowOptions,
}

/// Whether a column is there from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    First,
    OnDemand,
}

pub struct Column {
    pub name: &'static str,
    pub title: &'static str,
    kind: Kind,
    show: Show,
}

const fn column(name: &'static str, title: &'static str, kind: Kind, show: Show) -> Column {
    Column { name, title, kind, show }
}

#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    column("Node", "Node", Kind::Text, Show::First),
    column("rowOptions", "rowOptions", Kind::RowOptions, Show::OnDemand),
    column("Ephemerality", "Ephemerality", Kind::State, Show::First),
    column("AgentName", "Agent", Kind::Text, Show::OnDemand),
    column("AgentVersion", "Agent Version", Kind::Text, Show::First),
    column("OSName", "OS Name", Kind::Text, Show::OnDemand),
    column("OSId", "OS Id", Kind::Text, Show::OnDemand),
    column("OSIdLike", "OS Id Like", Kind::Text, Show::OnDemand),
    column("OSVersion", "OS Version", Kind::Text, Show::OnDemand),
    column("OSVersionId", "OS Version Id", Kind::Text, Show::OnDemand),
    column("OSDetection", "OS Detection", Kind::Text, Show::OnDemand),
    column("CPUCores", "CPU Cores", Kind::Text, Show::OnDemand),
    column("DiskSpace", "Disk Space", Kind::Text, Show::OnDemand),
    column("CPUFreq", "CPU Frequency", Kind::Text, Show::OnDemand),
    column("RAMTotal", "Memory", Kind::Text, Show::OnDemand),
    column("ContainerOSName", "Container OS Name", Kind::Text, Show::OnDemand),
    column("ContainerOSId", "Container OS Id", Kind::Text, Show::OnDemand),
    column("ContainerOSIdLike", "Container OS Id Like", Kind::Text, Show::OnDemand),
    column("ContainerOSVersion", "Container OS Version", Kind::Text, Show::OnDemand),
    column("ContainerOSVersionId", "Container OS Version Id", Kind::Text, Show::OnDemand),
    column("ContainerOSDetection", "Container OS Detection", Kind::Text, Show::OnDemand),
    column("IsK8sNode", "Kubernetes Node", Kind::Text, Show::OnDemand),
    column("KernelName", "Kernel Name", Kind::Text, Show::OnDemand),
    column("KernelVersion", "Kernel Version", Kind::Text, Show::OnDemand),
    column("Architecture", "Architecture", Kind::Text, Show::OnDemand),
    column("Virtualization", "Virtualization", Kind::Text, Show::OnDemand),
    column("VirtDetection", "Virt Detection", Kind::Text, Show::OnDemand),
    column("Container", "Container", Kind::Text, Show::OnDemand),
    column("ContainerDetection", "Container Detection", Kind::Text, Show::OnDemand),
    column("CloudProviderType", "Cloud Provider Type", Kind::Text, Show::OnDemand),
    column("CloudInstanceType", "Cloud Instance Type", Kind::Text, Show::OnDemand),
    column("CloudInstanceRegion", "Cloud Instance Region", Kind::Text, Show::OnDemand),
    column("dbFrom", "Kept From", Kind::Time, Show::OnDemand),
    column("dbTo", "Kept Until", Kind::Time, Show::OnDemand),
    column("dbDuration", "Kept For", Kind::Duration, Show::First),
    column("dbMetrics", "Metrics Kept", Kind::Number("metrics"), Show::OnDemand),
    column("dbInstances", "Charts Kept", Kind::Number("instances"), Show::OnDemand),
    column("dbContexts", "Contexts Kept", Kind::Number("contexts"), Show::OnDemand),
    column("InStatus", "In Status", Kind::State, Show::First),
    column("OutStatus", "Out Status", Kind::State, Show::First),
    column("MlStatus", "Ml Status", Kind::State, Show::OnDemand),
    column("InConnections", "In Connections", Kind::Number("connections"), Show::OnDemand),
    column("InSince", "In Since", Kind::Time, Show::OnDemand),
    column("InAge", "In Age", Kind::Duration, Show::First),
    column("InReason", "In Reason", Kind::Text, Show::First),
    column("InHops", "In Hops", Kind::Number(""), Show::First),
    column("InReplCompletion", "In Replication Completion", Kind::Percent, Show::First),
    column("InReplInstances", "In Replication Instances", Kind::Number("instances"), Show::OnDemand),
    column("InLocalIP", "In Local IP", Kind::Text, Show::OnDemand),
    column("InLocalPort", "In Local Port", Kind::Number(""), Show::OnDemand),
    column("InRemoteIP", "In Remote IP", Kind::Text, Show::First),
    column("InRemotePort", "In Remote Port", Kind::Number(""), Show::OnDemand),
    column("InSSL", "In SSL", Kind::Text, Show::First),
    column("InCapabilities", "In Capabilities", Kind::Words, Show::OnDemand),
    column("CollectedMetrics", "Collected Metrics", Kind::Number("metrics"), Show::OnDemand),
    column("CollectedInstances", "Collected Instances", Kind::Number("instances"), Show::OnDemand),
    column("CollectedContexts", "Collected Contexts", Kind::Number("contexts"), Show::OnDemand),
    column("OutConnections", "Out Connections", Kind::Number("connections"), Show::OnDemand),
    column("OutSince", "Out Since", Kind::Time, Show::OnDemand),
    column("OutAge", "Out Age", Kind::Duration, Show::First),
    column("OutReason", "Out Reason", Kind::Text, Show::First),
    column("OutHops", "Out Hops", Kind::Number(""), Show::OnDemand),
    column("OutReplCompletion", "Out Replication Completion", Kind::Percent, Show::First),
    column("OutReplInstances", "Out Replication Instances", Kind::Number("instances"), Show::OnDemand),
    column("OutLocalIP", "Out Local IP", Kind::Text, Show::OnDemand),
    column("OutLocalPort", "Out Local Port", Kind::Number(""), Show::OnDemand),
    column("OutRemoteIP", "Out Remote IP", Kind::Text, Show::First),
    column("OutRemotePort", "Out Remote Port", Kind::Number(""), Show::OnDemand),
    column("OutSSL", "Out SSL", Kind::Text, Show::First),
    column("OutCompression", "Out Compression", Kind::Text, Show::First),
    column("OutCapabilities", "Out Capabilities", Kind::Words, Show::OnDemand),
    column("OutTrafficData", "Out Traffic Data", Kind::Number("bytes"), Show::OnDemand),
    column("OutTrafficMetadata", "Out Traffic Metadata", Kind::Number("bytes"), Show::OnDemand),
    column("OutTrafficReplication", "Out Traffic Replication", Kind::Number("bytes"), Show::OnDemand),
    column("OutTrafficFunctions", "Out Traffic Functions", Kind::Number("bytes"), Show::OnDemand),
    column("OutAttemptHandshake", "Out Attempt Handshake", Kind::Words, Show::OnDemand),
    column("OutAttemptSince", "Out Attempt Since", Kind::Time, Show::OnDemand),
    column("OutAttemptAge", "Out Attempt Age", Kind::Duration, Show::OnDemand),
    column("MlAnomalous", "Ml Anomalous", Kind::Number("metrics"), Show::OnDemand),
    column("MlNormal", "Ml Normal", Kind::Number("metrics"), Show::OnDemand),
    column("MlTrained", "Ml Trained", Kind::Number("metrics"), Show::OnDemand),
    column("MlPending", "Ml Pending", Kind::Number("metrics"), Show::OnDemand),
    column("MlSilenced", "Ml Silenced", Kind::Number("metrics"), Show::OnDemand),
];

/// What we know beyond release 2.9, behind its columns where somebody asks for it: dashboards go by these names, but others
/// may go by the places.
#[rustfmt::skip]
pub const DETAILS: &[Column] = &[
    column("InLag", "In Lag", Kind::Duration, Show::First),
    column("InReplEta", "In Replication Time Left", Kind::Duration, Show::First),
    column("InReplMissing", "In Replication Seconds Missing", Kind::Number("seconds"), Show::OnDemand),
    column("InCompression", "In Compression", Kind::Text, Show::First),
    column("OutQueued", "Out Bytes Queued", Kind::Number("bytes"), Show::First),
    column("Path", "Path", Kind::Words, Show::First),
];

/// The largest number of each column, for bars.
#[derive(Default)]
pub struct Largest(Vec<f64>);

impl Largest {
    pub fn see(&mut self, index: usize, cell: &Cell) {
        if self.0.len() <= index {
            self.0.resize(index + 1, 0.0);
        }
        self.0[index] = self.0[index].max(cell.size());
    }

    fn of(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or(0.0)
    }
}

impl Column {
    /// Rows may be grouped by it.
    pub fn groups(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::State)
    }

    pub fn write(&self, j: &mut JsonWriter, index: usize, largest: &Largest) {
        let is_key = index == 0;
        let is_look = self.kind == Kind::RowOptions;
        let (kind, look, transform, unit) = match self.kind {
            Kind::Text => ("string", "value", "none", ""),
            Kind::State => ("string", "pill", "none", ""),
            Kind::Words => ("array", "pill", "none", ""),
            Kind::Number(unit) => ("integer", "value", "number", unit),
            Kind::Percent => ("bar-with-integer", "bar", "number", "%"),
            Kind::Duration => ("duration", "bar", "duration", "s"),
            Kind::Time => ("timestamp", "value", "datetime", ""),
            Kind::RowOptions => ("none", "rowOptions", "none", ""),
        };
        let counts = matches!(self.kind, Kind::Number(_));
        j.key(self.name).object(|j| {
            j.key("index").count(index);
            j.key("unique_key").bool(is_key);
            j.key("name").string(self.title);
            j.key("visible").bool(self.show == Show::First);
            j.key("type").string(kind);
            if !unit.is_empty() {
                j.key("units").string(unit);
            }
            j.key("visualization").string(look);
            j.key("value_options").object(|j| {
                if !unit.is_empty() {
                    j.key("units").string(unit);
                }
                j.key("transform").string(transform);
                j.key("decimal_points").integer(if self.kind == Kind::Percent { 2 } else { 0 });
                j.key("default_value").null();
            });
            match self.kind {
                Kind::Percent => {
                    j.key("max").integer(100);
                }
                Kind::Duration => {
                    j.key("max").number(largest.of(index));
                }
                _ => {}
            }
            j.key("sort").string(if counts { "descending" } else { "ascending" });
            j.key("sortable").bool(!is_look);
            j.key("sticky").bool(is_key);
            j.key("summary").string(match self.kind {
                Kind::Number(_) => "sum",
                Kind::Duration | Kind::Time => "max",
                Kind::Percent => "min",
                _ => "count",
            });
            j.key("filter").string(match self.kind {
                Kind::RowOptions => "none",
                Kind::Text | Kind::State | Kind::Words => "multiselect",
                _ => "range",
            });
            j.key("full_width").bool(is_key);
            j.key("wrap").bool(self.kind == Kind::Words);
            j.key("default_expanded_filter").bool(self.kind == Kind::State);
            if is_look {
                j.key("dummy").bool(true);
            }
        });
    }
}
