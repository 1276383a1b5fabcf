//! The receiver of one child: decides whether to take it, then reads its lines into the executor until it leaves.
//!
//! Called on the web server's thread of that connection, which becomes `STREAM_RECEIVER[host,[ip]:port]`. Only that
//! thread touches the socket; others leave letters in the child's [`Mailbox`]. A child that comes back takes the place
//! of its own dead connection within a second; one that is alive keeps its place.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::admission::{Forbidden, admit};
use super::fence;
use super::link::{Below, OFFER_AFTER_US};
use super::liveness::Rhythm;
use super::mailbox::Mailbox;
use super::pace::{self, Turn};
use super::path;
use super::penalty::Fault;
use super::puller::Puller;
use super::replication::{Ask, Policy};
use super::sender::host_fact;
use super::status::{Connection as Status, Direction, Filling, State};
use super::verify::{Digest, Question};
use super::workers::{Asked, Outlet};
use super::{Streams, health_word};
use crate::access_log;
use crate::base::ids::MachineGuid;
use crate::base::log::Errno;
use crate::base::stats::{STATS, count};
use crate::base::sys::{self, Interest, Watched};
use crate::base::threads::{self, StopToken};
use crate::base::time::{MICROS, UpdateEvery};
use crate::config::{OnDemand, ReceiverOptions, SharePast};
use crate::ingest::executor::{Executor, Hooks, Offer, Origin, Replayed, Setup, Violation};
use crate::ingest::functions::{CallWriter, Calls};
use crate::metrics::{Chart, HealthPolicy, Host, HostInfo, HostKind, HostSettings, Neighbour};
use crate::net::accept::{Admission, StreamAcceptor, StreamRequest};
use crate::net::{Closer, Connection, Health, Peer, buffers};
use crate::storage::Mode;
use crate::wire::caps::Capabilities;
use crate::wire::compression::{Algorithm, Decoder, FrameError};
use crate::wire::handshake::{HEAD_MAX, Refusal, Request, prompt};
use crate::wire::pluginsd;
use crate::wire::words::{LINE_LIMIT, Lines};

/// A child that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(600);
/// The first response must be taken within this.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// When the kernel asks a silent child's machine whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// How long an existing connection has to show that it lives.
const PROBE_TIME: Duration = Duration::from_millis(900);
/// A child of our kind hears an empty line when there was nothing else to say for so long: that this agent runs.
const SIGN_EVERY_US: i64 = 2 * MICROS;
/// How a connection stands is looked at so often.
const LOOK_EVERY_US: i64 = 5 * MICROS;
/// What a child says so long after another one said to be it was not on its way before.
const CLONE_US: i64 = 2 * MICROS;
const PROBE_STEP: Duration = Duration::from_millis(20);
/// How long its successor waits for the thread of a dead connection.
const LEAVE_TIME: Duration = Duration::from_secs(1);
/// Lines of one connection that may be too long within a minute: there are plugins that write such a line now and then.
const LINES_CUT_MAX: u64 = 1_000;
const LINES_CUT_WITHIN: i64 = 60;
/// Unknown parameters of one request that are named in the log.
const UNKNOWN_NAMED: usize = 20;

/// One connected child, as the rest of the agent sees it.
pub struct Child {
    pub guid: MachineGuid,
    pub hostname: String,
    pub peer: Peer,
    /// Our end, `ip:port`.
    pub local: String,
    pub tls: bool,
    /// The API key it came with.
    pub(super) key: String,
    /// Its machine GUID as it spells it.
    pub(super) machine: String,
    pub(super) has_certificate: bool,
    pub agreed: Capabilities,
    /// Hops from the host, for [`fence`]; a session about the past alone is the farthest.
    distance: i64,
    /// Unix seconds of the connection.
    pub since: i64,
    pub(super) below: Arc<Below>,
    closer: Closer,
    rhythm: Mutex<Rhythm>,
    received: AtomicU64,
    /// Bytes written to the child after its first response.
    written: AtomicU64,
    skew: AtomicI64,
    /// Unix seconds since when its past was found incomplete at every look; 0 = it is complete.
    behind_since: AtomicI64,
    /// Connections of this host before, in this run.
    reconnects: u64,
    updates: AtomicU64,
    /// Somebody else said to be this child, and was not let in: a clone, if this one goes on speaking.
    suspect: Mutex<Option<Suspect>>,
    /// Why configuration lets it in no longer.
    revoked: OnceLock<String>,
    /// Nothing more of it is sent on.
    is_leaving: AtomicBool,
    /// Another has its place.
    pub(super) replaced: AtomicBool,
    over: Mutex<bool>,
    left: Condvar,
}

impl Child {
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Collections the child has completed on this connection.
    pub fn updates(&self) -> u64 {
        self.updates.load(Ordering::Relaxed)
    }

    /// Our clock minus the child's, by what it said of its clock last.
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    fn hear_clock(&self, wall: i64, now: i64) {
        if wall > 0 {
            self.skew.store(now - wall, Ordering::Relaxed);
        }
    }

    fn suspect(&self, peer: &Peer, hostname: &str, at_us: i64) {
        let suspect = Suspect { peer: peer.clone(), hostname: hostname.to_owned(), at_us };
        self.suspect.lock().get_or_insert(suspect);
    }

    /// This child has just spoken: whoever said to be it a while ago is another one that lives.
    fn proven_clone(&self, now_us: i64) -> Option<Suspect> {
        let mut suspect = self.suspect.lock();
        let proven = suspect.as_ref().is_some_and(|suspect| now_us - suspect.at_us > CLONE_US);
        if proven { suspect.take() } else { None }
    }

    /// Looks whether the past is complete; gives since when looks have found that it is not, 0 = it is. Never waits.
    pub(super) fn behind_since(&self, now: i64) -> i64 {
        let before = self.behind_since.load(Ordering::Relaxed);
        let Some(progress) = self.below.puller.progress_now() else { return before };
        let since = match State::of(&progress) {
            State::Starting | State::Filling if before == 0 => now,
            State::Starting | State::Filling => before,
            _ => 0,
        };
        self.behind_since.store(since, Ordering::Relaxed);
        since
    }

    /// How the connection stands.
    pub fn status(&self, now: i64) -> Status {
        let progress = self.below.puller.progress();
        Status {
            state: State::of(&progress),
            local: self.local.clone(),
            remote: self.peer.to_string(),
            agreed: self.agreed,
            bytes_in: self.received_bytes(),
            bytes_out: self.written.load(Ordering::Relaxed),
            updates: self.updates(),
            reconnects: self.reconnects,
            filling: Filling::of(&progress, now - self.since),
            ..Status::none(Direction::Receiving, self.since)
        }
    }

    /// See [`Rhythm::is_missed`].
    pub(super) fn is_missed(&self, now_us: i64, least_us: i64) -> bool {
        self.rhythm.lock().is_missed(now_us, least_us)
    }

    /// Ends the connection; its thread does the rest.
    pub(super) fn close(&self) {
        self.closer.close();
        self.below.mailbox.wake();
    }

    /// Ends the connection, as it is no longer permitted.
    pub(super) fn revoke(&self, why: &str) {
        // Whoever was first has said it.
        let _ = self.revoked.set(why.to_owned());
        self.close();
    }

    /// It was sent away, even if its thread is not through yet.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.get().is_some()
    }

    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    pub(super) fn has_left(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Waits until the connection's thread is through; false when it takes longer than `time`.
    pub(super) fn wait_left(&self, time: Duration) -> bool {
        let mut over = self.over.lock();
        if !*over {
            self.left.wait_for(&mut over, time);
        }
        *over
    }
}

/// Who said to be a child that is connected.
pub(super) struct Suspect {
    pub(super) peer: Peer,
    pub(super) hostname: String,
    /// On the monotonic clock.
    at_us: i64,
}

/// What became of the child that is connected already.
#[derive(Debug, PartialEq, Eq)]
enum Rival {
    Active {
        seconds: i64,
    },
    Dead {
        seconds: i64,
    },
    /// It lives, and comes a longer way from the host.
    Farther,
}

/// Takes children for [`Streams`].
pub struct Acceptor(pub Arc<Streams>);

impl StreamAcceptor for Acceptor {
    fn consider(&self, request: &StreamRequest, connection: &Connection) -> Admission {
        let length = request.parameters.len();
        if length > HEAD_MAX {
            count(&STATS.streams.forbidden);
            let peer = connection.peer();
            log::error!(
                "STREAM [receive from {peer}]: request of {length} bytes exceeds {HEAD_MAX}. Forbidding access."
            );
            return refused(401, Refusal::NotPermitted);
        }
        let is_reader = request.is_reader;
        let request = Request::of(&request.parameters, request.user_agent.as_deref());
        consider(&self.0, request, is_reader, connection)
    }
}

fn refused(status: u16, refusal: Refusal) -> Admission {
    Admission::Refused { status, text: refusal.text().to_owned() }
}

fn log_access(peer: &Peer, words: &str, request: &Request) {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    access_log!(
        "STREAM: {} '{peer}' '{words}' host '{}' api key '{}' machine guid '{}'",
        sys::thread_id(),
        or_dash(&request.hostname),
        or_dash(&request.key),
        or_dash(&request.machine_guid)
    );
}

fn consider(
    streams: &Arc<Streams>,
    request: Request,
    is_reader: bool,
    connection: &Connection,
) -> Admission {
    let peer = connection.peer();
    for (name, value) in request.unknown.iter().take(UNKNOWN_NAMED) {
        log::info!(
            "STREAM [receive from {peer}]: request has parameter '{name}' = '{value}', which is not used."
        );
    }
    let rules = streams.rules();
    let is_machine = |guid| streams.hosts().by_guid(guid).is_some();
    let guid = match admit(&request, &peer.ip, &rules.conf, is_machine) {
        Ok(guid) => guid,
        Err(Forbidden { words, line }) => {
            count(&STATS.streams.forbidden);
            log_access(peer, words, &request);
            log::error!("STREAM [receive from {peer}]: {line}");
            return refused(401, Refusal::NotPermitted);
        }
    };
    let options = rules.receiver(&request.key, &request.machine_guid);
    if options.client_certificate && !connection.has_client_certificate() {
        count(&STATS.streams.forbidden);
        log_access(peer, "DENIED - NO CLIENT CERTIFICATE", &request);
        log::error!(
            "STREAM [receive from {peer}]: the key or machine requires a client certificate, and none was shown. Forbidding access."
        );
        return refused(401, Refusal::NotPermitted);
    }
    let who = (guid, peer.ip.clone());
    let penalty = streams.penalties.lock().left(&who, streams.clock().now_seconds().0);
    if let Some(seconds) = penalty {
        count(&STATS.streams.busy);
        log::info!(
            "STREAM {} [receive from {peer}]: it was cut off a moment ago. Will be allowed in {seconds} secs.",
            request.hostname
        );
        return refused(503, Refusal::Busy);
    }
    if let Some(seconds) = streams.too_soon() {
        count(&STATS.streams.busy);
        log::info!(
            "STREAM [receive from {peer}]: too busy to accept new streaming request. Will be allowed in {seconds} secs."
        );
        return refused(503, Refusal::Busy);
    }
    let host = &request.hostname;
    if guid == streams.hosts().local().guid() {
        count(&STATS.streams.own);
        log_access(
            peer,
            "DENIED - ATTEMPT TO RECEIVE METRICS FROM MACHINE_GUID IDENTICAL TO PARENT",
            &request,
        );
        log::error!(
            "STREAM {host} [receive from {}:{}]: denied to receive metrics, machine GUID [{guid}] is my own. Did you copy the parent/proxy machine GUID to a child, or is this an inter-agent loop?",
            peer.ip,
            peer.port
        );
        return refused(409, Refusal::Localhost);
    }
    let from = format!("STREAM {host} [receive from {peer}]");
    let rival = streams.child(guid);
    let distance = if request.past { fence::PAST_HOPS } else { fence::believed_hops(request.hops) };
    if let Some(rival) = &rival {
        match judge(streams, rival, distance) {
            Rival::Active { seconds } => {
                if (rival.distance, distance) == (1, 1) {
                    rival.suspect(peer, host, streams.clock().monotonic_us());
                }
                count(&STATS.streams.duplicate);
                log_access(peer, "REJECTED - ALREADY CONNECTED", &request);
                log::info!(
                    "{from}: multiple connections for same host detected - existing connection is active (within last {seconds} sec), rejecting new connection."
                );
                return refused(409, Refusal::AlreadyStreaming);
            }
            Rival::Dead { seconds } => {
                count(&STATS.streams.taken_over);
                log::info!(
                    "{from}: multiple connections for same host detected - existing connection is dead ({seconds} sec), accepting new connection."
                );
                rival.close();
                rival.wait_left(LEAVE_TIME);
            }
            Rival::Farther => {
                count(&STATS.streams.taken_over);
                log::info!(
                    "{from}: multiple connections for same host detected - the one from {} comes a longer way, accepting new connection.",
                    rival.peer
                );
                rival.close();
                rival.wait_left(LEAVE_TIME);
            }
        }
    }
    let order = if options.compression {
        Algorithm::order(options.compression_order.iter().map(String::as_str))
    } else {
        Vec::new()
    };
    let mut agreed = Capabilities::OFFERED.agree(request.version).with_one_compression(&order);
    // A key admits who brings samples of a host. Whether it may also have those that are here is another question.
    let shares = match options.share_the_past {
        SharePast::Yes => true,
        SharePast::No => false,
        SharePast::WithReaders => is_reader,
    };
    if agreed.contains(Capabilities::SPANS) && !shares {
        agreed -= Capabilities::SPANS;
        log::info!(
            "{from}: it may not read here (share the past), so nothing that is held here is told to it."
        );
    }
    let clock = streams.clock();
    let mailbox = match Mailbox::new() {
        Ok(mailbox) => mailbox,
        Err(error) => {
            log::error!("{from}: cannot make a mailbox{}", Errno(&error));
            return refused(503, Refusal::InternalError);
        }
    };
    let child = Arc::new(Child {
        guid,
        hostname: request.hostname.clone(),
        peer: peer.clone(),
        local: connection.local().map(|a| a.to_string()).unwrap_or_default(),
        tls: connection.is_tls(),
        key: request.key.clone(),
        machine: request.machine_guid.clone(),
        has_certificate: connection.has_client_certificate(),
        agreed,
        distance,
        since: clock.now_seconds().0,
        below: Arc::new(Below::new(
            agreed,
            mailbox,
            Puller::new(Neighbour::Child, policy_of(&options), clock.clone(), |_| {}),
        )),
        skew: AtomicI64::new(0),
        behind_since: AtomicI64::new(0),
        reconnects: streams.count_connection(guid),
        closer: connection.closer(),
        rhythm: Mutex::new(Rhythm::new(clock.monotonic_us())),
        received: AtomicU64::new(0),
        written: AtomicU64::new(0),
        updates: AtomicU64::new(0),
        suspect: Mutex::default(),
        revoked: OnceLock::new(),
        is_leaving: AtomicBool::new(false),
        replaced: AtomicBool::new(false),
        over: Mutex::new(false),
        left: Condvar::new(),
    });
    if !streams.register(&child, rival.as_ref()) {
        count(&STATS.streams.duplicate);
        log_access(peer, "REJECTED - ALREADY CONNECTED", &request);
        log::info!(
            "{from}: multiple connections for same host detected - existing connection is active (within last 0 sec), rejecting new connection."
        );
        return refused(409, Refusal::AlreadyStreaming);
    }
    // Leaves the register however the session ends, also when it never begins.
    let place = Place { streams: Arc::clone(streams), child };
    // Who looks through the register after a reload finds it from here on; whoever looked before did not.
    if let Some(why) = place.child.is_denied(&streams.rules()) {
        count(&STATS.streams.forbidden);
        log_access(peer, "ACCESS DENIED", &request);
        log::error!("{from}: the configuration has just changed: {why}. Forbidding access.");
        return refused(401, Refusal::NotPermitted);
    }
    Admission::Admitted(Box::new(move |connection, stop| {
        Session { place, request, from }.run(connection, stop);
    }))
}

/// Whether the connected child keeps its place against one that is `distance` hops away from the host. Asks its machine
/// when its silence leaves that open, so it may take a while.
fn judge(streams: &Streams, rival: &Child, distance: i64) -> Rival {
    let clock = streams.clock();
    let age_us = |rival: &Child| rival.rhythm.lock().age(clock.monotonic_us());
    let seconds = age_us(rival) / MICROS;
    let silent = rival.rhythm.lock().is_silent(clock.monotonic_us());
    let old = fence::Session {
        hops: rival.distance,
        gone: rival.closer.health() == Health::Gone,
        silent,
        age_us: age_us(rival),
    };
    if fence::decide(&old, distance) == fence::Verdict::Replace {
        let farther = !old.gone && !old.silent;
        return if farther { Rival::Farther } else { Rival::Dead { seconds } };
    }
    let received = rival.received_bytes();
    // An empty line means nothing to a child, but its machine confirms it or it does not. A child that has not spoken
    // yet may still wait for its first response, to which nothing may be added.
    if received > 0 {
        let written = rival.written.load(Ordering::Acquire);
        rival.below.mailbox.post(|out| out.push(b'\n'));
        let deadline = clock.monotonic_us() + PROBE_TIME.as_micros() as i64;
        while !streams.stop_token().wait(PROBE_STEP) {
            if rival.closer.health() == Health::Gone {
                return Rival::Dead { seconds };
            }
            let asked = rival.written.load(Ordering::Acquire) != written;
            if rival.received_bytes() != received || (asked && rival.closer.is_confirmed()) {
                break;
            }
            if clock.monotonic_us() > deadline {
                // A line that never left says something about our own thread only.
                if asked {
                    return Rival::Dead { seconds };
                }
                break;
            }
        }
    }
    Rival::Active { seconds: age_us(rival) / MICROS }
}

/// A child's place in the register, given up on drop.
struct Place {
    streams: Arc<Streams>,
    child: Arc<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.unregister(&self.child);
        self.child.below.digests.close();
        *self.child.over.lock() = true;
        self.child.left.notify_all();
    }
}

/// What was said last of how a connection stands.
struct Standing {
    state: State,
    look_us: i64,
}

struct Session {
    place: Place,
    request: Request,
    /// `STREAM host [receive from [ip]:port]`
    from: String,
}

/// Why a child's connection is over.
#[derive(Debug)]
enum End {
    Closed,
    Broken(io::Error),
    Silent,
    /// `after_a_cut`: what is left of a line that is too long is a line of its own, and mostly makes no sense.
    Violation {
        what: Violation,
        after_a_cut: bool,
    },
    Undecodable(FrameError),
    /// Too many lines were too long.
    Endless,
    /// It does not read what it is sent.
    Deaf,
    Stop,
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> End {
        End::Undecodable(error)
    }
}

impl Session {
    fn run(self, mut connection: Connection, stop: &StopToken) {
        let Session { place, request, from } = &self;
        let (streams, child) = (&place.streams, &place.child);
        let (hostname, peer) = (&child.hostname, &child.peer);
        threads::rename(&format!("STREAM_RECEIVER[{hostname},{peer}]"));
        let task = sys::thread_id();
        log::info!("STREAM {hostname} {peer}: receive thread created (task id {task})");
        let Some(turn) = self.turn(stop) else {
            count(&STATS.streams.busy);
            log_access(peer, "BUSY - TOO MANY CHILDREN ARE STARTING", request);
            // It is told or it is gone already; both end here.
            let _ = connection.set_write_timeout(REPLY_TIMEOUT);
            let _ = connection.write_all(Refusal::Busy.text().as_bytes());
            return;
        };
        let settings = streams.settings();
        let options = streams.rules().receiver(&request.key, &request.machine_guid);
        let Some(host) = host_for(streams, child.guid, request, &options) else {
            log_access(peer, "FAILED - CANNOT ACQUIRE HOST", request);
            let text = Refusal::InternalError.text();
            // It is told or it is gone already; both end here.
            let _ = connection.set_write_timeout(REPLY_TIMEOUT);
            let _ = connection.write_all(text.as_bytes());
            return;
        };
        let replaced = || child.replaced.load(Ordering::Acquire);
        log::info!("{from}: initializing communication...");
        let reply = prompt(child.agreed);
        let replied = connection
            .set_write_timeout(REPLY_TIMEOUT)
            .and_then(|()| connection.write_all(reply.as_bytes()))
            .and_then(|()| connection.set_nonblocking(true));
        if let Err(error) = replied {
            log_access(peer, "FAILED - CANNOT REPLY", request);
            log::error!("{from}: cannot send ready command.{}", Errno(&error));
            if !replaced() {
                host.set_connected(false, streams.clock().now_seconds());
            }
            return;
        }
        // Without keepalive a dead machine is only noticed later.
        let _ = connection.set_keepalive(KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES);
        log::info!("{from}: established link with negotiated capabilities: {}", child.agreed);
        // A look at the past is no visit: when the host was here last stays as it was.
        let was_here = host.disconnected_at();
        let is_past = child.distance == fence::PAST_HOPS;
        host.set_connected(true, streams.clock().now_seconds());
        count(&STATS.streams.children);
        log_access(peer, "CONNECTED", request);
        log::info!("{from}: receiving metrics...");
        let calls =
            Calls::new(Box::new(Requests { child: Arc::clone(child) }), streams.clock().clone());
        let asked = child.below.attach(&host, streams.clock()).then(|| {
            let outlet = Arc::clone(&child.below) as Arc<dyn Outlet>;
            Arc::new(Asked::new(streams.workers(), outlet))
        });
        let mut executor = Executor::new(Setup {
            origin: Origin::Stream(child.agreed),
            update_every: settings.update_every,
            calls: Some(Arc::clone(&calls)),
            hooks: Box::new(Told {
                streams: Arc::clone(streams),
                child: Arc::clone(child),
                asked: asked.clone(),
            }),
            ..Setup::new(Arc::clone(&host))
        });
        let asked = asked.as_deref();
        // Whoever had this place may not have come to that.
        forget_way(&host, &replaced);
        if !replaced() {
            streams.paths().begin(child.guid);
        }
        let end = self.receive(&mut connection, &mut executor, &calls, &host, asked, turn, stop);
        STATS.streams.children.fetch_sub(1, Ordering::Relaxed);
        calls.close();
        host.drop_dead_functions();
        forget_way(&host, &replaced);
        match &end {
            _ if child.revoked.get().is_some() => {
                let why = child.revoked.get().map_or("", String::as_str);
                log::error!("{from}: no longer permitted: {why}.");
            }
            End::Closed => {
                log::error!("STREAM: read_stream(): EOF while reading data from socket!")
            }
            End::Broken(error) => {
                log::error!(
                    "STREAM: read_stream(): error while reading data from socket!{}",
                    Errno(error)
                );
            }
            End::Silent => {
                log::error!("{from}: nothing received for {} seconds.", SILENCE.as_secs())
            }
            End::Violation { what, .. } => {
                count(&STATS.streams.violation);
                what.log();
            }
            End::Undecodable(error) => {
                count(&STATS.streams.undecodable);
                log::error!("{from}: cannot decompress what is received: {error}.");
            }
            End::Endless => log::error!(
                "{from}: more than LINES_CUT_MAX = {LINES_CUT_MAX} lines in {LINES_CUT_WITHIN} s exceed {LINE_LIMIT} bytes."
            ),
            End::Deaf => log::error!("{from}: the child does not read what it is sent."),
            End::Stop => {}
        }
        let fault = match &end {
            End::Violation { what, .. } if what.is_excess() => Some(Fault::Excess),
            End::Violation { after_a_cut: true, .. } => Some(Fault::Line),
            End::Endless => Some(Fault::Excess),
            _ => None,
        };
        if let Some(fault) = fault {
            let (who, now) = ((child.guid, peer.ip.clone()), streams.clock().now_seconds().0);
            let seconds = streams.penalties.lock().add(who, fault, now);
            if seconds > 0 {
                log::error!("{from}: cut off; it is not let in for {seconds} seconds.");
            }
        }
        log::error!("{from}: disconnected (completed {} updates).", executor.updates());
        log_access(peer, "DISCONNECTED", request);
        drop(connection);
        // The place is given up last: until then whoever comes next waits.
        if streams.child(child.guid).is_some_and(|now| Arc::ptr_eq(&now, child)) {
            let stays = is_past && was_here.0 > 0;
            let left = if stays { was_here } else { streams.clock().now_seconds() };
            host.set_connected(false, left);
            streams.child_left(&host, child);
        }
        streams.unregister(child);
        log::info!("{from}: receive thread ended (task id {task})");
    }

    /// Says when the past of the host begins and ends to arrive.
    fn note_state(&self, before: &mut State) {
        let child = &self.place.child;
        let now = self.place.streams.clock().now_seconds().0;
        let filling = Filling::of(&child.below.puller.progress(), now - child.since);
        let state = match (filling.starting, filling.filling) {
            (0, 0) => State::Online,
            (0, _) => State::Filling,
            _ => State::Starting,
        };
        if state == std::mem::replace(before, state) || filling.charts == 0 {
            return;
        }
        match state {
            State::Filling => log::info!(
                "{}: all of {} charts are live; of {} of them older samples are asked for, up to {} seconds.",
                self.from,
                filling.charts,
                filling.filling,
                filling.missing_s
            ),
            State::Online => log::info!(
                "{}: all of {} charts are live and nothing is known to be missing; {} seconds came {} seconds after connecting.",
                self.from,
                filling.charts,
                filling.brought_s,
                now - child.since
            ),
            _ => {}
        }
    }

    /// Waits until it is this child's turn to start; `None` when that takes too long, or it has gone.
    fn turn(&self, stop: &StopToken) -> Option<Turn> {
        let Place { streams, child } = &self.place;
        let began = streams.clock().monotonic_us();
        loop {
            let turn = streams.pace.turn(pace::LOOK_EVERY);
            let waited = streams.clock().monotonic_us() - began;
            if turn.is_some() {
                if waited > MICROS {
                    log::info!("{}: waited {} ms for its turn to start.", self.from, waited / 1000);
                }
                return turn;
            }
            if child.closer.health() == Health::Gone || stop.is_stopped() {
                return None;
            }
            if waited > pace::PATIENCE.as_micros() as i64 {
                let seconds = pace::PATIENCE.as_secs();
                log::error!("{}: too many children are starting, for {seconds} s.", self.from);
                return None;
            }
        }
    }

    /// Reads until the connection is over.
    #[expect(clippy::too_many_arguments, reason = "what a connection consists of")]
    fn receive(
        &self,
        connection: &mut Connection,
        executor: &mut Executor,
        calls: &Calls,
        host: &Arc<Host>,
        asked: Option<&Asked>,
        turn: Turn,
        stop: &StopToken,
    ) -> End {
        let Place { streams, child } = &self.place;
        let clock = streams.clock();
        let mut lines = Lines::new();
        let mut decoder = Algorithm::of(child.agreed).map(Decoder::new);
        let mut cut = 0;
        // Of the minute that began then.
        let (mut cut_lately, mut cut_since) = (0, 0);
        let mut letters: Vec<u8> = Vec::new();
        let mut forwarded = false;
        let silence_us = SILENCE.as_micros() as i64;
        let mut silent_from = clock.monotonic_us();
        let mut offer_us = asked.map(|_| silent_from + OFFER_AFTER_US);
        let mut turn = Some(turn);
        let turn_us = silent_from + pace::TURN_MAX.as_micros() as i64;
        // Whoever looks at the past alone leaves when nothing is said any more.
        let gets_signs = asked.is_some() && child.distance != fence::PAST_HOPS;
        let mut sign_us = gets_signs.then_some(silent_from + SIGN_EVERY_US);
        let mut stands = Standing { state: State::Starting, look_us: silent_from + LOOK_EVERY_US };
        loop {
            if stop.is_stopped() || streams.stop_token().is_stopped() {
                return End::Stop;
            }
            let now_us = clock.monotonic_us();
            if now_us - silent_from > silence_us {
                return End::Silent;
            }
            if let Some(asked) = asked {
                if offer_us.is_some_and(|at| now_us >= at) {
                    offer_us = None;
                    asked.offer();
                }
                asked.has_room();
            }
            child.below.more(host);
            if now_us >= stands.look_us {
                stands.look_us = now_us + LOOK_EVERY_US;
                child.below.rest(clock);
                self.note_state(&mut stands.state);
            }
            if sign_us.is_some_and(|at| now_us >= at) {
                sign_us = Some(now_us + SIGN_EVERY_US);
                // One that does not read gets no more of them.
                if letters.is_empty() && child.received_bytes() > 0 {
                    letters.push(b'\n');
                }
            }
            let eager = child.below.puller.is_eager().then_some(now_us);
            let quiet = if child.received_bytes() == 0 { pace::FIRST_WORD } else { pace::QUIET };
            let quiet_us = silent_from + quiet.as_micros() as i64;
            turn = turn.filter(|_| now_us < quiet_us.min(turn_us));
            let quiet_us = turn.as_ref().map(|_| quiet_us);
            let end_us = Some(silent_from + silence_us + 1);
            let until = [end_us, calls.deadline(), eager, offer_us, quiet_us, sign_us];
            let until = until.into_iter().flatten();
            let wait = until.min().unwrap_or(now_us).saturating_sub(now_us).max(0);
            let wants = if letters.is_empty() { Interest::Read } else { Interest::ReadWrite };
            let mut watched = [
                Watched::new(connection.as_fd(), wants),
                Watched::new(child.below.mailbox.wake_fd(), Interest::Read),
            ];
            let wait = Duration::from_micros(wait.unsigned_abs());
            if let Err(error) = sys::poll(&mut watched, Some(wait)) {
                return End::Broken(error);
            }
            calls.expire();
            if watched[1].is_readable() {
                child.below.mailbox.acknowledge_wake();
            }
            let mut lent = watched[0].is_readable().then(buffers::borrow);
            while let Some(buffer) = &mut lent {
                let length = match connection.read(buffer) {
                    Ok(0) => return End::Closed,
                    Ok(length) => length,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return End::Broken(error),
                };
                silent_from = clock.monotonic_us();
                child.rhythm.lock().beat(silent_from);
                if let Some(clone) = child.proven_clone(silent_from) {
                    streams.note_clone(child, &clone);
                }
                child.received.fetch_add(length as u64, Ordering::Relaxed);
                STATS.streams.received_bytes.fetch_add(length as u64, Ordering::Relaxed);
                let now = clock.now();
                let was_in_body = executor.is_in_body();
                let mut feed = |text: &[u8]| {
                    executor.feed_chunk(&mut lines, text, now).map_err(|what| {
                        let after_a_cut = lines.cut() > cut;
                        End::Violation { what, after_a_cut }
                    })
                };
                let fed = match &mut decoder {
                    None => feed(&buffer[..length]),
                    Some(decoder) => decoder.feed(&buffer[..length], feed),
                };
                executor.flush();
                child.updates.store(executor.completed(), Ordering::Relaxed);
                // Results of functions come as lines of any length, and have a limit of their own.
                let in_body = was_in_body || executor.is_in_body();
                if lines.cut() != cut && !in_body {
                    if now.seconds().0 - cut_since >= LINES_CUT_WITHIN {
                        (cut_since, cut_lately) = (now.seconds().0, 0);
                    }
                    cut_lately += lines.cut() - cut;
                    count(&STATS.streams.cut);
                    log::error!(
                        "{}: received line exceeds {LINE_LIMIT} bytes. Truncating it.",
                        self.from
                    );
                    if cut_lately > LINES_CUT_MAX {
                        return End::Endless;
                    }
                }
                cut = lines.cut();
                if let Err(end) = fed {
                    return end;
                }
                if !forwarded && executor.completed() > 0 {
                    forwarded = true;
                    // From now on its host is sent on, if configuration says so.
                    streams.settle(host);
                }
                // A full buffer means there is more.
                if length < buffer.len() {
                    lines.shrink();
                    break;
                }
            }
            drop(lent);
            // The child takes its first response as a whole: until it has spoken nothing may follow.
            if child.received_bytes() > 0 {
                if !child.below.mailbox.collect(&mut letters) {
                    return End::Deaf;
                }
                if !letters.is_empty() {
                    sign_us = sign_us.map(|_| now_us + SIGN_EVERY_US);
                }
                match write_some(connection, &mut letters) {
                    Ok(count) => child.written.fetch_add(count as u64, Ordering::Release),
                    Err(error) => return End::Broken(error),
                };
                child.below.set_unsent(letters.len());
            }
        }
    }
}

/// Whatever was still on the way from the child will be asked for again. Not if somebody has taken the place: then it is that
/// one's charts that wait. It is marked before it defines any, and this looks under the lock of each.
fn forget_way(host: &Host, replaced: &dyn Fn() -> bool) {
    for chart in host.charts() {
        let mut state = chart.lock();
        if replaced() {
            return;
        }
        state.replicating = false;
        state.filling.set(Neighbour::Child, false);
        state.upstream.relaying = false;
    }
}

/// Sends what the socket takes now; gives how much that was.
fn write_some(connection: &mut Connection, letters: &mut Vec<u8>) -> io::Result<usize> {
    let mut done = 0;
    while done < letters.len() {
        match connection.write(&letters[done..]) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if done == letters.len() {
        *letters = Vec::new();
    } else {
        letters.drain(..done);
    }
    Ok(done)
}

/// Sends function calls to the child.
struct Requests {
    child: Arc<Child>,
}

impl CallWriter for Requests {
    fn send(&self, transaction: &str, timeout: Duration, command: &str) -> bool {
        if !self.child.agreed.contains(Capabilities::FUNCTIONS) {
            return false;
        }
        let later = self.child.agreed.contains(Capabilities::PROGRESS);
        let timeout = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        self.child.below.mailbox.post(|out| {
            pluginsd::function_call(out, transaction, timeout, command, later);
        })
    }

    fn cancel(&self, transaction: &str) {
        if self.child.agreed.contains(Capabilities::PROGRESS) {
            self.child.below.mailbox.post(|out| pluginsd::function_cancel(out, transaction));
        }
    }

    fn ask_progress(&self, transaction: &str) {
        if self.child.agreed.contains(Capabilities::PROGRESS) {
            self.child.below.mailbox.post(|out| pluginsd::function_ask_progress(out, transaction));
        }
    }

    fn wake(&self) {
        self.child.below.mailbox.wake();
    }
}

/// What a child says beside charts and samples.
struct Told {
    streams: Arc<Streams>,
    child: Arc<Child>,
    /// Towards a node of ours.
    asked: Option<Arc<Asked>>,
}

fn policy_of(options: &ReceiverOptions) -> Policy {
    Policy {
        enabled: options.replication,
        period: options.seconds_to_replicate,
        step: options.seconds_per_replication_step,
    }
}

impl Hooks for Told {
    fn claimed(&mut self, host: &Arc<Host>) {
        self.streams.nudge_sender(host.guid());
    }

    fn labelled(&mut self, host: &Arc<Host>) {
        self.streams.nudge_sender(host.guid());
    }

    fn defined(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer) {
        self.child.hear_clock(offer.wall, self.streams.clock().now_seconds().0);
        self.child.below.defined(host, chart, offer);
    }

    fn defined_again(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer) {
        self.child.below.defined_again(host, chart, offer);
    }

    fn replayed(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, block: Replayed) {
        self.child.below.replayed(host, chart, block);
    }

    fn wants_archived(&self, host: &Arc<Host>) -> bool {
        host.settings().mode != Mode::None
    }

    fn offered(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer, dims: &[Arc<str>]) {
        self.child.below.offered(host, chart, offer, dims);
    }

    fn digest(&mut self, number: u64, chart: &str, after: i64, before: i64, dim: Option<&str>) {
        if let Some(asked) = &self.asked {
            let (chart, dim) = (chart.to_owned(), dim.map(str::to_owned));
            asked.question(Question { number, chart, after, before, dim });
        }
    }

    fn digest_is(&mut self, number: u64, samples: u64, sum: u64) {
        self.child.below.digests.answered(number, Digest { samples, sum });
    }

    fn asked(&mut self, chart: &str, start: bool, after: i64, before: i64) {
        if let Some(asked) = &self.asked {
            asked.ask(chart.to_owned(), Ask { start, after, before });
        }
    }

    fn json(&mut self, host: &Arc<Host>, keyword: &str, payload: &[u8]) {
        if keyword == "STREAM_PATH" && !self.child.replaced.load(Ordering::Acquire) {
            self.streams.path_told(host, path::From::Child, payload);
        }
    }
}

/// The host a request is about: the known one, brought up to date, or a new one.
fn host_for(
    streams: &Streams,
    guid: MachineGuid,
    request: &Request,
    options: &ReceiverOptions,
) -> Option<Arc<Host>> {
    let settings = streams.settings();
    let info = info_of(request, options, settings.update_every);
    let mut made = None;
    let (host, created) = streams.hosts().get_or_create(guid, || {
        let mode = Mode::parse(&options.mode).unwrap_or_else(|| {
            log::error!(
                "Host '{}': invalid memory mode '{}' given. Using '{}'",
                request.hostname,
                options.mode,
                Mode::Save.name()
            );
            Mode::Save
        });
        let engine = (settings.engine)(mode, options.history, guid);
        let health = health_word(options.health);
        let kept = HostSettings {
            mode: engine.mode(),
            history: options.history,
            health_enabled: health == "enabled",
            gap_when_lost: settings.gap_when_lost,
            ephemeral: options.ephemeral,
        };
        made = Some(health);
        Host::new(guid, HostKind::Child, info.clone(), engine, kept)
    })?;
    if host.settings().mode == Mode::None && options.health != OnDemand::No && created {
        log::info!(
            "Host '{}' keeps no samples (memory mode none): its health is disabled.",
            host.hostname()
        );
    }
    set_health(&host, options, streams.rules().defaults.health);
    if created {
        streams.log_new_host(&host, options, made.unwrap_or("disabled"));
    } else {
        say_what_stays(&host, &info, options);
        host.update_info(|old| {
            let (claim_id, node_id) = (old.claim_id.take(), old.node_id.take());
            *old = HostInfo { claim_id, node_id, ..info };
        });
    }
    Some(host)
}

/// Whether the host is watched; without health as a whole nobody watches anything.
pub(super) fn set_health(host: &Host, options: &ReceiverOptions, health: OnDemand) {
    let policy = match options.health {
        _ if host.settings().mode == Mode::None => HealthPolicy::Off,
        _ if health == OnDemand::No => HealthPolicy::Off,
        OnDemand::No => HealthPolicy::Off,
        OnDemand::Yes => HealthPolicy::On,
        OnDemand::Auto => HealthPolicy::WhileConnected,
    };
    host.set_health(policy, i64::try_from(options.postpone_alarms.as_secs()).unwrap_or(0));
}

/// Names what a host that is known already is called from now on, and how it is not kept as it should be.
fn say_what_stays(host: &Host, wanted: &HostInfo, options: &ReceiverOptions) {
    let (name, kept) = (host.hostname(), host.settings());
    if name != wanted.hostname {
        log::error!(
            "Host '{name}' has been renamed to '{}'. If this is not intentional it may mean multiple hosts are using the same machine_guid.",
            wanted.hostname
        );
    }
    let name = &wanted.hostname;
    if let Some(mode) = Mode::parse(&options.mode).filter(|mode| *mode != kept.mode) {
        log::error!(
            "Host '{name}' has memory mode '{}', but the wanted one is '{}'. Restart netdata here to apply the new settings.",
            kept.mode.name(),
            mode.name()
        );
    } else if kept.mode != Mode::Dbengine && options.history > kept.history {
        log::error!(
            "Host '{name}' has history of {} entries, but the wanted one is {} entries. Restart netdata here to apply the new settings.",
            kept.history,
            options.history
        );
    }
}

/// What a request says about its host, with the defaults for what it leaves out.
fn info_of(request: &Request, options: &ReceiverOptions, default_every: UpdateEvery) -> HostInfo {
    let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
    let every = options.update_every.or(request.update_every).filter(|every| *every > 0);
    let fact = |(name, value): &(&'static str, String)| (host_fact(name), value.clone());
    HostInfo {
        hostname: request.hostname.clone(),
        registry_hostname: or(&request.registry_hostname, &request.hostname),
        os: or(&request.os, "unknown"),
        timezone: or(&request.timezone, "unknown"),
        abbrev_timezone: or(&request.abbrev_timezone, "UTC"),
        utc_offset: request.utc_offset.unwrap_or(0),
        tags: request.tags.clone(),
        program_name: or(&request.program_name, "unknown"),
        program_version: or(&request.program_version, "unknown"),
        update_every: every.map_or(default_every, UpdateEvery::clamped).seconds(),
        hops: fence::believed_hops(request.hops),
        system: request.facts.iter().map(fact).collect(),
        ml_capable: request.ml_capable.unwrap_or(0) > 0,
        ml_enabled: request.ml_enabled.unwrap_or(0) > 0,
        mc_version: request.mc_version.unwrap_or(0),
        claim_id: None,
        node_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ChartSpec, HostInfo, HostSettings};
    use crate::storage::none::NoneEngine;

    #[test]
    fn who_lost_its_place_forgets_nothing_of_who_took_it() {
        let (engine, settings) = (Arc::new(NoneEngine::new()), HostSettings::default());
        let (guid, info) = (MachineGuid::random(), HostInfo::named("child"));
        let host = Host::new(guid, HostKind::Child, info, engine, settings);
        let spec = ChartSpec { id: "t.a", ..ChartSpec::default() };
        let chart = host.define_chart(&spec).unwrap();
        let waits = || {
            let state = chart.lock();
            (state.replicating, state.filling.is_any(), state.upstream.relaying)
        };
        let begin = || {
            let mut state = chart.lock();
            state.replicating = true;
            state.filling.set(Neighbour::Child, true);
            state.upstream.relaying = true;
        };
        begin();
        forget_way(&host, &|| true);
        assert_eq!(waits(), (true, true, true));
        forget_way(&host, &|| false);
        assert_eq!(waits(), (false, false, false));
    }
}
