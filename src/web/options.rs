//! The options of `[web]` and `[registry]`, read once at start.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::sys;
use crate::config::Config;
use crate::net::listen::{BindItem, parse_bind};
use crate::net::tls::ServerOptions;
use crate::web::registry;

const PORT: u16 = 19999;
const BACKLOG: i64 = 4096;
/// Files that stay free for everything else that is not a connection.
const SOCKETS_MIN: usize = 16;

#[derive(Clone, Debug)]
pub struct Options {
    /// `[web] mode` is not `none`.
    pub enabled: bool,
    pub bind: Vec<BindItem>,
    pub backlog: i32,
    /// Connections at one time, streams included.
    pub sockets_max: usize,
    pub tls: ServerOptions,
    pub first_request: Duration,
    pub idle: Duration,
    pub do_not_track: bool,
    pub frame_options: String,
    /// The level, when answers may be compressed.
    pub gzip: Option<u32>,
    /// `[directories] web`
    pub directory: PathBuf,
    pub custom_dashboard_info: String,
    /// `stable` or `nightly`, as dashboards show it.
    pub release_channel: &'static str,
    pub registry_to_announce: String,
    pub registry_hostname: String,
    pub registry: registry::Settings,
    /// Holds the token of `manage/health`.
    pub api_key_file: PathBuf,
}

impl Options {
    /// `hostname` and `lib` are the agent's own.
    pub fn from_config(config: &Config, hostname: &str, lib: &str) -> Self {
        let web = |name: &str, default: i64| config.number("web", name, default);
        let seconds = |name: &str, default: i64| {
            let time = config.seconds("web", name, default);
            Duration::from_secs(u64::try_from(time.max(1)).unwrap_or(1))
        };
        let mode = config.string("web", "mode", "static-threaded");
        let enabled = mode != "none";
        if enabled && mode != "static-threaded" {
            config.set("web", "mode", "static-threaded");
        }
        let port = web("default port", i64::from(PORT));
        let port = match u16::try_from(port) {
            Ok(port) if port > 0 => port,
            _ => {
                config.set_number("web", "default port", i64::from(PORT));
                PORT
            }
        };
        let sockets = i64::try_from(sys::open_files_limit() / 4).unwrap_or(i64::MAX);
        let level = web("gzip compression level", 3).clamp(1, 9);
        let gzip = config.boolean("web", "enable gzip compression", true);
        let processors = std::thread::available_parallelism().map_or(1, usize::from).min(6);
        // Accepted, and of no effect: every connection has its thread.
        web("web server threads", i64::try_from(processors).unwrap_or(1));
        config.string("web", "gzip compression strategy", "default");
        Options {
            enabled,
            bind: parse_bind(&config.string("web", "bind to", "*"), port),
            backlog: i32::try_from(web("listen backlog", BACKLOG).max(1)).unwrap_or(i32::MAX),
            sockets_max: usize::try_from(web("web server max sockets", sockets))
                .unwrap_or(SOCKETS_MIN)
                .max(SOCKETS_MIN),
            tls: tls_options(config),
            first_request: seconds("timeout for first request", 60),
            idle: seconds("disconnect idle clients after seconds", 60),
            do_not_track: config.boolean("web", "respect do not track policy", false),
            frame_options: config.string("web", "x-frame-options response header", ""),
            gzip: gzip.then(|| u32::try_from(level).unwrap_or(3)),
            directory: config.path("directories", "web", "/usr/share/netdata/web"),
            custom_dashboard_info: config.string("web", "custom dashboard_info.js", ""),
            release_channel: release_channel(config),
            registry_to_announce: config.string(
                "registry",
                "registry to announce",
                "https://registry.my-netdata.io",
            ),
            registry_hostname: config.string("registry", "registry hostname", hostname),
            registry: registry::Settings::from_config(
                config,
                &config
                    .peek("directories", "registry")
                    .unwrap_or_else(|| format!("{lib}/registry")),
            ),
            api_key_file: config.path(
                "registry",
                "netdata management api key file",
                format!("{lib}/netdata.api.key"),
            ),
        }
    }
}

/// What clients of TLS are shown.
pub fn tls_options(config: &Config) -> ServerOptions {
    let config_dir = PathBuf::from(config.peek("directories", "config").unwrap_or_default());
    let client_authorities = config.string("web", "ssl client CA", "");
    ServerOptions {
        key: config.path("web", "ssl key", config_dir.join("ssl/key.pem")),
        certificate: config.path("web", "ssl certificate", config_dir.join("ssl/cert.pem")),
        version: config.string("web", "tls version", "1.3"),
        ciphers: config.string("web", "tls ciphers", "none"),
        client_authorities: Some(client_authorities)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    }
}

/// What an installer noted in the configuration directory; without a note, `stable`.
fn release_channel(config: &Config) -> &'static str {
    const NOTE_BYTES_MAX: u64 = 64 * 1024;
    let mut note = String::new();
    let directory = config.peek("directories", "config").unwrap_or_default();
    // Without a file, or with one that is no text, nothing is noted.
    let _ = File::open(Path::new(&directory).join(".environment"))
        .and_then(|file| file.take(NOTE_BYTES_MAX).read_to_string(&mut note));
    let value = note.lines().find_map(|line| line.trim().strip_prefix("RELEASE_CHANNEL="));
    match value.map(|value| value.trim_matches('"')) {
        Some("nightly") => "nightly",
        _ => "stable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Present;

    fn options(text: &str) -> (Config, Options) {
        let config = Config::new();
        config.load_text(text, "test", Present::Replace);
        let options = Options::from_config(&config, "h", "/lib");
        (config, options)
    }

    #[test]
    fn old_words_for_the_mode_are_static_threaded() {
        let (config, options) = options("[web]\nmode = multi-threaded\n");
        assert!(options.enabled);
        assert_eq!(config.peek("web", "mode").as_deref(), Some("static-threaded"));
        assert!(!self::options("[web]\nmode = none\n").1.enabled);
    }

    #[test]
    fn an_installer_may_note_the_release_channel() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[directories]\nconfig = {}\n", dir.path().display());
        assert_eq!(options(&text).1.release_channel, "stable");
        std::fs::write(dir.path().join(".environment"), "A=b\nRELEASE_CHANNEL=\"nightly\"\n")
            .unwrap();
        assert_eq!(options(&text).1.release_channel, "nightly");
    }

    #[test]
    fn what_cannot_be_used_falls_back() {
        let (_, options) = options(
            "[web]\ndefault port = 70000\nweb server max sockets = -3\ngzip compression level = 99\n\
             disconnect idle clients after seconds = 0\n",
        );
        assert_eq!(options.bind, parse_bind("*", 19999));
        assert_eq!((options.sockets_max, options.gzip), (SOCKETS_MIN, Some(9)));
        assert_eq!(options.idle, Duration::from_secs(1));
    }
}
