//! exporting.conf: which other databases get our samples, and how; and `[backend]` of netdata.conf, its forerunner.
//!
//! One section per instance, `[TYPE:NAME]`; what it leaves out is taken from `[exporting:global]`. The options, their
//! names and defaults stand in [`options::exporting`](super::options).

use std::path::Path;
use std::time::Duration;

use super::document::{Config, LoadError, Present};
use super::options::exporting as option;
use super::options::exporting::Named;
use super::values;

/// The section that gives instances what they do not say themselves.
const GLOBAL: &str = "exporting:global";
const PROMETHEUS: &str = "prometheus:exporter";
const BACKEND: &str = "backend";
/// Instances of one file; more are refused.
const INSTANCES_MAX: usize = 64;
/// Seconds between two batches at most.
const UPDATE_EVERY_MAX: i64 = 86_400;

/// The language a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Graphite,
    OpenTsdb,
    Json,
    RemoteWrite,
}

/// How its text travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Lines over a TCP connection, unanswered.
    Lines,
    Http,
    Https,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connector {
    pub dialect: Dialect,
    pub carrier: Carrier,
}

impl Connector {
    fn parse(word: &str) -> Result<Connector, Unusable> {
        let (dialect, rest) = match word.split_once(':') {
            Some((dialect, rest)) => (dialect, Some(rest)),
            None => (word, None),
        };
        let (dialect, lines) = match dialect {
            "graphite" => (Dialect::Graphite, Some("plaintext")),
            "opentsdb" => (Dialect::OpenTsdb, Some("telnet")),
            "json" => (Dialect::Json, Some("plaintext")),
            "prometheus_remote_write" => (Dialect::RemoteWrite, None),
            "kinesis" => return Err(Unusable::NotBuilt("AWS Kinesis")),
            "pubsub" => return Err(Unusable::NotBuilt("Google Cloud Pub/Sub")),
            "mongodb" => return Err(Unusable::NotBuilt("MongoDB")),
            _ => return Err(Unusable::Unknown),
        };
        let carrier = match rest {
            None if lines.is_some() => Carrier::Lines,
            None | Some("http") => Carrier::Http,
            Some("https") => Carrier::Https,
            Some(word) if Some(word) == lines => Carrier::Lines,
            Some(_) => return Err(Unusable::Unknown),
        };
        Ok(Connector { dialect, carrier })
    }

    /// As log lines and `/api/v1/info` name it.
    pub fn name(self) -> &'static str {
        use Carrier::{Http, Https, Lines};
        use Dialect::{Graphite, Json, OpenTsdb, RemoteWrite};
        match (self.dialect, self.carrier) {
            (Graphite, Lines) => "graphite",
            (Graphite, Http) => "graphite:http",
            (Graphite, Https) => "graphite:https",
            (OpenTsdb, Lines) => "opentsdb",
            (OpenTsdb, Http) => "opentsdb:http",
            (OpenTsdb, Https) => "opentsdb:https",
            (Json, Lines) => "json",
            (Json, Http) => "json:http",
            (Json, Https) => "json:https",
            (RemoteWrite, Https) => "prometheus_remote_write:https",
            (RemoteWrite, _) => "prometheus_remote_write",
        }
    }

    /// Where a destination names no port.
    pub fn default_port(self) -> u16 {
        match self.dialect {
            Dialect::Graphite => 2003,
            Dialect::OpenTsdb => 4242,
            Dialect::Json => 5448,
            Dialect::RemoteWrite => 9090,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unusable {
    Unknown,
    NotBuilt(&'static str),
}

/// What of a metric is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// The integers that collectors gave.
    AsCollected,
    /// Of the samples since the last batch.
    Average,
    Sum,
}

impl DataSource {
    /// In every spelling that is known.
    pub fn parse(word: &str) -> Option<DataSource> {
        Some(match word {
            "as collected" | "as-collected" | "as_collected" | "ascollected" | "raw" => {
                DataSource::AsCollected
            }
            "average" => DataSource::Average,
            "sum" | "volume" => DataSource::Sum,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            DataSource::AsCollected => "as collected",
            DataSource::Average => "average",
            DataSource::Sum => "sum",
        }
    }

    fn or_average(word: &str) -> DataSource {
        DataSource::parse(word).unwrap_or_else(|| {
            log::error!("EXPORTING: invalid data source method '{word}'. Using 'average'");
            DataSource::Average
        })
    }
}

/// Which version of remote write is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteVersion {
    /// 2.0 where the server says that it takes it, 1.0 otherwise.
    Auto,
    One,
    Two,
}

impl WriteVersion {
    fn or_auto(word: &str) -> WriteVersion {
        match word {
            "auto" => WriteVersion::Auto,
            "1" | "1.0" => WriteVersion::One,
            "2" | "2.0" => WriteVersion::Two,
            _ => {
                log::error!("EXPORTING: invalid remote write version '{word}'. Using 'auto'");
                WriteVersion::Auto
            }
        }
    }
}

/// What one instance is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceOptions {
    pub name: String,
    pub connector: Connector,
    /// The list as written.
    pub destination: String,
    pub source: DataSource,
    pub prefix: String,
    /// What the local host is called; `None` for its own name.
    pub hostname: Option<String>,
    pub update_every: i64,
    /// Batches kept in memory where they cannot be made again.
    pub buffer_on_failures: usize,
    pub timeout: Duration,
    pub send_names: bool,
    /// A simple pattern on ids and names.
    pub charts: String,
    pub hosts: String,
    pub configured_labels: bool,
    pub automatic_labels: bool,
    pub variables: bool,
    pub username: String,
    pub password: String,
    /// Of remote write.
    pub url_path: String,
    /// Names and values that every request has besides its own.
    pub headers: Vec<(String, String)>,
    /// Names and values that every series of remote write has besides its own.
    pub external_labels: Vec<(String, String)>,
    pub write_version: WriteVersion,
    /// Of the local host; only `[backend]` has them.
    pub host_tags: String,
    pub tls_skip_verification: bool,
    pub ca_path: Option<String>,
    pub ca_file: Option<String>,
}

/// `[prometheus:exporter]`: what `/api/v1/allmetrics` does unless it is asked for something else.
#[derive(Clone, Debug, PartialEq)]
pub struct PrometheusOptions {
    pub source: DataSource,
    pub prefix: String,
    pub update_every: i64,
    pub send_names: bool,
    pub charts: String,
    pub hosts: String,
    pub configured_labels: bool,
    pub automatic_labels: bool,
}

/// The file as it was read.
pub struct ExportingConf {
    options: Config,
}

impl ExportingConf {
    /// Reads the user's file, or the stock one when there is none; the two are never merged.
    pub fn load(user: &Path, stock: &Path) -> ExportingConf {
        let options = Config::new();
        for (path, kind, next) in [
            (user, "user", "Will try stock config."),
            (stock, "stock", "Running with internal defaults."),
        ] {
            match options.load(path, Present::Replace) {
                Ok(()) => break,
                Err(LoadError::Read { .. }) => {
                    log::info!("CONFIG: cannot load {kind} config '{}'. {next}", path.display());
                }
                Err(error) => log::error!("CONFIG: {error}. {next}"),
            }
        }
        ExportingConf { options }
    }

    /// From text, for tests and tools.
    pub fn from_text(text: &str) -> ExportingConf {
        let options = Config::new();
        options.load_text(text, "exporting.conf", Present::Replace);
        ExportingConf { options }
    }

    /// The instances that are enabled, in the order of the file; else the one of `[backend]`, if that is.
    pub fn instances(&self, netdata_conf: &Config) -> Vec<InstanceOptions> {
        let mut found: Vec<InstanceOptions> = Vec::new();
        let (mut names, mut unnamed, mut defined) = (Vec::<String>::new(), 0, false);
        for section in self.options.sections() {
            if section == GLOBAL || section == PROMETHEUS {
                continue;
            }
            let parsed = section
                .rsplit_once(':')
                .ok_or(Unusable::Unknown)
                .and_then(|(kind, name)| Ok((Connector::parse(kind)?, name)));
            let (connector, name) = match parsed {
                Ok(parsed) => parsed,
                Err(Unusable::Unknown) => {
                    log::error!("Section ({section}) does not specify a valid connector");
                    continue;
                }
                Err(Unusable::NotBuilt(what)) => {
                    log::error!("{what} support isn't compiled");
                    continue;
                }
            };
            let name = if name.is_empty() {
                unnamed += 1;
                format!("instance_{unnamed}")
            } else {
                name.to_owned()
            };
            if names.contains(&name) {
                log::error!("Instance ({name}) already exists");
                continue;
            }
            if names.len() >= INSTANCES_MAX {
                log::error!("Instance ({name}) is one too many, {INSTANCES_MAX} are allowed");
                continue;
            }
            defined = true;
            names.push(name.clone());
            log::info!("Processing connector instance ({name})");
            let places = Places { config: &self.options, sections: &[&section, GLOBAL] };
            if !places.flag(&option::ENABLED) {
                log::info!("Instance ({name}) on connector ({}) is not enabled", connector.name());
                continue;
            }
            self.name_unknown(&section);
            log::info!(
                "Instance ({name}) on connector ({}) is enabled and scheduled for activation",
                connector.name()
            );
            found.push(places.instance(name, connector));
        }
        if !defined {
            found.extend(backend(netdata_conf));
        }
        if found.is_empty() {
            log::info!("No connector instances to activate");
        }
        found
    }

    /// One line for each option that nobody knows: a slip of the pen, most often.
    fn name_unknown(&self, section: &str) {
        for (name, _) in self.options.take_all(section) {
            if !option::ALL.iter().any(|known| known.name == name) {
                log::info!("CONFIG: exporting.conf: [{section}] '{name}' is no option there.");
            }
        }
    }

    pub fn prometheus(&self) -> PrometheusOptions {
        let places = Places { config: &self.options, sections: &[PROMETHEUS, GLOBAL] };
        PrometheusOptions {
            source: places.source(),
            prefix: places.text(&option::PREFIX),
            update_every: places.update_every(),
            send_names: places.flag(&option::SEND_NAMES),
            charts: places.text(&option::CHARTS),
            hosts: places.text(&option::HOSTS),
            configured_labels: places.flag(&option::CONFIGURED_LABELS),
            automatic_labels: places.flag(&option::AUTOMATIC_LABELS),
        }
    }
}

impl Default for PrometheusOptions {
    fn default() -> Self {
        ExportingConf { options: Config::new() }.prometheus()
    }
}

/// `[backend]` of netdata.conf as an instance. Releases up to 1.33 had one at most.
fn backend(config: &Config) -> Option<InstanceOptions> {
    let places = Places { config, sections: &[BACKEND] };
    if config.peek(BACKEND, option::ENABLED.name).is_none() || !places.flag(&option::ENABLED) {
        return None;
    }
    let kind = config.string(BACKEND, "type", "graphite");
    let connector = Connector::parse(&kind)
        .inspect_err(|_| log::error!("[backend] 'type' ({kind}) is no connector we have"))
        .ok()?;
    log::info!("[backend] is read as the exporting instance (backend) on connector ({kind})");
    let mut instance = places.instance(BACKEND.to_owned(), connector);
    if config.peek(BACKEND, option::TIMEOUT.name).is_none() {
        let twice = u64::try_from(2 * instance.update_every).unwrap_or(20);
        instance.timeout = Duration::from_secs(twice);
    }
    instance.host_tags = config.string(BACKEND, "host tags", "");
    Some(instance)
}

/// Where an option is looked for: the first section that has it wins.
struct Places<'a> {
    config: &'a Config,
    sections: &'a [&'a str],
}

impl Places<'_> {
    fn text(&self, option: &Named) -> String {
        let section = self.sections.iter().find(|s| self.config.is_set(s, option.name));
        match section {
            Some(section) => self.config.string(section, option.name, option.default),
            None => option.default.to_owned(),
        }
    }

    fn flag(&self, option: &Named) -> bool {
        values::boolean(&self.text(option))
    }

    fn number(&self, option: &Named) -> i64 {
        values::number(&self.text(option))
    }

    fn maybe(&self, option: &Named) -> Option<String> {
        Some(self.text(option)).filter(|text| !text.is_empty())
    }

    fn source(&self) -> DataSource {
        DataSource::or_average(&self.text(&option::DATA_SOURCE))
    }

    fn update_every(&self) -> i64 {
        self.number(&option::UPDATE_EVERY).clamp(1, UPDATE_EVERY_MAX)
    }

    fn instance(&self, name: String, connector: Connector) -> InstanceOptions {
        let timeout_ms = u64::try_from(self.number(&option::TIMEOUT)).unwrap_or(0).max(1);
        InstanceOptions {
            name,
            connector,
            destination: self.text(&option::DESTINATION),
            source: self.source(),
            prefix: self.text(&option::PREFIX),
            hostname: self.maybe(&option::HOSTNAME),
            update_every: self.update_every(),
            buffer_on_failures: usize::try_from(self.number(&option::BUFFER))
                .unwrap_or(1)
                .clamp(1, 10_000),
            timeout: Duration::from_millis(timeout_ms),
            send_names: self.flag(&option::SEND_NAMES),
            charts: self.text(&option::CHARTS),
            hosts: self.text(&option::HOSTS),
            configured_labels: self.flag(&option::CONFIGURED_LABELS),
            automatic_labels: self.flag(&option::AUTOMATIC_LABELS),
            variables: self.flag(&option::VARIABLES),
            username: self.text(&option::USERNAME),
            password: self.text(&option::PASSWORD),
            url_path: self.text(&option::URL_PATH),
            headers: pairs(&self.text(&option::HEADERS), |c| c == ';', ':'),
            external_labels: pairs(
                &self.text(&option::EXTERNAL_LABELS),
                |c| c.is_ascii_whitespace(),
                '=',
            ),
            write_version: WriteVersion::or_auto(&self.text(&option::WRITE_VERSION)),
            host_tags: String::new(),
            tls_skip_verification: self.flag(&option::TLS_SKIP),
            ca_path: self.maybe(&option::CA_PATH),
            ca_file: self.maybe(&option::CA_FILE),
        }
    }
}

/// `name=value` texts; those without both are left out.
fn pairs(text: &str, separates: fn(char) -> bool, joins: char) -> Vec<(String, String)> {
    let pairs = text.split(separates).filter_map(|pair| {
        let (name, value) = pair.split_once(joins)?;
        let (name, value) = (name.trim(), value.trim());
        (!name.is_empty() && !value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(text: &str) -> Vec<InstanceOptions> {
        ExportingConf::from_text(text).instances(&Config::new())
    }

    #[test]
    fn the_last_colon_parts_type_and_name() {
        let found = instances(
            "[exporting:global]\nenabled = yes\nupdate every = 5\n[graphite:http]\n[graphite:http:b]\nupdate every = 7\n\
             [json:https:]\n[opentsdb:telnet:t]\nenabled = no\n[prometheus_remote_write:rw]\ntimeout ms = 500\n\
             [opentsdb:plaintext:x]\n[graphite]\n[kinesis:k]\n[json:rw]\n[prometheus:exporter]\n",
        );
        let told: Vec<_> =
            found.iter().map(|i| (i.name.as_str(), i.connector.name(), i.update_every)).collect();
        assert_eq!(
            told,
            [
                ("http", "graphite", 5),
                ("b", "graphite:http", 7),
                ("instance_1", "json:https", 5),
                ("rw", "prometheus_remote_write", 5),
            ]
        );
        assert_eq!(found[3].timeout, Duration::from_millis(500));
        assert_eq!(found[0].timeout, Duration::from_secs(10));
    }

    #[test]
    fn defaults_are_those_operators_know() {
        let found = &instances("[graphite:g]\nenabled = yes\ndata source = nonsense\n")[0];
        assert_eq!((found.source, found.prefix.as_str()), (DataSource::Average, "netdata"));
        assert_eq!(
            (found.destination.as_str(), found.hosts.as_str()),
            ("localhost", "localhost *")
        );
        assert_eq!((found.update_every, found.buffer_on_failures), (10, 10));
        assert!(found.send_names && found.configured_labels && !found.automatic_labels);
        assert_eq!(
            (found.url_path.as_str(), found.write_version),
            ("/receive", WriteVersion::Auto)
        );
        assert!(instances("[graphite:g]\n").is_empty());
    }

    #[test]
    fn the_stock_file_starts_nothing_and_names_options_there_are() {
        let stock = include_str!("../../conf.d/exporting.conf");
        assert!(instances(stock).is_empty());
        let mut named = 0;
        for line in stock.lines().map(str::trim) {
            let line = line.strip_prefix('#').unwrap_or(line);
            if let Some((name, _)) = line.split_once(" =").filter(|_| !line.starts_with(' ')) {
                assert!(option::ALL.iter().any(|known| known.name == name), "'{name}'");
                named += 1;
            }
        }
        assert!(named >= option::ALL.len());
    }

    #[test]
    fn headers_and_labels_are_lists_of_pairs() {
        let found = &instances(
            "[prometheus_remote_write:p]\nenabled = yes\nhttp headers = X-Scope-OrgID: team a; X-B:c;d\n\
             external labels = site=eu-1  role=edge =x y=\n",
        )[0];
        let told = |pairs: &[(String, String)]| -> Vec<String> {
            pairs.iter().map(|(name, value)| format!("{name}|{value}")).collect()
        };
        assert_eq!(told(&found.headers), ["X-Scope-OrgID|team a", "X-B|c"]);
        assert_eq!(told(&found.external_labels), ["site|eu-1", "role|edge"]);
    }

    #[test]
    fn versions_of_remote_write_are_numbers() {
        for (word, version) in [
            ("1", WriteVersion::One),
            ("1.0", WriteVersion::One),
            ("2", WriteVersion::Two),
            ("3", WriteVersion::Auto),
        ] {
            let text = format!(
                "[prometheus_remote_write:p]\nenabled = yes\nremote write version = {word}\n"
            );
            assert_eq!(instances(&text)[0].write_version, version, "{word}");
        }
    }

    #[test]
    fn a_backend_of_old_becomes_an_instance_where_no_other_is() {
        let config = Config::new();
        let text =
            "[backend]\nenabled = yes\ntype = opentsdb:http\nupdate every = 30\nhost tags = a=b\n";
        config.load_text(text, "netdata.conf", Present::Replace);
        let found = ExportingConf::from_text("").instances(&config);
        assert_eq!(found.len(), 1);
        let backend = &found[0];
        assert_eq!((backend.name.as_str(), backend.connector.name()), ("backend", "opentsdb:http"));
        assert_eq!((backend.timeout, backend.host_tags.as_str()), (Duration::from_secs(60), "a=b"));
        let other = ExportingConf::from_text("[graphite:g]\nenabled = no\n");
        assert!(other.instances(&config).is_empty());
        assert!(ExportingConf::from_text("").instances(&Config::new()).is_empty());
    }

    #[test]
    fn prometheus_has_a_section_of_its_own() {
        let conf = ExportingConf::from_text(
            "[exporting:global]\nprefix = all\n[prometheus:exporter]\ndata source = raw\nsend names instead of ids = no\n",
        );
        let prometheus = conf.prometheus();
        assert_eq!(prometheus.source, DataSource::AsCollected);
        assert_eq!((prometheus.prefix.as_str(), prometheus.send_names), ("all", false));
    }
}
