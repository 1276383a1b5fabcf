//! One instance at work: makes batches when it is their time, hands them over, and remembers how far it has got.
//!
//! What is stored is exported from the store: while the database is away nothing is made, and afterwards one batch
//! after the other follows from where it stopped. Values as they were collected are not stored, so those batches are made
//! in time and wait in memory, at most `buffer on failures` of them.
//!
//! A host's position moves when the database has what it was given: with HTTP when it says so, with lines when its
//! machine has confirmed them and the connection still stood a while later. What is not taken until then is sent again, with
//! the same values.
//!
//! Which version of remote write a server takes it is asked by a request of 2.0 in which there is no series: whatever it makes of that,
//! nothing is lost or there twice. It is asked anew after every outage; a body that was made in the other version is converted.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::body::Body;
use super::gather::{self, Past, Span};
use super::link::{Delivery, Link};
use super::own::{Figures, Own};
use super::positions::Positions;
use super::window::Rhythm;
use crate::base::ids::MachineGuid;
use crate::base::pattern::SimplePattern;
use crate::base::threads::StopToken;
use crate::base::time::{Clock, MICROS, UpdateEvery};
use crate::config::{DataSource, Dialect, InstanceOptions, WriteVersion};
use crate::metrics::{Host, HostKind, Hosts};
use crate::storage::Mode;
use crate::wire::write_request::Version;

/// Batches of one host that are made in one go when there is something to make up for.
const WINDOWS_MAX: usize = 60;
/// Lines that were written and are not known to be taken; above it the writer waits for the other machine.
const UNCONFIRMED_BYTES_MAX: usize = 16 << 20;
/// Lines count as taken when the connection stood for an interval after the other machine had them, within these bounds:
/// who dies meanwhile may not have read them.
const SETTLED_MIN_S: i64 = 10;
const SETTLED_MAX_S: i64 = 60;
/// After a child's connection its batches wait so long for what it has to make up for …
const SETTLE_S: i64 = 15;
/// … and for so long after the last of it arrived, while more is said to come.
const FILLING_S: i64 = 600;
/// A host that is away for so long is exported to its end.
const GONE_S: i64 = 600;
/// Slots of slow charts end so long after the newest sample at most.
const LAST_SLOT_S: i64 = 30;
/// Between two attempts, at least and at most.
const PAUSE_MIN_S: i64 = 1;
const PAUSE_MAX_S: i64 = 30;
/// So often in a row a server may say that it is busy when it is asked for its version; then it gets 1.0, which it may be better at.
const ASKED_MAX: u32 = 3;
/// A request of 2.0 without a series, compressed: its length, and the empty symbol as it is.
const NOTHING: &[u8] = &[2, 1 << 2, 0x22, 0];
/// However long a server asks us to wait.
const RETRY_AFTER_MAX_S: i64 = 3600;

/// What an instance needs of the agent.
pub(super) struct Surroundings<'a> {
    pub(super) hosts: Arc<Hosts>,
    pub(super) clock: Clock,
    pub(super) lib: &'a Path,
    pub(super) collection_every: UpdateEvery,
}

struct Chunk {
    bytes: Vec<u8>,
    /// Of remote write.
    version: Version,
    samples: u64,
    /// The time of the batch it is a part of.
    batch: i64,
    /// Hosts of which it is the last part.
    completes: Vec<(MachineGuid, i64)>,
    /// With lines: when it was written.
    written_us: Option<i64>,
}

/// How far a host's batches have been made.
struct Cursor {
    at: i64,
    wanted: bool,
    /// The first batch of this run takes what an earlier one left.
    first: bool,
    /// Whether it was looked how far back its samples go, since it was last up to date.
    looked: bool,
    /// Of one that is gone: the end of its samples.
    newest: Option<i64>,
    /// What of its past had arrived, and when that was last more.
    filled: (u64, i64),
}

pub(super) struct Worker {
    options: InstanceOptions,
    hosts: Arc<Hosts>,
    clock: Clock,
    stop: StopToken,
    rhythm: Rhythm,
    charts: SimplePattern,
    wanted_hosts: SimplePattern,
    body: Body,
    link: Link,
    /// In which version of remote write bodies are sent; `None` until the server was asked.
    agreed: Option<Version>,
    /// What the log was told of it.
    told: Option<Version>,
    queue: VecDeque<Chunk>,
    positions: Positions,
    cursors: FxHashMap<MachineGuid, Cursor>,
    /// No attempt before.
    patience_us: i64,
    failures: u32,
    /// The status by which a server told that this instance is configured wrongly, once that was logged.
    mistaken: Option<u16>,
    started: i64,
    /// Of values as collected: the last batch.
    collected_at: i64,
    own: Own,
    own_next: i64,
    figures: Figures,
}

impl Worker {
    pub(super) fn new(
        options: InstanceOptions,
        around: &Surroundings<'_>,
        stop: StopToken,
    ) -> Worker {
        let rhythm = Rhythm::new(options.update_every, around.collection_every.seconds());
        if options.update_every % around.collection_every.seconds() != 0 {
            log::info!(
                "The update interval of instance '{}' ({} s) is not a multiple of that of the database ({} s)",
                options.name,
                options.update_every,
                around.collection_every.seconds()
            );
        }
        let now = around.clock.now_seconds().0;
        let every = UpdateEvery::clamped(options.update_every);
        Worker {
            charts: SimplePattern::new(&options.charts),
            wanted_hosts: SimplePattern::new(&options.hosts),
            body: Body::new(&options),
            link: Link::new(&options, stop.clone()),
            agreed: configured(&options),
            told: None,
            queue: VecDeque::new(),
            positions: Positions::open(around.lib, &options.name),
            cursors: FxHashMap::default(),
            patience_us: 0,
            failures: 0,
            mistaken: None,
            started: now,
            collected_at: rhythm.last(now),
            own: Own::new(around.hosts.local(), &options.name, every),
            own_next: rhythm.next(now),
            figures: Figures::default(),
            hosts: Arc::clone(&around.hosts),
            clock: around.clock.clone(),
            rhythm,
            stop,
            options,
        }
    }

    /// The thread's whole life.
    pub(super) fn run(mut self) {
        log::info!(
            "EXPORTING: instance '{}' sends to '{}' ({})",
            self.options.name,
            self.options.destination,
            self.options.connector.name()
        );
        loop {
            let into_second = u64::try_from(self.clock.now().subsecond()).unwrap_or(0);
            // A little after the second, when collectors have begun.
            if self.stop.wait(Duration::from_micros(1_020_000 - into_second)) {
                break;
            }
            self.tick();
            if self.options.source == DataSource::AsCollected {
                self.collected_pass();
                self.pump();
            } else {
                self.stored_pass();
            }
        }
        self.confirm();
        self.positions.save(self.now());
    }

    fn now(&self) -> i64 {
        self.clock.now_seconds().0
    }

    /// What has to be done all the time, whatever else the thread is at.
    fn tick(&mut self) {
        if self.link.is_lines() && self.link.is_open() && !self.link.look() {
            self.lost_connection();
        }
        self.confirm();
        let now = self.now();
        if now >= self.own_next {
            self.own_next = self.rhythm.next(now);
            self.tell(now);
        }
        self.positions.save(now);
    }

    /// The instance's own charts.
    fn tell(&mut self, now: i64) {
        let waiting = |queue: &VecDeque<Chunk>| {
            let unsent = queue.iter().filter(|chunk| chunk.written_us.is_none());
            unsent.fold((0, 0), |(samples, bytes), chunk| {
                (samples + chunk.samples.cast_signed(), bytes + chunk.bytes.len() as i64)
            })
        };
        let oldest = if self.options.source == DataSource::AsCollected {
            self.queue.front().map_or(now, |chunk| chunk.batch)
        } else {
            let behind = self.cursors.iter().filter(|(guid, cursor)| {
                let host = self.hosts.by_guid(**guid);
                cursor.wanted && host.is_some_and(|host| host.is_connected())
            });
            behind.filter_map(|(guid, _)| self.positions.get(*guid)).min().unwrap_or(now)
        };
        self.figures.behind = (now - oldest).max(0);
        self.own.collect(&self.figures, &self.link.counts, self.clock.now());
        self.link.counts = Default::default();
        let (samples, bytes) = waiting(&self.queue);
        self.figures = Figures { buffered: samples, buffered_bytes: bytes, ..Figures::default() };
    }

    // --- what is stored ---------------------------------------------------------------------------

    /// Makes and hands over what is due of all hosts, until nothing is.
    fn stored_pass(&mut self) {
        let mut more = true;
        while more && !self.stop.is_stopped() {
            more = false;
            let last = self.rhythm.last(self.now());
            let mut completes = Vec::new();
            for host in self.hosts.all() {
                let Some((after, ends)) = self.due(&host, last) else { continue };
                let Some(&end) = ends.last() else { continue };
                more |= end < last;
                if !self.host(&host, after, &ends, &mut completes) {
                    return;
                }
                completes.push((host.guid(), end));
                if let Some(cursor) = self.cursors.get_mut(&host.guid()) {
                    cursor.at = end;
                    cursor.first = false;
                }
            }
            if !completes.is_empty() && !self.hand_over(last, completes) {
                return;
            }
        }
    }

    /// All charts of one host. False when there is a stop: then it counts as not made.
    fn host(
        &mut self,
        host: &Host,
        after: i64,
        ends: &[i64],
        completes: &mut Vec<(MachineGuid, i64)>,
    ) -> bool {
        let text = self.body.host(host, &self.options);
        let first = self.cursors.get(&host.guid()).is_some_and(|cursor| cursor.first);
        let past = match first || ends.len() > 2 || !host.is_connected() {
            true => Past::WithArchived,
            false => Past::LiveOnly,
        };
        let span = Span { after, ends, source: self.options.source, past };
        let end = ends.last().copied().unwrap_or(after);
        if host.is_connected() {
            let variables = if self.options.variables { host.variables() } else { Vec::new() };
            self.body.about_host(&text, &variables, end * 1000);
        }
        for chart in gather::charts_of(host, &self.charts, past) {
            let Some(mut copied) = span.chart(host, &chart, &self.charts) else { continue };
            let mut number = 0;
            while span.dimension(&mut copied, number, &text, &mut self.body) {
                number += 1;
                if self.body.is_full() && !self.hand_over(end, std::mem::take(completes)) {
                    return false;
                }
            }
        }
        true
    }

    /// Which batches of a host are to be made now, and after which.
    fn due(&mut self, host: &Arc<Host>, last: i64) -> Option<(i64, Vec<i64>)> {
        let guid = host.guid();
        if !self.cursors.contains_key(&guid) {
            let cursor = self.begin(host, last);
            self.cursors.insert(guid, cursor);
        }
        let ahead = last + self.rhythm.every();
        if let Some(cursor) = self.cursors.get_mut(&guid).filter(|cursor| cursor.at > ahead) {
            log::info!(
                "EXPORTING: the clock was set back; instance '{}' goes on from now",
                self.options.name
            );
            cursor.at = last;
        }
        let cursor = self.cursors.get(&guid)?;
        if !cursor.wanted || host.engine().mode() == Mode::None || cursor.at >= last {
            return None;
        }
        let (at, looked) = (cursor.at, cursor.looked);
        let limit = self.limit(host, at, last);
        let mut at = at;
        let windows = |at: i64| (limit - at) / self.rhythm.every();
        if windows(at) > WINDOWS_MAX as i64 && !looked {
            // Nothing is older than what is held.
            let oldest = gather::retention(host).map_or(limit, |(first, _)| first);
            let from = self.rhythm.last(oldest).min(limit);
            if from > at {
                log::info!(
                    "EXPORTING: instance '{}' goes on with host '{}' {} s later, where its samples begin",
                    self.options.name,
                    host.hostname(),
                    from - at
                );
                at = from;
            }
        }
        let cursor = self.cursors.get_mut(&guid)?;
        cursor.looked = windows(at) > WINDOWS_MAX as i64;
        cursor.at = at;
        let next = |at: &i64| Some(self.rhythm.next(*at)).filter(|next| *next <= limit);
        let first = next(&at)?;
        let ends = std::iter::successors(Some(first), next).take(WINDOWS_MAX).collect();
        Some((at, ends))
    }

    /// A host is seen for the first time in this run.
    fn begin(&mut self, host: &Host, last: i64) -> Cursor {
        let wanted = self.wants(host);
        let at = match self.positions.get(host.guid()) {
            Some(at) if at <= self.now() => at,
            known => {
                if known.is_some() {
                    log::error!(
                        "EXPORTING: instance '{}' had sent host '{}' up to a time that is yet to come; it goes on from now",
                        self.options.name,
                        host.hostname()
                    );
                }
                if wanted {
                    self.positions.set(host.guid(), last);
                }
                last
            }
        };
        Cursor { at, wanted, first: true, looked: false, newest: None, filled: (0, 0) }
    }

    fn wants(&self, host: &Host) -> bool {
        let name = match host.kind() {
            HostKind::Local => "localhost".to_owned(),
            _ => host.hostname(),
        };
        let wanted = self.wanted_hosts.matches(&name);
        if wanted {
            log::info!(
                "enabled exporting of host '{}' for instance '{}'",
                host.hostname(),
                self.options.name
            );
        }
        wanted
    }

    /// The last batch that may be made of a host whose batches were made up to `at`.
    fn limit(&mut self, host: &Host, at: i64, last: i64) -> i64 {
        let (now, kind) = (self.now(), host.kind());
        if host.is_connected() {
            if let Some(cursor) = self.cursors.get_mut(&host.guid()) {
                cursor.newest = None;
            }
            if kind == HostKind::Local {
                return last;
            }
            let connected_at = host.connected_at().0;
            let since = now - connected_at;
            let owes = at + self.rhythm.every() <= connected_at;
            if kind == HostKind::Child && since < SETTLE_S {
                return at;
            }
            if kind == HostKind::Child
                && owes
                && let Some(arrived) = gather::filling(host)
                && let Some(cursor) = self.cursors.get_mut(&host.guid())
            {
                if cursor.filled.0 != arrived || cursor.filled.1 < connected_at {
                    cursor.filled = (arrived, now);
                }
                if now - cursor.filled.1 < FILLING_S {
                    return at;
                }
            }
            // A connection that stalls holds its batches up: what is on its way belongs into them.
            let ripe = gather::ripe_until(host).map_or(last, |until| self.rhythm.last(until));
            return ripe.min(last).max(at);
        }
        let left = host.disconnected_at().0;
        if now - left.max(self.started) < GONE_S {
            return self.rhythm.last(left).min(last);
        }
        let known = self.cursors.get(&host.guid()).and_then(|cursor| cursor.newest);
        let newest =
            known.unwrap_or_else(|| gather::retention(host).map_or(0, |(_, newest)| newest));
        if let Some(cursor) = self.cursors.get_mut(&host.guid()) {
            cursor.newest = Some(newest);
        }
        self.rhythm.next(newest + LAST_SLOT_S).min(last)
    }

    /// Puts what was made into the queue and sees it out. False when there is a stop.
    fn hand_over(&mut self, batch: i64, completes: Vec<(MachineGuid, i64)>) -> bool {
        self.enqueue(batch, completes);
        loop {
            if self.pump() && self.unconfirmed_bytes() < UNCONFIRMED_BYTES_MAX {
                return true;
            }
            if self.stop.wait(Duration::from_millis(200)) {
                return false;
            }
            self.tick();
        }
    }

    fn enqueue(&mut self, batch: i64, completes: Vec<(MachineGuid, i64)>) {
        let ((bytes, samples), version) = (self.body.take(), self.body.version());
        self.figures.buffered += samples.cast_signed();
        self.figures.buffered_bytes += bytes.len() as i64;
        self.queue.push_back(Chunk { bytes, version, samples, batch, completes, written_us: None });
    }

    // --- what is collected ------------------------------------------------------------------------

    /// Makes the batch of values as collected when it is its time.
    fn collected_pass(&mut self) {
        let batch = self.rhythm.last(self.now());
        if self.collected_at > batch + self.rhythm.every() {
            // The clock was set back.
            self.collected_at = batch;
        }
        if batch <= self.collected_at {
            return;
        }
        let after = std::mem::replace(&mut self.collected_at, batch);
        for host in self.hosts.all().iter().filter(|host| !host.is_archived()) {
            let guid = host.guid();
            if !self.cursors.contains_key(&guid) {
                let wanted = self.wants(host);
                let cursor = Cursor {
                    at: batch,
                    wanted,
                    first: false,
                    looked: false,
                    newest: None,
                    filled: (0, 0),
                };
                self.cursors.insert(guid, cursor);
            }
            if !host.is_connected() || !self.cursors.get(&guid).is_some_and(|c| c.wanted) {
                continue;
            }
            let text = self.body.host(host, &self.options);
            let variables = if self.options.variables { host.variables() } else { Vec::new() };
            self.body.about_host(&text, &variables, batch * 1000);
            for chart in host.charts() {
                gather::collected(&chart, &self.charts, after, &text, &mut self.body);
                if self.body.is_full() {
                    self.enqueue(batch, Vec::new());
                }
            }
        }
        self.enqueue(batch, Vec::new());
        self.drop_oldest();
    }

    /// Of batches that wait only the newest are kept.
    fn drop_oldest(&mut self) {
        loop {
            let unsent = self.queue.iter().filter(|chunk| chunk.written_us.is_none());
            let mut batches: Vec<i64> = unsent.map(|chunk| chunk.batch).collect();
            batches.dedup();
            let Some(oldest) = batches.first().copied() else { return };
            if batches.len() <= self.options.buffer_on_failures {
                return;
            }
            let mut lost = 0;
            self.queue.retain(|chunk| {
                let keep = chunk.batch != oldest || chunk.written_us.is_some();
                if !keep {
                    lost += chunk.samples.cast_signed();
                    self.figures.lost_bytes += chunk.bytes.len() as i64;
                }
                keep
            });
            self.figures.lost += lost;
            self.figures.discards += 1;
            log::error!(
                "EXPORTING: instance '{}' drops its oldest batch, {lost} values: more than {} wait",
                self.options.name,
                self.options.buffer_on_failures
            );
        }
    }

    // --- the way out ------------------------------------------------------------------------------

    /// Sends what waits, in order. True when nothing does any more.
    fn pump(&mut self) -> bool {
        loop {
            let now_us = self.clock.monotonic_us();
            let Some(at) = self.queue.iter().position(|chunk| chunk.written_us.is_none()) else {
                return true;
            };
            let Some(chunk) = self.queue.get_mut(at) else { return true };
            if chunk.bytes.is_empty() {
                chunk.written_us = Some(now_us);
                self.confirm();
                continue;
            }
            if now_us < self.patience_us || self.stop.is_stopped() {
                return false;
            }
            let Some(mut version) = self.agreed else {
                match self.ask_version() {
                    Ok(version) => self.agree(version),
                    Err(delivery) => return self.postpone(delivery),
                }
                continue;
            };
            if chunk.version != version {
                match self.body.converted(&chunk.bytes, chunk.version, version) {
                    Some(bytes) => (chunk.bytes, chunk.version) = (bytes, version),
                    // Whoever takes 2.0 takes 1.0.
                    None if chunk.version == Version::One => version = Version::One,
                    None => {
                        self.lose(at, 415, "they cannot be told in 1.0", 0);
                        continue;
                    }
                }
            }
            let (samples, bytes) = (chunk.samples.cast_signed(), chunk.bytes.len() as i64);
            match self.link.deliver(&chunk.bytes, version) {
                Delivery::Done(written) => {
                    chunk.written_us = Some(self.clock.monotonic_us());
                    let lost = written.map_or(0, |n| samples.saturating_sub_unsigned(n).max(0));
                    self.figures.sent += samples - lost;
                    self.figures.sent_bytes += bytes;
                    if lost > 0 {
                        self.figures.lost += lost;
                        log::error!(
                            "EXPORTING: instance '{}' loses {lost} of {samples} values, which the server says that it has not written",
                            self.options.name
                        );
                    }
                    if self.failures > 0 {
                        log::info!("EXPORTING: instance '{}' is taken again", self.options.name);
                    }
                    (self.failures, self.mistaken) = (0, None);
                    self.confirm();
                }
                Delivery::OtherVersion(_)
                    if version == Version::Two
                        && self.options.write_version == WriteVersion::Auto =>
                {
                    self.agree(Version::One);
                }
                // It may be another server by now, which does not know 2.0; one that minds the values says so again.
                Delivery::Refused { status: 400, written: 0, .. }
                    if version == Version::Two
                        && self.options.write_version == WriteVersion::Auto =>
                {
                    self.agree(Version::One);
                }
                Delivery::TooLarge => match self.body.halves(&chunk.bytes, version) {
                    Some([(first, one), (second, other)]) => {
                        log::info!(
                            "EXPORTING: instance '{}' sends less at a time: {bytes} bytes were too many for the server",
                            self.options.name
                        );
                        let half = Chunk {
                            bytes: first,
                            version,
                            samples: one,
                            batch: chunk.batch,
                            completes: Vec::new(),
                            written_us: None,
                        };
                        (chunk.bytes, chunk.samples) = (second, other);
                        self.queue.insert(at, half);
                        self.body.shrink();
                    }
                    None => self.lose(at, 413, "a single value is too large", 0),
                },
                Delivery::Refused { status, line, written } => {
                    self.lose(at, status, &line, written);
                }
                delivery => return self.postpone(delivery),
            }
        }
    }

    /// In which version the server takes what it is sent; else what became of the question.
    fn ask_version(&mut self) -> Result<Version, Delivery> {
        match self.link.deliver(NOTHING, Version::Two) {
            Delivery::Done(_) => Ok(Version::Two),
            Delivery::OtherVersion(_) | Delivery::Refused { .. } | Delivery::TooLarge => {
                Ok(Version::One)
            }
            Delivery::Busy(None) if self.failures >= ASKED_MAX => Ok(Version::One),
            delivery => Err(delivery),
        }
    }

    fn agree(&mut self, version: Version) {
        self.agreed = Some(version);
        self.body.set_version(version);
        if self.told.replace(version) != Some(version) {
            log::info!(
                "EXPORTING: instance '{}' sends remote write {}",
                self.options.name,
                version.name()
            );
        }
    }

    /// What could not be delivered is tried again after a pause. Always false: something waits.
    fn postpone(&mut self, delivery: Delivery) -> bool {
        let (mut wanted, mut mistaken) = (0, None);
        match delivery {
            Delivery::Stopped => return false,
            Delivery::Busy(Some(seconds)) => wanted = seconds,
            Delivery::Mistaken { status, line } => mistaken = Some((status, line)),
            Delivery::OtherVersion(status) => {
                let line = "no word that remote write of this version is taken".to_owned();
                mistaken = Some((status, line));
            }
            _ => {}
        }
        if let Some((status, line)) = mistaken {
            if self.mistaken.replace(status) != Some(status) {
                log::error!(
                    "EXPORTING: instance '{}' is told HTTP {status} '{line}': check destination, path and credentials; \
                     what waits is tried again until it is taken",
                    self.options.name
                );
            }
        } else {
            self.lost_connection();
        }
        // Who answers next may be another one.
        self.agreed = configured(&self.options);
        let pause = wanted.clamp(self.next_pause(), RETRY_AFTER_MAX_S);
        self.patience_us = self.clock.monotonic_us().saturating_add(pause * MICROS);
        false
    }

    /// What a server will never take is let go; so many values of it were written all the same.
    fn lose(&mut self, at: usize, status: u16, line: &str, written: u64) {
        let Some(chunk) = self.queue.get_mut(at) else { return };
        let written = written.min(chunk.samples).cast_signed();
        let samples = chunk.samples.cast_signed() - written;
        self.figures.sent += written;
        chunk.written_us = Some(self.clock.monotonic_us());
        self.figures.lost += samples;
        self.figures.lost_bytes += chunk.bytes.len() as i64;
        self.figures.discards += 1;
        (self.failures, self.mistaken) = (0, None);
        log::error!(
            "EXPORTING: instance '{}' loses {samples} values, which the server refused: HTTP {status} '{line}'",
            self.options.name
        );
        self.confirm();
    }

    /// Longer after every failure.
    fn next_pause(&mut self) -> i64 {
        let pause = PAUSE_MIN_S << self.failures.min(10);
        self.failures = self.failures.saturating_add(1);
        pause.min(PAUSE_MAX_S)
    }

    /// What was written over a connection that is gone may not have been taken.
    fn lost_connection(&mut self) {
        if self.link.is_lines() {
            for chunk in &mut self.queue {
                chunk.written_us = None;
            }
        }
    }

    fn unconfirmed_bytes(&self) -> usize {
        self.queue.iter().map(|chunk| chunk.bytes.len()).sum()
    }

    /// Lets go of what has been taken.
    fn confirm(&mut self) {
        let settled_us = self.rhythm.every().clamp(SETTLED_MIN_S, SETTLED_MAX_S) * MICROS;
        let now_us = self.clock.monotonic_us();
        let mut waiting = self.unconfirmed_bytes();
        let mut confirmed = None;
        while let Some(written_us) = self.queue.front().and_then(|chunk| chunk.written_us) {
            let length = self.queue.front().map_or(0, |chunk| chunk.bytes.len());
            if self.link.is_lines() && length > 0 {
                let old = now_us - written_us >= settled_us || waiting >= UNCONFIRMED_BYTES_MAX;
                if !old || !*confirmed.get_or_insert_with(|| self.link.is_confirmed()) {
                    return;
                }
            }
            waiting -= length;
            let Some(chunk) = self.queue.pop_front() else { return };
            for (host, at) in chunk.completes {
                self.positions.set(host, at);
            }
        }
    }
}

/// The version of remote write that needs no asking; `None` where the server is asked.
fn configured(options: &InstanceOptions) -> Option<Version> {
    match options.write_version {
        WriteVersion::Auto if options.connector.dialect == Dialect::RemoteWrite => None,
        WriteVersion::Auto | WriteVersion::One => Some(Version::One),
        WriteVersion::Two => Some(Version::Two),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{UnixMicros, UnixSeconds};
    use crate::config::{Config, ExportingConf};
    use crate::metrics::{Chart, ChartSpec, HostInfo, HostSettings, Neighbour};
    use crate::storage::ring::RingEngine;

    const NOW: i64 = 1_795_333_600;

    fn host(kind: HostKind) -> Arc<Host> {
        let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 3600));
        let info = HostInfo::named("h");
        Host::new(MachineGuid::random(), kind, info, engine, HostSettings::default())
    }

    /// A child that connected at `NOW - since`, with a chart, and the worker that exports it every ten seconds.
    fn child(since: i64) -> (Worker, Clock, Arc<Host>, Arc<Chart>) {
        let clock = Clock::manual(UnixMicros(NOW * MICROS));
        let hosts = Hosts::new(host(HostKind::Local));
        let child = host(HostKind::Child);
        let (child, _) = hosts.get_or_create(child.guid(), || child.clone()).unwrap();
        child.set_connected(true, UnixSeconds(NOW - since));
        let chart = child.define_chart(&ChartSpec { id: "a.b", ..ChartSpec::default() }).unwrap();
        let lib = tempfile::tempdir().unwrap();
        let text = "[graphite:n]\nenabled = yes\ndestination = 127.0.0.1:1\nupdate every = 10\n";
        let options = ExportingConf::from_text(text).instances(&Config::new()).remove(0);
        let around = Surroundings {
            hosts,
            clock: clock.clone(),
            lib: lib.path(),
            collection_every: UpdateEvery::SECOND,
        };
        (Worker::new(options, &around, StopToken::new()), clock, child, chart)
    }

    #[test]
    fn a_stalled_connection_holds_its_batches_up() {
        let (mut worker, _, child, chart) = child(100);
        let last = worker.rhythm.last(NOW);
        chart.lock().last_updated = UnixSeconds(last - 42);
        assert_eq!(worker.limit(&child, last - 60, last), last - 40);
        // What was made remains made.
        assert_eq!(worker.limit(&child, last - 10, last), last - 10);
        chart.lock().last_updated = UnixSeconds(last - 2);
        assert_eq!(worker.limit(&child, last - 60, last), last);
    }

    #[test]
    fn a_past_that_still_arrives_is_waited_for_however_long_it_takes() {
        let (mut worker, clock, child, chart) = child(1000);
        let (last, at) = (worker.rhythm.last(NOW), NOW - 5000);
        let cursor = worker.begin(&child, at);
        worker.cursors.insert(child.guid(), cursor);
        {
            let mut state = chart.lock();
            state.last_updated = UnixSeconds(NOW + 10_000);
            state.filling.set(Neighbour::Child, true);
        }
        for minute in 1..30 {
            clock.advance(60 * MICROS);
            chart.lock().past_version += 1;
            assert_eq!(worker.limit(&child, at, last), at, "after {minute} minutes");
        }
        // Nothing came for ten minutes: whoever says that there is more has none.
        clock.advance(FILLING_S * MICROS);
        assert_eq!(worker.limit(&child, at, last), last);
    }

    #[test]
    fn what_is_too_large_is_sent_in_halves() {
        let (mut worker, ..) = child(0);
        let line = |n: i32| format!("netdata.h.a.b {n} 1\n").into_bytes();
        let whole = Chunk {
            bytes: (0..5).flat_map(line).collect(),
            version: Version::One,
            samples: 5,
            batch: 1,
            completes: vec![(MachineGuid::random(), 1)],
            written_us: None,
        };
        let [(first, one), (second, other)] =
            worker.body.halves(&whole.bytes, Version::One).unwrap();
        assert_eq!((one, other), (2, 3));
        assert_eq!([first, second].concat(), whole.bytes);
        assert!(worker.body.halves(&line(1), Version::One).is_none());
        worker.body.shrink();
    }
}
