//! Collecting once per interval, so that one that is slow or hangs does not hold up the others.
//!
//! A [`Pool`] is a list of [`Task`]s and a thread, its leader, that runs all of them at every tick, one after the other.
//! Two things can go wrong with one of them. A task known to depend on others ([`Task::may_be_slow`]) that takes long is
//! handed to a thread of its own. And a file system or driver that does not answer at all blocks the thread that asked,
//! for minutes or for ever: a watch looks once a second, and where the leader has been inside one task for too long, it
//! appoints another thread as leader; the one that hung keeps the task it hangs in. Either way the task goes on alone,
//! at its own pace, until it has been prompt for a while and may join the others again. A task whose thread died of a
//! panic is gone with it; the others go on.
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

/// A leader that is inside one task for longer than this is replaced.
const PATIENCE_US: i64 = 400_000;

/// A task that may be slow loses its place when it takes longer than this …
const SLOW_US: i64 = 50_000;

/// … and gets it back after this many prompt ticks in a row.
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
    /// For the log, and to be told apart while it hangs.
    fn name(&self) -> Arc<str>;

    /// It asks somebody who may take his time: a file system on another machine, say.
    fn may_be_slow(&self) -> bool {
        false
    }

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
    tasks: Vec<Place>,
    /// Index of the next task of the tick under way.
    next: usize,
    /// Since when (monotonic) the leader has been inside the task before that; 0 = it is not.
    inside_since_us: i64,
    threads: Vec<JoinHandle<()>>,
}

struct Place {
    name: Arc<str>,
    /// `None`: it is being run, or left.
    task: Option<Box<dyn Task>>,
}

enum Turn {
    Run(Box<dyn Task>),
    /// All tasks of this tick have run.
    Done,
    /// Another thread leads now.
    Replaced,
}

enum GivenBack {
    /// Also when it had nothing more to collect.
    Kept,
    Slow(Box<dyn Task>),
    Replaced(Box<dyn Task>),
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
        self.state.lock().tasks.push(Place { name: task.name(), task: Some(task) });
    }

    /// Starts the first leader.
    pub fn start(self: &Arc<Pool>) -> io::Result<()> {
        self.spawn_leader(0, Begin::AtNextTick)
    }

    fn spawn_leader(self: &Arc<Pool>, leader: u32, begin: Begin) -> io::Result<()> {
        let pool = Arc::clone(self);
        let thread = spawn(self.name, move || pool.lead(leader, begin))?;
        self.keep(thread);
        Ok(())
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
    }

    /// The threads of the pool, to be waited for after the stop. One that hangs may never end.
    pub fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.state.lock().threads)
    }

    fn lead(self: &Arc<Pool>, leader: u32, begin: Begin) {
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
                let since_us = task.may_be_slow().then(|| self.clock.monotonic_us());
                let after = task.run(&mut Tick { now: self.clock.now(), buffer: &mut buffer });
                let slow = since_us.is_some_and(|us| self.clock.monotonic_us() - us > SLOW_US);
                match self.give_back(leader, task, after, slow) {
                    GivenBack::Kept => {}
                    GivenBack::Slow(task) => self.send_away(task),
                    GivenBack::Replaced(task) => return self.go_on_alone(task, after),
                }
            }
            self.host.flush();
            if self.wait_for_tick() {
                return;
            }
        }
    }

    fn turn(&self, leader: u32) -> Turn {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.leader != leader {
            return Turn::Replaced;
        }
        while let Some(place) = state.tasks.get_mut(state.next) {
            state.next += 1;
            if let Some(task) = place.task.take() {
                state.inside_since_us = self.clock.monotonic_us().max(1);
                return Turn::Run(task);
            }
        }
        // The end of a tick: forget the places of tasks that ended or left.
        state.next = 0;
        state.inside_since_us = 0;
        state.tasks.retain(|place| place.task.is_some());
        Turn::Done
    }

    /// Puts a task back after its turn, unless it is too slow or the thread no longer is the leader.
    fn give_back(&self, leader: u32, task: Box<dyn Task>, after: After, slow: bool) -> GivenBack {
        let mut state = self.state.lock();
        if state.leader != leader {
            return GivenBack::Replaced(task);
        }
        if after == After::Never {
            return GivenBack::Kept;
        }
        if slow {
            return GivenBack::Slow(task);
        }
        let index = state.next - 1;
        state.tasks[index].task = Some(task);
        GivenBack::Kept
    }

    /// Gives a slow task a thread of its own.
    fn send_away(self: &Arc<Pool>, task: Box<dyn Task>) {
        let pool = Arc::clone(self);
        match spawn(self.name, move || pool.go_on_alone(task, After::Again)) {
            Ok(thread) => self.keep(thread),
            Err(error) => log::error!("{}: cannot start another thread: {error}", self.name),
        }
    }

    /// The life of a thread that has one task, until that may go back to the others.
    fn go_on_alone(&self, mut task: Box<dyn Task>, mut after: After) {
        log::info!("{}: '{}' is slow and collected on its own for now", self.name, task.name());
        let mut buffer = Vec::new();
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
            prompt = if took_us < SLOW_US { prompt + 1 } else { 0 };
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
            let inside_us = self.clock.monotonic_us() - state.inside_since_us;
            if state.inside_since_us == 0 || inside_us < PATIENCE_US {
                return;
            }
            let hung = state.tasks.get(state.next.saturating_sub(1)).map(|place| &*place.name);
            let hung = hung.unwrap_or_default();
            log::error!("{}: '{hung}' does not answer, going on without it", self.name);
            state.inside_since_us = 0;
            state.leader += 1;
            state.leader
        };
        if let Err(error) = self.spawn_leader(leader, Begin::Now) {
            log::error!("{}: cannot start another thread: {error}", self.name);
            // Tried again at the next look.
            self.state.lock().inside_since_us = 1;
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

/// Looks after a pool until told to stop.
pub fn watch(pool: &Arc<Pool>) -> io::Result<JoinHandle<()>> {
    let pool = Arc::clone(pool);
    let (clock, stop) = (pool.clock.clone(), pool.stop.clone());
    spawn("PLUGIN[watch]", move || {
        let until_next = || {
            let left = WATCH_AT_US - clock.now().subsecond();
            let left = if left > 0 { left } else { left + MICROS };
            Duration::from_micros(left.unsigned_abs())
        };
        while !stop.wait(until_next()) {
            pool.look_after();
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
        fn name(&self) -> Arc<str> {
            self.0.into()
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
        fn name(&self) -> Arc<str> {
            "hang".into()
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
        let watch = watch(&pool).unwrap();
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

    /// Takes its time in every turn.
    struct Slow(Arc<AtomicU32>);

    impl Task for Slow {
        fn name(&self) -> Arc<str> {
            "slow".into()
        }
        fn may_be_slow(&self) -> bool {
            true
        }
        fn run(&mut self, _: &mut Tick<'_>) -> After {
            StopToken::new().wait(Duration::from_micros(SLOW_US.unsigned_abs() * 2));
            self.0.fetch_add(1, Ordering::SeqCst);
            After::Again
        }
    }

    #[test]
    fn a_slow_task_gets_a_thread_of_its_own() {
        let stop = StopToken::new();
        let clock = Clock::system();
        let pool = Pool::new("PLUGIN[test]", &host(), &clock, UpdateEvery::SECOND, &stop);
        let counts: Vec<_> = (0..2).map(|_| Arc::new(AtomicU32::new(0))).collect();
        pool.add(Box::new(Slow(Arc::clone(&counts[0]))));
        pool.add(Box::new(Count("other", Arc::clone(&counts[1]))));
        pool.start().unwrap();
        let count = |i: usize| counts[i].load(Ordering::SeqCst);
        wait_for("both go on", || count(0) >= 3 && count(1) >= 3);
        assert_eq!(pool.state.lock().tasks.len(), 1);
        stop.stop();
        let threads = pool.take_threads();
        assert_eq!(threads.len(), 2);
        for thread in threads {
            thread.join().unwrap();
        }
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
