//! A chain of nodes, each ours or the model of a real 1.37.1, in virtual time: whoever is above has what whoever is below it
//! has, as far as a real one tells it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use netdata_rs::base::ids::MachineGuid;
use netdata_rs::base::time::{Clock, UnixMicros, UpdateEvery};
use netdata_rs::ingest::executor::{Executor, Origin, Setup};
use netdata_rs::metrics::{
    Algorithm, Chart, ChartSpec, DimensionSpec, Host, HostKind, Neighbour, SinceLast, Staged,
};
use netdata_rs::storage::Mode;
use netdata_rs::stream::answers::{Queue, Work};
use netdata_rs::stream::link::{Above, Below, OFFER_AFTER_US};
use netdata_rs::stream::mailbox::Mailbox;
use netdata_rs::stream::puller::Puller;
use netdata_rs::stream::replication::{Ask, read_ask};
use netdata_rs::stream::uplink::{Taken, Uplink};
use netdata_rs::stream::workers::Outlet;
use netdata_rs::wire::caps::Capabilities;
use netdata_rs::wire::words::{Lines, Rules, Words};

use super::seed::{Seed, VALUE};
use super::store::Disk;
use super::world::{Hook, POLICY, Pipe, Random, SECOND, STEP, T0, Wire, sending};

/// What 1.37.1 offers, uncompressed.
const SEED_OFFERS: i64 = 15_352;
const CHARTS: [(&str, i64, usize); 3] = [("sim.a", 1, 1), ("sim.b", 1, 3), ("sim.c", 2, 2)];
/// A chart that is born while the others flow.
const LATE: (&str, i64, usize) = ("sim.late", 1, 2);

/// The two links of a node of ours.
const UP: u8 = 0;
const DOWN: u8 = 1;

type Asks = Arc<Mutex<Vec<(String, Ask)>>>;

struct UpEnd {
    above: Arc<Above>,
    reader: Option<Executor>,
    lines: Lines,
    offer_at: Option<i64>,
}

struct DownEnd {
    below: Arc<Below>,
    executor: Executor,
    asks: Asks,
    lines: Lines,
    offer_at: Option<i64>,
}

struct Ours {
    host: Arc<Host>,
    uplink: Arc<Uplink>,
    charts: Vec<Arc<Chart>>,
    up: Option<UpEnd>,
    down: Option<DownEnd>,
    queue: Queue<u8>,
    outlets: HashMap<u8, Arc<dyn Outlet>>,
}

enum Life {
    Ours(Box<Ours>),
    Seed,
}

struct Node {
    is_ours: bool,
    /// It was a real one before; 0 = it was not.
    ours_since: i64,
    disk: Disk,
    /// What a real one keeps, and does.
    seed: Seed,
    life: Option<Life>,
    up: Lines,
    down: Lines,
}

#[derive(Default)]
struct Link {
    up: Pipe,
    down: Pipe,
    stands: bool,
    /// Not before.
    from: i64,
}

pub(super) struct Chain {
    random: Random,
    now: i64,
    clock: Clock,
    guid: MachineGuid,
    /// The child first.
    nodes: Vec<Node>,
    /// Each from a node to the next.
    links: Vec<Link>,
    wire: Wire,
    born_at: i64,
    pub(super) asks: u64,
    pub(super) story: Vec<String>,
}

impl Chain {
    pub(super) fn new(seed: u64) -> Chain {
        const KINDS: [&[bool]; 8] = [
            &[false, true],
            &[true, false],
            &[false, true, true],
            &[true, false, true],
            &[false, true, false],
            &[true, true, false],
            &[false, false, true],
            &[true, false, false, true],
        ];
        let mut random = Random::new(seed);
        let kinds = KINDS[random.below(KINDS.len())];
        let wire = Wire {
            delay: [1_000, 20_000, 150_000][random.below(3)],
            bytes_per_second: [50_000_000, 1_000_000, 60_000][random.below(3)],
        };
        let clock = Clock::manual(UnixMicros(T0 * SECOND));
        let keeps = [0, 0, 120][random.below(3)];
        let node = |(n, is_ours): (usize, &bool)| Node {
            is_ours: *is_ours,
            ours_since: 0,
            disk: if n == 0 { Disk::new(Mode::Ram, keeps) } else { Disk::new(Mode::Dbengine, 0) },
            seed: Seed::default(),
            life: None,
            up: Lines::new(),
            down: Lines::new(),
        };
        let nodes: Vec<Node> = kinds.iter().enumerate().map(node).collect();
        let guid = "0000aaaa-0000-4000-8000-00000000abcd".parse();
        let mut chain = Chain {
            now: T0 * SECOND,
            clock,
            guid: guid.unwrap_or_else(|_| MachineGuid::random()),
            links: nodes.iter().skip(1).map(|_| Link::default()).collect(),
            nodes,
            wire,
            born_at: T0 + 20 + random.below(150) as i64,
            random,
            asks: 0,
            story: Vec::new(),
        };
        let names: Vec<_> = kinds.iter().map(|ours| if *ours { "ours" } else { "real" }).collect();
        chain.tell(format!("{names:?}, child keeps {keeps} s, {wire:?}"));
        for at in 0..chain.nodes.len() {
            chain.start(at);
        }
        chain
    }

    fn tell(&mut self, what: String) {
        let tenths = (self.now - T0 * SECOND) / STEP;
        self.story.push(format!("{:4}.{} {what}", tenths / 10, tenths % 10));
    }

    fn start(&mut self, at: usize) {
        if self.nodes[at].life.is_some() {
            return;
        }
        let node = &mut self.nodes[at];
        if !node.is_ours {
            if at == 0 {
                node.seed.own(&CHARTS);
            }
            node.life = Some(Life::Seed);
            return;
        }
        let (kind, mode) = match at {
            0 => (HostKind::Local, Mode::Ram),
            _ => (HostKind::Child, Mode::Dbengine),
        };
        let Some((host, uplink)) = sending(self.guid, kind, mode, &node.disk, &self.clock) else {
            return;
        };
        let mut ours = Ours {
            host,
            uplink,
            charts: Vec::new(),
            up: None,
            down: None,
            queue: Queue::default(),
            outlets: HashMap::new(),
        };
        if at == 0 {
            CHARTS.iter().for_each(|chart| ours.collects(*chart));
        }
        node.life = Some(Life::Ours(Box::new(ours)));
    }

    fn stop(&mut self, at: usize) {
        let what = if self.nodes[at].life.is_some() { "ends" } else { "is not there" };
        self.tell(format!("{at} {what}"));
        if at > 0 {
            self.hang_up(at - 1);
        }
        if at + 1 < self.nodes.len() {
            self.hang_up(at);
        }
        let unsaved = [0, 3, 40][self.random.below(3)];
        let node = &mut self.nodes[at];
        match node.life.take() {
            Some(Life::Ours(ours)) => ours.host.set_tap(None),
            Some(Life::Seed) => node.seed.restart(self.now / SECOND - unsaved),
            None => {}
        }
    }

    /// The link from a node to the next is over.
    fn hang_up(&mut self, at: usize) {
        let link = &mut self.links[at];
        let lasts = [1, 5, 5, 40][self.random.below(4)] * SECOND;
        let stood = std::mem::take(&mut link.stands);
        *link = Link { from: self.now + lasts, ..Link::default() };
        if !stood {
            return;
        }
        match &mut self.nodes[at].life {
            Some(Life::Ours(ours)) => {
                ours.uplink.close();
                ours.up = None;
                ours.queue.close(UP);
                ours.outlets.remove(&UP);
            }
            _ => self.nodes[at].seed.disconnected(),
        }
        match &mut self.nodes[at + 1].life {
            Some(Life::Ours(ours)) => {
                ours.down = None;
                ours.queue.close(DOWN);
                ours.outlets.remove(&DOWN);
                for chart in ours.host.charts() {
                    let mut state = chart.lock();
                    state.replicating = false;
                    state.filling.set(Neighbour::Child, false);
                }
            }
            _ => self.nodes[at + 1].seed.child_left(),
        }
        // Nothing of it is sent on any more.
        if at + 2 < self.nodes.len() {
            self.hang_up(at + 1);
        }
    }

    pub(super) fn mishap(&mut self) {
        let at = self.random.below(self.nodes.len());
        match self.random.below(6) {
            0 | 1 => self.stop(at),
            2 if at < self.links.len() => {
                self.tell(format!("the link above {at} breaks"));
                self.hang_up(at);
            }
            3 if at > 0 && self.nodes[at].is_ours => {
                self.stop(at);
                self.tell(format!("{at} has lost its disk"));
                self.nodes[at].disk.wipe();
                self.start(at);
            }
            4 if at > 0 && !self.nodes[at].is_ours => {
                self.stop(at);
                self.tell(format!("{at} is ours from now on"));
                self.nodes[at].is_ours = true;
                self.nodes[at].ours_since = self.now / SECOND;
                self.start(at);
            }
            _ => self.heal(),
        }
    }

    pub(super) fn heal(&mut self) {
        self.tell("all run".to_owned());
        (0..self.nodes.len()).for_each(|at| self.start(at));
    }

    // --- time ------------------------------------------------------------------------------------------------

    pub(super) fn step(&mut self) -> Result<(), String> {
        self.now += STEP;
        self.clock.advance(STEP);
        if self.now % SECOND == 0 {
            self.collect();
        }
        for at in 0..self.links.len() {
            self.connect(at);
            self.send_up(at)?;
            self.send_down(at)?;
        }
        let now = self.now;
        for at in 0..self.nodes.len() {
            match &mut self.nodes[at].life {
                Some(Life::Ours(ours)) => self.asks += ours.work(now)?,
                Some(Life::Seed) => self.nodes[at].seed.answer(now, &mut self.random),
                None => {}
            }
            if let Some(wrong) = self.nodes[at].disk.wrong() {
                return Err(format!("{at}: {wrong}"));
            }
        }
        Ok(())
    }

    fn collect(&mut self) {
        let (now, second) = (self.now, self.now / SECOND);
        let is_late = second >= self.born_at;
        let node = &mut self.nodes[0];
        match &mut node.life {
            Some(Life::Ours(ours)) => {
                if is_late && ours.charts.len() == CHARTS.len() {
                    ours.collects(LATE);
                }
                for chart in &ours.charts {
                    let state = chart.lock();
                    let (every, dims) = (state.meta.update_every.seconds(), state.dims.len());
                    drop(state);
                    if second % every == 0 {
                        let dims = 0..u32::try_from(dims).unwrap_or(0);
                        let staged: Vec<_> = dims.map(|dim| Staged { dim, value: VALUE }).collect();
                        chart.complete(&staged, SinceLast::Clock, UnixMicros(now));
                    }
                }
                ours.host.flush();
            }
            Some(Life::Seed) => {
                if is_late && !node.seed.has(LATE.0) {
                    node.seed.own(&[LATE]);
                }
                for (id, every, _) in CHARTS.iter().chain(&[LATE]) {
                    if second % every == 0 {
                        node.seed.collect(id, now);
                    }
                }
            }
            None => {}
        }
    }

    fn connect(&mut self, at: usize) {
        let can = |node: &Node| node.life.is_some();
        let has_data = at == 0 || self.links[at - 1].stands;
        if self.links[at].stands
            || self.links[at].from > self.now
            || !has_data
            || !can(&self.nodes[at])
            || !can(&self.nodes[at + 1])
        {
            return;
        }
        self.links[at].stands = true;
        self.tell(format!("{at} streams to {}", at + 1));
        let both = self.nodes[at].is_ours && self.nodes[at + 1].is_ours;
        let plain = Capabilities::OFFERED - Capabilities::COMPRESSIONS;
        let offers = if both { i64::from(plain.bits()) } else { SEED_OFFERS };
        let agreed = Capabilities::OFFERED.agree(Some(offers));
        let (now, clock) = (self.now, self.clock.clone());
        let below = match &self.nodes[at].life {
            Some(Life::Ours(ours)) => ours.down.as_ref().map(|down| Arc::clone(&down.below)),
            _ => None,
        };
        self.nodes[at].down = Lines::new();
        self.nodes[at + 1].up = Lines::new();
        let offer_at = both.then_some(now + OFFER_AFTER_US);
        match &mut self.nodes[at].life {
            Some(Life::Ours(ours)) => {
                let number = ours.uplink.open(agreed, |_| {});
                let filled = move |chart: &Chart| below.iter().for_each(|below| below.offer(chart));
                let puller = Puller::new(Neighbour::Parent, POLICY, clock.clone(), filled);
                let uplink = Arc::clone(&ours.uplink);
                let none = Box::new(|| None);
                let above = Arc::new(Above::new(uplink, number, agreed, puller, &clock, none));
                let reader = above.reader(agreed, |_| {});
                ours.queue.open(UP);
                ours.outlets.insert(UP, Arc::clone(&above) as Arc<dyn Outlet>);
                ours.up = Some(UpEnd { above, reader, lines: Lines::new(), offer_at });
            }
            _ => self.nodes[at].seed.connected(),
        }
        match &mut self.nodes[at + 1].life {
            Some(Life::Ours(ours)) => {
                let Ok(mailbox) = Mailbox::new() else { return };
                let puller = Puller::new(Neighbour::Child, POLICY, clock.clone(), |_| {});
                let below = Arc::new(Below::new(agreed, mailbox, puller));
                below.attach(&ours.host, &clock);
                let asks: Asks = Arc::default();
                let hook = Hook { below: Arc::clone(&below), asks: Arc::clone(&asks) };
                let executor = Executor::new(Setup {
                    origin: Origin::Stream(agreed),
                    hooks: Box::new(hook),
                    ..Setup::new(Arc::clone(&ours.host))
                });
                ours.queue.open(DOWN);
                ours.outlets.insert(DOWN, Arc::clone(&below) as Arc<dyn Outlet>);
                let lines = Lines::new();
                ours.down = Some(DownEnd { below, executor, asks, lines, offer_at });
            }
            _ => self.nodes[at + 1].seed.child_connected(),
        }
    }

    /// From a node to the one above it, and what that one makes of it.
    fn send_up(&mut self, at: usize) -> Result<(), String> {
        let (now, wire) = (self.now, self.wire);
        if !self.links[at].stands {
            return Ok(());
        }
        if self.links[at].up.takes_more(now) {
            let mut bytes = Vec::new();
            match &mut self.nodes[at].life {
                Some(Life::Ours(ours)) => match ours.uplink.take(&mut bytes, 0) {
                    Taken::Overflow { .. } => {
                        self.tell(format!("the outbox of {at} overflows"));
                        self.hang_up(at);
                        return Ok(());
                    }
                    _ => {
                        ours.uplink.take(&mut Vec::new(), 0);
                        ours.queue.has_room(UP);
                    }
                },
                _ => bytes = std::mem::take(&mut self.nodes[at].seed.to_parent),
            }
            if !bytes.is_empty() {
                self.links[at].up.send(bytes, now, wire);
            }
        }
        let heard = self.links[at].up.arrived(now);
        let node = &mut self.nodes[at + 1];
        match &mut node.life {
            Some(Life::Ours(ours)) => {
                let Some(down) = &mut ours.down else { return Ok(()) };
                let fed = down.executor.feed_chunk(&mut down.lines, &heard, UnixMicros(now));
                fed.map_err(|error| format!("what was sent is not understood: {error}"))?;
                down.executor.flush();
                Ok(())
            }
            _ => {
                let seed = &mut node.seed;
                node.up.feed(&heard, |line| seed.hear_child(&String::from_utf8_lossy(line), now))
            }
        }
    }

    fn send_down(&mut self, at: usize) -> Result<(), String> {
        let (now, wire) = (self.now, self.wire);
        if !self.links[at].stands {
            return Ok(());
        }
        if self.links[at].down.takes_more(now) {
            let mut bytes = Vec::new();
            match &mut self.nodes[at + 1].life {
                Some(Life::Ours(ours)) => {
                    if let Some(down) = &ours.down
                        && !down.below.mailbox.collect(&mut bytes)
                    {
                        return Err("a mailbox overflowed".to_owned());
                    }
                    ours.queue.has_room(DOWN);
                }
                _ => bytes = std::mem::take(&mut self.nodes[at + 1].seed.to_child),
            }
            if !bytes.is_empty() {
                self.links[at].down.send(bytes, now, wire);
            }
        }
        let heard = self.links[at].down.arrived(now);
        let node = &mut self.nodes[at];
        match &mut node.life {
            Some(Life::Ours(ours)) => {
                let asked = ours.hear_parent(&heard, now)?;
                self.asks += asked;
                Ok(())
            }
            _ => {
                let (seed, random) = (&mut node.seed, &mut self.random);
                node.down.feed(&heard, |line| {
                    seed.hear_parent(&String::from_utf8_lossy(line), now, random);
                    Ok(())
                })
            }
        }
    }

    // --- what must be true -----------------------------------------------------------------------------------

    /// Every node is reached by the child's samples.
    pub(super) fn is_whole(&self) -> bool {
        self.links.iter().all(|link| link.stands)
    }

    /// What a node tells the one above it, and whether that one has it.
    fn lacking(&self, at: usize, until: i64) -> Vec<(String, i64)> {
        let mut lacking = Vec::new();
        let mut see =
            |chart: &str, slots: &mut dyn Iterator<Item = i64>, held: &dyn Fn(i64) -> bool| {
                let missing = slots.filter(|slot| *slot < until && !held(*slot));
                lacking.extend(missing.map(|slot| (chart.to_owned(), slot)));
            };
        let (below, above) = (&self.nodes[at], &self.nodes[at + 1]);
        let there = above.disk.all();
        let dims_of = |chart: &str| {
            let known = CHARTS.iter().chain(&[LATE]).find(|known| known.0 == chart);
            ["x", "y", "z"].iter().take(known.map_or(1, |known| known.2))
        };
        let held = |chart: &str, dim: &str, slot: i64| match above.is_ours {
            true => there
                .get(&(chart.to_owned(), dim.to_owned()))
                .is_some_and(|slots| slots.contains_key(&slot)),
            false => above.seed.holds(chart, slot),
        };
        if below.is_ours {
            // What a real one lost while another real one was below it it never asks for.
            let from = if above.is_ours { 0 } else { below.ours_since };
            for ((chart, dim), slots) in below.disk.all() {
                let mut slots = slots.keys().copied().filter(|slot| *slot > from);
                see(&chart, &mut slots, &|slot| held(&chart, &dim, slot));
            }
        } else {
            for (chart, slots) in below.seed.tells() {
                for dim in dims_of(&chart) {
                    let is_held = |slot: i64| held(&chart, dim, slot);
                    let findable = findable(&slots, below.seed.shape(&chart), &is_held);
                    see(&chart, &mut findable.into_iter(), &is_held);
                }
            }
        }
        lacking
    }

    pub(super) fn missing(&self) -> (usize, Option<String>) {
        let until = self.now / SECOND - 8;
        let (mut missing, mut first) = (0, None);
        for at in 0..self.links.len() {
            // What real ones lose between each other nobody can mend.
            if !self.nodes[at].is_ours && !self.nodes[at + 1].is_ours {
                continue;
            }
            let lacking = self.lacking(at, until);
            missing += lacking.len();
            if let Some((chart, _)) = lacking.first() {
                first.get_or_insert_with(|| {
                    let few: Vec<_> = lacking.iter().take(8).map(|(_, slot)| slot - T0).collect();
                    format!("{} lacks of {chart} {few:?}", at + 1)
                });
            }
        }
        (missing, first)
    }
}

/// The slots of a real one that its parent finds for certain: not those that lie between gaps and are fewer than a quarter
/// of the gap before them is long.
fn findable(
    slots: &BTreeSet<i64>,
    (every, first): (i64, i64),
    is_held: &dyn Fn(i64) -> bool,
) -> Vec<i64> {
    let mut found = Vec::new();
    let mut known = first;
    let mut island: Vec<i64> = Vec::new();
    let ends = slots.iter().skip(1).copied().map(Some).chain([None]);
    for (slot, next) in slots.iter().copied().zip(ends) {
        island.push(slot);
        if next == Some(slot + every) {
            continue;
        }
        let gap = (island[0] - known) / every;
        if island.iter().any(|slot| is_held(*slot)) || island.len() as i64 > gap / 4 + 1 {
            found.append(&mut island);
            known = slot;
        }
        island.clear();
    }
    found
}

impl Ours {
    fn collects(&mut self, (id, every, dims): (&str, i64, usize)) {
        let update_every = UpdateEvery::clamped(every);
        let spec = ChartSpec { id, update_every, ..ChartSpec::default() };
        let Ok(chart) = self.host.define_chart(&spec) else { return };
        for name in ["x", "y", "z"].iter().take(dims) {
            let _ = chart.define_dimension(&DimensionSpec::plain(name, Algorithm::Absolute, 1, 1));
        }
        self.charts.push(chart);
    }

    /// Gives how many requests there were.
    fn hear_parent(&mut self, heard: &[u8], now: i64) -> Result<u64, String> {
        let Some(up) = &mut self.up else { return Ok(0) };
        let mut asks = Vec::new();
        let reader = &mut up.reader;
        up.lines.feed(heard, |line| {
            let mut words = Words::new(line, Rules::Reply);
            match words.next() {
                Some(b"REPLAY_CHART") => asks.extend(read_ask(words)),
                Some(_) => {
                    if let Some(reader) = reader {
                        reader.feed(line, UnixMicros(now)).map_err(|error| error.to_string())?;
                    }
                }
                None => {}
            }
            Ok::<_, String>(())
        })?;
        let count = asks.len() as u64;
        for (chart, ask) in asks {
            self.queue.ask(UP, chart, ask);
        }
        Ok(count)
    }

    /// What its threads do; gives how many requests its child made.
    fn work(&mut self, now: i64) -> Result<u64, String> {
        let mut count = 0;
        if let Some(up) = &mut self.up {
            if up.offer_at.is_some_and(|at| now >= at) {
                up.offer_at = None;
                self.queue.ask(UP, String::new(), Ask::LIVE);
            }
            up.above.more();
        }
        if let Some(down) = &mut self.down {
            let asks =
                std::mem::take(&mut *down.asks.lock().unwrap_or_else(PoisonError::into_inner));
            count = asks.len() as u64;
            for (chart, ask) in asks {
                self.queue.ask(DOWN, chart, ask);
            }
            if down.offer_at.is_some_and(|at| now >= at) {
                down.offer_at = None;
                self.queue.ask(DOWN, String::new(), Ask::LIVE);
            }
            down.below.more(&self.host);
            let in_flight = down.below.puller.progress().in_flight;
            if in_flight > 64 {
                return Err(format!("{in_flight} requests under way"));
            }
        }
        for _ in 0..64 {
            let Some((link, work)) = self.queue.take() else { break };
            let Work::Samples(chart, ask) = work else { continue };
            if self.outlets.get(&link).is_none_or(|outlet| outlet.answer(&chart, ask)) {
                self.queue.done(link);
            } else {
                self.queue.put_back(link, chart, ask, false);
            }
        }
        Ok(count)
    }
}

/// A host and its tap hold each other.
impl Drop for Chain {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(Life::Ours(ours)) = &node.life {
                ours.host.set_tap(None);
            }
        }
    }
}
