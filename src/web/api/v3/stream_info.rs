//! `/api/v3/stream_info`: how much this agent knows of a host, so that the host's child can choose among its parents.

use uuid::Uuid;

use crate::base::ids::MachineGuid;
use crate::base::json::JsonWriter;
use crate::metrics::HostKind;
use crate::web::api::Call;
use crate::web::api::v2::standing::{Ingest, retention};
use crate::web::http::{ContentType, Response};

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
            let ingest = Ingest::of(&host, None, 0);
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
