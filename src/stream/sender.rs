//! The sender of one host: finds a parent, agrees with it, and empties the host's outbox into the connection.
//!
//! One thread per host streamed out, `STREAM_SENDER[host]`. It alone touches the socket; collectors only fill the
//! [`Uplink`] and wake it. Which parent comes next is decided by [`Parents`]; what the parent says is read here. A slow
//! or silent parent makes this thread wait, never a collector.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::Streams;
use super::link::{Above, OFFER_AFTER_US};
use super::liveness::Rhythm;
use super::outgoing::Outgoing;
use super::parents::{Failure, Parent, Parents};
use super::path;
use super::puller::Puller;
use super::receiver::Child;
use super::replication::read_ask;
use super::status::{Connection as Status, Direction, Filling, State};
use super::uplink::{ByContent, Content, Taken, Uplink, UplinkOptions, announce};
use super::workers::{Asked, Outlet};
use crate::access_log;
use crate::base::log::Errno;
use crate::base::pattern::SimplePattern;
use crate::base::stats::{STATS, count};
use crate::base::sys::{self, Interest, Watched};
use crate::base::threads::StopToken;
use crate::base::time::{Clock, MICROS};
use crate::ingest::executor::Executor;
use crate::metrics::{
    Chart, Function, FunctionAnswer, FunctionCall, FunctionProvider, FunctionTicket, Host,
    HostInfo, HostKind, Neighbour, Progress, Tap, called,
};
use crate::net::listen::Place;
use crate::net::tls::{ClientOptions, TlsError};
use crate::net::{Connection, Destination, dial};
use crate::storage::Mode;
use crate::wire::caps::Capabilities;
use crate::wire::compression::Levels;
use crate::wire::handshake::{FACTS, Request, Response};
use crate::wire::numbers;
use crate::wire::pluginsd::{self, Scope};
use crate::wire::words::{Lines, Rules, Words};

/// What a parent may say at most before it takes or refuses us.
const RESPONSE_MAX: usize = 8192;
/// Read at once from a parent, which says little.
const COMMANDS_READ: usize = 4096;
/// A JSON block or a function's payload from a parent, as a whole.
const PAYLOAD_MAX: usize = 1 << 20;
/// Calls that a parent may take back or ask for their progress; older ones run to their end.
const CALLS_KEPT: usize = 256;
/// Slow changes (labels, functions, variables, the path) are looked for this often.
const LOOK_EVERY_US: i64 = 9 * MICROS / 10;
/// A look waits this long for samples to be sent at the same time: a child that collects every second wakes once for both.
const LOOK_SLACK_US: i64 = 3 * MICROS / 10;
/// What is held of hosts that are not here is compared once our own connection has stood for so long.
const COMPARE_AFTER_US: i64 = 10 * MICROS;
/// A comparison is over when nothing was said for so long.
const QUIET_US: i64 = 10 * MICROS;
/// A chart that was collected within so many of its intervals is collected just now.
const FLOWS_INTERVALS: i64 = 3;
/// A parent that gave signs of life, as ours do, and gives none for so long hangs or is cut off: if there is another
/// destination, that one is tried.
const MISSED_US: i64 = 5 * MICROS;
/// Signs after which more of them are expected.
const SIGNS_KNOWN: u32 = 3;
/// A link that was lost sooner than this after it stood is not made anew at once.
const FLAP: Duration = Duration::from_secs(1);

/// When the kernel asks a silent parent's machine whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// What a sender is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The host's samples as they come, and what the parent lacks.
    Live,
    /// The host is not here: what both hold of it is compared once, with a parent of ours.
    Past,
}

/// How a host is sent, as configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderPlan {
    pub destinations: Vec<Destination>,
    pub default_port: u16,
    pub api_key: String,
    /// `send charts matching`
    pub charts: String,
    pub buffer_bytes: usize,
    pub resync_iterations: i64,
    pub timeout: Duration,
    pub reconnect_delay: Duration,
    /// Our own, also for hosts we only pass on.
    pub update_every: i64,
    pub offered: Capabilities,
    pub levels: Levels,
    /// For destinations that ask for TLS.
    pub tls: ClientOptions,
}

impl SenderPlan {
    pub(super) fn uplink(&self) -> UplinkOptions {
        UplinkOptions {
            charts: SimplePattern::new(&self.charts),
            buffer_bytes: self.buffer_bytes,
            resync_iterations: self.resync_iterations,
        }
    }

    /// A connection that was made by this plan is one that `other` would make: it goes on when the plan changes. Times
    /// and the list's order are of no matter to it, as long as its parent stands in the list.
    pub(super) fn keeps(&self, other: &SenderPlan, parent: &str) -> bool {
        let to =
            |plan: &SenderPlan| plan.destinations.iter().find(|one| one.text == parent).cloned();
        let what_matters = |plan: &SenderPlan| SenderPlan {
            destinations: Vec::new(),
            default_port: 0,
            timeout: Duration::ZERO,
            reconnect_delay: Duration::ZERO,
            ..plan.clone()
        };
        let same_parent = to(self).zip(to(other)).is_some_and(|(a, b)| a == b);
        same_parent && what_matters(self) == what_matters(other)
    }
}

/// Where a sender stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderState {
    #[default]
    Connecting,
    Online,
    Stopped,
}

/// What is known about a sender, for the API.
#[derive(Clone, Debug, Default)]
pub struct SenderStatus {
    pub state: SenderState,
    /// Unix seconds of the last change of state.
    pub since: i64,
    /// The destination in use or tried last.
    pub destination: String,
    pub local: String,
    pub remote: String,
    pub agreed: Capabilities,
    /// Bytes sent on this connection.
    pub sent: u64,
    /// These by what they hold: as much of them as it was of what was put in.
    pub sent_of: ByContent,
    /// Connections that were accepted by a parent.
    pub connections: u64,
    /// Why the last connection ended.
    pub reason: Option<&'static str>,
    pub parents: Vec<Parent>,
}

/// Bytes as they were sent, shared out as the bytes that were to be sent were; their sum is `sent`.
fn shared_out(sent: u64, put: ByContent) -> ByContent {
    let all = put.iter().map(|bytes| u128::from(*bytes)).sum::<u128>().max(1);
    let share = |bytes: u64| (u128::from(sent) * u128::from(bytes) / all) as u64;
    let mut shares = put.map(share);
    let rounded = sent - shares.iter().sum::<u64>();
    shares[Content::Data as usize] += rounded;
    shares
}

/// A host's sender as the rest of the agent sees it.
pub struct Sender {
    uplink: Arc<Uplink>,
    purpose: Purpose,
    /// As configuration has it now; the thread takes it over when `is_replanned`.
    plan: Mutex<Arc<SenderPlan>>,
    is_replanned: AtomicBool,
    stop: StopToken,
    status: Mutex<SenderStatus>,
    sent: AtomicU64,
    /// Bytes the parent has sent on this connection.
    heard: AtomicU64,
    /// Times the outbox overflowed.
    drops: AtomicU64,
    /// This end of the connection that stands.
    above: Mutex<Option<Arc<Above>>>,
    /// Something slow changed: the parent should not have to wait for it.
    changed: AtomicBool,
}

impl Sender {
    pub(super) fn new(
        uplink: Arc<Uplink>,
        plan: SenderPlan,
        purpose: Purpose,
        stop: StopToken,
    ) -> Arc<Sender> {
        let status = Mutex::default();
        Arc::new(Sender {
            uplink,
            purpose,
            plan: Mutex::new(Arc::new(plan)),
            is_replanned: AtomicBool::new(false),
            stop,
            status,
            sent: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            drops: AtomicU64::new(0),
            above: Mutex::default(),
            changed: AtomicBool::new(false),
        })
    }

    pub fn host(&self) -> &Arc<Host> {
        self.uplink.host()
    }

    /// This end of the connection, if one stands.
    pub fn above(&self) -> Option<Arc<Above>> {
        self.above.lock().clone()
    }

    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// How the host is sent, as configuration has it.
    pub(super) fn plan(&self) -> Arc<SenderPlan> {
        Arc::clone(&self.plan.lock())
    }

    /// Sends otherwise from now on: over the connection that stands, if the new plan keeps it.
    pub(super) fn replan(&self, plan: Arc<SenderPlan>) {
        *self.plan.lock() = plan;
        self.is_replanned.store(true, Ordering::Release);
        self.uplink.wake();
    }

    pub fn status(&self) -> SenderStatus {
        let mut status = self.status.lock().clone();
        status.sent = self.sent.load(Ordering::Relaxed);
        status.sent_of = shared_out(status.sent, self.uplink.put());
        status
    }

    /// How the connection stands.
    pub fn connection(&self, now: i64) -> Status {
        let status = self.status();
        let since = status.since;
        let up = status.state == SenderState::Online;
        let above = self.above();
        let puller = above.as_ref().and_then(|above| above.puller.as_ref());
        let progress = puller.map(|puller| puller.progress()).unwrap_or_default();
        Status {
            state: match status.state {
                SenderState::Online => State::of(&progress),
                SenderState::Connecting => State::Connecting,
                SenderState::Stopped => State::Off,
            },
            reason: status.reason,
            local: status.local,
            remote: if up { status.remote } else { status.destination },
            agreed: status.agreed,
            bytes_out: status.sent,
            bytes_in: self.heard.load(Ordering::Relaxed),
            reconnects: status.connections.saturating_sub(1),
            drops: self.drops.load(Ordering::Relaxed),
            filling: if up { Filling::of(&progress, now - since) } else { Filling::default() },
            ..Status::none(Direction::Sending, since)
        }
    }

    /// Bytes in the outbox, and how many there may be.
    pub fn queued(&self) -> (usize, usize) {
        self.uplink.queued()
    }

    /// Labels, the claim id or the streaming path of the host changed: the parent hears of it now.
    pub(super) fn nudge(&self) {
        self.changed.store(true, Ordering::Release);
        self.uplink.wake();
    }

    /// Takes no more data and lets the thread end.
    pub(super) fn stop(&self) {
        let tap = Arc::as_ptr(&self.uplink).cast::<()>();
        if self.host().tap().is_some_and(|now| Arc::as_ptr(&now).cast::<()>() == tap) {
            self.host().set_tap(None);
        }
        self.stop.stop();
    }

    /// The thread's whole life.
    pub(super) fn run(&self, streams: &Arc<Streams>) {
        let waker = Arc::clone(&self.uplink);
        self.stop.on_stop(move || waker.wake());
        let host = self.host().hostname();
        log::info!("STREAM {host} [send]: thread created (task id {})", sys::thread_id());
        log::error!("STREAM {host} [send]: not ready - collected metrics are not sent to parent.");
        let plan = self.plan();
        let (chance, _) = Uuid::new_v4().as_u64_pair();
        let mut thread = Thread {
            sender: self,
            streams,
            clock: streams.clock().clone(),
            parents: Parents::new(plan.destinations.clone(), plan.default_port, chance),
            told: Told::default(),
            offered: plan.offered,
            plan,
        };
        thread.name_destinations();
        while !self.stop.is_stopped() {
            thread.adopt();
            let pause = match thread.connect() {
                Some(link) => thread.stream(link),
                None => thread.parents.pause(thread.plan.reconnect_delay),
            };
            // A comparison that failed is made again with our next connection.
            if self.purpose == Purpose::Past || (!pause.is_zero() && self.stop.wait(pause)) {
                break;
            }
        }
        thread.publish(|status, _| status.state = SenderState::Stopped);
        log::info!("STREAM {host} [send]: sending thread now exits.");
    }
}

/// A connection whose parent took us.
struct Link {
    connection: Connection,
    destination: Destination,
    agreed: Capabilities,
}

struct Thread<'a> {
    sender: &'a Sender,
    streams: &'a Arc<Streams>,
    clock: Clock,
    parents: Parents,
    told: Told,
    /// What it works by.
    plan: Arc<SenderPlan>,
    /// Without the compressions that failed.
    offered: Capabilities,
}

/// Slow facts as the parent knows them.
#[derive(Default)]
struct Told {
    labels_version: i64,
    claim: Option<String>,
    functions: Vec<Arc<Function>>,
    variables: Vec<(Arc<str>, f64)>,
    path_version: u64,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("stopped")]
    Stop,
    #[error("what is held of the host is the same at both ends.")]
    Compared,
    #[error("connection closed by far end.")]
    Closed,
    #[error("error during receive ({}) - closing connection.", .0.raw_os_error().unwrap_or(-1))]
    Receive(io::Error),
    #[error(
        "failed to send metrics - closing connection - we have sent {sent} bytes on this connection."
    )]
    Send { sent: u64, source: io::Error },
    #[error(
        "could not send metrics for {seconds} seconds - closing connection - we have sent {sent} bytes on this connection via {attempts} send attempts."
    )]
    Stalled { seconds: u64, sent: u64, attempts: u64 },
    #[error("the parent has given no sign of life for {seconds} seconds - closing connection.")]
    Missed { seconds: i64 },
    #[error(
        "buffer full (allocated {allocated} bytes) after sending {sent} bytes. Restarting connection"
    )]
    Overflow { allocated: usize, sent: u64 },
    #[error("cannot compress what is to be sent.")]
    Compression { source: io::Error },
    #[error("the configuration has changed - connecting anew.")]
    Replanned,
}

impl End {
    /// The word of `/api/v2/node_instances`.
    fn reason(&self) -> &'static str {
        match self {
            End::Stop | End::Compared | End::Replanned => "DISCONNECTED SHUTDOWN REQUESTED",
            End::Closed => "DISCONNECTED SOCKET CLOSED BY REMOTE END",
            End::Receive(_) => "DISCONNECTED SOCKET READ FAILED",
            End::Send { .. } => "DISCONNECTED SOCKET WRITE FAILED",
            End::Stalled { .. } | End::Missed { .. } => "DISCONNECTED TIMEOUT",
            End::Overflow { .. } => "DISCONNECTED NOT SUFFICIENT SEND BUFFER",
            End::Compression { .. } => "INTERNAL ERROR",
        }
    }
}

impl Thread<'_> {
    fn host(&self) -> &Arc<Host> {
        self.sender.host()
    }

    fn publish(&self, change: impl FnOnce(&mut SenderStatus, i64)) {
        let mut status = self.sender.status.lock();
        change(&mut status, self.clock.now_seconds().0);
        status.parents = self.parents.list().to_vec();
    }

    // --- the plan --------------------------------------------------------------------------------------

    fn name_destinations(&self) {
        let host = self.host().hostname();
        for (destination, number) in self.plan.destinations.iter().zip(1..) {
            log::info!(
                "STREAM: added streaming destination No {number}: '{destination}' to host '{host}'"
            );
        }
    }

    /// Works by the plan that is in force now. A connection must not stand, or be kept by it.
    fn adopt(&mut self) {
        if !self.sender.is_replanned.swap(false, Ordering::AcqRel) {
            return;
        }
        let (plan, old) = (self.sender.plan(), Arc::clone(&self.plan));
        self.plan = Arc::clone(&plan);
        if plan.destinations != old.destinations {
            self.name_destinations();
        }
        // Who refused us before may take us now.
        let forgives = (&plan.api_key, &plan.tls) != (&old.api_key, &old.tls);
        self.parents.replace(plan.destinations.clone(), plan.default_port, forgives);
        if plan.offered != old.offered {
            self.offered = plan.offered;
        }
        self.sender.uplink.set_options(plan.uplink());
    }

    // --- finding a parent ----------------------------------------------------------------------------

    /// One pass over the destinations, ended by the first that takes us.
    fn connect(&mut self) -> Option<Link> {
        let host = self.host().hostname();
        let (tries, skipped) = self.parents.pass(self.clock.now_seconds().0);
        for skip in skipped {
            log::info!("STREAM {host}: {skip}");
        }
        let mut unreachable = None;
        let last_resort = self.parents.last_resort(self.clock.now_seconds().0);
        for destination in tries.into_iter().chain(last_resort) {
            if self.sender.stop.is_stopped() {
                return None;
            }
            if let Some(failure) = self.streams.passed_already(self.host(), &destination)
                && !self.parents.is_to_be_asked(&destination, self.clock.now_seconds().0)
            {
                // Who has our samples from the one we have them from is not asked again and again. That is a belief, so it is
                // asked at times all the same.
                if self.parents.stands_by(&destination, failure, self.clock.now_seconds().0) {
                    log::info!(
                        "STREAM {host} [send to {destination}]: not connecting, as its samples come from there."
                    );
                }
                self.publish(|status, _| status.reason = Some(failure.reason()));
                continue;
            }
            log::info!(
                "STREAM {host}: attempting to connect to '{destination}' (default port: {})...",
                self.parents.default_port()
            );
            count(&STATS.streams.attempts);
            self.parents.trying(&destination, self.clock.now_seconds().0);
            self.publish(|status, _| status.destination.clone_from(&destination.text));
            let (timeout, stop) = (self.plan.timeout, &self.sender.stop);
            let dialled = dial(&destination.place, timeout, stop, |error| {
                log::error!("{error}{}", Errno(error.reason()));
            });
            match dialled {
                Ok(connection) => {
                    self.parents.reached(&destination);
                    if let Some(link) = self.agree(connection, destination) {
                        return Some(link);
                    }
                    unreachable = None;
                }
                Err(_) => {
                    count(&STATS.streams.unreachable);
                    unreachable = Some(destination);
                }
            }
        }
        if let Some(destination) = unreachable {
            log::error!(
                "STREAM {host} [send to {destination}]: could not connect to parent node at this time."
            );
            self.publish(|status, _| status.reason = Some("CANT CONNECT"));
        }
        None
    }

    /// The handshake: one request, one response.
    fn agree(&mut self, connection: Connection, destination: Destination) -> Option<Link> {
        let to = format!("STREAM {} [send to {destination}]", self.host().hostname());
        log::info!("{to}: initializing communication...");
        let asked = self.secure(connection, &destination).and_then(|c| self.ask(c, &to));
        match asked {
            Ok((connection, agreed)) => {
                log::info!("{to}: established link with negotiated capabilities: {agreed}");
                log::info!("{to}: enabling metrics streaming...");
                self.parents.accepted(&destination);
                Some(Link { connection, destination, agreed })
            }
            Err(failure) => {
                count(&STATS.streams.refused);
                match failure {
                    Failure::SendTimeout => {
                        log::error!("{to}: failed to send HTTP header to remote netdata.");
                    }
                    Failure::NoResponse => log::error!("{to}: remote netdata does not respond."),
                    _ => log::error!("{to}: {}.", failure.text()),
                }
                self.parents.failed(&destination, failure, self.clock.now_seconds().0);
                self.publish(|status, _| status.reason = Some(failure.reason()));
                None
            }
        }
    }

    /// The handshake of TLS, where the destination asks for it.
    fn secure(
        &self,
        mut connection: Connection,
        destination: &Destination,
    ) -> Result<Connection, Failure> {
        if !destination.tls {
            return Ok(connection);
        }
        let host = match &destination.place {
            // As for dialling: no name is this machine.
            Place::Net { host, .. } if host.is_empty() => "localhost",
            Place::Net { host, .. } => host,
            Place::Unix(_) => "",
        };
        let (plan, stop) = (&self.plan, &self.sender.stop);
        match connection.connect_tls(&plan.tls, host, plan.timeout, stop) {
            Ok(()) => Ok(connection),
            Err(error @ TlsError::Certificate(_)) => {
                log::error!(
                    "Closing the stream connection, because the server SSL certificate is not valid. ({error})"
                );
                Err(Failure::Certificate)
            }
            Err(error) => {
                log::error!("SSL cannot connect with the server:  {error} ");
                Err(Failure::Tls)
            }
        }
    }

    fn ask(
        &self,
        mut connection: Connection,
        to: &str,
    ) -> Result<(Connection, Capabilities), Failure> {
        let timeout = self.plan.timeout;
        let mut offered = self.offered;
        let host = self.host();
        if host.settings().mode == Mode::None
            && host.kind() == HostKind::Child
            && past_is_with(self.streams, host).is_none()
        {
            // Nobody could answer.
            offered.remove(Capabilities::REPLICATION);
        }
        let mut head = Vec::new();
        self.request(offered).put(&mut head);
        let sent = connection.set_write_timeout(timeout).and_then(|()| connection.write_all(&head));
        sent.and_then(|()| connection.set_nonblocking(true)).map_err(|_| Failure::SendTimeout)?;
        log::info!("{to}: waiting response from remote netdata...");
        let timeout_us = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
        let deadline = self.clock.monotonic_us().saturating_add(timeout_us);
        // What one receive brings is the whole response: it has no end mark.
        let mut response = vec![0; RESPONSE_MAX];
        let length = loop {
            let left = deadline - self.clock.monotonic_us();
            if left <= 0 || self.sender.stop.is_stopped() {
                return Err(Failure::NoResponse);
            }
            let mut watched = [
                Watched::new(connection.as_fd(), Interest::Read),
                Watched::new(self.sender.uplink.wake_fd(), Interest::Read),
            ];
            let wait = Duration::from_micros(left.unsigned_abs());
            if sys::poll(&mut watched, Some(wait)).is_err() {
                return Err(Failure::NoResponse);
            }
            if watched[1].is_readable() {
                self.sender.uplink.acknowledge_wake();
            }
            if watched[0].is_readable() {
                match connection.read(&mut response) {
                    // TLS has something to say of its own.
                    Err(error) if is_not_now(&error) => {}
                    Ok(0) | Err(_) => return Err(Failure::NoResponse),
                    Ok(length) => break length,
                }
            }
        };
        match Response::parse(&response[..length], offered) {
            Response::Prompt(agreed) => {
                // Without these a parent whose machine is gone is only noticed when the buffers are full.
                let _ = connection.set_user_timeout(timeout);
                let _ =
                    connection.set_keepalive(KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES);
                Ok((connection, agreed))
            }
            Response::Refused(refusal) => Err(refusal.into()),
            Response::NotUnderstood => Err(Failure::NotUnderstood),
        }
    }

    fn request(&self, offered: Capabilities) -> Request {
        let info = self.host().info();
        Request {
            key: self.plan.api_key.clone(),
            machine_guid: self.host().guid().to_string(),
            update_every: Some(self.plan.update_every),
            version: Some(i64::from(offered.bits())),
            past: self.sender.purpose == Purpose::Past,
            ..request_about(&info)
        }
    }

    // --- a connection's life ---------------------------------------------------------------------------

    /// Sends until the connection is over; gives the pause before the next one.
    fn stream(&mut self, mut link: Link) -> Duration {
        let to = format!("STREAM {} [send to {}]", self.host().hostname(), link.destination);
        let began = self.clock.monotonic_us();
        let host = Arc::clone(self.host());
        self.told = Told::default();
        let uplink = Arc::clone(&self.sender.uplink);
        // Made before the outbox is locked: collectors never wait for it.
        let mut first = Vec::new();
        self.news(&mut first, link.agreed, Moment::First);
        let number = uplink.open(link.agreed, |out| out.append(&mut first));
        self.sender.sent.store(0, Ordering::Relaxed);
        self.sender.heard.store(0, Ordering::Relaxed);
        self.publish(|status, now| {
            status.state = SenderState::Online;
            status.since = now;
            status.connections += 1;
            status.agreed = link.agreed;
            status.local = link.connection.local().map(|a| a.to_string()).unwrap_or_default();
            status.remote = link.connection.peer().to_string();
            status.reason = None;
        });
        if !link.agreed.intersects(Capabilities::COMPRESSIONS) {
            log::info!(
                "{to}: Stream is uncompressed! One of the agents ({} <-> {}) does not support compression OR compression is disabled.",
                host.hostname(),
                link.destination
            );
        }
        log::info!("STREAM {} [send]: sending metrics to parent...", host.hostname());
        count(&STATS.streams.parents);
        let end = self.pump(&mut link, number, &to);
        STATS.streams.parents.fetch_sub(1, Ordering::Relaxed);
        match &end {
            End::Stop | End::Compared | End::Replanned => {}
            End::Overflow { .. } => {
                self.sender.drops.fetch_add(1, Ordering::Relaxed);
                count(&STATS.streams.overflow);
            }
            _ => count(&STATS.streams.lost),
        }
        match &end {
            End::Stop => {}
            End::Compared | End::Replanned => log::info!("{to}: {end}"),
            End::Send { source, .. } => log::error!("{to}: {end}{}", Errno(source)),
            End::Receive(source) => log::error!("{to}: {end}{}", Errno(source)),
            End::Compression { source } => {
                self.offered -= link.agreed & Capabilities::COMPRESSIONS;
                log::error!("STREAM_COMPRESSION: Compression returned error, disabling it.");
                log::error!(
                    "STREAM_COMPRESSION {} [send to {}]: Restarting connection without compression.{}",
                    host.hostname(),
                    link.destination,
                    Errno(source)
                );
            }
            _ => log::error!("{to}: {end}"),
        }
        uplink.close();
        let above = self.sender.above.lock().take();
        if let Some(above) = above {
            above.digests.close();
            above.let_go();
        }
        self.publish(|status, now| {
            status.state = SenderState::Connecting;
            status.since = now;
            status.agreed = Capabilities::empty();
            status.reason = Some(end.reason());
        });
        self.streams.parent_left(&host);
        let lived = Duration::from_micros((self.clock.monotonic_us() - began).unsigned_abs());
        if lived < FLAP { FLAP.min(self.plan.reconnect_delay) } else { Duration::ZERO }
    }

    fn pump(&mut self, link: &mut Link, number: u32, to: &str) -> End {
        let uplink = Arc::clone(&self.sender.uplink);
        let mut outgoing = match Outgoing::new(link.agreed, self.plan.levels) {
            Ok(outgoing) => outgoing,
            Err(source) => return End::Compression { source },
        };
        let (mut sent, mut attempts) = (0u64, 0u64);
        let mut progress_us = self.clock.monotonic_us();
        let began_us = progress_us;
        let mut heard_us = progress_us;
        let mut rhythm = Rhythm::new(progress_us);
        // Empty lines, which say nothing else.
        let mut signs = 0;
        let mut look_us = progress_us + LOOK_EVERY_US;
        let above = Arc::new(self.above(number, link.agreed));
        *self.sender.above.lock() = Some(Arc::clone(&above));
        let asked = Asked::new(self.streams.workers(), Arc::clone(&above) as Arc<dyn Outlet>);
        let asked = Arc::new(asked);
        let questioned = Arc::clone(&asked);
        let back = above.reader(link.agreed, move |question| questioned.question(question));
        let mut commands = Commands::new(link, number, Arc::clone(self.host()), asked, back);
        let is_ours = link.agreed.contains(Capabilities::SPANS);
        let mut offer_us = is_ours.then_some(progress_us + OFFER_AFTER_US);
        let mut introduced = self.charts_that_flow(link.agreed);
        let mut read = vec![0; COMMANDS_READ];
        let timeout_us = i64::try_from(self.plan.timeout.as_micros()).unwrap_or(i64::MAX);
        loop {
            while uplink.has_room(number)
                && let Some(chart) = introduced.pop_front()
            {
                uplink.caught_up(&chart, &mut chart.lock());
            }
            // Everything there is, as far as the socket takes it.
            let is_done = loop {
                let is_done = loop {
                    let bytes = match outgoing.next() {
                        Ok([]) => break true,
                        Ok(bytes) => bytes,
                        Err(source) => return End::Compression { source },
                    };
                    match link.connection.write(bytes) {
                        Ok(0) => return End::Closed,
                        Ok(length) => {
                            outgoing.sent(length);
                            sent += length as u64;
                            STATS.streams.sent_bytes.fetch_add(length as u64, Ordering::Relaxed);
                            attempts += 1;
                            self.sender.sent.store(sent, Ordering::Relaxed);
                            progress_us = self.clock.monotonic_us();
                        }
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break false,
                        Err(source) => return End::Send { sent, source },
                    }
                };
                let taken = outgoing.refill(&uplink);
                match taken {
                    Taken::Overflow { allocated } => return End::Overflow { allocated, sent },
                    Taken::Bytes => commands.asked.has_room(),
                    Taken::Nothing => break is_done,
                }
            };
            if is_done {
                commands.asked.has_room();
            }
            if self.sender.stop.is_stopped() {
                return End::Stop;
            }
            if self.sender.is_replanned.load(Ordering::Acquire) {
                if !self.plan.keeps(&self.sender.plan(), &link.destination.text) {
                    return End::Replanned;
                }
                self.adopt();
            }
            let now_us = self.clock.monotonic_us();
            if now_us >= look_us || self.sender.changed.swap(false, Ordering::AcqRel) {
                look_us = now_us + LOOK_EVERY_US;
                above.rest(&self.clock);
                let agreed = link.agreed;
                self.touch_charts_with_new_functions(agreed);
                let mut news = Vec::new();
                self.news(&mut news, agreed, Moment::Later);
                uplink.push(number, Content::Metadata, |out| out.append(&mut news));
                self.streams.look_for_virtual_hosts(self.host());
                if is_ours && now_us - began_us > COMPARE_AFTER_US {
                    self.streams.compare_the_past(self.host(), u64::from(number));
                }
            }
            if self.sender.purpose == Purpose::Past
                && (!is_ours || (now_us - heard_us > QUIET_US && above.is_settled() && is_done))
                && commands.asked.waiting() == 0
            {
                return End::Compared;
            }
            if is_done {
                progress_us = now_us;
            } else if now_us - progress_us > timeout_us {
                let seconds = self.plan.timeout.as_secs();
                return End::Stalled { seconds, sent, attempts };
            }
            if offer_us.is_some_and(|at| now_us >= at) {
                offer_us = None;
                commands.asked.offer();
            }
            let wait_us = if above.more() { 0 } else { (look_us + LOOK_SLACK_US - now_us).max(0) };
            let wants = if is_done { Interest::Read } else { Interest::ReadWrite };
            let mut watched = [
                Watched::new(link.connection.as_fd(), wants),
                Watched::new(uplink.wake_fd(), Interest::Read),
            ];
            let wait = Duration::from_micros(wait_us.unsigned_abs());
            if let Err(error) = sys::poll(&mut watched, Some(wait)) {
                return End::Receive(error);
            }
            if watched[1].is_readable() {
                uplink.acknowledge_wake();
            }
            // By the time before the look at the socket: should this process have been stopped meanwhile, what came is there.
            let expects = signs >= SIGNS_KNOWN && self.plan.destinations.len() > 1;
            if expects && !watched[0].is_readable() && rhythm.is_missed(now_us, MISSED_US) {
                return End::Missed { seconds: rhythm.age(now_us) / MICROS };
            }
            // To the last byte: what TLS has decrypted already makes no socket readable.
            while watched[0].is_readable() {
                match link.connection.read(&mut read) {
                    Ok(0) => return End::Closed,
                    Ok(count) => {
                        heard_us = now_us;
                        rhythm.beat(self.clock.monotonic_us());
                        signs += u32::from(read[..count] == *b"\n");
                        self.sender.heard.fetch_add(count as u64, Ordering::Relaxed);
                        commands.feed(&read[..count], self.streams, &uplink, to);
                        if count < read.len() {
                            break;
                        }
                    }
                    Err(e) if is_not_now(&e) => break,
                    Err(error) => return End::Receive(error),
                }
            }
        }
    }

    /// Charts that are collected just now. A parent that asks before it gets live samples hears of them at once, so that
    /// it has asked by the time there are new ones.
    fn charts_that_flow(&self, agreed: Capabilities) -> VecDeque<Arc<Chart>> {
        if !agreed.contains(Capabilities::REPLICATION) {
            return VecDeque::new();
        }
        let now = self.clock.now_seconds();
        let flows = |chart: &Arc<Chart>| {
            let state = chart.lock();
            let lately = now - FLOWS_INTERVALS * state.meta.update_every.seconds();
            !state.is_obsolete() && state.last_updated.0 > 0 && state.last_updated >= lately
        };
        self.host().charts().into_iter().filter(flows).collect()
    }

    /// This end of the connection, as far as samples of the past go.
    fn above(&self, number: u32, agreed: Capabilities) -> Above {
        let streams = Arc::downgrade(self.streams);
        let filled = move |chart: &Chart| {
            if let Some(streams) = streams.upgrade() {
                streams.tell_child(chart);
            }
        };
        let puller =
            Puller::new(Neighbour::Parent, self.streams.own_policy(), self.clock.clone(), filled);
        let (streams, host) = (Arc::downgrade(self.streams), Arc::clone(self.host()));
        let past_is_with = move || past_is_with(&*streams.upgrade()?, &host);
        let uplink = Arc::clone(&self.sender.uplink);
        Above::new(uplink, number, agreed, puller, &self.clock, Box::new(past_is_with))
    }

    /// What changed since the parent was told, with everything at the first moment of a connection.
    fn news(&mut self, out: &mut Vec<u8>, agreed: Capabilities, moment: Moment) {
        let host = Arc::clone(self.sender.host());
        let variables = host.variables();
        // Variables keep their place and are never removed.
        for (at, (name, value)) in variables.iter().enumerate() {
            let old = self.told.variables.get(at).map(|(_, old)| old.to_bits());
            if old != Some(value.to_bits()) {
                pluginsd::variable(out, Scope::Host, name, *value);
            }
        }
        self.told.variables = variables;
        if agreed.contains(Capabilities::PATHS) {
            let version = self.streams.paths().version(host.guid());
            if moment == Moment::First || version != self.told.path_version {
                self.told.path_version = version;
                pluginsd::stream_path(out, self.streams.path_of(&host, agreed).as_bytes());
            }
        }
        if agreed.contains(Capabilities::CLAIM) {
            let claim = host.info().claim_id.clone();
            if moment == Moment::First || claim != self.told.claim {
                pluginsd::claimed_id(out, &host.guid().to_string(), claim.as_deref());
                self.told.claim = claim;
            }
        }
        if agreed.contains(Capabilities::HLABELS) {
            let version = host.labels_version();
            if moment == Moment::First || version != self.told.labels_version {
                self.told.labels_version = version;
                for label in host.labels().iter() {
                    let source = u32::from(label.source.0);
                    pluginsd::host_label(out, &label.name, &label.value, source);
                }
                pluginsd::overwrite_labels(out);
            }
        }
        if agreed.contains(Capabilities::FUNCTIONS) {
            self.news_of_functions(out, &host);
        }
    }

    /// A function of a chart is announced with the chart's definition, so that has to be sent again. Takes chart locks,
    /// so never to be called with the outbox locked.
    fn touch_charts_with_new_functions(&self, agreed: Capabilities) {
        if !agreed.contains(Capabilities::FUNCTIONS) {
            return;
        }
        for function in self.host().functions() {
            let new = !self.told.functions.iter().any(|known| Arc::ptr_eq(known, &function));
            if let Some(chart) = function.chart.as_deref().filter(|_| new)
                && let Some(chart) = self.host().chart(chart)
            {
                chart.lock().touch();
            }
        }
    }

    fn news_of_functions(&mut self, out: &mut Vec<u8>, host: &Arc<Host>) {
        let functions = host.functions();
        let told = &self.told.functions;
        if functions.len() == told.len()
            && functions.iter().zip(told).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return;
        }
        for function in &functions {
            if told.iter().any(|known| Arc::ptr_eq(known, function)) {
                continue;
            }
            if function.chart.is_none() {
                announce(out, function);
            }
        }
        self.told.functions = functions;
    }
}

/// The child that is asked for the past of a host, where this agent keeps none itself.
fn past_is_with(streams: &Streams, host: &Host) -> Option<Arc<Child>> {
    if host.settings().mode != Mode::None {
        return None;
    }
    streams.child(host.guid()).filter(|child| child.agreed.contains(Capabilities::REPLICATION))
}

/// How much of what there is to tell a parent has not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    First,
    Later,
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A request that says about a host what `info` does; what belongs to the connection is left out.
pub(super) fn request_about(info: &HostInfo) -> Request {
    let facts = FACTS.iter().filter_map(|fact| {
        let value = info.system.get(&*host_fact(fact))?;
        Some((*fact, value.clone()))
    });
    Request {
        hostname: info.hostname.clone(),
        registry_hostname: info.registry_hostname.clone(),
        os: info.os.clone(),
        timezone: info.timezone.clone(),
        abbrev_timezone: info.abbrev_timezone.clone(),
        utc_offset: Some(info.utc_offset),
        hops: Some(info.hops.saturating_add(1)),
        ml_capable: Some(i64::from(info.ml_capable)),
        ml_enabled: Some(i64::from(info.ml_enabled)),
        mc_version: Some(info.mc_version),
        tags: info.tags.clone(),
        facts: facts.collect(),
        program_name: info.program_name.clone(),
        program_version: info.program_version.clone(),
        ..Request::default()
    }
}

/// The name a host keeps a fact under: those of the operating system are spelled otherwise on the wire.
pub(super) fn host_fact(wire: &str) -> String {
    match wire.strip_prefix("NETDATA_SYSTEM_OS_") {
        Some(os) => format!("NETDATA_HOST_OS_{os}"),
        None => wire.to_owned(),
    }
}

// --- what a parent says --------------------------------------------------------------------------------

/// Reads the lines of a parent. Unknown and incomplete ones are logged and ignored, as every child does.
struct Commands {
    lines: Lines,
    rules: Rules,
    agreed: Capabilities,
    number: u32,
    destination: String,
    host: Arc<Host>,
    body: Option<Body>,
    /// Who answers `REPLAY_CHART`.
    asked: Arc<Asked>,
    /// Reads what a parent of ours says of samples.
    back: Option<Executor>,
    /// The latest calls, answered or not: what the parent may take back.
    calls: VecDeque<TakenCall>,
}

/// A call of the parent's that somebody has.
struct TakenCall {
    transaction: String,
    provider: Arc<dyn FunctionProvider>,
    ticket: FunctionTicket,
}

/// Lines that belong to a command before them.
struct Body {
    kind: BodyKind,
    bytes: Vec<u8>,
}

enum BodyKind {
    StreamPath,
    /// Of a JSON keyword or a payload that means nothing to us.
    Ignored,
    Payload {
        transaction: String,
        timeout: i64,
        command: String,
    },
}

impl Commands {
    fn new(
        link: &Link,
        number: u32,
        host: Arc<Host>,
        asked: Arc<Asked>,
        back: Option<Executor>,
    ) -> Commands {
        let later = link.agreed.contains(Capabilities::INTERPOLATED);
        Commands {
            lines: Lines::new(),
            rules: if later { Rules::Reply } else { Rules::Seed },
            agreed: link.agreed,
            number,
            destination: link.destination.text.clone(),
            host,
            body: None,
            asked,
            back,
            calls: VecDeque::new(),
        }
    }

    /// Where among the calls a transaction is.
    fn taken(&self, transaction: &str) -> Option<usize> {
        self.calls.iter().position(|call| call.transaction == transaction)
    }

    fn feed(&mut self, chunk: &[u8], streams: &Streams, uplink: &Arc<Uplink>, to: &str) {
        let mut lines = std::mem::take(&mut self.lines);
        let _ = lines.feed(chunk, |line| {
            self.line(line, streams, uplink, to);
            Ok::<_, std::convert::Infallible>(())
        });
        self.lines = lines;
    }

    fn line(&mut self, line: &[u8], streams: &Streams, uplink: &Arc<Uplink>, to: &str) {
        if let Some(body) = &mut self.body {
            let end: &[u8] = match body.kind {
                BodyKind::Payload { .. } => b"FUNCTION_PAYLOAD_END",
                _ => b"JSON_PAYLOAD_END",
            };
            if line.trim_ascii() == end {
                if let Some(body) = self.body.take() {
                    self.whole(body, streams, uplink);
                }
            } else if body.bytes.len() + line.len() < PAYLOAD_MAX {
                body.bytes.extend_from_slice(line);
                body.bytes.push(b'\n');
            }
            return;
        }
        let mut words = Words::new(line, self.rules);
        let Some(keyword) = words.next() else { return };
        let text = |word: Option<&[u8]>| String::from_utf8_lossy(word.unwrap_or(b"")).into_owned();
        match keyword {
            b"FUNCTION" => {
                self.log_access(line);
                let [transaction, timeout, command] = words.take_words();
                let timeout = numbers::integer(timeout.unwrap_or(b"")).unwrap_or(0);
                self.call(text(transaction), timeout, text(command), uplink);
            }
            b"FUNCTION_PAYLOAD" => {
                self.log_access(line);
                let [transaction, timeout, command] = words.take_words();
                let kind = BodyKind::Payload {
                    transaction: text(transaction),
                    timeout: numbers::integer(timeout.unwrap_or(b"")).unwrap_or(0),
                    command: text(command),
                };
                self.body = Some(Body { kind, bytes: Vec::new() });
            }
            b"JSON" => {
                let known = words.next() == Some(b"STREAM_PATH");
                let kind = if known { BodyKind::StreamPath } else { BodyKind::Ignored };
                self.body = Some(Body { kind, bytes: Vec::new() });
            }
            b"NODE_ID" => {
                let [_, node] = words.take_words();
                if let Ok(node) = crate::base::ids::parse_uuid(&text(node))
                    && !node.is_nil()
                {
                    self.host.update_info(|info| info.node_id = Some(node.to_string()));
                }
            }
            b"FUNCTION_CANCEL" => {
                self.log_access(line);
                if let Some(call) = self.taken(&text(words.next())) {
                    let call = self.calls.remove(call);
                    call.into_iter().for_each(|call| call.provider.cancel(&call.ticket));
                }
            }
            b"FUNCTION_PROGRESS" => {
                self.log_access(line);
                if let Some(call) = self.taken(&text(words.next())) {
                    let call = self.calls.get(call);
                    call.into_iter().for_each(|call| call.provider.ask_progress(&call.ticket));
                }
            }
            b"REPLAY_CHART" => {
                self.log_access(line);
                if let Some((id, ask)) = read_ask(words) {
                    self.asked.ask(id, ask);
                }
            }
            b"ARCHIVED" | b"ARCHIVED_DIM" | b"OFFER" | b"RBEGIN" | b"RSET" | b"REND"
            | b"DIGEST" | b"DIGEST_IS"
                if self.agreed.contains(Capabilities::SPANS) =>
            {
                let now = streams.clock().now();
                if let Some(back) = &mut self.back
                    && let Err(violation) = back.feed(line, now)
                {
                    log::error!("{to}: cannot take over what the parent holds: {violation}");
                    self.back = None;
                }
            }
            _ => {
                log::error!(
                    "{to}: received unknown command over connection: {}",
                    String::from_utf8_lossy(line)
                );
            }
        }
    }

    fn log_access(&self, line: &[u8]) {
        access_log!(
            "STREAM: {} from '{}' for host '{}': {}",
            sys::thread_id(),
            self.destination,
            self.host.hostname(),
            String::from_utf8_lossy(line)
        );
    }

    fn whole(&mut self, body: Body, streams: &Streams, uplink: &Arc<Uplink>) {
        match body.kind {
            BodyKind::StreamPath => streams.path_told(&self.host, path::From::Parent, &body.bytes),
            BodyKind::Payload { transaction, timeout, command } => {
                self.call(transaction, timeout, command, uplink);
            }
            BodyKind::Ignored => {}
        }
    }

    /// Runs a function of the host; the answer is sent whenever it comes, if this connection still stands then.
    fn call(&mut self, transaction: String, timeout: i64, command: String, uplink: &Arc<Uplink>) {
        if transaction.is_empty() || !self.agreed.contains(Capabilities::FUNCTIONS) {
            return;
        }
        let number = self.number;
        let progress = self.agreed.contains(Capabilities::PROGRESS).then(|| {
            let (uplink, transaction) = (Arc::clone(uplink), transaction.clone());
            let told = move |done, all| {
                uplink.push(number, Content::Functions, |out| {
                    pluginsd::function_progress(out, &transaction, done, all);
                });
            };
            Arc::new(told) as Progress
        });
        let (uplink, asked) = (Arc::clone(uplink), transaction.clone());
        let answer = move |answer: FunctionAnswer| {
            uplink.push(number, Content::Functions, |out| {
                let code = u32::from(answer.code);
                let kind = &answer.content_type;
                pluginsd::function_result(out, &asked, code, kind, answer.expires, &answer.body);
            });
        };
        let functions = self.host.functions();
        match called(&functions, &command) {
            Some(function) => {
                let seconds = u64::try_from(timeout).unwrap_or(0);
                let timeout =
                    if seconds == 0 { function.timeout } else { Duration::from_secs(seconds) };
                let answer = Box::new(answer);
                let call = FunctionCall { command, timeout, answer, progress };
                let ticket = function.provider.call(call);
                let provider = Arc::clone(&function.provider);
                if self.calls.len() == CALLS_KEPT {
                    self.calls.pop_front();
                }
                self.calls.push_back(TakenCall { transaction, provider, ticket });
            }
            None => answer(not_found(self.agreed)),
        }
    }
}

impl Drop for Commands {
    /// The parent is gone, and with it whoever waited.
    fn drop(&mut self) {
        self.calls.iter().for_each(|call| call.provider.cancel(&call.ticket));
    }
}

/// What each generation says about a function it does not have.
fn not_found(agreed: Capabilities) -> FunctionAnswer {
    let body = if agreed.contains(Capabilities::PROGRESS) {
        r#"{"status":404,"errorMessage":"This feature is not available on this host at this time."}"#
    } else {
        r#"{"status":404,"error_message":"Failed to route request to collector"}"#
    };
    FunctionAnswer {
        code: 404,
        content_type: "application/json".to_owned(),
        expires: 0,
        body: body.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::base::ids::MachineGuid;
    use crate::base::threads;
    use crate::base::time::UpdateEvery;
    use crate::config::{OnDemand, ReceiverDefaults, StreamConf};
    use crate::metrics::{HostSettings, Hosts};
    use crate::net::parse_destinations;
    use crate::storage::ring::RingEngine;

    /// What the log was told, by any test of this program.
    struct Said(Mutex<Vec<String>>);

    static SAID: Said = Said(Mutex::new(Vec::new()));

    impl log::Log for Said {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let line = record.args().to_string();
            if line.contains("ompression") {
                self.0.lock().push(line);
            }
        }

        fn flush(&self) {}
    }

    /// The next request's head.
    fn request(listener: &TcpListener) -> (TcpStream, String) {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|n| n == 1) {
            head.push(byte[0]);
        }
        (socket, String::from_utf8(head).unwrap())
    }

    fn offered(head: &str) -> Capabilities {
        let number = head.split("&ver=").nth(1).unwrap().split(['&', ' ']).next().unwrap();
        Capabilities::from_bits_truncate(number.parse().unwrap())
    }

    /// What becomes of a connection whose compression fails: it is made again, and what failed is not offered.
    #[test]
    fn a_compression_that_fails_is_not_offered_again() {
        let _ = log::set_logger(&SAID);
        log::set_max_level(log::LevelFilter::Info);
        let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 60));
        let local = Host::new(
            MachineGuid::random(),
            HostKind::Local,
            HostInfo::named("squeezed"),
            engine.clone(),
            HostSettings::default(),
        );
        let settings = super::super::Settings {
            update_every: UpdateEvery::clamped(1),
            gap_when_lost: 1,
            replication_threads: 1,
            engine: Box::new(move |_, _, _| engine.clone()),
            cache_dir: "/nonexistent".into(),
            lib_dir: "/nonexistent".into(),
        };
        let nowhere = std::path::Path::new("/nonexistent");
        let rules = super::super::Rules {
            conf: Arc::new(StreamConf::load(nowhere, nowhere)),
            defaults: ReceiverDefaults {
                mode: "ram".into(),
                history: 60,
                health: OnDemand::No,
                replication: true,
                seconds_to_replicate: 60,
                seconds_per_replication_step: 60,
            },
            accept_every: Duration::ZERO,
        };
        let (clock, stop) = (Clock::system(), StopToken::new());
        let streams = Streams::new(
            settings,
            rules,
            Hosts::new(Arc::clone(&local)),
            clock.clone(),
            stop.child(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let list = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let plan = SenderPlan {
            destinations: parse_destinations(&list, 19999),
            default_port: 19999,
            api_key: "11111111-2222-3333-4444-555555555555".into(),
            charts: "*".into(),
            buffer_bytes: 1 << 20,
            resync_iterations: 0,
            timeout: Duration::from_secs(10),
            reconnect_delay: Duration::from_millis(10),
            update_every: 1,
            offered: Capabilities::OFFERED,
            // None that configuration can give.
            levels: Levels { zstd: i32::MAX, ..Levels::default() },
            tls: ClientOptions::default(),
        };
        let uplink = Uplink::new(local, plan.uplink(), clock).unwrap();
        let sender = Sender::new(uplink, plan, Purpose::Live, stop.child());
        let running = {
            let (sender, streams) = (Arc::clone(&sender), Arc::clone(&streams));
            threads::spawn("sender", move || sender.run(&streams)).unwrap()
        };
        let takes = Capabilities::OFFERED - (Capabilities::COMPRESSIONS - Capabilities::ZSTD);
        let takes = takes - (Capabilities::V1 | Capabilities::V2 | Capabilities::VN);
        let (mut first, head) = request(&listener);
        assert!(offered(&head).contains(Capabilities::ZSTD), "{head}");
        let answer = "Hit me baby, push them over with the version=";
        first.write_all(format!("{answer}{}", takes.bits()).as_bytes()).unwrap();
        let (second, head) = request(&listener);
        let left = Capabilities::OFFERED & (Capabilities::COMPRESSIONS - Capabilities::ZSTD);
        assert_eq!(offered(&head) & Capabilities::COMPRESSIONS, left, "{head}");
        // The first one was closed, without a word that is no frame.
        first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
        let said = SAID.0.lock().clone();
        let restarts = format!(
            "STREAM_COMPRESSION squeezed [send to {list}]: Restarting connection without compression."
        );
        assert!(said.iter().any(|line| line.starts_with(&restarts)), "{said:?}");
        let returned = "STREAM_COMPRESSION: Compression returned error, disabling it.";
        assert!(said.iter().any(|line| line == returned), "{said:?}");
        stop.stop();
        drop(second);
        running.join().unwrap();
    }
}
