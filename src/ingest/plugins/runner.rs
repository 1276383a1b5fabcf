//! The thread of one plugin: starts it, reads it, ends it, and decides whether to start it again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::fate::{Exit, History, Next};
use super::process::{Event, Process};
use crate::base::sys::EventFd;
use crate::base::threads::StopToken;
use crate::base::time::UpdateEvery;
use crate::ingest::executor::{Executor, Setup, Verdict};
use crate::ingest::functions::Calls;
use crate::wire::words::Lines;

/// A plugin that ignores SIGTERM is killed after this time; when the daemon itself ends, a little earlier.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_AT_EXIT: Duration = Duration::from_millis(1500);

/// Read at once from a plugin.
const CHUNK_BYTES: usize = 16 * 1024;

pub(super) struct Runner {
    pub(super) context: Arc<Context>,
    pub(super) stop: StopToken,
    pub(super) file: PathBuf,
    /// The plugin word of charts that do not give one.
    pub(super) file_name: String,
    pub(super) every: UpdateEvery,
    pub(super) options: String,
}

/// Why a run is over.
enum Ended {
    /// The plugin closed its output, or reading it failed.
    Output,
    Line(Verdict),
    Stop,
}

impl Runner {
    pub(super) fn run(&self) {
        let mut history = History::default();
        while !self.stop.is_stopped() {
            let Some(next) = self.once(&mut history) else { break };
            let Next::After(intervals) = next else { return };
            let every = Duration::from_secs(self.every.seconds().unsigned_abs());
            if self.stop.wait(every * intervals) {
                break;
            }
        }
        log::info!("data collection thread exiting");
    }

    /// One run of the plugin; `None` when the daemon ends.
    fn once(&self, history: &mut History) -> Option<Next> {
        let file = self.file.display();
        let wake = match EventFd::new() {
            Ok(wake) => Arc::new(wake),
            Err(error) => return self.cannot_start(&error),
        };
        let every = self.every.seconds();
        let mut process = match Process::start(&self.file, every, &self.options, Arc::clone(&wake))
        {
            Ok(process) => process,
            Err(error) => return self.cannot_start(&error),
        };
        let pid = process.pid();
        log::info!("connected to '{file}' running on pid {pid}");
        let stop = self.stop.child();
        stop.on_stop(move || wake.signal());

        let calls = Calls::new(Box::new(process.requests()), self.context.clock.clone());
        let mut executor = Executor::new(Setup {
            update_every: self.every,
            plugin: self.file_name.clone(),
            nodes: Some(Arc::clone(&self.context.nodes)),
            calls: Some(Arc::clone(&calls)),
            ..Setup::new(Arc::clone(self.context.nodes.hosts.local()))
        });
        let ended = self.read(&mut process, &mut executor, &calls, &stop);

        calls.close();
        for host in executor.hosts() {
            host.drop_dead_functions();
        }
        let collections = executor.completed();
        let who = format!("'{file}' (pid {pid})");
        if let Ended::Stop = ended {
            log::info!("data collection thread exiting");
            log::info!("killing child process pid {pid}");
            log::info!("waiting for child process pid {pid} to exit...");
            if let Err(error) = process.end(PATIENCE_AT_EXIT) {
                log::error!("{who} cannot be ended: {error}");
            }
            return None;
        }
        if let Ended::Output = ended {
            log::error!("read failed: end of file");
        }
        log::error!("{who} disconnected after {collections} successful data collections (ENDs).");
        let exit = process.end(PATIENCE).unwrap_or_else(|error| {
            log::error!("{who} cannot be ended: {error}");
            Exit::Killed
        });
        let verdict = match ended {
            Ended::Line(verdict) => Some(verdict),
            _ => None,
        };
        let decision = history.judge(exit, collections, verdict, &who);
        if let Some((level, line)) = decision.line {
            log::log!(level, "{line}");
        }
        Some(decision.next)
    }

    fn cannot_start(&self, error: &std::io::Error) -> Option<Next> {
        log::error!("cannot start '{}': {error}", self.file.display());
        Some(Next::Never)
    }

    /// Feeds what the plugin says to the executor until one of them, or the daemon, has enough.
    fn read(
        &self,
        process: &mut Process,
        executor: &mut Executor,
        calls: &Calls,
        stop: &StopToken,
    ) -> Ended {
        let clock = &self.context.clock;
        let mut lines = Lines::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if stop.is_stopped() {
                return Ended::Stop;
            }
            let timeout = calls.deadline().map(|deadline_us| {
                let left = deadline_us.saturating_sub(clock.monotonic_us());
                Duration::from_micros(u64::try_from(left).unwrap_or(0))
            });
            let event = match process.wait(timeout) {
                Ok(event) => event,
                Err(error) => {
                    log::error!("cannot wait for '{}': {error}", self.file.display());
                    return Ended::Output;
                }
            };
            calls.expire();
            if event != Event::Output {
                continue;
            }
            let got = match process.read(&mut chunk) {
                Ok(0) => return Ended::Output,
                Ok(got) => got,
                Err(error) => {
                    log::error!("cannot read from '{}': {error}", self.file.display());
                    return Ended::Output;
                }
            };
            let now = clock.now();
            let fed = executor.feed_chunk(&mut lines, &chunk[..got], now);
            executor.flush();
            if let Err(violation) = fed {
                violation.log();
                return Ended::Line(violation.verdict());
            }
        }
    }
}
