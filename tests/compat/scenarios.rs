//! A child and a parent, each ours or the real 1.37.1, between them a mishap and an outage of half a minute, ten minutes or
//! days: afterwards the parent has every sample that the child still has, none twice, and between our own nodes each is the
//! same.
//!
//! The child collects a plugin's charts itself, in real time, and has a node `kid` below it, played here: that one keeps
//! everything, its values follow from the time, and it can be silent for days in no time. A row of the table is a
//! [`Case`]. A run takes [`SHORT`] of them; `SCENARIOS=all` takes all, `SCENARIOS=word,word` those whose names hold all the
//! words, `TOGETHER=n` of them run at a time. What real peers get wrong stands in [`Case::excuse`].

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use netdata_rs::base::threads;
use parking_lot::Mutex;

use crate::harness::Program::{Ours, Real};
use crate::harness::*;
use crate::wire::{Wire, lasting_port};

// --- the table --------------------------------------------------------------------------------------------------------

const PROGRAMS: [Program; 2] = [Ours, Real];
const MODES: [&str; 3] = ["ram", "map", "dbengine"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    ParentStops,
    ParentKilled,
    ChildStops,
    ChildKilled,
    Cut,
    Slow,
    ParentFrozen,
    ChildFrozen,
    /// The clock goes forward by [`STEP_S`], and stays there.
    ChildAhead,
    /// The clock goes forward, and back again with the end of the mishap.
    ParentAhead,
    /// The clock goes back, and forward again with the end of the mishap.
    ParentBehind,
    ParentDiskFull,
}
use Mishap::*;

const MISHAPS: [Mishap; 12] = [
    ParentStops,
    ParentKilled,
    ChildStops,
    ChildKilled,
    Cut,
    Slow,
    ParentFrozen,
    ChildFrozen,
    ChildAhead,
    ParentAhead,
    ParentBehind,
    ParentDiskFull,
];

/// How far a clock is moved.
const STEP_S: i64 = 90;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    HalfMinute,
    TenMinutes,
    Days,
}
use Outage::*;

const OUTAGES: [Outage; 3] = [HalfMinute, TenMinutes, Days];

impl Outage {
    /// For how long `kid` was not heard, by the times of its samples.
    fn seconds(self) -> i64 {
        match self {
            HalfMinute => 30,
            TenMinutes => 600,
            Days => 3 * 86_400,
        }
    }

    /// How long the mishap lasts by the clock on the wall.
    fn lasts(self) -> Duration {
        Duration::from_secs(if self == HalfMinute { 30 } else { 6 })
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    child: Program,
    parent: Program,
    mishap: Mishap,
    outage: Outage,
    mode: &'static str,
}

/// What of a case is not as it would be between nodes of ours, and why; numbers are those of the list of known quirks of real
/// peers.
#[derive(Clone, Copy, Debug, Default)]
struct Excuse {
    /// Values may differ where raw ones are interpolated anew at the parent (8), or are cut to seven decimals.
    values: bool,
    /// A real parent's rings hold replicated samples a slot late, and lose one where live ones go on (2), and the first one of
    /// a chart or behind a gap, in whose place there is nothing or 0.
    late: bool,
    /// A real parent's ring in a file has no place behind its newest slot, so when it is opened again the newest sample, which
    /// is late, is lost.
    reopened: bool,
    /// As many of the oldest seconds cannot be had: a real child's rings are not sent from their oldest slots on (3), and its
    /// dbengine says that its first sample is where its samples begin, and sends what comes after that.
    oldest: i64,
}

impl Case {
    fn name(self) -> String {
        let Case { child, parent, mishap, outage, mode } = self;
        format!("{child:?}-{parent:?}-{mishap:?}-{outage:?}-{mode}").to_lowercase()
    }

    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for child in PROGRAMS {
            for parent in PROGRAMS.into_iter().filter(|parent| child == Ours || *parent == Ours) {
                for mishap in MISHAPS {
                    for outage in OUTAGES {
                        cases.extend(MODES.map(|mode| Case {
                            child,
                            parent,
                            mishap,
                            outage,
                            mode,
                        }));
                    }
                }
            }
        }
        cases
    }

    fn excuse(self) -> Excuse {
        let keeps_rings = self.mode != "dbengine";
        Excuse {
            values: self.child == Real || self.parent == Real,
            late: self.parent == Real && keeps_rings,
            reopened: self.parent == Real
                && self.mode == "map"
                && matches!(self.mishap, ParentStops | ParentKilled),
            oldest: match (self.child, keeps_rings) {
                (Ours, _) => 0,
                (Real, true) => HEARD + 2,
                (Real, false) => 1,
            },
        }
    }
}

/// What every run of the tests takes: the mishaps that differ most, with each program on either side, each mode and outage.
const SHORT: [(Program, Program, Mishap, Outage, &str); 8] = [
    (Ours, Ours, ParentKilled, Days, "dbengine"),
    (Ours, Ours, Slow, TenMinutes, "map"),
    (Ours, Ours, ParentAhead, TenMinutes, "ram"),
    (Ours, Ours, ParentDiskFull, HalfMinute, "dbengine"),
    (Ours, Real, Cut, TenMinutes, "dbengine"),
    (Ours, Real, ParentStops, HalfMinute, "ram"),
    (Real, Ours, ParentFrozen, TenMinutes, "ram"),
    (Real, Ours, ChildKilled, TenMinutes, "dbengine"),
];

#[test]
fn whatever_happens_between_a_child_and_its_parent_nothing_stays_missing() {
    let wanted = std::env::var("SCENARIOS").unwrap_or_default();
    let mut cases: Vec<Case> = match wanted.as_str() {
        "" => SHORT
            .map(|(child, parent, mishap, outage, mode)| Case {
                child,
                parent,
                mishap,
                outage,
                mode,
            })
            .to_vec(),
        "all" => Case::all(),
        words => {
            let words: Vec<_> = words.split(',').collect();
            let mut cases = Case::all();
            cases.retain(|case| words.iter().all(|word| case.name().contains(word)));
            cases
        }
    };
    if Real.path().is_none() {
        skipped(
            "scenarios with a real peer",
            "there is no real netdata here (tests/peer.sh gets it)",
        );
        cases.retain(|case| (case.child, case.parent) == (Ours, Ours));
    }
    if Disturber::library().is_none() {
        skipped("scenarios with clocks and full disks", "there is no C compiler");
        let shimmed = [ChildAhead, ParentAhead, ParentBehind, ParentDiskFull];
        cases.retain(|case| !shimmed.contains(&case.mishap));
    }
    assert!(!cases.is_empty(), "no scenario has all of the words '{wanted}' in its name");
    let together = std::env::var("TOGETHER").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let broken = Mutex::new(Vec::new());
    let todo = Mutex::new(cases.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..together {
            scope.spawn(|| {
                loop {
                    let Some(case) = todo.lock().next() else { break };
                    let begun = Instant::now();
                    let run = std::panic::AssertUnwindSafe(|| run(case));
                    let outcome = std::panic::catch_unwind(run)
                        .unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
                    let took = begun.elapsed().as_secs();
                    match outcome {
                        Ok(told) => println!("{}: {told} ({took} s)", case.name()),
                        Err(wrong) => {
                            println!("{}: FAILS after {took} s: {wrong}", case.name());
                            broken.lock().push(case.name());
                        }
                    }
                }
            });
        }
    });
    let broken = broken.into_inner();
    assert!(broken.is_empty(), "scenarios that fail (SCENARIOS=name): {broken:#?}");
}

// --- clocks and disks -------------------------------------------------------------------------------------------------

/// What moves an agent's clock and fills its disk: the library of the torture rig, loaded before the C library.
struct Disturber {
    control: fs::File,
}

impl Disturber {
    const FULL: i64 = 1;

    /// Built once; `None` without a compiler.
    fn library() -> Option<&'static Path> {
        static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
        let build = || {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/shim.c");
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios-shim.so");
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source).arg("-ldl");
            cc.status().is_ok_and(|status| status.success()).then_some(library)
        };
        BUILT.get_or_init(build).as_deref()
    }

    fn load(agent: Agent, library: &Path) -> (Agent, Disturber) {
        let path = agent.dir().join("control");
        fs::write(&path, [0; 64]).unwrap();
        let control = fs::File::options().write(true).open(&path).unwrap();
        let root = agent.dir().join("cache").display().to_string();
        let agent = agent
            .environment("LD_PRELOAD", &library.display().to_string())
            .environment("TORTURE_ROOT", &root)
            .environment("TORTURE_CONTROL", &path.display().to_string());
        (agent, Disturber { control })
    }

    fn put(&self, word: u64, value: i64) {
        self.control.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
    }

    fn step_clock(&self, seconds: i64) {
        self.put(0, seconds * 1_000_000_000);
    }

    fn fill_disk(&self, is_full: bool) {
        self.put(1, if is_full { Disturber::FULL } else { 0 });
    }
}

// --- the node below the child -----------------------------------------------------------------------------------------

const KID: &str = "cccccccc-0000-4000-8000-00000000000d";
const KID_CHART: &str = "kid.load";
/// Seconds that `kid` was heard before the outage.
const HEARD: i64 = 40;

/// What dimensions `a` and `b` of `kid` have at a time. Both are whole, and are stored as they are.
fn value_a(at: i64) -> i64 {
    (at * 7919) % 100_000
}
fn value_b(at: i64) -> i64 {
    at % 60
}

/// Plays `kid`: keeps everything since `first`, answers what it is asked for, sends what is new. Comes back when it loses its
/// parent.
struct Kid {
    state: Arc<KidState>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct KidState {
    port: u16,
    caps: u32,
    first: i64,
    /// How far its clock is behind. Then it is not, as if it had been cut off for so long.
    behind: AtomicI64,
    over: AtomicBool,
}

impl Kid {
    fn start(below: &Agent, program: Program, first: i64, behind: i64) -> Kid {
        const REPLICATION: u32 = 1 << 12;
        const INTERPOLATED: u32 = 1 << 14;
        let caps = OLD_LIVE | REPLICATION | if program == Ours { INTERPOLATED } else { 0 };
        let behind = AtomicI64::new(behind);
        let over = AtomicBool::new(false);
        let state = Arc::new(KidState { port: below.port, caps, first, behind, over });
        let shared = Arc::clone(&state);
        let play = move || {
            while !shared.is_over() {
                match FakeChild::connect(shared.port, "kid", KID, shared.caps) {
                    Ok(child) => shared.play(child),
                    Err(_) => pause(Duration::from_millis(200)),
                }
            }
        };
        Kid { state, thread: Some(threads::spawn("kid", play).unwrap()) }
    }

    /// The outage is over: what was collected in it is there, and its clock goes on.
    fn go_on(&self) {
        self.state.behind.store(0, Ordering::Release);
    }
}

impl Drop for Kid {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl KidState {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// One connection.
    fn play(&self, mut child: FakeChild) {
        let behind = self.behind.load(Ordering::Acquire);
        let newest = || now() - behind - 1;
        let define = format!(
            "CHART \"{KID_CHART}\" \"\" \"Load\" \"things\" \"kid\" \"kid.load\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
             DIMENSION \"a\" \"\" \"absolute\" 1 1 \"\"\nDIMENSION \"b\" \"\" \"absolute\" 1 1 \"\"\n\
             CHART_DEFINITION_END {} {} {}\n",
            self.first,
            newest(),
            now()
        );
        if !child.send(&define) {
            return;
        }
        let mut sent: Option<i64> = None;
        while !self.is_over() && self.behind.load(Ordering::Acquire) == behind {
            match child.link.line(Duration::from_millis(100)) {
                Line::Text(line) if line.starts_with("REPLAY_CHART ") => {
                    let words: Vec<_> =
                        line.split(' ').map(|word| word.trim_matches('"')).collect();
                    let number = |n: usize| words.get(n).and_then(|w| w.parse().ok()).unwrap_or(0);
                    let ask = (words.get(2) == Some(&"true"), number(3), number(4));
                    let Some(live) = self.answer(&mut child, ask, sent.unwrap_or_else(newest))
                    else {
                        return;
                    };
                    sent = sent.or(live);
                }
                Line::Closed => return,
                _ => {}
            }
            while let Some(at) = sent.filter(|at| *at < now() - behind) {
                if !child.send(&self.tick(at + 1)) {
                    return;
                }
                sent = Some(at + 1);
            }
        }
    }

    fn tick(&self, at: i64) -> String {
        let (a, b) = (value_a(at), value_b(at));
        if self.caps & (1 << 14) != 0 {
            format!("BEGIN2 '{KID_CHART}' 1 {at} #\nSET2 'a' {a} {a} A\nSET2 'b' {b} {b} A\nEND2\n")
        } else {
            format!("BEGIN \"{KID_CHART}\" 1000000\nSET \"a\" = {a}\nSET \"b\" = {b}\nEND\n")
        }
    }

    /// Gives the newest second the answer holds, if live ones may follow; `None` outside when the link broke.
    fn answer(
        &self,
        child: &mut FakeChild,
        (start, after, before): (bool, i64, i64),
        last: i64,
    ) -> Option<Option<i64>> {
        const MOST: i64 = 86_400;
        let wall = now();
        let mut text = format!("RBEGIN \"{KID_CHART}\"\n");
        let (from, mut to) = (after.max(self.first), if start { last } else { before.min(last) });
        let nothing = after == 0 || before == 0;
        let cut = !nothing && to - from > MOST;
        if cut {
            to = from + MOST;
        }
        let live = nothing || (!cut && (start || to >= last));
        if nothing {
            to = last;
        } else {
            for at in from + 1..=to {
                text += &format!(
                    "RBEGIN '' {} {at} {wall}\nRSET \"a\" {} \"A\"\nRSET \"b\" {} \"A\"\n",
                    at - 1,
                    value_a(at),
                    value_b(at)
                );
            }
        }
        if live {
            let us = to * 1_000_000;
            for (id, value) in [("a", value_a(to)), ("b", value_b(to))] {
                text += &format!("RDSTATE \"{id}\" {us} {value} {value} {value}\n");
            }
            text += &format!("RSSTATE {us} {us}\n");
        }
        let (after, end) = if nothing { (0, 0) } else { (after, to.max(after)) };
        let word = if live { "true" } else { "false" };
        text += &format!("REND 1 {} {last} {word} {after} {end} {wall}\n", self.first);
        child.send(&text).then_some(live.then_some(to))
    }
}

// --- a run ------------------------------------------------------------------------------------------------------------

const OWN_CHART: &str = "own.load";
/// A child that is started again in the second of its end would measure that second twice.
const CHILD_REST: Duration = Duration::from_millis(1500);

/// By time, then by dimension.
type Held = BTreeMap<i64, BTreeMap<String, f64>>;

fn held(agent: &Agent, host: &str, chart: &str, after: i64, before: i64) -> Held {
    const ROWS: i64 = 7_200;
    let mut held = Held::new();
    let mut from = after;
    while from < before {
        let until = before.min(from + ROWS);
        for (time, row) in agent.samples(host, chart, 1, from, until) {
            let row = row.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?)));
            held.insert(time, row.collect());
        }
        from = until;
    }
    held
}

/// An agent of a case.
fn agent(name: &str, program: Program, case: Case, keep: i64) -> Agent {
    let kept = format!("default history = {keep}");
    let mut agent = Agent::new(name)
        .program(program)
        .port(lasting_port())
        .mode(case.mode)
        .option("db", "seconds to replicate", "604800")
        .option("db", "delete orphan hosts files", "no")
        .takes_children_with(case.mode, "");
    agent.edit_stream(|text| text.replace("default history = 3600", &kept));
    agent
}

/// Runs a case; gives what there is to say of it, or what is wrong.
fn run(case: Case) -> Result<String, String> {
    let seconds = case.outage.seconds();
    let keep = seconds + HEARD + 3_600;
    let mut parent = agent("parent", case.parent, case, keep);
    let wire = Wire::new("wire".to_owned(), parent.port);
    let mut child = agent("child", case.child, case, keep)
        .plugin("counting", COUNTING)
        .streams_to(&[wire.port]);
    let mut disturbers = [None, None];
    for (agent, disturber) in [&mut parent, &mut child].into_iter().zip(&mut disturbers) {
        if let Some(library) = Disturber::library() {
            let (loaded, made) = Disturber::load(std::mem::replace(agent, Agent::new("")), library);
            *agent = loaded;
            *disturber = Some(made);
        }
    }
    let [of_parent, of_child] = disturbers;
    parent.begin();
    child.begin();
    let began = now();
    let first = began - seconds - HEARD;
    let kid = Kid::start(&child, case.child, first, seconds);
    let patience = if case.child == Real || case.parent == Real { 150 } else { 90 };
    parent.wait_live("child", OWN_CHART, patience);
    wait_for("the parent to have heard of kid", patience, || {
        let json = parent.try_json(&format!("/host/kid/api/v1/chart?chart={KID_CHART}"))?;
        (json["last_entry"].as_i64()? > began - seconds).then_some(())
    });
    // A past of ten minutes or days is asked for while the mishap is there, or right after it.
    match case.mishap {
        ParentStops => drop(parent.stop()),
        ParentKilled => parent.kill(),
        ChildStops => drop(child.stop()),
        ChildKilled => child.kill(),
        Cut => wire.cut(),
        Slow => wire.slow_down(),
        ParentFrozen => parent.signal("STOP"),
        ChildFrozen => child.signal("STOP"),
        ChildAhead => of_child.iter().for_each(|shim| shim.step_clock(STEP_S)),
        ParentAhead => of_parent.iter().for_each(|shim| shim.step_clock(STEP_S)),
        ParentBehind => of_parent.iter().for_each(|shim| shim.step_clock(-STEP_S)),
        ParentDiskFull => of_parent.iter().for_each(|shim| shim.fill_disk(true)),
    }
    kid.go_on();
    pause(case.outage.lasts());
    match case.mishap {
        ParentStops | ParentKilled => parent.begin(),
        ChildStops | ChildKilled => {
            pause(CHILD_REST);
            child.begin();
        }
        Cut | Slow => wire.heal(),
        ParentFrozen => parent.signal("CONT"),
        ChildFrozen => child.signal("CONT"),
        ChildAhead => {}
        ParentAhead | ParentBehind => of_parent.iter().for_each(|shim| shim.step_clock(0)),
        ParentDiskFull => of_parent.iter().for_each(|shim| shim.fill_disk(false)),
    }
    let until = now() + 2;
    wait_for("some seconds after the mishap", 30, || (now() > until + 1).then_some(()));
    compare(case, &child, &parent, (first, began, until), patience)
}

/// Waits until the parent has what the child has.
fn compare(
    case: Case,
    child: &Agent,
    parent: &Agent,
    (first, began, until): (i64, i64, i64),
    patience: u64,
) -> Result<String, String> {
    let ahead = if case.mishap == ChildAhead { STEP_S } else { 0 };
    // What is of the future at the parent is not told by it before it is not any more.
    let patience = patience + ahead.unsigned_abs();
    let spans =
        [("", "child", OWN_CHART, began, until + ahead), ("kid", "kid", KID_CHART, first, until)];
    let end = Instant::now() + Duration::from_secs(patience);
    loop {
        let found = spans.map(|(here, there, chart, after, before)| {
            let source = held(child, here, chart, after, before);
            // What is held late there may be held behind the end.
            let copy = held(parent, there, chart, after, before + 1);
            Found::compare(case, there, &source, &copy)
        });
        let wrong: Vec<_> = found.iter().flat_map(|found| &found.wrong).collect();
        let compared: usize = found.iter().map(|found| found.compared).sum();
        let excused: usize = found.iter().map(|found| found.excused).sum();
        // What happened to the child's own chart may have left it little; the kid's is whole.
        let least = usize::try_from(until - first - 20).unwrap();
        let enough = case.excuse().oldest > 0 || found[1].compared >= 2 * least;
        if wrong.is_empty() && enough {
            return Ok(format!("{compared} samples, {excused} of them with an excuse"));
        }
        if Instant::now() > end {
            let shown: Vec<_> = wrong.iter().take(6).collect();
            let logs =
                [child, parent].map(|agent| format!("--- {}\n{}", agent.name, agent.log_end()));
            return Err(format!(
                "{} of {compared} samples ({least} seconds) are wrong: {shown:#?}\n{}",
                wrong.len(),
                logs.join("\n")
            ));
        }
        pause(Duration::from_millis(700));
    }
}

#[derive(Default)]
struct Found {
    compared: usize,
    excused: usize,
    wrong: Vec<String>,
}

impl Found {
    fn compare(case: Case, host: &str, source: &Held, copy: &Held) -> Found {
        let excuse = case.excuse();
        let mut found = Found::default();
        let oldest = source.keys().next().copied().unwrap_or(0) + excuse.oldest;
        for (time, row) in source {
            for (dimension, value) in row {
                found.compared += 1;
                let at = |time: i64| copy.get(&time).and_then(|row| row.get(dimension)).copied();
                let there = at(*time);
                let close = |other: f64| (other - value).abs() <= 1e-6 * value.abs().max(1.0);
                // The one before it, late, and the next one in its place: live samples have overwritten this one.
                let was = |time: i64| source.get(&time).and_then(|row| row.get(dimension)).copied();
                let interpolated = excuse.values && host == "child";
                let overwritten = there == was(time - 1)
                    && at(time + 1).is_some()
                    && (interpolated || at(time + 1) == was(time + 1));
                if there.is_some_and(|there| there == *value) {
                    continue;
                }
                let is_first = !source.contains_key(&(time - 1)) && there.is_none_or(|v| v == 0.0);
                let is_newest = there.is_some() && there == was(time - 1) && at(time + 1).is_none();
                let excused = (interpolated && there.is_some())
                    || (excuse.late
                        && (overwritten || is_first || at(time + 1).is_some_and(close)))
                    || (excuse.reopened && is_newest)
                    || *time < oldest;
                if excused {
                    found.excused += 1;
                } else {
                    found.wrong.push(format!("{host} {dimension} at {time}: {value} at the child, {there:?}, then {:?} at the parent", at(time + 1)));
                }
            }
        }
        // What the child never had, or had elsewhere.
        if case.mishap != ChildKilled && case.mishap != ChildStops {
            let (first, last) = (source.keys().next().copied(), source.keys().last().copied());
            for (time, row) in copy {
                let inside = first.is_some_and(|first| first <= *time)
                    && last.is_some_and(|last| *time <= last);
                if inside && !row.is_empty() && !source.contains_key(time) && !excuse.late {
                    found.wrong.push(format!(
                        "{host} at {time}: {row:?} at the parent, nothing at the child"
                    ));
                }
            }
        }
        // What is made up there is known.
        if host == "kid" && case.child == Ours {
            for (time, row) in source {
                if row.get("a").is_none_or(|a| *a != value_a(*time) as f64) {
                    found.wrong.push(format!("kid at {time}: {row:?} at the child"));
                }
            }
        }
        found
    }
}
