//! timex.plugin: whether the kernel's clock follows a reference, and how far it is off.

use std::sync::Arc;

use super::chart::{At, CHART, ChartDef, Row, Site, absolute};
use super::lanes::{After, Pace, Task, Tick};
use super::setup::Setup;
use crate::base::sys;
use crate::base::time::UpdateEvery;

const SECTION: &str = "plugin:timex";

/// Clocks drift slowly.
const EVERY: i64 = 10;

static STATE: ChartDef = ChartDef {
    id: "system.clock_sync_state",
    title: "Whether the clock is synchronized",
    units: "state",
    family: "clock synchronization",
    priority: 1100,
    dims: &[absolute("state")],
    ..CHART
};

static STATUS: ChartDef = ChartDef {
    id: "system.clock_status",
    title: "What the kernel says of its clock",
    units: "status",
    family: "clock synchronization",
    priority: 1105,
    dims: &[absolute("unsync"), absolute("clockerr")],
    ..CHART
};

static OFFSET: ChartDef = ChartDef {
    id: "system.clock_sync_offset",
    title: "How far the clock is off",
    units: "milliseconds",
    family: "clock synchronization",
    priority: 1110,
    dims: &[absolute("offset").scaled(1, 1000)],
    ..CHART
};

struct Timex {
    pace: Pace,
    site: Site,
    state: Row,
    status: Row,
    offset: Row,
}

pub fn task(setup: &Setup) -> Box<dyn Task> {
    let every = setup.config.number(SECTION, "update every", EVERY);
    let every = UpdateEvery::clamped(every.max(setup.every.seconds()));
    let state = setup.switch(SECTION, "clock synchronization state");
    Box::new(Timex {
        pace: Pace::new(every),
        site: Site { every, ..setup.site("timex.plugin", "") },
        state: Row::new(&STATE, state),
        status: Row::new(&STATUS, state),
        offset: Row::new(&OFFSET, setup.switch(SECTION, "time offset")),
    })
}

impl Task for Timex {
    fn name(&self) -> Arc<str> {
        "timex".into()
    }

    fn run(&mut self, tick: &mut Tick<'_>) -> After {
        if !self.pace.due(tick.now) {
            return After::Again;
        }
        let clock = match sys::clock_discipline() {
            Ok(clock) => clock,
            Err(error) => {
                log::error!(
                    "Cannot get clock synchronization state{}",
                    super::procfile::errno(&error)
                );
                return After::Never;
            }
        };
        let at = At::new(&self.site, tick.now);
        self.state.collect(at, &[i64::from(clock.synchronized)]);
        self.status.collect(at, &[i64::from(clock.unsynchronized), i64::from(clock.error)]);
        self.offset.collect(at, &[clock.offset_us]);
        After::Again
    }
}
