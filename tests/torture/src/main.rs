//! Torture of the dbengine: the real agent is killed, starved, cut off and lied to, again and again, and every sample it
//! was ever told is compared with what its API says.
//!
//! A cycle starts the agent on what the one before left, lets made-up children connect, compares, streams for a while
//! (slots of the present and of the past, in any order), perhaps with a disk that fails, and ends the agent: SIGKILL,
//! a power cut (`disk.rs`), or a clean stop. Then a file may be spoiled. Time is the rig's: the shim (`shim.c`) moves the
//! agent's clock, so a cycle covers minutes in a second.
//!
//! A sample may be missing only
//!
//! - if it was sent less than a second before the kill, or less than `dbengine sync every` and a second before the cut;
//! - if it was sent since the disk began to refuse, or so shortly before, and the disk had not recovered by the end;
//! - if a file was spoiled meanwhile, which the log must then name, in one line.
//!
//! No sample may be wrong, ever. What went missing is sent again later, as replication would.

mod agent;
mod child;
mod disk;
mod model;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent::{Agent, Control, Places, SYNC_EVERY, faults};
use child::FakeChild;
use model::{Chart, Missing, Sent};

/// How long the agent may take to read what was sent, on a machine that does other things too.
const SLACK: f64 = 0.5;
const CHILDREN: usize = 2;

pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    PowerCut,
    Stop,
}

/// How the run before ended.
struct End {
    kind: Kind,
    at: Instant,
    /// The disk refused from then on.
    refused_since: Option<Instant>,
    damaged: Vec<(String, String)>,
    /// What the disk did meanwhile, for whoever looks into a violation.
    faults: String,
}

#[derive(Default)]
struct Report {
    cycles: u64,
    kills: u64,
    power_cuts: u64,
    stops: u64,
    disturbed: i64,
    fault_runs: u64,
    spoiled: u64,
    compared: u64,
    sent: u64,
    lost_to_crashes: u64,
    lost_to_refusal: u64,
    lost_to_damage: u64,
    worst_kill: f64,
    worst_cut: f64,
    violations: Vec<String>,
}

struct Rig {
    places: Places,
    control: Control,
    random: Random,
    charts: Vec<Chart>,
    /// Next live slot of each chart, and slots still owed: held back, or lost.
    next: Vec<i64>,
    owed: Vec<(usize, i64)>,
    /// The agent's clock is ours plus this many seconds.
    offset: i64,
    /// Steps the clock takes beside the truth.
    skew: i64,
    /// When an agent ended, and when the next one listened.
    downs: Vec<(Instant, Instant)>,
    report: Report,
}

fn real_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// Constants, counters, small and large noise, by dimension; always a whole number that a sample holds exactly.
fn value_of(chart: usize, dimension: usize, time: i64) -> u32 {
    let mut hash = (time as u64) ^ ((chart as u64) << 40) ^ ((dimension as u64) << 34);
    hash = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash ^= hash >> 32;
    match dimension % 4 {
        0 => 1 + chart as u32 * 100 + dimension as u32,
        1 => 1 + (time % 10_000_000) as u32,
        2 => 1 + (hash % 100) as u32,
        _ => 1 + (hash % 9_999_999) as u32,
    }
}

impl Rig {
    fn virtual_now(&self) -> i64 {
        real_now() + self.offset
    }

    fn set_clock(&mut self) -> io::Result<()> {
        self.control.clock_offset((self.offset + self.skew) * 1_000_000_000)
    }

    fn add_chart(&mut self, host: usize, every: i64, dimensions: usize) {
        let id = format!("torture.c{}", self.charts.len());
        self.charts.push(Chart::new(host, id, every, dimensions));
        let now = self.virtual_now();
        self.next.push(now - now % every);
    }

    fn violation(&mut self, what: String) {
        println!("VIOLATION in cycle {}: {what}", self.report.cycles);
        self.report.violations.push(what);
    }

    fn connect(&self, agent: &Agent) -> io::Result<Vec<FakeChild>> {
        let mut children = Vec::new();
        for number in 0..CHILDREN {
            let mut child = FakeChild::connect(agent.address, number)?;
            for chart in self.charts.iter().filter(|chart| chart.host == number) {
                child.define(chart);
            }
            child.flush()?;
            let last = self.charts.iter().rev().find(|chart| chart.host == number);
            let end = Instant::now() + Duration::from_secs(20);
            while let Some(last) = last {
                let path = format!("/host/child{number}/api/v1/chart?chart={}", last.id);
                if agent.get(&path).is_ok_and(|(status, _)| status == 200) {
                    break;
                }
                if Instant::now() > end {
                    return Err(io::Error::other(format!(
                        "'{}' is not defined within 20 s",
                        last.id
                    )));
                }
                thread::sleep(Duration::from_millis(5));
            }
            children.push(child);
        }
        Ok(children)
    }

    /// Compares what was sent since the last time, or everything.
    fn compare(&mut self, agent: &Agent, everything: bool) -> io::Result<Vec<Missing>> {
        let (mut missing, mut wrong) = (Vec::new(), Vec::new());
        // Nobody answers for the future, and a query that reaches into it is shifted into the past.
        self.control.clock_offset((self.offset + self.skew.max(0)) * 1_000_000_000)?;
        let recent = self.virtual_now() - 6000;
        for (number, chart) in self.charts.iter().enumerate() {
            let from = if everything { 0 } else { chart.new_from.min(recent) };
            self.report.compared += chart.compare(number, agent, from, &mut missing, &mut wrong)?;
        }
        let count = wrong.len();
        self.set_clock()?;
        for what in wrong.into_iter().take(5) {
            self.violation(format!("wrong sample ({count} in all): {what}"));
        }
        Ok(missing)
    }

    /// What is missing after a start: allowed, or not. All of it is sent again later.
    fn judge(&mut self, missing: Vec<Missing>, end: &End) {
        let mut by_damage = 0u64;
        let mut bad = Vec::new();
        for lost in &missing {
            // The time in which an agent ran.
            let down: f64 = self
                .downs
                .iter()
                .filter(|(from, _)| *from >= lost.sent)
                .map(|(from, until)| until.duration_since(*from).as_secs_f64())
                .sum();
            let age = end.at.duration_since(lost.sent).as_secs_f64() - down;
            let promised = match end.kind {
                Kind::Kill => 1.0 + SLACK,
                Kind::PowerCut => SYNC_EVERY + 1.0 + SLACK,
                Kind::Stop => 0.0,
            };
            let while_refused = end.refused_since.is_some_and(|since| {
                since.duration_since(lost.sent).as_secs_f64() < promised.max(1.0)
            });
            if while_refused {
                self.report.lost_to_refusal += 1;
            } else if age < promised {
                self.report.lost_to_crashes += 1;
                let worst = match end.kind {
                    Kind::PowerCut => &mut self.report.worst_cut,
                    _ => &mut self.report.worst_kill,
                };
                *worst = worst.max(age);
            } else if !end.damaged.is_empty() {
                by_damage += 1;
            } else {
                bad.push((age, lost));
            }
        }
        self.report.lost_to_damage += by_damage;
        let count = bad.len();
        let said: Vec<String> = bad
            .iter()
            .take(3)
            .map(|(age, lost)| {
                let id = &self.charts[lost.chart].id;
                format!(
                    "{count} samples missing after {:?} (faults: {}): {id} d{} at {}, sent {age:.2} s before the end",
                    end.kind, end.faults,
                    lost.dimension, lost.time
                )
            })
            .collect();
        said.into_iter().for_each(|what| self.violation(what));
        let log = self.places.log();
        for (name, how) in &end.damaged {
            let lines = log
                .lines()
                .filter(|line| line.contains("ERROR") && line.contains(&format!("{name}'")))
                .filter(|line| line.contains("damaged"));
            let lines = lines.count();
            if lines > 1 {
                self.violation(format!("{name} ({how}) is named in {lines} lines"));
            }
            if by_damage > 0 && lines == 0 {
                self.violation(format!("{by_damage} samples lost silently with {name} ({how})"));
            }
        }
        let mut again = std::collections::BTreeSet::new();
        for lost in &missing {
            if let Some(row) = self.charts[lost.chart].samples.get_mut(&lost.time) {
                row[lost.dimension] = None;
            }
            again.insert((lost.chart, lost.time));
        }
        self.owed.extend(again);
    }

    /// Sends one slot: what of it was not sent, or all of it once more.
    fn send(&mut self, children: &mut [FakeChild], number: usize, time: i64) {
        let at = Instant::now();
        let chart = &mut self.charts[number];
        let row = chart.samples.entry(time).or_insert_with(|| vec![None; chart.dimensions]);
        let mut values = Vec::new();
        for (dimension, sent) in row.iter_mut().enumerate() {
            let value = value_of(number, dimension, time);
            values.push((dimension, value));
            if sent.is_none() {
                *sent = Some(Sent { value, at });
                self.report.sent += 1;
            }
        }
        chart.new_from = chart.new_from.min(time);
        children[chart.host].slot(chart, time, &values);
    }

    fn burst(&mut self, children: &mut [FakeChild]) -> io::Result<()> {
        let long = self.random.one_in(12);
        let seconds = self.random.between(1, if long { 800 } else { 40 }) as i64;
        let until = self.virtual_now() + seconds;
        let held_back = self.random.one_in(6);
        for number in 0..self.charts.len() {
            // The first ones live for ever, the others for a while.
            let idle = self.charts.len() - number > 6 && number > 3;
            if idle {
                continue;
            }
            let every = self.charts[number].every;
            while self.next[number] <= until {
                let time = self.next[number];
                self.next[number] += every;
                if held_back {
                    self.owed.push((number, time))
                } else {
                    self.send(children, number, time)
                }
            }
        }
        if !self.owed.is_empty() && self.random.one_in(3) {
            // Some of what is owed, as it comes: in order, backwards, or in no order at all.
            let count = self.owed.len().min(self.random.between(1, 3000) as usize);
            let from = self.random.below((self.owed.len() - count + 1) as u64) as usize;
            let mut some: Vec<_> = self.owed.drain(from..from + count).collect();
            match self.random.below(3) {
                0 => some.reverse(),
                1 => {
                    for n in (1..some.len()).rev() {
                        some.swap(n, self.random.below(n as u64 + 1) as usize);
                    }
                }
                _ => {}
            }
            some.into_iter().for_each(|(number, time)| self.send(children, number, time));
        }
        self.offset = until + 3 - real_now();
        self.set_clock()?;
        children.iter_mut().try_for_each(FakeChild::flush)
    }

    fn stream(&mut self, children: &mut [FakeChild], time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            self.burst(children)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let pause = Duration::from_millis(self.random.between(10, 150));
            thread::sleep(pause.min(left));
        }
    }

    /// The disk fails: everything is collected and served all the same. True if that was over in the end.
    fn fault(
        &mut self,
        agent: &Agent,
        children: &mut [FakeChild],
        said: &mut String,
    ) -> io::Result<bool> {
        let kinds = [
            faults::FULL,
            faults::FULL,
            faults::IO_ERROR,
            faults::SHORT,
            faults::TORN,
            faults::NO_RENAME,
            faults::NO_SYNC,
            faults::TORN | faults::NO_RENAME,
            faults::SHORT | faults::FULL,
        ];
        let bits = kinds[self.random.below(kinds.len() as u64) as usize];
        let one_in = if self.random.one_in(2) { 1 } else { self.random.between(2, 5) as i64 };
        self.control.faults(bits, one_in)?;
        self.report.fault_runs += 1;
        let time = Duration::from_millis(self.random.between(100, 1500));
        self.stream(children, time)?;
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let missing = self.compare(agent, false)?;
            if missing.is_empty() || !self.report.violations.is_empty() {
                break;
            }
            if Instant::now() > patience {
                let count = missing.len();
                self.violation(format!(
                    "{count} samples are not served with faults {bits}: {:?}",
                    missing[0]
                ));
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let lift = self.random.one_in(2);
        *said = format!("{bits}, one call in {one_in}, for {time:?}, lifted: {lift}");
        if lift {
            self.control.faults(0, 1)?;
            // It says when it has caught up.
            let patience = Instant::now() + Duration::from_secs(20);
            loop {
                self.stream(children, Duration::from_millis(1500))?;
                let log = self.places.log();
                let refused = log.matches("Collecting goes on").count();
                if refused == log.matches("the disk takes writes again").count() {
                    break;
                }
                if Instant::now() > patience {
                    let log = self.places.log();
                    let tail: Vec<&str> = log
                        .lines()
                        .rev()
                        .filter(|line| line.contains("DBENGINE"))
                        .take(5)
                        .collect();
                    self.violation(format!("no writes 20 s after the faults {said}: {tail:#?}"));
                    break;
                }
            }
        }
        Ok(lift)
    }

    fn cycle(&mut self, end: Option<End>, everything: bool) -> io::Result<End> {
        if self.random.one_in(10) {
            // A short life, on the way up.
            let agent = self.places.launch()?;
            thread::sleep(Duration::from_millis(self.random.below(80)));
            agent.kill();
        }
        let mut agent = self.places.start()?;
        // After the comparison that needs the ones before.
        let down = end.as_ref().map(|end| (end.at, Instant::now()));
        let mut children = self.connect(&agent)?;
        if let Some(end) = &end {
            // What a spoiled file held may be of any age.
            let missing = self.compare(&agent, everything || !end.damaged.is_empty())?;
            self.judge(missing, end);
        }
        self.downs.extend(down);
        // What came late lately is looked at a few times more.
        if self.report.cycles % 4 == 0 {
            self.charts.iter_mut().for_each(|chart| chart.new_from = i64::MAX);
        }
        if self.random.one_in(3) {
            let (host, every) =
                (self.random.below(2) as usize, [1, 1, 2, 5, 10][self.random.below(5) as usize]);
            let dimensions = self.random.between(1, 4) as usize;
            self.add_chart(host, every, dimensions);
            if let Some(chart) = self.charts.last() {
                children[host].define(chart);
            }
        }
        if self.random.one_in(40) {
            self.skew = self.random.between(0, 4000) as i64 - 2000;
        } else if self.random.one_in(3) {
            self.skew = 0;
        }
        let life = match self.random.below(10) {
            0 => self.random.between(1500, 2500),
            1..=2 => self.random.between(400, 1500),
            _ => self.random.between(20, 400),
        };
        self.stream(&mut children, Duration::from_millis(life))?;
        let mut refused_since = None;
        let mut said = "none".to_owned();
        if self.random.one_in(6) {
            let since = Instant::now();
            if !self.fault(&agent, &mut children, &mut said)? {
                refused_since = Some(since);
            }
        }
        let kind = match self.random.below(10) {
            0..=4 => Kind::Kill,
            5..=7 => Kind::PowerCut,
            _ => Kind::Stop,
        };
        if !agent.is_running() {
            self.violation(format!("the agent ended by itself:\n{}", self.places.log()));
        }
        let mut at = Instant::now();
        match kind {
            Kind::Stop => {
                // What is on its way is read first: a stop ends the connections at once.
                children.into_iter().try_for_each(FakeChild::finish)?;
                at = Instant::now();
                let code = agent.stop()?;
                if code != Some(0) {
                    self.violation(format!(
                        "a clean stop ends with {code:?}:\n{}",
                        self.places.log()
                    ));
                }
                self.report.stops += 1;
            }
            Kind::Kill | Kind::PowerCut => agent.kill(),
        }
        self.control.faults(0, 1)?;
        let mut damaged = Vec::new();
        match kind {
            Kind::PowerCut => {
                disk::power_cut(&self.places, &mut self.random)?;
                self.report.power_cuts += 1;
            }
            Kind::Kill => self.report.kills += 1,
            Kind::Stop => {}
        }
        if self.random.one_in(6)
            && let Some(spoiled) = disk::damage(&self.places, &mut self.random)?
        {
            damaged.push(spoiled);
            self.report.spoiled += 1;
        }
        self.report.disturbed = self.control.disturbed();
        Ok(End { kind, at, refused_since, damaged, faults: said })
    }

    fn line(&self) -> String {
        let r = &self.report;
        format!(
            "{} cycles: {} kills, {} power cuts, {} stops, {} runs with faults ({} calls disturbed), {} files spoiled; \
             {} samples sent, {} compared; lost: {} to crashes, {} to a refusing disk, {} to damage; worst loss {:.2} s \
             (kill), {:.2} s (power cut); {} violations",
            r.cycles,
            r.kills,
            r.power_cuts,
            r.stops,
            r.fault_runs,
            r.disturbed,
            r.spoiled,
            r.sent,
            r.compared,
            r.lost_to_crashes,
            r.lost_to_refusal,
            r.lost_to_damage,
            r.worst_kill,
            r.worst_cut,
            r.violations.len()
        )
    }
}

fn compile(places: &Places) -> io::Result<()> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("shim.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(places.below("shim.so"))
        .arg(source)
        .arg("-ldl")
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("cc does not compile shim.c")) }
}

fn run(program: PathBuf, cycles: u64, seed: u64) -> io::Result<bool> {
    // In memory where there is such a place: what is durable is the shim's business, and no real disk keeps anybody waiting.
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let root = base.join(format!("nd-torture-{}", std::process::id()));
    let places = Places { root: root.clone(), program };
    places.prepare()?;
    compile(&places)?;
    println!("seed {seed}, {cycles} cycles, in '{}'", root.display());
    let control = Control::new(&places.below("control"))?;
    let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut rig = Rig {
        places,
        control,
        random,
        charts: Vec::new(),
        next: Vec::new(),
        owed: Vec::new(),
        offset: 0,
        skew: 0,
        downs: Vec::new(),
        report: Report::default(),
    };
    for (host, every, dimensions) in [(0, 1, 6), (1, 1, 3), (1, 5, 3), (0, 10, 2)] {
        rig.add_chart(host, every, dimensions);
    }
    let begun = Instant::now();
    let mut end = None;
    for cycle in 1..=cycles {
        rig.report.cycles = cycle;
        match rig.cycle(end.take(), cycle % 50 == 0) {
            Ok(ended) => end = Some(ended),
            Err(error) => {
                let log = rig.places.log();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                rig.violation(format!("{error}\n{}", tail.join("\n")));
                break;
            }
        }
        if cycle % 25 == 0 {
            println!("[{:.0} s] {}", begun.elapsed().as_secs_f64(), rig.line());
        }
        // One thing at a time: what follows from a violation is none of its own.
        if !rig.report.violations.is_empty() {
            break;
        }
    }
    // The last comparison: everything, once more, after one more start.
    if let Some(end) = end {
        let agent = rig.places.start()?;
        let _children = rig.connect(&agent)?;
        let missing = rig.compare(&agent, true)?;
        rig.judge(missing, &end);
        agent.kill();
    }
    println!("seed {seed}: {}", rig.line());
    let good = rig.report.violations.is_empty();
    if good && std::env::var_os("KEEP").is_none() {
        let _ = std::fs::remove_dir_all(root);
    } else {
        println!("kept: '{}'", root.display());
    }
    Ok(good)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: netdata-torture PROGRAM [CYCLES [SEED]]");
        return ExitCode::from(2);
    };
    let cycles = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(100);
    let seed = arguments.next().and_then(|n| n.parse().ok()).filter(|&seed: &u64| seed > 0);
    let seed = seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos() as u64 % 1_000_000_007)
    });
    match run(PathBuf::from(program), cycles, seed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error}");
            ExitCode::FAILURE
        }
    }
}
