//! The one table of options: where each is looked for, under which names older and newer releases had it, and which
//! of them this agent accepts without acting on them yet.
//!
//! The canonical place is that of 1.37. Options missing here are simply asked for by the code that uses them.

use std::fmt;

/// An option with other names than its own, or one that does nothing yet.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub section: &'static str,
    pub name: &'static str,
    pub state: State,
    /// (section, name) of other releases. The first one that is set moves here.
    pub was: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Some code asks for it.
    Now,
    /// Accepted, shown with this default if there is one, without effect. Whoever builds it makes it `Now`.
    Later { default: Option<&'static str> },
}

/// A move that was made, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    pub section: &'static str,
    pub name: &'static str,
    pub known: (&'static str, &'static str),
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Alias { section, name, known: (new_section, new_name) } = self;
        write!(f, "[{section}] '{name}' is read as [{new_section}] '{new_name}'")
    }
}

type Was = &'static [(&'static str, &'static str)];

const fn now(section: &'static str, name: &'static str, was: Was) -> Known {
    Known { section, name, state: State::Now, was }
}

const fn later(
    section: &'static str,
    name: &'static str,
    default: Option<&'static str>,
    was: Was,
) -> Known {
    Known { section, name, state: State::Later { default }, was }
}

/// netdata.conf, in the order in which a 1.37 agent shows what it did not find in the file.
pub const NETDATA_CONF: &[Known] = &[
    // [global]
    later("global", "libuv worker threads", Some("16"), &[]),
    later("global", "enable metric correlations", Some("yes"), &[]),
    later("global", "metric correlations method", Some("ks2"), &[]),
    later("global", "pthread stack size", Some("8388608"), &[]),
    // [db]
    now("db", "mode", &[("db", "db"), ("global", "memory mode")]),
    now("db", "retention", &[("global", "history")]),
    now("db", "update every", &[("global", "update every")]),
    now("db", "storage tiers", &[]),
    later(
        "db",
        "dbengine page cache with malloc",
        Some("yes"),
        &[("db", "page cache with malloc"), ("global", "page cache uses malloc")],
    ),
    later(
        "db",
        "dbengine page cache size MB",
        Some("32"),
        &[
            ("db", "dbengine page cache size"),
            ("db", "page cache size"),
            ("global", "page cache size"),
        ],
    ),
    later("db", "dbengine disk space MB", Some("256"), &[("global", "dbengine disk space")]),
    now(
        "db",
        "dbengine multihost disk space MB",
        &[
            ("db", "dbengine tier 0 multihost disk space MB"),
            ("db", "dbengine tier 0 disk space MB"),
            ("global", "dbengine multihost disk space"),
        ],
    ),
    later(
        "db",
        "memory deduplication (ksm)",
        Some("yes"),
        &[("global", "memory deduplication (ksm)")],
    ),
    now(
        "db",
        "cleanup obsolete charts after secs",
        &[
            ("db", "cleanup obsolete charts after"),
            ("global", "cleanup obsolete charts after seconds"),
        ],
    ),
    now("db", "gap when lost iterations above", &[("global", "gap when lost iterations above")]),
    now("db", "enable replication", &[]),
    now("db", "seconds to replicate", &[("db", "replication period")]),
    now("db", "seconds per replication step", &[("db", "replication step")]),
    later("db", "replication prefetch", None, &[]),
    now(
        "db",
        "cleanup orphan hosts after secs",
        &[("db", "cleanup orphan hosts after"), ("global", "cleanup orphan hosts after seconds")],
    ),
    now("db", "cleanup ephemeral hosts after", &[]),
    later(
        "db",
        "dbengine page fetch timeout secs",
        None,
        &[("global", "dbengine page fetch timeout")],
    ),
    later("db", "dbengine page fetch retries", None, &[("global", "dbengine page fetch retries")]),
    later("db", "dbengine page descriptors in file mapped memory", None, &[]),
    later("db", "dbengine tier 1 page cache size MB", None, &[]),
    now(
        "db",
        "dbengine tier 1 multihost disk space MB",
        &[("db", "dbengine tier 1 disk space MB")],
    ),
    later("db", "dbengine tier 1 backfill", None, &[]),
    later("db", "dbengine tier 2 page cache size MB", None, &[]),
    now(
        "db",
        "dbengine tier 2 multihost disk space MB",
        &[("db", "dbengine tier 2 disk space MB")],
    ),
    later("db", "dbengine tier 2 backfill", None, &[]),
    later("db", "dbengine tier 3 page cache size MB", None, &[]),
    now(
        "db",
        "dbengine tier 3 multihost disk space MB",
        &[("db", "dbengine tier 3 disk space MB")],
    ),
    later("db", "dbengine tier 3 backfill", None, &[]),
    later("db", "dbengine tier 4 page cache size MB", None, &[]),
    now(
        "db",
        "dbengine tier 4 multihost disk space MB",
        &[("db", "dbengine tier 4 disk space MB")],
    ),
    later("db", "dbengine tier 4 backfill", None, &[]),
    now("db", "dbengine tier 0 retention time", &[("db", "dbengine tier 0 retention days")]),
    now("db", "dbengine tier 1 retention time", &[("db", "dbengine tier 1 retention days")]),
    now("db", "dbengine tier 2 retention time", &[("db", "dbengine tier 2 retention days")]),
    now("db", "dbengine tier 3 retention time", &[("db", "dbengine tier 3 retention days")]),
    now("db", "dbengine tier 4 retention time", &[("db", "dbengine tier 4 retention days")]),
    later("db", "dbengine tier backfill", None, &[]),
    now("db", "delete obsolete charts files", &[("global", "delete obsolete charts files")]),
    now("db", "delete orphan hosts files", &[("global", "delete orphan hosts files")]),
    now("db", "enable zero metrics", &[("global", "enable zero metrics")]),
    now("db", "replication threads", &[]),
    later("db", "dbengine pages per extent", None, &[("global", "dbengine extent pages")]),
    // [directories]
    now("directories", "config", &[("global", "config directory")]),
    now("directories", "stock config", &[("global", "stock config directory")]),
    now("directories", "log", &[("global", "log directory")]),
    now("directories", "web", &[("global", "web files directory")]),
    now("directories", "cache", &[("global", "cache directory")]),
    now("directories", "lib", &[("global", "lib directory")]),
    now("directories", "home", &[("global", "home directory")]),
    now("directories", "lock", &[("global", "lock directory")]),
    now("directories", "plugins", &[("global", "plugins directory")]),
    now("directories", "registry", &[("registry", "registry db directory")]),
    now("directories", "health config", &[("health", "health configuration directory")]),
    now(
        "directories",
        "stock health config",
        &[("health", "stock health configuration directory")],
    ),
    // [logs]
    now("logs", "debug flags", &[("global", "debug flags")]),
    now("logs", "debug", &[("global", "debug log")]),
    now("logs", "error", &[("logs", "daemon"), ("global", "error log")]),
    now("logs", "access", &[("global", "access log")]),
    now("logs", "health", &[]),
    later("logs", "collector", None, &[]),
    later("logs", "level", None, &[]),
    now("logs", "facility", &[("global", "facility log")]),
    now(
        "logs",
        "errors flood protection period",
        &[("logs", "logs flood protection period"), ("global", "errors flood protection period")],
    ),
    now(
        "logs",
        "errors to trigger flood protection",
        &[
            ("logs", "logs to trigger flood protection"),
            ("global", "errors to trigger flood protection"),
        ],
    ),
    // [environment variables]
    now("environment variables", "PATH", &[("plugins", "PATH environment variable")]),
    now("environment variables", "PYTHONPATH", &[("plugins", "PYTHONPATH environment variable")]),
    now("environment variables", "TZ", &[("global", "TZ environment variable")]),
    // [sqlite]
    later("sqlite", "auto vacuum", None, &[]),
    later("sqlite", "synchronous", None, &[]),
    later("sqlite", "journal mode", None, &[]),
    later("sqlite", "temp store", None, &[]),
    later("sqlite", "journal size limit", None, &[]),
    later("sqlite", "cache size", None, &[]),
    // [health]
    now("health", "enabled", &[]),
    now("health", "silencers file", &[]),
    now("health", "one notification per cluster", &[]),
    now("health", "default repeat warning", &[]),
    now("health", "default repeat critical", &[]),
    now("health", "in memory max health log entries", &[]),
    now("health", "script to execute on alarm", &[]),
    now("health", "enable stock health configuration", &[]),
    now("health", "is ephemeral", &[("global", "is ephemeral node")]),
    now("health", "has unstable connection", &[("global", "has unstable connection")]),
    now("health", "rotate log every lines", &[]),
    now("health", "run at least every seconds", &[("health", "run at least every")]),
    now(
        "health",
        "postpone alarms during hibernation for seconds",
        &[("health", "postpone alarms during hibernation for")],
    ),
    // [web]
    now("web", "bind to", &[("global", "bind to"), ("global", "bind socket to IP")]),
    // Our own: whoever reads over HTTP shows a token of this file.
    now("web", "read token file", &[]),
    now("web", "default port", &[("global", "default port"), ("global", "port")]),
    now("web", "listen backlog", &[("global", "http port listen backlog")]),
    now(
        "web",
        "disconnect idle clients after seconds",
        &[
            ("web", "disconnect idle clients after"),
            ("global", "disconnect idle web clients after seconds"),
        ],
    ),
    now(
        "web",
        "accept a streaming request every seconds",
        &[("web", "accept a streaming request every")],
    ),
    now(
        "web",
        "respect do not track policy",
        &[("global", "respect web browser do not track policy")],
    ),
    now("web", "x-frame-options response header", &[("global", "web x-frame-options header")]),
    now("web", "enable gzip compression", &[("global", "enable web responses gzip compression")]),
    now("web", "gzip compression strategy", &[("global", "web compression strategy")]),
    now("web", "gzip compression level", &[("global", "web compression level")]),
    // [registry]
    now("registry", "enabled", &[]),
    now("registry", "registry db file", &[]),
    later("registry", "registry log file", None, &[]),
    later("registry", "registry save db every new entries", Some("1000000"), &[]),
    now("registry", "registry expire idle persons days", &[]),
    now("registry", "registry domain", &[]),
    now("registry", "verify browser cookies support", &[]),
    now("registry", "enable cookies SameSite and Secure", &[]),
    now("registry", "max URL length", &[]),
    now("registry", "max URL name length", &[]),
    later("registry", "allow from", Some("*"), &[]),
    later("registry", "allow by dns", Some("heuristic"), &[]),
    // [plugins]
    later("plugins", "statsd", Some("no"), &[("statsd", "enabled")]),
    later("plugins", "cgroups", Some("no"), &[]),
    later("plugins", "tc", Some("no"), &[]),
    // [plugin:proc]: modules of rarer hardware and file systems
    later("plugin:proc", "/proc/pagetypeinfo", Some("no"), &[]),
    later("plugin:proc", "/sys/kernel/mm/ksm", Some("no"), &[]),
    later("plugin:proc", "/sys/block/zram", Some("no"), &[]),
    later("plugin:proc", "/sys/devices/system/edac/mc", Some("no"), &[]),
    later("plugin:proc", "/sys/devices/system/node", Some("no"), &[]),
    later("plugin:proc", "/proc/net/wireless", Some("no"), &[]),
    later("plugin:proc", "/proc/net/sctp/snmp", Some("no"), &[]),
    later("plugin:proc", "/proc/net/ip_vs/stats", Some("no"), &[]),
    later("plugin:proc", "/sys/class/infiniband", Some("no"), &[]),
    later("plugin:proc", "/proc/net/stat/synproxy", Some("no"), &[]),
    later("plugin:proc", "/proc/mdstat", Some("no"), &[]),
    later("plugin:proc", "/proc/net/rpc/nfsd", Some("no"), &[]),
    later("plugin:proc", "/proc/net/rpc/nfs", Some("no"), &[]),
    later("plugin:proc", "/proc/spl/kstat/zfs/arcstats", Some("no"), &[]),
    later("plugin:proc", "/proc/spl/kstat/zfs/pool/state", Some("no"), &[]),
    later("plugin:proc", "/sys/fs/btrfs", Some("no"), &[]),
    later("plugin:proc", "/sys/class/power_supply", Some("no"), &[]),
];

/// stream.conf, `[stream]`: the sender's options, all of which the stock file explains.
pub(super) const STREAM_SENDER: &[Known] = &[
    now("stream", "enabled", &[]),
    now("stream", "destination", &[]),
    now("stream", "api key", &[]),
    now("stream", "default port", &[]),
    now("stream", "send charts matching", &[]),
    now("stream", "initial clock resync iterations", &[]),
    now("stream", "enable compression", &[]),
    now("stream", "zstd compression level", &[]),
    now("stream", "lz4 compression acceleration", &[]),
    now("stream", "gzip compression level", &[]),
    now("stream", "ssl skip certificate verification", &[]),
    now("stream", "CApath", &[]),
    now("stream", "CAfile", &[]),
    now("stream", "ssl key", &[]),
    now("stream", "ssl certificate", &[]),
    now("stream", "timeout seconds", &[("stream", "timeout")]),
    now("stream", "buffer size bytes", &[("stream", "buffer size")]),
    now("stream", "reconnect delay seconds", &[("stream", "reconnect delay")]),
];

/// The names under which a receiver option may stand, those of an API key section and of a machine section alike.
/// In a section of one kind the name of that kind wins.
pub(super) struct Names {
    pub key: &'static str,
    pub machine: &'static str,
    pub also: &'static [&'static str],
}

impl Names {
    /// It may be called so.
    pub(super) fn has(&self, name: &str) -> bool {
        self.key == name || self.machine == name || self.also.contains(&name)
    }
}

/// stream.conf, `[API_KEY]` and `[MACHINE_GUID]`.
pub(super) mod receiver {
    use super::Names;

    const fn both(name: &'static str, also: &'static [&'static str]) -> Names {
        Names { key: name, machine: name, also }
    }

    // Who may come in; looked at by admission alone.
    pub(in super::super) const TYPE: Names = both("type", &[]);
    pub(in super::super) const ENABLED: Names = both("enabled", &[]);
    pub(in super::super) const ALLOW_FROM: Names = both("allow from", &[]);

    pub(in super::super) const UPDATE_EVERY: Names = both("update every", &[]);
    pub(in super::super) const HISTORY: Names =
        Names { key: "default history", machine: "history", also: &["retention"] };
    pub(in super::super) const MODE: Names = Names {
        key: "default memory mode",
        machine: "memory mode",
        also: &["default memory", "db mode", "db"],
    };
    pub(in super::super) const HEALTH: Names =
        Names { key: "health enabled by default", machine: "health enabled", also: &[] };
    pub(in super::super) const POSTPONE: Names = Names {
        key: "default postpone alarms on connect seconds",
        machine: "postpone alarms on connect seconds",
        also: &["postpone alerts on connect"],
    };
    pub(in super::super) const PROXY_ENABLED: Names =
        Names { key: "default proxy enabled", machine: "proxy enabled", also: &[] };
    pub(in super::super) const PROXY_DESTINATION: Names =
        Names { key: "default proxy destination", machine: "proxy destination", also: &[] };
    pub(in super::super) const PROXY_API_KEY: Names =
        Names { key: "default proxy api key", machine: "proxy api key", also: &[] };
    pub(in super::super) const PROXY_CHARTS: Names = Names {
        key: "default proxy send charts matching",
        machine: "proxy send charts matching",
        also: &[],
    };
    pub(in super::super) const EPHEMERAL: Names = both("is ephemeral node", &["is ephemeral"]);
    pub(in super::super) const COMPRESSION: Names = both("enable compression", &[]);
    pub(in super::super) const COMPRESSION_ORDER: Names = both("compression algorithms order", &[]);
    pub(in super::super) const CLIENT_CERTIFICATE: Names = both("require client certificate", &[]);
    pub(in super::super) const SHARE_THE_PAST: Names = both("share the past", &[]);
    pub(in super::super) const REPLICATION: Names = both("enable replication", &[]);
    pub(in super::super) const REPLICATE: Names =
        both("seconds to replicate", &["replication period"]);
    pub(in super::super) const REPLICATION_STEP: Names =
        both("seconds per replication step", &["replication_step", "replication step"]);

    /// Those that are numbers.
    pub(in super::super) const TIMES: &[&Names] =
        &[&HISTORY, &POSTPONE, &REPLICATE, &REPLICATION_STEP];

    pub(in super::super) const ALL: &[&Names] = &[
        &TYPE,
        &ENABLED,
        &ALLOW_FROM,
        &UPDATE_EVERY,
        &HISTORY,
        &MODE,
        &HEALTH,
        &POSTPONE,
        &PROXY_ENABLED,
        &PROXY_DESTINATION,
        &PROXY_API_KEY,
        &PROXY_CHARTS,
        &EPHEMERAL,
        &COMPRESSION,
        &COMPRESSION_ORDER,
        &CLIENT_CERTIFICATE,
        &SHARE_THE_PAST,
        &REPLICATION,
        &REPLICATE,
        &REPLICATION_STEP,
    ];
}

/// exporting.conf, `[TYPE:NAME]` and `[exporting:global]`, and `[backend]` of netdata.conf.
pub(super) mod exporting {
    pub(in super::super) struct Named {
        pub name: &'static str,
        pub default: &'static str,
    }

    const fn named(name: &'static str, default: &'static str) -> Named {
        Named { name, default }
    }

    pub(in super::super) const ENABLED: Named = named("enabled", "no");
    pub(in super::super) const DESTINATION: Named = named("destination", "localhost");
    pub(in super::super) const DATA_SOURCE: Named = named("data source", "average");
    pub(in super::super) const PREFIX: Named = named("prefix", "netdata");
    pub(in super::super) const HOSTNAME: Named = named("hostname", "");
    pub(in super::super) const UPDATE_EVERY: Named = named("update every", "10");
    pub(in super::super) const BUFFER: Named = named("buffer on failures", "10");
    pub(in super::super) const TIMEOUT: Named = named("timeout ms", "10000");
    pub(in super::super) const SEND_NAMES: Named = named("send names instead of ids", "yes");
    pub(in super::super) const CHARTS: Named = named("send charts matching", "*");
    pub(in super::super) const HOSTS: Named = named("send hosts matching", "localhost *");
    pub(in super::super) const CONFIGURED_LABELS: Named = named("send configured labels", "yes");
    pub(in super::super) const AUTOMATIC_LABELS: Named = named("send automatic labels", "no");
    pub(in super::super) const VARIABLES: Named = named("send variables", "yes");
    pub(in super::super) const USERNAME: Named = named("username", "");
    pub(in super::super) const PASSWORD: Named = named("password", "");
    pub(in super::super) const URL_PATH: Named = named("remote write URL path", "/receive");
    /// From here on our own. `Name: value`, several separated by `;`, for tenants and the like.
    pub(in super::super) const HEADERS: Named = named("http headers", "");
    /// Of remote write: `name=value`, separated by white space.
    pub(in super::super) const EXTERNAL_LABELS: Named = named("external labels", "");
    /// Of remote write: `auto`, `1` or `2`.
    pub(in super::super) const WRITE_VERSION: Named = named("remote write version", "auto");
    /// How far a server behind https is trusted.
    pub(in super::super) const TLS_SKIP: Named = named("ssl skip certificate verification", "no");
    pub(in super::super) const CA_PATH: Named = named("CApath", "");
    pub(in super::super) const CA_FILE: Named = named("CAfile", "");

    pub(in super::super) const ALL: &[&Named] = &[
        &ENABLED,
        &DESTINATION,
        &DATA_SOURCE,
        &PREFIX,
        &HOSTNAME,
        &UPDATE_EVERY,
        &BUFFER,
        &TIMEOUT,
        &SEND_NAMES,
        &CHARTS,
        &HOSTS,
        &CONFIGURED_LABELS,
        &AUTOMATIC_LABELS,
        &VARIABLES,
        &USERNAME,
        &PASSWORD,
        &URL_PATH,
        &HEADERS,
        &EXTERNAL_LABELS,
        &WRITE_VERSION,
        &TLS_SKIP,
        &CA_PATH,
        &CA_FILE,
    ];
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::super::StreamConf;

    use super::*;

    #[test]
    fn no_place_means_two_things() {
        let mut places = HashSet::new();
        for known in NETDATA_CONF.iter().chain(STREAM_SENDER) {
            let own = (known.section, known.name);
            for place in known.was.iter().copied().chain([own]) {
                assert!(places.insert(place), "{place:?} stands twice in the table");
            }
        }
    }

    /// What a stock file says: (section, option, value), those behind a `#` too, and whether a comment stands above it.
    fn stock(text: &str) -> Vec<(String, String, String, bool)> {
        let (mut section, mut explained, mut options) = (String::new(), false, Vec::new());
        for line in text.lines().map(str::trim) {
            let bare = line.strip_prefix('#').unwrap_or(line);
            if line.is_empty()
                || (line.starts_with('#') && (bare.is_empty() || bare.starts_with(' ')))
            {
                explained = !line.is_empty();
            } else if let Some(name) = bare.strip_prefix('[').and_then(|b| b.strip_suffix(']')) {
                section = name.to_owned();
                explained = false;
            } else {
                let (name, value) = bare.split_once('=').unwrap_or((bare, ""));
                options.push((section.clone(), name.trim().into(), value.trim().into(), explained));
            }
        }
        options
    }

    #[track_caller]
    fn same(file: &str, section: &str, known: &[&str]) {
        let said = stock(file);
        let of = |o: &&(String, _, _, _)| o.0 == section;
        for (section, name, _, explained) in said.iter().filter(of) {
            assert!(explained, "[{section}] '{name}' stands there without a comment");
        }
        let said: BTreeSet<&str> = said.iter().filter(of).map(|o| o.1.as_str()).collect();
        assert_eq!(said, known.iter().copied().collect(), "[{section}]");
    }

    const STREAM: &str = include_str!("../../conf.d/stream.conf");
    const EXPORTING: &str = include_str!("../../conf.d/exporting.conf");
    const KEY: &str = "11111111-2222-3333-4444-555555555555";

    #[test]
    fn the_stock_stream_conf_explains_every_option_and_no_other() {
        let sender: Vec<_> = STREAM_SENDER.iter().map(|known| known.name).collect();
        same(STREAM, "stream", &sender);
        let key: Vec<_> = receiver::ALL.iter().map(|names| names.key).collect();
        same(STREAM, KEY, &key);
        let machine: Vec<_> = receiver::ALL.iter().map(|names| names.machine).collect();
        same(STREAM, "MACHINE_GUID", &machine);
    }

    #[test]
    fn the_table_holds_what_a_sender_asks_for() {
        let conf = StreamConf::from_text("");
        conf.sender();
        let asked: BTreeSet<String> = conf.asked("stream").into_iter().collect();
        assert_eq!(asked, STREAM_SENDER.iter().map(|known| known.name.to_owned()).collect());
    }

    #[test]
    fn what_the_stock_stream_conf_calls_defaults_are_the_defaults() {
        assert_eq!(StreamConf::from_text(STREAM).sender(), StreamConf::from_text("").sender());
        // Also behind a #, but for the examples.
        let whole: String = stock(STREAM)
            .iter()
            .filter(|(section, name, ..)| {
                section == "stream"
                    && !name.starts_with("CA")
                    && !["ssl key", "ssl certificate"].contains(&name.as_str())
            })
            .map(|(_, name, value, _)| format!("{name} = {value}\n"))
            .collect();
        let sender = StreamConf::from_text(&format!("[stream]\n{whole}")).sender();
        assert_eq!(sender, StreamConf::from_text("").sender());
    }

    #[test]
    fn the_stock_exporting_conf_names_what_is_known_and_all_of_it() {
        let said = stock(EXPORTING);
        let known = |name: &str| exporting::ALL.iter().find(|named| named.name == name);
        for (section, name, value, _) in &said {
            let Some(named) = known(name) else { panic!("[{section}] '{name}' is not known") };
            if section == "exporting:global" {
                assert_eq!(value, named.default, "[{section}] '{name}'");
            }
        }
        let named: BTreeSet<&str> = said.iter().map(|o| o.1.as_str()).collect();
        for option in exporting::ALL {
            assert!(named.contains(option.name), "'{}' is explained nowhere", option.name);
        }
    }
}
