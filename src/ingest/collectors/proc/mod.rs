//! proc.plugin: what the kernel says about itself below /proc and /sys, one module per file.
//!
//! A [`Source`] opens its files when it is made, in the collecting thread, and reads them at every tick. One whose file
//! is not there is switched off until the restart; one whose file fails later is asked again at the next tick.

use std::sync::Arc;

use crate::config::Config;
use crate::ingest::collectors::lanes::{After, Task, Tick};
use crate::ingest::collectors::setup::Setup;

pub mod stat;
pub mod uptime;
pub mod loadavg;
pub mod entropy;
pub mod pressure;
pub mod interrupts;
pub mod softirqs;
pub mod vmstat;
pub mod meminfo;
pub mod net_dev;
pub mod sockstat;
pub mod netstat;
pub mod softnet;
pub mod conntrack;
pub mod diskstats;
pub mod ipc;

/// Collects from one kernel file, or a few that belong together.
pub trait Source: Send {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After;
}

/// Makes a source; `None` switches the module off, the reason is in the log.
type Make = fn(&Setup) -> Option<Box<dyn Source>>;

/// All modules, in the order in which they run: the option in `[plugin:proc]` that switches each, and its maker.
pub const MODULES: &[(&str, Make)] = &[
    (net_dev::NAME, net_dev::make),
    (stat::NAME, stat::make),
    (uptime::NAME, uptime::make),
    (loadavg::NAME, loadavg::make),
    (entropy::NAME, entropy::make),
    (pressure::NAME, pressure::make),
    (interrupts::NAME, interrupts::make),
    (softirqs::NAME, softirqs::make),
    (vmstat::NAME, vmstat::make),
    (meminfo::NAME, meminfo::make),
    (sockstat::NAME, sockstat::make),
    (sockstat::NAME6, sockstat::make6),
    (netstat::NAME, netstat::make),
    (softnet::NAME, softnet::make),
    (conntrack::SWITCH, conntrack::make),
    (diskstats::NAME, diskstats::make),
    (ipc::NAME, ipc::make),
];

/// The modules that are switched on.
pub fn tasks(setup: &Setup) -> Vec<Box<dyn Task>> {
    let wanted = |config: &Config, name: &str| config.boolean("plugin:proc", name, true);
    let mut tasks: Vec<Box<dyn Task>> = Vec::new();
    for &(name, make) in MODULES {
        if wanted(&setup.config, name) {
            tasks.push(Box::new(Module { name, state: State::Fresh(setup.clone(), make) }));
        }
    }
    tasks
}

/// A module as the pool runs it. The source is made in the first turn, as opening a file may hang.
struct Module {
    name: &'static str,
    state: State,
}

enum State {
    Fresh(Setup, Make),
    Live(Box<dyn Source>),
}

impl Task for Module {
    fn name(&self) -> Arc<str> {
        self.name.into()
    }

    /// Drivers of network interfaces answer when they like.
    fn may_be_slow(&self) -> bool {
        self.name == net_dev::NAME
    }

    fn run(&mut self, tick: &mut Tick<'_>) -> After {
        if let State::Fresh(setup, make) = &self.state {
            match make(setup) {
                Some(source) => self.state = State::Live(source),
                None => return After::Never,
            }
        }
        match &mut self.state {
            State::Live(source) => source.collect(tick),
            State::Fresh(..) => After::Never,
        }
    }
}
