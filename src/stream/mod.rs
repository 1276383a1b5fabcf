//! L5: receiver sessions, senders with their outbox, choice of parent, streaming status.
//!
//! [`Streams`] holds every connection of this agent, in both directions. The web server hands children to its
//! [`Acceptor`], on whose threads they stay; each host that is sent on has a [`Sender`] with a thread of its own. What
//! decides (admission, liveness, choice of parent, the streaming path, what to send) is plain state without sockets;
//! the threads are thin shells around it.
//!
//! Lock order: a chart, then an outbox; the registers here are locked for moments and never while anything else is.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

pub mod admission;
pub mod liveness;
pub mod fence;
pub mod pace;
pub mod penalty;
pub mod mailbox;
mod outgoing;
pub mod receiver;
pub mod uplink;
pub mod parents;
pub mod replication;
pub mod pulls;
pub mod puller;
pub mod answers;
pub mod workers;
pub mod shelf;
pub mod verify;
pub mod link;
pub mod status;
pub mod sender;
pub mod path;
pub mod reload;

pub use self::receiver::{Acceptor, Child};
pub use self::sender::{Sender, SenderState, SenderStatus};

use self::pace::Pace;
use self::parents::Failure;
use self::path::{Entry, Paths};
use self::penalty::Penalties;
use self::sender::{Purpose, SenderPlan};
use self::uplink::Uplink;
use self::workers::Workers;
use crate::base::ids::MachineGuid;
use crate::base::log::Errno;
use crate::base::threads::{self, StopToken};
use crate::base::time::{Clock, MICROS, UpdateEvery};
use crate::config::{OnDemand, ReceiverDefaults, ReceiverOptions, SenderOptions, StreamConf, keys};
use crate::metrics::{Chart, HealthPolicy, Host, HostKind, Hosts, LabelSource, Tap};
use crate::net::tls::ClientOptions;
use crate::net::{Destination, parse_destinations};
use crate::storage::{Mode, StorageEngine};
use crate::wire::caps::Capabilities;
use crate::wire::compression::Levels;

/// Makes the engine of a host by its mode, its number of entries and its identity.
pub type EngineMaker = Box<dyn Fn(Mode, i64, MachineGuid) -> Arc<dyn StorageEngine> + Send + Sync>;

/// What configuration says, as far as it may be read again: a copy holds for one decision.
#[derive(Clone)]
pub struct Rules {
    pub conf: Arc<StreamConf>,
    pub defaults: ReceiverDefaults,
    /// `[web] accept a streaming request every seconds`; zero = no limit.
    pub accept_every: Duration,
}

impl Rules {
    /// What is in force for a host that streams to us under this key.
    pub fn receiver(&self, api_key: &str, machine: &str) -> ReceiverOptions {
        self.conf.receiver(api_key, machine, &self.defaults)
    }
}

/// What streaming needs to know of the agent.
pub struct Settings {
    /// `[db] update every`
    pub update_every: UpdateEvery,
    /// `[db] gap when lost iterations above`
    pub gap_when_lost: i64,
    /// `[db] replication threads`
    pub replication_threads: usize,
    pub engine: EngineMaker,
    pub cache_dir: PathBuf,
    pub lib_dir: PathBuf,
}

/// Every stream of this agent.
pub struct Streams {
    settings: Settings,
    rules: Mutex<Arc<Rules>>,
    hosts: Arc<Hosts>,
    clock: Clock,
    stop: StopToken,
    paths: Paths,
    /// What this agent has told of a host's alarms, where it evaluates them: see [`path::Entry::told`].
    told: OnceLock<Told>,
    started_ms: i64,
    /// When a child was last let in, or the first was put off; for the rate limit.
    last_let_in: Mutex<Option<i64>>,
    /// Who starts at a time.
    pace: Arc<Pace>,
    penalties: Mutex<Penalties>,
    children: Mutex<FxHashMap<MachineGuid, Arc<Child>>>,
    senders: Mutex<FxHashMap<MachineGuid, Running>>,
    workers: Arc<Workers>,
    /// How often each host has connected in this run.
    connections: Mutex<FxHashMap<MachineGuid, u64>>,
    /// When a clone was named last, by machine GUID.
    clones: Mutex<FxHashMap<MachineGuid, i64>>,
    /// Hosts that are not here, whose past was compared with a parent: over which connection of our own, and when they
    /// had left.
    compared: Mutex<FxHashMap<MachineGuid, (u64, i64)>>,
}

/// What is known of other agents of our kind that have what this one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    None,
    /// Nobody has been heard of yet, and somebody may be.
    Perhaps,
    Known,
}

/// Asks whoever evaluates alarms here.
pub type Told = Box<dyn Fn(&Host) -> Option<Vec<(String, i64)>> + Send + Sync>;

/// Bytes that wait to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// To all parents.
    pub outboxes: usize,
    /// How full the fullest outbox is.
    pub fullest_percent: usize,
    /// To all children.
    pub mailboxes: usize,
}

struct Running {
    sender: Arc<Sender>,
    thread: std::thread::JoinHandle<()>,
}

/// Where a host is to be sent, before it is checked.
pub struct Wanted {
    destination: String,
    api_key: String,
    charts: String,
    /// Whom its samples come from, if not from here.
    child: Option<Arc<Child>>,
}

impl Wanted {
    /// What `[stream]` says of hosts that are born here.
    fn of_own(sender: SenderOptions) -> Option<Wanted> {
        let SenderOptions { destination, api_key, send_charts_matching: charts, .. } = sender;
        sender.enabled.then_some(Wanted { destination, api_key, charts, child: None })
    }

    /// What the sections of a child say.
    fn of_child(rules: &Rules, child: Arc<Child>) -> Option<Wanted> {
        let options = rules.receiver(&child.key, &child.machine);
        options.proxy_enabled.then_some(Wanted {
            destination: options.proxy_destination,
            api_key: options.proxy_api_key,
            charts: options.proxy_send_charts_matching,
            child: Some(child),
        })
    }

    /// There are samples to send.
    fn is_due(&self) -> bool {
        self.child.as_ref().is_none_or(|child| child.updates() > 0)
    }

    /// Whoever had samples to send is gone.
    fn is_over(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.has_left())
    }
}

impl Streams {
    pub fn new(
        settings: Settings,
        rules: Rules,
        hosts: Arc<Hosts>,
        clock: Clock,
        stop: StopToken,
    ) -> Arc<Streams> {
        let started_ms = clock.now().0 / 1000;
        let workers = Workers::new(settings.replication_threads, stop.child());
        let streams = Arc::new(Streams {
            settings,
            rules: Mutex::new(Arc::new(rules)),
            hosts,
            clock,
            stop: stop.clone(),
            paths: Paths::new(),
            told: OnceLock::new(),
            started_ms,
            last_let_in: Mutex::new(None),
            pace: Pace::new(),
            penalties: Mutex::default(),
            children: Mutex::default(),
            senders: Mutex::default(),
            workers,
            connections: Mutex::default(),
            clones: Mutex::default(),
            compared: Mutex::default(),
        });
        let weak = Arc::downgrade(&streams);
        stop.on_stop(move || {
            if let Some(streams) = weak.upgrade() {
                for child in streams.children() {
                    child.close();
                }
            }
        });
        streams
    }

    /// Starts sending this agent's own host, if `[stream]` says so.
    pub fn start(self: &Arc<Self>) {
        self.send_own(self.hosts.local());
    }

    /// Sends a host that is born here (this agent's own, or a virtual node of it) where `[stream]` says, if it does.
    pub fn send_own(self: &Arc<Self>, host: &Arc<Host>) {
        self.settle(host);
    }

    /// Waits until all threads of streams have ended, at most so long; false when some have not. To be called after
    /// the stop.
    pub fn join(&self, patience: Duration) -> bool {
        let deadline = self.clock.monotonic_us() + i64::try_from(patience.as_micros()).unwrap_or(0);
        let left = || {
            Duration::from_micros(u64::try_from(deadline - self.clock.monotonic_us()).unwrap_or(0))
        };
        let mut complete = true;
        for child in self.children() {
            complete &= child.wait_left(left());
        }
        let senders: Vec<_> = self.senders.lock().drain().map(|(_, running)| running).collect();
        for Running { sender, thread } in senders {
            sender.stop();
            // A thread that resolves a name cannot be hurried; everything else ends at once.
            while !thread.is_finished() && !left().is_zero() {
                std::thread::park_timeout(JOIN_STEP.min(left()));
            }
            complete &= thread.is_finished();
        }
        complete & self.workers.join(left())
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What configuration says now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock())
    }

    pub fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Who answers requests for samples.
    pub fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }

    /// Stops everything here.
    pub fn stop_token(&self) -> &StopToken {
        &self.stop
    }

    // --- what is connected, for the API --------------------------------------------------------------

    /// The children connected now.
    pub fn children(&self) -> Vec<Arc<Child>> {
        self.children.lock().values().cloned().collect()
    }

    /// The connection of one child.
    pub fn child(&self, guid: MachineGuid) -> Option<Arc<Child>> {
        self.children.lock().get(&guid).cloned()
    }

    /// The senders of all hosts that are sent on.
    pub fn senders(&self) -> Vec<Arc<Sender>> {
        self.senders.lock().values().map(|running| Arc::clone(&running.sender)).collect()
    }

    /// The sender of one host.
    pub fn sender(&self, guid: MachineGuid) -> Option<Arc<Sender>> {
        self.senders.lock().get(&guid).map(|running| Arc::clone(&running.sender))
    }

    /// Compares what is held of a host with its parent and with the node below, as far as these are of ours, over a span
    /// of unix seconds; `Err` when there is nobody to compare with. Takes its time: for a thread of its own.
    pub fn verify(&self, name: &str, after: i64, before: i64) -> Result<String, String> {
        let host = self.hosts.find(name).ok_or_else(|| format!("There is no host '{name}'."))?;
        let mut texts = Vec::new();
        let above = self.sender(host.guid()).and_then(|sender| {
            let above = sender.above().filter(|above| above.is_ours())?;
            Some((format!("the parent {}", sender.status().destination), above))
        });
        if let Some((peer, above)) = above {
            let mut ask = |chart: &str, after, before, dim: Option<&str>| {
                above.ask_digest(chart, after, before, dim)
            };
            texts.push(verify_with(&host, &peer, after, before, &mut ask));
        }
        let child = self.child(host.guid());
        if let Some(child) = child.filter(|child| child.agreed.contains(Capabilities::SPANS)) {
            let peer = format!("the node below at {}", child.peer);
            let mut ask = |chart: &str, after, before, dim: Option<&str>| {
                child.below.ask_digest(chart, after, before, dim)
            };
            texts.push(verify_with(&host, &peer, after, before, &mut ask));
        }
        if texts.is_empty() {
            return Err(format!(
                "Host '{}' is connected to no node that can compare samples.",
                host.hostname()
            ));
        }
        Ok(texts.join("\n"))
    }

    /// How one host stands.
    pub fn status_of(&self, host: &Host) -> status::HostStatus {
        let now = self.clock.now_seconds().0;
        let child = self.child(host.guid());
        let sender = self.sender(host.guid());
        let (mut first, mut last) = (0, 0);
        for chart in host.charts() {
            let held = chart.lock().retention();
            if let Some((f, l)) = held {
                first = if first == 0 { f.0 } else { first.min(f.0) };
                last = last.max(l.0);
            }
        }
        status::HostStatus {
            guid: host.guid(),
            hostname: host.hostname(),
            hops: host.info().hops,
            clock_skew_s: child.as_ref().map_or(0, |child| child.skew()),
            receiving: (host.kind() == HostKind::Child).then(|| match &child {
                Some(child) => child.status(now),
                None => {
                    status::Connection::none(status::Direction::Receiving, host.disconnected_at().0)
                }
            }),
            sending: sender.map(|sender| sender.connection(now)),
            first,
            last,
            lag_s: if last == 0 { 0 } else { (now - last).max(0) },
        }
    }

    /// What waits to be sent, in both directions.
    pub fn queues(&self) -> Queues {
        let mut queues = Queues::default();
        for sender in self.senders() {
            let (bytes, limit) = sender.queued();
            queues.outboxes += bytes;
            let share = (bytes * 100).checked_div(limit).unwrap_or(0);
            queues.fullest_percent = queues.fullest_percent.max(share);
        }
        queues.mailboxes = self.children().iter().map(|child| child.below.mailbox.waiting()).sum();
        queues
    }

    /// The worst of the children that are connected.
    pub fn worst(&self) -> status::Worst {
        let now = self.clock.now_seconds().0;
        let mut worst = status::Worst::default();
        for child in self.children() {
            worst.add(child.behind_since(now), child.skew(), now);
        }
        worst
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether another parent of our cluster tells of the host's alarms: see [`Paths::owner`]. One that is missed does not.
    pub fn is_told_elsewhere(&self, host: &Host) -> bool {
        let local = self.hosts.local().guid();
        host.guid() != local && {
            let own = (local, host.info().hops);
            let lives = |guid| !self.is_missed(guid);
            self.paths.owner(host.guid(), own, &|guid| self.holds(guid), &lives).is_some()
        }
    }

    /// An agent's own samples, which came all the time, come no more though nothing says that it is gone: it hangs or is cut off.
    fn is_missed(&self, agent: MachineGuid) -> bool {
        let Some(child) = self.child(agent) else { return false };
        child.is_missed(self.clock.monotonic_us(), MISSED_US)
    }

    /// Another agent tells of the host's alarms from now on: our neighbours hear at once what was told until now.
    pub fn say_what_was_told(&self, host: &Arc<Host>) {
        self.paths.touch(host.guid());
        self.path_changed(host);
    }

    /// What others have told of a host's alarms so far counts no more, but what they say next.
    pub fn forget_what_was_told(&self, host: &Host) {
        self.paths.forget_told(host.guid());
    }

    /// An agent's own samples come here, or did before it went away.
    fn holds(&self, agent: MachineGuid) -> bool {
        self.hosts.by_guid(agent).is_some()
    }

    /// Who is asked what was told of alarms; to be said once, at the start.
    pub fn tell_what_was_told(&self, told: Told) {
        // A second one has nothing to add.
        let _ = self.told.set(told);
    }

    /// What another agent of our cluster has told of a host's alarms.
    pub fn told_by_others(&self, host: &Host) -> Option<Vec<(String, i64)>> {
        let local = self.hosts.local().guid();
        self.paths.told(host.guid(), local, &|guid| self.holds(guid))
    }

    /// Whether there are others of our kind that have what we have.
    pub fn cluster(&self) -> Cluster {
        let local = self.hosts.local().guid();
        if self.paths.has_cluster(local, &|guid| self.holds(guid)) {
            return Cluster::Known;
        }
        let Some(sender) = self.sender(local) else { return Cluster::None };
        let status = sender.status();
        let young = self.clock.now().0 / 1000 - self.started_ms < CLUSTER_MEETS_MS;
        // Whoever is of our kind names itself, and when it has the same parents as we have it comes here soon.
        match status.state {
            SenderState::Connecting => Cluster::Perhaps,
            SenderState::Online if young && status.agreed.contains(Capabilities::SPANS) => {
                Cluster::Perhaps
            }
            SenderState::Online | SenderState::Stopped => Cluster::None,
        }
    }

    /// The streaming path of a host as this agent knows it, its own entry included, for a neighbour.
    pub fn path_of(&self, host: &Host, agreed: Capabilities) -> String {
        self.paths.render(host.guid(), &self.own_entry(host), path::Words::of(agreed))
    }

    /// Why a destination would refuse a host: it is an agent that the host's samples have passed on their way here, or the host
    /// itself. Known of a destination that our own samples go to, from the path of those.
    fn passed_already(&self, host: &Host, destination: &Destination) -> Option<Failure> {
        let local = self.hosts.local().guid();
        let sender = self.sender(local).filter(|_| host.guid() != local)?;
        let status = sender.status();
        if status.state != SenderState::Online || status.destination != destination.text {
            return None;
        }
        let agent = self.paths.above(local).first()?.host_id;
        let has_passed = self.paths.below(host.guid()).iter().any(|entry| entry.host_id == agent);
        match agent == host.guid() {
            true => Some(Failure::Localhost),
            false => has_passed.then_some(Failure::AlreadyStreaming),
        }
    }

    /// The agents that a host's samples pass, from their origin on, this one among them.
    pub fn path(&self, host: &Host) -> Vec<Entry> {
        let mut path = self.paths.below(host.guid());
        path.push(self.own_entry(host));
        path.extend(self.paths.above(host.guid()));
        path
    }

    fn own_entry(&self, host: &Host) -> Entry {
        let local = self.hosts.local();
        let info = local.info();
        let child = self.child(host.guid());
        let since = child.map_or(self.started_ms / 1000, |child| child.since);
        let mut flags = Vec::new();
        if host.health() != HealthPolicy::Off {
            flags.push("health".to_owned());
        }
        if host.kind() == HostKind::Virtual {
            flags.push("virtual".to_owned());
        }
        Entry {
            hostname: info.hostname.clone(),
            host_id: local.guid(),
            node_id: info.node_id.clone(),
            claim_id: info.claim_id.clone(),
            hops: host.info().hops,
            since,
            first_time: since,
            start_ms: self.started_ms,
            shutdown_ms: 0,
            capabilities: Capabilities::OFFERED,
            flags,
            told: self.told.get().and_then(|told| told(host)),
        }
    }

    // --- children ------------------------------------------------------------------------------------

    /// Seconds until the next child may be let in; `None` lets it in now. The first of all is put off too: the time
    /// starts with it.
    fn too_soon(&self) -> Option<i64> {
        let every = i64::try_from(self.rules().accept_every.as_secs()).unwrap_or(0);
        if every <= 0 {
            return None;
        }
        let now = self.clock.monotonic_us() / MICROS;
        let mut last = self.last_let_in.lock();
        match *last {
            Some(at) if now - at < every => Some(every - (now - at)),
            Some(_) => {
                *last = Some(now);
                None
            }
            None => {
                *last = Some(now);
                Some(every)
            }
        }
    }

    /// Counts a connection of a host; gives how many there were before. What ever was a host has an entry.
    fn count_connection(&self, guid: MachineGuid) -> u64 {
        let mut connections = self.connections.lock();
        let count = connections.entry(guid).or_default();
        *count += 1;
        *count - 1
    }

    /// Two machines that both live have one GUID: said once in a while, with what tells them apart.
    fn note_clone(&self, connected: &Child, clone: &receiver::Suspect) {
        let receiver::Suspect { peer, hostname, .. } = clone;
        let now = self.clock.now_seconds().0;
        let mut clones = self.clones.lock();
        clones.retain(|_, at| now - *at < CLONE_SAID_S);
        if clones.contains_key(&connected.guid) || clones.len() >= CLONES_MAX {
            return;
        }
        clones.insert(connected.guid, now);
        drop(clones);
        log::error!(
            "STREAM {hostname} [receive from {peer}]: machine GUID [{}] is used by two live nodes: '{}' at {} is connected, '{hostname}' at {peer} is not let in. One is a copy of the other: give it a machine GUID of its own.",
            connected.guid,
            connected.hostname,
            connected.peer
        );
    }

    /// Gives a child its place. False when somebody else took it meanwhile; `rival` is whose place it may take.
    fn register(&self, child: &Arc<Child>, rival: Option<&Arc<Child>>) -> bool {
        let mut children = self.children.lock();
        if let Some(now) = children.get(&child.guid)
            && !rival.is_some_and(|rival| Arc::ptr_eq(rival, now))
        {
            return false;
        }
        if let Some(before) = children.insert(child.guid, Arc::clone(child)) {
            before.replaced.store(true, std::sync::atomic::Ordering::Release);
        }
        drop(children);
        let local = self.hosts.local();
        if local.labels().get("_is_parent") != Some("true") {
            let mut labels = (*local.labels()).clone();
            labels.set("_is_parent", "true", LabelSource::AUTO);
            local.set_labels(labels);
        }
        true
    }

    /// Takes a child's place away; false when it had lost it already.
    fn unregister(&self, child: &Arc<Child>) -> bool {
        let mut children = self.children.lock();
        let held = children.get(&child.guid).is_some_and(|now| Arc::ptr_eq(now, child));
        if held {
            children.remove(&child.guid);
        }
        held
    }

    /// A child's last connection is over: nothing of it is sent on any more.
    fn child_left(&self, host: &Host, child: &Child) {
        // From here on nobody begins to send it: whoever does looks at this while the register is locked.
        child.leave();
        let running = self.senders.lock().remove(&host.guid());
        if let Some(running) = running {
            running.sender.stop();
        }
        self.paths.forget(host.guid(), path::From::Child);
    }

    fn log_new_host(&self, host: &Host, options: &ReceiverOptions, health: &str) {
        let info = host.info();
        let guid = host.guid();
        let (streaming, to, key) = if options.proxy_enabled {
            ("enabled", options.proxy_destination.as_str(), keys::masked(&options.proxy_api_key))
        } else {
            ("disabled", "", "")
        };
        let cache = self.settings.cache_dir.join(guid.to_string());
        let lib = self.settings.lib_dir.join(guid.to_string());
        log::info!(
            "Host '{}' (at registry as '{}') with guid '{guid}' initialized, os '{}', timezone '{}', tags '{}', \
             program_name '{}', program_version '{}', update every {}, memory mode {}, history entries {}, \
             streaming {streaming} (to '{to}' with api key '{key}'), health {health}, cache_dir '{}', varlib_dir '{}', \
             health_log '{}', alarms default handler '', alarms default recipient 'root'",
            info.hostname,
            info.registry_hostname,
            info.os,
            info.timezone,
            info.tags,
            info.program_name,
            info.program_version,
            info.update_every,
            host.settings().mode.name(),
            host.engine().entries(),
            cache.display(),
            lib.display(),
            lib.join("health/health-log.db").display(),
        );
    }

    // --- senders ---------------------------------------------------------------------------------------

    /// Starts a host's sender, unless it has one.
    fn send(self: &Arc<Self>, host: &Arc<Host>, wanted: &Wanted) {
        self.send_as(host, wanted, Purpose::Live);
    }

    fn send_as(self: &Arc<Self>, host: &Arc<Host>, wanted: &Wanted, purpose: Purpose) {
        if wanted.destination.trim().is_empty() || wanted.api_key.is_empty() {
            log::error!("STREAM [send]: cannot enable sending thread - information is missing.");
            return;
        }
        let mut senders = self.senders.lock();
        if self.stop.is_stopped() || wanted.is_over() {
            return;
        }
        if let Some(running) = senders.get(&host.guid()) {
            if running.sender.purpose() == Purpose::Live || purpose == Purpose::Past {
                return;
            }
            // The host is here again: its past goes along with its present.
            running.sender.stop();
        }
        let plan = self.plan(&self.rules(), wanted);
        let started =
            Uplink::new(Arc::clone(host), plan.uplink(), self.clock.clone()).and_then(|uplink| {
                let stop = self.stop.child();
                let sender = Sender::new(Arc::clone(&uplink), plan, purpose, stop);
                let (runs, streams) = (Arc::clone(&sender), Arc::clone(self));
                let name = format!("STREAM_SENDER[{}]", host.hostname());
                let thread = threads::spawn(name, move || runs.run(&streams))?;
                host.set_tap(Some(uplink as Arc<dyn Tap>));
                Ok(Running { sender, thread })
            });
        match started {
            Ok(running) => {
                senders.insert(host.guid(), running);
            }
            Err(error) => log::error!(
                "STREAM {} [send]: failed to create new thread for client.{}",
                host.hostname(),
                Errno(&error)
            ),
        }
    }

    fn send_no_more(&self, sender: &Arc<Sender>) {
        let mut senders = self.senders.lock();
        let guid = sender.host().guid();
        if senders.get(&guid).is_some_and(|running| Arc::ptr_eq(&running.sender, sender)) {
            senders.remove(&guid);
        }
        drop(senders);
        sender.stop();
    }

    /// How a host is sent there, by what `[stream]` says of all of them.
    fn plan(&self, rules: &Rules, wanted: &Wanted) -> SenderPlan {
        let options = rules.conf.sender();
        SenderPlan {
            destinations: parse_destinations(&wanted.destination, options.default_port),
            default_port: options.default_port,
            api_key: wanted.api_key.clone(),
            charts: wanted.charts.clone(),
            buffer_bytes: usize::try_from(options.buffer_bytes).unwrap_or(usize::MAX),
            resync_iterations: options.initial_clock_resync_iterations,
            timeout: options.timeout,
            reconnect_delay: options.reconnect_delay,
            update_every: self.settings.update_every.seconds(),
            offered: if options.compression {
                Capabilities::OFFERED
            } else {
                Capabilities::OFFERED - Capabilities::COMPRESSIONS
            },
            levels: Levels::clamped(
                options.zstd_level,
                options.lz4_acceleration,
                options.gzip_level,
            ),
            tls: ClientOptions {
                skip_verification: options.ssl_skip_certificate_verification,
                ca_path: options.ca_path.map(PathBuf::from),
                ca_file: options.ca_file.map(PathBuf::from),
                identity: options
                    .ssl_key
                    .zip(options.ssl_certificate)
                    .map(|(key, certificate)| (key.into(), certificate.into())),
            },
        }
    }

    /// The local host's sender calls this now and then: virtual nodes are sent where the local host is, each over a
    /// connection of its own.
    fn look_for_virtual_hosts(self: &Arc<Self>, asking: &Host) {
        if asking.kind() != HostKind::Local || self.hosts.count() < 2 {
            return;
        }
        for host in self.hosts.all() {
            if host.kind() == HostKind::Virtual && self.sender(host.guid()).is_none() {
                self.send_own(&host);
            }
        }
    }

    /// How far back this agent asks its own parents.
    fn own_policy(&self) -> replication::Policy {
        let defaults = &self.rules().defaults;
        replication::Policy {
            enabled: defaults.replication,
            period: defaults.seconds_to_replicate,
            step: defaults.seconds_per_replication_step,
        }
    }

    /// Samples of a chart came from above: the node below may lack them too.
    fn tell_child(&self, chart: &Chart) {
        if let Some(child) = self.child(chart.host_guid()) {
            child.below.offer(chart);
        }
    }

    /// The local host's sender calls this now and then, with the number of its connection to a parent of ours: what is
    /// held of hosts that are not here is compared with it, each over a connection of its own.
    fn compare_the_past(self: &Arc<Self>, asking: &Host, connection: u64) {
        if asking.kind() != HostKind::Local || self.hosts.count() < 2 {
            return;
        }
        // With that parent and no other: it is one of ours.
        let Some(own) = self.sender(asking.guid()) else { return };
        let destination = own.status().destination;
        let now = self.clock.now_seconds().0;
        let mut running = 0;
        self.senders.lock().retain(|_, one| {
            let past = one.sender.purpose() == Purpose::Past;
            running += usize::from(past && !one.thread.is_finished());
            !past || !one.thread.is_finished()
        });
        for host in self.hosts.all() {
            if running >= COMPARED_AT_ONCE {
                return;
            }
            let mark = (connection, host.disconnected_at().0);
            if host.kind() != HostKind::Child
                || host.is_connected()
                || now - host.disconnected_at().0 < LEFT_FOR_S
                || !host.settings().mode.persists()
                || self.child(host.guid()).is_some()
                || self.sender(host.guid()).is_some()
                || self.compared.lock().get(&host.guid()) == Some(&mark)
            {
                continue;
            }
            self.compared.lock().insert(host.guid(), mark);
            running += 1;
            let Some(host) = self.revived(&host) else { continue };
            let api_key = self.rules().conf.sender().api_key;
            let (destination, charts) = (destination.clone(), "*".to_owned());
            let wanted = Wanted { destination, api_key, charts, child: None };
            self.send_as(&host, &wanted, Purpose::Past);
        }
    }

    /// An archived host becomes one that can be written to; the service thread archives it again in its time.
    fn revived(&self, host: &Arc<Host>) -> Option<Arc<Host>> {
        if !host.is_archived() {
            return Some(Arc::clone(host));
        }
        let settings = host.settings().clone();
        let engine = (self.settings.engine)(settings.mode, settings.history, host.guid());
        let (guid, left) = (host.guid(), host.disconnected_at());
        let info = host.info();
        let make = || Host::new(guid, HostKind::Child, (*info).clone(), engine, settings);
        let (host, _) = self.hosts.get_or_create(guid, make)?;
        if !host.is_connected() {
            host.set_connected(false, left);
        }
        Some(host)
    }

    fn nudge_sender(&self, guid: MachineGuid) {
        if let Some(sender) = self.sender(guid) {
            sender.nudge();
        }
    }

    // --- the streaming path ------------------------------------------------------------------------------

    /// A neighbour said what it knows of a host's path.
    fn path_told(&self, host: &Arc<Host>, from: path::From, json: &[u8]) {
        let own = self.hosts.local().guid();
        match self.paths.learn(host.guid(), host.info().hops, own, from, json) {
            Ok(true) => self.path_changed(host),
            Ok(false) => {}
            Err(error) => {
                log::error!("STREAM PATH '{}': cannot read payload: {error}", host.hostname());
            }
        }
    }

    /// A host's connection upwards is over: whoever was above is no longer on its path.
    fn parent_left(&self, host: &Arc<Host>) {
        if self.paths.forget(host.guid(), path::From::Parent) {
            self.path_changed(host);
        }
    }

    fn path_changed(&self, host: &Arc<Host>) {
        if let Some(child) = self.child(host.guid())
            && child.agreed.contains(Capabilities::PATHS)
        {
            let json = self.path_of(host, child.agreed);
            child
                .below
                .mailbox
                .post(|out| crate::wire::pluginsd::stream_path(out, json.as_bytes()));
        }
        self.nudge_sender(host.guid());
    }
}

/// Compares all charts of a host with one peer; the words for people.
fn verify_with(
    host: &Host,
    peer: &str,
    after: i64,
    before: i64,
    ask: &mut verify::AskPeer<'_>,
) -> String {
    let (mut charts, mut samples) = (0, 0);
    for chart in host.charts() {
        let Some(view) = shelf::whole_view(host, chart.id()) else { continue };
        let outcome = verify::compare(&view, chart.id(), after, before, ask);
        if let Some(text) = verify::describe(chart.id(), peer, &outcome) {
            return text;
        }
        if let verify::Outcome::Same { samples: more } = outcome {
            samples += more;
            charts += 1;
        }
    }
    format!("No sample differs: {samples} samples of {charts} charts are the same at {peer}.")
}

/// The agents of a cluster find each other within so long after their start.
const CLUSTER_MEETS_MS: i64 = 60_000;
/// An agent that is silent for so long at least tells of no alarms.
const MISSED_US: i64 = 6 * MICROS;
/// A clone is named once in so many seconds, and so many of them.
const CLONE_SAID_S: i64 = 600;
const CLONES_MAX: usize = 1000;
/// Who left so recently may be back at once.
const LEFT_FOR_S: i64 = 15;
/// Hosts that are not here, whose past is compared at one time.
const COMPARED_AT_ONCE: usize = 4;

/// How often a thread that is being waited for is looked at.
const JOIN_STEP: Duration = Duration::from_millis(10);

fn health_word(health: OnDemand) -> &'static str {
    match health {
        OnDemand::No => "disabled",
        OnDemand::Yes | OnDemand::Auto => "enabled",
    }
}
