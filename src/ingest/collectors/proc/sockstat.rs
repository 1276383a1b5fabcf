//! /proc/net/sockstat and /proc/net/sockstat6: sockets in use and their memory.

use std::path::PathBuf;

use super::Source;
use crate::base::sys;
use crate::base::time::UpdateEvery;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Site, absolute};
use crate::ingest::collectors::keyed::{KeyedDef, KeyedRows};
use crate::ingest::collectors::lanes::{After, Pace, Tick};
use crate::ingest::collectors::procfile::{ProcFile, number, read_once, words};
use crate::ingest::collectors::setup::Setup;
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/net/sockstat";
pub const NAME6: &str = "/proc/net/sockstat6";
const SECTION: &str = "plugin:proc:/proc/net/sockstat";
const SECTION6: &str = "plugin:proc:/proc/net/sockstat6";

struct SockStat {
    site: Site,
    file: ProcFile,
    rows: KeyedRows,
    limits: Option<Limits>,
}

/// What the kernel allows, for alarms.
struct Limits {
    pace: Pace,
    tcp_memory: PathBuf,
    orphans: PathBuf,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let limits = Limits {
        pace: Pace::new(UpdateEvery::clamped(setup.config.number(
            SECTION,
            "update constants every",
            60,
        ))),
        tcp_memory: PathBuf::from(setup.prefixed("/proc/sys/net/ipv4/tcp_mem")),
        orphans: PathBuf::from(setup.prefixed("/proc/sys/net/ipv4/tcp_max_orphans")),
    };
    let rows = KeyedRows::new(setup, &[(SECTION, SOCKETS)]);
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let site = setup.proc_site(NAME);
    Some(Box::new(SockStat { site, file, rows, limits: Some(limits) }))
}

pub fn make6(setup: &Setup) -> Option<Box<dyn Source>> {
    let rows = KeyedRows::new(setup, &[(SECTION6, SOCKETS6)]);
    let file = ProcFile::open(setup.path(SECTION6, "filename to monitor", NAME6))?;
    Some(Box::new(SockStat { site: setup.proc_site(NAME6), file, rows, limits: None }))
}

impl Source for SockStat {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        if let Some(limits) = &mut self.limits
            && limits.pace.due(tick.now)
        {
            limits.tell(&self.site, tick.buffer);
        }
        if let Some(text) = self.file.read(tick.buffer) {
            self.rows.keys().read_pairs(text);
            self.rows.collect(At::new(&self.site, tick.now));
        }
        After::Again
    }
}

impl Limits {
    #[expect(clippy::cast_precision_loss, reason = "kilobytes and numbers of sockets")]
    fn tell(&self, site: &Site, buffer: &mut Vec<u8>) {
        if let Ok(length) = read_once(&self.tcp_memory, buffer) {
            let mut pages = words(&buffer[..length]);
            for name in ["tcp_mem_low", "tcp_mem_pressure", "tcp_mem_high"] {
                let kilobytes = pages.number() as f64 * sys::page_size() as f64 / 1024.0;
                site.host.set_variable(name, kilobytes);
            }
        }
        if let Ok(length) = read_once(&self.orphans, buffer) {
            site.host.set_variable("tcp_max_orphans", number(&buffer[..length]) as f64);
        }
    }
}

static SOCKETS: &[KeyedDef] = &[
    KeyedDef {
        option: "ipv4 sockets",
        group: "sockets",
        chart: ChartDef {
            id: "ipv4.sockstat_sockets",
            title: "Sockets in use, of all kinds",
            units: "sockets",
            family: "sockets",
            priority: 5100,
            dims: &[absolute("used")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 TCP sockets",
        group: "TCP",
        chart: ChartDef {
            id: "ipv4.sockstat_tcp_sockets",
            title: "TCP sockets, by state",
            units: "sockets",
            family: "tcp",
            priority: 5201,
            dims: &[
                absolute("alloc"),
                absolute("orphan"),
                absolute("inuse"),
                absolute("timewait").key("tw"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 TCP memory",
        group: "TCP",
        chart: ChartDef {
            id: "ipv4.sockstat_tcp_mem",
            title: "Memory of TCP sockets",
            units: "KiB",
            family: "tcp",
            chart_type: ChartType::Area,
            priority: 5290,
            dims: &[absolute("mem").in_pages()],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 UDP sockets",
        group: "UDP",
        chart: ChartDef {
            id: "ipv4.sockstat_udp_sockets",
            title: "UDP sockets",
            units: "sockets",
            family: "udp",
            priority: 5300,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 UDP memory",
        group: "UDP",
        chart: ChartDef {
            id: "ipv4.sockstat_udp_mem",
            title: "Memory of UDP sockets",
            units: "KiB",
            family: "udp",
            chart_type: ChartType::Area,
            priority: 5390,
            dims: &[absolute("mem").in_pages()],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 UDPLITE sockets",
        group: "UDPLITE",
        chart: ChartDef {
            id: "ipv4.sockstat_udplite_sockets",
            title: "UDP-Lite sockets",
            units: "sockets",
            family: "udplite",
            priority: 5400,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 RAW sockets",
        group: "RAW",
        chart: ChartDef {
            id: "ipv4.sockstat_raw_sockets",
            title: "Raw sockets",
            units: "sockets",
            family: "raw",
            priority: 5450,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 FRAG sockets",
        group: "FRAG",
        chart: ChartDef {
            id: "ipv4.sockstat_frag_sockets",
            title: "IPv4 packets waiting for fragments",
            units: "fragments",
            family: "fragments",
            priority: 5460,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 FRAG memory",
        group: "FRAG",
        chart: ChartDef {
            id: "ipv4.sockstat_frag_mem",
            title: "Memory of IPv4 fragments",
            units: "KiB",
            family: "fragments",
            chart_type: ChartType::Area,
            priority: 5470,
            dims: &[absolute("mem").key("memory").scaled(1, 1024)],
            ..CHART
        },
        with_next: false,
    },
];

static SOCKETS6: &[KeyedDef] = &[
    KeyedDef {
        option: "ipv6 TCP sockets",
        group: "TCP6",
        chart: ChartDef {
            id: "ipv6.sockstat6_tcp_sockets",
            title: "TCP sockets over IPv6",
            units: "sockets",
            family: "tcp6",
            priority: 6500,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 UDP sockets",
        group: "UDP6",
        chart: ChartDef {
            id: "ipv6.sockstat6_udp_sockets",
            title: "UDP sockets over IPv6",
            units: "sockets",
            family: "udp6",
            priority: 6600,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 UDPLITE sockets",
        group: "UDPLITE6",
        chart: ChartDef {
            id: "ipv6.sockstat6_udplite_sockets",
            title: "UDP-Lite sockets over IPv6",
            units: "sockets",
            family: "udplite6",
            priority: 6700,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 RAW sockets",
        group: "RAW6",
        chart: ChartDef {
            id: "ipv6.sockstat6_raw_sockets",
            title: "Raw sockets over IPv6",
            units: "sockets",
            family: "raw6",
            priority: 6800,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 FRAG sockets",
        group: "FRAG6",
        chart: ChartDef {
            id: "ipv6.sockstat6_frag_sockets",
            title: "IPv6 packets waiting for fragments",
            units: "fragments",
            family: "fragments6",
            priority: 6400,
            dims: &[absolute("inuse")],
            ..CHART
        },
        with_next: false,
    },
];
