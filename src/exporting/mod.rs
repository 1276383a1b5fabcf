//! L5: our samples in other databases: graphite, opentsdb, JSON, Prometheus remote write.
//!
//! An instance of exporting.conf is one thread, `EXPORTING[name]`, with everything it needs: it waits for the time of its next
//! batch ([`window`]), reads the store ([`gather`]), writes the database's language ([`body`], [`names`]) and hands it
//! over ([`link`], [`http`]); how far it has got is on the disk ([`positions`]). Instances share nothing, so a slow database delays
//! nobody else. No locks of its own; a chart's lock is held for a copy of its names only.

mod names;
mod window;
mod body;
mod gather;
mod http;
mod link;
mod positions;
mod own;
mod worker;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::worker::{Surroundings, Worker};
use crate::base::threads::{self, StopToken};
use crate::base::time::{Clock, UpdateEvery};
use crate::config::InstanceOptions;
use crate::metrics::Hosts;

pub use self::names::{
    Units, host_labels, info_series, metric_name, push_label, push_sanitized, push_units,
    sanitized, series_labels,
};

/// How often threads that are waited for are looked at.
const JOIN_STEP: Duration = Duration::from_millis(10);

/// The instances that run.
pub struct Exporting {
    stop: StopToken,
    threads: Vec<JoinHandle<()>>,
    connectors: String,
}

impl Exporting {
    /// Starts a thread for each instance; one that cannot be started is left out, with an ERROR line.
    pub fn start(
        instances: Vec<InstanceOptions>,
        hosts: &Arc<Hosts>,
        clock: &Clock,
        lib: &Path,
        collection_every: UpdateEvery,
        stop: StopToken,
    ) -> Exporting {
        let mut exporting = Exporting { stop, threads: Vec::new(), connectors: String::new() };
        let around =
            Surroundings { hosts: Arc::clone(hosts), clock: clock.clone(), lib, collection_every };
        for options in instances {
            let (name, connector) = (options.name.clone(), options.connector);
            let worker = Worker::new(options, &around, exporting.stop.child());
            match threads::spawn(format!("EXPORTING[{name}]"), move || worker.run()) {
                Ok(thread) => {
                    exporting.threads.push(thread);
                    if !exporting.connectors.is_empty() {
                        exporting.connectors.push('|');
                    }
                    exporting.connectors.push_str(connector.name());
                }
                Err(error) => log::error!("cannot start EXPORTING[{name}]: {error}"),
            }
        }
        exporting
    }

    pub fn stop_token(&self) -> &StopToken {
        &self.stop
    }

    /// What `/api/v1/info` tells of the instances; empty where there are none.
    pub fn connectors(&self) -> &str {
        &self.connectors
    }

    /// Waits at most so long; false when a thread is left running.
    pub fn join(self, patience: Duration) -> bool {
        let clock = Clock::system();
        let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        loop {
            if self.threads.iter().all(JoinHandle::is_finished) {
                return true;
            }
            if clock.monotonic_us() >= patience {
                return false;
            }
            std::thread::park_timeout(JOIN_STEP);
        }
    }
}
