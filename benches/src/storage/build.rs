//! Makes a large store through the storage API: every metric has samples in two windows, so points in all tiers.

use std::error::Error;
use std::path::Path;
use std::time::{Instant, SystemTime};

use netdata_rs::base::ids::MachineGuid;
use netdata_rs::base::number::Sample;
use netdata_rs::base::threads::StopToken;
use netdata_rs::base::time::{Clock, UnixSeconds, UpdateEvery};
use netdata_rs::storage::dbengine::{Settings, Store, TierSettings};
use netdata_rs::storage::{MetricKey, StorageEngine};

/// Samples of a metric per window.
const SAMPLES: i64 = 8;
/// Metrics opened between chores: their samples fit the log of late ones.
const BATCH: usize = 50_000;

/// Fills `cache` with charts `load.chart1` and so on, of ten dimensions each.
pub fn build(metrics: usize, host: uuid::Uuid, cache: &Path) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let tier = TierSettings::unlimited;
    let tiers = vec![tier(1), tier(60), tier(60)];
    let settings = Settings { cache: cache.to_owned(), tiers, sync_every: 3600 };
    let store = Store::open(&settings, Clock::system())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() as i64;
    let every = UpdateEvery::clamped(1);
    let host = MachineGuid(host);
    let stop = StopToken::new();
    for from in (0..metrics).step_by(BATCH) {
        for number in from..metrics.min(from + BATCH) {
            let key = MetricKey {
                host,
                chart: format!("load.chart{}", number / 10 + 1).into(),
                dimension: format!("dimension{}", number % 10 + 1).into(),
            };
            let mut writer = StorageEngine::open(&store, &key, every)?.writer;
            for window in [3, 1] {
                for second in 0..SAMPLES {
                    let at = UnixSeconds(now - window * 20_000 + second);
                    writer.store(at, Sample::normal((number as i64 * 3 + second) as f64));
                }
            }
        }
        store.flush_due(true)?;
        store.chores(&stop);
    }
    store.close()?;
    let bytes: Vec<u64> = store.disk_bytes();
    eprintln!(
        "a store of {metrics} metrics, {bytes:?} bytes in its tiers, in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
