//! What every collector is made from: the host it collects for and the options it asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chart::{Site, When};
use crate::base::sys;
use crate::base::time::{Clock, UpdateEvery};
use crate::config::{Config, OnDemand};
use crate::metrics::Host;
use crate::net::Usage;
use crate::storage::engines::Engines;

/// Everything the collectors need of the daemon.
#[derive(Clone)]
pub struct Setup {
    pub host: Arc<Host>,
    /// netdata.conf
    pub config: Arc<Config>,
    pub clock: Clock,
    /// `[db] update every`
    pub every: UpdateEvery,
    /// `[db] enable zero metrics`: charts that would wait for a value other than zero do not wait.
    pub zero_metrics: bool,
    /// What the web server counts of its clients.
    pub usage: Arc<Usage>,
    /// What is known of the agent's own parts that collectors cannot see; none of it where nothing streams or stores.
    pub parts: Parts,
    /// `[global] host access prefix` as [`usable_prefix`] gives it; normally empty.
    pub prefix: String,
}

/// Where the agent's own charts look.
#[derive(Clone, Default)]
pub struct Parts {
    pub engines: Option<Arc<Engines>>,
    /// What waits in queues, as bytes to parents, percent of the fullest queue to one, and bytes to children.
    pub queues: Option<Arc<dyn Fn() -> [usize; 3] + Send + Sync>>,
    /// Children whose past is incomplete, for how many seconds it has been at most, and by how many seconds a clock differs at
    /// most.
    pub children: Option<Arc<dyn Fn() -> [i64; 3] + Send + Sync>>,
}

impl Setup {
    /// Where the charts of a module of proc.plugin go.
    pub fn proc_site(&self, module: &'static str) -> Site {
        self.site("proc.plugin", module)
    }

    pub fn site(&self, plugin: &'static str, module: &'static str) -> Site {
        Site { host: Arc::clone(&self.host), every: self.every, plugin, module }
    }

    /// The path in an option; `default` is one of /proc or /sys of this machine.
    pub fn path(&self, section: &str, option: &str, default: &str) -> PathBuf {
        self.config.path(section, option, self.prefixed(default))
    }

    /// As [`Setup::path`], for a path in which `%s` stands for a name.
    pub fn template(&self, section: &str, option: &str, default: &str) -> String {
        self.config.string(section, option, &self.prefixed(default))
    }

    pub fn prefixed(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub fn when(&self, section: &str, option: &str, default: OnDemand) -> When {
        When::of(self.config.on_demand(section, option, default), self.zero_metrics)
    }

    /// A chart that is either wanted from the start or not at all.
    pub fn switch(&self, section: &str, option: &str) -> When {
        When::switch(self.config.boolean(section, option, true))
    }
}

/// The host access prefix if the kernel's file systems really are there, else nothing.
pub fn usable_prefix(prefix: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return String::new();
    }
    for dir in ["proc", "sys"] {
        let path = format!("{prefix}/{dir}");
        if !sys::is_kernel_file_system(Path::new(&path)) {
            log::error!(
                "Ignoring host prefix '{prefix}': path '{path}' is not a virtual file system"
            );
            return String::new();
        }
    }
    prefix.to_owned()
}

/// Puts `name` where a template has `%s`.
pub fn fill(template: &str, name: &str) -> PathBuf {
    PathBuf::from(template.replacen("%s", name, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_used_only_where_the_kernel_is() {
        assert_eq!(usable_prefix("/"), "");
        assert_eq!(usable_prefix("/nowhere"), "");
        assert_eq!(usable_prefix("/proc/self/root"), "/proc/self/root");
        assert_eq!(usable_prefix("/usr"), "");
    }
}
