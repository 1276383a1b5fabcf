//! A whole session of a plugin or child, from any bytes: nothing panics, and what was stored can be read.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use netdata_rs::base::ids::MachineGuid;
use netdata_rs::base::time::UnixMicros;
use netdata_rs::ingest::executor::{Executor, Nodes, Origin, Setup};
use netdata_rs::metrics::{Host, HostInfo, HostKind, HostSettings, Hosts};
use netdata_rs::storage::Mode;
use netdata_rs::storage::ring::RingEngine;
use netdata_rs::wire::caps::Capabilities;
use netdata_rs::wire::words::Lines;

fn host() -> Arc<Host> {
    let engine = Arc::new(RingEngine::in_memory(Mode::Ram, 64));
    let guid: MachineGuid = "11111111-2222-3333-4444-555555555555".parse().unwrap();
    Host::new(guid, HostKind::Local, HostInfo::named("h"), engine, HostSettings::default())
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let host = host();
    let nodes = Nodes {
        hosts: Hosts::new(Arc::clone(&host)),
        engine: Box::new(|_| Arc::new(RingEngine::in_memory(Mode::Ram, 64))),
        created: Box::new(|_| {}),
    };
    let setup = Setup { nodes: Some(Arc::new(nodes)), ..Setup::new(Arc::clone(&host)) };
    let old = Capabilities::CLABELS
        | Capabilities::HLABELS
        | Capabilities::CLAIM
        | Capabilities::FUNCTIONS;
    let new = old | Capabilities::INTERPOLATED | Capabilities::IEEE754 | Capabilities::PATHS;
    let origin = match kind % 4 {
        0 => Origin::Plugin,
        1 => Origin::Stream(old),
        2 => Origin::Stream(new),
        _ => Origin::Stream(new | Capabilities::SLOTS),
    };
    let mut executor = Executor::new(Setup { origin, ..setup });
    let mut lines = Lines::new();
    let mut now = 1_700_000_000_250_000;
    let _ = lines.feed(text, |line| {
        now += 100_000;
        executor.feed(line, UnixMicros(now))
    });
    executor.flush();
    for chart in host.charts() {
        let _ = chart.id();
    }
});
