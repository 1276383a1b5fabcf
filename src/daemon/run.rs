//! A living agent: waits for signals and commands, and ends everything in the reverse order of its start.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::control::{Answer, Command, Control, HELP, Reply};
use super::machine::{self, LabelInputs};
use super::process::{Locks, PidFile, RunMark};
use super::reload::{self, Sources};
use super::settings::Directories;
use super::signals::{Signal, Signals};
use crate::base::log::{self as logs, Phase};
use crate::base::sys::{self, Interest, Watched};
use crate::base::threads::StopToken;
use crate::base::time::Clock;
use crate::config::{Config, NETDATA_CONF, Present};
use crate::health::{self, Health};
use crate::metrics::{Hosts, LabelSource, SystemInfo};
use crate::net::tls::ServerTls;
use crate::storage::engines::Engines;
use crate::stream::Streams;
use crate::web::acl::{Gate, Names};

/// The answer when a configuration is the one in force.
const NOTHING: &str = "Nothing has changed.";
/// All parts together have this long to end.
const STOP_TIME_US: i64 = 4_500_000;

/// Something with threads: how to ask them to end, and how to wait until they have.
pub(super) struct Part {
    name: &'static str,
    stop: StopToken,
    /// Waits at most so long; false when something is left running.
    join: Box<dyn FnOnce(Duration) -> bool>,
}

impl Part {
    pub(super) fn new(
        name: &'static str,
        stop: StopToken,
        join: impl FnOnce(Duration) -> bool + 'static,
    ) -> Part {
        Part { name, stop, join: Box::new(join) }
    }
}

pub(super) struct Agent {
    pub(super) signals: Signals,
    pub(super) control: Control,
    pub(super) hosts: Arc<Hosts>,
    pub(super) streams: Arc<Streams>,
    pub(super) engines: Arc<Engines>,
    pub(super) config: Arc<Config>,
    /// The configuration file in use, for reading labels again.
    pub(super) file: Option<PathBuf>,
    pub(super) facts: SystemInfo,
    pub(super) label_inputs: RefCell<LabelInputs>,
    /// `None` when health is off as a whole.
    pub(super) health: Option<Arc<Health>>,
    /// What the web server shows to clients of TLS.
    pub(super) tls: Arc<ServerTls>,
    /// Who the web server lets do what.
    pub(super) gate: Arc<Gate>,
    pub(super) names: Arc<Names>,
    pub(super) sources: Sources,
    pub(super) directories: Directories,
    /// The store had a user at the start.
    pub(super) uses_store: bool,
    /// In the order of their start.
    pub(super) parts: Vec<Part>,
    pub(super) pid_file: Option<PidFile>,
    pub(super) mark: RunMark,
    /// Held until the process is gone.
    #[expect(dead_code, reason = "owning the locks is all there is to do with them")]
    pub(super) locks: Locks,
}

/// How the agent is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    code: u8,
}

impl Agent {
    /// Waits until told to end, then ends. Returns the exit code.
    pub(super) fn run(mut self) -> u8 {
        let mut end = None;
        while end.is_none() {
            self.wait();
            for signal in self.signals.pending() {
                end = end.or(self.handle(signal));
            }
            let mut asked = None;
            self.control.serve(|command| {
                let (answer, wish) = self.command(command);
                asked = asked.or(wish);
                answer
            });
            end = end.or(asked);
        }
        let end = end.unwrap_or(End { code: 0 });
        self.end(end)
    }

    /// Sleeps until there is a signal or a client.
    fn wait(&self) {
        let mut watched: Vec<Watched> = vec![Watched::new(self.signals.as_fd(), Interest::Read)];
        watched.extend(self.control.descriptors().map(|fd| Watched::new(fd, Interest::Read)));
        if let Err(error) = sys::poll(&mut watched, None) {
            log::error!("cannot wait for signals: {error}");
        }
    }

    fn handle(&self, signal: Signal) -> Option<End> {
        match signal {
            Signal::End(name) => {
                logs::phase(Phase::Changing);
                log::info!("SIGNAL: Received {name}. Cleaning up to exit...");
                return Some(End { code: 0 });
            }
            Signal::Reload => {
                log::info!("SIGNAL: Received SIGHUP. Reopening all log files...");
                logs::reopen();
                self.reload_config();
            }
            Signal::SaveDatabases => {
                log::info!("SIGNAL: Received SIGUSR1. Saving databases...");
                self.save_databases();
            }
            Signal::ReloadHealth => {
                log::info!("SIGNAL: Received SIGUSR2. Reloading HEALTH configuration...");
                self.reload_health();
            }
        }
        None
    }

    fn command(&self, command: &Command) -> (Reply, Option<End>) {
        let answer = match command {
            Command::Verify { host, after, before } => {
                return (self.verify(host, *after, *before), None);
            }
            Command::Help => Answer::ok(HELP),
            Command::Ping => Answer::ok("pong"),
            Command::ReloadHealth => {
                self.reload_health();
                Answer::ok("")
            }
            Command::CheckHealth { files } => self.check_health(files),
            Command::ReloadLabels => Answer::ok(self.reload_labels()),
            Command::SaveDatabase => {
                self.save_databases();
                Answer::ok("")
            }
            Command::ReopenLogs => {
                logs::reopen();
                Answer::ok("")
            }
            Command::ReloadConfig { dry_run: true } => self.try_config(),
            Command::ReloadConfig { dry_run: false } => self.reload_config(),
            Command::ReloadClaimingState => Answer::failed("This agent cannot be claimed."),
            Command::AclkState { json: true } => Answer::ok("{\"aclk-available\":false}"),
            Command::AclkState { json: false } => Answer::ok("ACLK Available: No"),
            Command::ReadConfig { section, name } => match self.config.peek(section, name) {
                Some(value) => Answer::ok(value),
                None => Answer::failed(format!("no option [{section}] '{name}'")),
            },
            Command::WriteConfig { section, name, value } => {
                self.config.set(section, name, value);
                Answer::ok("")
            }
            Command::ShutdownAgent => {
                logs::phase(Phase::Changing);
                return (Reply::Now(Answer::ok("")), Some(End { code: 0 }));
            }
            Command::FatalAgent => {
                logs::fatal(format_args!("COMMAND: netdata now exits."));
                return (Reply::Now(Answer::ok("")), Some(End { code: 1 }));
            }
        };
        (Reply::Now(answer), None)
    }

    /// Times of zero and below count from now; without them it is the last hour, but for what is still on its way.
    fn verify(&self, host: &str, after: Option<i64>, before: Option<i64>) -> Reply {
        const HOUR: i64 = 3600;
        const ON_THE_WAY: i64 = 10;
        let now = Clock::system().now_seconds().0;
        let time = |time: i64| if time <= 0 { now + time } else { time };
        let before = time(before.unwrap_or(-ON_THE_WAY)).min(now);
        let after = after.map_or(before - HOUR, time);
        let (streams, host) = (Arc::clone(&self.streams), host.to_owned());
        Reply::Later(Box::new(move || {
            streams.verify(&host, after, before).map_or_else(Answer::failed, Answer::ok)
        }))
    }

    /// Engines that keep their samples in memory and belong on the disk write them.
    fn save_databases(&self) {
        for host in self.hosts.all() {
            host.engine().save();
        }
    }

    fn parts(&self) -> reload::Parts<'_> {
        reload::Parts {
            config: &self.config,
            streams: &self.streams,
            engines: &self.engines,
            tls: &self.tls,
            gate: &self.gate,
            names: &self.names,
            uses_store: self.uses_store,
            directories: &self.directories,
        }
    }

    /// Reads the configuration again and puts it in force, or leaves everything as it is.
    fn reload_config(&self) -> Answer {
        let plan = match self.sources.plan(&self.parts()) {
            Ok(plan) => plan,
            Err(faults) => {
                for fault in &faults {
                    log::error!("CONFIG: {fault}.");
                }
                log::error!(
                    "CONFIG: the configuration was not read again: all of it stays as it is. The certificate in use stays."
                );
                return Answer::failed(faults.join("\n"));
            }
        };
        let lines = self.sources.commit(plan, &self.parts());
        for line in &lines {
            log::info!("CONFIG: {line}.");
        }
        log::info!("CONFIG: the configuration was read again: {} changes.", lines.len());
        let sender = self.streams.rules().conf.sender();
        let streams_to = sender.enabled.then_some(sender.destination);
        if self.label_inputs.borrow().streams_to != streams_to {
            self.label_inputs.borrow_mut().streams_to = streams_to;
            self.reload_labels();
        }
        Answer::ok(if lines.is_empty() { NOTHING.to_owned() } else { lines.join("\n") })
    }

    /// What reading it again would do.
    fn try_config(&self) -> Answer {
        match self.sources.plan(&self.parts()) {
            Ok(plan) => {
                let lines = self.sources.tell(&plan, &self.parts());
                Answer::ok(if lines.is_empty() { NOTHING.to_owned() } else { lines.join("\n") })
            }
            Err(faults) => Answer::failed(faults.join("\n")),
        }
    }

    fn reload_health(&self) {
        if let Some(health) = &self.health {
            health.reload();
        }
    }

    fn check_health(&self, files: &[PathBuf]) -> Answer {
        let Some(health) = &self.health else {
            return Answer::failed("Health is disabled in netdata.conf.");
        };
        let (text, right) = health::check::check(files, health.options(), &self.hosts);
        if right { Answer::ok(text) } else { Answer::failed(text) }
    }

    /// Reads the labels again from the file that is in use. Returns them as text.
    fn reload_labels(&self) -> String {
        let config = Config::new();
        if let Some(file) = &self.file
            && let Err(error) = config.load(file, Present::Replace)
        {
            log::error!("CONFIG: {error}");
        }
        config.migrate(NETDATA_CONF);
        let host = self.hosts.local();
        let inputs = LabelInputs {
            // Once a child came, this is a parent.
            is_parent: host.labels().get("_is_parent") == Some("true"),
            ..self.label_inputs.borrow().clone()
        };
        host.set_labels(machine::host_labels(&config, &self.facts, &inputs));
        self.reload_health();
        let mut lines: Vec<String> = host
            .labels()
            .iter()
            .map(|label| {
                let sources = source_words(label.source);
                format!("Label: {}: \"{}\" ({sources})", label.name, label.value)
            })
            .collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    fn end(self, end: End) -> u8 {
        let clock = Clock::system();
        log::info!("EXIT: netdata prepares to exit with code {}...", end.code);
        self.mark.shutting_down();
        log::info!("EXIT: cleaning up the database...");
        log::info!("EXIT: stopping static threads...");
        let mut complete = true;
        for part in self.parts.into_iter().rev() {
            log::info!("EXIT: Stopping main thread: {}", part.name);
            part.stop.stop();
            let left = u64::try_from(STOP_TIME_US - clock.monotonic_us()).unwrap_or(0);
            if !(part.join)(Duration::from_micros(left)) {
                log::error!("EXIT: {} did not end in time.", part.name);
                complete = false;
            }
        }
        log::info!("EXIT: freeing database memory...");
        // Nobody collects any more, so this is the last of it.
        for host in self.hosts.all() {
            host.engine().save();
        }
        self.engines.close();
        if let Some(file) = self.pid_file {
            file.remove();
        }
        if complete {
            self.mark.end();
        }
        log::info!("EXIT: all done - netdata is now exiting - bye bye...");
        end.code
    }
}

/// Where a label comes from, in the words `reload-labels` has for it.
fn source_words(source: LabelSource) -> String {
    let words = [
        (LabelSource::AUTO, "auto"),
        (LabelSource::CONFIG, "netdata.conf"),
        (LabelSource::KUBERNETES, "k8s"),
        (LabelSource::ACLK, "aclk"),
    ];
    let of_it = words.iter().filter(|(bit, _)| source.0 & bit.0 != 0).map(|(_, word)| *word);
    of_it.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_a_label_are_named() {
        let both = LabelSource(LabelSource::AUTO.0 | LabelSource::ACLK.0);
        assert_eq!(source_words(both), "auto,aclk");
        assert_eq!(source_words(LabelSource::CONFIG), "netdata.conf");
    }
}
