//! All hosts this agent knows: itself first, then children and virtual nodes in order of arrival.

use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};

use super::host::Host;
use crate::base::ids::MachineGuid;
use crate::storage::metadata::Database;

/// Hosts one agent keeps; more are refused.
pub const HOSTS_MAX: usize = 100_000;

pub struct Hosts {
    local: Arc<Host>,
    index: RwLock<Index>,
    /// Hosts that are being forgotten with all they have stored, or archived: nobody comes back into the middle of that.
    leaving: Mutex<FxHashSet<MachineGuid>>,
    /// One of them is done.
    left: Condvar,
    /// Where all of them are remembered, if they are.
    database: OnceLock<Arc<Database>>,
}

#[derive(Default)]
struct Index {
    by_guid: FxHashMap<MachineGuid, Arc<Host>>,
    in_order: Vec<Arc<Host>>,
}

impl Hosts {
    pub fn new(local: Arc<Host>) -> Arc<Hosts> {
        let mut index = Index::default();
        index.by_guid.insert(local.guid(), Arc::clone(&local));
        index.in_order.push(Arc::clone(&local));
        let (index, leaving) = (RwLock::new(index), Mutex::default());
        Arc::new(Hosts { local, index, leaving, left: Condvar::new(), database: OnceLock::new() })
    }

    /// From now on every host is remembered in this database. To be called once, before others than the local one come.
    pub fn remember_in(&self, database: &Arc<Database>) {
        if self.database.set(Arc::clone(database)).is_ok() {
            self.local.remember_in(database);
        }
    }

    pub fn local(&self) -> &Arc<Host> {
        &self.local
    }

    pub fn by_guid(&self, guid: MachineGuid) -> Option<Arc<Host>> {
        self.index.read().by_guid.get(&guid).cloned()
    }

    /// As URLs name hosts: `localhost`, a hostname (the first registered one wins), or a machine GUID.
    pub fn find(&self, name: &str) -> Option<Arc<Host>> {
        if name == "localhost" {
            return Some(Arc::clone(&self.local));
        }
        // By its GUID first: nobody takes another's place by calling himself so.
        let by_guid = name.parse().ok().and_then(|guid| self.by_guid(guid));
        by_guid.or_else(|| {
            let index = self.index.read();
            index.in_order.iter().find(|host| host.hostname() == name).cloned()
        })
    }

    /// All hosts, the local one first.
    pub fn all(&self) -> Vec<Arc<Host>> {
        self.index.read().in_order.clone()
    }

    pub fn count(&self) -> usize {
        self.index.read().in_order.len()
    }

    /// The host of that GUID, made by `make` if there is none or only an archived one, whose place the new one takes.
    /// The flag says whether it was made. It stays until it was connected and left, or for good if it never leaves.
    /// `None` when there are [`HOSTS_MAX`] already. Waits while this host is being forgotten or archived.
    pub fn get_or_create(
        &self,
        guid: MachineGuid,
        make: impl FnOnce() -> Arc<Host>,
    ) -> Option<(Arc<Host>, bool)> {
        // Nobody takes it away while the index is locked, for reading or for writing.
        let expected = |index: &Index| {
            let host = index.by_guid.get(&guid).filter(|host| !host.is_archived())?;
            host.expect();
            Some((Arc::clone(host), false))
        };
        let there = expected(&self.index.read());
        if there.is_some() {
            return there;
        }
        let mut leaving = self.leaving.lock();
        while leaving.contains(&guid) {
            self.left.wait(&mut leaving);
        }
        let mut index = self.index.write();
        drop(leaving);
        let there = expected(&index);
        if there.is_some() {
            return there;
        }
        let known = index.by_guid.get(&guid).cloned();
        if known.is_none() && index.in_order.len() >= HOSTS_MAX {
            return None;
        }
        let host = make();
        host.expect();
        if let Some(database) = self.database.get() {
            host.remember_in(database);
        }
        if let Some(archived) = &known {
            host.take_over(archived);
        }
        index.put(known.as_ref(), &host);
        drop(index);
        if known.is_some() {
            log::info!("Host {} is not in archived mode anymore", host.hostname());
        }
        Some((host, true))
    }

    /// Adds a host of which only the past is known, made by `make`, unless there is one of that GUID.
    pub fn add_archived(&self, guid: MachineGuid, make: impl FnOnce() -> Arc<Host>) -> bool {
        let mut index = self.index.write();
        if index.by_guid.contains_key(&guid) || index.in_order.len() >= HOSTS_MAX {
            return false;
        }
        let host = make();
        if let Some(database) = self.database.get() {
            host.remember_in(database);
        }
        index.put(None, &host);
        true
    }

    /// Puts an archived host in the place of one that nobody is or is about to be connected as, and then lets go of what is live
    /// of that one, by `clean_up`; false when somebody is. Whoever comes back meanwhile waits.
    pub fn archive(&self, host: &Arc<Host>, archived: &Arc<Host>, clean_up: impl FnOnce()) -> bool {
        let _leaving = self.leave(host.guid());
        let mut index = self.index.write();
        if !index.holds(host) || !host.is_left() {
            return false;
        }
        if let Some(database) = self.database.get() {
            archived.remember_in(database);
        }
        index.put(Some(host), archived);
        drop(index);
        clean_up();
        true
    }

    /// From now on nobody comes back as that host, until the mark is dropped.
    fn leave(&self, guid: MachineGuid) -> Leaving<'_> {
        let mut leaving = self.leaving.lock();
        while !leaving.insert(guid) {
            self.left.wait(&mut leaving);
        }
        Leaving { hosts: self, guid }
    }

    /// Forgets a host that nobody is or is about to be connected as, never the local one, and then what is stored of it, by
    /// `forget`; false when somebody is. Whoever comes back meanwhile waits and is new.
    pub fn remove(&self, host: &Arc<Host>, forget: impl FnOnce()) -> bool {
        let _leaving = self.leave(host.guid());
        let mut index = self.index.write();
        if host.guid() == self.local.guid() || !index.holds(host) || !host.is_left() {
            return false;
        }
        index.by_guid.remove(&host.guid());
        index.in_order.retain(|other| !Arc::ptr_eq(other, host));
        drop(index);
        forget();
        true
    }
}

/// The mark of a host that is leaving.
struct Leaving<'a> {
    hosts: &'a Hosts,
    guid: MachineGuid,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.hosts.leaving.lock().remove(&self.guid);
        self.hosts.left.notify_all();
    }
}

impl Index {
    fn holds(&self, host: &Arc<Host>) -> bool {
        self.by_guid.get(&host.guid()).is_some_and(|known| Arc::ptr_eq(known, host))
    }

    fn put(&mut self, before: Option<&Arc<Host>>, host: &Arc<Host>) {
        self.by_guid.insert(host.guid(), Arc::clone(host));
        let place =
            before.and_then(|b| self.in_order.iter_mut().find(|known| Arc::ptr_eq(known, b)));
        match place {
            Some(place) => *place = Arc::clone(host),
            None => self.in_order.push(Arc::clone(host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::base::threads;
    use crate::base::time::UnixSeconds;
    use crate::metrics::{HostInfo, HostKind, HostSettings};
    use crate::storage::none::NoneEngine;

    #[test]
    fn whoever_comes_back_while_it_is_forgotten_waits_and_is_new() {
        let make = |kind, guid, name: &str| {
            let (engine, settings) = (Arc::new(NoneEngine::new()), HostSettings::default());
            Host::new(guid, kind, HostInfo::named(name), engine, settings)
        };
        let hosts = Hosts::new(make(HostKind::Local, MachineGuid::random(), "local"));
        let guid = MachineGuid::random();
        let child = make(HostKind::Child, guid, "child");
        hosts.get_or_create(guid, || Arc::clone(&child)).unwrap();
        assert!(!hosts.remove(&child, || panic!("it is expected")));
        child.set_connected(true, UnixSeconds(1));
        child.set_connected(false, UnixSeconds(2));
        let (told, is_back) = mpsc::channel();
        let come_back = || {
            let (told, all) = (told.clone(), Arc::clone(&hosts));
            let again = make(HostKind::Child, guid, "child");
            let come = move || {
                let made = all.get_or_create(guid, || again).is_some_and(|(_, made)| made);
                told.send(made).unwrap();
            };
            threads::spawn("child", come).unwrap();
            let waits = is_back.recv_timeout(Duration::from_millis(50));
            assert_eq!(waits, Err(mpsc::RecvTimeoutError::Timeout));
            // Others do not.
            let other = make(HostKind::Child, MachineGuid::random(), "other");
            assert!(hosts.get_or_create(other.guid(), || Arc::clone(&other)).unwrap().1);
        };
        assert!(hosts.remove(&child, come_back));
        assert_eq!(is_back.recv_timeout(Duration::from_secs(10)), Ok(true));
        assert!(!hosts.remove(&child, || panic!("another one took its place")));
        let child = hosts.by_guid(guid).unwrap();
        child.set_connected(true, UnixSeconds(3));
        child.set_connected(false, UnixSeconds(4));
        let engine = Arc::new(NoneEngine::new());
        let archived =
            Host::archived(guid, HostInfo::named("child"), engine, HostSettings::default());
        assert!(hosts.archive(&child, &archived, come_back));
        assert!(is_back.recv_timeout(Duration::from_secs(10)).is_ok());
    }
}
