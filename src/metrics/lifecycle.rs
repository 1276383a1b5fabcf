//! Thread `SERVICE`: lets go of what is no longer collected, every ten seconds.
//!
//! | what | when | becomes |
//! |---|---|---|
//! | an obsolete chart | not collected, stored or asked for since `cleanup obsolete charts after secs` | archived; ring files go with `delete obsolete charts files` |
//! | an obsolete dimension of a live chart | the same | the same |
//! | a child's chart that did not come back with it | half an hour after it connected | obsolete |
//! | a host that left | `cleanup orphan hosts after secs` | archived; ring files go, and the host with them, with `delete orphan hosts files` |
//! | an ephemeral host that left | `cleanup ephemeral hosts after`, if set | forgotten |
//!
//! What a store keeps stays there until its retention is over; archived charts stay known and queryable. Nothing is let
//! go before the metadata database has it. At the end of the agent nothing is deleted, whoever is connected then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::archive::{host_of, record_of_host};
use super::chart::{Chart, ChartState};
use super::dimension::Dimension;
use super::host::{Host, HostKind};
use super::hosts::Hosts;
use crate::base::threads::{self, StopToken};
use crate::base::time::{Clock, UnixMicros};
use crate::storage::Mode;
use crate::storage::metadata::Database;

const EVERY: Duration = Duration::from_secs(10);
/// A child that has been connected for so long has sent all charts it has; and so many of its intervals.
const COMES_BACK_S: i64 = 1800;
const COMES_BACK_INTERVALS: i64 = 60;

/// When things are over, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub obsolete_charts_after: i64,
    pub orphan_hosts_after: i64,
    /// 0 = never.
    pub ephemeral_hosts_after: i64,
    pub delete_chart_files: bool,
    pub delete_host_files: bool,
}

pub struct Lifecycle {
    pub hosts: Arc<Hosts>,
    pub rules: Rules,
    pub clock: Clock,
}

/// Starts the thread.
pub fn start(lifecycle: Lifecycle, stop: &StopToken) -> io::Result<JoinHandle<()>> {
    let stop = stop.clone();
    threads::spawn("SERVICE", move || {
        while !stop.wait(EVERY) {
            lifecycle.round();
        }
    })
}

impl Lifecycle {
    /// Looks at everything once.
    pub fn round(&self) {
        let now = self.clock.now_seconds().0;
        for host in self.hosts.all() {
            self.look_through(&host, now);
            self.clean_charts(&host, now);
            self.clean_host(&host, now);
        }
    }

    // --- charts and dimensions ---------------------------------------------------------------------

    /// Once a connection: what a child does not send any more is obsolete.
    fn look_through(&self, host: &Host, now: i64) {
        let since = host.connected_at();
        let every = host.info().update_every.max(1);
        if host.kind() != HostKind::Child
            || !host.is_connected()
            || now - since.0 < COMES_BACK_S + COMES_BACK_INTERVALS * every
            || host.looked_through.swap(since.0, Ordering::AcqRel) == since.0
        {
            return;
        }
        for chart in host.charts() {
            let left = {
                let state = chart.lock();
                state.last_updated < since && !state.replicating
            };
            if left {
                chart.mark_obsolete();
            }
        }
    }

    fn clean_charts(&self, host: &Arc<Host>, now: i64) {
        let after = self.rules.obsolete_charts_after;
        let remembered = host.database().is_some();
        let may_go = |state: &ChartState| {
            !state.replicating
                && !state.filling.is_any()
                && now - state.last_accessed.0 > after
                && (!remembered || state.is_noted())
        };
        let chart_is_over = |_: &Chart, state: &ChartState| {
            state.is_obsolete()
                && may_go(state)
                && now - state.last_updated.0 > after
                && now - state.last_collected.seconds().0 > after
        };
        let dim_is_over = |state: &ChartState, dim: &Dimension| {
            dim.is_obsolete()
                && may_go(state)
                && now - UnixMicros(dim.last_collected_us).seconds().0 > after
        };
        let mut any = false;
        let mut chipped = Vec::new();
        for chart in host.charts() {
            let state = chart.lock();
            if chart_is_over(&chart, &state) {
                any = true;
            } else if state.dims.iter().any(|dim| dim_is_over(&state, dim)) {
                chipped.push(Arc::clone(&chart));
            }
        }
        if any {
            let deletes = self.deletes_charts(host);
            if !deletes {
                host.engine().save();
            }
            let gone = host.retire_charts(&chart_is_over);
            host.set_older_charts(remembered);
            for chart in &gone {
                log::info!(
                    "Host '{}': chart '{}' is obsolete - cleaning up.",
                    host.hostname(),
                    chart.id()
                );
                if deletes {
                    host.engine().delete(Some(chart.id()));
                }
            }
            if let Some(database) = host.database().filter(|_| deletes) {
                forget(database, |batch| {
                    gone.iter().try_for_each(|chart| batch.forget_chart(host.guid(), chart.id()))
                });
            }
        }
        for chart in chipped {
            let name = Arc::clone(&chart.lock().meta.name);
            for (id, dim) in host.retire_dimensions(&chart, &dim_is_over) {
                log::info!(
                    "Removing obsolete dimension '{dim}' ({id}) of '{name}' ({}).",
                    chart.id()
                );
            }
        }
    }

    /// Whether the files of a host's obsolete charts go with them.
    fn deletes_charts(&self, host: &Host) -> bool {
        self.rules.delete_chart_files && matches!(host.settings().mode, Mode::Save | Mode::Map)
    }

    // --- hosts -------------------------------------------------------------------------------------

    fn clean_host(&self, host: &Arc<Host>, now: i64) {
        if host.kind() != HostKind::Child || !host.is_left() {
            return;
        }
        let away = now - host.disconnected_at().0;
        let Rules { orphan_hosts_after, ephemeral_hosts_after, .. } = self.rules;
        if ephemeral_hosts_after > 0 && away >= ephemeral_hosts_after && host.is_ephemeral() {
            self.hosts.remove(host, || {
                log::info!(
                    "Host '{}' with machine guid '{}' is ephemeral and left {away} seconds ago - forgetting it.",
                    host.hostname(),
                    host.guid()
                );
                host.retire_charts(&|_, _| true);
                forget_host(host);
            });
        } else if !host.is_archived() && away >= orphan_hosts_after {
            self.clean_orphan(host);
        }
    }

    fn clean_orphan(&self, host: &Arc<Host>) {
        let (mode, remembered) = (host.settings().mode, host.database().is_some());
        let waits = |state: &ChartState| {
            state.replicating || state.filling.is_any() || (remembered && !state.is_noted())
        };
        if host.charts().iter().any(|chart| waits(&chart.lock())) {
            return;
        }
        let keeps = remembered
            && match mode {
                Mode::Dbengine => true,
                Mode::Save | Mode::Map => !self.rules.delete_host_files,
                Mode::None | Mode::Ram | Mode::Alloc => false,
            };
        let clean_up = || {
            let (name, guid) = (host.hostname(), host.guid());
            log::info!("Host '{name}' with machine guid '{guid}' is obsolete - cleaning up.");
            host.retire_charts(&|_, _| true);
        };
        if keeps {
            host.engine().save();
            let archived = host_of(record_of_host(host), Arc::clone(host.engine()));
            self.hosts.archive(host, &archived, clean_up);
        } else {
            self.hosts.remove(host, || {
                clean_up();
                forget_host(host);
            });
        }
    }
}

/// Deletes what is known of a host, and its files if it has files of its own.
fn forget_host(host: &Host) {
    if matches!(host.settings().mode, Mode::Save | Mode::Map) {
        log::info!("Deleting database of host '{}'...", host.hostname());
        host.engine().delete(None);
    }
    host.engine().forget_host(host.guid());
    if let Some(database) = host.database() {
        forget(database, |batch| batch.forget_host(host.guid()));
    }
}

/// The database says itself when it cannot.
fn forget(
    database: &Database,
    write: impl FnOnce(&crate::storage::metadata::Batch<'_>) -> crate::storage::metadata::Result<()>,
) {
    let _ = database.write(write);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::ids::MachineGuid;
    use crate::base::number::SampleFlags;
    use crate::base::time::{MICROS, UnixSeconds};
    use crate::metrics::keeper::{Keeper, Parts};
    use crate::metrics::{
        Algorithm, ChartSpec, DimensionSpec, HostInfo, HostSettings, Neighbour, Point, PointValue,
    };
    use crate::storage::dbengine::{Settings, TierSettings};
    use crate::storage::engines::{Engines, Whose};

    const T0: i64 = 1_700_000_000;
    const HOUR: i64 = 3600;

    fn guid(n: u128) -> MachineGuid {
        MachineGuid(uuid::Uuid::from_u128(n))
    }

    /// An agent without threads, on a disk that outlives it.
    struct Rig {
        clock: Clock,
        engines: Arc<Engines>,
        hosts: Arc<Hosts>,
        keeper: Keeper,
        life: Lifecycle,
    }

    impl Rig {
        fn start(cache: &Path, clock: &Clock, rules: Rules) -> Rig {
            let tier = TierSettings::unlimited;
            let tiers = vec![tier(1), tier(60)];
            let settings = Settings { cache: cache.to_owned(), tiers, sync_every: 5 };
            let engines = Arc::new(Engines::new(settings, clock.clone()));
            let local = Host::new(
                guid(1),
                HostKind::Local,
                HostInfo::named("local"),
                engines.engine(Mode::Dbengine, 0, Whose::Local),
                HostSettings { mode: Mode::Dbengine, ..HostSettings::default() },
            );
            let hosts = Hosts::new(local);
            let (makes, opened) = (Arc::clone(&engines), Arc::clone(&engines));
            let mut keeper = Keeper::new(Parts {
                hosts: Arc::clone(&hosts),
                database: Arc::new(Database::open(cache)),
                engine: Box::new(move |mode, history, guid| {
                    makes.engine(mode, history, Whose::Other(guid))
                }),
                store: Box::new(move || opened.open_store()),
                clock: clock.clone(),
            });
            keeper.begin(&StopToken::new());
            let life = Lifecycle { hosts: Arc::clone(&hosts), rules, clock: clock.clone() };
            Rig { clock: clock.clone(), engines, hosts, keeper, life }
        }

        fn end(mut self) {
            self.keeper.end();
            for host in self.hosts.all() {
                host.engine().save();
            }
            self.engines.close();
        }

        fn child(&self, n: u128, mode: Mode, ephemeral: bool) -> Arc<Host> {
            let settings =
                HostSettings { mode, history: 5000, ephemeral, ..HostSettings::default() };
            let make = || {
                let info = HostInfo { hops: 1, ..HostInfo::named(&format!("child{n}")) };
                let engine = self.engines.engine(mode, 5000, Whose::Other(guid(n)));
                Host::new(guid(n), HostKind::Child, info, engine, settings)
            };
            let (host, _) = self.hosts.get_or_create(guid(n), make).unwrap();
            host.set_connected(true, self.clock.now_seconds());
            host
        }

        /// Collects a second of a chart's dimensions.
        fn collect(&self, host: &Host, chart: &str, dims: &[&str]) {
            let chart = host
                .define_chart(&ChartSpec { id: chart, title: "Title", ..ChartSpec::default() })
                .unwrap();
            let end = self.clock.now_seconds();
            let value = |id: &&str| PointValue {
                dim: chart
                    .define_dimension(&DimensionSpec {
                        name: "Named",
                        ..DimensionSpec::plain(id, Algorithm::Absolute, 1, 1)
                    })
                    .unwrap(),
                collected: 1,
                value: (end.0 % 1000) as f64,
                flags: SampleFlags::default(),
            };
            let values: Vec<_> = dims.iter().map(value).collect();
            let every = chart.lock().meta.update_every;
            chart.store_point(&Point { end, every, values: &values });
        }

        fn pass(&mut self, seconds: i64) {
            self.keeper.round(&StopToken::new());
            self.clock.advance(seconds * MICROS);
            self.keeper.round(&StopToken::new());
            self.life.round();
            self.keeper.round(&StopToken::new());
        }
    }

    fn rules() -> Rules {
        Rules {
            obsolete_charts_after: HOUR,
            orphan_hosts_after: 2 * HOUR,
            ephemeral_hosts_after: 0,
            delete_chart_files: true,
            delete_host_files: true,
        }
    }

    fn samples(host: &Host, chart: &str) -> Vec<(String, i64)> {
        let Some(chart) = host.find_any_chart(chart) else { return Vec::new() };
        let older = host.archived_dimensions(&chart);
        let state = chart.lock();
        let mut seen = Vec::new();
        for dim in state.dims.iter().chain(&older) {
            dim.reader.read(UnixSeconds(0), UnixSeconds(T0 * 2), &mut |at, sample| {
                if let Some(value) = sample.value() {
                    assert!(value == (at.0 % 1000) as f64);
                    seen.push((dim.id.to_string(), at.0 - T0));
                }
            });
        }
        seen
    }

    fn archived(host: &Host) -> Vec<String> {
        let mut ids = Vec::new();
        host.archived_charts(&mut |_| true, &mut |chart| ids.push(chart.id().to_string()));
        ids
    }

    fn live(host: &Host) -> Vec<String> {
        host.charts().iter().map(|chart| chart.id().to_string()).collect()
    }

    fn clock() -> Clock {
        Clock::manual(crate::base::time::UnixMicros(T0 * MICROS))
    }

    #[test]
    fn an_obsolete_chart_is_archived_in_its_time_and_stays_so_over_a_restart() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = Arc::clone(rig.hosts.local());
        rig.collect(&host, "t.gone", &["a"]);
        rig.collect(&host, "t.stays", &["a"]);
        host.chart("t.gone").unwrap().mark_obsolete();
        rig.pass(HOUR);
        assert_eq!(live(&host), ["t.gone", "t.stays"], "not a second too early");
        host.chart("t.gone").unwrap().lock().last_accessed = rig.clock.now_seconds();
        rig.pass(HOUR);
        assert_eq!(live(&host), ["t.gone", "t.stays"], "somebody looked at it");
        rig.pass(1);
        assert_eq!((live(&host), archived(&host)), (vec!["t.stays".into()], vec!["t.gone".into()]));
        assert_eq!(samples(&host, "t.gone"), [("a".into(), 0)]);
        drop(host);
        rig.end();
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = Arc::clone(rig.hosts.local());
        assert_eq!(live(&host), Vec::<String>::new());
        assert_eq!(archived(&host), ["t.gone", "t.stays"]);
        rig.collect(&host, "t.gone", &["b"]);
        rig.pass(1);
        assert_eq!((live(&host), archived(&host)), (vec!["t.gone".into()], vec!["t.stays".into()]));
        assert_eq!(samples(&host, "t.gone"), [("b".into(), 2 * HOUR + 1), ("a".into(), 0)]);
        rig.end();
    }

    #[test]
    fn a_chart_is_not_archived_while_any_neighbour_fills_it() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = Arc::clone(rig.hosts.local());
        rig.collect(&host, "t.gone", &["a"]);
        let chart = host.chart("t.gone").unwrap();
        chart.mark_obsolete();
        chart.lock().filling.set(Neighbour::Child, true);
        chart.lock().filling.set(Neighbour::Parent, true);
        // The link to the parent ends, the child goes on.
        chart.lock().filling.set(Neighbour::Parent, false);
        rig.pass(HOUR + 1);
        assert_eq!(live(&host), ["t.gone"]);
        chart.end_filling(Neighbour::Child, true);
        rig.pass(1);
        assert_eq!(archived(&host), ["t.gone"]);
        drop((chart, host));
        rig.end();
    }

    #[test]
    fn an_obsolete_dimension_is_archived_and_the_chart_goes_on() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = Arc::clone(rig.hosts.local());
        rig.collect(&host, "t.c", &["a", "b"]);
        let chart = host.chart("t.c").unwrap();
        let spec = DimensionSpec {
            name: "Named",
            options: crate::metrics::DimensionOptions::OBSOLETE,
            ..DimensionSpec::plain("a", Algorithm::Absolute, 1, 1)
        };
        chart.define_dimension(&spec).unwrap();
        rig.pass(HOUR + 1);
        assert!(chart.is_retired() && chart.lock().dims.is_empty());
        let heir = host.chart("t.c").unwrap();
        assert_eq!(heir.lock().dims.len(), 1);
        assert!(heir.lock().counter_done == 1, "it goes on where it was");
        assert!(host.charts().iter().all(|chart| Arc::ptr_eq(chart, &heir)));
        rig.collect(&host, "t.c", &["b"]);
        let at = HOUR + 1;
        assert_eq!(samples(&host, "t.c"), [("b".into(), 0), ("b".into(), at), ("a".into(), 0)]);
        rig.end();
    }

    #[test]
    fn a_host_that_left_becomes_archived_and_its_return_makes_it_live() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = rig.child(7, Mode::Dbengine, false);
        rig.collect(&host, "t.a", &["x"]);
        rig.collect(&host, "t.b", &["x"]);
        rig.pass(1);
        host.set_connected(false, rig.clock.now_seconds());
        rig.pass(2 * HOUR - 1);
        assert!(!rig.hosts.by_guid(guid(7)).unwrap().is_archived());
        rig.pass(1);
        let past = rig.hosts.by_guid(guid(7)).unwrap();
        assert!(past.is_archived() && host.charts().is_empty());
        assert_eq!(
            (past.hostname(), archived(&past)),
            ("child7".into(), vec!["t.a".into(), "t.b".into()])
        );
        assert_eq!(samples(&past, "t.a"), [("x".into(), 0)]);
        drop((host, past));
        rig.end();

        let mut rig = Rig::start(cache.path(), &clock, rules());
        let past = rig.hosts.find("child7").unwrap();
        assert!(past.is_archived() && !past.is_connected());
        assert_eq!(samples(&past, "t.b"), [("x".into(), 0)]);
        let host = rig.child(7, Mode::Dbengine, false);
        assert!(!host.is_archived() && Arc::ptr_eq(&host, &rig.hosts.by_guid(guid(7)).unwrap()));
        assert_eq!(rig.hosts.all().len(), 2);
        rig.collect(&host, "t.a", &["x"]);
        rig.pass(1);
        assert_eq!((live(&host), archived(&host)), (vec!["t.a".into()], vec!["t.b".into()]));
        assert_eq!(samples(&host, "t.a").len(), 2);
        rig.end();
    }

    #[test]
    fn nobody_is_let_go_who_is_about_to_connect() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = rig.child(7, Mode::Ram, false);
        host.set_connected(false, rig.clock.now_seconds());
        rig.pass(HOUR);
        let again = || -> Arc<Host> { panic!("it is known") };
        assert!(rig.hosts.get_or_create(guid(7), again).is_some_and(|(_, made)| !made));
        rig.pass(9 * HOUR);
        assert!(rig.hosts.by_guid(guid(7)).is_some());
        host.set_connected(false, rig.clock.now_seconds());
        rig.pass(2 * HOUR);
        assert!(rig.hosts.by_guid(guid(7)).is_none(), "memory keeps nothing to be listed for");
        rig.end();
    }

    #[test]
    fn files_of_rings_go_or_stay_as_configured() {
        for delete in [true, false] {
            let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
            let rules = Rules { delete_chart_files: delete, delete_host_files: delete, ..rules() };
            let mut rig = Rig::start(cache.path(), &clock, rules);
            for (n, mode) in [(7, Mode::Save), (8, Mode::Map)] {
                let host = rig.child(n, mode, false);
                rig.collect(&host, "t.gone", &["x"]);
                rig.collect(&host, "t.kept", &["x"]);
                host.chart("t.gone").unwrap().mark_obsolete();
            }
            rig.pass(HOUR + 1);
            let files = |n: u128, chart: &str| cache.path().join(guid(n).to_string()).join(chart);
            for n in [7, 8] {
                let host = rig.hosts.by_guid(guid(n)).unwrap();
                assert_eq!(live(&host), ["t.kept"]);
                assert_eq!(archived(&host).is_empty(), delete);
                assert_eq!(files(n, "t.gone").exists(), !delete);
                assert!(delete || samples(&host, "t.gone") == [("x".into(), 0)]);
                host.set_connected(false, rig.clock.now_seconds());
            }
            rig.end();
            for n in [7, 8] {
                assert!(files(n, "t.kept").exists(), "the end of the agent deletes nothing");
            }
            let mut rig = Rig::start(cache.path(), &clock, rules);
            for (n, mode) in [(7, Mode::Save), (8, Mode::Map)] {
                let past = rig.hosts.by_guid(guid(n)).unwrap();
                assert_eq!(samples(&past, "t.kept"), [("x".into(), 0)]);
                rig.child(n, mode, false).set_connected(false, rig.clock.now_seconds());
            }
            rig.pass(2 * HOUR);
            for n in [7, 8] {
                assert_eq!(files(n, "t.kept").exists(), !delete);
                assert_eq!(rig.hosts.by_guid(guid(n)).is_none(), delete);
            }
            rig.end();
            let rig = Rig::start(cache.path(), &clock, rules);
            assert_eq!(rig.hosts.all().len(), if delete { 1 } else { 3 }, "nothing comes back");
            rig.end();
        }
    }

    #[test]
    fn ephemeral_hosts_are_forgotten_for_good() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let rules = Rules { ephemeral_hosts_after: 3 * HOUR, ..rules() };
        let mut rig = Rig::start(cache.path(), &clock, rules);
        for (n, ephemeral) in [(7, true), (8, false)] {
            let host = rig.child(n, Mode::Dbengine, ephemeral);
            rig.collect(&host, "t.a", &["x"]);
            rig.pass(1);
            host.set_connected(false, rig.clock.now_seconds());
        }
        rig.pass(2 * HOUR);
        assert!(rig.hosts.by_guid(guid(7)).unwrap().is_archived());
        rig.end();
        let mut rig = Rig::start(cache.path(), &clock, rules);
        rig.pass(2 * HOUR);
        assert!(rig.hosts.by_guid(guid(7)).is_none() && rig.hosts.by_guid(guid(8)).is_some());
        rig.end();
        for lost in [false, true] {
            if lost {
                std::fs::remove_file(cache.path().join("netdata-meta.db")).unwrap();
            }
            let rig = Rig::start(cache.path(), &clock, rules);
            assert!(rig.hosts.by_guid(guid(7)).is_none());
            assert!(rig.hosts.by_guid(guid(8)).is_some());
            rig.end();
        }
    }

    #[test]
    fn names_of_which_no_sample_is_left_are_forgotten() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = Arc::clone(rig.hosts.local());
        rig.collect(&host, "t.kept", &["a"]);
        for n in 0..50 {
            // It is defined, and nothing of it ever stored.
            let id = format!("t.empty{n}");
            let chart = host.define_chart(&ChartSpec { id: &id, ..ChartSpec::default() }).unwrap();
            chart.define_dimension(&DimensionSpec::plain("a", Algorithm::Absolute, 1, 1)).unwrap();
            chart.mark_obsolete();
        }
        rig.pass(HOUR);
        host.chart("t.kept").unwrap().mark_obsolete();
        rig.pass(HOUR + 1);
        assert_eq!((live(&host).len(), archived(&host).len()), (0, 51));
        for _ in 0..30 {
            rig.clock.advance(11 * MICROS);
            rig.keeper.prune();
        }
        assert_eq!(archived(&host), ["t.kept"]);
        drop(host);
        rig.end();
    }

    #[test]
    fn without_its_database_the_store_tells_the_names() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = rig.child(7, Mode::Dbengine, false);
        rig.collect(&host, "t.a", &["x", "y"]);
        rig.pass(1);
        drop(host);
        rig.end();
        let file = cache.path().join("netdata-meta.db");
        let spoil: [fn(&Path); 2] = [
            |path| std::fs::remove_file(path).unwrap(),
            |path| std::fs::write(path, "x".repeat(9000)).unwrap(),
        ];
        for spoil in spoil {
            spoil(&file);
            let rig = Rig::start(cache.path(), &clock, rules());
            let past = rig.hosts.find("child7").unwrap();
            assert_eq!(samples(&past, "t.a"), [("x".into(), 0), ("y".into(), 0)]);
            let chart = past.find_any_chart("t.a").unwrap();
            let state = chart.lock();
            assert_eq!((&*state.meta.title, &*state.dims[1].name), ("Title", "Named"));
            drop(state);
            drop((chart, past));
            rig.end();
        }
    }

    #[test]
    fn a_chart_that_does_not_come_back_with_its_child_is_obsolete() {
        let (cache, clock) = (tempfile::tempdir().unwrap(), clock());
        let mut rig = Rig::start(cache.path(), &clock, rules());
        let host = rig.child(7, Mode::Ram, false);
        rig.collect(&host, "t.a", &["x"]);
        rig.collect(&host, "t.b", &["x"]);
        host.set_connected(false, rig.clock.now_seconds());
        rig.pass(60);
        rig.child(7, Mode::Ram, false);
        rig.collect(&host, "t.a", &["x"]);
        rig.pass(COMES_BACK_S + COMES_BACK_INTERVALS - 1);
        let obsolete = |chart: &str| host.chart(chart).unwrap().lock().is_obsolete();
        assert!(!obsolete("t.b"));
        rig.pass(1);
        assert!(obsolete("t.b") && !obsolete("t.a"));
        rig.end();
    }
}
