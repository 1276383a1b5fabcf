//! One host's row of the table `Streaming`.

use std::sync::Arc;

use crate::base::VERSION;
use crate::base::json::JsonWriter;
use crate::metrics::{Host, HostInfo, HostKind};
use crate::stream::uplink::Content;
use crate::stream::{SenderState, SenderStatus, Streams};
use crate::web::api::v2::handshake;
use crate::web::api::v2::standing::{Standing, address, compresses, split};
use crate::wire::caps::Capabilities;

/// What stands in one place of the table.
pub enum Cell {
    Nothing,
    Text(String),
    Word(&'static str),
    Words(Vec<&'static str>),
    Texts(Vec<String>),
    Integer(i64),
    Number(f64),
    /// How serious a row is.
    Severity(&'static str),
}

impl Cell {
    pub fn write(&self, j: &mut JsonWriter) {
        match self {
            Cell::Nothing => j.null(),
            Cell::Texts(texts) => j.array(|j| {
                for text in texts {
                    j.string(text);
                }
            }),
            Cell::Text(text) => j.string(text),
            Cell::Word(word) => j.string(word),
            Cell::Words(words) => j.array(|j| {
                for word in words {
                    j.string(word);
                }
            }),
            Cell::Integer(number) => j.integer(*number),
            Cell::Number(number) => j.number(*number),
            Cell::Severity(word) => j.object(|j| {
                j.key("severity").string(word);
            }),
        };
    }

    /// For the largest of a column.
    #[expect(clippy::cast_precision_loss, reason = "a bar's length")]
    pub fn size(&self) -> f64 {
        match self {
            Cell::Integer(number) => *number as f64,
            Cell::Number(number) => *number,
            _ => 0.0,
        }
    }
}

fn sent(sender: &SenderStatus, content: Content) -> Cell {
    Cell::Integer(i64::try_from(sender.sent_of[content as usize]).unwrap_or(i64::MAX))
}

fn count(n: usize) -> Cell {
    Cell::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn port(text: &str) -> Cell {
    text.parse().map_or(Cell::Nothing, Cell::Integer)
}

fn encryption(tls: bool) -> Cell {
    Cell::Word(if tls { "SSL" } else { "PLAIN" })
}

fn compression(agreed: Capabilities) -> Cell {
    Cell::Word(if compresses(agreed) { "COMPRESSED" } else { "UNCOMPRESSED" })
}

fn names(agreed: Capabilities) -> Cell {
    Cell::Words(agreed.names().collect())
}

/// Seconds since 1970 as milliseconds; nothing for never.
fn time(seconds: i64) -> Cell {
    if seconds > 0 { Cell::Integer(seconds.saturating_mul(1000)) } else { Cell::Nothing }
}

/// The agents that a host's samples pass. Old ones do not say that they do; where samples are born is known anyway.
fn path(host: &Host, streams: &Streams) -> Vec<String> {
    let entries = streams.path(host);
    let origin = entries.iter().all(|entry| entry.hops > 0).then(|| host.hostname());
    origin.into_iter().chain(entries.into_iter().map(|entry| entry.hostname)).collect()
}

/// What is known of a host at one moment.
pub struct Row {
    host: Arc<Host>,
    info: Arc<HostInfo>,
    standing: Standing,
    now: i64,
    /// Names of the agents that its samples pass.
    path: Vec<String>,
    /// Bytes that wait for its parent.
    queued: Option<usize>,
}

/// (column, fact)
const FACTS: &[(&str, &str)] = &[
    ("OSName", "NETDATA_HOST_OS_NAME"),
    ("OSId", "NETDATA_HOST_OS_ID"),
    ("OSIdLike", "NETDATA_HOST_OS_ID_LIKE"),
    ("OSVersion", "NETDATA_HOST_OS_VERSION"),
    ("OSVersionId", "NETDATA_HOST_OS_VERSION_ID"),
    ("OSDetection", "NETDATA_HOST_OS_DETECTION"),
    ("CPUCores", "NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT"),
    ("DiskSpace", "NETDATA_SYSTEM_TOTAL_DISK_SIZE"),
    ("CPUFreq", "NETDATA_SYSTEM_CPU_FREQ"),
    ("RAMTotal", "NETDATA_SYSTEM_TOTAL_RAM"),
    ("ContainerOSName", "NETDATA_CONTAINER_OS_NAME"),
    ("ContainerOSId", "NETDATA_CONTAINER_OS_ID"),
    ("ContainerOSIdLike", "NETDATA_CONTAINER_OS_ID_LIKE"),
    ("ContainerOSVersion", "NETDATA_CONTAINER_OS_VERSION"),
    ("ContainerOSVersionId", "NETDATA_CONTAINER_OS_VERSION_ID"),
    ("ContainerOSDetection", "NETDATA_CONTAINER_OS_DETECTION"),
    ("IsK8sNode", "NETDATA_HOST_IS_K8S_NODE"),
    ("KernelName", "NETDATA_SYSTEM_KERNEL_NAME"),
    ("KernelVersion", "NETDATA_SYSTEM_KERNEL_VERSION"),
    ("Architecture", "NETDATA_SYSTEM_ARCHITECTURE"),
    ("Virtualization", "NETDATA_SYSTEM_VIRTUALIZATION"),
    ("VirtDetection", "NETDATA_SYSTEM_VIRT_DETECTION"),
    ("Container", "NETDATA_SYSTEM_CONTAINER"),
    ("ContainerDetection", "NETDATA_SYSTEM_CONTAINER_DETECTION"),
    ("CloudProviderType", "NETDATA_INSTANCE_CLOUD_TYPE"),
    ("CloudInstanceType", "NETDATA_INSTANCE_CLOUD_INSTANCE_TYPE"),
    ("CloudInstanceRegion", "NETDATA_INSTANCE_CLOUD_INSTANCE_REGION"),
];

impl Row {
    pub fn of(host: &Arc<Host>, streams: &Streams, now: i64, started: i64) -> Row {
        Row {
            host: Arc::clone(host),
            info: host.info(),
            standing: Standing::of(host, Some(streams), started),
            now,
            path: path(host, streams),
            queued: streams.sender(host.guid()).map(|sender| sender.queued().0),
        }
    }

    pub fn cell(&self, column: &str) -> Cell {
        if let Some((_, fact)) = FACTS.iter().find(|(name, _)| *name == column) {
            let known = self.info.system.get(*fact).filter(|text| !text.is_empty());
            return known.map_or(Cell::Nothing, |text| Cell::Text(text.clone()));
        }
        if let Some(rest) = column.strip_prefix("Out") {
            return self.out(rest);
        }
        if let Some(rest) = column.strip_prefix("In") {
            return self.incoming(rest);
        }
        let held = &self.standing.held;
        let local = self.host.kind() == HostKind::Local;
        match column {
            "Node" => Cell::Text(self.info.hostname.clone()),
            "rowOptions" => Cell::Severity(self.severity()),
            "Ephemerality" if self.host.is_ephemeral() => Cell::Word("ephemeral"),
            "Ephemerality" => Cell::Word("permanent"),
            "AgentName" => Cell::Text(self.info.program_name.clone()),
            "AgentVersion" if local => Cell::Word(VERSION),
            "AgentVersion" => Cell::Text(self.info.program_version.clone()),
            "dbFrom" => time(held.first),
            "dbTo" => time(held.last),
            "dbDuration" if held.first > 0 => Cell::Integer(held.last - held.first),
            "dbMetrics" => count(held.all.metrics),
            "dbInstances" => count(held.all.instances),
            "dbContexts" => count(held.all.contexts),
            "Path" => Cell::Texts(self.path.clone()),
            "MlStatus" => Cell::Word("disabled"),
            "CollectedMetrics" => count(held.collected.metrics),
            "CollectedInstances" => count(held.collected.instances),
            "CollectedContexts" => count(held.collected.contexts),
            _ => Cell::Nothing,
        }
    }

    fn severity(&self) -> &'static str {
        let lost = matches!(self.standing.ingest.status, "offline" | "archived");
        let stuck = self.standing.egress.as_ref().is_some_and(|out| out.status == "offline");
        match () {
            () if self.host.is_ephemeral() => "normal",
            () if lost => "critical",
            () if stuck => "warning",
            () => "normal",
        }
    }

    fn incoming(&self, column: &str) -> Cell {
        let ingest = &self.standing.ingest;
        match column {
            "Status" => return Cell::Word(ingest.status),
            "Connections" => {
                return Cell::Integer(i64::try_from(ingest.connections).unwrap_or(i64::MAX));
            }
            "Since" => return time(ingest.since),
            "Age" if ingest.since > 0 => return Cell::Integer((self.now - ingest.since).max(0)),
            "Reason" => {
                return Cell::Word(match ingest.kind {
                    "localhost" => "LOCALHOST",
                    "virtual" => "VIRTUAL NODE",
                    _ => ingest.reason.unwrap_or("CONNECTED"),
                });
            }
            "Hops" => return Cell::Integer(ingest.hops),
            "ReplCompletion" => return Cell::Number(ingest.filling.percent()),
            "ReplInstances" => return count(self.standing.arriving()),
            "Lag" if self.standing.held.last > 0 && ingest.status != "archived" => {
                return Cell::Integer((self.now - self.standing.held.last).max(0));
            }
            _ => {}
        }
        let Some(child) = &ingest.child else { return Cell::Nothing };
        let (ip, own_port) = split(&child.local);
        match column {
            "LocalIP" => Cell::Text(ip.to_owned()),
            "LocalPort" => port(own_port),
            "RemoteIP" => Cell::Text(address(&child.peer)),
            "RemotePort" => port(&child.peer.port),
            "SSL" => encryption(child.tls),
            "ReplEta" => ingest.filling.eta_s.map_or(Cell::Nothing, Cell::Integer),
            "ReplMissing" => Cell::Integer(ingest.filling.missing_s),
            "Compression" => compression(child.agreed),
            "Capabilities" => names(child.agreed),
            _ => Cell::Nothing,
        }
    }

    fn out(&self, column: &str) -> Cell {
        let Some(egress) = &self.standing.egress else { return Cell::Nothing };
        let sender = &egress.sender;
        let online = sender.state == SenderState::Online;
        let current = |destination: &str| online && sender.destination == destination;
        let last = sender.parents.iter().max_by_key(|parent| parent.last_attempt);
        let tried = last.map_or(0, |parent| parent.last_attempt);
        match column {
            "Status" => Cell::Word(egress.status),
            "Connections" => Cell::Integer(i64::try_from(sender.connections).unwrap_or(i64::MAX)),
            "Since" => time(sender.since),
            "Age" if sender.since > 0 => Cell::Integer((self.now - sender.since).max(0)),
            "Reason" if online => Cell::Word("CONNECTED"),
            "Reason" => Cell::Word(sender.reason.unwrap_or("CONNECTING")),
            "Hops" => Cell::Integer(self.info.hops.saturating_add(1)),
            "AttemptHandshake" => {
                let words = sender.parents.iter();
                let words = words.map(|p| handshake(p, current(&p.destination.text)));
                Cell::Words(words.collect())
            }
            "AttemptSince" => time(tried),
            "AttemptAge" if tried > 0 => Cell::Integer((self.now - tried).max(0)),
            "ReplCompletion" if online => Cell::Number(self.standing.sent()),
            "ReplInstances" if online => count(self.standing.held.leaving),
            "TrafficData" => sent(sender, Content::Data),
            "TrafficMetadata" => sent(sender, Content::Metadata),
            "TrafficReplication" => sent(sender, Content::Replication),
            "TrafficFunctions" => sent(sender, Content::Functions),
            _ if !online => Cell::Nothing,
            "LocalIP" => Cell::Text(split(&sender.local).0.to_owned()),
            "LocalPort" => port(split(&sender.local).1),
            "RemoteIP" => Cell::Text(split(&sender.remote).0.to_owned()),
            "RemotePort" => port(split(&sender.remote).1),
            "SSL" => {
                let used = sender.parents.iter().find(|p| current(&p.destination.text));
                encryption(used.is_some_and(|parent| parent.destination.tls))
            }
            "Compression" => compression(sender.agreed),
            "Queued" => self.queued.map_or(Cell::Nothing, count),
            "Capabilities" => names(sender.agreed),
            _ => Cell::Nothing,
        }
    }
}
