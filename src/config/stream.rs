//! stream.conf: what this node sends, and what it lets others send to it.
//!
//! The more specific section wins: netdata.conf, then `[stream]`, then `[API_KEY]`, then `[MACHINE_GUID]`. Sections
//! named by a GUID are found without regard to the case of its letters.

use std::path::Path;
use std::time::Duration;

use super::changes::Change;
use super::document::{Config, LoadError, Present, Snapshot};
use super::keys;
use crate::base::ids::parse_uuid;
use crate::base::pattern::SimplePattern;

use super::options::{Names, STREAM_SENDER, receiver};
use super::values::{self, OnDemand, SizeUnit, TimeUnit};

/// Time-out of a sender when there is no stream.conf at all; the stock file says 60.
const TIMEOUT_WITHOUT_FILE_S: i64 = 600;
const TIMEOUT_S: i64 = 60;
const BUFFER_BYTES: u64 = 10 << 20;
const RECONNECT_DELAY_S: i64 = 5;
const CLOCK_RESYNC_ITERATIONS: i64 = 60;
const DEFAULT_PORT: u16 = 19999;
const ZSTD_LEVEL: i64 = 3;
const LZ4_ACCELERATION: i64 = 1;
const GZIP_LEVEL: i64 = 3;
/// Entries a receiver's database must at least have.
const HISTORY_MIN: i64 = 5;

/// The streaming configuration as it was read.
pub struct StreamConf {
    options: Config,
    from_file: bool,
}

/// `[stream]`: how this node sends.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderOptions {
    pub enabled: bool,
    /// The list as written.
    pub destination: String,
    pub api_key: String,
    /// For connecting and for sending.
    pub timeout: Duration,
    pub default_port: u16,
    /// A simple pattern over chart ids and names.
    pub send_charts_matching: String,
    pub buffer_bytes: u64,
    pub reconnect_delay: Duration,
    pub initial_clock_resync_iterations: i64,
    pub compression: bool,
    pub zstd_level: i64,
    pub lz4_acceleration: i64,
    pub gzip_level: i64,
    pub ssl_skip_certificate_verification: bool,
    pub ca_path: Option<String>,
    pub ca_file: Option<String>,
    /// Shown to a parent that asks for a certificate.
    pub ssl_key: Option<String>,
    pub ssl_certificate: Option<String>,
}

/// What netdata.conf says about hosts that stream to us, where stream.conf is silent.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverDefaults {
    /// `[db] mode`
    pub mode: String,
    /// `[db] retention`, entries.
    pub history: i64,
    pub health: OnDemand,
    pub replication: bool,
    pub seconds_to_replicate: i64,
    pub seconds_per_replication_step: i64,
}

/// Who may ask for samples that are held here over a connection that streams a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharePast {
    Yes,
    No,
    /// Whoever may read them through the API from the same address.
    WithReaders,
}

/// What is in force for one host that streams to us.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverOptions {
    /// As written: an unknown word is the caller's to refuse.
    pub mode: String,
    /// Entries, before rounding to the mode's pages.
    pub history: i64,
    pub health: OnDemand,
    pub postpone_alarms: Duration,
    pub proxy_enabled: bool,
    pub proxy_destination: String,
    pub proxy_api_key: String,
    pub proxy_send_charts_matching: String,
    pub compression: bool,
    /// Names of algorithms, the preferred one first.
    pub compression_order: Vec<String>,
    pub replication: bool,
    pub seconds_to_replicate: i64,
    pub seconds_per_replication_step: i64,
    /// Overrides what the child announces.
    pub update_every: Option<i64>,
    /// The child has to show a certificate of an authority of `[web] ssl client CA`.
    pub client_certificate: bool,
    /// Whether it may ask for samples of the host that are held here.
    pub share_the_past: SharePast,
    /// The host may be forgotten when it stays away.
    pub ephemeral: bool,
}

/// Why a known key or machine may not stream here. In the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The key's section is of another type.
    KeyIsNotApiKey,
    KeyNotEnabled,
    KeyNotAllowedFromHere,
    /// The machine's section is of another type.
    MachineIsNotMachine,
    MachineNotEnabled,
    MachineNotAllowedFromHere,
}

impl StreamConf {
    /// Reads the user's file, or the stock one when there is none; the two are never merged.
    pub fn load(user: &Path, stock: &Path) -> StreamConf {
        let options = Config::new();
        let mut from_file = false;
        for (path, kind, next) in [
            (user, "user", "Will try stock config."),
            (stock, "stock", "Running with internal defaults."),
        ] {
            match options.load(path, Present::Replace) {
                Ok(()) => {
                    from_file = true;
                    break;
                }
                Err(LoadError::Read { source, .. }) => log::info!(
                    "CONFIG: cannot load {kind} config '{}'. {next}{}",
                    path.display(),
                    match source.kind() {
                        std::io::ErrorKind::NotFound => String::new(),
                        _ => format!(" ({source})"),
                    }
                ),
                Err(error) => log::error!("CONFIG: {error}. {next}"),
            }
        }
        StreamConf::new(options, from_file)
    }

    /// Reads the files again while their contents are in force: what cannot be meant so is an error, also that the user's
    /// file is gone after it `was_users`. `is_mode` knows the database modes.
    pub fn reread(
        user: &Path,
        stock: &Path,
        was_users: bool,
        is_mode: fn(&str) -> bool,
    ) -> Result<StreamConf, Vec<String>> {
        let path = if was_users || user.exists() { user } else { stock };
        if path == stock && !stock.exists() {
            return Ok(StreamConf::new(Config::new(), false));
        }
        let conf = StreamConf::new(Config::load_whole(path)?, true);
        match conf.faults(is_mode) {
            faults if faults.is_empty() => Ok(conf),
            faults => {
                let file = path.display();
                Err(faults.into_iter().map(|fault| format!("'{file}': {fault}")).collect())
            }
        }
    }

    /// What is set in the file.
    pub fn snapshot(&self) -> Snapshot {
        self.options.snapshot()
    }

    /// What makes no sense although every line does.
    fn faults(&self, is_mode: fn(&str) -> bool) -> Vec<String> {
        let mut faults = Vec::new();
        for ((section, name), value) in self.snapshot() {
            let is_key_section = keys::section_name(&section).is_some();
            let is_duration = receiver::TIMES.iter().any(|names| names.has(&name));
            let wrong = match name.as_str() {
                _ if value.is_empty() => None,
                "api key" | "default proxy api key" | "proxy api key" => parse_uuid(&value)
                    .is_err()
                    .then_some("is no GUID (netdatacli key new makes one)"),
                "timeout"
                | "timeout seconds"
                | "reconnect delay"
                | "reconnect delay seconds"
                | "buffer size"
                | "buffer size bytes"
                | "default port"
                    if !values::is_quantity(&value) =>
                {
                    Some("is no number")
                }
                "type" if is_key_section && !["api", "machine"].contains(&value.as_str()) => {
                    Some("is neither 'api' nor 'machine'")
                }
                name if is_key_section && receiver::MODE.has(name) && !is_mode(&value) => {
                    Some("is no database mode")
                }
                _ if is_key_section && is_duration && !values::is_quantity(&value) => {
                    Some("is no number")
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                let at = Change { section, name, old: None, new: Some(value) };
                faults.push(format!("{}: {wrong}", at.as_set()));
            }
        }
        let sender = self.sender();
        if sender.enabled && sender.destination.trim().is_empty() {
            faults.push("[stream] is enabled and has no 'destination'".to_owned());
        }
        if sender.enabled && sender.api_key.is_empty() {
            faults.push("[stream] is enabled and has no 'api key'".to_owned());
        }
        faults
    }

    /// The options of a section that somebody asked for.
    #[cfg(test)]
    pub(super) fn asked(&self, section: &str) -> Vec<String> {
        self.options.asked(section)
    }

    /// From text, for tests and tools.
    pub fn from_text(text: &str) -> StreamConf {
        let options = Config::new();
        options.load_text(text, "stream.conf", Present::Replace);
        StreamConf::new(options, true)
    }

    fn new(options: Config, from_file: bool) -> StreamConf {
        options.rename_sections(keys::section_name);
        for alias in options.migrate(STREAM_SENDER) {
            log::info!("CONFIG: stream.conf: {alias}.");
        }
        let conf = StreamConf { options, from_file };
        conf.name_aliases();
        conf
    }

    /// One line for each spelling that is not that of 1.37.
    fn name_aliases(&self) {
        for section in self.guid_sections() {
            for names in receiver::ALL {
                for also in names.also.iter().filter(|also| self.options.is_set(&section, also)) {
                    let known = names.key;
                    log::info!("CONFIG: stream.conf: [{section}] '{also}' is read as '{known}'.");
                }
            }
        }
    }

    fn guid_sections(&self) -> impl Iterator<Item = String> {
        self.options.sections().into_iter().filter(|name| keys::section_name(name).is_some())
    }

    /// What `[stream]` asks for.
    pub fn sender(&self) -> SenderOptions {
        let o = &self.options;
        let s = "stream";
        let timeout = if self.from_file { TIMEOUT_S } else { TIMEOUT_WITHOUT_FILE_S };
        let seconds = |name, default: i64| {
            Duration::from_secs(u64::try_from(o.seconds(s, name, default)).unwrap_or(0))
        };
        let text = |name| Some(o.string(s, name, "")).filter(|text| !text.is_empty());
        SenderOptions {
            enabled: o.boolean(s, "enabled", false),
            destination: o.string(s, "destination", ""),
            api_key: o.string(s, "api key", ""),
            timeout: seconds("timeout seconds", timeout),
            default_port: u16::try_from(o.number(s, "default port", DEFAULT_PORT.into()))
                .ok()
                .filter(|&port| port != 0)
                .unwrap_or(DEFAULT_PORT),
            send_charts_matching: o.string(s, "send charts matching", "*"),
            buffer_bytes: o.size(s, "buffer size bytes", BUFFER_BYTES, SizeUnit::Bytes),
            reconnect_delay: seconds("reconnect delay seconds", RECONNECT_DELAY_S),
            initial_clock_resync_iterations: o.number(
                s,
                "initial clock resync iterations",
                CLOCK_RESYNC_ITERATIONS,
            ),
            compression: self.stream_compression(),
            zstd_level: o.number(s, "zstd compression level", ZSTD_LEVEL),
            lz4_acceleration: o.number(s, "lz4 compression acceleration", LZ4_ACCELERATION),
            gzip_level: o.number(s, "gzip compression level", GZIP_LEVEL),
            ssl_skip_certificate_verification: o.boolean(
                s,
                "ssl skip certificate verification",
                false,
            ),
            ca_path: text("CApath"),
            ca_file: text("CAfile"),
            ssl_key: text("ssl key"),
            ssl_certificate: text("ssl certificate"),
        }
    }

    fn stream_compression(&self) -> bool {
        self.options.boolean("stream", "enable compression", true)
    }

    /// True when some key may stream here, which makes the node a parent.
    pub fn is_parent(&self) -> bool {
        self.guid_sections().any(|section| {
            let value = self.options.peek(&section, receiver::ENABLED.key);
            value.is_some_and(|text| values::boolean(&text))
        })
    }

    /// True when an enabled section asks for the given memory mode.
    pub fn wants_mode(&self, mode: &str) -> bool {
        self.guid_sections().any(|section| {
            let enabled = self.options.peek(&section, receiver::ENABLED.key);
            enabled.is_some_and(|text| values::boolean(&text))
                && self.find(&section, &receiver::MODE, Kind::Key).is_some_and(|text| text == mode)
        })
    }

    /// The `type` of a section, for telling a peer's operator what it was mistaken for.
    pub fn type_of(&self, guid: &str) -> String {
        let section = self.section_of_key(guid);
        section
            .and_then(|section| self.options.peek(&section, receiver::TYPE.key))
            .unwrap_or_default()
    }

    /// Where the options of an API key stand; `None` for one that is not known.
    fn section_of_key(&self, api_key: &str) -> Option<String> {
        keys::section_of(api_key, &self.options.sections())
    }

    /// Whether a key and a machine, both GUIDs, may stream from a peer whose address has this text
    /// (see [`crate::base::pattern::address_text`]).
    pub fn admit(&self, api_key: &str, machine: &str, peer: &str) -> Result<(), Denied> {
        let machine = machine.to_ascii_lowercase();
        let Some(key) = self.section_of_key(api_key) else { return Err(Denied::KeyNotEnabled) };
        let o = &self.options;
        let is_of = |section: &str, kind: &str| {
            o.peek(section, receiver::TYPE.key).is_none_or(|text| text.is_empty() || text == kind)
        };
        let enabled = |section: &str, default| {
            o.peek(section, receiver::ENABLED.key).map_or(default, |text| values::boolean(&text))
        };
        let allowed = |section: &str| {
            let list = o.peek(section, receiver::ALLOW_FROM.key);
            list.is_none_or(|list| SimplePattern::new(&list).matches(peer))
        };
        let checks: [(bool, Denied); 6] = [
            (is_of(&key, "api"), Denied::KeyIsNotApiKey),
            (enabled(&key, false), Denied::KeyNotEnabled),
            (allowed(&key), Denied::KeyNotAllowedFromHere),
            (is_of(&machine, "machine"), Denied::MachineIsNotMachine),
            (enabled(&machine, true), Denied::MachineNotEnabled),
            (allowed(&machine), Denied::MachineNotAllowedFromHere),
        ];
        checks.iter().find(|(passed, _)| !passed).map_or(Ok(()), |&(_, denied)| Err(denied))
    }

    /// What is in force for a host that streams to us under this key.
    pub fn receiver(
        &self,
        api_key: &str,
        machine: &str,
        defaults: &ReceiverDefaults,
    ) -> ReceiverOptions {
        let (key, machine) = (self.section_of_key(api_key), machine.to_ascii_lowercase());
        let find = |names: &Names| {
            self.find(&machine, names, Kind::Machine)
                .or_else(|| self.find(key.as_deref()?, names, Kind::Key))
        };
        // On-demand words that are none leave the less specific value in force.
        let health = [
            self.find(&machine, &receiver::HEALTH, Kind::Machine),
            key.as_deref().and_then(|key| self.find(key, &receiver::HEALTH, Kind::Key)),
        ]
        .into_iter()
        .flatten()
        .find_map(|text| OnDemand::parse(&text));
        let seconds = |names, default: i64| {
            find(names).map_or(default, |text| {
                let time = values::duration(&text, TimeUnit::Seconds);
                i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
            })
        };
        let flag = |names, default| find(names).map_or(default, |text| values::boolean(&text));
        let sender = self.sender();
        let update_every = [Some(&machine), key.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|section| self.options.peek(section, receiver::UPDATE_EVERY.key))
            .map(|text| values::number(&text))
            .filter(|&seconds| seconds > 0);
        ReceiverOptions {
            mode: find(&receiver::MODE).unwrap_or_else(|| defaults.mode.clone()),
            history: find(&receiver::HISTORY)
                .map_or(defaults.history, |text| values::number(&text))
                .max(HISTORY_MIN),
            health: health.unwrap_or(defaults.health),
            postpone_alarms: Duration::from_secs(
                u64::try_from(seconds(&receiver::POSTPONE, 60)).unwrap_or(0),
            ),
            proxy_enabled: flag(&receiver::PROXY_ENABLED, sender.enabled),
            proxy_destination: find(&receiver::PROXY_DESTINATION).unwrap_or(sender.destination),
            proxy_api_key: find(&receiver::PROXY_API_KEY).unwrap_or(sender.api_key),
            proxy_send_charts_matching: find(&receiver::PROXY_CHARTS)
                .unwrap_or(sender.send_charts_matching),
            // A machine or key saying yes does not override [stream] saying no.
            compression: self.stream_compression() && flag(&receiver::COMPRESSION, true),
            compression_order: find(&receiver::COMPRESSION_ORDER)
                .unwrap_or_default()
                .split([' ', '\t', ','])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            replication: flag(&receiver::REPLICATION, defaults.replication),
            seconds_to_replicate: seconds(&receiver::REPLICATE, defaults.seconds_to_replicate),
            seconds_per_replication_step: seconds(
                &receiver::REPLICATION_STEP,
                defaults.seconds_per_replication_step,
            ),
            update_every,
            client_certificate: flag(&receiver::CLIENT_CERTIFICATE, false),
            share_the_past: match find(&receiver::SHARE_THE_PAST).as_deref() {
                None | Some("auto") => SharePast::WithReaders,
                Some(text) if values::boolean(text) => SharePast::Yes,
                Some(_) => SharePast::No,
            },
            ephemeral: flag(&receiver::EPHEMERAL, false),
        }
    }

    /// The value under the name of the section's kind, else under any other spelling.
    fn find(&self, section: &str, names: &Names, kind: Kind) -> Option<String> {
        let (first, second) = match kind {
            Kind::Key => (names.key, names.machine),
            Kind::Machine => (names.machine, names.key),
        };
        [first, second].iter().chain(names.also).find_map(|name| self.options.peek(section, name))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Key,
    Machine,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "11111111-2222-3333-4444-555555555555";
    const MACHINE: &str = "aaaaaaaa-2222-3333-4444-bbbbbbbbbbbb";

    fn defaults() -> ReceiverDefaults {
        ReceiverDefaults {
            mode: "dbengine".to_owned(),
            history: 3600,
            health: OnDemand::Auto,
            replication: true,
            seconds_to_replicate: 86_400,
            seconds_per_replication_step: 600,
        }
    }

    fn receiver(text: &str) -> ReceiverOptions {
        StreamConf::from_text(text).receiver(KEY, MACHINE, &defaults())
    }

    #[test]
    fn without_sections_netdata_conf_decides() {
        let options = receiver("");
        assert_eq!((options.mode.as_str(), options.history), ("dbengine", 3600));
        assert!(options.compression && options.replication && !options.proxy_enabled);
        assert_eq!(options.health, OnDemand::Auto);
    }

    #[test]
    fn a_hashed_key_admits_like_a_plain_one_and_its_hash_does_not() {
        let hash = keys::hashed(KEY);
        let conf = StreamConf::from_text(&format!(
            "[{hash}]\nenabled = yes\nallow from = 10.*\ndefault history = 777\n"
        ));
        assert!(conf.is_parent());
        assert_eq!(conf.admit(&KEY.to_ascii_uppercase(), MACHINE, "10.1.2.3"), Ok(()));
        assert_eq!(conf.admit(KEY, MACHINE, "11.1.2.3"), Err(Denied::KeyNotAllowedFromHere));
        let other = KEY.replace('5', "6");
        for no_key in [&other, &hash, &hash["sha256:".len()..], ""] {
            assert_eq!(
                conf.admit(no_key, MACHINE, "10.1.2.3"),
                Err(Denied::KeyNotEnabled),
                "{no_key}"
            );
        }
        let defaults = ReceiverDefaults { history: 5, ..defaults() };
        assert_eq!(conf.receiver(KEY, MACHINE, &defaults).history, 777);
        // Options before any section are nobody's.
        let loose = StreamConf::from_text(&format!("enabled = yes\n[{hash}]\nenabled = yes\n"));
        assert_eq!(loose.admit(&other, MACHINE, ""), Err(Denied::KeyNotEnabled));
        // A key that is plain and hashed goes by its plain section, which may disable it.
        let both = format!("[{KEY}]\nenabled = no\n[{hash}]\nenabled = yes\n");
        assert_eq!(
            StreamConf::from_text(&both).admit(KEY, MACHINE, ""),
            Err(Denied::KeyNotEnabled)
        );
    }

    #[test]
    fn the_past_is_shared_with_readers_unless_a_section_says_otherwise() {
        let of = |text: &str| receiver(text).share_the_past;
        assert_eq!(of(""), SharePast::WithReaders);
        assert_eq!(of(&format!("[{KEY}]\nshare the past = auto\n")), SharePast::WithReaders);
        assert_eq!(of(&format!("[{KEY}]\nshare the past = no\n")), SharePast::No);
        let both = format!("[{KEY}]\nshare the past = no\n[{MACHINE}]\nshare the past = yes\n");
        assert_eq!(of(&both), SharePast::Yes);
    }

    #[test]
    fn the_more_specific_section_wins() {
        let options = receiver(&format!(
            "[stream]\nenabled=yes\ndestination=up\n[{KEY}]\ndefault history = 100\n\
             default memory mode = ram\ndefault proxy destination = other\n\
             [{MACHINE}]\nmemory mode = none\nhealth enabled = maybe\n"
        ));
        assert_eq!((options.mode.as_str(), options.history), ("none", 100));
        assert!(options.proxy_enabled);
        assert_eq!(options.proxy_destination, "other");
        assert_eq!(options.health, OnDemand::Auto);
    }

    #[test]
    fn sections_are_found_in_any_case_of_letters() {
        let conf = StreamConf::from_text(&format!("[{}]\nenabled = yes\n", MACHINE.to_uppercase()));
        assert_eq!(conf.admit(MACHINE, KEY, "localhost"), Ok(()));
        assert_eq!(conf.admit(&MACHINE.to_uppercase(), KEY, "localhost"), Ok(()));
        assert!(conf.is_parent());
    }

    #[test]
    fn every_era_spells_it_differently() {
        for (name, check) in [("default memory", "ram"), ("db", "ram"), ("memory mode", "ram")] {
            assert_eq!(receiver(&format!("[{KEY}]\n{name} = ram\n")).mode, check, "{name}");
        }
        assert_eq!(
            receiver(&format!("[{KEY}]\nreplication_step = 10m\n")).seconds_per_replication_step,
            600
        );
        assert_eq!(receiver(&format!("[{KEY}]\nretention = 50\n")).history, 50);
        assert!(receiver(&format!("[{MACHINE}]\nis ephemeral node = yes\n")).ephemeral);
        assert!(!receiver("").ephemeral);
        let sender = StreamConf::from_text(
            "[stream]\ntimeout = 5m\nbuffer size = 1MiB\nreconnect delay = 15s\n",
        )
        .sender();
        assert_eq!(sender.timeout, Duration::from_secs(300));
        assert_eq!(sender.buffer_bytes, 1 << 20);
        assert_eq!(sender.reconnect_delay, Duration::from_secs(15));
    }

    #[test]
    fn compression_needs_the_consent_of_the_stream_section() {
        let yes =
            format!("[stream]\nenable compression = no\n[{MACHINE}]\nenable compression = yes\n");
        assert!(!receiver(&yes).compression);
        let no = format!("[{KEY}]\nenable compression = no\n");
        assert!(!receiver(&no).compression);
        let both = format!("{no}[{MACHINE}]\nenable compression = yes\n");
        assert!(receiver(&both).compression);
    }

    #[test]
    fn admission_is_checked_in_order() {
        let conf = StreamConf::from_text(&format!(
            "[{KEY}]\nenabled = yes\nallow from = !127.0.0.6 127.* localhost\n[{MACHINE}]\nallow from = localhost\n"
        ));
        assert_eq!(conf.admit(KEY, MACHINE, "localhost"), Ok(()));
        assert_eq!(conf.admit(KEY, MACHINE, "127.0.0.6"), Err(Denied::KeyNotAllowedFromHere));
        assert_eq!(conf.admit(KEY, MACHINE, "127.0.0.7"), Err(Denied::MachineNotAllowedFromHere));
        assert_eq!(conf.admit(MACHINE, KEY, "localhost"), Err(Denied::KeyNotEnabled));
        let typed = StreamConf::from_text(&format!(
            "[{KEY}]\ntype = machine\nenabled = yes\n[{MACHINE}]\ntype = api\nenabled = yes\n"
        ));
        assert_eq!(typed.admit(KEY, MACHINE, "x"), Err(Denied::KeyIsNotApiKey));
        assert_eq!(typed.admit(MACHINE, MACHINE, "x"), Err(Denied::MachineIsNotMachine));
    }

    #[test]
    fn what_cannot_be_meant_is_found_when_a_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (user, stock) = (dir.path().join("stream.conf"), dir.path().join("none"));
        let is_mode = |word: &str| ["ram", "dbengine"].contains(&word);
        let read = |text: &str| {
            std::fs::write(&user, text).unwrap();
            let read = StreamConf::reread(&user, &stock, true, is_mode);
            read.map(|conf| conf.snapshot().len()).map_err(|faults| faults.join("; "))
        };
        let whole = format!("[stream]\nenabled = yes\ndestination = h\napi key = {KEY}\n");
        assert_eq!(read(&format!("{whole}[{KEY}]\nenabled = yes\ndb = ram\n[API_KEY]\n")), Ok(5));
        for (text, fault) in [
            ("[stream]\nenabled\n".to_owned(), "line 2 has no ="),
            ("enabled = yes\n".to_owned(), "line 1 is outside all sections"),
            ("[stream]\nenabled = yes\n".to_owned(), "has no 'destination'"),
            (whole.replace(KEY, "secret-word-that-is-long"), "'secret-w...': is no GUID"),
            (format!("[{KEY}]\ndefault memory mode = rma\n"), "is no database mode"),
            (format!("[{KEY}]\nseconds to replicate = soon\n"), "'soon': is no number"),
            (format!("[{KEY}]\ntype = apy\n"), "neither 'api' nor 'machine'"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(fault) && !told.contains("that-is-long"), "{text}: {told}");
            assert!(!told.contains(KEY), "{told}");
        }
        std::fs::remove_file(&user).unwrap();
        assert!(StreamConf::reread(&user, &stock, true, is_mode).is_err(), "revoked everything");
        assert!(StreamConf::reread(&user, &stock, false, is_mode).is_ok());
    }

    #[test]
    fn a_sender_without_a_file_waits_longer() {
        let nowhere = Path::new("/nowhere/stream.conf");
        let sender = StreamConf::load(nowhere, nowhere).sender();
        assert_eq!(sender.timeout, Duration::from_secs(600));
        assert!(!sender.enabled);
        assert_eq!(StreamConf::from_text("").sender().timeout, Duration::from_secs(60));
    }
}
