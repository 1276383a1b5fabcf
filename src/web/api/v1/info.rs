//! `/api/v1/info`: what the agent is and which hosts it knows.
//!
//! Some of it is the requested host's, some the agent's, as the original has it. Nothing is ever missing or late.

use std::collections::HashSet;
use std::sync::Arc;

use crate::base::VERSION;
use crate::base::json::JsonWriter;
use crate::metrics::{Chart, ChartOptions, ChartState, Host, HostInfo, HostKind};
use crate::net::usage::read;
use crate::web::api::Call;
use crate::web::http::Response;

use super::functions::write_functions;

const BUILD: &str = "dbengine|Native HTTPS|TLS Host Verification|Stream Compression|JSON-C|libcrypto|zlib|apps|cgroup Network Tracking";

/// (key, fact). A host that never told has an empty text.
const ALWAYS: &[(&str, &str)] = &[
    ("os_name", "NETDATA_HOST_OS_NAME"),
    ("os_id", "NETDATA_HOST_OS_ID"),
    ("os_id_like", "NETDATA_HOST_OS_ID_LIKE"),
    ("os_version", "NETDATA_HOST_OS_VERSION"),
    ("os_version_id", "NETDATA_HOST_OS_VERSION_ID"),
    ("os_detection", "NETDATA_HOST_OS_DETECTION"),
    ("cores_total", "NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT"),
    ("total_disk_space", "NETDATA_SYSTEM_TOTAL_DISK_SIZE"),
    ("cpu_freq", "NETDATA_SYSTEM_CPU_FREQ"),
    ("ram_total", "NETDATA_SYSTEM_TOTAL_RAM"),
];

/// Left out where a host never told.
const IF_KNOWN: &[(&str, &str)] = &[
    ("container_os_name", "NETDATA_CONTAINER_OS_NAME"),
    ("container_os_id", "NETDATA_CONTAINER_OS_ID"),
    ("container_os_id_like", "NETDATA_CONTAINER_OS_ID_LIKE"),
    ("container_os_version", "NETDATA_CONTAINER_OS_VERSION"),
    ("container_os_version_id", "NETDATA_CONTAINER_OS_VERSION_ID"),
    ("container_os_detection", "NETDATA_CONTAINER_OS_DETECTION"),
    ("is_k8s_node", "NETDATA_HOST_IS_K8S_NODE"),
];

const ALWAYS_TOO: &[(&str, &str)] = &[
    ("kernel_name", "NETDATA_SYSTEM_KERNEL_NAME"),
    ("kernel_version", "NETDATA_SYSTEM_KERNEL_VERSION"),
    ("architecture", "NETDATA_SYSTEM_ARCHITECTURE"),
    ("virtualization", "NETDATA_SYSTEM_VIRTUALIZATION"),
    ("virt_detection", "NETDATA_SYSTEM_VIRT_DETECTION"),
    ("container", "NETDATA_SYSTEM_CONTAINER"),
    ("container_detection", "NETDATA_SYSTEM_CONTAINER_DETECTION"),
];

const IF_KNOWN_TOO: &[(&str, &str)] = &[
    ("cloud_provider_type", "NETDATA_INSTANCE_CLOUD_TYPE"),
    ("cloud_instance_type", "NETDATA_INSTANCE_CLOUD_INSTANCE_TYPE"),
    ("cloud_instance_region", "NETDATA_INSTANCE_CLOUD_INSTANCE_REGION"),
];

pub(super) fn info(call: &Call<'_>) -> Response {
    let all = call.agent.hosts.all();
    let host = call.host;
    let about = host.info();
    let counts = super::alarms::counts(call);
    let mut json = JsonWriter::with_capacity(4096);
    json.object(|j| {
        let local = host.kind() == HostKind::Local;
        j.key("version").string(if local { VERSION } else { &about.program_version });
        j.key("uid").string(&host.guid().to_string());
        j.key("mirrored_hosts").array(|j| {
            for one in &all {
                j.string(&one.hostname());
            }
        });
        j.key("mirrored_hosts_status").array(|j| {
            for one in &all {
                j.object(|j| mirrored_host(j, one));
            }
        });
        j.key("alarms").object(|j| {
            for (state, count) in ["normal", "warning", "critical"].into_iter().zip(counts) {
                j.key(state).count(count);
            }
        });
        write_facts(j, &about, ALWAYS, IF_KNOWN);
        write_facts(j, &about, ALWAYS_TOO, IF_KNOWN_TOO);
        j.key("host_labels").object(|j| {
            for label in host.labels().iter() {
                j.key(&label.name).string(&label.value);
            }
        });
        write_functions(j.key("functions"), host);
        j.key("collectors").array(|j| write_collectors(j, host));
        for key in ["cloud-enabled", "cloud-available", "agent-claimed", "aclk-available"] {
            j.key(key).bool(false);
        }
        write_agent(j, call, all.len());
    });
    Response::json(json)
}

fn mirrored_host(j: &mut JsonWriter, host: &Host) {
    let about = host.info();
    j.key("guid").string(&host.guid().to_string());
    j.key("hostname").string(&about.hostname);
    j.key("reachable").bool(host.is_connected());
    j.key("hops").integer(about.hops);
    j.key("claim_id").maybe_string(about.claim_id.as_deref());
    j.key("node_id").maybe_string(about.node_id.as_deref());
}

type Facts = &'static [(&'static str, &'static str)];

fn write_facts(j: &mut JsonWriter, about: &HostInfo, always: Facts, if_known: Facts) {
    for (key, fact) in always {
        j.key(key).string(about.system.get(*fact).map_or("", String::as_str));
    }
    for (key, fact) in if_known {
        if let Some(value) = about.system.get(*fact) {
            j.key(key).string(value);
        }
    }
}

/// What dashboards show at all.
fn is_visible(state: &ChartState) -> bool {
    !state.meta.options.contains(ChartOptions::HIDDEN)
        && !state.is_obsolete()
        && !state.dims.is_empty()
}

fn visible_charts(host: &Host) -> impl Iterator<Item = Arc<Chart>> {
    host.charts().into_iter().filter(|chart| is_visible(&chart.lock()))
}

fn write_collectors(j: &mut JsonWriter, host: &Host) {
    let mut seen = HashSet::new();
    for chart in visible_charts(host) {
        let (plugin, module) = {
            let meta = &chart.lock().meta;
            (Arc::clone(&meta.plugin), Arc::clone(&meta.module))
        };
        if seen.insert((Arc::clone(&plugin), Arc::clone(&module))) {
            j.object(|j| {
                j.key("plugin").string(&plugin);
                j.key("module").string(&module);
            });
        }
    }
}

/// The agent's own part, whatever host was asked for.
fn write_agent(j: &mut JsonWriter, call: &Call<'_>, hosts: usize) {
    let agent = call.agent;
    let local = agent.hosts.local();
    let megabytes = |name: &str, default: i64| {
        agent.config.peek("db", name).map_or(default, |text| crate::config::number(&text))
    };
    j.key("memory-mode").string(local.settings().mode.name());
    j.key("multidb-disk-quota").integer(megabytes("dbengine multihost disk space MB", 256));
    j.key("page-cache-size").integer(megabytes("dbengine page cache size MB", 32));
    let streams = agent.streaming.as_ref();
    let streams_on = streams.is_some_and(|streams| streams.rules().conf.sender().enabled);
    j.key("stream-enabled").bool(streams_on);
    match call.host.tap() {
        Some(tap) => j.key("stream-compression").bool(tap.is_compressed()),
        None => j.key("stream-compression").null(),
    };
    j.key("hosts-available").count(hosts);
    j.key("https-enabled").bool(true);
    j.key("buildinfo").string(BUILD);
    j.key("release-channel").string(agent.options.release_channel);
    j.key("web-enabled").bool(agent.options.enabled);
    j.key("notification-methods").string("");
    j.key("exporting-enabled").bool(!agent.exporters.is_empty());
    j.key("exporting-connectors").string(&agent.exporters);
    let used = &agent.usage.used;
    for (key, counter) in [
        ("allmetrics-prometheus-used", &used.prometheus),
        ("allmetrics-shell-used", &used.shell),
        ("allmetrics-json-used", &used.json),
        ("dashboard-used", &used.dashboard),
    ] {
        j.key(key).integer(i64::try_from(read(counter)).unwrap_or(i64::MAX));
    }
    let (mut charts, mut metrics) = (0, 0);
    for chart in visible_charts(local) {
        charts += 1;
        metrics += chart.lock().dims.len();
    }
    j.key("charts-count").count(charts);
    j.key("metrics-count").count(metrics);
}
