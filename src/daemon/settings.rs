//! The options of netdata.conf that shape the process as a whole, read once at start, checked and corrected.
//!
//! Options of one part of the agent are read by that part from the same [`Config`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::log::{Options as LogOptions, Target};
use crate::base::sys;
use crate::base::time::UpdateEvery;
use crate::config::{Config, ReceiverDefaults, SizeUnit, StreamConf, TimeUnit};
use crate::metrics::lifecycle;
use crate::storage::Mode;
use crate::storage::dbengine as store;
use crate::stream::Rules;

/// Where a packaged agent finds its files; a build for another prefix sets these variables.
pub(super) const USER_CONFIG_DIR: &str =
    from_build(option_env!("NETDATA_CONFIG_DIR"), "/etc/netdata");
pub(super) const STOCK_CONFIG_DIR: &str =
    from_build(option_env!("NETDATA_STOCK_CONFIG_DIR"), "/usr/lib/netdata/conf.d");
const LOG_DIR: &str = from_build(option_env!("NETDATA_LOG_DIR"), "/var/log/netdata");
const WEB_DIR: &str = from_build(option_env!("NETDATA_WEB_DIR"), "/usr/share/netdata/web");
const CACHE_DIR: &str = from_build(option_env!("NETDATA_CACHE_DIR"), "/var/cache/netdata");
const LIB_DIR: &str = from_build(option_env!("NETDATA_LIB_DIR"), "/var/lib/netdata");
const PLUGINS_DIR: &str =
    from_build(option_env!("NETDATA_PLUGINS_DIR"), "/usr/lib/netdata/plugins.d");

const fn from_build(given: Option<&'static str>, default: &'static str) -> &'static str {
    match given {
        Some(dir) => dir,
        None => default,
    }
}

/// The mode of an agent whose configuration does not name one.
const DEFAULT_MODE: Mode = Mode::Dbengine;
const DEFAULT_HISTORY: i64 = 3600;
const UPDATE_EVERY_MAX: i64 = 600;
/// Below this, charts would be forgotten while they are still being drawn.
const CLEANUP_OBSOLETE_MIN_S: i64 = 10;
const FLOOD_PERIOD: Duration = Duration::from_secs(1200);
const FLOOD_LINES: i64 = 200;

/// Plugin directories beyond this are ignored.
const PLUGIN_DIRECTORIES_MAX: usize = 20;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) hostname: String,
    pub(super) run_as: String,
    pub(super) host_prefix: String,
    pub(super) process: ProcessSettings,
    pub(super) directories: Directories,
    pub(super) database: DatabaseSettings,
}

/// How the kernel should treat us.
#[derive(Clone, Debug)]
pub(super) struct ProcessSettings {
    /// `keep`, or a number.
    pub(super) oom_score: String,
    pub(super) policy: String,
    pub(super) priority: i64,
    pub(super) nice: i64,
    pub(super) malloc_arenas: i64,
    pub(super) malloc_arenas_of_plugins: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Directories {
    pub(super) config: PathBuf,
    pub(super) stock_config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) web: PathBuf,
    pub(super) cache: PathBuf,
    pub(super) lib: PathBuf,
    pub(super) home: PathBuf,
    pub(super) lock: PathBuf,
    pub(super) registry: PathBuf,
    /// Never empty: the first has the scripts.
    pub(super) plugins: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
pub(super) struct DatabaseSettings {
    pub(super) update_every: UpdateEvery,
    pub(super) mode: Mode,
    /// Entries, rounded as the mode needs it; the default for children too.
    pub(super) history: i64,
    pub(super) gap_when_lost: i64,
    pub(super) lifecycle: lifecycle::Rules,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Settings {
        let hostname = config.string("global", "hostname", &kernel_hostname());
        let default_user = if sys::is_root() { "netdata".to_owned() } else { sys::user_name() };
        let run_as = config.string("global", "run as user", &default_user);
        let malloc_arenas_of_plugins =
            config.number("global", "glibc malloc arena max for plugins", 1);
        let malloc_arenas = config.number("global", "glibc malloc arena max for netdata", 1);
        let host_prefix = config.string("global", "host access prefix", "");
        let process = ProcessSettings {
            oom_score: config.string("global", "OOM score", "0"),
            policy: config.string("global", "process scheduling policy", "batch"),
            priority: config.number("global", "process scheduling priority", 1),
            nice: config.number("global", "process nice level", 19),
            malloc_arenas,
            malloc_arenas_of_plugins,
        };
        let directories = Directories::read(config);
        let database = DatabaseSettings::read(config);
        Settings { hostname, run_as, host_prefix, process, directories, database }
    }
}

impl Directories {
    pub(super) fn read(config: &Config) -> Directories {
        let dir = |name, default: &Path| config.path("directories", name, default);
        let fixed = |name, default: &str| dir(name, Path::new(default));
        let user = fixed("config", USER_CONFIG_DIR);
        let stock_config = fixed("stock config", STOCK_CONFIG_DIR);
        let log = fixed("log", LOG_DIR);
        let web = fixed("web", WEB_DIR);
        let cache = fixed("cache", CACHE_DIR);
        let lib = fixed("lib", LIB_DIR);
        let home = std::env::var_os("HOME").map_or_else(|| lib.clone(), PathBuf::from);
        let home = dir("home", &home);
        let lock = dir("lock", &lib.join("lock"));
        let own_plugins = user.join("custom-plugins.d");
        let default = format!("\"{PLUGINS_DIR}\" \"{}\"", own_plugins.display());
        let mut plugins = quoted_words(&config.string("directories", "plugins", &default));
        plugins.truncate(PLUGIN_DIRECTORIES_MAX);
        if plugins.is_empty() {
            plugins.push(PLUGINS_DIR.to_owned());
        }
        let plugins = plugins.into_iter().map(PathBuf::from).collect();
        let registry = dir("registry", &lib.join("registry"));
        Directories {
            config: user,
            stock_config,
            log,
            web,
            cache,
            lib,
            home,
            lock,
            registry,
            plugins,
        }
    }
}

impl DatabaseSettings {
    fn read(config: &Config) -> DatabaseSettings {
        let word = config.string("db", "mode", DEFAULT_MODE.name());
        let mode = Mode::parse(&word).unwrap_or_else(|| {
            log::error!("Invalid memory mode '{word}' given. Using '{}'", Mode::Save.name());
            config.set("db", "mode", Mode::Save.name());
            Mode::Save
        });
        let mut every = config.seconds("db", "update every", 1);
        if !(1..=UPDATE_EVERY_MAX).contains(&every) {
            log::error!(
                "Invalid data collection frequency (update every) {every} given. Defaulting to 1."
            );
            every = 1;
            config.set_number("db", "update every", every);
        }
        let history = match mode {
            // These have no entries to count, and do not ask.
            Mode::None | Mode::Dbengine => DEFAULT_HISTORY,
            _ => {
                let wanted = config.number("db", "retention", DEFAULT_HISTORY);
                let rounded = i64::from(mode.entries(wanted));
                if rounded != wanted {
                    config.set_number("db", "retention", rounded);
                }
                rounded
            }
        };
        let mut obsolete = config.seconds("db", "cleanup obsolete charts after secs", 3600);
        if obsolete < CLEANUP_OBSOLETE_MIN_S {
            log::info!(
                "The \"cleanup obsolete charts after secs\" option was set to {obsolete} seconds. \
                 Using {CLEANUP_OBSOLETE_MIN_S} seconds, the least that works."
            );
            obsolete = CLEANUP_OBSOLETE_MIN_S;
            config.set_number("db", "cleanup obsolete charts after secs", obsolete);
        }
        let mut gap_when_lost = config.number("db", "gap when lost iterations above", 1);
        if gap_when_lost < 1 {
            gap_when_lost = 1;
            config.set_number("db", "gap when lost iterations above", 1);
        }
        let lifecycle = lifecycle::Rules {
            obsolete_charts_after: obsolete,
            orphan_hosts_after: config
                .seconds("db", "cleanup orphan hosts after secs", 3600)
                .max(0),
            ephemeral_hosts_after: ephemeral_after(config),
            delete_chart_files: config.boolean("db", "delete obsolete charts files", true),
            delete_host_files: config.boolean("db", "delete orphan hosts files", true),
        };
        DatabaseSettings {
            update_every: UpdateEvery::clamped(every),
            mode,
            history,
            gap_when_lost,
            lifecycle,
        }
    }
}

/// Seconds after which an ephemeral host that left is forgotten; 0 = never, which newer releases spell `off`.
fn ephemeral_after(config: &Config) -> i64 {
    const OPTION: &str = "cleanup ephemeral hosts after";
    match config.string("db", OPTION, "off").as_str() {
        "off" | "never" | "no" => 0,
        _ => config.seconds("db", OPTION, 0).max(0),
    }
}

/// The name the kernel has for this machine.
fn kernel_hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// The dbengine options of `[db]`: those of 2.x, where none of the older ones is set.
///
/// An older size is shared out as it was then: half of it to each higher tier. The default times hold only where nobody
/// chose how much to keep. Without a host that `uses` the store nothing is asked for, so nothing is shown.
pub(super) fn store_settings(config: &Config, cache: &Path, uses: bool) -> store::Settings {
    const TIERS_MAX: i64 = 5;
    const BYTES: u64 = 1 << 30;
    const BYTES_MIN: u64 = 25 << 20;
    const OLD_BYTES: u64 = 256 << 20;
    const OLD_BYTES_MIN: u64 = 64 << 20;
    const DAY: u64 = 86_400;
    const TIMES: [u64; 5] = [14 * DAY, 90 * DAY, 730 * DAY, 730 * DAY, 730 * DAY];
    /// Samples in one point of a tier: its count has 16 bits.
    const GROUPING_MAX: u32 = 65_535;
    const OLD_SIZE: &str = "dbengine multihost disk space MB";
    const LATE_KEPT_S: i64 = 3600;

    let old = config.is_set("db", OLD_SIZE);
    let old_bytes = config.size("db", OLD_SIZE, OLD_BYTES, SizeUnit::Mebibytes).max(OLD_BYTES_MIN);
    let own = Config::new();
    let config = if uses { config } else { &own };
    let chosen = old
        || (1..TIERS_MAX).any(|tier| {
            ["multihost disk space MB", "retention size", "update every iterations"]
                .iter()
                .any(|option| config.is_set("db", &format!("dbengine tier {tier} {option}")))
        });
    let wanted = config.number("db", "storage tiers", 3);
    let count = wanted.clamp(1, TIERS_MAX);
    if count != wanted {
        config.set_number("db", "storage tiers", count);
    }
    let mut tiers = Vec::new();
    let mut grouping = 1;
    for (tier, time) in (0..count).zip(TIMES) {
        let name = |option: &str| format!("dbengine tier {tier} {option}");
        let iterations = match tier {
            0 => 1,
            _ => config.number("db", &name("update every iterations"), 60).clamp(2, 65_535),
        };
        let iterations = u32::try_from(iterations).unwrap_or(60);
        grouping *= iterations;
        if grouping > GROUPING_MAX {
            log::error!(
                "DBENGINE: tier {tier} would hold too many samples in a point, it is disabled."
            );
            break;
        }
        let old_name = name("multihost disk space MB");
        let bytes_max = if tier > 0 && (old || config.is_set("db", &old_name)) {
            config.size("db", &old_name, old_bytes >> tier, SizeUnit::Mebibytes)
        } else if old {
            old_bytes
        } else {
            match config.size("db", &name("retention size"), BYTES, SizeUnit::Mebibytes) {
                0 => 0,
                bytes => bytes.max(BYTES_MIN),
            }
        };
        let default = Duration::from_secs(if chosen { 0 } else { time });
        let time = config.duration("db", &name("retention time"), default, TimeUnit::Days);
        let seconds_max = i64::try_from(time.as_secs()).unwrap_or(0);
        // A limit that nobody asked for does not throw away what has just arrived.
        let own = config.is_set("db", &name("retention time"));
        let late_kept_s = if own { 0 } else { LATE_KEPT_S };
        tiers.push(store::TierSettings { iterations, bytes_max, seconds_max, late_kept_s });
    }
    let sync_every = config.seconds("db", "dbengine sync every", 5);
    store::Settings { cache: cache.to_owned(), tiers, sync_every }
}

/// What streaming goes by, as far as it can change in a running agent. Of `fixed` the rest stays.
pub(super) fn stream_rules(
    config: &Config,
    fixed: &ReceiverDefaults,
    conf: Arc<StreamConf>,
) -> Rules {
    let accept_every = config.seconds("web", "accept a streaming request every seconds", 0);
    Rules {
        conf,
        defaults: ReceiverDefaults {
            replication: config.boolean("db", "enable replication", true),
            seconds_to_replicate: config.seconds("db", "seconds to replicate", 86_400),
            seconds_per_replication_step: config.seconds("db", "seconds per replication step", 600),
            ..fixed.clone()
        },
        accept_every: Duration::from_secs(u64::try_from(accept_every).unwrap_or(0)),
    }
}

/// `[logs]`.
pub(super) fn log_options(config: &Config, directory: &Path) -> LogOptions {
    let flags = config.string("logs", "debug flags", "0x0000000000000000");
    let target = |name: &str| {
        let default = directory.join(format!("{name}.log"));
        Target::parse(&config.string("logs", name, &default.to_string_lossy()))
    };
    LogOptions {
        debug: target("debug"),
        error: target("error"),
        access: target("access"),
        health: target("health"),
        facility: config.string("logs", "facility", "daemon"),
        flood_period: config.duration(
            "logs",
            "errors flood protection period",
            FLOOD_PERIOD,
            TimeUnit::Seconds,
        ),
        flood_lines: u32::try_from(config.number(
            "logs",
            "errors to trigger flood protection",
            FLOOD_LINES,
        ))
        .unwrap_or(0),
        debugging: crate::config::number(&flags) != 0,
    }
}

/// Words separated by white space or commas; one in quotes may contain them.
fn quoted_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_separator);
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '\'' => rest[1..].split_once(first).unwrap_or((&rest[1..], "")),
            _ => rest.split_at(rest.find(is_separator).unwrap_or(rest.len())),
        };
        if !word.is_empty() {
            words.push(word.to_owned());
        }
        rest = after.trim_start_matches(is_separator);
    }
    words
}

fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | ',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Present;

    fn read(text: &str) -> (Settings, Config) {
        let config = Config::new();
        config.load_text(text, "test.conf", Present::Replace);
        (Settings::read(&config), config)
    }

    #[test]
    fn words_in_quotes_may_have_blanks() {
        assert_eq!(quoted_words("\"/a b\" '/c',/d  /e"), ["/a b", "/c", "/d", "/e"]);
        assert_eq!(quoted_words("\"unclosed x"), ["unclosed x"]);
        assert!(quoted_words(" , ").is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_corrected_and_shown_so() {
        let (settings, config) = read(
            "[db]\nmode = holographic\nupdate every = 700\nretention = 0x1001\n\
             cleanup obsolete charts after secs = 3\ngap when lost iterations above = 0\n",
        );
        assert_eq!(settings.database.mode, Mode::Save);
        assert_eq!(settings.database.update_every, UpdateEvery::SECOND);
        assert_eq!(settings.database.gap_when_lost, 1);
        let shown = config.render();
        for line in [
            "\tmode = save\n",
            "\tupdate every = 1\n",
            "\tcleanup obsolete charts after secs = 10\n",
            "\tgap when lost iterations above = 1\n",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
    }

    #[test]
    fn what_is_over_and_when_is_read_in_the_words_of_every_era() {
        let rules = |text: &str| read(text).0.database.lifecycle;
        let defaults = rules("");
        assert_eq!((defaults.obsolete_charts_after, defaults.orphan_hosts_after), (3600, 3600));
        assert_eq!(defaults.ephemeral_hosts_after, 0);
        assert!(defaults.delete_chart_files && defaults.delete_host_files);
        let set = rules(
            "[db]\ncleanup obsolete charts after secs = 20\ncleanup orphan hosts after secs = 5\n\
             cleanup ephemeral hosts after = 2h\ndelete orphan hosts files = no\n\
             delete obsolete charts files = no\n",
        );
        assert_eq!((set.obsolete_charts_after, set.orphan_hosts_after), (20, 5));
        assert_eq!(set.ephemeral_hosts_after, 7200);
        assert!(!set.delete_chart_files && !set.delete_host_files);
        assert_eq!(rules("[db]\ncleanup ephemeral hosts after = off\n").ephemeral_hosts_after, 0);
    }

    #[test]
    fn retention_is_rounded_to_whole_pages() {
        let (settings, config) = read("[db]\nmode = ram\nretention = 0x1001\n");
        assert_eq!(settings.database.history, 5120);
        assert_eq!(config.peek("db", "retention").as_deref(), Some("5120"));
        let (settings, config) = read("[db]\nmode = none\nretention = 7\n");
        assert_eq!(settings.database.history, DEFAULT_HISTORY);
        assert!(config.render().contains("# option 'retention' is not used."));
    }

    #[track_caller]
    fn check_tiers(text: &str, bytes_mib: &[u64], days: &[i64]) {
        let (_, config) = read(text);
        let settings = store_settings(&config, Path::new("/c"), true);
        let found: Vec<_> = settings.tiers.iter().map(|tier| tier.bytes_max >> 20).collect();
        assert_eq!(found, bytes_mib, "{text}");
        let found: Vec<_> = settings.tiers.iter().map(|tier| tier.seconds_max / 86_400).collect();
        assert_eq!(found, days, "{text}");
    }

    #[test]
    fn tiers_are_those_of_the_newest_era_unless_an_older_size_is_set() {
        check_tiers("", &[1024, 1024, 1024], &[14, 90, 730]);
        check_tiers("[db]\ndbengine multihost disk space MB = 512\n", &[512, 256, 128], &[0, 0, 0]);
        check_tiers("[db]\ndbengine multihost disk space MB = 1\n", &[64, 32, 16], &[0, 0, 0]);
        check_tiers("[db]\ndbengine tier 1 retention size = 1MiB\n", &[1024, 25, 1024], &[0, 0, 0]);
        check_tiers(
            "[db]\ndbengine tier 0 retention time = 1y\nstorage tiers = 1\n",
            &[1024],
            &[365],
        );
        check_tiers("[db]\nstorage tiers = 9\n", &[1024; 3], &[14, 90, 730]);
    }

    #[test]
    fn an_agent_without_a_store_does_not_show_its_options() {
        let (_, config) = read("");
        store_settings(&config, Path::new("/c"), false);
        assert!(!config.render().contains("storage tiers"));
    }

    #[test]
    fn directories_follow_each_other() {
        let (settings, _) = read("[directories]\nlib = /l\nconfig = /c\n");
        let dirs = settings.directories;
        assert_eq!((dirs.lock, dirs.registry), ("/l/lock".into(), "/l/registry".into()));
        assert_eq!(dirs.plugins[1], Path::new("/c/custom-plugins.d"));
    }
}
