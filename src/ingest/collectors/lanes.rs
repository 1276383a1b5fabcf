//! Collecting once per interval, so that one that hangs does not hold up the others.
//!
//! A [`Pool`] is a list of [`Task`]s and a thread, its leader, that runs all of them at every tick, one after the other.
//! A file system or driver that does not answer blocks the thread that asked, for minutes or for ever. A [`Watch`]
//! looks at all pools; where a leader has been inside one task for too long, it appoints another thread as leader.
//! The thread that hung keeps the task it hangs in: when that answers at last, it goes on alone with it, at its own
//! pace, until the task has been prompt for a while and may join the others again. A task whose thread died of a panic
//! is gone with it; the others go on.
//!
//! The pool's lock is held to take a task out or to put it back, never while one runs. Ticks are aligned to the wall
//! clock; those missed are skipped, never made up for.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::threads::{StopToken, spawn};
use crate::base::time::{Clock, MICROS, UnixMicros, UpdateEvery};
use crate::metrics::Host;

/// A task that takes longer than this loses its place.
const PATIENCE_US: i64 = 400_000;

/// A task that lost its place gets it back after this many prompt ticks in a row.
const PROMPT_TICKS: u32 = 30;

/// When in every second the watch looks: late enough after the ticks at its beginning for a task to have used up the
/// patience, early enough for the others to be collected in the same second.
const WATCH_AT_US: i64 = 500_000;

/// What a task is given at a tick.
pub struct Tick<'a> {
    /// The wall clock as the task begins.
    pub now: UnixMicros,
    /// Scratch space for reading files; belongs to the thread.
    pub buffer: &'a mut Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Run it again at the next tick.
    Again,
    /// It has nothing more to collect.
    Never,
}

/// Something to collect at every tick.
pub trait Task: Send {
    fn name(&self) -> &str;
    fn run(&mut self, tick: &mut Tick<'_>) -> After;
}

pub struct Pool {
    /// Name of its threads.
    name: &'static str,
    every: UpdateEvery,
    clock: Clock,
    host: Arc<Host>,
    stop: StopToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts leaders: who holds an older number has been replaced.
    leader: u32,
    /// `None`: the task is being run, or hangs.
    tasks: Vec<Option<Box<dyn Task>>>,
    /// The task under way, its name and since when (monotonic).
    running: Option<Running>,
    /// Index of the next task of the tick under way.
    next: usize,
    threads: Vec<JoinHandle<()>>,
}

struct Running {
    name: String,
    since_us: i64,
}

enum Turn {
    Run(Box<dyn Task>),
    /// All tasks of this tick have run.
    Done,
    /// Another thread leads now.
    Replaced,
}

impl Pool {
    pub fn new(
        name: &'static str,
        host: &Arc<Host>,
        clock: &Clock,
        every: UpdateEvery,
        stop: &StopToken,
    ) -> Arc<Pool> {
        Arc::new(Pool {
            name,
            every,
            clock: clock.clone(),
            host: Arc::clone(host),
            stop: stop.child(),
            state: Mutex::default(),
        })
    }

    /// Adds a task, to be run from the next tick on.
    pub fn add(&self, task: Box<dyn Task>) {
        self.state.lock().tasks.push(Some(task));
    }

    /// Starts the first leader.
    pub fn start(self: &Arc<Pool>) -> io::Result<()> {
        self.spawn_leader(0, Begin::AtNextTick)
    }

    fn spawn_leader(self: &Arc<Pool>, leader: u32, begin: Begin) -> io::Result<()> {
        let pool = Arc::clone(self);
        let thread = spawn(self.name, move || pool.lead(leader, begin))?;
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        Ok(())
    }

    /// The threads of the pool, to be waited for after the stop. One that hangs may never end.
    pub fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.state.lock().threads)
    }

    fn lead(&self, leader: u32, begin: Begin) {
        let mut buffer = Vec::new();
        if begin == Begin::AtNextTick && self.wait_for_tick() {
            return;
        }
        loop {
            loop {
                let mut task = match self.turn(leader) {
                    Turn::Run(task) => task,
                    Turn::Done => break,
                    Turn::Replaced => return,
                };
                let mut tick = Tick { now: self.clock.now(), buffer: &mut buffer };
                let after = task.run(&mut tick);
                if let Some(task) = self.give_back(leader, task, after) {
                    return self.go_on_alone(task, after, buffer);
                }
            }
            self.host.flush();
            if self.wait_for_tick() {
                return;
            }
        }
    }

    fn turn(&self, leader: u32) -> Turn {
        let mut state = self.state.lock();
        if state.leader != leader {
            return Turn::Replaced;
        }
        while state.next < state.tasks.len() {
            let index = state.next;
            state.next += 1;
            if let Some(task) = state.tasks[index].take() {
                let since_us = self.clock.monotonic_us();
                match &mut state.running {
                    Some(running) => {
                        running.name.clear();
                        running.name.push_str(task.name());
                        running.since_us = since_us;
                    }
                    none => *none = Some(Running { name: task.name().to_owned(), since_us }),
                }
                return Turn::Run(task);
            }
        }
        // The end of a tick: forget the places of tasks that ended or hang.
        state.next = 0;
        state.tasks.retain(Option::is_some);
        if let Some(running) = &mut state.running {
            running.since_us = i64::MAX;
        }
        Turn::Done
    }

    /// Puts a task back after its turn. Gives it to the thread if that is no longer the leader.
    fn give_back(&self, leader: u32, task: Box<dyn Task>, after: After) -> Option<Box<dyn Task>> {
        let mut state = self.state.lock();
        if state.leader != leader {
            return Some(task);
        }
        if after == After::Again {
            let index = state.next - 1;
            state.tasks[index] = Some(task);
        }
        None
    }

    /// The life of a thread that was replaced: the one task it hung in.
    fn go_on_alone(&self, mut task: Box<dyn Task>, mut after: After, mut buffer: Vec<u8>) {
        log::info!("{}: '{}' answers again, collected on its own for now", self.name, task.name());
        let mut prompt = 0;
        while after == After::Again {
            self.host.flush();
            if prompt == PROMPT_TICKS {
                return self.add(task);
            }
            if self.wait_for_tick() {
                return;
            }
            let since_us = self.clock.monotonic_us();
            after = task.run(&mut Tick { now: self.clock.now(), buffer: &mut buffer });
            let took_us = self.clock.monotonic_us() - since_us;
            prompt = if took_us < PATIENCE_US { prompt + 1 } else { 0 };
        }
    }

    /// Waits until the clock passes the next multiple of the interval; true when asked to stop.
    fn wait_for_tick(&self) -> bool {
        let next = self.clock.now_seconds().floor_to(self.every) + self.every.seconds();
        loop {
            let left = next.micros() - self.clock.now();
            // A clock that was set back must not make us wait for hours.
            if left <= 0 || left > self.every.micros() {
                return self.stop.is_stopped();
            }
            if self.stop.wait(Duration::from_micros(left.unsigned_abs())) {
                return true;
            }
        }
    }

    /// Replaces the leader if it hangs.
    fn look_after(self: &Arc<Pool>) {
        let leader = {
            let mut state = self.state.lock();
            let Some(running) = &mut state.running else { return };
            let since_us = running.since_us;
            if self.clock.monotonic_us().saturating_sub(since_us) < PATIENCE_US {
                return;
            }
            log::error!("{}: '{}' does not answer, going on without it", self.name, running.name);
            running.since_us = i64::MAX;
            state.leader += 1;
            state.leader
        };
        if let Err(error) = self.spawn_leader(leader, Begin::Now) {
            log::error!("{}: cannot start another thread: {error}", self.name);
            if let Some(running) = &mut self.state.lock().running {
                running.since_us = 0;
            }
        }
    }
}

/// When a new leader begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    AtNextTick,
    /// In the middle of a tick that another thread did not finish.
    Now,
}

/// Looks after pools until told to stop.
pub fn watch(pools: Vec<Arc<Pool>>, clock: &Clock, stop: &StopToken) -> io::Result<JoinHandle<()>> {
    let (clock, stop) = (clock.clone(), stop.clone());
    spawn("PLUGIN[watch]", move || {
        let until_next = || {
            let left = WATCH_AT_US - clock.now().subsecond();
            let left = if left > 0 { left } else { left + MICROS };
            Duration::from_micros(left.unsigned_abs())
        };
        while !stop.wait(until_next()) {
            for pool in &pools {
                pool.look_after();
            }
        }
    })
}

/// Tells when an interval longer than that of the ticks has passed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    every: UpdateEvery,
    last_us: i64,
}

impl Pace {
    pub fn new(every: UpdateEvery) -> Pace {
        Pace { every, last_us: 0 }
    }

    /// True in the first tick of every interval.
    pub fn due(&mut self, now: UnixMicros) -> bool {
        let begun = now.seconds().floor_to(self.every).0 * MICROS;
        if begun == self.last_us {
            return false;
        }
        self.last_us = begun;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::base::ids::MachineGuid;
    use crate::metrics::{HostInfo, HostKind, HostSettings};
    use crate::storage::none::NoneEngine;

    struct Count(&'static str, Arc<AtomicU32>);

    impl Task for Count {
        fn name(&self) -> &str {
            self.0
        }
        fn run(&mut self, _: &mut Tick<'_>) -> After {
            self.1.fetch_add(1, Ordering::SeqCst);
            After::Again
        }
    }

    /// Hangs in its first turn until `go` stops.
    struct Hang {
        go: StopToken,
        turns: Arc<AtomicU32>,
    }

    impl Task for Hang {
        fn name(&self) -> &str {
            "hang"
        }
        fn run(&mut self, _: &mut Tick<'_>) -> After {
            self.go.wait(Duration::from_secs(60));
            self.turns.fetch_add(1, Ordering::SeqCst);
            After::Again
        }
    }

    fn host() -> Arc<Host> {
        let (guid, engine) = (MachineGuid::random(), Arc::new(NoneEngine::new()));
        let settings = HostSettings::default();
        Host::new(guid, HostKind::Local, HostInfo::named("h"), engine, settings)
    }

    #[track_caller]
    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let (start, pause) = (Instant::now(), StopToken::new());
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
            pause.wait(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_task_that_hangs_holds_up_nobody_and_returns_on_its_own() {
        let (stop, go) = (StopToken::new(), StopToken::new());
        let clock = Clock::system();
        let pool = Pool::new("PLUGIN[test]", &host(), &clock, UpdateEvery::SECOND, &stop);
        let counts: Vec<_> = (0..3).map(|_| Arc::new(AtomicU32::new(0))).collect();
        pool.add(Box::new(Count("before", Arc::clone(&counts[0]))));
        pool.add(Box::new(Hang { go: go.clone(), turns: Arc::clone(&counts[1]) }));
        pool.add(Box::new(Count("after", Arc::clone(&counts[2]))));
        pool.start().unwrap();
        let watch = watch(vec![Arc::clone(&pool)], &clock, &stop).unwrap();
        let count = |i: usize| counts[i].load(Ordering::SeqCst);
        wait_for("others go on", || count(0) >= 3 && count(2) >= 3);
        assert_eq!(count(1), 0);
        go.stop();
        wait_for("the late one goes on", || count(1) >= 2);
        stop.stop();
        for thread in pool.take_threads() {
            thread.join().unwrap();
        }
        watch.join().unwrap();
    }

    #[test]
    fn a_pace_is_due_once_per_interval() {
        let mut pace = Pace::new(UpdateEvery::clamped(5));
        let due: Vec<bool> = [12, 13, 15, 16, 31, 32, 35]
            .map(|s| pace.due(UnixMicros(s * MICROS + 1000)))
            .into_iter()
            .collect();
        assert_eq!(due, [true, false, true, false, true, false, true]);
    }
}
