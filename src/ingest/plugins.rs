//! External plugins: finding them, running them, and deciding what becomes of them (plugins specification, sections 1-5).
//!
//! ```text
//! let plugins = plugins::start(Options { directories, nodes, clock, config, update_every }, &stop)?;
//! ...                              // PLUGINSD looks for new ones every so often, PLUGINSD[name] runs one each
//! stop.stop();
//! plugins.join(patience);          // true when all threads, and with them all plugins, are gone
//! ```
//!
//! Every plugin has a thread of its own that blocks on the plugin's output, so a slow one delays nobody, and one that
//! hangs costs a thread and nothing else. Calls of functions come from other threads through the plugin's standard input,
//! which never blocks. Environment and working directory are those of the process: the daemon prepares both.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::threads::{StopToken, spawn};
use crate::base::time::{Clock, UpdateEvery};
use crate::config::Config;
use crate::ingest::executor::Nodes;

mod fate;
mod process;
mod runner;

use self::runner::Runner;

/// What the file of a plugin ends in.
const SUFFIX: &str = ".plugin";

/// Plugins one agent runs; files beyond that are left alone, with an error line.
const PLUGINS_MAX: usize = 256;

/// External plugins that run only when asked for by name.
const OFF_BY_DEFAULT: &[&str] = &["slabinfo"];

pub struct Options {
    /// Where plugins are looked for; of two files with one name the first directory's wins.
    pub directories: Vec<PathBuf>,
    /// The hosts plugins may speak for; by themselves they speak for the local one.
    pub nodes: Arc<Nodes>,
    pub clock: Clock,
    pub config: Arc<Config>,
    /// `[db] update every`: the default of `[plugin:NAME]`.
    pub update_every: UpdateEvery,
}

/// What the threads share.
struct Context {
    nodes: Arc<Nodes>,
    clock: Clock,
    /// Threads alive.
    running: Mutex<usize>,
    all_gone: Condvar,
}

/// The running plugins.
pub struct Plugins(Arc<Context>);

impl Plugins {
    /// After the stop: waits until all plugins have ended, for `patience` at most. False when one is left.
    pub fn join(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut running = self.0.running.lock();
        while *running > 0 {
            if self.0.all_gone.wait_until(&mut running, deadline).timed_out() {
                return *running == 0;
            }
        }
        true
    }
}

/// Counts a thread among the living until it is dropped.
struct Alive(Arc<Context>);

impl Alive {
    fn new(context: &Arc<Context>) -> Alive {
        *context.running.lock() += 1;
        Alive(Arc::clone(context))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.all_gone.notify_all();
    }
}

/// Starts looking for plugins; they run until `stop`.
pub fn start(options: Options, stop: &StopToken) -> io::Result<Plugins> {
    let context = Arc::new(Context {
        nodes: Arc::clone(&options.nodes),
        clock: options.clock.clone(),
        running: Mutex::new(0),
        all_gone: Condvar::new(),
    });
    let mut scanner = Scanner {
        options,
        context: Arc::clone(&context),
        stop: stop.clone(),
        known: HashSet::new(),
        complained: HashSet::new(),
    };
    let alive = Alive::new(&context);
    spawn("PLUGINSD", move || {
        scanner.run();
        drop(alive);
    })?;
    Ok(Plugins(context))
}

struct Scanner {
    options: Options,
    context: Arc<Context>,
    stop: StopToken,
    /// Names of files that were started; they are not started again from here.
    known: HashSet<OsString>,
    /// Directories that cannot be read, by kind of error.
    complained: HashSet<(PathBuf, Option<i32>)>,
}

impl Scanner {
    fn run(&mut self) {
        loop {
            self.scan();
            let config = &self.options.config;
            let every = config.seconds("plugins", "check for new plugins every", 60).max(1);
            if self.stop.wait(Duration::from_secs(every.unsigned_abs())) {
                return;
            }
        }
    }

    fn scan(&mut self) {
        let by_default = self.options.config.boolean("plugins", "enable running new plugins", true);
        for directory in self.options.directories.clone() {
            let mut files = match plugin_files(&directory) {
                Ok(files) => files,
                Err(error) => {
                    if self.complained.insert((directory.clone(), error.raw_os_error())) {
                        let directory = directory.display();
                        log::error!("cannot open plugins directory '{directory}' ({error})");
                    }
                    continue;
                }
            };
            files.sort();
            for (file_name, name) in files {
                if self.stop.is_stopped() {
                    return;
                }
                let on = by_default && !OFF_BY_DEFAULT.contains(&&*name);
                if self.options.config.boolean("plugins", &name, on)
                    && !self.known.contains(&file_name)
                {
                    self.start(&directory, file_name, &name);
                }
            }
        }
    }

    fn start(&mut self, directory: &Path, file_name: OsString, name: &str) {
        let file = directory.join(&file_name);
        if self.known.len() >= PLUGINS_MAX {
            if self.complained.insert((PathBuf::new(), None)) {
                let file = file.display();
                log::error!("cannot start '{file}': {PLUGINS_MAX} plugins were started already");
            }
            return;
        }
        let section = format!("plugin:{name}");
        let config = &self.options.config;
        let every = config.seconds(&section, "update every", self.options.update_every.seconds());
        let runner = Runner {
            context: Arc::clone(&self.context),
            stop: self.stop.clone(),
            file,
            file_name: file_name.to_string_lossy().into_owned(),
            every: UpdateEvery::clamped(every),
            options: config.string(&section, "command options", ""),
        };
        let alive = Alive::new(&self.context);
        let started = spawn(format!("PLUGINSD[{name}]"), move || {
            runner.run();
            drop(alive);
        });
        match started {
            Ok(_) => {
                self.known.insert(file_name);
            }
            // Tried again at the next scan.
            Err(error) => log::error!("cannot start a thread for plugin '{name}': {error}"),
        }
    }
}

/// The plugins of a directory: file names, and the names of the plugins. What kind of file it is does not matter: the
/// shell will tell.
fn plugin_files(directory: &Path) -> io::Result<Vec<(OsString, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let file_name = entry?.file_name();
        let name = file_name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let name = name.to_owned();
            found.push((file_name, name));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
