//! All hosts this agent knows: itself first, then children and virtual nodes in order of arrival.

use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::host::Host;
use crate::base::ids::MachineGuid;

/// Hosts one agent keeps; more are refused.
pub const HOSTS_MAX: usize = 100_000;

pub struct Hosts {
    local: Arc<Host>,
    index: RwLock<Index>,
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
        Arc::new(Hosts { local, index: RwLock::new(index) })
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
        let index = self.index.read();
        index
            .in_order
            .iter()
            .find(|host| host.hostname() == name)
            .or_else(|| index.in_order.iter().find(|host| host.guid().to_string() == name))
            .cloned()
    }

    /// All hosts, the local one first.
    pub fn all(&self) -> Vec<Arc<Host>> {
        self.index.read().in_order.clone()
    }

    pub fn count(&self) -> usize {
        self.index.read().in_order.len()
    }

    /// The host of that GUID, made by `make` if there is none. The flag says whether it was made. `None` when there
    /// are [`HOSTS_MAX`] already.
    pub fn get_or_create(
        &self,
        guid: MachineGuid,
        make: impl FnOnce() -> Arc<Host>,
    ) -> Option<(Arc<Host>, bool)> {
        let mut index = self.index.write();
        if let Some(host) = index.by_guid.get(&guid) {
            return Some((Arc::clone(host), false));
        }
        if index.in_order.len() >= HOSTS_MAX {
            return None;
        }
        let host = make();
        index.by_guid.insert(guid, Arc::clone(&host));
        index.in_order.push(Arc::clone(&host));
        Some((host, true))
    }

    /// Forgets a host, never the local one.
    pub fn remove(&self, guid: MachineGuid) {
        if guid != self.local.guid() {
            let mut index = self.index.write();
            index.by_guid.remove(&guid);
            index.in_order.retain(|host| host.guid() != guid);
        }
    }
}
