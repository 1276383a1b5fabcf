//! Evaluation: which alarms are due, what they come to, who is told.
//!
//! Thread `HEALTH` looks at every host once a second at most and evaluates what is due. Per host there is one lock, held
//! for its pass and for an answer of the API; collectors never take it. A pass allocates nothing unless a status changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::alarm::{Change, Quiet, Status, Verdict, wants_notice};
use super::grammar::{self, Repeat};
use super::linked::{Alarm, HostAlarms, Rules, Which};
use super::log::{Entry, Log, Order, Remembered, Write, flag};
use super::notify::{self, Notifier};
use super::silencers::{About, Silencers};
use super::text;
use crate::base::ids::MachineGuid;
use crate::base::log::health as health_log;
use crate::base::threads::StopToken;
use crate::base::time::{Clock, MICROS};
use crate::metrics::{HealthPolicy, Host, HostKind, Hosts};
use crate::query::lookup::{Found, Lookup, Scratch};

/// An obsolete chart that is silent for longer takes its alarms with it.
const OBSOLETE_AFTER_S: i64 = 60;
/// Between two looks at the size of the logs.
const TRIM_EVERY_S: i64 = 7200;
/// Alarms that a notification lists by name.
const LISTED_MAX: usize = 15;
/// Who told of a host's alarms may be gone for so long when the host comes another way.
const TAKEOVER_S: i64 = 60;
/// In a cluster a host's alarms wait at least so long after it connects, for what others have told of them.
const HEAR_S: i64 = 5;
/// Longer names of alarms are cut where agents of a cluster tell them to each other.
pub const TOLD_NAME_MAX: usize = 400;
/// So long an event waits for the word of whoever is to tell of it: longer than it takes to miss one that hangs.
const WORD_S: i64 = 8;
/// A pass that comes so late: this process did not run, and another of the cluster may have told meanwhile.
const FROZEN_US: i64 = 5 * MICROS;
const TICK: Duration = Duration::from_secs(1);

/// What `[health]` and its directories say.
#[derive(Clone, Debug)]
pub struct Options {
    pub enabled: bool,
    pub user_dir: PathBuf,
    /// `None`: stock alarms are not wanted.
    pub stock_dir: Option<PathBuf>,
    pub script: String,
    pub silencers_file: PathBuf,
    pub repeat: Repeat,
    /// Events that the API tells.
    pub log_shown: i64,
    /// Events that are kept per host.
    pub log_kept: i64,
    pub run_every: i64,
    pub hibernation: i64,
    /// Where the log is.
    pub log_dir: PathBuf,
    /// For the command that edits an alarm.
    pub config_dir: PathBuf,
}

/// A change that somebody may have to be told of, once it is time.
#[derive(Debug)]
struct Pending {
    alarm: i64,
    event: i64,
    at: i64,
    change: Change,
    value: f64,
    old_value: f64,
}

/// A host and its alarms.
pub struct Watched {
    pub host: Arc<Host>,
    /// Alarms are evaluated.
    on: AtomicBool,
    next: AtomicI64,
    state: Mutex<Watch>,
    /// What [`HealthEngine::told`] gives: streams ask for it and must not wait for a pass.
    told: Mutex<Option<Told>>,
}

type Told = Arc<[(String, i64)]>;

/// Somebody else may have told of alarms that we did not hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// Everybody was heard, or nobody has anything to say.
    Done,
    /// Nothing was evaluated since the host came: words are waited for. `found`: somebody is there to say them.
    Waiting { found: bool },
    /// Evaluation has begun without a word.
    Late,
}

struct Watch {
    alarms: HostAlarms,
    pending: Vec<Pending>,
    next_event: i64,
    /// Nothing is evaluated before.
    not_before: i64,
    /// The connection that alarms were postponed for.
    postponed_for: i64,
    hearing: Hearing,
    /// When the last pass found that another one tells of them; 0 = it did not.
    told_elsewhere_at: i64,
    /// It did.
    elsewhere: bool,
    /// They were evaluated in this run.
    evaluated: bool,
    trim_at: i64,
    scratch: Scratch,
    writes: Vec<Write>,
}

impl Watch {
    /// The clock was set back by so many seconds.
    fn moves_back(&mut self, seconds: i64) {
        // 0 stands for no time.
        let back = |time: &mut i64| {
            if *time > 0 {
                *time = (*time - seconds).max(1);
            }
        };
        back(&mut self.not_before);
        back(&mut self.told_elsewhere_at);
        back(&mut self.trim_at);
        self.pending.iter_mut().for_each(|pending| back(&mut pending.at));
        for alarm in &mut self.alarms.alarms {
            back(&mut alarm.state.next_update);
            back(&mut alarm.state.delay_until);
            back(&mut alarm.state.last_repeat);
        }
    }
}

impl Watched {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Shows the alarms, with the number of the newest event.
    pub fn show<T>(&self, look: impl FnOnce(&HostAlarms, i64) -> T) -> T {
        let state = self.state.lock();
        look(&state.alarms, state.next_event - 1)
    }
}

/// The other agents that may have the same hosts, of which one tells of a host's alarms.
pub trait Cluster: Send + Sync {
    /// Another one tells of this host's alarms.
    fn tells(&self, host: &Host) -> bool;
    /// Alarms that are raised, as CHART.ALARM, with the number of the status that somebody was told of last; from another
    /// one that evaluates them. The flag: those are all.
    fn told(&self, host: &Host) -> Option<(Vec<(String, i64)>, bool)>;
    /// Another one tells of this host's alarms from now on, and is to hear what this one has told.
    fn say(&self, _host: &Arc<Host>) {}
    /// What was heard of this host's alarms is old.
    fn forget(&self, _host: &Host) {}
    fn presence(&self) -> Presence;
}

/// What is known of the others of a [`Cluster`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    #[default]
    Nobody,
    /// Whether there is anybody shows later.
    Unknown,
    Others,
}

pub struct Health {
    options: Options,
    hosts: Arc<Hosts>,
    clock: Clock,
    rules: RwLock<Arc<Rules>>,
    reload: AtomicBool,
    silencers: Silencers,
    log: Arc<Log>,
    notifier: Notifier,
    cluster: Box<dyn Cluster>,
    watched: Mutex<FxHashMap<MachineGuid, Arc<Watched>>>,
    /// When the last pass began; 0 = there was none.
    last_tick: AtomicI64,
}

impl Health {
    pub fn new(
        options: Options,
        hosts: Arc<Hosts>,
        clock: Clock,
        log: Arc<Log>,
        notifier: Notifier,
        cluster: Box<dyn Cluster>,
    ) -> Arc<Health> {
        let rules = Arc::new(read_rules(&options));
        let silencers = Silencers::load(&options.silencers_file);
        Arc::new(Health {
            options,
            hosts,
            clock,
            rules: RwLock::new(rules),
            reload: AtomicBool::new(false),
            silencers,
            log,
            notifier,
            cluster,
            watched: Mutex::default(),
            last_tick: AtomicI64::new(0),
        })
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn silencers(&self) -> &Silencers {
        &self.silencers
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The files are read again at the next pass; alarms keep their state.
    pub fn reload(&self) {
        self.reload.store(true, Ordering::Release);
    }

    pub fn watched(&self, host: &Host) -> Option<Arc<Watched>> {
        self.watched.lock().get(&host.guid()).cloned()
    }

    /// Whether a host's alarms are evaluated now.
    pub fn is_on(&self, host: &Host) -> bool {
        self.watched(host).is_some_and(|watched| watched.is_on())
    }

    // --- the thread ------------------------------------------------------------------------------

    /// Until `stop`: a pass a second.
    pub fn run(&self, stop: &StopToken) {
        let mut last = (self.clock.now(), self.clock.monotonic_us());
        // When the last pass was through: one that takes long is no pause.
        let mut rested = last.1;
        while !stop.wait(TICK) {
            let (wall, mono) = (self.clock.now(), self.clock.monotonic_us());
            // The machine slept: nothing was collected meanwhile.
            let slept = wall - last.0 > 2 * (mono - last.1).max(MICROS);
            if mono - rested > FROZEN_US {
                self.was_frozen(wall.seconds().0);
            }
            last = (wall, mono);
            self.tick(wall.seconds().0, slept);
            rested = self.clock.monotonic_us();
        }
    }

    /// Nothing ran here for a while. In a cluster others may have told of what they saw: they are heard first.
    pub fn was_frozen(&self, now: i64) {
        if self.cluster.presence() != Presence::Others {
            return;
        }
        for watched in self.all_watched() {
            let host = &watched.host;
            let mut watch = watched.state.lock();
            if host.kind() != HostKind::Child || !watch.evaluated {
                continue;
            }
            self.cluster.forget(host);
            watch.hearing = Hearing::Waiting { found: true };
            watch.not_before = watch.not_before.max(now + HEAR_S);
            // As if another one had told until now: what is not among its words is over.
            watch.told_elsewhere_at = now;
            health_log(format_args!(
                "[{}]: Postponing health checks for {HEAR_S} seconds, because this agent did not run for a while.",
                host.hostname()
            ));
        }
    }

    /// Evaluates whatever is due at `now`.
    pub fn tick(&self, now: i64, slept: bool) {
        let back = self.last_tick.swap(now, Ordering::AcqRel) - now;
        if back > 0 {
            // Whatever waits for a time would wait for as long as the clock was set back.
            for watched in self.all_watched() {
                watched.state.lock().moves_back(back);
                watched.next.store(0, Ordering::Release);
            }
        }
        if self.reload.swap(false, Ordering::AcqRel) {
            let rules = Arc::new(read_rules(&self.options));
            *self.rules.write() = rules;
            for watched in self.all_watched() {
                health_log(format_args!("[{}]: Reloading health.", watched.host.hostname()));
                watched.next.store(0, Ordering::Release);
            }
        }
        let rules = Arc::clone(&self.rules.read());
        for host in self.hosts.all() {
            self.look_at(&host, &rules, now, slept);
        }
        if now % 60 == 0 {
            let mut gone = Vec::new();
            self.watched.lock().retain(|guid, watched| match self.hosts.by_guid(*guid) {
                Some(host) => Arc::ptr_eq(&host, &watched.host),
                None => {
                    gone.push(*guid);
                    false
                }
            });
            gone.into_iter().for_each(|guid| self.log.forget(guid));
        }
    }

    fn all_watched(&self) -> Vec<Arc<Watched>> {
        self.watched.lock().values().cloned().collect()
    }

    fn look_at(&self, host: &Arc<Host>, rules: &Arc<Rules>, now: i64, slept: bool) {
        let wanted = !host.is_archived()
            && match host.health() {
                HealthPolicy::Off => false,
                HealthPolicy::On => true,
                HealthPolicy::WhileConnected => host.is_connected(),
            };
        let known = self.watched.lock().get(&host.guid()).cloned();
        let known = known.filter(|watched| Arc::ptr_eq(&watched.host, host));
        if !wanted {
            if let Some(watched) = known
                && watched.on.swap(false, Ordering::AcqRel)
            {
                health_log(format_args!("[{}]: Health is off.", host.hostname()));
            }
            return;
        }
        let watched = match known {
            Some(watched) => watched,
            None => self.watch(host, now),
        };
        if !watched.on.swap(true, Ordering::AcqRel) {
            health_log(format_args!("[{}]: Health is running.", host.hostname()));
            watched.next.store(0, Ordering::Release);
        }
        if now >= watched.next.load(Ordering::Acquire) || slept {
            let next = self.pass(&watched, rules, now, slept);
            watched.next.store(next, Ordering::Release);
        }
    }

    fn watch(&self, host: &Arc<Host>, now: i64) -> Arc<Watched> {
        let name = host.hostname();
        health_log(format_args!("[{name}]: Initializing health."));
        let (remembered, newest) = self.log.remembered(host.guid());
        health_log(format_args!(
            "[{name}]: Table health_log, loaded {} alarm entries, errors in 0 entries.",
            remembered.len()
        ));
        health_log(format_args!("[{name}]: Read health configuration."));
        let state = Watch {
            alarms: HostAlarms::new(remembered, now, self.options.repeat),
            pending: Vec::new(),
            next_event: if newest > 0 { newest + 1 } else { now },
            not_before: 0,
            postponed_for: 0,
            hearing: Hearing::Done,
            told_elsewhere_at: 0,
            elsewhere: false,
            evaluated: false,
            trim_at: now + TRIM_EVERY_S,
            scratch: Scratch::default(),
            writes: Vec::new(),
        };
        let watched = Arc::new(Watched {
            host: Arc::clone(host),
            on: AtomicBool::new(false),
            next: AtomicI64::new(0),
            state: Mutex::new(state),
            told: Mutex::new(None),
        });
        self.watched.lock().insert(host.guid(), Arc::clone(&watched));
        watched
    }

    /// Evaluates what is due on a host; gives when to come again.
    fn pass(&self, watched: &Watched, rules: &Arc<Rules>, now: i64, slept: bool) -> i64 {
        let host = &watched.host;
        let mut guard = watched.state.lock();
        let watch = &mut *guard;
        self.postpone(host, watch, now, slept);
        let report = host.kind() == HostKind::Local;
        for alarm in watch.alarms.link(host, rules, report) {
            self.remove(watch, alarm, now);
        }
        self.listen(host, watch, now);
        let elsewhere = self.cluster.tells(host);
        let says = elsewhere && !watch.elsewhere && watch.evaluated;
        watch.elsewhere = elsewhere;
        watch.told_elsewhere_at = if elsewhere { now } else { watch.told_elsewhere_at };
        let mut next = now + self.options.run_every;
        if now < watch.not_before {
            let waiting = matches!(watch.hearing, Hearing::Waiting { .. });
            next = watch.not_before.min(if waiting { now + 1 } else { next });
        } else if says {
            // It hears what was told until now before anything ends here that it is to tell the end of.
            next = now + 1;
        } else {
            watch.evaluated = true;
            if watch.not_before > 0 {
                watch.not_before = 0;
                health_log(format_args!(
                    "[{}]: Resuming health checks after delay.",
                    host.hostname()
                ));
            }
            next = next.min(self.evaluate(host, watch, now));
            next = next.min(self.tell(host, watch, now));
        }
        if now >= watch.trim_at {
            watch.trim_at = now + TRIM_EVERY_S;
            self.log.trim(host.guid(), self.options.log_kept);
            // Those that are still true have to be known after a restart, however old they are.
            let alarms = watch.alarms.alarms.iter();
            let raised = alarms.filter(|alarm| alarm.state.told.is_some_and(Status::is_raised));
            watch.writes.extend(raised.map(|alarm| Write::Alarm(Box::new(remembered(alarm)))));
        }
        if !watch.writes.is_empty() {
            self.write(host, &mut watch.writes);
        }
        let raised = |alarm: &&Alarm| alarm.state.told.is_some_and(Status::is_raised);
        let told = |alarm: &Alarm| Some((told_name(alarm), alarm.state.told?.number()));
        let told: Option<Told> = watch
            .evaluated
            .then(|| watch.alarms.alarms.iter().filter(raised).filter_map(told).collect());
        let changed = *watched.told.lock() != told;
        if changed {
            *watched.told.lock() = told;
        }
        drop(guard);
        // The others wait for the word of the one that tells.
        let waits = || changed && !elsewhere && self.cluster.presence() == Presence::Others;
        if says || waits() {
            self.cluster.say(host);
        }
        next.max(now + 1)
    }

    /// What happened goes into the log together with what is to be told of it, so that neither is there without the other.
    fn write(&self, host: &Host, writes: &mut Vec<Write>) {
        let kept = self.log.write(host.guid(), writes);
        let mut orders = false;
        for write in writes.drain(..) {
            match write {
                Write::Order(_) if kept => orders = true,
                Write::Order(order) => self.notifier.order(*order),
                _ => {}
            }
        }
        if orders {
            self.notifier.look();
        }
    }

    /// A machine that slept and a child that has just connected get some time first.
    fn postpone(&self, host: &Host, watch: &mut Watch, now: i64, slept: bool) {
        if slept && self.options.hibernation > 0 {
            watch.not_before = watch.not_before.max(now + self.options.hibernation);
            health_log(format_args!(
                "[{}]: Postponing alarm checks for {} seconds, because it seems that the system was just resumed from suspension.",
                host.hostname(),
                self.options.hibernation
            ));
        }
        let connected = host.connected_at().0;
        if host.kind() == HostKind::Child && connected != watch.postponed_for {
            watch.postponed_for = connected;
            // Who told until now is gone, and the host comes another way. Its alarms have gone on here all the time.
            let takes_over = watch.evaluated
                && watch.not_before == 0
                && now - watch.told_elsewhere_at <= TAKEOVER_S;
            if takes_over {
                health_log(format_args!(
                    "[{}]: Not postponing health checks, because it comes another way and they have gone on until now.",
                    host.hostname()
                ));
                watch.hearing = Hearing::Done;
                return;
            }
            let presence = self.cluster.presence();
            watch.hearing = match presence {
                Presence::Nobody => Hearing::Done,
                Presence::Unknown => Hearing::Waiting { found: false },
                Presence::Others => Hearing::Waiting { found: true },
            };
            // Long enough to hear from others.
            let least = if watch.hearing == Hearing::Done { 0 } else { HEAR_S };
            let postponed = host.health_postponed_s().max(least);
            let until = connected + postponed;
            if until > now {
                watch.not_before = watch.not_before.max(until);
                health_log(format_args!(
                    "[{}]: Postponing health checks for {postponed} seconds, because it was just connected.",
                    host.hostname()
                ));
            }
        }
    }

    /// Asks for what others told while this agent did not watch: in each pass until alarms are evaluated, since charts and
    /// words may both come late, and after that until the first word comes or nobody is there to say one.
    fn listen(&self, host: &Host, watch: &mut Watch, now: i64) {
        watch.hearing = match watch.hearing {
            Hearing::Done => return,
            Hearing::Waiting { found } => {
                let presence = self.cluster.presence();
                if !found && presence == Presence::Others {
                    // Who was found just now has not had the time to say anything.
                    watch.not_before = watch.not_before.max(now + HEAR_S);
                }
                let heard = self.hear(host, watch, now);
                if now < watch.not_before {
                    Hearing::Waiting { found: found || presence == Presence::Others }
                } else if heard || presence == Presence::Nobody {
                    Hearing::Done
                } else {
                    Hearing::Late
                }
            }
            Hearing::Late => {
                let done =
                    self.hear_late(host, watch, now) || self.cluster.presence() == Presence::Nobody;
                if done { Hearing::Done } else { Hearing::Late }
            }
        };
    }

    /// Takes over what others have told; false when they say nothing.
    fn hear(&self, host: &Host, watch: &mut Watch, now: i64) -> bool {
        let Some((told, all)) = self.cluster.told(host) else { return false };
        // What is not among its words is over, unless it is this agent that told until now.
        let all = all && (!watch.evaluated || watch.told_elsewhere_at > 0);
        let told: FxHashMap<String, i64> = told.into_iter().collect();
        for alarm in &mut watch.alarms.alarms {
            let word = told.get(&told_name(alarm)).copied().and_then(Status::from_number);
            let word = word.filter(|word| word.is_raised());
            let word = match word {
                None if all && alarm.state.told.is_some() => Some(Status::Clear),
                None => continue,
                word => word,
            };
            if alarm.state.told != word {
                alarm.state.told = word;
                watch.writes.push(Write::Alarm(Box::new(remembered(alarm))));
                // It is over here without a change that would say so.
                let raised = word.filter(|word| word.is_raised());
                if let Some(word) = raised.filter(|_| alarm.state.status == Status::Clear) {
                    watch.pending.retain(|pending| pending.alarm != alarm.id);
                    watch.pending.push(owed_end(alarm, word, now));
                }
            }
        }
        true
    }

    /// The same once alarms are evaluated here: what somebody was told of and this agent did not tell is not told again, and
    /// its end is.
    fn hear_late(&self, host: &Host, watch: &mut Watch, now: i64) -> bool {
        let Some((told, _)) = self.cluster.told(host) else { return false };
        let told: FxHashMap<String, i64> = told.into_iter().collect();
        for alarm in &mut watch.alarms.alarms {
            let word = told.get(&told_name(alarm)).copied().and_then(Status::from_number);
            let Some(word) = word.filter(|word| word.is_raised()) else { continue };
            if alarm.state.told.is_some_and(Status::is_raised) {
                continue;
            }
            alarm.state.told = Some(word);
            watch.writes.push(Write::Alarm(Box::new(remembered(alarm))));
            let held_back = watch.pending.iter().any(|pending| pending.alarm == alarm.id);
            if alarm.state.status != Status::Clear || held_back {
                continue;
            }
            watch.pending.push(owed_end(alarm, word, now));
        }
        true
    }

    /// Of a host whose alarms are evaluated here: those that are raised and that somebody was told of.
    pub fn told(&self, host: &Host) -> Option<Vec<(String, i64)>> {
        let watched = self.watched(host).filter(|watched| watched.is_on())?;
        let told = watched.told.lock();
        told.as_ref().map(|told| told.to_vec())
    }

    fn evaluate(&self, host: &Host, watch: &mut Watch, now: i64) -> i64 {
        let version = self.silencers.version();
        let mut next = i64::MAX;
        for index in 0..watch.alarms.alarms.len() {
            let alarm = &mut watch.alarms.alarms[index];
            alarm.due = false;
            if alarm.ask_silencers(version) {
                self.ask_silencers(host, alarm);
            }
            // One that lies further ahead than it can was set before the clock went back.
            let every = alarm.definition.every.max(1);
            if (now + 1..=now + every).contains(&alarm.state.next_update) {
                next = next.min(alarm.state.next_update);
                continue;
            }
            if self.is_runnable(host, watch, index, now) {
                let every = watch.alarms.alarms[index].definition.every.max(1);
                let alarm = &mut watch.alarms.alarms[index];
                alarm.due = true;
                alarm.state.next_update = now + every;
                next = next.min(alarm.state.next_update);
                self.value(host, watch, index, now);
            } else {
                next = next.min(now + 1);
            }
        }
        for index in 0..watch.alarms.alarms.len() {
            if watch.alarms.alarms[index].due {
                self.judge(host, watch, index, now);
            }
        }
        next
    }

    fn ask_silencers(&self, host: &Host, alarm: &mut Alarm) {
        let (name, context, family) = {
            let state = alarm.chart.lock();
            let meta = &state.meta;
            (Arc::clone(&meta.name), Arc::clone(&meta.context), Arc::clone(&meta.family))
        };
        let hostname = host.hostname();
        let about = About {
            alarm: &alarm.name,
            chart_id: alarm.chart.id(),
            chart_name: &name,
            context: &context,
            host: &hostname,
            family: &family,
        };
        let (disabled, silenced) = self.silencers.verdict(&about);
        if (disabled, silenced) != (alarm.disabled, alarm.silenced) {
            let bit = |flag: bool| u8::from(flag);
            health_log(format_args!(
                "[{hostname}]: Alarm silencing changed for host '{hostname}' alarm '{}': Disabled {}->{} Silenced {}->{}",
                alarm.name,
                bit(alarm.disabled),
                bit(disabled),
                bit(alarm.silenced),
                bit(silenced)
            ));
        }
        (alarm.disabled, alarm.silenced) = (disabled, silenced);
    }

    /// Whether the chart has what the alarm needs. Notes which metrics its look-up reads.
    fn is_runnable(&self, host: &Host, watch: &mut Watch, index: usize, now: i64) -> bool {
        let alarm = &mut watch.alarms.alarms[index];
        if alarm.disabled {
            return false;
        }
        let (obsolete, last_collected, every) = {
            let state = alarm.chart.lock();
            let last = state.last_collected.seconds().0;
            if !state.is_obsolete() && alarm.lanes_version != state.version {
                if let Some(lookup) = &alarm.definition.lookup {
                    alarm.lanes = lookup.lanes(&state, alarm.only.as_deref());
                }
                alarm.lanes_version = state.version;
            }
            if !state.is_obsolete() && state.counter_done < 2 {
                return false;
            }
            (state.is_obsolete(), last, state.meta.update_every.seconds())
        };
        if obsolete {
            if now - last_collected > OBSOLETE_AFTER_S
                && alarm.state.status != Status::Removed
                && !alarm.repeat.is_on()
            {
                self.become_(host, watch, index, Status::Removed, now);
            }
            return false;
        }
        // Of a child that came back: charts that did not come with it are not its present.
        // (If it connected later than now, the clock was set back since, and that time says nothing.)
        let connected = host.connected_at().0;
        if host.kind() == HostKind::Child && connected <= now && last_collected < connected {
            return false;
        }
        let alarm = &watch.alarms.alarms[index];
        let Some(lookup) = &alarm.definition.lookup else { return true };
        let Some((first, last)) = Lookup::held(&alarm.lanes) else { return false };
        let needed = now + lookup.before + lookup.after;
        needed + every >= first && needed - every <= last
    }

    /// The value: of the look-up, then of the calculation.
    fn value(&self, host: &Host, watch: &mut Watch, index: usize, now: i64) {
        let alarm = &mut watch.alarms.alarms[index];
        alarm.state.last_updated = now;
        alarm.state.old_value = alarm.state.value;
        if let Some(lookup) = &alarm.definition.lookup {
            let every = alarm.chart.lock().meta.update_every.seconds();
            let found = lookup.evaluate(&alarm.lanes, every, now, &mut watch.scratch);
            alarm.found = found;
            alarm.state.value = found.value;
        } else {
            alarm.found = Found::NOTHING;
        }
        if alarm.definition.calc.is_some() {
            let value = watch.alarms.evaluate(index, Which::Calc, host, now);
            watch.alarms.alarms[index].state.value = value.unwrap_or(f64::NAN);
        }
    }

    /// The status.
    fn judge(&self, host: &Host, watch: &mut Watch, index: usize, now: i64) {
        let mut says = |which| {
            let value = watch.alarms.evaluate(index, which, host, now);
            value.map(|value| value != 0.0)
        };
        let verdict = Verdict { warn: says(Which::Warn), crit: says(Which::Crit) };
        self.become_(host, watch, index, verdict.status(), now);
        self.repeat(host, watch, index, now);
    }

    // --- events ----------------------------------------------------------------------------------

    fn become_(&self, host: &Host, watch: &mut Watch, index: usize, status: Status, now: i64) {
        let alarm = &mut watch.alarms.alarms[index];
        let definition = Arc::clone(&alarm.definition);
        let Some(change) = alarm.state.become_(status, now, &definition.delay) else { return };
        let event = watch.next_event;
        watch.next_event += 1;
        alarm.events += 1;
        let before = std::mem::replace(&mut alarm.last_event, event);
        // The value that belongs to the status before.
        let old_value = alarm.state.old_value;
        let entry = self.entry(alarm, &change, event, before, old_value);
        let alarm = &watch.alarms.alarms[index];
        health_log(format_args!(
            "[{}]: Alert event for [{}.{}], value [{}], status [{}].",
            host.hostname(),
            entry.chart,
            entry.name,
            text::value(alarm.state.value, &entry.units),
            change.new.name()
        ));
        if before > 0 {
            watch.writes.push(Write::Updated { event: before, by: event });
            watch.pending.retain(|pending| pending.event != before);
        }
        watch.writes.push(Write::Event(Box::new(entry)));
        watch.writes.push(Write::Alarm(Box::new(remembered(alarm))));
        watch.pending.push(Pending {
            alarm: alarm.id,
            event,
            at: if alarm.repeat.is_on() { now } else { change.when + change.delay },
            change,
            value: alarm.state.value,
            old_value,
        });
    }

    fn entry(
        &self,
        alarm: &Alarm,
        change: &Change,
        event: i64,
        before: i64,
        old_value: f64,
    ) -> Entry {
        let definition = &alarm.definition;
        let about = text::of_chart(alarm);
        let mut flags = 0;
        if definition.no_clear {
            flags |= flag::NO_CLEAR;
        }
        if alarm.silenced {
            flags |= flag::SILENCED;
        }
        Entry {
            unique_id: event,
            alarm_id: alarm.id,
            event_id: alarm.events,
            updated_by: 0,
            updates: before,
            when: change.when,
            duration: change.duration,
            non_clear: change.non_clear,
            flags,
            exec_run: 0,
            delay_until: change.when + change.delay,
            name: alarm.name.to_string(),
            chart: alarm.chart.id().to_string(),
            family: about.family,
            exec: self.program(alarm),
            recipient: definition.to.to_string(),
            source: definition.source(),
            units: about.units,
            info: about.info,
            exec_code: 0,
            status: change.new,
            old_status: change.old,
            delay: change.delay,
            value: alarm.state.value,
            old_value,
            last_repeat: alarm.state.last_repeat,
            class: definition.class.to_string(),
            component: definition.component.to_string(),
            type_: definition.type_.to_string(),
            context: about.context,
        }
    }

    /// What runs when somebody is told of an alarm.
    pub fn program(&self, alarm: &Alarm) -> String {
        alarm
            .definition
            .exec
            .as_ref()
            .map_or_else(|| self.options.script.clone(), |exec| exec.to_string())
    }

    /// An alarm that is no more: its last event, and what is kept should it come back.
    fn remove(&self, watch: &mut Watch, mut alarm: Alarm, now: i64) {
        let delay = alarm.definition.delay;
        if let Some(change) = alarm.state.become_(Status::Removed, now, &delay) {
            let event = watch.next_event;
            watch.next_event += 1;
            alarm.events += 1;
            let before = std::mem::replace(&mut alarm.last_event, event);
            let mut entry = self.entry(&alarm, &change, event, before, alarm.state.value);
            entry.flags |= flag::PROCESSED;
            if before > 0 {
                watch.writes.push(Write::Updated { event: before, by: event });
            }
            watch.writes.push(Write::Event(Box::new(entry)));
        }
        watch.writes.push(Write::Alarm(Box::new(remembered(&alarm))));
        watch.pending.retain(|pending| pending.alarm != alarm.id);
        watch.alarms.remember(&alarm);
    }

    /// Tells of changes whose time has come; gives when the next one's is.
    fn tell(&self, host: &Host, watch: &mut Watch, now: i64) -> i64 {
        let mut next = i64::MAX;
        let mut at = 0;
        while at < watch.pending.len() {
            if watch.pending[at].at > now {
                next = next.min(watch.pending[at].at);
                at += 1;
                continue;
            }
            if self.is_in_doubt(host, watch, at, now) {
                next = next.min(now + 1);
                at += 1;
                continue;
            }
            let pending = watch.pending.remove(at);
            let index = watch.alarms.alarms.iter().position(|alarm| alarm.id == pending.alarm);
            let mut flags = flag::PROCESSED;
            if let Some(index) = index {
                let alarm = &watch.alarms.alarms[index];
                let repeats = alarm.repeat.tells(pending.change.new);
                // A repeating alarm is told by its repetition, and of its end once.
                if !repeats {
                    match self.allows(host, alarm, pending.change.new) {
                        Ok(()) => self.notify(host, watch, index, &pending, now),
                        Err(Quiet::Silenced) => flags |= flag::SILENCED,
                        Err(Quiet::NoClear) => {
                            // Nobody hears of the end, but the next beginning is news.
                            let alarm = &mut watch.alarms.alarms[index];
                            alarm.state.told = Some(Status::Clear);
                            watch.writes.push(Write::Alarm(Box::new(remembered(alarm))));
                        }
                        Err(_) => {}
                    }
                }
            }
            watch.writes.push(Write::Flags { event: pending.event, flags });
        }
        next
    }

    /// Another one is to tell of it, and has not said that it did: it may be gone. Who says nothing at all is believed.
    fn is_in_doubt(&self, host: &Host, watch: &Watch, at: usize, now: i64) -> bool {
        let pending = &watch.pending[at];
        if !watch.elsewhere || now - pending.at >= WORD_S {
            return false;
        }
        let alarm = watch.alarms.alarms.iter().find(|alarm| alarm.id == pending.alarm);
        let Some((alarm, (told, _))) = alarm.zip(self.cluster.told(host)) else { return false };
        let name = told_name(alarm);
        let word = told.iter().find(|(told, _)| *told == name).map(|(_, status)| *status);
        let new = pending.change.new;
        word != new.is_raised().then(|| new.number())
    }

    fn allows(&self, host: &Host, alarm: &Alarm, new: Status) -> Result<(), Quiet> {
        let verdict =
            wants_notice(new, alarm.state.told, alarm.definition.no_clear, alarm.silenced);
        let why = match verdict {
            Err(Quiet::Same) => "",
            Err(Quiet::NoClear) => " (it has no-clear-notification enabled)",
            Err(Quiet::Silenced) => " (command API has disabled notifications)",
            Err(Quiet::Internal | Quiet::NeverRaised) | Ok(()) => return verdict,
        };
        health_log(format_args!(
            "[{}]: Health not sending again notification for alarm '{}.{}' status {}{why}",
            host.hostname(),
            alarm.chart.id(),
            alarm.name,
            new.name()
        ));
        verdict
    }

    /// Tells of a raised alarm that repeats, at once and then at its interval.
    fn repeat(&self, host: &Host, watch: &mut Watch, index: usize, now: i64) {
        let alarm = &mut watch.alarms.alarms[index];
        let interval = match alarm.state.status {
            Status::Warning => alarm.repeat.warning,
            Status::Critical => alarm.repeat.critical,
            _ => {
                alarm.state.last_repeat = 0;
                return;
            }
        };
        let changed = alarm.state.told != Some(alarm.state.status);
        if alarm.repeat.is_on() && changed {
            alarm.state.last_repeat = 0;
        }
        if !alarm.state.repeats(interval, now) || alarm.silenced {
            return;
        }
        let pending = Pending {
            alarm: alarm.id,
            event: alarm.last_event,
            at: now,
            change: Change {
                old: alarm.state.told.unwrap_or_default(),
                new: alarm.state.status,
                when: alarm.state.last_change,
                duration: (now - alarm.state.last_change).max(0),
                non_clear: (now - alarm.state.raised_since).max(0),
                delay: 0,
            },
            value: alarm.state.value,
            old_value: alarm.state.old_value,
        };
        self.notify(host, watch, index, &pending, now);
    }

    /// Another parent of the cluster tells: should it go, this one does not tell the same again.
    fn leave(&self, host: &Host, watch: &mut Watch, index: usize, status: Status) {
        let alarm = &mut watch.alarms.alarms[index];
        health_log(format_args!(
            "[{}]: Not sending notification for alarm '{}.{}' status {}: another parent of the cluster does.",
            host.hostname(),
            alarm.chart.id(),
            alarm.name,
            status.name()
        ));
        alarm.state.told = Some(status);
        watch.writes.push(Write::Alarm(Box::new(remembered(alarm))));
    }

    fn notify(&self, host: &Host, watch: &mut Watch, index: usize, pending: &Pending, now: i64) {
        if self.cluster.tells(host) {
            self.leave(host, watch, index, pending.change.new);
            return;
        }
        let which = if pending.change.new == Status::Critical { Which::Crit } else { Which::Warn };
        let alarm = &watch.alarms.alarms[index];
        let which = if alarm.expression(which).is_some() { which } else { Which::Crit };
        let expression = alarm.expression(which);
        let info = host.info();
        let about = text::of_chart(alarm);
        let definition = &alarm.definition;
        let status = pending.change.new;
        health_log(format_args!(
            "[{}]: Sending notification for alarm '{}.{}' status {}.",
            info.hostname,
            alarm.chart.id(),
            alarm.name,
            status.name()
        ));
        let others = Others::of(watch.alarms.alarms.as_slice(), alarm.id);
        let or = |text: String, default: &str| {
            if text.is_empty() { default.to_owned() } else { text }
        };
        let guid = match host.kind() {
            HostKind::Local => String::new(),
            HostKind::Child | HostKind::Virtual => host.guid().to_string(),
        };
        let arguments = [
            definition.to.to_string(),
            info.registry_hostname.clone(),
            pending.event.to_string(),
            alarm.id.to_string(),
            alarm.events.to_string(),
            pending.change.when.to_string(),
            alarm.name.to_string(),
            alarm.chart.id().to_string(),
            or(about.family, "NOFAMILY"),
            status.name().to_owned(),
            pending.change.old.name().to_owned(),
            rounded(pending.value),
            rounded(pending.old_value),
            definition.source(),
            pending.change.duration.to_string(),
            pending.change.non_clear.to_string(),
            about.units.clone(),
            about.info,
            text::value(pending.value, &about.units),
            text::value(pending.old_value, &about.units),
            expression.map_or("NOSOURCE", |e| e.source()).to_owned(),
            or(watch.alarms.explain(index, which, host, now), "NOERRMSG"),
            others.warning.len().to_string(),
            others.critical.len().to_string(),
            others.list(Status::Warning),
            others.list(Status::Critical),
            definition.class.to_string(),
            text::edit_command(&self.options.config_dir, definition, &info.registry_hostname),
            guid,
        ];
        let arguments = arguments.iter().map(|argument| notify::cleaned(argument)).collect();
        let program = self.program(alarm);
        let order = Order { id: 0, host: host.guid(), event: pending.event, program, arguments };
        watch.writes.push(Write::Order(Box::new(order)));
        let alarm = &mut watch.alarms.alarms[index];
        alarm.state.told = Some(status);
        watch.writes.push(Write::Alarm(Box::new(remembered(alarm))));
    }
}

/// Of an alarm that somebody was told of as raised and that is clear here: its end.
fn owed_end(alarm: &Alarm, told: Status, now: i64) -> Pending {
    Pending {
        alarm: alarm.id,
        event: alarm.last_event,
        at: now,
        change: Change {
            old: told,
            new: Status::Clear,
            when: alarm.state.last_change,
            duration: 0,
            non_clear: 0,
            delay: 0,
        },
        value: alarm.state.value,
        old_value: alarm.state.old_value,
    }
}

/// How agents of a cluster name an alarm to each other, in [`TOLD_NAME_MAX`] bytes at most.
fn told_name(alarm: &Alarm) -> String {
    let mut name = format!("{}.{}", alarm.chart.id(), alarm.name);
    name.truncate(name.floor_char_boundary(TOLD_NAME_MAX));
    name
}

fn remembered(alarm: &Alarm) -> Remembered {
    Remembered {
        chart: alarm.chart.id().to_string(),
        name: alarm.name.to_string(),
        alarm_id: alarm.id,
        last_event: alarm.last_event,
        events: alarm.events,
        told: alarm.state.told,
    }
}

/// A whole number, or `nan`.
fn rounded(value: f64) -> String {
    if value.is_finite() { format!("{:.0}", value.round() + 0.0) } else { "nan".to_owned() }
}

/// The other raised alarms of a host, the newest first.
struct Others<'a> {
    warning: Vec<&'a Alarm>,
    critical: Vec<&'a Alarm>,
    listed: Vec<i64>,
}

impl<'a> Others<'a> {
    fn of(alarms: &'a [Alarm], but: i64) -> Others<'a> {
        let mut raised: Vec<&Alarm> =
            alarms.iter().filter(|a| a.id != but && a.state.status >= Status::Warning).collect();
        raised.sort_by_key(|alarm| std::cmp::Reverse(alarm.state.last_change));
        let listed = raised.iter().take(LISTED_MAX).map(|alarm| alarm.id).collect();
        let (critical, warning) =
            raised.into_iter().partition(|alarm| alarm.state.status == Status::Critical);
        Others { warning, critical, listed }
    }

    /// `name=unixtime,…`
    fn list(&self, status: Status) -> String {
        let alarms = if status == Status::Critical { &self.critical } else { &self.warning };
        let listed = alarms.iter().filter(|alarm| self.listed.contains(&alarm.id));
        let items = listed.map(|alarm| format!("{}={}", alarm.name, alarm.state.last_change));
        items.collect::<Vec<_>>().join(",")
    }
}

fn read_rules(options: &Options) -> Rules {
    let book = grammar::load(&options.user_dir, options.stock_dir.as_deref());
    for mistake in &book.mistakes {
        log::error!("Health configuration at {mistake}");
    }
    for remark in &book.remarks {
        log::info!("Health configuration at {remark}");
    }
    log::info!(
        "HEALTH: {} alarms and templates are defined, with {} mistakes.",
        book.definitions.len(),
        book.mistakes.len()
    );
    Rules::new(book)
}
