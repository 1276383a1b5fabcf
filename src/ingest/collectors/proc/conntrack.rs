//! /proc/net/stat/nf_conntrack: connections the firewall follows.

use std::path::PathBuf;

use super::Source;
use crate::base::time::UpdateEvery;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Row, Site, absolute, incremental};
use crate::ingest::collectors::lanes::{After, Pace, Tick};
use crate::ingest::collectors::procfile::{ProcFile, hexadecimal, lines, number, read_once, words};
use crate::ingest::collectors::setup::Setup;

pub const NAME: &str = "/proc/net/stat/nf_conntrack";
/// The switch in `[plugin:proc]` has a shorter name than the module.
pub const SWITCH: &str = "/proc/net/stat/conntrack";
const SECTION: &str = "plugin:proc:/proc/net/stat/nf_conntrack";
const SECTION_MAX: &str = "plugin:proc:/proc/sys/net/netfilter/nf_conntrack_max";

/// Columns, hexadecimal, by place: their names changed over the years, their meaning for these charts did not.
const COLUMNS: usize = 17;

static SOCKETS: ChartDef = ChartDef {
    id: "netfilter.conntrack_sockets",
    title: "Connections followed by the firewall",
    units: "active connections",
    family: "conntrack",
    priority: 8700,
    dims: &[absolute("connections")],
    ..CHART
};

static NEW: ChartDef = ChartDef {
    id: "netfilter.conntrack_new",
    title: "Connections that began, by what the firewall made of them",
    units: "connections/s",
    family: "conntrack",
    priority: 8701,
    dims: &[
        incremental("new"),
        incremental("ignore").negative(),
        incremental("invalid").negative(),
    ],
    ..CHART
};

static CHANGES: ChartDef = ChartDef {
    id: "netfilter.conntrack_changes",
    title: "Changes to the firewall's list of connections",
    units: "changes/s",
    family: "conntrack",
    priority: 8702,
    detail: true,
    dims: &[
        incremental("inserted"),
        incremental("deleted").negative(),
        incremental("delete_list").negative(),
    ],
    ..CHART
};

static EXPECT: ChartDef = ChartDef {
    id: "netfilter.conntrack_expect",
    title: "Connections the firewall expects because of others",
    units: "expectations/s",
    family: "conntrack",
    priority: 8703,
    detail: true,
    dims: &[incremental("created"), incremental("deleted").negative(), incremental("new")],
    ..CHART
};

static ERRORS: ChartDef = ChartDef {
    id: "netfilter.conntrack_errors",
    title: "Connections the firewall could not follow",
    units: "events/s",
    family: "conntrack",
    priority: 8705,
    detail: true,
    dims: &[
        incremental("icmp_error"),
        incremental("insert_failed").negative(),
        incremental("drop").negative(),
        incremental("early_drop").negative(),
    ],
    ..CHART
};

static SEARCH: ChartDef = ChartDef {
    id: "netfilter.conntrack_search",
    title: "Searches in the firewall's list of connections",
    units: "searches/s",
    family: "conntrack",
    priority: 8710,
    detail: true,
    dims: &[incremental("searched"), incremental("restarted").negative(), incremental("found")],
    ..CHART
};

struct ConnTrack {
    site: Site,
    file: ProcFile,
    sockets: Row,
    new: Row,
    changes: Row,
    expect: Row,
    search: Row,
    errors: Row,
    most: PathBuf,
    most_pace: Pace,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let row = |def, option| Row::new(def, setup.switch(SECTION, option));
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let most = "/proc/sys/net/netfilter/nf_conntrack_max";
    Some(Box::new(ConnTrack {
        site: setup.proc_site(NAME),
        file,
        new: row(&NEW, "netfilter new connections"),
        changes: row(&CHANGES, "netfilter connection changes"),
        expect: row(&EXPECT, "netfilter connection expectations"),
        search: row(&SEARCH, "netfilter connection searches"),
        errors: row(&ERRORS, "netfilter errors"),
        sockets: row(&SOCKETS, "netfilter connections"),
        most: setup.path(SECTION_MAX, "filename to monitor", most),
        most_pace: Pace::new(UpdateEvery::clamped(setup.config.number(
            SECTION_MAX,
            "read every seconds",
            10,
        ))),
    }))
}

impl Source for ConnTrack {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        if self.most_pace.due(tick.now)
            && let Ok(length) = read_once(&self.most, tick.buffer)
        {
            #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
            let most = number(&tick.buffer[..length]) as f64;
            self.site.host.set_variable("netfilter_conntrack_max", most);
        }
        let Some(text) = self.file.read(tick.buffer) else { return After::Again };
        let mut sums = [0; COLUMNS];
        let mut connections = 0;
        for line in lines(text).skip(1) {
            for (column, (sum, word)) in sums.iter_mut().zip(words(line)).enumerate() {
                let value = hexadecimal(word);
                *sum += value;
                // Every processor reports the number of all connections.
                if column == 0 {
                    connections = value;
                }
            }
        }
        #[rustfmt::skip]
        let [_, searched, found, new, invalid, ignore, delete, delete_list, insert, insert_failed,
            drop, early_drop, icmp_error, expect_new, expect_create, expect_delete, restart] = sums;
        let at = At::new(&self.site, tick.now);
        self.sockets.collect(at, &[connections]);
        self.new.collect(at, &[new, ignore, invalid]);
        self.changes.collect(at, &[insert, delete, delete_list]);
        self.expect.collect(at, &[expect_create, expect_delete, expect_new]);
        self.search.collect(at, &[searched, restart, found]);
        self.errors.collect(at, &[icmp_error, insert_failed, drop, early_drop]);
        After::Again
    }
}
