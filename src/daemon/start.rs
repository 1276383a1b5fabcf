//! The start of an agent: what it consists of, in the order in which it comes alive.
//!
//! Everything before the first [`Part`] runs while there is one thread, so it may fork, change the environment and the
//! user. What fails here ends the process with code 1 before it is in the background, as far as that can be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::args::CommandLine;
use super::control::Control;
use super::machine::{self, LabelInputs, Probe, TimeZone};
use super::process::{self, Locks, PidFile, RunMark};
use super::reload::Sources;
use super::run::{Agent, Part};
use super::settings::{Directories, Settings, log_options, store_settings, stream_rules};
use super::signals::Signals;
use super::{environment, identity};
use crate::base::log::{self as logs, Phase};
use crate::base::threads::{self, StopToken};
use crate::base::time::Clock;
use crate::base::{PROGRAM, VERSION, sys};
use crate::config::{
    Config, ExportingConf, NETDATA_CONF, OnDemand, PrometheusOptions, ReceiverDefaults,
    SenderOptions, StreamConf, keys,
};
use crate::exporting::Exporting;
use crate::health::{self, Health, Presence};
use crate::ingest::executor::Nodes;
use crate::ingest::{collectors, plugins};
use crate::metrics::keeper;
use crate::metrics::lifecycle::{self, Lifecycle};
use crate::metrics::{HealthPolicy, Host, HostInfo, HostKind, HostSettings, Hosts, SystemInfo};
use crate::net::Usage;
use crate::net::tls::ServerTls;
use crate::storage::Mode;
use crate::storage::dbengine::files::tier_directory;
use crate::storage::engines::{Engines, Whose};
use crate::storage::metadata::Database;
use crate::stream::{self, Streams};
use crate::web;
use crate::web::acl::{Access, Gate, Names};

/// How often a thread that is being waited for is looked at.
const JOIN_STEP: Duration = Duration::from_millis(10);

/// What the process is before it is an agent.
struct Ground {
    config: Arc<Config>,
    settings: Settings,
    signals: Signals,
    clock: Clock,
    web: Option<WebParts>,
    _locks: Locks,
    pid_file: Option<PidFile>,
    /// The configuration file in use.
    file: Option<PathBuf>,
    sources: Sources,
    run_dir: PathBuf,
}

struct WebParts {
    options: web::Options,
    ports: Vec<web::Port>,
    tls: Arc<ServerTls>,
}

/// Brings an agent to life.
pub(super) fn start(line: CommandLine) -> anyhow::Result<Agent> {
    let mut ground = prepare(line)?;
    let mark = RunMark::begin(&ground.settings.directories.lib);
    let settings = &ground.settings;

    let unique_id = ground.config.path(
        "registry",
        "netdata unique id file",
        settings.directories.registry.join("netdata.public.unique.id"),
    );
    let guid = identity::machine_guid(&unique_id).with_context(|| {
        format!("cannot create unique machine id file '{}'", unique_id.display())
    })?;
    environment::complete(&ground.config, settings, guid);
    let probe = Probe::start(&settings.directories);
    let streaming = stream_conf(&settings.directories);
    let zone = TimeZone::detect(&ground.config, ground.clock.now_seconds());
    let mut facts = probe.finish(&ground.clock);
    machine::add_install_type(&mut facts, &settings.directories.config);

    let sender = streaming.sender();
    let uses_store =
        settings.database.mode == Mode::Dbengine || streaming.wants_mode(Mode::Dbengine.name());
    let store = store_settings(&ground.config, &settings.directories.cache, uses_store);
    let engines = Arc::new(Engines::new(store, ground.clock.clone()));
    let host = local_host(&ground.config, settings, guid, zone, &facts, &engines);
    announce(&host, &sender);
    let hosts = Hosts::new(Arc::clone(&host));
    // Without samples, here or of children, there is nothing to watch.
    let keeps_samples = host.settings().mode != Mode::None || streaming.is_parent();
    let remembers = host.settings().mode.persists() || streaming.is_parent();
    let label_inputs = LabelInputs {
        is_parent: false,
        streams_to: sender.enabled.then(|| sender.destination.clone()),
    };
    host.set_labels(machine::host_labels(&ground.config, &facts, &label_inputs));

    let control = Control::open(&ground.run_dir);
    let stop = StopToken::new();
    let mut parts: Vec<Part> = Vec::new();
    // From here on there are threads. They stop in the reverse order.
    //
    // METADATA: hosts and charts of earlier runs are there from here on
    if remembers && let Some(part) = start_keeper(&ground, &hosts, &engines, uses_store, &stop) {
        parts.push(part);
    }
    // STREAM_SENDER[host]: the senders of this host and, later, of its children
    let streams = start_streams(&ground, streaming, &hosts, &engines, &stop);
    parts.push(stream_part(&streams));
    web::streaming::offer(&hosts, &streams, &ground.clock);
    let health = match keeps_samples {
        true => start_health(&ground, &hosts, &streams, &stop, &mut parts),
        false => None,
    };
    let usage = Arc::new(Usage::default());
    parts.push(start_collectors(&ground, &host, &streams, &engines, &usage, &stop));
    parts.push(start_plugins(&ground, &hosts, &streams, &engines, &stop)?);
    // EXPORTING[name]: what other databases are told
    let conf = exporting_conf(&ground);
    let exporting = start_exporting(&ground, &conf, &hosts, &stop);
    let exporters = (exporting.connectors().to_owned(), conf.prometheus());
    parts.push(exporting_part(exporting));
    let tls = ground.web.as_ref().map(|web| Arc::clone(&web.tls)).unwrap_or_default();
    let gate = Arc::new(Gate::new(Access::at_start(&ground.config)));
    let names = Arc::new(Names::new(ground.clock.clone()));
    if let Some(web) = ground.web.take() {
        parts.push(start_web(
            web,
            &ground,
            &hosts,
            &streams,
            &usage,
            &engines,
            health.as_ref(),
            exporters,
            (&gate, &names),
            &stop,
        )?);
    }
    parts.push(start_lifecycle(&ground, &hosts, &stop)?);
    for (section, name) in ground.config.touch_later(NETDATA_CONF) {
        log::info!("CONFIG: [{section}] '{name}' is known but has no effect yet.");
    }
    logs::phase(Phase::Steady);
    log::info!("{PROGRAM} {VERSION} is ready.");
    // Most of what the libraries' loading touched (OpenSSL's above all) is never needed again.
    sys::forget_start();

    Ok(Agent {
        signals: ground.signals,
        control,
        hosts,
        streams,
        engines,
        sources: ground.sources,
        directories: settings.directories.clone(),
        uses_store,
        config: ground.config,
        file: ground.file,
        facts,
        label_inputs: label_inputs.into(),
        health,
        tls,
        gate,
        names,
        parts,
        pid_file: ground.pid_file,
        mark,
        locks: ground._locks,
    })
}

/// Everything that needs one thread, or root.
fn prepare(line: CommandLine) -> anyhow::Result<Ground> {
    let signals = Signals::catch().context("cannot catch signals")?;
    sys::set_umask(process::UMASK);
    let clock = Clock::system();
    let config = Arc::new(line.config);
    let moved = config.migrate(NETDATA_CONF);
    environment::set_time_zone(&config);

    let directories = Directories::read(&config);
    logs::open(log_options(&config, &directories.log));
    for alias in moved {
        log::info!("CONFIG: {alias}.");
    }
    // Before anything is corrected: what differs from the file was given on the command line.
    let sources = Sources::new(&config, line.file.clone(), &directories);
    let settings = Settings::read(&config);
    sys::tune_malloc(i32::try_from(settings.process.malloc_arenas.clamp(1, 1024)).unwrap_or(1));

    std::env::set_current_dir(&settings.directories.config)
        .with_context(|| format!("Cannot cd to '{}'", settings.directories.config.display()))?;
    let locks = process::prepare_directories(&settings.directories)?;
    let web = open_web(&config, &settings)?;

    if !line.foreground {
        sys::to_background().context("cannot go to the background")?;
    }
    let pid_path = line.pid_file.as_deref();
    let pid_file = pid_path.and_then(PidFile::write);
    process::set_priority(&settings.process);
    process::drop_root(&settings.run_as, &settings.directories, pid_path);

    let run_dir = run_dir(pid_path, &settings.directories);
    let file = line.file;
    Ok(Ground {
        config,
        settings,
        signals,
        clock,
        web,
        _locks: locks,
        pid_file,
        file,
        sources,
        run_dir,
    })
}

/// Where the control socket goes: beside the pid file, else where services keep such things, else to our own files.
fn run_dir(pid_file: Option<&Path>, directories: &Directories) -> PathBuf {
    const SERVICE: &str = "/run/netdata";
    match pid_file.and_then(Path::parent) {
        Some(dir) if dir.is_dir() => dir.to_owned(),
        _ if Path::new(SERVICE).is_dir() => SERVICE.into(),
        _ => directories.lib.clone(),
    }
}

fn stream_conf(directories: &Directories) -> Arc<StreamConf> {
    let user = directories.config.join("stream.conf");
    let stock = directories.stock_config.join("stream.conf");
    Arc::new(StreamConf::load(&user, &stock))
}

fn local_host(
    config: &Config,
    settings: &Settings,
    guid: crate::base::ids::MachineGuid,
    zone: TimeZone,
    facts: &SystemInfo,
    engines: &Engines,
) -> Arc<Host> {
    let database = &settings.database;
    let info = HostInfo {
        os: std::env::consts::OS.to_owned(),
        timezone: zone.name,
        abbrev_timezone: zone.abbreviation,
        utc_offset: zone.utc_offset,
        program_name: PROGRAM.to_owned(),
        program_version: VERSION.to_owned(),
        update_every: database.update_every.seconds(),
        system: facts.clone(),
        mc_version: 1,
        ..HostInfo::named(&settings.hostname)
    };
    let host_settings = HostSettings {
        mode: database.mode,
        history: database.history,
        health_enabled: health_enabled(config, database.mode),
        gap_when_lost: database.gap_when_lost,
        ephemeral: false,
    };
    let engine = engines.engine(database.mode, database.history, Whose::Local);
    Host::new(guid, HostKind::Local, info, engine, host_settings)
}

/// `[health] enabled`, for hosts whose samples are kept.
fn health_enabled(config: &Config, mode: Mode) -> bool {
    let enabled = crate::config::boolean(&config.string("health", "enabled", "yes"));
    if enabled && mode == Mode::None {
        log::info!("HEALTH: disabled for this host, as memory mode none keeps no samples.");
    }
    enabled && mode != Mode::None
}

fn announce(host: &Host, sender: &SenderOptions) {
    let info = host.info();
    let settings = host.settings();
    let (streaming, to, key) = match sender.enabled {
        true => ("enabled", sender.destination.as_str(), keys::masked(&sender.api_key)),
        false => ("disabled", "", ""),
    };
    log::info!(
        "Host '{}' (at registry as '{}') with guid '{}' initialized, os '{}', timezone '{}', tags '{}', \
         program_name '{}', program_version '{}', update every {}, memory mode {}, history entries {}, \
         streaming {streaming} (to '{to}' with api key '{key}'), health {}",
        info.hostname,
        info.registry_hostname,
        host.guid(),
        info.os,
        info.timezone,
        info.tags,
        info.program_name,
        info.program_version,
        info.update_every,
        settings.mode.name(),
        host.engine().entries(),
        if settings.health_enabled { "enabled" } else { "disabled" },
    );
}

// ------------------------------------------------------------------ the parts

/// METADATA: what is remembered of hosts and charts. `None`, after an ERROR line, when it cannot be had.
fn start_keeper(
    ground: &Ground,
    hosts: &Arc<Hosts>,
    engines: &Arc<Engines>,
    uses_store: bool,
    stop: &StopToken,
) -> Option<Part> {
    let cache = &ground.settings.directories.cache;
    if uses_store && tier_directory(cache, 0).exists() {
        // Children of earlier runs are in it, whether or not anybody else needs it.
        engines.store();
    }
    let database = Arc::new(Database::open(cache));
    let (makes, opened) = (Arc::clone(engines), Arc::clone(engines));
    let keeper = keeper::Parts {
        hosts: Arc::clone(hosts),
        database,
        engine: Box::new(move |mode, history, guid| {
            makes.engine(mode, history, Whose::Other(guid))
        }),
        store: Box::new(move || opened.open_store()),
        clock: ground.clock.clone(),
    };
    let stop = stop.child();
    match keeper::start(keeper, &stop) {
        Ok(thread) => Some(thread_part("METADATA", stop, thread)),
        Err(error) => {
            log::error!("cannot start METADATA: {error}. Hosts and charts are not remembered.");
            None
        }
    }
}

/// HEALTH and HEALTH[notify]: alarms. `None` when they are off, or after an ERROR line when they cannot be had.
fn start_health(
    ground: &Ground,
    hosts: &Arc<Hosts>,
    streams: &Arc<Streams>,
    stop: &StopToken,
    parts: &mut Vec<Part>,
) -> Option<Arc<Health>> {
    let options = health_options(&ground.config, &ground.settings.directories);
    if !options.enabled {
        return None;
    }
    let clock = &ground.clock;
    let log = health::log::Log::open(&options.log_dir)
        .inspect_err(|error| log::error!("HEALTH: there can be no alarm log: {error}"))
        .ok()?;
    let log = Arc::new(log);
    // It ends after whoever gives it work.
    let last = StopToken::new();
    let notifier = health::notify::Notifier::start(Arc::clone(&log), clock.clone(), last.clone());
    let (notifier, notifying) = notifier
        .inspect_err(|error| {
            log::error!("cannot start HEALTH[notify]: {error}. There are no alarms.")
        })
        .ok()?;
    let once = ground.config.boolean("health", "one notification per cluster", true);
    let cluster = Box::new(Parents { streams: Arc::clone(streams), once });
    let health = Health::new(options, Arc::clone(hosts), clock.clone(), log, notifier, cluster);
    let asked = Arc::downgrade(&health);
    streams.tell_what_was_told(Box::new(move |host| asked.upgrade()?.told(host)));
    let (stop, running) = (stop.child(), Arc::clone(&health));
    let evaluating = threads::spawn("HEALTH", {
        let stop = stop.clone();
        move || running.run(&stop)
    })
    .inspect_err(|error| log::error!("cannot start HEALTH: {error}. There are no alarms."))
    .ok()?;
    parts.push(thread_part("HEALTH[notify]", last, notifying));
    parts.push(thread_part("HEALTH", stop, evaluating));
    Some(health)
}

/// The other parents, as alarms see them.
struct Parents {
    streams: Arc<Streams>,
    /// `[health] one notification per cluster`
    once: bool,
}

impl health::Cluster for Parents {
    fn tells(&self, host: &Host) -> bool {
        self.once && self.streams.is_told_elsewhere(host)
    }

    fn told(&self, host: &Host) -> Option<(Vec<(String, i64)>, bool)> {
        let told = self.once.then(|| self.streams.told_by_others(host)).flatten()?;
        let all = told.len() < stream::path::TOLD_MAX;
        Some((told, all))
    }

    fn say(&self, host: &Arc<Host>) {
        if self.once {
            self.streams.say_what_was_told(host);
        }
    }

    fn forget(&self, host: &Host) {
        self.streams.forget_what_was_told(host);
    }

    fn presence(&self) -> Presence {
        match self.streams.cluster() {
            _ if !self.once => Presence::Nobody,
            stream::Cluster::None => Presence::Nobody,
            stream::Cluster::Perhaps => Presence::Unknown,
            stream::Cluster::Known => Presence::Others,
        }
    }
}

/// What is told of an alarm is heard.
const _: () = assert!(health::engine::TOLD_NAME_MAX <= stream::path::TOLD_NAME_MAX);

/// `[health]`, and where its files are.
fn health_options(config: &Config, directories: &Directories) -> health::Options {
    let enabled = crate::config::boolean(&config.string("health", "enabled", "yes"));
    let user_dir = config.path("directories", "health config", directories.config.join("health.d"));
    let stock_dir = config.path(
        "directories",
        "stock health config",
        directories.stock_config.join("health.d"),
    );
    let stock = config.boolean("health", "enable stock health configuration", true);
    let plugins = directories.plugins.first().cloned().unwrap_or_default();
    let script = plugins.join("alarm-notify.sh");
    let repeat = |name: &str| {
        let text = config.string("health", name, "never");
        health::grammar::duration(&text).unwrap_or(0).max(0)
    };
    let at_least = |name: &str, default: i64, least: i64| {
        let wanted = config.number("health", name, default);
        if wanted < least {
            config.set_number("health", name, least);
        }
        wanted.max(least)
    };
    health::Options {
        enabled,
        user_dir,
        stock_dir: stock.then_some(stock_dir),
        script: config.string("health", "script to execute on alarm", &script.to_string_lossy()),
        silencers_file: config.path(
            "health",
            "silencers file",
            directories.lib.join("health.silencers.json"),
        ),
        repeat: health::grammar::Repeat {
            warning: repeat("default repeat warning"),
            critical: repeat("default repeat critical"),
        },
        log_shown: at_least("in memory max health log entries", 1000, 10),
        log_kept: at_least("rotate log every lines", 2000, 100),
        run_every: config.seconds("health", "run at least every seconds", 10).max(1),
        hibernation: config.seconds("health", "postpone alarms during hibernation for seconds", 60),
        log_dir: directories.lib.clone(),
        config_dir: directories.config.clone(),
    }
}

/// SERVICE: lets go of obsolete charts and orphan hosts.
fn start_lifecycle(ground: &Ground, hosts: &Arc<Hosts>, stop: &StopToken) -> anyhow::Result<Part> {
    let lifecycle = Lifecycle {
        hosts: Arc::clone(hosts),
        rules: ground.settings.database.lifecycle,
        clock: ground.clock.clone(),
    };
    let stop = stop.child();
    let thread = lifecycle::start(lifecycle, &stop).context("cannot start SERVICE")?;
    Ok(thread_part("SERVICE", stop, thread))
}

/// A part that is one thread.
fn thread_part(name: &'static str, stop: StopToken, thread: JoinHandle<()>) -> Part {
    Part::new(name, stop, move |patience| {
        let clock = Clock::system();
        let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        while !thread.is_finished() && clock.monotonic_us() < patience {
            std::thread::park_timeout(JOIN_STEP);
        }
        thread.is_finished()
    })
}

/// PLUGIN[proc], PLUGIN[diskspace], ...: the internal collectors.
fn start_collectors(
    ground: &Ground,
    host: &Arc<Host>,
    streams: &Arc<Streams>,
    engines: &Arc<Engines>,
    usage: &Arc<Usage>,
    stop: &StopToken,
) -> Part {
    let config = &ground.config;
    let watched = Arc::clone(streams);
    let queues = move || {
        let stream::Queues { outboxes, fullest_percent, mailboxes } = watched.queues();
        [outboxes, fullest_percent, mailboxes]
    };
    let watched = Arc::clone(streams);
    let children = move || {
        let stream::status::Worst { behind, behind_s, skew_s } = watched.worst();
        [i64::try_from(behind).unwrap_or(i64::MAX), behind_s, skew_s]
    };
    let zero_metrics = config.on_demand("db", "enable zero metrics", OnDemand::No);
    let setup = collectors::Setup {
        host: Arc::clone(host),
        config: Arc::clone(config),
        clock: ground.clock.clone(),
        every: ground.settings.database.update_every,
        zero_metrics: zero_metrics == OnDemand::Yes,
        usage: Arc::clone(usage),
        parts: collectors::Parts {
            engines: Some(Arc::clone(engines)),
            queues: Some(Arc::new(queues)),
            children: Some(Arc::new(children)),
        },
        prefix: collectors::usable_prefix(&ground.settings.host_prefix),
    };
    let running = collectors::start(&setup, stop);
    Part::new("COLLECTORS", running.stop_token().clone(), move |patience| running.join(patience))
}

/// PLUGINSD[name]: the external plugins.
fn start_plugins(
    ground: &Ground,
    hosts: &Arc<Hosts>,
    streams: &Arc<Streams>,
    engines: &Arc<Engines>,
    stop: &StopToken,
) -> anyhow::Result<Part> {
    let database = &ground.settings.database;
    let (mode, history) = (database.mode, database.history);
    let watches = crate::config::boolean(&ground.config.string("health", "enabled", "yes"));
    let (streams, engines) = (Arc::clone(streams), Arc::clone(engines));
    let nodes = Nodes {
        hosts: Arc::clone(hosts),
        engine: Box::new(move |guid| engines.engine(mode, history, Whose::Other(guid))),
        created: Box::new(move |node| {
            if watches && mode != Mode::None {
                node.set_health(HealthPolicy::On, 0);
            }
            announce(node, &streams.rules().conf.sender());
            streams.send_own(node);
        }),
    };
    let options = plugins::Options {
        directories: ground.settings.directories.plugins.clone(),
        nodes: Arc::new(nodes),
        clock: ground.clock.clone(),
        config: Arc::clone(&ground.config),
        update_every: database.update_every,
    };
    let stop = stop.child();
    let running = plugins::start(options, &stop).context("cannot start plugins")?;
    Ok(Part::new("PLUGINSD", stop, move |patience| running.join(patience)))
}

fn exporting_conf(ground: &Ground) -> ExportingConf {
    let directories = &ground.settings.directories;
    let user = directories.config.join("exporting.conf");
    let stock = directories.stock_config.join("exporting.conf");
    ExportingConf::load(&user, &stock)
}

/// EXPORTING[name]: one for each instance of exporting.conf.
fn start_exporting(
    ground: &Ground,
    conf: &ExportingConf,
    hosts: &Arc<Hosts>,
    stop: &StopToken,
) -> Exporting {
    let instances = conf.instances(&ground.config);
    let every = ground.settings.database.update_every;
    let lib = &ground.settings.directories.lib;
    Exporting::start(instances, hosts, &ground.clock, lib, every, stop.child())
}

fn exporting_part(exporting: Exporting) -> Part {
    let stop = exporting.stop_token().clone();
    Part::new("EXPORTING", stop, move |patience| exporting.join(patience))
}

fn open_web(config: &Config, settings: &Settings) -> anyhow::Result<Option<WebParts>> {
    let lib = settings.directories.lib.to_string_lossy();
    let options = web::Options::from_config(config, &settings.hostname, &lib);
    if !options.enabled {
        return Ok(None);
    }
    let ports = web::server::open_ports(&options)?;
    // Read while we may still be root.
    let tls = Arc::new(ServerTls::new(options.tls.clone()));
    Ok(Some(WebParts { options, ports, tls }))
}

fn start_streams(
    ground: &Ground,
    conf: Arc<StreamConf>,
    hosts: &Arc<Hosts>,
    engines: &Arc<Engines>,
    stop: &StopToken,
) -> Arc<Streams> {
    let engines = Arc::clone(engines);
    let (config, database) = (&ground.config, &ground.settings.database);
    let directories = &ground.settings.directories;
    let health = config.string("health", "enabled", "yes");
    let fixed = ReceiverDefaults {
        mode: database.mode.name().to_owned(),
        history: database.history,
        health: if crate::config::boolean(&health) { OnDemand::Yes } else { OnDemand::No },
        replication: true,
        seconds_to_replicate: 0,
        seconds_per_replication_step: 0,
    };
    let rules = stream_rules(config, &fixed, conf);
    let settings = stream::Settings {
        update_every: database.update_every,
        gap_when_lost: database.gap_when_lost,
        replication_threads: usize::try_from(config.number("db", "replication threads", 1))
            .unwrap_or(1),
        engine: Box::new(move |mode, history, guid| {
            engines.engine(mode, history, Whose::Other(guid))
        }),
        cache_dir: directories.cache.clone(),
        lib_dir: directories.lib.clone(),
    };
    let (clock, hosts) = (ground.clock.clone(), Arc::clone(hosts));
    let streams = Streams::new(settings, rules, hosts, clock, stop.child());
    streams.start();
    streams
}

fn stream_part(streams: &Arc<Streams>) -> Part {
    let streams = Arc::clone(streams);
    Part::new("STREAM", streams.stop_token().clone(), move |patience: Duration| {
        streams.join(patience)
    })
}

#[expect(clippy::too_many_arguments, reason = "the web server shows every part of the agent")]
fn start_web(
    web: WebParts,
    ground: &Ground,
    hosts: &Arc<Hosts>,
    streams: &Arc<Streams>,
    usage: &Arc<Usage>,
    engines: &Arc<Engines>,
    health: Option<&Arc<Health>>,
    (exporters, prometheus): (String, PrometheusOptions),
    (gate, names): (&Arc<Gate>, &Arc<Names>),
    stop: &StopToken,
) -> anyhow::Result<Part> {
    let WebParts { options, ports, tls } = web;
    let api_key = web::management::load_or_create_key(&options.api_key_file)
        .inspect_err(|error| {
            log::error!("Cannot use '{}': {error}", options.api_key_file.display());
        })
        .ok();
    let settings = options.registry.clone();
    let registry = settings.enabled.then(|| {
        let file = settings.file.clone();
        web::registry::Registry::open(settings, ground.clock.now().0 / 1000).inspect_err(|error| {
            log::error!("REGISTRY: cannot use '{}': {error}. The registry is off.", file.display());
        })
    });
    let agent = Arc::new(web::Agent {
        registry: registry.and_then(Result::ok),
        hosts: Arc::clone(hosts),
        clock: ground.clock.clone(),
        config: Arc::clone(&ground.config),
        options,
        gate: Arc::clone(gate),
        names: Arc::clone(names),
        usage: Arc::clone(usage),
        tls,
        writers: Default::default(),
        scrapers: Default::default(),
        streams: Arc::new(stream::Acceptor(Arc::clone(streams))),
        streaming: Some(Arc::clone(streams)),
        started: ground.clock.now_seconds(),
        exporters,
        prometheus,
        engines: Some(Arc::clone(engines)),
        api_key,
        health: health.cloned(),
    });
    let stop = stop.child();
    let server = web::Server::start(agent, ports, &stop)
        .map_err(|error| anyhow!("cannot start the web server: {error}"))?;
    Ok(Part::new("WEB_SERVER", stop, move |patience: Duration| server.join(patience) == 0))
}
