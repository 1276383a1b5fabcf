//! `/api/v3/stream_info`: how much this agent knows of a host, so that the host's child can choose among its parents.

use std::sync::Arc;

use uuid::Uuid;

use crate::base::ids::MachineGuid;
use crate::base::json::JsonWriter;
use crate::base::time::UnixSeconds;
use crate::metrics::{Chart, Host, HostKind};
use crate::web::api::Call;
use crate::web::http::{ContentType, Response};

/// So many archived charts tell what is stored of a host; to ask all would keep its child waiting.
const ARCHIVED_ASKED: usize = 200;

pub fn stream_info(call: &Call<'_>) -> Response {
    let hosts = &call.agent.hosts;
    let guid = call.query().get("machine_guid").and_then(|text| text.parse::<MachineGuid>().ok());
    let host = guid.and_then(|guid| hosts.by_guid(guid));
    let status = if host.is_some() { 200 } else { 404 };
    let all = hosts.all();
    let receivers = all.iter().filter(|h| h.kind() == HostKind::Child && h.is_connected()).count();
    let (nonce, _, _, _) = Uuid::new_v4().to_fields_le();
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("version").integer(1);
        j.key("status").integer(i64::from(status));
        j.key("host_id").string(&hosts.local().guid().to_string());
        j.key("nodes").count(all.len());
        j.key("receivers").count(receivers);
        j.key("nonce").integer(i64::from(nonce));
        if let Some(host) = host {
            let ingest = Ingest::of(&host);
            let (first, last) = retention(&host).unwrap_or_default();
            j.key("db_status").string("online");
            j.key("db_liveness").string(if host.is_connected() { "live" } else { "stale" });
            j.key("ingest_type").string(ingest.kind);
            j.key("ingest_status").string(ingest.status);
            j.key("first_time_s").integer(first.0);
            j.key("last_time_s").integer(last.0);
        }
    });
    Response::new(status, ContentType::Json, json.into_bytes())
}

/// How the samples of a host come in.
struct Ingest {
    kind: &'static str,
    status: &'static str,
}

impl Ingest {
    fn of(host: &Host) -> Ingest {
        let connected = host.is_connected();
        let online = if connected { "online" } else { "offline" };
        match host.kind() {
            HostKind::Local => Ingest { kind: "localhost", status: "online" },
            HostKind::Virtual => Ingest { kind: "virtual", status: online },
            HostKind::Child if host.is_archived() => {
                Ingest { kind: "archived", status: "archived" }
            }
            HostKind::Child => Ingest { kind: "child", status: online },
        }
    }
}

/// First and last second of all that is stored of a host.
fn retention(host: &Host) -> Option<(UnixSeconds, UnixSeconds)> {
    let mut all: Option<(UnixSeconds, UnixSeconds)> = None;
    let mut widen = |chart: &Arc<Chart>| {
        let held = chart.lock().retention();
        if let Some((first, last)) = held {
            all = Some(all.map_or((first, last), |all| (all.0.min(first), all.1.max(last))));
        }
    };
    host.charts().iter().for_each(&mut widen);
    if host.is_archived() {
        let mut left = ARCHIVED_ASKED;
        let mut next = || {
            left = left.saturating_sub(1);
            left > 0
        };
        host.archived_charts(&mut |_| next(), &mut widen);
    }
    all
}
