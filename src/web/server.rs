//! The listening side: one acceptor thread, and one thread per connection.
//!
//! `WEB_SERVER[acceptor]` waits for all ports at once, checks who may connect at all, and starts a `WEB_SERVER[n]` with the
//! smallest free number; it never reads a byte of a client. Connections are bounded by `web server max sockets`: beyond that
//! they are closed at once and counted. At a stop the ports close first, then waiting clients, then the rest.
//!
//! Locks: `slots`, held for a few instructions by the acceptor and by ending threads; the idle compressors.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::sys::{EventFd, Interest, Watched, poll};
use crate::base::threads::{self, StopToken};
use crate::base::time::MICROS;
use crate::net::listen::{Listener, TlsPolicy, listen};
use crate::net::usage::add;
use crate::net::{Closer, Connection};

use super::acl::{Rights, Verdict};
use super::answer::Compressors;
use super::session::Session;
use super::{Agent, Options};

/// How long the acceptor leaves a port alone that gives errors (no more files, say).
const AFTER_AN_ERROR: Duration = Duration::from_millis(100);
/// How long answers under way may take at a stop before their connections are closed.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Connections taken from one port before the others get their turn.
const BATCH: usize = 64;
/// Refusals are told in the log at most this often.
const COMPLAIN_EVERY_US: i64 = 10 * MICROS;

/// A listening socket and what it grants.
#[derive(Debug)]
pub struct Port {
    pub listener: Listener,
    pub rights: Rights,
    pub tls: TlsPolicy,
}

/// None of the sockets of `[web] bind to` could be opened.
#[derive(Debug, thiserror::Error)]
#[error("LISTENER: Cannot listen on any API socket. Exiting...")]
pub struct NoSockets;

/// Opens the ports of `[web] bind to`. What fails is logged, and the others go on.
pub fn open_ports(options: &Options) -> Result<Vec<Port>, NoSockets> {
    let mut ports = Vec::new();
    for item in &options.bind {
        let rights = item.allowed.as_ref().map_or(Rights::all(), |words| granted(words));
        for opened in listen(item, options.backlog) {
            match opened {
                Ok(listener) => ports.push(Port { listener, rights, tls: item.tls }),
                Err(error) => {
                    log::error!("LISTENER: cannot listen on {error}: {}", error.source);
                }
            }
        }
    }
    if ports.is_empty() { Err(NoSockets) } else { Ok(ports) }
}

/// Words nobody knows grant nothing.
fn granted(words: &[String]) -> Rights {
    words.iter().fold(Rights::empty(), |rights, word| {
        rights
            | match word.as_str() {
                "dashboard" => Rights::DASHBOARD,
                "registry" => Rights::REGISTRY,
                "badges" => Rights::BADGES,
                "management" => Rights::MANAGEMENT,
                "streaming" => Rights::STREAMING,
                "netdata.conf" => Rights::NETDATA_CONF,
                _ => Rights::empty(),
            }
    })
}

/// A running web server.
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the acceptor and the connections share.
pub(super) struct Shared {
    pub(super) agent: Arc<Agent>,
    pub(super) stop: StopToken,
    pub(super) compressors: Compressors,
    wake: EventFd,
    connections: AtomicU64,
    slots: Mutex<Slots>,
    all_gone: Condvar,
}

/// Numbers of threads, and how to end who has them.
#[derive(Default)]
struct Slots {
    taken: Vec<Option<Closer>>,
    free: BinaryHeap<Reverse<usize>>,
    live: usize,
}

impl Slots {
    fn take(&mut self, closer: Closer) -> usize {
        self.live += 1;
        if let Some(Reverse(slot)) = self.free.pop() {
            self.taken[slot] = Some(closer);
            return slot;
        }
        self.taken.push(Some(closer));
        self.taken.len() - 1
    }

    fn give_back(&mut self, slot: usize) {
        self.taken[slot] = None;
        self.free.push(Reverse(slot));
        self.live -= 1;
    }
}

impl Server {
    /// Starts to serve `ports`, until `stop` stops.
    pub fn start(agent: Arc<Agent>, ports: Vec<Port>, stop: &StopToken) -> io::Result<Server> {
        let shared = Arc::new(Shared {
            agent,
            stop: stop.clone(),
            compressors: Compressors::default(),
            wake: EventFd::new()?,
            connections: AtomicU64::new(0),
            slots: Mutex::default(),
            all_gone: Condvar::new(),
        });
        for port in &ports {
            log::info!("LISTENER: listening on {}", port.listener);
        }
        let accepting = Arc::clone(&shared);
        let acceptor = threads::spawn("WEB_SERVER[acceptor]", move || accepting.accept(ports))?;
        let waking = Arc::downgrade(&shared);
        stop.on_stop(move || {
            if let Some(shared) = waking.upgrade() {
                shared.wake.signal();
            }
        });
        Ok(Server { shared, acceptor: Some(acceptor) })
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.shared.slots.lock().live
    }

    /// After the stop: waits until every connection has ended, for `patience` at most. Returns how many have not.
    pub fn join(mut self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        if let Some(acceptor) = self.acceptor.take() {
            // It ends at the stop; a panic of it was reported when it happened.
            let _ = acceptor.join();
        }
        let shared = &self.shared;
        for closer in shared.closers() {
            closer.stop_reading();
        }
        let soon = deadline.min(Instant::now() + LAST_ANSWERS);
        if shared.wait_until_gone(soon) > 0 {
            for closer in shared.closers() {
                closer.close();
            }
        }
        // Whoever still works on an answer for nobody must not cost the other parts their time.
        shared.wait_until_gone(deadline.min(Instant::now() + LAST_ANSWERS))
    }
}

impl Shared {
    fn closers(&self) -> Vec<Closer> {
        self.slots.lock().taken.iter().flatten().cloned().collect()
    }

    fn wait_until_gone(&self, deadline: Instant) -> usize {
        let mut slots = self.slots.lock();
        while slots.live > 0 {
            if self.all_gone.wait_until(&mut slots, deadline).timed_out() {
                break;
            }
        }
        slots.live
    }

    fn accept(self: &Arc<Self>, ports: Vec<Port>) {
        let mut refusals = Refusals::default();
        while !self.stop.is_stopped() {
            let mut watched: Vec<Watched> =
                ports.iter().map(|p| Watched::new(p.listener.as_fd(), Interest::Read)).collect();
            watched.push(Watched::new(self.wake.as_fd(), Interest::Read));
            if let Err(error) = poll(&mut watched, None) {
                log::error!("LISTENER: cannot wait for connections: {error}");
                self.stop.wait(AFTER_AN_ERROR);
                continue;
            }
            for (port, watched) in ports.iter().zip(&watched) {
                if watched.is_readable() {
                    self.accept_from(port, &mut refusals);
                }
            }
        }
    }

    fn accept_from(self: &Arc<Self>, port: &Port, refusals: &mut Refusals) {
        for _ in 0..BATCH {
            match port.listener.accept() {
                Ok(connection) => self.welcome(connection, port, refusals),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        log::error!("LISTENER: cannot accept a connection: {error}");
                        self.stop.wait(AFTER_AN_ERROR);
                        return;
                    }
                },
            }
        }
    }

    fn welcome(self: &Arc<Self>, connection: Connection, port: &Port, refusals: &mut Refusals) {
        let agent = &self.agent;
        if agent.gate.now().lists.connections.by_address(connection.peer()) == Verdict::No {
            self.deny(&connection);
            return;
        }
        let slot = {
            let mut slots = self.slots.lock();
            if slots.live >= agent.options.sockets_max {
                drop(slots);
                refusals.refuse(self, "all 'web server max sockets' are in use");
                return;
            }
            slots.take(connection.closer())
        };
        let leave = Leave { shared: Arc::clone(self), slot };
        add(&agent.usage.clients, 1);
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (rights, tls) = (port.rights, port.tls);
        let started = threads::spawn(format!("WEB_SERVER[{slot}]"), move || {
            let leave = leave;
            Session::new(&leave.shared, connection, rights, tls, number).run();
        });
        if let Err(error) = started {
            refusals.refuse(self, &format!("cannot start a thread: {error}"));
        }
    }

    pub(super) fn deny(&self, connection: &Connection) {
        add(&self.agent.usage.denied, 1);
        let peer = connection.peer();
        log::error!("Permission denied for client '{}', port '{}'", peer.ip, peer.port);
    }
}

/// Frees the number of a thread however it ends.
struct Leave {
    shared: Arc<Shared>,
    slot: usize,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.agent.usage.clients.fetch_sub(1, Ordering::Relaxed);
        let mut slots = self.shared.slots.lock();
        slots.give_back(self.slot);
        if slots.live == 0 {
            self.shared.all_gone.notify_all();
        }
    }
}

/// Connections turned away since the log last told.
#[derive(Default)]
struct Refusals {
    untold: u64,
    told_us: Option<i64>,
}

impl Refusals {
    fn refuse(&mut self, shared: &Shared, why: &str) {
        add(&shared.agent.usage.refused, 1);
        self.untold += 1;
        let now = shared.agent.clock.monotonic_us();
        if self.told_us.is_none_or(|told| now - told >= COMPLAIN_EVERY_US) {
            let (count, max) = (self.untold, shared.agent.options.sockets_max);
            log::error!("WEB_SERVER: refused {count} connections, {max} are allowed: {why}");
            self.untold = 0;
            self.told_us = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_free_number_is_given_first() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let closer = Connection::unix(here).unwrap().closer();
        let mut slots = Slots::default();
        assert_eq!([slots.take(closer.clone()), slots.take(closer.clone())], [0, 1]);
        slots.give_back(0);
        assert_eq!((slots.live, slots.take(closer.clone()), slots.take(closer)), (1, 0, 2));
    }

    #[test]
    fn words_of_a_port_grant_what_they_name() {
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            granted(&words("dashboard|netdata.conf")),
            Rights::DASHBOARD | Rights::NETDATA_CONF
        );
        assert_eq!(granted(&words("nosuch")), Rights::empty());
    }
}
