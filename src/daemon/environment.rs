//! The environment that plugins and scripts of ours see. It is that of the process itself, completed at start while
//! there is one thread, so everything we start inherits it.

use std::path::Path;

use super::settings::Settings;
use crate::base::ids::MachineGuid;
use crate::base::{VERSION, sys};
use crate::config::Config;

/// Searched after the user's own `PATH`.
const SYSTEM_PATH: &str = "/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin";

/// What the log needs: the time zone.
pub(super) fn set_time_zone(config: &Config) {
    let inherited = std::env::var("TZ").unwrap_or_else(|_| ":/etc/localtime".to_owned());
    sys::set_env("TZ", &config.string("environment variables", "TZ", &inherited));
    sys::read_time_zone();
}

/// All the rest.
pub(super) fn complete(config: &Config, settings: &Settings, guid: MachineGuid) {
    let inherited =
        |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let path = format!("{}:{SYSTEM_PATH}", inherited("PATH", "/bin:/usr/bin"));
    let python_path = inherited("PYTHONPATH", "");
    for (name, default) in [("PATH", path), ("PYTHONPATH", python_path)] {
        sys::set_env(name, &config.string("environment variables", name, &default));
    }
    let dirs = &settings.directories;
    let extra_plugins: Vec<_> =
        dirs.plugins.iter().skip(1).map(|dir| dir.to_string_lossy().into_owned()).collect();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let option = |section, name, default| config.peek(section, name).unwrap_or(default);
    let monitoring = config.boolean("plugins", "netdata monitoring", true);
    // Asking the link-local metadata service is nothing to do unasked.
    let detect_cloud = config.boolean("global", "detect cloud instance", false);
    let number = |n: i64| n.to_string();
    let variables = [
        ("NETDATA_UPDATE_EVERY", number(settings.database.update_every.seconds())),
        ("NETDATA_VERSION", VERSION.to_owned()),
        ("NETDATA_HOSTNAME", settings.hostname.clone()),
        ("NETDATA_CONFIG_DIR", text(&dirs.config)),
        ("NETDATA_USER_CONFIG_DIR", text(&dirs.config)),
        ("NETDATA_STOCK_CONFIG_DIR", text(&dirs.stock_config)),
        ("NETDATA_PLUGINS_DIR", dirs.plugins.first().map(|dir| text(dir)).unwrap_or_default()),
        ("NETDATA_USER_PLUGINS_DIRS", extra_plugins.join(" ")),
        ("NETDATA_WEB_DIR", text(&dirs.web)),
        ("NETDATA_CACHE_DIR", text(&dirs.cache)),
        ("NETDATA_LIB_DIR", text(&dirs.lib)),
        ("NETDATA_LOCK_DIR", text(&dirs.lock)),
        ("NETDATA_LOG_DIR", text(&dirs.log)),
        ("HOME", text(&dirs.home)),
        ("NETDATA_HOST_PREFIX", settings.host_prefix.clone()),
        ("NETDATA_LISTEN_PORT", option("web", "default port", "19999".to_owned())),
        ("NETDATA_DEBUG_FLAGS", option("logs", "debug flags", "0x0000000000000000".to_owned())),
        (
            "NETDATA_ERRORS_THROTTLE_PERIOD",
            option("logs", "errors flood protection period", "1200".to_owned()),
        ),
        (
            "NETDATA_ERRORS_PER_PERIOD",
            option("logs", "errors to trigger flood protection", "200".to_owned()),
        ),
        ("NETDATA_INTERNALS_MONITORING", if monitoring { "YES" } else { "NO" }.to_owned()),
        ("NETDATA_REGISTRY_UNIQUE_ID", guid.to_string()),
        (
            "NETDATA_REGISTRY_HOSTNAME",
            option("registry", "registry hostname", settings.hostname.clone()),
        ),
        ("NETDATA_REGISTRY_URL", option("registry", "registry to announce", String::new())),
        ("NETDATA_REGISTRY_CLOUD_BASE_URL", String::new()),
        ("NETDATA_DETECT_CLOUD", if detect_cloud { "yes" } else { "no" }.to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("LC_ALL", "C".to_owned()),
        ("MALLOC_ARENA_MAX", number(settings.process.malloc_arenas_of_plugins)),
        ("UV_THREADPOOL_SIZE", option("global", "libuv worker threads", "16".to_owned())),
    ];
    for (name, value) in variables {
        sys::set_env(name, &value);
    }
}
