//! `node_instances`: how every host's samples come in, are kept and go on; `info`: this agent.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::envelope::{Node, Scope, Tail, status};
use super::nodes::{capabilities, path};
use super::standing::{Counts, Egress, Ingest, Standing, bracketed, compresses, remote};
use crate::base::VERSION;
use crate::base::json::JsonWriter;
use crate::base::time::UnixSeconds;
use crate::metrics::HostKind;
use crate::storage::Mode;
use crate::stream::SenderState;
use crate::stream::parents::{Failure, Parent};
use crate::stream::uplink::Content;
use crate::web::api::Call;
use crate::web::api::v1::alarms::write_health;
use crate::web::api::v1::functions::write_functions;
use crate::web::http::Response;
use crate::wire::caps::Capabilities;
use crate::wire::http::Rfc3339;

pub fn node_instances(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    let streams = call.agent.streaming.as_deref();
    let started = call.agent.started.0;
    let standings: Vec<Standing> =
        scope.nodes.iter().map(|node| Standing::of(&node.host, streams, started)).collect();
    scope.answer_with(
        Tail::Agents,
        |j| {
            j.key("nodes").array(|j| {
                for (node, standing) in scope.nodes.iter().zip(&standings) {
                    j.object(|j| {
                        scope.name(j, node);
                        j.key("instances").array(|j| {
                            j.object(|j| instance(j, &scope, node, standing));
                        });
                    });
                }
            });
        },
        |j| agent(j, &scope, &standings),
    )
}

pub fn info(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    let streams = call.agent.streaming.as_deref();
    let started = call.agent.started.0;
    let standings: Vec<Standing> =
        scope.nodes.iter().map(|node| Standing::of(&node.host, streams, started)).collect();
    scope.answer_with(Tail::Agents, |_| {}, |j| agent(j, &scope, &standings))
}

fn counts(j: &mut JsonWriter, counts: Counts) {
    j.key("metrics").count(counts.metrics);
    j.key("instances").count(counts.instances);
    j.key("contexts").count(counts.contexts);
}

fn instance(j: &mut JsonWriter, scope: &Scope<'_, '_>, node: &Node, standing: &Standing) {
    let host = &node.host;
    let (held, ingest) = (&standing.held, &standing.ingest);
    status(j);
    j.key("db").object(|j| {
        j.key("status").string("online");
        j.key("liveness").string(if host.is_connected() { "live" } else { "stale" });
        j.key("mode").string(host.settings().mode.name());
        j.key("first_time").integer(held.first);
        j.key("last_time").integer(held.last);
        counts(j, held.all);
    });
    j.key("ingest").object(|j| write_ingest(j, scope, standing, ingest));
    if let Some(egress) = &standing.egress {
        j.key("stream").object(|j| write_egress(j, scope, node, standing, egress));
    }
    j.key("ml").object(|j| {
        j.key("status").string("disabled");
        j.key("type").string("disabled");
    });
    write_health(j.key("health"), scope.call, host);
    write_functions(j.key("functions"), host);
    capabilities(j.key("capabilities"));
    j.key("dyncfg").object(|j| {
        j.key("status").string("unavailable");
    });
}

fn write_capabilities(j: &mut JsonWriter, agreed: Capabilities) {
    j.array(|j| {
        for name in agreed.names() {
            j.string(name);
        }
    });
}

fn write_ingest(j: &mut JsonWriter, scope: &Scope<'_, '_>, standing: &Standing, ingest: &Ingest) {
    let held = &standing.held;
    j.key("id").integer(i64::try_from(ingest.connections).unwrap_or(i64::MAX));
    j.key("hops").integer(ingest.hops);
    j.key("type").string(ingest.kind);
    j.key("status").string(ingest.status);
    j.key("since").integer(ingest.since);
    j.key("age").integer((scope.now() - ingest.since).max(0));
    counts(j, held.collected);
    if let Some(reason) = ingest.reason.filter(|_| ingest.kind == "child") {
        j.key("reason").string(reason);
    }
    if held.last > 0 && ingest.status != "archived" {
        // Ours alone: how old the newest sample is.
        j.key("lag").integer((scope.now() - held.last).max(0));
    }
    if matches!(ingest.status, "replicating" | "initializing") {
        j.key("replication").object(|j| {
            j.key("in_progress").bool(true);
            j.key("completion").number(ingest.filling.percent());
            j.key("instances").count(standing.arriving());
            // Ours alone: seconds until nothing is missing.
            match ingest.filling.eta_s {
                Some(eta) => j.key("eta").integer(eta),
                None => j.key("eta").null(),
            };
        });
    }
    if let Some(child) = &ingest.child {
        j.key("source").object(|j| {
            let tls = if child.tls { ":SSL" } else { "" };
            j.key("local").string(&format!("{}{tls}", bracketed(&child.local)));
            j.key("remote").string(&format!("{}{tls}", remote(&child.peer)));
            write_capabilities(j.key("capabilities"), child.agreed);
        });
    }
}

fn replication(j: &mut JsonWriter, completion: f64, instances: usize) {
    j.object(|j| {
        j.key("in_progress").bool(instances > 0);
        j.key("completion").number(completion);
        j.key("instances").count(instances);
    });
}

fn write_egress(
    j: &mut JsonWriter,
    scope: &Scope<'_, '_>,
    node: &Node,
    standing: &Standing,
    egress: &Egress,
) {
    let sender = &egress.sender;
    let online = sender.state == SenderState::Online;
    j.key("id").integer(i64::try_from(sender.connections).unwrap_or(i64::MAX));
    j.key("hops").integer(node.host.info().hops.saturating_add(1));
    j.key("status").string(egress.status);
    j.key("since").integer(sender.since);
    j.key("age").integer((scope.now() - sender.since).max(0));
    if !online {
        j.key("reason").string(sender.reason.unwrap_or("CONNECTING"));
    }
    j.key("replication");
    let leaving = if online { standing.held.leaving } else { 0 };
    replication(j, if online { standing.sent() } else { 0.0 }, leaving);
    j.key("destination").object(|j| {
        let is_current = |parent: &&Parent| parent.destination.text == sender.destination;
        let current = sender.parents.iter().find(is_current).filter(|_| online);
        let tls = if current.is_some_and(|parent| parent.destination.tls) { ":SSL" } else { "" };
        let end = |address: &str| format!("{}{tls}", bracketed(if online { address } else { "" }));
        j.key("local").string(&end(&sender.local));
        j.key("remote").string(&end(&sender.remote));
        write_capabilities(j.key("capabilities"), sender.agreed);
        j.key("traffic").object(|j| {
            j.key("compression").bool(compresses(sender.agreed));
            for (kind, content) in [
                ("data", Content::Data),
                ("metadata", Content::Metadata),
                ("functions", Content::Functions),
                ("replication", Content::Replication),
            ] {
                let sent = sender.sent_of[content as usize];
                j.key(kind).integer(i64::try_from(sent).unwrap_or(i64::MAX));
            }
        });
        j.key("parents").array(|j| {
            for parent in &sender.parents {
                let current = online && parent.destination.text == sender.destination;
                j.object(|j| write_parent(j, scope.now(), parent, current));
            }
        });
        j.key("streaming_path");
        path(j, scope.call, node);
    });
}

/// Why a parent did not take us last time, or that it does.
pub fn handshake(parent: &Parent, current: bool) -> &'static str {
    match parent.last_failure {
        _ if current => "CONNECTED",
        Some(failure) => failure.reason(),
        None if parent.attempts > 0 => "CANT CONNECT",
        None => "NEVER CONNECTED",
    }
}

fn write_parent(j: &mut JsonWriter, now: i64, parent: &Parent, current: bool) {
    j.key("attempts").integer(i64::from(parent.attempts));
    j.key("destination").string(&parent.destination.text);
    if parent.last_attempt > 0 {
        j.key("since").string(&Rfc3339(UnixSeconds(parent.last_attempt)).to_string());
        j.key("age").string(&format!("{}s", (now - parent.last_attempt).max(0)));
    }
    j.key("last_handshake").string(handshake(parent, current));
    if parent.postponed_until > now && !current {
        j.key("next_check").string(&Rfc3339(UnixSeconds(parent.postponed_until)).to_string());
        j.key("next_in").string(&format!("{}s", parent.postponed_until - now));
    }
    let ban = match parent.last_failure {
        Some(Failure::Localhost) => Some("it is the localhost"),
        Some(Failure::NotUnderstood) => Some("it is erroneous"),
        _ => None,
    };
    if let Some(ban) = ban.filter(|_| !current) {
        j.key("ban").string(ban);
    }
}

/// This agent as a whole.
fn agent(j: &mut JsonWriter, scope: &Scope<'_, '_>, standings: &[Standing]) {
    let call = scope.call;
    let hosts = call.agent.hosts.all();
    j.key("application").object(|j| {
        j.key("package").object(|j| {
            j.key("version").string(VERSION);
            j.key("release_channel").string(call.agent.options.release_channel);
        });
    });
    j.key("cloud").object(|j| {
        j.key("id").integer(0);
        j.key("status").string("disabled");
        j.key("since").integer(call.agent.started.0);
        j.key("age").integer((scope.now() - call.agent.started.0).max(0));
        j.key("url").string("");
        j.key("reason").string("this agent has no link to a cloud");
    });
    let streams = call.agent.streaming.as_deref();
    let online = |sender: &Arc<crate::stream::Sender>| sender.status().state == SenderState::Online;
    j.key("nodes").object(|j| {
        let of_kind = |kind| hosts.iter().filter(move |host| host.kind() == kind);
        j.key("total").count(hosts.len());
        let receiving = of_kind(HostKind::Child).filter(|host| host.is_connected()).count();
        j.key("receiving").count(receiving);
        let senders = streams.map(|streams| streams.senders()).unwrap_or_default();
        j.key("sending").count(senders.iter().filter(|sender| online(sender)).count());
        j.key("archived").count(of_kind(HostKind::Child).filter(|h| h.is_archived()).count());
    });
    let sum = |count: fn(&Standing) -> usize| standings.iter().map(count).sum::<usize>();
    j.key("metrics").object(|j| {
        j.key("collected").count(sum(|s| s.held.collected.metrics));
        j.key("available").count(sum(|s| s.held.all.metrics));
    });
    j.key("instances").object(|j| {
        j.key("collected").count(sum(|s| s.held.collected.instances));
        j.key("available").count(sum(|s| s.held.all.instances));
    });
    j.key("contexts").object(|j| {
        j.key("collected").count(sum(|s| s.held.collected.contexts));
        j.key("available").count(sum(|s| s.held.all.contexts));
        let mut unique = FxHashSet::default();
        for host in &hosts {
            for chart in host.charts() {
                unique.insert(Arc::clone(&chart.lock().meta.context));
            }
        }
        j.key("unique").count(unique.len());
    });
    capabilities(j.key("capabilities"));
    j.key("api").object(|j| {
        j.key("version").integer(7);
        j.key("bearer_protection").bool(false);
    });
    let kept = kept_by_the_store(scope, standings);
    j.key("db_size").array(|j| write_tiers(j, call, kept));
}

/// First and last second of all that the store holds, as far as the hosts of the answer tell.
fn kept_by_the_store(scope: &Scope<'_, '_>, standings: &[Standing]) -> Option<(i64, i64)> {
    let stored = scope.nodes.iter().zip(standings).filter(|(node, standing)| {
        node.host.settings().mode == Mode::Dbengine && standing.held.first > 0
    });
    let spans = stored.map(|(_, standing)| (standing.held.first, standing.held.last));
    spans.reduce(|(first, last), (from, to)| (first.min(from), last.max(to)))
}

/// First and last second of a tier. `files` are whole windows; what they and the hosts tell together is closer, and the
/// newest samples are in no file yet.
fn tier_span(
    tier: usize,
    files: Option<(i64, i64)>,
    every: i64,
    kept: Option<(i64, i64)>,
) -> (i64, i64) {
    match (files, kept) {
        (Some((from, to)), Some((first, last))) => {
            let whole = last - last.rem_euclid(every.max(1));
            (from.max(first), if tier == 0 { last } else { to.min(whole) })
        }
        (None, Some(kept)) if tier == 0 => kept,
        (files, _) => files.unwrap_or_default(),
    }
}

/// What each tier of the store holds and takes.
fn write_tiers(j: &mut JsonWriter, call: &Call<'_>, kept: Option<(i64, i64)>) {
    let store = call.agent.engines.as_ref().and_then(|engines| engines.open_store());
    let Some(store) = store else { return };
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    for (tier, stats) in store.stats().iter().enumerate() {
        let (first, last) = tier_span(tier, stats.span, i64::from(stats.grouping), kept);
        j.object(|j| {
            j.key("tier").count(tier);
            j.key("granularity").string(&duration(i64::from(stats.grouping)));
            j.key("metrics").integer(i64::from(stats.metrics));
            j.key("samples").integer(0);
            j.key("disk_used").integer(number(stats.bytes));
            j.key("disk_max").integer(number(stats.bytes_max));
            let share = (stats.bytes * 100).checked_div(stats.bytes_max).unwrap_or(0);
            j.key("disk_percent").integer(number(share));
            j.key("from").integer(first);
            j.key("to").integer(last);
            j.key("retention").integer(last - first);
            j.key("retention_human").string(&duration(last - first));
            // How long it would be kept with this much a day; as far as can be told, what there is.
            let expected = (last - first).saturating_mul(100) / number(share).max(1);
            j.key("requested_retention").integer(0);
            j.key("requested_retention_human").string("off");
            j.key("expected_retention").integer(expected);
            j.key("expected_retention_human").string(&duration(expected));
        });
    }
}

/// Seconds as days, hours, minutes and seconds, the two largest of them.
fn duration(seconds: i64) -> String {
    let parts = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds.max(0);
    let mut text = String::new();
    let mut shown = 0;
    for (size, unit) in parts {
        let count = left / size;
        left %= size;
        if count > 0 && shown < 2 {
            text.push_str(&format!("{count}{unit}"));
            shown += 1;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_begins_where_samples_do() {
        let files = Some((8192, 12_288));
        assert_eq!(tier_span(0, files, 1, Some((9000, 12_400))), (9000, 12_400));
        // Older samples are in another tier, or in one that was deleted here.
        assert_eq!(tier_span(0, files, 1, Some((100, 12_400))), (8192, 12_400));
        assert_eq!(tier_span(1, files, 60, Some((9000, 12_290))), (9000, 12_240));
        // Nothing is in files yet.
        assert_eq!(tier_span(0, None, 1, Some((9000, 9500))), (9000, 9500));
        assert_eq!(tier_span(1, None, 60, Some((9000, 9500))), (0, 0));
        assert_eq!(tier_span(0, files, 1, None), (8192, 12_288));
    }

    #[test]
    fn durations_are_told_in_two_units() {
        let cases = [(0, "0s"), (1, "1s"), (60, "1m"), (90_061, "1d1h"), (1_209_600, "14d")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }
}
