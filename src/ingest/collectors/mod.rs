//! Internal collectors: this machine's metrics, as the local host's charts.
//!
//! [`start`] starts what `[plugins]` switches on, one thread per plugin: `PLUGIN[proc]` for all kernel files,
//! `PLUGIN[diskspace]`, `PLUGIN[timex]`, `PLUGIN[idlejitter]` and `GLOBAL_STATS` for the agent's own counters, plus
//! `PLUGIN[watch]`, which replaces a thread that hangs in one file or file system so that the others go on ([`lanes`]).
//!
//! A tick reads each file once into a kept buffer, parses bytes and hands integers to charts it holds. Nothing is
//! allocated, opened or looked up in the steady state (`tests/collectors.rs` counts).

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::threads::StopToken;
use crate::base::time::UpdateEvery;

pub mod setup;
pub mod procfile;
pub mod chart;
pub mod lanes;
pub mod keyed;
pub mod matrix;
pub mod mounts;
pub mod proc;
pub mod diskspace;
pub mod timex;
pub mod idlejitter;
pub mod own;

pub use self::setup::{Setup, usable_prefix};

use self::lanes::Pool;

/// The collecting threads of this agent.
pub struct Collectors {
    stop: StopToken,
    pools: Vec<Arc<Pool>>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the collectors that are switched on. One that cannot be started is logged and left out.
pub fn start(setup: &Setup, stop: &StopToken) -> Collectors {
    let mut all = Collectors { stop: stop.child(), pools: Vec::new(), threads: Vec::new() };
    let on = |name| setup.config.boolean("plugins", name, true);
    if on("timex") {
        let every = timex::every(setup);
        all.add_pool("PLUGIN[timex]", setup, every, |pool| pool.add(timex::task(setup, every)));
    }
    if on("idlejitter") {
        let started = idlejitter::start(setup, &all.stop);
        all.add_thread("idlejitter", started);
    }
    if on("netdata monitoring") {
        all.add_pool("GLOBAL_STATS", setup, setup.every, |pool| pool.add(own::task(setup)));
    }
    if on("diskspace") {
        let every = setup.config.number("plugin:proc:diskspace", "update every", 1);
        let every = UpdateEvery::clamped(every.max(setup.every.seconds()));
        all.add_pool("PLUGIN[diskspace]", setup, every, |pool| {
            diskspace::add_to(pool, setup, every);
        });
    }
    if on("proc") {
        all.add_pool("PLUGIN[proc]", setup, setup.every, |pool| {
            proc::tasks(setup).into_iter().for_each(|task| pool.add(task));
        });
    }
    if !all.pools.is_empty() {
        let watch = lanes::watch(all.pools.clone(), &setup.clock, &all.stop);
        all.add_thread("watch", watch);
    }
    all
}

impl Collectors {
    fn add_pool(
        &mut self,
        name: &'static str,
        setup: &Setup,
        every: UpdateEvery,
        fill: impl FnOnce(&Arc<Pool>),
    ) {
        let pool = Pool::new(name, &setup.host, &setup.clock, every, &self.stop);
        fill(&pool);
        match pool.start() {
            Ok(()) => self.pools.push(pool),
            Err(error) => log::error!("cannot start thread '{name}': {error}"),
        }
    }

    fn add_thread(&mut self, name: &str, started: io::Result<JoinHandle<()>>) {
        match started {
            Ok(thread) => self.threads.push(thread),
            Err(error) => log::error!("cannot start thread '{name}': {error}"),
        }
    }

    /// Ends all collectors when stopped.
    pub fn stop_token(&self) -> &StopToken {
        &self.stop
    }

    /// After the stop: waits for the threads, at most so long; false when some hang and are left behind.
    pub fn join(mut self, patience: Duration) -> bool {
        for pool in &self.pools {
            self.threads.append(&mut pool.take_threads());
        }
        // Waiting on a token of nobody's is how to let a little time pass.
        let pause = StopToken::new();
        let mut left = patience;
        const STEP: Duration = Duration::from_millis(5);
        while !left.is_zero() && self.threads.iter().any(|thread| !thread.is_finished()) {
            pause.wait(STEP);
            left = left.saturating_sub(STEP);
        }
        let (ended, hanging): (Vec<_>, Vec<_>) =
            self.threads.into_iter().partition(JoinHandle::is_finished);
        for thread in ended {
            // A panic was logged when it happened.
            let _ = thread.join();
        }
        hanging.is_empty()
    }
}
