//! All hosts this agent knows: itself first, then children and virtual nodes in order of arrival.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::host::Host;
use crate::base::ids::MachineGuid;
use crate::storage::metadata::Database;

/// Hosts one agent keeps; more are refused.
pub const HOSTS_MAX: usize = 100_000;

pub struct Hosts {
    local: Arc<Host>,
    index: RwLock<Index>,
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
        Arc::new(Hosts { local, index: RwLock::new(index), database: OnceLock::new() })
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
    /// `None` when there are [`HOSTS_MAX`] already.
    pub fn get_or_create(
        &self,
        guid: MachineGuid,
        make: impl FnOnce() -> Arc<Host>,
    ) -> Option<(Arc<Host>, bool)> {
        let mut index = self.index.write();
        let known = index.by_guid.get(&guid).cloned();
        if let Some(host) = known.as_ref().filter(|host| !host.is_archived()) {
            host.expect();
            return Some((Arc::clone(host), false));
        }
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

    /// Puts an archived host in the place of one that nobody is or is about to be connected as; false when somebody is.
    pub fn archive(&self, host: &Arc<Host>, archived: &Arc<Host>) -> bool {
        let mut index = self.index.write();
        if !index.holds(host) || !host.is_left() {
            return false;
        }
        if let Some(database) = self.database.get() {
            archived.remember_in(database);
        }
        index.put(Some(host), archived);
        true
    }

    /// Forgets a host that nobody is or is about to be connected as, never the local one; false when somebody is.
    pub fn remove(&self, host: &Arc<Host>) -> bool {
        let mut index = self.index.write();
        if host.guid() == self.local.guid() || !index.holds(host) || !host.is_left() {
            return false;
        }
        index.by_guid.remove(&host.guid());
        index.in_order.retain(|other| !Arc::ptr_eq(other, host));
        true
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
