//! `/api/v1/registry`: where a dashboard learns who it talks to. The registry itself is off: browsers are told to ask another.

use crate::base::json::JsonWriter;
use crate::web::acl::Rights;
use crate::web::api::Call;
use crate::web::http::Response;

const CLOUD: &str = "https://app.netdata.cloud";

pub(super) fn registry(call: &Call<'_>) -> Response {
    let action = call.query().get("action").unwrap_or("");
    let needs = match action {
        "hello" => Rights::DASHBOARD,
        "access" | "delete" | "search" | "switch" => Rights::REGISTRY,
        _ => {
            let text = "Invalid registry request - you need to set an action: hello, access, delete, search";
            return Response::error(400, text);
        }
    };
    if !call.request.rights.contains(needs) {
        return Response::forbidden();
    }
    let hello = action == "hello";
    let options = &call.agent.options;
    let own = call.host.guid() == call.agent.hosts.local().guid();
    let hostname = if own {
        options.registry_hostname.clone()
    } else {
        call.host.info().registry_hostname.clone()
    };
    let mut json = JsonWriter::new();
    json.object(|j| {
        j.key("action").string(action);
        j.key("status").string(if hello { "ok" } else { "disabled" });
        j.key("hostname").string(&hostname);
        j.key("machine_guid").string(&call.host.guid().to_string());
        j.key("registry").string(&options.registry_to_announce);
        if hello {
            j.key("cloud_base_url").string(CLOUD);
            // We send nothing to anybody, so no dashboard may load a script that does.
            j.key("anonymous_statistics").bool(false);
        }
    });
    Response::json(json)
}
