//! How a host stands: what is stored of it, how its samples come in, and where they go on to.
//!
//! Read by `node_instances`, `stream_info` and the Function `Streaming`. Every chart's lock is taken once, for a few
//! instructions; nothing is kept.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::base::time::UnixSeconds;
use crate::metrics::{Chart, Host, HostKind};
use crate::net::Peer;
use crate::stream::status::Filling;
use crate::stream::{Child, SenderState, SenderStatus, Streams};
use crate::wire::caps::Capabilities;

/// So many archived charts tell what is stored of a host; to ask all would keep its child waiting.
const ARCHIVED_ASKED: usize = 200;

/// Metrics, charts and contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub metrics: usize,
    pub instances: usize,
    pub contexts: usize,
}

/// What is stored of a host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// First and last second; zeros without samples.
    pub first: i64,
    pub last: i64,
    pub all: Counts,
    /// Of these, what is collected now.
    pub collected: Counts,
    /// Charts whose past the parent has not got yet.
    pub leaving: usize,
}

/// How the samples of a host come in.
pub struct Ingest {
    pub kind: &'static str,
    pub status: &'static str,
    /// Why there is no connection.
    pub reason: Option<&'static str>,
    pub since: i64,
    pub hops: i64,
    pub child: Option<Arc<Child>>,
    /// How far the past has come that the connection brings.
    pub filling: Filling,
    /// Connections in this run.
    pub connections: u64,
}

/// Where the samples of a host go on to.
pub struct Egress {
    pub status: &'static str,
    pub sender: SenderStatus,
}

pub struct Standing {
    pub held: Held,
    pub ingest: Ingest,
    pub egress: Option<Egress>,
}

impl Held {
    pub fn of(host: &Host) -> Held {
        let mut held = Held::default();
        let mut contexts = [FxHashSet::default(), FxHashSet::default()];
        let live = host.is_connected();
        let mut add = |chart: &Arc<Chart>| {
            let state = chart.lock();
            let collected = live && !state.is_obsolete() && state.counter_done > 0;
            held.all.metrics += state.dims.len();
            held.all.instances += 1;
            contexts[0].insert(Arc::clone(&state.meta.context));
            if collected {
                held.collected.metrics += state.dims.len();
                held.collected.instances += 1;
                contexts[1].insert(Arc::clone(&state.meta.context));
            }
            held.leaving +=
                usize::from(state.upstream.wanted == Some(true) && !state.upstream.streaming);
            if let Some((first, last)) = state.retention() {
                held.first = if held.first == 0 { first.0 } else { held.first.min(first.0) };
                held.last = held.last.max(last.0);
            }
        };
        each_chart(host, &mut add);
        [held.all.contexts, held.collected.contexts] = contexts.map(|set| set.len());
        held
    }
}

/// All live charts, and some of those of which only the past is known.
fn each_chart(host: &Host, add: &mut dyn FnMut(&Arc<Chart>)) {
    host.charts().iter().for_each(&mut *add);
    if host.is_archived() {
        let mut left = ARCHIVED_ASKED;
        let mut next = || {
            left = left.saturating_sub(1);
            left > 0
        };
        host.archived_charts(&mut |_| next(), add);
    }
}

/// First and last second of all that is stored of a host.
pub fn retention(host: &Host) -> Option<(UnixSeconds, UnixSeconds)> {
    let mut all: Option<(UnixSeconds, UnixSeconds)> = None;
    each_chart(host, &mut |chart| {
        let held = chart.lock().retention();
        if let Some((first, last)) = held {
            all = Some(all.map_or((first, last), |all| (all.0.min(first), all.1.max(last))));
        }
    });
    all
}

impl Ingest {
    /// `started` is when this agent was: its own host and its nodes are collected since then.
    pub fn of(host: &Host, streams: Option<&Streams>, started: i64) -> Ingest {
        let connected = host.is_connected();
        let online = if connected { "online" } else { "offline" };
        let hops = host.info().hops;
        let own = |kind, status| Ingest {
            kind,
            status,
            reason: None,
            since: started,
            hops,
            child: None,
            filling: Filling::default(),
            connections: 0,
        };
        match host.kind() {
            HostKind::Local => own("localhost", "online"),
            HostKind::Virtual => own("virtual", online),
            HostKind::Child if host.is_archived() => Ingest {
                reason: Some("NEVER CONNECTED"),
                since: host.disconnected_at().0,
                ..own("archived", "archived")
            },
            HostKind::Child => {
                let at = if connected { host.connected_at() } else { host.disconnected_at() };
                Ingest {
                    reason: (!connected).then_some("DISCONNECTED SOCKET CLOSED BY REMOTE END"),
                    since: at.0,
                    child: streams.and_then(|streams| streams.child(host.guid())),
                    ..own("child", online)
                }
            }
        }
    }
}

impl Standing {
    pub fn of(host: &Host, streams: Option<&Streams>, started: i64) -> Standing {
        let held = Held::of(host);
        let mut ingest = Ingest::of(host, streams, started);
        if let (Some(child), Some(streams)) = (&ingest.child, streams) {
            let connection = child.status(streams.clock().now_seconds().0);
            ingest.status = connection.state.name();
            ingest.filling = connection.filling;
            ingest.connections = connection.reconnects.saturating_add(1);
        }
        let sender = streams.and_then(|streams| streams.sender(host.guid()));
        let egress = sender.map(|sender| {
            let sender = sender.status();
            let status = match sender.state {
                SenderState::Online if held.leaving > 0 => "replicating",
                SenderState::Online => "online",
                SenderState::Connecting | SenderState::Stopped => "offline",
            };
            Egress { status, sender }
        });
        Standing { held, ingest, egress }
    }

    /// Charts whose past is still arriving.
    pub fn arriving(&self) -> usize {
        self.ingest.filling.starting + self.ingest.filling.filling
    }

    /// The share of charts whose past the parent has, in percent.
    pub fn sent(&self) -> f64 {
        percent_done(self.held.leaving, self.held.all.instances)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of charts")]
fn percent_done(left: usize, all: usize) -> f64 {
    if left == 0 || all == 0 {
        return 100.0;
    }
    (all.saturating_sub(left) * 100) as f64 / all as f64
}

/// `ip:port` as the API shows an end of a connection: `[ip]:port`.
pub fn bracketed(address: &str) -> String {
    match split(address) {
        (ip, port) if !ip.is_empty() => format!("[{ip}]:{port}"),
        _ => "[not connected]:0".to_owned(),
    }
}

/// The address and the port of `ip:port`, `[ip]:port` or a unix socket's name.
pub fn split(address: &str) -> (&str, &str) {
    let (ip, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (ip.trim_start_matches('[').trim_end_matches(']'), port)
}

/// The other end of a child's connection.
pub fn remote(peer: &Peer) -> String {
    format!("[{}]:{}", address(peer), peer.port)
}

/// The address of the other end as it is, `localhost` for a unix socket's.
pub fn address(peer: &Peer) -> String {
    peer.address.map_or_else(|| peer.ip.clone(), |address| address.to_string())
}

pub fn compresses(agreed: Capabilities) -> bool {
    agreed.intersects(Capabilities::COMPRESSIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_shown_in_brackets() {
        assert_eq!(bracketed("127.0.0.1:19999"), "[127.0.0.1]:19999");
        assert_eq!(bracketed("[::1]:5"), "[::1]:5");
        assert_eq!(bracketed(""), "[not connected]:0");
    }

    #[test]
    fn a_host_without_charts_on_the_way_has_everything() {
        assert_eq!((percent_done(0, 0), percent_done(1, 4)), (100.0, 75.0));
    }
}
