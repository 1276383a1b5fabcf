//! Which engine a host gets: one for each host in the ring modes, one store for all of them in dbengine.
//!
//! The store is opened when the first host asks for it, and its threads with it. One lock, taken when a host is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::dbengine::{self, Store};
use super::none::NoneEngine;
use super::ring::RingEngine;
use super::{Mode, StorageEngine};
use crate::base::ids::MachineGuid;
use crate::base::threads::StopToken;
use crate::base::time::Clock;

pub struct Engines {
    cache: PathBuf,
    clock: Clock,
    stop: StopToken,
    state: Mutex<State>,
}

struct State {
    settings: dbengine::Settings,
    store: Option<Arc<Store>>,
    threads: Vec<JoinHandle<()>>,
    /// Told once that the store cannot be opened.
    complained: bool,
}

/// Whose samples an engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This machine's: ring files lie in the cache directory itself.
    Local,
    /// Another host's: they lie in a directory named after it.
    Other(MachineGuid),
}

impl Engines {
    pub fn new(settings: dbengine::Settings, clock: Clock) -> Engines {
        let cache = settings.cache.clone();
        let state = State { settings, store: None, threads: Vec::new(), complained: false };
        Engines { cache, clock, stop: StopToken::new(), state: Mutex::new(state) }
    }

    /// An engine of `mode` for rings of `history` entries. A store that cannot be opened is replaced by memory, with an
    /// ERROR line: collecting goes on.
    pub fn engine(&self, mode: Mode, history: i64, whose: Whose) -> Arc<dyn StorageEngine> {
        match mode {
            Mode::None => Arc::new(NoneEngine::new()),
            Mode::Ram | Mode::Alloc => Arc::new(RingEngine::in_memory(mode, history)),
            Mode::Save | Mode::Map => {
                let directory = match whose {
                    Whose::Local => self.cache.clone(),
                    Whose::Other(guid) => self.cache.join(guid.to_string()),
                };
                Arc::new(RingEngine::in_files(mode, history, &directory, self.clock.clone()))
            }
            Mode::Dbengine => match self.store() {
                Some(store) => Arc::new(store),
                None => Arc::new(RingEngine::in_memory(Mode::Ram, history)),
            },
        }
    }

    /// The store, opened now if it is not yet.
    pub fn store(&self) -> Option<Arc<Store>> {
        let mut state = self.state.lock();
        if state.store.is_none() {
            let opened = Store::open(&state.settings, self.clock.clone());
            match opened.map_err(|error| error.to_string()).and_then(|store| {
                let threads = store.start(&self.stop).map_err(|error| error.to_string())?;
                Ok((store, threads))
            }) {
                Ok((store, threads)) => {
                    state.store = Some(store);
                    state.threads = threads;
                }
                Err(error) if !std::mem::replace(&mut state.complained, true) => {
                    log::error!("DBENGINE: {error}. Samples are kept in memory only.");
                }
                Err(_) => {}
            }
        }
        state.store.clone()
    }

    /// How much the store keeps, tier by tier.
    pub fn limits(&self) -> Vec<dbengine::TierSettings> {
        self.state.lock().settings.tiers.clone()
    }

    /// How much the store keeps from now on.
    pub fn set_limits(&self, tiers: &[dbengine::TierSettings]) {
        let mut state = self.state.lock();
        for (now, new) in state.settings.tiers.iter_mut().zip(tiers) {
            *now = dbengine::TierSettings { iterations: now.iterations, ..*new };
        }
        if let Some(store) = &state.store {
            store.set_limits(tiers);
        }
    }

    /// The store if some host uses it.
    pub fn open_store(&self) -> Option<Arc<Store>> {
        self.state.lock().store.clone()
    }

    /// Ends the store's threads and writes what is left. Nothing may be stored afterwards.
    pub fn close(&self) {
        self.stop.stop();
        let (store, threads) = {
            let mut state = self.state.lock();
            (state.store.clone(), std::mem::take(&mut state.threads))
        };
        for thread in threads {
            let _ = thread.join();
        }
        if let Some(store) = store
            && let Err(error) = store.close()
        {
            log::error!("DBENGINE: cannot write the last samples: {error}");
        }
    }
}
