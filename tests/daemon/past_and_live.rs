//! Live samples while days of the past are on their way: the past never makes them late.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use netdata_rs::base::number::Sample;
use netdata_rs::base::threads::StopToken;
use netdata_rs::base::time::{Clock, UnixSeconds, UpdateEvery};
use netdata_rs::storage::dbengine::{Settings, Store, TierSettings};
use netdata_rs::storage::{MetricKey, StorageEngine};

use crate::harness::*;

const CHARTS: usize = 4;
const DIMENSIONS: [&str; 3] = ["a", "b", "c"];
const WEEK_S: i64 = 7 * 86_400;
/// The past ends so long before the test begins.
const REST_S: i64 = 60;
/// A live sample may be so old when it is seen at the parent.
const LATE_S: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(400);

fn value(chart: usize, dim: usize, at: i64) -> i64 {
    (at * 7 + chart as i64 * 31 + dim as i64) % 10_000
}

/// Puts a week of samples into the store of an agent that does not run.
fn prepare(agent: &Agent, until: i64) {
    let tiers = [1, 60, 3600].map(TierSettings::unlimited).to_vec();
    let settings = Settings { cache: agent.dir().join("cache"), tiers, sync_every: 5 };
    let store = Store::open(&settings, Clock::system()).unwrap();
    let stop = StopToken::new();
    for chart in 0..CHARTS {
        for (number, dimension) in DIMENSIONS.into_iter().enumerate() {
            let key = MetricKey {
                host: agent.guid.parse().unwrap(),
                chart: format!("own.c{chart}").as_str().into(),
                dimension: dimension.into(),
            };
            let mut metric = StorageEngine::open(&store, &key, UpdateEvery::SECOND).unwrap();
            for at in until - WEEK_S + 1..=until {
                let value = value(chart, number, at) as f64;
                metric.writer.store(UnixSeconds(at), Sample::normal(value));
            }
            // What is late has its bounds.
            drop(metric);
            store.flush_due(true).unwrap();
            store.chores(&stop);
        }
    }
    store.close().unwrap();
}

#[test]
fn a_week_of_the_past_does_not_make_live_samples_late() {
    let plugin = format!(
        "#!/bin/bash
for c in {{0..{last}}}; do
    echo \"CHART own.c$c '' 'Own' units own own.c line 1000 1\"
    for d in a b c; do echo \"DIMENSION $d '' absolute 1 1\"; done
done
while :; do
    for c in {{0..{last}}}; do printf 'BEGIN own.c%d\\nSET a = 1\\nSET b = 2\\nSET c = 3\\nEND\\n' $c; done
    sleep 1
done
",
        last = CHARTS - 1
    );
    let parent = Agent::new("parent")
        .mode("dbengine")
        .option("db", "seconds to replicate", "1209600")
        .takes_children_with("dbengine", "")
        .start();
    let child = Agent::new("child").mode("dbengine").plugin("own", &plugin);
    let child = child.streams_to(&[parent.port]);
    let until = now() - REST_S;
    prepare(&child, until);
    let child = child.start();
    parent.wait_live("child", "own.c0", 60);
    // From here on every second of each chart is watched for, until the past is there.
    let clock = Clock::system();
    let began = Instant::now();
    let from = now() + 2;
    let oldest = until - WEEK_S + 1;
    let mut seen: Vec<BTreeSet<i64>> = vec![BTreeSet::new(); CHARTS];
    // When each chart was looked at last: what is new then was not there at that time. How quick this test looks does not count.
    let mut looked = [0.0; CHARTS];
    let (mut ages, mut late) = (Vec::new(), Vec::new());
    let mut until_second = None;
    loop {
        assert!(began.elapsed() < PATIENCE, "the past does not come\n{}", parent.log_end());
        for (chart, seen) in seen.iter_mut().enumerate() {
            let id = format!("own.c{chart}");
            let look = clock.now().0 as f64 / 1e6;
            let last = until_second.unwrap_or_else(now);
            for (time, row) in parent.samples("child", &id, 1, from.max(now() - 20), last) {
                if !row.is_empty() && seen.insert(time) {
                    ages.push(clock.now().0 as f64 / 1e6 - time as f64);
                    if looked[chart] > time as f64 + LATE_S {
                        late.push(format!(
                            "{id} at {time}: not there {:.2} s later",
                            looked[chart] - time as f64
                        ));
                    }
                }
            }
            looked[chart] = look;
        }
        match until_second {
            None => {
                let first =
                    parent.json("/host/child/api/v1/chart?chart=own.c0")["first_entry"].as_i64();
                let filled = first.is_some_and(|first| first <= oldest + 1)
                    && parent.log().contains("nothing is known to be missing");
                until_second = filled.then(now);
            }
            // What is not there by then is missing.
            Some(last) if now() > last + 5 || seen.iter().all(|seen| seen.contains(&last)) => break,
            Some(_) => {}
        }
        pause(Duration::from_millis(50));
    }
    let (took, expected) = (began.elapsed(), ages.len());
    ages.sort_by(f64::total_cmp);
    eprintln!(
        "{} samples of the past in {took:?}; of {expected} live ones {} late; half after {:.2} s, the last after {:.2} s",
        WEEK_S * (CHARTS * DIMENSIONS.len()) as i64,
        late.len(),
        ages[ages.len() / 2],
        ages[ages.len() - 1],
    );
    // Nothing of the past is missing or wrong, as far as samples of it tell.
    for chart in 0..CHARTS {
        for at in (oldest + 100..until - 100).step_by(86_400 / 4) {
            let rows = parent.samples("child", &format!("own.c{chart}"), 1, at, at + 10);
            assert_eq!(rows.len(), 10, "own.c{chart} after {at}");
            for (time, row) in rows {
                let want = value(chart, 1, time).to_string();
                assert_eq!(row.get("b"), Some(&want), "own.c{chart} at {time}: {row:?}");
            }
        }
    }
    // Whatever of this time the child itself holds.
    let last = until_second.unwrap_or(from);
    for (chart, seen) in seen.iter().enumerate() {
        let id = format!("own.c{chart}");
        let held = child.samples("", &id, 1, from, last);
        let missing: Vec<_> =
            held.iter().filter(|(time, row)| !row.is_empty() && !seen.contains(time)).collect();
        assert!(held.len() > 3 && missing.is_empty(), "{id}: {missing:?} of {}", held.len());
    }
    assert!(expected > 0 && late.len() * 100 <= expected, "{} of {expected}: {late:?}", late.len());
    drop(child);
}
