//! The one executor of PLUGINSD commands: what plugins and streaming children say becomes charts and samples.
//!
//! One [`Executor`] per plugin process or connection, owned by the thread that reads it. It is fed chunks as they are
//! read, or whole lines, and does no I/O; time comes with each.
//!
//! ```text
//! let mut executor = Executor::new(Setup { origin: Origin::Stream(caps), calls: Some(calls), hooks: Box::new(mine),
//!                                          ..Setup::new(host) });
//! executor.feed_chunk(&mut lines, chunk, now)?;   // Err(Violation): log() it, then end the session
//! executor.flush();                               // after each chunk: wakes the senders of the hosts it fed
//! ```
//!
//! * A plugin's [`Violation`] says by its [`Verdict`] whether the plugin may start again; a stream's ends the connection.
//! * Which keywords exist depends on the [`Origin`]: `BEGIN2` needs INTERPOLATED, `JSON` needs PATHS, virtual nodes and
//!   the like are for plugins only, replication words need REPLICATION.
//! * What the executor cannot do itself goes to [`Hooks`]; function results go to the session's [`Calls`], which is also
//!   the provider of every function the session announces.
//!
//! Hot path: BEGIN, SET, END and their new forms are recognised by [`fast`] without taking words apart, because they start
//! as [`session`] remembers them from last time; values are staged and applied under one chart lock at END. No lock, no
//! allocation and no system call per sample. Everything else goes through [`commands`]. Both give the same results.

use std::sync::Arc;

use memchr::{memchr, memrchr};

use crate::base::ids::MachineGuid;
use crate::base::time::{UnixMicros, UnixSeconds, UpdateEvery};
use crate::ingest::functions::Calls;
use crate::metrics::{Chart, Host, Hosts, Labels, Point, PointValue, SinceLast, Staged};
use crate::storage::StorageEngine;
use crate::wire::caps::Capabilities;
use crate::wire::words::{LINE_LIMIT, Lines, Rules};

mod session;
mod fast;
mod commands;
mod bodies;
mod nodes;
mod replay;
mod spans;
mod limits;
mod violation;
#[cfg(test)]
mod tests;

pub use self::limits::latest as latest_believed;
pub use self::violation::{Verdict, Violation};

use self::bodies::Body;
use self::commands::TIME_MAX;
use self::limits::Limits;
use self::nodes::Definition;
use self::session::{NONE, Session};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process of ours; its durations are checked against the clock.
    Plugin,
    /// A child, with what was agreed.
    Stream(Capabilities),
}

/// What a session does beside charts and samples. Called on the session's thread, without any lock held.
pub trait Hooks: Send {
    /// The host's claim id was given; it stands in the host's info. Pass it on upstream.
    fn claimed(&mut self, host: &Arc<Host>) {
        let _ = host;
    }

    /// The host's labels were replaced.
    fn labelled(&mut self, host: &Arc<Host>) {
        let _ = host;
    }

    /// A `JSON <keyword>` block, as it stood between its first and last line.
    fn json(&mut self, host: &Arc<Host>, keyword: &str, payload: &[u8]) {
        let _ = (host, keyword, payload);
    }

    /// A chart's definition is complete and says what the child holds of it. The chart is waiting for an answer.
    fn defined(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer) {
        let _ = (host, chart, offer);
    }

    /// The same of a chart that is waiting already.
    fn defined_again(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer) {
        let _ = (host, chart, offer);
    }

    /// Charts of the host that are not collected are of interest.
    fn wants_archived(&self, host: &Arc<Host>) -> bool {
        let _ = host;
        false
    }

    /// The peer says what it holds of a chart, or of those `dims` of it that are not collected. Nothing waits for an
    /// answer.
    fn offered(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer, dims: &[Arc<str>]) {
        let _ = (host, chart, offer, dims);
    }

    /// The peer asks for samples of a chart with `after < time <= before`.
    fn asked(&mut self, chart: &str, start: bool, after: i64, before: i64) {
        let _ = (chart, start, after, before);
    }

    /// The peer asks what a span of a chart comes to here.
    fn digest(&mut self, number: u64, chart: &str, after: i64, before: i64, dim: Option<&str>) {
        let _ = (number, chart, after, before, dim);
    }

    /// The answer to a question of ours.
    fn digest_is(&mut self, number: u64, samples: u64, sum: u64) {
        let _ = (number, samples, sum);
    }

    /// A block of replicated samples is complete. Its chart is still waiting.
    fn replayed(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, block: Replayed) {
        let _ = (host, chart, block);
    }
}

/// What a child holds of a chart, in seconds since 1970; zeros = nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub first: i64,
    pub last: i64,
    /// The child's clock.
    pub wall: i64,
}

/// How a block of replicated samples ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub offer: Offer,
    /// Live samples follow.
    pub start: bool,
    /// The request this answers, as far as it was covered.
    pub after: i64,
    pub before: i64,
    /// Slots of samples that were in it.
    pub slots: u32,
    /// Up to where the answer is sure to be complete: seed peers of 1.x end theirs at the first slot without samples, and say
    /// all the same that it reaches `before` (streaming specification, 5.3).
    pub reached: i64,
}

/// No interest in any of it.
pub struct NoHooks;

impl Hooks for NoHooks {}

/// Makes the engine that keeps a new node's samples.
type NewEngine = Box<dyn Fn(MachineGuid) -> Arc<dyn StorageEngine> + Send + Sync>;
type Told = Box<dyn Fn(&Arc<Host>) + Send + Sync>;

/// What it takes to make virtual nodes.
pub struct Nodes {
    pub hosts: Arc<Hosts>,
    pub engine: NewEngine,
    /// Called for every new node, on the plugin's thread.
    pub created: Told,
}

/// What an executor is made of.
pub struct Setup {
    pub origin: Origin,
    /// Whose charts they are, until a `HOST` line says otherwise.
    pub host: Arc<Host>,
    /// Of charts that do not say.
    pub update_every: UpdateEvery,
    /// The plugin word of charts that have none, e.g. `apps.plugin`.
    pub plugin: String,
    /// Where virtual nodes live; without it their words are refused.
    pub nodes: Option<Arc<Nodes>>,
    /// Answers the functions that are announced; without it announcements are ignored.
    pub calls: Option<Arc<Calls>>,
    pub hooks: Box<dyn Hooks>,
}

impl Setup {
    /// A plugin's, with defaults for the rest.
    pub fn new(host: Arc<Host>) -> Setup {
        let update_every = UpdateEvery::clamped(host.info().update_every);
        Setup {
            origin: Origin::Plugin,
            host,
            update_every,
            plugin: String::new(),
            nodes: None,
            calls: None,
            hooks: Box::new(NoHooks),
        }
    }
}

pub struct Executor {
    // The hot part first.
    session: Session,
    /// The latest end of a slot that is believed; with each chunk, by our clock.
    latest: i64,
    /// Index of the chart in scope, or NONE.
    chart: u32,
    /// The dimension expected next, and the one before it.
    dim: u32,
    dim_before: u32,
    /// BEGIN2 came and its END2 did not.
    in_point: bool,
    interpolated: bool,
    slots: bool,
    /// Lines belong to a body, not to commands.
    body: Option<Body>,
    trust_durations: bool,
    since_us: i64,
    staged: Vec<Staged>,
    point_end: UnixSeconds,
    point_every: UpdateEvery,
    point: Vec<PointValue>,
    completed: u64,
    replayed: u64,
    /// A replicated slot is being filled; `point` holds its values.
    replay: Option<replay::Block>,
    /// Slots stored since the block of replicated samples began.
    replay_slots: u32,
    /// The end of the newest of them.
    replay_newest: i64,
    /// A block of replicated samples is about a chart that is not here any more.
    skips_block: bool,
    /// It was said that slots of another interval came.
    said_foreign: bool,

    origin: Origin,
    /// Of a child.
    limits: Option<Limits>,
    now: UnixMicros,
    rules: Rules,
    update_every: UpdateEvery,
    plugin: String,
    /// Sessions of other hosts this plugin speaks for.
    parked: Vec<Session>,
    nodes: Option<Arc<Nodes>>,
    calls: Option<Arc<Calls>>,
    hooks: Box<dyn Hooks>,
    host_labels: Option<Labels>,
    chart_labels: Option<Labels>,
    definition: Option<Definition>,
    /// Dimensions named since `ARCHIVED`.
    old_dims: Vec<Arc<str>>,
}

impl Executor {
    pub fn new(setup: Setup) -> Executor {
        let (interpolated, slots, rules) = match setup.origin {
            Origin::Plugin => (false, true, Rules::Seed),
            Origin::Stream(caps) => {
                let interpolated = caps.contains(Capabilities::INTERPOLATED);
                let rules = if interpolated { Rules::Later } else { Rules::Seed };
                (interpolated, caps.contains(Capabilities::SLOTS), rules)
            }
        };
        Executor {
            session: Session::new(setup.host),
            latest: TIME_MAX,
            chart: NONE,
            dim: NONE,
            dim_before: NONE,
            in_point: false,
            interpolated,
            slots,
            body: None,
            trust_durations: setup.origin != Origin::Plugin,
            since_us: 0,
            staged: Vec::new(),
            point_end: UnixSeconds(0),
            point_every: setup.update_every,
            point: Vec::new(),
            completed: 0,
            replayed: 0,
            replay: None,
            replay_slots: 0,
            replay_newest: 0,
            skips_block: false,
            said_foreign: false,
            origin: setup.origin,
            limits: matches!(setup.origin, Origin::Stream(_)).then(Limits::new),
            now: UnixMicros(0),
            rules,
            update_every: setup.update_every,
            plugin: setup.plugin,
            parked: Vec::new(),
            nodes: setup.nodes,
            calls: setup.calls,
            hooks: setup.hooks,
            host_labels: None,
            chart_labels: None,
            definition: None,
            old_dims: Vec::new(),
        }
    }

    /// Executes one line, given without its line end, at wall-clock time `now`.
    pub fn feed(&mut self, line: &[u8], now: UnixMicros) -> Result<(), Violation> {
        self.tick(now);
        if self.body.is_none() && self.fast(line, now).is_some() {
            return Ok(());
        }
        self.feed_slow(line, now)
    }

    /// Executes the lines that `chunk` completes, as `lines.feed(chunk, |line| executor.feed(line, now))` would, but in
    /// one pass: most lines are read without looking for their end first.
    pub fn feed_chunk(
        &mut self,
        lines: &mut Lines,
        chunk: &[u8],
        now: UnixMicros,
    ) -> Result<(), Violation> {
        self.tick(now);
        let mut text = chunk;
        if lines.pending() > 0 {
            let end = memchr(b'\n', text).map_or(text.len(), |end| end + 1);
            lines.feed(&text[..end], |line| self.feed(line, now))?;
            text = &text[end..];
        }
        let (mut whole, rest) = text.split_at(memrchr(b'\n', text).map_or(0, |end| end + 1));
        while !whole.is_empty() {
            if self.body.is_none()
                && let Some(rest) = self.fast(whole, now)
            {
                whole = rest;
                continue;
            }
            let end = memchr(b'\n', whole).unwrap_or(whole.len());
            let (line, rest) = whole.split_at(end);
            if end <= LINE_LIMIT {
                self.feed_slow(line, now)?;
            } else {
                lines.feed(line, |line| self.feed(line, now))?;
                lines.feed(b"\n", |line| self.feed(line, now))?;
            }
            whole = rest.get(1..).unwrap_or_default();
        }
        lines.feed(rest, |line| self.feed(line, now))
    }

    #[inline]
    fn tick(&mut self, now: UnixMicros) {
        if self.now != now {
            self.now = now;
            if self.limits.is_some() {
                self.latest = limits::latest(now.seconds().0);
            }
        }
    }

    /// Wakes whoever sends the hosts that were fed to a parent. Call it after each batch of lines.
    pub fn flush(&self) {
        self.hosts().for_each(|host| host.flush());
    }

    /// What comes is the result of a function, not a command.
    pub fn is_in_body(&self) -> bool {
        self.body.is_some()
    }

    /// How many collections (END, END2) were completed.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// The same and the blocks of replication (REND): how often a chart moved on.
    pub fn updates(&self) -> u64 {
        self.completed + self.replayed
    }

    /// All hosts this session has spoken for.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        std::iter::once(&self.session).chain(&self.parked).map(|session| &session.host)
    }

    /// The host in scope.
    pub fn host(&self) -> &Arc<Host> {
        &self.session.host
    }

    // --- what both ways of reading a line end in ---------------------------------------------------

    /// A chart comes into scope: by CHART, BEGIN or BEGIN2.
    #[inline]
    fn enter(&mut self, chart: u32) {
        if !self.staged.is_empty() {
            self.keep_staged();
        }
        self.chart = chart;
        self.dim_before = NONE;
        self.dim = self.session.chart(chart).map_or(NONE, |known| known.first());
        self.in_point = false;
        self.since_us = 0;
    }

    #[inline]
    fn leave(&mut self) {
        self.chart = NONE;
        self.dim = NONE;
        self.in_point = false;
    }

    /// Values SET without an END stay with their chart and wait for its next one.
    #[cold]
    fn keep_staged(&mut self) {
        if let Some(known) = self.session.chart(self.chart) {
            known.chart.stage(&mut known.chart.lock(), &self.staged);
        }
        self.staged.clear();
    }

    #[inline]
    fn begin(&mut self, chart: u32, since_us: i64) {
        self.enter(chart);
        self.session.follow(chart);
        self.since_us = since_us;
    }

    #[inline]
    fn begin_point(&mut self, chart: u32, every: i64, end: i64) {
        self.enter(chart);
        self.session.follow(chart);
        self.point.clear();
        self.point_every = UpdateEvery::clamped(every);
        self.point_end = UnixSeconds(end);
        self.in_point = true;
    }

    /// END with a chart in scope.
    #[inline]
    fn complete(&mut self, now: UnixMicros) {
        let since = match self.since_us {
            us if us <= 0 => SinceLast::Clock,
            us if self.trust_durations => SinceLast::Stream(us),
            us => SinceLast::Plugin(us),
        };
        if let Some(known) = self.session.chart(self.chart) {
            known.chart.complete(&self.staged, since, now);
            self.completed += 1;
        }
        self.staged.clear();
        self.leave();
    }

    /// END2 with a chart in scope.
    #[inline]
    fn complete_point(&mut self) {
        if self.in_point
            && let Some(known) = self.session.chart(self.chart)
        {
            let point = Point { end: self.point_end, every: self.point_every, values: &self.point };
            known.chart.store_point(&point);
            self.completed += 1;
        }
        self.point.clear();
        if !self.staged.is_empty() {
            self.keep_staged();
        }
        self.leave();
    }
}
