//! idlejitter.plugin: how late the machine wakes a thread that sleeps.
//!
//! A thread of its own sleeps again and again for a short time and measures how long it really slept; on a machine that
//! is not overcommitted the difference stays small.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::chart::{At, CHART, ChartDef, Row, When, absolute};
use super::setup::Setup;
use crate::base::threads::{StopToken, spawn};
use crate::metrics::ChartType;

const SECTION: &str = "plugin:idlejitter";

/// Milliseconds of a sleep: default and least.
const SLEEP_MS: i64 = 20;
const SLEEP_MS_MIN: i64 = 1;
const SLEEP_MS_MAX: i64 = 1000;

static JITTER: ChartDef = ChartDef {
    id: "system.idlejitter",
    title: "Time lost when waking up",
    units: "microseconds lost/s",
    family: "idlejitter",
    chart_type: ChartType::Area,
    priority: 800,
    dims: &[absolute("min"), absolute("max"), absolute("average")],
    ..CHART
};

/// Delays of one interval, in microseconds.
#[derive(Debug, PartialEq, Eq)]
struct Delays {
    least: i64,
    most: i64,
    sum: i64,
    count: i64,
}

impl Delays {
    const NONE: Delays = Delays { least: i64::MAX, most: 0, sum: 0, count: 0 };

    fn add(&mut self, delay_us: i64) {
        self.least = self.least.min(delay_us);
        self.most = self.most.max(delay_us);
        self.sum += delay_us;
        self.count += 1;
    }

    /// Least, most and average.
    fn values(&self) -> Option<[i64; 3]> {
        (self.count > 0).then(|| [self.least, self.most, self.sum / self.count])
    }
}

pub fn start(setup: &Setup, stop: &StopToken) -> io::Result<JoinHandle<()>> {
    let sleep_ms = setup.config.number(SECTION, "loop time in ms", SLEEP_MS);
    let sleep_us = sleep_ms.clamp(SLEEP_MS_MIN, SLEEP_MS_MAX) * 1000;
    let site = setup.site("idlejitter.plugin", "");
    let (host, clock, stop) = (Arc::clone(&setup.host), setup.clock.clone(), stop.child());
    let interval_us = setup.every.micros();
    spawn("PLUGIN[idlejitter]", move || {
        let mut row = Row::new(&JITTER, When::Always);
        let sleep = Duration::from_micros(sleep_us.unsigned_abs());
        loop {
            let mut delays = Delays::NONE;
            let begun = clock.monotonic_us();
            let mut before = begun;
            while before - begun < interval_us {
                if stop.wait(sleep) {
                    return;
                }
                let after = clock.monotonic_us();
                delays.add((after - before - sleep_us).max(0));
                before = after;
            }
            if let Some(values) = delays.values() {
                row.collect(At::new(&site, clock.now()), &values);
                host.flush();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_summed_up() {
        let mut delays = Delays::NONE;
        assert_eq!(delays.values(), None);
        [70, 10, 40].into_iter().for_each(|us| delays.add(us));
        assert_eq!(delays.values(), Some([10, 70, 40]));
    }
}
