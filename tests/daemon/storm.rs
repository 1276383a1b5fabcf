//! Storms: many children at once, and children that are broken or mean harm. Live samples of the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netdata_rs::base::threads;

use crate::harness::*;

const INTERPOLATED: u32 = NEW_LIVE & !(1 << 15) & !(1 << 18);

fn guid() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn definition(id: &str) -> String {
    format!(
        "CHART \"{id}\" \"\" \"Own\" \"units\" \"own\" \"own.load\" \"line\" 1000 1 \"\" \"p\" \"m\"\n\
         DIMENSION \"a\" \"a\" \"absolute\" 1 1 \"\"\n"
    )
}

/// A child whose samples pass a parent of ours on their way to a parent that is made up: how long they take is what a live
/// sample takes.
struct Scene {
    parent: Agent,
    good: FakeChild,
    above: Link,
    sent: u64,
    _above: FakeParent,
}

impl Scene {
    fn new(mode: &str) -> Scene {
        let above = FakeParent::listen(OLD_LIVE);
        // As many processors for the agent as for those who trouble it.
        let parent = Agent::new("parent")
            .option("global", "process nice level", "0")
            .option("global", "process scheduling policy", "keep")
            .takes_children_with(
                mode,
                &format!(
                    "    default proxy enabled = yes\n    default proxy destination = 127.0.0.1:{}\n    \
                     default proxy api key = {KEY}\n    default proxy send charts matching = good.*\n",
                    above.port
                ),
            )
            .start();
        let mut good = FakeChild::connect(parent.port, "good", &guid(), OLD_LIVE).unwrap();
        assert!(good.send(&definition("good.load")));
        good.send("BEGIN \"good.load\" 0\nSET \"a\" = 1\nEND\n");
        let (link, head) = above.accept(20);
        assert!(head.contains("hostname=good"), "{head}");
        // What is collected before that is not sent.
        parent.wait_log("sending metrics to parent...", 10);
        let mut scene = Scene { parent, good, above: link, sent: 0, _above: above };
        // The first ones define the chart above.
        for _ in 0..20 {
            scene.sample();
        }
        scene
    }

    /// How long the next sample takes to arrive above.
    #[track_caller]
    fn sample(&mut self) -> Duration {
        self.sent += 1;
        let value = 1_000_000 + self.sent;
        let began = Instant::now();
        let line = format!("BEGIN \"good.load\" 1000000\nSET \"a\" = {value}\nEND\n");
        assert!(self.good.send(&line), "the good child lost its link\n{}", self.parent.log_end());
        let wanted = format!("= {value}");
        loop {
            match self.above.line(Duration::from_secs(20)) {
                Line::Text(line) if line.ends_with(&wanted) => return began.elapsed(),
                Line::Text(_) => {}
                other => panic!("{other:?}: no sample above\n{}", self.parent.log_end()),
            }
        }
    }

    /// Latencies of samples for so long, sorted.
    fn samples(&mut self, time: Duration) -> Vec<Duration> {
        let began = Instant::now();
        let mut all = Vec::new();
        while began.elapsed() < time {
            all.push(self.sample());
            pause(Duration::from_millis(10));
        }
        all.sort_unstable();
        all
    }
}

/// How long samples take before somebody troubles the parent, meanwhile, and afterwards; each sorted. `calm`: meanwhile at a
/// parent that nobody troubles, on the same machine.
struct Comparison {
    before: Vec<Duration>,
    troubled: Vec<Duration>,
    calm: Vec<Duration>,
    after: Vec<Duration>,
}

/// Shorter times than this are the scheduler's, who else is at work on this machine.
const GRAIN: Duration = Duration::from_micros(500);
/// So long may whoever is at work beside us keep a processor before it is given to somebody else.
const SLICE: Duration = Duration::from_millis(4);

impl Comparison {
    /// Whether live samples take twice as long at most: half of them, and 95 of 100.
    fn verdict(&self, what: &str) -> Verdict {
        let [middle, late] = [50, 95].map(|percent| {
            let Comparison { before, troubled, calm, after } = self;
            let [before, troubled, calm, after] =
                [before, troubled, calm, after].map(|all| at(all, percent));
            eprintln!(
                "{what}: {percent} of 100 samples took {troubled:?} at most ({before:?} before, {after:?} after, {calm:?} meanwhile at a parent without trouble)"
            );
            (troubled, before.max(after).max(GRAIN), calm.max(SLICE))
        });
        let twice = |(took, otherwise, _): (Duration, Duration, Duration)| took <= 2 * otherwise;
        Verdict {
            strict: twice(middle) && twice(late),
            fair: twice(middle) && (twice(late) || late.0 <= 2 * late.2),
        }
    }
}

/// `fair` leaves out of the slowest what others on this machine may be the cause of: a processor that they keep for a moment,
/// and what a parent without trouble sees at the same time. `strict` leaves out nothing.
struct Verdict {
    strict: bool,
    fair: bool,
}

/// Most tries must be fair, and one of them strict.
const TRIES: usize = 7;

#[track_caller]
fn at_most_twofold(what: &str, mut compare: impl FnMut() -> Comparison) {
    let (mut fair, mut unfair, mut strict) = (0, 0, 0);
    while fair + unfair < TRIES && (fair <= unfair || strict == 0) {
        let verdict = compare().verdict(what);
        if verdict.fair {
            fair += 1;
        } else {
            unfair += 1;
        }
        strict += usize::from(verdict.strict);
    }
    assert!(
        fair > unfair && strict > 0,
        "'{what}' makes the samples of others late: of {} tries {fair} were fair, {strict} strict",
        fair + unfair
    );
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// A child that says the same kind of thing again and again, and comes back whenever it is thrown out.
struct Pest {
    stop: Arc<AtomicBool>,
    /// How often it was let in, and thrown out.
    in_: Arc<AtomicUsize>,
    out: Arc<AtomicUsize>,
}

impl Pest {
    fn begin(port: u16, name: &'static str, says: impl Fn(u64) -> String + Send + 'static) -> Pest {
        let pest = Pest { stop: Arc::default(), in_: Arc::default(), out: Arc::default() };
        let (stop, in_, out) =
            (Arc::clone(&pest.stop), Arc::clone(&pest.in_), Arc::clone(&pest.out));
        threads::spawn("pest", move || {
            let guid = guid();
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let Ok(mut child) = FakeChild::connect(port, name, &guid, INTERPOLATED) else {
                    pause(Duration::from_millis(50));
                    continue;
                };
                in_.fetch_add(1, Ordering::Relaxed);
                child.send(&definition("bad.load"));
                while child.send(&says(n)) && !stop.load(Ordering::Relaxed) {
                    n += 1;
                }
                out.fetch_add(1, Ordering::Relaxed);
            }
        })
        .unwrap();
        pest
    }
}

impl Drop for Pest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

type Says = fn(u64) -> String;

/// What broken children say, a piece at a time; the limit that ends it.
const PESTS: &[(&str, Says, &str)] = &[
    ("redefines", |_| definition("bad.load").repeat(500), "DEFINITIONS_PER_SECOND"),
    (
        "defines",
        |n| (0..500).map(|i| definition(&format!("bad.c{}", n * 500 + i))).collect(),
        "NEW_CHARTS_PER_SECOND",
    ),
    (
        "churns",
        |n| {
            let one = |i: u64| {
                let id = format!("bad.churn{}", n * 200 + i);
                let gone = definition(&id).replace("1000 1 \"\"", "1000 1 \"obsolete\"");
                format!("{}BEGIN \"{id}\" 0\nSET \"a\" = 1\nEND\n{gone}", definition(&id))
            };
            (0..200).map(one).collect()
        },
        "NEW_CHARTS_PER_SECOND",
    ),
    (
        "dimensions",
        |n| {
            let line =
                |i: u64| format!("DIMENSION \"d{}\" \"\" \"absolute\" 1 1 \"\"\n", n * 500 + i);
            (0..500).map(line).collect()
        },
        "DIMENSIONS_MAX",
    ),
    (
        "future",
        |n| {
            let end = now() + 100_000_000 + i64::try_from(n).unwrap() * 10_000_000;
            format!("BEGIN2 \"bad.load\" 1 {end} #\nSET2 \"a\" 1 # A\nEND2\n")
        },
        "FUTURE_MAX_S",
    ),
    ("long", |_| format!("LABEL a 1 {}\n", "x".repeat(20_000)), "exceeds 15360 bytes"),
    ("glued", |_| format!("{:<15360}LABEL b 1 x\n", "LABEL a 1 x").repeat(20), "LINES_CUT_MAX"),
];

#[test]
fn a_child_that_asks_too_much_is_cut_off_by_name_and_troubles_nobody() {
    let (mut scene, mut calm) = (Scene::new("ram"), Scene::new("ram"));
    for (name, says, limit) in PESTS {
        at_most_twofold(name, || cut_off(&mut scene, &mut calm, name, *says, limit));
    }
}

fn cut_off(
    scene: &mut Scene,
    calm: &mut Scene,
    name: &'static str,
    says: Says,
    limit: &str,
) -> Comparison {
    let before = scene.samples(Duration::from_secs(2));
    let ends = scene.parent.log().matches("it is not let in for 60 seconds").count();
    let pest = Pest::begin(scene.parent.port, name, says);
    let (mut troubled, mut beside) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while pest.out.load(Ordering::Relaxed) == 0 || began.elapsed() < Duration::from_secs(2) {
        troubled.push(scene.sample());
        beside.push(calm.sample());
        pause(Duration::from_millis(10));
        assert!(began.elapsed() < Duration::from_secs(60), "'{name}' is never cut off");
    }
    troubled.sort_unstable();
    beside.sort_unstable();
    let line = scene.parent.log();
    let line = line.lines().find(|line| line.contains(limit) && line.contains(name));
    assert!(line.is_some(), "no line about '{name}' with {limit}\n{}", scene.parent.log_end());
    let cut_off = || {
        let log = scene.parent.log();
        let is_it = |line: &&str| line.contains("it is not let in for 60 seconds");
        let lines: Vec<_> = log.lines().filter(is_it).collect();
        (lines.len() > ends && lines[ends..].iter().all(|line| line.contains(name))).then_some(())
    };
    wait_for("the line about its end", 5, cut_off);
    // A line that is too long is forgiven three times.
    let most = if name == "long" { 4 } else { 1 };
    assert_eq!(pest.in_.load(Ordering::Relaxed), most, "'{name}' was let in again at once");
    drop(pest);
    Comparison { before, troubled, calm: beside, after: scene.samples(Duration::from_secs(2)) }
}

/// Valid samples, as fast as they can be written: no limit is broken, and nobody else waits.
#[test]
fn a_child_that_floods_takes_its_share_and_no_more() {
    let (mut scene, mut calm) = (Scene::new("ram"), Scene::new("ram"));
    at_most_twofold("flood", || {
        let before = scene.samples(Duration::from_secs(3));
        let flood = |n: u64| format!("BEGIN \"bad.load\" 1000\nSET \"a\" = {n}\nEND\n").repeat(500);
        let pest = Pest::begin(scene.parent.port, "flood", flood);
        let began = Instant::now();
        let (mut troubled, mut beside) = (Vec::new(), Vec::new());
        while began.elapsed() < Duration::from_secs(5) {
            troubled.push(scene.sample());
            beside.push(calm.sample());
            pause(Duration::from_millis(10));
        }
        troubled.sort_unstable();
        beside.sort_unstable();
        assert_eq!(pest.out.load(Ordering::Relaxed), 0);
        drop(pest);
        Comparison { before, troubled, calm: beside, after: scene.samples(Duration::from_secs(3)) }
    });
}

const CHILDREN: usize = 300;
const CHARTS: usize = 300;

#[test]
fn all_children_at_once_are_let_in_at_a_pace_that_keeps_live_samples_flowing() {
    let mut scene = Scene::new("ram");
    let calm = scene.samples(Duration::from_secs(3));
    let text: Arc<String> =
        Arc::new((0..CHARTS).map(|n| definition(&format!("bad.c{n}"))).collect());
    let done = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let port = scene.parent.port;
    let began = Instant::now();
    for n in 0..CHILDREN {
        let (done, stop, text) = (Arc::clone(&done), Arc::clone(&stop), Arc::clone(&text));
        threads::spawn("child", move || {
            let socket = FakeChild::connect(port, &format!("kid{n}"), &guid(), OLD_LIVE);
            let mut child = socket.unwrap_or_else(|answer| panic!("child {n}: '{answer}'"));
            assert!(child.send(&text));
            done.fetch_add(1, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                child.send("BEGIN \"bad.c0\" 0\nSET \"a\" = 1\nEND\n");
                pause(Duration::from_secs(1));
            }
        })
        .unwrap();
    }
    let mut storm = Vec::new();
    while done.load(Ordering::Relaxed) < CHILDREN {
        storm.push(scene.sample());
        pause(Duration::from_millis(10));
        assert!(began.elapsed() < Duration::from_secs(60), "{} came", done.load(Ordering::Relaxed));
    }
    let took = began.elapsed();
    storm.sort_unstable();
    eprintln!(
        "{CHILDREN} children with {CHARTS} charts each were in after {took:?}; meanwhile half of {} samples took {:?} at most ({:?} without), 95 of 100 {:?} ({:?}), the slowest {:?}",
        storm.len(),
        at(&storm, 50),
        at(&calm, 50),
        at(&storm, 95),
        at(&calm, 95),
        at(&storm, 100),
    );
    // A sample comes once a second: it is live as long as it takes a fraction of that.
    assert!(at(&storm, 50) <= 2 * at(&calm, 50).max(Duration::from_millis(2)));
    assert!(at(&storm, 95) <= Duration::from_millis(100));
    assert!(at(&storm, 100) <= Duration::from_millis(500));
    wait_for("the charts of all", 30, || {
        let all = (0..CHILDREN)
            .step_by(50)
            .all(|n| scene.parent.charts(&format!("kid{n}")).len() == CHARTS);
        all.then_some(())
    });
    stop.store(true, Ordering::Relaxed);
}
