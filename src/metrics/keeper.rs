//! Thread `METADATA`: tells the metadata database, and the catalogs of engines that have one, what was defined.
//!
//! Nobody sends it anything: whoever defines a chart only marks its host, and the thread looks once a second which hosts
//! are marked and which of their charts have another version than the database has. So nothing is lost, whatever fails
//! meanwhile, nothing queues up, and collectors wait for nothing but the copying of one chart's definition.
//!
//! At its start it takes over from the store's catalog what the database does not know: all of it when the database is
//! new, the last seconds after a crash. What it finds are archived hosts, which it adds to the others.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::archive::{host_of, record_of_chart, record_of_host};
use super::chart::Chart;
use super::host::{Host, HostInfo};
use super::hosts::Hosts;
use crate::base::ids::MachineGuid;
use crate::base::threads::{self, StopToken};
use crate::base::time::{Clock, MICROS, UnixSeconds};
use crate::storage::dbengine::Store;
use crate::storage::metadata::{ChartHead, Database, Place};
use crate::storage::records::ChartRecord;
use crate::storage::{Mode, StorageEngine};

const EVERY: Duration = Duration::from_secs(1);
/// How long the start of the agent waits for what earlier runs knew: long enough for small databases, short enough for
/// all others.
const START_WAITS: Duration = Duration::from_millis(60);
/// A file this small is looked through at start.
const CHECKED_BYTES: u64 = 16 << 20;
/// Charts written in one transaction.
const CHARTS_AT_ONCE: usize = 500;
/// How often some archived charts are looked at, whether they still have samples, and how many.
const PRUNE_EVERY_US: i64 = 10 * MICROS;
const PRUNED_AT_ONCE: usize = 4;
/// How often a host that stays connected is noted as seen.
const SEEN_EVERY_S: i64 = 600;

/// Makes the engine of a host by its mode, its number of entries and its identity.
type EngineMaker = Box<dyn Fn(Mode, i64, MachineGuid) -> Arc<dyn StorageEngine> + Send + Sync>;

/// What the keeper works with.
pub struct Parts {
    pub hosts: Arc<Hosts>,
    pub database: Arc<Database>,
    pub engine: EngineMaker,
    /// The store, if some host uses it.
    pub store: Box<dyn Fn() -> Option<Arc<Store>> + Send + Sync>,
    pub clock: Clock,
}

pub struct Keeper {
    parts: Parts,
    known: FxHashMap<MachineGuid, Known>,
    /// The store's catalog was taken over.
    caught_up: bool,
    /// End of the catalog when the last round began: all before it was defined before that round.
    catalog_end: u64,
    catalog_noted: u64,
    pruning: Pruning,
}

/// Where the search for charts without samples is.
struct Pruning {
    next_us: i64,
    host: MachineGuid,
    place: Place,
}

/// What the database has of a host.
struct Known {
    info: Arc<HostInfo>,
    labels_version: i64,
    times: (UnixSeconds, UnixSeconds),
    seen: UnixSeconds,
}

/// Starts the thread. The archived hosts that the database knows are there when this returns.
pub fn start(parts: Parts, stop: &StopToken) -> io::Result<JoinHandle<()>> {
    let mut keeper = Keeper::new(parts);
    let stop = stop.clone();
    let (ready, is_ready) = crossbeam_channel::bounded(1);
    let thread = threads::spawn("METADATA", move || {
        keeper.begin(&stop);
        // Whoever waited for it may have gone on.
        let _ = ready.try_send(());
        while !stop.wait(EVERY) {
            keeper.round(&stop);
            keeper.prune();
        }
        keeper.end();
    })?;
    let _ = is_ready.recv_timeout(START_WAITS);
    Ok(thread)
}

impl Keeper {
    /// Adds the archived hosts that the database knows.
    pub fn new(parts: Parts) -> Keeper {
        parts.hosts.remember_in(&parts.database);
        let pruning = Pruning {
            next_us: parts.clock.monotonic_us() + PRUNE_EVERY_US,
            host: parts.hosts.local().guid(),
            place: Place::default(),
        };
        let keeper = Keeper {
            pruning,
            parts,
            known: FxHashMap::default(),
            caught_up: false,
            catalog_end: 0,
            catalog_noted: 0,
        };
        keeper.add_archived();
        keeper
    }

    /// Takes over what is on the disk.
    pub fn begin(&mut self, stop: &StopToken) {
        if self.parts.database.bytes() <= CHECKED_BYTES {
            self.parts.database.check();
        }
        self.renew();
        self.catch_up(stop);
    }

    fn add_archived(&self) {
        let Parts { hosts, database, engine, .. } = &self.parts;
        for record in database.hosts() {
            if record.mode.persists() && hosts.by_guid(record.guid).is_none() {
                let made = engine(record.mode, record.history, record.guid);
                hosts.add_archived(record.guid, || host_of(record, made));
            }
        }
    }

    fn catch_up(&mut self, stop: &StopToken) {
        if self.caught_up {
            return;
        }
        let Some(store) = (self.parts.store)() else { return };
        let mut goes_on = || {
            self.add_archived();
            !stop.is_stopped()
        };
        let result = self.parts.database.catch_up(store.catalog(), &mut goes_on);
        match result {
            Ok(()) => {
                self.caught_up = true;
                self.catalog_end = store.catalog().end();
                self.catalog_noted = self.catalog_end;
                self.add_archived();
            }
            Err(error) => {
                log::error!("METADATA: cannot read what the store calls its metrics: {error}")
            }
        }
    }

    /// A damaged database is made anew, from the catalog and from what is live.
    fn renew(&mut self) {
        if self.parts.database.renew_if_damaged() {
            self.caught_up = false;
            self.known.clear();
            for host in self.parts.hosts.all() {
                for chart in host.charts() {
                    chart.lock().forget_noted();
                }
                host.definitions_changed();
                host.set_older_charts(host.database().is_some());
            }
        }
    }

    /// Forgets archived charts of which retention has left no sample, a few at a time: names of what came and went would
    /// pile up.
    pub fn prune(&mut self) {
        let started = self.parts.clock.monotonic_us();
        if started < self.pruning.next_us {
            return;
        }
        self.pruning.next_us = started + PRUNE_EVERY_US;
        let hosts = self.parts.hosts.all();
        let at = hosts.iter().position(|host| host.guid() == self.pruning.host).unwrap_or(0);
        let Some(host) = hosts.get(at) else { return };
        if let Some(database) = host.database().filter(|_| host.has_older_charts()) {
            let mut is_archived = |head: &ChartHead<'_>| host.chart(head.id).is_none();
            let place = &mut self.pruning.place;
            let charts = database.portion(host.guid(), place, PRUNED_AT_ONCE, &mut is_archived);
            let empty = |chart: &&ChartRecord| !host.holds_samples(chart);
            let gone: Vec<&ChartRecord> = charts.iter().filter(empty).collect();
            if !gone.is_empty() {
                database.write(|batch| {
                    gone.iter().try_for_each(|chart| batch.forget_chart(host.guid(), &chart.id))
                });
            }
            if !self.pruning.place.is_end() {
                return;
            }
        }
        self.pruning.host = hosts[(at + 1) % hosts.len()].guid();
        self.pruning.place = Place::default();
    }

    /// Writes what changed since the last round; takes over what a store that was opened since then knows.
    pub fn round(&mut self, stop: &StopToken) {
        self.renew();
        self.catch_up(stop);
        self.write_changes();
    }

    fn write_changes(&mut self) {
        let end = (self.parts.store)().map_or(0, |store| store.catalog().end());
        for host in self.parts.hosts.all() {
            if host.database().is_some() && !host.is_archived() {
                self.keep(&host);
            }
        }
        // What is defined while a round runs may have missed it, so only the next one covers it.
        if self.caught_up && self.catalog_end != self.catalog_noted {
            let noted = self.catalog_end;
            if self.parts.database.write(|batch| batch.covered(noted)) {
                self.catalog_noted = noted;
            }
        }
        self.catalog_end = end;
    }

    /// The last round: nobody defines anything any more.
    pub fn end(&mut self) {
        self.write_changes();
        self.write_changes();
        let now = self.parts.clock.now_seconds();
        let seen: Vec<_> =
            self.parts.hosts.all().into_iter().filter(|h| h.is_connected()).collect();
        self.parts
            .database
            .write(|batch| seen.iter().try_for_each(|host| batch.seen(host.guid(), now)));
        self.parts.database.close();
    }

    fn keep(&mut self, host: &Arc<Host>) {
        let (info, now) = (host.info(), self.parts.clock.now_seconds());
        let labels_version = host.labels_version();
        let times = (host.connected_at(), host.disconnected_at());
        let known = self.known.get(&host.guid());
        let same = known.is_some_and(|known| {
            Arc::ptr_eq(&known.info, &info)
                && known.labels_version == labels_version
                && known.times == times
                && !(host.is_connected() && now.0 - known.seen.0 > SEEN_EVERY_S)
        });
        if !same {
            let mut record = record_of_host(host);
            if host.is_connected() {
                record.last_connected = now;
            }
            let described = host.engine().describe_host(host.guid(), &record.hostname);
            if described && self.parts.database.write(|batch| batch.host(&record, now)) {
                self.known.insert(host.guid(), Known { info, labels_version, times, seen: now });
            }
        }
        if host.take_redefined() && !self.keep_charts(host) {
            host.definitions_changed();
        }
    }

    /// False when something is left to do.
    fn keep_charts(&self, host: &Arc<Host>) -> bool {
        let mut complete = true;
        let mut portion: Vec<(Arc<Chart>, u32, ChartRecord)> = Vec::new();
        let charts = host.charts();
        let mut changed = charts
            .iter()
            .filter_map(|chart| {
                let state = chart.lock();
                let news = state.noted != state.version;
                news.then(|| (Arc::clone(chart), state.version, record_of_chart(chart, &state)))
            })
            .peekable();
        while changed.peek().is_some() {
            portion.clear();
            portion.extend(changed.by_ref().take(CHARTS_AT_ONCE));
            complete &= self.write_charts(host, &portion);
        }
        host.set_older_charts(self.parts.database.charts_count(host.guid()) > host.charts_count());
        complete
    }

    fn write_charts(&self, host: &Host, charts: &[(Arc<Chart>, u32, ChartRecord)]) -> bool {
        let (guid, now) = (host.guid(), self.parts.clock.now_seconds());
        let engine = host.engine();
        // One that the disk refuses says enough about the others.
        if !charts.iter().all(|(_, _, record)| engine.describe_chart(guid, record)) {
            return false;
        }
        let mut has_older = Vec::with_capacity(charts.len());
        let written = self.parts.database.write(|batch| {
            charts.iter().try_for_each(|(_, _, record)| {
                let older = batch.chart(guid, record, engine.mode(), engine.entries(), now)?;
                has_older.push(older);
                Ok(())
            })
        });
        if written {
            for ((chart, version, _), older) in charts.iter().zip(has_older) {
                chart.set_older_dimensions(older);
                chart.lock().noted = *version;
            }
        }
        written
    }
}
