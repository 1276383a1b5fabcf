//! `nodes`: what every host is; `stream_path`: which agents its samples pass.

use super::envelope::{Node, Scope, Tail};
use crate::base::VERSION;
use crate::base::json::JsonWriter;
use crate::metrics::{HostInfo, HostKind};
use crate::web::api::Call;
use crate::web::api::v1::alarms::write_health;
use crate::web::http::Response;

/// What an agent of ours can be asked for; (name, version, whether it does it).
const CAPABILITIES: &[(&str, i64, bool)] = &[
    ("proto", 1, true),
    ("ml", 1, false),
    ("mc", 1, true),
    ("ctx", 1, true),
    ("funcs", 1, true),
    ("http_api_v2", 3, true),
    ("health", 1, true),
    ("req_cancel", 1, true),
];

pub fn nodes(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    scope.answer(Tail::Times, |j| {
        j.key("nodes").array(|j| {
            for node in &scope.nodes {
                j.object(|j| {
                    write_node(j, &scope, node);
                    write_health(j.key("health"), call, &node.host);
                    capabilities(j.key("capabilities"));
                });
            }
        });
    })
}

pub fn stream_path(call: &Call<'_>) -> Response {
    let scope = Scope::of(call);
    scope.answer(Tail::Times, |j| {
        j.key("nodes").array(|j| {
            for node in &scope.nodes {
                j.object(|j| {
                    write_node(j, &scope, node);
                    j.key("streaming_path");
                    path(j, call, node);
                });
            }
        });
    })
}

/// The agents that a host's samples pass, from its own to the last parent.
pub fn path(j: &mut JsonWriter, call: &Call<'_>, node: &Node) {
    j.array(|j| {
        if let Some(streams) = &call.agent.streaming {
            streams.path(&node.host).iter().for_each(|entry| entry.write(j));
        }
    });
}

pub fn capabilities(j: &mut JsonWriter) {
    j.array(|j| {
        for (name, version, enabled) in CAPABILITIES {
            j.object(|j| {
                j.key("name").string(name);
                j.key("version").integer(*version);
                j.key("enabled").bool(*enabled);
            });
        }
    });
}

/// A fact that a host told of itself.
pub fn fact<'a>(info: &'a HostInfo, name: &str) -> &'a str {
    info.system.get(name).map_or("unknown", String::as_str)
}

fn write_node(j: &mut JsonWriter, scope: &Scope<'_, '_>, node: &Node) {
    let host = &node.host;
    let info = host.info();
    scope.name(j, node);
    let own = host.kind() == HostKind::Local;
    j.key("v").string(if own { VERSION } else { &info.program_version });
    j.key("labels").object(|j| {
        for label in host.labels().iter() {
            j.key(&label.name).string(&label.value);
        }
    });
    let facts = |j: &mut JsonWriter, names: &[(&str, &str)]| {
        for (key, name) in names {
            j.key(key).string(fact(&info, name));
        }
    };
    j.key("hw").object(|j| {
        let names = [
            ("architecture", "NETDATA_SYSTEM_ARCHITECTURE"),
            ("cpu_frequency", "NETDATA_SYSTEM_CPU_FREQ"),
            ("cpus", "NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT"),
            ("memory", "NETDATA_SYSTEM_TOTAL_RAM"),
            ("disk_space", "NETDATA_SYSTEM_TOTAL_DISK_SIZE"),
            ("virtualization", "NETDATA_SYSTEM_VIRTUALIZATION"),
            ("container", "NETDATA_SYSTEM_CONTAINER"),
        ];
        facts(j, &names);
    });
    j.key("os").object(|j| {
        let names = [
            ("id", "NETDATA_HOST_OS_ID"),
            ("nm", "NETDATA_HOST_OS_NAME"),
            ("v", "NETDATA_HOST_OS_VERSION"),
        ];
        facts(j, &names);
        j.key("kernel").object(|j| {
            let names =
                [("nm", "NETDATA_SYSTEM_KERNEL_NAME"), ("v", "NETDATA_SYSTEM_KERNEL_VERSION")];
            facts(j, &names);
        });
    });
    j.key("state").string(if host.is_connected() { "reachable" } else { "stale" });
}
