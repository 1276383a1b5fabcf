//! What one host sends to its parent, from the collector's side: the tap that formats definitions and samples straight
//! into a bounded outbox, under the lock of the chart they come from.
//!
//! Fed by collectors, plugins and receivers through [`Tap`]; emptied by the host's sender thread. Lock order: a chart,
//! then the outbox. Nothing here waits: an outbox that is full ends its connection, and the sender makes another one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::mailbox::Mailbox;
use super::replication::{self, AheadOfLink, Answering, Ask, View};
use crate::base::pattern::SimplePattern;
use crate::base::sys::EventFd;
use crate::base::time::{Clock, UnixSeconds};
use crate::metrics::{
    Chart, ChartOptions, ChartState, DimensionOptions, Function, Host, Relayed, Tap, Upstream,
};
use crate::storage::Mode;
use crate::wire::caps::Capabilities;
use crate::wire::pluginsd::{
    self, ChartLine, Dialect, DimensionLine, FunctionLine, PointFlags, Scope,
};

/// A message that is this many times as big as the outbox may be raises the limit, or it could never be sent.
const MESSAGES_PER_OUTBOX: usize = 3;

/// What an outbox keeps of the room it grew to; more goes back to the system once it was sent.
const IDLE_BYTES: usize = 128 * 1024;

/// A block about the past, at most; it is cut at a slot.
pub const PAST_BYTES: usize = 64 * 1024;

/// Requests of a parent that are with the child at once, so that they do not fill its mailbox.
const RELAYS_MAX: usize = 64;
/// When all of them were silent for so many seconds they are lost: a child never answers for a chart it has dropped.
const RELAY_LOST_S: i64 = 60;
/// Bytes of one block that is passed on; children cut theirs far below.
const RELAY_BYTES_MAX: usize = 64 << 20;

/// Numbers connections of all hosts, so that what a chart remembers of one is never taken for another's. 0 is none.
static CONNECTIONS: AtomicU32 = AtomicU32::new(0);

/// What is sent, as the API tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Live samples.
    Data = 0,
    /// Definitions, labels, variables, paths.
    Metadata,
    /// The past, and what is asked about it.
    Replication,
    /// Answers of functions, and how far they are.
    Functions,
}

/// Bytes of each [`Content`].
pub type ByContent = [u64; 4];

/// How a host is sent.
#[derive(Clone, Debug, Default)]
pub struct UplinkOptions {
    /// `send charts matching`.
    pub charts: SimplePattern,
    /// `buffer size bytes`.
    pub buffer_bytes: usize,
    /// `initial clock resync iterations`.
    pub resync_iterations: i64,
}

impl UplinkOptions {
    /// `send charts matching`: by id or by name; by context where these leave it open.
    fn wants(&self, chart: &Chart, state: &ChartState) -> bool {
        let charts = &self.charts;
        match (charts.decide(chart.id()), charts.decide(&state.meta.name)) {
            (Some(true), _) | (_, Some(true)) => true,
            (None, None) => charts.matches(&state.meta.context),
            _ => false,
        }
    }
}

/// The link of a host to its parent. The sender thread opens and closes it; collectors fill it.
pub struct Uplink {
    host: Arc<Host>,
    clock: Clock,
    wake: EventFd,
    /// A connection takes data. Looked at before any lock is taken.
    live: AtomicBool,
    outbox: Mutex<Outbox>,
}

#[derive(Default)]
struct Outbox {
    options: Arc<UplinkOptions>,
    connection: u32,
    agreed: Capabilities,
    dialect: Option<Dialect>,
    bytes: Vec<u8>,
    /// What the sender took and has not sent yet.
    in_flight: usize,
    limit: usize,
    overflowed: bool,
    /// The sender was told and has not looked yet.
    woken: bool,
    /// A child's answer that is being passed on, until it is complete: nothing may come in between.
    relay: Vec<u8>,
    /// The chart it is about.
    relay_of: Option<Arc<str>>,
    /// Requests passed on to the child that were not answered yet.
    relays: usize,
    /// When the last of them was passed on or answered.
    relayed_at: UnixSeconds,
    next_slot: u32,
    /// Slots of charts that went obsolete.
    free_slots: Vec<u32>,
    /// What was put in on this connection.
    put: ByContent,
}

/// Any request about the past.
const PAST: Ask = Ask { start: false, after: 1, before: 1 };

impl Outbox {
    /// What stands behind `start` was put in.
    #[inline]
    fn count(&mut self, content: Content, start: usize) {
        self.put[content as usize] += (self.bytes.len() - start) as u64;
    }

    /// Half of the outbox is never filled by answers. What is about the past leaves more room still, so that on a slow
    /// link live samples do not wait behind it.
    fn has_room(&self, ask: Ask) -> bool {
        let half = self.limit / 2;
        let most = if ask.start { half } else { half.min(2 * PAST_BYTES) };
        self.bytes.len() + self.in_flight <= most
    }
}

/// What the sender finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    /// The bytes are in the caller's buffer.
    Bytes,
    /// More came than could be sent: the connection has to be made anew.
    Overflow {
        allocated: usize,
    },
}

impl Uplink {
    pub fn new(
        host: Arc<Host>,
        options: UplinkOptions,
        clock: Clock,
    ) -> std::io::Result<Arc<Uplink>> {
        Ok(Arc::new(Uplink {
            host,
            clock,
            wake: EventFd::new()?,
            live: AtomicBool::new(false),
            outbox: Mutex::new(Outbox { options: Arc::new(options), ..Outbox::default() }),
        }))
    }

    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Bytes that wait to be sent, and how many may.
    pub fn queued(&self) -> (usize, usize) {
        let outbox = self.outbox.lock();
        (outbox.bytes.len() + outbox.in_flight, outbox.limit)
    }

    /// What was put in on this connection, before compression.
    pub fn put(&self) -> ByContent {
        self.outbox.lock().put
    }

    // --- the sender's side -------------------------------------------------------------------------

    /// A connection was agreed on: data flows into the outbox from now on, `first` before any of it. Gives the
    /// connection's number.
    pub fn open(&self, agreed: Capabilities, first: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        let mut outbox = self.outbox.lock();
        let mut bytes = std::mem::take(&mut outbox.bytes);
        bytes.clear();
        first(&mut bytes);
        let mut put = ByContent::default();
        put[Content::Metadata as usize] = bytes.len() as u64;
        let options = Arc::clone(&outbox.options);
        *outbox = Outbox {
            limit: options.buffer_bytes,
            options,
            connection: number,
            agreed,
            dialect: Some(Dialect::of(agreed)),
            bytes,
            put,
            next_slot: 1,
            ..Outbox::default()
        };
        drop(outbox);
        self.live.store(true, Ordering::Release);
        number
    }

    /// The connection is over: what was not sent is dropped, and nothing more is taken.
    pub fn close(&self) {
        self.live.store(false, Ordering::Release);
        let mut outbox = self.outbox.lock();
        let options = Arc::clone(&outbox.options);
        *outbox = Outbox { options, ..Outbox::default() };
    }

    /// Options for the next connection; between two of them only.
    pub fn set_options(&self, options: UplinkOptions) {
        self.outbox.lock().options = Arc::new(options);
    }

    /// Swaps what has gathered for `spare`, which must be empty. `unsent` is what the caller still has to send; as
    /// long as there is any, nothing is taken.
    pub fn take(&self, spare: &mut Vec<u8>, unsent: usize) -> Taken {
        let mut outbox = self.outbox.lock();
        outbox.woken = false;
        outbox.in_flight = unsent;
        if outbox.overflowed {
            return Taken::Overflow { allocated: outbox.limit };
        }
        if unsent > 0 || outbox.bytes.is_empty() {
            return Taken::Nothing;
        }
        // Room that was needed for the past is kept for as long as it comes.
        if spare.capacity() > IDLE_BYTES && outbox.bytes.len() <= IDLE_BYTES {
            *spare = Vec::new();
        }
        std::mem::swap(&mut outbox.bytes, spare);
        outbox.in_flight = spare.len();
        Taken::Bytes
    }

    /// Becomes readable when there is something to send.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub fn wake(&self) {
        self.wake.signal();
    }

    pub fn acknowledge_wake(&self) {
        self.wake.drain();
    }

    /// Appends lines that belong to no chart, if `connection` still is the one that is open.
    pub fn push(&self, connection: u32, content: Content, put: impl FnOnce(&mut Vec<u8>)) {
        let mut outbox = self.outbox.lock();
        if outbox.connection != connection || outbox.overflowed {
            return;
        }
        let start = outbox.bytes.len();
        put(&mut outbox.bytes);
        if outbox.bytes.len() == start {
            return;
        }
        outbox.count(content, start);
        self.bound(&mut outbox, start);
        let wake = !std::mem::replace(&mut outbox.woken, true);
        drop(outbox);
        if wake {
            self.wake.signal();
        }
    }

    /// Answers a parent's request for samples of a chart, unless there is no room for the answer: then false, and the
    /// request has to wait. Where nothing is kept here `child` is asked, and its answer passed on when it comes.
    /// `ahead` is that connection's.
    pub fn replay(
        &self,
        connection: u32,
        id: &str,
        ask: Ask,
        child: Option<&Mailbox>,
        ahead: &AheadOfLink,
    ) -> bool {
        let chart = self.host.chart(id);
        let now = self.clock.now_seconds();
        let held = ahead.lock().held(id, now);
        // Order: the chart, then the outbox.
        let mut state = chart.as_ref().map(|chart| chart.lock());
        let mut guard = self.outbox.lock();
        let outbox = &mut *guard;
        let Some(dialect) = outbox.dialect else { return true };
        if outbox.connection != connection || outbox.overflowed {
            return true;
        }
        if !outbox.has_room(ask) {
            return false;
        }
        let start = outbox.bytes.len();
        let mut past = None;
        match (&chart, &mut state) {
            (Some(chart), Some(state)) if state.upstream.connection == connection => {
                if let Some(child) = child {
                    // A child that is asked twice for a chart forgets one of the questions.
                    if outbox.relays >= RELAYS_MAX && now - outbox.relayed_at > RELAY_LOST_S {
                        outbox.relays = 0;
                    }
                    if state.replicating || outbox.relays >= RELAYS_MAX {
                        return false;
                    }
                    // A chart counts once, however often it is asked for.
                    if !std::mem::replace(&mut state.upstream.relaying, true) {
                        outbox.relays += 1;
                    }
                    outbox.relayed_at = now;
                    drop(guard);
                    return child.post(|out| {
                        pluginsd::replay_chart(out, chart.id(), ask.start, ask.after, ask.before);
                    });
                }
                let mut how = Answering {
                    agreed: outbox.agreed,
                    dialect,
                    slot: state.upstream.slot,
                    now,
                    bytes_max: outbox.limit / 4,
                };
                let known = held.filter(|(version, _)| *version == state.past_version);
                let (first, last) = match known {
                    Some((_, (first, last))) => (first, last.max(state.last_updated)),
                    None => state.held(),
                };
                if !ask.start && ask.after > 0 && ask.after.max(ask.before) < last.0 {
                    // The past changes no more: neither collectors nor other answers have to wait for its reading.
                    how.bytes_max = how.bytes_max.min(PAST_BYTES);
                    past = Some((View::with(state, (first, last)), how));
                } else {
                    let answered = replication::answer(&mut outbox.bytes, chart, state, ask, &how);
                    state.upstream.streaming |= answered.start;
                }
            }
            // An old parent closes on a chart it does not know; a new one waits for an answer.
            _ if outbox.agreed.contains(Capabilities::INTERPOLATED) => {
                replication::answer_unknown(&mut outbox.bytes, id, dialect, now, true);
            }
            _ => {}
        }
        outbox.count(Content::Replication, start);
        if let Some((view, how)) = past {
            drop(guard);
            drop(state);
            let mut ahead = ahead.lock();
            let mut block = std::mem::take(&mut ahead.block);
            block.clear();
            let (what, chart) = ((id, &view), chart.as_deref());
            replication::answer_past(&mut block, what, chart, ask, &how, &mut ahead);
            self.push(connection, Content::Replication, |out| out.extend_from_slice(&block));
            ahead.block = block;
            return true;
        }
        self.bound(outbox, start);
        let wake = !std::mem::replace(&mut outbox.woken, true);
        drop(guard);
        drop(state);
        if wake {
            self.wake.signal();
        }
        true
    }

    /// The chart is defined on that connection.
    pub fn is_defined(connection: u32, state: &ChartState) -> bool {
        state.upstream.connection == connection && state.upstream.wanted == Some(true)
    }

    /// That connection stands.
    pub fn is_open(&self, connection: u32) -> bool {
        self.outbox.lock().connection == connection
    }

    /// The outbox of that connection has room for an answer.
    pub fn has_room(&self, connection: u32) -> bool {
        let outbox = self.outbox.lock();
        outbox.connection == connection && outbox.has_room(PAST)
    }

    // --- the collectors' side ------------------------------------------------------------------------

    /// The parent knows the chart as it is now, and wants it; else it is told.
    #[inline]
    fn is_known(&self, outbox: &mut Outbox, chart: &Chart, state: &mut ChartState) -> bool {
        let upstream = &state.upstream;
        if upstream.connection == outbox.connection && upstream.version == state.version {
            upstream.wanted == Some(true) && upstream.streaming
        } else {
            self.define(outbox, chart, state) && state.upstream.streaming
        }
    }

    #[cold]
    fn define(&self, outbox: &mut Outbox, chart: &Chart, state: &mut ChartState) -> bool {
        let Some(dialect) = outbox.dialect else { return false };
        let agreed = outbox.agreed;
        // Its own past is still on the way to us. A real parent never asks for what is older than what it has.
        let waits =
            state.replicating || (state.filling.is_any() && !agreed.contains(Capabilities::SPANS));
        if waits && agreed.contains(Capabilities::REPLICATION) {
            return false;
        }
        // A parent that computes slots itself leaves the first one of a dimension empty unless an answer of this connection
        // had a sample of it: there is one once a slot was stored in this run, whatever there is of earlier ones.
        let computes = agreed.contains(Capabilities::REPLICATION)
            && !agreed.contains(Capabilities::INTERPOLATED);
        let keeps = self.host.settings().mode != Mode::None;
        if computes && keeps && state.counter == 0 {
            return false;
        }
        let fresh = state.upstream.connection != outbox.connection;
        if fresh {
            let resync = outbox.options.resync_iterations * state.meta.update_every.seconds();
            state.upstream = Upstream {
                connection: outbox.connection,
                resync_until: self.clock.now_seconds().0.saturating_add(resync),
                ..Upstream::default()
            };
        }
        state.upstream.version = state.version;
        // What the parent never heard of need not be taken from it.
        let is_news = state.upstream.slot == 0 && state.is_obsolete();
        let wanted = !is_news && outbox.options.wants(chart, state);
        state.upstream.wanted = Some(wanted);
        if !wanted {
            return false;
        }
        if state.upstream.slot == 0 {
            state.upstream.slot = outbox.free_slots.pop().unwrap_or_else(|| {
                outbox.next_slot += 1;
                outbox.next_slot - 1
            });
        }
        let out = &mut outbox.bytes;
        let meta = &state.meta;
        let name = if *meta.name == **chart.id() {
            ""
        } else {
            meta.name.split_once('.').map_or(&*meta.name, |(_, name)| name)
        };
        let start = out.len();
        let line = ChartLine {
            id: chart.id(),
            name,
            title: &meta.title,
            units: &meta.units,
            family: &meta.family,
            context: &meta.context,
            chart_type: meta.chart_type.name(),
            priority: meta.priority,
            update_every: meta.update_every.seconds(),
            obsolete: meta.options.contains(ChartOptions::OBSOLETE),
            detail: meta.options.contains(ChartOptions::DETAIL),
            store_first: meta.options.contains(ChartOptions::STORE_FIRST),
            hidden: meta.options.contains(ChartOptions::HIDDEN),
            plugin: &meta.plugin,
            module: &meta.module,
        };
        pluginsd::chart(out, dialect, state.upstream.slot, &line);
        if agreed.contains(Capabilities::CLABELS) && !state.labels.is_empty() {
            for label in state.labels.iter() {
                let source = u32::from(label.source.0);
                pluginsd::chart_label(out, &label.name, &label.value, source);
            }
            pluginsd::chart_labels_end(out);
        }
        for (dim, number) in state.dims.iter().zip(1u32..) {
            let line = DimensionLine {
                id: &dim.id,
                name: &dim.name,
                algorithm: dim.algorithm.name(),
                multiplier: dim.multiplier,
                divisor: dim.divisor,
                obsolete: dim.options.contains(DimensionOptions::OBSOLETE),
                hidden: dim.options.contains(DimensionOptions::HIDDEN),
                noreset: dim.options.contains(DimensionOptions::NO_RESET),
            };
            pluginsd::dimension(out, dialect, number, &line);
        }
        if agreed.contains(Capabilities::FUNCTIONS) {
            for function in self.host.functions() {
                if function.chart.as_deref() == Some(&**chart.id()) {
                    announce(out, &function);
                }
            }
        }
        put_variables(out, state);
        let replication = agreed.contains(Capabilities::REPLICATION);
        if replication {
            let now = self.clock.now_seconds();
            let (first, last) = state.offered(now);
            pluginsd::chart_definition_end(out, first.0, last.0, now.0);
        }
        outbox.count(Content::Metadata, start);
        state.upstream.streaming = !replication;
        if state.is_obsolete() && !replication {
            // Its parent forgets the slot with this definition; if the chart comes back it gets another.
            outbox.free_slots.push(std::mem::take(&mut state.upstream.slot));
        }
        true
    }

    /// Keeps the outbox within its limit after a message was appended at `start`.
    #[inline]
    fn bound(&self, outbox: &mut Outbox, start: usize) {
        let held = outbox.bytes.len() + outbox.in_flight;
        if held > outbox.limit {
            self.too_much(outbox, start);
        }
    }

    #[cold]
    fn too_much(&self, outbox: &mut Outbox, start: usize) {
        let message = outbox.bytes.len() - start;
        if message.saturating_mul(MESSAGES_PER_OUTBOX) > outbox.limit {
            log::info!(
                "STREAM {} [send]: max buffer size of {} is too small for a data message of size {message}. Increasing the max buffer size to {MESSAGES_PER_OUTBOX} times the max data message size.",
                self.host.hostname(),
                outbox.limit
            );
            outbox.limit = message * MESSAGES_PER_OUTBOX;
            if outbox.bytes.len() + outbox.in_flight <= outbox.limit {
                return;
            }
        }
        self.live.store(false, Ordering::Release);
        outbox.overflowed = true;
        outbox.bytes = Vec::new();
        self.wake.signal();
    }
}

impl Tap for Uplink {
    fn slot(&self, chart: &Chart, state: &mut ChartState, end: UnixSeconds) {
        if !self.live.load(Ordering::Acquire) {
            return;
        }
        let mut guard = self.outbox.lock();
        let outbox = &mut *guard;
        if outbox.overflowed || !outbox.agreed.contains(Capabilities::INTERPOLATED) {
            return;
        }
        let start = outbox.bytes.len();
        if state.dims.iter().any(|dim| !dim.current.is_empty())
            && self.is_known(outbox, chart, state)
            && let Some(dialect) = outbox.dialect
        {
            let out = &mut outbox.bytes;
            let begun = out.len();
            let wall = state.last_collected.seconds().0;
            let every = state.meta.update_every.seconds();
            let slot = state.upstream.slot;
            pluginsd::begin2(out, dialect, slot, chart.id(), every, end.0, wall);
            for (dim, number) in state.dims.iter().zip(1u32..) {
                let sample = dim.current;
                if sample.is_empty() {
                    continue;
                }
                let flags = PointFlags::Stored {
                    anomalous: sample.is_anomalous(),
                    reset: sample.is_reset(),
                };
                // The newest slot's value goes out as it came in; what is stored of it comes to the same at every hop.
                let newest = end == state.last_updated && !dim.latest.is_nan();
                let value = if newest { dim.latest } else { sample.unpack() };
                pluginsd::set2(out, dialect, number, &dim.id, dim.collected, value, flags);
            }
            put_changed_variables(out, state);
            pluginsd::end2(out);
            outbox.count(Content::Data, begun);
        }
        self.bound(outbox, start);
    }

    fn collected(&self, chart: &Chart, state: &mut ChartState, since_us: i64) {
        if !self.live.load(Ordering::Acquire) {
            return;
        }
        let mut guard = self.outbox.lock();
        let outbox = &mut *guard;
        if outbox.overflowed {
            return;
        }
        let interpolated = outbox.agreed.contains(Capabilities::INTERPOLATED);
        let replicates = outbox.agreed.contains(Capabilities::REPLICATION);
        if interpolated && !replicates {
            // The definition goes with the first slot that holds anything: a parent gets no chart without samples.
            return;
        }
        let start = outbox.bytes.len();
        if self.is_known(outbox, chart, state)
            && !interpolated
            && state.dims.iter().any(|dim| dim.updated)
        {
            let out = &mut outbox.bytes;
            let begun = out.len();
            let resyncing = state.last_collected.seconds().0 <= state.upstream.resync_until;
            let own_clock = resyncing && !replicates;
            pluginsd::begin(out, chart.id(), if own_clock { 0 } else { since_us });
            for dim in state.dims.iter().filter(|dim| dim.updated) {
                pluginsd::set(out, &dim.id, dim.collected);
            }
            put_changed_variables(out, state);
            pluginsd::end(out);
            outbox.count(Content::Data, begun);
        }
        self.bound(outbox, start);
    }

    fn redefined(&self, chart: &Chart, state: &mut ChartState) {
        if !self.live.load(Ordering::Acquire) {
            return;
        }
        let mut outbox = self.outbox.lock();
        // What the parent does not know yet it hears with the first data.
        if !outbox.overflowed && state.upstream.connection == outbox.connection {
            let start = outbox.bytes.len();
            self.is_known(&mut outbox, chart, state);
            self.bound(&mut outbox, start);
        }
    }

    fn caught_up(&self, chart: &Chart, state: &mut ChartState) {
        if !self.live.load(Ordering::Acquire) {
            return;
        }
        let mut outbox = self.outbox.lock();
        // A parent that asks should do so before there is more to ask for.
        if !outbox.overflowed && outbox.agreed.contains(Capabilities::REPLICATION) {
            let start = outbox.bytes.len();
            self.is_known(&mut outbox, chart, state);
            self.bound(&mut outbox, start);
        }
    }

    fn filled(&self, chart: &Chart, state: &mut ChartState) {
        let mut outbox = self.outbox.lock();
        if outbox.overflowed
            || !outbox.agreed.contains(Capabilities::SPANS)
            || !Self::is_defined(outbox.connection, state)
        {
            return;
        }
        let (first, last) = state.held();
        let wall = self.clock.now_seconds().max(last);
        let start = outbox.bytes.len();
        pluginsd::offer(&mut outbox.bytes, chart.id(), first.0, last.0, wall.0);
        outbox.count(Content::Replication, start);
        self.bound(&mut outbox, start);
    }

    fn relayed(&self, chart: &Chart, state: &mut ChartState, part: Relayed<'_>) {
        let mut guard = self.outbox.lock();
        let outbox = &mut *guard;
        let Some(dialect) = outbox.dialect else { return };
        if outbox.overflowed || outbox.connection != state.upstream.connection {
            return;
        }
        let how = Answering {
            agreed: outbox.agreed,
            dialect,
            slot: state.upstream.slot,
            now: self.clock.now_seconds(),
            bytes_max: usize::MAX,
        };
        if outbox.relay_of.as_ref() != Some(chart.id()) {
            // Another chart's block that was left open is no part of this one.
            outbox.relay.clear();
            outbox.relay_of = Some(Arc::clone(chart.id()));
        }
        replication::relay(&mut outbox.relay, chart, state, part, &how);
        let Relayed::End(end) = part else {
            if outbox.relay.len() > RELAY_BYTES_MAX {
                // A block without an end: the connection starts anew.
                self.live.store(false, Ordering::Release);
                outbox.overflowed = true;
                outbox.bytes = Vec::new();
                outbox.relay = Vec::new();
                self.wake.signal();
            }
            return;
        };
        outbox.relay_of = None;
        outbox.relayed_at = how.now;
        state.upstream.streaming |= end.start;
        outbox.relays = outbox.relays.saturating_sub(1);
        let start = outbox.bytes.len();
        let block = std::mem::take(&mut outbox.relay);
        outbox.bytes.extend_from_slice(&block);
        outbox.count(Content::Replication, start);
        self.bound(outbox, start);
    }

    fn is_compressed(&self) -> bool {
        self.live.load(Ordering::Acquire)
            && self.outbox.lock().agreed.intersects(Capabilities::COMPRESSIONS)
    }

    fn flush(&self) {
        if !self.live.load(Ordering::Acquire) {
            return;
        }
        let mut outbox = self.outbox.lock();
        if outbox.bytes.is_empty() || std::mem::replace(&mut outbox.woken, true) {
            return;
        }
        drop(outbox);
        self.wake.signal();
    }
}

/// Appends the line that announces a function.
pub fn announce(out: &mut Vec<u8>, function: &Function) {
    let timeout = i64::try_from(function.timeout.as_secs()).unwrap_or(i64::MAX);
    let line = FunctionLine {
        global: function.chart.is_none(),
        name: &function.name,
        timeout,
        help: &function.help,
        tags: &function.tags,
        access: function.access,
        priority: function.priority,
    };
    pluginsd::function(out, &line);
}

fn put_variables(out: &mut Vec<u8>, state: &mut ChartState) {
    for (name, value) in &state.variables {
        pluginsd::variable(out, Scope::Chart, name, *value);
    }
    state.upstream.variables = fingerprint(state);
}

#[inline]
fn put_changed_variables(out: &mut Vec<u8>, state: &mut ChartState) {
    if !state.variables.is_empty() && state.upstream.variables != fingerprint(state) {
        put_variables(out, state);
    }
}

/// Tells one set of variables from the next; names are never removed, so values and their number suffice.
fn fingerprint(state: &ChartState) -> u32 {
    let mut sum = state.variables.len() as u64;
    for (_, value) in &state.variables {
        sum = (sum.rotate_left(7) ^ value.to_bits()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    (sum >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::MachineGuid;
    use crate::base::number::SampleFlags;
    use crate::base::time::{UnixMicros, UpdateEvery};
    use crate::metrics::{
        Algorithm, ChartSpec, DimensionSpec, HostInfo, HostKind, HostSettings, Neighbour, Point,
        PointValue, SinceLast, Staged,
    };
    use crate::storage::StorageEngine;
    use crate::storage::none::NoneEngine;
    use crate::storage::ring::RingEngine;

    const T0: i64 = 1_795_335_090;
    const SEED: Capabilities = Capabilities::from_bits_retain(11200);
    const LATER: Capabilities = SEED
        .union(Capabilities::INTERPOLATED)
        .union(Capabilities::IEEE754)
        .union(Capabilities::SLOTS);

    struct Bed {
        host: Arc<Host>,
        uplink: Arc<Uplink>,
        clock: Clock,
    }

    fn bed(charts: &str, buffer_bytes: usize) -> Bed {
        bed_on(Arc::new(NoneEngine::new()), HostSettings::default(), charts, buffer_bytes)
    }

    fn bed_on(
        engine: Arc<dyn StorageEngine>,
        settings: HostSettings,
        charts: &str,
        buffer_bytes: usize,
    ) -> Bed {
        let (guid, info) = (MachineGuid::random(), HostInfo::named("h"));
        let host = Host::new(guid, HostKind::Local, info, engine, settings);
        let clock = Clock::manual(UnixMicros(T0 * 1_000_000));
        let options = UplinkOptions {
            charts: SimplePattern::new(charts),
            buffer_bytes,
            resync_iterations: 60,
        };
        let uplink = Uplink::new(Arc::clone(&host), options, clock.clone()).unwrap();
        host.set_tap(Some(Arc::clone(&uplink) as Arc<dyn Tap>));
        Bed { host, uplink, clock }
    }

    impl Bed {
        fn chart(&self, id: &str) -> Arc<Chart> {
            let chart = self.host.define_chart(&ChartSpec { id, ..ChartSpec::default() }).unwrap();
            let spec = DimensionSpec::plain("x", Algorithm::Absolute, 1, 1);
            chart.define_dimension(&spec).unwrap();
            chart
        }

        fn collect(&self, chart: &Chart, value: i64) {
            self.clock.advance(1_000_000);
            chart.complete(&[Staged { dim: 0, value }], SinceLast::Clock, self.clock.now());
        }

        fn taken(&self) -> Vec<String> {
            let mut bytes = Vec::new();
            self.uplink.take(&mut bytes, 0);
            let text = String::from_utf8(bytes).unwrap();
            text.lines().filter(|line| !line.starts_with("CLABEL")).map(str::to_owned).collect()
        }
    }

    const DEFINED: &str = r#""t.a" "" "" "" "t" "t.a" "line" 1000 1 "   " "" """#;

    #[test]
    fn nothing_is_kept_without_a_connection() {
        let bed = bed("*", 1 << 20);
        let chart = bed.chart("t.a");
        bed.collect(&chart, 1);
        assert!(bed.taken().is_empty());
    }

    #[test]
    fn the_old_form_carries_raw_values_and_no_time_at_first() {
        let bed = bed("*", 1 << 20);
        let chart = bed.chart("t.a");
        bed.uplink.open(SEED, |_| {});
        bed.collect(&chart, 7);
        let definition =
            [format!("CHART {DEFINED}"), r#"DIMENSION "x" "x" "absolute" 1 1 "  ""#.to_owned()];
        let data = [r#"BEGIN "t.a" 0"#, r#"SET "x" = 7"#, "END"].map(str::to_owned);
        assert_eq!(bed.taken(), [&definition[..], &data[..]].concat());
        bed.collect(&chart, 7);
        assert_eq!(bed.taken(), data);
        for _ in 0..60 {
            bed.collect(&chart, 7);
        }
        assert_eq!(bed.taken().iter().rev().nth(2).unwrap(), r#"BEGIN "t.a" 1000000"#);
    }

    #[test]
    fn a_parent_that_makes_slots_itself_hears_of_a_chart_once_one_of_this_run_is_stored() {
        let settings = HostSettings { mode: Mode::Ram, ..HostSettings::default() };
        let bed = bed_on(Arc::new(RingEngine::in_memory(Mode::Ram, 3600)), settings, "*", 1 << 20);
        let chart = bed.chart("t.a");
        let flags = SampleFlags::default();
        let values = [PointValue { dim: 0, collected: 3, value: 3.0, flags }];
        let end = UnixSeconds(T0 - 100);
        chart.store_point(&Point { end, every: UpdateEvery::SECOND, values: &values });
        // As if that had been in an earlier run.
        chart.lock().counter = 0;
        bed.uplink.open(SEED | Capabilities::REPLICATION, |_| {});
        bed.uplink.caught_up(&chart, &mut chart.lock());
        assert_eq!(bed.uplink.take(&mut Vec::new(), 0), Taken::Nothing);
        let end = UnixSeconds(T0);
        chart.store_point(&Point { end, every: UpdateEvery::SECOND, values: &values });
        let lines = bed.taken();
        assert_eq!(lines[2], format!("CHART_DEFINITION_END {} {T0} {T0}", T0 - 101));
        assert_eq!(lines.len(), 3, "live samples only when it is asked: {lines:?}");
    }

    #[test]
    fn the_new_form_carries_slots_as_stored() {
        let bed = bed("*", 1 << 20);
        let chart = bed.chart("t.a");
        bed.uplink.open(LATER, |out| out.extend_from_slice(b"first\n"));
        bed.collect(&chart, 7);
        assert_eq!(bed.taken(), ["first"], "the first collection stores nothing");
        bed.collect(&chart, 18);
        let lines = bed.taken();
        assert_eq!(lines[0], format!("CHART SLOT:#B {DEFINED}"));
        assert_eq!(lines[1], r#"DIMENSION SLOT:#B "x" "x" "absolute" 1 1 "  ""#);
        let data = ["BEGIN2 SLOT:#B 't.a' #B #BrAqO0 #", "SET2 SLOT:#B 'x' #S # A", "END2"];
        assert_eq!(lines[2..], data);
    }

    #[test]
    fn final_values_pass_to_the_bit() {
        let bed = bed("*", 1 << 20);
        let chart = bed.chart("t.a");
        bed.uplink.open(LATER, |_| {});
        let flags = SampleFlags { anomalous: true, reset: true };
        let values = [PointValue { dim: 0, collected: -3, value: 1.5, flags }];
        let end = UnixSeconds(T0);
        chart.store_point(&Point { end, every: UpdateEvery::SECOND, values: &values });
        assert_eq!(bed.taken()[3], "SET2 SLOT:#B 'x' -#D @D/4AAAAAAAA R");
    }

    #[test]
    fn a_chart_that_nobody_wants_is_never_named() {
        let bed = bed("!t.a *", 1 << 20);
        let (a, b) = (bed.chart("t.a"), bed.chart("t.b"));
        bed.uplink.open(SEED, |_| {});
        bed.collect(&a, 1);
        bed.collect(&b, 1);
        assert!(bed.taken().iter().all(|line| !line.contains("t.a")));
    }

    #[test]
    fn a_new_dimension_defines_again_and_an_obsolete_chart_is_told_once() {
        let bed = bed("*", 1 << 20);
        let chart = bed.chart("t.a");
        bed.uplink.open(LATER, |_| {});
        bed.collect(&chart, 1);
        bed.collect(&chart, 1);
        bed.taken();
        chart.define_dimension(&DimensionSpec::plain("y", Algorithm::Absolute, 1, 1)).unwrap();
        bed.collect(&chart, 1);
        let lines = bed.taken();
        assert!(lines[0].starts_with("CHART SLOT:#B") && lines[2].starts_with("DIMENSION SLOT:#C"));
        chart.mark_obsolete();
        let lines = bed.taken();
        assert!(lines[0].contains(r#""obsolete   ""#), "{lines:?}");
        chart.mark_obsolete();
        assert!(bed.taken().is_empty());
        let heir = bed.chart("t.heir");
        bed.collect(&heir, 1);
        bed.collect(&heir, 1);
        assert!(bed.taken()[0].starts_with("CHART SLOT:#B \"t.heir\""));
        bed.collect(&chart, 1);
        assert!(bed.taken()[0].starts_with("CHART SLOT:#C \"t.a\""));
    }

    #[test]
    fn what_was_over_before_the_connection_is_not_defined_on_it() {
        let bed = bed("*", 1 << 20);
        let chart = bed.chart("t.a");
        chart.mark_obsolete();
        let number = bed.uplink.open(LATER | Capabilities::SPANS, |_| {});
        chart.end_filling(Neighbour::Parent, false);
        assert!(bed.taken().is_empty());
        assert!(
            !Uplink::is_defined(number, &chart.lock()),
            "it is asked for as what does not flow"
        );
        bed.collect(&chart, 1);
        bed.collect(&chart, 1);
        assert!(bed.taken()[0].starts_with("CHART SLOT:#B"), "it is collected again");
        assert!(Uplink::is_defined(number, &chart.lock()));
    }

    #[test]
    fn variables_follow_their_changes() {
        let bed = bed("*", 1 << 20);
        let chart = bed.chart("t.a");
        chart.lock().set_variable("limit", 42.0);
        bed.uplink.open(SEED, |_| {});
        bed.collect(&chart, 1);
        assert_eq!(bed.taken()[2], "VARIABLE CHART limit = 42.0000000");
        bed.collect(&chart, 1);
        assert_eq!(bed.taken().len(), 3);
        chart.lock().set_variable("limit", 43.0);
        bed.collect(&chart, 1);
        assert_eq!(bed.taken()[2], "VARIABLE CHART limit = 43.0000000");
    }

    #[test]
    fn too_much_ends_the_connection_and_the_next_starts_afresh() {
        let bed = bed("*", 2000);
        let chart = bed.chart("t.a");
        bed.uplink.open(SEED, |_| {});
        for _ in 0..100 {
            bed.collect(&chart, 1);
        }
        let mut spare = Vec::new();
        assert_eq!(bed.uplink.take(&mut spare, 0), Taken::Overflow { allocated: 2000 });
        bed.uplink.close();
        bed.uplink.open(SEED, |_| {});
        bed.collect(&chart, 1);
        assert!(bed.taken()[0].starts_with("CHART"));
    }

    #[test]
    fn a_message_bigger_than_the_outbox_raises_the_limit() {
        let bed = bed("*", 100);
        let chart = bed.chart("t.a");
        bed.uplink.open(SEED, |_| {});
        bed.collect(&chart, 1);
        assert!(!bed.taken().is_empty());
    }

    #[test]
    fn lines_for_a_connection_that_is_gone_are_dropped() {
        let bed = bed("*", 1000);
        let first = bed.uplink.open(SEED, |_| {});
        bed.uplink.close();
        let second = bed.uplink.open(SEED, |_| {});
        bed.uplink.push(first, Content::Metadata, |out| out.extend_from_slice(b"late\n"));
        bed.uplink.push(second, Content::Functions, |out| out.extend_from_slice(b"now\n"));
        assert_eq!(bed.taken(), ["now"]);
        assert_eq!(bed.uplink.put(), [0, 0, 0, 4]);
    }

    #[test]
    fn what_is_put_in_is_counted_by_what_it_is() {
        for agreed in [SEED, LATER] {
            let bed = bed("*", 1 << 20);
            let chart = bed.chart("t.a");
            bed.uplink.open(agreed, |out| out.extend_from_slice(b"first\n"));
            for _ in 0..3 {
                bed.collect(&chart, 1);
            }
            let lines = bed.taken();
            let bytes = |words: &[&str]| -> u64 {
                let of = |line: &&String| words.contains(&line.split(' ').next().unwrap_or(""));
                lines.iter().filter(of).map(|line| line.len() as u64 + 1).sum()
            };
            let defined = bytes(&["first", "CHART", "DIMENSION"]);
            let samples = bytes(&["BEGIN", "SET", "END", "BEGIN2", "SET2", "END2"]);
            let put = bed.uplink.put();
            // CLABEL lines are left out by the bed.
            assert!(put[Content::Metadata as usize] >= defined, "{put:?}");
            assert_eq!(put[Content::Data as usize], samples);
            assert_eq!(put[2..], [0, 0]);
        }
    }
}
