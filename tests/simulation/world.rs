//! A cluster in one process and in virtual time: a child, its parents, their links and disks, and what goes wrong.
//!
//! Nodes run the library's own state machines: [`Uplink`] with its outbox, [`Above`] and [`Below`] (both ends of
//! replication), the queue of requests, the executor of the wire's words, the choice of a parent, liveness and fencing.
//! The simulator is what threads, sockets, clocks and files are in the daemon. Everything follows from the seed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use netdata_rs::base::ids::MachineGuid;
use netdata_rs::base::pattern::SimplePattern;
use netdata_rs::base::time::{Clock, UnixMicros, UpdateEvery};
use netdata_rs::ingest::executor::{Executor, Hooks, Offer, Origin, Replayed, Setup};
use netdata_rs::metrics::{
    Algorithm, Chart, ChartSpec, DimensionSpec, Host, HostInfo, HostKind, HostSettings, Neighbour,
    SinceLast, Staged, Tap,
};
use netdata_rs::net::parse_destinations;
use netdata_rs::storage::Mode;
use netdata_rs::stream::answers::{Queue, Work};
use netdata_rs::stream::fence;
use netdata_rs::stream::link::{Above, Below, OFFER_AFTER_US};
use netdata_rs::stream::liveness::Rhythm;
use netdata_rs::stream::mailbox::Mailbox;
use netdata_rs::stream::parents::{Failure, Parents};
use netdata_rs::stream::puller::Puller;
use netdata_rs::stream::replication::{Ask, Policy, read_ask};
use netdata_rs::stream::uplink::{Taken, Uplink, UplinkOptions};
use netdata_rs::stream::workers::Outlet;
use netdata_rs::wire::caps::Capabilities;
use netdata_rs::wire::words::{Lines, Rules, Words};

use super::store::Disk;

pub(super) const T0: i64 = 1_800_000_000;
pub(super) const SECOND: i64 = 1_000_000;
/// Virtual time moves by this.
pub(super) const STEP: i64 = SECOND / 10;
const OUTBOX: usize = 256 * 1024;
const MAILBOX_MAX: usize = 1 << 20;

/// A host and what it is sent by.
pub(super) fn sending(
    guid: MachineGuid,
    kind: HostKind,
    mode: Mode,
    disk: &Disk,
    clock: &Clock,
) -> Option<(Arc<Host>, Arc<Uplink>)> {
    let settings = HostSettings { mode, ..HostSettings::default() };
    let host = Host::new(guid, kind, HostInfo::named("sim"), Arc::new(disk.clone()), settings);
    let options = UplinkOptions {
        charts: SimplePattern::new("*"),
        buffer_bytes: OUTBOX,
        resync_iterations: 60,
    };
    let uplink = Uplink::new(Arc::clone(&host), options, clock.clone()).ok()?;
    host.set_tap(Some(Arc::clone(&uplink) as Arc<dyn Tap>));
    Some((host, uplink))
}
const RECONNECT: i64 = 5 * SECOND;
pub(super) const POLICY: Policy = Policy { enabled: true, period: 86_400, step: 60 };

/// A small generator whose numbers follow from the seed alone.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// One direction of a link: bytes on their way.
#[derive(Default)]
pub(super) struct Pipe {
    on_the_way: VecDeque<(i64, Vec<u8>)>,
    /// Free for the next byte from then on.
    free_at: i64,
}

impl Pipe {
    pub(super) fn send(&mut self, bytes: Vec<u8>, now: i64, wire: Wire) {
        let took = i64::try_from(bytes.len()).unwrap_or(0) * SECOND / wire.bytes_per_second;
        self.free_at = self.free_at.max(now) + took;
        self.on_the_way.push_back((self.free_at + wire.delay, bytes));
    }

    /// Nothing waits for the wire: the kernel would take more.
    pub(super) fn takes_more(&self, now: i64) -> bool {
        self.free_at <= now
    }

    pub(super) fn arrived(&mut self, now: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.on_the_way.front().is_some_and(|(at, _)| *at <= now) {
            bytes.extend(self.on_the_way.pop_front().map(|(_, bytes)| bytes).unwrap_or_default());
        }
        bytes
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) delay: i64,
    pub(super) bytes_per_second: i64,
}

struct Link {
    from: usize,
    to: usize,
    up: Pipe,
    down: Pipe,
    /// Each end may learn of the end at its own time.
    from_open: bool,
    to_open: bool,
}

struct Up {
    link: u64,
    above: Arc<Above>,
    number: u32,
    reader: Option<Executor>,
    lines: Lines,
    offer_at: Option<i64>,
}

struct Down {
    link: u64,
    below: Arc<Below>,
    executor: Executor,
    asks: Arc<Mutex<Vec<(String, Ask)>>>,
    lines: Lines,
    rhythm: Rhythm,
    hops: i64,
    offer_at: Option<i64>,
    /// The child speaks no words of ours.
    is_ours: bool,
}

/// What ends with the process.
struct Life {
    host: Arc<Host>,
    uplink: Arc<Uplink>,
    parents: Parents,
    charts: Vec<Arc<Chart>>,
    hops: i64,
    up: Option<Up>,
    down: Option<Down>,
    queue: Queue<u64>,
    outlets: HashMap<u64, Arc<dyn Outlet>>,
    try_at: i64,
}

pub(super) struct Node {
    name: String,
    pub(super) disk: Disk,
    clock: Clock,
    destinations: Vec<usize>,
    is_origin: bool,
    /// The process does not run until then.
    frozen_until: i64,
    life: Option<Life>,
}

pub(super) struct World {
    random: Random,
    pub(super) now: i64,
    guid: MachineGuid,
    pub(super) nodes: Vec<Node>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    /// Pairs of nodes that cannot reach each other, with the time when that is over.
    cuts: Vec<(usize, usize, i64)>,
    wire: Wire,
    /// What the child can do.
    child_offers: Capabilities,
    /// Requests for samples made so far.
    pub(super) asks: u64,
    pub(super) story: Vec<String>,
}

pub(super) struct Hook {
    pub(super) below: Arc<Below>,
    pub(super) asks: Arc<Mutex<Vec<(String, Ask)>>>,
}

impl Hooks for Hook {
    fn defined(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer) {
        self.below.defined(host, chart, offer);
    }

    fn defined_again(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer) {
        self.below.defined_again(host, chart, offer);
    }

    fn replayed(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, block: Replayed) {
        self.below.replayed(host, chart, block);
    }

    fn wants_archived(&self, _host: &Arc<Host>) -> bool {
        true
    }

    fn offered(&mut self, host: &Arc<Host>, chart: &Arc<Chart>, offer: Offer, dims: &[Arc<str>]) {
        self.below.offered(host, chart, offer, dims);
    }

    fn asked(&mut self, chart: &str, start: bool, after: i64, before: i64) {
        let mut asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        asks.push((chart.to_owned(), Ask { start, after, before }));
    }
}

impl World {
    /// A child and one to three parents; who streams to whom is a matter of chance.
    pub(super) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let parents = 1 + random.below(3);
        let child_keeps = [0, 0, 90, 300][random.below(4)];
        let wire = Wire {
            delay: [1_000, 20_000, 150_000][random.below(3)],
            bytes_per_second: [50_000_000, 1_000_000, 60_000][random.below(3)],
        };
        let plain = Capabilities::OFFERED - Capabilities::COMPRESSIONS;
        let child_offers = if random.chance(25) { plain - Capabilities::SPANS } else { plain };
        let mut nodes = Vec::new();
        for number in 0..=parents {
            let is_origin = number == 0;
            let others: Vec<usize> = if is_origin {
                (1..=parents).collect()
            } else {
                (1..=parents).filter(|other| *other != number).collect()
            };
            let start = random.below(others.len());
            let mut destinations: Vec<usize> = others[start.min(others.len())..].to_vec();
            destinations.extend(&others[..start.min(others.len())]);
            let offset = [0, 0, -2, 2][random.below(4)] * SECOND;
            let mode = if is_origin { Mode::Ram } else { Mode::Dbengine };
            nodes.push(Node {
                name: if is_origin { "child".to_owned() } else { format!("p{number}") },
                disk: Disk::new(mode, if is_origin { child_keeps } else { 0 }),
                clock: Clock::manual(UnixMicros(T0 * SECOND + offset)),
                destinations,
                is_origin,
                frozen_until: 0,
                life: None,
            });
        }
        let guid = "0000aaaa-0000-4000-8000-00000000abcd".parse();
        let mut world = World {
            random,
            now: T0 * SECOND,
            guid: guid.unwrap_or_else(|_| MachineGuid::random()),
            nodes,
            links: BTreeMap::new(),
            next_link: 1,
            cuts: Vec::new(),
            wire,
            child_offers,
            asks: 0,
            story: Vec::new(),
        };
        world.tell(format!(
            "{parents} parents, child keeps {child_keeps} s, {} B/s, {} us, child offers {}",
            wire.bytes_per_second, wire.delay, world.child_offers
        ));
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        world
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{:7.1} {what}", self.seconds()));
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn seconds(&self) -> f64 {
        (self.now - T0 * SECOND) as f64 / 1e6
    }

    // --- life and death ------------------------------------------------------------------------------

    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let kind = if node.is_origin { HostKind::Local } else { HostKind::Child };
        let Some((host, uplink)) =
            sending(self.guid, kind, node.disk_mode(), &node.disk, &node.clock)
        else {
            return;
        };
        let list: Vec<String> = node.destinations.iter().map(|to| format!("node{to}")).collect();
        let mut charts = Vec::new();
        if node.is_origin {
            for (id, every, dims) in [("sim.a", 1, 1), ("sim.b", 1, 3), ("sim.c", 2, 2)] {
                let update_every = UpdateEvery::clamped(every);
                let Ok(chart) =
                    host.define_chart(&ChartSpec { id, update_every, ..ChartSpec::default() })
                else {
                    continue;
                };
                for name in ["x", "y", "z"].iter().take(dims) {
                    let spec = DimensionSpec::plain(name, Algorithm::Absolute, 1, 1);
                    let _ = chart.define_dimension(&spec);
                }
                charts.push(chart);
            }
        }
        node.life = Some(Life {
            host,
            uplink,
            parents: Parents::new(
                parse_destinations(&list.join(" "), 19999),
                19999,
                self.now.unsigned_abs(),
            ),
            charts,
            hops: 0,
            up: None,
            down: None,
            queue: Queue::default(),
            outlets: HashMap::new(),
            try_at: self.now,
        });
    }

    fn kill(&mut self, at: usize) {
        let Some(life) = self.nodes[at].life.take() else { return };
        self.nodes[at].frozen_until = 0;
        let name = self.nodes[at].name.clone();
        self.tell(format!("{name} dies"));
        life.host.set_tap(None);
        // The kernel tells the others, unless they cannot be reached.
        let cuts = self.cuts.clone();
        for link in self.links.values_mut() {
            let cut = is_cut(&cuts, link.from, link.to);
            if link.from == at {
                link.from_open = false;
                link.to_open &= cut;
            } else if link.to == at {
                link.to_open = false;
                link.from_open &= cut;
            }
        }
    }

    // --- what goes wrong -------------------------------------------------------------------------------

    pub(super) fn mishap(&mut self) {
        let count = self.nodes.len();
        let at = self.random.below(count);
        let name = self.nodes[at].name.clone();
        match self.random.below(7) {
            6 if self.nodes[at].life.is_some() => {
                let lasts = i64::try_from(2 + self.random.below(40)).unwrap_or(2) * SECOND;
                self.tell(format!("{name} is frozen for {} s", lasts / SECOND));
                self.nodes[at].frozen_until = self.now + lasts;
            }
            0 | 1 => self.kill(at),
            2 if self.nodes[at].life.is_none() => {
                self.tell(format!("{name} starts"));
                self.start(at);
            }
            2 | 3 => {
                let to = self.random.below(count);
                let lasts = i64::try_from(2 + self.random.below(60)).unwrap_or(2) * SECOND;
                if to != at {
                    let other = self.nodes[to].name.clone();
                    self.tell(format!("{name} and {other} are cut for {} s", lasts / SECOND));
                    self.cuts.push((at, to, self.now + lasts));
                }
            }
            4 if !self.nodes[at].is_origin => {
                self.kill(at);
                self.tell(format!("{name} loses its disk"));
                self.nodes[at].disk.wipe();
                self.start(at);
            }
            _ => {
                for node in 0..count {
                    if self.nodes[node].life.is_none() {
                        let name = self.nodes[node].name.clone();
                        self.tell(format!("{name} starts"));
                        self.start(node);
                    }
                }
            }
        }
    }

    /// Everything works again.
    pub(super) fn heal(&mut self) {
        self.tell("all is well from now on".to_owned());
        self.cuts.clear();
        for node in &mut self.nodes {
            node.frozen_until = 0;
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].life.is_none() {
                self.start(node);
            }
        }
    }

    // --- time --------------------------------------------------------------------------------------------

    /// Moves on by one step; an error is a broken invariant.
    pub(super) fn step(&mut self) -> Result<(), String> {
        self.now += STEP;
        for node in &self.nodes {
            node.clock.advance(STEP);
        }
        let now = self.now;
        self.cuts.retain(|cut| cut.2 > now);
        // Whoever sends to an end that is closed is told so, once it can be reached.
        for link in self.links.values_mut() {
            if !is_cut(&self.cuts, link.from, link.to) {
                link.from_open &= link.to_open;
                link.to_open &= link.from_open;
            }
        }
        if now % SECOND == 0 {
            self.collect();
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].frozen_until > now {
                continue;
            }
            self.connect(at);
            self.above_of(at)?;
            self.below_of(at)?;
            self.answer(at);
        }
        let dead: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| !link.from_open && !link.to_open)
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.links.remove(&id);
        }
        for node in &self.nodes {
            if let Some(wrong) = node.disk.wrong() {
                return Err(format!("{}: {wrong}", node.name));
            }
        }
        Ok(())
    }

    fn collect(&mut self) {
        let node = &self.nodes[0];
        if node.frozen_until > self.now {
            return;
        }
        let Some(life) = &node.life else { return };
        let wall = node.clock.now();
        let second = wall.seconds().0;
        for (number, chart) in (1i64..).zip(&life.charts) {
            let (every, dims) = {
                let state = chart.lock();
                (state.meta.update_every.seconds(), state.dims.len())
            };
            if second % every != 0 {
                continue;
            }
            let value = |dim: u32| (second * (number * 7 + i64::from(dim)) + number) % 100_003;
            let staged: Vec<Staged> = (0..u32::try_from(dims).unwrap_or(0))
                .map(|dim| Staged { dim, value: value(dim) })
                .collect();
            chart.complete(&staged, SinceLast::Clock, wall);
        }
        life.host.flush();
    }

    // --- a node towards its parent ------------------------------------------------------------------------

    /// Looks for a parent, if there is something to send and nobody to send it to.
    fn connect(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let Some(life) = &mut node.life else { return };
        let has_data =
            node.is_origin || life.down.as_ref().is_some_and(|down| down.executor.completed() > 0);
        if life.up.is_some() || !has_data || life.try_at > now || node.destinations.is_empty() {
            return;
        }
        let seconds = node.clock.now_seconds().0;
        let (tries, _) = life.parents.pass(seconds);
        let hops = life.hops + 1;
        life.try_at = now + RECONNECT;
        let last_resort = life.parents.last_resort(seconds);
        for destination in tries.into_iter().chain(last_resort) {
            let to: usize = destination.text.trim_start_matches("node").parse().unwrap_or(0);
            let reachable =
                self.nodes[to].life.is_some() && !is_cut(&self.cuts, at, to) && to != at;
            let Some(life) = &mut self.nodes[at].life else { return };
            life.parents.trying(&destination, seconds);
            if !reachable {
                continue;
            }
            life.parents.reached(&destination);
            let verdict = self.admit(to, hops);
            let Some(life) = &mut self.nodes[at].life else { return };
            match verdict {
                Ok(()) => {
                    life.parents.accepted(&destination);
                    self.establish(at, to, hops);
                    return;
                }
                Err(failure) => life.parents.failed(&destination, failure, seconds),
            }
        }
    }

    /// Whether a parent takes the host from somebody so far away from its origin.
    fn admit(&mut self, to: usize, hops: i64) -> Result<(), Failure> {
        let node = &mut self.nodes[to];
        if node.is_origin {
            return Err(Failure::Localhost);
        }
        if node.frozen_until > self.now {
            // Its kernel takes the connection, and nobody answers.
            return Err(Failure::NoResponse);
        }
        let monotonic = node.clock.monotonic_us();
        let Some(life) = &mut node.life else { return Err(Failure::NoResponse) };
        let Some(down) = &life.down else { return Ok(()) };
        let gone = self.links.get(&down.link).is_none_or(|link| !link.to_open);
        let old = fence::Session {
            hops: down.hops,
            gone,
            silent: down.rhythm.is_silent(monotonic),
            age_us: down.rhythm.age(monotonic),
        };
        if fence::decide(&old, hops) == fence::Verdict::Refuse {
            return Err(Failure::AlreadyStreaming);
        }
        let link = down.link;
        self.hang_up(to, link);
        self.drop_down(to);
        Ok(())
    }

    fn establish(&mut self, from: usize, to: usize, hops: i64) {
        let id = self.next_link;
        self.next_link += 1;
        let (names, now) = ((self.nodes[from].name.clone(), self.nodes[to].name.clone()), self.now);
        self.tell(format!("{} streams to {}", names.0, names.1));
        let offered = if self.nodes[from].is_origin {
            self.child_offers
        } else {
            Capabilities::OFFERED - Capabilities::COMPRESSIONS
        };
        let agreed = Capabilities::OFFERED.agree(Some(i64::from(offered.bits())));
        let is_ours = agreed.contains(Capabilities::SPANS);
        self.links.insert(
            id,
            Link {
                from,
                to,
                up: Pipe::default(),
                down: Pipe::default(),
                from_open: true,
                to_open: true,
            },
        );
        // The child's end.
        let told: Arc<Mutex<Option<Arc<Below>>>> = Arc::default();
        if let Some(life) = &mut self.nodes[from].life
            && let Some(down) = &life.down
        {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&down.below));
        }
        let clock = self.nodes[from].clock.clone();
        if let Some(life) = &mut self.nodes[from].life {
            let number = life.uplink.open(agreed, |_| {});
            let filled = move |chart: &Chart| {
                if let Some(below) = &*told.lock().unwrap_or_else(PoisonError::into_inner) {
                    below.offer(chart);
                }
            };
            let puller = Puller::new(Neighbour::Parent, POLICY, clock.clone(), filled);
            let uplink = Arc::clone(&life.uplink);
            let above =
                Arc::new(Above::new(uplink, number, agreed, puller, &clock, Box::new(|| None)));
            life.queue.open(id);
            life.outlets.insert(id, Arc::clone(&above) as Arc<dyn Outlet>);
            let reader = above.reader(agreed, |_| {});
            life.up = Some(Up {
                link: id,
                above,
                number,
                reader,
                lines: Lines::new(),
                offer_at: is_ours.then_some(now + OFFER_AFTER_US),
            });
        }
        // The parent's.
        let clock = self.nodes[to].clock.clone();
        let Some(life) = &mut self.nodes[to].life else { return };
        let Ok(mailbox) = Mailbox::new() else { return };
        let puller = Puller::new(Neighbour::Child, POLICY, clock.clone(), |_| {});
        let below = Arc::new(Below::new(agreed, mailbox, puller));
        below.attach(&life.host, &clock);
        let asks = Arc::default();
        let hook = Hook { below: Arc::clone(&below), asks: Arc::clone(&asks) };
        let executor = Executor::new(Setup {
            origin: Origin::Stream(agreed),
            hooks: Box::new(hook),
            ..Setup::new(Arc::clone(&life.host))
        });
        // One number for both ends, as a node is never linked to itself.
        life.queue.open(id);
        life.outlets.insert(id, Arc::clone(&below) as Arc<dyn Outlet>);
        life.hops = hops;
        life.down = Some(Down {
            link: id,
            below,
            executor,
            asks,
            lines: Lines::new(),
            rhythm: Rhythm::new(clock.monotonic_us()),
            hops,
            offer_at: is_ours.then_some(now + OFFER_AFTER_US),
            is_ours,
        });
    }

    /// One end closes; the other hears of it if it can be reached.
    fn hang_up(&mut self, at: usize, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let cut = is_cut(&self.cuts, link.from, link.to);
        if link.from == at {
            link.from_open = false;
            link.to_open &= cut;
        } else {
            link.to_open = false;
            link.from_open &= cut;
        }
    }

    fn drop_up(&mut self, at: usize) {
        let now = self.now;
        let Some(life) = &mut self.nodes[at].life else { return };
        let Some(up) = life.up.take() else { return };
        life.uplink.close();
        life.queue.close(up.link);
        life.outlets.remove(&up.link);
        life.try_at = now;
        self.hang_up(at, up.link);
    }

    fn drop_down(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let Some(down) = life.down.take() else { return };
        life.queue.close(down.link);
        life.outlets.remove(&down.link);
        for chart in life.host.charts() {
            let mut state = chart.lock();
            state.replicating = false;
            state.filling.set(Neighbour::Child, false);
        }
        self.hang_up(at, down.link);
        // Nothing of it is sent on any more.
        self.drop_up(at);
    }

    /// What a node does as a child.
    fn above_of(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let Some(life) = &mut self.nodes[at].life else { return Ok(()) };
        let Some(up) = &mut life.up else { return Ok(()) };
        let id = up.link;
        let Some(link) = self.links.get_mut(&id).filter(|link| link.from_open) else {
            self.drop_up(at);
            return Ok(());
        };
        let cut = is_cut(&self.cuts, link.from, link.to);
        // Nothing gets through, and nobody says so, until a send times out.
        if cut && link.up.free_at + 20 * SECOND < now && !link.up.on_the_way.is_empty() {
            let name = self.nodes[at].name.clone();
            self.tell(format!("{name} gives its connection up"));
            self.drop_up(at);
            return Ok(());
        }
        let heard = if cut { Vec::new() } else { link.down.arrived(now) };
        let wall = self.nodes[at].clock.now();
        let Some(life) = &mut self.nodes[at].life else { return Ok(()) };
        let Some(up) = &mut life.up else { return Ok(()) };
        let mut asks = Vec::new();
        let reader = &mut up.reader;
        up.lines.feed(&heard, |line| {
            let mut words = Words::new(line, Rules::Reply);
            match words.next() {
                Some(b"REPLAY_CHART") => asks.extend(read_ask(words)),
                Some(_) => {
                    if let Some(reader) = reader {
                        reader.feed(line, wall).map_err(|error| error.to_string())?;
                    }
                }
                None => {}
            }
            Ok::<_, String>(())
        })?;
        for (chart, ask) in asks {
            self.asks += 1;
            life.queue.ask(id, chart, ask);
        }
        if up.offer_at.is_some_and(|at| now >= at) {
            up.offer_at = None;
            life.queue.ask(id, String::new(), Ask::LIVE);
        }
        up.above.more();
        let number = up.number;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        if !link.up.takes_more(now) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        match life.uplink.take(&mut bytes, 0) {
            Taken::Bytes => {
                if bytes.len() > OUTBOX + OUTBOX / 2 {
                    return Err(format!("an outbox of {} bytes", bytes.len()));
                }
                link.up.send(bytes, now, self.wire);
                // In flight on the wire is no longer in the outbox.
                life.uplink.take(&mut Vec::new(), 0);
                life.queue.has_room(id);
            }
            Taken::Nothing => {
                life.queue.has_room(id);
            }
            Taken::Overflow { .. } => {
                self.tell(format!("outbox {number} overflows"));
                self.drop_up(at);
            }
        }
        Ok(())
    }

    /// What a node does as a parent.
    fn below_of(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let clock = self.nodes[at].clock.clone();
        let Some(life) = &mut self.nodes[at].life else { return Ok(()) };
        let Some(down) = &mut life.down else { return Ok(()) };
        let id = down.link;
        let Some(link) = self.links.get_mut(&id).filter(|link| link.to_open) else {
            self.drop_down(at);
            return Ok(());
        };
        let cut = is_cut(&self.cuts, link.from, link.to);
        let heard = if cut { Vec::new() } else { link.up.arrived(now) };
        if !heard.is_empty() {
            down.rhythm.beat(clock.monotonic_us());
        }
        if down.rhythm.age(clock.monotonic_us()) > 600 * SECOND {
            self.drop_down(at);
            return Ok(());
        }
        let fed = down.executor.feed_chunk(&mut down.lines, &heard, clock.now());
        fed.map_err(|error| format!("what was sent is not understood: {error}"))?;
        down.executor.flush();
        let asks = std::mem::take(&mut *down.asks.lock().unwrap_or_else(PoisonError::into_inner));
        for (chart, ask) in asks {
            self.asks += 1;
            life.queue.ask(id, chart, ask);
        }
        if down.is_ours && down.offer_at.is_some_and(|at| now >= at) {
            down.offer_at = None;
            life.queue.ask(id, String::new(), Ask::LIVE);
        }
        down.below.more(&life.host);
        let in_flight = down.below.puller.progress().in_flight;
        if in_flight > 64 {
            return Err(format!("{in_flight} requests under way"));
        }
        if down.below.mailbox.waiting() > MAILBOX_MAX {
            return Err("a mailbox is full".to_owned());
        }
        if link.down.takes_more(now) {
            let mut letters = Vec::new();
            if !down.below.mailbox.collect(&mut letters) {
                return Err("a mailbox overflowed".to_owned());
            }
            if !letters.is_empty() {
                link.down.send(letters, now, self.wire);
            }
        }
        life.queue.has_room(id);
        Ok(())
    }

    /// What replication threads do in a daemon.
    fn answer(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        for _ in 0..64 {
            let Some((link, work)) = life.queue.take() else { return };
            // Nobody asks for digests here.
            let Work::Samples(chart, ask) = work else { continue };
            let answered = life.outlets.get(&link).is_none_or(|outlet| outlet.answer(&chart, ask));
            if answered {
                life.queue.done(link);
            } else {
                life.queue.put_back(link, chart, ask, false);
            }
        }
    }

    // --- what must be true --------------------------------------------------------------------------------

    /// The nodes that the child's samples reach now.
    fn on_the_path(&self) -> Vec<usize> {
        let mut path = vec![0];
        let mut at = 0;
        while let Some(up) = self.nodes[at].life.as_ref().and_then(|life| life.up.as_ref())
            && let Some(link) = self.links.get(&up.link)
            && !path.contains(&link.to)
        {
            at = link.to;
            path.push(at);
        }
        path
    }

    /// How many samples some node of the path holds and a parent on it lacks, and the first of them.
    pub(super) fn missing(&self) -> (usize, Option<String>) {
        let path = self.on_the_path();
        let mut all: BTreeMap<(String, String), BTreeMap<i64, u32>> = BTreeMap::new();
        for at in &path {
            for (key, slots) in self.nodes[*at].disk.all() {
                all.entry(key).or_default().extend(slots);
            }
        }
        let newest = self.now / SECOND - 8;
        let (mut missing, mut first) = (0, None);
        for at in path.iter().skip(1) {
            let held = self.nodes[*at].disk.all();
            for (key, slots) in &all {
                let held = held.get(key);
                for at_s in slots.range(..newest).map(|(at, _)| at) {
                    if !held.is_some_and(|held| held.contains_key(at_s)) {
                        missing += 1;
                        first.get_or_insert_with(|| {
                            format!("{} lacks {key:?} at {}", self.nodes[*at].name, at_s - T0)
                        });
                    }
                }
            }
        }
        (missing, first)
    }

    /// How far every node's past has come, for people.
    pub(super) fn standing(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let Some(life) = &node.life else { continue };
            let up = life.up.as_ref().and_then(|up| up.above.puller.as_ref());
            let down = life.down.as_ref().map(|down| &down.below.puller);
            text.push_str(&format!(
                "{}: from above {:?}; from below {:?}\n",
                node.name,
                up.map(|puller| puller.progress()),
                down.map(Puller::progress)
            ));
        }
        text
    }

    pub(super) fn path_names(&self) -> Vec<String> {
        self.on_the_path().into_iter().map(|at| self.nodes[at].name.clone()).collect()
    }

    pub(super) fn all_parents_are_reached(&self) -> bool {
        self.on_the_path().len() == self.nodes.len()
    }
}

/// A host and its tap hold each other.
impl Drop for World {
    fn drop(&mut self) {
        for life in self.nodes.iter().filter_map(|node| node.life.as_ref()) {
            life.host.set_tap(None);
        }
    }
}

impl Node {
    fn disk_mode(&self) -> Mode {
        use netdata_rs::storage::StorageEngine;
        self.disk.mode()
    }
}

fn is_cut(cuts: &[(usize, usize, i64)], a: usize, b: usize) -> bool {
    cuts.iter().any(|cut| (cut.0, cut.1) == (a, b) || (cut.0, cut.1) == (b, a))
}
