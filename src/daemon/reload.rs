//! `reload-config` and SIGHUP: reads stream.conf and netdata.conf again and puts in force what can change in a running agent.
//!
//! All of it is read, checked and built first; what is wrong anywhere leaves everything as it was. The main thread does it,
//! one at a time. Where a list holds names, others ask DNS, and it waits for them [`DNS_PATIENCE`]; a child whose name is not
//! known by then stays, and thread `RELOAD` looks at it again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::settings::{Directories, store_settings, stream_rules};
use crate::base::threads;
use crate::config::changes::{self, Change};
use crate::config::{Config, NETDATA_CONF, Snapshot, StreamConf, is_quantity};
use crate::net::tls::{Fresh, ServerTls};
use crate::storage::Mode;
use crate::storage::dbengine::TierSettings;
use crate::storage::engines::Engines;
use crate::stream::reload::{Door, Effect};
use crate::stream::{Child, Rules, Streams};
use crate::web::acl::{Access, AllowList, Gate, Names};

/// How long a reload waits for the names of children.
const DNS_PATIENCE: Duration = Duration::from_secs(2);
/// When it looks again at who was not known by then.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What of netdata.conf can change in a running agent. Of names that end in `*` all that begin so.
const RELOADABLE: &[(&str, &str)] = &[
    ("db", "enable replication"),
    ("db", "seconds to replicate"),
    ("db", "seconds per replication step"),
    ("db", "dbengine multihost disk space MB"),
    ("db", "dbengine tier 0 retention *"),
    ("db", "dbengine tier 1 retention *"),
    ("db", "dbengine tier 2 retention *"),
    ("db", "dbengine tier 3 retention *"),
    ("db", "dbengine tier 4 retention *"),
    ("db", "dbengine tier 1 multihost disk space MB"),
    ("db", "dbengine tier 2 multihost disk space MB"),
    ("db", "dbengine tier 3 multihost disk space MB"),
    ("db", "dbengine tier 4 multihost disk space MB"),
    ("registry", "allow *"),
    ("web", "accept a streaming request every seconds"),
    ("web", "allow *"),
    ("web", "read token file"),
    ("web", "ssl *"),
    ("web", "tls *"),
];

/// Where configuration comes from, and what it said last.
pub(super) struct Sources {
    /// netdata.conf; none where the agent runs by its defaults.
    file: Option<PathBuf>,
    stream_user: PathBuf,
    stream_stock: PathBuf,
    /// What was read last.
    read: RefCell<Read>,
    /// What the command line has set, which wins over files.
    pinned: BTreeSet<(String, String)>,
}

#[derive(Default)]
struct Read {
    netdata: Snapshot,
    stream_is_users: bool,
}

/// The parts of the agent that configuration reaches while it runs.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) streams: &'a Arc<Streams>,
    pub(super) engines: &'a Engines,
    pub(super) tls: &'a ServerTls,
    pub(super) gate: &'a Arc<Gate>,
    pub(super) names: &'a Arc<Names>,
    /// The store had a user when the agent started.
    pub(super) uses_store: bool,
    pub(super) directories: &'a Directories,
}

/// Another configuration: read, checked, built, and not in force yet.
pub(super) struct Plan {
    changed_stream: Vec<Change>,
    changed_netdata: Vec<(Change, Reach)>,
    netdata: Snapshot,
    stream_is_users: bool,
    rules: Rules,
    access: Access,
    tls: Option<Fresh>,
    tiers: Vec<TierSettings>,
    /// The store keeps less than before.
    keeps_less: bool,
}

/// Whether a changed option has an effect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Now,
    Restart,
    Pinned,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Now => "",
            Reach::Restart => " (has an effect after a restart)",
            Reach::Pinned => " (has no effect: the command line has set it)",
        })
    }
}

impl Sources {
    /// `config` is what the files and the command line came to; `file` is read once more, to tell one from the other.
    pub(super) fn new(
        config: &Config,
        file: Option<PathBuf>,
        directories: &Directories,
    ) -> Sources {
        let netdata = file.as_ref().map(|file| {
            let alone = Config::load_again(file);
            alone.migrate(NETDATA_CONF);
            alone.snapshot()
        });
        let netdata = netdata.unwrap_or_default();
        let all = config.snapshot();
        let pinned = all.iter().filter(|(at, value)| netdata.get(*at) != Some(*value));
        let pinned = pinned.map(|(at, _)| at.clone()).collect();
        let stream_user = directories.config.join("stream.conf");
        let stream_is_users = stream_user.exists();
        Sources {
            file,
            stream_user,
            stream_stock: directories.stock_config.join("stream.conf"),
            read: RefCell::new(Read { netdata, stream_is_users }),
            pinned,
        }
    }

    /// Reads everything; what is wrong with it is all there is in the error.
    pub(super) fn plan(&self, parts: &Parts<'_>) -> Result<Plan, Vec<String>> {
        let read = self.read.borrow();
        let is_mode = |word: &str| Mode::parse(word).is_some();
        let (user, stock) = (&self.stream_user, &self.stream_stock);
        let conf = StreamConf::reread(user, stock, read.stream_is_users, is_mode);
        let netdata = match &self.file {
            None => Ok(Snapshot::default()),
            Some(file) => Config::load_whole(file).map(|config| {
                config.migrate(NETDATA_CONF);
                config.snapshot()
            }),
        };
        // Whoever corrects one file wants to hear of the other, too.
        let (conf, netdata) = match (conf, netdata) {
            (Ok(conf), Ok(netdata)) => (Arc::new(conf), netdata),
            (conf, netdata) => {
                let faults = [conf.err(), netdata.err()];
                return Err(faults.into_iter().flatten().flatten().collect());
            }
        };
        let mut changed_netdata = Vec::new();
        let mut faults = Vec::new();
        let trial = Config::from_snapshot(&parts.config.snapshot());
        for change in changes::changes(&read.netdata, &netdata) {
            let at = (change.section.clone(), change.name.clone());
            let reach = match is_reloadable(&change) {
                _ if self.pinned.contains(&at) => Reach::Pinned,
                true => Reach::Now,
                false => Reach::Restart,
            };
            if reach == Reach::Now {
                if let Some(fault) = fault_of(&change) {
                    faults.push(fault);
                }
                apply(&trial, &change);
            }
            changed_netdata.push((change, reach));
        }
        let access = Access::read(&trial).map_err(|fault| faults.push(fault)).ok();
        let tls_options = crate::web::options::tls_options(&trial);
        let tls = if parts.tls.is_on() || tls_options.is_wanted() {
            let fresh = ServerTls::read(tls_options);
            fresh.map_err(|error| faults.push(format!("TLS: {error}"))).ok()
        } else {
            None
        };
        let Some(access) = access.filter(|_| faults.is_empty()) else { return Err(faults) };
        let now = parts.streams.rules();
        let changed_stream = changes::changes(&now.conf.snapshot(), &conf.snapshot());
        let tiers = store_settings(&trial, &parts.directories.cache, parts.uses_store).tiers;
        let is_less = |(old, new): (&TierSettings, &TierSettings)| {
            let less = |old: u64, new: u64| new != 0 && (old == 0 || new < old);
            less(old.bytes_max, new.bytes_max)
                || less(old.seconds_max.unsigned_abs(), new.seconds_max.unsigned_abs())
        };
        let keeps_less = parts.engines.limits().iter().zip(&tiers).any(is_less);
        Ok(Plan {
            changed_stream,
            changed_netdata,
            netdata,
            stream_is_users: user.exists(),
            rules: stream_rules(&trial, &now.defaults, conf),
            access,
            tls,
            tiers,
            keeps_less,
        })
    }

    /// What the plan would do.
    pub(super) fn tell(&self, plan: &Plan, parts: &Parts<'_>) -> Vec<String> {
        learn_names(&plan.access, parts.names, parts.streams);
        let effects = parts.streams.effects(&plan.rules, &doorkeeper(&plan.access, parts.names));
        plan.lines(&effects)
    }

    /// Puts the plan in force; gives what that did.
    pub(super) fn commit(&self, plan: Plan, parts: &Parts<'_>) -> Vec<String> {
        for (change, reach) in &plan.changed_netdata {
            if *reach == Reach::Now {
                apply(parts.config, change);
            }
        }
        // Asked for once more, so that what is set no longer is shown with its default.
        let _ = Access::read(parts.config);
        crate::web::options::tls_options(parts.config);
        store_settings(parts.config, &parts.directories.cache, parts.uses_store);
        parts.engines.set_limits(&plan.tiers);
        let was_parent = parts.streams.rules().conf.is_parent();
        let becomes_parent = plan.rules.conf.is_parent() && !was_parent;
        // The doors first: nobody comes in between by what was in force before.
        parts.gate.replace(plan.access.clone());
        learn_names(&plan.access, parts.names, parts.streams);
        let doorkeeper = doorkeeper(&plan.access, parts.names);
        let effects = parts.streams.reload(plan.rules.clone(), &doorkeeper);
        if is_open(&effects) {
            look_again(parts);
        }
        let mut lines = plan.lines(&effects);
        if becomes_parent {
            let text = "this agent takes children now, and remembers them from its next start on";
            lines.push(text.to_owned());
        }
        if let Some(fresh) = plan.tls {
            parts.tls.show(fresh);
            log::info!("TLS: read the certificate again.");
        }
        *self.read.borrow_mut() =
            Read { netdata: plan.netdata, stream_is_users: plan.stream_is_users };
        lines
    }
}

impl Plan {
    fn lines(&self, effects: &[Effect]) -> Vec<String> {
        let mut lines: Vec<String> =
            self.changed_stream.iter().map(|change| format!("stream.conf: {change}")).collect();
        let netdata = self.changed_netdata.iter();
        lines.extend(netdata.map(|(change, reach)| format!("netdata.conf: {change}{reach}")));
        if self.keeps_less {
            lines.push("the store keeps less, and deletes its oldest samples".to_owned());
        }
        lines.extend(effects.iter().map(Effect::to_string));
        lines
    }
}

/// The lists of `[web]` that decide about children.
fn lists(access: &Access) -> [(&'static str, &AllowList); 2] {
    let lists = &access.lists;
    [("allow connections from", &lists.connections), ("allow streaming from", &lists.streaming)]
}

/// Denies children what the lists of `[web]` deny.
fn doorkeeper<'a>(access: &'a Access, names: &'a Names) -> impl Fn(&Child) -> Door + use<'a> {
    |child| {
        let verdicts = lists(access).map(|(name, list)| (name, list.knows(&child.peer, names)));
        let first = |wanted| verdicts.iter().find(|(_, verdict)| *verdict == wanted);
        let ip = &child.peer.ip;
        match (first(Some(false)), first(None)) {
            (Some((name, _)), _) => Door::Closed(format!("[web] '{name}' does not name {ip}")),
            (None, Some((name, _))) => Door::Unknown(format!(
                "[web] '{name}' asks for the name of {ip}, and DNS has not answered"
            )),
            (None, None) => Door::Open,
        }
    }
}

/// Has the names of the connected children asked for, where these lists need them.
fn learn_names(access: &Access, names: &Arc<Names>, streams: &Streams) {
    let children = streams.children();
    let lists = lists(access).map(|(_, list)| list);
    names.learn(&lists, children.iter().map(|child| &child.peer), DNS_PATIENCE);
}

/// Of somebody it is not known whether he may stay.
fn is_open(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Unknown { .. }))
}

/// Looks at the children again whose names are not known yet, until they are or another reload does it.
fn look_again(parts: &Parts<'_>) {
    let (streams, names) = (Arc::clone(parts.streams), Arc::clone(parts.names));
    let gate = Arc::clone(parts.gate);
    let access = gate.now();
    let body = move || {
        while !streams.stop_token().wait(LOOK_AGAIN) && Arc::ptr_eq(&access, &gate.now()) {
            learn_names(&access, &names, &streams);
            // Another reload may have come while DNS was waited for; what it says holds.
            if !Arc::ptr_eq(&access, &gate.now()) {
                break;
            }
            let effects = streams.review(&doorkeeper(&access, &names));
            for effect in effects.iter().filter(|one| matches!(one, Effect::Revoked { .. })) {
                log::info!("CONFIG: {effect}.");
            }
            if !is_open(&effects) {
                break;
            }
        }
    };
    if let Err(error) = threads::spawn("RELOAD", body) {
        log::error!("CONFIG: cannot start a thread: {error}. Who is not known stays connected.");
    }
}

fn is_reloadable(change: &Change) -> bool {
    RELOADABLE.iter().any(|(section, name)| {
        *section == change.section
            && match name.strip_suffix('*') {
                Some(start) => change.name.starts_with(start),
                None => *name == change.name,
            }
    })
}

/// A number has to be one: what reads as zero by mistake would mean no limit.
fn fault_of(change: &Change) -> Option<String> {
    let name = change.name.as_str();
    let is_number = ["seconds", "retention", "MB"].iter().any(|word| name.contains(word));
    let value = change.new.as_deref()?;
    (is_number && !is_quantity(value))
        .then(|| format!("netdata.conf: {}: is no number", change.as_set()))
}

fn apply(config: &Config, change: &Change) {
    match &change.new {
        Some(value) => config.set(&change.section, &change.name, value),
        None => config.unset(&change.section, &change.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(section: &str, name: &str, new: &str) -> Change {
        let (section, name) = (section.to_owned(), name.to_owned());
        Change { section, name, old: None, new: Some(new.to_owned()) }
    }

    #[test]
    fn what_shapes_the_process_is_not_reloadable() {
        for (section, name) in [
            ("web", "allow badges by dns"),
            ("web", "tls ciphers"),
            ("db", "dbengine tier 1 retention time"),
        ] {
            assert!(is_reloadable(&change(section, name, "")), "{name}");
        }
        for (section, name) in [
            ("web", "bind to"),
            ("db", "mode"),
            ("db", "dbengine tier 1 update every iterations"),
            ("global", "allow from"),
        ] {
            assert!(!is_reloadable(&change(section, name, "")), "{name}");
        }
    }

    #[test]
    fn a_limit_that_is_no_number_is_a_fault() {
        assert!(fault_of(&change("db", "dbengine tier 0 retention size", "lots")).is_some());
        assert!(fault_of(&change("db", "dbengine tier 0 retention size", "1GiB")).is_none());
        assert!(fault_of(&change("db", "dbengine tier 0 retention time", "off")).is_none());
        assert!(fault_of(&change("web", "allow dashboard from", "lots")).is_none());
    }
}
