//! The engine with a clock that is moved, a host that is fed and a program that writes down what it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::alarm::Status;
use super::engine::{Cluster, Health, Options, Presence};
use super::grammar::Repeat;
use super::log::{Entry, Log};
use super::notify::Notifier;
use crate::base::ids::MachineGuid;
use crate::base::threads::StopToken;
use crate::base::time::{Clock, MICROS, UnixMicros, UnixSeconds};
use crate::metrics::{
    Algorithm, Chart, ChartSpec, DimensionSpec, HealthPolicy, Host, HostInfo, HostKind,
    HostSettings, Hosts, SinceLast, Staged,
};
use crate::storage::Mode;
use crate::storage::ring::RingEngine;

const T0: i64 = 1_700_000_000;

struct Rig {
    dir: tempfile::TempDir,
    clock: Clock,
    hosts: Arc<Hosts>,
    health: Arc<Health>,
    others: Arc<Others>,
    stop: StopToken,
    notifying: Option<JoinHandle<()>>,
}

/// Other agents of a cluster.
#[derive(Default)]
struct Others {
    there: Mutex<Presence>,
    told: Mutex<Option<Vec<(String, i64)>>>,
    /// How often it was said here what was told.
    said: Mutex<usize>,
}

impl Cluster for Arc<Others> {
    fn tells(&self, host: &Host) -> bool {
        host.hostname() == "elsewhere"
    }

    fn told(&self, _: &Host) -> Option<(Vec<(String, i64)>, bool)> {
        Some((self.told.lock().clone()?, true))
    }

    fn say(&self, _: &Arc<Host>) {
        *self.said.lock() += 1;
    }

    fn forget(&self, _: &Host) {
        *self.told.lock() = None;
    }

    fn presence(&self) -> Presence {
        *self.there.lock()
    }
}

fn host(kind: HostKind, name: &str) -> Arc<Host> {
    let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
    let settings = HostSettings { health_enabled: true, ..HostSettings::default() };
    let info = HostInfo { os: "linux".into(), ..HostInfo::named(name) };
    Host::new(MachineGuid::random(), kind, info, engine, settings)
}

impl Rig {
    fn new(conf: &str) -> Rig {
        Rig::again(tempfile::tempdir().unwrap(), conf, T0, host(HostKind::Local, "here"))
    }

    fn again(dir: tempfile::TempDir, conf: &str, at: i64, local: Arc<Host>) -> Rig {
        let script = dir.path().join("notify");
        let text = "#!/bin/sh\nd=$(dirname \"$0\")\necho \"$@\" >>\"$d/all\"\necho \"$7 ${11} ${10} ${12} $2\" >>\"$d/told\"\n";
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.path().join("health.d")).unwrap();
        fs::write(dir.path().join("health.d/a.conf"), conf).unwrap();
        let options = Options {
            enabled: true,
            user_dir: dir.path().join("health.d"),
            stock_dir: None,
            script: script.display().to_string(),
            silencers_file: dir.path().join("silencers.json"),
            repeat: Repeat::default(),
            log_shown: 1000,
            log_kept: 2000,
            run_every: 10,
            hibernation: 60,
            log_dir: dir.path().to_owned(),
            config_dir: Path::new("/etc/netdata").to_owned(),
        };
        let clock = Clock::manual(UnixMicros(at * MICROS));
        let hosts = Hosts::new(local);
        let log = Arc::new(Log::open(dir.path()).unwrap());
        let stop = StopToken::new();
        let (notifier, notifying) =
            Notifier::start(Arc::clone(&log), clock.clone(), stop.clone()).unwrap();
        let others = Arc::new(Others::default());
        let health = Health::new(
            options,
            Arc::clone(&hosts),
            clock.clone(),
            log,
            notifier,
            Box::new(Arc::clone(&others)),
        );
        Rig { dir, clock, hosts, health, others, stop, notifying: Some(notifying) }
    }

    fn local(&self) -> Arc<Host> {
        Arc::clone(self.hosts.local())
    }

    fn chart(&self, host: &Host, id: &str) -> Arc<Chart> {
        let spec =
            ChartSpec { id, context: "t.ctx", family: "fam", units: "%", ..ChartSpec::default() };
        let chart = host.define_chart(&spec).unwrap();
        for dim in ["a", "b"] {
            chart.define_dimension(&DimensionSpec::plain(dim, Algorithm::Absolute, 1, 1)).unwrap();
        }
        chart
    }

    /// So many seconds, in each of which the charts collect `value` and health has its turn.
    fn seconds(&self, count: i64, charts: &[&Arc<Chart>], value: i64) {
        for _ in 0..count {
            self.clock.advance(MICROS);
            for chart in charts {
                let values = [Staged { dim: 0, value }, Staged { dim: 1, value: 1 }];
                chart.complete(&values, SinceLast::Clock, self.clock.now());
            }
            self.health.tick(self.clock.now_seconds().0, false);
        }
    }

    fn status(&self, host: &Host, alarm: &str) -> Option<Status> {
        let watched = self.health.watched(host)?;
        watched.show(|alarms, _| {
            alarms.alarms.iter().find(|a| *a.name == *alarm).map(|a| a.state.status)
        })
    }

    fn value(&self, alarm: &str) -> f64 {
        let watched = self.health.watched(self.hosts.local()).unwrap();
        watched
            .show(|alarms, _| alarms.alarms.iter().find(|a| *a.name == *alarm).unwrap().state.value)
    }

    fn entries(&self, host: &Host) -> Vec<Entry> {
        self.health.log().entries(host.guid(), 0, None, 1000)
    }

    /// What was told, in order, once there are so many lines.
    fn told(&self, lines: usize) -> Vec<String> {
        let path = self.dir.path().join("told");
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if text.lines().count() >= lines || Instant::now() > end {
                return text.lines().map(str::to_owned).collect();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn end(mut self) -> tempfile::TempDir {
        self.stop.stop();
        self.notifying.take().unwrap().join().unwrap();
        self.dir
    }
}

const HIGH: &str =
    "alarm: high\non: t.c\ncalc: $a\nevery: 1s\nwarn: $this > 10\ncrit: $this > 20\nto: me\n";

#[test]
fn changes_are_told_once_each_and_logged() {
    let rig = Rig::new(HIGH);
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(1, &[&chart], 5);
    assert_eq!(rig.status(&host, "high"), Some(Status::Uninitialized), "collected once only");
    for (value, want) in
        [(5, Status::Clear), (15, Status::Warning), (25, Status::Critical), (5, Status::Clear)]
    {
        rig.seconds(3, &[&chart], value);
        assert_eq!(rig.status(&host, "high"), Some(want));
    }
    // at once, so they may overtake each other
    let mut told = rig.told(3);
    told.sort();
    assert_eq!(
        told,
        [
            "high CRITICAL CLEAR 5 here",
            "high CLEAR WARNING 15 here",
            "high WARNING CRITICAL 25 here"
        ]
        .map(str::to_owned)
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );
    let entries = rig.entries(&host);
    let statuses: Vec<Status> = entries.iter().rev().map(|e| e.status).collect();
    assert_eq!(statuses, [Status::Clear, Status::Warning, Status::Critical, Status::Clear]);
    assert!(entries.windows(2).all(|w| w[0].unique_id == w[1].unique_id + 1));
    assert!(entries[1..].iter().all(|e| e.updated_by == e.unique_id + 1));
    assert_eq!(
        (&*entries[0].source, &*entries[0].recipient),
        (&*format!("1@{}/health.d/a.conf", rig.dir.path().display()), "me")
    );
    rig.end();
}

#[test]
fn a_restart_tells_nothing_again_and_keeps_numbers() {
    let rig = Rig::new(HIGH);
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(5, &[&chart], 15);
    assert_eq!(rig.told(1).len(), 1);
    let before = rig.entries(&host);
    let dir = rig.end();
    let rig = Rig::again(dir, HIGH, T0 + 100, Arc::clone(&host));
    rig.seconds(5, &[&chart], 15);
    assert_eq!(rig.status(&host, "high"), Some(Status::Warning));
    let after = rig.entries(&host);
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(
        (after[0].alarm_id, after[0].unique_id),
        (before[0].alarm_id, before[0].unique_id + 1)
    );
    rig.seconds(3, &[&chart], 5);
    assert_eq!(rig.told(2).len(), 2);
    rig.end();
}

#[test]
fn a_delay_holds_back_what_passes() {
    let rig = Rig::new(&format!("{HIGH}delay: up 5s down 5s\n"));
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(20, &[&chart], 5);
    rig.seconds(3, &[&chart], 15);
    rig.seconds(30, &[&chart], 5);
    assert_eq!(rig.status(&host, "high"), Some(Status::Clear));
    rig.seconds(30, &[&chart], 15);
    assert_eq!(rig.told(1), ["high CLEAR WARNING 15 here"]);
    rig.end();
}

#[test]
fn names_mean_what_is_nearest() {
    let conf = "template: sum\non: t.ctx\nlookup: sum -5s unaligned of a\nevery: 1s\ncalc: $this + $b\ngreen: 3\nwarn: 0\n\
                template: each\non: t.ctx\nlookup: max -3s unaligned foreach a,b\nevery: 1s\nwarn: $this > 100\n\
                alarm: many\non: t.c\nevery: 1s\ncalc: $t.d.a * 1000 + $limit * 100 + $own + $sum + $green + $update_every + ${t.d.sum} * 0\nwarn: 0\n\
                alarm: time\non: t.c\nevery: 1s\ncalc: $now - $last_collected_t + $a_raw\nwarn: $nothere > 1\n";
    let rig = Rig::new(conf);
    let host = rig.local();
    let (c, d) = (rig.chart(&host, "t.c"), rig.chart(&host, "t.d"));
    host.set_variable("limit", 7.0);
    c.lock().set_variable("own", 0.5);
    rig.seconds(12, &[&c, &d], 4);
    assert_eq!(rig.value("sum"), 21.0);
    assert_eq!(rig.value("many"), 4000.0 + 700.0 + 0.5 + 21.0 + 3.0 + 1.0);
    assert_eq!((rig.value("each_a"), rig.value("each_b")), (4.0, 1.0));
    assert_eq!(rig.value("time"), 4.0);
    assert_eq!(rig.status(&host, "time"), Some(Status::Clear), "an unknown name is not true");
    rig.end();
}

#[test]
fn definitions_are_for_the_hosts_and_charts_they_name() {
    for (condition, applies) in [
        ("os: linux", true),
        ("os: freebsd macos", false),
        ("os: !linux *", false),
        ("hosts: he*", true),
        ("hosts: !here *", false),
        ("host labels: role = data*", true),
        ("host labels: role = web*", false),
        ("host labels: nothing = *", false),
        ("plugin: feed*", true),
        ("plugin: other", false),
        ("module: mod", true),
        ("module: !mod *", false),
        ("families: fam", true),
        ("families: !fam *", false),
        ("charts: t.c", true),
        ("charts: named*", false),
        ("charts: t.named", true),
    ] {
        let rig = Rig::new(&format!(
            "template: it\non: t.ctx\n{condition}\ncalc: $a\nevery: 1s\nwarn: $this > 10\n"
        ));
        let host = rig.local();
        let mut labels = crate::metrics::Labels::new();
        labels.set("role", "database", crate::metrics::LabelSource::AUTO);
        host.set_labels(labels);
        let spec = ChartSpec {
            id: "t.c",
            name: "named",
            context: "t.ctx",
            family: "fam",
            plugin: "feed.plugin",
            module: "mod",
            ..ChartSpec::default()
        };
        let chart = host.define_chart(&spec).unwrap();
        chart.define_dimension(&DimensionSpec::plain("a", Algorithm::Absolute, 1, 1)).unwrap();
        chart.define_dimension(&DimensionSpec::plain("b", Algorithm::Absolute, 1, 1)).unwrap();
        rig.seconds(3, &[&chart], 5);
        assert_eq!(rig.status(&host, "it").is_some(), applies, "{condition}");
        rig.end();
    }
}

#[test]
fn of_templates_with_one_name_and_the_same_families_the_first_counts() {
    let one = |families: &str, value: i64| {
        format!("template: it\non: t.ctx\n{families}\ncalc: {value}\nevery: 1s\nwarn: $this > 10\n")
    };
    for (conf, want) in [
        (one("", 1) + &one("", 2), 1.0),
        (one("families: other", 1) + &one("families: fam", 2), 2.0),
        // An alarm for the chart goes before any template.
        (format!("{}alarm: it\non: t.c\ncalc: 3\nevery: 1s\nwarn: 0\n", one("", 1)), 3.0),
    ] {
        let rig = Rig::new(&conf);
        let host = rig.local();
        let chart = rig.chart(&host, "t.c");
        rig.seconds(3, &[&chart], 5);
        assert_eq!(rig.value("it"), want, "{conf}");
        rig.end();
    }
}

/// As spec'd for scripts that were written for the original.
#[test]
fn a_program_is_given_its_arguments_in_the_order_of_the_original() {
    let conf = "alarm: high\non: t.c\nclass: Errors\ncalc: $a * 1.5\nunits: KiB/s\nevery: 1s\nwarn: $this > 20\n\
                to: me you\ninfo: of $family\nalarm: other\non: t.c\ncalc: $a\nevery: 1s\ncrit: $this > 10\nto: x\n";
    let rig = Rig::new(conf);
    let script = "#!/bin/sh\nd=$(dirname \"$0\")\n[ \"$7\" = high ] || exit 0\n\
                  for a in \"$@\"; do echo \"$a\"; done >\"$d/new\"; mv \"$d/new\" \"$d/told\"\n";
    fs::write(rig.dir.path().join("notify"), script).unwrap();
    let host = rig.local();
    host.update_info(|info| info.registry_hostname = "registered".into());
    let chart = rig.chart(&host, "t.c");
    rig.seconds(2, &[&chart], 5);
    // The other one is raised first.
    rig.seconds(2, &[&chart], 12);
    rig.seconds(2, &[&chart], 15);
    let told = rig.told(29);
    let entries = rig.entries(&host);
    let entry = entries.iter().find(|e| e.name == "high" && e.status == Status::Warning).unwrap();
    let other = entries.iter().find(|e| e.name == "other" && e.status == Status::Critical).unwrap();
    let file = format!("{}/health.d/a.conf", rig.dir.path().display());
    let want = [
        "me you".to_owned(),
        "registered".to_owned(),
        entry.unique_id.to_string(),
        entry.alarm_id.to_string(),
        "2".to_owned(),
        entry.when.to_string(),
        "high".to_owned(),
        "t.c".to_owned(),
        "fam".to_owned(),
        "WARNING".to_owned(),
        "CLEAR".to_owned(),
        "23".to_owned(),
        "18".to_owned(),
        format!("1@{file}"),
        entry.duration.to_string(),
        "0".to_owned(),
        "KiB/s".to_owned(),
        "of fam".to_owned(),
        "22.5 KiB/s".to_owned(),
        "18 KiB/s".to_owned(),
        "$this > 20".to_owned(),
        "[ $this = 22.5 ] ".to_owned(),
        "0".to_owned(),
        "1".to_owned(),
        String::new(),
        format!("other={}", other.when),
        "Errors".to_owned(),
        "sudo /etc/netdata/edit-config health.d/a.conf=1=registered".to_owned(),
        String::new(),
    ];
    assert_eq!(told, want);
    rig.end();
}

#[test]
fn a_look_up_waits_for_its_window() {
    let rig = Rig::new(
        "alarm: w\non: t.c\nlookup: average -30s unaligned of a\nevery: 1s\nwarn: $this > 1\n",
    );
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(20, &[&chart], 5);
    assert_eq!(rig.status(&host, "w"), Some(Status::Uninitialized));
    rig.seconds(20, &[&chart], 5);
    assert_eq!(rig.status(&host, "w"), Some(Status::Warning));
    rig.end();
}

#[test]
fn reloading_keeps_state_and_drops_what_is_gone() {
    let rig = Rig::new(&format!("{HIGH}alarm: other\non: t.c\ncalc: $b\nevery: 1s\nwarn: 0\n"));
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(5, &[&chart], 15);
    fs::write(
        rig.dir.path().join("health.d/a.conf"),
        format!("{HIGH}alarm: new\non: t.c\ncalc: $b\nevery: 1s\nwarn: 0\n"),
    )
    .unwrap();
    rig.health.reload();
    rig.seconds(3, &[&chart], 15);
    assert_eq!(rig.status(&host, "other"), None);
    assert_eq!(rig.status(&host, "new"), Some(Status::Clear));
    assert_eq!(rig.status(&host, "high"), Some(Status::Warning));
    let entries = rig.entries(&host);
    assert_eq!(entries.iter().filter(|e| e.name == "high").count(), 1);
    assert!(entries.iter().any(|e| e.name == "other" && e.status == Status::Removed));
    assert_eq!(rig.told(1).len(), 1);
    rig.end();
}

#[test]
fn alarms_go_with_their_chart_and_come_back() {
    let rig = Rig::new(HIGH);
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(5, &[&chart], 15);
    chart.mark_obsolete();
    rig.seconds(50, &[], 0);
    assert_eq!(rig.status(&host, "high"), Some(Status::Warning));
    rig.seconds(20, &[], 0);
    assert_eq!(rig.status(&host, "high"), Some(Status::Removed));
    host.retire_charts(&|chart, _| &**chart.id() == "t.c");
    rig.seconds(2, &[], 0);
    assert_eq!(rig.status(&host, "high"), None);
    let chart = rig.chart(&host, "t.c");
    // Found at the next look, `run at least every seconds` later.
    rig.seconds(15, &[&chart], 5);
    assert_eq!(rig.status(&host, "high"), Some(Status::Clear));
    let entries = rig.entries(&host);
    assert!(entries.iter().all(|e| e.alarm_id == entries[0].alarm_id), "the same alarm");
    rig.end();
}

#[test]
fn silencers_work_on_alarms() {
    let rig = Rig::new(HIGH);
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(3, &[&chart], 5);
    rig.health.silencers().manage(&[("cmd", "SILENCE"), ("alarm", "hi*")]);
    rig.seconds(3, &[&chart], 15);
    assert_eq!(rig.status(&host, "high"), Some(Status::Warning));
    rig.health.silencers().manage(&[("cmd", "DISABLE ALL")]);
    rig.seconds(3, &[&chart], 25);
    assert_eq!(rig.status(&host, "high"), Some(Status::Warning), "not evaluated");
    rig.health.silencers().manage(&[("cmd", "RESET")]);
    rig.seconds(3, &[&chart], 25);
    assert_eq!(rig.told(1), ["high WARNING CRITICAL 25 here"]);
    rig.end();
}

#[test]
fn a_repeating_alarm_is_told_again_and_of_its_end_once() {
    let rig = Rig::new(&format!("{HIGH}repeat: warning 10s critical 5s\n"));
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(3, &[&chart], 5);
    rig.seconds(25, &[&chart], 15);
    rig.seconds(5, &[&chart], 5);
    let told = rig.told(4);
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told.iter().filter(|line| line.contains(" WARNING 15 ")).count(), 3);
    assert_eq!(told.iter().filter(|line| line.contains(" CLEAR 5 ")).count(), 1);
    rig.end();
}

#[test]
fn an_alarm_whose_end_is_not_told_is_told_of_again() {
    let rig = Rig::new(&format!("{HIGH}options: no-clear-notification\n"));
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    for value in [5, 15, 5, 16, 5] {
        rig.seconds(3, &[&chart], value);
    }
    let mut told = rig.told(2);
    told.sort();
    assert_eq!(told, ["high CLEAR WARNING 15 here", "high CLEAR WARNING 16 here"]);
    rig.end();
}

#[test]
fn repetition_for_warnings_alone_leaves_the_critical_to_be_told_once() {
    let rig = Rig::new(&format!("{HIGH}repeat: warning 100s\n"));
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(3, &[&chart], 5);
    rig.seconds(5, &[&chart], 25);
    let told = rig.told(1);
    assert_eq!(told, ["high CLEAR CRITICAL 25 here"]);
    rig.end();
}

#[test]
fn children_are_watched_as_their_key_says() {
    let rig = Rig::new(HIGH);
    let child = host(HostKind::Child, "child");
    rig.hosts.get_or_create(child.guid(), || Arc::clone(&child)).unwrap();
    let connect = |on| child.set_connected(on, UnixSeconds(rig.clock.now_seconds().0));
    child.set_health(HealthPolicy::Off, 0);
    connect(true);
    let chart = rig.chart(&child, "t.c");
    rig.seconds(5, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), None);

    child.set_health(HealthPolicy::WhileConnected, 20);
    connect(true);
    rig.seconds(15, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), Some(Status::Uninitialized), "postponed");
    rig.seconds(15, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), Some(Status::Warning));
    connect(false);
    rig.seconds(5, &[], 0);
    assert!(!rig.health.is_on(&child));

    child.set_health(HealthPolicy::On, 0);
    rig.seconds(5, &[], 0);
    assert!(rig.health.is_on(&child));
    let all = {
        rig.told(1);
        fs::read_to_string(rig.dir.path().join("all")).unwrap()
    };
    assert!(all.trim_end().ends_with(&child.guid().to_string()), "{all}");
    rig.end();
}

#[test]
fn what_another_parent_tells_is_not_told_here_later_either() {
    let rig = Rig::new(HIGH);
    let host = rig.local();
    host.update_info(|info| info.hostname = "elsewhere".into());
    let chart = rig.chart(&host, "t.c");
    rig.seconds(5, &[&chart], 15);
    assert_eq!(rig.status(&host, "high"), Some(Status::Warning));
    host.update_info(|info| info.hostname = "here".into());
    rig.seconds(5, &[&chart], 15);
    rig.seconds(5, &[&chart], 5);
    assert_eq!(rig.told(1), ["high WARNING CLEAR 5 here"]);
    rig.end();
}

/// Postponed for 20 s at every connection; the value is 15 throughout.
#[track_caller]
fn cluster_rig() -> (Rig, Arc<Host>, Arc<Chart>) {
    cluster_rig_of(HIGH)
}

fn cluster_rig_of(conf: &str) -> (Rig, Arc<Host>, Arc<Chart>) {
    let rig = Rig::new(conf);
    let child = host(HostKind::Child, "child");
    rig.hosts.get_or_create(child.guid(), || Arc::clone(&child)).unwrap();
    child.set_health(HealthPolicy::On, 20);
    child.set_connected(true, UnixSeconds(rig.clock.now_seconds().0));
    *rig.others.there.lock() = Presence::Others;
    let chart = rig.chart(&child, "t.c");
    (rig, child, chart)
}

#[test]
fn who_takes_over_from_another_agent_loses_no_time() {
    let (rig, child, chart) = cluster_rig();
    child.update_info(|info| info.hostname = "elsewhere".into());
    rig.seconds(30, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), Some(Status::Warning));
    // The other one is gone, the host comes directly after a few seconds.
    child.set_connected(false, UnixSeconds(rig.clock.now_seconds().0));
    *rig.others.there.lock() = Presence::Nobody;
    child.update_info(|info| info.hostname = "child".into());
    rig.seconds(5, &[], 0);
    child.set_connected(true, UnixSeconds(rig.clock.now_seconds().0));
    rig.seconds(3, &[&chart], 25);
    assert_eq!(rig.told(1), ["high WARNING CRITICAL 25 child"]);
    rig.end();
}

#[test]
fn who_comes_back_hears_what_others_told_meanwhile() {
    for (heard, value, want) in [
        // They told of it, and it still is so.
        (Some(vec![("t.c.high".to_owned(), 3)]), 15, None),
        // They told of it, and it has ended.
        (Some(vec![("t.c.high".to_owned(), 3)]), 5, Some("high UNINITIALIZED CLEAR 5 child")),
        (Some(vec![]), 15, Some("high UNINITIALIZED WARNING 15 child")),
        (None, 15, Some("high UNINITIALIZED WARNING 15 child")),
    ] {
        let (rig, child, chart) = cluster_rig();
        rig.seconds(2, &[&chart], value);
        *rig.others.told.lock() = heard.clone();
        rig.seconds(30, &[&chart], value);
        assert!(rig.status(&child, "high") > Some(Status::Uninitialized));
        let told = rig.told(usize::from(want.is_some()));
        assert_eq!(told, want.into_iter().collect::<Vec<_>>(), "{heard:?} {value}");
        rig.end();
    }
}

/// The child is there before this agent has found the others of its cluster: they are waited for, and asked later too.
#[test]
fn others_that_are_found_after_the_child_came_are_heard() {
    let words = || Some(vec![("t.c.high".to_owned(), 3)]);
    let rig_of = |found: Presence| {
        let (rig, child, chart) = cluster_rig();
        child.set_health(HealthPolicy::On, 0);
        *rig.others.there.lock() = found;
        (rig, child, chart)
    };
    // Found while they are waited for; their words come some seconds after that.
    let (rig, child, chart) = rig_of(Presence::Unknown);
    rig.seconds(4, &[&chart], 15);
    *rig.others.there.lock() = Presence::Others;
    rig.seconds(4, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), Some(Status::Uninitialized), "not yet");
    *rig.others.told.lock() = words();
    rig.seconds(30, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), Some(Status::Warning));
    assert_eq!(rig.told(0), [""; 0]);
    rig.end();
    // Found long after evaluation began: what they told has ended meanwhile, and nobody has told that.
    let (rig, child, chart) = rig_of(Presence::Unknown);
    rig.seconds(20, &[&chart], 5);
    assert_eq!(rig.status(&child, "high"), Some(Status::Clear));
    *rig.others.there.lock() = Presence::Others;
    *rig.others.told.lock() = words();
    rig.seconds(3, &[&chart], 5);
    assert_eq!(rig.told(1), ["high WARNING CLEAR 5 child"]);
    // Only their first word counts: after that they hear from this one.
    rig.seconds(3, &[&chart], 5);
    let dir = rig.end();
    assert_eq!(fs::read_to_string(dir.path().join("told")).unwrap().lines().count(), 1);
    // Found late, and what they told still is so, in an alarm that is held back here.
    let conf = format!("{HIGH}delay: up 30s\n");
    let (rig, child, chart) = cluster_rig_of(&conf);
    child.set_health(HealthPolicy::On, 0);
    *rig.others.there.lock() = Presence::Unknown;
    rig.seconds(20, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), Some(Status::Warning));
    *rig.others.told.lock() = words();
    rig.seconds(40, &[&chart], 15);
    let dir = rig.end();
    assert!(!dir.path().join("told").exists());
    // Nobody can be there: nothing is waited for.
    let (rig, child, chart) = rig_of(Presence::Nobody);
    rig.seconds(4, &[&chart], 15);
    assert_eq!(rig.status(&child, "high"), Some(Status::Warning));
    rig.end();
}

#[test]
fn an_end_that_others_told_is_not_told_again() {
    let rig = Rig::new(HIGH);
    let local = rig.local();
    let chart = rig.chart(&local, "t.c");
    rig.seconds(5, &[&chart], 15);
    assert_eq!(rig.told(1).len(), 1);
    assert_eq!(rig.health.told(&local), Some(vec![("t.c.high".to_owned(), 3)]));
    let dir = rig.end();
    // It comes back as a child's parent would: another one has told that it is over.
    let child = host_again(&local);
    let rig = Rig::again(dir, HIGH, T0 + 100, host(HostKind::Local, "here"));
    rig.hosts.get_or_create(child.guid(), || Arc::clone(&child)).unwrap();
    child.set_health(HealthPolicy::On, 0);
    child.set_connected(true, UnixSeconds(rig.clock.now_seconds().0));
    *rig.others.there.lock() = Presence::Others;
    *rig.others.told.lock() = Some(Vec::new());
    let chart = rig.chart(&child, "t.c");
    rig.seconds(20, &[&chart], 5);
    assert_eq!(rig.status(&child, "high"), Some(Status::Clear));
    assert_eq!(rig.health.told(&child), Some(Vec::new()));
    let dir = rig.end();
    assert_eq!(fs::read_to_string(dir.path().join("told")).unwrap().lines().count(), 1);
}

/// A host of the same GUID, as one that streams to us.
fn host_again(local: &Host) -> Arc<Host> {
    let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
    let settings = HostSettings { health_enabled: true, ..HostSettings::default() };
    let info = HostInfo { os: "linux".into(), ..HostInfo::named("child") };
    Host::new(local.guid(), HostKind::Child, info, engine, settings)
}

#[test]
fn what_was_held_back_at_a_stop_is_told_after_the_next_start() {
    let conf = format!("{HIGH}delay: up 20s down 20s\n");
    let rig = Rig::new(&conf);
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(40, &[&chart], 5);
    rig.seconds(5, &[&chart], 15);
    let dir = rig.end();
    assert!(!dir.path().join("told").exists());
    let rig = Rig::again(dir, &conf, T0 + 100, Arc::clone(&host));
    rig.seconds(30, &[&chart], 15);
    assert_eq!(rig.told(1), ["high UNINITIALIZED WARNING 15 here"]);
    // The same with an end.
    rig.seconds(5, &[&chart], 5);
    let dir = rig.end();
    let rig = Rig::again(dir, &conf, T0 + 300, Arc::clone(&host));
    rig.seconds(30, &[&chart], 5);
    assert_eq!(rig.told(2)[1..], ["high UNINITIALIZED CLEAR 5 here"]);
    rig.seconds(60, &[&chart], 5);
    let dir = rig.end();
    assert_eq!(fs::read_to_string(dir.path().join("told")).unwrap().lines().count(), 2);
}

#[test]
fn after_a_sleep_of_the_machine_alarms_wait() {
    let rig = Rig::new(HIGH);
    let host = rig.local();
    let chart = rig.chart(&host, "t.c");
    rig.seconds(3, &[&chart], 5);
    rig.clock.advance(3600 * MICROS);
    rig.health.tick(rig.clock.now_seconds().0, true);
    rig.seconds(50, &[&chart], 15);
    assert_eq!(rig.status(&host, "high"), Some(Status::Clear));
    rig.seconds(15, &[&chart], 15);
    assert_eq!(rig.status(&host, "high"), Some(Status::Warning));
    rig.end();
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let rig = Rig::new(&format!("{HIGH}delay: up 10s down 10s\n"));
    let child = host(HostKind::Child, "child");
    rig.hosts.get_or_create(child.guid(), || Arc::clone(&child)).unwrap();
    child.set_health(HealthPolicy::On, 0);
    child.set_connected(true, UnixSeconds(rig.clock.now_seconds().0));
    let charts = [rig.chart(&rig.local(), "t.c"), rig.chart(&child, "t.c")];
    let charts: Vec<&Arc<Chart>> = charts.iter().collect();
    rig.seconds(30, &charts, 5);
    rig.seconds(3, &charts, 15);
    rig.clock.advance(-3600 * MICROS);
    // Held back for some seconds more, not for an hour.
    rig.seconds(20, &charts, 15);
    let mut told = rig.told(2);
    told.sort_unstable();
    assert_eq!(told, ["high CLEAR WARNING 15 child", "high CLEAR WARNING 15 here"]);
    for host in [rig.local(), child] {
        let watched = rig.health.watched(&host).unwrap();
        let evaluated = watched.show(|alarms, _| alarms.alarms[0].state.last_updated);
        assert_eq!(evaluated, rig.clock.now_seconds().0, "{}", host.hostname());
    }
    rig.end();
}

/// The files that we ship hold no mistake, and expressions in them mean the same for Netdata.
#[test]
fn stock_alarms_are_right() {
    let stock = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf.d/health.d");
    let book = super::grammar::load(&stock, None);
    assert_eq!(book.mistakes, []);
    assert_eq!(book.remarks, []);
    assert!(book.definitions.len() >= 50, "{}", book.definitions.len());
}
