//! Internal collectors: this machine's metrics, as the local host's charts.
//!
//! [`start`] starts what `[plugins]` switches on. One thread, `PLUGIN[proc]`, runs the collectors of kernel files, file
//! systems, clock and the agent's own counters, so that a second costs one wake-up here and one in the sender;
//! `PLUGIN[watch]` sees to it that one that hangs or is slow does not hold up the others ([`lanes`]);
//! `PLUGIN[idlejitter]` needs a thread to itself.
//!
//! A tick reads each file once into a kept buffer, parses bytes and hands integers to charts it holds. Nothing is
//! allocated, opened or looked up in the steady state (`tests/collectors.rs` counts).

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::threads::StopToken;

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

pub use self::setup::{Parts, Setup, usable_prefix};

use self::lanes::Pool;

/// The collecting threads of this agent.
pub struct Collectors {
    stop: StopToken,
    pool: Option<Arc<Pool>>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the collectors that are switched on. One that cannot be started is logged and left out.
pub fn start(setup: &Setup, stop: &StopToken) -> Collectors {
    let stop = stop.child();
    let mut all = Collectors { stop, pool: None, threads: Vec::new() };
    let on = |name| setup.config.boolean("plugins", name, true);
    let pool = Pool::new("PLUGIN[proc]", &setup.host, &setup.clock, setup.every, &all.stop);
    let mut anything = false;
    let timex = on("timex");
    if on("idlejitter") {
        let started = idlejitter::start(setup, &all.stop);
        all.keep("idlejitter", started);
    }
    if on("netdata monitoring") {
        pool.add(own::task(setup));
        anything = true;
    }
    let diskspace = on("diskspace");
    if on("proc") {
        proc::tasks(setup).into_iter().for_each(|task| pool.add(task));
        anything = true;
    }
    if timex {
        pool.add(timex::task(setup));
        anything = true;
    }
    // Last, as file systems may take their time.
    if diskspace {
        diskspace::add_to(&pool, setup);
        anything = true;
    }
    if anything {
        match pool.start() {
            Ok(()) => {
                let watch = lanes::watch(&pool);
                all.keep("watch", watch);
                all.pool = Some(pool);
            }
            Err(error) => log::error!("cannot start the collecting thread: {error}"),
        }
    }
    all
}

impl Collectors {
    fn keep(&mut self, name: &str, started: io::Result<JoinHandle<()>>) {
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
        if let Some(pool) = &self.pool {
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
