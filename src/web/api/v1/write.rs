//! `POST /api/v1/write`: Prometheus remote write, 1.0 and 2.0, from other agents, for whoever has an API key of stream.conf.
//!
//! The key comes as `Authorization: Bearer KEY`, as the password of Basic, or as `X-Auth-Token`; its section says where the samples
//! are kept, as for children. Series become hosts by their label `instance` (see [`crate::ingest::remote_write`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashMap;
use uuid::Uuid;

use crate::base::ids::MachineGuid;
use crate::base::json::push_string;
use crate::config::{ReceiverOptions, keys};
use crate::ingest::remote_write::{INSTANCE_BYTES_MAX, PLUGIN};
use crate::metrics::{Host, HostInfo, HostKind, HostSettings};
use crate::net::usage::add;
use crate::storage::Mode;
use crate::stream::Streams;
use crate::web::api::Call;
use crate::web::http::{ContentType, Response};
use crate::wire::remote_write::{self, Malformed, PassedOver, Series};

/// The path whose requests have a body that is read.
pub const PATH: &str = "/api/v1/write";
/// A body may be this long as it comes, and as it is once decompressed.
pub const BODY_BYTES_MAX: usize = 16 << 20;
const PLAIN_BYTES_MAX: usize = 32 << 20;
/// All bodies together, as they come, as they are once decompressed and as they are once read; who would need more is told to come again.
const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
static IN_FLIGHT_BYTES: AtomicUsize = AtomicUsize::new(0);
/// A sample further ahead of us is dropped: it would outlive the retention of all others.
const FUTURE_MAX_S: i64 = 86_400;
/// Of the GUIDs of hosts that write to us, by key and instance.
const NAMESPACE: Uuid = Uuid::from_u128(0x7d6a_51c2_40f1_4b0e_9a3c_2f8e_6b1d_9c05);
const NO_INSTANCE: &str = "unknown";

/// Room for a body, for as long as it lives.
pub struct Room(usize);

impl Room {
    /// `None` where there is no room just now.
    pub fn take(bytes: usize) -> Option<Room> {
        let added = |held: usize| held.checked_add(bytes).filter(|all| *all <= IN_FLIGHT_BYTES_MAX);
        let taken = IN_FLIGHT_BYTES.fetch_update(Ordering::AcqRel, Ordering::Acquire, added);
        taken.ok().map(|_| Room(bytes))
    }

    /// So much more; false where there is no room just now.
    fn grow(&mut self, bytes: usize) -> bool {
        let Some(mut more) = Room::take(bytes) else { return false };
        self.0 += std::mem::take(&mut more.0);
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        IN_FLIGHT_BYTES.fetch_sub(self.0, Ordering::AcqRel);
    }
}

/// What a sender gets that comes while there is no room.
pub fn no_room() -> Response {
    Response::error(503, "Too much is being written just now.").header("Retry-After", "5")
}

pub fn write(call: &Call<'_>) -> Response {
    let Some(streams) = &call.agent.streaming else {
        return Response::error(503, "This agent takes no samples.");
    };
    let kind = call.request.content_type.as_deref().unwrap_or_default();
    let read: Read =
        if kind.contains("write.v2") { remote_write::read_2 } else { remote_write::read };
    let Some(key) =
        key_of(call.request.authorization.as_deref(), call.request.auth_token.as_deref())
    else {
        return Response::error(401, "An API key is needed: Authorization: Bearer KEY");
    };
    let peer = &call.request.peer.ip;
    if let Err(reason) = admit(streams, &key, peer) {
        add(&call.agent.usage.denied, 1);
        log::error!("REMOTE WRITE from '{peer}': key '{}' {reason}", keys::masked(&key));
        return Response::forbidden();
    }
    let length = snap::raw::decompress_len(&call.request.body).unwrap_or(usize::MAX);
    if length > PLAIN_BYTES_MAX {
        return Response::error(400, "The body is not compressed by snappy, or too large.");
    }
    let Some(mut room) = Room::take(length) else { return no_room() };
    let Ok(plain) = snap::raw::Decoder::new().decompress_vec(&call.request.body) else {
        return Response::error(400, "The body is not compressed by snappy.");
    };
    // Senders of 2.0 want to know what became of it.
    let taken = |samples: u64| {
        Response::new(204, ContentType::Text, "")
            .header("X-Prometheus-Remote-Write-Samples-Written", samples.to_string())
            .header("X-Prometheus-Remote-Write-Histograms-Written", "0")
            .header("X-Prometheus-Remote-Write-Exemplars-Written", "0")
    };
    let (hosts, passed) = match by_host(read, &plain, &mut room) {
        Ok(Some(read)) => read,
        Ok(None) => return no_room(),
        Err(error) => return Response::error(400, error.to_string()),
    };
    if passed.histograms + passed.exemplars > 0 {
        log::error!(
            "REMOTE WRITE from '{peer}': {} native histograms and {} exemplars were left out, which are not kept here, of '{}' and others",
            passed.histograms,
            passed.exemplars,
            passed.of.escape_debug()
        );
    }
    match store(call, streams, &key, hosts) {
        (all, 0) => taken(all),
        (all, dropped) => {
            log::error!(
                "REMOTE WRITE from '{peer}': {dropped} samples were left out: too many series or hosts, or senseless"
            );
            taken(all.saturating_sub(dropped))
        }
    }
}

/// How a request of one version is read.
type Read = for<'a> fn(&'a [u8], &mut dyn FnMut(Series<'a>)) -> Result<PassedOver<'a>, Malformed>;

/// Series by the instance whose they are.
type ByHost<'a> = FxHashMap<String, Vec<Series<'a>>>;

/// All of a request, before anything of it is stored: it is taken whole or not at all. `None` where there is no room for it.
fn by_host<'a>(
    read: Read,
    plain: &'a [u8],
    room: &mut Room,
) -> Result<Option<(ByHost<'a>, PassedOver<'a>)>, Malformed> {
    let mut hosts = ByHost::default();
    let mut has_room = true;
    let passed = read(plain, &mut |series| {
        has_room = has_room && room.grow(series.bytes());
        if !has_room {
            hosts.clear();
            return;
        }
        let instance = series.label("instance").filter(|name| !name.is_empty());
        let mut instance = instance.unwrap_or(NO_INSTANCE);
        if instance.len() > INSTANCE_BYTES_MAX {
            instance = NO_INSTANCE;
        }
        hosts.entry(instance.to_owned()).or_default().push(series);
    })?;
    Ok(has_room.then_some((hosts, passed)))
}

/// Gives how many samples there were, and how many were left out.
fn store(call: &Call<'_>, streams: &Streams, key: &str, mut hosts: ByHost<'_>) -> (u64, u64) {
    let latest_ms = (call.agent.clock.now_seconds().0 + FUTURE_MAX_S).saturating_mul(1000);
    let (mut all, mut dropped) = (0, 0);
    for series in hosts.values_mut().flatten() {
        let here = series.samples.len();
        all += here as u64;
        series.samples.retain(|&(at_ms, _)| at_ms <= latest_ms);
        dropped += (here - series.samples.len()) as u64;
    }
    let (section, rules) = (keys::hashed(key), streams.rules());
    for (instance, series) in &hosts {
        let name = format!("{section}/{instance}");
        let guid = MachineGuid(Uuid::new_v5(&NAMESPACE, name.as_bytes()));
        let options = rules.receiver(key, &guid.to_string());
        let make = || host_for(streams, guid, instance, &options);
        match call.agent.writers.store(guid, make, series) {
            Some(stored) => dropped += stored.dropped,
            None => dropped += series.iter().map(|one| one.samples.len() as u64).sum::<u64>(),
        }
    }
    (all, dropped)
}

fn host_for(
    streams: &Streams,
    guid: MachineGuid,
    instance: &str,
    options: &ReceiverOptions,
) -> Option<Arc<Host>> {
    let mut shown = String::new();
    push_string(&mut shown, instance);
    let name = shown.trim_matches('"').to_owned();
    let settings = streams.settings();
    let (host, created) = streams.hosts().get_or_create(guid, || {
        let mode = Mode::parse(&options.mode).unwrap_or(Mode::Save);
        let engine = (settings.engine)(mode, options.history, guid);
        let kept = HostSettings {
            mode: engine.mode(),
            history: options.history,
            health_enabled: false,
            gap_when_lost: settings.gap_when_lost,
            ephemeral: options.ephemeral,
        };
        let info = HostInfo { program_name: PLUGIN.to_owned(), ..HostInfo::named(&name) };
        Host::new(guid, HostKind::Virtual, info, engine, kept)
    })?;
    if created {
        log::info!(
            "REMOTE WRITE: host '{name}' with guid '{guid}' initialized, memory mode {}",
            host.settings().mode.name()
        );
    }
    (host.kind() == HostKind::Virtual).then_some(host)
}

/// Whether it is worth reading what somebody sends who shows this.
pub fn may_write(
    streams: Option<&Arc<Streams>>,
    peer: &str,
    authorization: Option<&str>,
    token: Option<&str>,
) -> bool {
    let key = key_of(authorization, token);
    streams.zip(key).is_some_and(|(streams, key)| admit(streams, &key, peer).is_ok())
}

/// As a child with that key would be, of whose machine nothing is known; else why not.
fn admit(streams: &Streams, key: &str, peer: &str) -> Result<(), &'static str> {
    let rules = streams.rules();
    if rules.conf.admit(key, "", peer).is_err() {
        return Err("may not write here");
    }
    // A section without a type may be meant for a machine, and GUIDs of machines are no secrets.
    let is_machine = key.parse().is_ok_and(|guid| streams.hosts().by_guid(guid).is_some());
    if is_machine && rules.conf.type_of(key) != "api" {
        return Err("is a machine GUID");
    }
    if rules.receiver(key, "").client_certificate {
        return Err("requires a client certificate, which is not asked for here");
    }
    Ok(())
}

fn key_of(authorization: Option<&str>, token: Option<&str>) -> Option<String> {
    let Some(authorization) = authorization else { return token.map(str::to_owned) };
    let (scheme, rest) = authorization.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_owned()),
        "basic" => {
            let plain = openssl::base64::decode_block(rest.trim()).ok()?;
            let plain = String::from_utf8(plain).ok()?;
            plain.split_once(':').map(|(_, password)| password.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, as all share the room.
    #[test]
    fn bodies_and_what_is_read_of_them_share_a_bounded_room() {
        // Of one series: its message, and in it a thousand samples of nothing.
        let plain = [&[0x0a, 0xd0, 0x0f][..], &[0x12, 0].repeat(1000)].concat();
        let mut room = Room::take(plain.len()).unwrap();
        let (hosts, _) = by_host(remote_write::read, &plain, &mut room).unwrap().unwrap();
        assert_eq!(hosts[NO_INSTANCE][0].samples.len(), 1000);
        assert!(room.0 >= plain.len() + 16_000, "{}", room.0);
        drop((hosts, room));

        let mut all = Room::take(IN_FLIGHT_BYTES_MAX).unwrap();
        assert!(Room::take(1).is_none());
        assert!(by_host(remote_write::read, &plain, &mut all).unwrap().is_none());
        assert_eq!(all.0, IN_FLIGHT_BYTES_MAX);
        drop(all);
        assert!(Room::take(usize::MAX).is_none());
        assert!(Room::take(1).is_some());
    }
}
