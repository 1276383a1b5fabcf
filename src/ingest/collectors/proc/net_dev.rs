//! /proc/net/dev: traffic of network interfaces, and the state of their links below /sys/class/net.
//!
//! Asking for a link takes the lock that all of the kernel's network configuration shares, and a driver may take long
//! to answer. So the kernel is asked to ring when a link changes, and links are asked then, and now and then anyway.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Source;
use crate::base::pattern::SimplePattern;
use crate::base::sys::LinkEvents;
use crate::config::OnDemand;
use crate::ingest::collectors::chart::{
    At, CHART, ChartDef, DimDef, Instance, Row, Site, When, absolute, incremental,
};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::{ProcFile, lines, number, open, words_and_colons};
use crate::ingest::collectors::setup::{Setup, fill};
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/net/dev";
const SECTION: &str = "plugin:proc:/proc/net/dev";

/// Interfaces followed; more are not looked at.
const INTERFACES_MAX: usize = 16_384;

/// What is told of a link is read again after this many ticks, whether it changed or not.
const LINK_EVERY_TICKS: u32 = 10;

static TOTAL: ChartDef = ChartDef {
    id: "system.net",
    title: "Traffic of all physical network interfaces",
    units: "kilobits/s",
    family: "network",
    chart_type: ChartType::Area,
    priority: 500,
    dims: &[
        incremental("InOctets").named("received").scaled(8, 1000),
        incremental("OutOctets").named("sent").scaled(8, 1000).negative(),
    ],
    ..CHART
};

static BANDWIDTH: ChartDef = ChartDef {
    id: "net",
    title: "Traffic",
    units: "kilobits/s",
    context: "net.net",
    chart_type: ChartType::Area,
    priority: 7000,
    dims: &[
        incremental("received").scaled(8, 1000),
        incremental("sent").scaled(8, 1000).negative(),
    ],
    ..CHART
};

const fn detailed(
    id: &'static str,
    title: &'static str,
    units: &'static str,
    context: &'static str,
    priority: i64,
    dims: &'static [DimDef],
) -> ChartDef {
    ChartDef { id, title, units, context, priority, detail: true, dims, ..CHART }
}

static PACKETS: ChartDef = detailed(
    "net_packets",
    "Packets",
    "packets/s",
    "net.packets",
    7001,
    &[incremental("received"), incremental("sent").negative(), incremental("multicast")],
);

static ERRORS: ChartDef = detailed(
    "net_errors",
    "Packets that were damaged or could not be sent",
    "errors/s",
    "net.errors",
    7002,
    &[incremental("inbound"), incremental("outbound").negative()],
);

static DROPS: ChartDef = detailed(
    "net_drops",
    "Packets dropped",
    "drops/s",
    "net.drops",
    7003,
    &[incremental("inbound"), incremental("outbound").negative()],
);

static FIFO: ChartDef = detailed(
    "net_fifo",
    "Overruns of the interface's buffers",
    "errors",
    "net.fifo",
    7004,
    &[incremental("receive"), incremental("transmit").negative()],
);

static COMPRESSED: ChartDef = detailed(
    "net_compressed",
    "Compressed packets",
    "packets/s",
    "net.compressed",
    7005,
    &[incremental("received"), incremental("sent").negative()],
);

static EVENTS: ChartDef = detailed(
    "net_events",
    "Broken frames, collisions and lost carriers",
    "events/s",
    "net.events",
    7006,
    &[
        incremental("frames"),
        incremental("collisions").negative(),
        incremental("carrier").negative(),
    ],
);

static SPEED: ChartDef = detailed(
    "net_speed",
    "Speed of the link",
    "kilobits/s",
    "net.speed",
    7007,
    &[absolute("speed")],
);

static DUPLEX: ChartDef = detailed(
    "net_duplex",
    "Duplex of the link",
    "state",
    "net.duplex",
    7008,
    &[absolute("full"), absolute("half"), absolute("unknown")],
);

static OPERSTATE: ChartDef = detailed(
    "net_operstate",
    "State of the interface",
    "state",
    "net.operstate",
    7009,
    &[
        absolute("up"),
        absolute("down"),
        absolute("notpresent"),
        absolute("lowerlayerdown"),
        absolute("testing"),
        absolute("dormant"),
        absolute("unknown"),
    ],
);

static CARRIER: ChartDef = detailed(
    "net_carrier",
    "Whether the link is there",
    "state",
    "net.carrier",
    7010,
    &[absolute("up"), absolute("down")],
);

static MTU: ChartDef =
    detailed("net_mtu", "Largest packet", "octets", "net.mtu", 7011, &[absolute("mtu")]);

/// The charts of an interface: option for all interfaces, option for one of them, definition.
static CHARTS: [(&str, &str, &ChartDef); 12] = [
    ("bandwidth for all interfaces", "bandwidth", &BANDWIDTH),
    ("packets for all interfaces", "packets", &PACKETS),
    ("errors for all interfaces", "errors", &ERRORS),
    ("drops for all interfaces", "drops", &DROPS),
    ("fifo for all interfaces", "fifo", &FIFO),
    ("compressed packets for all interfaces", "compressed", &COMPRESSED),
    ("frames, collisions, carrier counters for all interfaces", "events", &EVENTS),
    ("speed for all interfaces", "speed", &SPEED),
    ("duplex for all interfaces", "duplex", &DUPLEX),
    ("operstate for all interfaces", "operstate", &OPERSTATE),
    ("carrier for all interfaces", "carrier", &CARRIER),
    ("mtu for all interfaces", "mtu", &MTU),
];

struct NetDev {
    setup: Setup,
    /// `None` when the files of the links are not those of this machine, or it may not listen: then state and carrier
    /// are read at every tick.
    bell: Option<LinkEvents>,
    site: Site,
    file: ProcFile,
    options: Options,
    interfaces: Vec<Interface>,
    total: Row,
}

struct Options {
    virtual_path: String,
    speed_path: String,
    duplex_path: String,
    operstate_path: String,
    carrier_path: String,
    mtu_path: String,
    enabled: bool,
    off: SimplePattern,
    charts: [OnDemand; 12],
}

struct Interface {
    name: Box<[u8]>,
    seen: bool,
    is_virtual: bool,
    /// `None`: switched off.
    live: Option<Box<Live>>,
}

struct Live {
    instance: Instance,
    rows: [Row; 12],
    speed: Attribute,
    duplex: Attribute,
    operstate: Attribute,
    carrier: Attribute,
    mtu: Attribute,
    link: Link,
    told_speed: Option<i64>,
    ticks: u32,
}

/// What was last read of the link.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Link {
    operstate: Option<usize>,
    carrier: Option<bool>,
    mtu: Option<i64>,
    /// Kilobits per second.
    speed: i64,
    /// Index into the dimensions of the chart.
    duplex: usize,
}

/// A file of /sys that may refuse to be read while its interface is down.
struct Attribute {
    path: Box<Path>,
    file: Option<File>,
    wanted: bool,
}

impl Attribute {
    fn new(template: &str, name: &str, wanted: bool) -> Attribute {
        Attribute { path: fill(template, name).into_boxed_path(), file: None, wanted }
    }

    /// Its first line.
    fn read<'b>(&mut self, buffer: &'b mut [u8; 32]) -> Option<&'b [u8]> {
        if !self.wanted {
            return None;
        }
        if self.file.is_none() {
            match open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(_) => {
                    // The interface has none, and will have none as long as it lives.
                    self.wanted = false;
                    return None;
                }
            }
        }
        let length = self.file.as_ref()?.read_at(buffer, 0).ok()?;
        lines(&buffer[..length]).next().filter(|line| !line.is_empty())
    }
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let config = &setup.config;
    let file = setup.path(SECTION, "filename to monitor", NAME);
    let path = |option, default| setup.template(SECTION, option, default);
    let options = Options {
        virtual_path: path("path to get virtual interfaces", "/sys/devices/virtual/net/%s"),
        speed_path: path("path to get net device speed", "/sys/class/net/%s/speed"),
        duplex_path: path("path to get net device duplex", "/sys/class/net/%s/duplex"),
        operstate_path: path("path to get net device operstate", "/sys/class/net/%s/operstate"),
        carrier_path: path("path to get net device carrier", "/sys/class/net/%s/carrier"),
        mtu_path: path("path to get net device mtu", "/sys/class/net/%s/mtu"),
        enabled: config.on_demand(
            SECTION,
            "enable new interfaces detected at runtime",
            OnDemand::Auto,
        ) != OnDemand::No,
        charts: CHARTS.map(|(option, ..)| config.on_demand(SECTION, option, OnDemand::Auto)),
        off: SimplePattern::new(&config.string(
            SECTION,
            "disable by default interfaces matching",
            "lo fireqos* *-ifb fwpr* fwbr* fwln*",
        )),
    };
    let attributes = [&options.operstate_path, &options.carrier_path, &options.mtu_path];
    let ours = attributes.iter().all(|path| path.starts_with("/sys/class/net/"));
    let bell = ours.then(LinkEvents::subscribe).and_then(Result::ok);
    let bandwidth = When::of(options.charts[0], setup.zero_metrics);
    Some(Box::new(NetDev {
        setup: setup.clone(),
        bell,
        site: setup.proc_site(NAME),
        file: ProcFile::open(file)?,
        options,
        interfaces: Vec::new(),
        total: Row::new(&TOTAL, bandwidth),
    }))
}

impl Source for NetDev {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        let at = At::new(&self.site, tick.now);
        let rang = self.bell.as_ref().map(LinkEvents::rang);
        let (mut received, mut sent) = (0i64, 0i64);
        for interface in &mut self.interfaces {
            interface.seen = false;
        }
        let mut expected = 0;
        for line in lines(text).skip(2) {
            let mut words = words_and_colons(line);
            let Some(name) = words.next() else { continue };
            let known = match self.interfaces.get(expected) {
                Some(interface) if *interface.name == *name => Some(expected),
                _ => self.interfaces.iter().position(|interface| *interface.name == *name),
            };
            let index = match known {
                Some(index) => index,
                None if self.interfaces.len() >= INTERFACES_MAX => continue,
                None => {
                    let interface = self.options.interface(&self.setup, name);
                    let index = expected.min(self.interfaces.len());
                    self.interfaces.insert(index, interface);
                    index
                }
            };
            expected = index + 1;
            let interface = &mut self.interfaces[index];
            interface.seen = true;
            let values = [(); 16].map(|()| words.number());
            let Some(live) = &mut interface.live else { continue };
            if !interface.is_virtual {
                received = received.wrapping_add(values[0]);
                sent = sent.wrapping_add(values[8]);
            }
            live.read_link(rang);
            live.collect(at, &values, interface.is_virtual);
        }
        self.interfaces.retain(|interface| {
            if let (false, Some(live)) = (interface.seen, &interface.live) {
                live.rows.iter().for_each(Row::obsolete);
            }
            interface.seen
        });
        self.total.collect(at, &[received, sent]);
        After::Again
    }
}

impl Options {
    /// Asks for the options of an interface that has just come.
    fn interface(&self, setup: &Setup, bytes: &[u8]) -> Interface {
        let name = String::from_utf8_lossy(bytes).into_owned();
        let section = format!("{SECTION}:{name}");
        let config = &setup.config;
        let enabled = self.enabled && !self.off.matches(&name);
        let enabled = config.boolean(&section, "enabled", enabled);
        let is_virtual = fill(&self.virtual_path, &name).exists();
        let is_virtual = config.boolean(&section, "virtual", is_virtual);
        let live = enabled.then(|| {
            let mut whens = [When::Never; 12];
            for (i, (_, option, _)) in CHARTS.iter().enumerate() {
                whens[i] = setup.when(&section, option, self.charts[i]);
            }
            let wanted = |chart: usize| whens[chart] != When::Never;
            let link = !is_virtual;
            let kind = if is_virtual { "virtual" } else { "real" };
            Box::new(Live {
                rows: std::array::from_fn(|i| match whens[i] {
                    // What the link is like is a fact, zero or not.
                    When::NonZero if i >= 7 => Row::new(CHARTS[i].2, When::Always),
                    when => Row::new(CHARTS[i].2, when),
                }),
                speed: Attribute::new(&self.speed_path, &name, link && wanted(7)),
                duplex: Attribute::new(&self.duplex_path, &name, link && wanted(8)),
                operstate: Attribute::new(&self.operstate_path, &name, wanted(9)),
                carrier: Attribute::new(&self.carrier_path, &name, wanted(10)),
                mtu: Attribute::new(&self.mtu_path, &name, wanted(11)),
                link: Link { duplex: DUPLEX_UNKNOWN, ..Link::default() },
                told_speed: None,
                ticks: 0,
                instance: Instance {
                    id: name.clone(),
                    name: name.clone(),
                    family: name.clone(),
                    labels: vec![("interface_type", kind.to_owned()), ("device", name.clone())],
                    shift: 0,
                },
            })
        });
        Interface { name: bytes.into(), seen: false, is_virtual, live }
    }
}

const DUPLEX_UNKNOWN: usize = 2;

impl Live {
    fn collect(&mut self, at: At<'_>, values: &[i64; 16], is_virtual: bool) {
        #[rustfmt::skip]
        let [received, in_packets, in_errors, in_drops, in_fifo, frames, in_compressed, multicast,
            sent, out_packets, out_errors, out_drops, out_fifo, collisions, carrier, out_compressed] = *values;
        let at = at.of(&self.instance);
        #[rustfmt::skip]
        let [bandwidth, packets, errors, drops, fifo, compressed, events, speed, duplex, operstate,
            link, mtu] = &mut self.rows;
        if bandwidth.collect(at, &[received, sent]) && !is_virtual {
            speed.collect(at, &[self.link.speed]);
            if self.told_speed != Some(self.link.speed) {
                self.told_speed = Some(self.link.speed);
                #[expect(clippy::cast_precision_loss, reason = "kilobits per second")]
                bandwidth.set_variable("nic_speed_max", self.link.speed as f64);
            }
        }
        if !is_virtual {
            duplex.collect(at, &one_of::<3>(self.link.duplex));
        }
        if let Some(state) = self.link.operstate {
            operstate.collect(at, &one_of::<7>(state));
        }
        if let Some(up) = self.link.carrier {
            link.collect(at, &[i64::from(up), i64::from(!up)]);
        }
        if let Some(octets) = self.link.mtu {
            mtu.collect(at, &[octets]);
        }
        packets.collect(at, &[in_packets, out_packets, multicast]);
        errors.collect(at, &[in_errors, out_errors]);
        drops.collect(at, &[in_drops, out_drops]);
        fifo.collect(at, &[in_fifo, out_fifo]);
        compressed.collect(at, &[in_compressed, out_compressed]);
        events.collect(at, &[frames, collisions, carrier]);
    }

    /// `rang`: whether any link changed, if we would have been told.
    fn read_link(&mut self, rang: Option<bool>) {
        let due = self.ticks == 0;
        self.ticks = self.ticks.saturating_sub(1);
        if rang == Some(false) && !due {
            return;
        }
        let mut buffer = [0; 32];
        let before = self.link;
        self.link.operstate = self.operstate.read(&mut buffer).map(|word| {
            let state = OPERSTATE.dims.iter().position(|dim| dim.id.as_bytes() == word);
            state.unwrap_or(OPERSTATE.dims.len() - 1)
        });
        let mut all = due || rang == Some(true) || before.operstate != self.link.operstate;
        // An interface that is switched off does not tell, and says so slowly.
        if all || before.carrier.is_some() {
            self.link.carrier = self.carrier.read(&mut buffer).map(|word| number(word) == 1);
            all |= before.carrier != self.link.carrier;
        }
        if all {
            self.ticks = LINK_EVERY_TICKS - 1;
            self.link.mtu = self.mtu.read(&mut buffer).map(number);
            let megabits = self.speed.read(&mut buffer).map_or(0, number);
            self.link.speed = megabits.max(0).saturating_mul(1000);
            self.link.duplex = match self.duplex.read(&mut buffer) {
                Some(b"full") => 0,
                Some(b"half") => 1,
                _ => DUPLEX_UNKNOWN,
            };
        }
    }
}

/// 1 at the index that holds, 0 elsewhere.
fn one_of<const N: usize>(index: usize) -> [i64; N] {
    std::array::from_fn(|i| i64::from(i == index))
}
